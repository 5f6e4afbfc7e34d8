"""Two runs over the same items, item by item: what changed, and what of it is more than chance (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mmedeval.aggregate import AVERAGE
from mmedeval.errors import UsageError
from mmedeval.outcomes import FAILED, RIGHT, UNREAD, UNSCORED, WRONG, Outcomes, questions_digest
from mmedeval.paired import (
    CLUSTER_DRAWS,
    Changes,
    Counts,
    cohens_g,
    holm,
    interval,
    resampled_means,
    smallest_drop,
    two_sided,
)
from mmedeval.stats import bootstrap_clustered, quantile
from mmedeval.types import join_letters

READ = frozenset({RIGHT, WRONG})
ALL_ITEMS: frozenset[str] = frozenset()
NO_ANSWER = frozenset({UNREAD, FAILED})
MOST_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """New less base, in shares: over `n` items of which `gained` are right in the new run alone, `lost` in the base run alone.

    `low`, `high` are the ends of the 95 % interval; `p` is exact and two-sided, `p_holm` corrected for the number of tasks (of
    an average there is none). `effect` is Cohen's g, `smallest_drop` what so many items show in 80 of 100 cases.
    """

    n: int
    base: float
    new: float
    value: float
    low: float
    high: float
    gained: int
    lost: int
    p: float
    p_holm: float | None
    effect: float | None
    smallest_drop: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A task, or the average of a group of tasks.

    `all` is over all items, where an item without an answer counts as wrong: so a model that stops answering does not look
    unchanged. `read` is over those that were read in both runs; `None` where there are none. The rest are counts of items: unread
    and failed in (base, new), and read in one of the runs alone.
    """

    task: str
    language: str
    group: str | None
    all: Difference
    read: Difference | None
    unread: tuple[int, int]
    failed: tuple[int, int]
    read_alone: tuple[int, int]

    @property
    def average(self) -> bool:
        return self.language == AVERAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """New less base in a metric, over the `n` items that both runs have a score for; the interval is a paired bootstrap."""

    metric: str
    task: str
    language: str
    n: int
    base: float
    new: float
    value: float
    low: float | None
    high: float | None
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An item that one run alone has right. Texts are `None` where only baselines were compared: they hold none."""

    task: str
    id: str
    language: str
    change: Literal["gained", "lost"]
    base: str
    new: str
    answer: str | None
    question: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`forced` names what is not alike in the two runs (empty: they are comparable); `notes` say what was left out."""

    base: str
    new: str
    forced: tuple[str, ...]
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    metrics: tuple[MetricRow, ...]
    items: tuple[Item, ...]

    def as_json(self, *, items: bool) -> dict[str, Any]:
        data = asdict(self)
        return data if items else {key: value for key, value in data.items() if key != "items"}


# --- may they be compared? ---


def differences(base: Outcomes, new: Outcomes) -> list[str]:
    """What makes two runs no fair comparison, a phrase each. Models may differ, and the seed: these are what is compared."""
    found = [f"{run.name} is a part of a run, stopped early" for run in (base, new) if run.part]
    for what in ("protocol", "shots"):
        found += _differs(what, getattr(base, what), getattr(new, what))
    for name in sorted({*(base.sampling or {}), *(new.sampling or {})} - {"seed"}):
        if base.protocol == new.protocol:
            found += _differs(name, (base.sampling or {}).get(name), (new.sampling or {}).get(name))
    for run, other in ((base, new), (new, base)):
        alone = [task for task in run.tasks if task not in other.tasks]
        if alone:
            found.append(f"{_named(alone)} {'is' if len(alone) == 1 else 'are'} in {run.name} alone")
    shared = [task for task in base.tasks if task in new.tasks]
    other_items = [
        task
        for task in shared
        if base.tasks[task].data != new.tasks[task].data and questions_digest(base, task) != questions_digest(new, task)
    ]
    if other_items:
        counts = {(len(base.tasks[task].ids), len(new.tasks[task].ids)) for task in other_items}
        how_many = f" ({counts.pop()[0]} and {len(new.tasks[other_items[0]].ids)})" if len(counts) == 1 else ""
        found.append(f"{_named(other_items)} {'has' if len(other_items) == 1 else 'have'} other items{how_many}")
    # Other prompts follow from all of the above; named is what is the cause.
    if not found:
        prompts = [task for task in shared if base.tasks[task].prompts != new.tasks[task].prompts]
        if prompts:
            found.append(f"{_named(prompts)} {'was' if len(prompts) == 1 else 'were'} asked with other prompts")
    scored = [{metric for task in run.tasks.values() for metric in task.scores} for run in (base, new)]
    if scored[0] & scored[1]:
        for name in sorted({*base.metric_args, *new.metric_args}):
            found += _differs(f"metric setting {name}", base.metric_args.get(name), new.metric_args.get(name))
    return found


