"""Writes llama, mistral and qwen2 checkpoints as GGUF. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as QuantizationType
from gguf import LlamaFileType

from mmed_train.checkpoint import Checkpoint
from mmed_train.gguf_tokenizer import GGUFTokenizer, read_tokenizer
from mmedeval import ModelError, UsageError

Kind = Literal["f32", "f16", "q8_0"]
KINDS: Mapping[Kind, tuple[QuantizationType, LlamaFileType]] = {
    "f32": (QuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (QuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (QuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
ARCHITECTURES: Mapping[str, gguf.MODEL_ARCH] = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
}
Array = npt.NDArray[Any]
# What float16 rounds to infinity: the numbers themselves, or the largest of a block over 127.
_TOO_LARGE: Mapping[QuantizationType, float] = {QuantizationType.F16: 65520.0, QuantizationType.Q8_0: 127 * 65520.0}
# Ways of turning positions that llama.cpp knows, with the numbers that each needs; and what others have to be.
_ROPE: Mapping[str, Sequence[str]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
_ROPE_DEFAULTS: Mapping[str, Any] = {"partial_rotary_factor": 1.0, "beta_fast": 32, "beta_slow": 1, "truncate": True}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A GGUF file. `warnings` are sentences on what llama.cpp will do otherwise than transformers."""

    path: Path
    bytes: int
    tensors: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """A tensor of the file to be; `load` reads it as float16 or float32."""

    name: str
    shape: tuple[int, ...]
    type: QuantizationType
    load: Callable[[], Array]

    @property
    def bytes(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape) // block * size


