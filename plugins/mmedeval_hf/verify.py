"""Decides whether the fast way may be gone: it is where it was seen to give the same numbers as the plain one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mmedeval import BackendError
from mmedeval_hf.compute import Compute, Item
from mmedeval_hf.tokens import common_prefix
from mmedeval_hf.tree import branch

# How far the two ways may differ on one loglikelihood; half precision rounds attention in another order.
TOLERANCE, TOLERANCE_HALF = 1e-4, 2e-2
# What a model raises that takes no 4-D mask, no position ids, or no cache of ours.
NOT_SUPPORTED = (BackendError, TypeError, ValueError, AttributeError, NotImplementedError, KeyError, IndexError)
PLAIN = "plain"


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


def choose_way(
    compute: Compute, fast: str, items: Sequence[Item], *, longest: int, measure: Callable[[list[Item]], list[float] | None]
) -> Way:
    """`fast` or plain, for items of which the longest has so many tokens.

    `measure` computes a few items both ways and returns the differences, none where memory did not suffice. That is done once per
    loaded model.
    """
    if not items:
        return Way(PLAIN, "nothing to compute")
    window = attention_window(compute)
    if window is not None and longest > window:
        # The fast way's mask knows no window; a few items could agree by chance.
        return Way(PLAIN, f"the model attends to {window} tokens at a time, the longest item has {longest}")
    if fast not in compute.ways:
        compute.ways[fast] = _verify(compute, fast, telling(items), measure)
    return compute.ways[fast]


def _verify(compute: Compute, fast: str, probe: list[Item], measure: Callable[[list[Item]], list[float] | None]) -> Way:
    try:
        differences = measure(probe)
    except NOT_SUPPORTED as error:
        return Way(PLAIN, f"the model does not take what {fast} needs ({type(error).__name__})")
    if not differences:
        return Way(PLAIN, "too little memory to compare")
    # `max` passes over what is no number.
    difference = max(differences) if all(map(math.isfinite, differences)) else math.inf
    full = compute.model.dtype in (torch.float32, torch.float64)
    if difference > (TOLERANCE if full else TOLERANCE_HALF):
        return Way(PLAIN, f"{fast} changes loglikelihoods by {difference:.2g}", len(probe), difference)
    return Way(fast, "verified against the plain way", len(probe), difference)


def telling(items: Sequence[Item]) -> list[Item]:
    """A few items that show differences: the longest, the shortest, the longest that branches, and the two that share most."""
    if len(items) < 2:
        return list(items)
    order = sorted(range(len(items)), key=lambda i: items[i].context)
    pair = max(itertools.pairwise(order), key=lambda ab: common_prefix(items[ab[0]].context, items[ab[1]].context))
    longest = max(order, key=lambda i: len(items[i].context))
    shortest = min(order, key=lambda i: len(items[i].context))
    branched = max(order, key=lambda i: (_branches(items[i]), items[i].longest))
    return [items[i] for i in dict.fromkeys([*pair, longest, shortest, branched])]


def _branches(item: Item) -> bool:
    """Whether the continuations make a tree and not one line."""
    row = branch(0, item.context, item.continuations)
    return row.straight < len(row.tokens)


def attention_window(compute: Compute) -> int | None:
    """The fewest tokens that some layer of the model looks back on; `None` where all look back on everything."""
    config = compute.model.config.get_text_config()
    if getattr(config, "use_sliding_window", True) is False:
        return None
    sizes = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((size for size in sizes if isinstance(size, int) and size > 0), default=None)


def differences(ours: Iterable[Sequence[float]], plain: Iterable[Sequence[float]]) -> list[float]:
    return [abs(a - b) for pair in zip(ours, plain, strict=True) for a, b in zip(*pair, strict=True)]
