"""Statistics of two runs over the same items (pure, no packages)."""

from __future__ import annotations

import bisect
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from mmedeval.stats import bootstrap_clustered, quantile

DRAWS = 5_000
# Whole rows are resampled value by value, which takes longer.
CLUSTER_DRAWS = 2_000
# A run may have a dozen metrics in six languages.
METRIC_DRAWS = 1_000
MOST_RESAMPLED = 200
# So many sums are gone through one by one; beyond, the saddlepoint is as good as exact.
MOST_SUMS = 20_000
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Counts:
    """`gained` of `n` items are right in the new run alone, `lost` in the base run alone."""

    n: int
    gained: int
    lost: int

    @property
    def difference(self) -> float:
        return (self.gained - self.lost) / self.n

    @property
    def changed(self) -> int:
        return self.gained + self.lost


# --- one task ---


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p of McNemar's test: of the items that changed, each is as likely gained as lost.

    Source: Q. McNemar, Psychometrika 12 (1947) 153-157; exact by the binomial distribution.
    """
    return min(1.0, 2 * _upper_tail(max(gained, lost), gained + lost))


def _upper_tail(k: int, n: int) -> float:
    """P(X >= k) of a binomial X with n trials of 1/2, exactly."""
    total, ways = 0, math.comb(n, k)
    for i in range(k, n + 1):
        total += ways
        ways = ways * (n - i) // (i + 1)
    return total / (1 << n)


def score_interval(counts: Counts, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's score interval for a difference of paired proportions, within -1..1.

    It holds its level with few items too, and items none of which changed do not pass for certainty, as in a bootstrap.
    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998) 891-908.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    n, difference = counts.n, counts.difference

    def score(delta: float) -> float:
        b = -counts.changed + (2 * n - counts.gained + counts.lost) * delta
        c = -counts.lost * delta * (1 - delta)
        lost = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * lost + delta * (1 - delta))
        distance = n * (difference - delta)
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)

    low = -1.0 if difference == -1 else _root(lambda delta: z - score(delta), -1.0, difference)
    high = 1.0 if difference == 1 else _root(lambda delta: -z - score(delta), difference, 1.0)
    return low, high


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is 0, by halves."""
    for _ in range(60):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def cohens_g(gained: int, lost: int) -> float | None:
    """Of the items that changed, the share that was gained, less a half: -0.5 to 0.5. `None` where none changed.

    Cohen calls 0.05 small, 0.15 medium, 0.25 large. Source: J. Cohen, "Statistical Power Analysis for the Behavioral Sciences"
    (1988), chapter 5.
    """
    return gained / (gained + lost) - 0.5 if gained + lost else None


