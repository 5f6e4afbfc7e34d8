"""Runs as they are compared, and baselines: what is kept of a run, and what is refused."""

import dataclasses
import gc
import json
import string
from pathlib import Path

import pytest

from mmedeval.catalog import Catalog
from mmedeval.compare import compare
from mmedeval.errors import StoreError, UsageError
from mmedeval.host import make_host
from mmedeval.outcomes import fold, read_outcomes, unfold, write_baseline
from mmedeval.runner import run
from mmedeval.store import read_samples
from mmedeval.types import RunPlan, digest

TASKS = ("mmedbench_mini_en", "mmedbench_mini_ja")


INFINITE = float("inf")


def stored(out: Path, model: str = "baseline:random", **choices: object) -> Path:
    plan = RunPlan(model=model, **{"tasks": TASKS, "limit": 8, **choices})  # type: ignore[arg-type]
    return run(plan, Catalog(make_host()), out)[1]


def made(tmp_path: Path, **choices: object) -> Path:
    """A baseline of a small run."""
    (outcomes,) = read_outcomes([stored(tmp_path / "run", **choices)])  # type: ignore[arg-type]
    write_baseline(outcomes, tmp_path / "baseline.json")
    return tmp_path / "baseline.json"


def signed(content: dict) -> str:
    """What a hand that knows the digest could write."""
    content = {key: value for key, value in content.items() if key != "digest"}
    return json.dumps({**content, "digest": digest(content)})


def test_a_run_is_read_with_an_outcome_for_each_item(tmp_path: Path) -> None:
    path = stored(tmp_path / "run")
    (outcomes,) = read_outcomes([path])
    samples = [each for each in read_samples(path) if each.task == "mmedbench_mini_ja"]
    task = outcomes.tasks["mmedbench_mini_ja"]
    assert [*task.ids] == [each.sample.id for each in samples]
    assert task.outcomes == "".join("1" if each.right else "0" for each in samples)
    assert [*task.parallel] == [each.sample.meta["parallel"] for each in samples]
    assert (task.language, task.group) == ("ja", "mmedbench_mini")


def test_the_search_for_garbage_is_as_it_was_after_reading(tmp_path: Path) -> None:
    path = stored(tmp_path / "run")
    read_outcomes([path])
    assert gc.isenabled()
    with pytest.raises(StoreError):
        read_outcomes([path, tmp_path / "nowhere"])
    assert gc.isenabled()


def test_a_baseline_stands_for_its_run_in_every_comparison(tmp_path: Path) -> None:
    file = made(tmp_path)
    other = stored(tmp_path / "other", model="baseline:longest")
    with_run = compare(*read_outcomes([tmp_path / "run", other]))
    with_file = compare(*read_outcomes([file, other]))
    assert with_file.rows == with_run.rows
    assert with_file.metrics == with_run.metrics
    assert [(item.id, item.change) for item in with_file.items] == [(item.id, item.change) for item in with_run.items]
    two_files = made(tmp_path / "b", model="baseline:longest")
    assert compare(*read_outcomes([file, two_files])).rows == with_run.rows


def test_scores_of_other_metrics_are_kept_in_a_baseline(tmp_path: Path) -> None:
    file = made(tmp_path, protocol="cloze")
    other = stored(tmp_path / "other", model="baseline:longest", protocol="cloze")
    with_run = compare(*read_outcomes([tmp_path / "run", other]))
    assert {row.metric for row in with_run.metrics} == {"accuracy_per_byte", "accuracy_per_char"}
    assert compare(*read_outcomes([file, other])).metrics == with_run.metrics


def test_a_baseline_is_small_and_holds_no_text_of_the_run(tmp_path: Path) -> None:
    file = made(tmp_path)
    text = file.read_text()
    for result in read_samples(tmp_path / "run"):
        for part in (result.sample.question, *result.sample.options.values(), result.sample.rationale, result.prompt):
            assert not part or len(part) < 12 or json.dumps(part, ensure_ascii=False)[1:-1] not in text
    assert str(tmp_path) not in text
    assert len(text) < 6_000
    # A change in one language shows as a change of few lines.
    assert all(f'\n "mmedbench_mini_{language}": ' in text for language in ("en", "ja"))


