"""The `gguf:` backend: one GGUF file, computed by llama.cpp."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mmedeval import BackendSpec, hookimpl

if TYPE_CHECKING:
    from mmedeval import Backend

ARGUMENTS: Mapping[str, str] = {
    "context": "longest sequence in tokens (default: the file's own context length; memory is taken for what is asked only)",
    "threads": "threads (default: the processors that this process may use)",
    "gpu_layers": "layers on the GPU (default: all, where llama.cpp was built for one)",
    "cache_type": "type of the KV cache: f32 (default, as exact as transformers), f16, q8_0",
    "flash_attention": "true: llama.cpp's flash attention, faster and less exact (default false; cache_type=q8_0 needs it)",
    "batch_tokens": "tokens computed at once (default 512)",
    "sequences": "most texts written at once (default 8)",
    "add_bos": "true or false: put the BOS token in front, whatever the file says",
    "lora": "a LoRA adapter as a GGUF file, to put on the model",
}


def _load(name: str, arguments: Mapping[str, str]) -> Backend:
    from mmedeval_gguf.backend import GGUFBackend

    return GGUFBackend(name, arguments)


@hookimpl
def mmedeval_backends() -> Iterable[BackendSpec]:
    return [
        BackendSpec(
            name="gguf",
            summary="a GGUF file, computed by llama.cpp",
            load=_load,
            requires=("llama_cpp",),
            extra="gguf",
            arguments=ARGUMENTS,
        )
    ]
