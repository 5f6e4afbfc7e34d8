"""Finds copies of test items in documents, so that no model is trained on what it will be asked.

Four rules, each for what the one before cannot tell from ordinary text:

    passage                so many units of a question in a row (`WORDS`, `CHARACTERS`)
    question               a short question as a whole, with the marks that end it
    question and options   half of a short question in a row, close to all its options, in any order
    options                all options of a short question in full, if they are long together

GPT-3's 13 words in a row (Brown et al. 2020, appendix C) are more than half of most questions of MMedBench outside of English,
and still a phrase of Spanish case reports; so here the length is the item's own, between two that were measured.
`benchmarks/dedup.py` shows what is found and what is not.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmed_train.corpus.words import is_unspaced, spans, units
from mmedeval import Sample

Kind = Literal["passage", "question", "question and options", "options"]
Numbers = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How much of a question is a copy by itself, in units: words, or characters of a script without white space.

    Half of a question is a copy if the question has `question` units. A passage is what any half of its characters holds, but
    no less than half of its units or `least`, whichever is less, and no more than `most`. A shorter question is looked for as a
    whole, if it has `whole` units.
    """

    question: int
    least: int
    most: int
    whole: int


# Of 10,400 test questions of six exams, 6,500 real medical documents hold halves of up to 7 words ("la infección por el virus
# de la") and 10 characters, and parts of longer ones of up to 13 words and 17 characters.
WORDS = Lengths(question=14, least=8, most=15, whole=4)
CHARACTERS = Lengths(question=24, least=12, most=20, whole=6)
# What so many different questions say is a phrase of examinations ("which of the following is the most likely diagnosis"), no
# item. The sub-questions of one case share its text, but are never so many.
COMMON = 8
# Labels, headings and page numbers that a copy may have between its parts, in units.
BETWEEN_OPTIONS, AROUND = 2, 8
_ANCHOR = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A test item that a document holds a copy of.

    `kind` is the rule that found it, `share` the part of the question's units that was found, and `where` the characters of the
    document from the first to behind the last unit that was found.
    """

    task: str
    item_id: str
    kind: Kind
    share: float
    where: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Item:
    """`half` is the least number of whole units in any half of the question's characters, `closing` the marks that end it."""

    task: str
    id: str
    question: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    half: int
    closing: str
    lengths: Lengths

    @property
    def passage(self) -> int:
        return min(self.lengths.most, max(min(self.lengths.least, len(self.question) // 2), self.half))

    @property
    def run(self) -> int:
        """So many units of the question in a row are half of it, next to its options."""
        return max(1, min(self.passage, max(self.half, 2)))

    @property
    def long_options(self) -> bool:
        """Whether all options together are a copy, without the question."""
        return sum(map(len, self.options)) >= self.lengths.question

    @property
    def extent(self) -> int:
        """The most units that a copy with its options takes."""
        return len(self.question) + sum(map(len, self.options)) + BETWEEN_OPTIONS * len(self.options) + AROUND


@dataclass(frozen=True, slots=True)
class _Passages:
    """All passages of one length, sorted by hash: `hashes[i]` stands in item `items[i]` at unit `places[i]`."""

    hashes: Numbers
    items: Places
    places: Places


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found of an item, in units: how many of the question, and the first and the last in the document."""

    kind: Kind
    covered: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class _Group:
    """Items that have the same options."""

    options: tuple[tuple[int, ...], ...]
    items: list[int]
    extent: int

    def windows(self, places: Iterable[int], ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Parts of a text that may hold copies around these places, which are in ascending order; each unit is in few of them."""
        done = -1
        for place in places:
            if place < done:
                continue
            done = place + self.extent
            start, end = max(0, place - self.extent), done + self.extent
            there = {*ids[start:end]}
            if all(2 * sum(unit in there for unit in option) >= len(option) for option in self.options):
                yield start, end


class TestItems:
    """The test items of tasks, ready to be looked for.

    Memory is that of the items, time is linear in the text. A copy does not have to be in the language of its task: the script
    decides how text is cut.

    What is not found: less than half of an item; half of a question of less than 14 words or 24 characters, or one that other
    questions share, without its options; a short question with neither its options nor the marks that end it; what was translated
    or put into other words.
    """

    __test__ = False  # its name makes pytest look for tests in it

    def __init__(self, tasks: Mapping[str, Iterable[Sample]]) -> None:
        self._vocabulary: dict[str, int] = {}
        self._items = [self._read(task, sample) for task, samples in tasks.items() for sample in samples]
        self._keys = _keys(len(self._vocabulary) + 1)
        self._passages: dict[int, _Passages] = {}
        missed = self._index_passages()
        self._index_questions()
        self._index_options(missed)

    def __len__(self) -> int:
        return len(self._items)

    def hits(self, text: str) -> list[Hit]:
        """The items that the text holds copies of, in the order of the items; each once."""
        ids = [self._vocabulary.get(unit, 0) for unit in units(text)]
        found = self._find_options(ids) | self._find_passages(ids)
        whole = [each for each in self._find_questions(ids) if each[0] not in found]
        if not found and not whole:
            return []
        where = spans(text)
        for number, place in whole:
            item = self._items[number]
            last = place + len(item.question) - 1
            if number not in found and _marks(text, where[last][1]).startswith(item.closing):
                found[number] = _Found("question", len(item.question), place, last)
        return [
            Hit(
                task=self._items[number].task,
                item_id=self._items[number].id,
                kind=each.kind,
                share=each.covered / len(self._items[number].question),
                where=(where[each.first][0], where[each.last][1]),
            )
            for number, each in sorted(found.items())
        ]

    # --- the index ---

    def _read(self, task: str, sample: Sample) -> _Item:
        def numbers(text: str) -> tuple[int, ...]:
            return tuple(self._vocabulary.setdefault(unit, len(self._vocabulary) + 1) for unit in units(text))

        question = numbers(sample.question)
        borders = spans(sample.question)
        return _Item(
            task=task,
            id=sample.id,
            question=question,
            options=tuple(filter(None, map(numbers, sample.options.values()))),
            # With and without the blanks at its end that are to be filled in.
            half=min(_half(borders, len(sample.question)), _half(borders, borders[-1][1])) if borders else 0,
            closing=_first_end(_marks(sample.question, borders[-1][1])) if borders else "",
            lengths=CHARACTERS if 2 * sum(map(is_unspaced, units(sample.question))) > len(question) else WORDS,
        )

    def _index_passages(self) -> list[int]:
        """Fills the table of passages, but for common ones; returns the items of which some half then holds none."""
        by_length: dict[int, list[int]] = defaultdict(list)
        for number, item in enumerate(self._items):
            if len(item.question) >= item.lengths.question:
                by_length[item.passage].append(number)
        everywhere = list(dict.fromkeys(item.question for item in self._items))
        places_of: dict[int, list[int]] = {}
        for length, numbers in sorted(by_length.items()):
            hashes, owners, _ = self._rows(everywhere, length)
            order = np.lexsort((owners, hashes))
            again = (np.diff(hashes[order]) == 0) & (np.diff(owners[order]) == 0)
            values, counts = np.unique(hashes[order][np.append(True, ~again)[: len(order)]], return_counts=True)
            hashes, owners, places = self._rows([self._items[number].question for number in numbers], length)
            kept = ~np.isin(hashes, values[counts >= COMMON])
            hashes, items, places = hashes[kept], np.array(numbers, np.int64)[owners[kept]], places[kept]
            for number, place in zip(items.tolist(), places.tolist(), strict=True):
                places_of.setdefault(number, []).append(place)
            order = np.lexsort((places, items, hashes))
            self._passages[length] = _Passages(hashes[order], items[order], places[order])
        return [number for number, item in enumerate(self._items) if _misses(item, places_of.get(number, []))]

    def _index_questions(self) -> None:
        """The short questions that few items have, under their first units."""
        self._questions: dict[tuple[int, ...], list[int]] = {}
        self._heads: dict[tuple[int, ...], list[int]] = {}
        for number, item in enumerate(self._items):
            least = item.lengths.whole if item.closing else item.lengths.question // 2
            if least <= len(item.question) < item.lengths.question:
                self._questions.setdefault(item.question, []).append(number)
        for question, numbers in [*self._questions.items()]:
            if len({self._items[number].options for number in numbers}) >= COMMON:
                del self._questions[question]
                continue
            lengths = self._heads.setdefault(question[: WORDS.whole], [])
            if len(question) not in lengths:
                lengths.append(len(question))

    def _index_options(self, numbers: Iterable[int]) -> None:
        """Sorts items under the first units of their rarest option, together if they have the same options."""
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for number in numbers:
            if self._items[number].question and self._items[number].options:
                groups.setdefault(tuple(sorted(self._items[number].options)), []).append(number)
        heads = Counter(head for options in groups for head in {option[:_ANCHOR] for option in options})
        self._anchors: dict[tuple[int, ...], list[_Group]] = {}
        for options, members in groups.items():
            anchor = min((option[:_ANCHOR] for option in options), key=lambda head: (heads[head], -len(head), head))
            extent = max(self._items[number].extent for number in members)
            self._anchors.setdefault(anchor, []).append(_Group(options, members, extent))
        self._first = frozenset(anchor[0] for anchor in self._anchors)
        self._anchor_lengths = sorted({len(anchor) for anchor in self._anchors})

    # --- looking ---

    def _hashes(self, ids: Sequence[int] | Places, lengths: Iterable[int]) -> Iterator[tuple[int, Numbers]]:
        """Each of these lengths, which are in ascending order, and the hash of every row of so many units."""
        keys = self._keys[np.asarray(ids, np.int64)]
        hashes, done = np.zeros(len(keys) + 1, np.uint64), 0
        for length in lengths:
            for step in range(done, length):
                count = max(0, len(keys) - step)
                hashes = hashes[:count] * _BASE + keys[step:]
            done = length
            yield length, hashes

    def _rows(self, texts: Sequence[Sequence[int]], length: int) -> tuple[Numbers, Places, Places]:
        """Hash, number of the text and place in it of every row of `length` units."""
        sizes = np.array([len(text) for text in texts], np.int64)
        owners = np.repeat(np.arange(len(texts)), sizes)
        places = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        [(_, hashes)] = self._hashes(np.array([unit for text in texts for unit in text], np.int64), [length])
        whole = owners[: len(hashes)] == owners[len(owners) - len(hashes) :]
        return hashes[whole], owners[: len(hashes)][whole], places[: len(hashes)][whole]

    def _find_passages(self, ids: Sequence[int]) -> dict[int, _Found]:
        matches: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for length, hashes in self._hashes(ids, self._passages):
            table = self._passages[length]
            starts = np.searchsorted(table.hashes[:-1], hashes)
            there = np.flatnonzero(table.hashes[starts] == hashes) if len(table.hashes) else starts[:0]
            ends = np.searchsorted(table.hashes, hashes[there], side="right")
            for place, end in zip(there.tolist(), ends.tolist(), strict=True):
                row = tuple(ids[place : place + length])
                for entry in range(starts[place], end):
                    number, at = int(table.items[entry]), int(table.places[entry])
                    # Hashes of different passages may be equal by chance, or by somebody's intent.
                    if row == self._items[number].question[at : at + length]:
                        matches[number].append((place, at))
        found = {}
        for number, pairs in matches.items():
            item = self._items[number]
            near = [(place, at) for place, at in pairs if place <= pairs[0][0] + item.extent]
            covered = {unit for _, at in near for unit in range(at, at + item.passage)}
            found[number] = _Found("passage", len(covered), near[0][0], near[-1][0] + item.passage - 1)
        return found

    def _find_questions(self, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Item and place of every short question that stands there as a whole."""
        for place in range(len(ids)):
            for length in self._heads.get(tuple(ids[place : place + WORDS.whole]), ()):
                for number in self._questions.get(tuple(ids[place : place + length]), ()):
                    yield number, place

    def _find_options(self, ids: Sequence[int]) -> dict[int, _Found]:
        places: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, unit in enumerate(ids):
            if unit in self._first:
                for length in self._anchor_lengths:
                    anchor = tuple(ids[place : place + length])
                    if anchor in self._anchors:
                        places[anchor].append(place)
        found: dict[int, _Found] = {}
        for anchor, at in places.items():
            for group in self._anchors[anchor]:
                for start, end in group.windows(at, ids):
                    text = ids[start:end]
                    there = {*text}
                    inside = [place - start for place in at[bisect_left(at, start) : bisect_left(at, end)]]
                    for number in group.items:
                        item = self._items[number]
                        if number in found or not (item.long_options or sum(unit in there for unit in item.question) >= item.run):
                            continue
                        match = _copy(item, text, inside)
                        if match is not None:
                            found[number] = replace(match, first=start + match.first, last=start + match.last)
        return found


_BASE = np.uint64(0x9E3779B97F4A7C15)


def _keys(count: int) -> Numbers:
    """A fixed random number for every unit; 0 for the one that stands for all others."""
    keys = np.random.default_rng(13).integers(1, 2**64, count, np.uint64, endpoint=False)
    keys[0] = 0
    return keys


def _half(borders: Sequence[tuple[int, int]], characters: int) -> int:
    """The least number of whole units in any half of a text; `borders` are where its units start and end."""
    size = characters // 2
    started, ended = np.zeros(characters + 1, np.int64), np.zeros(characters + 1, np.int64)
    for start, end in borders:
        started[start + 1] += 1
        ended[end] += 1
    # Those that end in a window, less those that began before it.
    return max(0, int((ended.cumsum()[size:] - started.cumsum()[: characters - size + 1]).min()))


def _marks(text: str, start: int) -> str:
    """The marks from `start` on, up to the next letter or digit, in one spelling and without white space."""
    end = start
    while end < len(text) and end < start + 40 and not text[end].isalnum():
        end += 1
    return "".join(unicodedata.normalize("NFKC", text[start:end].replace("。", ".")).split())


def _first_end(marks: str) -> str:
    """The marks up to the first that ends a question; some data sets put more behind it ("?:")."""
    for place, mark in enumerate(marks):
        if mark in "?:.":
            return marks[: place + 1]
    return marks


def _misses(item: _Item, places: Sequence[int]) -> bool:
    """Whether some half of a question holds none of the passages at these places, which are in ascending order."""
    if item.half < item.passage:
        return True
    borders = [-1, *places, len(item.question) - item.passage + 1]
    return any(behind - before > item.half - item.passage + 1 for before, behind in pairwise(borders))


def _copy(item: _Item, text: Sequence[int], places: Iterable[int]) -> _Found | None:
    """The longest part of a question that stands in `text` close to all options; else all options in full around a place."""
    for first, size in _runs(item.question, text, item.run):
        low = max(0, first + size - item.extent)
        options = [_cover(option, text[low : first + item.extent], first - low) for option in item.options]
        if all(options):
            seen = [first, first + size - 1, *(low + unit for units_ in options for unit in units_)]
            return _Found("question and options", size, min(seen), max(seen))
    if item.long_options:
        for place in places:
            low = max(0, place - item.extent)
            options = [_cover(option, text[low : place + item.extent], place - low) for option in item.options]
            if all(len(units_) == len(option) for units_, option in zip(options, item.options, strict=True)):
                seen = [low + unit for units_ in options for unit in units_]
                return _Found("options", 0, min(seen), max(seen))
    return None


def _runs(part: Sequence[int], text: Sequence[int], least: int) -> list[tuple[int, int]]:
    """Where at least so many units of `part` stand in `text` in a row, and how many; only runs that are part of no longer one."""
    places: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for at in range(len(part) - least + 1):
        places[tuple(part[at : at + least])].append(at)
    found = []
    going: dict[int, int] = {}
    for place in range(len(text) - least + 2):
        now = {at: going.get(at - 1, place) for at in places.get(tuple(text[place : place + least]), ())}
        found += [(start, place - 1 + least - start) for at, start in going.items() if at + 1 not in now]
        going = now
    return sorted({(start, size) for start, size in found}, key=lambda run: (-run[1], run[0]))


def _cover(option: Sequence[int], text: Sequence[int], center: int) -> list[int]:
    """Where at least half of the units of an option stand, in rows of three close to the center; empty where less does."""
    length = min(len(option), 3)
    wanted: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for at in range(len(option) - length + 1):
        wanted[tuple(option[at : at + length])].append(at)
    covered: dict[int, int] = {}
    for place in range(len(text) - length + 1):
        for at in wanted.get(tuple(text[place : place + length]), ()):
            for step in range(length):
                if abs(place - center) < abs(covered.get(at + step, len(text) + center) - center):
                    covered[at + step] = place + step
    return list(covered.values()) if 2 * len(covered) >= len(option) else []
