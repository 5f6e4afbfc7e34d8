"""Token shards: one file that holds tokenised documents, written in a stream and read by memory map, many as one row of tokens.

Why not datatrove's `.ds`, `.index` and `.metadata` (0.10): they name the tokenizer but hold no digest of it, nothing of BOS and
EOS, of source and language, and no checksum; so a truncated file, or one of another tokenizer, is read without a word. The size
of a token has to be passed in, and is taken from the number of tokens rather than from the largest. Its dataset drops the last
partial window of every file, reads documents' borders from the file's start for every step backwards, and three files are not
renamed in one step.

A shard, all numbers little-endian:

    64 bytes     `MAGIC`, where the header lies and its bytes (u64, u64), the header's SHA-256, zeros
    tokens       u16, or u32 where the vocabulary needs it; then zeros up to a multiple of 8
    starts       i64, where each document starts, and the number of tokens
    ranges       i64 pairs: a document from which on all are of a kind, and that kind's place in the header
    header       JSON: `Header`; its `sha256` is that of everything between the first 64 bytes and the header

The first 64 bytes are zeros until everything else is on disk. The same documents give the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import tempfile
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mmed_train.corpus.whole import beside
from mmedeval import DataError, StoreError

MAGIC = b"MMEDTOK1"
FORMAT = 1
SUFFIX = ".tokens"
PREAMBLE = 64
# So many bytes are hashed and copied, and so many starts of documents are checked, at a time.
BLOCK = 1 << 20
Tokens = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, kw_only=True, order=True)
class Kind:
    """What a document is: where it comes from, and its language."""

    source: str
    language: str


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """How text became tokens. Shards with different ones do not belong together.

    `tokenizer` is a digest of all that decides on a text's tokens; `size` is above every token. `bos` and `eos` are the tokens
    in front of and behind every document; `None` is none.
    """

    tokenizer: str
    size: int
    bos: int | None
    eos: int | None

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        return np.dtype("<u2" if self.size <= 1 << 16 else "<u4")


@dataclass(frozen=True, kw_only=True)
class Count:
    """How much there is of a kind."""

    kind: Kind
    documents: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a shard says of itself. `counts` are in the order in which the kinds were named or first came."""

    vocabulary: Vocabulary
    documents: int
    tokens: int
    ranges: int
    counts: tuple[Count, ...]
    sha256: str

    def to_bytes(self) -> bytes:
        data = {"format": FORMAT, "dtype": self.vocabulary.dtype.name, **asdict(self)}
        return json.dumps(data, indent=1).encode()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Header:
        """Raises `ValueError`, `KeyError` or `TypeError` for what no writer wrote."""
        counts = [Count(**{**each, "kind": Kind(**each["kind"])}) for each in data["counts"]]
        header = cls(
            vocabulary=Vocabulary(**data["vocabulary"]),
            counts=tuple(counts),
            **{name: data[name] for name in ("documents", "tokens", "ranges", "sha256")},
        )
        header._check()
        return header

    def _check(self) -> None:
        told = self.vocabulary
        numbers = [self.documents, self.tokens, self.ranges, told.size]
        numbers += [token for token in (told.bos, told.eos) if token is not None]
        numbers += [number for each in self.counts for number in (each.documents, each.tokens)]
        texts = [self.sha256, told.tokenizer, *(text for each in self.counts for text in (each.kind.source, each.kind.language))]
        if not all(type(number) is int and number >= 0 for number in numbers) or not all(type(text) is str for text in texts):
            raise ValueError("a number or a text is none, or a number is below 0")
        if max(told.bos or 0, told.eos or 0) >= told.size:
            raise ValueError("BOS or EOS is outside the vocabulary")
        for name in ("documents", "tokens"):
            if sum(getattr(each, name) for each in self.counts) != getattr(self, name):
                raise ValueError(f"the {name} of all kinds are not those of the whole")


