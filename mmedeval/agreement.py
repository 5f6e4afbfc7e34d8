"""How far people agree with each other, and metrics with people (pure, no packages). Formulas and sources: docs/human.md."""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from operator import add, itemgetter, mul
from typing import Literal

from mmedeval.aggregate import AVERAGE

Level = Literal["nominal", "ordinal", "interval"]
Statistic = Literal["tau", "tau_pairs", "spearman", "pearson", "accuracy"]
STATISTICS: Mapping[Statistic, str] = {
    "tau": "Kendall's tau-b per item, averaged",
    "tau_pairs": "Kendall's tau-b over the pairs of all items",
    "spearman": "Spearman's rank correlation over all texts",
    "pearson": "Pearson's correlation over all texts",
    "accuracy": "share of pairs in the order of people",
}
DRAWS, FEWEST_DRAWS = 2000, 500
# A bootstrap of rank correlations ranks every text anew in every draw; so many texts take some seconds.
MOST_RANKED = 20_000_000

Draw = Sequence[int]
"""How often each item is in a resample."""
Sums = Callable[[Sequence[float]], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A value with its 95 % interval; `n` items went into it. `None` where it is undefined, or nothing varies."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What people said of the texts of one item, in the order of the runs: mean places (1 is the best), mean ratings (5 is)."""

    places: tuple[float, ...]
    ratings: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much less a metric agrees with people than the best one, in Kendall's tau; `p` two-sided, `p_holm` corrected."""

    value: float
    low: float | None
    high: float | None
    p: float
    p_holm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`figures[metric][language][statistic]`, of several languages also `avg`; `differences` from the metric `best`."""

    figures: Mapping[str, Mapping[str, Mapping[Statistic, Figure]]]
    best: str | None
    differences: Mapping[str, Difference]
    draws: int


# --- two sequences ---


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of places i < j in two sequences. Those that are tied in both are in none of the counts."""

    alike: int
    otherwise: int
    tied_x: int
    tied_y: int

    @property
    def untied_x(self) -> int:
        return self.alike + self.otherwise + self.tied_y

    @property
    def untied_y(self) -> int:
        return self.alike + self.otherwise + self.tied_x


def count_pairs(x: Sequence[float], y: Sequence[float]) -> Pairs:
    alike = otherwise = tied_x = tied_y = 0
    for (a, b), (c, d) in combinations(zip(x, y, strict=True), 2):
        if a == c:
            tied_x += b != d
        elif b == d:
            tied_y += 1
        elif (a < c) == (b < d):
            alike += 1
        else:
            otherwise += 1
    return Pairs(alike, otherwise, tied_x, tied_y)


def kendall_tau(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Kendall's tau-b; `None` where one of the sequences is constant. M. G. Kendall, Biometrika 33 (1945) 239-251."""
    pairs = count_pairs(x, y)
    return _tau([pairs.alike - pairs.otherwise, pairs.untied_x, pairs.untied_y])


def pairwise_accuracy(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Of the pairs that differ in `y`, the share that `x` orders in the same way; a tie in `x` counts as a half."""
    pairs = count_pairs(x, y)
    return _share([pairs.alike + pairs.tied_x / 2, pairs.untied_y])


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson's correlation; `None` where one of the sequences is constant."""
    if len({*x}) < 2 or len({*y}) < 2:
        return None
    x, y = _centred(x), _centred(y)
    return _within(_dot(x, y) / math.sqrt(_dot(x, x) * _dot(y, y)))


def midranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of theirs."""
    return [(twice + 1) / 2 for twice in _Order(values).ranks([1] * len(values))] if len(values) > 1 else [1.0] * len(values)


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation: Pearson's of the midranks. C. Spearman, Am. J. Psychol. 15 (1904) 72-101."""
    return pearson(midranks(x), midranks(y))


def weighted_kappa(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Cohen's kappa of two raters with quadratic weights; `None` where both give one and the same value throughout.

    Source: J. Cohen, "Weighted kappa", Psychological Bulletin 70 (1968) 213-220.
    """
    return _kappa([math.fsum(column) for column in zip(*(_kappa_terms(a, b) for a, b in zip(x, y, strict=True)), strict=True)])


def _kappa_terms(x: float, y: float) -> tuple[float, ...]:
    return 1.0, x, y, x * x, y * y, (x - y) ** 2


def _kappa(sums: Sequence[float]) -> float | None:
    if not sums or sums[0] == 0:
        return None
    n, x, y, xx, yy, apart = sums
    # The mean of (x - y)**2 over all combinations of one's values with the other's.
    expected = (xx + yy) / n - 2 * x * y / n**2
    return 1 - apart / n / expected if expected > 1e-12 else None


# --- many raters ---


def krippendorff_alpha(units: Sequence[Sequence[float | None]], level: Level) -> float | None:
    """Krippendorff's alpha of units with one value per rater, `None` where one gave none. `None` where no value varies.

    Source: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011).
    """
    return _alpha(_coincidences(units), level)


def _coincidences(units: Sequence[Sequence[float | None]]) -> dict[tuple[float, float], float]:
    """How often two values stand together in a unit; a unit of m values counts each of its m (m - 1) pairs 1 / (m - 1) times."""
    cells: dict[tuple[float, float], float] = defaultdict(float)
    for unit in units:
        values = [value for value in unit if value is not None]
        for i, one in enumerate(values):
            for j, other in enumerate(values):
                if i != j:
                    cells[one, other] += 1 / (len(values) - 1)
    return cells


def _alpha(cells: Mapping[tuple[float, float], float], level: Level) -> float | None:
    totals: dict[float, float] = defaultdict(float)
    for (one, _), count in cells.items():
        totals[one] += count
    values = sorted(value for value in totals if totals[value] > 0)
    if len(values) < 2:
        return None
    n = sum(totals[value] for value in values)
    if level == "nominal":
        expected = n * n - sum(totals[value] ** 2 for value in values)
        observed = sum(count for (one, other), count in cells.items() if one != other)
        return 1 - (n - 1) * observed / expected
    below, position = 0.0, {}
    for value in values:
        # The squared distance of two values on the ordinal level is that of their midranks.
        position[value] = below + totals[value] / 2 if level == "ordinal" else value
        below += totals[value]
    middle = sum(totals[value] * position[value] for value in values) / n
    # Over all ordered pairs the squared distances add up to 2 n times those from the mean.
    expected = 2 * n * sum(totals[value] * (position[value] - middle) ** 2 for value in values)
    observed = sum(count * (position[one] - position[other]) ** 2 for (one, other), count in cells.items() if count)
    return 1 - (n - 1) * observed / expected


def rater_agreement(
    ratings: Mapping[str, Mapping[str, Sequence[int]]],
    places: Mapping[str, Mapping[str, Sequence[int]]],
    items: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Figure]:
    """How far raters agree over `items`, with intervals from resampled items.

    `ratings[rater][item]` and `places[rater][item]` hold a value per text, in the same order for all raters; an item that a
    rater left out is missing. Figures: `alpha_ratings_ordinal`, `alpha_ratings_interval` and `alpha_places`
    (Krippendorff's; of places, ordinal), `tau_places` (mean of Kendall's tau-b over pairs of raters and items), and `kappa RATER,
    RATER` (Cohen's, of ratings, quadratic weights) of those who share items.
    """
    shared = [item for item in items if sum(item in given for given in ratings.values()) > 1]
    weights = _draws(len(shared), draws, f"{seed}")
    figures = {}
    for name, given, level in (
        ("alpha_ratings_ordinal", ratings, "ordinal"),
        ("alpha_ratings_interval", ratings, "interval"),
        ("alpha_places", places, "ordinal"),
    ):
        figures[name] = _alpha_figure([_units(given, item) for item in shared], level, weights)  # type: ignore[arg-type]  # each one is a Literal
    taus = [_mean_tau([given[item] for given in places.values() if item in given]) for item in shared]
    figures["tau_places"] = _figure([taus, [1.0] * len(taus)], _share, weights, len(shared))
    for one, other in combinations(ratings, 2):
        both = [item for item in shared if item in ratings[one] and item in ratings[other]]
        if not both:
            continue
        terms = [_kappa_sums(ratings[one][item], ratings[other][item]) for item in both]
        columns = [list(column) for column in zip(*terms, strict=True)]
        kappa_weights = _draws(len(both), draws, f"{seed}/{one}/{other}")
        figures[f"kappa {one}, {other}"] = _figure(columns, _kappa, kappa_weights, len(both))
    return figures


def _units(given: Mapping[str, Mapping[str, Sequence[int]]], item: str) -> list[tuple[int, ...]]:
    return [*zip(*(values[item] for values in given.values() if item in values), strict=True)]


def _kappa_sums(one: Sequence[int], other: Sequence[int]) -> list[float]:
    return [math.fsum(column) for column in zip(*map(_kappa_terms, one, other), strict=True)]


def _mean_tau(rankings: Sequence[Sequence[int]]) -> float:
    return statistics.fmean(kendall_tau(one, other) or 0.0 for one, other in combinations(rankings, 2))


def _alpha_figure(items: Sequence[Sequence[Sequence[float | None]]], level: Level, weights: Sequence[Draw]) -> Figure:
    cells = [_coincidences(units) for units in items]
    pairs = sorted({pair for each in cells for pair in each})
    columns = [[each.get(pair, 0.0) for each in cells] for pair in pairs]

    def alpha(sums: Sequence[float]) -> float | None:
        return _alpha(dict(zip(pairs, sums, strict=True)), level)

    return _figure(columns, alpha, weights, len(items))


# --- metrics and people ---


def compare_with_people(
    judged: Mapping[str, Sequence[Judged]],
    scores: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """How well each metric agrees with people, per language and averaged over the languages.

    `judged[language][i]` is what people said of an item, `scores[metric][language][i]` the metric's values of the same texts.
    Intervals are percentiles over resampled items; every metric meets the same resamples, so that the differences are paired.
    The average is the plain mean of the languages, each resampled by itself.
    """
    ranked = len(scores) * sum(len(item.places) for items in judged.values() for item in items)
    draws = min(draws, max(FEWEST_DRAWS, MOST_RANKED // max(1, ranked)))
    found: dict[str, dict[str, dict[Statistic, tuple[float | None, list[float | None]]]]] = {name: {} for name in scores}
    for language, items in judged.items():
        people = _People(items, _draws(len(items), draws, f"{seed}/{language}"))
        for name, by_language in scores.items():
            found[name][language] = people.compare(by_language[language])
    numbers = {language: len(items) for language, items in judged.items()}
    if len(judged) > 1:
        numbers[AVERAGE] = sum(numbers.values())
        for of_metric in found.values():
            of_metric[AVERAGE] = {
                each: (
                    _mean_of([part[each][0] for part in of_metric.values()]),
                    [_mean_of(draw) for draw in zip(*(part[each][1] for part in of_metric.values()), strict=True)],
                )
                for each in STATISTICS
            }
    figures = {
        name: {
            language: {each: _interval(value, drawn, numbers[language]) for each, (value, drawn) in part.items()}
            for language, part in of_metric.items()
        }
        for name, of_metric in found.items()
    }
    overall = AVERAGE if len(judged) > 1 else next(iter(judged))
    best, differences = _differences({name: of_metric[overall]["tau"] for name, of_metric in found.items()})
    return Comparison(figures=figures, best=best, differences=differences, draws=draws)


class _People:
    """One language's judged items with their resamples: what all metrics are compared with."""

    def __init__(self, items: Sequence[Judged], weights: Sequence[Draw]) -> None:
        self.items, self.weights = items, weights
        self.width = len(items[0].places) if items else 0
        self.ratings = [rating for item in items for rating in item.ratings]
        # Texts are drawn with their item.
        self.text_weights = [[weight for weight in draw for _ in range(self.width)] for draw in weights]
        order = _Order(self.ratings)
        self.ranks = [order.ranks(draw) for draw in self.text_weights]
        self.spreads = [_dot([*map(mul, *drawn)], drawn[1]) for drawn in zip(self.text_weights, self.ranks, strict=True)]

    def compare(self, scores: Sequence[Sequence[float]]) -> dict[Statistic, tuple[float | None, list[float | None]]]:
        pairs = [
            # The first place is the best one: people's values are the places, turned round.
            count_pairs(values, [-place for place in item.places])
            for values, item in zip(scores, self.items, strict=True)
        ]
        decided = [float(each.untied_y > 0) for each in pairs]
        # Where a metric cannot tell any of the texts apart it agrees with nobody: 0, not left out, which would reward silence.
        taus = [_tau([each.alike - each.otherwise, each.untied_x, each.untied_y]) or 0.0 for each in pairs]
        x = [value for values in scores for value in values]
        columns: Mapping[Statistic, tuple[list[list[float]], Sums]] = {
            "tau": ([taus, decided], _share),
            "tau_pairs": (
                [
                    [each.alike - each.otherwise for each in pairs],
                    [each.untied_x for each in pairs],
                    [each.untied_y for each in pairs],
                ],
                _tau,
            ),
            "accuracy": ([[each.alike + each.tied_x / 2 for each in pairs], [each.untied_y for each in pairs]], _share),
            "pearson": (self._moments(_centred(x), _centred(self.ratings)), _correlation),
        }
        result: dict[Statistic, tuple[float | None, list[float | None]]] = {}
        for name in STATISTICS:
            if name == "spearman":
                result[name] = (spearman(x, self.ratings), self._spearmans(x))
            else:
                terms, combine = columns[name]
                result[name] = (combine([math.fsum(column) for column in terms]), _resampled(terms, combine, self.weights))
        return result

    def _moments(self, x: Sequence[float], y: Sequence[float]) -> list[list[float]]:
        """Per item: number of texts, and the sums of x, y, xx, yy, xy over its texts."""
        rows = []
        for start in range(0, len(x), self.width or 1):
            a, b = x[start : start + self.width], y[start : start + self.width]
            rows.append([float(self.width), math.fsum(a), math.fsum(b), _dot(a, a), _dot(b, b), _dot(a, b)])
        return [list(column) for column in zip(*rows, strict=True)]

    def _spearmans(self, x: Sequence[float]) -> list[float | None]:
        order, found = _Order(x), []
        for weights, other, spread in zip(self.text_weights, self.ranks, self.spreads, strict=True):
            ranks = order.ranks(weights)
            weighted = [*map(mul, weights, ranks)]
            # The mean of these ranks is the number of values.
            middle = len(x) ** 3
            own, others = _dot(weighted, ranks) - middle, spread - middle
            found.append(_within((_dot(weighted, other) - middle) / math.sqrt(own * others)) if own > 0 and others > 0 else None)
        return found


def _differences(
    taus: Mapping[str, tuple[float | None, list[float | None]]],
) -> tuple[str | None, dict[str, Difference]]:
    """Each metric against the one with the highest tau, draw by draw.

    p is twice the share of draws in which the difference has the other sign or none, at least 2 / (draws + 1).
    Source: B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 15 and 16.
    """
    known = {name: value for name, (value, _) in taus.items() if value is not None}
    if not known:
        return None, {}
    best = max(known, key=lambda name: known[name])
    rows: dict[str, tuple[float, list[float | None], float]] = {}
    for name, value in known.items():
        if name != best:
            drawn = [
                None if one is None or other is None else one - other
                for one, other in zip(taus[best][1], taus[name][1], strict=True)
            ]
            there = [each for each in drawn if each is not None]
            tail = min(sum(each <= 0 for each in there), sum(each >= 0 for each in there))
            rows[name] = (known[best] - value, drawn, min(1.0, 2 * (1 + tail) / (1 + len(there))))
    corrected = holm([p for *_, p in rows.values()])
    result = {}
    for (name, (value, drawn, p)), p_holm in zip(rows.items(), corrected, strict=True):
        figure = _interval(value, drawn, 0)
        result[name] = Difference(value=value, low=figure.low, high=figure.high, p=p, p_holm=p_holm)
    return best, result


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number. S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


# --- resampling ---


def _draws(n: int, draws: int, seed: str) -> list[list[int]]:
    """Resamples of n items: how often each is in it. Fewer than two items cannot be resampled."""
    if n < 2:
        return []
    generator, found = random.Random(seed), []
    for _ in range(draws):
        counts = [0] * n
        for i in generator.choices(range(n), k=n):
            counts[i] += 1
        found.append(counts)
    return found


def _figure(columns: Sequence[Sequence[float]], combine: Sums, weights: Sequence[Draw], n: int) -> Figure:
    """The figure of a statistic that depends on sums over the items alone; `columns` holds the items' terms."""
    return _interval(combine([math.fsum(column) for column in columns]), _resampled(columns, combine, weights), n)


def _resampled(columns: Sequence[Sequence[float]], combine: Sums, weights: Sequence[Draw]) -> list[float | None]:
    return [combine([_dot(draw, column) for column in columns]) for draw in weights]


def _interval(value: float | None, drawn: Sequence[float | None], n: int) -> Figure:
    """The 95 % percentile interval. None where every draw is the same: a bootstrap of constants would claim certainty."""
    there = [each for each in drawn if each is not None]
    if value is None or len(there) * 2 < len(drawn) or not there or max(there) - min(there) < 1e-12:
        return Figure(value=value, low=None, high=None, n=n)
    ends = statistics.quantiles(there, n=40, method="inclusive")
    return Figure(value=value, low=ends[0], high=ends[-1], n=n)


class _Order:
    """The order of two values or more, known once, so that the ranks of a resample of them cost a few passes."""

    def __init__(self, values: Sequence[float]) -> None:
        order = sorted(range(len(values)), key=lambda i: values[i])
        start: dict[float, int] = {}
        end: dict[float, int] = {}
        for position, i in enumerate(order):
            start.setdefault(values[i], position)
            end[values[i]] = position + 1
        self._sorted = itemgetter(*order)
        self._starts = itemgetter(*(start[value] for value in values))
        self._ends = itemgetter(*(end[value] for value in values))

    def ranks(self, weights: Draw) -> list[int]:
        """Twice the midranks, less 1, of values each of which is there as often as its weight says."""
        below = [0, *accumulate(self._sorted(weights))]
        return [*map(add, self._starts(below), self._ends(below))]


def _tau(sums: Sequence[float]) -> float | None:
    if not sums:
        return None
    excess, untied_x, untied_y = sums
    return excess / math.sqrt(untied_x * untied_y) if untied_x and untied_y else None


def _share(sums: Sequence[float]) -> float | None:
    return sums[0] / sums[1] if sums[1] else None


def _correlation(sums: Sequence[float]) -> float | None:
    if not sums:
        return None
    n, x, y, xx, yy, xy = sums
    own, other = n * xx - x * x, n * yy - y * y
    # What is left of rounding when nothing varies is no variance.
    if own <= 1e-12 * n * xx or other <= 1e-12 * n * yy:
        return None
    return _within((n * xy - x * y) / math.sqrt(own * other))


def _mean_of(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if len(there) == len(values) else None


def _centred(values: Sequence[float]) -> list[float]:
    mean = math.fsum(values) / len(values) if values else 0.0
    return [value - mean for value in values]


def _dot(x: Sequence[float], y: Sequence[float]) -> float:
    return sum(map(mul, x, y), 0.0)


def _within(correlation: float) -> float:
    return max(-1.0, min(1.0, correlation))
