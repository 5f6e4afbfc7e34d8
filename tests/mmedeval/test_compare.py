"""Two runs item by item: which may be compared, and what comes of it."""

import dataclasses
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mmedeval.compare import compare, differences
from mmedeval.errors import UsageError
from mmedeval.outcomes import Outcomes, TaskOutcomes
from mmedeval.paired import holm
from mmedeval.testing import make_sample
from mmedeval.types import Aggregate, SampleResult


def task(
    outcomes: str,
    language: str = "en",
    *,
    start: int = 1,
    parallel: bool = False,
    group: str | None = "exam",
    scores: Mapping[str, Any] | None = None,
    **digests: str,
) -> TaskOutcomes:
    ids = [f"test-{start + i}" for i in range(len(outcomes))]
    return TaskOutcomes(
        language=language,
        group=group,
        **{"data": "d", "questions": "q", "prompts": "p", **digests},
        ids=ids,
        outcomes=outcomes,
        parallel=ids if parallel else [],
        scores=scores or {},
    )


def run(name: str, *tasks: TaskOutcomes, results: bool = False, **choices: Any) -> Outcomes:
    named = {f"exam_{each.language}": each for each in tasks}
    return Outcomes(
        name=name,
        path=Path(name),
        model=name,
        **{"protocol": "letter", "shots": 0, "sampling": None, "metric_args": {}, **choices},
        fingerprint=name,
        made="",
        tasks=named,
        figures=[
            Aggregate(metric=metric, task=own, language=each.language, value=0, low=0, high=0, n=1, scored=1, scale=100)
            for own, each in named.items()
            for metric in each.scores
        ],
        results={
            (own, item): result_of(own, item, each.language, outcome)
            for own, each in named.items()
            for item, outcome in zip(each.ids, each.outcomes, strict=True)
        }
        if results
        else None,
    )


def result_of(task: str, item: str, language: str, outcome: str) -> SampleResult:
    sample = make_sample(int(item.removeprefix("test-")), language=language)
    right = sorted(sample.answer)[0]
    wrong = next(letter for letter in sample.options if letter not in sample.answer)
    return SampleResult(
        task=task,
        sample=sample,
        status={"u": "unread", "f": "failed", "-": "unscored"}.get(outcome, "ok"),  # type: ignore[arg-type]
        prediction=frozenset({right if outcome == "1" else wrong}) if outcome in "01" else None,
    )


# --- may they be compared? ---


@pytest.mark.parametrize(
    ("base", "new", "said"),
    [
        (run("a", task("1")), run("b", task("1"), protocol="chat"), "protocol is letter and chat"),
        (run("a", task("1")), run("b", task("1"), shots=3), "shots is 0 and 3"),
        (run("a", task("1")), run("b", task("1", prompts="other")), "exam_en was asked with other prompts"),
        (run("a", task("1"), task("1", "ja")), run("b", task("1")), "exam_ja is in a alone"),
        (
            run("a", task("1")),
            run("b", task("1"), *(task("1", each) for each in ("ja", "zh"))),
            "exam_ja, exam_zh are in b alone",
        ),
        (run("a", task("1")), run("b", task("10", data="e", questions="r")), r"exam_en has other items \(1 and 2\)"),
        (
            run("a", task("1"), protocol="chat", sampling={"temperature": 0.0, "seed": 1}),
            run("b", task("1"), protocol="chat", sampling={"temperature": 0.7, "seed": 1}),
            "temperature is 0.0 and 0.7",
        ),
        (
            run("a", task("1", scores={"bleu": [1.0]}), metric_args={}),
            run("b", task("1", scores={"bleu": [1.0]}), metric_args={"rationale_items": "all"}),
            "metric setting rationale_items is not set and all",
        ),
    ],
)
def test_what_makes_two_runs_no_fair_comparison_is_named(base: Outcomes, new: Outcomes, said: str) -> None:
    with pytest.raises(UsageError, match=f"a and b cannot be compared: {said}; --force compares what they share"):
        compare(base, new)


