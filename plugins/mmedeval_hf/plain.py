"""Scores continuations the plain way: whole sequences in padded batches. The reference, and the way that every model can go."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from mmedeval_hf.compute import MAX_LOGITS, Compute, Item, Scored


@dataclass(frozen=True, slots=True)
class Target:
    """Tokens to score: `tokens[j]` is predicted at position `start + j` of the row. `index` is the continuation's."""

    index: int
    start: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A sequence to compute once, with everything that is scored on it, for the item with this index."""

    item: int
    ids: list[int]
    targets: tuple[Target, ...]

    @property
    def first(self) -> int:
        return min(target.start for target in self.targets)


class PlainScorer:
    def __init__(self, compute: Compute) -> None:
        self.compute = compute

    def score(self, items: Sequence[Item]) -> Iterator[Scored]:
        """Every item once, as soon as its last row is done."""
        grouped = [rows(index, item.context, item.continuations) for index, item in enumerate(items)]
        # Longest first: what does not fit into memory shows at once, and the progress bar errs on the safe side.
        grouped.sort(key=lambda group: (-len(group[0].ids), group[0].item))
        missing = {group[0].item: len(group) for group in grouped}
        values: dict[int, dict[int, float]] = {index: {} for index in missing}
        seconds = dict.fromkeys(missing, 0.0)
        failed: set[int] = set()
        for batch in self._batches([row for group in grouped for row in group]):
            for row, scores, took in self._compute(batch):
                seconds[row.item] += took
                missing[row.item] -= 1
                if scores is None:
                    failed.add(row.item)
                else:
                    values[row.item].update(zip((target.index for target in row.targets), scores, strict=True))
                if missing[row.item] == 0:
                    done = values.pop(row.item)
                    whole = None if row.item in failed else [done[i] for i in range(len(done))]
                    yield Scored(row.item, whole, seconds[row.item])

    def _batches(self, ordered: Sequence[Row]) -> Iterator[list[Row]]:
        """Neighbours in length together, within the token budget, the row limit and the memory for logits."""
        batch: list[Row] = []
        width = first = 0
        for row in ordered:
            new_width, new_first = max(width, len(row.ids)), min(first, row.first) if batch else row.first
            size = len(batch) + 1
            full = (
                size * new_width > self.compute.tokens_at_once
                or size > self.compute.rows_at_once
                or size * (new_width - new_first) * self.compute.vocabulary > MAX_LOGITS
            )
            if batch and full:
                yield batch
                batch, new_width, new_first = [], len(row.ids), row.first
            batch.append(row)
            width, first = new_width, new_first
        if batch:
            yield batch

    def _compute(self, batch: Sequence[Row]) -> Iterator[tuple[Row, list[float] | None, float]]:
        """The scores of a batch, in halves where memory runs out."""
        started = time.perf_counter()
        scores = self.compute.attempt(lambda: self._forward(batch))
        if scores is None and len(batch) > 1:
            self.compute.halve(sum(len(row.ids) for row in batch))
            half = len(batch) // 2
            yield from self._compute(batch[:half])
            yield from self._compute(batch[half:])
            return
        seconds = time.perf_counter() - started
        total = sum(len(row.ids) for row in batch)
        for i, row in enumerate(batch):
            yield row, None if scores is None else scores[i], seconds * len(row.ids) / total

    def _forward(self, batch: Sequence[Row]) -> list[list[float]]:
        """For each row, the loglikelihood of each of its targets. Padding stands behind, where no token looks."""
        compute = self.compute
        width = max(len(row.ids) for row in batch)
        ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in batch], device=compute.device)
        mask = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in batch], device=compute.device)
        extra = {"logits_to_keep": width - min(row.first for row in batch)} if compute.can_slice else {}
        logits = compute.model(input_ids=ids, attention_mask=mask, use_cache=False, **extra).logits
        compute.tokens += ids.numel()
        offset = width - logits.shape[1]
        where = [
            (i, target.start + j - offset, token)
            for i, row in enumerate(batch)
            for target in row.targets
            for j, token in enumerate(target.tokens)
        ]
        which = torch.tensor(where, device=logits.device)
        picked = logits[which[:, 0], which[:, 1]].float()
        scores = iter((picked.gather(1, which[:, 2:3]).squeeze(1) - picked.logsumexp(1)).tolist())
        return [[sum(next(scores) for _ in target.tokens) for target in row.targets] for row in batch]


def rows(item: int, context: list[int], continuations: Sequence[list[int]]) -> list[Row]:
    """The fewest sequences on which all continuations can be scored: one that begins another is scored on the longer."""
    ordered = sorted(range(len(continuations)), key=lambda i: continuations[i][:-1])
    groups: list[tuple[list[int], list[int]]] = []
    for i in reversed(ordered):
        read = continuations[i][:-1]
        if groups and groups[-1][0][: len(read)] == read:
            groups[-1][1].append(i)
        else:
            groups.append((read, [i]))
    start = len(context) - 1
    found = [
        Row(item, context + read, tuple(Target(i, start, tuple(continuations[i])) for i in members)) for read, members in groups
    ]
    return sorted(found, key=lambda row: -len(row.ids))
