"""The `vllm:` backend: any causal language model that vLLM runs, from a folder or the hub, with or without an adapter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mmedeval import BackendSpec, hookimpl

if TYPE_CHECKING:
    from mmedeval import Backend

ARGUMENTS: Mapping[str, str] = {
    "dtype": "auto (the checkpoint's), float32, bfloat16 or float16",
    "revision": "branch, tag or commit on the hub",
    "adapter": "folder or hub name of a LoRA adapter to put on the model",
    "trust_remote_code": "true: run the Python code that comes with the model (default false)",
    "use_safetensors": "false: also read pickled weights, which can run code (default true)",
    "quantization": "how the weights are quantised, in vLLM's words (default: what the checkpoint says)",
    "max_length": "context length to use instead of the model's own",
    "add_bos": "true or false: put the BOS token in front, whatever the tokenizer does",
    "tensor_parallel": "number of GPUs over which each layer is spread (default 1)",
    "pipeline_parallel": "number of stages over which the layers are spread (default 1)",
    "data_parallel": "number of engines that share the requests, each with the whole model (default 1)",
    "distributed_executor": "mp: processes of this machine, ray: those of a Ray cluster, also of several machines",
    "gpu_memory_utilization": "part of the memory that vLLM takes, above 0 and up to 1 (default: vLLM's own)",
    "max_num_seqs": "most sequences computed at once (default: vLLM's own)",
    "max_num_batched_tokens": "most tokens computed at once (default: vLLM's own)",
    "enforce_eager": "true: compile nothing and capture no CUDA graphs; starts sooner, runs slower",
    "engine_args": 'any other argument of vLLM\'s EngineArgs, as JSON: {"block_size": 32}',
    "verbose": "true: show vLLM's log on stderr (default false)",
}


def _load(name: str, arguments: Mapping[str, str]) -> Backend:
    from mmedeval_vllm.backend import VLLMBackend

    return VLLMBackend(name, arguments)


def _remark() -> str | None:
    from mmedeval_vllm.versions import remark

    return remark()


@hookimpl
def mmedeval_backends() -> Iterable[BackendSpec]:
    return [
        BackendSpec(
            name="vllm",
            summary="a causal language model run by vLLM: a folder or a hub name, or a LoRA adapter",
            load=_load,
            requires=("vllm",),
            extra="vllm",
            arguments=ARGUMENTS,
            remark=_remark,
        )
    ]
