"""Trackers watch a run from its start to its end, and none that breaks takes an answer with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mmedeval import MissingPackageError, RunPlan, RunRecord, Tracker, TrackerSpec, UnknownNameError, hookimpl
from mmedeval.catalog import Catalog
from mmedeval.cli import cli
from mmedeval.host import make_host
from mmedeval.runner import RunStopped, run
from mmedeval.store import read_record
from mmedeval.trackers import Watcher

PLAN = RunPlan(model="baseline:first", tasks=("mmedbench_mini_en", "mmedbench_mini_ja"))


class Remembering(Tracker):
    """Keeps what it was told, and fails in the calls named."""

    def __init__(self, *failing: str) -> None:
        self.failing, self.calls = failing, []  # type: ignore[var-annotated]

    def _call(self, name: str, what: object = None) -> None:
        self.calls.append((name, what))
        if name in self.failing:
            raise ConnectionError(f"no server for {name}")

    def started(self, plan: RunPlan) -> None:
        self._call("started", plan.model)

    def progress(self, counts: Mapping[str, int]) -> None:
        self._call("progress", dict(counts))

    def finished(self, record: RunRecord) -> None:
        self._call("finished", record.data["fingerprint"])

    def close(self, *, whole: bool) -> None:
        self._call("close", whole)


def watched(tracker: Tracker, out: Path, *hooks: object) -> tuple[list[str], RunRecord | None]:
    """Runs the plan under the eyes of a tracker, as the command does; what the user is told, and the record."""
    told: list[str] = []
    host = make_host(extra=hooks)
    watcher = Watcher("remembering", tracker, told.append)
    host.manager.register(watcher)
    record = None
    try:
        record, _ = run(PLAN, Catalog(host), out)
        watcher.catch_up(PLAN, record)
    except RunStopped:
        pass
    finally:
        watcher.close()
    return told, record


def test_a_tracker_is_told_of_start_progress_and_end(tmp_path: Path) -> None:
    tracker = Remembering()
    told, record = watched(tracker, tmp_path / "run")
    assert told == []
    assert record is not None
    assert tracker.calls == [
        ("started", "baseline:first"),
        ("progress", {"answered": 50, "unread": 0, "failed": 0}),
        ("finished", record.data["fingerprint"]),
        ("close", True),
    ]


def test_a_run_that_was_finished_before_is_sent_as_well(tmp_path: Path) -> None:
    watched(Remembering(), tmp_path / "run")
    late = Remembering()
    watched(late, tmp_path / "run")
    assert [name for name, _ in late.calls] == ["started", "finished", "close"]


def test_of_a_stopped_run_the_tracker_learns_that_it_is_no_whole_one(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    tracker = Remembering()
    _, record = watched(tracker, tmp_path / "run", SimpleNamespace(mmedeval_sample_finished=hookimpl(stop)))
    assert record is None
    assert tracker.calls[-1] == ("close", False)


@pytest.mark.parametrize("failing", [("started",), ("progress",), ("finished",), ("close",), ("progress", "close")])
def test_a_tracker_that_fails_is_told_once_and_the_run_is_whole(tmp_path: Path, failing: Sequence[str]) -> None:
    expected, _ = run(PLAN, Catalog(make_host()), tmp_path / "plain")
    tracker = Remembering(*failing)
    told, record = watched(tracker, tmp_path / "run")
    assert told == [
        f"warning: the tracker remembering failed (ConnectionError: no server for {failing[0]}); the run goes on without it"
    ]
    assert record is not None
    assert record.aggregates == expected.aggregates
    assert read_record(tmp_path / "run") == record.data
    # It gets no further call, but is closed, as no whole run where something is missing.
    calls = [name for name, _ in tracker.calls]
    assert calls[calls.index(failing[0]) + 1 :] == ([] if failing[0] == "close" else ["close"])
    assert tracker.calls[-1] == ("close", failing[0] == "close")


def test_a_stranger_may_offer_a_tracker_and_unknown_names_and_missing_packages_are_told() -> None:
    tracker = Remembering()
    asked: list[str] = []

    def load(where: str) -> Tracker:
        asked.append(where)
        return tracker

    specs = [
        TrackerSpec(name="paper", summary="a test", load=load, where="a drawer"),
        TrackerSpec(name="stone", summary="a test", load=load, where="", requires=("no_such_package",), extra="stone"),
    ]
    catalog = Catalog(make_host(extra=[SimpleNamespace(mmedeval_trackers=hookimpl(lambda: specs))]))
    assert catalog.open_tracker("paper=the=drawer") == ("paper", tracker)
    assert catalog.open_tracker("paper") == ("paper", tracker)
    assert asked == ["the=drawer", ""]
    with pytest.raises(UnknownNameError, match="unknown tracker 'papper'; did you mean paper"):
        catalog.open_tracker("papper=x")
    with pytest.raises(MissingPackageError, match=r"the tracker 'stone' needs no_such_package.*pip install 'mmedeval\[stone\]'"):
        catalog.open_tracker("stone")


def call(*options: str) -> Result:
    return CliRunner().invoke(cli, [*options])


def test_the_command_refuses_an_unknown_tracker_before_anything_is_asked(tmp_path: Path) -> None:
    out = tmp_path / "run"
    given: Any = ("run", "--model", "baseline:first", "--tasks", "mmedbench_mini_en", "--quiet", "--out", str(out))
    done = call(*given, "--tracker", "tensorbord=x")
    assert done.exit_code == 2
    assert "unknown tracker 'tensorbord'; did you mean tensorboard?" in done.stderr
    assert not out.exists()


def test_the_list_tells_what_each_tracker_takes() -> None:
    done = call("list", "trackers")
    assert done.exit_code == 0
    assert all(name in done.stdout for name in ("tensorboard=", "mlflow=", "wandb="))
