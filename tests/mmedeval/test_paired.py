"""The statistics of paired runs, against scipy and computations of the tests' own."""

import itertools
import math
import random

import numpy as np
import pytest
from scipy import optimize, stats

from mmedeval.paired import (
    Changes,
    Counts,
    bootstrapped,
    cohens_g,
    holm,
    interval,
    mcnemar,
    of_a_drop,
    score_interval,
    smallest_drop,
    two_sided,
)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 9), (9, 3), (6, 6), (120, 150), (900, 1100)])
def test_mcnemars_p_is_that_of_scipys_binomial_test(gained: int, lost: int) -> None:
    expected = stats.binomtest(lost, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)
    assert two_sided(Changes((Counts(2500, gained, lost),))) == mcnemar(gained, lost)


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (3, 9), (9, 3), (6, 6), (120, 150), (900, 1100)])
def test_the_p_of_a_drop_is_scipys_exact_one_less_half_of_what_was_seen(gained: int, lost: int) -> None:
    changed = gained + lost
    expected = stats.binomtest(lost, changed, 0.5, alternative="greater").pvalue - stats.binom.pmf(lost, changed, 0.5) / 2
    assert of_a_drop(Changes((Counts(2500, gained, lost),))) == pytest.approx(expected, rel=1e-9)


def test_mcnemars_p_is_that_of_statsmodels_and_of_published_tables() -> None:
    """Figures of `statsmodels.stats.contingency_tables.mcnemar(exact=True)`, version 0.15.0, and those of M. W. Fagerland,
    S. Lydersen, P. Laake, BMC Medical Research Methodology 13 (2013) 91, of 21 children: 0.0703 exact, 0.0391 as mid-p."""
    expected = {(6, 16): 0.052478790283203125, (120, 150): 0.07738939898021849, (900, 1100): 8.45708953550381e-06}
    assert {counts: mcnemar(*counts) for counts in expected} == pytest.approx(expected, rel=1e-12)
    children = Changes((Counts(21, 1, 7),))
    assert round(two_sided(children), 4) == 0.0703
    assert round(2 * of_a_drop(children), 4) == 0.0391


def score_of(counts: Counts, delta: float) -> float:
    """Tango's statistic with the likelihood maximised by scipy instead of the closed form."""

    def loss(q: float) -> float:
        # The shares of gained, of lost and of the rest, with gained - lost = delta.
        parts = ((counts.gained, q + delta), (counts.lost, q), (counts.n - counts.changed, 1 - 2 * q - delta))
        return -sum(k * math.log(max(share, 1e-300)) for k, share in parts if k)

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return (counts.gained - counts.lost - counts.n * delta) / math.sqrt(counts.n * (2 * q + delta * (1 - delta)))