def _differs(what: str, base: object, new: object) -> list[str]:
    return [f"{what} is {_shown(base)} and {_shown(new)}"] if base != new else []


def _shown(value: object) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _named(tasks: Sequence[str]) -> str:
    more = f" and {len(tasks) - MOST_NAMED} more" if len(tasks) > MOST_NAMED else ""
    return f"{', '.join(tasks[:MOST_NAMED])}{more}"


def refuse(base: Outcomes, new: Outcomes, *, hint: str) -> None:
    """Raises `UsageError` where two runs are not comparable, with what differs."""
    if not {*base.tasks} & {*new.tasks}:
        raise UsageError(
            f"{base.name} and {new.name} cannot be compared: they have no task in common ({_named([*base.tasks])}; "
            f"{_named([*new.tasks])})"
        )
    found = differences(base, new)
    if found:
        more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise UsageError(f"{base.name} and {new.name} cannot be compared: {'; '.join(found[:MOST_NAMED])}{more}; {hint}")


# --- pairs ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The items of a task that two runs share: places in the base run and the new one, and outcomes side by side."""

    task: str
    language: str
    group: str | None
    places: Sequence[tuple[int, int]]
    outcomes: Sequence[tuple[str, str]]
    parallel: Sequence[str | None]

    def kept(self, without: frozenset[str] = ALL_ITEMS) -> list[tuple[str, str, str | None]]:
        """Outcomes in both, and the question's mark, of the items that count."""
        parallel = self.parallel or [None] * len(self.outcomes)
        return [
            (a, b, mark)
            for (a, b), mark in zip(self.outcomes, parallel, strict=True)
            if UNSCORED not in (a, b) and a not in without and b not in without
        ]


def pair(base: Outcomes, new: Outcomes, notes: list[str] | None = None) -> list[Pairs]:
    """The shared items, task by task, in the base run's order. Raises `UsageError` where there are none.

    An item that reads differently in the two runs is not the same and is left out; of baselines only the names are known.
    """
    notes = [] if notes is None else notes
    found = []
    for name, task in base.tasks.items():
        other = new.tasks.get(name)
        if other is None:
            continue
        if task.ids == other.ids:
            places = [(i, i) for i in range(len(task.ids))]
        else:
            there = {item: i for i, item in enumerate(other.ids)}
            places = [(i, there[item]) for i, item in enumerate(task.ids) if item in there]
        if task.data != other.data:
            places = _alike(base, new, name, places, notes)
        if len(places) < max(len(task.ids), len(other.ids)):
            notes.append(f"{name}: {len(places)} items are in both runs, of {len(task.ids)} and {len(other.ids)}")
        if not places:
            continue
        pairs = Pairs(
            task=name,
            language=task.language,
            group=task.group,
            places=places,
            outcomes=[(task.outcomes[i], other.outcomes[j]) for i, j in places],
            parallel=[task.parallel[i] for i, _ in places] if task.parallel else [],
        )
        if pairs.kept():
            found.append(pairs)
        else:
            notes.append(f"{name}: no item is scored under this protocol")
    if not found:
        raise UsageError(f"{base.name} and {new.name} share no item; nothing can be compared")
    return found


def _alike(
    base: Outcomes, new: Outcomes, task: str, places: Sequence[tuple[int, int]], notes: list[str]
) -> list[tuple[int, int]]:
    if base.results is None or new.results is None:
        if questions_digest(base, task) != questions_digest(new, task):
            notes.append(f"{task}: a baseline holds no questions; items were paired by their ids alone")
        return [*places]
    ids = base.tasks[task].ids
    kept = [
        (i, j)
        for i, j in places
        if (one := base.results[task, ids[i]].sample).question == (other := new.results[task, ids[i]].sample).question
        and one.options == other.options
        and one.answer == other.answer
    ]
    if len(kept) < len(places):
        notes.append(f"{task}: {len(places) - len(kept)} items read differently in the two runs and were left out")
    return kept


def counts_of(pairs: Pairs, without: frozenset[str] = ALL_ITEMS) -> Counts:
    kept = pairs.kept(without)
    return Counts(
        n=len(kept),
        gained=sum(a != RIGHT and b == RIGHT for a, b, _ in kept),
        lost=sum(a == RIGHT and b != RIGHT for a, b, _ in kept),
    )


