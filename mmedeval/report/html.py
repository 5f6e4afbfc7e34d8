"""Finished runs as one page that needs nothing beside itself."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

from mmedeval import __version__
from mmedeval.aggregate import AVERAGE
from mmedeval.determinism import sentence
from mmedeval.published import GROUP, SOURCE, Published, published
from mmedeval.report import charts, data
from mmedeval.report.samples import MOST_CHARACTERS, Packed, pack_samples
from mmedeval.runs import StoredRun
from mmedeval.specs import LANGUAGES
from mmedeval.text import printable, to_json
from mmedeval.types import Aggregate

# They have sections of their own.
NOT_RATIONALE = frozenset({"accuracy", "accuracy_strict", "accuracy_per_byte", "accuracy_per_char"})
MARKS: Mapping[str, str] = {
    "o": "M0-4.6a4.6 4.6 0 1 1 0 9.2a4.6 4.6 0 1 1 0-9.2z",
    "s": "M-4-4H4V4H-4z",
    "D": "M0-5.4L5.4 0L0 5.4L-5.4 0z",
    "^": "M0-5L5 4.5H-5z",
    "v": "M0 5L5-4.5H-5z",
    "P": "M-1.8-5h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2v-3.6h3.2z",
    "X": "M-5-2.6L-2.6-5L0-2.4L2.6-5L5-2.6L2.4 0L5 2.6L2.6 5L0 2.4L-2.6 5L-5 2.6L-2.4 0z",
    "*": "M0-5.6L1.5-1.8L5.4-1.7L2.3.8L3.4 4.6L0 2.4L-3.4 4.6L-2.3.8L-5.4-1.7L-1.5-1.8z",
}


def make_page(runs: Sequence[StoredRun], *, samples: bool = True, most_characters: int = MOST_CHARACTERS) -> str:
    """The whole page. Without `samples` it has no browser of them, and is small."""
    with ThreadPoolExecutor(1) as pool:
        # While samples are packed, charts are drawn.
        packing = pool.submit(pack_samples, runs, most_characters) if samples else None
        sections = _figures(runs)
        packed = None if packing is None else packing.result()
    sections.append(("samples", "Samples", "" if packed is None else _browser(runs, packed)))
    sections = [each for each in sections if each[2]]
    title = f"Evaluation of {runs[0].name}" if len(runs) == 1 else f"Evaluation of {len(runs)} runs"
    body = f"<h1>{_esc(title)}</h1>{_notes(data.notes(runs))}" + "".join(
        f'<section class="card" id="{key}" aria-labelledby="{key}-heading"><h2 id="{key}-heading">{heading}</h2>{content}</section>'
        for key, heading, content in sections
    )
    parts = ""
    if packed is not None:
        parts = f'<script type="application/json" id="about">{_data(_about(runs))}</script>' + "".join(
            f'<script type="application/octet-stream" id="part-{number}">{part}</script>'
            for number, part in enumerate(packed.parts)
        )
    style, script = (_part(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; base-uri 'none'; form-action 'none'; "
        "connect-src 'none'; frame-src 'none'; object-src 'none'"
    )
    return _filled(
        _part("page.html"),
        {
            "POLICY": policy,
            "TITLE": _esc(title),
            "STYLE": style,
            "LINKS": "".join(f'<a href="#{key}">{heading}</a> ' for key, heading, _ in sections),
            "BODY": body,
            "FOOT": f"Made by mmedeval {_esc(__version__)}. Intervals hold 95 %.",
            "DATA": parts,
            "SCRIPT": script,
        },
    )


def _figures(runs: Sequence[StoredRun]) -> list[tuple[str, str, str]]:
    """Names, headings and contents of the sections; what has nothing to show is empty."""
    return [
        ("runs", "Runs", _runs(runs)),
        ("accuracy", "Accuracy", _accuracy(runs)),
        ("rationales", "Rationales", _rationales(runs)),
        ("classes", "Kinds of questions", _classes(runs)),
        ("letters", "Letters", _letters(runs)),
        ("orders", "Order of options", _orders(runs)),
        ("calibration", "Calibration", _calibration(runs)),
        ("agreement", "Agreement", _agreement(runs)),
        ("cost", "Unread, failed, cost", _cost(runs)),
        ("reproduce", "How it was made", _reproduce(runs)),
    ]


def _part(name: str) -> str:
    return resources.files("mmedeval.report").joinpath(name).read_text(encoding="utf-8")


def _filled(template: str, values: Mapping[str, str]) -> str:
    """In one go: what is filled in is not filled in once more."""
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda found: values[found[1]], template)


def _source(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _data(value: object) -> str:
    """JSON in which neither an end of the script element nor the start of a comment can stand."""
    return to_json(value).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _esc(text: object) -> str:
    """Text from anywhere as text of the page, with all that acts on a screen shown as its number."""
    return html.escape(printable(str(text)))


def _about(runs: Sequence[StoredRun]) -> dict[str, Any]:
    labels = {column.task: column.label for group in data.groups(runs) for column in group.columns}
    if len({*labels.values()}) < len(labels):
        labels = {}
    return {"runs": [printable(run.name) for run in runs], "names": {**LANGUAGES, **labels}}


# --- pieces ---


def _mark(number: int) -> str:
    return (
        f'<svg class="mark" viewBox="-6 -6 12 12" aria-hidden="true"><path d="{MARKS[charts.mark(number)]}" '
        f'fill="var(--s{number % len(charts.COLOURS)})"/></svg>'
    )


def _name(runs: Sequence[StoredRun], number: int) -> str:
    return f"{_mark(number)}{_esc(runs[number].name)}"


def _legend(runs: Sequence[StoredRun], numbers: Iterable[int] | None = None) -> str:
    shown = range(len(runs)) if numbers is None else numbers
    return '<ul class="legend">' + "".join(f"<li>{_name(runs, number)}</li>" for number in shown) + "</ul>"


def _table(head: Sequence[str], rows: Iterable[str], caption: str, kind: str = "") -> str:
    """A table that can be scrolled by keyboard, too; cells and captions come as HTML."""
    titles = "".join(each if each.startswith("<th") else f'<th scope="col">{each}</th>' for each in head)
    return (
        f'<div class="scroll" role="group" tabindex="0" aria-label="{re.sub("<[^>]*>", "", caption)}"><table class="{kind}">'
        f"<caption><span>{caption}</span></caption><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _left(title: str) -> str:
    """The head of a column of words."""
    return f'<th scope="col" class="text">{title}</th>'


def _row(head: str, cells: Iterable[str], kind: str = "") -> str:
    """Cells come as HTML; those that bring no `<td` of their own get one."""
    made = "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in cells)
    return f'<tr class="{kind}"><th scope="row">{head}</th>{made}</tr>'


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    listed = "".join(f"<li>{_esc(note)}</li>" for note in notes)
    return f'<ul class="notes">{listed}</ul>'


def _figure(chart: str, legend: str, caption: str) -> str:
    return (
        f'<figure>{legend}<div class="scroll" role="group" tabindex="0" aria-label="Chart">{chart}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _value(figure: Aggregate) -> str:
    factor = data.factor_of(figure)
    if figure.value is None:
        return "–"
    interval = (
        ""
        if figure.low is None or figure.high is None
        else f"<small>{figure.low * factor:.1f}–{figure.high * factor:.1f}</small>"
    )
    return f"{figure.value * factor:.1f}{interval}"


def _share(share: data.Share) -> str:
    if share.value is None or share.interval is None:
        return "–"
    low, high = share.interval
    return f"{_percent(share.value)}<small>{_percent(low)}–{_percent(high)}</small>"


def _heat(value: float | None, kind: str, content: str) -> str:
    """A cell that is the darker the larger its value, from 0 to 1."""
    shade = "" if value is None else f"h{min(9, max(0, int(value * 10)))}"
    return f'<td class="{" ".join(part for part in (shade, kind) if part)}">{content}</td>'


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _items(count: int) -> str:
    return f"{count:,} item{'s' * (count != 1)}"


# --- sections ---


def _runs(runs: Sequence[StoredRun]) -> str:
    rows = []
    for number, run in enumerate(runs):
        counts = run.data["counts"]
        cells = [
            f'<td class="text">{_esc(run.model)}</td>',
            f'<td class="text">{_esc(run.protocol)}, {run.shots}-shot</td>',
            _count(counts["n"]),
            _count(counts["unread"]),
            _count(counts["failed"]),
            f'<td class="text">{_esc(str(run.data.get("finished", "–")).replace("T", " ")[:16])}</td>',
        ]
        rows.append(_row(_name(runs, number), cells))
    return _table(
        ["run", _left("model"), _left("asked by"), "items", "unread", "failed", _left("finished")], rows, "What was evaluated"
    )


def _heads(runs: Sequence[StoredRun], group: data.Group) -> list[str]:
    """Names of columns with how many items were asked."""
    heads = []
    for column in group.columns:
        counts = sorted({figure.n for run in runs for figure in run.aggregates if figure.task == column.task})
        least = f"{_count(counts[0])} to " if len(counts) > 1 else ""
        heads.append(f"{_esc(column.label)}<small>{least}{_items(counts[-1])}</small>")
    return heads


def _metric_table(runs: Sequence[StoredRun], group: data.Group, metric: str, caption: str) -> str:
    rows = []
    for number, run in enumerate(runs):
        figures = data.figures_of(run)
        if not any((metric, column.task) in figures for column in group.columns):
            continue
        asked = data.asked_of(run, group)
        cells = []
        for column in group.columns:
            figure = figures.get((metric, column.task))
            shade = None if figure is None or figure.value is None else figure.value / figure.scale
            content = "–" if figure is None else _value(figure)
            if figure is not None and figure.value is not None and figure.scored < figure.n:
                content += f"<small>{_items(figure.scored)}</small>"
            if column.language == AVERAGE and figure is not None and asked is not None:
                content += f"<small>of {asked} tasks</small>"
            cells.append(_heat(shade, "avg" if column.language == AVERAGE else "", content))
        rows.append(_row(_name(runs, number), cells))
    theirs = published(metric) if group.name == GROUP else ()
    for number, each in enumerate(theirs):
        cells = [
            _heat(
                None if value is None else value / 100,
                "avg" if column.language == AVERAGE else "",
                "–" if value is None else f"{value:.1f}",
            )
            for column, value in zip(group.columns, data.published_values(each, group), strict=True)
        ]
        rows.append(_row(_published_name(each), cells, f"published{' first' * (number == 0)}"))
    return _table(["model", *_heads(runs, group)], rows, caption, "heat") if rows else ""


def _published_name(each: Published) -> str:
    return f"{_esc(each.name)}<small>published, {_esc(each.setting)}</small>"


def _accuracy(runs: Sequence[StoredRun]) -> str:
    parts = []
    for place, group in enumerate(data.groups(runs)):
        rows = [charts.Row(name=run.name, figures=data.whole_figures(run, group, "accuracy")) for run in runs]
        if not any(figure is not None for row in rows for figure in row.figures):
            continue
        parts.append(f"<h3>{_esc(group.name)}</h3>")
        theirs = published("accuracy") if group.name == GROUP else ()
        beside = [data.published_values(each, group) for each in theirs]
        background = {
            column.task: [value for values in beside if (value := values[number]) is not None]
            for number, column in enumerate(group.columns)
        }
        if any(figure is not None and figure.value is not None for row in rows for figure in row.figures):
            caption = "Accuracy with 95 % intervals."
            if any(charts.chances(rows, number) for number in range(len(group.columns))):
                caption += " Dashed: what guessing gives."
            if theirs:
                caption += f" Grey lines: published results, {_esc(SOURCE)}."
            key = f"accuracy-{place}"
            chart = charts.dots(
                group.columns,
                rows,
                background,
                f"Accuracy per language of {len(runs)} runs; the figures are in the table below",
                key,
            )
            parts.append(_figure(chart, _legend(runs), caption))
        about = "Accuracy in per cent, of the answers that were read, with 95 % intervals; the stronger the colour, the higher."
        if theirs:
            about += f" Published: {_esc(SOURCE)}, on the whole test set, in the setting named."
        parts.append(_metric_table(runs, group, "accuracy", about))
        if any(figure.unread or figure.failed for run in runs for figure in run.aggregates):
            strict = "Accuracy in per cent, of all items: unread and failed ones count as wrong."
            parts.append(_metric_table(runs, group, "accuracy_strict", strict))
        for metric in ("accuracy_per_byte", "accuracy_per_char"):
            unit = metric.rpartition("_")[2]
            text = f"Accuracy in per cent of <code>cloze</code> by loglikelihood per {unit}."
            parts.append(_metric_table(runs, group, metric, text))
    return "".join(parts)


def _rationales(runs: Sequence[StoredRun]) -> str:
    parts = []
    for group in data.groups(runs):
        tasks = {column.task for column in group.columns}
        names = [
            metric
            for metric in data.metrics(runs)
            if metric not in NOT_RATIONALE
            and any(
                figure.metric == metric and figure.task in tasks and figure.value is not None
                for run in runs
                for figure in run.aggregates
            )
        ]
        for metric in names:
            caption = f"<b>{_esc(metric)}</b>, {_esc(group.name)}, with 95 % intervals"
            if group.name == GROUP and published(metric):
                caption += f"; published: {_esc(SOURCE)}"
            parts.append(_metric_table(runs, group, metric, caption))
    return "".join(parts)


def _slice_table(runs: Sequence[StoredRun], classes: Sequence[data.Slice], caption: str) -> str:
    head = ["run", *(f"{_esc(each.label)}<small>{_items(each.items)}</small>" for each in classes)]
    rows = []
    for number in range(len(runs)):
        cells = [_heat(each.shares[number].value, "", _share(each.shares[number])) for each in classes]
        rows.append(_row(_name(runs, number), cells))
    return _table(head, rows, caption, "heat")


def _classes(runs: Sequence[StoredRun]) -> str:
    ways = [
        ("number of options", "By number of options", data.by_options(runs)),
        ("number of right letters", "By number of right letters", data.by_right_letters(runs)),
        ("length of the question", "By length of the question, in quarters of each task", data.by_length(runs)),
    ]
    # One class alone says nothing that the accuracy does not say.
    ways = [(heading, title, classes) for heading, title, classes in ways if len(classes) > 1]
    if not any(result.right is not None for run in runs for result in run.results):
        return ""
    parts = []
    if ways:
        named = ", ".join(heading for heading, _, _ in ways)
        chart = charts.slices([(heading, classes) for heading, _, classes in ways], f"Accuracy by {named}")
        parts = [
            "<p>Accuracy of the answers that were read, over all tasks together: languages with many items weigh more here.</p>",
            _figure(chart, _legend(runs), "Accuracy with 95 % intervals; the figures are in the tables below."),
            *(_slice_table(runs, classes, f"{title}: accuracy in per cent") for _, title, classes in ways),
        ]
    languages = {column.task: column.language for group in data.groups(runs) for column in group.columns}
    for task, classes in data.topics(runs).items():
        tongue = f' lang="{_esc(languages[task])}"'
        most = classes[: data.MOST_TOPICS]
        rows = [
            _row(
                f"<span{tongue}>{_esc(each.label)}</span><small>{_items(each.items)}</small>",
                [_heat(share.value, "", _share(share)) for share in each.shares],
            )
            for each in most
        ]
        left = len(classes) - len(most)
        more = f"; {left} smaller topics are left out" if left else ""
        head = ["topic", *(_name(runs, number) for number in range(len(runs)))]
        table = _table(head, rows, f"Accuracy in per cent{more}", "heat")
        parts.append(f"<details><summary>By topic, {_esc(task)}</summary>{table}</details>")
    return "".join(parts)


def _letters(runs: Sequence[StoredRun]) -> str:
    found = [data.letters(run) for run in runs]
    names = sorted({each.letter for letters in found for each in letters})
    if not names:
        return ""
    rows = []
    for number, letters in enumerate(found):
        by_letter = {each.letter: each for each in letters}
        cells = []
        for name in names:
            each = by_letter.get(name)
            if each is None or each.chosen.value is None or each.right.value is None or each.chosen.interval is None:
                cells.append("–")
                continue
            low, high = each.chosen.interval
            beyond = not low <= each.right.value <= high
            text = f"{_percent(each.chosen.value)} / {_percent(each.right.value)}<small>{_percent(low)}–{_percent(high)}</small>"
            cells.append(f"<td><b>{text}</b></td>" if beyond else text)
        rows.append(_row(_name(runs, number), cells))
    chart = charts.letter_bias(found, "How much more often than right each letter was chosen; the figures are in the table below")
    return (
        "<p>A model that prefers a letter chooses it more often than it is right. Counted are the read items that offer the letter; "
        "an answer of several letters counts for each of them.</p>"
        + _figure(
            chart, _legend(runs), "Points by which a letter was chosen more (above) or less often (below) than it is right."
        )
        + _table(
            ["run", *map(_esc, names)],
            rows,
            "Per cent of items in which the letter was chosen / is right; the 95 % interval is that of the first, bold where the second "
            "lies outside",
        )
    )


def _orders(runs: Sequence[StoredRun]) -> str:
    """What other orders of the options, and other ways of asking, change."""
    parts = []
    names = {"mean_over_orders": "mean", "right_in_all_orders": "right in all", "same_answer": "same answer"}
    for number, run in enumerate(runs):
        figures = {(figure.metric, figure.task): figure for figure in data.orders(run)}
        if not figures:
            continue
        given = data.figures_of(run)
        rows = []
        for column in (column for group in data.groups([run]) for column in group.columns):
            found = [given.get(("accuracy", column.task)), *(figures.get((metric, column.task)) for metric in names)]
            if any(found[1:]):
                rows.append(_row(_esc(column.label), ["–" if each is None else _value(each) for each in found]))
        wanted = run.data["rotations"].get("orders")
        orders = "all orders" if wanted == "all" else f"up to {_esc(wanted)} orders"
        caption = f"{_name(runs, number)}: every item under {orders} of its options, in per cent"
        parts.append(_table(["language", "given order", *names.values()], rows, caption))
        position = [_position(row) for row in run.data["rotations"]["position"]]
        if position:
            letters = sorted({letter for row in run.data["rotations"]["position"] for letter in row["letters"]})
            rows = [_row(head, [by_letter.get(letter, "–") for letter in letters]) for head, by_letter in position]
            text = f"{_name(runs, number)}: per cent of choices by letter, over all orders; a model that reads the texts alone has the same for all"
            parts.append(_table(["task, options", *map(_esc, letters)], rows, text))
    for of, spread in data.formulations(runs):
        rows = [
            _row(
                _esc(way["protocol"]),
                [f"{_percent(way['value'])}<small>{_percent(way['low'])}–{_percent(way['high'])}</small>"],
            )
            for way in spread["formulations"]
        ]
        caption = (
            f"One model, asked in several ways ({_esc(', '.join(of))}): accuracy in per cent over the {_count(spread['read'])} items that "
            f"were read in each; the spread is {100 * spread['spread']:.1f} points"
        )
        parts.append(_table(["asked by", "accuracy"], rows, caption))
    return "".join(parts)


def _position(row: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The head of a row, and by letter its share of all choices; bold where the interval excludes an even share."""
    cells = {}
    for letter, about in row["letters"].items():
        text = f"{_percent(about['share'])}<small>{_percent(about['low'])}–{_percent(about['high'])}</small>"
        even = about["low"] <= row["expected"] <= about["high"]
        cells[letter] = text if even else f"<b>{text}</b>"
    return f"{_esc(row['task'])}, {row['options']}<small>{_items(row['items'])}</small>", cells


