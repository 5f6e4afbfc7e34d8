"""Which tokens an epoch of training sees, and in which order: pure functions of the seed, the epoch and the sample's number.

A kind of documents (a source in a language) is a row of tokens, cut into windows side by side. A pass goes once through all its
windows, so it reads every token once; the last window is as long as what is left, and is kept. An epoch takes so many windows of
each kind as its share asks for, and goes on, with the next pass if need be, where the epoch before stopped: over any number of
epochs no window is read more than once oftener than another of its kind.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from mmed_train.corpus.shards import Kind, TokenSpace, position_ids
from mmedeval import DataError, UnknownNameError, UsageError

# What transformers' losses leave out.
IGNORED = -100
ROUNDS = 6
# So many tokens of an epoch are still counted one by one.
MOST = 2.0**53


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How languages and sources share an epoch. Raises `UsageError` for numbers that make no sense.

    `epochs`: per source, how often its tokens are on offer in an epoch (once unless named). `weights`: each language's share, in
    any unit, 0 for none; without them shares are in proportion to n ** (1 / `temperature`), where n tokens of the language are on
    offer. Within a language, sources share in proportion to what they offer. `tokens`: the size of an epoch, that of all that is
    on offer unless given. `caps`: per language, the most tokens of an epoch; `most_epochs`: how often at most an epoch takes what
    a language offers. What a language may not have goes to the others in proportion to their shares.
    """

    weights: Mapping[str, float] | None = None
    temperature: float = 1.0
    epochs: Mapping[str, float] = field(default_factory=dict)
    tokens: float | None = None
    caps: Mapping[str, float] = field(default_factory=dict)
    most_epochs: float = math.inf

    def __post_init__(self) -> None:
        if self.weights is not None and self.temperature != 1.0:
            raise UsageError("a mix has weights or a temperature, not both; leave out one of them")
        for name, values in (("weights", self.weights or {}), ("epochs", self.epochs), ("caps", self.caps)):
            for key, value in values.items():
                if not 0 <= value < math.inf:
                    raise UsageError(f"{name}: {key} = {value}; give a number that is not below 0")
        if self.weights is not None and not any(self.weights.values()):
            raise UsageError("weights: all are 0; give at least one language a share")
        if not 1.0 <= self.temperature < math.inf:
            raise UsageError(f"temperature = {self.temperature}; give a number from 1 (shares as they are) up (more alike)")
        if not self.most_epochs > 0:
            raise UsageError(f"most_epochs = {self.most_epochs}; give a number above 0")
        if self.tokens is not None and not 0 < self.tokens < math.inf:
            raise UsageError(f"tokens = {self.tokens}; give a number above 0")

    def shares(self, tokens: Mapping[Kind, int]) -> dict[Kind, float]:
        """The tokens that an epoch wants of each kind, given those that exist. Raises `UsageError` for a name that none has."""
        _known("source", self.epochs, {kind.source for kind in tokens})
        languages = sorted({kind.language for kind in tokens})
        _known("language", self.caps, languages)
        offer = {kind: count * self.epochs.get(kind.source, 1.0) for kind, count in tokens.items()}
        offers = {name: sum(offer[kind] for kind in offer if kind.language == name) for name in languages}
        if self.weights is None:
            weights = {name: count ** (1 / self.temperature) for name, count in offers.items()}
        else:
            _known("language", self.weights, languages)
            left_out = sorted(set(languages) - set(self.weights))
            if left_out:
                raise UsageError(f"weights: none for {', '.join(left_out)}, which the shards hold; 0 leaves a language out")
            weights = {name: self.weights[name] if offers[name] else 0.0 for name in languages}
        limits = {name: min(self.caps.get(name, math.inf), self.most_epochs * offers[name]) for name in languages}
        whole = sum(offers.values()) if self.tokens is None else self.tokens
        if not whole < MOST:
            raise UsageError(
                f"an epoch of {whole:g} tokens is more than can be counted; give fewer tokens, or fewer epochs of a source"
            )
        given = _share_out(whole, weights, limits)
        return {kind: given[kind.language] * offer[kind] / offers[kind.language] if offer[kind] else 0.0 for kind in tokens}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A kind's part in a mixture: its tokens, the windows of a pass through them, and the windows that each epoch takes."""

    kind: Kind
    tokens: int
    windows: int
    taken: int


@dataclass(frozen=True, kw_only=True)
class Realised:
    """What an epoch takes of a kind: tokens, their share in the epoch, and how often that is all its tokens."""

    tokens: int
    share: float
    passes: float


