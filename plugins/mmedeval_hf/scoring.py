"""Chooses how continuations are scored: sharing prefixes where that was seen to give the same numbers, else the plain way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import torch

from mmedeval import BackendError
from mmedeval_hf.compute import Compute, Item, Scored
from mmedeval_hf.plain import PlainScorer
from mmedeval_hf.tokens import common_prefix
from mmedeval_hf.tree import TreeScorer, branch, distinct_tokens

# How far the two ways may differ on one continuation; half precision rounds attention in another order.
TOLERANCE, TOLERANCE_HALF = 1e-4, 2e-2
# What a model raises that takes no 4-D mask, no position ids, or no cache of ours.
NOT_SUPPORTED = (BackendError, TypeError, ValueError, AttributeError, NotImplementedError, KeyError, IndexError)


class Scorer(Protocol):
    def score(self, items: Sequence[Item]) -> Iterator[Scored]:
        """Every item once, in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the items of this process were scored, for the record."""

    way: Literal["shared prefixes", "plain"]
    why: str
    verified_items: int
    largest_difference: float | None
    distinct_tokens: int

    def describe(self, computed: int) -> dict[str, Any]:
        ratio = round(computed / self.distinct_tokens, 4) if self.distinct_tokens else None
        return {**asdict(self), "computed_tokens": computed, "computed_per_distinct": ratio}


def choose_scorer(compute: Compute, items: Sequence[Item], *, sharing: bool) -> tuple[Way, Scorer]:
    """The scorer for these items. A few of them are scored both ways first; a model for which these differ goes the plain way."""
    distinct = distinct_tokens(items)
    plain = PlainScorer(compute)

    def way(why: str, verified: int = 0, difference: float | None = None, *, shared: bool = False) -> tuple[Way, Scorer]:
        compute.tokens = 0
        found = Way(
            way="shared prefixes" if shared else "plain",
            why=why,
            verified_items=verified,
            largest_difference=difference,
            distinct_tokens=distinct,
        )
        return found, TreeScorer(compute) if shared else plain

    if not sharing:
        return way("asked for")
    if not items:
        return way("nothing to score")
    window, longest = attention_window(compute), max(len(fed) for item in items for fed in item.fed)
    if window is not None and longest > window:
        # The tree's mask knows no window; a few items could agree by chance.
        return way(f"the model attends to {window} tokens at a time, the longest item has {longest}")
    probe = telling(items)
    try:
        shared = _by_index(TreeScorer(compute), probe)
    except NOT_SUPPORTED as error:
        return way(f"the model does not take a tree of tokens ({type(error).__name__})")
    reference = _by_index(plain, probe)
    both = [(a, b) for a, b in zip(shared, reference, strict=True) if a is not None and b is not None]
    if not both:
        return way("too little memory to compare")
    differences = [abs(a - b) for pair in both for a, b in zip(*pair, strict=True)]
    # `max` passes over what is no number.
    difference = max(differences) if all(map(math.isfinite, differences)) else math.inf
    tolerance = TOLERANCE if compute.model.dtype in (torch.float32, torch.float64) else TOLERANCE_HALF
    if difference > tolerance:
        return way(f"sharing changes loglikelihoods by {difference:.2g}", len(probe), difference)
    return way("verified against the plain way", len(probe), difference, shared=True)


def telling(items: Sequence[Item]) -> list[Item]:
    """A few items that show differences: the longest, the shortest, the longest that branches, and the two that share most."""
    if len(items) < 2:
        return list(items)
    order = sorted(range(len(items)), key=lambda i: items[i].context)
    pair = max(itertools.pairwise(order), key=lambda ab: common_prefix(items[ab[0]].context, items[ab[1]].context))
    longest = max(order, key=lambda i: len(items[i].context))
    shortest = min(order, key=lambda i: len(items[i].context))
    branched = max(order, key=lambda i: (_branches(items[i]), max(map(len, items[i].fed))))
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


def _by_index(scorer: Scorer, items: Sequence[Item]) -> list[list[float] | None]:
    found = {scored.index: scored.values for scored in scorer.score(items)}
    return [found[i] for i in range(len(items))]