@pytest.mark.parametrize(
    ("base", "new"),
    [
        (run("a", task("1")), run("b", task("1"))),
        # A baseline that learns from the train split has another digest of data over the same questions.
        (run("a", task("1", data="with train")), run("b", task("1", data="without"))),
        (
            run("a", task("1"), protocol="chat", sampling={"temperature": 0.7, "seed": 1}),
            run("b", task("1"), protocol="chat", sampling={"temperature": 0.7, "seed": 2}),
        ),
        # A setting of a metric that one run alone has changes nothing that is compared.
        (run("a", task("1")), run("b", task("1", scores={"bleu": [1.0]}), metric_args={"rationale_items": "all"})),
    ],
)
def test_models_seeds_and_what_models_learnt_from_may_differ(base: Outcomes, new: Outcomes) -> None:
    assert differences(base, new) == []


def test_runs_of_other_tasks_are_told_so_and_not_to_use_force() -> None:
    with pytest.raises(UsageError, match=r"a and b cannot be compared: they have no task in common \(exam_en; exam_ja\)$"):
        compare(run("a", task("1")), run("b", task("1", "ja")))


def test_of_many_differences_the_first_are_named_and_the_rest_counted() -> None:
    base = run("a", task("1"), task("1", "ja"), protocol="chat", shots=1)
    new = run("b", task("10", data="e", questions="r"), task("1", "zh"), protocol="letter")
    with pytest.raises(UsageError, match=r"protocol is chat and letter; shots is 1 and 0; exam_ja is in a alone; and 2 more; "):
        compare(base, new)


# --- forced ---


def test_a_forced_comparison_says_what_differs_and_compares_what_is_shared() -> None:
    base, new = run("a", task("1100"), task("1", "ja")), run("b", task("0011", start=3, data="e", questions="r"))
    found = compare(base, new, force=True)
    assert found.forced == ("exam_ja is in a alone", "exam_en has other items (4 and 4)")
    assert [(row.task, row.all.n, row.all.gained, row.all.lost) for row in found.rows] == [("exam_en", 2, 0, 0)]
    assert found.notes == (
        "exam_en: a baseline holds no questions; items were paired by their ids alone",
        "exam_en: 2 items are in both runs, of 4 and 4",
    )


def test_a_forced_comparison_leaves_out_items_that_are_not_the_same() -> None:
    base, new = run("a", task("1100"), results=True), run("b", task("0011", data="e"), results=True)
    assert new.results is not None
    changed = {**new.results}
    old = changed["exam_en", "test-2"]
    changed["exam_en", "test-2"] = dataclasses.replace(old, sample=dataclasses.replace(old.sample, question="Another one?"))
    found = compare(base, dataclasses.replace(new, results=changed), force=True)
    assert [(row.all.n, row.all.gained, row.all.lost) for row in found.rows] == [(3, 2, 1)]
    assert found.notes[0] == "exam_en: 1 items read differently in the two runs and were left out"


def test_runs_that_share_no_item_cannot_be_forced() -> None:
    for other in (task("11", start=9, data="e", questions="r"), task("11", "ja")):
        with pytest.raises(UsageError, match="a and b share no item; nothing can be compared"):
            compare(run("a", task("11")), run("b", other), force=True)


# --- figures ---


def test_the_figures_of_a_task_are_those_of_scipy_and_of_counting() -> None:
    generator = random.Random(0)
    old, new = ("".join(generator.choices("01", (4, 6), k=300)) for _ in range(2))
    (row,) = compare(run("a", task(old)), run("b", task(new))).rows
    found = row.all
    gained, lost = sum(a < b for a, b in zip(old, new, strict=True)), sum(a > b for a, b in zip(old, new, strict=True))
    assert (found.n, found.gained, found.lost) == (300, gained, lost)
    assert found.base == pytest.approx(old.count("1") / 300)
    assert found.value == pytest.approx(found.new - found.base)
    assert found.p == pytest.approx(stats.binomtest(lost, gained + lost).pvalue)
    assert found.low < found.value < found.high
    assert row.read == found


