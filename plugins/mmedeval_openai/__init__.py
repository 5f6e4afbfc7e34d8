"""The `openai:` backend: OpenAI's models, or any server that speaks its chat or completions format."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mmedeval import BackendSpec, hookimpl
from mmedeval.servers import SERVER_ARGUMENTS

if TYPE_CHECKING:
    from mmedeval import Backend

ARGUMENTS: Mapping[str, str] = {
    **SERVER_ARGUMENTS,
    "base_url": "address of the server, as in http://127.0.0.1:8000/v1 (default: OPENAI_BASE_URL, else the provider's own)",
    "key_env": "name of the environment variable that holds the key (default OPENAI_API_KEY)",
    "endpoint": "chat (default), or completions: plain text, and loglikelihoods where the server echoes those of the prompt",
    "logprobs": "true: with endpoint=chat, score option letters by the first token's 20 best (default false)",
    "max_tokens_name": "max_tokens or max_completion_tokens: what the server calls the limit (default: the latter for OpenAI)",
    "temperature": "false: do not send one; some models that think refuse it (default true)",
    "seed": "false: do not send one with --temperature; some servers refuse it (default true)",
    "stop": "false: do not send stop strings, which some models refuse; texts are cut there all the same (default true)",
    "response_format": "false: do not hold the model to a judge's JSON schema; older models refuse it (default true)",
    "reasoning_effort": "none, minimal, low, medium, high, ...: how much models think that can",
    "extra_body": 'JSON object with more of the request, as in {"top_k": 1}; not what changes the price or the question',
}


def _load(name: str, arguments: Mapping[str, str]) -> Backend:
    from mmedeval_openai.backend import OpenAIBackend

    return OpenAIBackend(name, arguments)


def _remark() -> str | None:
    if os.environ.get("OPENAI_API_KEY"):
        return None
    return "OPENAI_API_KEY is not set; without it, or --model-arg key_file=FILE, only servers that want no key answer"


@hookimpl
def mmedeval_backends() -> Iterable[BackendSpec]:
    return [
        BackendSpec(
            name="openai",
            summary="a model of OpenAI, or of any server that speaks its chat or completions format",
            load=_load,
            requires=("openai",),
            extra="openai",
            arguments=ARGUMENTS,
            remark=_remark,
        )
    ]
