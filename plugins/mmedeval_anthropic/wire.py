"""Requests as the messages API takes them, and what it gives back as responses (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

from mmedeval import Failure, GenerateRequest, Generation, Prompt, Request, Usage
from mmedeval.remote import Trouble, server_time
from mmedeval.servers import Price, most_tokens, size
from mmedeval_anthropic.options import Options

KEPT: Mapping[str, str] = {"type": "ephemeral"}
LEAST_KEPT = 2048
"""Bytes that examples must have to be marked: 512 tokens, the least that any model keeps. Others pass over what is too short."""
FINISHED: Mapping[str, Literal["stop", "length"]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}
LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")


def body_of(request: GenerateRequest, model: str, options: Options) -> dict[str, Any]:
    """What is sent to /v1/messages. The text of a prompt that is no conversation is one turn of the user."""
    prompt, sampling = request.prompt, request.sampling
    body: dict[str, Any] = {"model": model, "max_tokens": sampling.max_tokens + options.budget, **_turns(prompt, options.cache)}
    stops = [stop for stop in sampling.stop if stop.strip()]
    if stops:
        body["stop_sequences"] = stops
    if options.thinking is not None:
        enabled = {"type": "enabled", "budget_tokens": options.budget}
        body["thinking"] = enabled if options.budget else {"type": options.thinking}
    form: dict[str, Any] = {} if options.effort is None else {"effort": options.effort}
    if request.schema is not None and options.server.base_url is None:
        # Servers of others may not know it.
        form["format"] = {"type": "json_schema", "schema": dict(request.schema)}
    if form:
        body["output_config"] = form
    if options.temperature:
        body["temperature"] = sampling.temperature
    return body


def _turns(prompt: Prompt, cache: bool) -> dict[str, Any]:
    if not prompt.chat:
        return {"messages": [{"role": "user", "content": prompt.text}]}
    turns: list[dict[str, Any]] = [{"role": each.role, "content": each.content} for each in prompt.messages]
    shared = turns[:-1]
    if cache and sum(size(turn["content"]) for turn in shared) >= LEAST_KEPT:
        # Everything up to the last shared turn is kept.
        shared[-1]["content"] = [{"type": "text", "text": shared[-1]["content"], "cache_control": KEPT}]
    if turns[0]["role"] == "system":
        return {"system": turns[0]["content"], "messages": turns[1:]}
    return {"messages": turns}


def most_cost(request: Request, options: Options, price: Price) -> float:
    """US dollars that a request costs at most; one for loglikelihoods is never sent."""
    if not isinstance(request, GenerateRequest):
        return 0.0
    text = most_tokens(request)
    most_out = request.sampling.max_tokens + options.budget
    written = text if options.cache and (price.written or 0.0) > price.input else 0
    return price.cost(tokens_in=text, tokens_out=most_out, written=written, batch=options.server.batch)


def response_of(
    request: GenerateRequest, message: Any, price: Price | None, *, redact: Callable[[str], str], batch: bool = False
) -> Generation | Failure:
    """What a message says. Raises `Trouble` for what is none."""
    try:
        reason = message["stop_reason"]
        blocks = [block["text"] for block in message["content"] if block["type"] == "text"]
        text = "".join(blocks)
        usage = _usage(message["usage"], price, batch)
    except (KeyError, TypeError, AttributeError):
        usage = _usage_if_told(message, price, batch)
        raise Trouble("passing", "the answer is no message of the messages API", usage=usage) from None
    if reason == "refusal":
        details = message.get("stop_details") or {}
        words = [str(details[name]) for name in ("category", "explanation") if details.get(name)]
        said = redact(f"the model refused{': ' * bool(words)}{', '.join(words)}")
        return Failure(request_id=request.id, kind="refused", message=said, usage=usage)
    if reason not in FINISHED:
        said = redact(f"the answer ended for the reason {reason!r}, which is none for a text")
        return Failure(request_id=request.id, kind="backend", message=said, usage=usage)
    finish = FINISHED[reason]
    if not text and finish == "length":
        said = f"all {usage.tokens_out} tokens went into thinking; allow more with --max-tokens"
        return Failure(request_id=request.id, kind="backend", message=said, usage=usage)
    if not text and reason != "stop_sequence":
        said = f"the answer is empty (stop_reason {reason})"
        return Failure(request_id=request.id, kind="backend", message=said, usage=usage)
    # The server takes no stop sequence of white space alone: the text is cut here.
    cuts = [text.index(stop) for stop in request.sampling.stop if not stop.strip() and stop in text]
    if cuts:
        text, finish = text[: min(cuts)], "stop"
    return Generation(request_id=request.id, text=text, finish_reason=finish, usage=usage)


def _usage(said: Mapping[str, Any], price: Price | None, batch: bool) -> Usage:
    cached, written = (said.get(f"cache_{name}_input_tokens") or 0 for name in ("read", "creation"))
    tokens_in, tokens_out = said["input_tokens"] + cached + written, said["output_tokens"]
    thinking = (said.get("output_tokens_details") or {}).get("thinking_tokens") or 0
    cost = None
    if price is not None:
        cost = price.cost(tokens_in=tokens_in, tokens_out=tokens_out, cached=cached, written=written, batch=batch)
    return Usage(tokens_in=tokens_in, tokens_out=tokens_out, tokens_thinking=thinking, tokens_cached=cached, cost=cost)


def _usage_if_told(message: Any, price: Price | None, batch: bool) -> Usage:
    """What an answer of another form took: it was paid all the same."""
    try:
        return _usage(message["usage"], price, batch)
    except (KeyError, TypeError, AttributeError):
        return Usage()


def rest_of(headers: Mapping[str, str]) -> float:
    """Seconds until a rate limit that is used up is filled again (`anthropic-ratelimit-*`, dates of RFC 3339), else 0.

    By the server's own clock, where it tells the time.
    """
    rest = 0.0
    for name in LIMITS:
        if headers.get(f"anthropic-ratelimit-{name}-remaining") == "0":
            try:
                reset = datetime.fromisoformat(headers.get(f"anthropic-ratelimit-{name}-reset", ""))
            except ValueError:
                continue
            if reset.tzinfo is not None:
                rest = max(rest, reset.timestamp() - server_time(headers))
    return rest
