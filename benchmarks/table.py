"""Turns outcomes into the tables of `RESULTS.md`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from figures import TOLERANCE, Failed, Outcome, Side
from workloads import MAX_NEW_TOKENS

FLOOR = """\
The floor is what no way of scoring can avoid, each distinct token of the tree of all sequences being computed once: seconds =
FLOPs / matrix rate. FLOPs = 2 x parameters in linear layers per distinct token + 4 x layers x hidden size x tokens that it
sees, itself included, per distinct token + 2 x hidden size x vocabulary per scored position. The matrix rate is that of
float32 products with one layer's matrices, kept up for two seconds beside each run with the same threads; the table has its
median. Distance = mmedeval's loop / floor, run by run, and of these the median; the loop includes reading the texts into
tokens and the check of the shared prefixes against the plain way.
"""
HOW = """\
Both programs get the same strings, in float32 on the CPU, with {threads} threads, in processes of their own that work by
turns (ours, lm-eval, ours, ...); medians of {runs} runs, ratios run by run. Wall time is that of the request loop, without
start-up and load; CPU time is user and system time of all threads; memory is the peak of the process, from its start. lm-eval
runs at the batch size that was fastest on a part of the workload. Models have random weights, questions are random words:
speed does not depend on sense.
"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """`about` says, per arm, versions and threads; `made` has sizes of models and averages of tokens."""

    date: str
    machine: str
    python: str
    threads: int
    runs: int
    load_average: float
    made: Mapping[str, Any]
    about: Mapping[str, Mapping[str, Any]]
    outcomes: Sequence[Outcome]
    failed: Sequence[Failed]
    partial: bool

    @property
    def problems(self) -> list[str]:
        """What makes the benchmark itself fail. A target that was missed does not."""
        found = [f"{each.workload.name} could not be measured: {each.error}" for each in self.failed]
        found += [
            f"{each.workload.name}: the arms do not agree ({_agreement(each)})"
            for each in self.outcomes
            if not each.agreement.holds
        ]
        for name in ("torch", "transformers", "tokenizers"):
            versions = {about["versions"][name] for about in self.about.values()}
            if len(versions) > 1:
                found.append(f"the arms run with different versions of {name}: {', '.join(sorted(versions))}")
        threads = {about["threads"] for about in self.about.values()}
        if threads - {self.threads}:
            found.append(f"the arms run with {threads} threads, {self.threads} were asked for")
        return found


def render(report: Report) -> str:
    loops = [each for each in report.outcomes if not each.workload.command]
    commands = [each for each in report.outcomes if each.workload.command]
    models = dict.fromkeys(each.workload.model for each in loops)
    parts = ["# mmedeval and lm-eval on the same machine", *_head(report)]
    for model in models:
        parts += [f"## Request loop: {_model_title(model, report.made)}", _times([o for o in loops if o.workload.model == model])]
    if commands:
        parts += ["## Whole command", "From the start of the program to its end, all files written.", _times(commands)]
    if report.outcomes:
        parts += ["## Do the scores agree?", _agreements(report.outcomes)]
    if any(each.floor for each in loops):
        parts += ["## Distance to the floor", FLOOR.strip(), _floors(loops)]
    if loops:
        parts += [
            "## Start-up and load",
            "Seconds until a worker has imported all it needs, and until the model is there.",
            _starts(loops),
        ]
    if report.outcomes:
        parts += ["## Batch sizes tried for lm-eval", "Seconds on a part of the workload.", _batches(report.outcomes)]
    return "\n\n".join(parts) + "\n"


def _head(report: Report) -> Iterator[str]:
    if report.partial:
        yield "**A partial run: fewer workloads, items or runs than the benchmark has.**"
    versions = "; ".join(
        f"{arm}: " + ", ".join(f"{name} {number}" for name, number in about["versions"].items())
        for arm, about in report.about.items()
    )
    machine = f"{report.machine}; load average at the start {report.load_average:.1f}"
    yield f"{report.date}. {machine}. Python {report.python}. {versions}."
    yield HOW.format(threads=report.threads, runs=report.runs).strip()
    if report.problems:
        yield "**Failed checks:**\n\n" + "\n".join(f"- {problem}" for problem in report.problems)


def _model_title(model: str, made: Mapping[str, Any]) -> str:
    tokens = made["tokens"]
    letter, cloze = tokens[f"{model}/letter-0"], tokens[f"{model}/cloze-0"]
    return (
        f"`{model}`, a llama of {made['parameters'][model] / 1e6:.1f} M parameters; a question with its options has "
        f"{letter['prompt']:.0f} tokens, an option {cloze['continuation']:.1f}, a letter {letter['continuation']:.0f}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _times(outcomes: Sequence[Outcome]) -> str:
    head = ["workload", "items", "lm-eval batch", "lm-eval s", "mmedeval s", "ratio (from, to)", "target", "holds"]
    head += ["lm-eval CPU s", "mmedeval CPU s", "lm-eval MiB", "mmedeval MiB"]
    return _table(head, [_times_row(each) for each in outcomes])


def _times_row(each: Outcome) -> list[str]:
    target, ratios = each.workload.target.ratio, each.ratios
    return [
        _form(each),
        str(each.workload.items),
        str(each.batch),
        _seconds(each.theirs.wall),
        _seconds(each.ours.wall),
        f"{each.ratio:.2f} ({min(ratios):.2f}, {max(ratios):.2f})",
        "" if target is None else f"{target:g}",
        "" if target is None else _yes(each.ratio >= target),
        _seconds(each.theirs.cpu),
        _seconds(each.ours.cpu),
        _mebibytes(each.theirs),
        _mebibytes(each.ours),
    ]


def _form(each: Outcome) -> str:
    form, shots = each.workload.form, each.workload.shots
    what = f"{MAX_NEW_TOKENS} new tokens" if form == "generate" else form
    return f"{what}, {shots} shots"


def _agreements(outcomes: Sequence[Outcome]) -> str:
    head = [
        "workload",
        "items",
        "largest difference of a loglikelihood",
        "equal choices or texts",
        f"agree (within {TOLERANCE:g})",
    ]
    head += ["our way"]
    rows = []
    for each in outcomes:
        largest = each.agreement.largest
        rows.append(
            [
                f"`{each.workload.name}`",
                str(each.agreement.compared),
                "" if largest is None else f"{largest:.1e}",
                f"{each.agreement.equal:.2%}",
                _yes(each.agreement.holds),
                str(each.how.get("way", "")),
            ]
        )
    return _table(head, rows)


def _agreement(each: Outcome) -> str:
    largest = "" if each.agreement.largest is None else f", largest difference {each.agreement.largest:.1e}"
    return f"{each.agreement.equal:.2%} equal{largest}"


def _floors(outcomes: Sequence[Outcome]) -> str:
    head = ["workload", "distinct tokens", "GFLOP", "GFLOP/s", "floor s", "mmedeval s", "distance", "target", "holds"]
    rows = []
    for each in outcomes:
        if each.floor is None or each.distance is None:
            continue
        target = each.workload.target.floor
        rows.append(
            [
                f"`{each.workload.name}`",
                str(each.floor.distinct_tokens),
                f"{each.floor.flops / 1e9:.0f}",
                f"{each.floor.rate / 1e9:.0f}",
                _seconds(each.floor.seconds),
                _seconds(each.ours.wall),
                f"{each.distance:.2f}",
                "" if target is None else f"{target:g}",
                "" if target is None else _yes(each.distance <= target),
            ]
        )
    return _table(head, rows)


def _starts(outcomes: Sequence[Outcome]) -> str:
    head = ["workload", "lm-eval start-up", "mmedeval start-up", "lm-eval load", "mmedeval load"]
    rows = []
    for each in outcomes:
        values = [each.theirs.startup, each.ours.startup, each.theirs.load, each.ours.load]
        rows.append([f"`{each.workload.name}`", *("" if value is None else _seconds(value) for value in values)])
    return _table(head, rows)


def _batches(outcomes: Sequence[Outcome]) -> str:
    head = ["workload", "items", "batch size: seconds"]
    rows = []
    for each in outcomes:
        tried = ", ".join(f"{size}: {_seconds(seconds)}" for size, seconds in each.tried.items())
        rows.append([f"`{each.workload.name}`", str(each.workload.trial_items), tried])
    return _table(head, rows)


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _mebibytes(side: Side) -> str:
    return f"{side.peak_bytes / 2**20:.0f}"


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"
