"""Decides whether a faster way may be gone: its first results must be those of the plain way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mmedeval import BackendError
from mmedeval_hf.compute import Compute

# How far the two ways may differ on one loglikelihood; half precision rounds attention in another order.
TOLERANCE, TOLERANCE_HALF = 1e-4, 2e-2
# What a model raises that takes no 4-D mask, no position ids, or no cache of ours.
NOT_SUPPORTED = (BackendError, TypeError, ValueError, AttributeError, NotImplementedError, KeyError, IndexError)
PLAIN, VERIFIED = "plain", "verified against the plain way"
# The plain way computes shared tokens again and again: so many items are compared at most, and beyond the first one no more than
# this part of all tokens.
COMPARED_ITEMS, COMPARED_SHARE = 4, 0.02


@dataclass(frozen=True, slots=True)
class Way:
    """How items are computed, and why so."""

    way: str
    why: str
    verified_items: int = 0
    largest_difference: float | None = None

    @property
    def fast(self) -> bool:
        return self.way != PLAIN

    def describe(self) -> dict[str, Any]:
        return asdict(self)


def barred(compute: Compute, *, sharing: bool, longest: int) -> Way | None:
    """The plain way, where items of which the longest has so many tokens may not go a faster one; else `None`."""
    if not sharing:
        return Way(PLAIN, "asked for")
    for size, what in turns(compute.model.config.get_text_config()):
        if longest > size:
            # The fast way knows nothing of it; a few items could agree by chance.
            return Way(PLAIN, f"the model {what} {size} tokens, the longest item has {longest}")
    return None


def unsupported(fast: str, error: Exception) -> Way:
    return Way(PLAIN, f"the model does not take what {fast} needs ({type(error).__name__})")


def together(fast: str, ways: Iterable[Way]) -> Way:
    """The way of items of several kinds: the plain one as soon as that is the way of one kind."""
    ways = [*ways]
    plain = next((way for way in ways if not way.fast), None)
    if plain is not None:
        return plain
    differences = [way.largest_difference for way in ways if way.largest_difference is not None]
    return Way(fast, VERIFIED, sum(way.verified_items for way in ways), max(differences, default=None))


def judge(compute: Compute, fast: str, pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Way:
    """The way that follows from loglikelihoods of the same items, computed the fast way and the plain one."""
    differences = [abs(a - b) for pair in pairs for a, b in zip(*pair, strict=True)]
    if not differences:
        return Way(PLAIN, "too little memory to compare")
    # `max` passes over what is no number.
    worst = max(differences) if all(map(math.isfinite, differences)) else math.inf
    full = compute.model.dtype in (torch.float32, torch.float64)
    if worst > (TOLERANCE if full else TOLERANCE_HALF):
        return Way(PLAIN, f"{fast} changes loglikelihoods by {worst:.2g}", len(pairs), worst)
    return Way(fast, VERIFIED, len(pairs), worst)


def telling(lengths: Sequence[int], total: int) -> list[int]:
    """Which items are compared, of some ordered by what they show: the first, the last, and more while that costs little.

    `lengths` are their tokens; `total` is the number of tokens that are computed in all.
    """
    order = [*range(len(lengths))]
    order = [*order[:1], *order[1:][-1:], *order[1:-1]]
    chosen, spent = order[:1], sum(lengths[i] for i in order[:1])
    for i in order[1:COMPARED_ITEMS]:
        spent += lengths[i]
        if spent <= COMPARED_SHARE * total:
            chosen.append(i)
    return chosen


def turns(config: Any) -> list[tuple[int, str]]:
    """The lengths beyond which some layer works otherwise for tokens that were there already, and what it does then."""
    found: list[tuple[int, str]] = []
    if getattr(config, "use_sliding_window", True) is not False:
        sizes = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        found += [(size, "attends to no more than") for size in sizes if isinstance(size, int) and size > 0]
    rotary = getattr(config, "rope_parameters", None) or {}
    # Some models have several, by the kind of layer.
    for each in [rotary, *(part for part in rotary.values() if isinstance(part, dict))]:
        if each.get("rope_type") in ("dynamic", "longrope"):
            size = each.get("original_max_position_embeddings") or config.max_position_embeddings
            found.append((int(size), "turns its positions otherwise beyond"))
    return found
