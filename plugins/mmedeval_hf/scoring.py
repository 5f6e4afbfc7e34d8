"""Chooses how continuations are scored: sharing prefixes where that was seen to give the same numbers, else the plain way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from mmedeval_hf.compute import Compute, Item, Scored
from mmedeval_hf.plain import PlainScorer
from mmedeval_hf.tree import TreeScorer
from mmedeval_hf.verify import PLAIN, Way, choose_way, differences


class Scorer(Protocol):
    def score(self, items: Sequence[Item]) -> Iterator[Scored]:
        """Every item once, in any order."""


def choose_scorer(compute: Compute, items: Sequence[Item], *, sharing: bool) -> tuple[Way, Scorer]:
    """The scorer for these items."""
    plain = PlainScorer(compute)
    if not sharing:
        return Way(PLAIN, "asked for"), plain
    tree = TreeScorer(compute)

    def measure(probe: list[Item]) -> list[float] | None:
        pairs = zip(_by_index(tree, probe), _by_index(plain, probe), strict=True)
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        return differences(*zip(*both, strict=True)) if both else None

    way = choose_way(compute, "shared prefixes", items, longest=max((item.longest for item in items), default=0), measure=measure)
    return way, tree if way.fast else plain


def _by_index(scorer: Scorer, items: Sequence[Item]) -> list[list[float] | None]:
    found = {scored.index: scored.values for scored in scorer.score(items)}
    return [found[i] for i in range(len(items))]
