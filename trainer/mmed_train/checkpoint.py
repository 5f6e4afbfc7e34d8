"""Reads a checkpoint in safetensors tensor by tensor, without torch. Format: https://github.com/huggingface/safetensors"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedeval import ModelError
from mmedeval.model_files import ModelFolder

# bfloat16, which numpy lacks, is the upper half of a float32.
DTYPES: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
LARGEST_HEADER = 100_000_000
# Bytes that are compared at once.
CHUNK = 2**24


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Where a tensor lies: `start` and `bytes` within `file`."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """A folder that `save_pretrained` wrote."""

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.json("config.json")

    def json(self, name: str) -> dict[str, Any]:
        """One of the folder's JSON files. Raises `ModelError` where it is absent or broken."""
        file = self.path / name
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ModelError(f"{self.path} holds no {name}; name the folder that save_pretrained wrote") from error
        except (ValueError, OSError, RecursionError) as error:
            raise ModelError(f"{file} cannot be read: {error}; save the checkpoint again") from error
        if not isinstance(content, dict):
            raise ModelError(f"{file} holds no JSON object; save the checkpoint again")
        return content

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor by name, over the files that transformers would read."""
        files = ModelFolder(self.path).weights
        if not files:
            raise ModelError(f"{self.path / 'model.safetensors'} is not there; save the checkpoint again, in safetensors")
        found: dict[str, Tensor] = {}
        for file in files:
            tensors = _header(self.path / file)
            twice = sorted(found.keys() & tensors.keys())
            if twice:
                raise ModelError(f"{self.path} holds the tensor {twice[0]} in two files; copy or save the checkpoint again")
            found.update(tensors)
        return found

    def read(self, name: str) -> npt.NDArray[Any]:
        """A tensor as float16 or float32, whichever holds it exactly (float64 is rounded to float32)."""
        tensor = self.tensors[name]
        flat = np.memmap(tensor.file, dtype=DTYPES[tensor.dtype], mode="r", offset=tensor.start, shape=(math.prod(tensor.shape),))
        if tensor.dtype == "BF16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)  # type: ignore[assignment]
        elif tensor.dtype == "F64":
            flat = flat.astype(np.float32)  # type: ignore[assignment]
        return np.asarray(flat).reshape(tensor.shape)

    def same(self, one: str, other: str) -> bool:
        """Whether two tensors are the same, byte for byte."""
        a, b = self.tensors[one], self.tensors[other]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        with a.file.open("rb") as left, b.file.open("rb") as right:
            left.seek(a.start)
            right.seek(b.start)
            sizes = (min(CHUNK, a.bytes - done) for done in range(0, a.bytes, CHUNK))
            return all(left.read(size) == right.read(size) for size in sizes)


def _header(file: Path) -> dict[str, Tensor]:
    size = file.stat().st_size
    broken = ModelError(f"{file} is no whole safetensors file; copy it again, or save the checkpoint again")
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise broken
        try:
            header = json.loads(handle.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            found = {}
            for name, entry in entries.items():
                if entry["dtype"] not in DTYPES:
                    raise ModelError(
                        f"{file}: the tensor {name} is of type {entry['dtype']}; the export reads {', '.join(DTYPES)}: "
                        "save the checkpoint in one of these"
                    )
                start, end = entry["data_offsets"]
                shape = tuple(entry["shape"])
                if not all(type(each) is int and each >= 0 for each in (start, end, *shape)):
                    raise broken
                if end - start != math.prod(shape) * np.dtype(DTYPES[entry["dtype"]]).itemsize or 8 + length + end > size:
                    raise broken
                found[name] = Tensor(file=file, dtype=entry["dtype"], shape=shape, start=8 + length + start, bytes=end - start)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise broken from error
    return found