def _calibration(runs: Sequence[StoredRun]) -> str:
    found = [(number, each) for number, run in enumerate(runs) if (each := data.calibration(run)) is not None]
    if not found:
        return ""
    rows = [
        _row(
            _name(runs, number),
            [_count(each.items), _percent(each.confidence), _percent(each.accuracy), f"{100 * each.error:.1f}"],
        )
        for number, each in found
    ]
    bins = "".join(
        _table(
            ["confidence", "items", "mean confidence", "accuracy"],
            [
                _row(
                    f"{100 * part.low:.0f} to {100 * part.high:.0f} %",
                    [_count(part.right.n), _percent(part.confidence), _share(part.right)],
                )
                for part in each.bins
            ],
            f"Bins of {_esc(runs[number].name)}",
        )
        for number, each in found
    )
    chart = charts.reliability(found, "Accuracy against confidence; the figures are in the tables below")
    return (
        "<p>For the protocol <code>letter</code>: the confidence in an answer is its probability when the answers that were scored are "
        "all there is, exp(l<sub>i</sub>) / Σ<sub>j</sub> exp(l<sub>j</sub>) over their loglikelihoods l. Where several letters may be "
        "right, an answer is a set of letters. The expected calibration error is the mean over ten bins of equal width, weighted by "
        "their items, of the distance between accuracy and mean confidence: Σ<sub>b</sub> n<sub>b</sub>/n · |accuracy<sub>b</sub> − "
        "confidence<sub>b</sub>| (Guo, Pleiss, Sun and Weinberger, “On Calibration of Modern Neural Networks”, ICML 2017).</p>"
        + _figure(chart, _legend(runs, [number for number, _ in found]), "Dashed: as sure as right. Below it: too sure.")
        + _table(["run", "items", "mean confidence", "accuracy", "calibration error"], rows, "In per cent and points")
        + f"<details><summary>The bins</summary>{bins}</details>"
    )


