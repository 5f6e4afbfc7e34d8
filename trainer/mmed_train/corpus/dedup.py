"""Finds documents that are there twice, exactly or nearly, within and across sources.

Four passes, each in tasks that know nothing of each other and may run anywhere that sees the folder:

    sign          a task for each share of the documents     folder/signatures/00003.records, .keys
    pair          a task for each of `MinHash.passes`        folder/pairs/007.pairs
    choose        one task                                   folder/duplicates/00003.removed
    duplicates    reads what `choose` wrote for a share

Exact duplicates are the same words, whatever their case, accents, punctuation and white space. Near ones are found by MinHash
(Broder 1997) with banding: documents that agree in all values of a band are candidates, which are then compared by all values.
datatrove's blocks (0.10) take every candidate for a duplicate, keep any one of them, hold all hashes of a document at once, and
leave out documents that are shorter than a row of words. Here, of those that hang together by pairs of duplicates the one with
the most words stays, of equally long ones the first in the order of tasks and documents.

Memory does not grow with the documents; `choose` takes some 150 bytes for each that has a duplicate. The same documents,
parameters and number of tasks give the same bytes. Numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import numpy as np
import numpy.typing as npt

from mmed_train.corpus.whole import new_file
from mmed_train.corpus.words import units
from mmedeval import DataError, UsageError

Numbers = npt.NDArray[np.uint64]
Rows = npt.NDArray[Any]
# So many keys are merged at a time, and so many rows of words are hashed.
MERGED, HASHED = 1 << 20, 1 << 12
# So many documents of a task have their keys in one order: all keys of a pass are merged of such runs.
RUN = 1 << 15
# So many records are kept for the next comparison, and so many pairs are read at a time.
_REMEMBERED, _PAIRS = 1024, 1 << 18
_PAIR = np.dtype([("task", "<u4"), ("place", "<u4"), ("other_task", "<u4"), ("other_place", "<u4")])
_KEY = np.dtype([("key", "<u8"), ("place", "<u4")])
_REMOVED = np.dtype([("place", "<u4"), ("kept_task", "<u4"), ("kept_place", "<u4"), ("exact", "<u4")])


@dataclass(frozen=True, slots=True, kw_only=True)
class MinHash:
    """How near duplicates are found.

    A document is the set of its rows of `words` words, or characters of a script without white space. Two are candidates if they
    agree in all `values` of one of `bands` bands, and duplicates if they agree in at least the part `least` of all values, which
    estimates the Jaccard index of the two sets. Only exact duplicates are found without bands, and of documents with less than
    `shortest` words or characters: posts on the same illness share half of their rows.

    Of pairs with an index of s, 1 - (1 - s**values)**bands are candidates. With 5 % of the words changed s is 0.73 to 0.75, which
    makes 99.99 % of them.
    """

    bands: int = 40
    values: int = 5
    words: int = 3
    least: float = 0.5
    shortest: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.bands, self.seed) < 0 or min(self.values, self.words) < 1 or not 0 < self.least <= 1:
            raise UsageError(f"{self}; bands and seed are 0 or more, values and words 1 or more, least is above 0 and up to 1")

    @property
    def all_values(self) -> int:
        return self.bands * self.values

    @property
    def passes(self) -> int:
        """The tasks of `pair`: one for exact duplicates, and one for each band."""
        return 1 + self.bands

    @property
    def record(self) -> np.dtype[Any]:
        """What is kept of a document."""
        return np.dtype([("digest", "<u8", (2,)), ("units", "<u4"), ("values", "<u4", (self.all_values,))])


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """A document that goes: its place among those of its task, and the task and place of the one that stays for it."""

    place: int
    kind: Literal["exact", "near"]
    kept: tuple[int, int]


class Signer:
    """Makes the record of a document: a digest of its words, how many they are, and its MinHash values."""

    def __init__(self, how: MinHash) -> None:
        self.how = how
        draw = np.random.default_rng(how.seed)
        # Odd factors: multiplication is then a permutation of the 64-bit numbers, of which the upper half is kept.
        self._factors = draw.integers(0, 2**63, how.all_values, np.uint64) * np.uint64(2) + np.uint64(1)
        self._terms = draw.integers(0, 2**64, how.all_values, np.uint64, endpoint=False)

    def record(self, text: str) -> Rows:
        cut = units(text)
        made = np.zeros((), self.how.record)
        made["digest"] = np.frombuffer(hashlib.blake2b("\n".join(cut).encode(), digest_size=16).digest(), "<u8")
        made["units"] = len(cut)
        if cut and self.how.bands:
            made["values"] = self.values(cut)
        return made

    def values(self, cut: Sequence[str]) -> npt.NDArray[np.uint32]:
        """The least value of each hash function over all rows of units."""
        rows = np.unique(self._rows(cut))
        least = np.full(self.how.all_values, np.iinfo(np.uint64).max, np.uint64)
        for start in range(0, len(rows), HASHED):
            hashed = rows[start : start + HASHED, None] * self._factors + self._terms
            np.minimum(least, hashed.min(axis=0), out=least)
        return (least >> np.uint64(32)).astype(np.uint32)

    def _rows(self, cut: Sequence[str]) -> Numbers:
        """A 64-bit hash of every row of units. A text that is shorter is one row."""
        hashes = _mixed(np.array([crc32(unit.encode()) for unit in cut], np.uint64))
        return _rolled(hashes, min(self.how.words, len(cut)))


def sign(texts: Iterable[str], folder: Path, task: int, how: MinHash) -> int:
    """Writes the records of a task's documents, and their keys in order, run by run; returns how many documents there are."""
    signer = Signer(how)
    records = _signatures(folder, task, "records")
    with new_file(records) as file:
        count = 0
        for text in texts:
            file.write(signer.record(text).tobytes())
            count += 1
    with new_file(_signatures(folder, task, "keys")) as file:
        for start, block in _blocks(records, how.record, RUN):
            keys = np.zeros(len(block), _KEY)
            keys["place"] = np.arange(start, start + len(block), dtype=np.uint32)
            for number in range(how.passes):
                keys["key"] = _key(block, number, how)
                file.write(np.sort(keys, order=("key", "place")).tobytes())
    return count


