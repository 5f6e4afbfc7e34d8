"""Agreement figures against scipy, against published examples, and against what their intervals promise."""

from __future__ import annotations

import math
import random
import statistics
import warnings
from collections.abc import Sequence

import pytest
from scipy import stats

from mmedeval.agreement import (
    STATISTICS,
    Judged,
    Statistic,
    _draws,
    _People,
    compare_with_people,
    count_pairs,
    holm,
    kendall_tau,
    krippendorff_alpha,
    midranks,
    pairwise_accuracy,
    pearson,
    rater_agreement,
    spearman,
    weighted_kappa,
)


def sequences(seed: int) -> tuple[list[float], list[float]]:
    """Two sequences with ties, correlated somehow."""
    r = random.Random(seed)
    n, steps = r.choice([2, 3, 6, 40, 200]), r.choice([2, 5, 1000])
    x = [float(r.randrange(steps)) for _ in range(n)]
    return x, [value * r.choice([-1, 0, 1]) + r.randrange(steps) for value in x]


# --- two sequences ---


@pytest.mark.parametrize("seed", range(60))
def test_correlations_are_scipys(seed: int) -> None:
    x, y = sequences(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant input
        for ours, theirs in ((kendall_tau, stats.kendalltau), (spearman, stats.spearmanr), (pearson, stats.pearsonr)):
            expected, value = theirs(x, y).statistic, ours(x, y)
            if math.isnan(expected):
                assert value is None
            else:
                assert value == pytest.approx(expected, abs=1e-12)
    assert midranks(x) == stats.rankdata(x).tolist()


def test_a_constant_sequence_correlates_with_nothing() -> None:
    for correlation in (kendall_tau, spearman, pearson):
        assert correlation([1, 1, 1], [1, 2, 3]) is None
        assert correlation([1, 2, 3], [4, 4, 4]) is None


@pytest.mark.parametrize("seed", range(20))
def test_every_pair_is_counted_once(seed: int) -> None:
    x, y = sequences(seed)
    pairs = count_pairs(x, y)
    both = sum(x[i] == x[j] and y[i] == y[j] for i in range(len(x)) for j in range(i))
    assert pairs.alike + pairs.otherwise + pairs.tied_x + pairs.tied_y + both == math.comb(len(x), 2)


def test_pairwise_accuracy_counts_what_people_order_and_a_tie_of_the_metric_as_half() -> None:
    people = [1, 2, 3]
    assert pairwise_accuracy([10, 20, 30], people) == 1
    assert pairwise_accuracy([30, 20, 10], people) == 0
    assert pairwise_accuracy([7, 7, 7], people) == 0.5
    assert pairwise_accuracy([10, 20, 15], people) == pytest.approx(2 / 3)
    assert pairwise_accuracy([10, 20, 15], [1, 2, 2]) == 1
    assert pairwise_accuracy([10, 20], [2, 2]) is None


def test_without_ties_accuracy_is_tau_on_another_scale() -> None:
    for seed in range(10):
        r = random.Random(seed)
        x, y = r.sample(range(100), 8), r.sample(range(100), 8)
        assert pairwise_accuracy(x, y) == pytest.approx((1 + kendall_tau(x, y)) / 2)


# --- raters ---

# K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C: four observers, twelve units, missing data.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorffs_example_with_missing_data(level: str, published: float) -> None:
    units = [*zip(*OBSERVERS, strict=True)]
    assert krippendorff_alpha(units, level) == pytest.approx(published, abs=0.0005)


def test_alpha_of_krippendorffs_example_with_two_observers() -> None:
    """The same text, example B: two observers, twelve units, nominal: 0.692."""
    units = [(float(ord(meg)), float(ord(owen))) for meg, owen in zip("aabbdcccedda", "babbbccceddd", strict=True)]
    assert krippendorff_alpha(units, "nominal") == pytest.approx(0.692, abs=0.0005)


@pytest.mark.parametrize("seed", range(10))
def test_interval_alpha_is_one_less_the_ratio_of_mean_squared_distances(seed: int) -> None:
    """Of complete data: all pairs within units against all pairs whatever, an independent way to compute it."""
    r = random.Random(seed)
    units = [[float(r.randrange(1, 6)) for _ in range(3)] for _ in range(20)]
    flat = [value for unit in units for value in unit]
    within = statistics.fmean((a - b) ** 2 for unit in units for i, a in enumerate(unit) for b in unit[:i])
    everywhere = statistics.fmean((a - b) ** 2 for i, a in enumerate(flat) for b in flat[:i])
    assert krippendorff_alpha(units, "interval") == pytest.approx(1 - within / everywhere)


def test_alpha_is_1_for_the_same_values_and_about_0_for_chance() -> None:
    r = random.Random(0)
    assert krippendorff_alpha([(value, value) for value in (1, 2, 3, 4, 5)], "ordinal") == 1
    chance = [[r.randrange(1, 6) for _ in range(3)] for _ in range(4000)]
    assert krippendorff_alpha(chance, "ordinal") == pytest.approx(0, abs=0.03)


def test_alpha_is_undefined_where_no_value_varies_or_nothing_can_be_paired() -> None:
    assert krippendorff_alpha([(3, 3), (3, 3)], "interval") is None
    assert krippendorff_alpha([(3, None), (None, 4)], "interval") is None
    assert krippendorff_alpha([], "ordinal") is None


def test_ordinal_alpha_does_not_depend_on_the_distance_between_values() -> None:
    units = [(1, 2), (2, 2), (5, 4), (4, 4), (1, 1), (5, 5)]
    stretched = [tuple(10**value for value in unit) for unit in units]
    assert krippendorff_alpha(units, "ordinal") == pytest.approx(krippendorff_alpha(stretched, "ordinal"))
    assert krippendorff_alpha(units, "interval") != pytest.approx(krippendorff_alpha(stretched, "interval"))


@pytest.mark.parametrize("seed", range(10))
def test_weighted_kappa_is_one_less_the_observed_over_the_expected_squared_distance(seed: int) -> None:
    """Expected: over all combinations of one rater's values with the other's, counted one by one."""
    r = random.Random(seed)
    x = [r.randrange(1, 6) for _ in range(30)]
    y = [min(5, max(1, value + r.randrange(-1, 2))) for value in x]
    observed = statistics.fmean((a - b) ** 2 for a, b in zip(x, y, strict=True))
    expected = statistics.fmean((a - b) ** 2 for a in x for b in y)
    assert weighted_kappa(x, y) == pytest.approx(1 - observed / expected)


def test_of_two_values_weighted_kappa_is_cohens_kappa() -> None:
    """50 grant proposals, two readers: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no; observed 0.7, by chance 0.5, kappa 0.4."""
    x, y = [1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert weighted_kappa(x, y) == pytest.approx(0.4)


def test_kappa_of_one_value_throughout_is_undefined() -> None:
    assert weighted_kappa([3, 3], [3, 3]) is None
    assert weighted_kappa([], []) is None


def raters(names: Sequence[str], items: int, noise: float, seed: int = 0) -> tuple[dict[str, dict[str, list[int]]], ...]:
    """Ratings and places of four texts per item by raters who see one quality through their own noise."""
    r = random.Random(seed)
    quality = [[r.gauss(0, 1) for _ in range(4)] for _ in range(items)]
    ratings: dict[str, dict[str, list[int]]] = {name: {} for name in names}
    places: dict[str, dict[str, list[int]]] = {name: {} for name in names}
    for name in names:
        for i, texts in enumerate(quality):
            seen = [value + r.gauss(0, noise) for value in texts]
            ratings[name][f"q{i}"] = [min(5, max(1, round(3 + value))) for value in seen]
            places[name][f"q{i}"] = [1 + sum(other > value for other in seen) for value in seen]
    return ratings, places


def test_the_agreement_of_raters_is_that_of_all_their_texts() -> None:
    ratings, places = raters(("r1", "r2", "r3"), 30, 0.6)
    del ratings["r3"]["q4"], places["r3"]["q4"]
    items = [f"q{i}" for i in range(30)]
    figures = rater_agreement(ratings, places, items, draws=300)
    units = [[ratings[name].get(item, [None] * 4)[i] for name in ratings] for item in items for i in range(4)]
    assert figures["alpha_ratings_ordinal"].value == pytest.approx(krippendorff_alpha(units, "ordinal"))
    assert figures["alpha_ratings_interval"].value == pytest.approx(krippendorff_alpha(units, "interval"))
    one, two = ([value for item in items for value in ratings[name][item]] for name in ("r1", "r2"))
    assert figures["kappa r1, r2"].value == pytest.approx(weighted_kappa(one, two))
    assert figures["kappa r1, r3"].n == 29
    for figure in figures.values():
        assert figure.low < figure.value < figure.high
    assert 0.4 < figures["alpha_ratings_ordinal"].value < 0.95


def test_raters_of_one_mind_agree_wholly_and_without_an_interval() -> None:
    ratings, places = raters(("r1", "r2"), 12, 0)
    for figure in rater_agreement(ratings, places, [f"q{i}" for i in range(12)], draws=200).values():
        assert (figure.value, figure.low, figure.high) == (pytest.approx(1), None, None)


def test_one_rater_agrees_with_nobody() -> None:
    ratings, places = raters(("r1",), 5, 1)
    figures = rater_agreement(ratings, places, [f"q{i}" for i in range(5)])
    assert {figure.value for figure in figures.values()} == {None}
    assert not any(name.startswith("kappa") for name in figures)


def test_the_interval_of_alpha_holds_the_alpha_of_very_many_items_in_more_than_90_of_100_studies() -> None:
    """Percentile intervals of few items are a little narrow: with 50 they hold the truth in 91 to 94 of 100 (400 studies)."""
    many, many_places = raters(("r1", "r2", "r3"), 4000, 0.8, seed=10_000)
    truth = rater_agreement(many, many_places, [*many["r1"]], draws=0)
    trials, held = 80, dict.fromkeys(truth, 0)
    for seed in range(trials):
        ratings, places = raters(("r1", "r2", "r3"), 50, 0.8, seed=seed)
        for name, figure in rater_agreement(ratings, places, [*ratings["r1"]], draws=200, seed=seed).items():
            held[name] += figure.low <= truth[name].value <= figure.high
    for name, count in held.items():
        assert 0.85 <= count / trials <= 0.99, (name, count)


# --- metrics and people ---


def simulated(items: int, seed: int, *correlations: float, models: int = 6) -> tuple[list[Judged], list[list[list[float]]]]:
    """People's continuous ratings, and metrics that correlate with them as told (bivariate normal)."""
    r = random.Random(seed)
    judged, metrics = [], [[] for _ in correlations]
    for _ in range(items):
        people = [r.gauss(0, 1) for _ in range(models)]
        judged.append(Judged(places=tuple(1.0 + sum(b > a for b in people) for a in people), ratings=tuple(people)))
        for metric, rho in zip(metrics, correlations, strict=True):
            metric.append([rho * value + math.sqrt(1 - rho * rho) * r.gauss(0, 1) for value in people])
    return judged, metrics


def truth_of(rho: float) -> dict[Statistic, float]:
    """Of a bivariate normal distribution. Source: M. G. Kendall, Rank Correlation Methods, chapters 9 and 10."""
    tau = 2 / math.pi * math.asin(rho)
    return {
        "tau": tau,
        "tau_pairs": tau,
        "spearman": 6 / math.pi * math.asin(rho / 2),
        "pearson": rho,
        "accuracy": (1 + tau) / 2,
    }


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_a_known_correlation_lies_in_its_interval_in_95_of_100_studies(rho: float) -> None:
    trials, truth, held = 120, truth_of(rho), dict.fromkeys(STATISTICS, 0)
    for seed in range(trials):
        judged, (metric,) = simulated(40, seed, rho, models=4)
        figures = compare_with_people({"en": judged}, {"m": {"en": metric}}, draws=250, seed=seed).figures["m"]["en"]
        for name, figure in figures.items():
            held[name] += figure.low <= truth[name] <= figure.high
    for name, count in held.items():
        assert 0.88 <= count / trials <= 0.99, (name, count)


def test_the_average_of_languages_lies_in_its_interval_in_95_of_100_studies() -> None:
    """Languages of different sizes in which the metric is good, fair and useless: the plain mean of the three."""
    rhos, sizes, trials, held = {"en": 0.8, "ja": 0.4, "ru": 0.0}, {"en": 30, "ja": 15, "ru": 20}, 120, 0
    truth = statistics.fmean(truth_of(rho)["tau"] for rho in rhos.values())
    for seed in range(trials):
        parts = {name: simulated(sizes[name], 1000 * seed + i, rho, models=4) for i, (name, rho) in enumerate(rhos.items())}
        judged = {name: part[0] for name, part in parts.items()}
        scores = {"m": {name: part[1][0] for name, part in parts.items()}}
        figure = compare_with_people(judged, scores, draws=200, seed=seed).figures["m"]["avg"]["tau"]
        held += figure.low <= truth <= figure.high
    assert 0.88 <= held / trials <= 0.99


def test_figures_are_those_of_the_plain_functions() -> None:
    judged, (metric,) = simulated(30, 5, 0.5)
    figures = compare_with_people({"en": judged}, {"m": {"en": metric}}, draws=50).figures["m"]["en"]
    x, y = [value for row in metric for value in row], [value for each in judged for value in each.ratings]
    taus = [kendall_tau(row, each.ratings) for row, each in zip(metric, judged, strict=True)]
    assert figures["tau"].value == pytest.approx(statistics.fmean(taus))
    assert figures["spearman"].value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert figures["pearson"].value == pytest.approx(stats.pearsonr(x, y).statistic)
    assert figures["accuracy"].value == pytest.approx((1 + figures["tau"].value) / 2)
    assert figures["tau"].n == 30


def test_every_draw_is_the_figure_of_the_resampled_items() -> None:
    """With ties, and with places that do not follow the ratings: each statistic, computed anew from the items that were drawn."""
    r = random.Random(4)
    judged = [
        Judged(places=tuple(map(float, r.sample([1, 2, 3, 4], 4))), ratings=tuple(float(r.randrange(1, 6)) for _ in range(4)))
        for _ in range(9)
    ]
    scores = [[float(r.randrange(4)) for _ in range(4)] for _ in judged]
    weights = _draws(9, 25, "test")
    drawn = _People(judged, weights).compare(scores)
    for number, draw in enumerate(weights):
        chosen = [i for i, weight in enumerate(draw) for _ in range(weight)]
        again = _People([judged[i] for i in chosen], []).compare([scores[i] for i in chosen])
        for name in STATISTICS:
            assert drawn[name][1][number] == pytest.approx(again[name][0])


def test_a_metric_that_cannot_tell_an_items_texts_apart_scores_0_there() -> None:
    judged = [Judged(places=(1, 2, 3), ratings=(5, 4, 3))] * 2
    figures = compare_with_people({"en": judged}, {"m": {"en": [[3, 2, 1], [7, 7, 7]]}}, draws=50).figures["m"]["en"]
    assert figures["tau"].value == 0.5
    assert figures["accuracy"].value == 0.75


def test_an_item_whose_texts_people_find_alike_says_nothing() -> None:
    judged = [Judged(places=(1, 2, 3), ratings=(5, 4, 3)), Judged(places=(2, 2, 2), ratings=(3, 3, 3))]
    figures = compare_with_people({"en": judged}, {"m": {"en": [[3, 2, 1], [1, 2, 3]]}}, draws=50).figures["m"]["en"]
    assert figures["tau"].value == figures["accuracy"].value == 1


def test_a_constant_metric_has_no_correlation_and_no_interval() -> None:
    judged, _ = simulated(10, 1)
    figures = compare_with_people({"en": judged}, {"m": {"en": [[1.0] * 6] * 10}}, draws=50).figures["m"]["en"]
    assert figures["pearson"].value is figures["spearman"].value is figures["tau_pairs"].value is None
    assert figures["tau"].value == 0
    assert figures["tau"].low is None


def test_a_single_item_has_no_interval() -> None:
    judged, (metric,) = simulated(1, 1, 0.5)
    figures = compare_with_people({"en": judged}, {"m": {"en": metric}}).figures["m"]["en"]
    assert figures["tau"].value is not None
    assert figures["tau"].low is None


def test_a_worse_metric_is_found_worse_and_an_equal_one_is_not() -> None:
    judged, (good, same, bad) = simulated(80, 11, 0.7, 0.7, 0.1)
    found = compare_with_people({"en": judged}, {"good": {"en": good}, "same": {"en": same}, "bad": {"en": bad}})
    assert found.best in ("good", "same")
    assert set(found.differences) == {"good", "same", "bad"} - {found.best}
    other = found.differences["same" if found.best == "good" else "good"]
    assert other.p_holm > 0.05
    assert found.differences["bad"].p_holm < 0.01
    assert found.differences["bad"].low > 0


def test_of_two_equally_good_metrics_one_is_called_worse_in_about_5_of_100_studies() -> None:
    """Two metrics, and the better one is taken for the best: the two-sided test is that of their difference."""
    trials, called = 150, 0
    for seed in range(trials):
        judged, (one, other) = simulated(30, 20_000 + seed, 0.5, 0.5, models=4)
        found = compare_with_people({"en": judged}, {"one": {"en": one}, "other": {"en": other}}, draws=200, seed=seed)
        called += next(iter(found.differences.values())).p_holm < 0.05
    assert 0.02 <= called / trials <= 0.1


def test_the_worked_examples_of_the_documentation() -> None:
    """docs/human.md: three texts rated by two, and a metric's values of texts in places 1, 2, 3."""
    assert krippendorff_alpha([(1, 1), (2, 3), (5, 5)], "interval") == pytest.approx(1 - 5 * 2 / 202)
    assert weighted_kappa([1, 2, 5], [1, 3, 5]) == pytest.approx(1 - (1 / 3) / (51 / 9))
    assert kendall_tau([40, 45, 20], [-1, -2, -3]) == pytest.approx(1 / 3)
    assert pairwise_accuracy([40, 45, 20], [-1, -2, -3]) == pytest.approx(2 / 3)


def test_holms_correction_of_a_worked_example() -> None:
    """p = 0.01, 0.04, 0.03, 0.005: times 3, 1, 2, 4 in the order of size, and never less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1, 1]


def test_the_same_study_gives_the_same_figures() -> None:
    judged, (metric,) = simulated(20, 3, 0.4)
    once, twice = (compare_with_people({"en": judged}, {"m": {"en": metric}}, draws=100) for _ in range(2))
    assert once == twice
