"""Asks a server many things at once: as many as it bears, again where that may help, and no further than money goes.

For backends that talk to a server. One asks with a coroutine; what goes wrong it raises as `Trouble`, and this module decides
what that means for the request and for the run. Everything happens in a thread with an event loop of its own, so that a
backend stays a plain iterator, in a notebook too.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import itertools
import json
import math
import queue
import random
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

from mmedeval.errors import BackendError, MmedevalError, ModelError
from mmedeval.types import Failure, FailureKind, Request, Response, Usage

R = TypeVar("R", bound=Request)
C = TypeVar("C")

FIRST_LIMIT = 8
"""So many requests are in flight at first; one more with every answer, as TCP does it (slow start)."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a try is repeated: a random part of FIRST_PAUSE, doubled each time ("full jitter")."""
FIRST_REST = 0.1
"""Seconds without any request after a "too many" that names none; doubled with each further one until an answer comes."""
PATIENCE = 600.0
"""A server that wants to be left alone for more seconds ends the run; it goes on later with the same command."""
FIRST_RETRIES = 2
"""A server that has never answered and takes no connection is asked again so many times."""
SAME_REFUSALS = 20
"""So many refusals and no answer at all: it is not the requests."""
OUTAGE = 3
"""So many requests given up one after the other: the server is gone."""
DELIVERY = 0.01
"""Seconds between two deliveries to the reader: to wake him for each of many responses costs both threads time."""
LONGEST_MESSAGE = 600
"""Characters of a server's words that are shown and stored."""
NO_CHARACTER = "the prompt holds half of a surrogate pair, which is no character"
Verdict = Literal["unreachable", "passing", "busy", "refused", "hopeless"]


