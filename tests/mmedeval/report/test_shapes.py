"""Runs that were edited or cut are refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmedeval.errors import StoreError
from mmedeval.report import data
from mmedeval.runs import read_runs

Make = Callable[..., Path]
FIGURE = {"metric": "x", "task": "t", "language": "en", "value": 1, "low": 0, "high": 1, "n": 1, "scored": 1}


def refused(path: Path) -> str:
    with pytest.raises(StoreError) as told:
        data.check(read_runs([path]))
    assert str(told.value).endswith("; restore it, or run again")
    return str(told.value)


@pytest.mark.parametrize(
    ("part", "value", "sentence"),
    [
        ("counts", {"n": "many"}, "counts.n is 'many', no whole number"),
        ("counts", {"n": 3}, "it lacks 'counts.unread'"),
        ("usage", {"mmedbench_mini_en": 5}, "usage.mmedbench_mini_en is 5, no object"),
        ("usage", {"mmedbench_mini_en": {"seconds": "long"}}, "usage.mmedbench_mini_en.seconds is 'long', no number"),
        ("usage", {"mmedbench_mini_en": {"seconds": float("nan")}}, "seconds is nan, no number"),
        ("usage", {"mmedbench_mini_en": {"seconds": 10**400}}, "seconds is 1000"),
        ("usage", {"mmedbench_mini_en": {"seconds": True}}, "seconds is True, no number"),
        ("consistency", [{"read": 4}], "it lacks 'consistency.group'"),
        (
            "consistency",
            [{"group": "g", "languages": 2, "read": 4, "alike": {"count": 5}, "all_right": {"count": 1}}],
            "of 4 questions that were read 5 are counted as alike, 1 as right",
        ),
        ("warnings", "none", "warnings is 'none', no list"),
        ("warnings", [3], "warnings is 3, no text"),
        ("determinism", {"items": 2}, "determinism is not what it should be"),
        ("rotations", {"results": [{"task": 1}], "position": [], "usage": {}}, "rotations.results holds no figures"),
        ("rotations", {"results": [], "position": [{"letters": {}}], "usage": {}}, "it lacks 'rotations.position.task'"),
        ("rotations", {"results": [{**FIGURE, "scale": 0}], "position": [], "usage": {}}, "the results of x are no figures"),
        ("environment", "a machine", "environment is 'a machine', no object"),
        ("runtime", [["cpu"]], "runtime is [['cpu']], no object"),
        ("fingerprint", ["x"], "fingerprint is ['x'], no text"),
    ],
)
def test_a_record_with_other_things_in_it_is_told_with_their_place(store: Make, part: str, value: object, sentence: str) -> None:
    path = store("a", limit=3)
    record = json.loads((path / "record.json").read_text(encoding="utf-8"))
    (path / "record.json").write_text(json.dumps({**record, part: value}), encoding="utf-8")
    told = refused(path)
    assert f"{path / 'record.json'} is damaged: " in told
    assert sentence in told


def test_what_a_run_stores_is_as_it_should_be(store: Make) -> None:
    data.check(read_runs([store("a", limit=3, rotations=2), store("b", protocol="cloze", limit=3)]))


def test_a_run_without_any_answer_is_refused(store: Make) -> None:
    path = store("a", limit=1)
    record = json.loads((path / "record.json").read_text(encoding="utf-8"))
    (path / "record.json").write_text(json.dumps({**record, "tasks": {}, "results": []}), encoding="utf-8")
    (path / "samples.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="holds no answer to anything; leave it out, or run again"):
        data.check(read_runs([path]))


def test_a_task_without_figures_is_told(store: Make) -> None:
    path = store("a", limit=3)
    record = json.loads((path / "record.json").read_text(encoding="utf-8"))
    (path / "record.json").write_text(json.dumps({**record, "results": []}), encoding="utf-8")
    assert "results holds no figure of mmedbench_mini_en" in refused(path)


def test_a_task_with_another_thing_for_its_data_is_told(store: Make) -> None:
    path = store("a", limit=3)
    record = json.loads((path / "record.json").read_text(encoding="utf-8"))
    record["tasks"]["mmedbench_mini_en"]["data_digest"] = []
    (path / "record.json").write_text(json.dumps(record), encoding="utf-8")
    assert "tasks.mmedbench_mini_en.data_digest is [], no text" in refused(path)
