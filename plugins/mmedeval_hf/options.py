"""The `--model-arg` pairs of the backend, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mmedeval import UsageError

DTYPES: Mapping[str, Any] = {
    "auto": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# More than any count of tokens has, and few enough for all that takes them.
LONGEST_NUMBER = 9


@dataclass(frozen=True, kw_only=True)
class Options:
    """See `mmedeval_hf.ARGUMENTS` for what each one means."""

    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    revision: str | None = None
    adapter: str | None = None
    trust_remote_code: bool = False
    use_safetensors: bool = True
    max_length: int | None = None
    batch_tokens: int | None = None
    batch_size: int = 256
    attn_implementation: str | None = None
    add_bos: bool | None = None
    prefix_sharing: bool = True

    @classmethod
    def parse(cls, arguments: Mapping[str, str]) -> Options:
        """Raises `UsageError` naming the argument and what it may be."""
        values: dict[str, Any] = dict(arguments)
        for name in ("trust_remote_code", "use_safetensors", "add_bos", "prefix_sharing"):
            if name in values:
                values[name] = _boolean(name, values[name])
        for name in ("max_length", "batch_tokens", "batch_size"):
            if name in values:
                values[name] = _positive(name, values[name])
        if values.get("dtype", "auto") not in DTYPES:
            raise UsageError(f"--model-arg dtype={values['dtype']!r} is none of {', '.join(DTYPES)}")
        options = cls(**values)
        options.torch_device()
        return options

    def torch_device(self) -> torch.device:
        if self.device == "auto":
            kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
            return torch.device(kind)
        try:
            return torch.device(self.device)
        except RuntimeError as error:
            raise UsageError(f"--model-arg device={self.device!r} is no device; use cpu, cuda, cuda:1 or mps") from error


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise UsageError(f"--model-arg {name}={value!r} is neither true nor false")
    return value.lower() == "true"


def _positive(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > LONGEST_NUMBER or int(value) < 1:
        raise UsageError(f"--model-arg {name}={value!r} is no whole number above 0, of at most {LONGEST_NUMBER} digits")
    return int(value)
