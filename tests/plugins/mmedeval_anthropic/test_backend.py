"""The backend over real HTTP, against a server that misbehaves on order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmedeval import BackendError, Failure, GenerateRequest, Generation, ModelError, Prompt, Sampling, Shot, remote
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.testing import check_backend

pytest.importorskip("anthropic")

KEY = "sk-planted-5f0c"
PRICES = "[claude]\ninput = 10\noutput = 50\ncached = 1\nwritten = 12.5\n"
Open = Callable[..., Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    for name, seconds in (("FIRST_PAUSE", 0.01), ("LONGEST_PAUSE", 0.05), ("FIRST_REST", 0.01)):
        monkeypatch.setattr(remote, name, seconds)


@pytest.fixture
def open_backend(faulty_server: Any) -> Open:
    def opened(name: str = "claude", **arguments: str) -> Any:
        arguments.setdefault("base_url", faulty_server.url)
        return Catalog(make_host()).open_backend(f"anthropic:{name}", arguments)

    return opened


def questions(count: int, prompt: Callable[[int], Prompt] | None = None, **sampling: Any) -> list[GenerateRequest]:
    make = prompt or (lambda i: Prompt(question=f"Question {i}\nA. iron\nB. zinc", chat=True))
    options = {"A": "iron", "B": "zinc"}
    return [GenerateRequest(id=f"t/{i}", prompt=make(i), sampling=Sampling(**sampling), options=options) for i in range(count)]


def answers(backend: Any, requests: list[GenerateRequest]) -> dict[str, Any]:
    """The responses by id, in the order in which they came."""
    with backend:
        found = list(backend.generate(requests))
    by_id = {response.request_id: response for response in found}
    assert len(found) == len(by_id) == len(requests)
    return by_id


def test_the_backend_keeps_the_contract(open_backend: Open) -> None:
    check_backend(open_backend())


def test_it_says_what_it_is_without_asking_and_what_happened_afterwards(open_backend: Open, faulty_server: Any) -> None:
    backend = open_backend()
    backend.check(chat=True)
    assert backend.runtime() == {}
    assert backend.describe()["server"] == faulty_server.url
    assert backend.describe()["settings"] == {"thinking": None, "effort": None, "temperature": "sent"}
    assert backend.fingerprint() == open_backend().fingerprint() != open_backend("claude-2").fingerprint()
    assert faulty_server.counts()["paths"] == {}
    assert all(isinstance(response, Generation) for response in answers(backend, questions(30)).values())
    assert backend.runtime() == {
        "answered_by": ["claude"],
        "process": {"tries": 30, "in_flight_at_most": backend.talk.in_flight_at_most},
    }


def test_a_model_that_takes_no_temperature_is_warned_of(open_backend: Open) -> None:
    backend = open_backend(temperature="false")
    answers(backend, questions(2))
    assert "drawn, not greedy" in backend.runtime()["warnings"][0]


def test_without_a_key_the_provider_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    backend = Catalog(make_host()).open_backend("anthropic:claude-opus-5-5", {})
    with pytest.raises(ModelError, match="needs a key and the environment variable ANTHROPIC_API_KEY holds none"):
        backend.check(chat=True)


def test_sampling_reaches_the_server(open_backend: Open) -> None:
    (cut,) = answers(open_backend(), questions(1, max_tokens=3)).values()
    assert isinstance(cut, Generation)
    assert (len(cut.text.split(" ")), cut.finish_reason, cut.usage.tokens_out) == (3, "length", 3)
    (stopped,) = answers(open_backend(), questions(1, stop=("Answer",))).values()
    assert isinstance(stopped, Generation)
    assert (stopped.text[-2:], stopped.finish_reason) == ("\n\n", "stop")
    (white,) = answers(open_backend(), questions(1, stop=("\n",))).values()
    assert isinstance(white, Generation)
    assert (white.text, white.finish_reason) == (stopped.text[:-2], "stop")


def test_thinking_is_no_part_of_the_answer(open_backend: Open) -> None:
    (plain,), (thought,) = (answers(open_backend(**arguments), questions(1)).values() for arguments in ({}, {"thinking": "1024"}))
    assert isinstance(plain, Generation)
    assert isinstance(thought, Generation)
    assert plain.text == thought.text
    assert (thought.usage.tokens_thinking, thought.usage.tokens_out) == (5, plain.usage.tokens_out + 5)


def test_shared_examples_are_written_to_the_cache_once_and_read_from_it_afterwards(open_backend: Open, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(PRICES)
    shots = (Shot(asked="Is iron a metal? " * 100, answered="Yes. " * 300),)
    requests = questions(20, lambda i: Prompt(question=f"Question {i}", shots=shots, chat=True))
    cached, plain = (
        answers(open_backend(prices=str(tmp_path / "prices.toml"), cache=cache), requests) for cache in ("true", "false")
    )
    assert [response.usage.tokens_cached > 700 for response in cached.values()] == [False, *[True] * 19]
    assert {response.usage.tokens_cached for response in plain.values()} == {0}
    assert {key: each.text for key, each in cached.items()} == {key: each.text for key, each in plain.items()}
    costs = [sum(response.usage.cost or 0 for response in each.values()) for each in (cached, plain)]
    assert 0 < costs[0] < 0.5 * costs[1]


@pytest.mark.parametrize(
    "fault", ["429", "429-seconds", "429-date", "500", "529", "reset", "drip", "half", "html", "cut", "spent"]
)
def test_what_passes_is_asked_again(fault: str, open_backend: Open, faulty_server: Any) -> None:
    faulty_server.order(next=["ok", "ok", fault], seconds=0.2)
    found = answers(open_backend(timeout="0.5"), questions(12))
    assert all(isinstance(response, Generation) for response in found.values())
    counts = faulty_server.counts()
    assert counts["faults"] == {fault: 1}
    assert sum(counts["asked"].values()) == 12 + (fault != "spent")


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("empty", "backend", "the answer is empty (stop_reason end_turn)"),
        ("refusal", "refused", "the model refused: bio, too dangerous"),
        ("filter", "refused", "HTTP 400: Output blocked by content filtering policy; key [key]"),
        ("too_long", "too_long", "HTTP 400: prompt is too long: 9 tokens > 8 maximum; key [key]"),
        ("500", "backend", "HTTP 500: an internal error, key [key] (asked 3 times)"),
        ("half", "backend", "the answer is no JSON (application/json) (asked 3 times)"),
        ("html", "backend", "the answer is no JSON (text/html) (asked 3 times)"),
        ("drip", "backend", "no whole answer within 0.3 s (asked 3 times)"),
        ("429", "backend", "HTTP 429: too many requests of [key] (asked 3 times)"),
    ],
)
def test_what_never_passes_is_a_failure_with_its_reason(
    fault: str, kind: str, words: str, open_backend: Open, faulty_server: Any
) -> None:
    faulty_server.order(always={"Question 3\n": fault})
    found = answers(open_backend(timeout="0.3", retries="2"), questions(12))
    failed = found.pop("t/3")
    assert isinstance(failed, Failure)
    assert (failed.kind, failed.message) == (kind, words)
    assert all(isinstance(response, Generation) for response in found.values())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("expired", "HTTP 401: the key [key] has expired; the key is from the environment variable ANTHROPIC_API_KEY"),
        ("unknown", "HTTP 404: model: claude; key [key]"),
        ("poor", "HTTP 400: Your credit balance is too low to access the API; key [key]"),
    ],
)
@pytest.mark.parametrize("before", [0, 5])
def test_what_concerns_every_request_ends_the_run_at_once(
    fault: str, words: str, before: int, open_backend: Open, faulty_server: Any
) -> None:
    faulty_server.order(next=["ok"] * before, always={"": fault})
    with open_backend() as backend, pytest.raises(ModelError) as caught:
        list(backend.generate(questions(1000)))
    assert str(caught.value) == f"{faulty_server.url}: {words}"
    assert sum(faulty_server.counts()["asked"].values()) <= (20 if before else 1)


def test_a_port_with_nothing_behind_it_is_one_sentence(open_backend: Open, make_faulty_server: Any) -> None:
    gone = make_faulty_server()
    gone.stop()
    with open_backend(base_url=gone.url) as backend, pytest.raises(BackendError) as caught:
        list(backend.generate(questions(100)))
    assert str(caught.value).startswith(f"{gone.url} has answered nothing (no connection: ")


def test_a_closed_iterator_asks_no_more(open_backend: Open, faulty_server: Any) -> None:
    faulty_server.order(delay=0.02)
    with open_backend(concurrency="4") as backend:
        responses = backend.generate(questions(1000))
        next(responses)
        responses.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("requests to")]
    assert sum(faulty_server.counts()["asked"].values()) < 50


def test_half_a_surrogate_pair_fails_its_own_request_alone(open_backend: Open) -> None:
    requests = questions(5, lambda i: Prompt(question=f"Question {i}" + "\ud83d" * (i == 2), chat=True))
    found = answers(open_backend(), requests)
    failed = found.pop("t/2")
    assert isinstance(failed, Failure)
    assert failed.kind == "refused"
    assert all(isinstance(response, Generation) for response in found.values())


def test_writing_to_the_cache_costs_a_quarter_more_unless_the_file_of_prices_says_otherwise(
    open_backend: Open, tmp_path: Path
) -> None:
    (tmp_path / "prices.toml").write_text("[claude]\ninput = 4\noutput = 20\n[other]\ninput = 4\noutput = 20\nwritten = 4.5\n")
    prices = str(tmp_path / "prices.toml")
    assert open_backend("claude", prices=prices).price.written == 5.0
    assert open_backend("other", prices=prices).price.written == 4.5


def test_a_limit_of_costs_holds(open_backend: Open, faulty_server: Any, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(PRICES)
    got: list[Any] = []
    backend = open_backend(prices=str(tmp_path / "prices.toml"), max_cost="0.1")
    requests = questions(500, max_tokens=100)
    most = backend.most_cost(requests)
    with backend, pytest.raises(BackendError, match=r"stopped before spending more than --max-cost 0.1: 0\.0\d\d\d dollars"):
        got.extend(backend.generate(requests))
    spent = sum(response.usage.cost for response in got)
    assert 0.09 < spent <= 0.1 < most
    assert backend.runtime()["process"]["cost"] == pytest.approx(spent, abs=1e-6)
    assert sum(faulty_server.counts()["answered"].values()) == len(got)
