"""Rewrites checkpoints of InternLM and InternLM 2 into the layout of llama, which computes the same and needs no remote code.

Layouts: modeling_internlm.py and modeling_internlm2.py of https://github.com/InternLM/InternLM.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmed_train.checkpoint import DTYPES, Checkpoint, Tensor
from mmed_train.internlm_tokenizer import convert_tokenizer
from mmedeval import ModelError, UsageError
from mmedeval.model_files import find_model
from mmedeval.text import first_line

Kind = Literal["internlm", "internlm2"]
LARGEST_SHARD = 5_000_000_000
# torch's names for what numbers are stored as -> those of safetensors.
PICKLED_DTYPES: Mapping[str, str] = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
Rows = npt.NDArray[np.uint8]
# Names of the embedding and of the output, and of what a layer consists of where it is not llama's own -> llama's.
LAYOUTS: Mapping[Kind, tuple[tuple[str, str], Mapping[str, Sequence[str]]]] = {
    "internlm": (("model.embed_tokens.weight", "lm_head.weight"), {}),
    "internlm2": (
        ("model.tok_embeddings.weight", "output.weight"),
        {
            "attention.wqkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            "attention.wo": ["self_attn.o_proj"],
            "feed_forward.w1": ["mlp.gate_proj"],
            "feed_forward.w3": ["mlp.up_proj"],
            "feed_forward.w2": ["mlp.down_proj"],
            "attention_norm": ["input_layernorm"],
            "ffn_norm": ["post_attention_layernorm"],
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A checkpoint in llama's layout. `notes` are sentences on what it does otherwise than the original."""

    path: Path
    bytes: int
    tensors: int
    checked: int
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A tensor of the original; `read` gives its rows as bytes, a vector's numbers as rows of one."""

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Rows]


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """A tensor of the checkpoint to be."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Rows]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * _item_size(self.dtype)


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    bias: bool
    tied: bool

    @property
    def head(self) -> int:
        return self.hidden // self.heads


def find_checkpoint(name: str) -> Path:
    """The folder of a checkpoint given by path or hub name; pickled weights are fetched only where there are no others."""
    path = find_model(name, revision=None, safe_only=True, code=False).path
    if any(path.glob("*.safetensors")):
        return path
    return find_model(name, revision=None, safe_only=False, code=False).path


def convert_internlm(source: Path, out: Path, kind: Kind, *, largest_shard: int = LARGEST_SHARD) -> Converted:
    """Writes the checkpoint in the folder `source` to the new folder `out`, one tensor in memory at a time.

    Weights keep their type, bit by bit. Pickled weights are read without running code, a file at a time. Raises `ModelError`
    for a checkpoint that is not of this kind, whole and consistent; then, and when interrupted, `out` is not there.
    """
    if os.path.lexists(out):
        raise UsageError(f"{out} is there already; remove it, or name another folder to write to")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out}: the folder {out.absolute().parent} does not exist; make it, or name another folder to write to")
    checkpoint = _open(source, kind)
    sizes = _sizes(checkpoint.config, kind)
    planned = list(_plan(source, sizes, kind, _stored(checkpoint)))
    config, notes = _llama_config(checkpoint.config, sizes, kind, sorted({tensor.dtype for tensor in planned}))
    tokenizer = convert_tokenizer(checkpoint, sizes.vocabulary)
    files: dict[str, Any] = {
        "config.json": config,
        "tokenizer.json": tokenizer.tokenizer,
        "tokenizer_config.json": tokenizer.config,
    }
    if (source / "generation_config.json").is_file():
        files["generation_config.json"] = checkpoint.json("generation_config.json")
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        _write_weights(part, planned, largest_shard)
        for name, content in files.items():
            _write(part / name, [json.dumps(content, indent=2).encode()])
        if (source / "chat_template.jinja").is_file():
            _write(part / "chat_template.jinja", [(source / "chat_template.jinja").read_bytes()])
        _verify(part, planned)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Converted(
        path=out,
        bytes=sum(tensor.bytes for tensor in planned),
        tensors=len(planned),
        checked=tokenizer.checked,
        notes=(*notes, *tokenizer.notes),
    )


# --- what is asked for ---


def _open(source: Path, kind: Kind) -> Checkpoint:
    checkpoint = Checkpoint(source)
    found = checkpoint.config.get("model_type")
    if found != kind:
        other = found in ("internlm", "internlm2")
        hint = f"use mmed-train convert {found}" if other else "it needs no conversion, or another one"
        raise ModelError(f"{source} is of type {found!r}, not {kind!r}; {hint}")
    if checkpoint.config.get("quantization_config"):
        raise ModelError(f"{source} holds quantised weights; convert the checkpoint that they were made from")
    return checkpoint


def _sizes(config: Mapping[str, Any], kind: Kind) -> _Sizes:
    heads = _number(config, "num_attention_heads")
    sizes = _Sizes(
        vocabulary=_number(config, "vocab_size"),
        hidden=_number(config, "hidden_size"),
        intermediate=_number(config, "intermediate_size"),
        layers=_number(config, "num_hidden_layers"),
        heads=heads,
        # InternLM has as many as heads, whatever its configuration says.
        kv_heads=_number(config, "num_key_value_heads") if kind == "internlm2" and config.get("num_key_value_heads") else heads,
        bias=bool(config.get("bias", True)),
        tied=bool(config.get("tie_word_embeddings", False)),
    )
    for name, whole, part in (("hidden_size", sizes.hidden, heads), ("num_key_value_heads", heads, sizes.kv_heads)):
        if whole % part:
            raise ModelError(
                f"config.json has {name}={config[name]}, which does not go with num_attention_heads={heads}; copy it again"
            )
    return sizes


def _number(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise ModelError(f"config.json has {name}={value!r}, which is no whole number above 0; copy it again")
    return value


def _llama_config(
    config: Mapping[str, Any], sizes: _Sizes, kind: Kind, dtypes: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """The configuration in llama's words, and notes on what it cannot say."""
    scaling = (config.get("rope_scaling") or {}) if kind == "internlm2" else (config.get("rotary") or {"type": "dynamic"})
    try:
        turning = {"origin": "default"}.get(scaling.get("type", "default"), scaling.get("type", "default"))
        theta = float(config.get("rope_theta", 10000) if kind == "internlm2" else scaling.get("base", 10000))
        factor = float(scaling.get("factor" if kind == "internlm2" else "scaling_factor", 1.0))
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"config.json turns positions by {scaling!r}, which cannot be read ({error}); copy it again") from error
    if turning not in ("default", "dynamic", "linear"):
        raise ModelError(f"config.json turns positions by {turning!r}, which {kind} does not know; copy it again")
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    notes = []
    longest = _number(config, "max_position_embeddings")
    if turning == "linear":
        rope |= {"rope_type": "linear", "factor": factor}
    elif turning == "dynamic":
        # Engines differ in how they compute this, and llama.cpp has it not at all; up to here it changes nothing.
        notes.append(
            f"up to {longest:,} tokens the converted model computes what the original does; its context ends there, where the "
            f"original goes on with stretched positions (dynamic scaling, factor {factor:g})"
        )
    names = {stored: name for name, stored in PICKLED_DTYPES.items()}
    converted = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head,
        "hidden_act": config.get("hidden_act", "silu"),
        "attention_bias": sizes.bias,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "max_position_embeddings": longest,
        "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
        "rope_parameters": rope,
        "rope_theta": rope["rope_theta"],  # for versions of transformers before 5
        "tie_word_embeddings": sizes.tied,
        "initializer_range": config.get("initializer_range", 0.02),
        "use_cache": True,
        "bos_token_id": config.get("bos_token_id", 1),
        "eos_token_id": config.get("eos_token_id", 2),
        "pad_token_id": config.get("pad_token_id", 0),
        "dtype": config.get("torch_dtype") or config.get("dtype") or names[dtypes[0]],
    }
    return converted, notes