def pair(folder: Path, number: int, how: MinHash) -> int:
    """Writes the duplicates that agree in digest (`number` 0) or in the band `number` - 1; returns how many pairs there are."""
    if not 0 <= number < how.passes:
        raise UsageError(f"pass {number} of {how.passes}; take 0 to {how.passes - 1}")
    compare = _Compare(folder, how)
    found = 0
    with new_file(folder / "pairs" / f"{number:03d}.pairs") as file:
        for keys, owners, places in _merged(folder, number, how):
            again = np.append(False, keys[1:] == keys[:-1])[: len(keys)]
            first = np.maximum.accumulate(np.where(again, 0, np.arange(len(keys))))
            # Each is compared with the one before it and with the first that has its key.
            each = np.flatnonzero(again)
            both = np.stack([np.append(each - 1, first[each]), np.append(each, each)], axis=1)
            for left, right in np.unique(both, axis=0).tolist():
                a, b = (int(owners[left]), int(places[left])), (int(owners[right]), int(places[right]))
                if compare.same(a, b) if number else compare.exactly(a, b):
                    file.write(np.array((*a, *b), _PAIR).tobytes())
                    found += 1
    return found


def choose(folder: Path, how: MinHash) -> dict[str, int]:
    """Decides who stays, and writes who goes for every task; returns how many documents there are, and of each kind go."""
    tasks = _tasks(folder)
    nodes, clusters = _clusters(folder, how)
    owners, places = (nodes >> np.uint64(32)).astype(np.int64), (nodes & np.uint64(0xFFFFFFFF)).astype(np.int64)
    lengths, digests = np.zeros(len(nodes), np.int64), np.zeros((len(nodes), 2), np.uint64)
    counts = {"documents": 0, "exact": 0, "near": 0}
    for task in tasks:
        records = _signatures(folder, task, "records")
        counts["documents"] += _documents(folder, task, how)
        low, high = np.searchsorted(owners, [task, task + 1])
        for start, block in _blocks(records, how.record) if low < high else ():
            here = slice(*(low + np.searchsorted(places[low:high], [start, start + len(block)])))
            lengths[here] = block["units"][places[here] - start]
            digests[here] = block["digest"][places[here] - start]
    order = np.lexsort((nodes, -lengths, clusters))
    begins = np.flatnonzero(np.append(True, np.diff(clusters[order]) != 0)[: len(nodes)])
    kept = np.zeros(len(nodes), np.int64)
    kept[order] = np.repeat(order[begins], np.diff(np.append(begins, len(nodes))))
    exact = (digests == digests[kept]).all(axis=1)
    goes = kept != np.arange(len(nodes))
    counts["exact"], counts["near"] = int((goes & exact).sum()), int((goes & ~exact).sum())
    for task in tasks:
        low, high = np.searchsorted(owners, [task, task + 1])
        mine = low + np.flatnonzero(goes[low:high])
        rows = np.zeros(len(mine), _REMOVED)
        rows["place"], rows["exact"] = places[mine], exact[mine]
        rows["kept_task"], rows["kept_place"] = owners[kept[mine]], places[kept[mine]]
        with new_file(_removed(folder, task)) as file:
            file.write(rows.tobytes())
    return counts