def test_where_a_model_lay_is_not_kept(tmp_path: Path) -> None:
    (outcomes,) = read_outcomes([stored(tmp_path / "run")])
    moved = dataclasses.replace(outcomes, model="hf:/home/somebody/models/step-5/", name="step-5")
    write_baseline(moved, tmp_path / "b.json")
    assert "somebody" not in (tmp_path / "b.json").read_text()
    assert read_outcomes([tmp_path / "b.json"])[0].model == "step-5"


def test_the_same_run_makes_the_same_file(tmp_path: Path) -> None:
    file = made(tmp_path)
    first = file.read_bytes()
    (outcomes,) = read_outcomes([tmp_path / "run"])
    write_baseline(outcomes, file)
    assert file.read_bytes() == first


def test_line_ends_that_a_checkout_changed_do_no_harm(tmp_path: Path) -> None:
    file = made(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_outcomes([file])[0].items == 16


def test_only_a_baseline_is_overwritten(tmp_path: Path) -> None:
    (outcomes,) = read_outcomes([stored(tmp_path / "run")])
    other = tmp_path / "notes.json"
    other.write_text('{"mine": 1}')
    with pytest.raises(UsageError, match=r"notes.json is there and is no baseline"):
        write_baseline(outcomes, other)
    assert other.read_text() == '{"mine": 1}'
    with pytest.raises(UsageError, match="is there and is no baseline"):
        write_baseline(outcomes, tmp_path)
    with pytest.raises(StoreError, match=r"cannot write .*No such file or directory; choose another file with -o"):
        write_baseline(outcomes, tmp_path / "nowhere" / "b.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no baseline: .*; name a run folder, or a file that mmedeval baseline wrote"),
        ("\xff", "is no baseline"),
        ("[1, 2]", "is no baseline; name a run folder"),
        ('{"results": []}', "is no baseline; name a run folder"),
        ('{"mmedeval_baseline": 7}', "is a baseline of version 7; this mmedeval reads version 1; make it again"),
        ("[" * 100_000, "is no baseline"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused_in_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "b.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(StoreError, match=said):
        read_outcomes([file])


def test_a_baseline_that_was_edited_is_refused(tmp_path: Path) -> None:
    file = made(tmp_path)
    text = file.read_text()
    at = text.index('"outcomes": "') + len('"outcomes": "')
    file.write_text(text[:at] + ("0" if text[at] == "1" else "1") + text[at + 1 :])
    with pytest.raises(
        StoreError, match="was edited or damaged: its digest is not that of its contents; make it again: mmedeval baseline"
    ):
        read_outcomes([file])


@pytest.mark.parametrize(
    "change",
    [
        lambda task: task.update(outcomes=task["outcomes"][:-1]),
        lambda task: task.update(outcomes="x" * 8),
        lambda task: task.update(ids=[["t", 0, 10**9]]),
        lambda task: task.update(ids=[["t", 0, 7]] * 1000),
        lambda task: task.update(ids=["a"] * 8),
        lambda task: task.update(ids=[[1, 2]]),
        lambda task: task.update(parallel=["a"]),
        lambda task: task.pop("prompts"),
        lambda task: task.update(scores={"bleu": {"scored": "1" * 8, "values": []}}),
        lambda task: task.update(scores={"bleu": {"scored": "1" * 8, "values": ["a"] * 8}}),
    ],
)
def test_a_baseline_with_other_things_in_it_is_refused_even_with_a_digest_that_fits(tmp_path: Path, change: object) -> None:
    file = made(tmp_path, tasks=("mmedbench_mini_en",))
    content = json.loads(file.read_text())
    change(content["tasks"]["mmedbench_mini_en"])  # type: ignore[operator]
    file.write_text(signed(content))
    with pytest.raises(StoreError, match=r"b.*json is damaged: .*; make it again: mmedeval baseline"):
        read_outcomes([file])


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(shots=INFINITE),
        lambda content: content.update(sampling=INFINITE),
        lambda content: content.update(sampling="greedy"),
        lambda content: content["results"][0].update(metric=[]),
        lambda content: content["results"][0].update(task={}),
        lambda content: content["results"][0].update(value="high"),
        lambda content: content["results"][0].update(value=INFINITE),
        lambda content: content["results"][0].update(low=True),
        lambda content: content["results"][0].update(n=-1),
        lambda content: content["results"][0].update(scale=None),
    ],
)
def test_a_baseline_whose_figures_are_none_is_refused_even_with_a_digest_that_fits(tmp_path: Path, change: object) -> None:
    file = made(tmp_path, tasks=("mmedbench_mini_en",))
    content = json.loads(file.read_text())
    change(content)  # type: ignore[operator]
    file.write_text(signed(content))
    with pytest.raises(StoreError, match=r"b.*json is damaged: .*; make it again: mmedeval baseline"):
        read_outcomes([file])


