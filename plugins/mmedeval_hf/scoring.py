"""Scores continuations: sharing prefixes where that was seen to give the same numbers, else the plain way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mmedeval_hf.compute import Compute, Item, Scored
from mmedeval_hf.plain import PlainScorer
from mmedeval_hf.tree import BEHIND, Batch, TreeScorer, distinct_tokens
from mmedeval_hf.verify import NOT_SUPPORTED, PLAIN, Way, barred, judge, telling, together, unsupported

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
        left = dict.fromkeys(range(len(items)))
        way = barred(self.compute, sharing=self.sharing, longest=max(item.longest for item in items))
        if way is None:
            for scored in self._shared(items):
                del left[scored.index]
                yield scored
        else:
            self.way = way
        rest = [*left]
        for scored in self.plain.score([items[i] for i in rest]):
            yield replace(scored, index=rest[scored.index])

    def _shared(self, items: Sequence[Item]) -> Iterator[Scored]:
        """Scores up to the first batch of a kind that this model does not compute as the plain way does."""
        batches, ways = self.tree.batches(items), self.compute.ways
        total = distinct_tokens(items)
        seen: dict[str, Way] = {}
        while True:
            before, kind = self.compute.tokens, BEHIND
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                kind = batch.kind
                known = ways.get(kind)
                found = self.tree.score(batch) if known is None or known.fast else []
            except NOT_SUPPORTED as error:
                if any(way.fast and each.startswith(kind) for each, way in ways.items()):
                    # It has worked before.
                    raise
                known, found = unsupported(FAST, error), []
            else:
                if known is None and any(scored.values for scored in found):
                    known = self._compare(items, batch, found, total)
            if known is not None:
                ways[kind] = seen[kind] = known
                self.way = together(FAST, seen.values())
            if not self.way.fast:
                # What was computed in vain is no part of the run's work.
                self.compute.tokens = before
                return
            yield from found

    def _compare(self, items: Sequence[Item], batch: Batch, found: Sequence[Scored], total: int) -> Way:
        """The results of a batch beside those of the plain way; of an item's continuations, the one that shows most."""
        ours = {scored.index: scored.values for scored in found if scored.values is not None}
        rows = sorted((row for row in batch.rows if row.item in ours), key=lambda row: (row.straight - len(row.tokens), row.item))
        pairs = []
        with self.compute.uncounted():
            for n in telling([items[row.item].longest for row in rows], total):
                row = rows[n]
                item = items[row.item]
                # The last place of the row that predicts something is the furthest from the straight line.
                furthest = max(range(len(row.targets)), key=lambda c: row.targets[c][-1][0])
                (scored,) = self.plain.score([Item(item.context, [item.continuations[furthest]])])
                if scored.values is not None:
                    pairs.append(([ours[row.item][furthest]], scored.values))
        return judge(self.compute, FAST, pairs)
