"""A finished run as the four files that the benchmark's submission guide asks for."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmedeval.errors import StoreError, UsageError
from mmedeval.rationales import rationale_of
from mmedeval.runs import StoredRun
from mmedeval.specs import LANGUAGES
from mmedeval.text import csv_cell
from mmedeval.types import Aggregate, SampleResult, join_letters

TASKS: Mapping[str, str] = {f"mmedbench_{code}": name for code, name in LANGUAGES.items()}
METRICS: Mapping[str, str] = {
    "bleu1": "BLEU-1", "bleu2": "BLEU-2", "bleu3": "BLEU-3", "bleu4": "BLEU-4",
    "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L",
}  # fmt: skip
# The test items of the whole benchmark (Qiu et al. 2024); some copies of the data hold fewer.
TEST_ITEMS = 8518
CHOICES, RATIONALES = "multi_choice_results.csv", "rationale_results.csv"
ACCURACY, SIMILARITY = "accuracy_metric.csv", "rationale_similarity_metric.csv"
COLUMNS = ("Language", "ModelInput", "ModelOutput", "GT_Answer")
_WAY = "--protocol paper --tasks mmedbench"

Rows = list[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The files, each a list of rows with its heading first; and what a sender should know."""

    files: Mapping[str, Rows]
    notes: Sequence[str]


def submission(run: StoredRun) -> Submission:
    """The files of a run.

    Raises `UsageError`, with what to run instead, where it does not hold what the guide asks for; `StoreError` for a damaged one.
    """
    try:
        return _submission(run)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{run.path} is damaged: {type(error).__name__}: {error}; restore it, or run again") from error


def _submission(run: StoredRun) -> Submission:
    _refuse_incomplete(run)
    by_task: dict[str, list[SampleResult]] = {name: [] for name in TASKS}
    for result in run.results:
        by_task[result.task].append(result)
    figures = {(figure.metric, figure.task): figure for figure in run.aggregates}
    checked = {name: [result for result in results if _checked(result)] for name, results in by_task.items()}
    _refuse_unscored(run, checked)
    choices: Rows = [COLUMNS]
    rationales: Rows = [COLUMNS]
    for name, language in TASKS.items():
        choices += [
            (language, result.prompt or "", result.output or "", join_letters(result.sample.answer)) for result in by_task[name]
        ]
        rationales += [
            (language, result.prompt or "", rationale_of(result.output or ""), result.sample.rationale)
            for result in checked[name]
        ]
    # Unread and failed items are wrong, as in the benchmark's own script.
    accuracy = [_percent(figures["accuracy_strict", name], 100) for name in TASKS]
    similarity: Rows = [("Metric", *TASKS.values())]
    similarity += [(label, *(_percent(figures[metric, name], 1) for name in TASKS)) for metric, label in METRICS.items()]
    items, failed = len(run.results), sum(result.status == "failed" for result in run.results)
    notes = []
    if items != TEST_ITEMS:
        notes.append(f"the run is of {items} items, the whole test set of {TEST_ITEMS}: these data are not all of it")
    if failed:
        notes.append(
            f"{failed} items have no output: wrong in {ACCURACY}, left out in {SIMILARITY}; see them with: "
            f"mmedeval show {run.path} --failed"
        )
    if run.protocol != "paper":
        notes.append(f"the outputs were written under {run.protocol!r}, not under the benchmark's own prompt ({_WAY})")
    return Submission(
        files={
            CHOICES: choices,
            RATIONALES: rationales,
            ACCURACY: [[*TASKS.values()], accuracy],
            SIMILARITY: similarity,
        },
        notes=notes,
    )


def _percent(figure: Aggregate, factor: float) -> str:
    assert figure.value is not None, "was refused"
    return f"{factor * figure.value:.2f}"


def _checked(result: SampleResult) -> bool:
    """Whether a person found the reference good: only these rationales are compared."""
    return bool(result.sample.meta.get("human_check_passed")) and bool(result.sample.rationale.strip())