def test_the_average_is_the_plain_mean_of_the_languages_with_a_bootstrap_stratified_by_them() -> None:
    generator = random.Random(1)
    drawn = {
        language: tuple("".join(generator.choices("01", (4, 6), k=n)) for _ in range(2))
        for language, n in (("en", 200), ("ja", 80))
    }
    rows = compare(
        run("a", *(task(old, language) for language, (old, _) in drawn.items())),
        run("b", *(task(new, language) for language, (_, new) in drawn.items())),
    ).rows
    assert [row.language for row in rows] == ["en", "ja", "avg"]
    average = rows[-1].all
    assert average.value == pytest.approx((rows[0].all.value + rows[1].all.value) / 2)
    assert (average.n, average.gained) == (280, rows[0].all.gained + rows[1].all.gained)
    columns = [np.array([int(b) - int(a) for a, b in zip(*pair, strict=True)]) for pair in drawn.values()]
    found = stats.bootstrap(
        columns,
        lambda a, b, axis=-1: (a.mean(axis=axis) + b.mean(axis=axis)) / 2,
        n_resamples=9999,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    assert (average.low, average.high) == pytest.approx(
        (found.confidence_interval.low, found.confidence_interval.high), abs=0.007
    )


def test_p_values_of_languages_are_corrected_together_and_the_average_is_not() -> None:
    old, new = "1" * 60 + "0" * 60, "1" * 40 + "0" * 80
    rows = compare(
        run("a", task(old), task(old, "ja"), task(old, "zh")),
        run("b", task(new), task(old, "ja"), task(new[:-10] + "1" * 10, "zh")),
    ).rows
    assert [row.all.p_holm for row in rows] == [*holm([row.all.p for row in rows[:3]]), None]
    assert rows[0].all.p_holm == pytest.approx(3 * rows[0].all.p)


def test_languages_that_ask_the_same_questions_are_resampled_and_flipped_together() -> None:
    old, new = "1100" * 20, "1010" * 15 + "0000" * 5
    together, apart = (
        compare(
            run("a", *(task(old, each, parallel=parallel) for each in ("en", "ja", "zh"))),
            run("b", *(task(new, each, parallel=parallel) for each in ("en", "ja", "zh"))),
        ).rows[-1]
        for parallel in (True, False)
    )
    assert together.all.value == pytest.approx(apart.all.value)
    assert together.all.high - together.all.low > 1.5 * (apart.all.high - apart.all.low)
    # Three languages that always agree tell no more than one does.
    assert together.all.p == pytest.approx(stats.binomtest(together.all.lost // 3, together.all.lost // 3 + 15).pvalue)
    assert apart.all.p < together.all.p


def test_items_without_an_answer_count_as_wrong_and_those_read_in_both_are_compared_beside() -> None:
    old, new = "1111" + "0000" + "uu" + "ff", "1uf0" + "1000" + "1u" + "f1"
    (row,) = compare(run("a", task(old)), run("b", task(new))).rows
    assert (row.all.n, row.all.gained, row.all.lost) == (12, 3, 3)
    assert (row.all.base, row.all.new) == pytest.approx((4 / 12, 4 / 12))
    assert row.read is not None
    assert (row.read.n, row.read.gained, row.read.lost) == (6, 1, 1)
    assert (row.read.base, row.read.new) == pytest.approx((2 / 6, 2 / 6))
    assert (row.unread, row.failed, row.read_alone) == ((2, 2), (2, 2), (2, 2))


def test_a_model_that_stops_answering_does_not_look_unchanged() -> None:
    (row,) = compare(run("a", task("1" * 50 + "0" * 50)), run("b", task("1" * 25 + "u" * 50 + "0" * 25))).rows
    assert row.read is not None
    assert row.read.value == 0
    assert row.all.value == -0.25
    assert row.all.p < 1e-6


def test_a_task_that_was_read_in_no_item_of_both_has_no_such_figure() -> None:
    rows = compare(run("a", task("11"), task("uu", "ja")), run("b", task("10"), task("11", "ja"))).rows
    assert rows[1].read is None
    assert rows[1].all.value == 1
    assert rows[2].read is None


def test_items_that_the_protocol_does_not_score_are_in_no_figure() -> None:
    found = compare(run("a", task("11-"), task("--", "ja")), run("b", task("10-"), task("--", "ja")))
    assert [(row.task, row.all.n) for row in found.rows] == [("exam_en", 2)]
    assert found.notes == ("exam_ja: no item is scored under this protocol",)


# --- other metrics ---


def test_a_metric_is_compared_over_the_items_that_both_scored_with_a_paired_bootstrap() -> None:
    generator = np.random.default_rng(2)
    old, step = generator.uniform(0, 100, 150), generator.normal(2, 10, 150)
    bases: list[float | None] = [*map(float, old), None, 5.0]
    news: list[float | None] = [*map(float, old + step), 7.0, None]
    outcomes = "1" * 152
    found = compare(run("a", task(outcomes, scores={"bleu": bases})), run("b", task(outcomes, scores={"bleu": news})))
    (row,) = found.metrics
    assert (row.metric, row.n, row.scale) == ("bleu", 150, 100)
    assert row.value == pytest.approx(step.mean())
    assert row.base == pytest.approx(old.mean())
    expected = stats.bootstrap((step,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(0))
    assert (row.low, row.high) == pytest.approx((expected.confidence_interval.low, expected.confidence_interval.high), abs=0.2)


def test_a_metric_that_one_run_alone_has_is_named_and_not_compared() -> None:
    found = compare(run("a", task("1", scores={"bleu": [1.0]})), run("b", task("1")))
    assert found.metrics == ()
    assert found.notes == ("bleu: in a alone; mmedeval rescore adds metrics to a run",)


def test_the_average_of_a_metric_is_left_out_where_a_language_has_none() -> None:
    scores = {"bleu": [1.0, 2.0]}
    both = compare(
        run("a", task("11", scores=scores), task("11", "ja", scores=scores)),
        run("b", task("11", scores=scores), task("11", "ja", scores=scores)),
    )
    assert [row.language for row in both.metrics] == ["en", "ja", "avg"]
    one = compare(run("a", task("11", scores=scores), task("11", "ja")), run("b", task("11", scores=scores), task("11", "ja")))
    assert [row.language for row in one.metrics] == ["en"]
    # Of differences that are all the same there is no interval.
    assert (one.metrics[0].low, one.metrics[0].high) == (None, None)


# --- items ---


def test_items_gained_and_lost_are_told_with_what_each_run_answered() -> None:
    found = compare(run("a", task("110u"), results=True), run("b", task("1f11"), results=True))
    assert [(item.id, item.change, item.base, item.new, item.answer) for item in found.items] == [
        ("test-2", "lost", found.items[0].answer, "failed", found.items[0].answer),
        ("test-3", "gained", found.items[1].base, found.items[1].answer, found.items[1].answer),
        ("test-4", "gained", "unread", found.items[2].answer, found.items[2].answer),
    ]
    assert all(item.question for item in found.items)


def test_items_of_baselines_are_told_without_texts() -> None:
    (item,) = compare(run("a", task("10")), run("b", task("00"))).items
    assert (item.id, item.change, item.base, item.new, item.question) == ("test-1", "lost", "right", "wrong", None)


def test_a_comparison_is_json_with_items_only_where_they_are_asked_for() -> None:
    found = compare(run("a", task("10")), run("b", task("00")))
    assert "items" not in json.loads(json.dumps(found.as_json(items=False)))
    assert len(json.loads(json.dumps(found.as_json(items=True)))["items"]) == 1