def export_gguf(path: Path, out: Path, kind: Kind) -> Exported:
    """Writes the checkpoint in the folder `path` to the new file `out`, one tensor in memory at a time.

    Weights that a type cannot take stay wider, as with llama.cpp's own export: vectors in f32, and rows that are no multiple of
    32 long in f16 instead of q8_0. Raises `ModelError` where llama.cpp would compute something else than transformers.
    """
    if out.exists():
        raise UsageError(f"{out} is there already; remove it, or name another file with --out")
    if not out.parent.is_dir():
        raise UsageError(f"{out}: the folder {out.parent} does not exist; make it, or name another file with --out")
    checkpoint = _open(path)
    config, arch = checkpoint.config, ARCHITECTURES[checkpoint.config["model_type"]]
    planned = list(_plan(checkpoint, arch, KINDS[kind][0]))
    rows = checkpoint.tensors["model.embed_tokens.weight"].shape[0]
    if rows != _number(config, "vocab_size"):
        raise ModelError(
            f"{path} has {rows} embeddings, but its config.json says {config['vocab_size']}; save the checkpoint again"
        )
    _check_shapes(checkpoint)
    tokenizer = read_tokenizer(checkpoint, rows)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    writer = gguf.GGUFWriter(part, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_name(path.resolve().name)
    writer.add_file_type(KINDS[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    warnings = [*_describe(writer, config), *tokenizer.warnings]
    if config.get("tie_word_embeddings") and not _tied(checkpoint):
        warnings.append("config.json says that the output layer is the embeddings, but it is another one, which is kept")
    _write_tokenizer(writer, tokenizer)
    try:
        _write(writer, planned)
        _verify(part, planned)
        os.replace(part, out)
    except OSError as error:
        raise ModelError(f"{out} cannot be written ({error}); is the disk full? Nothing is left of it") from error
    finally:
        writer.close()
        part.unlink(missing_ok=True)
    return Exported(path=out, bytes=out.stat().st_size, tensors=len(planned), warnings=tuple(warnings))


def _open(path: Path) -> Checkpoint:
    if not path.is_dir():
        raise ModelError(f"{path} is no folder; name the checkpoint's folder, the one that holds config.json")
    if (path / "adapter_config.json").is_file():
        raise ModelError(
            f"{path} is an adapter; merge it into its base model first (merge_and_unload of peft, then save_pretrained) "
            "and export the merged checkpoint"
        )
    checkpoint = Checkpoint(path)
    model_type = checkpoint.config.get("model_type")
    if model_type not in ARCHITECTURES:
        raise ModelError(
            f"{path} is of type {model_type!r}; the export knows {', '.join(ARCHITECTURES)}: "
            f"for others use llama.cpp's own: python convert_hf_to_gguf.py {path}"
        )
    if checkpoint.config.get("hidden_act", "silu") != "silu":
        raise ModelError(f"{path} has the activation {checkpoint.config['hidden_act']!r}; llama.cpp computes silu for this type")
    return checkpoint


def _plan(checkpoint: Checkpoint, arch: gguf.MODEL_ARCH, wanted: QuantizationType) -> Iterator[_Planned]:
    """The tensors of the file, in the order of the layers."""
    config = checkpoint.config
    layers = _number(config, "num_hidden_layers")
    names = gguf.get_tensor_name_map(arch, layers)
    tied = _tied(checkpoint)
    missing = {"model.embed_tokens.weight", "model.norm.weight"} | (set() if tied else {"lm_head.weight"})
    for layer in range(layers):
        for part in ("input_layernorm", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
            missing.add(f"model.layers.{layer}.{part}.weight")
        missing |= {f"model.layers.{layer}.self_attn.{part}_proj.weight" for part in "qkvo"}
    missing -= {*checkpoint.tensors}
    if missing:
        raise ModelError(
            f"{checkpoint.path} lacks {len(missing)} of its model's tensors, such as {min(missing)}; save the checkpoint again"
        )
    heads = _number(config, "num_attention_heads")
    permuted = {"q_proj": heads, "k_proj": _kv_heads(config)} if arch is gguf.MODEL_ARCH.LLAMA else {}
    factors = _frequency_factors(config)
    if factors is not None:
        yield _planned("rope_freqs.weight", factors.shape, wanted, lambda: factors)
    for source, tensor in sorted(checkpoint.tensors.items(), key=lambda item: _order(item[0])):
        if source.endswith(".rotary_emb.inv_freq") or (tied and source == "lm_head.weight"):
            continue  # follows from the configuration; is the embedding itself
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ModelError(
                f"{checkpoint.path} holds the tensor {source}, which llama.cpp's {gguf.MODEL_ARCH_NAMES[arch]} does not have; "
                f"use llama.cpp's own export: python convert_hf_to_gguf.py {checkpoint.path}"
            )
        turned = permuted.get(source.split(".")[-2])
        yield _planned(name, tensor.shape, wanted, _reader(checkpoint, source, turned))


def _tied(checkpoint: Checkpoint) -> bool:
    """Whether the embeddings are the output layer, too: not where the files hold another one, whatever the configuration says."""
    if not checkpoint.config.get("tie_word_embeddings", False):
        return False
    both = ("lm_head.weight", "model.embed_tokens.weight")
    return not {*both} <= checkpoint.tensors.keys() or checkpoint.same(*both)


def _check_shapes(checkpoint: Checkpoint) -> None:
    """Raises `ModelError` where a tensor has other sizes than the configuration says, along which its rows are turned."""
    config = checkpoint.config
    hidden, inner = _number(config, "hidden_size"), _number(config, "intermediate_size")
    queries, keys = (heads * _head_size(config) for heads in (_number(config, "num_attention_heads"), _kv_heads(config)))
    matrices = {
        "q_proj": (queries, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden), "o_proj": (hidden, queries),
        "gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner),
    }  # fmt: skip
    for name, tensor in checkpoint.tensors.items():
        module, _, kind = name.rpartition(".")
        wanted: tuple[int, ...] = matrices.get(module.rpartition(".")[2], (_number(config, "vocab_size"), hidden))
        if "norm" in module:
            wanted = (hidden,)
        elif kind == "bias":
            wanted = wanted[:1]
        if kind in ("weight", "bias") and tensor.shape != wanted:
            raise ModelError(
                f"{checkpoint.path} holds {name} of the size {list(tensor.shape)}, its config.json says {list(wanted)}; "
                "save the checkpoint again"
            )


def _order(source: str) -> tuple[int, str]:
    parts = source.split(".")
    return (int(parts[2]) if parts[:2] == ["model", "layers"] else -1, source)


def _planned(name: str, shape: tuple[int, ...], wanted: QuantizationType, load: Callable[[], Array]) -> _Planned:
    if len(shape) == 1:
        wanted = QuantizationType.F32
    elif shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0]:
        wanted = QuantizationType.F16
    return _Planned(name=name, shape=shape, type=wanted, load=load)


def _reader(checkpoint: Checkpoint, source: str, heads: int | None) -> Callable[[], Array]:
    """Reads a tensor; with `heads`, in llama.cpp's order of rows, where the two halves of each head's rotation alternate."""

    def read() -> Array:
        tensor = checkpoint.read(source)
        if heads is None:
            return tensor
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        return halves.swapaxes(1, 2).reshape(tensor.shape)

    return read


def _number(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if type(value) is not int or value < 1:
        raise ModelError(f"config.json has {name}={value!r}, which is no whole number above 0; save the checkpoint again")
    return value


def _kv_heads(config: Mapping[str, Any]) -> int:
    given = config.get("num_key_value_heads") is not None
    return _number(config, "num_key_value_heads" if given else "num_attention_heads")


def _head_size(config: Mapping[str, Any]) -> int:
    if config.get("head_dim") is not None:
        return _number(config, "head_dim")
    return _number(config, "hidden_size") // _number(config, "num_attention_heads")


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """How positions turn: transformers 5 keeps all in `rope_parameters`, older ones the scaling apart."""
    said = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(said, dict):
        raise ModelError(f"config.json turns positions by {said!r}, which cannot be read; save the checkpoint again")
    rope = {"rope_theta": config.get("rope_theta", 10000.0), **said}
    kind = rope["rope_type"] = rope.pop("type", None) or rope.get("rope_type", "default")
    rope.setdefault("original_max_position_embeddings", _number(config, "max_position_embeddings"))
    further = {name for name, value in rope.items() if name not in _ROPE.get(kind, ()) and value != _ROPE_DEFAULTS.get(name)}
    if kind not in _ROPE or further - {"rope_type", "rope_theta", "original_max_position_embeddings"}:
        raise ModelError(
            f"config.json turns positions by {kind!r} scaling ({', '.join(sorted(rope))}), which this export does not write; "
            "use llama.cpp's own: python convert_hf_to_gguf.py"
        )
    for name in (*_ROPE[kind], "rope_theta", "original_max_position_embeddings"):
        value = rope.get(name)
        if not isinstance(value, int | float) or not value > 0:
            raise ModelError(
                f"config.json turns positions by {kind!r} scaling, but has {name}={value!r}; save the checkpoint again"
            )
    return rope


def _frequency_factors(config: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    """By how much each frequency is divided (half a head's size, f32) in the scaling of Llama 3.1; `None` for other ones."""
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return None
    size, old = _head_size(config), rope["original_max_position_embeddings"]
    wavelengths = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, size, 2, dtype=np.float64) / size)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    smooth = np.clip((old / wavelengths - low) / (high - low), 0.0, 1.0)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), dtype=np.float32)


def _describe(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> list[str]:
    """The model's sizes, and what llama.cpp does otherwise."""
    warnings = []
    context = _number(config, "max_position_embeddings")
    windowed = config.get("use_sliding_window", config["model_type"] == "mistral")
    window = _number(config, "sliding_window") if windowed and config.get("sliding_window") is not None else None
    if window is not None and window < context:
        warnings.append(
            f"the model attends to {window} tokens, llama.cpp to all: the file's context ends at {window} of {context}"
        )
        context = window
    writer.add_vocab_size(_number(config, "vocab_size"))
    writer.add_context_length(context)
    writer.add_embedding_length(_number(config, "hidden_size"))
    writer.add_block_count(_number(config, "num_hidden_layers"))
    writer.add_feed_forward_length(_number(config, "intermediate_size"))
    writer.add_head_count(_number(config, "num_attention_heads"))
    writer.add_head_count_kv(_kv_heads(config))
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    epsilon = config.get("rms_norm_eps", 1e-6)
    if not isinstance(epsilon, int | float) or not 0 <= epsilon < 1:
        raise ModelError(f"config.json has rms_norm_eps={epsilon!r}, which is no small number; save the checkpoint again")
    writer.add_layer_norm_rms_eps(float(epsilon))
    rope = _rope(config)
    writer.add_rope_dimension_count(_head_size(config))
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
    return warnings


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: GGUFTokenizer) -> None:
    writer.add_tokenizer_model(tokenizer.model)
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    writer.add_token_merges(tokenizer.merges)
    writer.add_token_scores(tokenizer.scores)
    for role, i in tokenizer.special_ids.items():
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", i)
    writer.add_add_bos_token(tokenizer.add_bos)
    writer.add_add_eos_token(tokenizer.add_eos)
    writer.add_add_space_prefix(tokenizer.add_space_prefix)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _write(writer: gguf.GGUFWriter, planned: list[_Planned]) -> None:
    for tensor in planned:
        # With the type given, the data type that numpy would have tells nothing.
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in planned:
        loaded = tensor.load()
        if tensor.type is not QuantizationType.F16:
            loaded = loaded.astype(np.float32, copy=False)
        largest = max(abs(float(loaded.max())), abs(float(loaded.min())))
        if not math.isfinite(largest):
            raise ModelError(
                f"the tensor {tensor.name} holds what is no number (NaN or infinite); the checkpoint is damaged, or its training "
                "came to nothing"
            )
        if largest >= _TOO_LARGE.get(tensor.type, math.inf):
            raise ModelError(f"the tensor {tensor.name} holds numbers too large for {tensor.type.name}; export with --type f32")
        writer.write_tensor_data(gguf.quantize(loaded, tensor.type))


def _verify(path: Path, planned: list[_Planned]) -> None:
    """Reads the file's own list of tensors back: all are there, with their sizes, and the file ends behind the last."""
    tensors = gguf.GGUFReader(path).tensors
    found = [(tensor.name, tensor.tensor_type, tensor.n_bytes) for tensor in tensors]
    expected = [(tensor.name, tensor.type, tensor.bytes) for tensor in planned]
    end = max(tensor.data_offset + gguf.GGUFWriter.ggml_pad(tensor.n_bytes, gguf.GGUF_DEFAULT_ALIGNMENT) for tensor in tensors)
    if found != expected or path.stat().st_size != end:
        raise ModelError(f"{path} was not written whole; is the disk full?")
