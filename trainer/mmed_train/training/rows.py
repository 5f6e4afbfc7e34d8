"""Rows of tokens for the model: what lies in each, and in which order. Map-style, so that a resume reads only what is left.

A row's tensors are int64 of one length: `input_ids`; `position_ids`, which begin again at each document, so that none sees
another; `shift_labels`, the token that each is to predict, or `IGNORED`.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmed_train.corpus.mixing import IGNORED, Windows, permuted
from mmed_train.corpus.shards import Kind, TokenSpace, position_ids
from mmed_train.training.items import Item
from mmedeval import DataError

if TYPE_CHECKING:
    import torch

Row = dict[str, "torch.Tensor"]
# Rows of like length are looked for among so many batches.
GROUP = 50
# What is held out of a kind of documents is at most this share of it.
MOST_HELD_OUT = 0.1


class PackedWindows:
    """Windows of `mmed_train.corpus.mixing.Windows`. Without `isolate` the documents of a window see each other."""

    def __init__(self, windows: Windows, *, isolate: bool = True) -> None:
        self.windows, self.isolate = windows, isolate

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Row:
        import torch

        row = self.windows[index]
        positions = row["position_ids"] if self.isolate else torch.arange(len(row["input_ids"]))
        return {"input_ids": row["input_ids"], "position_ids": positions, "shift_labels": row["shift_labels"]}


class PublishedWindows:
    """The windows of the paper's script (Qiu et al. 2024): a document at a time, `window` tokens every `stride`.

    The last window of a document is its last `window` tokens; a shorter document is padded. Every epoch shows all windows, in an
    order of its own. Other than there padding is not trained on. Memory is 8 bytes per document.
    """

    def __init__(
        self, space: TokenSpace, *, window: int, stride: int | None = None, seed: int, epochs: int, held_out: Mapping[Kind, int]
    ) -> None:
        self.window, self.stride, self.seed, self.epochs = window, stride or window * 3 // 4, seed, epochs
        self._starts = [_documents(shard_space, held_out.get(kind, 0)) for kind, shard_space in _by_kind(space)]
        self._spaces = [shard_space for _, shard_space in _by_kind(space)]
        counts = [self._count(np.diff(starts)) for starts in self._starts]
        self._windows = [np.append(0, count.cumsum()) for count in counts]
        self._ends = np.cumsum([windows[-1] for windows in self._windows]).tolist()
        self.real = int(sum(starts[-1] - starts[0] for starts in self._starts))
        """Tokens of all documents."""
        if not self._ends or not self._ends[-1]:
            raise DataError("the shards hold no token to learn from; name others")

    def _count(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        more = np.maximum(lengths - self.window, 0)
        counts: npt.NDArray[np.int64] = (lengths > 0) * (1 + -(-more // self.stride))
        return counts

    def __len__(self) -> int:
        return int(self._ends[-1] * self.epochs)

    def __getitem__(self, index: int) -> Row:
        import torch

        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        epoch, slot = divmod(index, self._ends[-1])
        slot = permuted(slot, self._ends[-1], f"{self.seed} {epoch}")
        kind = bisect_right(self._ends, slot)
        place = slot - (self._ends[kind - 1] if kind else 0)
        document = int(np.searchsorted(self._windows[kind], place, "right")) - 1
        number = place - int(self._windows[kind][document])
        start, end = (int(each) for each in self._starts[kind][document : document + 2])
        # The script asks each window for the tokens within it alone.
        first = max(start, min(start + number * self.stride, end - self.window))
        last = min(first + self.window, end)
        ids, _ = self._spaces[kind].window(first, last - first)
        row = np.zeros(self.window, np.int64)
        row[: len(ids)] = ids
        labels = np.full(self.window, IGNORED, np.int64)
        labels[: len(ids) - 1] = ids[1:]
        return {
            "input_ids": torch.from_numpy(row),
            "position_ids": torch.arange(self.window),
            "shift_labels": torch.from_numpy(labels),
        }


def _by_kind(space: TokenSpace) -> list[tuple[Kind, TokenSpace]]:
    return [(kind, TokenSpace(space.shards, kinds=[kind])) for kind in sorted(space.counts) if space.counts[kind].tokens]


def _documents(space: TokenSpace, held_out: int) -> npt.NDArray[np.int64]:
    """Where each document starts, and the end of the last; without those that begin in what is held out."""
    starts = np.array([start for row in range(0, len(space), 1 << 20) for start in _starts(space, row)], np.int64)
    end = len(space) - held_out
    return np.append(starts[starts < end], end)


def _starts(space: TokenSpace, begin: int) -> list[int]:
    _, starts = space.window(begin, min(1 << 20, len(space) - begin))
    return [begin + start for start in starts]


def hold_out(space: TokenSpace, *, windows: int, window: int) -> dict[Kind, int]:
    """So many windows of tokens per language, from the end of its largest kind of documents, and no more than a tenth of it.

    Returns tokens by kind, each from a document's start on where one begins there. Languages with too little have none.
    """
    held: dict[Kind, int] = {}
    counts = {kind: count.tokens for kind, count in space.counts.items()}
    for language in sorted({kind.language for kind in counts}):
        kind = max((kind for kind in counts if kind.language == language), key=lambda kind: (counts[kind], kind))
        take = min(windows * window, int(counts[kind] * MOST_HELD_OUT))
        if take < 2:
            continue
        part = TokenSpace(space.shards, kinds=[kind])
        _, starts = part.window(len(part) - take, take)
        held[kind] = take - starts[0] if starts and take - starts[0] >= 2 else take
    return held


def validation_rows(space: TokenSpace, held_out: Mapping[Kind, int], *, window: int) -> dict[str, list[Row]]:
    """What is held out, by language, in windows; every token but documents' first is predicted once."""
    import torch

    rows: dict[str, list[Row]] = {}
    for kind, tokens in held_out.items():
        part = TokenSpace(space.shards, kinds=[kind])
        for start in range(len(part) - tokens, len(part), window):
            length = min(window, len(part) - start)
            ids, starts = part.window(start, min(length + 1, len(part) - start))
            labels = np.full(length + 1, IGNORED, np.int64)
            labels[: len(ids)] = ids
            labels[starts] = IGNORED
            rows.setdefault(kind.language, []).append(
                {
                    "input_ids": torch.from_numpy(ids[:length].astype(np.int64)),
                    "position_ids": torch.from_numpy(position_ids(length, [each for each in starts if each < length])),
                    "shift_labels": torch.from_numpy(labels[1:]),
                }
            )
    return rows


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which items lie in which row, over all epochs: `rows[i]` are the places of row i's items."""

    rows: tuple[tuple[int, ...], ...]
    epoch_ends: tuple[int, ...]
    """How many rows there are up to the end of each epoch."""


