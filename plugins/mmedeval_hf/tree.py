"""Scores continuations so that no shared token is computed twice.

All sequences of a run form a tree: solved examples shared by a task, then the questions, then the continuations of each question.
The first part is encoded once per group of questions and its keys and values are kept; a question and all its continuations are
one row behind it, in which a token sees its own ancestors only (a 4-D attention mask and position ids, as in "SpecInfer", Miao et
al. 2024, section 4.2).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache

from mmedeval.tokens import common_prefix
from mmedeval_hf.attention import SHARED_PREFIX, PrefixLayer, fits_long_queries
from mmedeval_hf.compute import MAX_LOGITS, Compute, Item, Scored

# Rows of a batch are padded to the longest; more than this share of padding starts another batch.
MAX_PADDING = 0.01
# A prefix that saves a smaller part of a group's tokens stays in front of each row: attention in two parts costs more.
SHORTEST_SHARE = 1 / 32
BEHIND, WHOLE = "rows behind a prefix", "whole rows"
# A group of its own must save this part of a batch: it ends the batches before it early.
GROUP_SHARE = 16


@dataclass(frozen=True, slots=True)
class Branch:
    """An item behind a shared prefix: its tokens in an order in which parents come first.

    `parents[i]` is the place of the token before token i, -1 for the end of the prefix. `targets[c]` lists, for continuation c,
    the places from which its tokens are predicted, and the tokens. The first `straight` tokens follow each other in one line;
    only behind them does the tree branch.
    """

    item: int
    tokens: list[int]
    parents: list[int]
    targets: list[list[tuple[int, int]]]
    straight: int

    @property
    def scored(self) -> set[int]:
        """The places from which something is predicted."""
        return {place for path in self.targets for place, _ in path}


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to compute together, behind the keys and values of the prefix that they share (of none, where that is empty)."""

    rows: list[Branch]
    prefix: list[PrefixLayer]
    length: int
    """Tokens of the prefix."""
    shared: float
    """Seconds that the prefix took, for each row's part of it."""

    @property
    def kind(self) -> str:
        """What of the model this batch needs."""
        branched = any(row.straight < len(row.tokens) for row in self.rows)
        return f"{BEHIND if self.prefix else WHOLE}, {'branched' if branched else 'straight'}"

    @property
    def tokens(self) -> int:
        return sum(len(row.tokens) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Group:
    """Items, by index, whose contexts all begin with `prefix`."""

    prefix: list[int]
    members: list[int]

    def rank(self) -> tuple[int, int]:
        """Groups that share most come first."""
        return -len(self.prefix) * (len(self.members) - 1), -len(self.members)


def branch(item: int, context: Sequence[int], continuations: Sequence[Sequence[int]]) -> Branch:
    """The row for a context (behind the prefix; at least one token) and its continuations."""
    tokens, parents = list(context), list(range(-1, len(context) - 1))
    end = len(tokens) - 1
    children: dict[tuple[int, int], int] = {}
    targets = []
    for continuation in continuations:
        place, path = end, []
        for i, token in enumerate(continuation):
            path.append((place, token))
            if i == len(continuation) - 1:
                break
            key = (place, token)
            if key not in children:
                children[key] = len(tokens)
                tokens.append(token)
                parents.append(place)
            place = children[key]
        targets.append(path)
    straight = next((i for i, parent in enumerate(parents) if parent != i - 1), len(tokens))
    return Branch(item, tokens, parents, targets, straight)


def distinct_tokens(items: Sequence[Item]) -> int:
    """The number of nodes of the tree of all sequences: what cannot be avoided to compute."""
    contexts = sorted(item.context for item in items)
    shared = sum(common_prefix(a, b) for a, b in itertools.pairwise(contexts))
    # Behind its context each item has a tree of its own.
    nodes = sum(len({tuple(c[:i]) for c in item.continuations for i in range(1, len(c))}) for item in items)
    return sum(map(len, contexts)) - shared + nodes


def group(items: Sequence[Item], *, overhead: int = 0) -> list[Group]:
    """Items in groups with a common prefix each, such that as few tokens as possible are computed.

    The contexts in order are split where neighbours share least, as long as the parts save more than the whole: more by
    `overhead` tokens for each part.
    """
    order = sorted(range(len(items)), key=lambda i: items[i].context)
    contexts = [items[i].context for i in order]
    # At least one token of each context stays behind its prefix: it predicts the first token of the continuations.
    shared = [min(common_prefix(a, b), len(a) - 1, len(b) - 1) for a, b in itertools.pairwise(contexts)]
    groups: list[Group] = []
    stack = [(0, len(order))]
    while stack:
        start, stop = stack.pop()
        inner = shared[start : stop - 1]
        length = min(inner, default=0)
        cuts = [start, *(start + 1 + i for i, value in enumerate(inner) if value == length), stop]
        parts = list(itertools.pairwise(cuts))
        saved = (stop - start - 1) * length
        apart = sum((b - a - 1) * min(shared[a : b - 1], default=0) for a, b in parts)
        if len(parts) > 1 and apart - overhead * len(parts) > saved:
            stack += parts
        else:
            groups.append(Group(contexts[start][:length], order[start:stop]))
    return groups


def encode_prefix(compute: Compute, prefix: Sequence[int]) -> Cache:
    """The prefix's keys and values, layer by layer."""
    cache = DynamicCache()
    ids = torch.tensor([list(prefix)], device=compute.device)
    extra = {"logits_to_keep": 1} if compute.can_slice else {}
    compute.model(input_ids=ids, past_key_values=cache, use_cache=True, **extra)
    compute.tokens += len(prefix)
    return cache


class TreeScorer:
    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self.apart = fits_long_queries(compute.model)

    def batches(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Every item once; groups that share most come first, and their prefixes are computed on the way."""
        groups = group(items, overhead=self.compute.tokens_at_once // GROUP_SHARE)
        for each in sorted(groups, key=Group.rank):
            started = time.perf_counter()
            total = sum(items[i].longest for i in each.members)
            worth = len(each.prefix) * (len(each.members) - 1) > SHORTEST_SHARE * total
            prefix = self._encode(each.prefix) if worth else []
            length = len(each.prefix) if prefix else 0
            shared = (time.perf_counter() - started) / len(each.members)
            rows = [branch(i, items[i].context[length:], items[i].continuations) for i in each.members]
            rows.sort(key=lambda row: (-len(row.tokens), row.item))
            for batch in self._batches(rows, length):
                yield Batch(batch, prefix, length, shared)

    def _encode(self, prefix: Sequence[int]) -> list[PrefixLayer]:
        """The prefix's keys and values; empty where there is no prefix, or no memory for it."""
        cache = self.compute.attempt(lambda: encode_prefix(self.compute, prefix))
        return [] if cache is None else [PrefixLayer(layer, apart=self.apart) for layer in cache.layers]

    def _batches(self, rows: Sequence[Branch], length: int) -> Iterator[list[Branch]]:
        """Neighbours in length together: little padding, and within the budgets for tokens, cache and logits."""
        batch: list[Branch] = []
        filled = scored = 0
        kept = 0 if self.apart else length
        for row in rows:
            width, size = len((batch or [row])[0].tokens), len(batch) + 1
            full = (
                size * width > self.compute.tokens_at_once
                or size > self.compute.rows_at_once
                or size * (kept + width) > self.compute.cache_tokens
                or (scored + len(row.scored)) * self.compute.vocabulary > MAX_LOGITS
                or size * width - filled - len(row.tokens) > MAX_PADDING * size * width
            )
            if batch and full:
                yield batch
                batch, filled, scored = [], 0, 0
            batch.append(row)
            filled, scored = filled + len(row.tokens), scored + len(row.scored)
        if batch:
            yield batch

    def score(self, batch: Batch) -> list[Scored]:
        """The scores of a batch, in halves where memory runs out."""
        started = time.perf_counter()
        values = self.compute.attempt(lambda: self._forward(batch.rows, batch.prefix, batch.length))
        if values is None and len(batch.rows) > 1:
            self.compute.halve(batch.tokens)
            half = len(batch.rows) // 2
            parts = [replace(batch, rows=batch.rows[:half]), replace(batch, rows=batch.rows[half:])]
            return [scored for part in parts for scored in self.score(part)]
        seconds = (time.perf_counter() - started) / batch.tokens
        return [
            Scored(row.item, None if values is None else values[i], seconds * len(row.tokens) + batch.shared)
            for i, row in enumerate(batch.rows)
        ]

    def _forward(self, batch: Sequence[Branch], prefix: list[PrefixLayer], length: int) -> list[list[float]]:
        compute = self.compute
        width = max(len(row.tokens) for row in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        # Padding goes on counting (a position that falls back reads as the start of another sequence), but no further than the
        # deepest token: a row of many branches is longer than any path through it, and positions may end there.
        deepest = max(max(_depths(row, length)) for row in batch)
        positions = torch.arange(length, length + width).clamp(max=deepest).repeat(len(batch), 1)
        for i, row in enumerate(batch):
            ids[i, : len(row.tokens)] = torch.tensor(row.tokens)
            if row.straight < len(row.tokens):
                positions[i, : len(row.tokens)] = torch.tensor(_depths(row, length))
        arguments: dict[str, Any] = {"input_ids": ids.to(compute.device), "position_ids": positions.to(compute.device)}
        apart = self.apart and bool(prefix)
        # Without a branch plain causal attention is right, and faster: padding stands behind, where no token looks.
        if any(row.straight < len(row.tokens) for row in batch):
            arguments["attention_mask"] = self._mask(batch, width, 0 if apart else length)
        if prefix:
            arguments["past_key_values"] = Cache(layers=list(prefix))
        if apart:
            arguments["shared_prefix"] = prefix
        # Each place once, however many continuations are predicted from it.
        places = [(i, place) for i, row in enumerate(batch) for place in sorted(row.scored)]
        number = {place: n for n, place in enumerate(places)}
        rows, columns = torch.tensor(places, device=compute.device).T
        with compute.attention(SHARED_PREFIX) if apart else nullcontext():
            logits = compute.logits_at(rows, columns, **arguments, use_cache=bool(prefix)).float()
        compute.tokens += ids.numel()
        norms = logits.logsumexp(1)
        asked = [(number[i, place], token) for i, row in enumerate(batch) for path in row.targets for place, token in path]
        where, tokens = torch.tensor(asked, device=logits.device).T
        scores = iter((logits[where, tokens] - norms[where]).tolist())
        return [[sum(next(scores) for _ in path) for path in row.targets] for row in batch]

    def _mask(self, batch: Sequence[Branch], width: int, length: int) -> torch.Tensor:
        """(rows, 1, width, length + width), added to attention scores: 0 where a token may look, else the lowest number."""
        dtype = self.compute.model.dtype
        sees = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(batch), 1, 1)
        for i, row in enumerate(batch):
            for place in range(row.straight, len(row.tokens)):
                sees[i, place] = sees[i, row.parents[place]]
                sees[i, place, place] = True
        mask = torch.zeros(len(batch), 1, width, length + width, dtype=dtype)
        mask[:, 0, :, length:].masked_fill_(~sees, torch.finfo(dtype).min)
        return mask.to(self.compute.device)


def _depths(row: Branch, length: int) -> list[int]:
    depths: list[int] = []
    for parent in row.parents:
        depths.append(depths[parent] + 1 if parent >= 0 else length)
    return depths
