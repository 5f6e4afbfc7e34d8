"""Chooses how continuations are scored: sharing prefixes where that was seen to give the same numbers, else the plain way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import torch

from mmedeval import BackendError
from mmedeval_hf.compute import Compute, Item, Scored
from mmedeval_hf.plain import PlainScorer
from mmedeval_hf.tokens import common_prefix
from mmedeval_hf.tree import TreeScorer, distinct_tokens

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
    probe = telling(items)
    try:
        shared = _by_index(TreeScorer(compute), probe)
    except NOT_SUPPORTED as error:
        return way(f"the model does not take a tree of tokens ({type(error).__name__})")
    reference = _by_index(plain, probe)
    both = [(a, b) for a, b in zip(shared, reference, strict=True) if a is not None and b is not None]
    if len(both) < len(probe):
        return way("too little memory to compare")
    pairs = [pair for a, b in both for pair in zip(a, b, strict=True)]
    difference = max((abs(a - b) for a, b in pairs), default=0.0)
    tolerance = TOLERANCE if compute.model.dtype in (torch.float32, torch.float64) else TOLERANCE_HALF
    # Not `>`: a difference that is no number is none to trust.
    if not difference <= tolerance:
        return way(f"sharing changes loglikelihoods by {difference:.2g}", len(probe), difference)
    return way("verified against the plain way", len(probe), difference, shared=True)


def telling(items: Sequence[Item]) -> list[Item]:
    """A few items that show differences: the longest, the shortest, the most branched, and the two that share most."""
    if len(items) < 2:
        return list(items)
    order = sorted(range(len(items)), key=lambda i: items[i].context)
    pair = max(itertools.pairwise(order), key=lambda ab: common_prefix(items[ab[0]].context, items[ab[1]].context))
    longest = max(order, key=lambda i: len(items[i].context))
    shortest = min(order, key=lambda i: len(items[i].context))
    branched = max(order, key=lambda i: len(items[i].continuations))
    return [items[i] for i in dict.fromkeys([*pair, longest, shortest, branched])]


def _by_index(scorer: Scorer, items: Sequence[Item]) -> list[list[float] | None]:
    found = {scored.index: scored.values for scored in scorer.score(items)}
    return [found[i] for i in range(len(items))]