def changes_of(members: Sequence[Pairs], without: frozenset[str] = ALL_ITEMS) -> Changes | None:
    """What changed in one task or over the tasks of a group; `None` where one of them has no such item."""
    counts = tuple(counts_of(pairs, without) for pairs in members)
    if not all(each.n for each in counts):
        return None
    if len(members) == 1 or not all(pairs.parallel for pairs in members):
        return Changes(counts)
    rows: dict[str, list[float | None]] = {}
    for column, pairs in enumerate(members):
        for a, b, mark in pairs.kept(without):
            rows.setdefault(str(mark), [None] * len(members))[column] = float((b == RIGHT) - (a == RIGHT))
    shared = any(sum(value is not None for value in row) > 1 for row in rows.values())
    return Changes(counts, list(rows.values()) if shared else None)


def groups_of(pairs: Iterable[Pairs]) -> list[list[Pairs]]:
    """The tasks of each group, in order; a task without one is alone."""
    groups: dict[str, list[Pairs]] = {}
    for each in pairs:
        groups.setdefault(each.group or each.task, []).append(each)
    return [*groups.values()]


# --- the comparison ---


def compare(base: Outcomes, new: Outcomes, *, force: bool = False) -> Comparison:
    """Everything that two runs over the same items tell of each other. Raises `UsageError` for runs that are not comparable."""
    forced = differences(base, new)
    if forced and not force:
        refuse(base, new, hint="--force compares what they share, and says so")
    notes: list[str] = []
    pairs = pair(base, new, notes)
    metrics = _metric_rows(base, new, pairs, notes)
    return Comparison(
        base=base.name,
        new=new.name,
        forced=tuple(forced),
        notes=tuple(notes),
        rows=tuple(_rows(pairs)),
        metrics=tuple(metrics),
        items=tuple(_items(base, new, pairs)),
    )


def _rows(pairs: Sequence[Pairs]) -> list[Row]:
    corrected = {
        without: dict(
            zip(
                (each.task for each in having),
                holm([two_sided(changes) for each in having if (changes := changes_of([each], without))]),
                strict=True,
            )
        )
        for without in (ALL_ITEMS, NO_ANSWER)
        for having in [[each for each in pairs if counts_of(each, without).n]]
    }
    rows = []
    for members in groups_of(pairs):
        rows += [_row([each], corrected) for each in members]
        if len(members) > 1:
            rows.append(_row(members, corrected))
    return rows


def _row(members: Sequence[Pairs], corrected: Mapping[frozenset[str], Mapping[str, float]]) -> Row:
    one = members[0] if len(members) == 1 else None
    outcomes = [outcomes for pairs in members for outcomes in pairs.outcomes]
    over_all = _difference(members, without=ALL_ITEMS, p_holm=corrected[ALL_ITEMS].get(one.task) if one else None)
    assert over_all is not None  # a task without an item to compare is no pair
    # Where all was read the two are the same; a bootstrap need not be made twice.
    same = all({a, b} <= READ for a, b in outcomes if UNSCORED not in (a, b))
    read = (
        over_all if same else _difference(members, without=NO_ANSWER, p_holm=corrected[NO_ANSWER].get(one.task) if one else None)
    )
    return Row(
        task=one.task if one else str(members[0].group),
        language=one.language if one else AVERAGE,
        group=members[0].group,
        all=over_all,
        read=read,
        unread=(sum(a == UNREAD for a, _ in outcomes), sum(b == UNREAD for _, b in outcomes)),
        failed=(sum(a == FAILED for a, _ in outcomes), sum(b == FAILED for _, b in outcomes)),
        read_alone=(
            sum(a in READ and b not in READ for a, b in outcomes),
            sum(b in READ and a not in READ for a, b in outcomes),
        ),
    )


