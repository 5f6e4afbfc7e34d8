"""Documents come out of files of any kind; what cannot be read is told, counted and passed over."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zstandard", reason="zstandard is not installed")

import zstandard

from mmed_train.corpus import documents
from mmed_train.corpus.config import Corpus, Source
from mmed_train.corpus.documents import document_of, keep_stdin, new_lines, read_lines, read_unit, units
from mmedeval import DataError, StoreError, UsageError

RECORDS = [{"id": f"d{i}", "text": f"Text number {i}. " * (i + 1)} for i in range(50)]
LINES = b"".join(json.dumps(each).encode() + b"\n" for each in RECORDS)


def corpus(folder: Path, path: str, format: str, **settings: Any) -> Corpus:
    source = Source(name="s", language="en", path=path, format=format, **settings)
    return Corpus(file=folder / "corpus.toml", output=folder / "out", sources=(source,), tasks=2)


def everything(given: Corpus) -> tuple[list[Any], list[tuple[str, str, str]]]:
    """The documents (or why a record is none) of all units, and what was rejected."""
    rejected: list[tuple[str, str, str]] = []

    def reject(where: str, reason: str, detail: str) -> None:
        rejected.append((where, reason, detail))

    (source,) = given.sources
    found = [document_of(unit, place, record) for unit in units(given, source) for place, record in read_unit(unit, reject)]
    return found, rejected


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", lambda data: zstandard.compress(data))],
)
def test_json_lines_are_read_packed_or_not(tmp_path: Path, name: str, pack: Any) -> None:
    (tmp_path / name).write_bytes(pack(LINES))
    found, rejected = everything(corpus(tmp_path, name, "jsonl"))
    assert [each.id for each in found] == [f"s/d{i}" for i in range(50)]
    assert [each.text for each in found] == [each["text"] for each in RECORDS]
    assert rejected == []


def test_frames_of_zstandard_behind_each_other_are_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(LINES) + zstandard.compress(b"") + zstandard.compress(LINES))
    assert len(everything(corpus(tmp_path, "a.jsonl.zst", "jsonl"))[0]) == 100


@pytest.mark.parametrize("size", [1, 7, 100, 1000, 4000])
def test_a_file_in_parts_gives_each_line_once(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PART", size)
    (tmp_path / "a.jsonl").write_bytes(LINES.rstrip(b"\n"))
    given = corpus(tmp_path, "a.jsonl", "jsonl")
    assert len(units(given, given.sources[0])) == len(LINES.rstrip()) // size
    found, _ = everything(given)
    assert [each.id for each in found] == [f"s/d{i}" for i in range(50)]


def test_documents_without_ids_are_told_apart_by_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nameless = b'{"text": "a"}\n{"text": "b"}\n{"text": "c"}\n'
    (tmp_path / "a.jsonl").write_bytes(nameless)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(nameless))
    monkeypatch.setattr(documents, "PART", 14)
    for name, places in (("a.jsonl", (0, 14, 28)), ("b.jsonl.gz", (0, 1, 2))):
        found, _ = everything(corpus(tmp_path, name, "jsonl"))
        assert [each.id for each in found] == [f"s/{name}:{place}" for place in places]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_cut_file_gives_what_it_holds_and_names_itself(tmp_path: Path, pack: Any) -> None:
    name = "a.jsonl.gz" if pack is gzip.compress else "a.jsonl.zst"
    many = b"".join(json.dumps({"text": f"{i} {hash(str(i) * 3)}"}).encode() + b"\n" for i in range(40_000))
    packed = pack(many)
    (tmp_path / name).write_bytes(packed[: len(packed) - 5000])
    found, rejected = everything(corpus(tmp_path, name, "jsonl"))
    assert 0 < len(found) < 40_000
    ((_, reason, detail),) = rejected
    assert reason == "broken file"
    assert str(tmp_path / name) in detail


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "no JSON"),
        (b"[1]", "no JSON object"),
        (b"[" * 5000, "no JSON"),
        (b'{"text": "\xff\xfe"}', "no JSON"),
        (b'{"id": "x"}', "no field 'text'"),
        (b'{"text": 3}', "'text' is no string"),
        (b'{"text": " \\n "}', "empty"),
        (b'{"text": "half \\ud83d"}', "half of a surrogate pair"),
    ],
)
def test_a_bad_record_is_told_and_the_others_go_on(tmp_path: Path, line: bytes, reason: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES + line + b"\n\n" + LINES)
    found, rejected = everything(corpus(tmp_path, "a.jsonl", "jsonl"))
    told = [why for _, why, _ in rejected] + [each for each in found if isinstance(each, str)]
    assert told == [reason]
    assert len([each for each in found if not isinstance(each, str)]) == 100


def test_a_line_without_end_is_no_record_and_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LONGEST", 1000)
    (tmp_path / "a.jsonl").write_bytes(LINES[:500].rpartition(b"\n")[0] + b"\n" + b"x" * 5000 + b"\n" + b'{"text": "behind"}\n')
    found, rejected = everything(corpus(tmp_path, "a.jsonl", "jsonl"))
    assert [why for _, why, _ in rejected] == ["longer than a record may be"]
    assert found[-1].text == "behind"


def test_parquet_is_read_by_row_groups(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = arrow.table({"id": [each["id"] for each in RECORDS], "text": [each["text"] for each in RECORDS], "more": [1] * 50})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=20)
    given = corpus(tmp_path, "a.parquet", "parquet")
    assert len(units(given, given.sources[0])) == 3
    found, _ = everything(given)
    assert [each.text for each in found] == [each["text"] for each in RECORDS]


@pytest.mark.parametrize("field", ["text", "id"])
def test_of_a_row_group_only_the_rows_that_are_no_utf8_are_left_out(tmp_path: Path, field: str) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    columns = {name: [each[name].encode() for each in RECORDS] for name in ("id", "text")}
    for bad in (3, 20, 49):
        columns[field][bad] = b"half a sign: \xe2\x82"
    # As writers do that do not look: the bytes are said to be a string.
    table = arrow.table({name: arrow.array(values, arrow.binary()).view(arrow.string()) for name, values in columns.items()})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=25)
    found, rejected = everything(corpus(tmp_path, "a.parquet", "parquet"))
    assert [each.id for each in found] == [f"s/d{i}" for i in range(50) if i not in (3, 20, 49)]
    assert [(where, why) for where, why, _ in rejected] == [
        ("a.parquet:0.3", "no UTF-8"),
        ("a.parquet:0.20", "no UTF-8"),
        ("a.parquet:1.24", "no UTF-8"),
    ]


def test_a_file_that_is_no_parquet_is_told_by_name(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (tmp_path / "a.parquet").write_bytes(b"nothing of the kind")
    found, rejected = everything(corpus(tmp_path, "a.parquet", "parquet"))
    assert found == []
    ((_, reason, detail),) = rejected
    assert reason == "broken file"
    assert detail.startswith(f"{tmp_path / 'a.parquet'}: ")


def test_a_folder_of_texts_is_a_document_per_file_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    (tmp_path / "texts" / "b.txt").write_text("second", encoding="utf-8")
    (tmp_path / "texts" / "a.txt").write_bytes(b"\xef\xbb\xbffirst")
    (tmp_path / "texts" / "deep" / "c.TXT").write_text("third", encoding="utf-8")
    (tmp_path / "texts" / "d.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "texts" / "notes.md").write_text("not asked for", encoding="utf-8")
    found, rejected = everything(corpus(tmp_path, "texts", "text"))
    assert [(each.id, each.text) for each in found] == [
        ("s/a.txt:0", "first"),
        ("s/b.txt:0", "second"),
        ("s/deep/c.TXT:0", "third"),
    ]
    assert [(where, why) for where, why, _ in rejected] == [("d.txt", "no UTF-8")]


def test_a_text_file_without_bound_is_rejected_and_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LONGEST", 1000)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x" * 1001, encoding="utf-8")
    (tmp_path / "texts" / "b.txt").write_text("x" * 1000, encoding="utf-8")
    found, rejected = everything(corpus(tmp_path, "texts", "text"))
    assert [each.id for each in found] == ["s/b.txt:0"]
    assert [(where, why) for where, why, _ in rejected] == [("a.txt", "longer than a text may be")]


def test_a_dataset_of_the_hub_is_read_in_shares(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="datasets is not installed")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(LINES)
    given = corpus(tmp_path, str(folder), "hub")
    found, _ = everything(given)
    assert sorted(each.text for each in found) == sorted(each["text"] for each in RECORDS)


def test_a_path_with_nothing_behind_it_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus\.toml:0: gone/\*\.jsonl, the path of the source s, does not exist"):
        everything(corpus(tmp_path, "gone/*.jsonl", "jsonl"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match=r"bare, the path of the source s, holds no \.jsonl or"):
        everything(corpus(tmp_path, "bare", "jsonl"))


# --- standard input ---


def test_standard_input_is_kept_and_may_come_again_or_not(tmp_path: Path) -> None:
    file = tmp_path / "stdin" / "pipe.jsonl"
    for given in (LINES, LINES, b""):
        keep_stdin(file, io.BytesIO(given))
        assert file.read_bytes() == LINES


@pytest.mark.parametrize(
    "given", [LINES + b"more", LINES[:-1], b"x" + LINES[1:], b"{}\n"], ids=["longer", "shorter", "other", "short"]
)
def test_another_standard_input_than_was_kept_is_refused(tmp_path: Path, given: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BLOCK", 100)
    file = tmp_path / "pipe.jsonl"
    file.write_bytes(LINES)
    with pytest.raises(StoreError, match=r"standard input is not what .*pipe\.jsonl was kept from; give nothing \(< /dev/null\)"):
        keep_stdin(file, io.BytesIO(given))
    assert file.read_bytes() == LINES


def test_nothing_to_read_is_refused_and_a_terminal_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "pipe.jsonl"
    with pytest.raises(UsageError, match="the source pipe is standard input, which is empty; pipe JSON lines in"):
        keep_stdin(file, io.BytesIO())
    ours, theirs = os.openpty()
    with os.fdopen(ours, "wb"), os.fdopen(theirs, "rb") as terminal:
        with pytest.raises(UsageError, match="the source pipe is standard input, which is a terminal here; pipe JSON lines in"):
            keep_stdin(file, terminal)
        assert list(tmp_path.iterdir()) == []
        file.write_bytes(LINES)
        keep_stdin(file, terminal)
    assert file.read_bytes() == LINES


# --- from step to step ---


def test_lines_come_back_and_their_file_appears_only_whole(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.jsonl.zst"

    def write(fail: bool) -> None:
        with new_lines(file) as lines:
            for each in RECORDS:
                lines.add(each)
            if fail:
                assert not file.exists()
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(fail=True)
    assert list(file.parent.iterdir()) == []
    write(fail=False)
    assert list(read_lines(file)) == RECORDS
    first = file.read_bytes()
    write(fail=False)
    assert file.read_bytes() == first


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-2], lambda data: data.replace(b"plain", b"plane")], ids=["cut", "changed"]
)
def test_a_damaged_file_between_steps_is_one_sentence(tmp_path: Path, damage: Any) -> None:
    with new_lines(tmp_path / "a.jsonl.zst") as lines:
        lines.add({"a": "plain"})
    data = (tmp_path / "a.jsonl.zst").read_bytes()
    assert damage(data) != data
    (tmp_path / "a.jsonl.zst").write_bytes(damage(data))
    with pytest.raises(StoreError, match=r"a\.jsonl\.zst is damaged"):
        list(read_lines(tmp_path / "a.jsonl.zst"))
