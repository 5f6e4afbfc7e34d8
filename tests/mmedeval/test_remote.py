"""Many requests to one server: each is answered or counted, none is lost or asked too often, and nobody waits for the dead."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mmedeval import BackendError, Failure, GenerateRequest, Generation, ModelError, Prompt, Response, Sampling, Usage, remote
from mmedeval.remote import Ask, Reply, Talk, Traffic, Trouble, Verdict, a_client_each, ask_all, json_of, trouble_of, wait_of

SERVER = "http://server"
Asking = Callable[[GenerateRequest, int], Awaitable[Reply | None]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same waits as for real, a hundred times shorter."""
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.004)
    monkeypatch.setattr(remote, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(remote, "FIRST_REST", 0.001)


class Questions(Sequence[GenerateRequest]):
    """So many requests, each made when it is looked at."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        if index >= self.count:
            raise IndexError(index)
        return GenerateRequest(id=str(index), prompt=Prompt(question=str(index)), sampling=Sampling(), options={})


def reply(request: GenerateRequest, *, cost: float | None = None, rest: float = 0.0) -> Reply:
    return Reply(response=Generation(request_id=request.id, text="x", usage=Usage(cost=cost)), rest=rest)


class Server:
    """Answers with what a function says: a reply, or `None` for a plain one; it gets the request and the number of the try."""

    def __init__(self, answer: Asking | None = None) -> None:
        self.answer = answer
        self.tries: Counter[str] = Counter()
        self.started: list[float] = []
        self.in_flight = self.at_once = self.cancelled = self.opened = self.closed = 0
        self.talk = Talk()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Ask[GenerateRequest]]:
        self.opened += 1
        try:
            yield self.ask
        finally:
            self.closed += 1

    async def ask(self, request: GenerateRequest) -> Reply:
        self.tries[request.id] += 1
        self.started.append(time.monotonic())
        self.in_flight += 1
        self.at_once = max(self.at_once, self.in_flight)
        try:
            found = None if self.answer is None else await self.answer(request, self.tries[request.id])
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        return found or reply(request)

    def iterate(self, count: int, *, most: float | None = None, **traffic: Any) -> Iterator[Response]:
        return ask_all(
            Questions(count),
            self.session,
            Traffic(**traffic),
            server=SERVER,
            talk=self.talk,
            most=None if most is None else lambda _: most,
        )

    def responses(self, count: int, **arguments: Any) -> dict[str, Response]:
        """All of them by id, each once."""
        found = list(self.iterate(count, **arguments))
        by_id = {response.request_id: response for response in found}
        assert len(found) == len(by_id)
        return by_id


def no_threads_left() -> bool:
    return not [thread for thread in threading.enumerate() if SERVER in thread.name]


def test_each_request_is_asked_and_answered_once_and_no_more_are_in_flight_than_allowed() -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        await asyncio.sleep(random.uniform(0, 0.004))

    server = Server(answer)
    responses = server.responses(500, concurrency=20)
    assert sorted(responses, key=int) == [str(i) for i in range(500)]
    assert all(isinstance(response, Generation) for response in responses.values())
    assert set(server.tries.values()) == {1}
    assert server.at_once == 20
    assert server.talk.describe() == {"tries": 500, "in_flight_at_most": 20}
    assert (server.opened, server.closed) == (1, 1)
    assert no_threads_left()


def test_without_requests_no_client_is_opened() -> None:
    server = Server()
    assert server.responses(0) == {}
    assert server.opened == 0


def test_the_first_request_goes_alone_so_that_a_wrong_key_is_told_once() -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        await asyncio.sleep(0.01)
        raise Trouble("hopeless", "HTTP 401: bad key")

    server = Server(answer)
    with pytest.raises(ModelError, match=r"^http://server: HTTP 401: bad key$"):
        server.responses(50)
    assert sum(server.tries.values()) == 1
    assert no_threads_left()


@pytest.mark.parametrize("verdict", ["unreachable", "passing", "busy"])
def test_what_may_go_better_next_time_is_asked_again(verdict: Verdict) -> None:
    async def answer(request: GenerateRequest, number: int) -> None:
        if number <= int(request.id) % 3:
            raise Trouble(verdict, "not now")

    server = Server(answer)
    responses = server.responses(60, retries=2)
    assert all(isinstance(response, Generation) for response in responses.values())
    assert {id: tries - 1 for id, tries in server.tries.items()} == {str(i): i % 3 for i in range(60)}
    assert server.talk.describe()[verdict] == server.talk.describe()["repeated"] == 60


@pytest.mark.parametrize("kind", ["refused", "too_long"])
def test_what_the_server_refuses_is_a_failure_with_its_reason_and_is_not_asked_again(kind: Any) -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        if int(request.id) % 2:
            raise Trouble("refused", "no", kind=kind, usage=Usage(tokens_in=7))

    server = Server(answer)
    responses = server.responses(60)
    assert set(server.tries.values()) == {1}
    for id, response in responses.items():
        assert isinstance(response, Failure) == bool(int(id) % 2)
        if isinstance(response, Failure):
            assert (response.kind, response.message, response.usage.tokens_in) == (kind, "no", 7)


def test_a_server_that_refuses_everything_from_the_start_ends_the_run() -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        raise Trouble("refused", "HTTP 400: no such parameter")

    server = Server(answer)
    with pytest.raises(ModelError, match="refused the first 20 requests and answered none: HTTP 400: no such parameter"):
        server.responses(1000)
    assert len(server.tries) < 50


@pytest.mark.parametrize("kind", ["too_long", "refused"])
def test_requests_that_are_refused_for_a_reason_of_their_own_do_not_end_the_run(kind: Any) -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        if int(request.id) < 60:
            raise Trouble("refused", "HTTP 400: of this prompt", kind=kind)

    responses = Server(answer).responses(70)
    assert sum(isinstance(response, Failure) for response in responses.values()) == 60


@pytest.mark.parametrize("poison", [0, 50, 99])
def test_one_request_that_the_server_always_stumbles_over_does_not_end_the_run(poison: int) -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        if request.id == str(poison):
            raise Trouble("passing", "HTTP 500: oh")

    server = Server(answer)
    responses = server.responses(100, retries=3)
    failed = responses.pop(str(poison))
    assert isinstance(failed, Failure)
    assert (failed.kind, failed.message) == ("backend", "HTTP 500: oh (asked 4 times)")
    assert server.tries[str(poison)] == 4
    assert len(responses) == 99
    assert all(isinstance(response, Generation) for response in responses.values())


def test_a_server_that_nobody_reaches_ends_the_run_after_three_tries() -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        raise Trouble("unreachable", "no connection: refused")

    server = Server(answer)
    with pytest.raises(BackendError) as caught:
        server.responses(1000)
    assert str(caught.value) == (
        "http://server has answered nothing (no connection: refused); what was answered is stored, the same command goes on "
        "from there"
    )
    assert sum(server.tries.values()) == 3


@pytest.mark.parametrize("verdict", ["unreachable", "passing", "busy"])
def test_a_server_that_goes_away_ends_the_run_in_one_sentence_and_what_came_before_is_there(verdict: Verdict) -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        await asyncio.sleep(0.001)
        if len(server.tries) > 100:
            raise Trouble(verdict, "gone")

    server = Server(answer)
    before: list[Response] = []
    with pytest.raises(BackendError, match=r"^http://server answers no more \(gone\); what was answered is stored, the same"):
        before.extend(server.iterate(100_000, retries=3))
    assert 80 <= len(before) <= 102
    assert max(server.tries.values()) <= 4
    # Not one request after the other is sent to a dead server: those in flight, and few more.
    assert len(server.tries) < 250
    assert no_threads_left()


def test_an_answer_that_takes_too_long_is_tried_again_and_then_a_failure() -> None:
    async def answer(request: GenerateRequest, number: int) -> None:
        if request.id == "3" or (request.id == "4" and number == 1):
            await asyncio.sleep(3600)

    server = Server(answer)
    responses = server.responses(10, timeout=0.05, retries=1)
    failed = responses.pop("3")
    assert isinstance(failed, Failure)
    assert failed.message == "no whole answer within 0.05 s (asked 2 times)"
    assert all(isinstance(response, Generation) for response in responses.values())
    assert server.tries["4"] == 2


def test_an_error_that_nobody_foresaw_comes_out_as_it_is() -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        if request.id == "30":
            raise ZeroDivisionError("a bug")

    server = Server(answer)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        server.responses(1000)
    assert no_threads_left()


def test_each_request_in_flight_has_a_client_of_its_own_and_all_of_them_are_closed() -> None:
    opened: list[int] = []
    closed: list[int] = []
    in_use: set[int] = set()

    @asynccontextmanager
    async def open_client() -> AsyncIterator[int]:
        number = len(opened)
        opened.append(number)
        yield number
        closed.append(number)

    async def ask(client: int, request: GenerateRequest) -> Reply:
        assert client not in in_use
        in_use.add(client)
        await asyncio.sleep(0.001)
        in_use.remove(client)
        if request.id in ("7", "8"):
            raise Trouble("refused", "no")
        return reply(request)

    def session() -> AbstractAsyncContextManager[Ask[GenerateRequest]]:
        return a_client_each(open_client, ask)

    found = list(ask_all(Questions(200), session, Traffic(concurrency=12), server=SERVER, talk=Talk()))
    assert len(found) == 200
    assert opened == sorted(closed) == [*range(12)]


# --- how fast ---


async def steps(gate: remote._Gate, *kinds: str) -> list[float]:
    """The limit of a gate after each answer ("+") and each burst of four "too many" ("-")."""
    limits = []
    for kind in kinds:
        if kind == "+":
            gate.faster(0.0)
        else:
            started = asyncio.get_running_loop().time()
            for _ in range(4):
                gate.slower(started, None)
            await asyncio.sleep(0.001)
        limits.append(gate.limit)
    return limits


def test_the_limit_grows_quickly_at_first_is_halved_once_per_burst_and_grows_slowly_again() -> None:
    assert asyncio.run(steps(remote._Gate(10), "+", "+", "+")) == [9, 10, 10]
    assert asyncio.run(steps(remote._Gate(4), "+")) == [4]
    assert asyncio.run(steps(remote._Gate(32), "-", "+", "-", "-", "-", "-")) == [4, 4.25, 2.125, 1.0625, 1, 1]


def test_as_many_requests_are_in_flight_as_the_server_bears() -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        if server.in_flight > 6:
            raise Trouble("busy", "too many")
        await asyncio.sleep(0.003)

    server = Server(answer)
    responses = server.responses(600, concurrency=64)
    assert all(isinstance(response, Generation) for response in responses.values())
    assert server.talk.counts["busy"] < 120


def test_a_server_that_is_busy_for_a_while_and_names_no_time_costs_no_request_its_tries() -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        if 0.02 < time.monotonic() - begun < 0.5:
            raise Trouble("busy", "too many")
        await asyncio.sleep(0.002)

    begun = time.monotonic()
    server = Server(answer)
    responses = server.responses(2000, concurrency=32, retries=6)
    assert all(isinstance(response, Generation) for response in responses.values())
    assert server.talk.counts["busy"] < 200


def test_where_all_fail_not_all_are_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 1e6)
    monkeypatch.setattr(remote, "LONGEST_PAUSE", 1e6)

    async def answer(request: GenerateRequest, _: int) -> None:
        if request.id != "0":
            raise Trouble("passing", "gone")

    server = Server(answer)
    responses = server.iterate(10_000, concurrency=8)
    next(responses)
    time.sleep(0.2)
    assert len(server.tries) == 1 + 2 * 8
    responses.close()


def test_a_request_that_is_tried_again_goes_before_all_new_ones() -> None:
    async def order() -> list[str]:
        gate, entered = remote._Gate(1), []

        async def enter(name: str, again: bool) -> None:
            await gate.enter(again=again)
            entered.append(name)
            gate.leave()

        await gate.enter()
        waiting = [asyncio.create_task(enter(name, again)) for name, again in (("new", False), ("newer", False), ("again", True))]
        await asyncio.sleep(0)
        gate.leave()
        await asyncio.gather(*waiting)
        return entered

    assert asyncio.run(order()) == ["again", "new", "newer"]


def test_while_the_server_wants_to_be_left_alone_nothing_is_asked() -> None:
    async def answer(request: GenerateRequest, number: int) -> None:
        if request.id == "40" and number == 1:
            told.append(time.monotonic())
            raise Trouble("busy", "wait", pause=0.3)
        await asyncio.sleep(0.002)

    told: list[float] = []
    server = Server(answer)
    responses = server.responses(200, concurrency=8)
    assert len(responses) == 200
    later = [each - told[0] for each in server.started if each > told[0]]
    assert len(later) > 100
    assert min(later) >= 0.299


def test_when_an_answer_says_that_the_rate_limit_is_used_up_nothing_is_asked_until_it_is_filled() -> None:
    async def answer(request: GenerateRequest, _: int) -> Reply | None:
        if request.id == "0":
            told.append(time.monotonic())
            return reply(request, rest=0.2)
        return None

    told: list[float] = []
    server = Server(answer)
    assert len(server.responses(20)) == 20
    assert min(each - told[0] for each in server.started[1:]) >= 0.199


def test_a_server_that_wants_a_day_for_itself_ends_the_run() -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        if request.id == "5":
            raise Trouble("busy", "HTTP 429: daily limit", pause=86400)

    with pytest.raises(
        BackendError, match="wants no request for 86400 s \\(HTTP 429: daily limit\\); what was answered is stored"
    ):
        Server(answer).responses(100)


# --- money ---


def test_what_is_spent_never_exceeds_the_limit_and_comes_close_to_it() -> None:
    draw = random.Random(3)

    async def answer(request: GenerateRequest, number: int) -> Reply:
        await asyncio.sleep(draw.uniform(0, 0.002))
        if number == 1 and int(request.id) % 5 == 0:
            raise Trouble("passing", "half an answer")
        spent.append(draw.uniform(0, 1))
        return reply(request, cost=spent[-1])

    spent: list[float] = []
    server, got = Server(answer), []
    with pytest.raises(BackendError, match=r"stopped before spending more than --max-cost 30: (29|30)\.\d{4} dollars are spent"):
        got.extend(server.iterate(1000, most=1.0, max_cost=30.0, concurrency=16))
    assert 29 < sum(spent) <= 30
    assert len(got) == len(spent)
    assert sum(response.usage.cost or 0 for response in got) == pytest.approx(server.talk.cost) == pytest.approx(sum(spent))


def test_a_limit_that_suffices_stops_nothing_while_requests_wait_for_their_next_try() -> None:
    async def answer(request: GenerateRequest, number: int) -> Reply:
        if number < 3:
            raise Trouble("passing", "not now")
        return reply(request, cost=0.01)

    # Two at a time may be open, and often both of them wait.
    assert len(Server(answer).responses(50, most=1.0, max_cost=2.6)) == 50


# --- stopping ---


def test_closing_the_iterator_cancels_what_is_in_flight_and_waits_for_the_thread() -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        if int(request.id) > 20:
            await asyncio.sleep(3600)

    server = Server(answer)
    responses = server.iterate(1000, concurrency=10)
    assert len(list(itertools.islice(responses, 15))) == 15
    responses.close()
    assert no_threads_left()
    assert server.in_flight == 0
    assert (server.opened, server.closed) == (1, 1)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_while_nothing_arrives_stops_at_once() -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        if request.id != "0":
            await asyncio.sleep(3600)

    server, got = Server(answer), []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            got.extend(server.iterate(100, concurrency=10))
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begun < 5
    assert server.cancelled == server.at_once
    assert no_threads_left()


def test_it_works_where_an_event_loop_is_running_already() -> None:
    async def notebook() -> int:
        return len(Server().responses(50))

    assert asyncio.run(notebook()) == 50


def test_a_slow_reader_holds_the_requests_back_and_memory_does_not_grow() -> None:
    server = Server()
    server.started = _Nothing()
    ahead, sizes = 0, []
    for read, _ in enumerate(server.iterate(100_000, concurrency=500), 1):
        if read % 10_000 == 0:
            time.sleep(0.2)
            ahead = max(ahead, server.talk.counts["tries"] - read)
        if read in (20_000, 100_000):
            sizes.append(_resident())
        if read % 5000 == 0:
            server.tries.clear()
    assert server.talk.counts["answered"] == 100_000
    assert 400 <= ahead <= 2 * 500 + 1
    assert sizes[1] - sizes[0] < 8e6


class _Nothing(list[float]):
    def append(self, _: float) -> None:
        pass


def _resident() -> float:
    """Bytes of this process in memory, where the system tells."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * 4096.0 if file.exists() else 0.0


def test_the_seconds_of_all_answers_are_those_of_the_run() -> None:
    async def answer(request: GenerateRequest, _: int) -> None:
        await asyncio.sleep(0.01)

    begun = time.monotonic()
    responses = Server(answer).responses(100, concurrency=10)
    took = time.monotonic() - begun
    assert 0.5 * took < sum(response.usage.seconds for response in responses.values()) <= took


# --- what servers say ---


def test_how_long_to_wait_is_read_in_every_form() -> None:
    assert wait_of({}) is None
    assert wait_of({"retry-after": "2.5"}) == 2.5
    assert wait_of({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert wait_of({"retry-after": "-3"}) == 0
    assert wait_of({"retry-after": "nan"}) is None
    assert wait_of({"retry-after": "soon"}) is None
    date = wait_of({"retry-after": email.utils.formatdate(time.time() + 30, usegmt=True)})
    assert date is not None
    assert 28 < date <= 30
    assert wait_of({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


def test_a_servers_date_is_read_by_the_servers_own_clock() -> None:
    """Which may be wrong by hours, or ours may be."""
    headers = {"date": "Wed, 21 Oct 2015 07:28:00 GMT", "retry-after": "Wed, 21 Oct 2015 07:28:45 GMT"}
    assert wait_of(headers) == 45
    assert wait_of({**headers, "retry-after": headers["date"]}) == 0
    for date in ("soon", ""):
        assert wait_of({**headers, "date": date}) == 0


def test_an_answer_that_is_no_json_is_told_with_its_kind_however_deep_it_goes() -> None:
    assert json_of(b'{"a": 1}', {}) == {"a": 1}
    for content in (b"<html>", b'{"a": ', b"[" * 100_000, b"\xff"):
        with pytest.raises(Trouble, match=r"^the answer is no JSON \(text/html\)$") as caught:
            json_of(content, {"content-type": "text/html; charset=utf-8"})
        assert caught.value.verdict == "passing"


def test_what_a_status_means() -> None:
    meant = {
        status: trouble_of(status, {"retry-after": "3"}, "words") for status in (400, 401, 402, 403, 404, 408, 422, 429, 500, 529)
    }
    verdicts = {status: trouble.verdict for status, trouble in meant.items()}
    assert verdicts == {
        400: "refused",
        401: "hopeless",
        402: "hopeless",
        403: "hopeless",
        404: "hopeless",
        408: "passing",
        422: "refused",
        429: "busy",
        500: "passing",
        529: "busy",
    }
    assert meant[429].pause == meant[500].pause == 3
    assert {str(trouble) for trouble in meant.values()} == {"words"}