def lay_out(lengths: Sequence[int], *, batching: str, longest: int, batch: int, epochs: int, seed: int) -> Layout:
    """The rows of every epoch, each in an order of its own. `batch` rows are computed at once.

    packed: items of an epoch, in random order, are put into the fullest of the open rows that has room (best fit), so that nearly
    no token is padding. grouped: one item a row; batches are of items of like length, in random order; what does not fill a batch
    goes on into the next epoch. plain: random order.
    """
    rows: list[tuple[int, ...]] = []
    ends = []
    left: list[int] = []
    for epoch in range(epochs):
        draw = np.random.default_rng([seed, epoch])
        order = draw.permutation(len(lengths)).tolist()
        if batching == "packed":
            packed = _pack(order, lengths, longest)
            rows += [packed[place] for place in draw.permutation(len(packed))]
        elif batching == "grouped":
            order, batches = [*left, *order], list[list[int]]()
            for start in range(0, len(order), GROUP * batch):
                alike = sorted(order[start : start + GROUP * batch], key=lambda place: -lengths[place])
                batches += [alike[at : at + batch] for at in range(0, len(alike), batch)]
            left = batches.pop() if len(batches[-1]) < batch and epoch + 1 < epochs else []
            last = [batches.pop()] if batches and len(batches[-1]) < batch else []
            shuffled = [batches[number] for number in draw.permutation(len(batches))]
            rows += [(place,) for each in [*shuffled, *last] for place in each]
        else:
            rows += [(place,) for place in order]
        ends.append(len(rows))
    return Layout(rows=tuple(rows), epoch_ends=tuple(ends))


