"""When to stop asking: a test of a run against a baseline whose answers may be looked at again and again (pure)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmedeval.outcomes import FAILED, RIGHT, UNSCORED, Outcomes
from mmedeval.paired import Counts
from mmedeval.types import SampleResult, digest

Verdict = Literal["dropped", "held"]
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


def sequential_interval(counts: Counts, confidence: float) -> tuple[float, float]:
    """An interval for the mean difference (new less base) that holds at every look at once, within -1..1.

    `confidence` is the probability that no look's interval misses the mean of the population that the items are drawn from.
    """
    mirrored = Counts(n=counts.n, gained=counts.lost, lost=counts.gained)
    return _lower(counts, confidence), -_lower(mirrored, confidence)


def _lower(counts: Counts, confidence: float) -> float:
    """The smallest mean that is not refuted, by halves: the evidence against a mean falls as it rises."""
    needed = math.log(2 / (1 - confidence))
    low, high = -1.0, counts.difference
    if evidence(counts, high) >= needed:
        return high
    for _ in range(50):
        middle = (low + high) / 2
        if evidence(counts, middle) >= needed:
            low = middle
        else:
            high = middle
    return low


def verdict(counts: Counts, max_drop: float, confidence: float) -> Verdict | None:
    """Whether the model surely dropped by more than `max_drop` (a share), or surely did not; `None` while neither is certain."""
    needed = math.log(2 / (1 - confidence))
    if evidence(counts, -max_drop) >= needed:
        return "held"
    if evidence(Counts(n=counts.n, gained=counts.lost, lost=counts.gained), max_drop) >= needed:
        return "dropped"
    return None


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
    """What a run is held against, and in which order it asks. `max_drop` is a share; `outcomes` are the baseline's letters."""

    baseline: str
    outcomes: Mapping[Key, str]
    order: Sequence[Key]
    max_drop: float
    confidence: float

    @classmethod
    def against(cls, base: Outcomes, keys: Iterable[Key], *, max_drop: float, confidence: float, seed: int) -> StopRule:
        keys = list(keys)
        letters = {(name, item): letter for name, t in base.tasks.items() for item, letter in zip(t.ids, t.outcomes, strict=True)}
        outcomes = {key: letters[key] for key in keys}
        return cls(baseline=base.name, outcomes=outcomes, order=order(keys, seed), max_drop=max_drop, confidence=confidence)

    def identity(self) -> dict[str, Any]:
        """What makes this rule stop where it stops."""
        outcomes = [[*key, letter] for key, letter in sorted(self.outcomes.items())]
        return {"outcomes": digest(outcomes), "max_drop": self.max_drop, "confidence": self.confidence}

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

    def look(self, results: Mapping[Key, SampleResult]) -> Verdict | None:
        """The verdict on what was answered so far. A server that is away is no proof: it stands with and without what failed."""
        found = verdict(self.counts(results), self.max_drop, self.confidence)
        return found if found == verdict(self.counts(results, failed=False), self.max_drop, self.confidence) else None

    def report(self, results: Mapping[Key, SampleResult]) -> dict[str, Any]:
        """What the record says of the test."""
        counts, asked = self.counts(results), len(results)
        low, high = sequential_interval(counts, self.confidence)
        return {
            "baseline": self.baseline,
            "max_drop": self.max_drop,
            "confidence": self.confidence,
            "verdict": self.look(results),
            "asked": asked,
            "planned": len(self.order),
            "compared": counts.n,
            "gained": counts.gained,
            "lost": counts.lost,
            "failed": sum(result.status == "failed" for result in results.values()),
            "difference": counts.difference if counts.n else None,
            "low": low if counts.n else None,
            "high": high if counts.n else None,
        }


def stop_sentence(found: Mapping[str, Any]) -> str:
    """The outcome of the test in one sentence."""
    allowed, sure = f"{100 * found['max_drop']:g} points", f"{100 * found['confidence']:g} %"
    asked, planned = found["asked"], found["planned"]
    after = f"after {asked} of {planned} items" if asked < planned else f"all {planned} items were asked"
    if found["verdict"] is None:
        what = f"it cannot be told whether it dropped by more than {allowed} against {found['baseline']}"
    else:
        so = "dropped" if found["verdict"] == "dropped" else "did not drop"
        what = f"it {so} by more than {allowed} against {found['baseline']} ({sure} sure)"
    if found["difference"] is None:
        return f"{what}; {after}, none of which can be compared"
    bounds = f"{100 * found['difference']:+.1f} points ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"
    failed = f", {found['failed']} failed" if found["failed"] else ""
    return f"{what}: {bounds}, {after}, {found['gained']} gained and {found['lost']} lost{failed}"
