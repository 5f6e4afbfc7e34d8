"""Every item under other orders of its options: how far a model looks at the place of an answer instead of its text (pure)."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean, pstdev
from typing import Any, Literal

from mmedeval.aggregate import TaskScores, aggregate_all, figures_as_json
from mmedeval.errors import UsageError
from mmedeval.runs import StoredRun
from mmedeval.stats import bootstrap_mean, wilson
from mmedeval.types import Sample, SampleResult, Status

# The figures over orders, in the order of a table.
EVERY, MEAN, SAME = "right_in_all_orders", "mean_over_orders", "same_answer"


def rotation_amounts(options: int, wanted: int | Literal["all"]) -> tuple[int, ...]:
    """By how many places options are moved, beside the given order (0): all ways there are, or `wanted` - 1 spread evenly."""
    count = options if wanted == "all" else min(wanted, options)
    return tuple(i * options // count for i in range(1, count))


def rotated(sample: Sample, amount: int) -> Sample:
    """The sample with its texts moved up by `amount` places under letters that stay; the text that falls out comes in below."""
    letters, texts = tuple(sample.options), tuple(sample.options.values())
    count = len(letters)
    options = {letter: texts[(i + amount) % count] for i, letter in enumerate(letters)}
    answer = frozenset(letters[(letters.index(letter) - amount) % count] for letter in sample.answer)
    return dataclasses.replace(sample, options=options, answer=answer)


def rotation_summary(
    tasks: Sequence[TaskScores], rotated_results: Sequence[SampleResult], wanted: int | Literal["all"]
) -> dict[str, Any]:
    """What a record says about the orders: figures per task with intervals, letter bias, counts, usage.

    All figures are over the items that were read in every order they were asked in, so that each weighs the same in each order.
    """
    others: dict[tuple[str, str], list[SampleResult]] = defaultdict(list)
    for result in rotated_results:
        others[result.key].append(result)
    scored = []
    position: list[dict[str, Any]] = []
    for task in tasks:
        groups = [[result, *others[result.key]] for result in task.results]
        values: dict[str, list[float | None]] = {EVERY: [], MEAN: [], SAME: []}
        worst = []
        for orders in groups:
            status = _worst(orders)
            worst.append(dataclasses.replace(orders[0], status=status))
            right = [float(result.right is True) for result in orders]
            # By text, not by letter: of two options that read the same it is all one which is chosen.
            texts = {frozenset(each.sample.options[letter] for letter in each.prediction) for each in orders if each.prediction}
            values[EVERY].append(float(all(right)) if status == "ok" else None)
            values[MEAN].append(fmean(right) if status == "ok" else None)
            values[SAME].append(float(len(texts) == 1) if status == "ok" else None)
        scored.append(dataclasses.replace(task, results=worst, scores=values))
        position += _position(task, groups)
    statuses = [result.status for result in rotated_results]
    return {
        "orders": wanted,
        "results": figures_as_json(aggregate_all(scored, dict.fromkeys((EVERY, MEAN, SAME), 1.0))),
        "position": position,
        "counts": {"n": len(statuses), **{name: statuses.count(name) for name in ("ok", "unread", "failed", "unscored")}},
    }


def _worst(orders: Sequence[SampleResult]) -> Status:
    found = {result.status for result in orders}
    return next((status for status in ("unscored", "failed", "unread") if status in found), "ok")


def _position(task: TaskScores, groups: Sequence[Sequence[SampleResult]]) -> list[dict[str, Any]]:
    """Per number of options: how often each letter was chosen, and how often where it was right.

    Only of items that were read in as many orders as they have options: there every text stood under every letter once, so
    that a model that reads the texts alone chooses each letter equally often, whatever it knows. `recall_spread` is the
    standard deviation of the letters' recalls (RStd), as in C. Zheng et al., "Large Language Models Are Not Robust Multiple
    Choice Selectors" (ICLR 2024).
    """
    by_size: dict[int, list[Sequence[SampleResult]]] = defaultdict(list)
    for orders in groups:
        size = len(orders[0].sample.options)
        if len(orders) == size and _worst(orders) == "ok":
            by_size[size].append(orders)
    found = []
    for size, items in sorted(by_size.items()):
        total = [sum(len(result.prediction or ()) for result in orders) for orders in items]
        letters: dict[str, dict[str, Any]] = {}
        for letter in dict.fromkeys(letter for orders in items for letter in orders[0].sample.options):
            chosen = [sum(letter in (result.prediction or ()) for result in orders) for orders in items]
            wanted = [result for orders in items for result in orders if letter in result.sample.answer]
            hits = sum(letter in (result.prediction or ()) for result in wanted)
            share, low, high = _ratio(chosen, total)
            letters[letter] = {
                "chosen": sum(chosen), "share": share, "low": low, "high": high,
                "right": len(wanted), "recall": hits / len(wanted) if wanted else None,
            }  # fmt: skip
        recalls = [about["recall"] for about in letters.values() if about["recall"] is not None]
        found.append(
            {
                "task": task.task,
                "language": task.language,
                "options": size,
                "items": len(items),
                "expected": 1 / size,
                "letters": letters,
                "recall_spread": pstdev(recalls) if recalls else None,
            }
        )
    return found


def _ratio(counts: Sequence[int], totals: Sequence[int]) -> tuple[float, float, float]:
    """A ratio of two sums over items with its 95 % interval; Wilson's where all items are alike, as if each had one order.

    The orders of an item belong together, so items are what varies. The interval holds the ratios that a score test with the
    variance of the items themselves does not refute: of few items, which one of estimate and standard error would make too
    narrow, too. Source: D. D. Boos, "On generalized score tests", The American Statistician 46 (1992) 327-333.
    """
    count, total, n = sum(counts), sum(totals), len(counts)
    ratio = count / total
    if all(abs(each - ratio * whole) < 1e-9 for each, whole in zip(counts, totals, strict=True)):
        return ratio, *wilson(ratio * n, n)
    # (count - r total)^2 <= z^2 sum of (each - r whole)^2, solved for r.
    z2 = NormalDist().inv_cdf(0.975) ** 2
    a = total**2 - z2 * sum(whole**2 for whole in totals)
    b = count * total - z2 * sum(each * whole for each, whole in zip(counts, totals, strict=True))
    c = count**2 - z2 * sum(each**2 for each in counts)
    if a <= 0:
        # So few items refute nothing, however they are.
        return ratio, 0.0, 1.0
    half = math.sqrt(max(0.0, b * b - a * c))
    return ratio, max(0.0, (b - half) / a), min(1.0, (b + half) / a)


def formulation_spread(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """How much the way of asking (`letter`, `cloze`, `chat`, ...) changes what one model is said to know.

    `runs` are runs of one model under different protocols. All figures are over the items that every run asked and read. Each
    way has its accuracy with Wilson's interval, each pair its difference with a paired bootstrap interval and how often both
    chose the same; `spread` is the distance between the best and the worst way. Raises `UsageError` for other runs.
    """
    names = [run.protocol for run in runs]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        given = ", ".join(names) or "none"
        raise UsageError(f"the spread over formulations needs runs of two or more protocols, each once; given: {given}")
    models = {run.data["model"].get("fingerprint") for run in runs}
    if len(models) > 1:
        raise UsageError(f"the spread over formulations is that of one model; {runs[0].path} and others hold different models")
    by_key = [{result.key: result for result in run.results} for run in runs]
    shared = [key for key in by_key[0] if all(key in found for found in by_key)]
    for key in shared:
        asked = {_asked(found[key].sample) for found in by_key}
        if len(asked) > 1:
            raise UsageError(f"the runs ask different questions under the name {'/'.join(key)}; run them on the same data")
    read = [key for key in shared if all(found[key].status == "ok" for found in by_key)]
    tasks: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key in read:
        tasks[key[0]].append(key)
    return {
        "items": len(shared),
        "read": len(read),
        **_spread(runs, by_key, read),
        "tasks": {task: {"read": len(keys), **_spread(runs, by_key, keys)} for task, keys in tasks.items()},
    }


def _asked(sample: Sample) -> tuple[object, ...]:
    return sample.question, tuple(sample.options.items()), sample.answer


def _spread(
    runs: Sequence[StoredRun], by_key: Sequence[Mapping[tuple[str, str], SampleResult]], keys: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    right = [[float(found[key].right is True) for key in keys] for found in by_key]
    values = [fmean(column) if column else None for column in right]
    ways = []
    for run, column, value in zip(runs, right, values, strict=True):
        low, high = wilson(sum(column), len(column))
        ways.append({"run": run.name, "protocol": run.protocol, "value": value, "low": low, "high": high})
    pairs = []
    for j in range(len(runs)):
        for i in range(j):
            differences = [b - a for a, b in zip(right[i], right[j], strict=True)]
            same = sum(by_key[i][key].prediction == by_key[j][key].prediction for key in keys)
            bounds = bootstrap_mean([differences]) if len(set(differences)) > 1 else (None, None)
            agreement = dict(zip(("low", "high"), wilson(same, len(keys)), strict=True))
            pairs.append(
                {
                    "protocols": [runs[i].protocol, runs[j].protocol],
                    "difference": fmean(differences) if keys else None,
                    "low": bounds[0],
                    "high": bounds[1],
                    "agreement": {"value": same / len(keys) if keys else None, **agreement},
                }
            )
    known = [value for value in values if value is not None]
    return {"formulations": ways, "spread": max(known) - min(known) if known else None, "pairs": pairs}
