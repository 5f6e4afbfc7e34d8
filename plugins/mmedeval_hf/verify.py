"""Decides whether a faster way may be gone: its first results must be those of the plain way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mmedeval import BackendError
from mmedeval_hf.compute import Compute, Item

# How far the two ways may differ on one loglikelihood; half precision rounds attention in another order.
TOLERANCE, TOLERANCE_HALF = 1e-4, 2e-2
# What a model raises that takes no 4-D mask, no position ids, or no cache of ours.
NOT_SUPPORTED = (BackendError, TypeError, ValueError, AttributeError, NotImplementedError, KeyError, IndexError)
PLAIN = "plain"
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


def known_way(compute: Compute, fast: str, *, sharing: bool, longest: int) -> Way | None:
    """The way for items of which the longest has so many tokens; `None` where the fast one has yet to be tried."""
    if not sharing:
        return Way(PLAIN, "asked for")
    for size, what in turns(compute.model.config.get_text_config()):
        if longest > size:
            # The fast way knows nothing of it; a few items could agree by chance.
            return Way(PLAIN, f"the model {what} {size} tokens, the longest item has {longest}")
    return compute.ways.get(fast)


def unsupported(compute: Compute, fast: str, error: Exception) -> Way:
    return _keep(compute, fast, Way(PLAIN, f"the model does not take what {fast} needs ({type(error).__name__})"))


def judge(compute: Compute, fast: str, pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Way:
    """The way that follows from loglikelihoods of the same items, computed the fast way and the plain one."""
    differences = [abs(a - b) for pair in pairs for a, b in zip(*pair, strict=True)]
    if not differences:
        return _keep(compute, fast, Way(PLAIN, "too little memory to compare"))
    # `max` passes over what is no number.
    worst = max(differences) if all(map(math.isfinite, differences)) else math.inf
    full = compute.model.dtype in (torch.float32, torch.float64)
    if worst > (TOLERANCE if full else TOLERANCE_HALF):
        return _keep(compute, fast, Way(PLAIN, f"{fast} changes loglikelihoods by {worst:.2g}", len(pairs), worst))
    return _keep(compute, fast, Way(fast, "verified against the plain way", len(pairs), worst))


def _keep(compute: Compute, fast: str, way: Way) -> Way:
    compute.ways[fast] = way
    return way


def telling(items: Sequence[Item], indices: Sequence[int], total: int) -> list[int]:
    """Those of the items that show most and are compared: the longest, the shortest, and more, as long as that costs little.

    `total` is the number of tokens that are computed in all.
    """
    order = sorted(indices, key=lambda i: (-items[i].longest, i))
    order = [*order[:1], *order[-1:], *order[1:-1]][:COMPARED_ITEMS] if len(order) > 1 else order
    chosen, spent = order[:1], items[order[0]].longest
    for i in order[1:]:
        spent += items[i].longest
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