def _difference(members: Sequence[Pairs], *, without: frozenset[str], p_holm: float | None) -> Difference | None:
    changes = changes_of(members, without)
    if changes is None:
        return None
    kept = [pairs.kept(without) for pairs in members]
    low, high = interval(changes)
    gained, lost = sum(task.gained for task in changes.tasks), sum(task.lost for task in changes.tasks)
    return Difference(
        n=sum(task.n for task in changes.tasks),
        base=_mean([_mean([float(a == RIGHT) for a, _, _ in each]) for each in kept]),
        new=_mean([_mean([float(b == RIGHT) for _, b, _ in each]) for each in kept]),
        value=changes.difference,
        low=low,
        high=high,
        gained=gained,
        lost=lost,
        p=two_sided(changes),
        p_holm=p_holm,
        effect=cohens_g(gained, lost),
        smallest_drop=smallest_drop(changes),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# --- other metrics ---


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    """The items of a task that both runs have a score for."""

    pairs: Pairs
    base: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    marks: list[str | None] = field(default_factory=list)

    @property
    def differences(self) -> list[float]:
        return [b - a for a, b in zip(self.base, self.new, strict=True)]


def _metric_rows(base: Outcomes, new: Outcomes, pairs: Sequence[Pairs], notes: list[str]) -> list[MetricRow]:
    scales = {figure.metric: figure.scale for figure in (*base.figures, *new.figures)}
    kinds = [dict.fromkeys(metric for task in run.tasks.values() for metric in task.scores) for run in (base, new)]
    for run, own, other in ((base, kinds[0], kinds[1]), (new, kinds[1], kinds[0])):
        alone = [metric for metric in own if metric not in other]
        if alone:
            notes.append(f"{_named(alone)}: in {run.name} alone; mmedeval rescore adds metrics to a run")
    rows = []
    for metric in (metric for metric in kinds[0] if metric in kinds[1]):
        scale = scales.get(metric, 1.0)
        for members in groups_of(pairs):
            scored = [_scored(base, new, each, metric) for each in members]
            having = [each for each in scored if each.base]
            # The average is made of the same draws as its parts.
            draws = [resampled_means(each.differences, seed) for seed, each in enumerate(having)]
            rows += [_metric_row(metric, [each], [own], scale) for each, own in zip(having, draws, strict=True)]
            # As of accuracies: a mean over fewer languages is another figure.
            if len(members) > 1 and len(having) == len(members):
                rows.append(_metric_row(metric, having, draws, scale))
    return rows


def _scored(base: Outcomes, new: Outcomes, pairs: Pairs, metric: str) -> _Scored:
    scored = _Scored(pairs=pairs)
    olds, news = base.tasks[pairs.task].scores.get(metric), new.tasks[pairs.task].scores.get(metric)
    if olds is None or news is None:
        return scored
    for number, (i, j) in enumerate(pairs.places):
        old, now = olds[i], news[j]
        if old is not None and now is not None:
            scored.base.append(old)
            scored.new.append(now)
            scored.marks.append(pairs.parallel[number] if pairs.parallel else None)
    return scored


def _metric_row(metric: str, members: Sequence[_Scored], draws: Sequence[Sequence[float]], scale: float) -> MetricRow:
    strata = [each.differences for each in members]
    low = high = None
    if any(len({*stratum}) > 1 for stratum in strata):
        parallel = _parallel(members) if len(members) > 1 else None
        if parallel is None:
            means = sorted(sum(column) / len(column) for column in zip(*draws, strict=True))
            low, high = quantile(means, 0.025), quantile(means, 0.975)
        else:
            low, high = bootstrap_clustered(parallel, draws=CLUSTER_DRAWS)
    base, new = _mean([_mean(each.base) for each in members]), _mean([_mean(each.new) for each in members])
    first = members[0].pairs
    return MetricRow(
        metric=metric,
        task=first.task if len(members) == 1 else str(first.group),
        language=first.language if len(members) == 1 else AVERAGE,
        n=sum(map(len, strata)),
        base=base,
        new=new,
        value=new - base,
        low=low,
        high=high,
        scale=scale,
    )


def _parallel(members: Sequence[_Scored]) -> list[list[float | None]] | None:
    rows: dict[str, list[float | None]] = {}
    for column, scored in enumerate(members):
        for mark, value in zip(scored.marks, scored.differences, strict=True):
            if mark is None:
                return None
            rows.setdefault(mark, [None] * len(members))[column] = value
    shared = any(sum(value is not None for value in row) > 1 for row in rows.values())
    return [*rows.values()] if shared else None


# --- items ---


def _items(base: Outcomes, new: Outcomes, pairs: Sequence[Pairs]) -> list[Item]:
    found = []
    for each in pairs:
        ids = base.tasks[each.task].ids
        for (i, _), (a, b) in zip(each.places, each.outcomes, strict=True):
            if (a == RIGHT) != (b == RIGHT) and UNSCORED not in (a, b):
                found.append(_item(base, new, each, ids[i], a, b))
    return found


_WORDS: Mapping[str, str] = {RIGHT: "right", WRONG: "wrong", UNREAD: "unread", FAILED: "failed"}


def _item(base: Outcomes, new: Outcomes, pairs: Pairs, name: str, a: str, b: str) -> Item:
    results = [None if run.results is None else run.results[pairs.task, name] for run in (base, new)]
    told = [
        _WORDS[outcome] if result is None or result.prediction is None else join_letters(result.prediction)
        for result, outcome in zip(results, (a, b), strict=True)
    ]
    sample = next((result.sample for result in reversed(results) if result is not None), None)
    return Item(
        task=pairs.task,
        id=name,
        language=pairs.language,
        change="gained" if b == RIGHT else "lost",
        base=told[0],
        new=told[1],
        answer=None if sample is None else join_letters(sample.answer),
        question=None if sample is None else sample.question,
    )
