"""Writes a checkpoint without what only its training needs, in a type of choice, one file of weights in memory at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mmed_train.training.facts import BLANK_CARD, PROGRESS
from mmed_train.training.saving import MARK, STATE, what_lacks
from mmedeval import ModelError, StoreError, UsageError
from mmedeval.model_files import ModelFolder
from mmedeval.text import first_line

Dtype = Literal["bfloat16", "float16", "float32"]
TYPES: Mapping[Dtype, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
# Bytes in a file of weights, and how transformers' save_pretrained is told the same.
LARGEST_SHARD = 5_000_000_000
ADAPTER = "adapter_model.safetensors"
# What describes a model, its tokenizer and its making. Anything else in a checkpoint is state, weights or a pickle.
KEPT = (
    "*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt", "*.md", "*.png", "*.py", "LICENSE*", "NOTICE*",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A folder of weights. `types` says what they are stored in; `notes` are sentences for the user."""

    path: Path
    bytes: int
    tensors: int
    types: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """A tensor that will be written: where it is read, and what it will be."""

    file: Path
    name: str
    dtype: torch.dtype
    bytes: int


def export_safetensors(checkpoint: Path, out: Path, dtype: Dtype | None, *, largest_shard: int = LARGEST_SHARD) -> Exported:
    """Writes the model or adapter in the folder `checkpoint` to the new folder `out`; its numbers in `dtype`, else as they are.

    One file of weights is in memory at a time. Raises `ModelError` for a checkpoint that is not whole, and for numbers that the
    type cannot hold; then, and when interrupted, `out` is not there.
    """
    if not checkpoint.is_dir():
        raise ModelError(f"{checkpoint} is no folder; name the checkpoint's folder, the one that holds its weights")
    lacks = what_lacks(checkpoint) if (checkpoint / MARK).exists() else ""
    if lacks:
        raise ModelError(f"{checkpoint} is not whole: {lacks}; take another checkpoint")
    source = ModelFolder(path=checkpoint)
    if source.is_adapter:
        source.check_adapter()
        files: Sequence[str] = [ADAPTER]
    else:
        source.check_model()
        files = source.weights
        if source.json("config.json").get("quantization_config") and dtype is not None:
            raise ModelError(f"{checkpoint} holds quantised weights, which have types of their own; leave out --dtype {dtype}")
    planned = list(_plan(checkpoint, files, dtype))
    with new_folder(out) as folder:
        _write_weights(folder, out, planned, ADAPTER if source.is_adapter else "model.safetensors", largest_shard)
        with writing(out):
            left_out = copy_beside(source, folder, dtype)
    return Exported(
        path=out,
        bytes=sum(tensor.bytes for tensor in planned),
        tensors=len(planned),
        types=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in planned})),
        notes=tuple(_notes(source, left_out)),
    )


def _notes(source: ModelFolder, left_out: Sequence[str]) -> Iterator[str]:
    if left_out:
        yield f"left out: {', '.join(left_out)}"
    if source.is_adapter:
        yield f"it stays an adapter; for full weights: mmed-train merge {source.path} FOLDER"
        base = source.json("adapter_config.json").get("base_model_name_or_path")
        if isinstance(base, str) and Path(base).is_absolute():
            yield (
                f"its adapter_config.json names its base by a path of this machine ({base}); "
                "give it a hub name before you publish it"
            )


# --- a folder that appears in one step ---


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Where to write what shall become the folder `path`, in one step when the block ends.

    Where the block fails, or is interrupted or terminated, nothing is left; what a kill leaves, the next call removes. Raises
    `UsageError` for a `path` that is there already.
    """
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already; remove it, or name another folder to write to")
    if not path.absolute().parent.is_dir():
        raise UsageError(
            f"{path}: the folder {path.absolute().parent} does not exist; make it, or name another folder to write to"
        )
    beside = path.with_name(f".{path.name}.part")
    with writing(path):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
    try:
        with _terminated():
            yield beside
            with writing(path):
                for file in sorted(beside.rglob("*")):
                    _sync(file)
                beside.rename(path)
                _sync(path.absolute().parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into one sentence, `StoreError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = error.strerror or first_line(error) if isinstance(error, OSError) else first_line(error)
        if full or any(words in reason for words in ("os error 28", "os error 122", "os error 27")):
            raise StoreError(f"no space left to write {path}; free some, or name a folder on another disk") from error
        raise StoreError(f"cannot write {path}: {reason}; name another folder to write to") from error


@contextmanager
def _terminated() -> Iterator[None]:
    """Within, SIGTERM is an exception, as Ctrl-C is, so that half a folder is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        # Some file systems cannot sync a folder.
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


# --- weights ---


