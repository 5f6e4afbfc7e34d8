"""The `--model-arg` pairs of the backend, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from mmedeval import UsageError
from mmedeval.servers import ServerOptions

ADDRESS = "https://api.openai.com/v1"
OWN_HOSTS = ("api.openai.com", ".api.openai.com", ".openai.azure.com")
"""Where models that think refuse `max_tokens`; many servers of others know nothing else."""
LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
OURS = ("model", "messages", "prompt", "stream", "n", "echo", "logprobs", "top_logprobs", *LIMIT_NAMES)
"""What the backend decides: another value would not give what it reads."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """See `mmedeval_openai.ARGUMENTS` for what each one means."""

    server: ServerOptions
    endpoint: Literal["chat", "completions"]
    logprobs: bool
    limit_name: str
    temperature: bool
    reasoning_effort: str | None
    extra_body: Mapping[str, Any]

    @classmethod
    def parse(cls, arguments: Mapping[str, str]) -> Options:
        """Raises `UsageError` naming the argument and what it may be."""
        server = ServerOptions.parse(arguments, key_env="OPENAI_API_KEY", url_env="OPENAI_BASE_URL")
        endpoint = arguments.get("endpoint", "chat")
        if endpoint not in ("chat", "completions"):
            raise UsageError(f"--model-arg endpoint={endpoint} is neither chat nor completions")
        limit_name = arguments.get("max_tokens_name")
        if limit_name is None:
            host = urlsplit(server.base_url or ADDRESS).hostname or ""
            own = any(f".{host}".endswith(each) if each.startswith(".") else host == each for each in OWN_HOSTS)
            limit_name = "max_completion_tokens" if own else "max_tokens"
        if limit_name not in LIMIT_NAMES:
            raise UsageError(f"--model-arg max_tokens_name={limit_name} is neither max_tokens nor max_completion_tokens")
        if endpoint == "completions":
            for name in ("logprobs", "max_tokens_name", "reasoning_effort"):
                if name in arguments:
                    raise UsageError(f"--model-arg {name} is for endpoint=chat; with endpoint=completions leave it out")
            if server.batch:
                raise UsageError("--model-arg batch=true is for endpoint=chat; leave one out")
        return cls(
            server=server,
            endpoint="chat" if endpoint == "chat" else "completions",
            logprobs=_flag(arguments, "logprobs", False),
            limit_name="max_tokens" if endpoint == "completions" else limit_name,
            temperature=_flag(arguments, "temperature", True),
            reasoning_effort=arguments.get("reasoning_effort"),
            extra_body=_extra(arguments.get("extra_body", "{}")),
        )

    @property
    def address(self) -> str:
        return self.server.base_url or ADDRESS

    @property
    def own(self) -> bool:
        """Whether the provider itself is asked."""
        return self.server.base_url is None

    def settings(self) -> Mapping[str, Any]:
        """What changes the answers."""
        return {
            "endpoint": self.endpoint,
            "logprobs": self.logprobs,
            "temperature": "sent" if self.temperature else "not sent",
            "reasoning_effort": self.reasoning_effort,
            "extra_body": dict(self.extra_body),
        }


def _extra(text: str) -> Mapping[str, Any]:
    try:
        extra = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--model-arg extra_body is no JSON: {error}") from error
    if not isinstance(extra, dict):
        raise UsageError('--model-arg extra_body must be a JSON object, as in {"top_k": 1}')
    for name in OURS:
        if name in extra:
            raise UsageError(f"--model-arg extra_body may not hold {name!r}: the backend sets it itself")
    return extra


def _flag(arguments: Mapping[str, str], name: str, default: bool) -> bool:
    value = arguments.get(name, "true" if default else "false")
    if value not in ("true", "false"):
        raise UsageError(f"--model-arg {name}={value} is neither true nor false")
    return value == "true"
