"""Requests as the chat and completions endpoints take them, and what these give back as responses (pure)."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

from mmedeval import GenerateRequest, Generation, LoglikelihoodRequest, Loglikelihoods, Message, Prompt, Request, Usage
from mmedeval.remote import Trouble
from mmedeval.servers import Price, most_tokens, size
from mmedeval_openai.options import Options

MOST_STOPS = 4
BROKEN = ("error", "abort")
"""What servers that pass answers on say where these broke off."""
MOST_LETTERS = 20
"""So many tokens with their log-probabilities the endpoints give."""
MALFORMED = "the answer is none of the format that was asked for"
MISSHAPEN = (LookupError, TypeError, AttributeError, ValueError, OverflowError)
"""What reading an answer of another format raises."""
LONGEST_REST = 60.0
"""Seconds: a limit that is used up for longer is told by the server's next refusal, in words."""
_SPAN = re.compile(r"([\d.]+)(ms|[smhd])")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


# --- what is asked ---


def body_of(request: Request, model: str, options: Options, prompt: Prompt) -> dict[str, Any]:
    """What is sent for a request, with `prompt` in place of its own. A prompt that is no conversation is one turn of the user."""
    body: dict[str, Any] = {"model": model}
    if options.endpoint == "chat":
        turns = prompt.messages if prompt.chat else (Message(role="user", content=prompt.text),)
        body["messages"] = [{"role": turn.role, "content": turn.content} for turn in turns]
    else:
        body["prompt"] = prompt.text
    if isinstance(request, LoglikelihoodRequest):
        body |= {options.limit_name: 1, "logprobs": True, "top_logprobs": MOST_LETTERS}
        temperature = 0.0
    else:
        sampling = request.sampling
        temperature = sampling.temperature
        body[options.limit_name] = sampling.max_tokens
        if sampling.stop:
            body["stop"] = list(sampling.stop[:MOST_STOPS])
        if temperature > 0:
            body["seed"] = _seed(sampling.seed, request.id)
        if request.schema is not None and options.own:
            # Servers of others differ in what they take here.
            form = {"name": "answer", "schema": dict(request.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
    body["temperature"] = temperature
    if options.reasoning_effort is not None:
        body["reasoning_effort"] = options.reasoning_effort
    return _sent(body, options)


def echo_body(text: str, model: str, options: Options) -> dict[str, Any]:
    """What is sent to have the log-probabilities of a text's tokens. One more is written: some servers take 0 for no limit."""
    return _sent(
        {"model": model, "prompt": text, "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0.0},
        options,
    )


def _sent(body: Mapping[str, Any], options: Options) -> dict[str, Any]:
    return {**{name: value for name, value in body.items() if name not in options.left_out}, **options.extra_body}


def _seed(seed: int, request_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{request_id}".encode()).digest()[:4], "big") >> 1


def most_cost(request: Request, options: Options, price: Price) -> float:
    """US dollars that a request costs at most."""
    text = most_tokens(request)
    tokens_out = request.sampling.max_tokens if isinstance(request, GenerateRequest) else 1
    if isinstance(request, LoglikelihoodRequest) and options.endpoint == "completions":
        # The prompt alone, and then with each continuation.
        tokens_out += len(request.continuations)
        text = text * tokens_out + sum(map(size, request.continuations))
    written = text if (price.written or 0.0) > price.input else 0
    return price.cost(tokens_in=text, tokens_out=tokens_out, written=written, batch=options.server.batch)


# --- what comes back ---


def generation_of(request: GenerateRequest, answer: Mapping[str, Any], price: Price | None, *, batch: bool) -> Generation:
    """The text of an answer. Raises `Trouble` for one that holds none."""
    try:
        choice = answer["choices"][0]
        reason = choice.get("finish_reason")
        usage = usage_of(answer, price, batch=batch)
        message = choice.get("message", choice)
        text, thought = _parts(message.get("content") or "") if "message" in choice else (message["text"], False)
        refusal = message.get("refusal")
        thought = thought or bool(message.get("reasoning_content") or message.get("reasoning"))
        if not isinstance(text, str):
            raise TypeError
    except MISSHAPEN:
        raise Trouble("passing", MALFORMED, usage=usage_if_told(answer, price, batch=batch)) from None
    if refusal:
        raise Trouble("refused", f"the model refused: {refusal}", kind="refused", usage=usage)
    if reason == "content_filter":
        raise Trouble("refused", "a content filter stopped the answer", kind="refused", usage=usage)
    if reason in BROKEN or choice.get("error"):
        raise Trouble("passing", f"the server broke the answer off (finish_reason {reason})", usage=usage)
    if not text.strip() and reason == "length" and (thought or usage.tokens_thinking):
        message = f"all {usage.tokens_out} tokens went into thinking; allow more with --max-tokens"
        raise Trouble("refused", message, usage=usage)
    cuts = [text.index(stop) for stop in request.sampling.stop if stop in text]
    if not text and not request.sampling.stop:
        raise Trouble("refused", f"the answer is empty (finish_reason {reason})", usage=usage)
    return Generation(
        request_id=request.id,
        text=text[: min(cuts, default=len(text))],
        finish_reason="length" if reason == "length" and not cuts else "stop",
        usage=usage,
    )


def _parts(content: Any) -> tuple[Any, bool]:
    """The text of a message, and whether thinking stands beside it: a list of parts, as Mistral's models give it."""
    if not isinstance(content, list):
        return content, False
    kinds = {part["type"] for part in content}
    return "".join(part["text"] for part in content if part["type"] == "text"), "thinking" in kinds


def letters_of(request: LoglikelihoodRequest, answer: Mapping[str, Any], price: Price | None, *, batch: bool) -> Loglikelihoods:
    """The option letters' log-probabilities as the first token of the answer, over all tokens that are a letter and white space.

    Letters that are not among the best few are `-inf`. Raises `Trouble` for an answer without log-probabilities.
    """
    try:
        choice = answer["choices"][0]
        usage = usage_of(answer, price, batch=batch)
        told, reason = choice.get("logprobs"), choice.get("finish_reason")
        if reason == "content_filter" or (choice.get("message") or {}).get("refusal"):
            raise Trouble("refused", "the model, or a content filter, refused", kind="refused", usage=usage)
        if told is None or told.get("content") is None:
            raise Trouble("hopeless", "the answer holds no log-probabilities; leave out --model-arg logprobs=true", usage=usage)
        best = [(str(each["token"]), float(each["logprob"])) for token in told["content"][:1] for each in token["top_logprobs"]]
    except MISSHAPEN:
        raise Trouble("passing", MALFORMED, usage=usage_if_told(answer, price, batch=batch)) from None
    values = []
    for continuation in request.continuations:
        found = [value for token, value in best if token.strip() == continuation.strip()]
        # Servers round: a sum of rounded probabilities may come out above 1.
        values.append(min(0.0, _log_sum_exp(found)))
    return Loglikelihoods(request_id=request.id, values=tuple(values), usage=usage)


def _log_sum_exp(values: list[float]) -> float:
    most = max(values, default=-math.inf)
    return most if most == -math.inf else most + math.log(sum(math.exp(value - most) for value in values))


def usage_of(answer: Mapping[str, Any], price: Price | None, *, batch: bool = False) -> Usage:
    """What an answer says it took; zeros where it says nothing."""
    told = answer.get("usage") or {}
    inside, outside = told.get("prompt_tokens_details") or {}, told.get("completion_tokens_details") or {}
    tokens_in, tokens_out = int(told.get("prompt_tokens") or 0), int(told.get("completion_tokens") or 0)
    # Some count thinking in the total alone.
    tokens_out = max(tokens_out, int(told.get("total_tokens") or 0) - tokens_in)
    cached, written = int(inside.get("cached_tokens") or 0), int(inside.get("cache_write_tokens") or 0)
    cost = None
    if price is not None:
        cost = price.cost(tokens_in=tokens_in, tokens_out=tokens_out, cached=cached, written=written, batch=batch)
    thinking = int(outside.get("reasoning_tokens") or 0)
    return Usage(tokens_in=tokens_in, tokens_out=tokens_out, tokens_thinking=thinking, tokens_cached=cached, cost=cost)


def usage_if_told(answer: Any, price: Price | None, *, batch: bool = False) -> Usage:
    """What an answer says it took, in whatever else it is malformed: it was paid all the same."""
    try:
        return usage_of(answer, price, batch=batch)
    except MISSHAPEN:
        return Usage()


def rest_of(headers: Mapping[str, str]) -> float:
    """Seconds until a rate limit that is used up is filled again (`x-ratelimit-*`, spans as in 6m0.5s), else 0."""
    rest = 0.0
    for name in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{name}") == "0":
            spans = _SPAN.findall(headers.get(f"x-ratelimit-reset-{name}", ""))
            rest = max(rest, sum(float(number) * _SECONDS[unit] for number, unit in spans))
    return min(rest, LONGEST_REST)