@pytest.mark.parametrize("counts", [Counts(40, 4, 5), Counts(40, 8, 1), Counts(100, 0, 7), Counts(1273, 267, 228)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_score_interval_ends_where_a_score_test_found_by_maximising_the_likelihood_ends(
    counts: Counts, confidence: float
) -> None:
    z = stats.norm.ppf(0.5 + confidence / 2)
    low, high = score_interval(counts, confidence)
    assert score_of(counts, low) == pytest.approx(z, abs=1e-3)
    assert score_of(counts, high) == pytest.approx(-z, abs=1e-3)


def test_the_score_interval_of_items_none_of_which_changed_is_no_point() -> None:
    low, high = score_interval(Counts(60, 0, 0))
    z = stats.norm.ppf(0.975)
    assert (low, high) == pytest.approx((-(z**2) / (60 + z**2), z**2 / (60 + z**2)))


@pytest.mark.parametrize(("gained", "lost", "ends"), [(5, 0, (None, 1.0)), (0, 5, (-1.0, None))])
def test_the_score_interval_stays_within_its_bounds_where_all_changed(gained: int, lost: int, ends: tuple) -> None:
    found = score_interval(Counts(5, gained, lost))
    assert -1 <= found[0] < found[1] <= 1
    assert all(end is None or end == value for end, value in zip(ends, found, strict=True))


def test_the_score_interval_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).multinomial(80, [0.1, 0.15, 0.75], size=1500)
    ends = {counts: score_interval(Counts(80, *counts)) for counts in {(int(g), int(lost)) for g, lost, _ in draws}}
    covered = np.mean([ends[int(g), int(lost)][0] <= -0.05 <= ends[int(g), int(lost)][1] for g, lost, _ in draws])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_holms_correction_is_the_one_written_out() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Of `statsmodels.stats.multitest.multipletests(method="holm")`, version 0.15.0.
    assert holm([0.011, 0.049, 0.012, 0.0002, 0.049, 0.31]) == pytest.approx([0.055, 0.147, 0.055, 0.0012, 0.147, 0.31])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_cohens_g_is_the_share_gained_less_a_half() -> None:
    assert cohens_g(30, 10) == 0.25
    assert cohens_g(0, 4) == -0.5
    assert cohens_g(0, 0) is None


def flipped(weights: list[int]) -> list[int]:
    """Every sum that signs drawn by a coin could give."""
    return [sum(signs) for signs in itertools.product(*((weight, -weight) for weight in weights))]


def test_the_p_of_an_average_is_that_of_all_ways_to_flip_signs() -> None:
    changes = Changes((Counts(20, 1, 4), Counts(30, 3, 2), Counts(7, 0, 2)))
    # In units of 1 / 1260, so that nothing is rounded.
    weights = [sign * 420 // task.n for task in changes.tasks for sign in [1] * task.gained + [-1] * task.lost]
    observed, sums = sum(weights), flipped(weights)
    assert two_sided(changes) == pytest.approx(sum(abs(each) >= abs(observed) for each in sums) / len(sums))
    drop = sum((each < observed) + (each == observed) / 2 for each in sums) / len(sums)
    assert of_a_drop(changes) == pytest.approx(drop)
    assert changes.difference == pytest.approx(observed / 1260)


def test_questions_that_tasks_share_are_flipped_as_a_whole() -> None:
    rows = [(1.0, 1.0), (-1.0, -1.0), (-1.0, -1.0), (-1.0, 0.0), (1.0, -1.0), (0.0, None), (0.0, 0.0)]
    changes = Changes((Counts(7, 2, 3), Counts(6, 1, 3)), rows)
    weights = [6 * int(a) + 7 * int(b or 0) for a, b in rows]
    observed, sums = sum(weights), flipped(weights)
    assert two_sided(changes) == pytest.approx(sum(abs(each) >= abs(observed) for each in sums) / len(sums))


def test_the_p_of_many_changes_is_near_that_of_very_many_random_flips() -> None:
    changes = Changes((Counts(1273, 150, 171), Counts(199, 20, 31), Counts(622, 70, 77)))
    generator = np.random.default_rng(1)
    sums = sum((2 * generator.binomial(task.changed, 0.5, size=400_000) - task.changed) / (3 * task.n) for task in changes.tasks)
    assert two_sided(changes) == pytest.approx(np.mean(np.abs(sums) >= abs(changes.difference) - 1e-12), rel=0.02)
    assert of_a_drop(changes) == pytest.approx(np.mean(sums <= changes.difference + 1e-12), rel=0.02)
    turned = Changes(tuple(Counts(task.n, task.lost, task.gained) for task in changes.tasks))
    assert of_a_drop(turned) == pytest.approx(1 - of_a_drop(changes))


def test_the_approximate_tail_is_near_the_exact_one_far_out(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = Changes((Counts(400, 60, 112), Counts(300, 50, 91)))
    exact = two_sided(changes), of_a_drop(changes)
    monkeypatch.setattr("mmedeval.paired.MOST_SUMS", 0)
    assert exact[0] < 1e-6
    assert (two_sided(changes), of_a_drop(changes)) == pytest.approx(exact, rel=0.12)


@pytest.mark.parametrize("tasks", [((9, 0, 3), (7, 0, 2)), ((9, 0, 0), (7, 0, 0)), ((9, 2, 2), (7, 1, 1))])
def test_extreme_changes_have_a_p_in_both_ways_of_computing(
    tasks: tuple[tuple[int, int, int], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = Changes(tuple(Counts(*task) for task in tasks))
    exact = two_sided(changes)
    monkeypatch.setattr("mmedeval.paired.MOST_SUMS", 0)
    assert 0 < two_sided(changes) <= 1
    assert two_sided(changes) == pytest.approx(exact, abs=0.15)
    assert 0 < of_a_drop(changes) <= 1


def test_the_interval_of_an_average_is_scipys_stratified_bootstrap() -> None:
    changes = Changes((Counts(200, 20, 30), Counts(150, 9, 12)))
    columns = [np.array([1.0] * t.gained + [-1.0] * t.lost + [0.0] * (t.n - t.changed)) for t in changes.tasks]
    found = stats.bootstrap(
        columns,
        lambda a, b, axis=-1: (a.mean(axis=axis) + b.mean(axis=axis)) / 2,
        n_resamples=9999,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(3),
    )
    ends = found.confidence_interval.low, found.confidence_interval.high
    assert bootstrapped(changes) == pytest.approx(ends, abs=0.002)
    # Where many items changed there is nothing to widen.
    assert interval(changes) == pytest.approx(ends, abs=0.003)


def test_the_interval_of_shared_questions_is_that_of_whole_rows_resampled() -> None:
    generator = random.Random(4)
    # Right or wrong together: the interval must be far wider than that of independent items.
    values = [float(generator.choices((1, -1, 0), (2, 3, 15))[0]) for _ in range(120)]
    rows = [(value, value, value) for value in values]
    counts = Counts(120, values.count(1.0), values.count(-1.0))
    low, high = interval(Changes((counts,) * 3, rows))
    found = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(5))
    assert (low, high) == pytest.approx((found.confidence_interval.low, found.confidence_interval.high), abs=0.01)
    apart = interval(Changes((counts,) * 3))
    assert high - low > 1.5 * (apart[1] - apart[0])


def test_the_interval_of_an_average_that_did_not_change_is_no_point() -> None:
    low, high = interval(Changes((Counts(40, 0, 0), Counts(60, 0, 0))))
    one, other = score_interval(Counts(40, 0, 0)), score_interval(Counts(60, 0, 0))
    assert (low, high) == pytest.approx((-math.hypot(one[0], other[0]) / 2, math.hypot(one[1], other[1]) / 2))


def test_the_interval_of_shared_questions_none_of_which_changed_is_that_of_one_task() -> None:
    """Nothing says that they would not change together."""
    counts = Counts(40, 0, 0)
    assert interval(Changes((counts,) * 6, [[0.0] * 6] * 40)) == pytest.approx(score_interval(counts))


@pytest.mark.parametrize("rows", [None, [[1.0, 0.0, 0.0], *[[0.0] * 3] * 9]], ids=["apart", "shared"])
def test_one_item_gained_and_none_lost_leaves_room_for_a_drop(rows: list[list[float | None]] | None) -> None:
    # Of ten items that a drop of a tenth meets each by itself, none is lost in 35 of 100 cases.
    changes = Changes((Counts(10, 1, 0), Counts(10, 0, 0), Counts(10, 0, 0)), rows)
    low, _ = interval(changes, 0.9)
    assert low < -0.05
    turned = Changes((Counts(10, 0, 1), *changes.tasks[1:]), rows and [[-1.0, 0.0, 0.0], *rows[1:]])
    assert interval(turned, 0.9)[1] == pytest.approx(-low)


def test_an_average_over_shared_questions_that_fell_is_not_excluded_more_often_than_the_confidence_allows() -> None:
    """Ten questions in three languages, of which a tenth is lost and a twentieth gained, alike in all: a drop of 5 points."""
    chance = 0.0
    # With more than two lost it never is; more than five are gained once in ten thousand times.
    for gained in range(6):
        for lost in range(3):
            value = [1.0] * gained + [-1.0] * lost + [0.0] * (10 - gained - lost)
            changes = Changes((Counts(10, gained, lost),) * 3, [(each,) * 3 for each in value])
            if interval(changes, 0.9)[0] > -0.05:
                ways = math.comb(10, gained) * math.comb(10 - gained, lost)
                chance += ways * 0.05**gained * 0.1**lost * 0.85 ** (10 - gained - lost)
    assert chance <= 0.05


def test_rare_changes_of_many_items_are_resampled_as_they_are() -> None:
    """A normal approximation would give ends that three lost items of 3,426 cannot give."""
    low, high = bootstrapped(Changes((Counts(3426, 0, 3), Counts(1273, 0, 0))))
    ends = stats.binom.ppf([0.025, 0.975], 3426, 3 / 3426) / 3426 / 2
    assert (low, high) == pytest.approx((-ends[1], -ends[0]))


def power_of(n: int, drop: float, changed: float) -> float:
    """The power of the exact two-sided test at 5 %, summed over all that can happen."""
    power = 0.0
    for m in range(n + 1):
        weight = stats.binom.pmf(m, n, changed)
        if weight > 1e-9:
            k = np.arange(m + 1)
            shown = np.array([mcnemar(m - each, each) <= 0.05 and each > m / 2 for each in range(m + 1)])
            power += weight * stats.binom.pmf(k, m, (changed + drop) / (2 * changed))[shown].sum()
    return power


@pytest.mark.parametrize(("n", "changed"), [(100, 0.2), (199, 0.1), (199, 0.3)])
def test_the_smallest_drop_is_one_that_the_exact_test_shows_in_about_80_of_100_cases(n: int, changed: float) -> None:
    half = round(n * changed / 2)
    drop = smallest_drop(Changes((Counts(n, half, half),)))
    assert drop is not None
    assert power_of(n, drop, max(changed, drop)) == pytest.approx(0.78, abs=0.05)


def test_the_smallest_drop_of_an_average_is_smaller_than_of_its_parts_and_larger_where_questions_are_shared() -> None:
    task = Counts(100, 10, 10)
    alone, average = smallest_drop(Changes((task,))), smallest_drop(Changes((task, task)))
    rows = [(1.0, 1.0)] * 10 + [(-1.0, -1.0)] * 10 + [(0.0, 0.0)] * 80
    together = smallest_drop(Changes((task, task), rows))
    assert alone is not None
    assert average is not None
    assert together is not None
    assert average < together
    assert average == pytest.approx(alone / math.sqrt(2), rel=0.02)
    # Two languages that always agree tell no more than one does.
    assert together == pytest.approx(alone, rel=0.02)


def test_so_few_items_that_no_drop_could_show_have_no_smallest_drop() -> None:
    assert smallest_drop(Changes((Counts(3, 0, 0),))) is None
    assert smallest_drop(Changes((Counts(5, 0, 0),))) is not None
