"""What a run did item by item, out of a run folder or out of a baseline: one small file, fit to be committed."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mmedeval.errors import StoreError, UsageError
from mmedeval.runs import StoredRun, read_runs
from mmedeval.store import figure_from_json
from mmedeval.text import to_json
from mmedeval.types import Aggregate, SampleResult, Status, digest

MARK = "mmedeval_baseline"
VERSION = 1
RIGHT, WRONG, UNREAD, FAILED, UNSCORED = "1", "0", "u", "f", "-"
_NO_ANSWER: Mapping[Status, str] = {"unread": UNREAD, "failed": FAILED, "unscored": UNSCORED}
# What follows from the outcomes themselves.
_OF_OUTCOMES = frozenset({"accuracy", "accuracy_strict"})
_DIGITS = 4
_NUMBERED = re.compile(r"(.*?)(0|[1-9]\d{0,14})", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutcomes:
    """One task: `outcomes[i]` is what became of the item `ids[i]`, a letter each (RIGHT, WRONG, UNREAD, FAILED, UNSCORED).

    `scores[metric][i]` is a score or `None`; `parallel[i]` marks questions that other tasks ask too (empty: no task does).
    """

    language: str
    group: str | None
    data: str
    questions: str
    """A digest of the items themselves: `data` is one of what the model learnt from, too."""
    prompts: str
    ids: Sequence[str]
    outcomes: str
    parallel: Sequence[str | None] = ()
    scores: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """A run as it is compared. `results` are its samples, where they are at hand: a baseline holds none."""

    name: str
    path: Path
    model: str
    protocol: str
    shots: int
    sampling: Mapping[str, Any] | None
    metric_args: Mapping[str, str]
    fingerprint: str
    made: str
    """When the run was finished."""
    tasks: Mapping[str, TaskOutcomes]
    figures: Sequence[Aggregate]
    results: Mapping[tuple[str, str], SampleResult] | None = None
    part: bool = False
    """Whether it was stopped early: its items are not all that were to be asked."""

    @property
    def items(self) -> int:
        return sum(len(task.ids) for task in self.tasks.values())


def read_outcomes(paths: Sequence[Path]) -> list[Outcomes]:
    """Runs and baselines, in the order given, with names that tell them apart.

    Raises `UsageError` and `StoreError` for what is neither, is damaged, or holds no answer at all.
    """
    files = {path for path in paths if path.is_file()}
    twice = next((path for path in files if paths.count(path) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is named twice; name each run once")
    with _no_garbage():
        runs = {run.path: _of_run(run) for run in read_runs([path for path in paths if path not in files])}
    found = [_read_baseline(path) if path in files else runs[path] for path in paths]
    names = [each.name for each in found]
    for i, each in enumerate(found):
        if names.count(each.name) > 1 and each.path in files:
            found[i] = replace(each, name=f"{each.name} ({each.path.name})")
        _refuse_empty(each)
    return found


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Samples hold no cycles; to search hundreds of thousands of them for garbage takes a fourth of the time to read them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _refuse_empty(run: Outcomes) -> None:
    if not run.items:
        raise UsageError(f"{run.path} holds no items; there is nothing to compare")
    if all({*task.outcomes} <= {FAILED, UNSCORED} for task in run.tasks.values()):
        raise UsageError(
            f"{run.path} holds no answer: all its {run.items} items failed; see why with: mmedeval show {run.path} --failed"
        )


def _of_run(run: StoredRun) -> Outcomes:
    by_task: dict[str, list[SampleResult]] = {name: [] for name in run.data["tasks"]}
    for result in run.results:
        by_task[result.task].append(result)
    data = run.data
    try:
        tasks = {name: _of_task(data["tasks"][name], results) for name, results in by_task.items()}
        return Outcomes(
            name=run.name,
            path=run.path,
            model=run.model,
            protocol=run.protocol,
            shots=run.shots,
            sampling=None if data.get("sampling") is None else dict(data["sampling"]),
            metric_args=dict(data["plan"].get("metric_args", {})),
            fingerprint=run.fingerprint,
            made=str(data.get("finished", "")),
            tasks=tasks,
            figures=run.aggregates,
            results={result.key: result for result in run.results},
            part="stopped_early" in data,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{run.path / 'record.json'} is damaged: {type(error).__name__}: {error}; restore it, or run again"
        ) from error


def _of_task(about: Mapping[str, Any], results: Sequence[SampleResult]) -> TaskOutcomes:
    metrics = dict.fromkeys(metric for result in results for metric in result.scores if metric not in _OF_OUTCOMES)
    parallel = [result.sample.meta.get("parallel") for result in results]
    return TaskOutcomes(
        language=_text(about["language"]),
        group=None if about["group"] is None else _text(about["group"]),
        data=_text(about["data_digest"]),
        questions="",
        prompts=_text(about["prompts_digest"]),
        ids=[result.sample.id for result in results],
        outcomes="".join(map(_outcome, results)),
        parallel=[] if None in parallel else [str(each) for each in parallel],
        scores={metric: [result.scores.get(metric) for result in results] for metric in metrics},
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _outcome(result: SampleResult) -> str:
    if result.status == "ok":
        return RIGHT if result.prediction == result.sample.answer else WRONG
    return _NO_ANSWER[result.status]


def questions_digest(run: Outcomes, task: str) -> str:
    """A digest of the items of a task, computed only when it is asked for."""
    about = run.tasks[task]
    if run.results is None:
        return about.questions
    return digest([run.results[task, name].sample.contents() for name in about.ids])


def refuse_part(run: Outcomes) -> None:
    """Raises `UsageError` for a run that was stopped early: its figures are of the items that happened to be asked."""
    if run.part:
        raise UsageError(f"{run.path} is a part of a run, stopped early after {run.items} items; run it without --stop-early")


# --- baselines ---


def baseline(run: Outcomes) -> dict[str, Any]:
    """A run as its baseline: figures, an outcome per item, digests; no question, prompt or output, and no path."""
    content: dict[str, Any] = {
        MARK: VERSION,
        # Where the model lay is of no use to others.
        "model": Path(run.model.rstrip("/")).name,
        "name": run.name,
        "fingerprint": run.fingerprint,
        "made": run.made,
        "protocol": run.protocol,
        "shots": run.shots,
        "sampling": run.sampling,
        "metric_args": dict(run.metric_args),
        "results": [asdict(figure) for figure in run.figures],
        "tasks": {
            name: {
                "language": task.language,
                "group": task.group,
                "data": task.data,
                "questions": questions_digest(run, name),
                "prompts": task.prompts,
                "ids": fold(task.ids),
                "outcomes": task.outcomes,
                **({"parallel": fold([str(each) for each in task.parallel])} if task.parallel else {}),
                "scores": {metric: _pack(values) for metric, values in task.scores.items()},
            }
            for name, task in run.tasks.items()
        },
    }
    # As it will be read: JSON has lists for tuples.
    content = json.loads(json.dumps(content))
    return {**content, "digest": digest(content)}


def write_baseline(run: Outcomes, file: Path) -> None:
    """Writes a baseline in lines that a version control system can show.

    Raises `UsageError` for a part of a run, and where a file is there that is no baseline.
    """
    refuse_part(run)
    if file.exists() and not (file.is_file() and _is_baseline(file)):
        raise UsageError(f"{file} is there and is no baseline; choose another file with -o")
    content = baseline(run)
    lines = [f"{to_json(key)}: {_lines(value)}" for key, value in content.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    new = file.with_name(file.name + ".new")
    try:
        new.write_text(text, encoding="utf-8", newline="\n")
        new.replace(file)
    except OSError as error:
        raise StoreError(f"cannot write {file}: {error.strerror or error}; choose another file with -o") from error


def _lines(value: Any) -> str:
    """JSON with a line for each figure and each task."""
    if isinstance(value, dict) and value and all(isinstance(each, dict) for each in value.values()):
        return "{\n" + ",\n".join(f" {to_json(key)}: {to_json(each)}" for key, each in value.items()) + "\n}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f" {to_json(each)}" for each in value) + "\n]"
    return to_json(value)


def _is_baseline(file: Path) -> bool:
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and MARK in data


def _read_baseline(file: Path) -> Outcomes:
    try:
        data = json.loads(file.read_bytes())
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{file} is no baseline: {error}; name a run folder, or a file that mmedeval baseline wrote") from error
    if not isinstance(data, dict) or MARK not in data:
        raise StoreError(f"{file} is no baseline; name a run folder, or a file that mmedeval baseline wrote")
    if data[MARK] != VERSION:
        raise StoreError(f"{file} is a baseline of version {data[MARK]!r}; this mmedeval reads version {VERSION}; make it again")
    stored = data.pop("digest", None)
    if stored != digest(data):
        raise StoreError(
            f"{file} was edited or damaged: its digest is not that of its contents; make it again: mmedeval baseline"
        )
    try:
        return Outcomes(
            name=str(data["name"]),
            path=file,
            model=str(data["model"]),
            protocol=str(data["protocol"]),
            shots=int(data["shots"]),
            sampling=None if data["sampling"] is None else dict(data["sampling"]),
            metric_args=dict(data["metric_args"]),
            fingerprint=str(data["fingerprint"]),
            made=str(data["made"]),
            tasks={name: _task_from_json(task) for name, task in data["tasks"].items()},
            figures=[figure_from_json(row) for row in data["results"]],
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StoreError(f"{file} is damaged: {type(error).__name__}: {error}; make it again: mmedeval baseline") from error


def _task_from_json(data: Mapping[str, Any]) -> TaskOutcomes:
    ids, outcomes = unfold(data["ids"], len(data["outcomes"])), data["outcomes"]
    parallel = unfold(data["parallel"], len(outcomes)) if "parallel" in data else []
    if len({*ids}) != len(outcomes) or len(parallel) not in (0, len(outcomes)):
        raise ValueError(f"{len(ids)} ids for {len(outcomes)} outcomes")
    if not {*outcomes} <= {RIGHT, WRONG, UNREAD, FAILED, UNSCORED}:
        raise ValueError("an outcome that does not exist")
    return TaskOutcomes(
        language=str(data["language"]),
        group=None if data["group"] is None else str(data["group"]),
        data=str(data["data"]),
        questions=str(data["questions"]),
        prompts=str(data["prompts"]),
        ids=ids,
        outcomes=outcomes,
        parallel=parallel,
        scores={metric: _unpack(packed, len(outcomes)) for metric, packed in data["scores"].items()},
    )


def fold(names: Iterable[str]) -> list[str | list[Any]]:
    """Names in short: those that count up, as test-1, test-2 do, are one entry: what they begin with, the first, the last."""
    folded: list[str | list[Any]] = []
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match is None:
            folded.append(name)
            continue
        start, number = match[1], int(match[2])
        last = folded[-1] if folded else None
        if isinstance(last, list) and last[0] == start and last[2] == number - 1:
            last[2] = number
        else:
            folded.append([start, number, number])
    return folded


def unfold(folded: Iterable[str | list[Any]], most: int) -> list[str]:
    """The names again, of which there are no more than `most`."""
    names: list[str] = []
    for entry in folded:
        if isinstance(entry, str):
            names.append(entry)
            continue
        start, first, last = entry
        if not isinstance(start, str) or type(first) is not int or type(last) is not int or last - first >= most:
            raise ValueError(f"{entry!r} counts no names")
        names += [f"{start}{number}" for number in range(first, last + 1)]
        if len(names) > most:
            raise ValueError(f"more than {most} names")
    return names


def _pack(values: Sequence[float | None]) -> dict[str, Any]:
    return {
        "scored": "".join("0" if value is None else "1" for value in values),
        "values": [round(value, _DIGITS) for value in values if value is not None],
    }


def _unpack(packed: Mapping[str, Any], n: int) -> list[float | None]:
    scored, values = packed["scored"], packed["values"]
    if len(scored) != n or scored.count("1") != len(values):
        raise ValueError(f"{len(values)} scores for {n} items")
    left = iter(values)
    return [float(next(left)) if mark == "1" else None for mark in scored]
