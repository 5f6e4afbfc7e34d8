"""Text: several at once, a token each per step; prompts that begin alike are read once for all of them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from mmedeval.tokens import common_prefix
from mmedeval_gguf.engine import Engine, Row, Token

# Cells that writing several texts at once may take; a single text takes what it needs.
TOGETHER = 8192
# The sequence that prompts are read in.
READER = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A prompt and how it goes on: until `ended` says so of the new tokens, or there are `max_tokens` of them."""

    ids: Sequence[int]
    max_tokens: int
    temperature: float
    seed: int
    ended: Callable[[Sequence[int]], bool]


@dataclass(frozen=True, slots=True)
class Written:
    """The new tokens of the job with this number in the list that was asked, and what they took.

    `broken`: the last one was chosen by probabilities that are no numbers.
    """

    index: int
    new: list[int]
    seconds: float
    broken: bool


@dataclass(slots=True)
class _Text:
    """A text in the making, in a sequence of its own."""

    index: int
    job: Job
    sequence: int
    new: list[int] = field(default_factory=list)
    seconds: float = 0.0
    broken: bool = False
    random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.Generator(np.random.PCG64(self.job.seed))

    def take(self, row: Row) -> None:
        """The next token: the likeliest, or with a temperature one drawn from the text's own stream."""
        top = int(row.argmax())
        # What is no number is the largest of all.
        self.broken = math.isnan(row[top])
        if self.job.temperature == 0 or self.broken:
            self.new.append(top)
            return
        scaled = row.astype(np.float64) / self.job.temperature
        weights = np.cumsum(np.exp(scaled - scaled.max()))
        self.new.append(int(np.searchsorted(weights, self.random.random() * weights[-1], side="right")))

    @property
    def done(self) -> bool:
        return self.broken or len(self.new) >= self.job.max_tokens or self.job.ended(self.new)


def write(engine: Engine, jobs: Sequence[Job], *, together: int) -> Iterator[Written]:
    """Texts as they end. A text that ends makes room for the next prompt.

    What is no number spoils all that is computed beside it and behind it: those texts are written again, each by itself.
    """
    spoilt: list[Written] = []
    for written in _write_all(engine, jobs, together):
        if written.broken:
            spoilt.append(written)
        else:
            yield written
    for first in spoilt:
        engine.wipe()
        (again,) = _write_all(engine, [jobs[first.index]], 1)
        yield replace(again, index=first.index, seconds=first.seconds + again.seconds)
    if spoilt:
        engine.wipe()


def _write_all(engine: Engine, jobs: Sequence[Job], together: int) -> Iterator[Written]:
    if not jobs:
        return
    order = sorted(range(len(jobs)), key=lambda i: tuple(jobs[i].ids))
    shared = [0, *(common_prefix(jobs[a].ids, jobs[b].ids) for a, b in pairwise(order))]
    needs = [len(job.ids) + job.max_tokens for job in jobs]
    cells = max(max(needs), min(TOGETHER, sum(sorted(needs)[-together:])))
    engine.reserve(cells, 1 + together)
    waiting, free = deque(range(len(order))), list(range(1, 1 + together))
    writing: dict[int, _Text] = {}  # by the place in the order
    held: Sequence[int] = ()
    while waiting or writing:
        while waiting and free and _cells(jobs, order, shared, [*writing, waiting[0]]) <= cells:
            place = waiting.popleft()
            text = _Text(order[place], jobs[order[place]], free.pop())
            held = _begin(engine, text, held)
            writing[place] = text
        ended = [place for place, text in writing.items() if text.done]
        for place in ended:
            text = writing.pop(place)
            engine.roll_back(0, text.sequence)
            free.append(text.sequence)
            yield Written(text.index, text.new, text.seconds, text.broken)
        if writing and not ended:
            _step(engine, [*writing.values()])


def _cells(jobs: Sequence[Job], order: Sequence[int], shared: Sequence[int], places: Sequence[int]) -> int:
    """The cells that texts take together; neighbours in the order have `shared` tokens in common, and hold them once."""
    cells = 0
    before: int | None = None
    for place in places:
        common = 0 if before is None else min(shared[before + 1 : place + 1])
        cells += len(jobs[order[place]].ids) - common + jobs[order[place]].max_tokens
        before = place
    return cells


def _begin(engine: Engine, text: _Text, held: Sequence[int]) -> Sequence[int]:
    """Reads a prompt behind what it shares with the one before, and takes the first new token."""
    begun = time.perf_counter()
    ids = text.job.ids
    kept = min(common_prefix(held, ids), len(ids) - 1)
    engine.roll_back(kept, READER)
    tokens = [Token(ids[i], i, (READER,), wanted=i == len(ids) - 1) for i in range(kept, len(ids))]
    engine.read(tokens, lambda _, row: text.take(row))
    engine.copy(READER, text.sequence)
    text.seconds += time.perf_counter() - begun
    return ids


def _step(engine: Engine, texts: Sequence[_Text]) -> None:
    """One more token for each text."""
    begun = time.perf_counter()
    tokens = [Token(text.new[-1], len(text.job.ids) + len(text.new) - 1, (text.sequence,), wanted=True) for text in texts]
    engine.read(tokens, lambda i, row: texts[i].take(row))
    seconds = (time.perf_counter() - begun) / len(texts)
    for text in texts:
        text.seconds += seconds
