"""The only maker of a rich console or progress bar: tables, samples, progress, diagnosis."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmedeval.aggregate import AVERAGE
from mmedeval.determinism import sentence
from mmedeval.errors import StoreError
from mmedeval.hookspecs import hookimpl
from mmedeval.rotations import EVERY, MEAN, SAME
from mmedeval.sequential import stop_sentence
from mmedeval.specs import LANGUAGES
from mmedeval.store import RECORD
from mmedeval.text import printable
from mmedeval.types import Aggregate, RunPlan, RunRecord, SampleResult, join_letters

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from mmedeval.doctor import Finding

PLAIN_LINE_SECONDS = 15.0
NARROWEST = 76


def make_console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    # Narrower than its columns a table would cut numbers; the terminal may wrap its lines instead.
    console.width = max(console.width, NARROWEST)
    return console


# --- a record ---


def print_record(record: RunRecord, folder: Path, console: Console | None = None) -> None:
    """The table of a run, with everything beside it that a reader must know to trust it.

    Raises `StoreError` where the record lacks something of it, or holds something else: it was edited.
    """
    try:
        _print_record(record, folder, console or make_console())
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{folder / RECORD} is damaged: {type(error).__name__}: {error}; restore it, or run again with another --out"
        ) from error


def _print_record(record: RunRecord, folder: Path, console: Console) -> None:
    data = record.data
    protocol = data["protocol"]
    shots = data["plan"]["shots"]
    heading = f"{data['model']['reference']}  ·  {protocol['used']}, {shots} shot{'' if shots == 1 else 's'}"
    console.print(Text(printable(heading), style="bold"))
    if protocol["requested"] != protocol["used"]:
        console.print(Text(printable(f"protocol {protocol['used']}: {protocol['why']}"), style="dim"))
    if "stopped_early" in data:
        console.print(Text(printable(f"a part of a run, stopped early: {data['stopped_early']}"), style="bold yellow"))
    for title, names in _tables(record):
        print_table(console, _accuracy_table(title, [a for a in record.aggregates if a.task in names], data["usage"]))
        other = [
            a for a in record.aggregates if a.task in names and a.metric not in ("accuracy", "accuracy_strict", "in_language")
        ]
        if other:
            print_table(console, _metric_table(other))
    for line in _notes(record):
        console.print(Text(printable(line)))
    if (tested := data.get("sequential")) and "stopped_early" not in data:
        console.print(Text(printable(stop_sentence(tested)), style="bold"))
    if rotations := data.get("rotations"):
        _print_rotations(console, record, rotations)
    if data["determinism"]:
        console.print(Text(printable(sentence(data["determinism"])), style="dim"))
    if data["process"].get("torn_lines"):
        console.print(Text("the last stored answer had been torn by a kill; it was asked again", style="dim"))
    for warning in data["warnings"]:
        console.print(Text(f"warning: {printable(warning)}", style="yellow"))
    console.print(Text(f"stored in {printable(str(folder))}  (mmedeval show {printable(str(folder))} --wrong)", style="dim"))


def _tables(record: RunRecord) -> list[tuple[str, list[str]]]:
    """One table per group of tasks: its title, and the names of the tasks in it, the group's own (the average) last."""
    tables: dict[str, list[str]] = {}
    for name, about in record.data["tasks"].items():
        tables.setdefault(about["group"] or name, []).append(name)
    return [(title, [*names, title]) for title, names in tables.items()]


def make_table(title: str | None = None) -> Table:
    """Nine columns must fit into a terminal of 80: one space between them and nothing outside."""
    return Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        title=None if title is None else plain(title),
        title_justify="left",
    )


def print_table(console: Console, table: Table) -> None:
    """A table as wide as its contents: the terminal may wrap its lines, where rich would cut numbers and drop columns."""
    width = console.width
    console.width = max(width, console.measure(table, options=console.options.update(max_width=10_000)).maximum)
    console.print(table)
    console.width = width


