"""Stored runs as they are read to be compared."""

import json
from pathlib import Path

import pytest

from mmedeval.catalog import Catalog
from mmedeval.errors import StoreError, UsageError
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.runs import read_runs
from mmedeval.types import RunPlan


def stored(out: Path, model: str = "baseline:random", **choices: object) -> Path:
    plan = RunPlan(model=model, tasks=("mmedbench_mini_ja",), **{"limit": 5, **choices})  # type: ignore[arg-type]
    return run(plan, Catalog(make_host()), out)[1]


def test_a_run_is_read_with_its_figures_and_samples(tmp_path: Path) -> None:
    path = stored(tmp_path / "a")
    (only,) = read_runs([path])
    assert (only.name, only.model, only.protocol, only.shots) == ("baseline:random", "baseline:random", "letter", 0)
    assert len(only.results) == 5
    assert {figure.task for figure in only.aggregates} == {"mmedbench_mini_ja"}
    assert only.fingerprint == json.loads((path / "record.json").read_text())["fingerprint"]


def test_runs_of_one_model_are_told_apart_by_how_they_were_asked(tmp_path: Path) -> None:
    paths = [stored(tmp_path / "a"), stored(tmp_path / "b", protocol="cloze"), stored(tmp_path / "c", model="baseline:longest")]
    assert [each.name for each in read_runs(paths)] == ["baseline:random letter", "baseline:random cloze", "baseline:longest"]


def test_runs_that_differ_in_nothing_a_name_shows_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [stored(tmp_path / "a"), stored(tmp_path / "b", limit=4)]
    assert [each.name for each in read_runs(paths)] == ["baseline:random (a)", "baseline:random (b)"]


def test_a_run_that_was_stopped_early_is_called_a_part(tmp_path: Path) -> None:
    path = stored(tmp_path / "a")
    record = json.loads((path / "record.json").read_text())
    (path / "record.json").write_text(json.dumps({**record, "stopped_early": "it holds"}))
    assert [each.name for each in read_runs([path])] == ["baseline:random (a part)"]


def test_a_long_name_is_shortened(tmp_path: Path) -> None:
    path = stored(tmp_path / "a")
    record = json.loads((path / "record.json").read_text())
    record["model"]["reference"] = "hf:" + "x" * 3000
    (path / "record.json").write_text(json.dumps(record))
    (only,) = read_runs([path])
    assert len(only.name) == 81
    assert only.name.endswith("x…")


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    first, again = stored(tmp_path / "a"), stored(tmp_path / "b")
    for other in (first, again, tmp_path / "b" / ".." / "a"):
        with pytest.raises(UsageError, match="hold the same run; name each run once"):
            read_runs([first, other])


@pytest.mark.parametrize("lose", ["a line", "a task", "all"])
def test_samples_that_the_record_does_not_count_are_refused(tmp_path: Path, lose: str) -> None:
    path = stored(tmp_path / "a")
    file = path / "samples.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    kept = {"a line": lines[:-1], "a task": [line.replace("mini_ja", "mini_fr") for line in lines], "all": []}[lose]
    file.write_text("".join(kept))
    with pytest.raises(StoreError, match="is damaged: the samples are not those"):
        read_runs([path])


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", {}),
        ("protocol", []),
        ("plan", {"shots": "many"}),
        ("plan", {"shots": float("inf")}),
        ("results", [{}]),
        ("tasks", [[]]),
    ],
)
def test_a_record_with_other_things_in_it_is_refused(tmp_path: Path, part: str, value: object) -> None:
    path = stored(tmp_path / "a")
    record = json.loads((path / "record.json").read_text())
    (path / "record.json").write_text(json.dumps({**record, part: value}))
    with pytest.raises(StoreError, match="damaged"):
        read_runs([path])