def test_a_baseline_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    file = made(tmp_path)
    with pytest.raises(UsageError, match=r"baseline\.json is named twice; name each run once"):
        read_outcomes([file, file])


def test_names_of_runs_and_baselines_tell_them_apart(tmp_path: Path) -> None:
    file = made(tmp_path)
    names = [each.name for each in read_outcomes([file, stored(tmp_path / "again", limit=7)])]
    assert names == ["baseline:random (baseline.json)", "baseline:random"]


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StoreError, match="is no run folder"):
            read_outcomes([path])


def broken(path: Path, **fields: object) -> Path:
    """The run with every sample changed."""
    file = path / "samples.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text(
        "".join(
            json.dumps({key: value for key, value in {**line, **fields}.items() if value is not None}) + "\n" for line in lines
        )
    )
    return path


def test_a_run_of_failures_alone_is_refused(tmp_path: Path) -> None:
    path = broken(stored(tmp_path / "run"), status="failed", prediction=None, failure="backend: gone")
    with pytest.raises(
        UsageError, match=r"run holds no answer: all its 16 items failed; see why with: mmedeval show .*run --failed"
    ):
        read_outcomes([path])


def test_a_run_that_nothing_could_be_read_of_is_taken_for_what_it_is(tmp_path: Path) -> None:
    path = broken(stored(tmp_path / "run"), status="unread", prediction=None)
    assert {*read_outcomes([path])[0].tasks["mmedbench_mini_en"].outcomes} == {"u"}


def test_an_empty_run_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path / "run")
    record = json.loads((path / "record.json").read_text())
    (path / "record.json").write_text(json.dumps({**record, "tasks": {}, "results": []}))
    (path / "samples.jsonl").write_text("")
    with pytest.raises(UsageError, match="run holds no items; there is nothing to compare"):
        read_outcomes([path])


@pytest.mark.parametrize("lost", ["data_digest", "language", "group"])
def test_a_record_that_lacks_what_runs_are_compared_by_is_refused(tmp_path: Path, lost: str) -> None:
    path = stored(tmp_path / "run")
    record = json.loads((path / "record.json").read_text())
    del record["tasks"]["mmedbench_mini_en"][lost]
    (path / "record.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match=rf"record.json is damaged: KeyError: '{lost}'; restore it, or run again"):
        read_outcomes([path])


@pytest.mark.parametrize("setting", ["language", "group", "data_digest", "prompts_digest", "sampling"])
def test_a_record_that_holds_no_texts_where_runs_are_compared_by_them_is_refused(tmp_path: Path, setting: str) -> None:
    path = stored(tmp_path / "run")
    record = json.loads((path / "record.json").read_text())
    (record if setting == "sampling" else record["tasks"]["mmedbench_mini_en"])[setting] = 7
    (path / "record.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match=r"record.json is damaged: TypeError: .*; restore it, or run again"):
        read_outcomes([path])


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["test-1", "test-2", "test-3"],
        ["test-0", "test-1", "test-9", "test-10", "test-11"],
        ["test-01", "test-02", "007", "8", "9", ""],
        ["b2", "b1", "a1", "a2", "12", "13", "\u0661", "x\n1", "x\n2"],
        [*string.printable],
        ["9" * 40, "1" + "0" * 40],
    ],
)
def test_names_are_the_same_after_they_were_folded(names: list[str]) -> None:
    assert unfold(json.loads(json.dumps(fold(names))), len(names)) == names


def test_names_that_count_up_take_one_entry() -> None:
    assert fold(f"test-{i}" for i in range(1, 1274)) == [["test-", 1, 1273]]
