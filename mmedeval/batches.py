"""Asks a provider's batch interface: cheaper, within a day, and what was submitted is found again after a stop.

For backends. What OpenAI and Anthropic do alike is here (parts that fit, a memory in the run folder, waiting, fetching by key);
what they do differently is a `BatchService`.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from mmedeval.errors import BackendError, ModelError, StoreError, UsageError
from mmedeval.remote import NO_CHARACTER, PATIENCE, Talk, Traffic, Trouble
from mmedeval.types import Failure, Request, Response, digest

R = TypeVar("R", bound=Request)
R_contra = TypeVar("R_contra", bound=Request, contravariant=True)
T = TypeVar("T")

FILE = "batches.json"
FORMAT = 1
FIRST_LOOK, LONGEST_LOOK = 1.0, 60.0
"""Seconds between two looks at a batch: few at first, half as many again each time."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a call that failed is repeated: doubled each time."""
ENVELOPE = 400
"""Bytes that key and address take in an entry, at most."""
LONGEST_LINE = 64_000_000
"""Bytes; no answer is that long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request of a batch: a key of 64 characters, 0-9a-f, that comes back with the answer, and what the model is asked."""

    key: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A batch, as it is remembered. `batch` is the provider's name for it: `None` while it is on its way there.

    `label` is ours, another one for each submission; `begun` is in seconds since 1970, by the clock here. `after` is the batch
    that had these requests before and did not answer them: this one is the last.
    """

    label: str
    begun: float
    keys: tuple[str, ...]
    batch: str | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a batch stands. `ended`: nothing more will be answered, and `why` says how that came ("expired", "was cancelled").

    `cancelled`: somebody wanted no more answers. `refused` is the provider's reason for taking none of it.
    """

    ended: bool
    why: str = "ended"
    cancelled: bool = False
    refused: str | None = None


