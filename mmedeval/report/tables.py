"""Finished runs as Markdown to be read, as CSV or Parquet to be computed with."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmedeval.aggregate import AVERAGE
from mmedeval.errors import MissingPackageError
from mmedeval.published import GROUP, SOURCE, published
from mmedeval.report import data
from mmedeval.runs import StoredRun
from mmedeval.text import csv_cell, markdown
from mmedeval.types import Aggregate, join_letters

Cell = str | int | float | bool | None

# Names and kinds of the columns, in order.
FIGURES: Mapping[str, type] = {
    "run": str, "model": str, "protocol": str, "shots": int, "task": str, "language": str, "metric": str, "value": float,
    "low": float, "high": float, "n": int, "scored": int, "unread": int, "failed": int, "unscored": int, "chance": float,
    "scale": float, "fingerprint": str,
}  # fmt: skip
SAMPLES: Mapping[str, type] = {
    "run": str, "task": str, "language": str, "id": str, "status": str, "right": bool, "prediction": str, "answer": str,
    "confidence": float, "margin": float, "tokens_in": int, "tokens_out": int, "seconds": float, "question": str, "options": str,
    "reference": str, "output": str, "failure": str,
}  # fmt: skip


def figure_rows(runs: Sequence[StoredRun]) -> Iterator[dict[str, Cell]]:
    """A row per run, task (or average of a group) and metric; values as they are stored, not in per cent."""
    for run in runs:
        for figure in run.aggregates:
            yield {
                "run": run.name,
                "model": run.model,
                "protocol": run.protocol,
                "shots": run.shots,
                **{name: getattr(figure, name) for name in FIGURES if hasattr(figure, name)},
                "fingerprint": run.fingerprint,
            }


def sample_rows(runs: Sequence[StoredRun]) -> Iterator[dict[str, Cell]]:
    """A row per run and question."""
    for run in runs:
        for result in run.results:
            sample = result.sample
            sure = data.confidence(result.logprobs) if result.logprobs and data.tells_confidence(run) else None
            yield {
                "run": run.name,
                "task": result.task,
                "language": sample.language,
                "id": sample.id,
                "status": result.status,
                "right": result.right,
                "prediction": None if result.prediction is None else join_letters(result.prediction),
                "answer": join_letters(sample.answer),
                "confidence": sure,
                "margin": result.margin,
                "tokens_in": result.usage.tokens_in,
                "tokens_out": result.usage.tokens_out,
                "seconds": result.usage.seconds,
                "question": sample.question,
                "options": "\n".join(f"{letter}. {text}" for letter, text in sample.options.items()),
                "reference": sample.rationale,
                "output": result.output,
                "failure": result.failure,
            }


def as_csv(runs: Sequence[StoredRun], *, samples: bool = False) -> str:
    """Cells hold nothing that a spreadsheet would compute or that acts on a screen."""
    columns, rows = (SAMPLES, sample_rows(runs)) if samples else (FIGURES, figure_rows(runs))
    file = io.StringIO()
    writer = csv.DictWriter(file, list(columns), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: csv_cell(value) if isinstance(value, str) else value for name, value in row.items()})
    return file.getvalue()


def write_parquet(runs: Sequence[StoredRun], file: Path, *, samples: bool = False) -> None:
    """The same rows with types; texts as they are, since nothing that reads Parquet computes them."""
    try:
        # By name: the core needs none of what only this format needs.
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        raise MissingPackageError("--format parquet", ["pyarrow"], "report") from error
    kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}
    columns, rows = (SAMPLES, sample_rows(runs)) if samples else (FIGURES, figure_rows(runs))
    lists: dict[str, list[Any]] = {name: [] for name in columns}
    for row in rows:
        for name, values in lists.items():
            value = row[name]
            # Half a surrogate pair, which a model may write, has no UTF-8.
            values.append(value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value)
    schema = arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    parquet.write_table(arrow.table(lists, schema=schema), file)


def as_markdown(runs: Sequence[StoredRun]) -> str:
    """A short report: what was run, the figures by language beside the published ones, and what must be said beside them."""
    parts = ["# Evaluation report", ""]
    parts += [
        *_table(
            ["run", "model", "asked by", "items", "unread", "failed"],
            [
                [
                    markdown(run.name),
                    markdown(run.model),
                    markdown(f"{run.protocol}, {run.shots}-shot"),
                    *(str(run.data["counts"].get(name, 0)) for name in ("n", "unread", "failed")),
                ]
                for run in runs
            ],
        )
    ]
    parts += [f"- {markdown(note)}" for note in data.notes(runs)] + [""]
    for group in data.groups(runs):
        for metric in data.metrics(runs):
            rows = []
            for run in runs:
                figures = data.figures_of(run)
                asked = data.asked_of(run, group)
                cells = []
                for column in group.columns:
                    figure = figures.get((metric, column.task))
                    cell = _value(figure)
                    if figure is not None and figure.value is not None and figure.scored < figure.n:
                        cell += f" of {figure.scored:,}"
                    if figure is not None and column.language == AVERAGE and asked is not None:
                        cell += f" of {asked} tasks"
                    cells.append(cell)
                if any((metric, column.task) in figures for column in group.columns):
                    rows.append([markdown(run.name), *cells])
            if not rows:
                continue
            theirs = published(metric) if group.name == GROUP else ()
            for each in theirs:
                values = data.published_values(each, group)
                name = markdown(f"{each.name} (published, {each.setting})")
                rows.append([name, *("–" if value is None else f"{value:.1f}" for value in values)])
            parts += [f"## {markdown(group.name)}: {markdown(metric)}", ""]
            parts += _table(["run", *(markdown(column.label) for column in group.columns)], rows)
            if theirs:
                parts += [f"Published: {markdown(SOURCE)}.", ""]
    calibrated = [(run, found) for run in runs if (found := data.calibration(run)) is not None]
    if calibrated:
        parts += ["## Calibration", ""]
        parts += _table(
            ["run", "items", "mean confidence", "accuracy", "expected calibration error"],
            [
                [
                    markdown(run.name),
                    str(found.items),
                    *(f"{100 * each:.1f}" for each in (found.confidence, found.accuracy, found.error)),
                ]
                for run, found in calibrated
            ],
        )
    parts += ["## How to make it again", ""]
    parts += _table(["run", "command"], [[markdown(run.name), markdown(data.command_line(run))] for run in runs])
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown, figures to the right; cells come as Markdown."""
    line = ["---" if name in ("run", "model", "asked by", "command") else "---:" for name in head]
    return [f"| {' | '.join(row)} |" for row in (head, line, *rows)] + [""]


def _value(figure: Aggregate | None) -> str:
    if figure is None or figure.value is None:
        return "–"
    factor = data.factor_of(figure)
    interval = "" if figure.low is None or figure.high is None else f" ({figure.low * factor:.1f}–{figure.high * factor:.1f})"
    return f"{figure.value * factor:.1f}{interval}"