def duplicates(folder: Path, task: int) -> Iterator[Duplicate]:
    """The documents of a task that go, in their order. Raises `DataError` where `choose` was not run for it."""
    path = _removed(folder, task)
    if not path.exists():
        raise DataError(f"{path} does not exist; run the passes sign, pair and choose of deduplication for all tasks first")
    for _, block in _blocks(path, _REMOVED):
        for row in block:
            kept = (int(row["kept_task"]), int(row["kept_place"]))
            yield Duplicate(place=int(row["place"]), kind="exact" if row["exact"] else "near", kept=kept)


# --- comparing ---


class _Compare:
    """Reads records of documents where they lie."""

    def __init__(self, folder: Path, how: MinHash) -> None:
        self._folder, self._how = folder, how
        self._read: dict[tuple[int, int], Rows] = {}

    def exactly(self, a: tuple[int, int], b: tuple[int, int]) -> bool:
        return bool((self._record(a)["digest"] == self._record(b)["digest"]).all())

    def same(self, a: tuple[int, int], b: tuple[int, int]) -> bool:
        """Whether two documents are near duplicates; of exact ones the first pass knows."""
        one, other = self._record(a), self._record(b)
        if min(one["units"], other["units"]) < self._how.shortest or (one["digest"] == other["digest"]).all():
            return False
        return bool((one["values"] == other["values"]).mean() >= self._how.least)

    def _record(self, where: tuple[int, int]) -> Rows:
        if where not in self._read:
            if len(self._read) >= _REMEMBERED:
                self._read.clear()
            size = self._how.record.itemsize
            with _signatures(self._folder, where[0], "records").open("rb") as file:
                self._read[where] = np.frombuffer(os.pread(file.fileno(), size, where[1] * size), self._how.record)[0]
        return self._read[where]