def _agreement(runs: Sequence[StoredRun]) -> str:
    parts = []
    found = data.agreement(runs)
    if found is not None:
        share = data.Share(n=found.asked, count=found.alike)
        parts.append(
            f"<p>Of {_count(found.asked)} questions that all {len(runs)} runs were asked, {_count(found.all_right)} were answered rightly "
            f"by all, {_count(found.none_right)} by none; {_count(found.alike)} ({_percent(share.value)} %) got the same answer from "
            "all.</p>"
        )
    rows = []
    for number, run in enumerate(runs):
        for entry in run.data["consistency"]:
            alike, right = entry["alike"], entry["all_right"]
            cells = [
                str(entry["languages"]),
                _count(entry["read"]),
                *(_share(data.Share(n=entry["read"], count=each["count"])) for each in (alike, right)),
            ]
            rows.append(_row(f"{_name(runs, number)}<small>{_esc(entry['group'])}</small>", cells))
    if rows:
        parts.append(
            _table(
                ["run", "languages", "questions", "answered alike", "right in all"],
                rows,
                "The same questions across languages, in per cent",
            )
        )
    return "".join(parts)


def _cost(runs: Sequence[StoredRun]) -> str:
    rows, told = [], []
    paid = any("cost" in data.total(run.data["usage"]) for run in runs)
    for number, run in enumerate(runs):
        counts, used = run.data["counts"], data.total(run.data["usage"])
        n = counts["n"]
        cells = [
            _count(n),
            *(
                f"{_count(counts[name])}<small>{_percent(counts[name] / n if n else None)} %</small>"
                for name in ("unread", "failed")
            ),
            *(_count(counts[name]) for name in ("unscored", "truncated", "shots_dropped")),
            *(_count(used.get(name, 0)) for name in ("tokens_in", "tokens_out")),
            f"{used.get('seconds', 0):,.1f}",
            f"{1000 * used.get('seconds', 0) / n:,.1f}" if n else "–",
            *([f"{used['cost']:,.4f}" if "cost" in used else "–"] if paid else []),
        ]
        rows.append(_row(_name(runs, number), cells))
        for kind, count in (counts.get("failures") or {}).items():
            told.append(f"Failures of {run.name}: {kind} {count:,}")
        if run.data.get("rotations"):
            used = data.total(run.data["rotations"]["usage"])
            cost = f", {used['cost']:,.4f} US dollars" if "cost" in used else ""
            told.append(
                f"The other orders of {run.name} took {used.get('seconds', 0):,.1f} s more, {_count(used.get('tokens_in', 0))} tokens "
                f"read, {_count(used.get('tokens_out', 0))} written{cost}"
            )
    head = [
        "run",
        "items",
        "unread",
        "failed",
        "not scored",
        "cut short",
        "shots dropped",
        "tokens read",
        "tokens written",
        "seconds",
    ]
    table = _table([*head, "ms per item", *(["US dollars"] if paid else [])], rows, "Counts, tokens and time of computation")
    return table + "".join(f"<p>{_esc(each)}</p>" for each in told)


