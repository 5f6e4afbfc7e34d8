"""Finished runs -> the figures of a report (pure)."""

from __future__ import annotations

import math
import re
import shlex
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmedeval.aggregate import AVERAGE
from mmedeval.errors import StoreError, UsageError
from mmedeval.published import GROUP, TEST_ITEMS, Published
from mmedeval.report.shapes import fault_of
from mmedeval.rotations import formulation_spread
from mmedeval.runs import StoredRun
from mmedeval.specs import LANGUAGES
from mmedeval.stats import wilson
from mmedeval.store import figure_from_json
from mmedeval.types import Aggregate, SampleResult

BINS = 10
MOST_TOPICS = 12
QUARTERS = ("shortest", "second", "third", "longest")
TOPIC_KEYS = ("topic", "meta_info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A task, or with the language `avg` the average of a group of tasks."""

    task: str
    label: str
    language: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tasks that belong into one table, with the average behind them where they have one."""

    name: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many of `n` items have a property, with Wilson's 95 % interval."""

    n: int
    count: int

    @property
    def value(self) -> float | None:
        return self.count / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        return wilson(self.count, self.n) if self.n else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One class of items and, run by run, the share of right ones among those that were read."""

    label: str
    items: int
    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """How often a letter is chosen and how often it is right, of the read items that offer it."""

    letter: str
    chosen: Share
    right: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Items whose confidence lies between `low` and `high`."""

    low: float
    high: float
    confidence: float
    right: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Confidence against accuracy. `error` is the expected calibration error; bins without an item are left out."""

    items: int
    confidence: float
    accuracy: float
    error: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Questions that every run was asked: how many all, some or none of the runs answered rightly, and how many alike."""

    asked: int
    all_right: int
    none_right: int
    alike: int


def check(runs: Sequence[StoredRun]) -> None:
    """Raises `StoreError` where a run holds other things than a report is made of, or nothing."""
    for run in runs:
        found = fault_of(run)
        if found is not None:
            raise StoreError(f"{found}; restore it, or run again")
        if not run.results:
            raise StoreError(f"{run.path} holds no answer to anything; leave it out, or run again")


def groups(runs: Sequence[StoredRun]) -> tuple[Group, ...]:
    """The tasks of all runs, by group; a task without a group is a group of its own."""
    members: dict[str, dict[str, str]] = defaultdict(dict)
    for run in runs:
        for task, about in run.data["tasks"].items():
            members[about.get("group") or task][task] = about["language"]
    averaged = {figure.task for run in runs for figure in run.aggregates if figure.language == AVERAGE}
    found = []
    for name, tasks in members.items():
        several = len(set(tasks.values())) < len(tasks)
        columns = [
            Column(task=task, label=task if several else LANGUAGES.get(language, language), language=language)
            for task, language in tasks.items()
        ]
        if name in averaged and name not in tasks:
            columns.append(Column(task=name, label="average", language=AVERAGE))
        found.append(Group(name=name, columns=tuple(columns)))
    return tuple(found)


def figures_of(run: StoredRun) -> dict[tuple[str, str], Aggregate]:
    """The figures of a run by metric and task (or group)."""
    return {(figure.metric, figure.task): figure for figure in run.aggregates}


def factor_of(figure: Aggregate) -> int:
    """What a value is multiplied by to be shown: those between 0 and 1 are shown in per cent."""
    return 100 if figure.scale == 1 else 1


def orders(run: StoredRun) -> list[Aggregate]:
    """The figures of a run that asked every item under other orders of its options, too; else none."""
    return [figure_from_json(row) for row in (run.data.get("rotations") or {}).get("results", [])]


def formulations(runs: Sequence[StoredRun]) -> list[tuple[list[str], dict[str, Any]]]:
    """What the way of asking changes: names of the runs of one model under different protocols, with what they share."""
    models: dict[str, dict[str, StoredRun]] = defaultdict(dict)
    for run in runs:
        if run.data["model"].get("fingerprint") and not run.shots:
            models[run.data["model"]["fingerprint"]].setdefault(run.protocol, run)
    found = []
    for ways in models.values():
        if len(ways) > 1:
            try:
                spread = formulation_spread([*ways.values()])
            except UsageError:
                continue  # They ask different questions under one name, which the notes tell.
            if spread["read"]:
                found.append(([run.name for run in ways.values()], spread))
    return found


def asked_of(run: StoredRun, group: Group) -> int | None:
    """How many tasks of a group a run asked, if not all: an average over fewer is another figure than the others'."""
    tasks = [column.task for column in group.columns if column.language != AVERAGE]
    asked = sum(task in run.data["tasks"] for task in tasks)
    return asked if asked < len(tasks) else None


def whole_figures(run: StoredRun, group: Group, metric: str) -> tuple[Aggregate | None, ...]:
    """A run's figures by column, without an average over fewer tasks than the group has, which no picture could tell of."""
    figures, part = figures_of(run), asked_of(run, group) is not None
    return tuple(None if part and column.language == AVERAGE else figures.get((metric, column.task)) for column in group.columns)


def published_values(each: Published, group: Group) -> list[float | None]:
    """A published row by column; its average only beside one over the same languages."""
    average = each.average if {*each.values} <= {column.language for column in group.columns} else None
    return [average if column.language == AVERAGE else each.values.get(column.language) for column in group.columns]


def metrics(runs: Sequence[StoredRun]) -> tuple[str, ...]:
    """The metrics of all runs, in the order in which they come, those without any value left out."""
    return tuple(dict.fromkeys(figure.metric for run in runs for figure in run.aggregates if figure.value is not None))


# --- classes of items ---


def by_options(runs: Sequence[StoredRun]) -> tuple[Slice, ...]:
    return _slices(runs, lambda result: len(result.sample.options), lambda count: f"{count} options")


def by_right_letters(runs: Sequence[StoredRun]) -> tuple[Slice, ...]:
    return _slices(runs, lambda result: len(result.sample.answer), lambda count: f"{count} right letter{'s' * (count > 1)}")


def by_length(runs: Sequence[StoredRun]) -> tuple[Slice, ...]:
    """Quarters of each task by the length of its questions in characters, put together over the tasks.

    Within a task, because languages differ in length and in difficulty, too.
    """
    lengths: dict[str, dict[str, int]] = defaultdict(dict)
    for run in runs:
        for result in run.results:
            lengths[result.task][result.sample.id] = len(result.sample.question)
    borders = {}
    for task, by_id in lengths.items():
        ordered = sorted(by_id.values())
        borders[task] = [ordered[math.ceil(len(ordered) * quarter / 4) - 1] for quarter in (1, 2, 3)]
    return _slices(
        runs,
        lambda result: bisect_left(borders[result.task], len(result.sample.question)),
        lambda quarter: f"{QUARTERS[quarter]} quarter",
    )


def topics(runs: Sequence[StoredRun]) -> dict[str, tuple[Slice, ...]]:
    """By task, the topics that its items name, the largest first; tasks that name fewer than two are left out."""
    found = {}
    for task in dict.fromkeys(task for run in runs for task in run.data["tasks"]):
        slices = _slices(runs, lambda result, task=task: topic(result) if result.task == task else None, str)  # type: ignore[misc]
        if len(slices) > 1:
            found[task] = tuple(sorted(slices, key=lambda each: (-each.items, each.label)))
    return found


def topic(result: SampleResult) -> str | None:
    """What the item's data say that it is about."""
    for key in TOPIC_KEYS:
        value = result.sample.meta.get(key)
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())
    return None


