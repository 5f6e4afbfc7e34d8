"""The `anthropic:` backend: a model's name in, text out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import httpx2

from mmedeval import Backend, Failure, GenerateRequest, Generation, ModelError, Request, Response, digest
from mmedeval.batches import ask_in_batches
from mmedeval.remote import Ask, Reply, Talk, Trouble, a_client_each, ask_all
from mmedeval_anthropic.batch import Batches
from mmedeval_anthropic.models import PRICES, VERSION_WITH_TEMPERATURE
from mmedeval_anthropic.options import Options
from mmedeval_anthropic.troubles import as_trouble
from mmedeval_anthropic.wire import body_of, most_cost, response_of, rest_of

CONNECT_SECONDS = 10.0
NOT_GREEDY = "the model was given no temperature: its answers are drawn, not greedy, and differ from run to run"


class AnthropicBackend(Backend):
    """A model behind the messages API, known by its name alone."""

    capabilities = frozenset({"generate", "chat"})

    def __init__(self, name: str, arguments: Mapping[str, str]) -> None:
        self.name = name
        self.options = Options.parse(name, arguments)
        self.price = self.options.server.price(name, PRICES)
        if self.price is not None and self.price.written is None:
            # A user's file need not know of it: writing to the cache costs a quarter more than reading.
            self.price = replace(self.price, written=1.25 * self.price.input)
        self.talk = Talk()
        self._answered_by: set[str] = set()
        self._folder: Path | None = None

    def fingerprint(self) -> str:
        return digest(["anthropic", self.options.address, self.name])

    def describe(self) -> Mapping[str, Any]:
        return {
            "server": self.options.address,
            "known_by": "its name alone: nobody but the provider knows whether it is the same tomorrow",
            "settings": self.options.settings(),
        }

    def check(self, *, chat: bool) -> None:
        self.options.server.required_key(f"anthropic:{self.name}")

    def runtime(self) -> Mapping[str, Any]:
        if not self.talk.counts:
            return {}
        return {
            "answered_by": sorted(self._answered_by),
            **({} if self.options.temperature else {"warnings": [NOT_GREEDY]}),
            "process": {**self.talk.describe(), **({} if self.price is None else {"cost": round(self.talk.cost, 6)})},
        }

    def keep_in(self, folder: Path) -> None:
        self._folder = folder

    def most_cost(self, requests: Sequence[Request]) -> float | None:
        if self.price is None:
            return None
        return sum(most_cost(each, self.options, self.price) for each in requests if isinstance(each, GenerateRequest))

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        for sampling in {request.sampling for request in requests}:
            self.options.check_sampling(sampling, self.name)
        asking = self._in_batches(requests) if self.options.server.batch else self._one_by_one(requests)
        for response in asking:
            assert isinstance(response, Generation | Failure)
            yield response

    @property
    def _most(self) -> Callable[[GenerateRequest], float] | None:
        options, price = self.options, self.price
        return None if price is None else lambda request: most_cost(request, options, price)

    # --- one by one ---

    def _one_by_one(self, requests: Sequence[GenerateRequest]) -> Iterator[Response]:
        options = self.options
        traffic = options.server.traffic
        return ask_all(requests, self._session, traffic, server=options.address, talk=self.talk, most=self._most)

    def _session(self) -> AbstractAsyncContextManager[Ask[GenerateRequest]]:
        settings, timeout = self._settings, self._timeout
        # Made once: reading the certificates takes longer than many requests.
        trusted = httpx2.create_ssl_context()

        def open_client() -> anthropic.AsyncAnthropic:
            return anthropic.AsyncAnthropic(
                http_client=anthropic.DefaultAsyncHttpxClient(verify=trusted, timeout=timeout), **settings
            )

        return a_client_each(open_client, self._ask)

    async def _ask(self, client: anthropic.AsyncAnthropic, request: GenerateRequest) -> Reply:
        server = self.options.server
        try:
            # What the SDK's own method does on the way, for bodies and answers of any shape, takes a fifth of its time.
            body = body_of(request, self.name, self.options)
            raw = await client.post("/v1/messages", body=body, cast_to=httpx2.Response)
        except anthropic.AnthropicError as error:
            # Not even a traceback may show what the server repeated.
            raise as_trouble(error, key_place=server.key_place, redact=server.redact) from None
        except UnicodeEncodeError:
            raise Trouble("refused", "the prompt holds half of a surrogate pair, which is no character", kind="refused") from None
        try:
            message = json.loads(raw.content)
        except ValueError:
            kind = raw.headers.get("content-type", "no content type").partition(";")[0]
            raise Trouble("passing", server.redact(f"the answer is no JSON ({kind})")) from None
        return Reply(response=self._read(request, message), rest=rest_of(raw.headers))

    # --- in batches ---

    def _in_batches(self, requests: Sequence[GenerateRequest]) -> Iterator[Response]:
        options = self.options
        if self._folder is None:
            raise ModelError("--model-arg batch=true needs a run folder, which there is none of here; leave it out")
        with anthropic.Anthropic(**self._settings) as client:
            yield from ask_in_batches(
                requests,
                Batches(client, self.name, options, self._read),
                folder=self._folder,
                traffic=options.server.traffic,
                server=options.address,
                talk=self.talk,
                most=self._most,
            )

    # --- both ---

    @property
    def _timeout(self) -> httpx2.Timeout:
        seconds = self.options.server.traffic.timeout
        return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))

    @property
    def _settings(self) -> dict[str, Any]:
        options = self.options
        return {
            "api_key": options.server.required_key(f"anthropic:{self.name}"),
            "base_url": options.address,
            "max_retries": 0,
            "timeout": self._timeout,
            "default_headers": {"anthropic-version": VERSION_WITH_TEMPERATURE} if options.temperature else None,
        }

    def _read(self, request: GenerateRequest, message: Any) -> Generation | Failure:
        server = self.options.server
        response = response_of(request, message, self.price, redact=server.redact, batch=server.batch)
        self._answered_by.add(server.redact(str(message.get("model"))))
        return response