def _reproduce(runs: Sequence[StoredRun]) -> str:
    return "".join(_recipe(run, _name(runs, number)) for number, run in enumerate(runs))


def _recipe(run: StoredRun, name: str) -> str:
    record = run.data
    environment, runtime = record.get("environment") or {}, record.get("runtime") or {}
    packages = ", ".join(f"{package} {version}" for package, version in (environment.get("packages") or {}).items())
    protocol = record["protocol"]
    about: Mapping[str, object] = {
        "command": data.command_line(run),
        "run": record.get("fingerprint", "–"),
        "model": f"{run.model}, {record['model'].get('fingerprint', 'no digest')}",
        "protocol": f"{run.protocol} ({protocol.get('why') or 'asked for'}), {run.shots}-shot",
        "sampling": json.dumps(record.get("sampling")) if record.get("sampling") else "none: loglikelihoods",
        "device": ", ".join(f"{key} {value}" for key, value in runtime.items() if isinstance(value, str | int | float)) or "–",
        "time": f"{record.get('started', '–')} to {record.get('finished', '–')}",
        "software": f"mmedeval {record.get('mmedeval', '–')}, Python {environment.get('python', '–')}, {packages}",
        "machine": ", ".join(str(environment[key]) for key in ("platform", "cpu") if environment.get(key)) or "–",
        "git commit": environment.get("git_commit") or "–",
    }
    if record["determinism"]:
        about = {**about, "computed again alone": sentence(record["determinism"])}
    listed = "".join(f"<dt>{key}</dt><dd>{_esc(value)}</dd>" for key, value in about.items())
    rows = [
        _row(
            _esc(task),
            [
                f'<td class="text">{_esc(each.get(key, "–"))}</td>'
                for key in ("source", "data_digest", "prompts_digest", "prompt_template_digest")
            ],
        )
        for task, each in record["tasks"].items()
    ]
    tasks = _table(["task", *map(_left, ("source", "digest of the data", "of all prompts", "of the template"))], rows, "Tasks")
    lean = {key: value for key, value in record.items() if key != "results"}
    lean["tasks"] = {
        task: {key: value for key, value in each.items() if key != "chances"} for task, each in record["tasks"].items()
    }
    whole = _esc(json.dumps(lean, ensure_ascii=False, indent=1))
    return (
        f"<details><summary>{name}</summary><dl>{listed}</dl>{_notes([str(each) for each in record['warnings']])}{tasks}"
        f'<details class="raw"><summary>The record, without figures</summary><pre>{whole}</pre></details></details>'
    )


