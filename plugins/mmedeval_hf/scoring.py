"""Scores continuations: sharing prefixes where that was seen to give the same numbers, else the plain way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from mmedeval_hf.compute import Compute, Item, Scored
from mmedeval_hf.plain import PlainScorer
from mmedeval_hf.tree import TreeScorer, distinct_tokens
from mmedeval_hf.verify import NOT_SUPPORTED, PLAIN, Way, judge, known_way, telling, unsupported

FAST = "shared prefixes"


class Scorer:
    """`way` tells, from the first result on, how the items are computed."""

    def __init__(self, compute: Compute, *, sharing: bool) -> None:
        self.compute, self.sharing = compute, sharing
        self.plain, self.tree = PlainScorer(compute), TreeScorer(compute)
        self.way = Way(PLAIN, "nothing to compute")

    def score(self, items: Sequence[Item]) -> Iterator[Scored]:
        """Every item once, in any order."""
        if not items:
            return
        before = self.compute.tokens
        batches = self.tree.batches(items)
        way = known_way(self.compute, FAST, sharing=self.sharing, longest=max(item.longest for item in items))
        held: list[Scored] = []
        if way is None:
            try:
                held = next(batches)
            except NOT_SUPPORTED as error:
                way = unsupported(self.compute, FAST, error)
            else:
                way = self._compare(items, held)
        self.way = way
        if way.fast:
            yield from chain(held, chain.from_iterable(batches))
        else:
            # Frees what the fast way holds.
            batches.close()
            self.compute.tokens = before
            yield from self.plain.score(items)

    def _compare(self, items: Sequence[Item], first: Sequence[Scored]) -> Way:
        """The first results beside those of the plain way; of an item with many continuations, the first and the longest one."""
        ours = {scored.index: scored.values for scored in first if scored.values is not None}
        pairs = []
        with self.compute.uncounted():
            for i in telling(items, [*ours], distinct_tokens(items)) if ours else ():
                item = items[i]
                some = sorted({0, max(range(len(item.continuations)), key=lambda c: len(item.continuations[c]))})
                part = Item(item.context, [item.continuations[c] for c in some])
                (scored,) = self.plain.score([part])
                if scored.values is not None:
                    pairs.append(([ours[i][c] for c in some], scored.values))
        return judge(self.compute, FAST, pairs)
