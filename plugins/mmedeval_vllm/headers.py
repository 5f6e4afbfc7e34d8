"""What the headers of a folder's safetensors files tell: the sizes of tensors, and their precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from safetensors import SafetensorError, safe_open

from mmedeval import ModelError
from mmedeval.model_files import ModelFolder
from mmedeval.text import first_line

INDEX = "model.safetensors.index.json"
# The floating-point types of safetensors that vLLM can compute in, in its words.
PRECISIONS: Mapping[str, str] = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def shapes(folder: ModelFolder, *, adapter: bool) -> Mapping[str, Sequence[int]]:
    """Name -> sizes of every tensor of the model, or of the adapter."""
    return {name: tensor.get_shape() for name, tensor in _tensors(folder, adapter=adapter)}


def stored_precision(folder: ModelFolder) -> str | None:
    """That of the first tensor with one that vLLM computes in; transformers goes by it where the configuration is silent."""
    kinds = (tensor.get_dtype() for _, tensor in _tensors(folder, adapter=False))
    return next((PRECISIONS[kind] for kind in kinds if kind in PRECISIONS), None)


def check_weights(folder: ModelFolder) -> None:
    """Raises `ModelError` where vLLM would read other files than transformers, and compute another model.

    It takes those of Mistral's own kind, or those that an index names, or all that there are.
    """
    there = {file.name for file in folder.path.glob("*.safetensors")}
    parts = folder.json(INDEX).get("weight_map")
    named = {part for part in parts.values() if isinstance(part, str)} if isinstance(parts, dict) else set()
    read = {name for name in there if name.startswith("consolidated")} or named or there
    if folder.weights and read and read != {*folder.weights}:
        raise ModelError(
            f"in {folder.path} vLLM would read {', '.join(sorted(read))}, transformers {', '.join(folder.weights)}; "
            f"move what is left over (of weights, or {INDEX}) to another folder"
        )


def _tensors(folder: ModelFolder, *, adapter: bool) -> Iterator[tuple[str, Any]]:
    for name in folder.names if adapter else folder.weights or folder.names:
        if name.endswith(".safetensors") and name.startswith("adapter_") == adapter:
            try:
                with safe_open(folder.path / name, "np") as file:
                    yield from [(key, file.get_slice(key)) for key in file.keys()]  # noqa: SIM118  # a file of safetensors is no mapping
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{folder.path / name} cannot be read: {first_line(error)}; copy the file again") from error
