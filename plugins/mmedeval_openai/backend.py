"""The `openai:` backend: a model's name in, text and loglikelihoods out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import httpx2
import openai

from mmedeval import (
    Backend,
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
from mmedeval.batches import ask_in_batches
from mmedeval.remote import Ask, Reply, Talk, Trouble, a_client_each, ask_all
from mmedeval_openai.batch import OpenAIBatches
from mmedeval_openai.echo import Echo, echo_of, loglikelihoods_of, texts_of
from mmedeval_openai.options import Options
from mmedeval_openai.prices import PRICES
from mmedeval_openai.troubles import as_trouble, status_trouble
from mmedeval_openai.wire import body_of, echo_body, generation_of, letters_of, most_cost, rest_of

R = TypeVar("R", GenerateRequest, LoglikelihoodRequest)
One: TypeAlias = Callable[[openai.AsyncOpenAI, R, Prompt, int], Awaitable[Reply]]
"""Asks once: client, request, the prompt in place of its own, and how many solved examples that lacks."""
CONNECT_SECONDS = 10.0
NOT_GREEDY = (
    "the model gets no temperature: its answers are drawn, not greedy, and differ from run to run; repeat the run to see by "
    "how much"
)


class OpenAIBackend(Backend):
    """A model behind a chat or completions endpoint, known by its name alone."""

    def __init__(self, name: str, arguments: Mapping[str, str]) -> None:
        self.name = name
        self.options = Options.parse(arguments)
        if self.options.endpoint == "completions":
            self.capabilities = frozenset({"loglikelihood", "generate"})
        else:
            self.capabilities = frozenset({"generate", "chat"})
            if self.options.logprobs:
                self.capabilities |= frozenset({"loglikelihood"})
        self.price = self.options.server.price(name, PRICES)
        self.talk = Talk()
        self._answered_by: set[str] = set()
        self._echoes: dict[str, dict[str, Echo]] = {}
        self._folder: Path | None = None

    # --- what is known of the model ---

    def fingerprint(self) -> str:
        return digest(["openai", self.options.address, self.name, self.options.endpoint])

    def describe(self) -> Mapping[str, Any]:
        return {
            "server": self.options.address,
            "known_by": "its name alone: nobody but the provider knows whether it is the same tomorrow",
            "settings": self.options.settings(),
        }

    def check(self, *, chat: bool) -> None:
        self.options.server.required_key(f"openai:{self.name}")
        if chat and self.options.endpoint == "completions":
            raise ModelError(
                f"openai:{self.name} with endpoint=completions takes plain text, no conversation; run with --no-chat-template, "
                "with --protocol letter, or without --model-arg endpoint=completions"
            )

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
        return None if self.price is None else sum(most_cost(each, self.options, self.price) for each in requests)

    # --- requests ---

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        if not self.options.temperature and any(request.sampling.temperature > 0 for request in requests):
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

    def _session(self, one: One[R]) -> AbstractAsyncContextManager[Ask[R]]:
        arguments, timeout = self._client_arguments(), self._timeout
        # Made once: reading the certificates takes longer than many requests.
        trusted = httpx2.create_ssl_context()

        def open_client() -> openai.AsyncOpenAI:
            return openai.AsyncOpenAI(**arguments, http_client=openai.DefaultAsyncHttpxClient(verify=trusted, timeout=timeout))

        return a_client_each(open_client, lambda client, request: self._ask(client, one, request))

    def _responses(self, requests: Sequence[R], one: One[R]) -> Iterator[Response]:
        options, price = self.options, self.price
        most = None if price is None else lambda request: most_cost(request, options, price)
        if options.server.batch:
            return self._in_batches(requests, most)

        session = partial(self._session, one)
        return ask_all(requests, session, options.server.traffic, server=options.address, talk=self.talk, most=most)

    def _in_batches(self, requests: Sequence[R], most: Callable[[R], float] | None) -> Iterator[Response]:
        if self._folder is None:
            raise ModelError("--model-arg batch=true needs a run folder, to find its batches again; ask through `mmedeval run`")
        traffic, address = self.options.server.traffic, self.options.address
        with self._batches() as service:
            yield from ask_in_batches(
                requests, service, folder=self._folder, traffic=traffic, server=address, talk=self.talk, most=most
            )

    @contextmanager
    def _batches(self) -> Iterator[OpenAIBatches]:
        server = self.options.server
        with openai.OpenAI(**self._client_arguments()) as client:
            yield OpenAIBatches(
                client,
                body=lambda request: body_of(request, self.name, self.options, request.prompt),
                read=partial(self._read, batch=True),
                key_place=server.key_place,
                redact=server.redact,
                seconds=server.traffic.timeout,
            )

    @property
    def _timeout(self) -> httpx2.Timeout:
        seconds = self.options.server.traffic.timeout
        return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))

    def _client_arguments(self) -> dict[str, Any]:
        return {
            "api_key": self.options.server.required_key(f"openai:{self.name}"),
            "base_url": self.options.address,
            "max_retries": 0,
            "timeout": self._timeout,
        }

    async def _ask(
        self,
        client: openai.AsyncOpenAI,
        one: One[R],
        request: R,
    ) -> Reply:
        """Asks with fewer solved examples, from the front, as long as the server says that the prompt is too long."""
        shots = len(request.prompt.shots)
        for dropped in range(shots + 1):
            try:
                return await one(client, request, request.prompt.without_shots(dropped), dropped)
            except Trouble as trouble:
                if trouble.kind != "too_long" or dropped == shots:
                    said = self.options.server.redact(str(trouble))
                    # Not even a traceback may show what the server repeated.
                    raise Trouble(trouble.verdict, said, kind=trouble.kind, pause=trouble.pause, usage=trouble.usage) from None
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
        for text in (context, *joined):
            if text not in known:
                answer, rest = await self._sent(client, echo_body(text, self.name, self.options))
                known[text] = echo_of(text, answer, self.price)
        response = loglikelihoods_of(request, known[context], [known[text] for text in joined], dropped)
        del self._echoes[request.id]
        return Reply(response=response, rest=rest)

    def _read(self, request: Request, answer: Mapping[str, Any], batch: bool = False) -> Generation | Loglikelihoods:
        self._answered_by.add(self.options.server.redact(str(answer.get("model"))))
        if isinstance(request, GenerateRequest):
            return generation_of(request, answer, self.price, batch=batch)
        return letters_of(request, answer, self.price, batch=batch)

    async def _sent(self, client: openai.AsyncOpenAI, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], float]:
        """The server's answer as JSON, and for how many seconds it wants no other request."""
        key_place, redact = self.options.server.key_place, self.options.server.redact
        path = "/chat/completions" if "messages" in body else "/completions"
        try:
            # What the SDK's own methods do on the way, for bodies and answers of any shape, takes a third of its time.
            raw = await client.post(path, body=body, cast_to=httpx2.Response)
        except openai.OpenAIError as error:
            raise as_trouble(error, key_place=key_place, redact=redact) from None
        except UnicodeEncodeError:
            raise Trouble("refused", "the prompt holds half of a surrogate pair, which is no character", kind="refused") from None
        try:
            answer = json.loads(raw.content)
        except ValueError:
            kind = raw.headers.get("content-type", "no content type").partition(";")[0]
            raise Trouble("passing", f"the answer is no JSON ({kind})") from None
        if not isinstance(answer, dict):
            raise Trouble("passing", "the answer is no JSON object")
        if isinstance(answer.get("error"), dict) and not answer.get("choices"):
            # Some servers that pass requests on tell an error with status 200.
            code = answer["error"].get("code")
            raise status_trouble(code if isinstance(code, int) else 500, {}, answer, key_place=key_place, redact=redact)
        return answer, rest_of(raw.headers)
