"""Documents: out of files of any kind, and from step to step as compressed JSON lines."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from mmed_train.corpus.whole import new_file
from mmedeval import DataError, MissingPackageError, StoreError, UsageError
from mmedeval.text import first_line

if TYPE_CHECKING:
    from mmed_train.corpus.config import Corpus, Source

PART: Final = 16 << 20
"""Bytes of a plain file of JSON lines that one task reads at least."""
LONGEST: Final = 64 << 20
"""A line of more bytes is no record."""
BLOCK: Final = 1 << 20
"""Bytes of standard input that are compared at a time."""
EXCERPT: Final = 300
BROKEN: Final = "broken file"
"""Why something is rejected that is no record, but the rest of a file."""
ENDINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst"),
    "parquet": (".parquet",),
    "text": (".txt",),
    "pdf": (".pdf",),
    "html": (".html", ".htm"),
}
Reject = Callable[[str, str, str], None]
"""Is told of what could not be read: where it is, why, and what it looks like."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A text with where it came from. `id` is the same in every step and every run."""

    id: str
    source: str
    language: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What one task reads of a source in one go: a file, or a part of one.

    `start` and `end` are bytes of JSON lines, row groups of Parquet, or a share of a dataset on the hub; without an `end` it is
    the whole file.
    """

    source: Source
    path: str
    name: str
    start: int = 0
    end: int | None = None


def units(corpus: Corpus, source: Source) -> list[Unit]:
    """What there is to read, always in the same order. Raises `DataError` where there is nothing."""
    if source.format == "hub":
        return [Unit(source=source, path=source.path, name=source.path, start=i, end=corpus.tasks) for i in range(corpus.tasks)]
    if source.path == "-":
        return _parts(source, stdin_file(corpus, source), "stdin")
    base = corpus.inside(source.path)
    found = []
    for file in files(corpus, source):
        name = file.name if file == base else os.path.relpath(file, base if base.is_dir() else corpus.folder)
        # What no text can hold is shown as bytes.
        name = os.fsencode(name).decode("utf-8", "backslashreplace")
        if source.format == "jsonl" and file.suffix.lower() == ".jsonl":
            found += _parts(source, file, name)
        elif source.format == "parquet":
            try:
                count = _parquet(file).num_row_groups
            except ValueError:
                count = 1  # reading it will tell
            found += [Unit(source=source, path=str(file), name=name, start=i, end=i + 1) for i in range(count)]
        else:
            found.append(Unit(source=source, path=str(file), name=name))
    return found


def files(corpus: Corpus, source: Source) -> list[Path]:
    """The files of a source in the order of their paths. Raises `DataError` where there are none."""
    path = corpus.inside(source.path)
    endings = ENDINGS[source.format]
    if path.is_dir():
        found = [each for each in path.rglob("*") if each.is_file() and each.name.lower().endswith(endings)]
    elif path.exists():
        found = [path]
    else:
        try:
            found = [each for each in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if each.is_file()]
        except ValueError as error:
            raise DataError.at(corpus.file, source.line, f"{source.path} is no pattern: {error}") from error
    # What the corpus itself wrote is no source of it.
    found = [each for each in found if not each.is_relative_to(corpus.output)]
    if not found:
        what = f"holds no {' or '.join(endings)} file" if path.is_dir() else "does not exist"
        raise DataError.at(corpus.file, source.line, f"{source.path}, the path of the source {source.name}, {what}")
    return sorted(found)


def stdin_file(corpus: Corpus, source: Source) -> Path:
    """Where standard input is kept, which can be read only once."""
    return corpus.output / "stdin" / f"{source.name}.jsonl"


def keep_stdin(file: Path, stream: IO[bytes]) -> None:
    """Keeps what comes through standard input. Where a run before did, it may come again, or nothing may.

    Raises `UsageError` where there is nothing to read, and `StoreError` where something else comes than is kept.
    """
    if file.exists():
        if not stream.isatty():
            _compare_stdin(file, stream)
        return
    pipe = "pipe JSON lines in, as in: zcat letters.jsonl.gz | mmed-train corpus run corpus.toml"
    if stream.isatty():
        raise UsageError(f"the source {file.stem} is standard input, which is a terminal here; {pipe}")
    with new_file(file) as kept:
        shutil.copyfileobj(stream, kept)
        if not kept.tell():
            raise UsageError(f"the source {file.stem} is standard input, which is empty; {pipe}")


def _compare_stdin(file: Path, stream: IO[bytes]) -> None:
    with file.open("rb") as kept:
        given = stream.read(BLOCK)
        nothing = not given
        while given and given == kept.read(len(given)):
            given = stream.read(BLOCK)
        if given or not (nothing or not kept.read(1)):
            raise StoreError(
                f"standard input is not what {file} was kept from; give nothing (< /dev/null) to go on with that file, "
                "or another output for another input"
            )


def _parts(source: Source, file: Path, name: str) -> list[Unit]:
    size = file.stat().st_size
    count = max(1, size // PART)
    borders = [size * i // count for i in range(count)] + [size]
    return [Unit(source=source, path=str(file), name=name, start=a, end=b) for a, b in itertools.pairwise(borders)]


def read_unit(unit: Unit, reject: Reject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The records of a unit and their places in it (a line, a row). What cannot be read is told to `reject` and passed over."""
    readers = {"jsonl": _json_lines, "parquet": _parquet_rows, "text": _text, "hub": _hub_rows}
    try:
        yield from readers[unit.source.format](unit, reject)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile) and error.errno is not None:
            raise
        # The rest of a damaged file is lost, the corpus is not.
        reject(unit.name, BROKEN, f"{unit.path}: {error}")


