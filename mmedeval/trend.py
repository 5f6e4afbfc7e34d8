"""Accuracy over the checkpoints of one training run: the best one, and the first that is worse than one before it (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mmedeval.aggregate import AVERAGE
from mmedeval.compare import Pairs, changes_of, groups_of, pair, refuse
from mmedeval.errors import UsageError
from mmedeval.outcomes import FAILED, UNREAD, Outcomes
from mmedeval.paired import of_a_drop

ALPHA = 0.05
METRIC = "accuracy_strict"
_STEP = re.compile(r"(?<![A-Za-z])(?:step|checkpoint)[-_](\d+)(?!\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A checkpoint: its accuracy over all items (without an answer is wrong), and how it stands to the best one before it.

    `drop` is positive where it is worse; `p` is one-sided and corrected for all pairs of checkpoints.
    """

    name: str
    step: int | None
    value: float
    low: float | None
    high: float | None
    by_task: Mapping[str, float]
    unread: int
    failed: int
    best_before: str | None
    drop: float | None
    p: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One task or group over all checkpoints. `best` and `first_drop` are places in `points`."""

    title: str
    languages: Mapping[str, str]
    points: tuple[Point, ...]
    best: int
    first_drop: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    order: Literal["step", "given"]
    pairs: int
    series: tuple[Series, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def step_of(run: Outcomes) -> int | None:
    """The training step in the name of the run's folder, as in `step-500` or `checkpoint-500`, else in the model's."""
    for name in (run.path.resolve().name, Path(run.model.rstrip("/")).name):
        found = _STEP.findall(name)
        if found:
            return int(found[-1])
    return None


def trend(runs: Sequence[Outcomes]) -> Trend:
    """Raises `UsageError` for fewer than two runs, for such as are not comparable, and for two of the same step."""
    if len(runs) < 2:
        raise UsageError("a trend needs two runs or more, one for each checkpoint")
    steps = [step_of(run) for run in runs]
    by_step = None not in steps
    if by_step:
        for i, step in enumerate(steps):
            if step in steps[:i]:
                raise UsageError(f"{runs[steps.index(step)].path} and {runs[i].path} are both of step {step}; name one of them")
        runs = [run for _, run in sorted(zip(steps, runs, strict=True), key=lambda pair: pair[0] or 0)]
    for run in runs[1:]:
        refuse(runs[0], run, hint="give checkpoints that were asked alike")
    pairs = len(runs) * (len(runs) - 1) // 2
    groups = groups_of(pair(runs[0], runs[1]))
    return Trend(
        order="step" if by_step else "given",
        pairs=pairs,
        series=tuple(_series(members, runs, pairs, by_step=by_step) for members in groups),
    )


def _series(members: Sequence[Pairs], runs: Sequence[Outcomes], pairs: int, *, by_step: bool) -> Series:
    tasks = [each.task for each in members]
    title = str(members[0].group) if len(members) > 1 else tasks[0]
    points: list[Point] = []
    best = 0
    for i, run in enumerate(runs):
        figures = {figure.task: figure for figure in run.figures if figure.metric == METRIC}
        own = figures.get(title)
        by_task = {task: figures[task].value for task in tasks if task in figures}
        if own is None or own.value is None or len(by_task) < len(tasks):
            raise UsageError(f"{run.path} has no {METRIC} of {title}; mmedeval rescore {run.path} adds it")
        drop = p = None
        if i:
            changes = changes_of([each for each in pair(runs[best], run) if each.task in tasks])
            assert changes is not None  # a task without an item to compare is no pair
            drop, p = -changes.difference, min(1.0, pairs * of_a_drop(changes))
        points.append(
            Point(
                name=run.name,
                step=step_of(run) if by_step else None,
                value=own.value,
                low=own.low,
                high=own.high,
                by_task={task: value for task, value in by_task.items() if value is not None},
                unread=sum(run.tasks[task].outcomes.count(UNREAD) for task in tasks),
                failed=sum(run.tasks[task].outcomes.count(FAILED) for task in tasks),
                best_before=points[best].name if i else None,
                drop=drop,
                p=p,
            )
        )
        if own.value > points[best].value:
            best = i
    return Series(
        title=title,
        languages={each.task: each.language for each in members} | ({title: AVERAGE} if len(members) > 1 else {}),
        points=tuple(points),
        best=best,
        first_drop=next((i for i, point in enumerate(points) if point.p is not None and point.p <= ALPHA), None),
    )
