"""Text out of pictures of pages, by Tesseract's command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Protocol

from mmed_train.corpus.pages import UNSPACED, Piece, clean, closed_up
from mmedeval import DataError, UnknownNameError, UsageError
from mmedeval.text import first_line

# Tesseract's names, and the ends of the names of Debian's packages that hold them.
LANGUAGES: Mapping[str, str] = {"en": "eng", "zh": "chi_sim", "ja": "jpn", "fr": "fra", "ru": "rus", "es": "spa"}
# Lines of which Tesseract is less sure, in percent, are figures that it took for letters.
LEAST_SURE = 30.0
_WORD_LEVEL = "5"
# Beside Han and kana, Tesseract sets marks of half width apart.
_MARKS = re.compile(
    f"(?<=[{UNSPACED}]) +(?=[-,.;:!?%()\\[\\]/])|(?<=[-,.;:!?%()\\[\\]/]) +(?=[{UNSPACED}])|(?<=[(\\[]) +| +(?=[)\\]])"
)


class Ocr(Protocol):
    """An engine that reads pictures."""

    def read(self, picture: Picture, language: str) -> Sequence[Piece]:
        """The lines of a picture, with places in its pixels, and `block` counting up in the order of reading.

        Raises `DataError` for a picture that cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A page in grey: a byte per pixel, row after row from the top, 0 is black; `dpi` pixels are an inch."""

    width: int
    height: int
    dpi: int
    pixels: bytes

    def to_pgm(self) -> bytes:
        """The picture as a file in the PGM format."""
        return b"P5 %d %d 255\n" % (self.width, self.height) + self.pixels


class Tesseract:
    """Tesseract as installed on this machine. One process per page, which uses one core. Can be pickled.

    Raises `UsageError`, with what to install, where it or the data of one of the languages is missing.
    """

    def __init__(self, languages: Iterable[str], *, command: str = "tesseract", seconds: float = 120.0) -> None:
        self.languages = tuple(sorted({*languages}))
        self.command, self.seconds = command, seconds
        for language in self.languages:
            code(language)
        if shutil.which(command) is None:
            raise UsageError(f"there is no Tesseract here, which reads scanned pages; run: {install_line(self.languages)}")
        listed = self._run(["--list-langs"], b"").stdout.decode("utf-8", "replace").splitlines()
        missing = [language for language in self.languages if code(language) not in {each.strip() for each in listed}]
        if missing:
            names = ", ".join(missing)
            raise UsageError(f"Tesseract is here, but not its data for {names}; run: {install_line(missing)}")

    def version(self) -> str:
        """What Tesseract calls itself: `tesseract 5.3.0`."""
        found = self._run(["--version"], b"")
        return first_line(Exception((found.stdout or found.stderr).decode("utf-8", "replace")))

    def read(self, picture: Picture, language: str) -> Sequence[Piece]:
        """See `Ocr`. Han and kana come without spaces between them."""
        arguments = ["stdin", "stdout", "-l", code(language), "--dpi", str(picture.dpi), "tsv"]
        found = self._run(arguments, picture.to_pgm())
        if found.returncode:
            said = first_line(Exception(found.stderr.decode("utf-8", "replace")))
            raise DataError(f"Tesseract stopped with code {found.returncode}: {said}")
        return lines_of_tsv(found.stdout.decode("utf-8", "replace"))

    def _run(self, arguments: Sequence[str], given: bytes) -> subprocess.CompletedProcess[bytes]:
        # Its threads cost more than they bring, and documents are read side by side anyway.
        environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
        try:
            return subprocess.run(
                [self.command, *arguments], input=given, capture_output=True, timeout=self.seconds, env=environment, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(f"Tesseract took longer than {self.seconds:g} seconds") from error
        except OSError as error:
            raise UsageError(f"Tesseract does not run: {error}; run: {install_line(self.languages)}") from error


def code(language: str) -> str:
    """Tesseract's name of a language. Raises `UnknownNameError` for one that is none of the six."""
    if language not in LANGUAGES:
        raise UnknownNameError("language", language, LANGUAGES)
    return LANGUAGES[language]


def install_line(languages: Iterable[str]) -> str:
    """The command that installs Tesseract for languages on Debian and Ubuntu."""
    packs = [f"tesseract-ocr-{code(language).replace('_', '-')}" for language in sorted({*languages})]
    return f"apt-get install {' '.join(['tesseract-ocr', *packs])}"


def lines_of_tsv(table: str) -> list[Piece]:
    """The lines in a table as `tesseract IMAGE stdout tsv` writes it."""
    words: dict[tuple[int, int, int], list[tuple[str, float, int, int, int, int]]] = defaultdict(list)
    for row in table.splitlines():
        cells = row.split("\t", 11)
        if len(cells) == 12 and cells[0] == _WORD_LEVEL and cells[11].strip():
            block, paragraph, number, _, left, top, width, height = (int(cell) for cell in cells[2:10])
            words[block, paragraph, number].append((cells[11].strip(), float(cells[10]), left, top, left + width, top + height))
    sure = {place: line for place, line in words.items() if mean(word[1] for word in line) >= LEAST_SURE}
    if not sure:
        return []
    # The height of a line's box depends on its letters; that of most is the type's.
    size = max(median(max(word[5] for word in line) - min(word[3] for word in line) for line in sure.values()), 1)
    return [
        Piece(
            text=_MARKS.sub("", closed_up(clean(" ".join(word[0] for word in line)))),
            left=min(word[2] for word in line),
            right=max(word[4] for word in line),
            top=min(word[3] for word in line),
            bottom=max(word[5] for word in line),
            size=size,
            block=block,
        )
        for (block, _, _), line in sorted(sure.items())
    ]
