"""The `hf:` backend: any causal language model of transformers, from a folder or the hub, with or without an adapter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mmedeval import BackendSpec, hookimpl

if TYPE_CHECKING:
    from mmedeval import Backend

ARGUMENTS: Mapping[str, str] = {
    "dtype": "auto (the checkpoint's), float32, bfloat16 or float16",
    "device": "auto (cuda, else mps, else cpu), cpu, cuda, cuda:1, mps",
    "device_map": "auto: spread the layers over all GPUs (accelerate)",
    "revision": "branch, tag or commit on the hub",
    "adapter": "folder or hub name of a peft adapter to put on the model",
    "trust_remote_code": "true: run the Python code that comes with the model (default false)",
    "use_safetensors": "false: also read pickled weights, which can run code (default true)",
    "max_length": "context length to use instead of the model's own",
    "batch_tokens": "tokens computed at once (default: what memory allows, at most 4096 on a CPU and 32768 on a GPU)",
    "batch_size": "most sequences computed at once (default 256)",
    "attn_implementation": "eager, sdpa, flash_attention_2, ...",
    "prefix_sharing": "false: compute every continuation on its own, shared tokens again and again (default true)",
    "add_bos": "true or false: put the BOS token in front, whatever the tokenizer does",
}


def _load(name: str, arguments: Mapping[str, str]) -> Backend:
    from mmedeval_hf.backend import HFBackend

    return HFBackend(name, arguments)


@hookimpl
def mmedeval_backends() -> Iterable[BackendSpec]:
    return [
        BackendSpec(
            name="hf",
            summary="a causal language model of transformers: a folder or a hub name, or a peft adapter",
            load=_load,
            requires=("torch", "transformers", "huggingface_hub", "safetensors"),
            extra="hf",
            arguments=ARGUMENTS,
        )
    ]
