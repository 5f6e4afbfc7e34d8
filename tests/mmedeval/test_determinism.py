"""The determinism check: which items are asked again, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmedeval import (
    BackendError,
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    PluginError,
    Request,
    Response,
    RunPlan,
    SampleResult,
    hookimpl,
)
from mmedeval.catalog import Catalog
from mmedeval.determinism import checked, compare, sentence, spread
from mmedeval.host import make_host
from mmedeval.runner import RunStopped, run
from mmedeval.store import read_record
from mmedeval.testing import ScriptedBackend, StaticTask, make_sample, prefer

PLAN = RunPlan(model="scripted:any", tasks=("static",))


def result(number: int, *, prediction: str | None = "A", **fields: Any) -> SampleResult:
    letters = None if prediction is None else frozenset(prediction)
    return SampleResult(task="t", sample=make_sample(number), status="ok", prediction=letters, **fields)


class Moody(ScriptedBackend):
    """Answers otherwise when it is asked alone."""

    def __init__(self, alone: Callable[[Request], Response], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._alone = alone
        self.again: list[str] = []

    def alone(self, requests: Sequence[Request]) -> Iterator[Response]:
        for request in requests:
            self.again.append(request.id)
            yield self._alone(request)


def offer(backend: ScriptedBackend, count: int) -> Catalog:
    task = StaticTask(test=[make_sample(i, answer="A") for i in range(count)])
    plugin = SimpleNamespace(mmedeval_tasks=hookimpl(lambda: [task.spec()]), mmedeval_backends=hookimpl(lambda: [backend.spec()]))
    return Catalog(make_host(extra=[plugin]))


def scored(request: Request, *values: float) -> Loglikelihoods:
    return Loglikelihoods(request_id=request.id, values=values)


@pytest.mark.parametrize(("count", "wanted"), [(3, [0, 1, 2]), (20, list(range(20))), (60, list(range(0, 60, 3)))])
def test_items_are_taken_evenly_from_the_whole_plan(count: int, wanted: list[int]) -> None:
    assert spread(list(range(count)), 20) == wanted


def test_twenty_scored_items_are_asked_again_and_of_texts_one_in_a_hundred() -> None:
    assert len(checked([result(i, logprobs={"A": -1.0}) for i in range(1958)])) == 20
    assert len(checked([result(i, output="Answer: A") for i in range(50)])) == 1
    assert len(checked([result(i, output="Answer: A") for i in range(250)])) == 3
    assert len(checked([result(i, output="Answer: A") for i in range(8518)])) == 20
    assert checked([result(i, failure="gone") for i in range(5)]) == []


def test_the_largest_difference_and_every_flipped_verdict_are_told() -> None:
    stored = [result(i, logprobs={"A": -1.0, "B": -1.5}) for i in range(3)]
    alone = {
        stored[0].key: replace(stored[0], logprobs={"A": -1.25, "B": -1.5}),
        stored[1].key: replace(stored[1], logprobs={"A": -2.0, "B": -1.5}, prediction=frozenset("B")),
        stored[2].key: replace(stored[2], status="failed", logprobs=None, prediction=None),
    }
    found = compare(stored, alone)
    assert found == {
        "items": 2,
        "failed_alone": 1,
        "largest_loglikelihood_difference": 1.0,
        "different_texts": 0,
        "flipped": ["t/test-1"],
    }
    assert sentence(found) == "2 items computed again alone (1 failed): loglikelihoods differ by at most 1, 1 verdicts flipped"


def test_of_texts_the_different_ones_are_counted() -> None:
    stored = [result(1, output="Answer: A"), result(2, output="Answer: A")]
    alone = {stored[0].key: stored[0], stored[1].key: replace(stored[1], output="The answer: A")}
    found = compare(stored, alone)
    assert (found["different_texts"], found["flipped"], found["largest_loglikelihood_difference"]) == (1, [], None)
    assert sentence(found) == "2 items computed again alone: 1 texts differ, no verdict flipped"


def test_the_record_says_what_asking_alone_changed(tmp_path: Path) -> None:
    def alone(request: Request) -> Response:
        assert isinstance(request, LoglikelihoodRequest)
        # The last of the twenty is answered with B.
        first = -3.0 if request.id.endswith("-57") else -1.0
        return scored(request, first - 1e-6, -2.0, -3.0, -4.0)

    backend = Moody(alone, score=lambda request: scored(request, -1.0, -2.0, -3.0, -4.0))
    record, path = run(PLAN, offer(backend, 60), tmp_path / "run")
    assert backend.again == [f"static/test-{i}" for i in range(0, 60, 3)]
    found = read_record(path)["determinism"]
    assert found == record.data["determinism"]
    assert found["flipped"] == ["static/test-57"]
    assert found["largest_loglikelihood_difference"] == pytest.approx(2 + 1e-6)
    # The stored answers are those of the run.
    assert record.data["counts"]["right"] == 60


def test_a_text_that_changes_its_verdict_is_flipped_and_a_failure_is_counted(tmp_path: Path) -> None:
    def alone(request: Request) -> Response:
        if request.id.endswith("-0"):
            return Failure(request_id=request.id, kind="backend", message="gone")
        return Generation(request_id=request.id, text="Answer: B")

    def write(request: GenerateRequest) -> Generation:
        return Generation(request_id=request.id, text="Answer: A")

    record, _ = run(PLAN, offer(Moody(alone, write=write), 150), tmp_path / "run")
    found = record.data["determinism"]
    assert (found["items"], found["failed_alone"], found["flipped"]) == (1, 1, ["static/test-75"])


def letters(request: Request) -> Loglikelihoods:
    return scored(request, -1.0, -2.0, -3.0, -4.0)


def test_ctrl_c_during_the_check_loses_nothing_and_the_same_command_goes_on(tmp_path: Path) -> None:
    def stop(_: Request) -> Response:
        raise KeyboardInterrupt

    with pytest.raises(RunStopped, match="5 of 5 answered"):
        run(PLAN, offer(Moody(stop, score=letters), 5), tmp_path / "run")
    backend = Moody(letters, score=letters)
    record, _ = run(PLAN, offer(backend, 5), tmp_path / "run")
    assert record.data["determinism"]["items"] == 5
    assert record.data["process"]["answers_found"] == 5


def test_a_backend_that_fails_when_asked_again_keeps_its_record_which_says_so(tmp_path: Path) -> None:
    def fail(_: Request) -> Response:
        raise BackendError("the device is gone")

    record, _ = run(PLAN, offer(Moody(fail, score=letters), 5), tmp_path / "run")
    assert record.data["counts"]["right"] == 5
    assert record.data["determinism"] == {"error": "the device is gone"}
    assert sentence(record.data["determinism"]).endswith("failed: the device is gone")


@pytest.mark.parametrize("wrong", [lambda requests: requests[1:], lambda requests: [*requests[1:], requests[1]]])
def test_answers_to_other_requests_than_those_asked_again_are_the_plugins_fault(
    wrong: Callable[[Sequence[Request]], Sequence[Request]], tmp_path: Path
) -> None:
    class Wrong(Moody):
        def alone(self, requests: Sequence[Request]) -> Iterator[Response]:
            return super().alone(wrong(requests))

    with pytest.raises(PluginError, match="one by one"):
        run(PLAN, offer(Wrong(letters, score=letters), 5), tmp_path / "run")


def test_a_text_that_an_older_reader_read_is_read_again_before_it_is_compared(tmp_path: Path) -> None:
    def write(request: Request) -> Generation:
        return Generation(request_id=request.id, text="Answer: A")

    def stop(_: Request) -> Response:
        raise KeyboardInterrupt

    catalog = offer(Moody(stop, write=write), 5)
    with pytest.raises(RunStopped):
        run(PLAN, catalog, tmp_path / "run")
    samples = tmp_path / "run" / "samples.jsonl"
    samples.write_text(
        samples.read_text(encoding="utf-8").replace('"prediction": ["A"]', '"prediction": ["B"]'), encoding="utf-8"
    )
    record, _ = run(PLAN, offer(Moody(write, write=write), 5), tmp_path / "run")
    assert record.data["determinism"]["flipped"] == []


def test_a_backend_that_computes_nothing_together_has_nothing_to_be_checked(tmp_path: Path) -> None:
    record, _ = run(PLAN, offer(ScriptedBackend(score=prefer(lambda _: "A")), 5), tmp_path / "run")
    assert record.data["determinism"] is None