class ShardWriter:
    """Writes one shard, document by document, in memory that does not grow.

    Everything goes to a file beside, which gets its name in one step at `close`; leaving the `with` block by an exception removes
    it. `kinds` are counted in the header even if no document is of them. Raises `StoreError` where a file of that name exists
    (unless `replace`), and where the disk refuses.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary, *, kinds: Iterable[Kind] = (), replace: bool = False) -> None:
        self.path, self.vocabulary = path, vocabulary
        self.documents = self.tokens = 0
        self._beside = beside(path)
        # Per kind its place, documents and tokens.
        self._kinds: dict[Kind, list[int]] = {kind: [place, 0, 0] for place, kind in enumerate(dict.fromkeys(kinds))}
        self._ranges = 0
        self._last: Kind | None = None
        self._sha256 = hashlib.sha256()
        self._header: Header | None = None
        with self._told():
            if path.exists() and not replace:
                raise StoreError(f"{path} is there already; choose another output folder, or remove the old shards first")
            path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as files:
                self._file = files.enter_context(self._beside.open("wb", buffering=BLOCK))
                self._file.write(bytes(PREAMBLE))
                # Anonymous: a kill leaves nothing of them.
                self._starts, self._range_table = (
                    files.enter_context(tempfile.TemporaryFile(dir=path.parent, buffering=BLOCK)) for _ in range(2)
                )
                self._files = files.pop_all()

    def add(self, tokens: npt.ArrayLike, kind: Kind) -> None:
        """Appends a document: its tokens with BOS and EOS. Raises `ValueError` for none, and for one outside the vocabulary."""
        ids = np.asarray(tokens)
        if ids.ndim != 1 or not len(ids) or ids.dtype.kind not in "iu":
            raise ValueError(f"a document is a row of at least one token, not {ids.dtype} of the shape {ids.shape}")
        if ids.min() < 0 or ids.max() >= self.vocabulary.size:
            raise ValueError(f"tokens {ids.min()} to {ids.max()} are not all in 0..{self.vocabulary.size - 1}")
        data = ids.astype(self.vocabulary.dtype).tobytes()
        count = self._kinds.setdefault(kind, [len(self._kinds), 0, 0])
        with self._told():
            self._file.write(data)
            self._starts.write(_i64(self.tokens))
            if kind != self._last:
                self._range_table.write(_i64(self.documents, count[0]))
                self._ranges += 1
                self._last = kind
        self._sha256.update(data)
        count[1] += 1
        count[2] += len(ids)
        self.documents += 1
        self.tokens += len(ids)

    def close(self) -> Header:
        """Puts the shard in its place and returns its header; a second call only returns it. A failure leaves nothing of it."""
        if self._header is None:
            try:
                with self._told():
                    header = self._finish()
                    self._files.close()
                    self._beside.replace(self.path)
            except BaseException:
                self.abort()
                raise
            self._header = header
        return self._header

    def abort(self) -> None:
        """Removes what was written, as far as the disk lets it."""
        with suppress(OSError):
            self._files.close()
        with suppress(OSError):
            self._beside.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def _finish(self) -> Header:
        self._starts.write(_i64(self.tokens))
        self._append(bytes(-self._file.tell() % 8))
        for table in (self._starts, self._range_table):
            table.seek(0)
            while block := table.read(BLOCK):
                self._append(block)
        header = Header(
            vocabulary=self.vocabulary,
            documents=self.documents,
            tokens=self.tokens,
            ranges=self._ranges,
            counts=tuple(Count(kind=kind, documents=count[1], tokens=count[2]) for kind, count in self._kinds.items()),
            sha256=self._sha256.hexdigest(),
        )
        content = header.to_bytes()
        where = self._file.tell()
        self._file.write(content)
        self._flush()
        self._file.seek(0)
        self._file.write(_preamble(where, content))
        self._flush()
        return header

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)

    def _flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what the file system refuses into one sentence with the next step."""
        try:
            yield
        except OSError as error:
            remedy = "raise the limit on the size of files (ulimit -f)" if error.errno == errno.EFBIG else "free some space"
            raise StoreError(
                f"cannot write {self.path}: {error.strerror or error}; {remedy}, or choose another output folder"
            ) from error


