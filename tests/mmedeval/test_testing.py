"""The test kit: it lets good backends pass, and each kind of bad one fails with the reason."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from mmedeval import (
    Backend,
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    ModelError,
    Prompt,
    Sampling,
    TaskOptions,
)
from mmedeval.prompts import answer_sets
from mmedeval.testing import ScriptedBackend, StaticTask, check_backend, make_sample, prefer

Scorer = Callable[[Sequence[LoglikelihoodRequest]], Iterator[Loglikelihoods | Failure]]
Writer = Callable[[Sequence[GenerateRequest]], Iterator[Generation | Failure]]


class Scoring(Backend):
    """Scores with a function that sees all requests of a call."""

    capabilities = frozenset({"loglikelihood"})

    def __init__(self, score: Scorer) -> None:
        self._score = score

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods | Failure]:
        return self._score(requests)


class Writing(Backend):
    """Writes with a function that sees all requests of a call."""

    capabilities = frozenset({"generate"})

    def __init__(self, write: Writer) -> None:
        self._write = write

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        return self._write(requests)


def good(request: LoglikelihoodRequest) -> Loglikelihoods:
    values = tuple(-0.01 * len(request.prompt.text) - len(text) for text in request.continuations)
    return Loglikelihoods(request_id=request.id, values=values)


def text(request: GenerateRequest, more: str = "") -> Generation:
    return Generation(request_id=request.id, text=request.prompt.text[-3:] + more)


def test_a_backend_that_keeps_the_contract_passes_in_whatever_order_it_answers() -> None:
    check_backend(Scoring(lambda requests: (good(request) for request in requests)))
    check_backend(Scoring(lambda requests: (good(request) for request in reversed(requests))))
    check_backend(Writing(lambda requests: (text(request) for request in reversed(requests))))
    check_backend(ScriptedBackend(score=good, write=text))


def test_the_tolerance_bounds_the_difference_between_alone_and_in_company() -> None:
    def jittery(requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods]:
        for request in requests:
            values = good(request).values
            yield Loglikelihoods(request_id=request.id, values=tuple(value - 1e-3 * (len(requests) > 1) for value in values))

    check_backend(Scoring(jittery), tolerance=2e-3)
    with pytest.raises(AssertionError, match=r"alone and in company differ by 0\.00(1|09)"):
        check_backend(Scoring(jittery))


def second_twice(requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods]:
    yield from (good(request) for request in (*requests, *requests[:1]))


def without_the_last(requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods]:
    yield from (good(request) for request in requests[: max(1, len(requests) - 1)])


def with_another_name(requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods]:
    yield from (Loglikelihoods(request_id=f"{request.id}x", values=good(request).values) for request in requests)


def with_a_value_too_few(requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods]:
    yield from (Loglikelihoods(request_id=request.id, values=good(request).values[1:]) for request in requests)


def above_zero(requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods]:
    yield from (Loglikelihoods(request_id=request.id, values=(0.5, -1.0, -2.0)) for request in requests)


def not_a_number(requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods]:
    yield from (Loglikelihoods(request_id=request.id, values=(float("nan"),) * 3) for request in requests)


def swapped(requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods]:
    names = [request.id for request in requests]
    for name, request in zip(reversed(names), requests, strict=True):
        yield Loglikelihoods(request_id=name, values=good(request).values)


def failing(requests: Sequence[LoglikelihoodRequest]) -> Iterator[Failure]:
    yield from (Failure(request_id=request.id, kind="backend", message="no memory") for request in requests)


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (second_twice, "answered twice"),
        (without_the_last, "no answer to"),
        (with_another_name, "was not asked"),
        (with_a_value_too_few, "one value per continuation"),
        (above_zero, "logarithm of a probability"),
        (not_a_number, "logarithm of a probability"),
        (swapped, "alone and in company differ"),
        (failing, "no memory"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_backend_that_breaks_the_contract_in_scoring_fails_with_the_reason(score: Scorer, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        check_backend(Scoring(score))


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda requests: (text(request, str(len(requests))) for request in requests), "alone and in company the texts differ"),
        (lambda requests: (text(request) for request in requests[:1]), "no answer to"),
        (lambda requests: (Failure(request_id=r.id, kind="refused", message="no") for r in requests), "failed: .*refused"),
    ],
    ids=["other text in company", "silence", "failure"],
)
def test_a_backend_that_breaks_the_contract_in_writing_fails_with_the_reason(write: Writer, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        check_backend(Writing(write))


def test_a_backend_that_says_it_can_but_cannot_is_found_out() -> None:
    class Boasting(Backend):
        capabilities = frozenset({"loglikelihood"})

    with pytest.raises(ModelError, match="Boasting cannot compute loglikelihoods"):
        check_backend(Boasting())


def test_a_backend_that_can_do_nothing_has_not_passed() -> None:
    with pytest.raises(AssertionError):
        check_backend(Backend())


# Stand-ins


def test_a_scripted_backend_can_what_it_was_given_and_remembers_what_it_was_asked() -> None:
    assert ScriptedBackend(score=good).capabilities == {"loglikelihood"}
    assert ScriptedBackend(write=text).capabilities == {"generate", "chat"}
    ask = GenerateRequest(id="a", prompt=Prompt(question="Q?"), sampling=Sampling(), options={})
    with ScriptedBackend(write=text) as backend:
        assert [response.request_id for response in backend.generate([ask])] == ["a"]
        with pytest.raises(ModelError):
            list(backend.loglikelihood([]))
    assert (backend.asked, backend.closed) == (["a"], True)


def test_prefer_makes_one_set_of_letters_the_likeliest() -> None:
    answers = answer_sets("ABC", 2)
    ask = LoglikelihoodRequest(
        id="a", prompt=Prompt(question="Q?"), continuations=("",) * len(answers), answers=answers, options={}
    )
    for answer in answers:
        values = prefer(lambda _, answer=answer: "".join(answer))(ask).values
        assert answers[values.index(max(values))] == answer


def test_made_samples_differ_by_number_and_hold_what_was_asked_for() -> None:
    one, two = make_sample(1), make_sample(2, answer="BD", language="ja", rationale="r")
    assert one.id != two.id
    assert one.question != two.question
    assert (two.answer, two.language, two.rationale, list(two.options)) == (frozenset("BD"), "ja", "r", ["A", "B", "C", "D"])
    task = StaticTask(test=[one], train=[two], name="t")
    assert (task.samples("test"), task.samples("train")) == ([one], [two])
    spec = task.spec("g")
    assert (spec.name, spec.group, spec.load(TaskOptions())) == ("t", "g", task)