def _accuracy_table(title: str, aggregates: Sequence[Aggregate], usage: dict[str, Any]) -> Table:
    table = make_table(f"{title}, in per cent")
    paid = any("cost" in used for used in usage.values())
    spoken = {a.task: a.value for a in aggregates if a.metric == "in_language"}
    table.add_column("language", no_wrap=True)
    beside = ["in language"] if spoken else []
    behind = ["USD"] if paid else []
    for name in ["accuracy", "95 % interval", *beside, "chance", "n", "unread", "failed", "tokens", "seconds", *behind]:
        table.add_column(name, justify="right", no_wrap=True)
    names = _row_names(aggregates)
    for aggregate in (a for a in aggregates if a.metric == "accuracy"):
        average = aggregate.language == AVERAGE
        if average:
            table.add_section()
            took = [u for u in (usage.get(a.task) for a in aggregates if a.metric == "accuracy") if u]
        else:
            took = [usage[aggregate.task]]
        tokens, seconds = sum(u["tokens_in"] + u["tokens_out"] for u in took), sum(u["seconds"] for u in took)
        table.add_row(
            plain(names[aggregate.task]),
            _percent(aggregate.value),
            f"{_percent(aggregate.low)} – {_percent(aggregate.high)}" if aggregate.low is not None else "–",
            *([_percent(spoken.get(aggregate.task))] if spoken else []),
            _percent(aggregate.chance),
            str(aggregate.n),
            str(aggregate.unread),
            str(aggregate.failed),
            _short_number(tokens),
            f"{seconds:.1f}" if seconds < 1000 else f"{seconds:.0f}",
            *([f"{sum(u.get('cost', 0.0) for u in took):.2f}"] if paid else []),
            style="bold" if average else None,
        )
    return table


def _metric_table(aggregates: Sequence[Aggregate]) -> Table:
    """The other metrics, a row each, on their own scales, ± half their 95 % intervals; accuracies in per cent."""
    tasks = {a.task: a.language for a in aggregates}
    several = len(set(tasks.values())) < len(tasks)
    table = make_table()
    table.add_column("metric ± 95 %", no_wrap=True)
    for task, language in tasks.items():
        table.add_column(plain(task if several else language), justify="right", no_wrap=True)
    for metric in dict.fromkeys(a.metric for a in aggregates):
        values = {a.task: a for a in aggregates if a.metric == metric}
        cells = []
        for task in tasks:
            a = values.get(task)
            cells.append("–" if a is None else _with_interval(a))
        table.add_row(plain(metric), *cells)
    return table


def _with_interval(figure: Aggregate) -> str:
    """The value with half the width of its 95 % interval."""
    if figure.value is None:
        return "–"
    factor = 100 if figure.scale == 1 else 1
    half = "" if figure.low is None or figure.high is None else f" ±{(figure.high - figure.low) / 2 * factor:.1f}"
    return f"{figure.value * factor:.1f}{half}"


