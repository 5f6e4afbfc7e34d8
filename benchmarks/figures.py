"""What was measured, as frozen values, and whether the two arms say the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import median
from typing import Any

from workloads import Workload

# How far two loglikelihoods of the same option may lie apart.
TOLERANCE = 1e-4


class BenchmarkError(Exception):
    """A workload could not be measured; the others go on."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One arm on one workload: seconds of each run, and peak memory over all. `startup` and `load` are of the worker."""

    walls: tuple[float, ...]
    cpus: tuple[float, ...]
    peak_bytes: int
    startup: float | None = None
    load: float | None = None

    @property
    def wall(self) -> float:
        return median(self.walls)

    @property
    def cpu(self) -> float:
        return median(self.cpus)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """`equal` is the share of the `compared` items with the same choice, or text; `largest` the difference of two scores."""

    compared: int
    equal: float
    largest: float | None = None

    @property
    def holds(self) -> bool:
        return self.compared > 0 and self.equal == 1 and (self.largest is None or self.largest <= TOLERANCE)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """`flops` that cannot be avoided; `rates` are operations a second, measured beside each run."""

    distinct_tokens: int
    flops: int
    rates: tuple[float, ...]

    @property
    def rate(self) -> float:
        return median(self.rates)

    @property
    def seconds(self) -> float:
        return self.flops / self.rate


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`tried` maps lm-eval's batch sizes to seconds on a part of the workload. `how` is what our backend says of its way."""

    workload: Workload
    batch: int
    tried: Mapping[int, float]
    ours: Side
    theirs: Side
    agreement: Agreement
    floor: Floor | None = None
    how: Mapping[str, Any] = field(default_factory=dict)
    tokens_out: int | None = None

    @property
    def ratios(self) -> list[float]:
        """lm-eval's wall time over ours, run by run."""
        return [theirs / ours for theirs, ours in zip(self.theirs.walls, self.ours.walls, strict=True)]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def distance(self) -> float | None:
        """Our wall time over the floor at the rate beside it, run by run; the median."""
        if self.floor is None:
            return None
        return median(wall * rate / self.floor.flops for wall, rate in zip(self.ours.walls, self.floor.rates, strict=True))


@dataclass(frozen=True, kw_only=True)
class Failed:
    workload: Workload
    error: str


def compare_scores(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Agreement:
    """Item by item, option by option. Raises `BenchmarkError` where there is not one score for each."""
    if [len(values) for values in ours] != [len(values) for values in theirs]:
        raise BenchmarkError(f"the arms do not score the same: {len(ours)} items with us, {len(theirs)} with lm-eval")
    differences = [abs(a - b) for a, b in zip(chain(*ours), chain(*theirs), strict=True)]
    # `max` passes over what is no number.
    largest = max(differences, default=0.0) if all(map(math.isfinite, differences)) else math.inf
    same = sum(_best(a) == _best(b) for a, b in zip(ours, theirs, strict=True))
    return Agreement(compared=len(ours), equal=same / max(1, len(ours)), largest=largest)


def compare_texts(ours: Sequence[str], theirs: Sequence[str]) -> Agreement:
    if len(ours) != len(theirs):
        raise BenchmarkError(f"{len(ours)} texts with us, {len(theirs)} with lm-eval")
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return Agreement(compared=len(ours), equal=same / max(1, len(ours)))


def worst(agreements: Sequence[Agreement]) -> Agreement:
    """Of several runs of the same workload."""
    differences = [each.largest for each in agreements if each.largest is not None]
    return Agreement(
        compared=min(each.compared for each in agreements),
        equal=min(each.equal for each in agreements),
        largest=max(differences, default=None),
    )


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])
