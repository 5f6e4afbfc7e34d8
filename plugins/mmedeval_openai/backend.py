"""The `openai:` backend: a model's name in, text and loglikelihoods out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import httpx2
import openai

from mmedeval import (
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    ModelError,
    Prompt,
    Request,
    Response,
    digest,
)
from mmedeval.remote import NO_CHARACTER, Ask, Reply, Trouble, a_client_each, json_of
from mmedeval.servers import ServerBackend
from mmedeval_openai.batch import OpenAIBatches
from mmedeval_openai.echo import Echo, billed, echo_of, loglikelihoods_of, texts_of
from mmedeval_openai.options import Options
from mmedeval_openai.prices import PRICES
from mmedeval_openai.troubles import as_trouble, status_trouble
from mmedeval_openai.wire import body_of, echo_body, generation_of, letters_of, most_cost, rest_of

R = TypeVar("R", GenerateRequest, LoglikelihoodRequest)
One: TypeAlias = Callable[[openai.AsyncOpenAI, R, Prompt, int], Awaitable[Reply]]
"""Asks once: client, request, the prompt in place of its own, and how many solved examples that lacks."""


class OpenAIBackend(ServerBackend):
    """A model behind a chat or completions endpoint."""

    scheme = "openai"

    def __init__(self, name: str, arguments: Mapping[str, str]) -> None:
        self.options = Options.parse(arguments)
        server = self.options.server
        price = server.price(name, PRICES)
        super().__init__(
            name, server, server.address, price, self.options.settings(), drawn="temperature" in self.options.left_out
        )
        if self.options.endpoint == "completions":
            self.capabilities = frozenset({"loglikelihood", "generate"})
        else:
            self.capabilities = frozenset({"generate", "chat"})
            if self.options.logprobs:
                self.capabilities |= frozenset({"loglikelihood"})
        self._echoes: dict[str, dict[str, Echo]] = {}

    # --- what is known of the model ---

    def fingerprint(self) -> str:
        return digest(["openai", self.address, self.name, self.options.endpoint])

    def check(self, *, chat: bool) -> None:
        super().check(chat=chat)
        if chat and self.options.endpoint == "completions":
            raise ModelError(
                f"openai:{self.name} with endpoint=completions takes plain text, no conversation; run with --no-chat-template, "
                "with --protocol letter, or without --model-arg endpoint=completions"
            )

    def bound(self, request: Request) -> float:
        assert self.price is not None
        return most_cost(request, self.options, self.price)

    # --- requests ---

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        if "temperature" in self.options.left_out and any(request.sampling.temperature > 0 for request in requests):
            raise ModelError("--temperature and --model-arg temperature=false contradict each other; leave one out")
        for response in self._responses(requests, self._once):
            assert isinstance(response, Generation | Failure)
            yield response

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods | Failure]:
        if "loglikelihood" not in self.capabilities:
            yield from super().loglikelihood(requests)
        self._echoes.clear()
        chat = self.options.endpoint == "chat"
        if chat:
            self._check_letters(requests)
        for response in self._responses(requests, self._once if chat else self._score):
            assert isinstance(response, Loglikelihoods | Failure)
            yield response

    def _check_letters(self, requests: Sequence[LoglikelihoodRequest]) -> None:
        """Raises `ModelError` for what the first token of an answer cannot tell."""
        for request in requests:
            for continuation, answer in zip(request.continuations, request.answers, strict=True):
                if {continuation.strip()} != answer:
                    raise ModelError(
                        f"openai:{self.name} with logprobs=true scores single option letters, and {request.id} asks for "
                        f"{continuation!r}; use --protocol chat, or --model-arg endpoint=completions where the server has it"
                    )

    def _responses(self, requests: Sequence[R], one: One[R]) -> Iterator[Response]:
        return self.ask(requests, partial(self._session, one), self._batches)

    def _session(self, one: One[R]) -> AbstractAsyncContextManager[Ask[R]]:
        arguments = self.client_arguments(httpx2.Timeout)
        # Made once: reading the certificates takes longer than many requests.
        trusted = httpx2.create_ssl_context()

        def open_client() -> openai.AsyncOpenAI:
            http_client = openai.DefaultAsyncHttpxClient(verify=trusted, timeout=arguments["timeout"])
            return openai.AsyncOpenAI(http_client=http_client, **arguments)

        return a_client_each(open_client, lambda client, request: self._fitting(client, one, request))

    @contextmanager
    def _batches(self) -> Iterator[OpenAIBatches]:
        with openai.OpenAI(**self.client_arguments(httpx2.Timeout)) as client:
            yield OpenAIBatches(
                client,
                body=lambda request: body_of(request, self.name, self.options, request.prompt),
                read=partial(self._read, batch=True),
                key_place=self.server.key_place,
                redact=self.server.redact,
                seconds=self.server.traffic.timeout,
            )

    async def _fitting(self, client: openai.AsyncOpenAI, one: One[R], request: R) -> Reply:
        """Asks with fewer solved examples, from the front, as long as the server says that the prompt is too long."""
        shots = len(request.prompt.shots)
        for dropped in range(shots + 1):
            try:
                return await one(client, request, request.prompt.without_shots(dropped), dropped)
            except Trouble as trouble:
                if trouble.kind != "too_long" or dropped == shots:
                    # Not even a traceback may show what the server repeated.
                    raise trouble.but(message=self.server.redact(str(trouble))) from None
                self.talk.cost += trouble.usage.cost or 0.0
        raise AssertionError("never reached")

    async def _once(self, client: openai.AsyncOpenAI, request: Request, prompt: Prompt, dropped: int) -> Reply:
        answer, rest = await self._sent(client, body_of(request, self.name, self.options, prompt))
        response = self._read(request, answer)
        return Reply(response=replace(response, usage=replace(response.usage, shots_dropped=dropped)), rest=rest)

    async def _score(self, client: openai.AsyncOpenAI, request: LoglikelihoodRequest, prompt: Prompt, dropped: int) -> Reply:
        """One text after the other, so that a server with a cache of prefixes finds the prompt there."""
        context, joined = texts_of(prompt, request.continuations)
        # What was answered before a connection broke need not be asked again.
        known = self._echoes.setdefault(request.id, {})
        rest = 0.0
        try:
            for text in (context, *joined):
                if text not in known:
                    answer, rest = await self._sent(client, echo_body(text, self.name, self.options))
                    known[text] = echo_of(text, answer, self.price)
        except Trouble as trouble:
            earlier, usage = billed(known), trouble.usage
            if earlier is not None:
                usage = replace(usage, cost=earlier + (usage.cost or 0.0))
            raise trouble.but(usage=usage) from None
        except asyncio.CancelledError:
            # Of a try that takes too long nobody hears what it cost.
            self.talk.cost += billed(known) or 0.0
            raise
        response = loglikelihoods_of(request, known[context], [known[text] for text in joined], dropped)
        del self._echoes[request.id]
        return Reply(response=response, rest=rest)

    def _read(self, request: Request, answer: Mapping[str, Any], batch: bool = False) -> Generation | Loglikelihoods:
        self._answered_by.add(self.server.redact(str(answer.get("model"))))
        if isinstance(request, GenerateRequest):
            return generation_of(request, answer, self.price, batch=batch)
        return letters_of(request, answer, self.price, batch=batch)

    async def _sent(self, client: openai.AsyncOpenAI, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], float]:
        """The server's answer as JSON, and for how many seconds it wants no other request."""
        key_place, redact = self.server.key_place, self.server.redact
        path = "/chat/completions" if "messages" in body else "/completions"
        try:
            # What the SDK's own methods do on the way, for bodies and answers of any shape, takes a third of its time.
            raw = await client.post(path, body=body, cast_to=httpx2.Response)
        except openai.OpenAIError as error:
            raise as_trouble(error, key_place=key_place, redact=redact) from None
        except UnicodeEncodeError:
            raise Trouble("refused", NO_CHARACTER, kind="refused") from None
        answer = json_of(raw.content, raw.headers)
        if not isinstance(answer, dict):
            raise Trouble("passing", "the answer is no JSON object")
        if isinstance(answer.get("error"), dict) and not answer.get("choices"):
            # Some servers that pass requests on tell an error with status 200.
            code = answer["error"].get("code")
            raise status_trouble(code if isinstance(code, int) else 500, {}, answer, key_place=key_place, redact=redact)
        return answer, rest_of(raw.headers)
