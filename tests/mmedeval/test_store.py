"""The run folder: what is stored stays, whatever cuts the run off, and no other run's folder is touched."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mmedeval.errors import StoreError
from mmedeval.store import (
    PLAN,
    RECORD,
    RECORD_KEYS,
    SAMPLES,
    RunFolder,
    read_record,
    read_samples,
    record_from_json,
    sample_from_json,
    sample_to_json,
)
from mmedeval.testing import make_sample
from mmedeval.types import SampleResult, Usage

IDENTITY = {"model": "0123", "shots": 3, "tasks": {"static": {"data": "aaaa", "prompts": "bbbb"}}}
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full to stand for a full disk")


def result(number: int, output: str = "Answer: A") -> SampleResult:
    return SampleResult(
        task="static",
        sample=make_sample(number, language="ja", question="ヘムの中心にある金属は？"),
        status="ok",
        prediction=frozenset("A"),
        prompt="問題：",
        output=output,
        finish_reason="stop",
        usage=Usage(tokens_in=7, tokens_out=3, seconds=0.25, bos=1),
    )


def filled(path: Path, results: Sequence[SampleResult]) -> Path:
    with RunFolder(path, IDENTITY, {"seed": 0}) as folder:
        for item in results:
            folder.append(item)
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_what_was_appended_is_there_before_the_folder_is_closed(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", IDENTITY, {}) as folder:
        folder.append(result(1))
        assert read_samples(tmp_path / "run") == (result(1),)
        assert not folder.complete
        assert folder.stored == {("static", "test-1"): result(1)}


def test_a_stored_line_gives_back_every_field_of_a_result() -> None:
    whole = SampleResult(
        task="static",
        sample=make_sample(2, answer="AC", rationale="Because.", meta={"parallel": "t02", "image": True, "n": [1, None]}),
        status="unscored",
        prediction=frozenset("CA"),
        prompt="Question:",
        output="",
        finish_reason="length",
        logprobs={"A": -1.0000000000000002, "A,C": -1e-320},
        margin=0.1 + 0.2,
        failure="backend: none",
        usage=Usage(tokens_in=1, tokens_out=10**400, seconds=3.5, bos=0, shots_dropped=4, border_merged=True),
        scores={"accuracy": 1.0, "perplexity": 1e300},
    )
    bare = SampleResult(task="static", sample=make_sample(3), status="failed", failure="too_long: 9")
    assert sample_from_json(sample_to_json(whole)) == whole
    assert sample_from_json(sample_to_json(bare)) == bare


@pytest.mark.parametrize(
    "output",
    [
        "\ud800 alone, \udfff, \ud83d\ude00 as two halves",
        "one\u2028two\u2029three\x85four\x0b\x0cfive\x1csix\r\nseven\rend",
        "\x00\x01\x07\x08\x1b[2J\x7f\x9b31m\ufeff\ufffe\U0010ffff",
        '"\\u0022\\" \\n {"task": 1}\n{"task": 2}\n',
        "",
    ],
    ids=["surrogates", "line ends", "controls", "json", "empty"],
)
def test_any_text_survives_being_stored(tmp_path: Path, output: str) -> None:
    path = filled(tmp_path / "run", [result(1, output), result(2)])
    assert (path / SAMPLES).read_bytes().count(b"\n") == 2
    assert [item.output for item in read_samples(path)] == [output, "Answer: A"]
    with RunFolder(path, IDENTITY, {}) as folder:
        assert folder.stored["static", "test-1"].output == output
        folder.finish({**dict.fromkeys(RECORD_KEYS), "format": 1, "results": []}, list(folder.stored.values()))
    assert read_samples(path)[0] == result(1, output)
    assert read_record(path)["results"] == []


def test_wherever_the_last_line_is_torn_it_alone_is_dropped(tmp_path: Path) -> None:
    path = filled(tmp_path / "run", [result(1), result(2)])
    whole = (path / SAMPLES).read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first + 1, len(whole)):
        (path / SAMPLES).write_bytes(whole[:cut])
        assert [item.key for item in read_samples(path)] == [("static", "test-1")]
        with RunFolder(path, IDENTITY, {}) as folder:
            assert (list(folder.stored), folder.dropped_lines) == ([("static", "test-1")], 1)
            folder.append(result(2))
        assert (path / SAMPLES).read_bytes() == whole
    (path / SAMPLES).write_bytes(whole[:first])
    with RunFolder(path, IDENTITY, {}) as folder:
        assert (list(folder.stored), folder.dropped_lines) == ([("static", "test-1")], 0)


@pytest.mark.parametrize(
    "line",
    [b"garbage", b"\xff\xfe", b"[]", b"3", b"null", b"{}", b'{"task": "static"}', b""],
    ids=repr,
)
def test_a_damaged_line_in_the_middle_is_named_by_file_and_line(tmp_path: Path, line: bytes) -> None:
    path = filled(tmp_path / "run", [result(1), result(2), result(3)])
    lines = (path / SAMPLES).read_bytes().split(b"\n")
    lines[1] = line
    (path / SAMPLES).write_bytes(b"\n".join(lines))
    before = contents(path)
    with pytest.raises(StoreError, match=r"samples\.jsonl:2: .*restore the file"):
        read_samples(path)
    with pytest.raises(StoreError, match=r"samples\.jsonl:2: .*restore the file"):
        RunFolder(path, IDENTITY, {})
    assert contents(path) == before


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("id", 7, "7 is not a text"),
        ("question", None, "None is not a text"),
        ("options", ["a"], "is not an object"),
        ("options", {"A": 1}, "1 is not a text"),
        ("answer", [1], "1 is not a text"),
        ("prediction", [["A"]], "unhashable"),
        ("prediction", None, "the prediction '' is not of the options"),
        ("prediction", [], "the prediction '' is not of the options"),
        ("prediction", ["Z"], "the prediction 'Z' is not of the options"),
        ("status", "lost", "the status 'lost' is none"),
        ("output", {"a": 1}, "is not a text"),
        ("margin", "0.5", "'0.5' is not a number"),
        ("margin", "", "'' is not a number"),
        ("margin", math.nan, "a number that is none"),
        ("logprobs", {"A": None}, "None is not a number"),
        ("logprobs", {"A": -math.inf}, "a number that is none"),
        ("scores", [], "is not an object"),
        ("scores", {"accuracy": True}, "True is not a number"),
        ("usage", {"tokens_in": "1"}, "'1' is not a number"),
        ("usage", {"tokens": 1}, "unexpected keyword"),
        ("meta", [], "[] is not an object"),
        ("rotation", None, "None is not a number"),
    ],
)
def test_an_edited_line_is_told_where_it_is_read(tmp_path: Path, name: str, value: object, told: str) -> None:
    path = filled(tmp_path / "run", [result(1), result(2)])
    first, second, end = (path / SAMPLES).read_text().split("\n")
    (path / SAMPLES).write_text("\n".join([first, json.dumps({**json.loads(second), name: value}), end]))
    with pytest.raises(StoreError, match=rf"samples\.jsonl:2: not a line of a run.*{re.escape(told)}"):
        read_samples(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b'{"identity": 3}', b'{"identity": [1]}'], ids=repr)
def test_a_damaged_plan_is_a_sentence_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = filled(tmp_path / "run", [result(1)])
    (path / PLAN).write_bytes(content)
    before = contents(path)
    with pytest.raises(StoreError, match="--out"):
        RunFolder(path, IDENTITY, {})
    assert contents(path) == before


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[]", b"{}", b'{"format": 99}', b"[" * 100_000], ids=lambda each: repr(each[:20])
)
def test_a_record_that_is_damaged_or_of_another_format_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = filled(tmp_path / "run", [result(1)])
    (path / RECORD).write_bytes(content)
    with pytest.raises(StoreError, match=r"record\.json"):
        read_record(path)


FIGURE = {"metric": "accuracy", "task": "t", "language": "ja", "value": 0.5, "low": 0.4, "high": 0.6, "n": 4, "scored": 4}


@pytest.mark.parametrize(
    "results",
    [
        [{"metric": "accuracy"}],
        [3],
        3,
        [{"metric": "accuracy", "odd": 1}],
        [{**FIGURE, "value": "0.5"}],
        [{**FIGURE, "high": math.nan}],
        [{**FIGURE, "n": None}],
        [{**FIGURE, "task": 3}],
    ],
    ids=repr,
)
def test_a_record_whose_results_are_no_figures_is_a_sentence(results: object) -> None:
    with pytest.raises(StoreError, match=r"record\.json is damaged: .*restore it"):
        record_from_json({"results": results})


@pytest.mark.parametrize(("file", "read"), [(SAMPLES, read_samples), (RECORD, read_record)])
def test_what_cannot_be_read_is_not_said_to_be_unwritable(tmp_path: Path, file: str, read: Callable[[Path], object]) -> None:
    """A folder stands for a file without permission, which root may read all the same."""
    (tmp_path / "run" / file).mkdir(parents=True)
    with pytest.raises(StoreError, match=rf"{re.escape(file)} cannot be read: (Is a directory|Permission denied)$"):
        read(tmp_path / "run")


def test_an_identity_is_the_same_whether_its_lists_are_lists_or_tuples(tmp_path: Path) -> None:
    for stop in (("a", "b"), ("a", "b"), ["a", "b"]):
        with RunFolder(tmp_path / "run", {**IDENTITY, "model_settings": {"stop": stop}}, {}):
            pass
    assert json.loads((tmp_path / "run" / PLAN).read_bytes())["identity"]["model_settings"] == {"stop": ["a", "b"]}


def test_a_folder_of_another_run_is_refused_naming_the_difference_and_left_as_it_is(tmp_path: Path) -> None:
    path = filled(tmp_path / "run", [result(1)])
    before = contents(path)
    other = {**IDENTITY, "shots": 5, "tasks": {"static": {"data": "cccc", "prompts": "bbbb"}}}
    with pytest.raises(StoreError, match=r"shots was 3, is now 5; tasks\.static\.data was aaaa, is now cccc; .*--out") as refused:
        RunFolder(path, other, {})
    assert "prompts" not in str(refused.value)
    assert contents(path) == before
    with RunFolder(path, IDENTITY, {}) as folder:
        assert len(folder.stored) == 1


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "thesis"
    path.mkdir()
    (path / "chapter1.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(StoreError, match=r"not empty \(it holds 'chapter1.txt'\)"):
        RunFolder(path, IDENTITY, {})
    assert contents(path) == {"chapter1.txt": b"precious"}


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert read_samples(filled(tmp_path, [result(1)])) == (result(1),)


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(StoreError, match=r"cannot write in .*; choose another folder with --out"):
        RunFolder(tmp_path / out, IDENTITY, {})
    assert contents(tmp_path) == {"file": b"not a folder"}


@needs_full
def test_a_disk_that_is_full_at_the_start_is_a_sentence_and_nothing_is_half_there(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / f"{PLAN}.new").symlink_to(FULL)
    with pytest.raises(StoreError, match="no space left"):
        RunFolder(path, IDENTITY, {})
    assert not (path / PLAN).exists()
    (path / f"{PLAN}.new").unlink()
    assert read_samples(filled(path, [result(1)])) == (result(1),)


@needs_full
@pytest.mark.parametrize("file", [SAMPLES, RECORD])
def test_a_disk_that_is_full_at_the_end_loses_no_answer(tmp_path: Path, file: str) -> None:
    path = filled(tmp_path / "run", [result(1), result(2)])
    (path / f"{file}.new").symlink_to(FULL)
    with (
        pytest.raises(StoreError, match=r"no space left .*2 answers are safe, the same command goes on"),
        RunFolder(path, IDENTITY, {}) as folder,
    ):
        folder.finish({"format": 1}, [result(2), result(1)])
    assert not (path / RECORD).exists()
    (path / f"{file}.new").unlink()
    with RunFolder(path, IDENTITY, {}) as folder:
        assert set(folder.stored) == {("static", "test-1"), ("static", "test-2")}
        folder.finish({"format": 1}, [result(2), result(1)])
    assert read_samples(path) == (result(2), result(1))


def test_a_folder_in_use_by_another_process_is_refused_until_that_process_is_gone(tmp_path: Path) -> None:
    path = filled(tmp_path / "run", [result(1)])
    before = contents(path)
    code = (
        "import sys; from pathlib import Path; from mmedeval.store import RunFolder\n"
        f"folder = RunFolder(Path(sys.argv[1]), {IDENTITY!r}, {{}}); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=r"another mmedeval process is working in .*--out"):
            RunFolder(path, IDENTITY, {})
        assert contents(path) == before
        assert read_samples(path) == (result(1),)
        holder.kill()
    with RunFolder(path, IDENTITY, {}) as folder:
        assert len(folder.stored) == 1


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX locks")
def test_a_file_system_without_locks_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError, match=r"cannot write in .*: No locks available; choose another folder with --out"):
        RunFolder(tmp_path / "run", IDENTITY, {})


def test_a_folder_is_free_again_when_its_run_is_closed_or_was_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "run", [result(1)])
    for _ in range(3):
        with pytest.raises(StoreError, match="another run"):
            RunFolder(path, {"model": "other"}, {})
        with RunFolder(path, IDENTITY, {}):
            pass


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_what_is_no_run_folder_cannot_be_read_as_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"is no run folder: it holds no plan\.json"):
        read_record(tmp_path / name)
    with pytest.raises(StoreError, match=r"holds no samples\.jsonl"):
        read_samples(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


def test_an_unfinished_run_has_no_record_but_its_answers_can_be_read(tmp_path: Path) -> None:
    path = filled(tmp_path / "run", [result(1)])
    with pytest.raises(StoreError, match="not finished; the same mmedeval run command goes on"):
        read_record(path)
    assert read_samples(path) == (result(1),)


def test_of_a_sample_that_was_answered_twice_the_later_answer_counts(tmp_path: Path) -> None:
    path = filled(tmp_path / "run", [result(1, "first"), result(2), result(1, "second")])
    assert [item.output for item in read_samples(path)] == ["second", "Answer: A"]
    with RunFolder(path, IDENTITY, {}) as folder:
        assert folder.stored["static", "test-1"].output == "second"
