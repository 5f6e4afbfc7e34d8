"""What goes wrong at the server or on the way to it, as `Trouble`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import anthropic
import httpx2

from mmedeval.remote import Trouble, cut, trouble_of
from mmedeval.text import first_line

NO_CONNECTION = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)
TOO_LONG = ("prompt is too long", "exceed context limit", "input is too long")
NO_MONEY = ("credit balance is too low", "spend limit")
FILTERED = "content filtering policy"
TEMPERATURE = re.compile(r"(?:^|[`'\"])temperature\W.{0,40}\b(not|deprecated|unsupported|only be set)\b")


def as_trouble(error: anthropic.AnthropicError, *, key_place: str, redact: Callable[[str], str]) -> Trouble:
    """What an error of the SDK means. No text of the server that could not be read becomes part of the message."""
    if isinstance(error, anthropic.APIStatusError):
        said = cut(redact(error.api_message or "the server says nothing else"))
        return status_trouble(error.status_code, error.response.headers, said, key_place=key_place)
    cause = error.__cause__ or error
    if isinstance(cause, NO_CONNECTION):
        return Trouble("unreachable", redact(f"no connection: {first_line(cause)}"))
    if isinstance(error, anthropic.APIConnectionError):
        return Trouble("passing", redact(f"the connection broke: {type(cause).__name__}: {first_line(cause)}"))
    return Trouble("hopeless", redact(f"{type(error).__name__}: {first_line(error)}"))


def status_trouble(status: int, headers: Mapping[str, str], said: str, *, key_place: str) -> Trouble:
    """What a status and the server's words mean: some of its refusals are no matter of the single request."""
    words = said.lower()
    message = f"HTTP {status}: {said}"
    if status in (401, 403):
        return Trouble("hopeless", f"{message}; the key is from {key_place}")
    if status == 400 and any(each in words for each in NO_MONEY):
        return Trouble("hopeless", message)
    if status == 400 and TEMPERATURE.search(words):
        return Trouble("hopeless", f"{message}; --model-arg temperature=false leaves it out")
    if status == 413 or (status == 400 and any(each in words for each in TOO_LONG)):
        return Trouble("refused", message, kind="too_long")
    if status == 400 and FILTERED in words:
        return Trouble("refused", message, kind="refused")
    return trouble_of(status, headers, message)
