"""Finished runs as pictures for papers: which runs, tasks and metric go into which chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmedeval.aggregate import AVERAGE
from mmedeval.errors import UnknownNameError, UsageError
from mmedeval.report import charts, data
from mmedeval.runs import StoredRun


def draw(runs: Sequence[StoredRun], kind: str, out: Path, *, metric: str = "accuracy", group: str | None = None) -> None:
    """Draws `kind` ("bars", "radar", "curve") to an svg, png or pdf file. Raises `UsageError` where that cannot be drawn."""
    chosen = _group(runs, group)
    known = data.metrics(runs)
    if metric not in known:
        if metric in {figure.metric for run in runs for figure in run.aggregates}:
            raise UsageError(f"no run has a value of {metric}: nothing was read or scored; look at the runs with mmedeval show")
        raise UnknownNameError("metric of these runs", metric, known)
    if kind == "radar":
        chosen = replace(chosen, columns=tuple(column for column in chosen.columns if column.language != AVERAGE))
    if kind == "curve":
        runs, steps = _in_order(runs)
    rows = [charts.Row(name=run.name, figures=data.whole_figures(run, chosen, metric)) for run in runs]
    if not any(each is not None and each.value is not None for row in rows for each in row.figures):
        raise UsageError(f"no run has a value of {metric} for {chosen.name}; choose another --metric or --group")
    scales = {each.scale for row in rows for each in row.figures if each is not None}
    label = f"{metric}, per cent" if scales == {1.0} else metric
    if kind == "curve":
        charts.curve(chosen.columns, steps, rows, label, out)
    elif kind == "radar":
        charts.radar(chosen.columns, rows, label, out)
    else:
        charts.bars(chosen.columns, rows, label, out)


def _group(runs: Sequence[StoredRun], name: str | None) -> data.Group:
    found = {group.name: group for group in data.groups(runs)}
    if name is None:
        if len(found) > 1:
            raise UsageError(f"the runs have several groups of tasks; choose one with --group {' or '.join(found)}")
        return next(iter(found.values()))
    if name not in found:
        raise UnknownNameError("group of these runs", name, found)
    return found[name]


def _in_order(runs: Sequence[StoredRun]) -> tuple[list[StoredRun], list[int]]:
    """The checkpoints of one training run by their steps."""
    steps: dict[int, StoredRun] = {}
    for run in runs:
        step = data.step_of(run)
        if step is None:
            raise UsageError(f"{run.path} tells no training step; a curve needs folders or models named as in step-500")
        if step in steps:
            raise UsageError(f"{steps[step].path} and {run.path} are both of step {step}; a curve shows one training run")
        steps[step] = run
    if len(steps) < 2:
        raise UsageError("a curve needs the runs of two checkpoints or more; use --kind bars for one")
    ordered = sorted(steps)
    return [steps[step] for step in ordered], ordered
