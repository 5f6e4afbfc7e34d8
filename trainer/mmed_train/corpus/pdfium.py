"""PDF files read by PDFium: the text layer, or OCR of pages that have none. It runs in a process of its own: see `pdf`."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mmed_train.corpus.ocr import Ocr, Picture, install_line
from mmed_train.corpus.pages import Extracted, Glyph, Piece, is_unspaced, pieces_of, shifted, text_of_pages, upright
from mmedeval import DataError
from mmedeval.text import first_line

if TYPE_CHECKING:
    import pypdfium2

# A page with a picture and fewer characters has no text layer; nor has one of whose characters a larger share means nothing.
LEAST_CHARACTERS, MOST_UNREADABLE = 20, 0.3
# So many lines and curves are letters that were drawn.
_DRAWN = 50
DPI = 300
# A page larger than A2 is read at fewer pixels per inch.
_MOST_PIXELS = 40_000_000
_POINTS_PER_INCH = 72
# Where fonts of symbols have what starts the items of lists.
_SYMBOLS = {0xF0B7: 0x2022, 0xF0A7: 0x25AA, 0xF0D8: 0x25B6, 0xF0FC: 0x2713}


class Channel:
    """What two processes tell each other: JSON, a line each, and bare bytes where a line announces them.

    No pickle: a file may make the process that reads it say anything.
    """

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    def send(self, message: object, data: bytes = b"") -> None:
        self._outgoing.write(json.dumps(message).encode() + b"\n" + data)
        self._outgoing.flush()

    def receive(self) -> Any:
        """Raises `EOFError` where the other process has ended."""
        line = self._incoming.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)

    def receive_bytes(self, count: int) -> bytes:
        """Raises `EOFError` where the other process has ended."""
        data = self._incoming.read(count)
        if len(data) < count:
            raise EOFError
        return data


class _FarOcr:
    """OCR that the process at the other end of a channel does: it would need the memory that is left here."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def read(self, picture: Picture, language: str) -> Sequence[Piece]:
        self._channel.send({"width": picture.width, "height": picture.height, "dpi": picture.dpi}, picture.pixels)
        answer = self._channel.receive()
        if "error" in answer:
            raise DataError(answer["error"])
        return [Piece(**each) for each in answer["pieces"]]


def main(memory: int, seconds: float) -> None:
    """Reads the files that are asked for on standard input, in so many bytes of memory, and seconds of a processor for each."""
    channel = Channel(sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # nothing else that is printed may come between
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other end is told, too, and decides
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory if soft == resource.RLIM_INFINITY else min(memory, soft), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        channel.send("ready")
        while True:
            asked = channel.receive()
            # Without a handler its signal ends the process, also in the middle of PDFium.
            signal.setitimer(signal.ITIMER_PROF, seconds)
            try:
                answer = asdict(
                    read_pdf(
                        Path(asked["path"]),
                        asked["language"],
                        ocr=_FarOcr(channel) if asked["ocr"] else None,
                        most_pages=asked["most_pages"],
                        most_characters=asked["most_characters"],
                    )
                )
            except DataError as error:
                answer = {"error": str(error)}
            signal.setitimer(signal.ITIMER_PROF, 0)
            channel.send(answer)
    except MemoryError:
        os.abort()  # as PDFium does
    except (EOFError, BrokenPipeError):
        os._exit(0)  # nobody is left to read for


def read_pdf(path: Path, language: str, *, ocr: Ocr | None, most_pages: int, most_characters: int) -> Extracted:
    """See `extract_pdf`. PDFium is not safe for threads."""
    import pypdfium2

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
                scanned = self._scanned(number, page) if self.ocr is not None else []
                if not scanned:
                    self.unread.append(number)
                return scanned or found
        except pypdfium2.PdfiumError:
            self.damaged.append(number)
            return []

    def _scanned(self, number: int, page: pypdfium2.PdfPage) -> Sequence[Piece]:
        assert self.ocr is not None
        try:
            picture = _picture(page)
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
    """Raises `DataError` for a page whose size is out of bounds."""
    dpi = _dpi(*page.get_size())
    with closing(page.render(scale=dpi / _POINTS_PER_INCH, grayscale=True)) as bitmap:
        held = bytes(bitmap.buffer)
        stride, width, height = bitmap.stride, bitmap.width, bitmap.height
    pixels = held if stride == width else b"".join(held[row * stride : row * stride + width] for row in range(height))
    return Picture(width=width, height=height, dpi=dpi, pixels=pixels)


def _dpi(width: float, height: float) -> int:
    inches = [max(side, 1.0) / _POINTS_PER_INCH for side in (width, height)]
    dpi = min(DPI, math.floor(math.sqrt(_MOST_PIXELS / (inches[0] * inches[1]))))
    # A side of less than a pixel has one.
    if dpi < 1 or math.ceil(inches[0] * dpi) * math.ceil(inches[1] * dpi) > _MOST_PIXELS:
        raise DataError(f"{inches[0]:,.0f} by {inches[1]:,.0f} inches are too large for OCR")
    return dpi


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
