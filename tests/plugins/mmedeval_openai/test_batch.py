"""Batches over real HTTP: half the price, fetched later, never submitted twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmedeval import Failure, Generation, ModelError, Response, UsageError, batches
from mmedeval.batches import Submission
from mmedeval.remote import Trouble

pytest.importorskip("openai")

import httpx2
import openai

from mmedeval_openai.batch import OpenAIBatches

Make = Callable[..., Any]
SUBMIT = "POST /v1/batches"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_LOOK", "LONGEST_LOOK", "FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(batches, name, 0.01)


@pytest.fixture
def batched(open_backend: Make, tmp_path: Path) -> Make:
    (tmp_path / "prices.toml").write_text("[some-model]\ninput = 10\noutput = 50\ncached = 1\n")

    def opened(**arguments: str) -> Any:
        backend = open_backend(**{"batch": "true", "prices": str(tmp_path / "prices.toml"), **arguments})
        backend.keep_in(tmp_path)
        return backend

    return opened


@pytest.fixture
def questions(write: Make) -> Make:
    return lambda count: [write(f"Question {i}\nA. iron\nB. zinc", id=f"t/{i}", chat=True, max_tokens=50) for i in range(count)]


def answers(backend: Any, requests: list[Any]) -> dict[str, Response]:
    with backend:
        return {response.request_id: response for response in backend.generate(requests)}


def test_a_batch_gives_the_same_answers_for_half_the_price(batched: Make, questions: Make, faulty_server: Any) -> None:
    one_by_one, together = (answers(batched(batch=batch), questions(30)) for batch in ("false", "true"))
    assert together.keys() == one_by_one.keys()
    for name, response in together.items():
        single = one_by_one[name]
        assert isinstance(single, Generation)
        assert isinstance(response, Generation)
        assert (response.text, response.finish_reason) == (single.text, single.finish_reason)
        assert response.usage.cost == pytest.approx((single.usage.cost or 0) / 2)
    assert faulty_server.counts()["paths"][SUBMIT] == 1


def test_entries_without_an_answer_are_failures_with_their_reason(batched: Make, questions: Make, faulty_server: Any) -> None:
    faults = {"lapsed": 1, "too_long": 2, "filter": 3, "500": 4, "refusal": 5, "empty": 6}
    faulty_server.order(always={f"Question {i}\n": fault for fault, i in faults.items()})
    found = answers(batched(), questions(10))
    failed = {name: found.pop(f"t/{i}") for name, i in faults.items()}
    expired = "batch_expired: This request could not be executed before the completion window expired."
    assert {name: (each.kind, each.message) for name, each in failed.items() if isinstance(each, Failure)} == {
        "lapsed": ("backend", f"{expired} (asked 2 times)"),
        "too_long": ("too_long", "HTTP 400: prompt is too long: 9 tokens > 8 maximum; key [key]"),
        "filter": ("refused", "a content filter stopped the answer"),
        "500": ("backend", "HTTP 500: an internal error, key [key] (asked 2 times)"),
        "refusal": ("refused", "the model refused: I cannot help with that."),
        "empty": ("backend", "the answer is empty (finish_reason stop)"),
    }
    assert all(isinstance(each, Generation) for each in found.values())
    asked = faulty_server.counts()["asked"]
    assert {name: asked[f"Question {i}\nA. iron\nB. zinc"] for name, i in faults.items()} == {
        "lapsed": 2, "too_long": 1, "filter": 1, "500": 2, "refusal": 1, "empty": 1,
    }  # fmt: skip


def test_entries_that_expire_or_fail_in_passing_are_answered_by_the_next_batch(
    batched: Make, questions: Make, faulty_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {"lapsed": 1, "500": 2, "429": 3, "529": 4}
    faulty_server.order(always={f"Question {i}\n": fault for fault, i in faults.items()})
    submit = OpenAIBatches.submit

    def heal(self: Any, entries: Any, label: str) -> str:
        if len(entries) == len(faults):
            faulty_server.order()
        return submit(self, entries, label)

    monkeypatch.setattr(OpenAIBatches, "submit", heal)
    found = answers(batched(), questions(8))
    assert sorted(found) == [f"t/{i}" for i in range(8)]
    assert [each for each in found.values() if not isinstance(each, Generation)] == []
    assert sorted(faulty_server.counts()["asked"].values()) == [1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("result", "verdict", "words"),
    [
        ({"error": {"code": "batch_cancelled", "message": "enough"}}, "refused", "batch_cancelled: enough"),
        ({"error": {"code": "request_timeout", "message": "slow"}}, "passing", "request_timeout: slow"),
        ({"response": {"status_code": 0, "body": {}}}, "passing", "HTTP 500: the server says nothing else"),
        ({"response": {"status_code": 400, "body": {"error": {"message": "no"}}}}, "refused", "HTTP 400: no"),
        ({"response": None}, "refused", "the batch holds no answer of the format that was asked for"),
        ({"error": {"code": "x", "message": "long " * 9999}}, "passing", None),
    ],
)
def test_what_the_line_of_an_entry_without_an_answer_means(
    batched: Make, questions: Make, result: Any, verdict: str, words: str | None
) -> None:
    backend = batched()
    with backend, backend._batches() as service, pytest.raises(Trouble) as caught:
        service.read(questions(1)[0], result)
    assert caught.value.verdict == verdict
    assert str(caught.value) == words if words else len(str(caught.value)) < 700


@pytest.mark.parametrize("name", ["output_file_id", "error_file_id"])
def test_a_file_that_is_cut_at_the_end_of_a_line_is_not_taken_for_whole(
    batched: Make, questions: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    told = {"status": "completed", name: "file-1", "request_counts": {"total": 2, "completed": 2, "failed": 2}}
    backend = batched()
    monkeypatch.setattr(OpenAIBatches, "_about", lambda self, batch: told)
    monkeypatch.setattr(OpenAIBatches, "_lines", lambda self, file: iter([{"custom_id": "a"}]))
    with backend, backend._batches() as service, pytest.raises(Trouble, match="1 of 2 results arrived"):
        list(service.results("batch-1"))


def test_a_text_with_another_end_of_a_line_inside_is_one_line_of_a_batch() -> None:
    lines = [{"custom_id": f"{i}", "response": {"body": "one\u2028two\x85three"}} for i in range(3)]
    content = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/content"):
            return httpx2.Response(200, content=content)
        return httpx2.Response(200, json={"output_file_id": "file-1", "request_counts": {"completed": 3}})

    with openai.OpenAI(api_key="none", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))) as client:
        service = OpenAIBatches(client, body=dict, read=lambda *_: None, key_place="", redact=str, seconds=1.0)
        assert [*service.results("batch-1")] == [(line["custom_id"], line) for line in lines]


def test_a_batch_that_is_refused_tells_no_more_than_is_read(batched: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"data": [{"message": f"line {i} is wrong"} for i in range(5000)]}
    monkeypatch.setattr(OpenAIBatches, "_about", lambda self, batch: {"status": "failed", "errors": errors})
    backend = batched()
    with backend, backend._batches() as service:
        refused = service.status("batch-1").refused
    assert refused.startswith("line 0 is wrong; line 1 is wrong")
    assert len(refused) < 700


# A submission that drips is not repeated: tests/mmedeval/test_batches.py.
@pytest.mark.parametrize(
    ("path", "fault"),
    [
        *((path, fault) for path in ("/v1/files", "/v1/batches") for fault in ("429", "500", "reset", "half", "html", "cut")),
        *(("/content", fault) for fault in ("429", "500", "reset", "half", "html", "cut", "drip")),
    ],
)
def test_what_passes_is_tried_again_and_nothing_is_submitted_twice(
    batched: Make, questions: Make, faulty_server: Any, path: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty_server.order(always={path: fault})
    left = 2

    def heal(seconds: float) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            faulty_server.order()

    monkeypatch.setattr(batches.time, "sleep", heal)
    found = answers(batched(timeout="0.3"), questions(6))
    assert sorted(found) == [f"t/{i}" for i in range(6)]
    assert [each for each in found.values() if not isinstance(each, Generation)] == []
    assert set(faulty_server.counts()["asked"].values()) == {1}


def test_a_process_that_stops_leaves_its_batch_to_the_next(
    batched: Make, questions: Make, faulty_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty_server.order(polls=3)
    with monkeypatch.context() as patch:
        patch.setattr(batches.time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            answers(batched(), questions(8))
    assert len(answers(batched(), questions(8))) == 8
    assert faulty_server.counts()["paths"][SUBMIT] == 1


def test_a_batch_whose_name_never_arrived_is_found_by_its_label(batched: Make, questions: Make, faulty_server: Any) -> None:
    backend = batched()
    with backend, backend._batches() as service:
        service.submit([], "another")
        name = service.submit([], "ours")
        service.submit([], "a third")
        assert service.find(Submission(label="ours", begun=0.0, keys=()), ()) == name
        assert service.find(Submission(label="nobody's", begun=0.0, keys=()), ()) is None


def test_a_submission_that_nobody_waits_for_any_more_does_not_become_a_batch(batched: Make, faulty_server: Any) -> None:
    backend = batched()
    with backend, backend._batches() as service:
        service.seconds = 0.0
        with pytest.raises(Trouble, match="took more than 0 s"):
            service.submit([], "label")
    assert faulty_server.counts()["paths"] == {"POST /v1/files": 1}


@pytest.mark.parametrize("fault", ["expired", "poor"])
def test_a_refused_key_ends_the_run_without_showing_it(
    batched: Make, questions: Make, faulty_server: Any, fault: str, key: str
) -> None:
    faulty_server.order(always={"/v1/files": fault})
    with pytest.raises(ModelError, match=r"submitting a batch: HTTP \d+: .*\[key\]") as caught:
        answers(batched(), questions(3))
    assert key not in str(caught.value)
    assert faulty_server.counts()["paths"] == {"POST /v1/files": 1}


def test_a_batch_that_may_cost_too_much_is_not_submitted(batched: Make, questions: Make, faulty_server: Any) -> None:
    backend = batched(max_cost="0.001")
    with pytest.raises(UsageError, match="may cost up to"):
        answers(backend, questions(30))
    assert faulty_server.counts()["paths"] == {}


def test_a_batch_needs_a_run_folder(open_backend: Make, questions: Make) -> None:
    with pytest.raises(ModelError, match="needs a run folder"):
        answers(open_backend(batch="true"), questions(1))
