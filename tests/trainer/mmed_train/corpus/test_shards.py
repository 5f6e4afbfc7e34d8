"""Token shards: what was written comes back in windows and documents, the bytes are decided, and broken files are refused."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmed_train.corpus import shards
from mmed_train.corpus.shards import Header, Kind, Shard, ShardWriter, TokenSpace, Vocabulary, open_shards, position_ids
from mmedeval.errors import DataError, StoreError

SMALL = Vocabulary(tokenizer="a" * 64, size=1000, bos=None, eos=1)
LARGE = Vocabulary(tokenizer="a" * 64, size=200_000, bos=0, eos=1)
EN, FR, WEB = Kind(source="books", language="en"), Kind(source="books", language="fr"), Kind(source="web", language="en")
Document = tuple[Sequence[int], Kind]


def write(path: Path, documents: Iterable[Document], vocabulary: Vocabulary = SMALL, **options: Any) -> Header:
    with ShardWriter(path, vocabulary, **options) as writer:
        for tokens, kind in documents:
            writer.add(tokens, kind)
    return writer.close()


def made(count: int, *, seed: int = 0, size: int = 1000, kinds: Sequence[Kind] = (EN, FR, WEB)) -> list[Document]:
    """Documents of 1 to 40 random tokens, in runs of a kind."""
    draw = random.Random(seed)
    documents: list[Document] = []
    while len(documents) < count:
        kind = draw.choice(kinds)
        documents += [([draw.randrange(size) for _ in range(draw.randint(1, 40))], kind) for _ in range(draw.randint(1, 5))]
    return documents[:count]


def joined(documents: Iterable[Document]) -> tuple[list[int], list[int]]:
    """All tokens, and where documents start."""
    tokens: list[int] = []
    starts = []
    for each, _ in documents:
        starts.append(len(tokens))
        tokens += each
    return tokens, starts


def changed(path: Path, change: Callable[[bytearray], object]) -> Path:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("vocabulary", [SMALL, LARGE], ids=["uint16", "uint32"])
def test_every_window_and_document_of_many_shards_is_what_was_written(vocabulary: Vocabulary, tmp_path: Path) -> None:
    parts = [made(30, seed=seed, size=vocabulary.size) for seed in range(3)]
    for number, documents in enumerate(parts):
        write(tmp_path / f"{number}.tokens", documents, vocabulary)
    space = open_shards([tmp_path])
    every = [document for documents in parts for document in documents]
    tokens, starts = joined(every)
    assert (len(space), space.documents) == (len(tokens), len(every))
    assert [space.document(i).tolist() for i in range(space.documents)] == [each for each, _ in every]
    draw = random.Random(1)
    for length in (1, 2, 17, 300, len(tokens)):
        for start in {0, len(tokens) - length, *(draw.randrange(len(tokens) - length + 1) for _ in range(60))}:
            ids, places = space.window(start, length)
            assert ids.tolist() == tokens[start : start + length]
            assert places == [place - start for place in starts if start <= place < start + length]
            assert ids.dtype == vocabulary.dtype


def test_a_token_takes_two_bytes_where_the_vocabulary_allows_it(tmp_path: Path) -> None:
    documents = [([7] * 10_000, EN)]
    for size, bytes_each in ((1 << 16, 2), ((1 << 16) + 1, 4)):
        path = tmp_path / f"{size}.tokens"
        write(path, documents, Vocabulary(tokenizer="a", size=size, bos=None, eos=None))
        assert 0 <= path.stat().st_size - 10_000 * bytes_each < 1000
        assert Shard(path).tokens.dtype.itemsize == bytes_each


def test_only_the_kinds_asked_for_are_in_a_space_of_these(tmp_path: Path) -> None:
    documents = [made(40, seed=seed) for seed in range(2)]
    for number, each in enumerate(documents):
        write(tmp_path / f"{number}.tokens", each)
    opened = [Shard(tmp_path / f"{number}.tokens") for number in range(2)]
    for kinds in ([EN], [EN, WEB], [FR, WEB], [EN, FR, WEB], []):
        space = TokenSpace(opened, kinds=kinds)
        wanted = [document for each in documents for document in each if document[1] in kinds]
        tokens, starts = joined(wanted)
        assert [space.document(i).tolist() for i in range(space.documents)] == [each for each, _ in wanted]
        assert (len(space), set(space.counts)) == (len(tokens), set(kinds))
        assert sum(count.tokens for count in space.counts.values()) == len(tokens)
        if tokens:
            ids, places = space.window(1, len(tokens) - 1)
            assert (ids.tolist(), places) == (tokens[1:], [place - 1 for place in starts[1:]])


def test_counts_are_told_per_source_and_language(tmp_path: Path) -> None:
    header = write(tmp_path / "x.tokens", [([1, 2], WEB), ([3], EN), ([4, 5, 6], WEB)])
    assert [(count.kind, count.documents, count.tokens) for count in header.counts] == [(WEB, 2, 5), (EN, 1, 1)]
    assert (header.documents, header.tokens, header.ranges) == (3, 6, 3)
    assert Shard(tmp_path / "x.tokens").header == header
    assert list(open_shards([tmp_path]).counts) == [EN, WEB]


def test_positions_start_again_with_each_document() -> None:
    assert position_ids(7, [2, 5]).tolist() == [0, 1, 0, 1, 2, 0, 1]
    assert position_ids(3, [0]).tolist() == [0, 1, 2]
    assert position_ids(2, []).tolist() == [0, 1]
    assert position_ids(3, [0, 1, 2]).tolist() == [0, 0, 0]


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / f"{name}.tokens", made(50))
    assert (tmp_path / "one.tokens").read_bytes() == (tmp_path / "two.tokens").read_bytes()


def test_a_kind_that_was_named_is_counted_though_nothing_is_of_it(tmp_path: Path) -> None:
    header = write(tmp_path / "x.tokens", [([1, 2], WEB), ([3], FR)], kinds=[EN, FR])
    assert [(count.kind, count.documents, count.tokens) for count in header.counts] == [(EN, 0, 0), (FR, 1, 1), (WEB, 1, 2)]
    space = open_shards([tmp_path / "x.tokens"])
    assert {kind: count.tokens for kind, count in space.counts.items()} == {EN: 0, FR: 1, WEB: 2}
    assert TokenSpace(space.shards, kinds=[FR]).document(0).tolist() == [3]
    assert len(TokenSpace(space.shards, kinds=[EN])) == 0


def test_two_that_write_a_shard_at_once_are_not_in_each_others_way(tmp_path: Path) -> None:
    documents = made(50)
    write(tmp_path / "one.tokens", documents)
    with ShardWriter(tmp_path / "both.tokens", SMALL, replace=True) as writer:
        for number, (tokens, kind) in enumerate(documents):
            writer.add(tokens, kind)
            if number == 20:
                write(tmp_path / "both.tokens", documents, replace=True)
    assert (tmp_path / "both.tokens").read_bytes() == (tmp_path / "one.tokens").read_bytes()
    assert len([*tmp_path.iterdir()]) == 2


def test_a_shard_without_documents_is_one(tmp_path: Path) -> None:
    write(tmp_path / "empty.tokens", [])
    write(tmp_path / "some.tokens", made(3))
    Shard(tmp_path / "empty.tokens").verify()
    assert len(open_shards([tmp_path / "empty.tokens"])) == 0
    assert open_shards([tmp_path]).documents == 3


def test_a_worker_gets_names_of_files_and_not_their_contents(tmp_path: Path) -> None:
    write(tmp_path / "x.tokens", made(300))
    space = TokenSpace([Shard(tmp_path / "x.tokens")], kinds=[FR])
    content = pickle.dumps(space)
    copy = pickle.loads(content)  # noqa: S301  # made on the spot
    assert len(content) < 600
    assert copy.window(5, 50)[0].tolist() == space.window(5, 50)[0].tolist()
    assert copy.kinds == {FR}


def test_names_in_any_script_come_back(tmp_path: Path) -> None:
    kind = Kind(source="教科書 \ud800 é", language="ja")
    write(tmp_path / "x.tokens", [([1], kind)])
    assert Shard(tmp_path / "x.tokens").kinds == (kind,)


def test_memory_does_not_grow_with_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmed_train.corpus.shards.BLOCK", 4096)

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            write(tmp_path / f"{count}.tokens", (([1, 2, 3], (EN, FR)[i % 2]) for i in range(count)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)
    assert peak(20_000) - peak(2_000) < 10_000


# What is refused when it is written.


@pytest.mark.parametrize(
    "tokens", [[], [[1, 2]], [-1], [1000], [0.5]], ids=["none", "rows", "negative", "too large", "no number"]
)
def test_what_is_no_document_is_refused_and_leaves_no_trace(tokens: Any, tmp_path: Path) -> None:
    documents = [([1, 2], EN), ([3], FR)]
    with ShardWriter(tmp_path / "x.tokens", SMALL) as writer:
        for each, kind in documents:
            with pytest.raises(ValueError, match=r"row of at least one token|not all in 0\.\.999"):
                writer.add(tokens, kind)
            writer.add(each, kind)
    write(tmp_path / "y.tokens", documents)
    assert (tmp_path / "x.tokens").read_bytes() == (tmp_path / "y.tokens").read_bytes()


def test_a_shard_that_is_there_is_not_written_over_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.tokens"
    write(path, [([1], EN)])
    with pytest.raises(StoreError, match=r"x\.tokens is there already; choose another output folder"):
        write(path, [([2], EN)])
    assert Shard(path).tokens.tolist() == [1]
    write(path, [([2], EN)], replace=True)
    assert Shard(path).tokens.tolist() == [2]


def test_a_run_that_breaks_leaves_nothing_behind(tmp_path: Path) -> None:
    def documents() -> Iterable[Document]:
        yield [1], EN
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(tmp_path / "x.tokens", documents())
    assert list(tmp_path.iterdir()) == []


def test_nothing_has_the_shards_name_before_all_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "x.tokens", []
    flush = os.fsync

    def fsync(file: int) -> None:
        seen.append(path.exists())
        flush(file)

    monkeypatch.setattr(os, "fsync", fsync)
    write(path, [([1], EN)])
    assert seen == [False, False]
    assert path.is_file()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EFBIG, r"File too large; raise the limit .*\(ulimit -f\)"),
    ],
    ids=["full", "too large"],
)
def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=rf"cannot write .*x\.tokens: {words}"):
        write(tmp_path / "x.tokens", [([1], EN)])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*: (Not a directory|File exists); .*choose another output folder"):
        write(tmp_path / "file" / "x.tokens", [])


# What is refused when it is read.


@pytest.mark.parametrize("keep", [0.0, 0.0001, 0.01, 0.5, 0.9, 0.9999])
def test_a_file_that_is_cut_off_is_refused_wherever_it_is_cut(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "x.tokens"
    write(path, made(2000))
    size = path.stat().st_size
    os.truncate(path, int(size * keep))
    with pytest.raises(DataError, match=r"x\.tokens (is empty|is no finished token shard|is not whole .*); (copy|name) "):
        Shard(path)


def test_a_file_that_is_longer_than_it_was_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.tokens", made(20))
    with pytest.raises(DataError, match="is not whole"):
        Shard(changed(tmp_path / "x.tokens", lambda content: content.extend(b"x")))


def test_a_file_of_another_kind_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tokens").write_text("some text\n" * 100)
    with pytest.raises(DataError, match=r"x\.tokens is no finished token shard; name files that the tokenize step wrote"):
        open_shards([tmp_path])
    with pytest.raises(DataError, match=r"none\.tokens cannot be read: No such file"):
        open_shards([tmp_path / "none.tokens"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder holds no token shards \(\*\.tokens\)"):
        open_shards([tmp_path / "folder"])
    with pytest.raises(DataError, match="there are no token shards to read"):
        open_shards([])


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.tokens"
    header = write(path, made(40))
    whole = path.read_bytes()
    place = whole.index(b'"format"')
    for at, found_when_opened in ((70, False), (place - 17, False), (place + 3, True), (20, True), (40, True)):
        path.write_bytes(whole)
        changed(path, lambda content, at=at: content.__setitem__(at, content[at] ^ 1))
        if found_when_opened:
            with pytest.raises(DataError, match=r"x\.tokens "):
                Shard(path)
        else:
            with pytest.raises(DataError, match=r"contradict its header|does not have the SHA-256 that it was written with"):
                Shard(path).verify()
    path.write_bytes(whole)
    Shard(path).verify()
    assert Shard(path).header.sha256 == header.sha256


def place_of_starts(path: Path) -> int:
    """Where the table of starts begins; that of ranges is behind it."""
    tokens = Shard(path).tokens
    return -(-(64 + tokens.nbytes) // 8) * 8


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        (0, 1),  # the first document starts behind some tokens
        (1, 900),  # starts beyond the next
        (2, 3),  # starts where the one before does: a document without a token
        (2, -5),
        (4, 13),  # the last ends before the tokens do
        (5, 1),  # the first range starts behind a document
        (6, 2),  # a kind that the header does not know
        (6, -1),
        (7, 0),  # the second range starts with the first
        (7, 4),  # or behind all documents
    ],
)
def test_a_table_that_contradicts_itself_is_refused_when_the_shard_is_opened(tmp_path: Path, entry: int, value: int) -> None:
    path = tmp_path / "x.tokens"
    write(path, [([1, 2, 3], EN), ([4, 5, 6], EN), ([7, 8, 9], FR), ([1, 2, 3, 4, 5], FR)])
    place = place_of_starts(path)
    # starts 0, 3, 6, 9, 14; ranges (0, EN), (2, FR)
    assert np.frombuffer(path.read_bytes(), "<i8", 9, place).tolist() == [0, 3, 6, 9, 14, 0, 0, 2, 1]
    changed(
        path,
        lambda content: content.__setitem__(slice(at := place + 8 * entry, at + 8), value.to_bytes(8, "little", signed=True)),
    )
    with pytest.raises(DataError, match=r"x\.tokens has borders that contradict its header; copy the shard again"):
        Shard(path)


def test_starts_are_looked_at_across_the_borders_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tokens"
    write(path, [([1, 2], EN)] * 9)
    place = place_of_starts(path)
    monkeypatch.setattr("mmed_train.corpus.shards.BLOCK", 3)
    Shard(path)
    whole = path.read_bytes()
    for entry in range(1, 9):
        path.write_bytes(whole)
        changed(path, lambda content, at=place + 8 * entry: content.__setitem__(slice(at, at + 8), content[at - 8 : at]))
        with pytest.raises(DataError, match="contradict its header"):
            Shard(path)


@pytest.mark.parametrize(
    "forge",
    [
        lambda data: data.pop("counts"),
        lambda data: data.pop("format"),
        lambda data: data.update(counts=3),
        lambda data: data.update(documents="2"),
        lambda data: data.update(tokens=None),
        lambda data: data.update(ranges=-1),
        lambda data: data.update(documents=True),
        lambda data: data["vocabulary"].update(size=-5),
        lambda data: data["vocabulary"].update(bos=1000),
        lambda data: data["vocabulary"].update(more=1),
        lambda data: data["counts"][0].update(tokens=99),
        lambda data: data["counts"][0].update(documents=99),
        lambda data: data["counts"].extend(
            {"kind": {"source": "s", "language": "en"}, "documents": 0, "tokens": tokens} for tokens in (-1, 1)
        ),
        lambda data: data["counts"][0].update(kind=["books", "en"]),
        lambda data: data["counts"][0]["kind"].update(source=["books"]),
        lambda data: [],
        lambda data: "no JSON",
    ],
)
def test_a_forged_header_is_one_sentence(tmp_path: Path, forge: Callable[[Any], Any]) -> None:
    path = tmp_path / "x.tokens"
    write(path, [([1, 2], EN), ([3], EN)])
    content = path.read_bytes()
    where = int.from_bytes(content[8:16], "little")
    data = json.loads(content[where:])
    other = forge(data)
    header = b"{" if other == "no JSON" else json.dumps(other if other == [] else data).encode()
    path.write_bytes(shards._preamble(where, header) + content[64:where] + header)
    with pytest.raises(
        DataError, match=r"x\.tokens has (a header that makes no sense \(.*\)|counts that do not fit its size); copy"
    ):
        Shard(path)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmed_train.corpus.shards.FORMAT", 2)
    write(tmp_path / "x.tokens", made(2))
    monkeypatch.undo()
    with pytest.raises(DataError, match="has format 2, this version reads 1"):
        Shard(tmp_path / "x.tokens")


def test_shards_of_another_tokenizer_or_policy_are_refused(tmp_path: Path) -> None:
    other = Vocabulary(tokenizer="b" * 64, size=1000, bos=None, eos=1)
    policy = Vocabulary(tokenizer="a" * 64, size=1000, bos=0, eos=1)
    paths = [tmp_path / f"{name}.tokens" for name in ("ours", "other", "policy")]
    for path, vocabulary in zip(paths, (SMALL, other, policy), strict=True):
        write(path, made(2), vocabulary)
    with pytest.raises(DataError, match=r"other\.tokens was made with another tokenizer \(b{12}\) than .*ours\.tokens \(a{12}\)"):
        open_shards(paths[:2])
    with pytest.raises(DataError, match=r"policy\.tokens puts BOS 0 and EOS 1 around documents, .* puts None and 1"):
        open_shards([paths[0], paths[2]])
    with pytest.raises(DataError, match=r"ours\.tokens was made with another tokenizer .* than the one asked for \(c{12}\)"):
        open_shards(paths[:1], tokenizer="c" * 64)
    assert open_shards(paths[:1], tokenizer="a" * 64).documents == 2


def test_tokens_beyond_the_end_are_an_index_error(tmp_path: Path) -> None:
    write(tmp_path / "x.tokens", [([1, 2, 3], EN)])
    space = open_shards([tmp_path])
    for start, length in ((0, 4), (3, 1), (-1, 2), (0, 0)):
        with pytest.raises(IndexError):
            space.window(start, length)
    for index in (1, -1):
        with pytest.raises(IndexError):
            space.document(index)


def test_the_mapped_tokens_cannot_be_changed_but_a_window_can(tmp_path: Path) -> None:
    write(tmp_path / "x.tokens", [([1, 2, 3], EN)])
    space = open_shards([tmp_path])
    with pytest.raises(ValueError, match="read-only"):
        space.shards[0].tokens[0] = 5
    for mine in (space.window(0, 3)[0], space.document(0)):
        mine[0] = 5
    assert space.shards[0].tokens.tolist() == [1, 2, 3]


def test_the_header_can_be_read_by_hand(tmp_path: Path) -> None:
    write(tmp_path / "x.tokens", made(5), LARGE)
    content = (tmp_path / "x.tokens").read_bytes()
    data = json.loads(content[int(np.frombuffer(content, "<u8", 1, 8)[0]) :])
    assert (data["format"], data["dtype"], data["documents"]) == (1, "uint32", 5)
    assert data["vocabulary"] == {"tokenizer": "a" * 64, "size": 200_000, "bos": 0, "eos": 1}