# --- the original's weights ---


def _stored(checkpoint: Checkpoint) -> Mapping[str, _Stored]:
    """Every tensor of the original by name, in the order of its files."""
    path = checkpoint.path
    if any((path / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        return {
            name: _Stored(dtype=tensor.dtype, shape=tensor.shape, read=partial(_mapped, tensor))
            for name, tensor in checkpoint.tensors.items()
        }
    files = ["pytorch_model.bin"]
    if (path / "pytorch_model.bin.index.json").is_file():
        places = checkpoint.json("pytorch_model.bin.index.json").get("weight_map")
        files = sorted({str(file) for file in places.values()}) if isinstance(places, dict) else []
    pickles = _Pickles(path)
    return {name: tensor for file in files for name, tensor in pickles.stored(file).items()}


def _mapped(tensor: Tensor) -> Rows:
    flat = np.memmap(tensor.file, dtype=np.uint8, mode="r", offset=tensor.start, shape=(tensor.bytes,))
    return flat.reshape(tensor.shape[0], -1)


class _Pickles:
    """Weights in torch's own files, read without running what pickles can run. One file is open at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: tuple[str, Mapping[str, Any]] = ("", {})

    def stored(self, file: str) -> dict[str, _Stored]:
        found = {}
        for name, tensor in self._tensors(file).items():
            dtype = PICKLED_DTYPES.get(str(getattr(tensor, "dtype", None)).removeprefix("torch."))
            if dtype is None:
                raise ModelError(
                    f"{self._path / file}: {name} is no tensor of type {', '.join(PICKLED_DTYPES)}; "
                    "save the checkpoint in one of these"
                )
            found[name] = _Stored(dtype=dtype, shape=tuple(tensor.shape), read=partial(self._read, file, name))
        return found

    def _read(self, file: str, name: str) -> Rows:
        import torch

        tensor = self._tensors(file)[name].detach().contiguous()
        rows: Rows = tensor.reshape(tensor.shape[0], -1).view(torch.uint8).numpy()
        return rows

    def _tensors(self, file: str) -> Mapping[str, Any]:
        if self._open[0] != file:
            self._open = ("", {})  # freed before the next one is read
            self._open = (file, self._load(self._path / file))
        return self._open[1]

    def _load(self, file: Path) -> Mapping[str, Any]:
        import torch  # needed for such files alone

        if not file.is_file():
            raise ModelError(f"{file} is not there; copy the whole folder, with its weights in safetensors or pytorch_model.bin")
        try:
            # What torch wrote before 1.6 is no archive, and has to be read into memory.
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
        except pickle.UnpicklingError as error:
            raise ModelError(
                f"{file} holds more than weights, or is torn, and is not read, since pickles can run code; "
                "copy it again, or have its owner save it as safetensors"
            ) from error
        except (RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
            raise ModelError(f"{file} cannot be read: {first_line(error)}; copy it again") from error
        if not isinstance(loaded, dict):
            raise ModelError(f"{file} holds no weights by name; copy it again")
        return loaded


# --- the same in llama's layout ---


def _layout(sizes: _Sizes, kind: Kind) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """The original's name -> names and shapes of what it becomes; three of them where it is packed, query, key and value."""
    hidden, inner, kv = sizes.hidden, sizes.intermediate, sizes.kv_heads * sizes.head
    shapes: Mapping[str, tuple[int, ...]] = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    outer, inside = LAYOUTS[kind]
    parts = inside or {name: [name] for name in shapes}
    found: dict[str, list[tuple[str, tuple[int, ...]]]] = {
        outer[0]: [("model.embed_tokens.weight", (sizes.vocabulary, hidden))],
        "model.norm.weight": [("model.norm.weight", (hidden,))],
    }
    if not sizes.tied:
        found[outer[1]] = [("lm_head.weight", (sizes.vocabulary, hidden))]
    for layer in range(sizes.layers):
        at = f"model.layers.{layer}"
        for name, becomes in parts.items():
            found[f"{at}.{name}.weight"] = [(f"{at}.{each}.weight", shapes[each]) for each in becomes]
            if sizes.bias and becomes[0].startswith("self_attn."):
                found[f"{at}.{name}.bias"] = [(f"{at}.{each}.bias", shapes[each][:1]) for each in becomes]
    return found


def _plan(path: Path, sizes: _Sizes, kind: Kind, stored: Mapping[str, _Stored]) -> Iterator[_Planned]:
    """The tensors to write, in the order in which the original's files hold them."""
    layout = _layout(sizes, kind)
    # They follow from the configuration; and tied weights are the embedding itself.
    ignored = {name for name in stored if name.endswith(".rotary_emb.inv_freq")} | (
        {LAYOUTS[kind][0][1]} if sizes.tied else set()
    )
    missing, further = {*layout} - {*stored}, {*stored} - {*layout} - ignored
    if missing:
        raise ModelError(f"{path} lacks {len(missing)} of its model's tensors, such as {min(missing)}; copy the whole folder")
    if further:
        raise ModelError(
            f"{path} holds {len(further)} tensors that {kind} does not have, such as {min(further)}; is it another model?"
        )
    for name, tensor in stored.items():
        becomes = layout.get(name, [])
        shape = (sum(part[0] for _, part in becomes), *becomes[0][1][1:]) if becomes else tensor.shape
        if tensor.shape != shape:
            raise ModelError(
                f"{path}: the tensor {name} is of shape {tensor.shape}, by config.json it is {shape}; copy both again"
            )
        for i, (part, of) in enumerate(becomes):
            read = tensor.read if len(becomes) == 1 else partial(_unpacked, tensor.read, sizes, i)
            yield _Planned(name=part, dtype=tensor.dtype, shape=of, read=read)


def _unpacked(read: Callable[[], Rows], sizes: _Sizes, part: int) -> Rows:
    """The rows of all queries (0), keys (1) or values (2): packed, they follow each other for each key head and its queries."""
    queries = sizes.heads // sizes.kv_heads
    groups = read().reshape(sizes.kv_heads, queries + 2, sizes.head, -1)
    wanted = groups[:, :queries] if part == 0 else groups[:, queries - 1 + part]
    return wanted.reshape(-1, groups.shape[-1])


# --- writing ---


def _write_weights(folder: Path, planned: Sequence[_Planned], largest_shard: int) -> None:
    shards: list[list[_Planned]] = [[]]
    for tensor in planned:
        if shards[-1] and sum(other.bytes for other in shards[-1]) + tensor.bytes > largest_shard:
            shards.append([])
        shards[-1].append(tensor)
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(tensor.bytes for tensor in planned)},
            "weight_map": {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard},
        }
        _write(folder / "model.safetensors.index.json", [json.dumps(index, indent=2).encode()])


def _write_shard(file: Path, tensors: Sequence[_Planned]) -> None:
    # Wide numbers first, so that all start where their type may start.
    tensors = sorted(tensors, key=lambda tensor: -_item_size(tensor.dtype))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, at + tensor.bytes]}
        at += tensor.bytes
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    parts = (np.ascontiguousarray(tensor.read()).data for tensor in tensors)
    _write(file, chain([len(content).to_bytes(8, "little"), content], parts))


def _write(file: Path, parts: Iterable[bytes | memoryview]) -> None:
    with file.open("xb") as handle:
        for part in parts:
            handle.write(part)
        handle.flush()
        os.fsync(handle.fileno())


def _item_size(dtype: str) -> int:
    return np.dtype(DTYPES[dtype]).itemsize


def _verify(folder: Path, planned: Sequence[_Planned]) -> None:
    """Reads the list of tensors back: all are there, of their types and shapes, in whole files."""
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in Checkpoint(folder).tensors.items()}
    if found != {tensor.name: (tensor.dtype, tensor.shape) for tensor in planned}:
        raise ModelError(f"{folder} was not written whole; is the disk full?")