class Trouble(Exception):
    """A try that gave no answer. `verdict` says what it means:

    - `unreachable`: no connection could be made; tried again, but not for long where the server has never answered
    - `passing`: may go better next time (5xx, a broken connection, half an answer); tried again
    - `busy`: the server wants fewer requests (429, 529); tried again later, with fewer in flight
    - `refused`: this request will never be answered; becomes a `Failure` of `kind`
    - `hopeless`: no request will be answered (a bad key, an unknown model); ends the run

    The message is shown and stored: it must hold no key. `pause` is what the server asked for, in seconds, and `usage` what the
    try took all the same.
    """

    def __init__(
        self,
        verdict: Verdict,
        message: str,
        *,
        kind: FailureKind = "backend",
        pause: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.verdict, self.kind, self.pause, self.usage = verdict, kind, pause, usage or Usage()

    def but(self, *, message: str | None = None, usage: Usage | None = None) -> Trouble:
        """The same, in other words or with another bill."""
        said = str(self) if message is None else message
        return Trouble(self.verdict, said, kind=self.kind, pause=self.pause, usage=self.usage if usage is None else usage)


class LimitReached(BackendError):
    """No request is sent any more: the next one might cost more than `Traffic.max_cost` leaves. `most` is what it may cost."""

    def __init__(self, limit: float, spent: float, most: float) -> None:
        super().__init__(
            f"stopped before spending more than --max-cost {limit:g}: {spent:.4f} dollars are spent and the next request may "
            f"cost {most:.4f}; the same command goes on from there, with the same limit anew"
        )
        self.most = most


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How a server is asked. `timeout` is that of one try in seconds, to its last byte; `max_cost` is in US dollars."""

    concurrency: int = 16
    retries: int = 6
    timeout: float = 300.0
    max_cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer; `rest` is for how many seconds the server wants no new request (its rate limit is used up)."""

    response: Response
    rest: float = 0.0


Ask = Callable[[R], Awaitable[Reply]]
Session = Callable[[], AbstractAsyncContextManager[Ask[R]]]


@dataclass(kw_only=True)
class Talk:
    """What happened on the way, for `Backend.runtime`."""

    counts: Counter[str] = field(default_factory=Counter)
    cost: float = 0.0
    in_flight_at_most: int = 0

    def describe(self) -> Mapping[str, Any]:
        """Tries, and how those that gave no answer ended, as JSON-like data."""
        tries = {
            name: self.counts[name]
            for name in ("tries", "repeated", "busy", "unreachable", "passing", "refused")
            if self.counts[name]
        }
        return {**tries, "in_flight_at_most": self.in_flight_at_most}


def ask_all(
    requests: Sequence[R],
    session: Session[R],
    traffic: Traffic,
    *,
    server: str,
    talk: Talk,
    most: Callable[[R], float] | None = None,
) -> Generator[Response, None, None]:
    """Asks all requests and yields their responses as they arrive.

    `session` opens the client inside the event loop and gives the coroutine that asks. `server` is a name for sentences.
    `most` bounds the cost of a request from above, in US dollars; needed with `max_cost`. Raises `ModelError` where asking on is
    hopeless, and `BackendError` where the server is gone or the money is spent; closing the iterator cancels what is in flight.
    """
    line: _Line[R] = _Line(requests=requests, session=session, traffic=traffic, server=server, talk=talk, most=most)
    thread = threading.Thread(target=line.work, name=f"requests to {server}", daemon=True)
    thread.start()
    try:
        while (arrived := line.arrived.get()) is not None:
            if isinstance(arrived, BaseException):
                raise arrived
            for response in arrived:
                line.read += 1
                yield response
    finally:
        line.stop()
        thread.join()


@asynccontextmanager
async def a_client_each(
    open_client: Callable[[], AbstractAsyncContextManager[C]], ask: Callable[[C, R], Awaitable[Reply]]
) -> AsyncIterator[Ask[R]]:
    """A session in which each request that is in flight has a client, and so a connection, of its own.

    A client of the httpx family that holds many connections looks at every one of them for every request.
    """
    async with AsyncExitStack() as stack:
        idle: list[C] = []

        async def ask_one(request: R) -> Reply:
            client = idle.pop() if idle else await stack.enter_async_context(open_client())
            try:
                return await ask(client, request)
            finally:
                idle.append(client)

        yield ask_one


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait for: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - server_time(headers)
            except (TypeError, ValueError, OverflowError):
                continue
        # A NaN or a date of the past asks for nothing.
        return max(0.0, seconds) if seconds == seconds else None
    return None


def server_time(headers: Mapping[str, str]) -> float:
    """Seconds since 1970 by the clock of the server that sent these, where it tells the time, else by the one here."""
    try:
        return email.utils.parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return time.time()


def json_of(content: bytes, headers: Mapping[str, str]) -> Any:
    """What an answer holds. Raises `Trouble` for one that is no JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        kind = headers.get("content-type", "no content type").partition(";")[0]
        raise Trouble("passing", f"the answer is no JSON ({kind})") from None


def cut(words: str) -> str:
    """A server's words, no longer than `LONGEST_MESSAGE`. The key must be out of them: half a key is a secret, too."""
    return words if len(words) <= LONGEST_MESSAGE else f"{words[:LONGEST_MESSAGE]}..."


def trouble_of(status: int, headers: Mapping[str, str], message: str) -> Trouble:
    """What an HTTP status means where the server's own words say nothing else."""
    pause = wait_of(headers)
    if status in (401, 402, 403, 404, 501):
        return Trouble("hopeless", message)
    if status in (429, 503, 529):
        return Trouble("busy", message, pause=pause)
    if status in (408, 409, 425) or status >= 500:
        return Trouble("passing", message, pause=pause)
    return Trouble("refused", message)


@dataclass(kw_only=True)
class _Line(Generic[R]):
    """One call of `ask_all`: the side of the event loop."""

    requests: Sequence[R]
    session: Session[R]
    traffic: Traffic
    server: str
    talk: Talk
    most: Callable[[R], float] | None
    arrived: queue.SimpleQueue[list[Response] | BaseException | None] = field(default_factory=queue.SimpleQueue)
    gathered: list[Response] = field(default_factory=list)
    finished: int = 0
    read: int = 0
    reserved: float = 0.0
    open: int = 0
    answered_at: float = -math.inf
    finished_at: float = 0.0
    delivered_at: float = -math.inf
    gave_up: int = 0
    unexplained: int = 0

    def __post_init__(self) -> None:
        self.gate = _Gate(self.traffic.concurrency)
        self.settled = asyncio.Event()
        self._stopping = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def work(self) -> None:
        """The thread: asks all, and puts what arrives, or what ended it, into `arrived`; at last `None`."""
        ended: BaseException | None = None
        try:
            asyncio.run(self._ask_all())
        except asyncio.CancelledError:
            pass
        except BaseExceptionGroup as group:
            ended = _first(group)
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that reads
            ended = error
        self._deliver()
        self.arrived.put(ended)

    def stop(self) -> None:
        self._stopping = True
        if self._running is not None:
            loop, task = self._running
            with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing left to stop
                loop.call_soon_threadsafe(task.cancel)

    async def _ask_all(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running = asyncio.get_running_loop(), task
        if self._stopping or not self.requests:
            return
        self.finished_at = asyncio.get_running_loop().time()
        async with self.session() as ask:
            # The first one alone: a wrong key is told once, not once per request in flight.
            await self._start(self.requests[0])
            await self._settle(ask, self.requests[0])
            async with asyncio.TaskGroup() as group:
                for request in itertools.islice(self.requests, 1, None):
                    await self._start(request)
                    group.create_task(self._settle(ask, request))

    async def _start(self, request: R) -> None:
        """Waits until the next request may be asked: there is room for it, money, and a reader for its answer."""
        # No more answers wait to be stored, and would be lost by a kill, than may be in flight.
        while self.finished - self.read >= self.traffic.concurrency:
            await asyncio.sleep(DELIVERY)
        # No more requests wait for their next try either: where all fail, not all are begun.
        while self.open >= 2 * self.traffic.concurrency:
            await self._next_settled()
        limit = self.traffic.max_cost
        if limit is not None and self.most is not None:
            most = self.most(request)
            while self.talk.cost + self.reserved + most > limit:
                if not self.open:
                    raise LimitReached(limit, self.talk.cost, most)
                await self._next_settled()
            self.reserved += most
        self.open += 1
        await self.gate.enter()

    async def _next_settled(self) -> None:
        self.settled.clear()
        await self.settled.wait()

    async def _settle(self, ask: Ask[R], request: R) -> None:
        """Tries one request until it has an answer, or will not get one. It is inside the gate when this begins."""
        failed_at = math.inf
        for number in itertools.count(1):
            await self.gate.rest()
            started = asyncio.get_running_loop().time()
            self.talk.counts["tries"] += 1
            try:
                async with asyncio.timeout(self.traffic.timeout):
                    reply = await ask(request)
            except TimeoutError:
                trouble = Trouble("passing", f"no whole answer within {self.traffic.timeout:g} s")
            except Trouble as error:
                trouble = error
                if trouble.verdict == "busy":
                    self.gate.slower(started, trouble.pause)
            else:
                self._answer(request, reply)
                return
            finally:
                self.gate.leave()
            self.talk.counts[trouble.verdict] += 1
            failed_at = min(failed_at, asyncio.get_running_loop().time())
            if self._ends(request, trouble, number, failed_at):
                return
            self.talk.cost += trouble.usage.cost or 0.0
            self.talk.counts["repeated"] += 1
            await asyncio.sleep(_pause(number, trouble.pause))
            await self.gate.enter(again=True)

    def _answer(self, request: R, reply: Reply) -> None:
        now = asyncio.get_running_loop().time()
        self.answered_at, self.gave_up = now, 0
        self.gate.faster(now + min(reply.rest, PATIENCE))
        self.talk.counts["answered"] += 1
        self._finish(request, reply.response)

    def _finish(self, request: R, response: Response) -> None:
        self.talk.cost += response.usage.cost or 0.0
        self.talk.in_flight_at_most = self.gate.most
        self.open -= 1
        if self.traffic.max_cost is not None and self.most is not None:
            # Nothing open, nothing reserved: a sum of many floats and its parts does not come back to 0 by itself.
            self.reserved = self.reserved - self.most(request) if self.open else 0.0
        # Wall time is shared out: from one answer to the next.
        before, self.finished_at = self.finished_at, asyncio.get_running_loop().time()
        response = replace(response, usage=replace(response.usage, seconds=self.finished_at - before))
        self.finished += 1
        self.gathered.append(response)
        wait = self.delivered_at + DELIVERY - self.finished_at
        if wait <= 0:
            self._deliver()
        elif len(self.gathered) == 1:
            asyncio.get_running_loop().call_later(wait, self._deliver)
        self.settled.set()

    def _deliver(self) -> None:
        self.arrived.put(self.gathered)
        self.gathered, self.delivered_at = [], self.finished_at

    def _ends(self, request: R, trouble: Trouble, tries: int, failed_at: float) -> bool:
        """Whether a request without an answer is done with. Raises where the whole run is."""
        silent = self.answered_at == -math.inf
        if trouble.verdict == "hopeless":
            raise ModelError(f"{self.server}: {trouble}")
        if trouble.pause is not None and trouble.pause > PATIENCE:
            raise BackendError(
                f"{self.server} wants no request for {trouble.pause:.0f} s ({trouble}); what was answered is stored, "
                "the same command goes on from there"
            )
        if trouble.verdict == "refused":
            # A reason that is the request's own (too long, filtered) comes from a server that works.
            self.unexplained += trouble.kind == "backend" and trouble.usage == Usage()
            if silent and self.unexplained >= SAME_REFUSALS:
                raise ModelError(f"{self.server} refused the first {SAME_REFUSALS} requests and answered none: {trouble}")
            failure = Failure(request_id=request.id, kind=trouble.kind, message=str(trouble), usage=trouble.usage)
            self._finish(request, failure)
            return True
        most = min(FIRST_RETRIES, self.traffic.retries) if silent and trouble.verdict == "unreachable" else self.traffic.retries
        if tries <= most:
            return False
        # One request may be what the server stumbles over, also the first; several, and no answer meanwhile, are an outage.
        self.gave_up += self.answered_at < failed_at
        if (silent and trouble.verdict == "unreachable") or self.gave_up >= OUTAGE:
            since = "has answered nothing" if silent else "answers no more"
            raise BackendError(
                f"{self.server} {since} ({trouble}); what was answered is stored, the same command goes on from there"
            )
        message = f"{trouble} (asked {tries} times)"
        self._finish(request, Failure(request_id=request.id, kind="backend", message=message, usage=trouble.usage))
        return True


class _Gate:
    """How many requests may be in flight: more with each answer, half as many when the server is busy (AIMD, RFC 5681)."""

    def __init__(self, limit: int) -> None:
        self.ceiling = float(limit)
        self.limit = min(self.ceiling, FIRST_LIMIT)
        self.busy = self.most = 0
        self._growing = True
        self._rests = 0
        self._not_before = self._slowed_at = -math.inf
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, *, again: bool = False) -> None:
        """Waits for a place. A request that is tried again goes before all new ones."""
        if self._waiting or self.busy >= int(self.limit):
            turn = asyncio.get_running_loop().create_future()
            if again:
                self._waiting.appendleft(turn)
            else:
                self._waiting.append(turn)
            await turn  # the place is kept for it
        else:
            self.busy += 1
        self.most = max(self.most, self.busy)

    async def rest(self) -> None:
        """Waits while the server is to be left alone."""
        loop = asyncio.get_running_loop()
        while (pause := self._not_before - loop.time()) > 0:
            await asyncio.sleep(pause)

    def leave(self) -> None:
        self.busy -= 1
        self._wake()

    def faster(self, not_before: float) -> None:
        """After an answer; `not_before` is when the server wants the next request (loop time)."""
        self.limit = min(self.ceiling, self.limit + (1.0 if self._growing else 1.0 / self.limit))
        self._rests = 0
        self._not_before = max(self._not_before, not_before)
        self._wake()

    def slower(self, started: float, pause: float | None) -> None:
        """After a "too many". Once for all that were in flight together: a try from before the last cut tells nothing new."""
        now = asyncio.get_running_loop().time()
        if started >= self._slowed_at:
            self.limit = max(1.0, self.limit / 2)
            self._slowed_at, self._growing = now, False
            # Without a rest the next requests would only use up their tries.
            rest = min(LONGEST_PAUSE, FIRST_REST * 2.0**self._rests) * random.uniform(0.5, 1)
            self._rests += 1
            self._not_before = max(self._not_before, now + rest)
        if pause is not None:
            self._not_before = max(self._not_before, now + min(pause, PATIENCE))

    def _wake(self) -> None:
        while self._waiting and self.busy < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():  # its request was not cancelled
                self.busy += 1
                turn.set_result(None)


def _pause(tries: int, asked: float | None) -> float:
    """Seconds until the next try: what the server asked for and a little more, else exponential backoff with full jitter."""
    if asked is not None:
        return asked + random.uniform(0, FIRST_PAUSE)
    return random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**tries))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ended the requests: the sentence for the user, if one is among the errors."""
    errors = [each for each in _flat(group) if not isinstance(each, asyncio.CancelledError)]
    return next((each for each in errors if isinstance(each, MmedevalError)), errors[0])


def _flat(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _flat(each)
        else:
            yield each
