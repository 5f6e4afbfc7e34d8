"""When to stop asking: a test of a run against a baseline whose answers may be looked at again and again (pure)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmedeval.gate import Answer, Rules
from mmedeval.outcomes import FAILED, RIGHT, UNSCORED, Outcomes
from mmedeval.paired import Counts
from mmedeval.types import SampleResult, digest

Key = tuple[str, str]

FIRST_LOOK = 50
# A look costs nothing, but a backend packs and shares the better the more it is asked at once.
GROWTH = 1.25
# What part of its capital a gambler may stake on one item; how much is best depends on how far apart the models are.
_STAKES = (0.95, 0.45, 0.2, 0.09, 0.04, 0.018)


def evidence(counts: Counts, mean: float) -> float:
    """The logarithm of what there is against "the mean difference is at most `mean`": the items gained beyond it.

    It is the capital of gamblers who each stake a fixed part of theirs on every next item being better than `mean`, in a game
    that is fair or worse where it is not: by Ville's inequality it ever reaches 1/a with probability a at most, however often
    one looks. Source: I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024)
    1-27, section 4 (here the wealth is the mean over stakes; the differences -1, 0, 1 are moved to 0, 1, 2).
    """
    if mean <= -1:
        return 0.0
    same = counts.n - counts.gained - counts.lost
    wealth = [
        counts.lost * math.log1p(-stake)
        + same * math.log1p(stake / (1 + mean) - stake)
        + counts.gained * math.log1p(2 * stake / (1 + mean) - stake)
        for stake in _STAKES
    ]
    top = max(wealth)
    return top + math.log(math.fsum(math.exp(each - top) for each in wealth) / len(wealth))


def bounds(counts: Counts, confidence: float) -> tuple[float, float]:
    """The ends of an interval for the mean difference (new less base), within -1..1, good at every look at once.

    `confidence` is the probability that no look's lower end lies above the mean of the population that the items are drawn from;
    and so for the upper end.
    """
    mirrored = Counts(n=counts.n, gained=counts.lost, lost=counts.gained)
    return _lower(counts, confidence), -_lower(mirrored, confidence)


def _lower(counts: Counts, confidence: float) -> float:
    """The smallest mean that is not refuted, by halves: the evidence against a mean falls as it rises."""
    needed = -math.log(1 - confidence)
    low, high = -1.0, counts.difference
    for _ in range(50):
        middle = (low + high) / 2
        if evidence(counts, middle) >= needed:
            low = middle
        else:
            high = middle
    return low


def answer(counts: Counts, rules: Rules) -> Answer:
    """Whether the model surely dropped by more than `max_drop`, or surely by less than `detect`; between them either may be said.

    Each is said where it is not so in at most 1 - confidence of the cases.
    """
    needed = -math.log(1 - rules.confidence)
    if evidence(Counts(n=counts.n, gained=counts.lost, lost=counts.gained), rules.max_drop / 100) >= needed:
        return "fails"
    return "holds" if evidence(counts, -rules.detect / 100) >= needed else "cannot tell"


def order(keys: Iterable[Key], seed: int) -> list[Key]:
    """The items in the order in which they are asked: drawn from the seed, all tasks mixed, whatever their place in the files."""
    shuffled = sorted(keys)
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
    """What a run is held against, and in which order it asks. `outcomes` are the baseline's letters."""

    baseline: str
    outcomes: Mapping[Key, str]
    order: Sequence[Key]
    rules: Rules

    @classmethod
    def against(cls, base: Outcomes, keys: Iterable[Key], rules: Rules, seed: int) -> StopRule:
        keys = list(keys)
        letters = {(name, item): letter for name, t in base.tasks.items() for item, letter in zip(t.ids, t.outcomes, strict=True)}
        outcomes = {key: letters[key] for key in keys}
        return cls(baseline=base.name, outcomes=outcomes, order=order(keys, seed), rules=rules)

    def identity(self) -> dict[str, Any]:
        """What makes this rule stop where it stops."""
        outcomes = [[*key, letter] for key, letter in sorted(self.outcomes.items())]
        return {"outcomes": digest(outcomes), **self._limits()}

    def _limits(self) -> dict[str, float]:
        return {name: getattr(self.rules, name) for name in ("max_drop", "detect", "confidence")}

    def blocks(self) -> list[Sequence[Key]]:
        """What is asked between two looks. A backend answers a block in an order of its own, which may have to do with how hard
        the items are: only a whole block is a fair draw."""
        ends = looks(len(self.order))
        return [self.order[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def counts(self, results: Mapping[Key, SampleResult], *, failed: bool = True) -> Counts:
        """What changed in the items that were asked; one without an answer is not right. `failed` ones can be left out."""
        n = gained = lost = 0
        for key, result in results.items():
            before, now = self.outcomes[key], result.right is True
            if UNSCORED in (before, "-" if result.status == "unscored" else ""):
                continue
            if not failed and (before == FAILED or result.status == "failed"):
                continue
            n += 1
            gained += now and before != RIGHT
            lost += before == RIGHT and not now
        return Counts(n=n, gained=gained, lost=lost)

    def look(self, results: Mapping[Key, SampleResult]) -> Answer:
        """What is certain after so many answers, with and without what failed: a server that is away is no proof."""
        found = {answer(self.counts(results, failed=failed), self.rules) for failed in (True, False)}
        return found.pop() if len(found) == 1 else "cannot tell"

    def report(self, results: Mapping[Key, SampleResult]) -> dict[str, Any]:
        """What the record says of the test. `difference` and its ends are shares; each end holds with `confidence`."""
        counts, asked = self.counts(results), len(results)
        low, high = bounds(counts, self.rules.confidence) if counts.n else (None, None)
        return {
            "baseline": self.baseline,
            **self._limits(),
            "answer": self.look(results),
            "asked": asked,
            "planned": len(self.order),
            "compared": counts.n,
            "gained": counts.gained,
            "lost": counts.lost,
            "failed": sum(result.status == "failed" for result in results.values()),
            "difference": counts.difference if counts.n else None,
            "low": low,
            "high": high,
        }


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