def _slices(
    runs: Sequence[StoredRun], key_of: Callable[[SampleResult], Any], label_of: Callable[[Any], str]
) -> tuple[Slice, ...]:
    """Classes in the order of their keys; an item without a key is in none, one that was not read counts as no answer."""
    items: dict[Any, set[tuple[str, str]]] = defaultdict(set)
    counts: list[dict[Any, Counter[bool]]] = []
    for run in runs:
        own: dict[Any, Counter[bool]] = defaultdict(Counter)
        for result in run.results:
            key = key_of(result)
            if key is None:
                continue
            items[key].add(result.key)
            if result.right is not None:
                own[key][result.right] += 1
        counts.append(own)
    return tuple(
        Slice(
            label=label_of(key),
            items=len(items[key]),
            shares=tuple(Share(n=own[key].total(), count=own[key][True]) for own in counts),
        )
        for key in sorted(items)
    )


# --- letters, confidence, agreement ---


def letters(run: StoredRun) -> tuple[Letter, ...]:
    """How often each letter is chosen against how often it is right, of the read items that offer it."""
    offered, chosen, right = Counter[str](), Counter[str](), Counter[str]()
    for result in run.results:
        if result.status == "ok" and result.prediction is not None:
            offered.update(result.sample.options.keys())
            chosen.update(result.prediction)
            right.update(result.sample.answer)
    return tuple(
        Letter(letter=each, chosen=Share(n=offered[each], count=chosen[each]), right=Share(n=offered[each], count=right[each]))
        for each in sorted(offered)
    )