class Shard:
    """A finished shard, memory-mapped: opening it reads its header and where documents start, not its tokens.

    `tokens` is the row of all tokens, `starts` (documents + 1 numbers) where documents start in it, `ranges` an array of shape
    (ranges, 2): the first document of each, and its kind's place in `kinds`. All are read-only. Raises `DataError` for a file
    that is no shard, cut off, or contradicts itself; `verify` finds every other damage.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file cannot be mapped
            raise self._error("is empty") from error
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror or error}; name files that the tokenize step wrote"
            ) from error
        self.header, self._end = self._read_header()
        header, dtype = self.header, self.header.vocabulary.dtype
        self.kinds = tuple(count.kind for count in header.counts)
        starts = PREAMBLE + header.tokens * dtype.itemsize
        starts += -starts % 8
        ranges = starts + 8 * (header.documents + 1)
        if ranges + 16 * header.ranges != self._end:
            raise self._error("has counts that do not fit its size")
        self.tokens: Tokens = np.frombuffer(self._content, dtype, header.tokens, PREAMBLE)
        self.starts: npt.NDArray[np.int64] = np.frombuffer(self._content, "<i8", header.documents + 1, starts)
        self.ranges: npt.NDArray[np.int64] = np.frombuffer(self._content, "<i8", 2 * header.ranges, ranges).reshape(-1, 2)
        borders, kinds = np.append(self.ranges[:, 0], header.documents), self.ranges[:, 1]
        known = ((kinds >= 0) & (kinds < len(self.kinds))).all()
        if not known or not _rises(borders, header.documents) or not _rises(self.starts, header.tokens):
            raise self._error("has borders that contradict its header")

    def verify(self) -> None:
        """Reads all of it. Raises `DataError` where it is not what was written."""
        digest = hashlib.sha256()
        # Not through the map: what is read there counts as memory of this process.
        with self.path.open("rb") as file:
            file.seek(PREAMBLE)
            for start in range(PREAMBLE, self._end, BLOCK):
                digest.update(file.read(min(BLOCK, self._end - start)))
        if digest.hexdigest() != self.header.sha256:
            raise self._error("does not have the SHA-256 that it was written with")

    def _read_header(self) -> tuple[Header, int]:
        """The header and where it lies."""
        content = self._content
        if content[: len(MAGIC)] != MAGIC:
            raise DataError(f"{self.path} is no finished token shard; name files that the tokenize step wrote (*{SUFFIX})")
        where, length = (int.from_bytes(content[start : start + 8], "little") for start in (8, 16))
        header = content[where:]
        if len(content) < PREAMBLE or len(header) != length:
            raise self._error(f"is not whole ({len(content)} bytes)")
        if content[:PREAMBLE] != _preamble(where, header):
            raise self._error("has a damaged header")
        try:
            data = json.loads(header)
            if data["format"] != FORMAT:
                raise DataError(
                    f"{self.path} has format {data['format']!r}, this version reads {FORMAT}; tokenize its source anew"
                )
            return Header.from_json(data), where
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._error(f"has a header that makes no sense ({type(error).__name__}: {error})") from error

    def _error(self, what: str) -> DataError:
        return DataError(f"{self.path} {what}; copy the shard again, or tokenize its source again")

    def __reduce__(self) -> tuple[type[Shard], tuple[Path]]:
        # A worker of a data loader maps the file itself.
        return Shard, (self.path,)


class TokenSpace:
    """Documents of one or many shards as one row of tokens, in the shards' order; `kinds` takes only these into it.

    `len` is the number of tokens. Memory is that of the ranges, not of the documents. Raises `DataError` for shards that were
    made by different tokenizers, or with another policy on BOS and EOS; `tokenizer` is the digest that they must have.
    """

    def __init__(self, shards: Sequence[Shard], *, kinds: Iterable[Kind] | None = None, tokenizer: str | None = None) -> None:
        self.shards = tuple(shards)
        if not self.shards:
            raise DataError("there are no token shards to read; name the folder that the tokenize step wrote")
        self.vocabulary = self.shards[0].header.vocabulary
        _belong_together(self.shards, tokenizer)
        self.kinds = None if kinds is None else frozenset(kinds)
        rows = np.concatenate([self._taken(number, shard) for number, shard in enumerate(self.shards)], axis=1)
        # What windows look up one by one is in Python's arrays and memory views, several times as quick as numpy's.
        self._mapped = [(shard.tokens, shard.starts.data) for shard in self.shards]
        # Per row of documents that lie together: its shard, and its first document and token there.
        self._shard, self._document, self._token = (array("q", column.tobytes()) for column in rows[:3])
        # The documents and tokens before it here.
        self._documents, self._tokens = (array("q", np.append(0, column.cumsum()).tobytes()) for column in rows[3:])
        self.documents, self._length = self._documents[-1], self._tokens[-1]

    def _taken(self, number: int, shard: Shard) -> npt.NDArray[np.int64]:
        """What is taken from a shard, a column per row of documents: `number`, first document, first token, documents, tokens."""
        kinds = np.array([self.kinds is None or kind in self.kinds for kind in shard.kinds], dtype=bool)
        taken = np.concatenate(([False], kinds[shard.ranges[:, 1]], [False]))
        # A row starts and ends where `taken` turns.
        borders = np.append(shard.ranges[:, 0], shard.header.documents)[np.flatnonzero(taken[1:] != taken[:-1])]
        first, end = borders[::2], borders[1::2]
        token, token_end = shard.starts[first], shard.starts[end]
        return np.stack((np.full_like(first, number), first, token, end - first, token_end - token))

    def __len__(self) -> int:
        return self._length

    def __reduce__(self) -> tuple[Any, ...]:
        # By its shards' names, never their contents.
        return partial(TokenSpace, kinds=self.kinds), (self.shards,)

    @property
    def counts(self) -> dict[Kind, Count]:
        """Documents and tokens of each kind that is in, sorted."""
        sums: dict[Kind, tuple[int, int]] = {}
        for kind, documents, tokens in (
            (each.kind, each.documents, each.tokens) for shard in self.shards for each in shard.header.counts
        ):
            if self.kinds is None or kind in self.kinds:
                old = sums.get(kind, (0, 0))
                sums[kind] = old[0] + documents, old[1] + tokens
        return {kind: Count(kind=kind, documents=documents, tokens=tokens) for kind, (documents, tokens) in sorted(sums.items())}

    def document(self, index: int) -> Tokens:
        """A copy of a document's tokens, with its BOS and EOS."""
        if not 0 <= index < self.documents:
            raise IndexError(f"document {index} of {self.documents}")
        row = bisect_right(self._documents, index) - 1
        ids, borders = self._mapped[self._shard[row]]
        there = self._document[row] + index - self._documents[row]
        return ids[borders[there] : borders[there + 1]].copy()

    def window(self, start: int, length: int) -> tuple[Tokens, list[int]]:
        """A copy of `length` tokens from `start` on, across documents and shards, and the places in it where documents start.

        0 is among these only if a document starts right there. Raises `IndexError` where not all of the tokens exist.
        """
        end = start + length
        if not 0 <= start < end <= self._length:
            raise IndexError(f"tokens {start} to {end} of {self._length}")
        row = bisect_right(self._tokens, start) - 1
        if end <= self._tokens[row + 1]:
            return self._within(row, start, end)
        pieces: list[Tokens] = []
        starts: list[int] = []
        at = start
        while at < end:
            stop = min(end, self._tokens[row + 1])
            ids, places = self._within(row, at, stop)
            pieces.append(ids)
            starts += [at - start + place for place in places]
            at, row = stop, row + 1
        return np.concatenate(pieces), starts

    def _within(self, row: int, start: int, end: int) -> tuple[Tokens, list[int]]:
        """A window that lies in one row of documents."""
        shift = self._token[row] - self._tokens[row]
        low, high = start + shift, end + shift
        ids, borders = self._mapped[self._shard[row]]
        starts = []
        document = bisect_left(borders, low)
        while (place := borders[document]) < high:
            starts.append(place - low)
            document += 1
        return ids[low:high].copy(), starts


