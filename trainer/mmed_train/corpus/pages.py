"""From pieces of text on pages to paragraphs: reading order, page furniture, hyphens at the ends of lines (pure).

Lengths are points (1/72 inch), places are counted from the page's upper left corner, downwards.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from statistics import median

# Written without spaces: Han and kana with their marks, and the punctuation that goes with them.
UNSPACED = (
    "\u2e80-\u303f\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff60\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(f"[{UNSPACED}]")
_PUNCTUATION = re.compile("[\u3001-\u3004\u3008-\u3020\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff60]")
_WIDE_LETTER = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]")
_MIXED = re.compile(rf"[{UNSPACED}]( ?)[A-Za-z0-9]|[A-Za-z0-9]( ?)[{UNSPACED}]")
_SPACE_BETWEEN = re.compile(f"(?<=[{UNSPACED}])[ \t\n]+(?=[{UNSPACED}])")
_LIGATURES = {
    "\ufb00": "ff",
    "\ufb01": "fi",
    "\ufb02": "fl",
    "\ufb03": "ffi",
    "\ufb04": "ffl",
    "\ufb05": "st",
    "\ufb06": "st",
}
# Fonts that share a glyph between a radical and the ideograph of its shape give the radical back: ⼼不全 for 心不全.
_RADICALS = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0x2F00, 0x2FD6)}
_REPLACED = str.maketrans({**_LIGATURES, **_RADICALS, "\ufffe": "-", "\x02": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " "})
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\ud800-\udfff]")

_HYPHENS = "-\u2010\u00ad"
_HEAD = re.compile(r"([^\W\d_]+)[-\u2010]$")
_TAIL = re.compile(r"[^\W\d_]+")
# So many hyphens tell whether a text breaks words.
_ENOUGH = 6
_WORD = re.compile(r"[^\W\d_]+(?:[-\u2010'’][^\W\d_]+)*")
_ENDS = re.compile(r"[.!?:;…。．！？：；」』）)\]”»\"]$")
_BULLET = re.compile(r"[•◦▪▫‣●○■□◆◇▶►✓✔※]\s*|[-–—*]\s+|\(?\d{1,3}[.)）、]\s*|[①-⑳]")
_DOTS = re.compile("[•◦▪▫‣●○■□◆◇▶►✓✔※①-⑳]")

_NUMBER = re.compile(r"\d+")
_COUNTED = re.compile(r"(?<=第)[〇零一二三四五六七八九十百]+")
_ROMAN = re.compile(r"[ivxlc]+$|[IVXLC]+$")
# So many lines at a page's upper and lower edge may be furniture, which stays within so many points.
_EDGE, _SAME_PLACE = 4, 6.0
# So many pages to each side tell what repeats.
_NEAR = 4
# So many pairs of characters tell which way the lines of a page run.
_SAMPLED = 400


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """A document's text, its paragraphs set apart by empty lines; pages that it has, and those (from 1) that OCR read.

    Warnings are sentences about what the text lacks.
    """

    text: str
    pages: int = 1
    ocr_pages: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Text that stands in one line, without a wide gap.

    `size` is the height of the type. `block` is the place in the reading order of what the piece belongs to, where that is known:
    from OCR. It is below 0 where it is not.
    """

    text: str
    left: float
    right: float
    top: float
    bottom: float
    size: float
    block: int = -1

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


# A character with its left, right, top and bottom.
Glyph = tuple[str, float, float, float, float]
Block = list[Piece]


def clean(text: str) -> str:
    """Text as it was meant: NFC, ligatures and radicals resolved, without control characters; full-width letters stay."""
    if text.isascii() and text.isprintable():
        return text
    return unicodedata.normalize("NFC", _UNSEEN.sub("", text.translate(_REPLACED)))


def is_unspaced(char: str) -> bool:
    """Whether the character is of a script that has no spaces between words, or of its punctuation."""
    return _UNSPACED.match(char) is not None


def is_solid(last: str, first: str) -> bool:
    """Whether nothing belongs between two characters: both are of a script without spaces, or one is of its punctuation."""
    return (is_unspaced(last) and is_unspaced(first)) or bool(_PUNCTUATION.match(last) or _PUNCTUATION.match(first))