class BatchService(Protocol[R_contra]):
    """What a provider does in its own way. Calls block; what goes wrong with one they raise as `Trouble`."""

    @property
    def most_requests(self) -> int:
        """So many requests fit into a batch."""

    @property
    def most_bytes(self) -> int:
        """So many bytes fit into a batch."""

    def body(self, request: R_contra) -> Mapping[str, Any]:
        """What the model is asked, JSON-like, the same each time."""

    def submit(self, entries: Sequence[Entry], label: str) -> str:
        """Submits a batch and returns the provider's name for it. Nothing may begin after `Traffic.timeout`: nobody waits."""

    def find(self, submission: Submission, taken: Collection[str]) -> str | None:
        """The provider's name for a batch that was perhaps submitted, before a stop or a broken connection told.

        It is none of `taken`, which are remembered already.
        """

    def status(self, batch: str) -> Status: ...

    def results(self, batch: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The keys and results of a batch that has ended, in any order; from the start with each call."""

    def read(self, request: R_contra, result: Mapping[str, Any]) -> Response:
        """The response that a result holds; raises `Trouble` where it holds none.

        What may pass is asked once more, in a batch of its own; else, and the second time, it becomes a `Failure`.
        """


def ask_in_batches(
    requests: Sequence[R],
    service: BatchService[R],
    *,
    folder: Path,
    traffic: Traffic,
    server: str,
    talk: Talk,
    most: Callable[[R], float] | None = None,
) -> Iterator[Response]:
    """Submits the requests that no batch remembered in `folder` holds, waits, and yields all responses as batches end.

    A submission is written down before it is sent and again when it has its name, so that nothing is submitted twice, whenever
    the process is stopped. What a batch let expire, or failed at in passing, is submitted once more. A submission is forgotten
    when all its responses were taken: a request that failed is then asked anew by the next run. `most` bounds a request's cost
    from above, in US dollars, for `traffic.max_cost`. Raises `ModelError` for what the provider refuses, `UsageError` for what
    may cost too much, and `BackendError` where it cannot be reached.
    """
    desk: _Desk[R] = _Desk(service=service, book=_Book(folder / FILE), traffic=traffic, server=server, talk=talk)
    desk.find_lost()
    asked: dict[str, R] = {}
    missing: list[Entry] = []
    unsound: list[Response] = []
    known = {key for submission in desk.book.submissions for key in submission.keys}
    for request in requests:
        body = service.body(request)
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            unsound.append(Failure(request_id=request.id, kind="refused", message=NO_CHARACTER))
            continue
        key = digest([request.id, body])
        asked[key] = request
        if key not in known:
            missing.append(Entry(key=key, body=body))
    if most is not None and traffic.max_cost is not None:
        bound = sum(most(asked[entry.key]) for entry in missing)
        if talk.cost + bound > traffic.max_cost:
            spent = f", beside {talk.cost:.2f} that are spent" if talk.cost else ""
            raise UsageError(
                f"--max-cost {traffic.max_cost:g}: a batch cannot be stopped on the way, and this one of {len(missing)} requests "
                f"may cost up to {bound:.2f} dollars{spent}; raise the limit, or ask for less with --limit or --max-tokens"
            )
    yield from unsound
    for part in _parts(missing, service.most_requests, service.most_bytes):
        desk.submit(part)
    yield from desk.collect(asked)


def json_lines(chunks: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """The objects in a file of JSON lines that arrives in pieces. Raises `Trouble` for a line that holds none.

    A line feed alone ends a line: what else ends lines of text, as U+2028 does, may stand inside of an answer.
    """
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if b"\n" in chunk:
            *lines, held = held.split(b"\n")
            yield from (json_object(line) for line in lines if line.strip())
        elif len(held) > LONGEST_LINE:
            raise Trouble("refused", f"a line of the results has more than {LONGEST_LINE / 1e6:g} MB")
    if held.strip():
        yield json_object(held)


def json_object(content: bytes | bytearray) -> Mapping[str, Any]:
    """The JSON object that an answer of a batch interface is. Raises `Trouble` for anything else."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Trouble("passing", "the answer is no JSON object") from None
    return value


def _parts(entries: Sequence[Entry], most_requests: int, most_bytes: int) -> Iterator[list[Entry]]:
    """The entries in their order, in as few parts as their limits allow."""
    part: list[Entry] = []
    held = 0
    for entry in entries:
        size = len(json.dumps(entry.body).encode()) + ENVELOPE
        if part and (len(part) == most_requests or held + size > most_bytes):
            yield part
            part, held = [], 0
        part.append(entry)
        held += size
    if part:
        yield part


@dataclass(frozen=True, kw_only=True)
class _Desk(Generic[R]):
    """One call of `ask_in_batches`."""

    service: BatchService[R]
    book: _Book
    traffic: Traffic
    server: str
    talk: Talk

    def find_lost(self) -> None:
        """Gives submissions that were cut off their names, or forgets them where they never arrived."""
        for submission in [each for each in self.book.submissions if each.batch is None]:
            batch = self._call(partial(self.service.find, submission, self.book.names), "looking for a batch")
            if batch is None:
                self.book.drop(submission)
            else:
                self.book.name(submission, batch)

    def submit(self, entries: Sequence[Entry], *, in_place_of: Submission | None = None) -> Submission:
        submission = Submission(
            label=uuid.uuid4().hex,
            begun=time.time(),
            keys=tuple(entry.key for entry in entries),
            after=None if in_place_of is None else in_place_of.batch,
        )
        self.book.add(submission, in_place_of=in_place_of)

        in_doubt = False

        def once() -> str:
            nonlocal in_doubt
            if in_doubt and (batch := self.service.find(submission, self.book.names)) is not None:
                return batch
            # It may arrive without our knowing: an answer that was cut off, or takes too long, says nothing.
            in_doubt = True
            try:
                return self.service.submit(entries, submission.label)
            except Trouble as trouble:
                in_doubt = trouble.verdict == "passing"
                raise

        try:
            batch = self._call(once, "submitting a batch", late=True)
        except ModelError:
            self.book.drop(submission)
            raise
        except _Late as late:
            # Submitted anew it could arrive twice.
            raise BackendError(
                f"{self.server}, submitting a batch: {late}; it may still arrive: the same command looks for it first, and "
                "a longer --model-arg timeout helps"
            ) from None
        return self.book.name(submission, batch)

    def collect(self, asked: Mapping[str, R]) -> Iterator[Response]:
        """Waits for all remembered batches and yields what they say to the requests that are asked, by key."""
        waiting = list(self.book.submissions)
        look = FIRST_LOOK
        while waiting:
            for submission in waiting.copy():
                assert submission.batch is not None
                wanted = {key: asked[key] for key in submission.keys if key in asked}
                if not wanted:
                    # Another plan's: whoever submitted it may still come for it.
                    waiting.remove(submission)
                    continue
                status = self._status(submission.batch)
                if status.refused is not None:
                    self.book.drop(submission)
                    raise ModelError(f"{self.server} refused the batch {submission.batch}: {status.refused}")
                if not status.ended:
                    continue
                again = yield from self._fetch(submission, wanted, status)
                waiting.remove(submission)
                if again:
                    entries = [Entry(key=key, body=self.service.body(wanted[key])) for key in again]
                    waiting.append(self.submit(entries, in_place_of=submission))
                else:
                    self.book.drop(submission)
            if waiting:
                time.sleep(look)
                look = min(LONGEST_LOOK, look * 1.5)

    def _status(self, batch: str) -> Status:
        try:
            return self._call(partial(self.service.status, batch), f"looking at the batch {batch}")
        except ModelError as error:
            raise ModelError(f"{error}; to submit its requests anew, delete {self.book.file}") from None

    def _fetch(self, submission: Submission, wanted: Mapping[str, R], status: Status) -> Generator[Response, None, Sequence[str]]:
        """Yields what a batch says to the requests that are wanted; gives the keys of those that are to be asked once more."""
        batch, left, others = str(submission.batch), dict(wanted), 0
        keys, again = frozenset(submission.keys), list[str]()
        for number in itertools.count(1):
            try:
                with closing(self._timely(partial(self.service.results, batch))) as results:
                    for key, result in results:
                        others += key not in keys
                        if key in left:
                            response = self._read(submission, left.pop(key), result)
                            if response is None:
                                again.append(key)
                            else:
                                yield response
                break
            except Trouble as trouble:
                self._pause(trouble, number, f"fetching the batch {batch}")
        if others and left.keys() == wanted.keys():
            self.book.drop(submission)
            raise BackendError(
                f"the batch {batch} was taken for one that had been cut off, and holds the answers of another run; nothing is "
                "lost: the same command submits these requests anew"
            )
        # Whoever cancelled a batch wants no more of it.
        lost = Trouble("refused" if status.cancelled else "passing", f"the batch {batch} {status.why} without an answer to it")
        for key, request in left.items():
            failure = self._failed(submission, request, lost)
            if failure is None:
                again.append(key)
            else:
                yield failure
        return again

    def _read(self, submission: Submission, request: R, result: Mapping[str, Any]) -> Response | None:
        """The response that a result holds; `None` where the request is to be asked once more."""
        try:
            response = self.service.read(request, result)
        except Trouble as trouble:
            return self._failed(submission, request, trouble)
        self.talk.cost += response.usage.cost or 0.0
        return response

    def _failed(self, submission: Submission, request: R, trouble: Trouble) -> Failure | None:
        """The failure of a request that a batch did not answer; `None` where it is to be asked once more."""
        self.talk.counts[trouble.verdict] += 1
        self.talk.cost += trouble.usage.cost or 0.0
        # A try that was paid has used up what --max-cost held ready for the request.
        affordable = self.traffic.max_cost is None or not trouble.usage.cost
        if submission.after is None and affordable and trouble.verdict in ("passing", "busy"):
            self.talk.counts["repeated"] += 1
            return None
        message = str(trouble) if submission.after is None else f"{trouble} (asked 2 times)"
        return Failure(request_id=request.id, kind=trouble.kind, message=message, usage=trouble.usage)

    def _call(self, call: Callable[[], T], what: str, *, late: bool = False) -> T:
        """Calls, and again where that may help. With `late`, a call that took too long is not repeated: `_Late`."""
        for number in itertools.count(1):
            self.talk.counts["tries"] += 1
            try:
                return self._within_time(call)
            except Trouble as trouble:
                if late and isinstance(trouble, _Late):
                    raise
                self._pause(trouble, number, what)
        raise AssertionError("never reached")

    def _within_time(self, call: Callable[[], T]) -> T:
        """What a call gives. One that takes longer than a try may take is left alone; it ends with its connection."""
        with closing(self._timely(lambda: iter((call(),)))) as values:
            return next(values)

    def _timely(self, values: Callable[[], Iterator[T]]) -> Generator[T, None, None]:
        """What an iterator gives, drawn by one thread, and each value within the time that a try may take."""
        wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        drawn: queue.SimpleQueue[tuple[T, ...] | BaseException] = queue.SimpleQueue()

        def draw() -> None:
            try:
                source = values()
                while wanted.get():
                    drawn.put(tuple(itertools.islice(source, 1)))
            except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
                drawn.put(error)

        threading.Thread(target=draw, name=f"a call of {self.server}", daemon=True).start()
        try:
            while True:
                wanted.put(True)
                found = drawn.get(timeout=self.traffic.timeout)
                if isinstance(found, BaseException):
                    raise found
                if not found:
                    return
                yield found[0]
        except queue.Empty:
            raise _Late("passing", f"no whole answer within {self.traffic.timeout:g} s") from None
        finally:
            wanted.put(False)

    def _pause(self, trouble: Trouble, tries: int, what: str) -> None:
        """Waits until a call may be repeated. Raises where that would not help."""
        self.talk.counts[trouble.verdict] += 1
        if trouble.verdict in ("hopeless", "refused"):
            raise ModelError(f"{self.server}, {what}: {trouble}") from None
        if tries > self.traffic.retries or (trouble.pause or 0.0) > PATIENCE:
            raise BackendError(
                f"{self.server} does not answer, {what} ({trouble}); batches that were submitted go on there, the same command "
                "fetches them"
            ) from None
        self.talk.counts["repeated"] += 1
        time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (tries - 1)) if trouble.pause is None else trouble.pause)


