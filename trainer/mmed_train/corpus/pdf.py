"""Text out of PDF files, by PDFium: the text layer, or OCR of pages that have none."""

from __future__ import annotations

import math
import mmap
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from mmed_train.corpus.ocr import Ocr, Picture, code, install_line
from mmed_train.corpus.pages import Extracted, Glyph, Piece, is_unspaced, pieces_of, shifted, text_of_pages, upright
from mmedeval import DataError
from mmedeval.text import first_line

if TYPE_CHECKING:
    import pypdfium2  # type: ignore[import-untyped, import-not-found, unused-ignore]

# A page with a picture and fewer characters has no text layer; nor has one of whose characters a larger share means nothing.
LEAST_CHARACTERS, MOST_UNREADABLE = 20, 0.3
# So many lines and curves are letters that were drawn.
_DRAWN = 50
DPI = 300
# A page larger than A2 is read at fewer pixels per inch.
_MOST_PIXELS = 40_000_000
_POINTS_PER_INCH = 72
# What a page draws may have so many bytes when it is unpacked: PDFium takes up to 80 for each of them, and cannot be stopped.
# Deflate makes nothing smaller than by this factor. Source: https://zlib.net/zlib_tech.html
_MOST_UNPACKED, _PACKS = 32 << 20, 1032
_BLOCK = 1 << 16
_STREAM = re.compile(rb"stream\r?\n")
# Where fonts of symbols have what starts the items of lists.
_SYMBOLS = {0xF0B7: 0x2022, 0xF0A7: 0x25AA, 0xF0D8: 0x25B6, 0xF0FC: 0x2713}


def extract_pdf(
    path: Path, language: str, *, ocr: Ocr | None = None, most_pages: int = 5_000, most_characters: int = 20_000_000
) -> Extracted:
    """The text of a PDF file, by its text layer, and by `ocr` where a page has none that can be used.

    What is behind the first `most_pages` pages or `most_characters` characters is left out, with a warning; so are single pages
    that are damaged, or that only `ocr` could read. Raises `DataError` for a file that is encrypted or damaged or swells, or of
    which no page could be read. PDFium is not safe for threads: one file at a time per process.
    """
    import pypdfium2

    code(language)
    if not path.is_file():
        raise DataError(f"{path} is not {'a file' if path.exists() else 'there'}")
    if _swells(path):
        raise DataError(f"{path} has more than {_MOST_UNPACKED >> 20} MB in one packed stream that is no picture; it is not read")
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise DataError(
                f"{path} is encrypted; write a copy without the password: qpdf --decrypt --password=... IN OUT"
            ) from error
        raise DataError(f"{path} cannot be read as a PDF file: {first_line(error)}; is it complete?") from error
    with closing(document):
        return _Reading(path, document, language, ocr).extract(most_pages, most_characters)


