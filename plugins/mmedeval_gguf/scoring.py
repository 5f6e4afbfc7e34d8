"""Loglikelihoods: a question with all its continuations behind a prefix that is read once and rolled back to."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mmedeval.tokens import Scoring, common_prefix
from mmedeval_gguf.engine import Engine, Row, Token

# So many continuations go at once, each a sequence of its own behind the shared context.
SEQUENCES = 64


@dataclass(frozen=True, slots=True)
class Scored:
    """The loglikelihoods of the item with this number in the list that was asked, and what they took."""

    index: int
    values: list[float]
    seconds: float


def score(engine: Engine, items: Sequence[Scoring]) -> Iterator[Scored]:
    """The items in an order in which those with the same beginning follow each other, which is kept from one to the next.

    What is no number spoils all that is computed behind it: those items are asked again, each by itself.
    """
    spoilt: list[Scored] = []
    for scored in _score_all(engine, items):
        if any(map(math.isnan, scored.values)):
            spoilt.append(scored)
        else:
            yield scored
    for first in spoilt:
        engine.wipe()
        (again,) = _score_all(engine, [items[first.index]])
        yield Scored(first.index, again.values, first.seconds + again.seconds)
    if spoilt:
        engine.wipe()


def _score_all(engine: Engine, items: Sequence[Scoring]) -> Iterator[Scored]:
    if not items:
        return
    cells = max(len(item.context) + sum(len(continuation) - 1 for continuation in item.continuations) for item in items)
    width = min(SEQUENCES, max(len(item.continuations) for item in items))
    engine.reserve(cells, width)
    held: Sequence[int] = ()
    for index in sorted(range(len(items)), key=lambda i: tuple(items[i].context)):
        item = items[index]
        begun = time.perf_counter()
        # The last token of the prompt is read in any case: from it the first ones of the continuations are predicted.
        kept = min(common_prefix(held, item.context), len(item.context) - 1)
        values = _score(engine, item, kept, width)
        held = item.context
        yield Scored(index, values, time.perf_counter() - begun)


def _score(engine: Engine, item: Scoring, kept: int, width: int) -> list[float]:
    """The loglikelihoods of an item of which the first `kept` tokens are there already, in each of the `width` sequences."""
    length = len(item.context)
    after = _after(item.continuations)
    known: dict[tuple[int, ...], dict[int, float]] = {}
    tokens = [Token(item.context[i], i, range(width), wanted=i == length - 1) for i in range(kept, length)]
    paths: list[tuple[int, ...]] = [()] * len(tokens)
    engine.roll_back(kept)
    for start in range(0, len(item.continuations), width):
        for path, sequences in _branches(item.continuations[start : start + width]).items():
            tokens.append(Token(path[-1], length - 1 + len(path), sequences, wanted=True))
            paths.append(path)
        engine.read(tokens, partial(_note, known, after, paths))
        engine.roll_back(length)
        tokens, paths = [], []
    return [
        math.fsum(known[tuple(continuation[:i])][token] for i, token in enumerate(continuation))
        for continuation in item.continuations
    ]


def _note(
    known: dict[tuple[int, ...], dict[int, float]],
    after: Mapping[tuple[int, ...], set[int]],
    paths: Sequence[tuple[int, ...]],
    place: int,
    row: Row,
) -> None:
    """Keeps, of the prediction behind a path, what is asked for."""
    norm = log_sum_exp(row)
    known[paths[place]] = {token: float(row[token]) - norm for token in after[paths[place]]}


def _branches(continuations: Sequence[Sequence[int]]) -> dict[tuple[int, ...], list[int]]:
    """What has to be read behind the context, each path once, with the sequences that go along it.

    The last token of a continuation is only predicted, never read.
    """
    branches: dict[tuple[int, ...], list[int]] = {}
    for sequence, continuation in enumerate(continuations):
        for length in range(1, len(continuation)):
            branches.setdefault(tuple(continuation[:length]), []).append(sequence)
    return branches


def _after(continuations: Sequence[Sequence[int]]) -> dict[tuple[int, ...], set[int]]:
    """The tokens that are asked for behind each path."""
    after: dict[tuple[int, ...], set[int]] = {}
    for continuation in continuations:
        for i, token in enumerate(continuation):
            after.setdefault(tuple(continuation[:i]), set()).add(token)
    return after


def log_sum_exp(row: Row) -> float:
    """The logarithm of the sum of exponentials, in float64."""
    top = float(row.max())
    return top + math.log(float(np.exp(row.astype(np.float64) - top).sum()))
