"""What was submitted is remembered, waited for and fetched, and nothing is submitted twice, whenever the process stops."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmedeval import batches
from mmedeval.batches import Entry, Status, Submission, ask_in_batches, json_lines
from mmedeval.errors import BackendError, ModelError, StoreError, UsageError
from mmedeval.remote import Talk, Traffic, Trouble
from mmedeval.types import Failure, GenerateRequest, Generation, Prompt, Response, Sampling, Usage


class Killed(BaseException):
    """The process ends here: nothing is caught, nothing is cleaned up."""


class Desk:
    """A provider in memory, which outlives the processes that ask it.

    `on` is called with the name of each call before and after ("submit", "submitted", ...) and may raise. `late`: so many looks
    at a batch find it unfinished.
    """

    def __init__(self, *, most_requests: int = 100, most_bytes: int = 10**9, late: int = 1) -> None:
        self.most_requests, self.most_bytes, self.late = most_requests, most_bytes, late
        self.held: dict[str, list[Entry]] = {}
        self.labels: dict[str, str] = {}
        self.looks: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.on: Callable[[str], None] = lambda name: None
        self.why = "ended"
        self.refused: str | None = None
        self.cancelled = False
        self.unanswered: set[str] = set()
        self.troubles: dict[str, Trouble] = {}

    def body(self, request: GenerateRequest) -> Mapping[str, Any]:
        return {"prompt": request.prompt.text}

    def submit(self, entries: Sequence[Entry], label: str) -> str:
        self.on("submit")
        name = f"batch-{len(self.held)}"
        self.held[name], self.labels[label] = [*entries], name
        self.asked.update(each.body["prompt"] for each in entries)
        self.on("submitted")
        return name

    def find(self, submission: Submission, taken: Collection[str]) -> str | None:
        self.on("find")
        return self.labels.get(submission.label)

    def status(self, batch: str) -> Status:
        self.on("status")
        if batch not in self.held:
            raise Trouble("hopeless", "no such batch")
        self.looks[batch] += 1
        return Status(ended=self.looks[batch] > self.late, why=self.why, cancelled=self.cancelled, refused=self.refused)

    def results(self, batch: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        self.on("results")
        for each in reversed(self.held[batch]):
            if each.body["prompt"] not in self.unanswered:
                yield each.key, {"text": f"to {each.body['prompt']}"}
                self.on("result")

    def read(self, request: GenerateRequest, result: Mapping[str, Any]) -> Response:
        if request.prompt.text in self.troubles:
            raise self.troubles[request.prompt.text]
        return Generation(request_id=request.id, text=result["text"], usage=Usage(cost=0.5))


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_LOOK", "LONGEST_LOOK", "FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(batches, name, 0.0)


def requests(count: int) -> list[GenerateRequest]:
    return [
        GenerateRequest(id=f"task/{i}", prompt=Prompt(question=f"question {i}"), sampling=Sampling(), options={})
        for i in range(count)
    ]


def ask(
    desk: Desk, folder: Path, asked: Sequence[GenerateRequest], *, max_cost: float | None = None, **more: Any
) -> Iterator[Response]:
    traffic = Traffic(retries=2, max_cost=max_cost)
    return ask_in_batches(asked, desk, folder=folder, traffic=traffic, server="the desk", talk=more.pop("talk", Talk()), **more)


def remembered(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "batches.json").read_text())["batches"]


def raises(*names: str, error: BaseException | None = None, times: int = 1) -> Callable[[str], None]:
    """Raises at the first `times` calls of these names."""
    left = times

    def on(name: str) -> None:
        nonlocal left
        if name in names and left:
            left -= 1
            raise error or Killed

    return on


def test_every_request_gets_its_own_answer_and_then_nothing_is_remembered(tmp_path: Path) -> None:
    desk, talk = Desk(), Talk()
    answers = {each.request_id: each for each in ask(desk, tmp_path, requests(5), talk=talk)}
    assert {name: each.text for name, each in answers.items() if isinstance(each, Generation)} == {
        f"task/{i}": f"to question {i}" for i in range(5)
    }
    assert len(desk.held) == 1
    assert remembered(tmp_path) == []
    assert talk.cost == 2.5


def test_requests_are_split_where_a_batch_is_full(tmp_path: Path) -> None:
    by_number = Desk(most_requests=3)
    assert len([*ask(by_number, tmp_path, requests(8))]) == 8
    assert [len(held) for held in by_number.held.values()] == [3, 3, 2]
    size = len(json.dumps(by_number.body(requests(1)[0]))) + batches.ENVELOPE
    by_bytes = Desk(most_bytes=size * 2)
    assert len([*ask(by_bytes, tmp_path, requests(5))]) == 5
    assert [len(held) for held in by_bytes.held.values()] == [2, 2, 1]
    one_is_too_large = Desk(most_bytes=10)
    assert len([*ask(one_is_too_large, tmp_path, requests(2))]) == 2


def test_the_same_text_asked_twice_is_two_requests(tmp_path: Path) -> None:
    twice = [GenerateRequest(id=name, prompt=Prompt(question="same"), sampling=Sampling(), options={}) for name in ("a/1", "a/2")]
    assert sorted(each.request_id for each in ask(Desk(), tmp_path, twice)) == ["a/1", "a/2"]


@pytest.mark.parametrize("moment", ["submit", "submitted", "status", "results", "result", "find"])
def test_killed_at_any_moment_the_next_process_submits_nothing_twice_and_gets_all_answers(tmp_path: Path, moment: str) -> None:
    desk = Desk(most_requests=2)
    if moment == "find":
        desk.on = raises("submitted")
        with pytest.raises(Killed):
            [*ask(desk, tmp_path, requests(5))]
    desk.on = raises(moment)
    got: dict[str, Response] = {}
    with pytest.raises(Killed):
        got.update((each.request_id, each) for each in ask(desk, tmp_path, requests(5)))
    left = [request for request in requests(5) if request.id not in got]
    for response in ask(desk, tmp_path, left):
        assert response.request_id not in got
        got[response.request_id] = response
    assert sorted(got) == [f"task/{i}" for i in range(5)]
    assert all(isinstance(each, Generation) for each in got.values())
    assert set(desk.asked.values()) == {1}
    assert remembered(tmp_path) == []


def test_stopped_while_it_waits_the_next_process_fetches_what_was_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(late=3)

    def ctrl_c(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batches.time, "sleep", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        [*ask(desk, tmp_path, requests(4))]
    monkeypatch.undo()
    assert len(remembered(tmp_path)[0]["keys"]) == 4
    assert len([*ask(desk, tmp_path, requests(4))]) == 4
    assert len(desk.held) == 1


def test_a_consumer_that_stops_reading_gets_the_rest_the_next_time(tmp_path: Path) -> None:
    desk = Desk(late=0)
    first = next(iter(ask(desk, tmp_path, requests(3))))
    left = [request for request in requests(3) if request.id != first.request_id]
    assert len([*ask(desk, tmp_path, left)]) == 2
    assert len(desk.held) == 1


def test_an_entry_that_failed_is_a_failure_with_its_reason_and_the_next_run_asks_it_anew(tmp_path: Path) -> None:
    desk = Desk()
    desk.troubles = {"question 1": Trouble("refused", "indecent", kind="refused")}
    answers = {each.request_id: each for each in ask(desk, tmp_path, requests(3))}
    failure = answers["task/1"]
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.message) == ("refused", "indecent")
    assert set(desk.asked.values()) == {1}
    desk.troubles = {}
    assert all(isinstance(each, Generation) for each in ask(desk, tmp_path, requests(3)[1:2]))
    assert desk.asked == {"question 0": 1, "question 1": 2, "question 2": 1}


@pytest.mark.parametrize("verdict", ["passing", "busy"])
def test_entries_that_fail_in_passing_or_expire_are_asked_once_more_in_a_batch_of_their_own(tmp_path: Path, verdict: Any) -> None:
    desk, talk = Desk(most_requests=3), Talk()
    desk.troubles, desk.unanswered, desk.why = {"question 1": Trouble(verdict, "HTTP 500")}, {"question 4"}, "expired"

    def mend(name: str) -> None:
        if name == "submit" and len(desk.held) == 2:
            desk.troubles = {}
        if name == "submit" and len(desk.held) == 3:
            desk.unanswered = set()

    desk.on = mend
    answers = [*ask(desk, tmp_path, requests(5), talk=talk)]
    assert sorted(each.request_id for each in answers) == [f"task/{i}" for i in range(5)]
    assert all(isinstance(each, Generation) for each in answers)
    assert desk.asked == {"question 0": 1, "question 1": 2, "question 2": 1, "question 3": 1, "question 4": 2}
    assert talk.counts["repeated"] == 2
    assert remembered(tmp_path) == []


def test_an_entry_that_fails_both_times_is_a_failure_that_says_so(tmp_path: Path) -> None:
    desk = Desk()
    desk.troubles, desk.unanswered, desk.why = {"question 1": Trouble("passing", "HTTP 500")}, {"question 2"}, "expired"
    answers = {each.request_id: each for each in ask(desk, tmp_path, requests(3))}
    said = {name: (each.kind, each.message) for name, each in answers.items() if isinstance(each, Failure)}
    assert said == {
        "task/1": ("backend", "HTTP 500 (asked 2 times)"),
        "task/2": ("backend", "the batch batch-1 expired without an answer to it (asked 2 times)"),
    }
    assert desk.asked == {"question 0": 1, "question 1": 2, "question 2": 2}
    assert remembered(tmp_path) == []


def test_what_somebody_cancelled_is_not_asked_again(tmp_path: Path) -> None:
    desk = Desk()
    desk.unanswered, desk.why, desk.cancelled = {"question 1"}, "was cancelled", True
    failures = [each for each in ask(desk, tmp_path, requests(2)) if isinstance(each, Failure)]
    assert [each.message for each in failures] == ["the batch batch-0 was cancelled without an answer to it"]
    assert set(desk.asked.values()) == {1}


def test_a_try_that_was_paid_is_counted_and_with_a_limit_not_repeated(tmp_path: Path) -> None:
    for limit, times in ((None, 2), (3.0, 1)):
        desk, talk = Desk(), Talk()
        desk.troubles = {"question 1": Trouble("passing", "no known format", usage=Usage(cost=0.25))}
        folder = tmp_path / str(times)
        list(ask(desk, folder, requests(2), talk=talk, max_cost=limit, most=lambda request: 1.0))
        assert desk.asked["question 1"] == times
        assert talk.cost == 0.5 + 0.25 * times


@pytest.mark.parametrize("moment", ["submit", "submitted", "status", "results", "result"])
def test_killed_while_entries_are_asked_once_more_the_next_process_asks_none_a_third_time(tmp_path: Path, moment: str) -> None:
    desk = Desk(late=0)
    desk.troubles = {f"question {i}": Trouble("passing", "HTTP 500") for i in (1, 2)}
    got: dict[str, Response] = {}

    def on(name: str) -> None:
        if name == "submit" and desk.held:
            desk.troubles = {}
        if name == moment and (len(desk.held) == 2 or (name == "submit" and desk.held)):
            raise Killed

    desk.on = on
    with pytest.raises(Killed):
        got.update((each.request_id, each) for each in ask(desk, tmp_path, requests(4)))
    desk.on, desk.troubles = raises(), {}
    got.update((each.request_id, each) for each in ask(desk, tmp_path, [each for each in requests(4) if each.id not in got]))
    assert sorted(got) == [f"task/{i}" for i in range(4)]
    assert all(isinstance(each, Generation) for each in got.values())
    assert desk.asked == {"question 0": 1, "question 1": 2, "question 2": 2, "question 3": 1}
    assert remembered(tmp_path) == []


def test_a_batch_is_not_taken_for_the_one_that_asks_its_entries_once_more(tmp_path: Path) -> None:
    """They may hold the same requests, and a provider may know them by nothing else."""
    desk, looked_among = Desk(late=0), []
    desk.unanswered = {"question 0"}

    def find(submission: Submission, taken: Collection[str]) -> str | None:
        looked_among.append(set(taken))
        return next((name for name in reversed(desk.held) if name not in taken), None)

    desk.find = find
    desk.on = lambda name: (_ for _ in ()).throw(Killed()) if name == "submit" and desk.held else None
    with pytest.raises(Killed):
        list(ask(desk, tmp_path, requests(1)))
    desk.on, desk.unanswered = raises(), set()
    (answer,) = ask(desk, tmp_path, requests(1))
    assert isinstance(answer, Generation)
    assert looked_among == [{"batch-0"}]


def test_a_batch_is_fetched_by_one_thread(tmp_path: Path) -> None:
    desk, threads = Desk(), []
    desk.on = lambda name: threads.append(threading.current_thread()) if name == "result" else None
    assert len([*ask(desk, tmp_path, requests(20))]) == 20
    assert len(threads) == 20
    assert len({id(each) for each in threads}) == 1
    threads[0].join(5)
    assert not threads[0].is_alive()


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_line_of_results_ends_with_a_line_feed_alone(size: int) -> None:
    rows = [{"text": "one\u2028two\x85three"}, {"text": "\u2029"}, {"text": "四"}]
    content = "\n".join(json.dumps(each, ensure_ascii=False) for each in rows).encode()
    assert [*json_lines(content[i : i + size] for i in range(0, len(content), size))] == rows
    assert [*json_lines([content + b"\n\n"])] == rows


def test_a_line_of_results_that_is_no_object_or_never_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in (b"[1]\n", b'{"a": 1\n', b'{"a": 1', b"[" * 100_000):
        with pytest.raises(Trouble, match="no JSON object") as caught:
            list(json_lines([line]))
        assert caught.value.verdict == "passing"
    monkeypatch.setattr(batches, "LONGEST_LINE", 1000)
    with pytest.raises(Trouble, match="a line of the results has more than") as caught:
        list(json_lines(b"x" * 100 for _ in itertools.count()))
    assert caught.value.verdict == "refused"


def test_what_another_plan_submitted_is_kept_for_it(tmp_path: Path) -> None:
    desk, ours, others = Desk(late=0), requests(3), requests(6)[3:]
    desk.on = raises("status", error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        list(ask(desk, tmp_path, ours))
    assert len(list(ask(desk, tmp_path, others))) == 3
    assert len(list(ask(desk, tmp_path, ours))) == 3
    assert set(desk.asked.values()) == {1}
    assert remembered(tmp_path) == []


def test_a_batch_that_turns_out_to_be_another_runs_is_forgotten_and_nothing_is_scored(tmp_path: Path) -> None:
    desk = Desk(late=0)
    desk.submit([Entry(key="f" * 64, body={"prompt": "of somebody else"})], "theirs")
    desk.on = raises("submit", error=Trouble("passing", "HTTP 500"), times=1)
    desk.find = lambda submission, taken: None if "batch-0" in taken else "batch-0"
    with pytest.raises(BackendError, match="the batch batch-0 was taken for one that had been cut off"):
        list(ask(desk, tmp_path, requests(1)))
    assert remembered(tmp_path) == []
    (answer,) = ask(desk, tmp_path, requests(1))
    assert isinstance(answer, Generation)


def test_half_a_surrogate_pair_is_a_failure_of_its_own_request(tmp_path: Path) -> None:
    asked = [*requests(2), GenerateRequest(id="odd", prompt=Prompt(question="\ud83d"), sampling=Sampling(), options={})]
    found = {response.request_id: response for response in ask(Desk(late=0), tmp_path, asked)}
    assert isinstance(found["odd"], Failure)
    assert sum(isinstance(response, Generation) for response in found.values()) == 2


def test_a_batch_that_is_refused_is_told_with_the_reason_and_forgotten(tmp_path: Path) -> None:
    desk = Desk()
    desk.refused = "unknown model"
    with pytest.raises(ModelError, match="the desk refused the batch batch-0: unknown model"):
        [*ask(desk, tmp_path, requests(2))]
    assert remembered(tmp_path) == []


@pytest.mark.parametrize("verdict", ["hopeless", "refused"])
def test_a_submission_that_is_refused_is_told_at_once_and_forgotten(tmp_path: Path, verdict: Any) -> None:
    desk, talk = Desk(), Talk()
    desk.on = raises("submit", error=Trouble(verdict, "a bad key"), times=9)
    with pytest.raises(ModelError, match="the desk, submitting a batch: a bad key"):
        [*ask(desk, tmp_path, requests(2), talk=talk)]
    assert talk.counts["tries"] == 1
    assert remembered(tmp_path) == []


def test_a_submission_whose_answer_was_cut_off_is_looked_for_before_it_is_repeated(tmp_path: Path) -> None:
    arrived = Desk()
    arrived.on = raises("submitted", error=Trouble("passing", "cut off"))
    assert len([*ask(arrived, tmp_path, requests(2))]) == 2
    assert len(arrived.held) == 1
    lost = Desk()
    lost.on = raises("submit", error=Trouble("passing", "cut off"))
    assert len([*ask(lost, tmp_path, requests(2))]) == 2
    assert len(lost.held) == 1


@pytest.mark.parametrize("moment", ["submit", "status", "results", "result"])
@pytest.mark.parametrize("verdict", ["passing", "busy", "unreachable"])
def test_what_may_pass_is_tried_again(tmp_path: Path, moment: str, verdict: Any) -> None:
    desk, talk = Desk(), Talk()
    desk.on = raises(moment, error=Trouble(verdict, "a hiccup"), times=2)
    answers = [each.request_id for each in ask(desk, tmp_path, requests(3), talk=talk)]
    assert sorted(answers) == ["task/0", "task/1", "task/2"]
    assert len(desk.held) == 1
    assert (talk.counts[verdict], talk.counts["repeated"]) == (2, 2)


def test_a_server_that_is_gone_ends_the_run_in_a_sentence_and_what_was_submitted_is_fetched_later(tmp_path: Path) -> None:
    desk = Desk()
    desk.on = raises("status", error=Trouble("unreachable", "no connection"), times=99)
    with pytest.raises(BackendError, match=r"the desk does not answer.*no connection.*the same command fetches them"):
        [*ask(desk, tmp_path, requests(3))]
    desk.on = raises()
    assert len([*ask(desk, tmp_path, requests(3))]) == 3
    assert len(desk.held) == 1


def test_a_server_that_wants_hours_of_rest_ends_the_run(tmp_path: Path) -> None:
    desk = Desk()
    desk.on = raises("submit", error=Trouble("busy", "tomorrow", pause=7200.0))
    with pytest.raises(BackendError, match="tomorrow"):
        [*ask(desk, tmp_path, requests(1))]


def test_the_servers_own_pause_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(batches.time, "sleep", slept.append)
    desk = Desk(late=0)
    desk.on = raises("submit", error=Trouble("busy", "soon", pause=7.5))
    assert len([*ask(desk, tmp_path, requests(1))]) == 1
    assert slept == [7.5]


def test_looks_become_rarer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(batches.time, "sleep", slept.append)
    monkeypatch.setattr(batches, "FIRST_LOOK", 1.0)
    monkeypatch.setattr(batches, "LONGEST_LOOK", 3.0)
    assert len([*ask(Desk(late=5), tmp_path, requests(1))]) == 1
    assert slept == [1.0, 1.5, 2.25, 3.0, 3.0]


def test_a_batch_that_the_provider_no_longer_knows_is_named_with_the_next_step(tmp_path: Path) -> None:
    desk = Desk()
    desk.on = raises("status")
    with pytest.raises(Killed):
        [*ask(desk, tmp_path, requests(1))]
    desk.held.clear()
    with pytest.raises(ModelError, match=r"batch-0: no such batch; to submit its requests anew, delete .*batches\.json"):
        [*ask(desk, tmp_path, requests(1))]


def test_nothing_is_submitted_that_may_cost_more_than_allowed(tmp_path: Path) -> None:
    desk = Desk(late=0)
    with pytest.raises(UsageError, match=r"--max-cost 2\.9: .* 3 requests may cost up to 3\.00 dollars"):
        [*ask(desk, tmp_path, requests(3), max_cost=2.9, most=lambda request: 1.0)]
    assert desk.held == {}
    assert len([*ask(desk, tmp_path, requests(2), max_cost=2.9, most=lambda request: 1.0)]) == 2


def test_the_limit_holds_over_all_that_is_asked_of_a_backend(tmp_path: Path) -> None:
    desk, talk = Desk(late=0), Talk(cost=1.5)
    with pytest.raises(UsageError, match=r"may cost up to 2\.00 dollars, beside 1\.50 that are spent"):
        [*ask(desk, tmp_path, requests(2), max_cost=3.0, most=lambda request: 1.0, talk=talk)]
    assert desk.held == {}


def test_what_was_submitted_before_costs_no_second_time(tmp_path: Path) -> None:
    desk = Desk()
    desk.on = raises("status")
    with pytest.raises(Killed):
        [*ask(desk, tmp_path, requests(2), max_cost=2.5, most=lambda request: 1.0)]
    assert len([*ask(desk, tmp_path, requests(4), max_cost=2.5, most=lambda request: 1.0)]) == 4
    assert set(desk.asked.values()) == {1}


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2, "batches": []}', '{"format": 1, "batches": [{"keys": []}]}'])
def test_a_damaged_memory_is_told_and_nothing_is_submitted(tmp_path: Path, content: str) -> None:
    (tmp_path / "batches.json").write_text(content)
    desk = Desk()
    with pytest.raises(StoreError, match=r"batches\.json is damaged .*provider's page"):
        [*ask(desk, tmp_path, requests(1))]
    assert desk.held == {}


def test_keys_are_what_every_provider_takes(tmp_path: Path) -> None:
    desk = Desk(late=0)
    assert len([*ask(desk, tmp_path, requests(3))]) == 3
    keys = [each.key for held in desk.held.values() for each in held]
    assert len({*keys}) == 3
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)


@pytest.mark.parametrize("moment", ["submit", "submitted"])
def test_a_submission_that_takes_too_long_is_looked_for_by_the_next_command_and_not_repeated(tmp_path: Path, moment: str) -> None:
    arrives, gone = threading.Event(), threading.Event()

    def on(name: str) -> None:
        if name == moment:
            arrives.wait()
        if name == "submitted":
            gone.set()

    desk = Desk(late=0)
    desk.on = on
    asked = ask_in_batches(requests(3), desk, folder=tmp_path, traffic=Traffic(timeout=0.05), server="the desk", talk=Talk())
    with pytest.raises(BackendError, match=r"no whole answer within 0\.05 s; it may still arrive"):
        list(asked)
    arrives.set()
    gone.wait()
    assert len(list(ask(desk, tmp_path, requests(3)))) == 3
    assert set(desk.asked.values()) == {1}


@pytest.mark.parametrize("moment", ["status", "results", "result"])
def test_a_call_that_never_ends_is_given_up_and_tried_again(tmp_path: Path, moment: str) -> None:
    forever, calls = threading.Event(), Counter[str]()

    def on(name: str) -> None:
        calls[name] += 1
        if name == moment and calls[name] == 1:
            forever.wait()

    desk, talk = Desk(late=0), Talk()
    desk.on = on
    asked = ask_in_batches(requests(3), desk, folder=tmp_path, traffic=Traffic(timeout=0.05), server="the desk", talk=talk)
    assert sorted(each.request_id for each in asked) == ["task/0", "task/1", "task/2"]
    assert talk.counts["passing"] == 1
    assert len(desk.held) == 1
    desk.on = lambda name: None
    forever.set()
