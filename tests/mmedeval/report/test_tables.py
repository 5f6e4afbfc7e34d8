"""Runs as csv, parquet and md."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmedeval.report import tables
from mmedeval.runs import read_runs
from mmedeval.testing import make_sample
from mmedeval.types import Generation, LoglikelihoodRequest, Loglikelihoods

Make = Callable[..., Path]
FORMULA = "=cmd|' /C calc'!A0"


@pytest.fixture
def hostile(ask: Make) -> Path:
    def write(request: Any) -> Generation:
        return Generation(request_id=request.id, text="=1+1 \u202e \x1b[31m | <b> \ud800\nAnswer: A")

    return ask(FORMULA, {"ja": [make_sample(n, question=FORMULA, rationale="@SUM(1)") for n in (1, 2)]}, write=write)


def test_a_row_of_the_csv_is_a_figure_of_the_record(store: Make) -> None:
    runs = read_runs([store("a"), store("b", "baseline:longest", limit=4)])
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(runs))))
    expected = [(run, figure) for run in runs for figure in run.data["results"]]
    assert len(rows) == len(expected)
    for row, (run, figure) in zip(rows, expected, strict=True):
        assert (row["run"], row["model"], row["shots"], row["fingerprint"]) == (run.name, run.model, "0", run.fingerprint)
        for name, value in figure.items():
            assert row[name] == ("" if value is None else str(value)), name


@pytest.mark.parametrize("samples", [False, True])
def test_no_cell_of_the_csv_is_a_formula_or_acts(hostile: Path, samples: bool) -> None:
    text = tables.as_csv(read_runs([hostile]), samples=samples)
    rows = list(csv.DictReader(io.StringIO(text)))
    cells = [cell for row in rows for cell in row.values()]
    assert any("calc" in cell for cell in cells)
    assert not any(cell.startswith(("=", "+", "@", "\t")) for cell in cells)
    assert all(float(cell) < 0 for cell in cells if cell.startswith("-"))
    assert not set(text) & {"\u202e", "\x1b", "\ud800"}
    if samples:
        assert [row["output"] for row in rows] == ["'=1+1 \\u202e \\x1b[31m | <b> \\ud800\nAnswer: A"] * 2


@pytest.mark.parametrize("samples", [False, True])
def test_parquet_holds_the_same_rows_with_types(hostile: Path, store: Make, tmp_path: Path, samples: bool) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    runs = read_runs([hostile, store("a")])
    tables.write_parquet(runs, tmp_path / "x.parquet", samples=samples)
    found = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    expected = [dict(row) for row in (tables.sample_rows(runs) if samples else tables.figure_rows(runs))]
    assert len(found) == len(expected) > 4
    for row, wanted in zip(found, expected, strict=True):
        for name, value in wanted.items():
            safe = value.replace("\ud800", "\\ud800") if isinstance(value, str) else value
            assert (row[name], type(row[name])) == (safe, type(safe)), name


def test_markdown_shows_figures_beside_published_ones_and_no_markup_of_others(hostile: Path, store: Make) -> None:
    from markdown_it import MarkdownIt

    runs = read_runs([hostile, store("a")])
    text = tables.as_markdown(runs)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    accuracy = next(figure for figure in runs[1].data["results"] if (figure["metric"], figure["language"]) == ("accuracy", "ja"))
    assert f"{100 * accuracy['value']:.1f} ({100 * accuracy['low']:.1f}–{100 * accuracy['high']:.1f})" in text
    assert "<b>" not in html
    assert html.count("<table>") == text.count("\n| --- |") == 6
    assert "published" not in text
    # Figures stand to the right, words to the left.
    assert "| run | model | asked by | items | unread | failed |\n| --- | --- | --- | ---: | ---: | ---: |\n" in text
    assert "| run | command |\n| --- | --- |\n" in text


def test_published_figures_stand_beside_a_run_of_the_same_questions(store: Make) -> None:
    import dataclasses

    (run,) = read_runs([store("a")])
    about = {task: {**each, "group": "mmedbench"} for task, each in run.data["tasks"].items()}
    figures = [dataclasses.replace(each, task="mmedbench" if each.language == "avg" else each.task) for each in run.aggregates]
    text = tables.as_markdown([dataclasses.replace(run, data={**run.data, "tasks": about}, aggregates=figures)])
    # Of two languages the mean is another one than the published, which is over six.
    assert "| GPT-4 \\(published, zero-shot\\) | 78.0 | 72.9 | – |" in text
    assert "not the whole test set" in text


def test_an_average_over_fewer_tasks_says_over_how_many(store: Make) -> None:
    three = ("mmedbench_mini_en", "mmedbench_mini_ja", "mmedbench_mini_fr")
    text = tables.as_markdown(read_runs([store("a", tasks=three), store("b", "baseline:longest", tasks=three[:2])]))
    rows = [line for line in text.splitlines() if line.startswith("| baseline") and line.count("|") == 6]
    assert [line.endswith(" of 2 tasks |") for line in rows] == [False, True] * 2


def test_baselines_have_no_confidence(store: Make, ask: Make) -> None:
    def score(request: LoglikelihoodRequest) -> Loglikelihoods:
        return Loglikelihoods(request_id=request.id, values=(-1.0, -2.0, -2.0, -2.0))

    runs = read_runs([store("a", limit=1), ask("b", {"en": [make_sample(1)]}, score=score)])
    assert [row["confidence"] is None for row in tables.sample_rows(runs)] == [True, True, False]


def test_a_figure_of_fewer_items_than_were_asked_says_of_how_many(store: Make) -> None:
    runs = read_runs([store("a", protocol="cloze"), store("b")])
    cloze = next(each for each in runs[0].aggregates if (each.metric, each.language) == ("accuracy", "ja"))
    assert (cloze.scored, cloze.n) == (32, 40)
    accuracy = tables.as_markdown(runs).split("## ")[1].splitlines()
    assert [[cell.endswith(" of 32") for cell in line.split(" | ")[1:3]] for line in accuracy[4:6]] == [[True] * 2, [False] * 2]