class Mixture:
    """Windows of `window` tokens in the proportions of a mix: to the nearest window, and at least one of what has a share at all.

    `tokens` are those that exist of each kind. `len` is the number of windows in an epoch. Raises `UsageError` as `Mix` does, and
    `DataError` where nothing has a share.
    """

    def __init__(self, tokens: Mapping[Kind, int], mix: Mix, *, window: int, seed: int) -> None:
        if window < 1:
            raise UsageError(f"windows of {window} tokens; give a number above 0")
        self.window, self.seed = window, seed
        self.parts = tuple(_parts(tokens, mix, window))
        self._ends = list(accumulate(part.taken for part in self.parts))
        if not self.parts:
            raise DataError("the mix leaves out every token; give a source and a language that the shards hold a share above 0")

    def __len__(self) -> int:
        return self._ends[-1]

    def place(self, epoch: int, index: int) -> tuple[int, int, int]:
        """Where a sample of an epoch lies: the place of its kind in `parts`, its first token there, and its tokens."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        slot = permuted(index, len(self), f"{self.seed} {epoch}")
        number = bisect_right(self._ends, slot)
        part = self.parts[number]
        lap, place = divmod(epoch * part.taken + slot - (self._ends[number] - part.taken), part.windows)
        # The last window stays the last of every pass, so that `realised` knows without a search how many an epoch takes.
        if place < part.windows - 1:
            place = permuted(place, part.windows - 1, f"{self.seed} {part.kind.source} {part.kind.language} {lap}")
        start = place * self.window
        return number, start, min(self.window, part.tokens - start)

    def realised(self, epoch: int) -> dict[Kind, Realised]:
        """What an epoch takes of each kind, to the token."""
        tokens = {}
        for part in self.parts:
            last_windows = (epoch + 1) * part.taken // part.windows - epoch * part.taken // part.windows
            tokens[part.kind] = part.taken * self.window - last_windows * (part.windows * self.window - part.tokens)
        whole = sum(tokens.values())
        return {
            part.kind: Realised(tokens=tokens[part.kind], share=tokens[part.kind] / whole, passes=tokens[part.kind] / part.tokens)
            for part in self.parts
        }


class Windows:
    """A map-style dataset of torch: the windows of so many epochs, one epoch behind the other, to be read in this order.

    A sample's tensors have the shape (window,), int64: `input_ids`; `position_ids`, from 0 in the window and at each document;
    `labels`, as transformers shifts them itself; `shift_labels`, what follows each token, across the window's end too, so that
    with them every token but a document's first is predicted once. No document's first token is predicted. What a shorter last
    window lacks is padding, like a document that is not predicted. `held_out`: so many tokens at a kind's end are left alone.
    """

    def __init__(
        self, space: TokenSpace, mix: Mix, *, window: int, seed: int, epochs: int = 1, held_out: Mapping[Kind, int] | None = None
    ) -> None:
        if epochs < 1:
            raise UsageError(f"epochs = {epochs}; give a number above 0")
        self.epochs = epochs
        tokens = {kind: count.tokens - (held_out or {}).get(kind, 0) for kind, count in space.counts.items()}
        self.mixture = Mixture(tokens, mix, window=window, seed=seed)
        self.spaces = [TokenSpace(space.shards, kinds=[part.kind]) for part in self.mixture.parts]

    def __len__(self) -> int:
        return self.epochs * len(self.mixture)

    def __getitem__(self, index: int) -> dict[str, Any]:
        import torch

        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number, start, length = self.mixture.place(*divmod(index, len(self.mixture)))
        space, window = self.spaces[number], self.mixture.window
        ids, starts = space.window(start, min(length + 1, self.mixture.parts[number].tokens - start))
        eos = space.vocabulary.eos
        row = np.full(window + 1, 0 if eos is None else eos, np.int64)
        row[: len(ids)] = ids
        labels = np.full(window + 1, IGNORED, np.int64)
        labels[: len(ids)] = ids
        labels[starts] = IGNORED
        heads = [place for place in starts if place < length] + [length] * (length < window)
        return {
            "input_ids": torch.from_numpy(row[:window]),
            "position_ids": torch.from_numpy(position_ids(window, heads)),
            "labels": torch.from_numpy(labels[:window]),
            "shift_labels": torch.from_numpy(labels[1:]),
        }


def permuted(index: int, size: int, key: str) -> int:
    """Where `index` goes in the permutation of `range(size)` that belongs to `key`, without making the permutation.

    A Feistel network on a grid of barely more than `size` places; who lands behind the last walks on.
    """
    rows = math.isqrt(size - 1) + 1
    columns = -(-size // rows)
    secret = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    while True:
        row, column = divmod(index, columns)
        for turn in range(0, ROUNDS, 2):
            row = (row + _draw(secret, turn, column)) % rows
            column = (column + _draw(secret, turn + 1, row)) % columns
        index = row * columns + column
        if index < size:
            return index


def _draw(secret: bytes, turn: int, value: int) -> int:
    return int.from_bytes(hashlib.blake2b(b"%d %d" % (turn, value), key=secret, digest_size=8).digest(), "little")


def _parts(tokens: Mapping[Kind, int], mix: Mix, window: int) -> Iterable[Part]:
    for kind, share in sorted(mix.shares(tokens).items()):
        if share > 0:
            windows = -(-tokens[kind] // window)
            taken = max(1, round(windows * share / tokens[kind]))
            yield Part(kind=kind, tokens=tokens[kind], windows=windows, taken=taken)


def _share_out(whole: float, weights: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    """`whole` in proportion to the weights; what is over a limit goes to the others."""
    given = dict.fromkeys(weights, 0.0)
    free = {name: weight for name, weight in weights.items() if weight > 0}
    while free:
        # Weights may be as small or large as numbers can be: a power of two brings the largest near 1 without rounding it.
        _, exponent = math.frexp(max(free.values()))
        scaled = {name: math.ldexp(weight, -exponent) for name, weight in free.items()}
        unit = max(0.0, whole - sum(given.values())) / sum(scaled.values())
        full = [name for name, weight in scaled.items() if weight * unit >= limits[name]]
        if not full:
            return given | {name: weight * unit for name, weight in scaled.items()}
        for name in full:
            given[name] = limits[name]
            del free[name]
    return given


def _known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownNameError(what, name, known)
