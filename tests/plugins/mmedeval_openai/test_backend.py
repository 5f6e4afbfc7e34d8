"""The backend over real HTTP, against a server that misbehaves on order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmedeval import BackendError, Failure, GenerateRequest, Generation, ModelError, Request, Response, Shot, UsageError
from mmedeval.testing import check_backend

pytest.importorskip("openai")

Make = Callable[..., Any]


def answers(backend: Any, requests: list[Any]) -> dict[str, Response]:
    """The responses by id, in the order in which they came."""
    scores = bool(requests) and not isinstance(requests[0], GenerateRequest)
    with backend:
        found = list(backend.loglikelihood(requests) if scores else backend.generate(requests))
    by_id = {response.request_id: response for response in found}
    assert len(found) == len(by_id) == len(requests)
    return by_id


@pytest.fixture
def questions(write: Make) -> Callable[[int], list[Request]]:
    return lambda count: [write(f"Question {i}\nA. iron\nB. zinc", id=f"t/{i}", chat=True) for i in range(count)]


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_the_backend_keeps_the_contract(open_backend: Make, endpoint: str) -> None:
    backend = open_backend(endpoint=endpoint)
    # This server gives no log-probabilities; real ones are asked in test_llama_server.py.
    backend.capabilities = backend.capabilities - {"loglikelihood"}
    check_backend(backend)


def test_it_says_what_it_is_without_asking_and_what_happened_afterwards(
    open_backend: Make, questions: Make, faulty_server: Any
) -> None:
    backend = open_backend()
    backend.check(chat=True)
    assert backend.runtime() == {}
    assert backend.describe()["server"] == f"{faulty_server.url}/v1"
    assert backend.describe()["settings"] == {
        "endpoint": "chat", "logprobs": False, "temperature": "sent", "reasoning_effort": None, "extra_body": {},
    }  # fmt: skip
    assert backend.fingerprint() == open_backend(concurrency="3").fingerprint()
    others = [open_backend("other"), open_backend(endpoint="completions"), open_backend(base_url="http://127.0.0.1:9/v1")]
    assert len({each.fingerprint() for each in [backend, *others]}) == 4
    assert faulty_server.counts()["paths"] == {}
    answers(backend, questions(20))
    talk = {"tries": 20, "in_flight_at_most": backend.talk.in_flight_at_most}
    assert backend.runtime() == {"answered_by": ["some-model"], "process": talk}


@pytest.mark.parametrize(
    ("arguments", "can"),
    [
        ({}, {"generate", "chat"}),
        ({"logprobs": "true"}, {"generate", "chat", "loglikelihood"}),
        ({"endpoint": "completions"}, {"generate", "loglikelihood"}),
    ],
)
def test_what_it_can_do_depends_on_the_endpoint(open_backend: Make, arguments: dict[str, str], can: set[str]) -> None:
    assert open_backend(**arguments).capabilities == can


def test_what_is_asked_reaches_the_server(open_backend: Make, write: Make, faulty_server: Any) -> None:
    shot = Shot(asked="Question 0", answered="Answer: B")
    got = answers(open_backend(reasoning_effort="high"), [write("Q\nA. iron", shots=(shot,), chat=True, max_tokens=50)])["task/1"]
    assert isinstance(got, Generation)
    assert got.text.endswith("Answer: A")
    assert (got.usage.tokens_thinking, got.usage.shots_dropped) == (5, 0)
    assert 0 < got.usage.tokens_cached < got.usage.tokens_in
    assert faulty_server.counts()["asked"] == {"Q\nA. iron": 1}


def test_a_stop_string_that_is_not_sent_still_ends_the_text(open_backend: Make, write: Make) -> None:
    for arguments in ({}, {"stop": "false"}):
        got = answers(open_backend(**arguments), [write(max_tokens=50, stop=("number",))])["task/1"]
        assert isinstance(got, Generation)
        assert (got.text, got.finish_reason) == ("The ", "stop")
    assert open_backend().describe()["settings"].get("not_sent") is None
    assert open_backend(stop="false", seed="false").describe()["settings"]["not_sent"] == ["seed", "stop"]


def test_money_is_counted(open_backend: Make, questions: Make, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text("[some-model]\ninput = 10\noutput = 50\ncached = 1\n")
    backend = open_backend(prices=str(tmp_path / "prices.toml"))
    found = answers(backend, questions(5)).values()
    for each in found:
        paid = (each.usage.tokens_in - each.usage.tokens_cached) * 10 + each.usage.tokens_cached + each.usage.tokens_out * 50
        assert each.usage.cost == pytest.approx(paid / 1e6)
    assert backend.runtime()["process"]["cost"] == pytest.approx(sum(each.usage.cost or 0 for each in found), abs=1e-6)
    bound = backend.most_cost(questions(5))
    assert bound > backend.talk.cost


def test_no_more_money_is_spent_than_allowed(open_backend: Make, questions: Make, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text("[some-model]\ninput = 10\noutput = 50\n")
    backend = open_backend(prices=str(tmp_path / "prices.toml"), max_cost="0.06")
    with pytest.raises(BackendError, match=r"stopped before spending more than --max-cost 0\.06"), backend:
        list(backend.generate(questions(200)))
    assert 0 < backend.talk.cost <= 0.06
    with pytest.raises(UsageError, match="needs the price of some-model"):
        open_backend(max_cost="1")


@pytest.mark.parametrize(
    "fault", ["429", "429-seconds", "429-date", "500", "529", "reset", "half", "html", "cut", "drip", "spent"]
)
def test_what_passes_is_asked_again_and_answered(open_backend: Make, questions: Make, faulty_server: Any, fault: str) -> None:
    faulty_server.order(next=["ok", fault, fault], seconds=0.02)
    found = answers(open_backend(timeout="0.3"), questions(12))
    assert all(isinstance(each, Generation) for each in found.values())
    counts = faulty_server.counts()
    assert counts["faults"] == {fault: 2}
    assert sum(counts["asked"].values()) == (12 if fault == "spent" else 14)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("empty", "backend", "the answer is empty (finish_reason stop)"),
        ("refusal", "refused", "the model refused: I cannot help with that."),
        ("filter", "refused", "a content filter stopped the answer"),
        ("too_long", "too_long", "HTTP 400: prompt is too long: 9 tokens > 8 maximum; key [key]"),
    ],
)
def test_what_will_not_be_answered_is_a_failure_with_its_reason(
    open_backend: Make, questions: Make, faulty_server: Any, fault: str, kind: str, words: str
) -> None:
    faulty_server.order(always={"Question 3": fault})
    found = answers(open_backend(), questions(6))
    failed = found.pop("t/3")
    assert isinstance(failed, Failure)
    assert (failed.kind, failed.message) == (kind, words)
    assert all(isinstance(each, Generation) for each in found.values())
    assert set(faulty_server.counts()["asked"].values()) == {1}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("expired", r"the key \[key\] has expired; the key is from the environment variable OPENAI_API_KEY"),
        ("unknown", r"model: some-model; key \[key\]"),
        ("poor", r"Your credit balance is too low to access the API; key \[key\]"),
    ],
)
def test_what_no_request_will_get_past_ends_the_run_with_the_first(
    open_backend: Make, questions: Make, faulty_server: Any, fault: str, words: str
) -> None:
    faulty_server.order(always={"": fault})
    with pytest.raises(ModelError, match=words):
        answers(open_backend(), questions(50))
    assert sum(faulty_server.counts()["asked"].values()) == 1


def test_a_server_that_is_not_there_is_told_at_once(open_backend: Make, questions: Make, make_faulty_server: Any) -> None:
    gone = make_faulty_server()
    gone.stop()
    with pytest.raises(BackendError, match=r"has answered nothing \(no connection: .*\)"):
        answers(open_backend(base_url=f"{gone.url}/v1"), questions(50))


def test_an_address_of_something_else_is_told(open_backend: Make, questions: Make, faulty_server: Any) -> None:
    with pytest.raises(ModelError, match="HTTP 404"):
        answers(open_backend(base_url=f"{faulty_server.url}/nothing"), questions(5))


def test_solved_examples_are_dropped_from_the_front_until_the_prompt_fits(
    open_backend: Make, write: Make, faulty_server: Any
) -> None:
    shots = tuple(Shot(asked=f"example {i}\n", answered="A\n") for i in range(3))
    faulty_server.order(always={"example 1": "too_long"})
    got = answers(open_backend(), [write("the question", shots=shots)])["task/1"]
    assert isinstance(got, Generation)
    assert got.usage.shots_dropped == 2
    assert faulty_server.counts()["answered"] == {"example 2\nA\nthe question": 1}


def test_without_a_key_the_provider_is_not_asked(open_backend: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ModelError, match=r"openai:some-model needs a key and the environment variable OPENAI_API_KEY holds none"):
        open_backend(base_url="").check(chat=True)
    open_backend().check(chat=True)


def test_a_server_of_ones_own_needs_no_key(
    open_backend: Make, questions: Make, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert len(answers(open_backend(), questions(2))) == 2


def test_completions_take_no_conversation(open_backend: Make) -> None:
    backend = open_backend(endpoint="completions")
    backend.check(chat=False)
    with pytest.raises(ModelError, match="run with --no-chat-template"):
        backend.check(chat=True)


def test_chat_without_log_probabilities_cannot_score(open_backend: Make, score: Make) -> None:
    with pytest.raises(ModelError, match="cannot compute loglikelihoods"):
        answers(open_backend(), [score()])


@pytest.mark.parametrize(
    ("continuations", "letters"), [((" A", " A,B\n"), ("A", "A,B")), ((" yes", " no"), ("A", "B"))], ids=["sets", "texts"]
)
def test_what_a_first_token_cannot_tell_is_refused_before_anything_is_asked(
    open_backend: Make, score: Make, faulty_server: Any, continuations: tuple[str, ...], letters: tuple[str, ...]
) -> None:
    with pytest.raises(ModelError, match=r"scores single option letters, and task/1 asks for"):
        answers(open_backend(logprobs="true"), [score(continuations=continuations, answers=letters)])
    assert faulty_server.counts()["paths"] == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"logprobs": "true"}, "holds no log-probabilities; leave out --model-arg logprobs=true"),
        ({"endpoint": "completions"}, "does not echo the prompt with log-probabilities"),
    ],
)
def test_a_server_that_ignores_what_is_asked_ends_the_run(
    open_backend: Make, score: Make, faulty_server: Any, arguments: dict[str, str], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        answers(open_backend(**arguments), [score(id=f"t/{i}") for i in range(9)])
    assert sum(faulty_server.counts()["asked"].values()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"endpoint": "responses"}, "endpoint=responses is neither chat nor completions"),
        ({"logprobs": "5"}, "logprobs=5 is neither true nor false"),
        ({"temperature": "0"}, "temperature=0 is neither true nor false"),
        ({"max_tokens_name": "limit"}, "max_tokens_name=limit is neither"),
        ({"extra_body": "{"}, "extra_body is no JSON"),
        ({"extra_body": "[1]"}, "extra_body must be a JSON object"),
        ({"seed": "7"}, "seed=7 is neither true nor false"),
        ({"extra_body": '{"model": "x"}'}, "extra_body may not hold 'model': the backend sets it itself"),
        ({"extra_body": '{"n": 2}'}, "extra_body may not hold 'n': the backend sets it itself"),
        ({"extra_body": '{"stop": ["x"]}'}, "extra_body may not hold 'stop': the backend sets it itself"),
        ({"extra_body": '{"max_tokens": 9}'}, "extra_body may not hold 'max_tokens': give it with --max-tokens"),
        ({"extra_body": '{"temperature": 1}'}, "extra_body may not hold 'temperature': give it with --temperature"),
        ({"extra_body": '{"top_k": 1, "service_tier": "flex"}'}, "'service_tier': it changes what an answer costs"),
        ({"extra_body": '{"best_of": 9}'}, "'best_of': it changes what an answer costs"),
        ({"extra_body": '{"models": ["x"]}'}, "'models': another model than the one that is named may answer"),
        ({"extra_body": '{"tools": []}'}, "'tools': with it the model is asked something else"),
        ({"extra_body": '{"truncate_prompt_tokens": 9}'}, "'truncate_prompt_tokens': the server would cut questions"),
        ({"endpoint": "completions", "logprobs": "true"}, "logprobs is for endpoint=chat"),
        ({"endpoint": "completions", "batch": "true"}, "batch=true is for endpoint=chat"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_setting_is_named(open_backend: Make, arguments: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_backend(**arguments)


def test_a_model_that_gets_no_temperature_is_warned_of(open_backend: Make, questions: Make) -> None:
    backend = open_backend(temperature="false")
    answers(backend, questions(2))
    assert "drawn, not greedy" in backend.runtime()["warnings"][0]