def tells_probabilities(run: StoredRun) -> bool:
    """Baselines give numbers where a model gives logarithms of probabilities."""
    return not run.model.startswith("baseline:")


def tells_confidence(run: StoredRun) -> bool:
    return run.protocol == "letter" and tells_probabilities(run)


def confidence(logprobs: Mapping[str, float]) -> float:
    """The probability of the best answer when those that were scored are all there is: softmax over their loglikelihoods."""
    best = max(logprobs.values())
    return 1 / math.fsum(math.exp(value - best) for value in logprobs.values())


def calibration(run: StoredRun) -> Calibration | None:
    """Confidence against accuracy over ten bins of equal width; `None` for runs without probabilities of letters.

    The expected calibration error is the sum over bins of n_bin / n * |accuracy - mean confidence|. Source: C. Guo, G. Pleiss,
    Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    if not tells_confidence(run):
        return None
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for result in run.results:
        if result.right is not None and result.logprobs:
            sure = confidence(result.logprobs)
            bins[min(int(sure * BINS), BINS - 1)].append((sure, result.right))
    n = sum(map(len, bins))
    if n == 0:
        return None
    found = tuple(
        Bin(
            low=i / BINS,
            high=(i + 1) / BINS,
            confidence=math.fsum(sure for sure, _ in items) / len(items),
            right=Share(n=len(items), count=sum(right for _, right in items)),
        )
        for i, items in enumerate(bins)
        if items
    )
    return Calibration(
        items=n,
        confidence=math.fsum(each.confidence * each.right.n for each in found) / n,
        accuracy=sum(each.right.count for each in found) / n,
        error=math.fsum(each.right.n / n * abs(each.right.count / each.right.n - each.confidence) for each in found),
        bins=found,
    )


def contents(result: SampleResult) -> tuple[Any, ...]:
    """All that is shown of a question. Runs over other data may have another one under the same name."""
    sample = result.sample
    return result.task, sample.id, sample.question, tuple(sample.options.items()), sample.answer, sample.rationale


def agreement(runs: Sequence[StoredRun]) -> Agreement | None:
    """`None` where no question was asked of two runs or more."""
    if len(runs) < 2:
        return None
    by_run = [{result.key: result for result in run.results} for run in runs]
    shared = [[own[key] for own in by_run] for key in by_run[0] if all(key in own for own in by_run)]
    shared = [results for results in shared if len({contents(result) for result in results}) == 1]
    if not shared:
        return None
    return Agreement(
        asked=len(shared),
        all_right=sum(all(result.right for result in results) for results in shared),
        none_right=sum(not any(result.right for result in results) for results in shared),
        alike=sum(
            results[0].prediction is not None and len({result.prediction for result in results}) == 1 for results in shared
        ),
    )


# --- what must be said beside the figures ---


def notes(runs: Sequence[StoredRun]) -> list[str]:
    """What keeps the figures from being compared as they stand, a sentence each."""
    found = []
    if len(runs) > 1:
        found += _differences(runs)
    parts: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        if run.data.get("stopped_early"):
            found.append(f"{run.name}: a part of a run, stopped early: {run.data['stopped_early']}")
        counts = run.data["counts"]
        n, unread, failed = (counts[name] for name in ("n", "unread", "failed"))
        if n and unread + failed == n:
            found.append(f"{run.name}: no answer was read in any of the {n:,} items ({unread:,} unread, {failed:,} failed)")
        elif n and (unread + failed) / n > 0.02:
            found.append(
                f"{run.name}: {unread:,} unread and {failed:,} failed of {n:,} items; accuracy is over the others, "
                "accuracy_strict over all"
            )
        short = [
            f"{LANGUAGES[language]} {asked:,} of {TEST_ITEMS[language]:,}"
            for language, asked in _asked(run).items()
            if asked != TEST_ITEMS[language]
        ]
        if short:
            parts[", ".join(short)].append(run.name)
    found += [
        f"{', '.join(names)}: not the whole test set that the published figures are of, but {part}"
        for part, names in parts.items()
    ]
    return found


def _asked(run: StoredRun) -> dict[str, int]:
    """Items by language of the tasks that the paper asked, too."""
    counted = Counter(result.task for result in run.results)
    about = run.data["tasks"]
    return {
        about[task]["language"]: n
        for task, n in counted.items()
        if about[task].get("group") == GROUP and about[task]["language"] in TEST_ITEMS
    }


def _differences(runs: Sequence[StoredRun]) -> list[str]:
    found = []
    asked: Mapping[str, Callable[[StoredRun], object]] = {
        "protocols": lambda run: run.protocol,
        "numbers of shots": lambda run: run.shots,
        "temperatures": lambda run: (run.data.get("sampling") or {}).get("temperature"),
        "most tokens of an answer": lambda run: (run.data.get("sampling") or {}).get("max_tokens"),
    }
    for what, of in asked.items():
        kinds = dict.fromkeys(str(value) for run in runs if (value := of(run)) is not None)
        if len(kinds) > 1:
            found.append(
                f"The runs were asked in different ways ({what}: {', '.join(kinds)}); that, too, makes their figures differ"
            )
    other: dict[tuple[str, ...], list[str]] = defaultdict(list)
    lacking: dict[tuple[str, ...], list[str]] = defaultdict(list)
    worded = []
    for task in dict.fromkeys(task for run in runs for task in run.data["tasks"]):
        having = [run for run in runs if task in run.data["tasks"]]
        if len({run.data["tasks"][task].get("data_digest") for run in having}) > 1:
            other[tuple(run.name for run in having)].append(task)
        layouts: dict[object, set[str]] = defaultdict(set)
        for run in having:
            layouts[run.protocol, run.shots].add(str(run.data["tasks"][task].get("prompt_template_digest")))
        if max(map(len, layouts.values())) > 1:
            worded.append(task)
        if len(having) < len(runs):
            lacking[tuple(run.name for run in runs if run not in having)].append(task)
    if worded:
        found.append(
            f"The runs were asked in different words in {_short(worded, runs)} (other layouts of the prompt under the same "
            "protocol); that, too, makes their figures differ"
        )
    for names, tasks in other.items():
        who = "The runs" if len(names) == len(runs) else ", ".join(names)
        found.append(f"{who} were not all asked the same items in {_short(tasks, runs)}")
    found += [f"{', '.join(names)}: not asked {_short(tasks, runs)}" for names, tasks in lacking.items()]
    return found


def _short(tasks: Sequence[str], runs: Sequence[StoredRun]) -> str:
    """Names of tasks, or that of a group all of whose tasks are among them."""
    left = dict.fromkeys(tasks)
    for group in groups(runs):
        members = [column.task for column in group.columns if column.language != AVERAGE]
        if len(members) > 1 and all(member in left for member in members):
            left = {name: None for name in left if name not in members} | {group.name: None}
    return ", ".join(left)


def command_line(run: StoredRun) -> str:
    """The command that asks the same again, from the stored plan."""
    plan = {name: value for name, value in run.data["plan"].items() if value is not None}
    words = ["mmedeval", "run", "--model", run.model]
    for name, value in plan.get("model_args", {}).items():
        words += ["--model-arg", f"{name}={value}"]
    words += ["--tasks", ",".join(plan.get("tasks", []))]
    if plan.get("languages"):
        words += ["--languages", ",".join(plan["languages"])]
    words += ["--protocol", run.protocol]
    if run.shots:
        words += ["--shots", str(run.shots)]
    for name in ("limit", "max_tokens", "data_dir"):
        if name in plan:
            words += [f"--{name.replace('_', '-')}", str(plan[name])]
    for name in ("seed", "temperature"):
        if plan.get(name):
            words += [f"--{name}", str(plan[name])]
    if plan.get("metrics"):
        words += ["--metrics", ",".join(plan["metrics"])]
    for name, value in plan.get("metric_args", {}).items():
        words += ["--metric-arg", f"{name}={value}"]
    if plan.get("chat_template") is False:
        words.append("--no-chat-template")
    if plan.get("exclude_images"):
        words.append("--exclude-images")
    if plan.get("save_requests") is False:
        words.append("--no-save-requests")
    if "rotations" in plan:
        words += ["--rotations", str(plan["rotations"])]
    if plan.get("stop_early"):
        words.append("--stop-early")
        for name, value in plan["stop_early"].items():
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def total(usage: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Tokens, seconds and cost over the tasks of a run."""
    found: dict[str, float] = defaultdict(float)
    for each in usage.values():
        for name, value in each.items():
            found[name] += value
    return dict(found)


_STEP = re.compile(r"(?<![A-Za-z])(?:step|checkpoint)[-_](\d+)(?!\d)")


def step_of(run: StoredRun) -> int | None:
    """The training step that a run's folder, or its model's name, tells, as in `eval/step-500` or `hf:out/checkpoint-500`."""
    for name in (run.path.resolve().name, run.model):
        found = _STEP.findall(name)
        if found:
            return int(found[-1])
    return None
