"""Intervals for proportions and means (pure, no packages)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist

DRAWS = 10_000
# Resampling stays within about a second.
MOST_STEPS = 3_000_000


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion. Returns (low, high) within 0..1; (0, 1) where n is 0.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927) 209-212.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the exact value is 0 or 1; rounding must not leave the proportion outside of its own interval.
    return (0.0 if successes == 0 else max(0.0, centre - half), 1.0 if successes == n else min(1.0, centre + half))


def bootstrap_mean(
    strata: Sequence[Sequence[float]], *, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval for the plain mean of the strata's means, items resampled within each stratum.

    With one stratum it is the interval of an ordinary mean. Every stratum must hold at least one value.
    Source: B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap" (1993), sections 8.3 and 13.3.
    """
    generator = random.Random(seed)
    columns = [_resampled_means(values, draws, generator) for values in strata]
    means = sorted(sum(column) / len(columns) for column in zip(*columns, strict=True))
    return quantile(means, (1 - confidence) / 2), quantile(means, (1 + confidence) / 2)


def bootstrap_clustered(
    clusters: Sequence[Sequence[float | None]], *, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval for the plain mean of column means, whole rows resampled.

    For items that belong together, such as one question in several languages (a column each; `None` where it has no score):
    they are right or wrong together, and taking them for independent would make the interval too narrow. Every column must
    hold at least one value. Source: A. C. Davison, D. V. Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.
    """
    generator = random.Random(seed)
    columns = len(clusters[0])
    means: list[float] = []
    for _ in range(max(500, min(draws, MOST_STEPS // (len(clusters) * columns)))):
        chosen = generator.choices(clusters, k=len(clusters))
        scored = [[value for row in chosen if (value := row[i]) is not None] for i in range(columns)]
        # A column without a value in this draw has no mean; with a few questions that can happen, and the draw tells nothing.
        if all(scored):
            means.append(sum(sum(column) / len(column) for column in scored) / columns)
    means.sort()
    return quantile(means, (1 - confidence) / 2), quantile(means, (1 + confidence) / 2)


def _resampled_means(values: Sequence[float], draws: int, generator: random.Random) -> list[float]:
    """Means of `draws` resamples. Of 0/1 values the number of ones is binomial: drawn so, it costs one step, not n."""
    n = len(values)
    if set(values) <= {0.0, 1.0}:
        table = _binomial_table(n, sum(values) / n)
        return [_bisect(table, generator.random()) / n for _ in range(draws)]
    if n * draws > MOST_STEPS:
        # Means of so many items are normal for all that an interval can show (central limit theorem).
        mean = math.fsum(values) / n
        error = math.sqrt(math.fsum((value - mean) ** 2 for value in values)) / n
        # But no mean lies outside of its values.
        low, high = min(values), max(values)
        return [min(high, max(low, generator.gauss(mean, error))) for _ in range(draws)]
    return [sum(generator.choices(values, k=n)) / n for _ in range(draws)]


def _binomial_table(n: int, p: float) -> list[float]:
    """P(X <= k) for k = 0..n, from logarithms, so that large n neither under- nor overflows."""
    if p in (0.0, 1.0):
        return [0.0] * n + [1.0] if p == 1.0 else [1.0] * (n + 1)
    table, total = [], 0.0
    for k in range(n + 1):
        log_choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        total += math.exp(log_choose + k * math.log(p) + (n - k) * math.log1p(-p))
        table.append(total)
    return table


def _bisect(table: Sequence[float], u: float) -> int:
    """The smallest k with table[k] > u; rounding may leave the last entry a hair under 1."""
    low, high = 0, len(table) - 1
    while low < high:
        middle = (low + high) // 2
        if table[middle] > u:
            high = middle
        else:
            low = middle + 1
    return low


def quantile(ordered: Sequence[float], q: float) -> float:
    """Linear interpolation between order statistics (type 7 of Hyndman and Fan, numpy's default)."""
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
