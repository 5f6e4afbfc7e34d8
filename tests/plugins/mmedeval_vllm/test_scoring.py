"""Which of vLLM's rows are read, with rows made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mmedeval import Failure, LoglikelihoodRequest, Loglikelihoods, Prompt, Usage
from mmedeval.tokens import Scoring
from mmedeval_vllm.scoring import Asked

CONTEXT = [7, 8, 9]


def question(*continuations: list[int]) -> Asked:
    texts = tuple(map(str, continuations))
    request = LoglikelihoodRequest(
        id="a", prompt=Prompt(question="?"), continuations=texts, answers=(frozenset("A"),) * len(texts), options={}
    )
    return Asked(scoring=Scoring(request=request, context=CONTEXT, continuations=list(continuations), usage=Usage(tokens_in=3)))


def value(prefix: tuple[int, ...]) -> float:
    """A loglikelihood that tells of which tokens it is."""
    return -sum(token / 10**i for i, token in enumerate(prefix, 1))


def rows(continuation: tuple[int, ...], cached: int, *, gaps: bool) -> Sequence[Mapping[int, Any]]:
    """What vLLM gives: nothing for the first token, then a row per token; of cached ones none, or with `gaps` anything."""
    known: list[Mapping[int, Any]] = [
        {
            token: SimpleNamespace(logprob=value((*CONTEXT, *continuation)[3 : i + 1]) if i >= 3 else -99.0)
            for token in [(*CONTEXT, *continuation)[i]]
        }
        for i in range(cached + 1, 3 + len(continuation))
    ]
    return [{}, *([{0: SimpleNamespace(logprob=5.0)}] * cached if gaps else []), *known]


def values_of(asked: Asked) -> tuple[float, ...]:
    response = asked.response()
    assert isinstance(response, Loglikelihoods)
    return response.values


def total(continuation: Sequence[int]) -> float:
    return sum(value(tuple(continuation[: i + 1])) for i in range(len(continuation)))


@pytest.mark.parametrize("gaps", [True, False], ids=["rows with anything", "no rows"])
@pytest.mark.parametrize("cached", [0, 1, 2])
def test_a_question_that_was_cached_gives_the_values_of_one_that_was_not(cached: int, gaps: bool) -> None:
    asked = question([1, 2], [3], [1, 4, 5])
    for continuation in asked.missing:
        asked.take(continuation, rows(continuation, cached, gaps=gaps), cached)
    assert asked.missing == []
    assert values_of(asked) == pytest.approx((total([1, 2]), total([3]), total([1, 4, 5])))


@pytest.mark.parametrize("gaps", [True, False])
def test_what_was_cached_of_a_continuation_comes_from_the_one_that_begins_alike(gaps: bool) -> None:
    asked = question([1, 2, 3], [1, 2, 4])
    asked.take((1, 2, 4), rows((1, 2, 4), 4, gaps=gaps), 4)  # read first, and nothing but its last token was run
    assert asked.missing == [(1, 2, 3), (1, 2, 4)]
    asked.take((1, 2, 3), rows((1, 2, 3), 0, gaps=gaps), 0)
    assert asked.missing == []
    assert values_of(asked) == pytest.approx((total([1, 2, 3]), total([1, 2, 4])))


def test_what_nobody_has_brought_is_missing_and_asked_again_without_the_cache() -> None:
    asked = question([1, 2])
    asked.take((1, 2), rows((1, 2), 3, gaps=True), 3)
    assert asked.missing == [(1, 2)]
    asked.take((1, 2), rows((1, 2), 0, gaps=True), 0)
    assert values_of(asked) == pytest.approx((total([1, 2]),))


def test_a_continuation_that_stands_there_twice_is_asked_once_and_counts_twice() -> None:
    asked = question([1], [1])
    assert asked.missing == [(1,)]
    asked.take((1,), rows((1,), 0, gaps=False), 0)
    assert values_of(asked) == pytest.approx((total([1]), total([1])))


def test_a_row_about_another_token_is_not_read_and_what_stays_missing_is_a_failure() -> None:
    asked = question([1], [4])
    asked.take((4,), rows((4,), 0, gaps=False), 0)
    asked.take((1,), rows((2,), 0, gaps=False), 0)
    assert asked.missing == [(1,)]
    response = asked.response()
    assert isinstance(response, Failure)
    assert (response.request_id, response.kind) == ("a", "backend")
    assert "1 continuations" in response.message