def document_of(unit: Unit, place: str, record: Mapping[str, Any]) -> Document | str:
    """The document that a record is, or why it is none."""
    source = unit.source
    given = record.get(source.id)
    name = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else f"{unit.name}:{place}"
    text = record.get(unit.source.text)
    if text is None:
        return f"no field {unit.source.text!r}"
    if not isinstance(text, str):
        return f"{unit.source.text!r} is no string"
    try:
        (text + name).encode()
    except UnicodeEncodeError:
        return "half of a surrogate pair"
    if not text.strip():
        return "empty"
    return Document(id=f"{source.name}/{name}", source=source.name, language=source.language, text=text)


# --- formats ---


def _json_lines(unit: Unit, reject: Reject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    end = math.inf if unit.end is None else unit.end
    with _opened(Path(unit.path)) as file:
        at = unit.start
        if unit.start:
            # The line that a part begins in belongs to the part before.
            file.seek(unit.start - 1)
            at -= 1
            while at < end and (line := file.readline(LONGEST)):
                at += len(line)
                if line.endswith(b"\n"):
                    break
        number = 0
        while at < end:
            line = file.readline(LONGEST)
            if not line:
                return
            place = f"{number}" if unit.end is None else f"{at}"
            at, number = at + len(line), number + 1
            if len(line) == LONGEST and not line.endswith(b"\n"):
                reject(f"{unit.name}:{place}", "longer than a record may be", "")
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST)
                    at += len(line)
                continue
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                reject(f"{unit.name}:{place}", "no JSON", f"{error}: {line[:EXCERPT].decode('utf-8', 'replace')}")
                continue
            if isinstance(record, dict):
                yield place, record
            else:
                reject(f"{unit.name}:{place}", "no JSON object", line[:EXCERPT].decode("utf-8", "replace"))


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file of lines, decompressed."""
    if path.suffix.lower() == ".gz":
        with gzip.open(path, "rb") as file:
            yield file  # type: ignore[misc]  # a GzipFile is an IO[bytes] but for its stubs
    elif path.suffix.lower() == ".zst":
        with path.open("rb") as raw:
            yield io.BufferedReader(_Zstandard(raw), buffer_size=1 << 17)
    else:
        with path.open("rb") as plain:
            yield plain


class _Zstandard(io.RawIOBase):
    """A decompressed stream. Raises `ValueError` for a damaged file, and for a cut one, which the package's reader lets pass."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw = raw
        self._frame = _zstandard().ZstdDecompressor().decompressobj()
        self._ready = memoryview(b"")
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._frame.unused_data if self._frame.eof else b""
            data = data or self.raw.read(1 << 17)
            if not data:
                if self._begun and not self._frame.eof:
                    raise ValueError("the file ends in the middle of a frame")
                return 0
            if self._frame.eof:
                self._frame = _zstandard().ZstdDecompressor().decompressobj()
            self._begun = True
            try:
                self._ready = memoryview(self._frame.decompress(data))
            except _zstandard().ZstdError as error:
                raise ValueError(str(error)) from error
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def _parquet(path: Path) -> Any:
    """Raises `ValueError` for a file that is none."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingPackageError("reading Parquet", ["pyarrow"], "corpus") from error
    return pyarrow.parquet.ParquetFile(path)


def _parquet_rows(unit: Unit, reject: Reject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    file = _parquet(Path(unit.path))
    wanted = [name for name in (unit.source.text, unit.source.id) if name in file.schema_arrow.names]
    number = 0
    for batch in file.iter_batches(batch_size=256, row_groups=[unit.start], columns=wanted):
        try:
            records = batch.to_pylist()
        except UnicodeDecodeError:
            # One of them is to blame.
            for row in range(batch.num_rows):
                try:
                    (record,) = batch.slice(row, 1).to_pylist()
                except UnicodeDecodeError as error:
                    reject(f"{unit.name}:{unit.start}.{number + row}", "no UTF-8", str(error))
                else:
                    yield f"{unit.start}.{number + row}", record
        else:
            for row, record in enumerate(records):
                yield f"{unit.start}.{number + row}", record
        number += batch.num_rows


def _text(unit: Unit, reject: Reject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with Path(unit.path).open("rb") as file:
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        reject(unit.name, "longer than a text may be", f"more than {LONGEST >> 20} MB; cut it into texts of less")
        return
    try:
        yield "0", {unit.source.text: data.decode("utf-8-sig")}
    except UnicodeDecodeError as error:
        reject(unit.name, "no UTF-8", str(error))


def _hub_rows(unit: Unit, reject: Reject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        import datasets
        from datasets.distributed import split_dataset_by_node
    except ModuleNotFoundError as error:
        raise MissingPackageError("reading datasets of the hub", ["datasets"], "corpus") from error
    source = unit.source
    try:
        rows = datasets.load_dataset(
            source.path, source.subset or None, split=source.split, revision=source.revision or None, streaming=True
        )
        for number, record in enumerate(split_dataset_by_node(rows, rank=unit.start, world_size=unit.end)):
            yield f"{unit.start}.{number}", record
    except (OSError, ValueError, RuntimeError) as error:
        # Of the network or of a name: nothing is wrong with the data, and nothing may be left out.
        raise DataError(f"the dataset {source.path} cannot be read: {first_line(error)}") from error


# --- from step to step ---


class Lines:
    """A new file of compressed JSON lines. The same lines give the same bytes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def add(self, value: Mapping[str, Any]) -> None:
        # Half of a surrogate pair, in a path for one, is written as JSON escapes it.
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
        self._stream.write(line + b"\n")


@contextmanager
def new_lines(path: Path) -> Iterator[Lines]:
    """Writes a file of JSON lines that appears when the block ends, and not where it fails."""
    compressor = _zstandard().ZstdCompressor(level=3, write_checksum=True)
    with new_file(path) as file, compressor.stream_writer(file, closefd=False) as stream:
        yield Lines(stream)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """What `new_lines` wrote. Raises `StoreError` for a damaged file."""
    try:
        with _opened(path) as file:
            for line in file:
                yield json.loads(line)
    except (ValueError, EOFError) as error:
        raise StoreError(f"{path} is damaged ({error}); remove the folder of its step and run it again") from error


def read_documents(path: Path) -> Iterator[Document]:
    for record in read_lines(path):
        yield Document(id=record["id"], source=record["source"], language=record["language"], text=record["text"])


def _zstandard() -> Any:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise MissingPackageError("mmed-train corpus", ["zstandard"], "corpus") from error
    return zstandard
