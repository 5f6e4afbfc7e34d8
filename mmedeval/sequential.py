"""When to stop asking: a test of a run against a baseline whose answers may be looked at again and again."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from mmedeval.compare import refuse
from mmedeval.errors import UsageError
from mmedeval.gate import Answer, Rules
from mmedeval.outcomes import FAILED, RIGHT, UNSCORED, Outcomes, TaskOutcomes, read_outcomes
from mmedeval.types import RunPlan, SampleResult, digest

Key = tuple[str, str]
Question = tuple[str, str]
Changes = Mapping[float, int]
"""How many questions changed by how much: -1 lost, 0 as before, 1 gained; between them where several tasks ask a question."""

FIRST_LOOK = 50
# A look costs nothing, but a backend packs and shares the better the more it is asked at once.
GROWTH = 1.25
# What part of its capital a gambler may stake on one item; how much is best depends on how far apart the models are.
_STAKES = (0.95, 0.45, 0.2, 0.09, 0.04, 0.018)


def evidence(changes: Changes, mean: float) -> float:
    """The logarithm of what there is against "the mean difference is at most `mean`": what was gained beyond it.

    It is the capital of gamblers who each stake a fixed part of theirs on every next question being better than `mean`, in a game
    that is fair or worse where it is not: by Ville's inequality it ever reaches 1/a with probability a at most, however often
    one looks. Source: I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024)
    1-27, section 4 (here the wealth is the mean over stakes; differences from -1 to 1 are moved to 0 to 2).
    """
    if mean <= -1:
        return 0.0
    wealth = [
        math.fsum(count * math.log1p(stake * ((change + 1) / (1 + mean) - 1)) for change, count in changes.items())
        for stake in _STAKES
    ]
    top = max(wealth)
    return top + math.log(math.fsum(math.exp(each - top) for each in wealth) / len(wealth))


def mirrored(changes: Changes) -> Changes:
    """What was gained as lost, and the other way round."""
    return {-change: count for change, count in changes.items()}


def mean_change(changes: Changes) -> float:
    return math.fsum(change * count for change, count in changes.items()) / sum(changes.values())


def bounds(changes: Changes, confidence: float) -> tuple[float, float]:
    """The ends of an interval for the mean difference (new less base), within -1..1, good at every look at once.

    `confidence` is the probability that no look's lower end lies above the mean of the population that the questions are drawn
    from; and so for the upper end.
    """
    return _lower(changes, confidence), -_lower(mirrored(changes), confidence)


def _lower(changes: Changes, confidence: float) -> float:
    """The smallest mean that is not refuted, by halves: the evidence against a mean falls as it rises."""
    needed = -math.log(1 - confidence)
    low, high = -1.0, mean_change(changes)
    for _ in range(50):
        middle = (low + high) / 2
        if evidence(changes, middle) >= needed:
            low = middle
        else:
            high = middle
    return low


def answer(changes: Changes, rules: Rules) -> Answer:
    """Whether the model surely dropped by more than `max_drop`, or surely by less than `detect`; between them either may be said.

    Each is said where it is not so in at most 1 - confidence of the cases.
    """
    needed = -math.log(1 - rules.confidence)
    if evidence(mirrored(changes), rules.max_drop / 100) >= needed:
        return "fails"
    return "holds" if evidence(changes, -rules.detect / 100) >= needed else "cannot tell"


def order(questions: Iterable[Question], seed: int) -> list[Question]:
    """The questions in the order in which they are asked: drawn from the seed, all tasks mixed, wherever they stand in files."""
    shuffled = sorted({*questions})
    random.Random(f"{seed}/stop-early").shuffle(shuffled)
    return shuffled


def looks(items: int) -> list[int]:
    """After how many items the answers are looked at; the last time is when all were asked."""
    ends = [min(FIRST_LOOK, items)]
    while ends[-1] < items:
        ends.append(min(items, math.ceil(ends[-1] * GROWTH)))
    return ends


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """What a run is held against, and what it asks. `outcomes` are the baseline's letters."""

    baseline: str
    outcomes: Mapping[Key, str]
    questions: Mapping[Key, Question]
    """What each item asks: the same question in several languages is answered rightly or wrongly together, and counts once."""
    seed: int
    rules: Rules

    def identity(self) -> dict[str, Any]:
        """What makes this rule stop where it stops."""
        outcomes = [[*key, letter] for key, letter in sorted(self.outcomes.items())]
        return {"outcomes": digest(outcomes), **self._limits()}

    def _limits(self) -> dict[str, float]:
        return {name: getattr(self.rules, name) for name in ("max_drop", "detect", "confidence")}

    def blocks(self) -> list[list[Key]]:
        """What is asked between two looks: whole questions, as many as make the items of a look.

        A backend answers in an order of its own, which may have to do with how hard items are: only a whole block is a fair draw.
        """
        items: dict[Question, list[Key]] = {}
        for key, question in self.questions.items():
            items.setdefault(question, []).append(key)
        ends = iter(looks(len(self.questions)))
        blocks: list[list[Key]] = []
        asked, end = 0, 0
        for question in order(items, self.seed):
            if asked >= end:
                blocks.append([])
                end = next(each for each in ends if each > asked)
            blocks[-1] += items[question]
            asked += len(items[question])
        return blocks

    def changed(self, results: Mapping[Key, SampleResult], *, failed: bool = True) -> dict[Key, int]:
        """What became of the items that were asked; one without an answer is not right. `failed` ones can be left out."""
        found = {}
        for key, result in results.items():
            before = self.outcomes[key]
            if before == UNSCORED or result.status == "unscored":
                continue
            if failed or (before != FAILED and result.status != "failed"):
                found[key] = (result.right is True) - (before == RIGHT)
        return found

    def changes(self, results: Mapping[Key, SampleResult], *, failed: bool = True) -> Changes:
        by_question: dict[Question, list[int]] = {}
        for key, change in self.changed(results, failed=failed).items():
            by_question.setdefault(self.questions[key], []).append(change)
        return Counter(fmean(values) for values in by_question.values())

    def look(self, results: Mapping[Key, SampleResult]) -> Answer:
        """What is certain after so many answers, with and without what failed: a server that is away is no proof."""
        found = {answer(self.changes(results, failed=failed), self.rules) for failed in (True, False)}
        return found.pop() if len(found) == 1 else "cannot tell"

    def report(self, results: Mapping[Key, SampleResult]) -> dict[str, Any]:
        """What the record says of the test. `difference` and its ends are shares; each end holds with `confidence`."""
        changed, changes = self.changed(results).values(), self.changes(results)
        low, high = bounds(changes, self.rules.confidence) if changes else (None, None)
        return {
            "baseline": self.baseline,
            **self._limits(),
            "answer": self.look(results),
            "asked": len(results),
            "planned": len(self.questions),
            "questions": sum(changes.values()),
            "gained": sum(change == 1 for change in changed),
            "lost": sum(change == -1 for change in changed),
            "failed": sum(result.status == "failed" for result in results.values()),
            "difference": mean_change(changes) if changes else None,
            "low": low,
            "high": high,
        }