def _plan(checkpoint: Path, files: Sequence[str], dtype: Dtype | None) -> Iterator[_Planned]:
    """The tensors of all files, in their order."""
    seen: set[str] = set()
    for name in files:
        file = checkpoint / name
        try:
            with safe_open(file, "pt") as opened:
                names = opened.keys()
                for key in names:
                    if key in seen:
                        raise ModelError(f"{checkpoint} holds the tensor {key} twice; save the checkpoint again")
                    seen.add(key)
                    # A tensor without rows tells the type in torch's own words.
                    part = opened.get_slice(key)
                    shape = part.get_shape()
                    stored = (part[:0] if shape else opened.get_tensor(key)).dtype
                    wanted = TYPES[dtype] if dtype is not None and stored.is_floating_point else stored
                    yield _Planned(file=file, name=key, dtype=wanted, bytes=_product(shape) * wanted.itemsize)
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{file} cannot be read: {first_line(error)}; copy it again, or save the checkpoint again"
            ) from error


def _product(shape: Sequence[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product


def _write_weights(folder: Path, out: Path, planned: Sequence[_Planned], first: str, largest_shard: int) -> None:
    shards: list[list[_Planned]] = [[]]
    for tensor in planned:
        # An adapter is one file, for peft.
        if first != ADAPTER and shards[-1] and sum(other.bytes for other in shards[-1]) + tensor.bytes > largest_shard:
            shards.append([])
        shards[-1].append(tensor)
    stem = first.removesuffix(".safetensors")
    names = [first] if len(shards) == 1 else [f"{stem}-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, out, shard)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(tensor.bytes for tensor in planned)},
            "weight_map": {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard},
        }
        with writing(out):
            _write_json(folder / f"{stem}.safetensors.index.json", index)


def _write_shard(file: Path, out: Path, shard: Sequence[_Planned]) -> None:
    """One file of weights, read back and compared."""
    tensors = {}
    for path in dict.fromkeys(tensor.file for tensor in shard):
        with safe_open(path, "pt") as opened:
            for planned in shard:
                if planned.file == path:
                    tensors[planned.name] = _converted(opened.get_tensor(planned.name), planned)
    with writing(out):
        save_file(tensors, file, metadata={"format": "pt"})
    with safe_open(file, "pt") as opened:
        for name, tensor in tensors.items():
            if not torch.equal(_bits(opened.get_tensor(name)), _bits(tensor)):
                raise StoreError(f"{out} does not hold what was written to it (the tensor {name}); is the disk sound?")


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's bytes, whose equality is that of its numbers, of those that are none, too."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _converted(tensor: torch.Tensor, planned: _Planned) -> torch.Tensor:
    converted = tensor.to(planned.dtype)
    check_range(tensor, converted, planned.name)
    return converted


def check_range(before: torch.Tensor, after: torch.Tensor, name: str) -> None:
    """Raises `ModelError` where numbers became infinite in a narrower type."""
    if after.is_floating_point() and before.dtype != after.dtype and bool((after.isinf() & ~before.isinf()).any()):
        narrow = str(after.dtype).removeprefix("torch.")
        raise ModelError(f"the tensor {name} holds numbers too large for {narrow}; write it with --dtype bfloat16 or float32")


# --- what stands beside the weights ---


def copy_beside(source: ModelFolder, folder: Path, dtype: Dtype | None) -> list[str]:
    """Copies what describes the model; the config says the new type. Returns the names of what was left out."""
    left_out = []
    for entry in sorted(source.path.iterdir()):
        if _is_weights(entry.name) or entry.name.startswith("."):
            continue
        if not entry.is_file() or not is_kept(entry):
            left_out.append(entry.name)
        elif entry.name == "config.json" and dtype is not None:
            _write_json(folder / entry.name, _in_dtype(source.json(entry.name), dtype))
        else:
            shutil.copyfile(entry, folder / entry.name)
    return left_out


def is_kept(file: Path) -> bool:
    """Whether a file of a checkpoint is of use without its training; how far that was is."""
    if file.name in STATE and file.name != PROGRESS:
        return False
    if not any(fnmatch(file.name, pattern) for pattern in KEPT):
        return False
    return file.name != "README.md" or BLANK_CARD not in file.read_text(encoding="utf-8", errors="replace")


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))


def _in_dtype(config: Mapping[str, Any], dtype: Dtype) -> dict[str, Any]:
    """A config, and those of its parts, with another type wherever it names one."""
    return {
        name: dtype
        if name in ("dtype", "torch_dtype") and isinstance(value, str)
        else _in_dtype(value, dtype)
        if name.endswith("_config") and isinstance(value, dict)
        else value
        for name, value in config.items()
    }


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
