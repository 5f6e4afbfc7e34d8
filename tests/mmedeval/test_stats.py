"""Intervals against scipy's, and against what their names promise: how often they hold the truth."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from mmedeval.stats import bootstrap_mean, wilson


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [1, 2, 7, 30, 622, 8518])
def test_wilson_is_scipys_interval(n: int, confidence: float) -> None:
    for successes in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        expected = stats.binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
        low, high = wilson(successes, n, confidence)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert 0 <= low <= successes / n <= high <= 1


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_an_interval_at_the_end_of_the_scale_includes_the_end() -> None:
    for n in range(1, 200):
        assert wilson(0, n)[0] == 0.0
        assert wilson(n, n)[1] == 1.0


@pytest.mark.parametrize(
    "values",
    [[0.1 * i * i % 97 for i in range(150)], [float(i % 3 == 0) for i in range(150)]],
    ids=["text metric", "right or wrong"],
)
def test_the_bootstrap_of_one_task_is_scipys_percentile_interval(values: list[float]) -> None:
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0), batch=2000
    ).confidence_interval
    low, high = bootstrap_mean([values])
    # Both are drawn: their ends differ by far less than the interval is wide.
    margin = 0.03 * (expected.high - expected.low)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=margin)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_bootstrap_interval_narrows_with_its_confidence_as_the_normal_one(confidence: float) -> None:
    generator = random.Random(2)
    values = [generator.gauss(50, 10) for _ in range(400)]
    low, high = bootstrap_mean([values], confidence=confidence)
    half = stats.norm.ppf(0.5 + confidence / 2) * np.std(values) / np.sqrt(len(values))
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)


def one_resample(values: Sequence[float], seed: int) -> float:
    """The mean of a single resample: an interval over one draw is that draw."""
    low, high = bootstrap_mean([values], draws=1, seed=seed)
    assert low == high
    return low


def test_the_binomial_shortcut_draws_the_same_means_as_plain_resampling() -> None:
    n, ones, draws = 12, 4, 4000
    zeros_and_ones = [1.0] * ones + [0.0] * (n - ones)
    shifted = [value + 1 for value in zeros_and_ones]  # the same spread, but not 0/1: resampled item by item
    short = Counter(round(one_resample(zeros_and_ones, seed) * n) for seed in range(draws))
    plain = Counter(round((one_resample(shifted, seed) - 1) * n) for seed in range(draws))
    expected = stats.binom.pmf(range(n + 1), n, ones / n) * draws
    cells = [[0, 1], [2], [3], [4], [5], [6], [7], [*range(8, n + 1)]]

    def pooled(counts: Callable[[int], float]) -> list[float]:
        return [sum(counts(k) for k in cell) for cell in cells]

    assert stats.chisquare(pooled(lambda k: short[k]), pooled(lambda k: expected[k])).pvalue > 0.001
    assert stats.chisquare(pooled(lambda k: plain[k]), pooled(lambda k: expected[k])).pvalue > 0.001


@pytest.mark.parametrize(("ones", "n"), [(1, 100_000), (50_000, 100_000), (99_999, 100_000)])
def test_the_binomial_shortcut_holds_at_large_numbers(ones: int, n: int) -> None:
    """Neither under- nor overflow: the ends are the quantiles of the binomial distribution."""
    low, high = bootstrap_mean([[1.0] * ones + [0.0] * (n - ones)])
    exact = stats.binom(n, ones / n)
    spread = max(exact.std(), 1)
    assert low * n == pytest.approx(exact.ppf(0.025), abs=0.2 * spread)
    assert high * n == pytest.approx(exact.ppf(0.975), abs=0.2 * spread)


def coverage(draw: Callable[[random.Random], list[list[float]]], truth: float, trials: int, draws: int) -> float:
    held = 0
    for trial in range(trials):
        low, high = bootstrap_mean(draw(random.Random(trial)), draws=draws, seed=trial)
        held += low <= truth <= high
    return held / trials


def test_the_interval_of_a_text_metric_holds_the_true_mean_in_95_of_100_samples() -> None:
    share = coverage(lambda r: [[r.gammavariate(4, 10) for _ in range(80)]], truth=40, trials=400, draws=400)
    assert 0.92 <= share <= 0.975


def test_the_interval_of_an_average_over_languages_holds_the_true_mean_of_their_means() -> None:
    """Languages of very different sizes and accuracies: the plain mean of the six, not the mean over all items."""
    sizes, chances = (400, 150, 40, 60, 30, 300), (0.95, 0.3, 0.5, 0.6, 0.7, 0.35)

    def draw(r: random.Random) -> list[list[float]]:
        return [[float(r.random() < p) for _ in range(n)] for n, p in zip(sizes, chances, strict=True)]

    share = coverage(draw, truth=sum(chances) / 6, trials=400, draws=400)
    assert 0.92 <= share <= 0.975
    pooled = sum(n * p for n, p in zip(sizes, chances, strict=True)) / sum(sizes)
    assert coverage(draw, truth=pooled, trials=100, draws=400) < 0.6


def test_strata_are_averaged_plainly_whatever_their_sizes() -> None:
    assert bootstrap_mean([[1.0] * 1000, [0.0]]) == (0.5, 0.5)
    assert bootstrap_mean([[30.0, 30.0], [60.0], [90.0] * 9]) == (60.0, 60.0)


def test_each_stratum_is_resampled_within_itself() -> None:
    """The variance of an average is the mean variance of its parts over their number, not that of the pooled items."""
    near, far = [10.0, 11.0] * 50, [90.0, 91.0] * 50
    low, high = bootstrap_mean([near, far])
    expected = stats.norm.ppf(0.975) * np.sqrt((np.var(near) / 100 + np.var(far) / 100) / 4)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.3], 0.3), ([7.0] * 40, 7.0), ([1.0], 1.0), ([0.0] * 9, 0.0), ([1.0] * 9, 1.0), ([-2.5, -2.5], -2.5)],
)
def test_values_that_do_not_vary_have_an_interval_of_no_width(values: list[float], expected: float) -> None:
    assert bootstrap_mean([values]) == pytest.approx((expected, expected))


def test_the_same_values_have_the_same_interval_and_another_seed_a_slightly_different_one() -> None:
    generator = random.Random(3)
    values = [generator.gauss(0, 1) for _ in range(50)]
    assert bootstrap_mean([values]) == bootstrap_mean([values])
    assert bootstrap_mean([values], seed=1) != bootstrap_mean([values])


@pytest.mark.parametrize("values", [[1.0] * 400 + [0.5], [0.0] * 400 + [0.5]])
def test_no_interval_goes_beyond_what_a_mean_of_its_values_can_be(values: list[float]) -> None:
    low, high = bootstrap_mean([values])
    assert min(values) <= low < high <= max(values)


def test_very_many_items_get_an_interval_as_wide_as_theory_says() -> None:
    values = [(i * 7919 % 1000) / 10 for i in range(6000)]
    low, high = bootstrap_mean([values])
    half = stats.norm.ppf(0.975) * np.std(values) / np.sqrt(len(values))
    assert (high - low) / 2 == pytest.approx(half, rel=0.06)
    assert low < sum(values) / len(values) < high
