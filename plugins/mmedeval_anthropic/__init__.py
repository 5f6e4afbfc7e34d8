"""The `anthropic:` backend: Claude, or another model behind a server that speaks Anthropic's messages API."""

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
    "base_url": "address of the server, as in http://127.0.0.1:8000 (default: ANTHROPIC_BASE_URL, else the provider's own)",
    "key_env": "name of the environment variable that holds the key (default ANTHROPIC_API_KEY)",
    "thinking": "adaptive, disabled, or tokens for it (1024 or more; models up to Claude 4.6); default: as the model does",
    "effort": "low, medium, high, xhigh or max: how much newer models think and write",
    "temperature": "true: send it, false: do not (default: to models of your own and to those up to Claude 4.6)",
    "cache": "false: let the server not keep solved examples that all questions share (default true)",
}


def _load(name: str, arguments: Mapping[str, str]) -> Backend:
    from mmedeval_anthropic.backend import AnthropicBackend

    return AnthropicBackend(name, arguments)


def _remark() -> str | None:
    if os.environ.get("ANTHROPIC_API_KEY"):
        return None
    return "ANTHROPIC_API_KEY is not set; without it, or --model-arg key_file=FILE, only servers that want no key answer"


@hookimpl
def mmedeval_backends() -> Iterable[BackendSpec]:
    return [
        BackendSpec(
            name="anthropic",
            summary="Claude through Anthropic's API, or a server that speaks its messages format",
            load=_load,
            requires=("anthropic",),
            extra="anthropic",
            arguments=ARGUMENTS,
            remark=_remark,
        )
    ]
