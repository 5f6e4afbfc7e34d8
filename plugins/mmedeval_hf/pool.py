"""Continues many prompts at once: rows leave when they end, waiting prompts take their places, a shared beginning is there once.

Every row has a slot in one block of keys and values, made once per group of prompts that begin alike; what they share is kept
apart. Source of the scheme: Yu et al., "Orca" (OSDI 2022), section 4.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from mmedeval_hf.attention import SHARED_PREFIX, PrefixLayer, fits_long_queries
from mmedeval_hf.compute import MAX_LOGITS, Compute, Item
from mmedeval_hf.decoding import Decoded, Job, noisy
from mmedeval_hf.tree import Group, encode_prefix, group

# Another group of prompts must save so many tokens: while the last rows of a group end, there is little to do at once.
GROUP_OVERHEAD = 2048
# Prompts that are read together are padded to the longest; more than this share of padding starts another batch.
MAX_PADDING = 0.04
# Waiting prompts are read when this share of the rows is free: each on its own would be slow.
FREE_SHARE = 0.125


@dataclass(slots=True, eq=False)
class Row:
    """A job at work: the tokens written so far, and what it draws from."""

    index: int
    job: Job
    generator: torch.Generator | None
    new: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    seconds: float = 0.0
    broken: bool = False

    @property
    def ids(self) -> list[int]:
        return self.job.ids + self.new

    @property
    def done(self) -> bool:
        return self.broken or len(self.new) >= self.job.max_tokens or self.job.ended(self.new)


class Slots:
    """Where the next token of each row goes; the same for all layers."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.rows = self.columns = torch.empty(0, dtype=torch.long)
        self.width = 0

    def aim(self, device: torch.device) -> None:
        self.rows = torch.arange(len(self.lengths), device=device)
        self.columns = torch.tensor(self.lengths, device=device)
        self.width = max(self.lengths) + 1


