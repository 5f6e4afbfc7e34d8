"""The judge compares models on the same items: in pairs, each asked in both orders, or all of them in one ranking (up to six)."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmedeval import SampleResult, UsageError, bootstrap_mean, digest, rationale_of
from mmedeval_rationale.judge import STORE, Question, Settings, Store, ask, consult, open_judge
from mmedeval_rationale.rubrics import RUBRICS
from mmedeval_rationale.scores import applies

MOST_RANKED = 6


@dataclass(frozen=True, slots=True)
class Match:
    """One question to the judge: `order[i]` is the run whose text stands at the i-th place."""

    item: int
    order: tuple[int, ...]
    question: Question


def contest(
    runs: Mapping[str, Sequence[SampleResult]], catalog: Any, settings: Settings, mode: str, count: int | None, out: Path
) -> dict[str, Any]:
    """Asks the judge, and says how the runs did; verdicts are stored in `out`. `count`: items of each task, drawn by the seed.

    Raises `UsageError` for runs that share no item to compare, or fewer than two, or more than can be ranked.
    """
    if not 2 <= len(runs) <= (MOST_RANKED if mode == "ranking" else len(runs)):
        raise UsageError(f"{len(runs)} runs cannot be compared; give two or more (a ranking takes up to {MOST_RANKED})")
    items = _shared([*runs.values()], settings.items, settings.seed, count)
    if not items:
        raise UsageError("the runs share no item that all of them answered and that has a reference; see --rationale-items all")
    out.mkdir(parents=True, exist_ok=True)
    with open_judge(catalog, settings) as backend:
        judge = digest([backend.fingerprint(), dict(settings.model_args), settings.seed])
    matches = [match for i, item in enumerate(items) for match in _matches(i, item, settings, mode, judge)]
    store, counts = Store(out / STORE), Counter[str]()
    consult(catalog, settings, [match.question for match in matches], store, counts)
    names = [*runs]
    read = [(match, store.lines.get(match.question.key, {}).get("verdict")) for match in matches]
    verdicts = [(match, [match.order["ABCDEF".index(letter)] for letter in verdict]) for match, verdict in read if verdict]
    counts["judged"], counts["unread"] = len(verdicts), len(matches) - len(verdicts)
    languages = dict.fromkeys(item[0].sample.language for item in items)
    return {
        "mode": mode,
        "items": len(items),
        **settings.describe(),
        "counts": dict(counts),
        **_summary(mode, names, verdicts, {*range(len(items))}),
        "by_language": {
            language: _summary(mode, names, verdicts, {i for i, item in enumerate(items) if item[0].sample.language == language})
            for language in languages
        },
    }


def _summary(mode: str, names: Sequence[str], verdicts: Sequence[tuple[Match, list[int]]], items: Set[int]) -> dict[str, Any]:
    """The figures over some of the items."""
    own = [(match, ranking) for match, ranking in verdicts if match.item in items]
    return {"pairs": _pairs(names, own, len(items))} if mode == "pairwise" else {"ranks": _ranks(names, own)}


def _shared(runs: Sequence[Sequence[SampleResult]], wanted: str, seed: int, count: int | None) -> list[list[SampleResult]]:
    """The items that all runs answered, with a result of each run."""
    by_key = [{result.key: result for result in results if applies(result, wanted)} for results in runs]
    keys = [key for key in by_key[0] if all(key in other for other in by_key[1:])]
    for key in keys:
        if len({digest(found[key].sample.contents()) for found in by_key}) > 1:
            raise UsageError(f"{'/'.join(key)} is not the same question in all runs; compare runs on the same data")
    if count is not None:
        tasks: dict[str, list[tuple[str, str]]] = {}
        for key in keys:
            tasks.setdefault(key[0], []).append(key)
        keys = [
            key
            for task, members in tasks.items()
            for key in random.Random(f"{seed}/{task}").sample(members, min(count, len(members)))
        ]
    return [[found[key] for found in by_key] for key in keys]


def _matches(i: int, item: Sequence[SampleResult], settings: Settings, mode: str, judge: str) -> list[Match]:
    sample = item[0].sample
    rubric = RUBRICS[sample.language if settings.language == "item" else settings.language]
    texts = [rationale_of(result.output or "") for result in item]
    if mode == "ranking":
        order = [*range(len(item))]
        random.Random(f"{settings.seed}/{item[0].task}/{sample.id}").shuffle(order)
        orders = [tuple(order)]
    else:
        # Both ways round: who is named first must not win by that.
        orders = [order for pair in itertools.combinations(range(len(item)), 2) for order in (pair, pair[::-1])]
    return [
        Match(i, order, ask(sample, [texts[run] for run in order], rubric=rubric, shown=settings.shown, judge=judge))
        for order in orders
    ]


def _pairs(names: Sequence[str], verdicts: Sequence[tuple[Match, list[int]]], count: int) -> list[dict[str, Any]]:
    """For each pair: won, lost and tied items. A tie is an item on which the order of the texts changed the verdict."""
    best: dict[tuple[int, int], dict[int, list[int]]] = {}
    for match, ranking in verdicts:
        first, second = sorted(match.order)
        best.setdefault((first, second), {}).setdefault(match.item, []).append(ranking[0])
    pairs = []
    for first, second in itertools.combinations(range(len(names)), 2):
        both = [winners for winners in best.get((first, second), {}).values() if len(winners) == 2]
        points = [winners.count(first) / 2 for winners in both]
        low, high = bootstrap_mean([points]) if len(set(points)) > 1 else (None, None)
        pairs.append(
            {
                "runs": [names[first], names[second]],
                "won": points.count(1.0),
                "tied": points.count(0.5),
                "lost": points.count(0.0),
                "unread": count - len(both),
                "value": sum(points) / len(points) if points else None,
                "low": low,
                "high": high,
            }
        )
    return pairs


def _ranks(names: Sequence[str], verdicts: Sequence[tuple[Match, list[int]]]) -> list[dict[str, Any]]:
    """The mean rank of each run, 1 the best, with an interval over the items."""
    ranks = []
    for run, name in enumerate(names):
        own = [float(ranking.index(run) + 1) for _, ranking in verdicts]
        low, high = bootstrap_mean([own]) if len(set(own)) > 1 else (None, None)
        places = Counter(match.order.index(run) + 1 for match, _ in verdicts)
        ranks.append(
            {"run": name, "value": sum(own) / len(own) if own else None, "low": low, "high": high, "places": dict(places)}
        )
    return ranks
