"""The `--model-arg` pairs of the backend, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmedeval import ModelError, Sampling, UsageError
from mmedeval.servers import ServerOptions, flag, name_in
from mmedeval_anthropic.models import PRICES, WITH_TEMPERATURE

ADDRESS = "https://api.anthropic.com"
EFFORTS = ("low", "medium", "high", "xhigh", "max")
LEAST_THINKING = 1024


@dataclass(frozen=True, kw_only=True)
class Options:
    """See `mmedeval_anthropic.ARGUMENTS`. `budget` are tokens for thinking beside those of the answer."""

    server: ServerOptions
    thinking: str | None
    budget: int
    effort: str | None
    temperature: bool
    cache: bool

    @classmethod
    def parse(cls, model: str, arguments: Mapping[str, str]) -> Options:
        """Raises `UsageError` naming the argument and what it may be."""
        server = ServerOptions.parse(arguments, key_env="ANTHROPIC_API_KEY", url_env="ANTHROPIC_BASE_URL", address=ADDRESS)
        thinking, effort = arguments.get("thinking"), arguments.get("effort")
        budget = 0
        if thinking is not None and thinking not in ("adaptive", "disabled"):
            if not (thinking.isascii() and thinking.isdecimal()) or int(thinking) < LEAST_THINKING:
                raise UsageError(
                    f"--model-arg thinking={thinking} is neither adaptive, nor disabled, nor a number of tokens from "
                    f"{LEAST_THINKING} on"
                )
            budget = int(thinking)
        if effort is not None and effort not in EFFORTS:
            raise UsageError(f"--model-arg effort={effort} is none of {', '.join(EFFORTS)}")
        thinks = thinking not in (None, "disabled")
        if thinks and arguments.get("temperature") == "true":
            raise UsageError(f"--model-arg temperature=true goes not with thinking={thinking}: a model that thinks takes none")
        # Of a server of one's own the models are one's own, too, but for those that carry a name of the provider's.
        claude = name_in(PRICES, model.rpartition("/")[2])
        takes_one = claude in WITH_TEMPERATURE or (claude is None and server.base_url is not None)
        return cls(
            server=server,
            thinking=thinking,
            budget=budget,
            effort=effort,
            temperature=flag(arguments, "temperature", takes_one) and not thinks,
            cache=flag(arguments, "cache", True),
        )

    @property
    def address(self) -> str:
        # The SDK puts /v1 in front of what it asks; addresses of other backends end in it.
        return self.server.address.removesuffix("/v1")

    def check_sampling(self, sampling: Sampling, model: str) -> None:
        """Raises `ModelError` for a temperature that would not arrive. 0, the default, is asked for as far as it can be."""
        if not self.temperature and sampling.temperature not in (0.0, 1.0):
            raise ModelError(
                f"--temperature {sampling.temperature:g} cannot be given to anthropic:{model}: models from Claude 4.7 on, and "
                "models that think, take none; leave it out, or send it all the same with --model-arg temperature=true"
            )

    def settings(self) -> Mapping[str, Any]:
        """What changes the answers."""
        return {"thinking": self.thinking, "effort": self.effort, "temperature": "sent" if self.temperature else "not sent"}