def _pack(order: Sequence[int], lengths: Sequence[int], longest: int) -> list[tuple[int, ...]]:
    """Best fit decreasing within chunks of the order, by rooms: O(n log n), and random over epochs."""
    packed: list[tuple[int, ...]] = []
    chunk = 4096
    for start in range(0, len(order), chunk):
        rows: list[list[int]] = []
        rooms: dict[int, list[int]] = {}
        known: list[int] = []
        for place in sorted(order[start : start + chunk], key=lambda place: -lengths[place]):
            room = _smallest(known, rooms, lengths[place])
            if room is None:
                rows.append([])
                number, room = len(rows) - 1, longest
            else:
                number = heapq.heappop(rooms[room])
            rows[number].append(place)
            left = room - lengths[place]
            if left not in rooms:
                rooms[left] = []
                known.insert(bisect_right(known, left), left)
            heapq.heappush(rooms[left], number)
        packed += [tuple(row) for row in rows]
    return packed


def _smallest(known: Sequence[int], rooms: Mapping[int, Sequence[int]], length: int) -> int | None:
    """The smallest room that an item fits into."""
    return next((room for room in known[bisect_right(known, length - 1) :] if rooms[room]), None)


class ItemRows:
    """Rows of finetuning items. An item's prompt is read and not predicted."""

    def __init__(self, items: Sequence[Item], layout: Layout) -> None:
        self.items, self.layout = items, layout

    def __len__(self) -> int:
        return len(self.layout.rows)

    def __getitem__(self, index: int) -> Row:
        import torch

        parts = [self.items[place] for place in self.layout.rows[index]]
        ids = np.concatenate([item.ids for item in parts]).astype(np.int64)
        starts = np.cumsum([0, *(len(item) for item in parts[:-1])]).tolist()
        labels = np.full(len(ids) + 1, IGNORED, np.int64)
        labels[:-1] = ids
        for start, item in zip(starts, parts, strict=True):
            labels[start : start + item.prompt] = IGNORED
        return {
            "input_ids": torch.from_numpy(ids),
            "position_ids": torch.from_numpy(position_ids(len(ids), starts[1:])),
            "shift_labels": torch.from_numpy(labels[1:]),
        }


class Even:
    """Rows, and behind them as many of which nothing is learnt as make all of them a multiple of `size`.

    Several processes go step by step together; without these, rows of the beginning would be read a second time.
    """

    def __init__(self, rows: Any, size: int) -> None:
        self.rows, self.size = rows, size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size) * self.size

    def __getitem__(self, index: int) -> Row:
        import torch

        if index < len(self.rows):
            row: Row = self.rows[index]
            return row
        one = torch.zeros(1, dtype=torch.int64)
        return {"input_ids": one, "position_ids": one, "shift_labels": torch.full((1,), IGNORED)}


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows side by side, padded behind to the longest, and their `lengths`. No token sees what stands behind it, and padding is
    not predicted."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    batch: dict[str, Any] = {"lengths": torch.tensor([len(row["input_ids"]) for row in rows])}
    for name, fill in (("input_ids", 0), ("shift_labels", IGNORED)):
        batch[name] = torch.stack([torch.nn.functional.pad(row[name], (0, longest - len(row[name])), value=fill) for row in rows])
    # Positions go on: a row of one item then needs no mask but the causal one, which is the fastest.
    batch["position_ids"] = torch.stack(
        [
            torch.cat([row["position_ids"], row["position_ids"][-1] + 1 + torch.arange(longest - len(row["position_ids"]))])
            for row in rows
        ]
    )
    return batch