# --- several tasks ---


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number, so that any is wrong at most as often as one alone would be.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed between two runs over several tasks, for the plain mean of the tasks' differences.

    `rows` has a row per question and a column per task where the tasks share questions (`None`: not asked there), each value
    1 (gained), 0 or -1 (lost); else it is `None`, and the items are independent.
    """

    tasks: tuple[Counts, ...]
    rows: Sequence[Sequence[float | None]] | None = None

    @property
    def difference(self) -> float:
        return math.fsum(task.difference for task in self.tasks) / len(self.tasks)

    def weights(self) -> tuple[Counter[int], int]:
        """How often each weight changed sides together, in units of 1 / (returned scale); a question's weights are summed."""
        unit = math.lcm(*(task.n for task in self.tasks))
        steps = [unit // task.n for task in self.tasks]
        if self.rows is None:
            signed = [(step, task.gained) for step, task in zip(steps, self.tasks, strict=True)]
            signed += [(-step, task.lost) for step, task in zip(steps, self.tasks, strict=True)]
        else:
            sums = (
                sum(round(value) * step for value, step in zip(row, steps, strict=True) if value is not None) for row in self.rows
            )
            signed = [(each, 1) for each in sums]
        counted: Counter[int] = Counter()
        for weight, times in signed:
            if weight and times:
                counted[weight] += times
        return counted, unit * len(self.tasks)


def two_sided(changes: Changes) -> float:
    """The p of the mean difference, by flipping signs; with one task it is McNemar's exact test.

    If the runs are equally good, each question that changed might as well have changed the other way; p is how often so large
    a difference, either way, comes of that. Few sums are gone through one by one; else the tail is a saddlepoint approximation,
    good to a few per cent of itself. Source: J. Robinson, "Saddlepoint approximations for permutation tests and confidence
    intervals", Journal of the Royal Statistical Society B 44 (1982) 91-101.
    """
    if len(changes.tasks) == 1:
        (task,) = changes.tasks
        return mcnemar(task.gained, task.lost)
    sizes, observed = _flips(changes)
    sums = _all_sums(sizes)
    if sums is None:
        return min(1.0, 2 * _saddlepoint_tail(sizes, abs(observed)))
    return min(1.0, math.fsum(p for total, p in sums.items() if abs(total) >= abs(observed)))


def of_a_drop(changes: Changes) -> float:
    """The one-sided mid-p of a drop, by flipping signs: of a drop just as large as that seen, one half counts.

    The exact p makes a test that fails good runs less often than it says, and misses bad ones for it; with the mid-p the level
    is kept as well wherever no more than half of the items change. Source: M. W. Fagerland, S. Lydersen, P. Laake, "The McNemar
    test for binary matched-pairs data: mid-p and asymptotic are better than exact conditional", BMC Medical Research Methodology
    13 (2013) 91.
    """
    if len(changes.tasks) == 1:
        (task,) = changes.tasks
        return (_upper_tail(task.lost, task.changed) + _upper_tail(task.lost + 1, task.changed)) / 2
    sizes, observed = _flips(changes)
    sums = _all_sums(sizes)
    if sums is None:
        return _saddlepoint_tail(sizes, -observed)
    return math.fsum(p if total < observed else p / 2 for total, p in sums.items() if total <= observed)


def _flips(changes: Changes) -> tuple[Counter[int], int]:
    """How many questions weigh how much, whichever way they changed; and what they come to as they did."""
    weights, _ = changes.weights()
    sizes: Counter[int] = Counter()
    for weight, times in weights.items():
        sizes[abs(weight)] += times
    return sizes, sum(weight * times for weight, times in weights.items())


def _all_sums(sizes: Mapping[int, int]) -> dict[int, float] | None:
    """The probability of each sum of weights with signs drawn by a fair coin; `None` where there are too many."""
    sums: dict[int, float] = {0: 1.0}
    for size, times in sizes.items():
        if len(sums) * (times + 1) > MOST_SUMS:
            return None
        coins = [
            (size * (2 * heads - times), math.exp(_log_choose(times, heads) - times * math.log(2))) for heads in range(times + 1)
        ]
        longer: dict[int, float] = {}
        for total, p in sums.items():
            for step, chance in coins:
                longer[total + step] = longer.get(total + step, 0.0) + p * chance
        sums = longer
    return sums


def _saddlepoint_tail(sizes: Mapping[int, int], at: int) -> float:
    """P(sum >= at) of weights with signs drawn by a fair coin, by Lugannani and Rice's formula."""
    if at < 0:
        return 1 - _saddlepoint_tail(sizes, -at)
    # In units of the standard deviation.
    unit = math.sqrt(sum(times * size * size for size, times in sizes.items()))
    scaled = [(size / unit, times) for size, times in sizes.items()]
    x = at / unit
    most = math.fsum(size * times for size, times in scaled)
    if x < 1e-3:
        return 0.5
    if x > most * (1 - 1e-9):
        return 0.5 ** sum(sizes.values())
    high = 1.0
    while math.fsum(times * size * math.tanh(high * size) for size, times in scaled) < x:
        high *= 2
    t = _root(lambda t: math.fsum(times * size * math.tanh(t * size) for size, times in scaled) - x, 0.0, high)
    generating = math.fsum(times * _log_cosh(t * size) for size, times in scaled)
    curvature = math.fsum(times * size * size * (1 - math.tanh(t * size) ** 2) for size, times in scaled)
    r, v = math.sqrt(2 * (t * x - generating)), t * math.sqrt(curvature)
    normal = NormalDist()
    return min(1.0, max(0.0, normal.cdf(-r) + normal.pdf(r) * (1 / v - 1 / r)))


def _log_cosh(x: float) -> float:
    return x + math.log1p(math.exp(-2 * x)) - math.log(2)


def interval(changes: Changes, confidence: float = 0.95, *, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """The interval of the mean difference: Tango's for one task, for several a bootstrap, at each end or wider.

    A resample holds no change that the items do not show: where one was gained and none lost, no bootstrap knows of a loss. So
    an end is never nearer than that made of the tasks' own ends.
    """
    if len(changes.tasks) == 1:
        return score_interval(changes.tasks[0], confidence)
    low, high = from_tasks(changes, confidence)
    if not any(task.changed for task in changes.tasks):
        return low, high
    lowest, highest = bootstrapped(changes, confidence, draws=draws, seed=seed)
    return min(low, lowest), max(high, highest)


def from_tasks(changes: Changes, confidence: float) -> tuple[float, float]:
    """The interval of a mean of differences from each one's own: the distances to their ends are summed as variances are.

    Source: G. Y. Zou, A. Donner, "Construction of confidence limits about effect measures: a general approach", Statistics in
    Medicine 27 (2008) 1693-1702. Where the tasks share questions these distances grow as the variance does, counted as if one
    more question had changed in all tasks: what few changes cannot tell is taken as if the tasks changed together.
    """
    k = len(changes.tasks)
    ends = [(task.difference, *score_interval(task, confidence)) for task in changes.tasks]
    wider = 1.0
    if changes.rows is not None:
        weights, scale = changes.weights()
        together = sum(times * weight * weight for weight, times in weights.items()) / scale**2
        apart = math.fsum(task.changed / (k * task.n) ** 2 for task in changes.tasks)
        together += math.fsum(1 / (k * task.n) for task in changes.tasks) ** 2
        apart += math.fsum(1 / (k * task.n) ** 2 for task in changes.tasks)
        wider = math.sqrt(max(1.0, together / apart))
    below = wider * math.hypot(*(value - low for value, low, _ in ends)) / k
    above = wider * math.hypot(*(high - value for value, _, high in ends)) / k
    return max(-1.0, changes.difference - below), min(1.0, changes.difference + above)


def bootstrapped(changes: Changes, confidence: float = 0.95, *, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """A percentile bootstrap stratified by task; questions that the tasks share are resampled as a whole."""
    if changes.rows is not None:
        return bootstrap_clustered(changes.rows, confidence=confidence, draws=min(draws, CLUSTER_DRAWS), seed=seed)
    generator = random.Random(seed)
    columns = [_resampled(task, draws, generator) for task in changes.tasks]
    means = sorted(sum(column) / len(columns) for column in zip(*columns, strict=True))
    return quantile(means, (1 - confidence) / 2), quantile(means, (1 + confidence) / 2)


def _resampled(counts: Counts, draws: int, generator: random.Random) -> list[float]:
    """The differences of `draws` resamples of the items: so many of them changed, and of these so many were gained."""
    if not counts.changed:
        return [0.0] * draws
    changed = _Binomial(counts.n, counts.changed / counts.n)
    gained: dict[int, _Binomial] = {}
    found = []
    for _ in range(draws):
        d = changed.draw(generator)
        if d not in gained:
            gained[d] = _Binomial(d, counts.gained / counts.changed)
        found.append((2 * gained[d].draw(generator) - d) / counts.n)
    return found


def resampled_means(values: Sequence[float], seed: int = 0) -> list[float]:
    """Means of resamples. Those of many items are normal for all that an interval can show (central limit theorem)."""
    generator, n = random.Random(seed), len(values)
    if n <= MOST_RESAMPLED:
        return [sum(generator.choices(values, k=n)) / n for _ in range(METRIC_DRAWS)]
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values)) / n
    return [generator.gauss(mean, error) for _ in range(METRIC_DRAWS)]


class _Binomial:
    """Draws of a binomial number, by its distribution function; what is rarer than one in 10^12 or so is left out."""

    def __init__(self, n: int, p: float) -> None:
        spread = 8 * math.sqrt(n * p * (1 - p)) + 20
        self.lowest = max(0, math.floor(n * p - spread))
        highest = min(n, math.ceil(n * p + spread))
        if p in (0.0, 1.0):
            self.lowest = highest = round(n * p)
        self.table: list[float] = []
        total = 0.0
        # From one value to the next by their ratio; only the first needs logarithms.
        each = 1.0
        if highest > self.lowest:
            k = self.lowest
            each = math.exp(_log_choose(n, k) + k * math.log(p) + (n - k) * math.log1p(-p))
        for k in range(self.lowest, highest + 1):
            total += each
            self.table.append(total)
            if k < n and p < 1:
                each *= (n - k) / (k + 1) * (p / (1 - p))

    def draw(self, generator: random.Random) -> int:
        # Of the whole that is in the table, which rounding leaves a hair off 1.
        return self.lowest + min(bisect.bisect_right(self.table, generator.random() * self.table[-1]), len(self.table) - 1)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def smallest_drop(changes: Changes, alpha: float = 0.05, *, sides: int = 2, power: float = POWER) -> float | None:
    """The smallest drop that these items show with this power, if as many items change in each task as did here.

    `None` where even the loss of all items would be missed. For one task it is the sample size formula for McNemar's test, solved
    for the difference: R. J. Connor, Biometrics 43 (1987) 207-211. Of several tasks each drops alike; where they share
    questions, the variance is so much larger as it was here.
    """
    quantiles = NormalDist()
    z_alpha, z_power = quantiles.inv_cdf(1 - alpha / sides), quantiles.inv_cdf(power)
    k = len(changes.tasks)
    weights, scale = changes.weights()
    together = sum(times * weight * weight for weight, times in weights.items()) / scale**2
    apart = math.fsum(task.changed / (k * task.n) ** 2 for task in changes.tasks)
    design = together / apart if changes.rows is not None and apart and together else 1.0

    def excess(drop: float) -> float:
        # A drop needs as many items that changed, at the least.
        rates = [(max(task.changed / task.n, drop), task.n) for task in changes.tasks]
        null = design * math.fsum(rate / n for rate, n in rates) / k**2
        true = design * math.fsum((rate - drop * drop) / n for rate, n in rates) / k**2
        return drop - z_alpha * math.sqrt(null) - z_power * math.sqrt(max(0.0, true))

    return None if excess(1.0) < 0 else _root(excess, 0.0, 1.0)