def _refuse_incomplete(run: StoredRun) -> None:
    plan, tasks = run.data["plan"], run.data["tasks"]
    missing = [language for name, language in TASKS.items() if name not in tasks]
    others = [name for name in tasks if name not in TASKS]
    if missing or others:
        what = f"lacks {', '.join(missing)}" if missing else f"holds other tasks ({others[0]})"
        raise UsageError(f"a submission is of MMedBench in all six languages, and {run.path} {what}; run: mmedeval run {_WAY}")
    narrowed = "--stop-early" if "stopped_early" in run.data else None
    narrowed = narrowed or (f"--limit {plan['limit']}" if plan.get("limit") is not None else None)
    narrowed = narrowed or ("--exclude-images" if plan.get("exclude_images") else None)
    if narrowed:
        raise UsageError(f"a submission is of all test items, and {run.path} was narrowed by {narrowed}; run without it")
    if run.protocol not in ("paper", "chat"):
        raise UsageError(
            f"a submission holds what the model wrote, and {run.protocol!r} asks for no rationale; run: mmedeval run {_WAY}"
        )
    if any(result.prompt is None for result in run.results):
        raise UsageError(f"a submission holds the prompts, and {run.path} stores none; run without --no-save-requests")


def _refuse_unscored(run: StoredRun, checked: Mapping[str, Sequence[SampleResult]]) -> None:
    empty = next((TASKS[name] for name, results in checked.items() if not results), None)
    if empty is not None:
        raise UsageError(
            f"no rationale of {run.path} in {empty} was found good by a person; the benchmark's own data say which were"
        )
    figures = {(figure.metric, figure.task): figure for figure in run.aggregates}
    every = ",".join(METRICS)
    for metric in METRICS:
        for name in TASKS:
            if (metric, name) not in figures:
                raise UsageError(f"{run.path} has no {metric}; add what is needed: mmedeval rescore {run.path} --metrics {every}")
            if figures[metric, name].value is None:
                raise UsageError(f"{run.path} has no output in {TASKS[name]} whose rationale could be compared; run again")
    if run.data["plan"].get("metric_args", {}).get("rationale_items", "checked") != "checked":
        raise UsageError(
            f"the rationale metrics of {run.path} are over all items, a submission's over those that a person found good; "
            f"mmedeval rescore {run.path} --metrics {every} --rationale-items checked"
        )


def write_submission(found: Submission, folder: Path, *, safe_cells: bool = False) -> int:
    """Writes the files, as they are or with an apostrophe before what a spreadsheet would compute.

    Returns how many cells begin like a formula. Raises `UsageError` where one of the files is there already.
    """
    there = next((name for name in found.files if (folder / name).exists()), None)
    if there is not None:
        raise UsageError(f"{folder} holds a {there} already; choose another folder with -o")
    risky = sum(_computed(cell) for rows in found.files.values() for row in rows for cell in row)
    write: Callable[[str], str] = csv_cell if safe_cells else _as_it_is
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in found.files.items():
            # Half a surrogate pair has no UTF-8; it is written as its escape.
            (folder / f"{name}.new").write_text(_csv(rows, write), encoding="utf-8", errors="backslashreplace", newline="")
        # All or none, as far as it can be: where the disk is full it is so before this.
        for name in found.files:
            (folder / f"{name}.new").replace(folder / name)
    except OSError as error:
        raise StoreError(f"cannot write in {folder}: {error.strerror or error}; choose another folder with -o") from error
    return risky


def _csv(rows: Iterable[Sequence[str]], write: Callable[[str], str]) -> str:
    text = io.StringIO(newline="")
    # Ended by CR LF, as RFC 4180 has it: a cell with either of them, alone too, is then in quotes.
    csv.writer(text, lineterminator="\r\n").writerows([write(cell) for cell in row] for row in rows)
    return text.getvalue()


def _as_it_is(cell: str) -> str:
    return cell


def _computed(cell: str) -> bool:
    return csv_cell(cell).startswith("'") and not cell.startswith("'")