def open_shards(paths: Iterable[Path], *, tokenizer: str | None = None) -> TokenSpace:
    """All these shards, and all of the folders among `paths` (sorted by name), as one row of tokens."""
    return TokenSpace([Shard(file) for path in paths for file in _files(path)], tokenizer=tokenizer)


def position_ids(length: int, starts: Sequence[int]) -> npt.NDArray[np.int64]:
    """0, 1, 2, ... for the tokens of a window, again from 0 at each start of a document."""
    heads = np.array([0, *starts])
    positions: npt.NDArray[np.int64] = np.arange(length) - np.repeat(heads, np.diff(heads, append=length))
    return positions


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob(f"*{SUFFIX}"))
    if not found:
        raise DataError(f"{path} holds no token shards (*{SUFFIX}); name the folder that the tokenize step wrote")
    return found


def _belong_together(shards: Sequence[Shard], tokenizer: str | None) -> None:
    first = shards[0]
    for shard in shards:
        old, new = first.header.vocabulary, shard.header.vocabulary
        if new.tokenizer != (tokenizer or old.tokenizer):
            other = "than the one asked for" if tokenizer else f"than {first.path}"
            raise DataError(
                f"{shard.path} was made with another tokenizer ({new.tokenizer[:12]}) {other} "
                f"({(tokenizer or old.tokenizer)[:12]}); tokenize its source again with the right one"
            )
        if new != old:
            raise DataError(
                f"{shard.path} puts BOS {new.bos} and EOS {new.eos} around documents, {first.path} puts {old.bos} and {old.eos}; "
                "tokenize one of them again"
            )


def _rises(numbers: npt.NDArray[np.int64], last: int) -> bool:
    """Whether numbers begin with 0, each is above the one before, and end with `last`; in parts, for there may be many."""
    if numbers[0] != 0 or numbers[-1] != last:
        return False
    return all((np.diff(numbers[start : start + BLOCK + 1]) > 0).all() for start in range(0, len(numbers), BLOCK))


def _preamble(where: int, header: bytes) -> bytes:
    parts = MAGIC + where.to_bytes(8, "little") + len(header).to_bytes(8, "little") + hashlib.sha256(header).digest()
    return parts.ljust(PREAMBLE, b"\0")


def _i64(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)