def make_stop_rule(
    plan: RunPlan, protocol: str, sampling: Mapping[str, Any] | None, tasks: Mapping[str, TaskOutcomes]
) -> StopRule:
    """The rule of `--stop-early` for these tasks. Raises `UsageError` where the baseline did not answer exactly them."""
    wanted = plan.stop_early
    assert wanted is not None
    rules = Rules(max_drop=wanted.max_drop, detect=wanted.detect, confidence=wanted.confidence)
    if plan.rotations is not None:
        raise UsageError("--stop-early asks as little as it can, --rotations everything several times; leave one of them out")
    if plan.model_args.get("batch") == "true":
        raise UsageError("--stop-early looks at answers as they come, and --batch waits up to a day for each part; leave one out")
    (base,) = read_outcomes([wanted.baseline])
    planned = Outcomes(
        name="this run",
        path=wanted.baseline,
        model=plan.model,
        protocol=protocol,
        shots=plan.shots,
        sampling=sampling,
        metric_args=base.metric_args,
        fingerprint="",
        made="",
        tasks=tasks,
        figures=(),
    )
    # A baseline may hold more tasks than are looked at here.
    base = replace(base, tasks={name: about for name, about in base.tasks.items() if name in tasks})
    refuse(base, planned, hint="ask as the baseline was asked, or name another one with --baseline")
    letters = {(name, item): letter for name, t in base.tasks.items() for item, letter in zip(t.ids, t.outcomes, strict=True)}
    outcomes = {(name, item): letters[name, item] for name, task in tasks.items() for item in task.ids}
    return StopRule(baseline=base.name, outcomes=outcomes, questions=_questions(tasks), seed=plan.seed, rules=rules)


def _questions(tasks: Mapping[str, TaskOutcomes]) -> dict[Key, Question]:
    """The question of each item: the item itself, or what the tasks of its group share."""
    found = {}
    for name, task in tasks.items():
        for item, mark in zip(task.ids, task.parallel or [None] * len(task.ids), strict=True):
            found[name, item] = (name, f"item {item}") if mark is None else (task.group or name, f"shared {mark}")
    return found


def stop_sentence(found: Mapping[str, Any]) -> str:
    """The outcome of the test in one sentence."""
    asked, planned, base = found["asked"], found["planned"], found["baseline"]
    sure = f"{100 * found['confidence']:g} % sure"
    what = {
        "fails": f"accuracy fell by more than {found['max_drop']:g} points against {base} ({sure})",
        "holds": f"accuracy did not fall by {found['detect']:g} points or more against {base} ({sure})",
        "cannot tell": f"it is not certain how accuracy compares with {base}",
    }[found["answer"]]
    when = f"after {asked} of {planned} items" if asked < planned else f"after all {planned} items"
    if found["difference"] is None:
        return f"{what} {when}, none of which can be compared"
    ends = f"{100 * found['difference']:+.1f} points, {100 * found['low']:+.1f} to {100 * found['high']:+.1f}"
    failed = f", {found['failed']} failed" if found["failed"] else ""
    return f"{what} {when}: {ends} ({found['gained']} gained, {found['lost']} lost{failed})"