def _browser(runs: Sequence[StoredRun], packed: Packed) -> str:
    cut = ""
    if packed.longest is not None:
        cut = _notes(
            [
                f"The models wrote more than a browser can handle with ease: {_count(packed.shortened)} texts are shown without their middle "
                f"({_count(packed.longest)} characters of each); mmedeval show tells all of them"
            ]
        )
    many = '<option value="d">the runs disagree</option>' if len(runs) > 1 else ""
    verdicts = "".join(
        f'<option value="{value}">{name}</option>'
        for value, name in (("r", "right"), ("w", "wrong"), ("u", "unread"), ("f", "failed"), ("x", "not scored"))
    )
    options = "".join(f'<option value="{number}">{_esc(run.name)}</option>' for number, run in enumerate(runs))
    return (
        f"{cut}<noscript><p>To look at samples this page needs JavaScript; all else is there without.</p></noscript>"
        '<form id="form" class="find" role="search" aria-label="Samples">'
        '<label class="grow">Words in questions, references and outputs<input id="find" type="search" autocomplete="off" disabled></label>'
        '<label>Language<select id="in" disabled><option value="">all</option></select></label>'
        f'<label>Run<select id="run" disabled><option value="">{"any" if len(runs) > 1 else "this one"}</option>{options}</select></label>'
        f'<label>Answer<select id="verdict" disabled><option value="">any</option>{verdicts}{many}</select></label></form>'
        '<p class="soft"><span id="count" role="status">Reading the questions …</span><span id="reading"></span> '
        '<span class="keys">· keys: <kbd>/</kbd> search, <kbd>j</kbd> <kbd>k</kbd> next and previous · quote “words that belong '
        "together”</span></p>"
        '<div class="browser"><div id="results" class="results" role="region" aria-label="Found questions" tabindex="0">'
        '<button id="earlier" type="button" hidden>Show earlier</button><ol id="list"></ol>'
        '<button id="more" type="button" hidden>Show more</button></div><div id="detail"></div></div>'
    )
