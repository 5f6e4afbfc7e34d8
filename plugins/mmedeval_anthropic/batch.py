"""Anthropic's batch interface, as `mmedeval.batches` wants it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import anthropic
import httpx2

from mmedeval import GenerateRequest, Response
from mmedeval.batches import Entry, Status, Submission, json_lines
from mmedeval.remote import Trouble, cut
from mmedeval_anthropic.options import Options
from mmedeval_anthropic.troubles import as_trouble, status_trouble
from mmedeval_anthropic.wire import body_of

CLOCKS_DIFFER = 600.0
STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}


class Batches:
    """The batches of one model. `read_message` makes a response of a message of the API."""

    most_requests = 100_000
    most_bytes = 256_000_000

    def __init__(
        self,
        client: anthropic.Anthropic,
        name: str,
        options: Options,
        read_message: Callable[[GenerateRequest, Any], Response],
    ) -> None:
        self.client, self.name, self.options, self.read_message = client, name, options, read_message

    def body(self, request: GenerateRequest) -> Mapping[str, Any]:
        return body_of(request, self.name, self.options)

    def submit(self, entries: Sequence[Entry], label: str) -> str:
        requests: Any = [{"custom_id": entry.key, "params": entry.body} for entry in entries]
        with self._troubles():
            raw = self.client.messages.batches.with_raw_response.create(requests=requests)
            return str(json.loads(raw.http_response.content)["id"])

    def find(self, submission: Submission, taken: Collection[str]) -> str | None:
        """Batches carry no mark of ours: the nearest in time of as many requests whose keys, once they show, are ours."""
        found: dict[str, float] = {}
        with self._troubles():
            for batch in self.client.messages.batches.list(limit=100):
                later = batch.created_at.timestamp() - submission.begun
                if later < -CLOCKS_DIFFER:
                    break
                if batch.id in taken:
                    continue
                counts = batch.request_counts
                total = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
                if total == len(submission.keys) and self._may_hold(batch.id, batch.results_url, submission):
                    found[batch.id] = abs(later)
        return min(found, key=found.__getitem__, default=None)

    def _may_hold(self, batch: str, results_url: str | None, submission: Submission) -> bool:
        if results_url is None:
            return True
        key, _ = next(self.results(batch), ("", {}))
        return key in submission.keys

    def status(self, batch: str) -> Status:
        with self._troubles():
            raw = self.client.messages.batches.with_raw_response.retrieve(batch)
            about = json.loads(raw.http_response.content)
            ended = about["processing_status"] == "ended"
            cancelled, late = about.get("cancel_initiated_at") is not None, _late(about)
            why = "was cancelled" if cancelled else "expired" if late else "ended"
            return Status(ended=ended, why=why, cancelled=cancelled)

    def results(self, batch: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with self._troubles(), self.client.messages.batches.with_streaming_response.results(batch) as response:
            for found in json_lines(response.iter_bytes()):
                yield found["custom_id"], found["result"]

    def read(self, request: GenerateRequest, result: Mapping[str, Any]) -> Response:
        kind = result.get("type")
        if kind == "succeeded":
            return self.read_message(request, result.get("message"))
        if kind == "errored":
            error = (result.get("error") or {}).get("error") or {}
            server = self.options.server
            said = cut(server.redact(str(error.get("message") or "the server says nothing else")))
            raise status_trouble(STATUSES.get(str(error.get("type")), 500), {}, said, key_place=server.key_place)
        if kind == "canceled":
            # Whoever cancelled it wants no more of it.
            raise Trouble("refused", "the batch was cancelled before it was asked")
        expired = "the batch expired before it was asked"
        raise Trouble("passing", expired if kind == "expired" else "the batch holds no result that can be read")

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        server = self.options.server
        try:
            yield
        except anthropic.AnthropicError as error:
            raise as_trouble(error, key_place=server.key_place, redact=server.redact) from None
        except httpx2.HTTPError as error:
            raise Trouble("passing", server.redact(f"the connection broke: {type(error).__name__}: {error}")) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Trouble("passing", "the answer is none of the batch interface") from None


def _late(about: Mapping[str, Any]) -> bool:
    if about.get("ended_at") is None:
        return False
    return datetime.fromisoformat(about["ended_at"]) >= datetime.fromisoformat(about["expires_at"])
