"""Comparisons, verdicts and trends on the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mmedeval import verdict_tables
from mmedeval.compare import Comparison, Item
from mmedeval.console import make_console, make_table, plain, print_table
from mmedeval.gate import Answer, Verdict
from mmedeval.outcomes import Outcomes
from mmedeval.trend import Trend
from mmedeval.verdict_tables import Grid

LEFT = frozenset({"language", "metric", "checkpoint", "verdict", ""})
_COMMAND = re.compile(r":(?=:)|##(?=\[)")
COLOURS: dict[Answer, str] = {"holds": "green", "fails": "red", "cannot tell": "yellow"}


def print_baseline(run: Outcomes, file: Path) -> None:
    console = make_console()
    tasks = f"{len(run.tasks)} task{'' if len(run.tasks) == 1 else 's'}"
    console.print(plain(_line(f"{run.name}: {run.items} items in {tasks}; {file.stat().st_size / 1000:.1f} kB in {file}")))
    console.print(plain(_line(f"hold a run against it: mmedeval gate --baseline {file} --run RUN")), style="dim")


def print_comparison(comparison: Comparison, *, items: bool) -> None:
    console = make_console()
    console.print(plain(_line(f"base: {comparison.base}")), style="bold")
    console.print(plain(_line(f"new: {comparison.new}")), style="bold")
    for difference in comparison.forced:
        console.print(plain(_line(f"not comparable, and forced: {difference}")), style="yellow")
    _print_grids(verdict_tables.comparison_grids(comparison))
    _print_notes(verdict_tables.comparison_notes(comparison))
    if items:
        console.print()
        for item in comparison.items:
            _print_item(item)
        if not comparison.items:
            console.print("no item was gained or lost")
    console.print()


def _print_item(item: Item) -> None:
    console = make_console()
    style = "green" if item.change == "gained" else "red"
    right = "" if item.answer is None else f", right is {item.answer}"
    console.print(plain(_line(f"{item.task}/{item.id} {item.change}")), style=style)
    console.print(plain(_line(f"base {item.base}, new {item.new}{right}")))
    if item.question is not None:
        console.print(plain(_line(f"asked: {item.question}")), style="dim", soft_wrap=True)
    console.print()


def print_verdict(verdict: Verdict) -> None:
    _print_grids(verdict_tables.verdict_grids(verdict))
    _print_notes(verdict_tables.verdict_notes(verdict))
    make_console().print(plain(_line(verdict.sentence)), style=f"bold {COLOURS[verdict.answer]}")


def print_trend(trend: Trend) -> None:
    _print_grids(verdict_tables.trend_grids(trend))
    _print_notes(verdict_tables.trend_notes(trend))


def _print_grids(grids: Sequence[Grid]) -> None:
    console = make_console()
    for grid in grids:
        if grid.title is not None:
            console.print(plain(_line(grid.title)), style="italic")
        table = make_table()
        for heading in grid.headings:
            table.add_column(plain(_line(heading)), justify="left" if heading in LEFT else "right", no_wrap=True)
        for number, row in enumerate(grid.rows):
            strong = number in grid.strong
            if strong and len(grid.rows) > 1 and "metric" not in grid.headings:
                table.add_section()
            table.add_row(*(plain(_line(cell)) for cell in row), style="bold" if strong else None)
        print_table(console, table)
        console.print()


def _print_notes(notes: Sequence[str]) -> None:
    console = make_console()
    for note in notes:
        console.print(plain(_line(note)), style="dim")


def _line(text: str) -> str:
    """One line, without what is a command to a runner of GitHub: `::` where a line begins, wrapped or not, and `##[` anywhere."""
    return _COMMAND.sub(r"\g<0> ", " ".join(text.split()))