class PoolLayer(DynamicLayer):
    """One layer's keys and values of all rows: slots x heads x columns x size, of which a part is in use."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, slots: int, columns: int, at: Slots) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.at = at
        self.all_keys = keys.new_zeros(slots, keys.shape[1], columns, keys.shape[3])
        self.all_values = values.new_zeros(slots, values.shape[1], columns, values.shape[3])

    def put(self, slot: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """A new row: heads x length x size."""
        self.all_keys[slot, :, : keys.shape[1]] = keys
        self.all_values[slot, :, : values.shape[1]] = values

    def move(self, source: int, target: int, length: int) -> None:
        self.all_keys[target, :, :length] = self.all_keys[source, :, :length]
        self.all_values[target, :, :length] = self.all_values[source, :, :length]

    def clear(self, slot: int) -> None:
        self.all_keys[slot] = 0
        self.all_values[slot] = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        count, width = key_states.shape[0], self.at.width
        # The layers of a large model may lie on several devices.
        rows, columns = self.at.rows.to(self.device), self.at.columns.to(self.device)
        self.all_keys[rows, :, columns] = key_states[:, :, 0]
        self.all_values[rows, :, columns] = value_states[:, :, 0]
        return self.all_keys[:count, :, :width], self.all_values[:count, :, :width]


class PoolDecoder:
    """While `tracing` is set, rows note the loglikelihoods of their tokens, and `begun` lists them."""

    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self.limit = compute.rows_at_once
        self.tracing = False
        self.begun: list[Row] = []

    def groups(self, jobs: Sequence[Job]) -> list[Group]:
        """Jobs whose prompts begin alike; those that share most come first."""
        return sorted(group([Item(job.ids, []) for job in jobs], overhead=GROUP_OVERHEAD), key=Group.rank)

    def steps(self, jobs: Sequence[Job], groups: Sequence[Group]) -> Generator[list[Decoded]]:
        """What ended in each step; every job once, group by group, in a group the longest first."""
        for each in groups:
            members = sorted(each.members, key=lambda i: (-len(jobs[i].ids), i))
            rows = [Row(i, jobs[i], jobs[i].noise()) for i in members]
            yield from _Group(self, each.prefix, rows).steps()

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
        """The next token of each row. In full precision there is only one row of the vocabulary at a time."""
        top = logits.argmax(dim=1, keepdim=True)
        # What is no number is the largest of all.
        for row, value in zip(rows, logits.gather(1, top)[:, 0].tolist(), strict=True):
            row.broken = math.isnan(value)
        tokens: list[int] = top[:, 0].tolist()
        for i, row in enumerate(rows):
            if row.generator is not None:
                tokens[i] = int(noisy(logits[i], row.job, row.generator).argmax())
            if self.tracing:
                row.scores.append(float(logits[i].log_softmax(dim=0, dtype=torch.float32)[tokens[i]]))
        return tokens


class _Group:
    """The rows of a group: waiting, active (in the slots of the same numbers), and the pool that holds the active ones."""

    def __init__(self, decoder: PoolDecoder, prefix: Sequence[int], rows: Sequence[Row]) -> None:
        self.decoder, self.compute, self.prefix = decoder, decoder.compute, list(prefix)
        self.waiting, self.active = deque(rows), list[Row]()
        self.columns = self._longest()
        self.shared: list[PrefixLayer] = []
        self.apart = fits_long_queries(self.compute.model)
        self.pool: list[PoolLayer] = []
        self.slots = Slots()
        self.room = self.limit
        self.holding = False
        self.ended: list[Decoded] = []

    @property
    def limit(self) -> int:
        """How many rows may be at work."""
        return max(1, min(self.decoder.limit, self.compute.cache_tokens // self.columns))

    def steps(self) -> Iterator[list[Decoded]]:
        cache = self.compute.attempt(lambda: encode_prefix(self.compute, self.prefix)) if self.prefix else None
        if cache is not None:
            self.shared = [PrefixLayer(layer, apart=self.apart, remember=True) for layer in cache.layers]
        else:
            # Nothing is shared, or there is no memory for it: every row is its own.
            self.prefix = []
            self.columns = self._longest()
            self.room = self.limit
        while self.waiting or self.active:
            free = self.room - len(self.active)
            if self.waiting and not self.holding and free > 0 and (free >= FREE_SHARE * self.room or not self.active):
                self._admit(self._next(free))
            else:
                self._step()
                if not self.active and (self.holding or self.room != self.limit):
                    self._empty()
            ended, self.ended = self.ended, []
            yield ended

    def _next(self, free: int) -> list[Row]:
        """The waiting rows to read now: of much the same length, and within the budgets."""
        batch: list[Row] = []
        width = filled = 0
        for row in itertools.islice(self.waiting, free):
            length = len(row.ids) - len(self.prefix)
            size = (len(batch) + 1) * max(width, length)
            if batch and (
                size > self.compute.tokens_at_once
                or (len(batch) + 1) * self.compute.vocabulary > MAX_LOGITS
                or size - filled - length > MAX_PADDING * size
            ):
                break
            batch.append(row)
            width, filled = max(width, length), filled + length
        return batch

    def _admit(self, batch: Sequence[Row]) -> None:
        """Reads prompts into free slots and takes their first tokens."""
        started = time.perf_counter()
        logits = self.compute.attempt(lambda: self._read(batch))
        if logits is not None:
            if self.room < self.limit:
                # One slot was had where all together were not.
                self.decoder.limit = max(1, self.limit // 2)
            for _ in batch:
                self.waiting.popleft()
            self.slots.lengths += [len(row.ids) - len(self.prefix) for row in batch]
            self.active += batch
            if self.decoder.tracing:
                self.decoder.begun += batch
            self._write(batch, logits, time.perf_counter() - started)
        elif len(batch) > 1:
            self.compute.halve(sum(len(row.ids) - len(self.prefix) for row in batch))
        elif self.active:
            # There may be room for it when these have ended.
            self.holding = True
        else:
            self._alone_or_never(self.waiting[0])

    def _read(self, batch: Sequence[Row]) -> torch.Tensor:
        """Logits of the first new tokens (rows x vocabulary); the prompts' keys and values go into the pool."""
        compute, skip = self.compute, len(self.prefix)
        own = [row.ids[skip:] for row in batch]
        width = max(map(len, own))
        ids = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens in own], device=compute.device)
        positions = torch.arange(skip, skip + width, device=compute.device).expand(len(own), -1)
        layers = self.shared or [PrefixLayer(remember=True) for _ in range(compute.layers)]
        rows = torch.arange(len(own), device=compute.device)
        lasts = torch.tensor([len(tokens) - 1 for tokens in own], device=compute.device)
        arguments = {
            "input_ids": ids,
            "position_ids": positions,
            "past_key_values": Cache(layers=list(layers)),
            "use_cache": True,
        }
        # Padding stands behind, where no token looks: plain causal attention is right.
        if self.shared and self.apart:
            with compute.attention(SHARED_PREFIX):
                logits = compute.logits_at(rows, lasts, **arguments, shared_prefix=self.shared)
        else:
            logits = compute.logits_at(rows, lasts, **arguments)
        compute.tokens += ids.numel()
        added = [layer.take() for layer in layers]
        if not self.pool:
            slots = min(self.room, len(self.waiting))
            self.pool = [PoolLayer(keys, values, slots, self.columns, self.slots) for keys, values in added]
        for (keys, values), pooled in zip(added, self.pool, strict=True):
            for i, tokens in enumerate(own):
                pooled.put(len(self.active) + i, keys[i, :, : len(tokens)], values[i, :, : len(tokens)])
        return logits

    def _step(self) -> None:
        """One more token for every active row."""
        started = time.perf_counter()
        logits = self.compute.attempt(self._forward)
        if logits is not None:
            self.slots.lengths = [length + 1 for length in self.slots.lengths]
            self._write(list(self.active), logits, time.perf_counter() - started)
            return
        # What was written is kept: these rows are read again, with it, and half as many are at work then.
        self.waiting.extendleft(reversed(self.active))
        if len(self.active) == 1:
            self._alone_or_never(self.active[0])
        else:
            self.compute.halvings += 1
            self.decoder.limit = len(self.active) // 2
            self._empty()

    def _alone_or_never(self, row: Row) -> None:
        """Memory ran out with nothing but this row at work: it gets a pool of its own; if it has that, it cannot be had."""
        self.compute.halvings += 1
        if self.room > 1:
            self._empty(1)
        else:
            self.waiting.popleft()
            self.ended.append(Decoded(row.index, None, row.seconds))
            self._empty()

    def _empty(self, room: int | None = None) -> None:
        """Gives the pool back; the next one has so many slots, or as many as may be, each as long as what still waits."""
        self.pool, self.active, self.slots.lengths, self.holding = [], [], [], False
        self.columns = self._longest()
        self.room = self.limit if room is None else room

    def _longest(self) -> int:
        """The tokens that the longest waiting row will have behind the prefix."""
        return max((len(row.job.ids) + row.job.max_tokens for row in self.waiting), default=1) - len(self.prefix)

    def _forward(self) -> torch.Tensor:
        compute, slots, skip = self.compute, self.slots, len(self.prefix)
        slots.aim(compute.device)
        ids = torch.tensor([[row.new[-1]] for row in self.active], device=compute.device)
        unseen = torch.arange(slots.width, device=compute.device) > slots.columns.unsqueeze(1)
        dtype = compute.model.dtype
        mask = torch.zeros(unseen.shape, dtype=dtype, device=compute.device).masked_fill_(unseen, torch.finfo(dtype).min)
        with compute.attention(SHARED_PREFIX):
            logits: torch.Tensor = compute.model(
                input_ids=ids,
                position_ids=(slots.columns + skip).unsqueeze(1),
                attention_mask=mask[:, None, None],
                past_key_values=Cache(layers=list(self.pool)),
                use_cache=True,
                shared_prefix=self.shared,
            ).logits
        compute.tokens += len(ids)
        return logits[:, -1]

    @torch.inference_mode()
    def _write(self, rows: Sequence[Row], logits: torch.Tensor, seconds: float) -> None:
        """Appends a token to each of the rows; rows that have ended leave."""
        tokens = self.decoder.choose(logits, rows)
        for row, token in zip(rows, tokens, strict=True):
            row.new.append(token)
            row.seconds += seconds / len(rows)
        # From behind, so that what fills a gap is not itself to leave.
        for row in reversed(rows):
            if row.done:
                self._leave(self.active.index(row))
                self.ended.append(Decoded(row.index, row.new, row.seconds, row.broken))

    def _leave(self, slot: int) -> None:
        """Takes a row out; the last one moves into its slot."""
        if self.active[slot].broken:
            # No mask hides what is no number: it would spoil all that have the slot after it.
            for layer in self.pool:
                layer.clear(slot)
        last, length = self.active.pop(), self.slots.lengths.pop()
        if slot < len(self.active):
            for layer in self.pool:
                layer.move(len(self.active), slot, length)
            self.active[slot], self.slots.lengths[slot] = last, length