class _Late(Trouble):
    """A call that nobody waits for any more, though it goes on."""


class _Book:
    """The batches that were submitted and not fetched whole, in a file that is written anew with each change."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.submissions = self._load()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for each in self.submissions for name in (each.batch, each.after) if name is not None)

    def add(self, submission: Submission, *, in_place_of: Submission | None = None) -> None:
        self._store((*(each for each in self.submissions if each != in_place_of), submission))

    def name(self, submission: Submission, batch: str) -> Submission:
        named = replace(submission, batch=batch)
        self._store(tuple(named if each == submission else each for each in self.submissions))
        return named

    def drop(self, submission: Submission) -> None:
        self._store(tuple(each for each in self.submissions if each != submission))

    def _load(self) -> tuple[Submission, ...]:
        try:
            stored = json.loads(self.file.read_text(encoding="utf-8"))
            if stored["format"] != FORMAT:
                raise ValueError(f"format {stored['format']}")
            return tuple(Submission(**{**each, "keys": tuple(each["keys"])}) for each in stored["batches"])
        except FileNotFoundError:
            return ()
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.file} is damaged ({type(error).__name__}: {error}); look at the provider's page for batches that still "
                "run, then delete the file"
            ) from error

    def _store(self, submissions: tuple[Submission, ...]) -> None:
        self.submissions = submissions
        self.file.parent.mkdir(exist_ok=True)
        new = self.file.with_name(f"{FILE}.new")
        with new.open("w", encoding="utf-8") as handle:
            json.dump({"format": FORMAT, "batches": [asdict(each) for each in submissions]}, handle)
            handle.flush()
            os.fsync(handle.fileno())
        new.replace(self.file)