def _print_rotations(console: Console, record: RunRecord, rotations: Mapping[str, Any]) -> None:
    """What asking every item under several orders of its options showed, beside the accuracy of the given order."""
    counts, usage = rotations["counts"], rotations["usage"].values()
    orders = "all orders of its options" if rotations["orders"] == "all" else f"up to {rotations['orders']} orders of its options"
    console.print(plain(f"Every item under {orders}, over items read in each of them; {counts['n']} more answers"))
    figures = [Aggregate(**row) for row in rotations["results"]]
    names = _row_names(figures)
    given = {a.task: a for a in record.aggregates if a.metric == "accuracy"}
    by_task = {(a.task, a.metric): a for a in figures}
    table = make_table()
    table.add_column("language", no_wrap=True)
    for name in ("given", "mean", "right in all", "95 % interval", "same answer", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for task, name in names.items():
        every, average = by_task[task, EVERY], by_task[task, EVERY].language == AVERAGE
        if average:
            table.add_section()
        table.add_row(
            plain(name),
            _percent(given[task].value),
            _percent(by_task[task, MEAN].value),
            _percent(every.value),
            "–" if every.low is None else f"{_percent(every.low)} – {_percent(every.high)}",
            _percent(by_task[task, SAME].value),
            str(every.scored),
            style="bold" if average else None,
        )
    print_table(console, table)
    if rotations["position"]:
        print_table(console, _position_table(rotations["position"], names))
    else:
        console.print(Text("no item was read in as many orders as it has options; --rotations all shows the bias of letters"))
    took = (
        f"{sum(u['seconds'] for u in usage):.1f} s, {_short_number(sum(u['tokens_in'] + u['tokens_out'] for u in usage))} tokens"
    )
    paid = sum(u.get("cost", 0.0) for u in usage)
    missing = "".join(f", {counts[status]} {status}" for status in ("unread", "failed") if counts[status])
    console.print(plain(f"The other orders took {took}{f', {paid:.2f} USD' if paid else ''}{missing}"))


def _position_table(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Table:
    """How often each letter was chosen; a star where its interval leaves out what a model blind to letters would do."""
    letters = list(dict.fromkeys(letter for row in rows for letter in row["letters"]))
    table = make_table("letters chosen, in per cent (* unlike the equal share)")
    table.add_column("language", no_wrap=True)
    for name in ("options", "equal", *letters, "RStd", "n"):
        table.add_column(plain(name), justify="right", no_wrap=True)
    for row in rows:
        cells = []
        for letter in letters:
            about = row["letters"].get(letter)
            if about is None:
                cells.append("–")
                continue
            biased = not about["low"] <= row["expected"] <= about["high"]
            cells.append(f"{_percent(about['share'])}{'*' if biased else ' '}")
        table.add_row(
            plain(names[row["task"]]), str(row["options"]), _percent(row["expected"]), *cells,
            _percent(row["recall_spread"]), str(row["items"]),
        )  # fmt: skip
    return table


def _row_names(aggregates: Sequence[Aggregate]) -> dict[str, str]:
    """What each task is called in a table: its language, or its own name where a language has several tasks."""
    tasks = {a.task: a.language for a in aggregates}
    several = len(set(tasks.values())) < len(tasks)
    return {
        task: "average" if language == AVERAGE else task if several else LANGUAGES.get(language, language)
        for task, language in tasks.items()
    }


def _notes(record: RunRecord) -> list[str]:
    """What must stand beside the accuracies: what they leave out, and how alike the languages were answered."""
    notes = []
    data, counts = record.data, record.data["counts"]
    if counts["unread"] or counts["failed"]:
        strict = [a for a in record.aggregates if a.metric == "accuracy_strict"]
        figures = ", ".join(f"{a.task} {_percent(a.value)}" for a in strict)
        notes.append(
            f"Accuracy is over the answers that were read. {counts['unread']} unread and {counts['failed']} failed items counted "
            f"as wrong, it is: {figures}"
        )
    empty = sorted({a.metric for a in record.aggregates if a.scale != 1} - {a.metric for a in record.aggregates if a.scored})
    if empty:
        notes.append(
            f"Nothing to score for {', '.join(empty)}: no item has an output and a reference that a person found good; "
            "for all that have a reference add --rationale-items all"
        )
    if counts["failures"]:
        notes.append("Failures: " + ", ".join(f"{kind} {number}" for kind, number in counts["failures"].items()))
    if counts["unscored"]:
        notes.append(f"{counts['unscored']} items with several right answers are not scored: cloze ranks single options")
    for entry in data["consistency"]:
        if entry["read"]:
            alike, right = entry["alike"], entry["all_right"]
            notes.append(
                f"Across {entry['languages']} languages, {_percent(alike['value'])} % of {entry['read']} questions were answered "
                f"alike ({_percent(alike['low'])} – {_percent(alike['high'])}), {_percent(right['value'])} % rightly in all "
                f"({_percent(right['low'])} – {_percent(right['high'])})"
            )
    return notes


def plain(text: str) -> Text:
    """Text from outside, as it is: no markup, no control characters."""
    return Text(printable(text))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _short_number(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return str(int(value))


def print_contest(found: Mapping[str, Any], folder: Path, console: Console | None = None) -> None:
    """How runs did before a judge."""
    console = console or make_console()
    counts = found["counts"]
    console.print(plain(f"{found['judge']}, {found['items']} items: {counts['judged']} verdicts, {counts['unread']} unread"))
    pairwise = found["mode"] == "pairwise"
    table = make_table()
    for name in ("language", "run", "against") if pairwise else ("language", "run"):
        table.add_column(name, overflow="fold")
    for name in ("won", "tied", "lost", "unread", "per cent", "95 % interval") if pairwise else ("mean rank", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    show = _percent if pairwise else _rank
    languages = found["by_language"] if len(found["by_language"]) > 1 else {}
    for language, part in [*languages.items(), ("all", found)]:
        table.add_section()
        for row in part["pairs"] if pairwise else sorted(part["ranks"], key=lambda rank: rank["value"] or 0):
            interval = "–" if row["low"] is None else f"{show(row['low'])} – {show(row['high'])}"
            head = [*row["runs"], *(str(row[name]) for name in ("won", "tied", "lost", "unread"))] if pairwise else [row["run"]]
            table.add_row(*map(plain, [LANGUAGES.get(language, language), *head]), show(row["value"]), interval)
    print_table(console, table)
    console.print(plain(f"stored in {folder}"))


def _rank(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


# --- samples ---


def print_samples(results: Sequence[SampleResult], total: int, *, whole: bool, console: Console | None = None) -> None:
    """Samples with question, output, answer and verdict; `whole` adds the prompt and all loglikelihoods."""
    console = console or make_console()
    for result in results:
        _print_sample(console, result, whole=whole)
    if total > len(results):
        console.print(Text(f"{len(results)} of {total} shown; --limit N shows more, --sample ID shows all of one", style="dim"))
    elif not results:
        console.print("no such sample in this run")


def _print_sample(console: Console, result: SampleResult, *, whole: bool) -> None:
    verdict = {True: "right", False: "wrong", None: result.status}[result.right]
    style = {"right": "green", "wrong": "red"}.get(verdict, "yellow")
    head = Text(printable("/".join(result.key)), style="bold")
    console.print(head.append(f"  {printable(verdict)}", style=style))
    if whole and result.prompt is not None:
        _print_block(console, "prompt", result.prompt)
    else:
        _print_block(console, "question", result.sample.question)
        options = "\n".join(f"{letter}. {text}" for letter, text in result.sample.options.items())
        _print_block(console, "options", options)
    if result.output is not None:
        _print_block(console, "output", result.output or "(empty)")
    if result.failure is not None:
        _print_block(console, "failure", result.failure)
    if whole and result.logprobs:
        ranked = sorted(result.logprobs.items(), key=lambda item: -item[1])
        _print_block(console, "loglikelihoods", "\n".join(f"{value:10.4f}  {answer}" for answer, value in ranked))
    if whole and result.sample.rationale:
        _print_block(console, "reference", result.sample.rationale)
    read = "–" if result.prediction is None else join_letters(result.prediction)
    margin = "" if result.margin is None else f", margin {result.margin:.4f}"
    console.print(plain(f"  answered {read}, right is {join_letters(result.sample.answer)}{margin}"))
    if whole:
        usage = result.usage
        console.print(
            Text(
                f"  tokens in {usage.tokens_in}, out {usage.tokens_out}; BOS {usage.bos}; shots dropped {usage.shots_dropped}; "
                f"border merged {'yes' if usage.border_merged else 'no'}",
                style="dim",
            )
        )
    console.print()


def _print_block(console: Console, name: str, text: str) -> None:
    console.print(Text(f"  {name}", style="dim"))
    for line in printable(text).split("\n"):
        wrapped = Text(line).wrap(console, max(20, console.width - 4))
        for part in wrapped or [Text()]:
            console.print(Text("    ").append_text(part), no_wrap=True, overflow="ignore", crop=False)


# --- doctor ---


def print_diagnosis(findings: Sequence[Finding], console: Console | None = None) -> None:
    console = console or make_console()
    for section in dict.fromkeys(finding.section for finding in findings):
        console.print(Text(section, style="bold"))
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        marks = {True: Text("ok", style="green"), False: Text("no", style="red"), None: Text("  ")}
        for finding in findings:
            if finding.section == section:
                table.add_row(marks[finding.good], plain(finding.name), plain(finding.text))
        console.print(table)
        console.print()


# --- progress ---


class Progress:
    """Shows how a run goes: a live bar on a terminal, a plain line now and then elsewhere. An event plugin like any other."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console(stderr=True)
        self.total = self.done = self.unread = self.failed = self.tokens = 0
        self.started = self.last_line = time.monotonic()
        self._bar: RichProgress | None = None
        self._line("reading data and model files")

    @hookimpl
    def mmedeval_run_started(self, plan: RunPlan, total: int) -> None:
        self.total, self.started = total, time.monotonic()
        self.last_line = self.started
        if not self.console.is_terminal:
            self._line(f"{total} requests to answer")
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[rates]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            TextColumn("{task.fields[counts]}"),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, rates=self._rates(), counts=self._counts())
        self._bar.start()

    @hookimpl
    def mmedeval_sample_finished(self, plan: RunPlan, result: SampleResult) -> None:
        self.done += 1
        self.unread += result.status == "unread"
        self.failed += result.status == "failed"
        self.tokens += result.usage.tokens_in + result.usage.tokens_out
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rates=self._rates(), counts=self._counts())
        elif now - self.last_line >= PLAIN_LINE_SECONDS:
            self.last_line = now
            left = (now - self.started) / self.done * (self.total - self.done)
            self._line(f"{self.done}/{self.total}, {self._rates()}, {left:.0f} s left, {self._counts()}")

    @hookimpl
    def mmedeval_run_finished(self, plan: RunPlan, record: RunRecord) -> None:
        self.stop()
        if self.total:
            self._line(f"{self.done} answered in {time.monotonic() - self.started:.1f} s, {self._rates()}, {self._counts()}")

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _rates(self) -> str:
        elapsed = max(time.monotonic() - self.started, 1e-9)
        return f"{self.done / elapsed:.1f} samples/s, {_short_number(self.tokens / elapsed)} tokens/s"

    def _counts(self) -> str:
        return f"{self.failed} failed, {self.unread} unread"

    def _line(self, text: str) -> None:
        # Nobody may be reading any more, as behind `2> >(head)`; the run goes on.
        with suppress(OSError):
            print(f"mmedeval: {text}", file=sys.stderr, flush=True)
