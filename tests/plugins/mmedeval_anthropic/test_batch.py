"""Batches over real HTTP: half the price, fetched later, never submitted twice."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmedeval import (
    BackendError,
    Failure,
    GenerateRequest,
    Generation,
    ModelError,
    Prompt,
    Response,
    Sampling,
    UsageError,
    batches,
)
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.remote import Trouble

pytest.importorskip("anthropic")

import anthropic
import httpx2

from mmedeval_anthropic.batch import Batches
from mmedeval_anthropic.options import Options

KEY = "sk-planted-19de"
PRICES = "[claude]\ninput = 10\noutput = 50\n"
SUBMIT = "POST /v1/messages/batches"
Open = Callable[..., Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    for name in ("FIRST_LOOK", "LONGEST_LOOK", "FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(batches, name, 0.01)


@pytest.fixture
def open_backend(faulty_server: Any, tmp_path: Path) -> Open:
    (tmp_path / "prices.toml").write_text(PRICES)

    def opened(**arguments: str) -> Any:
        given = {"base_url": faulty_server.url, "prices": str(tmp_path / "prices.toml"), "batch": "true", **arguments}
        backend = Catalog(make_host()).open_backend("anthropic:claude", given)
        backend.keep_in(tmp_path)
        return backend

    return opened


def questions(count: int) -> list[GenerateRequest]:
    sampling, options = Sampling(max_tokens=50), {"A": "iron", "B": "zinc"}
    prompts = [Prompt(question=f"Question {i}\nA. iron\nB. zinc", chat=True) for i in range(count)]
    return [GenerateRequest(id=f"t/{i}", prompt=prompt, sampling=sampling, options=options) for i, prompt in enumerate(prompts)]


def answers(backend: Any, requests: list[GenerateRequest]) -> dict[str, Response]:
    with backend:
        return {response.request_id: response for response in backend.generate(requests)}


def test_a_batch_gives_the_same_answers_for_half_the_price(open_backend: Open, faulty_server: Any) -> None:
    one_by_one, batched = (answers(open_backend(batch=batch), questions(30)) for batch in ("false", "true"))
    assert batched.keys() == one_by_one.keys()
    for key, response in batched.items():
        single = one_by_one[key]
        assert isinstance(single, Generation)
        assert isinstance(response, Generation)
        assert (response.text, response.finish_reason) == (single.text, single.finish_reason)
        assert response.usage.cost == pytest.approx((single.usage.cost or 0) / 2)
    assert faulty_server.counts()["paths"][SUBMIT] == 1


def test_entries_that_got_no_answer_are_failures_with_their_reason(open_backend: Open, faulty_server: Any) -> None:
    faults = {"lapsed": 1, "too_long": 2, "filter": 3, "500": 4, "refusal": 5, "empty": 6}
    faulty_server.order(always={f"Question {i}\n": fault for fault, i in faults.items()})
    found = answers(open_backend(), questions(10))
    failed = {name: found[f"t/{i}"] for name, i in faults.items()}
    said = {name: (each.kind, each.message) for name, each in failed.items() if isinstance(each, Failure)}
    assert said == {
        "lapsed": ("backend", "the batch expired before it was asked (asked 2 times)"),
        "too_long": ("too_long", "HTTP 400: prompt is too long: 9 tokens > 8 maximum; key [key]"),
        "filter": ("refused", "HTTP 400: Output blocked by content filtering policy; key [key]"),
        "500": ("backend", "HTTP 500: an internal error, key [key] (asked 2 times)"),
        "refusal": ("refused", "the model refused: bio, too dangerous"),
        "empty": ("backend", "the answer is empty (stop_reason end_turn)"),
    }
    assert sum(isinstance(each, Generation) for each in found.values()) == 4
    assert sorted(faulty_server.counts()["asked"].values()) == [1] * 8 + [2] * 2


def test_entries_that_expire_or_fail_in_passing_are_answered_by_the_next_batch(
    open_backend: Open, faulty_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {"lapsed": 1, "500": 2, "429": 3, "529": 4}
    faulty_server.order(always={f"Question {i}\n": fault for fault, i in faults.items()})
    submit = Batches.submit

    def heal(self: Any, entries: Any, label: str) -> str:
        if len(entries) == len(faults):
            faulty_server.order()
        return submit(self, entries, label)

    monkeypatch.setattr(Batches, "submit", heal)
    found = answers(open_backend(), questions(8))
    assert sorted(found) == [f"t/{i}" for i in range(8)]
    assert [each for each in found.values() if not isinstance(each, Generation)] == []
    assert sorted(faulty_server.counts()["asked"].values()) == [1, 1, 1, 1, 2, 2, 2, 2]


def test_what_somebody_cancelled_is_a_failure_that_is_not_asked_again(open_backend: Open) -> None:
    with open_backend() as backend, backend._batches() as service, pytest.raises(Trouble, match="was cancelled") as caught:
        service.read(questions(1)[0], {"type": "canceled"})
    assert caught.value.verdict == "refused"


def test_a_text_with_another_end_of_a_line_inside_is_one_line_of_a_batch() -> None:
    lines = [{"custom_id": f"{i}", "result": {"text": "one\u2028two\x85three"}} for i in range(3)]
    content = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/results"):
            return httpx2.Response(200, content=content)
        return httpx2.Response(200, json={"id": "b", "results_url": "https://api.anthropic.com/v1/messages/batches/b/results"})

    with anthropic.Anthropic(api_key="none", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))) as client:
        service = Batches(client, "claude", Options.parse("claude", {}), lambda *_: None)
        assert [*service.results("b")] == [(line["custom_id"], line["result"]) for line in lines]


@pytest.mark.parametrize("fault", ["429", "500", "529", "reset", "half", "html", "cut"])
@pytest.mark.parametrize("step", ["submit", "look", "fetch"])
def test_a_call_that_fails_is_repeated_and_nothing_is_submitted_twice(
    step: str, fault: str, open_backend: Open, faulty_server: Any
) -> None:
    # A look before the results are fetched is the SDK's own.
    faulty_server.order(next=[*["ok"] * {"submit": 0, "look": 1, "fetch": 4}[step], fault], polls=1)
    # Seven, so that half of their results ends in the middle of one.
    found = answers(open_backend(), questions(7))
    assert all(isinstance(response, Generation) for response in found.values())
    counts = faulty_server.counts()
    assert counts["faults"] == {fault: 1}
    assert set(counts["asked"].values()) == {1}
    if step == "fetch":
        assert sum(n for path, n in counts["paths"].items() if path.endswith("/results")) == 2


@pytest.mark.parametrize("stop", ["before its name is known", "while it runs", "in the middle of the answers"])
def test_after_a_stop_the_batch_is_found_and_fetched(
    stop: str, open_backend: Open, faulty_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, got = questions(12), []
    with monkeypatch.context() as patched:
        if stop == "before its name is known":
            patched.setattr(batches._Book, "name", _interrupt)
        if stop == "while it runs":
            patched.setattr(batches.time, "sleep", _interrupt)
        with open_backend() as backend, pytest.raises(KeyboardInterrupt):
            got.extend(_until(5, backend.generate(requests)))
    left = [request for request in requests if request.id not in {response.request_id for response in got}]
    assert len(left) == (7 if stop.startswith("in the middle") else 12)
    found = answers(open_backend(), left)
    assert len(found) == len(left)
    assert all(isinstance(response, Generation) for response in found.values())
    assert faulty_server.counts()["paths"][SUBMIT] == 1
    assert set(faulty_server.counts()["asked"].values()) == {1}


def _until(count: int, responses: Iterator[Response]) -> Iterator[Response]:
    yield from itertools.islice(responses, count)
    raise KeyboardInterrupt


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_batch_of_somebody_else_is_not_taken_for_ours(open_backend: Open, faulty_server: Any, tmp_path: Path) -> None:
    answers(open_backend(), questions(12))
    ours = [*questions(13)[1:]]
    lost = batches.Submission(label="x", begun=batches.time.time(), keys=tuple(f"{i:064x}" for i in range(12)))
    batches._Book(tmp_path / batches.FILE).add(lost)
    assert len(answers(open_backend(), ours)) == 12
    assert faulty_server.counts()["paths"][SUBMIT] == 2


def test_a_bad_key_or_a_dead_server_is_one_sentence(open_backend: Open, faulty_server: Any, make_faulty_server: Any) -> None:
    faulty_server.order(always={"/batches": "expired"})
    with open_backend() as backend, pytest.raises(ModelError) as caught:
        list(backend.generate(questions(3)))
    assert "HTTP 401: the key [key] has expired; the key is from the environment variable ANTHROPIC_API_KEY" in str(caught.value)
    gone = make_faulty_server()
    gone.stop()
    with open_backend(base_url=gone.url, retries="2") as backend, pytest.raises(BackendError, match="does not answer"):
        list(backend.generate(questions(3)))


def test_a_limit_of_costs_is_checked_before_anything_is_submitted(open_backend: Open, faulty_server: Any) -> None:
    with (
        open_backend(max_cost="0.001") as backend,
        pytest.raises(UsageError, match=r"--max-cost 0\.001: a batch cannot be stopped"),
    ):
        list(backend.generate(questions(30)))
    assert faulty_server.counts()["paths"] == {}