def _merged(folder: Path, number: int, how: MinHash) -> Iterator[tuple[Numbers, Rows, Rows]]:
    """All keys of a pass in ascending order, with tasks and places, in parts; what has the same key is in one part."""
    counts = {task: _documents(folder, task, how) for task in _tasks(folder)}
    runs = [(task, start, min(RUN, count - start)) for task, count in counts.items() for start in range(0, count, RUN)]
    parts = max(1, -(-sum(counts.values()) // MERGED))
    at_once = max(256, MERGED // max(1, len(runs)))
    done = [0] * len(runs)
    waiting = [np.zeros(0, _KEY) for _ in runs]
    for part in range(parts):
        # Keys are hashes, so that parts of their range hold about as many.
        end = (part + 1) * 2**64 // parts
        taken = [(np.zeros(0, _KEY), 0)]
        for index, (task, start, count) in enumerate(runs):
            with _signatures(folder, task, "keys").open("rb") as file:
                while done[index] < count and (not len(waiting[index]) or int(waiting[index]["key"][-1]) < end):
                    # In front of it: all passes of the runs before, and the passes before of this one.
                    file.seek((start * how.passes + number * count + done[index]) * _KEY.itemsize)
                    more = np.fromfile(file, _KEY, min(at_once, count - done[index]))
                    done[index] += len(more)
                    waiting[index] = np.concatenate([waiting[index], more])
            border = np.searchsorted(waiting[index]["key"], np.uint64(end - 1), side="right")
            taken.append((waiting[index][:border], task))
            waiting[index] = waiting[index][border:].copy()
        keys = np.concatenate([rows["key"] for rows, _ in taken])
        owners = np.concatenate([np.full(len(rows), task, np.uint32) for rows, task in taken])
        places = np.concatenate([rows["place"] for rows, _ in taken])
        order = np.lexsort((places, owners, keys))
        yield keys[order], owners[order], places[order]


def _clusters(folder: Path, how: MinHash) -> tuple[Numbers, Rows]:
    """The documents that have a duplicate, by name and in order, and a number for each: that of the first it hangs together with.

    Most pairs are found in many passes: after each part of them only who hangs together is kept.
    """
    nodes, first = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    clusters = np.zeros(0, np.int64)
    for number in range(how.passes):
        path = folder / "pairs" / f"{number:03d}.pairs"
        if not path.exists():
            raise DataError(f"{path} does not exist; run the pass pair of deduplication for all bands first")
        # No less than what is kept, so that it is not sorted again for a few more.
        for _, pairs in _blocks(path, _PAIR, max(_PAIRS, len(nodes))):
            left = np.append(nodes, _named(pairs["task"], pairs["place"]))
            right = np.append(first, _named(pairs["other_task"], pairs["other_place"]))
            nodes, found = np.unique(np.stack([left, right]), return_inverse=True)
            clusters = _connected(len(nodes), *found.reshape(2, -1))
            first = nodes[clusters]
    return nodes, clusters


def _connected(count: int, left: Rows, right: Rows) -> Rows:
    """A number for each of `count` nodes: the least node that it hangs together with by edges."""
    least = np.arange(count)
    while True:
        before = least
        low = np.minimum(least[left], least[right])
        least = least.copy()
        for ends in (left, right):
            np.minimum.at(least, before[ends], low)
            np.minimum.at(least, ends, low)
        least = least[least]
        if (least == before).all():
            return least


# --- hashes ---


def _mixed(values: Numbers) -> Numbers:
    """A permutation of the 64-bit numbers that leaves no pattern (splitmix64: Steele, Lea and Flood 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _rolled(hashes: Numbers, length: int) -> Numbers:
    """One hash for every `length` hashes in a row."""
    count = max(0, len(hashes) - length + 1)
    rolled = np.zeros(count, np.uint64)
    for step in range(length):
        rolled = _mixed(rolled ^ hashes[step : step + count])
    return rolled


def _key(records: Rows, number: int, how: MinHash) -> Numbers:
    """What duplicates have in common: half of the digest, or the values of a band."""
    if not number:
        return np.asarray(records["digest"][:, 0], np.uint64)
    key = np.full(len(records), number, np.uint64)
    for value in records["values"][:, (number - 1) * how.values : number * how.values].T:
        key = _mixed(key ^ value.astype(np.uint64))
    return key


def _named(tasks: Rows, places: Rows) -> Numbers:
    """One number for each document, in the order of tasks and documents."""
    return (tasks.astype(np.uint64) << np.uint64(32)) | places.astype(np.uint64)


# --- files ---


def _signatures(folder: Path, task: int, what: Literal["records", "keys"]) -> Path:
    return folder / "signatures" / f"{task:05d}.{what}"


def _removed(folder: Path, task: int) -> Path:
    return folder / "duplicates" / f"{task:05d}.removed"


def _tasks(folder: Path) -> list[int]:
    found = sorted(int(path.stem) for path in (folder / "signatures").glob("*.keys"))
    if not found:
        raise DataError(f"{folder / 'signatures'} holds no signatures; run the pass sign of deduplication first")
    return found


def _documents(folder: Path, task: int, how: MinHash) -> int:
    """How many documents a task signed."""
    count = _count(_signatures(folder, task, "records"), how.record)
    keys = _signatures(folder, task, "keys")
    if keys.stat().st_size != count * how.passes * _KEY.itemsize:
        raise _damaged(keys)
    return count


def _count(path: Path, dtype: np.dtype[Any]) -> int:
    count, rest = divmod(path.stat().st_size, dtype.itemsize)
    if rest:
        raise _damaged(path)
    return count


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is damaged, or was made with other parameters; remove the folder of its step and run it again")


def _blocks(path: Path, dtype: np.dtype[Any], size: int = 1 << 12) -> Iterator[tuple[int, Rows]]:
    """A file's rows in blocks of so many, each with the number of its first row."""
    count = _count(path, dtype)
    with path.open("rb") as file:
        for start in range(0, count, size):
            yield start, np.frombuffer(file.read(min(size, count - start) * dtype.itemsize), dtype)
