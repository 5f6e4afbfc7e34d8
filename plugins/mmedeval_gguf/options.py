"""The `--model-arg` pairs of the backend, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmedeval import UsageError

CACHE_TYPES = ("f32", "f16", "q8_0")
# More than any count of tokens has, and few enough for llama.cpp's 32 bits.
LONGEST_NUMBER = 9
# llama.cpp ends the process beyond.
MOST_THREADS = 512


@dataclass(frozen=True, kw_only=True)
class Options:
    """See `mmedeval_gguf.ARGUMENTS` for what each one means."""

    context: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    cache_type: str = "f32"
    flash_attention: bool = False
    batch_tokens: int = 512
    sequences: int = 8
    add_bos: bool | None = None
    lora: str | None = None

    @classmethod
    def parse(cls, arguments: Mapping[str, str]) -> Options:
        """Raises `UsageError` naming the argument and what it may be."""
        values: dict[str, Any] = dict(arguments)
        for name in ("flash_attention", "add_bos"):
            if name in values:
                values[name] = _boolean(name, values[name])
        for name in ("context", "threads", "gpu_layers", "batch_tokens", "sequences"):
            if name in values:
                values[name] = _whole(name, values[name], least=0 if name == "gpu_layers" else 1)
        options = cls(**values)
        if options.cache_type not in CACHE_TYPES:
            raise UsageError(f"--model-arg cache_type={options.cache_type!r} is none of {', '.join(CACHE_TYPES)}")
        if options.cache_type == "q8_0" and not options.flash_attention:
            raise UsageError("--model-arg cache_type=q8_0 works in flash attention only; add --model-arg flash_attention=true")
        if options.threads is not None and options.threads > MOST_THREADS:
            raise UsageError(f"--model-arg threads={options.threads} is more than {MOST_THREADS}, the most that llama.cpp takes")
        if options.sequences > 64:
            raise UsageError(f"--model-arg sequences={options.sequences} is more than 64, the most texts written at once")
        return options


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise UsageError(f"--model-arg {name}={value!r} is neither true nor false")
    return value.lower() == "true"


def _whole(name: str, value: str, *, least: int) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > LONGEST_NUMBER or int(value) < least:
        raise UsageError(
            f"--model-arg {name}={value!r} is no whole number of at least {least}, of at most {LONGEST_NUMBER} digits"
        )
    return int(value)
