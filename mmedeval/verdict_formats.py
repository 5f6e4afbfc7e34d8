"""Comparisons, verdicts and trends for machines and for pages: Markdown, JUnit XML, GitHub's annotations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from mmedeval import verdict_tables
from mmedeval.compare import Comparison
from mmedeval.errors import StoreError
from mmedeval.gate import Answer, DropCheck, MinimumCheck, Verdict, points, told_drop, told_minimum
from mmedeval.store import refuse_own_file
from mmedeval.text import markdown, printable
from mmedeval.trend import Trend
from mmedeval.verdict_tables import Grid

HEADS: dict[Answer, str] = {"holds": "holds", "fails": "does not hold", "cannot tell": "cannot tell"}
MOST_ITEMS = 200
# Nothing in these is markup within a table's cell, and escapes would only hide them.
_FIGURES = re.compile(r"[-+–→<. \d]*(?: to [-+.\d]*)?")


def write(text: str, file: Path, option: str, *, add: bool = False) -> None:
    """Writes a file that an option names, or adds to it.

    Raises `StoreError` where that cannot be done, `UsageError` where a run's own file would be lost.
    """
    refuse_own_file(file, option)
    try:
        with file.open("a" if add else "w", encoding="utf-8") as handle:
            handle.write(text)
    except OSError as error:
        raise StoreError(f"cannot write {file}: {error.strerror or error}; choose another file with {option}") from error


# --- Markdown ---


def comparison_markdown(comparison: Comparison, *, items: bool = False) -> str:
    parts = [f"## {markdown(comparison.new)} compared with {markdown(comparison.base)}"]
    parts += [f"**Not comparable, and forced:** {markdown(difference)}" for difference in comparison.forced]
    parts += map(_table, verdict_tables.comparison_grids(comparison))
    parts += [markdown(note) for note in verdict_tables.comparison_notes(comparison)]
    if items:
        parts.append(
            _table(
                Grid(
                    title="items gained and lost",
                    headings=("item", "change", "base", "new", "right", "question"),
                    rows=tuple(
                        (f"{item.task}/{item.id}", item.change, item.base, item.new, item.answer or "", item.question or "")
                        for item in comparison.items[:MOST_ITEMS]
                    ),
                ),
                left=6,
            )
        )
        if len(comparison.items) > MOST_ITEMS:
            parts.append(f"{MOST_ITEMS} of {len(comparison.items)} items are shown; --json has all of them")
    return "\n\n".join(parts) + "\n"


def verdict_markdown(verdict: Verdict) -> str:
    parts = [f"## Gate: {HEADS[verdict.answer]}", f"**{markdown(verdict.sentence)}**"]
    parts += map(_table, verdict_tables.verdict_grids(verdict))
    parts += [markdown(note) for note in verdict_tables.verdict_notes(verdict)]
    return "\n\n".join(parts) + "\n"


def trend_markdown(trend: Trend) -> str:
    parts = ["## Trend", *map(_table, verdict_tables.trend_grids(trend))]
    parts += [markdown(note) for note in verdict_tables.trend_notes(trend)]
    return "\n\n".join(parts) + "\n"


def _table(grid: Grid, left: int = 1) -> str:
    lines = [_line(grid.headings), _line([":---"] * left + ["---:"] * (len(grid.headings) - left), escaped=True)]
    for number, row in enumerate(grid.rows):
        cells = [cell if _FIGURES.fullmatch(cell) else markdown(cell) for cell in row]
        lines.append(_line([f"**{cell}**" if cell else "" for cell in cells] if number in grid.strong else cells, escaped=True))
    return "\n".join([*([f"{markdown(grid.title)}\n"] if grid.title else []), *lines])


def _line(cells: Sequence[str], *, escaped: bool = False) -> str:
    return f"| {' | '.join(cells if escaped else [markdown(cell) for cell in cells])} |"


# --- JUnit ---


def junit(verdict: Verdict) -> str:
    """JUnit XML: a test case for each task, average and least value. What was not judged is skipped, not passed.

    "cannot tell" is an error there, as it is neither a pass nor a failure. Source: the schema that Jenkins and GitLab read.
    """
    cases = [_drop_case(check, verdict) for check in verdict.drops] + [_minimum_case(check) for check in verdict.minimums]
    answers = [check.answer for check in verdict.drops] + [check.answer for check in verdict.minimums]
    counts = (
        f'tests="{len(cases)}" failures="{answers.count("fails")}" errors="{answers.count("cannot tell")}" '
        f'skipped="{answers.count(None)}" time="0"'
    )
    name = _attribute(f"mmedeval gate: {verdict.run}")
    suite = f"<testsuite name={name} {counts}>\n{''.join(cases)}<system-out>{_text(verdict.sentence)}</system-out>\n</testsuite>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites {counts}>\n{suite}\n</testsuites>\n'


def _drop_case(check: DropCheck, verdict: Verdict) -> str:
    about = told_drop(check, verdict.rules)
    return _case(check.group or check.task, f"{check.task} [{check.language}] drop", check.answer, about)


def _minimum_case(check: MinimumCheck) -> str:
    about = told_minimum(check)
    return _case(
        check.group or check.task, f"{check.task} [{check.language}] {check.metric} at least {check.least:g}", check.answer, about
    )


def _case(group: str, name: str, answer: Answer | None, about: str) -> str:
    inside = {
        "holds": "",
        "fails": f'<failure type="drop" message={_attribute(about)}/>',
        "cannot tell": f'<error type="cannot tell" message={_attribute(about)}/>',
        None: '<skipped message="shown, not judged; --per-language judges every language"/>',
    }[answer]
    out = f"<system-out>{_text(about)}</system-out>"
    return f'<testcase classname={_attribute(f"mmedeval.{group}")} name={_attribute(name)} time="0">{inside}{out}</testcase>\n'


def _attribute(text: str) -> str:
    # XML has no way to write control characters, escaped or not; an attribute loses line ends and tabs.
    return quoteattr(printable(" ".join(text.split())))


def _text(text: str) -> str:
    return escape(printable(text))


# --- GitHub ---


def github_annotations(verdict: Verdict) -> list[str]:
    """Workflow commands that GitHub shows beside a change: an error for each row that fails, a warning where none can tell."""
    kinds: dict[Answer, str] = {"fails": "error", "cannot tell": "warning"}
    found = [
        _annotation(
            kinds[check.answer], f"{check.task} {points(check.base)} to {points(check.new)}", told_drop(check, verdict.rules)
        )
        for check in verdict.drops
        if check.answer in kinds
    ]
    found += [
        _annotation(kinds[check.answer], f"{check.metric} of {check.task}", told_minimum(check))
        for check in verdict.minimums
        if check.answer in kinds
    ]
    return found or [_annotation("notice", "mmedeval gate", verdict.sentence)]


def _annotation(kind: str, title: str, message: str) -> str:
    """A line `::kind title=...::message`. Source: "Workflow commands for GitHub Actions" and the escapes of its toolkit."""
    value = _github(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={value}::{_github(message)}"


def _github(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
