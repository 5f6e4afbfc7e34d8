"""What goes wrong at the server or on the way to it, as `Trouble`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import openai

from mmedeval.remote import Trouble, cut, trouble_of
from mmedeval.text import first_line

NO_CONNECTION = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)
NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
NO_MODEL = ("model_not_found", "DeploymentNotFound", "unsupported_model")
TOO_LONG = ("context_length_exceeded", "string_above_max_length", "exceed_context_size_error")
TOO_LONG_WORDS = ("maximum context length", "context length", "context window", "context size", "prompt is too long")
FILTERED = ("content_filter", "content_policy_violation", "invalid_prompt")
BAD_PARAMETER = ("unsupported_parameter", "unsupported_value", "unknown_parameter")
HINTS = {
    "max_tokens": "--model-arg max_tokens_name=max_completion_tokens may help",
    "max_completion_tokens": "--model-arg max_tokens_name=max_tokens may help",
    "temperature": "--model-arg temperature=false leaves it out",
    "seed": "--model-arg seed=false leaves it out",
    "stop": "--model-arg stop=false leaves it out: texts are cut at stop strings here, too",
    "response_format": "--model-arg response_format=false leaves it out",
    "reasoning_effort": "leave out --model-arg reasoning_effort",
    "logprobs": "leave out --model-arg logprobs",
    "top_logprobs": "leave out --model-arg logprobs",
}
_UNKNOWN = re.compile(
    r"""unknown\ name\s+["'](\w+)                                    # Gemini
    |unrecognized\ request\ arguments?\ supplied:\s+(\w+)            # OpenAI's older models
    |["']loc["']:\s*\[\s*["']body["'],\s*["'](\w+)["']\s*\]""",  # Mistral, and others that check with pydantic
    re.IGNORECASE | re.VERBOSE,
)
"""Where a server names a parameter that it does not take in words alone."""
BAD_KEY, TOO_LARGE = "api key not valid", "request too large"


def as_trouble(error: openai.OpenAIError, *, key_place: str, redact: Callable[[str], str]) -> Trouble:
    """What an error of the SDK means."""
    if isinstance(error, openai.APIStatusError):
        return status_trouble(error.status_code, error.response.headers, error.body, key_place=key_place, redact=redact)
    cause = error.__cause__ or error
    if isinstance(cause, NO_CONNECTION):
        return Trouble("unreachable", f"no connection: {first_line(cause)}")
    if isinstance(error, openai.APIConnectionError):
        return Trouble("passing", f"the connection broke: {type(cause).__name__}: {first_line(cause)}")
    return Trouble("hopeless", f"{type(error).__name__}: {first_line(error)}")


def status_trouble(
    status: int, headers: Mapping[str, str], body: Any, *, key_place: str, redact: Callable[[str], str]
) -> Trouble:
    """What a status and the server's words mean; `body` is its JSON, or what stands there under "error"."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]  # as Gemini's compatible endpoint puts it
    if isinstance(body, dict) and isinstance(body.get("error"), dict | str):
        body = body["error"]
    told: Mapping[str, Any] = body if isinstance(body, dict) else {}
    codes = {str(told.get(name)) for name in ("code", "type")}
    words = str(told.get("message") or told.get("detail") or (body if isinstance(body, str) and "<" not in body else ""))
    # Before it is cut: half a key is a secret, too.
    words = redact(words)
    named = str(told.get("param")) if codes & {*BAD_PARAMETER} else _named(words)
    nothing = "there is nothing at this address; most end in /v1" if status == 404 else "the server says nothing else"
    message = f"HTTP {status}: {cut(words) or nothing}"
    if codes & {*NO_MONEY, *NO_MODEL} or BAD_KEY in words.lower():
        return Trouble("hopeless", message)
    about = told.get("metadata")
    if status == 403 and isinstance(about, dict) and {"reasons", "flagged_input"} & about.keys():
        return Trouble("refused", message, kind="refused")  # OpenRouter's moderation, of this request alone
    if status == 429 and TOO_LARGE in words.lower():
        return Trouble("refused", message, kind="too_long")
    if status < 500 and status != 429:
        if codes & {*FILTERED}:
            return Trouble("refused", message, kind="refused")
        if codes & {*TOO_LONG} or any(each in words.lower() for each in TOO_LONG_WORDS):
            return Trouble("refused", message, kind="too_long")
        if codes & {*BAD_PARAMETER} or named in HINTS:
            hint = HINTS.get(named)
            return Trouble("hopeless", f"{message}; {hint}" if hint else message)
    if status in (401, 403):
        return Trouble("hopeless", f"{message}; the key is from {key_place}")
    return trouble_of(status, headers, message)


def _named(words: str) -> str:
    """A parameter that the server says it does not know, one that can be left out before all others."""
    names = [name for found in _UNKNOWN.findall(words) for name in found if name]
    return next((name for name in names if name in HINTS), "")
