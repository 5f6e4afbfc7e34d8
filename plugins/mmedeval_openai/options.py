"""The `--model-arg` pairs of the backend, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from mmedeval import UsageError
from mmedeval.servers import ServerOptions, flag

ADDRESS = "https://api.openai.com/v1"
OWN_HOSTS = ("api.openai.com", ".api.openai.com", ".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
"""Where models that think refuse `max_tokens`; many servers of others know nothing else."""
LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
OPTIONAL = ("temperature", "seed", "stop", "response_format")
"""What is sent unless an argument of this name is false: some servers refuse a request for it."""
_OURS = "the backend sets it itself"
_ELSEWHERE = "give it with {}, so that the record tells it"
_DEAR = "it changes what an answer costs, which --max-cost and the record would not know"
_ASIDE = "with it the model is asked something else than the question, and the score would be of that"
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("model", "messages", "prompt", "stream", "stream_options", "n", "echo", "logprobs", "top_logprobs"), _OURS),
    **dict.fromkeys((*LIMIT_NAMES, "max_output_tokens", "max_new_tokens", "n_predict"), _ELSEWHERE.format("--max-tokens")),
    **dict.fromkeys(("stop", "response_format"), _OURS),
    "temperature": _ELSEWHERE.format("--temperature"),
    "seed": _ELSEWHERE.format("--seed"),
    "reasoning_effort": _ELSEWHERE.format("--model-arg reasoning_effort"),
    **dict.fromkeys(("service_tier", "best_of", "prediction", "modalities", "audio"), _DEAR),
    **dict.fromkeys(("models", "route"), "another model than the one that is named may answer with it"),
    **dict.fromkeys(("tools", "tool_choice", "functions", "function_call", "web_search_options", "plugins", "suffix"), _ASIDE),
    **dict.fromkeys(("transforms", "truncate_prompt_tokens"), "the server would cut questions with it, and tell nobody"),
}
"""What `extra_body` may not hold, and why: the reader, the bill, or the score would be of something else."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """See `mmedeval_openai.ARGUMENTS` for what each one means."""

    server: ServerOptions
    endpoint: Literal["chat", "completions"]
    logprobs: bool
    limit_name: str
    left_out: tuple[str, ...]
    reasoning_effort: str | None
    extra_body: Mapping[str, Any]

    @classmethod
    def parse(cls, arguments: Mapping[str, str]) -> Options:
        """Raises `UsageError` naming the argument and what it may be."""
        server = ServerOptions.parse(arguments, key_env="OPENAI_API_KEY", url_env="OPENAI_BASE_URL", address=ADDRESS)
        endpoint = arguments.get("endpoint", "chat")
        if endpoint not in ("chat", "completions"):
            raise UsageError(f"--model-arg endpoint={endpoint} is neither chat nor completions")
        limit_name = arguments.get("max_tokens_name")
        if limit_name is None:
            host = urlsplit(server.address).hostname or ""
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
            logprobs=flag(arguments, "logprobs", False),
            limit_name="max_tokens" if endpoint == "completions" else limit_name,
            left_out=tuple(name for name in OPTIONAL if not flag(arguments, name, True)),
            reasoning_effort=arguments.get("reasoning_effort"),
            extra_body=_extra(arguments.get("extra_body", "{}")),
        )

    @property
    def own(self) -> bool:
        """Whether the provider itself is asked."""
        return self.server.base_url is None

    def settings(self) -> Mapping[str, Any]:
        """What changes the answers."""
        others = [name for name in self.left_out if name != "temperature"]
        return {
            "endpoint": self.endpoint,
            "logprobs": self.logprobs,
            "temperature": "not sent" if "temperature" in self.left_out else "sent",
            "reasoning_effort": self.reasoning_effort,
            "extra_body": dict(self.extra_body),
            **({"not_sent": others} if others else {}),
        }


def _extra(text: str) -> Mapping[str, Any]:
    try:
        extra = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--model-arg extra_body is no JSON: {error}") from error
    if not isinstance(extra, dict):
        raise UsageError('--model-arg extra_body must be a JSON object, as in {"top_k": 1}')
    for name in extra:
        if name in REFUSED:
            raise UsageError(f"--model-arg extra_body may not hold {name!r}: {REFUSED[name]}")
    return extra
