"""Comparisons, verdicts and trends as tables of texts, for the terminal and for Markdown alike (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmedeval.aggregate import AVERAGE
from mmedeval.compare import Comparison, Difference, Row
from mmedeval.gate import Verdict, amount, p_value, points
from mmedeval.specs import LANGUAGES
from mmedeval.trend import Series, Trend

NONE = "–"
STRICT = "an item without an answer counts as wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table: the first column names its rows, the others hold figures. `strong` rows sum up those above them."""

    title: str | None
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()


def name_of(task: str, language: str, languages: Sequence[str]) -> str:
    """What a row is called: its language, or its task where a language has several."""
    if language == AVERAGE:
        return "average" if languages.count(AVERAGE) < 2 else f"average of {task}"
    return task if languages.count(language) > 1 else LANGUAGES.get(language, language)


def signed(share: float, factor: float = 100) -> str:
    """In points, with its sign; what rounds to nothing has none."""
    text = f"{factor * share:+.1f}"
    return text[1:] if text in ("+0.0", "-0.0") else text


def _before_and_after(counts: tuple[int, int]) -> str:
    return f"{counts[0]} → {counts[1]}"


def _strong(flags: Iterable[bool]) -> frozenset[int]:
    return frozenset(i for i, flag in enumerate(flags) if flag)


# --- compare ---


def comparison_grids(comparison: Comparison) -> list[Grid]:
    languages = [row.language for row in comparison.rows]
    grids = []
    for group in dict.fromkeys(row.group or row.task for row in comparison.rows):
        rows = [row for row in comparison.rows if (row.group or row.task) == group]
        grids.append(_changes_grid(f"{group}: accuracy in per cent; {STRICT}", rows, [row.all for row in rows], languages))
        if any(row.read != row.all for row in rows):
            grids.append(_changes_grid("the items that were read in both", rows, [row.read for row in rows], languages))
        grids.append(_items_grid(rows, languages))
    if comparison.metrics:
        grids.append(_metrics_grid(comparison))
    return grids


def _changes_grid(title: str, rows: Sequence[Row], cells: Sequence[Difference | None], languages: Sequence[str]) -> Grid:
    return Grid(
        title=title,
        headings=("language", "n", "base", "new", "change", "95 % interval", "p", "Holm"),
        rows=tuple(
            (name_of(row.task, row.language, languages), *(_change(each) if each else [NONE] * 7))
            for row, each in zip(rows, cells, strict=True)
        ),
        strong=_strong(row.average for row in rows),
    )


def _change(difference: Difference) -> list[str]:
    return [
        str(difference.n),
        points(difference.base),
        points(difference.new),
        signed(difference.value),
        f"{signed(difference.low)} to {signed(difference.high)}",
        p_value(difference.p),
        NONE if difference.p_holm is None else p_value(difference.p_holm),
    ]


def _items_grid(rows: Sequence[Row], languages: Sequence[str]) -> Grid:
    unread, failed = any(any(row.unread) for row in rows), any(any(row.failed) for row in rows)
    return Grid(
        title=None,
        headings=(
            *("language", "gained", "lost", "effect", "shows"),
            *(["unread"] if unread else []),
            *(["failed"] if failed else []),
            *(["read in one alone"] if unread or failed else []),
        ),
        rows=tuple(
            (
                name_of(row.task, row.language, languages),
                str(row.all.gained),
                str(row.all.lost),
                NONE if row.all.effect is None else f"{row.all.effect:+.2f}",
                NONE if row.all.smallest_drop is None else points(row.all.smallest_drop),
                *([_before_and_after(row.unread)] if unread else []),
                *([_before_and_after(row.failed)] if failed else []),
                *([_before_and_after(row.read_alone)] if unread or failed else []),
            )
            for row in rows
        ),
        strong=_strong(row.average for row in rows),
    )


def _metrics_grid(comparison: Comparison) -> Grid:
    languages = [row.language for row in comparison.rows]
    rows = []
    for row in comparison.metrics:
        factor = 100 if row.scale == 1 else 1
        interval = NONE if row.low is None or row.high is None else f"{signed(row.low, factor)} to {signed(row.high, factor)}"
        values = (f"{row.base * factor:.1f}", f"{row.new * factor:.1f}", signed(row.value, factor), interval)
        rows.append((row.metric, name_of(row.task, row.language, languages), str(row.n), *values))
    return Grid(
        title="other metrics, over the items that both runs have a score for",
        headings=("metric", "language", "n", "base", "new", "change", "95 % interval"),
        rows=tuple(rows),
        strong=_strong(row.language == AVERAGE for row in comparison.metrics),
    )


def comparison_notes(comparison: Comparison) -> list[str]:
    """What must be known to read the tables."""
    return [
        "gained, lost: items that one run alone has right. effect: Cohen's g, the share gained of these less a half. shows: the "
        "smallest drop in points that so many items show in 80 of 100 cases.",
        *comparison.notes,
    ]


