"""Sample results -> figures with intervals (pure)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmedeval.stats import bootstrap_clustered, bootstrap_mean, wilson
from mmedeval.types import Aggregate, SampleResult

AVERAGE = "avg"
# The metrics beside which the chance level of a guess stands.
ACCURACIES = frozenset({"accuracy", "accuracy_strict", "accuracy_per_byte", "accuracy_per_char"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScores:
    """The results of one task with their scores: `scores[metric][i]` belongs to `results[i]`."""

    task: str
    language: str
    group: str | None
    results: Sequence[SampleResult]
    scores: Mapping[str, Sequence[float | None]]
    chances: Sequence[float | None]


def aggregate_task(task: TaskScores, metric: str, scale: float = 1.0) -> Aggregate:
    """The mean of a metric over the items of one task that have a score.

    The 95 % interval is Wilson's where all scores are 0 or 1, else a percentile bootstrap over the items; of scores that are all
    the same there is none. The chance level is that of the items that have a score.
    """
    values = _scored(task.scores[metric])
    statuses = Counter(result.status for result in task.results)
    chances = [chance for chance, score in zip(task.chances, task.scores[metric], strict=True) if score is not None]
    low = high = value = None
    if values:
        value = sum(values) / len(values)
        if scale == 1 and set(values) <= {0.0, 1.0}:
            low, high = wilson(sum(values), len(values))
        elif len(set(values)) > 1:
            low, high = bootstrap_mean([values])
    return Aggregate(
        metric=metric,
        task=task.task,
        language=task.language,
        value=value,
        low=low,
        high=high,
        n=len(task.results),
        scored=len(values),
        unread=statuses["unread"],
        failed=statuses["failed"],
        unscored=statuses["unscored"],
        chance=_mean(_scored(chances)) if metric in ACCURACIES else None,
        scale=scale,
    )


def aggregate_average(group: str, tasks: Sequence[TaskScores], parts: Sequence[Aggregate], metric: str) -> Aggregate:
    """The plain mean of the tasks' means (`parts`), as the paper averages its languages.

    Its interval is a bootstrap stratified by task; where the tasks ask the same questions, these are resampled as a whole.
    Without a value where a task has none: a mean over fewer languages is another figure. Without an interval where nothing
    varies within any task: a bootstrap of constants would claim certainty.
    """
    strata = [_scored(task.scores[metric]) for task in tasks]
    low = high = value = None
    if all(strata):
        value = sum(sum(stratum) / len(stratum) for stratum in strata) / len(strata)
        if any(len(set(stratum)) > 1 for stratum in strata):
            parallel = _parallel_scores(tasks, metric)
            low, high = bootstrap_mean(strata) if parallel is None else bootstrap_clustered(parallel)
    chances = [part.chance for part in parts if part.chance is not None]
    return Aggregate(
        metric=metric,
        task=group,
        language=AVERAGE,
        value=value,
        low=low,
        high=high,
        n=sum(part.n for part in parts),
        scored=sum(part.scored for part in parts),
        unread=sum(part.unread for part in parts),
        failed=sum(part.failed for part in parts),
        unscored=sum(part.unscored for part in parts),
        chance=_mean(chances) if len(chances) == len(parts) else None,
        scale=parts[0].scale,
    )


def _parallel_scores(tasks: Sequence[TaskScores], metric: str) -> list[list[float | None]] | None:
    """A row per question and a column per task, where the items of the tasks are the same questions; else `None`."""
    rows: dict[str, list[float | None]] = {}
    for column, task in enumerate(tasks):
        for result, score in zip(task.results, task.scores[metric], strict=True):
            question = result.sample.meta.get("parallel")
            if question is None:
                return None
            rows.setdefault(str(question), [None] * len(tasks))[column] = score
    shared = sum(sum(value is not None for value in row) > 1 for row in rows.values())
    return list(rows.values()) if shared else None


def aggregate_all(tasks: Sequence[TaskScores], scales: Mapping[str, float]) -> tuple[Aggregate, ...]:
    """A figure per metric and task, and one per metric and group of several tasks."""
    groups: dict[str, list[TaskScores]] = defaultdict(list)
    for task in tasks:
        if task.group is not None:
            groups[task.group].append(task)
    figures: list[Aggregate] = []
    for metric, scale in scales.items():
        parts = {task.task: aggregate_task(task, metric, scale) for task in tasks}
        figures += parts.values()
        figures += [
            aggregate_average(group, members, [parts[task.task] for task in members], metric)
            for group, members in groups.items()
            if len(members) > 1
        ]
    return tuple(figures)


def cross_lingual_consistency(group: str, tasks: Sequence[TaskScores]) -> dict[str, Any] | None:
    """How often the same question gets the same answer in all languages, and the right one, with Wilson intervals.

    Counts the questions that every task of the group asks (`meta["parallel"]`). One that was not read in some language is
    counted apart. `None` where fewer than two tasks share a question.
    """
    asked: dict[str, dict[str, SampleResult]] = defaultdict(dict)
    for task in tasks:
        for result in task.results:
            parallel = result.sample.meta.get("parallel")
            if parallel is not None:
                asked[str(parallel)][task.task] = result
    shared = [by_task for by_task in asked.values() if len(by_task) == len(tasks)]
    if len(tasks) < 2 or not shared:
        return None
    read = [list(by_task.values()) for by_task in shared if all(result.status == "ok" for result in by_task.values())]
    alike = sum(len({result.prediction for result in results}) == 1 for results in read)
    right = sum(all(result.right for result in results) for results in read)
    return {
        "group": group,
        "languages": len(tasks),
        "questions": len(shared),
        "read": len(read),
        "alike": _share(alike, len(read)),
        "all_right": _share(right, len(read)),
    }


def _share(count: int, n: int) -> dict[str, Any]:
    low, high = wilson(count, n)
    return {"count": count, "value": count / n if n else None, "low": low, "high": high}


def figures_as_json(figures: Sequence[Aggregate]) -> list[dict[str, Any]]:
    return [asdict(figure) for figure in figures]


def _scored(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
