"""Finished runs, read to be compared and shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmedeval.errors import StoreError, UsageError
from mmedeval.store import RECORD, read_record, read_samples, record_from_json
from mmedeval.types import Aggregate, SampleResult

# So much of a model's name fits into a table.
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A finished run. `name` is short, and no two runs that were read together have the same; `data` is `record.json`."""

    name: str
    path: Path
    data: Mapping[str, Any]
    aggregates: Sequence[Aggregate]
    results: Sequence[SampleResult]

    @property
    def model(self) -> str:
        return str(self.data["model"]["reference"])

    @property
    def protocol(self) -> str:
        return str(self.data["protocol"]["used"])

    @property
    def shots(self) -> int:
        return int(self.data["plan"]["shots"])

    @property
    def fingerprint(self) -> str:
        return str(self.data.get("fingerprint", ""))


def read_runs(paths: Sequence[Path]) -> list[StoredRun]:
    """Finished runs, in the order given.

    Raises `UsageError` where one is named twice, `StoreError` where a folder holds no finished run, or its samples are not those
    of its record.
    """
    runs: list[StoredRun] = []
    for path in paths:
        run = _read(path)
        for other in runs:
            if other.path.resolve() == path.resolve() or (other.fingerprint and other.fingerprint == run.fingerprint):
                raise UsageError(f"{other.path} and {path} hold the same run; name each run once")
        runs.append(run)
    return _named(runs)


def _read(path: Path) -> StoredRun:
    data = read_record(path)
    results = read_samples(path)
    asked = Counter(result.task for result in results)
    try:
        counted = {row["task"]: row["n"] for row in data["results"] if row["task"] in data["tasks"]}
        for name in (data["model"]["reference"], data["protocol"]["used"]):
            if not isinstance(name, str):
                raise TypeError(f"{name!r} is no text")
        shots, tasks = int(data["plan"]["shots"]), set(data["tasks"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"{path / RECORD} is damaged: {type(error).__name__}: {error}; restore it, or run again") from error
    if shots < 0 or any(asked[task] != n for task, n in counted.items()) or set(asked) != tasks:
        raise StoreError(
            f"{path} is damaged: the samples are not those that {RECORD} counts ({len(results)} samples, "
            f"{sum(counted.values())} counted); restore it, or run again with another --out"
        )
    aggregates = record_from_json(data).aggregates
    name = Path(data["model"]["reference"].rstrip("/")).name
    short = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    part = " (a part)" if "stopped_early" in data else ""
    return StoredRun(name=short + part, path=path, data=data, aggregates=aggregates, results=results)


def _named(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Names with as much in them as tells the runs apart: of the model, then how it was asked, then the folder, then a number."""
    names = [run.name for run in runs]
    wordings = (
        [f"{run.name} {run.protocol}" for run in runs],
        [f"{run.name} {run.protocol} {run.shots}-shot" for run in runs],
        [f"{run.name} ({run.path.resolve().name})" for run in runs],
        [f"{run.name} ({number})" for number, run in enumerate(runs, start=1)],
    )
    for wording in wordings:
        taken = Counter(names)
        if max(taken.values(), default=1) == 1:
            break
        names = [longer if taken[name] > 1 else name for name, longer in zip(names, wording, strict=True)]
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]