class _Reading:
    """What is found on the way through one file."""

    def __init__(self, path: Path, document: pypdfium2.PdfDocument, language: str, ocr: Ocr | None) -> None:
        self.path, self.document, self.language, self.ocr = path, document, language, ocr
        self.by_ocr: list[int] = []
        self.unread: list[int] = []
        self.damaged: list[int] = []
        self.warnings: list[str] = []
        self.characters = self.well_read = 0

    def extract(self, most_pages: int, most_characters: int) -> Extracted:
        number_of_pages = len(self.document)
        if not _ends_well(self.path):
            self.warnings.append("the file ends early; pages may be missing")
        if number_of_pages > most_pages:
            self.warnings.append(f"of {number_of_pages} pages only the first {most_pages} were read")
        pages: list[Sequence[Piece]] = []
        for number in range(1, min(number_of_pages, most_pages) + 1):
            pages.append(self._page(number, most_characters - self.characters))
            if self.characters >= most_characters:
                self.warnings.append(f"only the first {most_characters} characters were read, up to page {number}")
                break
        text = text_of_pages(pages)
        if self.unread and not self.well_read:
            unread = f"{self.path}: page {self.unread[0]} has no text layer, nor has another"
            if self.ocr is None:
                raise DataError(f"{unread}; to read scanned pages, run: {install_line([self.language])}")
            raise DataError(f"{unread}, and OCR found no text; {'; '.join(self.warnings) or 'look at the file'}")
        if self.damaged and not text:
            raise DataError(f"{self.path}: {_named(self.damaged)} damaged, and nothing else is there; is the file complete?")
        if self.unread and self.ocr is None:
            install = f"to read scanned pages, run: {install_line([self.language])}"
            self.warnings.append(f"{_named(self.unread)} without a text layer that could be read; {install}")
        if self.damaged:
            self.warnings.append(f"{_named(self.damaged)} damaged and left out")
        return Extracted(text=text, pages=number_of_pages, ocr_pages=tuple(self.by_ocr), warnings=tuple(self.warnings))

    def _page(self, number: int, most_characters: int) -> Sequence[Piece]:
        import pypdfium2

        try:
            with closing(self.document[number - 1]) as page:
                glyphs, unreadable, seen = _glyphs(page, most_characters)
                self.characters += seen
                written = sum(not glyph[0].isspace() for glyph in glyphs)
                found: Sequence[Piece] = list(pieces_of(upright(glyphs)))
                if unreadable > MOST_UNREADABLE * (written + unreadable):
                    found = []
                elif written >= LEAST_CHARACTERS or not _has_picture(page):
                    self.well_read += written > 0
                    return found
                scanned = self._scanned(number, _picture(page)) if self.ocr is not None else []
                if not scanned:
                    self.unread.append(number)
                return scanned or found
        except pypdfium2.PdfiumError:
            self.damaged.append(number)
            return []

    def _scanned(self, number: int, picture: Picture) -> Sequence[Piece]:
        assert self.ocr is not None
        try:
            found = self.ocr.read(picture, self.language)
        except DataError as error:
            self.warnings.append(f"page {number} was left out: {first_line(error)}")
            return []
        if found:
            self.by_ocr.append(number)
            self.well_read += 1
        self.characters += sum(len(piece.text) for piece in found)
        return [shifted(piece, scale=_POINTS_PER_INCH / picture.dpi) for piece in found]


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 2048))
        return b"%%EOF" in file.read()


