"""From scores to figures: plain means, honest counts, and how consistent a model is across languages."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mmedeval.aggregate import (
    AVERAGE,
    TaskScores,
    aggregate_all,
    aggregate_average,
    aggregate_task,
    cross_lingual_consistency,
    figures_as_json,
)
from mmedeval.stats import bootstrap_mean, wilson
from mmedeval.testing import make_sample
from mmedeval.types import Aggregate, SampleResult, Status


def scored(
    language: str,
    values: Sequence[float | None],
    *,
    statuses: Sequence[Status] | None = None,
    chances: Sequence[float | None] | None = None,
    metric: str = "accuracy",
    group: str | None = "bench",
) -> TaskScores:
    """A task whose items have these scores."""
    statuses = statuses or ["ok"] * len(values)
    return TaskScores(
        task=f"bench_{language}",
        language=language,
        group=group,
        results=[
            SampleResult(task=f"bench_{language}", sample=make_sample(number), status=status)
            for number, status in enumerate(statuses)
        ],
        scores={metric: values},
        chances=chances or [0.25] * len(values),
    )


def averaged(tasks: Sequence[TaskScores], metric: str = "accuracy") -> Aggregate:
    return aggregate_average("bench", tasks, [aggregate_task(task, metric) for task in tasks], metric)


def parallel(language: str, values: Sequence[float | None]) -> TaskScores:
    """A task whose items are the same questions as those of every other such task."""
    task = scored(language, values)
    results = [
        replace(result, sample=replace(result.sample, meta={"parallel": f"q{i}"})) for i, result in enumerate(task.results)
    ]
    return replace(task, results=results)


def width(figure: Aggregate) -> float:
    assert figure.low is not None
    assert figure.high is not None
    return figure.high - figure.low


def test_the_same_questions_in_several_languages_are_not_taken_for_independent_ones() -> None:
    values = [1.0] * 12 + [0.0] * 28
    alone = averaged([scored("en", values), scored("ja", values), scored("fr", values)])
    together = averaged([parallel("en", values), parallel("ja", values), parallel("fr", values)])
    assert alone.value == together.value == pytest.approx(0.3)
    # Answered alike in all languages, three times the items say no more than one language does.
    low, high = wilson(12, 40)
    assert width(together) == pytest.approx(high - low, rel=0.1)
    assert width(alone) < 0.7 * width(together)


def test_a_question_without_a_score_in_one_language_still_counts_in_the_others() -> None:
    figure = averaged([parallel("en", [1.0, 0.0, 1.0, None]), parallel("ja", [1.0, 0.0, None, 1.0])])
    assert figure.value == pytest.approx(2 / 3)
    assert 0 < width(figure) <= 1


def test_scores_that_do_not_vary_claim_no_certainty() -> None:
    constant = averaged([scored("en", [1.0] * 4), scored("ja", [0.0] * 4)])
    assert (constant.value, constant.low, constant.high) == (0.5, None, None)
    texts = aggregate_task(scored("en", [0.0] * 6, metric="bleu"), "bleu", scale=100)
    assert (texts.value, texts.low, texts.high) == (0.0, None, None)


def test_the_average_is_the_plain_mean_of_the_languages_however_many_items_they_have() -> None:
    tasks = [scored("en", [1.0] * 90 + [0.0] * 10), scored("ja", [1.0, 0.0]), scored("fr", [0.0])]
    average = averaged(tasks)
    assert average.value == pytest.approx((0.9 + 0.5 + 0.0) / 3)
    assert (average.task, average.language, average.n, average.scored) == ("bench", AVERAGE, 103, 103)
    assert (average.low, average.high) == bootstrap_mean([task.scores["accuracy"] for task in tasks])


def test_an_average_over_languages_of_which_one_has_no_score_has_no_value() -> None:
    tasks = [scored("en", [1.0, 0.0]), scored("ja", [None, None], statuses=["unread", "failed"])]
    average = averaged(tasks)
    assert (average.value, average.low, average.high) == (None, None, None)
    assert (average.n, average.scored, average.unread, average.failed) == (4, 2, 1, 1)


def test_a_task_without_a_score_has_no_value_and_no_interval() -> None:
    figure = aggregate_task(scored("en", [None]), "accuracy")
    assert (figure.value, figure.low, figure.high, figure.n, figure.scored) == (None, None, None, 1, 0)


def test_unread_failed_and_unscored_items_are_counted_apart_and_not_as_wrong() -> None:
    statuses: list[Status] = ["ok", "ok", "ok", "unread", "unread", "failed", "unscored", "unscored", "unscored"]
    values = [1.0, 1.0, 0.0] + [None] * 6
    figure = aggregate_task(scored("en", values, statuses=statuses), "accuracy")
    assert figure.value == pytest.approx(2 / 3)
    assert (figure.n, figure.scored, figure.unread, figure.failed, figure.unscored) == (9, 3, 2, 1, 3)
    assert (figure.low, figure.high) == wilson(2, 3)
    average = averaged([scored("en", values, statuses=statuses), scored("ja", [1.0])])
    assert (average.n, average.scored, average.unread, average.failed, average.unscored) == (10, 4, 2, 1, 3)


def test_shares_get_wilsons_interval_and_other_scores_a_bootstrap() -> None:
    shares, texts = [1.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.75, 1.0]
    figure = aggregate_task(scored("en", shares), "accuracy")
    assert (figure.low, figure.high) == wilson(3, 4)
    figure = aggregate_task(scored("en", texts, metric="bleu"), "bleu", scale=100)
    assert (figure.low, figure.high) == bootstrap_mean([texts])
    assert (figure.value, figure.scale) == (0.625, 100)


def test_only_accuracies_are_shown_beside_chance_and_an_average_only_where_every_language_has_one() -> None:
    mixed = scored("en", [1.0, 0.0, 1.0], chances=[0.25, 0.75, None])
    assert aggregate_task(mixed, "accuracy").chance == 0.5
    assert aggregate_task(scored("en", [1.0], metric="bleu"), "bleu").chance is None
    none = scored("ja", [1.0], chances=[None])
    assert averaged([mixed, scored("fr", [1.0])]).chance == pytest.approx((0.5 + 0.25) / 2)
    assert averaged([mixed, none]).chance is None


def test_the_chance_beside_an_accuracy_is_that_of_the_items_which_it_counts() -> None:
    read: list[float | None] = [1.0, 0.0, None, None]
    task = scored("en", read, statuses=["ok", "ok", "failed", "unread"], chances=[0.5, 0.5, 0.2, 0.2])
    strict = replace(task, scores={"accuracy_strict": [1.0, 0.0, 0.0, 0.0]})
    assert aggregate_task(task, "accuracy").chance == 0.5
    assert aggregate_task(strict, "accuracy_strict").chance == pytest.approx(0.35)


def test_every_task_has_a_figure_and_every_group_of_several_an_average() -> None:
    tasks = [
        scored("en", [1.0]),
        scored("ja", [0.0]),
        scored("fr", [1.0], group="alone"),
        scored("ru", [1.0], group=None),
        scored("es", [1.0], group=None),
    ]
    figures = aggregate_all(tasks, {"accuracy": 1.0})
    assert [(figure.task, figure.language) for figure in figures] == [
        ("bench_en", "en"),
        ("bench_ja", "ja"),
        ("bench_fr", "fr"),
        ("bench_ru", "ru"),
        ("bench_es", "es"),
        ("bench", AVERAGE),
    ]


def test_figures_can_be_stored_as_json() -> None:
    figures = aggregate_all([scored("en", [1.0, None], statuses=["ok", "unread"])], {"accuracy": 1.0})
    assert json.loads(json.dumps(figures_as_json(figures)))[0]["unread"] == 1


# The same question in several languages


def answered(language: str, answers: str) -> TaskScores:
    """A task with these answers, each as PARALLEL=GIVEN/RIGHT; `?` was not read, and `-` is no parallel question."""
    results = []
    for number, (parallel, given, right) in enumerate(re.findall(r"(\S+)=(\S+)/(\S+)", answers)):
        meta = {} if parallel == "-" else {"parallel": parallel}
        result = SampleResult(
            task=f"bench_{language}",
            sample=make_sample(number, answer=right, language=language, meta=meta),
            status="unread" if given == "?" else "ok",
            prediction=None if given == "?" else frozenset(given),
        )
        results.append(result)
    return TaskScores(task=f"bench_{language}", language=language, group="bench", results=results, scores={}, chances=[])


def test_consistency_counts_the_questions_answered_alike_and_rightly_in_all_languages() -> None:
    tasks = [
        answered("en", "q1=A/A q2=B/A q3=A/A q4=AC/AC q5=A/A q6=A/A q8=A/A"),
        answered("ja", "q2=B/A q1=A/A q3=B/A q4=CA/AC q5=?/A q8=A/A -=A/A"),
        answered("fr", "q1=A/A q2=B/A q3=A/A q4=AC/AC q5=A/A q7=A/A"),
    ]
    # q1 and q4 alike and right, q2 alike and wrong, q3 not alike, q5 unread in one language, q6 to q8 not asked in all.
    low, high = wilson(3, 4)
    right_low, right_high = wilson(2, 4)
    assert cross_lingual_consistency("bench", tasks) == {
        "group": "bench",
        "languages": 3,
        "questions": 5,
        "read": 4,
        "alike": {"count": 3, "value": 0.75, "low": low, "high": high},
        "all_right": {"count": 2, "value": 0.5, "low": right_low, "high": right_high},
    }


def test_there_is_no_consistency_without_a_question_that_all_languages_share() -> None:
    en, ja = answered("en", "q1=A/A"), answered("ja", "q2=A/A")
    assert cross_lingual_consistency("bench", [en]) is None
    assert cross_lingual_consistency("bench", [en, ja]) is None
    assert cross_lingual_consistency("bench", [answered("en", "-=A/A"), answered("ja", "-=A/A")]) is None


def test_where_no_shared_question_was_read_there_is_a_count_but_no_share() -> None:
    consistency = cross_lingual_consistency("bench", [answered("en", "q1=?/A"), answered("ja", "q1=A/A")])
    assert consistency is not None
    assert (consistency["questions"], consistency["read"], consistency["alike"]["value"]) == (1, 0, None)