# --- gate ---


def verdict_grids(verdict: Verdict) -> list[Grid]:
    grids = []
    if verdict.drops:
        languages = [check.language for check in verdict.drops]
        corrected = sum(check.answer is not None for check in verdict.drops) > 1
        grids.append(
            Grid(
                title=f"accuracy in per cent; {STRICT}",
                headings=(
                    "language",
                    "n",
                    "base",
                    "run",
                    "drop",
                    f"at most ({100 * verdict.rules.confidence:g} %)",
                    "p, Holm" if corrected else "p",
                    "verdict",
                ),
                rows=tuple(
                    (
                        name_of(check.task, check.language, languages),
                        str(check.n),
                        points(check.base),
                        points(check.new),
                        signed(check.drop),
                        signed(check.at_most),
                        p_value(check.p),
                        check.answer or NONE,
                    )
                    for check in verdict.drops
                ),
                strong=_strong(check.language == AVERAGE for check in verdict.drops),
            )
        )
    if verdict.minimums:
        languages = [*{check.task: check.language for check in verdict.minimums}.values()]
        rows = []
        for check in verdict.minimums:
            factor = 100 if check.scale == 1 else 1
            cells = [NONE if value is None else f"{value * factor:.1f}" for value in (check.value, check.low, check.high)]
            interval = NONE if check.low is None else f"{cells[1]} – {cells[2]}"
            rows.append(
                (
                    check.metric,
                    name_of(check.task, check.language, languages),
                    cells[0],
                    interval,
                    f"{check.least * factor:g}",
                    check.answer,
                )
            )
        grids.append(
            Grid(
                title="least values",
                headings=("metric", "language", "value", "95 % interval", "at least", "verdict"),
                rows=tuple(rows),
                strong=_strong(check.language == AVERAGE for check in verdict.minimums),
            )
        )
    return grids


def verdict_notes(verdict: Verdict) -> list[str]:
    """The rule, in words."""
    rules = verdict.rules
    if not verdict.drops:
        return []
    judged = sum(check.answer is not None for check in verdict.drops)
    several = f", corrected (Holm) for {judged} rows" if judged > 1 else ""
    shown = "; rows without a verdict are shown and not judged (--per-language)" if judged < len(verdict.drops) else ""
    return [
        f"fails: a drop of more than {amount(rules.max_drop)} with p at most {rules.alpha:g} (one-sided{several}). "
        f"holds: a drop of {amount(rules.detect)} or more is excluded. Neither: too few items to tell{shown}."
    ]


# --- trend ---


def trend_grids(trend: Trend) -> list[Grid]:
    return [_series_grid(series) for series in trend.series]


def _series_grid(series: Series) -> Grid:
    languages = [*series.languages.values()]
    tasks = {task: language for task, language in series.languages.items() if len(languages) > 1 and language != AVERAGE}
    several = len({*tasks.values()}) < len(tasks)
    unanswered = any(point.unread or point.failed for point in series.points)
    return Grid(
        title=f"{series.title}: accuracy in per cent; {STRICT}",
        headings=(
            "checkpoint" if series.points[0].step is None else "step",
            *("accuracy", "95 % interval", "drop", "p", ""),
            *(task if several else language for task, language in tasks.items()),
            *(["no answer"] if unanswered else []),
        ),
        rows=tuple(
            (
                point.name if point.step is None else str(point.step),
                points(point.value),
                NONE if point.low is None or point.high is None else f"{points(point.low)} – {points(point.high)}",
                NONE if point.drop is None else signed(point.drop),
                NONE if point.p is None else p_value(point.p),
                "best" if i == series.best else "worse" if i == series.first_drop else "",
                *(points(point.by_task[task]) for task in tasks),
                *([str(point.unread + point.failed)] if unanswered else []),
            )
            for i, point in enumerate(series.points)
        ),
        strong=frozenset(),
    )


def trend_notes(trend: Trend) -> list[str]:
    notes = []
    for series in trend.series:
        title = f"{series.title}: " if len(trend.series) > 1 else ""
        best = series.points[series.best]
        notes.append(f"{title}best: {_called(best.name, best.step)}, {points(best.value)}")
        if series.first_drop is None:
            notes.append(f"{title}no checkpoint is shown to be worse than the best before it")
        else:
            point = series.points[series.first_drop]
            before = next(each for each in series.points if each.name == point.best_before)
            notes.append(
                f"{title}first drop: {_called(point.name, point.step)}, {points(point.drop or 0.0)} points below "
                f"{_called(before.name, before.step)} (p {p_value(point.p or 0.0)})"
            )
    order = "the steps in their names" if trend.order == "step" else "the order given; their names tell no step for all"
    notes.append(f"ordered by {order}")
    notes.append(
        f"drop: below the best before; p: one-sided, for {trend.pairs} pairs of checkpoints: the best is chosen by its result"
    )
    return notes


def _called(name: str, step: int | None) -> str:
    return name if step is None else f"step {step}"