def _swells(path: Path) -> bool:
    """Whether unpacking a stream gives more than a page can need."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return False
        with data:
            end = 0
            for found in _STREAM.finditer(data):
                if found.start() < end:
                    continue
                start, end = found.end(), data.find(b"endstream", found.end())
                end = len(data) if end < 0 else end + len(b"endstream")
                about = data[max(0, start - 1000) : start]
                about = about[about.rfind(b" obj") + 1 :]
                small = (end - start) * _PACKS < _MOST_UNPACKED
                if not small and b"FlateDecode" in about and b"/Image" not in about and _unpacked(data, start, end):
                    return True
    return False


def _unpacked(data: mmap.mmap, start: int, end: int) -> bool:
    """Whether a stream is too large when it is unpacked; one that is damaged is not."""
    unpack, size = zlib.decompressobj(), 0
    try:
        for place in range(start, end, _BLOCK):
            packed = data[place : min(place + _BLOCK, end)]
            while packed:
                size += len(unpack.decompress(packed, 1 << 20))
                packed = unpack.unconsumed_tail
                if size > _MOST_UNPACKED:
                    return True
    except zlib.error:
        pass
    return False


def _named(pages: Sequence[int]) -> str:
    """`page 3 is`, `pages 3, 7 to 9 are`."""
    ranges: list[list[int]] = []
    for page in pages:
        if ranges and page == ranges[-1][-1] + 1:
            ranges[-1] = [ranges[-1][0], page]
        else:
            ranges.append([page])
    listed = ", ".join(" to ".join(str(page) for page in each) for each in ranges[:10]) + (", ..." if len(ranges) > 10 else "")
    return f"page {listed} is" if len(pages) == 1 else f"pages {listed} are"


def _glyphs(page: pypdfium2.PdfPage, most: int) -> tuple[list[Glyph], int, int]:
    """Of at most so many characters, in the order of the file, those that mean something; how many do not; how many there are."""
    from pypdfium2 import raw

    found: list[tuple[int, Glyph]] = []
    unreadable = 0
    box = raw.FS_RECTF()
    place = (0.0, 0.0)
    turn = 0
    high = page.get_height()
    with closing(page.get_textpage()) as text:
        half = 0
        seen = min(text.count_chars(), most)
        for index in range(seen):
            value = raw.FPDFText_GetUnicode(text, index)
            if 0xD800 <= value < 0xDC00:
                half = value
                continue
            if half and 0xDC00 <= value < 0xE000:
                value = 0x10000 + ((half - 0xD800) << 10) + value - 0xDC00
            half = 0
            value = _SYMBOLS.get(value, value)
            char = chr(value) if value < 0x110000 else "\ufffd"
            if char in "\r\n" or (char == " " and _is_gap(text, index)):
                continue
            if _means_nothing(value) or (not char.isascii() and raw.FPDFText_HasUnicodeMapError(text, index) == 1):
                unreadable += 1
                continue
            if not raw.FPDFText_GetLooseCharBox(text, index, box):
                continue
            # Quarter turns; a line's characters have the same.
            if place != (box.top, box.bottom) and not char.isspace():
                place = (box.top, box.bottom)
                turn = round(raw.FPDFText_GetCharAngle(text, index) / (math.pi / 2)) % 4
            found.append((turn, (char, box.left, box.right, high - box.top, high - box.bottom)))
    # A stamp at the margin, and the like, is none of the page's text.
    turns = Counter(turn for turn, glyph in found if not glyph[0].isspace())
    main = turns.most_common(1)[0][0] if turns else 0
    return [glyph for turn, glyph in found if turn == main or glyph[0].isspace()], unreadable, seen


def _is_gap(text: pypdfium2.PdfTextpage, index: int) -> bool:
    """Whether PDFium made a space of a gap between Han or kana, where it is only justification."""
    from pypdfium2 import raw

    before, after = raw.FPDFText_GetUnicode(text, index - 1), raw.FPDFText_GetUnicode(text, index + 1)
    return (
        raw.FPDFText_IsGenerated(text, index) == 1
        and max(before, after) < 0x110000
        and is_unspaced(chr(before))
        and is_unspaced(chr(after))
    )


def _means_nothing(value: int) -> bool:
    """Private use, a replacement character, or a control character other than PDFium's hyphen."""
    return 0xE000 <= value < 0xF900 or value in (0, 0xFFFD) or value >= 0xF0000 or (value < 32 and value not in (2, 9, 10, 13))


def _has_picture(page: pypdfium2.PdfPage) -> bool:
    from pypdfium2 import raw

    drawn = 0
    for index in range(min(raw.FPDFPage_CountObjects(page), 10_000)):
        kind = raw.FPDFPageObj_GetType(raw.FPDFPage_GetObject(page, index))
        if kind in (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_FORM, raw.FPDF_PAGEOBJ_SHADING):
            return True
        drawn += kind == raw.FPDF_PAGEOBJ_PATH
    return drawn >= _DRAWN


def _picture(page: pypdfium2.PdfPage) -> Picture:
    inches = [max(side, 1.0) / _POINTS_PER_INCH for side in page.get_size()]
    dpi = max(1, min(DPI, math.floor(math.sqrt(_MOST_PIXELS / (inches[0] * inches[1])))))
    with closing(page.render(scale=dpi / _POINTS_PER_INCH, grayscale=True)) as bitmap:
        held = bytes(bitmap.buffer)
        stride, width, height = bitmap.stride, bitmap.width, bitmap.height
    pixels = held if stride == width else b"".join(held[row * stride : row * stride + width] for row in range(height))
    return Picture(width=width, height=height, dpi=dpi, pixels=pixels)
