"""The `--model-arg` pairs of the backend, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmedeval import UsageError

DTYPES = ("auto", "float32", "bfloat16", "float16")
EXECUTORS = ("mp", "ray")
# More than any count of tokens has, and few enough for all that takes them.
LONGEST_NUMBER = 9
# What vLLM's EngineArgs calls the settings that are handed on as they are.
ENGINE_NAMES: Mapping[str, str] = {
    "quantization": "quantization",
    "max_length": "max_model_len",
    "tensor_parallel": "tensor_parallel_size",
    "pipeline_parallel": "pipeline_parallel_size",
    "distributed_executor": "distributed_executor_backend",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "max_num_seqs": "max_num_seqs",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "enforce_eager": "enforce_eager",
    "trust_remote_code": "trust_remote_code",
}
# What belongs to the model, which is named once and has its fingerprint taken, or decides what its answers mean.
RESERVED = {
    "model", "tokenizer", "revision", "tokenizer_revision", "dtype", "runner", "enable_lora", "max_lora_rank",
    "lora_target_modules", "data_parallel_size", "data_parallel_backend", "logprobs_mode", "skip_tokenizer_init",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """See `mmedeval_vllm.ARGUMENTS` for what each one means."""

    dtype: str = "auto"
    revision: str | None = None
    adapter: str | None = None
    trust_remote_code: bool = False
    use_safetensors: bool = True
    quantization: str | None = None
    max_length: int | None = None
    add_bos: bool | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    data_parallel: int = 1
    distributed_executor: str | None = None
    gpu_memory_utilization: float | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enforce_eager: bool | None = None
    engine_args: Mapping[str, Any] | None = None
    verbose: bool = False

    @classmethod
    def parse(cls, arguments: Mapping[str, str]) -> Options:
        """Raises `UsageError` naming the argument and what it may be."""
        values: dict[str, Any] = dict(arguments)
        readers = {
            **dict.fromkeys(("trust_remote_code", "use_safetensors", "add_bos", "enforce_eager", "verbose"), _boolean),
            **dict.fromkeys(("max_length", "tensor_parallel", "pipeline_parallel", "data_parallel"), _positive),
            **dict.fromkeys(("max_num_seqs", "max_num_batched_tokens"), _positive),
            "gpu_memory_utilization": _share,
            "engine_args": _engine_args,
        }
        for name, read in readers.items():
            if name in values:
                values[name] = read(name, values[name])
        for name, known in (("dtype", DTYPES), ("distributed_executor", EXECUTORS)):
            if name in values and values[name] not in known:
                raise UsageError(f"--model-arg {name}={values[name]!r} is none of {', '.join(known)}")
        return cls(**values)

    def engine_arguments(self) -> dict[str, Any]:
        """What was said of the engine, in vLLM's names."""
        said = {theirs: getattr(self, ours) for ours, theirs in ENGINE_NAMES.items()}
        return {**{name: value for name, value in said.items() if value is not None}, **(self.engine_args or {})}


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise UsageError(f"--model-arg {name}={value!r} is neither true nor false")
    return value.lower() == "true"


def _positive(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > LONGEST_NUMBER or int(value) < 1:
        raise UsageError(f"--model-arg {name}={value!r} is no whole number above 0, of at most {LONGEST_NUMBER} digits")
    return int(value)


def _share(name: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UsageError(f"--model-arg {name}={value!r} is no number above 0 and up to 1")
    return share


def _engine_args(name: str, value: str) -> dict[str, Any]:
    try:
        content = json.loads(value)
    except ValueError as error:
        raise UsageError(f"--model-arg {name}={value!r} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f'--model-arg {name}={value!r} is no JSON object, as in {{"block_size": 32}}')
    ours = {theirs: own for own, theirs in ENGINE_NAMES.items()}
    for key in content:
        if key in ours:
            raise UsageError(f"--model-arg {name} sets {key!r}; use --model-arg {ours[key]}=... for it")
        if key in RESERVED:
            raise UsageError(f"--model-arg {name} sets {key!r}, which the backend sets itself; leave it out")
    return content
