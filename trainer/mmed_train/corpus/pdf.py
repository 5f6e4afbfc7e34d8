"""Text out of PDF files, each read within bounds: by a process that ends where a file takes too much, or breaks it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmed_train.corpus.ocr import Ocr, Picture, code
from mmed_train.corpus.pages import Extracted
from mmed_train.corpus.pdfium import Channel
from mmedeval import BackendError, DataError, MissingPackageError

# Bytes of memory, and seconds of a processor for each file. PDFium takes up to 80 bytes for each one that a page draws, and these
# may be packed to a thousandth.
MEMORY, SECONDS = 2 << 30, 600.0


def extract_pdf(
    path: Path,
    language: str,
    *,
    ocr: Ocr | None = None,
    process: PdfProcess | None = None,
    most_pages: int = 5_000,
    most_characters: int = 20_000_000,
) -> Extracted:
    """The text of a PDF file, by its text layer, and by `ocr` where a page has none that can be used.

    What is behind the first `most_pages` pages or `most_characters` characters is left out, with a warning; so are single pages
    that are damaged, or that only `ocr` could read. Raises `DataError` for a file that is encrypted or damaged, of which no page
    could be read, or that takes more memory or time than there is. Without a `process` that is used again, one is started.
    """
    code(language)
    if not path.is_file():
        raise DataError(f"{path} is not {'a file' if path.exists() else 'there'}")
    asked = {
        "path": str(path.absolute()),
        "language": language,
        "ocr": ocr is not None,
        "most_pages": most_pages,
        "most_characters": most_characters,
    }
    with nullcontext(process) if process else PdfProcess() as reader:
        answer = reader.answer(asked, ocr)
    if "error" in answer:
        raise DataError(answer["error"])
    return Extracted(
        text=answer["text"], pages=answer["pages"], ocr_pages=tuple(answer["ocr_pages"]), warnings=tuple(answer["warnings"])
    )


class PdfProcess:
    """Reads PDF files one after another in a process of its own, which starts with the first, and anew after one that ended it.

    Nothing else can bound PDFium, or stop it. Workers of any kind may have one each, for it uses no `multiprocessing`; threads
    may not share one.
    """

    def __init__(self, *, memory: int = MEMORY, seconds: float = SECONDS) -> None:
        self._memory, self._seconds = memory, seconds
        self._running: tuple[subprocess.Popen[bytes], Channel] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process. Another file starts it again."""
        if self._running is not None:
            self._running[0].kill()
            self._ended()

    def answer(self, asked: Mapping[str, Any], ocr: Ocr | None) -> Mapping[str, Any]:
        """What the process answers to a request of `extract_pdf`. The pictures that it shows before are read by `ocr`, here."""
        while True:
            used = self._running is not None
            try:
                return self._answer(asked, ocr)
            except (EOFError, BrokenPipeError) as error:
                returned = self._ended()
                # What other files left behind in its memory must not decide.
                if not used:
                    raise DataError(f"{asked['path']} is not read: {self._reason(returned)}") from error
            except BaseException:
                self.close()  # it is in the middle of a file
                raise

    def _answer(self, asked: Mapping[str, Any], ocr: Ocr | None) -> Mapping[str, Any]:
        channel = self._running[1] if self._running else self._start()
        channel.send(asked)
        while True:
            answer: Mapping[str, Any] = channel.receive()
            if ocr is None or "dpi" not in answer:
                return answer
            picture = Picture(**answer, pixels=channel.receive_bytes(answer["width"] * answer["height"]))
            try:
                channel.send({"pieces": [asdict(piece) for piece in ocr.read(picture, asked["language"])]})
            except DataError as error:
                channel.send({"error": str(error)})

    def _start(self) -> Channel:
        if find_spec("pypdfium2") is None:
            raise MissingPackageError("reading PDF files", ["pypdfium2"], "corpus")
        # Without -P a module in the folder that the command is given in could take the place of another.
        command = [sys.executable, "-P", "-m", "mmed_train.corpus.pdfium", str(self._memory), str(self._seconds)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        channel = Channel(process.stdout, process.stdin)
        self._running = process, channel
        try:
            channel.receive()
        except EOFError as error:
            raise BackendError(f"the process that reads PDF files did not start (code {self._ended()})") from error
        return channel

    def _ended(self) -> int:
        """Lets go of the process, and tells what it returned."""
        assert self._running is not None
        (process, _), self._running = self._running, None
        with suppress(BrokenPipeError), process:  # it did not take all that it was told
            pass
        return process.wait()

    def _reason(self, returned: int) -> str:
        if returned == -signal.SIGPROF:
            return f"it takes more than {self._seconds:g} seconds of a processor"
        how = signal.strsignal(-returned) if returned < 0 else f"code {returned}"
        return f"it takes more than {self._memory >> 20} MB of memory, or breaks PDFium ({how})"
