"""Batches over real HTTP: half the price, fetched later, never submitted twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmedeval import Failure, Generation, ModelError, Response, UsageError, batches
from mmedeval.batches import Submission
from mmedeval.remote import Trouble

pytest.importorskip("openai")

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
    assert {name: (each.kind, each.message) for name, each in failed.items() if isinstance(each, Failure)} == {
        "lapsed": ("backend", "batch_expired: This request could not be executed before the completion window expired."),
        "too_long": ("too_long", "HTTP 400: prompt is too long: 9 tokens > 8 maximum; key [key]"),
        "filter": ("refused", "a content filter stopped the answer"),
        "500": ("backend", "HTTP 500: an internal error, key [key]"),
        "refusal": ("refused", "the model refused: I cannot help with that."),
        "empty": ("backend", "the answer is empty (finish_reason stop)"),
    }
    assert all(isinstance(each, Generation) for each in found.values())


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
