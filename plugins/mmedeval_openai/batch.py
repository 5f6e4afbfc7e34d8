"""The provider's batch interface, as `mmedeval.batches` asks for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import httpx2
import openai

from mmedeval import GenerateRequest, LoglikelihoodRequest, Response
from mmedeval.batches import Entry, Status, Submission, json_lines, json_object
from mmedeval.remote import Trouble, Verdict, cut
from mmedeval_openai.troubles import as_trouble, status_trouble

ENDPOINT: Final = "/v1/chat/completions"
LABEL = "mmedeval"
"""Under this name a batch carries our label, by which one is found whose name never arrived here."""
RECENT = 100


class OpenAIBatches:
    """Files of JSON lines go up, files of JSON lines come down. `body` and `read` are those of single requests."""

    most_requests = 50_000
    most_bytes = 190_000_000  # of 200 MB

    def __init__(
        self,
        client: openai.OpenAI,
        *,
        body: Callable[[Any], Mapping[str, Any]],
        read: Callable[[Any, Mapping[str, Any]], Response],
        key_place: str,
        redact: Callable[[str], str],
        seconds: float,
    ) -> None:
        self.client, self.key_place, self.redact, self.seconds = client, key_place, redact, seconds
        self._body, self._read = body, read

    def body(self, request: GenerateRequest | LoglikelihoodRequest) -> Mapping[str, Any]:
        return self._body(request)

    def submit(self, entries: Sequence[Entry], label: str) -> str:
        asked = ({"custom_id": each.key, "method": "POST", "url": ENDPOINT, "body": each.body} for each in entries)
        lines = "".join(json.dumps(each) + "\n" for each in asked).encode()
        begun = time.monotonic()
        file = self._json(
            lambda: self.client.files.with_raw_response.create(file=("batch.jsonl", lines), purpose="batch"),
        )
        if time.monotonic() - begun > self.seconds:
            # Nobody waits for this batch any more: it may have been submitted anew.
            raise Trouble("passing", f"the file of the batch took more than {self.seconds:g} s")
        batch = self._json(
            lambda: self.client.batches.with_raw_response.create(
                input_file_id=str(file["id"]), endpoint=ENDPOINT, completion_window="24h", metadata={LABEL: label}
            )
        )
        return str(batch["id"])

    def find(self, submission: Submission, taken: Collection[str]) -> str | None:
        # The newest come first; a process that stopped in between left its batch among the last few.
        recent = self._json(lambda: self.client.batches.with_raw_response.list(limit=RECENT))["data"]
        return next((str(each["id"]) for each in recent if (each.get("metadata") or {}).get(LABEL) == submission.label), None)

    def status(self, batch: str) -> Status:
        told = self._about(batch)
        state = told["status"]
        if state == "failed":
            errors = (told.get("errors") or {}).get("data") or []
            reasons = "; ".join(str(each.get("message")) for each in errors)
            return Status(ended=True, refused=cut(self.redact(reasons)) or "no reason given")
        words = {"completed": "ended", "expired": "expired", "cancelled": "was cancelled"}
        return Status(ended=state in words, why=words.get(state, "goes on"), cancelled=state == "cancelled")

    def results(self, batch: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        told = self._about(batch)
        counts = told.get("request_counts") or {}
        for name, counted in (("output_file_id", "completed"), ("error_file_id", "failed")):
            if file := told.get(name):
                arrived, expected = 0, counts.get(counted) or 0
                for result in self._lines(str(file)):
                    arrived += 1
                    yield str(result.get("custom_id")), result
                if arrived < expected:
                    # Cut at the end of a line it looks whole.
                    raise Trouble("passing", f"{arrived} of {expected} results arrived")

    def read(self, request: GenerateRequest | LoglikelihoodRequest, result: Mapping[str, Any]) -> Response:
        try:
            if error := result.get("error"):
                # The others are those that nobody got round to: batch_expired, request_timeout.
                verdict: Verdict = "refused" if error.get("code") == "batch_cancelled" else "passing"
                raise Trouble(verdict, f"{error.get('code')}: {error.get('message')}")
            answer = result["response"]
            status = answer["status_code"]
            if status != 200:
                # 0 is what was never asked.
                raise status_trouble(status or 500, {}, answer["body"], key_place=self.key_place, redact=self.redact)
            return self._read(request, answer["body"])
        except (KeyError, TypeError, AttributeError):
            raise Trouble("refused", "the batch holds no answer of the format that was asked for") from None
        except Trouble as trouble:
            raise trouble.but(message=cut(self.redact(str(trouble)))) from None

    def _about(self, batch: str) -> Mapping[str, Any]:
        return self._json(lambda: self.client.batches.with_raw_response.retrieve(batch))

    def _lines(self, file: str) -> Iterator[Mapping[str, Any]]:
        with self._troubles(), self.client.files.with_streaming_response.content(file) as response:
            yield from json_lines(response.iter_bytes())

    def _json(self, call: Callable[[], Any]) -> Mapping[str, Any]:
        with self._troubles():
            return json_object(call().http_response.content)

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        try:
            yield
        except openai.OpenAIError as error:
            trouble = as_trouble(error, key_place=self.key_place, redact=self.redact)
            # Not even a traceback may show what the server repeated.
            raise trouble.but(message=self.redact(str(trouble))) from None
        except httpx2.HTTPError as error:
            raise Trouble("passing", self.redact(f"the connection broke: {type(error).__name__}: {error}")) from None