def closed_up(text: str) -> str:
    """Without the spaces between characters of a script that has none."""
    return _SPACE_BETWEEN.sub("", text)


def text_of_pages(pages: Sequence[Sequence[Piece]]) -> str:
    """The text of a document, its paragraphs set apart by empty lines, without what repeats at the pages' edges."""
    kept = without_furniture(pages)
    # Pages that are all alike are no pages of furniture only.
    blocks = [block for page in (kept if any(kept) else pages) for block in in_order(page)]
    return "\n\n".join(paragraphs(blocks))


# --- characters -------------------------------------------------------------------------------------------------------------


def upright(glyphs: Sequence[Glyph]) -> Sequence[Glyph]:
    """The characters of a page that is turned so that its lines run to the right, those of vertical writing too."""
    seen = [glyph for glyph in glyphs if not glyph[0].isspace()]
    ways: Counter[str] = Counter()
    for place in range(0, len(seen) - 1, 1 + len(seen) // _SAMPLED):
        before, after = seen[place], seen[place + 1]
        right = (after[1] + after[2] - before[1] - before[2]) / 2
        down = (after[3] + after[4] - before[3] - before[4]) / 2
        if 0 < max(abs(right), abs(down)) < 2 * max(after[2] - after[1], after[4] - after[3]):
            ways["right" if right > abs(down) else "left" if -right > abs(down) else "down" if down > 0 else "up"] += 1
    way = ways.most_common(1)[0][0] if ways else "right"
    if way == "down":
        return [(char, top, bottom, -right, -left) for char, left, right, top, bottom in glyphs]
    if way == "up":
        return [(char, -bottom, -top, left, right) for char, left, right, top, bottom in glyphs]
    if way == "left":
        return [(char, -right, -left, -bottom, -top) for char, left, right, top, bottom in glyphs]
    return glyphs


def pieces_of(glyphs: Iterable[Glyph]) -> Iterator[Piece]:
    """Characters in the order of the file to pieces. A space has only to be there."""
    run: list[Glyph] = []
    text = ""
    for glyph in glyphs:
        if glyph[0].isspace():
            text += " " if text else ""
            continue
        if run and not _follows(run[-1], glyph):
            yield from _piece(text, run)
            run, text = [], ""
        run.append(glyph)
        text += glyph[0]
    yield from _piece(text, run)


def _follows(before: Glyph, glyph: Glyph) -> bool:
    _, left, right, top, bottom = before
    height = max(bottom - top, glyph[4] - glyph[3])
    shared = min(bottom, glyph[4]) - max(top, glyph[3])
    if shared < 0.4 * min(bottom - top, glyph[4] - glyph[3]):
        return False
    # A ligature's letters all have its place.
    return glyph[1] - right < 1.5 * height and glyph[1] >= left - 0.1 * height


def _piece(text: str, run: Sequence[Glyph]) -> Iterator[Piece]:
    text = clean(text).strip()
    if text:
        size = median(glyph[4] - glyph[3] for glyph in run)
        yield Piece(
            text=text,
            left=run[0][1],
            right=max(glyph[2] for glyph in run),
            top=median(glyph[3] for glyph in run),
            bottom=median(glyph[4] for glyph in run),
            size=max(size, 0.1),
        )


# --- lines ------------------------------------------------------------------------------------------------------------------


def rows(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """Pieces that stand side by side, from the left; rows from the top."""
    found: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: piece.middle):
        if found and _beside(found[-1][-1], piece):
            found[-1].append(piece)
        else:
            found.append([piece])
    return [sorted(row, key=lambda piece: piece.left) for row in found]


def _beside(one: Piece, other: Piece) -> bool:
    shared = min(one.bottom, other.bottom) - max(one.top, other.top)
    return shared > 0.5 * min(one.bottom - one.top, other.bottom - other.top)


def line(row: Sequence[Piece]) -> Piece:
    """The pieces of one row as one."""
    if len(row) == 1:
        return row[0]
    text = row[0].text
    for before, piece in pairwise(row):
        solid = is_solid(before.text[-1], piece.text[0])
        apart = piece.left - before.right > (2.5 if solid else 0.2) * piece.size
        text += (" " if apart else "") + piece.text
    return Piece(
        text=text,
        left=row[0].left,
        right=max(piece.right for piece in row),
        top=min(piece.top for piece in row),
        bottom=max(piece.bottom for piece in row),
        size=max(row, key=lambda piece: len(piece.text)).size,
        block=row[0].block,
    )


# --- furniture --------------------------------------------------------------------------------------------------------------


def without_furniture(pages: Sequence[Sequence[Piece]]) -> list[list[Piece]]:
    """Pages without running heads, footers and page numbers.

    These are lines at a page's edge that pages around it, or every second of them, have at the same place, but for their numbers.
    Three pages must have one, or two if it holds a number that grows with the pages.
    """
    gone: list[set[int]] = [set() for _ in pages]
    for at_top in (True, False):
        edges = [_edge(page, at_top=at_top) for page in pages]
        for number, edge in enumerate(edges):
            for row in edge:
                if not _repeats(row, number, edges):
                    break
                gone[number].update(id(piece) for piece in row.pieces)
    return [[piece for piece in page if id(piece) not in ids] for page, ids in zip(pages, gone, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    pieces: Sequence[Piece]
    place: float
    masked: str
    numbers: Sequence[int]


def _edge(page: Sequence[Piece], *, at_top: bool) -> list[_Row]:
    found = rows(page)
    outer = found[:_EDGE] if at_top else found[: -_EDGE - 1 : -1]
    return [_masked(row) for row in outer]


def _masked(row: Sequence[Piece]) -> _Row:
    text = " ".join(line(row).text.split())
    masked = "#" if _ROMAN.match(text) else _COUNTED.sub("#", _NUMBER.sub("#", text))
    if masked.count("#") > 3 and not any(char.isalpha() for char in masked):
        masked = text  # a row of figures
    numbers = [int(digits) for digits in _NUMBER.findall(text) if len(digits) < 6]
    return _Row(pieces=row, place=row[0].middle, masked=masked.casefold(), numbers=numbers)


def _repeats(row: _Row, number: int, edges: Sequence[Sequence[_Row]]) -> bool:
    """Whether enough pages around the one of this number have the row, too."""
    near = range(max(0, number - _NEAR), min(len(edges), number + _NEAR + 1))
    same = {
        page: other
        for page in near
        for other in edges[page]
        if other.masked == row.masked and abs(other.place - row.place) <= _SAME_PLACE
    }
    growing = [page for page, other in same.items() if {n - page for n in other.numbers} & {n - number for n in row.numbers}]
    if len(same) < 3 and len(growing) < 2:
        return False
    side = [page for page in near if (page - number) % 2 == 0]
    return 2 * len(same) >= len(near) or 2 * sum(page in same for page in side) > len(side)


# --- reading order ----------------------------------------------------------------------------------------------------------


def in_order(page: Sequence[Piece]) -> list[Block]:
    """The page's lines in the order of reading, in blocks as wide as a column."""
    if any(piece.block >= 0 for piece in page):
        known: dict[int, list[Piece]] = defaultdict(list)
        for piece in page:
            known[piece.block].append(piece)
        return [[line(row) for row in rows(known[block])] for block in sorted(known)]
    return _columns(list(page), depth=3)


def _columns(pieces: list[Piece], depth: int) -> list[Block]:
    gutter = _gutter(pieces) if depth else None
    if gutter is None:
        return [[line(row) for row in rows(pieces)]] if pieces else []
    blocks: list[Block] = []
    for across, group in groupby(rows(pieces), key=lambda row: any(_crosses(piece, gutter) for piece in row)):
        band = [piece for row in group for piece in row]
        sides = [piece for piece in band if piece.left < gutter], [piece for piece in band if piece.left >= gutter]
        if across or (min(len(side) for side in sides) >= 3 and not _are_columns(*sides)):
            blocks.append([line(row) for row in rows(band)])
        else:
            for side in sides:
                blocks.extend(_columns(side, depth - 1))
    return blocks


def _crosses(piece: Piece, gutter: float) -> bool:
    return piece.left < gutter - 1 and piece.right > gutter - 0.3 * piece.size


def _gutter(pieces: Sequence[Piece]) -> float | None:
    """Where a column starts that has another at its left; `None` where there is no such place."""
    if len(pieces) < 8:
        return None
    left, right = min(piece.left for piece in pieces), max(piece.right for piece in pieces)
    starts = Counter(
        round(piece.left / 3) for piece in pieces if left + 0.2 * (right - left) < piece.left < right - 0.15 * (right - left)
    )
    for start, count in starts.most_common(4):
        if count < 3:
            return None
        gutter = min(piece.left for piece in pieces if round(piece.left / 3) == start) - 0.5
        beside = [piece for piece in pieces if not _crosses(piece, gutter)]
        sides = [piece for piece in beside if piece.left < gutter], [piece for piece in beside if piece.left >= gutter]
        if len(beside) * 3 >= len(pieces) and min(len(side) for side in sides) >= 4 and _are_columns(*sides):
            return gutter
    return None


def _are_columns(*sides: Sequence[Piece]) -> bool:
    """Whether these are lines of text rather than cells of a table: most of them fill their column."""
    for side in sides:
        lines = [line(row) for row in rows(side)]
        width = max(piece.right for piece in lines) - min(piece.left for piece in lines)
        if len(lines) < 3 or median(piece.right - piece.left for piece in lines) < max(0.6 * width, 6 * lines[0].size):
            return False
    return True


# --- paragraphs -------------------------------------------------------------------------------------------------------------


def paragraphs(blocks: Sequence[Block]) -> list[str]:
    """Lines put together.

    A paragraph ends at an empty line, at a line that had room for the next word, before an indent, a bullet and another size of
    type; one that a column or a page cuts goes on in the next.
    """
    found: list[list[str]] = []
    before: tuple[Piece, _Shape] | None = None
    for block in blocks:
        shape = _Shape(block)
        for number, each in enumerate(block):
            if before is None:
                goes_on = False
            elif number:
                goes_on = not shape.breaks(before[0], each)
            else:
                full = not before[1].has_room(before[0], each)
                long = len(found[-1]) > 1 or len(block) == 1
                goes_on = _goes_on(before[0], each, full=full, long=long, indented=shape.indented(each))
            if goes_on:
                found[-1].append(each.text)
            else:
                found.append([each.text])
            before = each, shape
    joints = Joints(found)
    return [text for text in (joints.joined(lines) for lines in found) if text]


class _Shape:
    """Where the lines of a block start and end, and how far apart they are."""

    def __init__(self, block: Block) -> None:
        size = median(each.size for each in block)
        lefts = [each.left for each in block]
        rights = [-each.right for each in block]
        self.left, self.right = _common_edge(lefts, size), -_common_edge(rights, size)
        steps = [after.top - before.top for before, after in pairwise(block) if after.top > before.top]
        self.leading = median(steps) if len(steps) >= 3 else min([*steps, 2 * size])

    def indented(self, each: Piece) -> bool:
        return each.left > self.left + 0.8 * each.size

    def has_room(self, each: Piece, after: Piece) -> bool:
        """Whether the line could have taken the first word of the one after it, and a little more."""
        word = 1 if is_unspaced(after.text[0]) else after.text.find(" ")
        letter = (after.right - after.left) / len(after.text)
        return self.right - each.right > (word if word > 0 else len(after.text)) * letter + 1.2 * each.size

    def breaks(self, before: Piece, after: Piece) -> bool:
        step = after.top - before.top
        if step > max(1.35 * self.leading, self.leading + 0.25 * after.size) or not 0.8 <= before.size / after.size <= 1.25:
            return True
        if _DOTS.match(after.text):
            return True
        if before.text[-1:] in _HYPHENS and after.text[:1].islower():
            return False
        ended = bool(_ENDS.search(before.text))
        if ended and ((self.indented(after) and after.left > before.left + 0.8 * after.size) or _BULLET.match(after.text)):
            return not _BULLET.match(before.text) or bool(_BULLET.match(after.text))
        return self.has_room(before, after)


def _common_edge(places: Sequence[float], size: float) -> float:
    """The smallest place that a sixth of the lines, or two of them, keep to."""
    ordered = sorted(places)
    needed = max(min(2, len(ordered)), len(ordered) // 6)
    for number in range(len(ordered) - needed + 1):
        if ordered[number + needed - 1] - ordered[number] <= size:
            return ordered[number]
    return ordered[0]


def _goes_on(before: Piece, after: Piece, *, full: bool, long: bool, indented: bool) -> bool:
    """Whether a block's first line belongs to the paragraph in which the block before it ended."""
    if not 0.8 <= before.size / after.size <= 1.25 or _DOTS.match(after.text):
        return False
    lower = after.text[:1].islower()
    if before.text[-1:] in _HYPHENS and lower:
        return True
    if _ENDS.search(before.text) or indented or not full:
        return False
    if is_unspaced(before.text[-1]):
        return long
    return lower or (long and (before.text[-1:].islower() or before.text[-1:] == ","))


class Joints:
    """Knows from the rest of a document what belongs where two lines meet: a space, a hyphen or nothing."""

    def __init__(self, paragraphs: Sequence[Sequence[str]]) -> None:
        self._words = Counter(word.casefold() for lines in paragraphs for each in lines for word in _WORD.findall(each)[:-1])
        compounds = [word.split("-") for word in self._words if "-" in word]
        self._heads, self._tails = {parts[0] for parts in compounds}, {parts[-1] for parts in compounds}
        whole = hyphened = unknown = 0
        for lines in paragraphs:
            for before, after in pairwise(lines):
                broken = _broken(before, after)
                if broken is not None:
                    known = self._known(*broken)
                    whole, hyphened, unknown = whole + (known < 0), hyphened + (known > 0), unknown + (known == 0)
        # A text that breaks words breaks some that it has elsewhere, too.
        self._breaks_words = whole > hyphened or whole + hyphened + unknown < _ENOUGH
        mixed = Counter(" " in found[0] for lines in paragraphs for each in lines for found in _MIXED.finditer(each))
        self._spaces_mixed = mixed[True] > mixed[False]

    def joined(self, lines: Sequence[str]) -> str:
        """The lines of one paragraph."""
        text = ""
        for each in (" ".join(part.split()) for part in lines):
            if not each or not text:
                text = text or each
                continue
            broken = _broken(text, each)
            if text.endswith("\u00ad") or (broken is not None and not self._keeps(*broken)):
                text = text[:-1] + each
            elif broken is not None or (text[-1] in _HYPHENS and text[-2:-1].isalnum() and each[0].isalnum()):
                text += each
            else:
                text += (" " if self._spaced(text[-1], each[0]) else "") + each
        return text.replace("\u00ad", "").strip()

    def _spaced(self, last: str, first: str) -> bool:
        if is_solid(last, first) or (_WIDE_LETTER.match(last) and _WIDE_LETTER.match(first)):
            return False
        return self._spaces_mixed or not (is_unspaced(last) or is_unspaced(first))

    def _known(self, head: str, tail: str) -> int:
        """Above 0 where the document has the word with its hyphen, below where it has it without."""
        return self._words.get(f"{head}-{tail}", 0) - self._words.get(head + tail, 0)

    def _keeps(self, head: str, tail: str) -> bool:
        known = self._known(head, tail)
        if known or not self._breaks_words:
            return known >= 0
        of_compounds = head in self._heads or tail in self._tails
        return len(head) == 1 or (of_compounds and head in self._words and tail in self._words)


def _broken(before: str, after: str) -> tuple[str, str] | None:
    """The two parts of a word that lines may have broken, in lower case."""
    head, tail = _HEAD.search(before), _TAIL.match(after)
    if head is None or tail is None or not tail[0][0].islower():
        return None
    return head[1].casefold(), tail[0].casefold()


def shifted(piece: Piece, *, scale: float) -> Piece:
    """The piece on a page of another scale."""
    return replace(
        piece,
        left=piece.left * scale,
        right=piece.right * scale,
        top=piece.top * scale,
        bottom=piece.bottom * scale,
        size=piece.size * scale,
    )
