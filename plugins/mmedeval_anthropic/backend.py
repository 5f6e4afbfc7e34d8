"""The `anthropic:` backend: a model's name in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from typing import Any

import anthropic
import httpx2

from mmedeval import Failure, GenerateRequest, Generation, Request, digest
from mmedeval.remote import NO_CHARACTER, Ask, Reply, Trouble, a_client_each, json_of
from mmedeval.servers import ServerBackend
from mmedeval_anthropic.batch import Batches
from mmedeval_anthropic.models import PRICES, VERSION_WITH_TEMPERATURE
from mmedeval_anthropic.options import Options
from mmedeval_anthropic.troubles import as_trouble
from mmedeval_anthropic.wire import body_of, most_cost, response_of, rest_of


class AnthropicBackend(ServerBackend):
    """A model behind the messages API."""

    scheme = "anthropic"
    capabilities = frozenset({"generate", "chat"})

    def __init__(self, name: str, arguments: Mapping[str, str]) -> None:
        self.options = options = Options.parse(name, arguments)
        price = options.server.price(name, PRICES)
        if price is not None and price.written is None:
            # A user's file need not know of it: writing to the cache costs a quarter more than reading.
            price = replace(price, written=1.25 * price.input)
        super().__init__(name, options.server, options.address, price, options.settings(), drawn=not options.temperature)

    def fingerprint(self) -> str:
        return digest(["anthropic", self.address, self.name])

    def bound(self, request: Request) -> float:
        assert self.price is not None
        return most_cost(request, self.options, self.price)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        for sampling in {request.sampling for request in requests}:
            self.options.check_sampling(sampling, self.name)
        for response in self.ask(requests, self._session, self._batches):
            assert isinstance(response, Generation | Failure)
            yield response

    def _session(self) -> AbstractAsyncContextManager[Ask[GenerateRequest]]:
        arguments = self._client_arguments()
        # Made once: reading the certificates takes longer than many requests.
        trusted = httpx2.create_ssl_context()

        def open_client() -> anthropic.AsyncAnthropic:
            http_client = anthropic.DefaultAsyncHttpxClient(verify=trusted, timeout=arguments["timeout"])
            return anthropic.AsyncAnthropic(http_client=http_client, **arguments)

        return a_client_each(open_client, self._once)

    async def _once(self, client: anthropic.AsyncAnthropic, request: GenerateRequest) -> Reply:
        server = self.server
        try:
            # What the SDK's own method does on the way, for bodies and answers of any shape, takes a fifth of its time.
            body = body_of(request, self.name, self.options)
            raw = await client.post("/v1/messages", body=body, cast_to=httpx2.Response)
            message = json_of(raw.content, raw.headers)
        except anthropic.AnthropicError as error:
            # Not even a traceback may show what the server repeated.
            raise as_trouble(error, key_place=server.key_place, redact=server.redact) from None
        except UnicodeEncodeError:
            raise Trouble("refused", NO_CHARACTER, kind="refused") from None
        except Trouble as trouble:
            raise trouble.but(message=server.redact(str(trouble))) from None
        return Reply(response=self._read(request, message), rest=rest_of(raw.headers))

    @contextmanager
    def _batches(self) -> Iterator[Batches]:
        with anthropic.Anthropic(**self._client_arguments()) as client:
            yield Batches(client, self.name, self.options, self._read)

    def _client_arguments(self) -> dict[str, Any]:
        headers = {"anthropic-version": VERSION_WITH_TEMPERATURE} if self.options.temperature else None
        return {**self.client_arguments(httpx2.Timeout), "default_headers": headers}

    def _read(self, request: GenerateRequest, message: Any) -> Generation | Failure:
        server = self.server
        response = response_of(request, message, self.price, redact=server.redact, batch=server.batch)
        self._answered_by.add(server.redact(str(message.get("model"))))
        return response
