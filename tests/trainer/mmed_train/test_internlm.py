"""InternLM's checkpoints in llama's layout: the same numbers, the same tokens, and what is refused."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")

import sentencepiece

from mmed_train import internlm, internlm_tokenizer
from mmed_train.cli import cli
from mmed_train.internlm import Kind, convert_internlm
from mmedeval import LoglikelihoodRequest, Loglikelihoods, ModelError, Prompt, RunPlan, UsageError
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import run

SHAPES: Mapping[str, Mapping[str, int]] = {
    "as many key heads as heads": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "two heads to a key head": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "three heads to a key head": {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 96},
    "one key head": {"num_attention_heads": 4, "num_key_value_heads": 1},
}
CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


# --- originals, made here ---


@pytest.fixture(autouse=True)
def fewer_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every conversion holds its tokenizer against sentencepiece; here some texts less will do."""
    monkeypatch.setattr(internlm_tokenizer, "MIXED", 500)


@pytest.fixture(scope="session")
def trained(texts: Sequence[str]) -> Callable[..., bytes]:
    """Trains a small sentencepiece model as InternLM's are; the same call gives the same model."""
    made: dict[str, bytes] = {}

    def train(**settings: Any) -> bytes:
        key = json.dumps(settings, sort_keys=True)
        if key not in made:
            out = io.BytesIO()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter([line for text in texts for line in text.splitlines()] + ["  x = 1    # y"] * 40),
                model_writer=out,
                minloglevel=2,
                num_threads=1,
                **{
                    "vocab_size": 2000,
                    "model_type": "bpe",
                    "byte_fallback": True,
                    "character_coverage": 0.99,
                    "normalization_rule_name": "identity",
                    "add_dummy_prefix": False,
                    "remove_extra_whitespaces": False,
                    "allow_whitespace_only_pieces": True,
                    "user_defined_symbols": ["<eoh>", "\n", "[UNUSED_TOKEN_146]", "[UNUSED_TOKEN_145]"],
                    **settings,
                },
            )
            made[key] = out.getvalue()
        return made[key]

    return train


def sizes_of(config: Mapping[str, Any]) -> tuple[int, int, int]:
    heads = config["num_attention_heads"]
    return heads, config.get("num_key_value_heads", heads), config["hidden_size"] // heads


def weights_of(kind: Kind, config: Mapping[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names that InternLM's own code gives them, far from what a model starts with."""
    made = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=made) * 0.2 + (1.0 if len(shape) == 1 else 0.0)

    hidden, inner, rows = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv, size = sizes_of(config)
    first, last = ("tok_embeddings", "output") if kind == "internlm2" else ("embed_tokens", "lm_head")
    found = {f"model.{first}.weight": draw(rows, hidden), "model.norm.weight": draw(hidden), f"{last}.weight": draw(rows, hidden)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        if kind == "internlm2":
            linear = {"attention.wqkv": ((heads + 2 * kv) * size, hidden), "attention.wo": (hidden, hidden)}
            plain = {"feed_forward.w1": (inner, hidden), "feed_forward.w3": (inner, hidden), "feed_forward.w2": (hidden, inner)}
            norms = ("attention_norm", "ffn_norm")
        else:
            linear = {f"self_attn.{part}_proj": (hidden, hidden) for part in "qkvo"}
            plain = {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
            norms = ("input_layernorm", "post_attention_layernorm")
        found |= {f"{at}{name}.weight": draw(*shape) for name, shape in {**linear, **plain}.items()}
        found |= {f"{at}{name}.weight": draw(hidden) for name in norms}
        if config["bias"]:
            found |= {f"{at}{name}.bias": draw(shape[0]) for name, shape in linear.items()}
    return found


@pytest.fixture
def original(tmp_path: Path, trained: Callable[..., bytes]) -> Callable[..., Path]:
    """Writes a small checkpoint in InternLM's own layout."""

    def make(
        kind: Kind = "internlm2", *, name: str = "original", weights: Mapping[str, torch.Tensor] | None = None, **changes: Any
    ) -> Path:
        path = tmp_path / name
        path.mkdir()
        config: dict[str, Any] = {
            "architectures": ["InternLM2ForCausalLM" if kind == "internlm2" else "InternLMForCausalLM"],
            "auto_map": {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"},
            "model_type": kind,
            "bias": kind == "internlm",
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": 64,
            "initializer_range": 0.02,
            "intermediate_size": 96,
            "max_position_embeddings": 4096,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "vocab_size": 2048,
            **(
                {"num_key_value_heads": 2, "rope_theta": 1000000}
                if kind == "internlm2"
                else {"rotary": {"base": 20000, "type": "origin"}}
            ),
            **changes,
        }
        (path / "config.json").write_text(json.dumps(config))
        (path / "tokenizer.model").write_bytes(trained())
        (path / "tokenizer_config.json").write_text(
            json.dumps({"auto_map": {"AutoTokenizer": ["x.Y", None]}, "tokenizer_class": "InternLM2Tokenizer"})
        )
        save_file(dict(weights or weights_of(kind, config)), path / "model.safetensors", metadata={"format": "pt"})
        return path

    return make


def change(path: Path, file: str = "config.json", **values: Any) -> Path:
    content = json.loads((path / file).read_text()) if (path / file).is_file() else {}
    (path / file).write_text(json.dumps({**content, **values}))
    return path


# --- InternLM's computation, told once more ---


def turned(x: torch.Tensor, base: float, factor: float = 1.0) -> torch.Tensor:
    """One head's queries or keys (positions x size), each pair of its two halves turned by its position."""
    half = x.shape[1] // 2
    angles = torch.outer(
        torch.arange(len(x), dtype=torch.float64) / factor, base ** (-torch.arange(half, dtype=torch.float64) / half)
    )
    a, b = x[:, :half], x[:, half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=1)


def normed(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def original_logits(path: Path, ids: Sequence[int], factor: float = 1.0) -> torch.Tensor:
    """The logits by the original's tensors (positions x tokens, float64), head by head."""
    config = json.loads((path / "config.json").read_text())
    w = {name: tensor.double() for name, tensor in load_file(path / "model.safetensors").items()}
    two = config["model_type"] == "internlm2"
    heads, kv, size = sizes_of(config)
    base, eps = config["rope_theta"] if two else config["rotary"]["base"], config["rms_norm_eps"]
    mask = torch.full((len(ids), len(ids)), -torch.inf, dtype=torch.float64).triu(1)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))

    def head_parts(x: torch.Tensor, at: str, head: int) -> list[torch.Tensor]:
        """Query, key and value of a head."""
        if not two:
            return [linear(x, f"{at}self_attn.{part}_proj").split(size, dim=1)[head] for part in "qkv"]
        packed = linear(x, f"{at}attention.wqkv").split(size, dim=1)
        group, place = divmod(head, heads // kv)
        start = group * (heads // kv + 2)
        return [packed[start + place], packed[start + heads // kv], packed[start + heads // kv + 1]]

    x = w["model.tok_embeddings.weight" if two else "model.embed_tokens.weight"][list(ids)]
    names = ["attention_norm", "attention.wo", "ffn_norm", *(f"feed_forward.w{i}" for i in (1, 3, 2))]
    if not two:
        names = [
            "input_layernorm",
            "self_attn.o_proj",
            "post_attention_layernorm",
            *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
        ]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        first_norm, out, second_norm, gate, up, down = (f"{at}{name}" for name in names)
        inside = normed(x, w[f"{first_norm}.weight"], eps)
        seen = []
        for head in range(heads):
            query, key, value = head_parts(inside, at, head)
            scores = turned(query, base, factor) @ turned(key, base, factor).T / size**0.5 + mask
            seen.append(scores.softmax(-1) @ value)
        x = x + linear(torch.cat(seen, dim=1), out)
        inside = normed(x, w[f"{second_norm}.weight"], eps)
        gated = linear(inside, gate)
        x = x + linear(gated * torch.sigmoid(gated) * linear(inside, up), down)
    return normed(x, w["model.norm.weight"], eps) @ w["output.weight" if two else "lm_head.weight"].T


def llama_logits(path: Path, ids: Sequence[int]) -> torch.Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits[0]


def assert_same_logits(source: Path, out: Path, factor: float = 1.0, length: int = 48) -> None:
    ids = random.Random(0).choices(range(2000), k=length)
    expected = original_logits(source, ids, factor)
    assert expected.std() > 0.5
    assert (llama_logits(out, ids) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_internlm_2_computes_the_same_with(shape: str, bias: bool, original: Callable[..., Path], tmp_path: Path) -> None:
    source = original("internlm2", bias=bias, **SHAPES[shape])
    assert_same_logits(source, convert_internlm(source, tmp_path / "llama", "internlm2").path)


@pytest.mark.parametrize("bias", [False, True])
def test_internlm_computes_the_same(bias: bool, original: Callable[..., Path], tmp_path: Path) -> None:
    source = original("internlm", bias=bias)
    assert_same_logits(source, convert_internlm(source, tmp_path / "llama", "internlm").path)


def test_a_wrong_order_of_packed_rows_would_be_seen(original: Callable[..., Path], tmp_path: Path) -> None:
    """Else the comparison above would hold of anything."""
    source = original("internlm2")
    out = convert_internlm(source, tmp_path / "llama", "internlm2").path
    weights = load_file(out / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    save_file({**weights, name: weights[name].flip(0).contiguous()}, out / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssertionError):
        assert_same_logits(source, out)


def test_stretched_positions_are_taken_over_where_llama_has_them(original: Callable[..., Path], tmp_path: Path) -> None:
    source = original(rope_scaling={"type": "linear", "factor": 3.0})
    converted = convert_internlm(source, tmp_path / "llama", "internlm2")
    assert_same_logits(source, converted.path, factor=3.0)
    assert converted.notes == ()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("internlm2", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ("internlm", {"rotary": {"base": 20000, "type": "dynamic"}}),
    ],
)
def test_dynamic_scaling_ends_the_context_where_it_would_begin(
    kind: Kind, settings: Mapping[str, Any], original: Callable[..., Path], tmp_path: Path
) -> None:
    source = original(kind, max_position_embeddings=64, **settings)
    converted = convert_internlm(source, tmp_path / "llama", kind)
    assert_same_logits(source, converted.path, length=64)
    [note] = converted.notes
    assert note.startswith("up to 64 tokens the converted model computes what the original does; its context ends there")
    assert AutoConfig.from_pretrained(converted.path).max_position_embeddings == 64


def test_tied_weights_stay_tied(original: Callable[..., Path], tmp_path: Path) -> None:
    source = original(tie_word_embeddings=True)
    weights = load_file(source / "model.safetensors")
    save_file({**weights, "output.weight": weights["model.tok_embeddings.weight"].clone()}, source / "model.safetensors")
    out = convert_internlm(source, tmp_path / "llama", "internlm2").path
    assert "lm_head.weight" not in load_file(out / "model.safetensors")
    assert_same_logits(source, out)


# --- every tensor, bit by bit ---


def values(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(path.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_weights_keep_their_type_bit_by_bit(dtype: torch.dtype, original: Callable[..., Path], tmp_path: Path) -> None:
    config = json.loads((original(name="sizes") / "config.json").read_text())
    weights = {name: tensor.to(dtype) for name, tensor in weights_of("internlm2", config).items()}
    source = original(weights=weights, torch_dtype=str(dtype).removeprefix("torch."))
    found = values(convert_internlm(source, tmp_path / "llama", "internlm2").path)
    assert {tensor.dtype for tensor in found.values()} == {dtype}
    assert torch.equal(found["lm_head.weight"], weights["output.weight"])
    packed = weights["model.layers.1.attention.wqkv.weight"].split(16)
    parts = {name: found[f"model.layers.1.self_attn.{name}_proj.weight"].split(16) for name in "qkv"}
    for group in range(2):
        together = [*parts["q"][2 * group : 2 * group + 2], parts["k"][group], parts["v"][group]]
        assert all(torch.equal(a, b) for a, b in zip(together, packed[4 * group : 4 * group + 4], strict=True))


def test_narrow_and_wide_numbers_may_stand_together(original: Callable[..., Path], tmp_path: Path) -> None:
    config = json.loads((original("internlm", name="sizes") / "config.json").read_text())
    weights = {n: t.half() if t.ndim == 2 else t for n, t in weights_of("internlm", {**config, "hidden_size": 60}).items()}
    source = original("internlm", weights=weights, hidden_size=60)
    assert same(values(convert_internlm(source, tmp_path / "llama", "internlm").path), weights)


def in_files(weights: Mapping[str, torch.Tensor], count: int) -> Iterator[dict[str, torch.Tensor]]:
    names = [*weights]
    for i in range(count):
        yield {name: weights[name] for name in names[i::count]}


def pickled(path: Path, count: int, **settings: Any) -> Path:
    """The same checkpoint with its weights in torch's own files."""
    weights = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    if count == 1:
        torch.save(weights, path / "pytorch_model.bin", **settings)
        return path
    places = {}
    for i, part in enumerate(in_files(weights, count)):
        file = f"pytorch_model-{i + 1:05}-of-{count:05}.bin"
        torch.save(part, path / file, **settings)
        places |= dict.fromkeys(part, file)
    change(path, "pytorch_model.bin.index.json", metadata={}, weight_map=places)
    return path


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"_use_new_zipfile_serialization": False}], ids=["archives", "torch before 1.6"])
def test_pickled_weights_give_the_same_checkpoint(
    count: int, settings: Mapping[str, Any], original: Callable[..., Path], tmp_path: Path
) -> None:
    expected = values(convert_internlm(original(name="safe"), tmp_path / "from safetensors", "internlm2").path)
    source = pickled(original(), count, **settings)
    assert same(values(convert_internlm(source, tmp_path / "from pickles", "internlm2").path), expected)


class Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.file),))


def test_a_pickle_that_runs_code_is_refused_unrun(original: Callable[..., Path], tmp_path: Path) -> None:
    source = original()
    (source / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Harm(tmp_path / "harm")}, source / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds more than weights, or is torn, and is not read, since pickles can run code"):
        convert_internlm(source, tmp_path / "llama", "internlm2")
    assert not (tmp_path / "harm").exists()


def test_several_files_become_several_files_of_the_wanted_size(original: Callable[..., Path], tmp_path: Path) -> None:
    source = original()
    expected = values(convert_internlm(source, tmp_path / "one", "internlm2").path)
    weights = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    places = {}
    for i, part in enumerate(in_files(weights, 3)):
        save_file(part, source / f"model-{i}.safetensors")
        places |= dict.fromkeys(part, f"model-{i}.safetensors")
    change(source, "model.safetensors.index.json", weight_map=places)
    out = convert_internlm(source, tmp_path / "several", "internlm2", largest_shard=600_000).path
    files = sorted(out.glob("*.safetensors"))
    assert [file.name for file in files] == [f"model-{i + 1:05}-of-{len(files):05}.safetensors" for i in range(len(files))]
    assert len(files) > 2
    assert max(file.stat().st_size for file in files) < 610_000
    assert same(values(out), expected)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    for name, file in index["weight_map"].items():
        with safe_open(out / file, "pt") as opened:
            assert name in opened.keys()  # noqa: SIM118  # no mapping
    assert index["weight_map"].keys() == expected.keys()
    assert AutoModelForCausalLM.from_pretrained(out).num_parameters() == sum(tensor.numel() for tensor in expected.values())


def test_memory_holds_a_tensor_at_a_time(original: Callable[..., Path], tmp_path: Path) -> None:
    source = original(hidden_size=512, intermediate_size=1024, num_hidden_layers=8)
    size = (source / "model.safetensors").stat().st_size
    convert_internlm(original(name="first"), tmp_path / "once", "internlm2")  # what is imported and compiled once
    tracemalloc.start()
    try:
        convert_internlm(source, tmp_path / "llama", "internlm2")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 80e6
    assert peak < size / 6


def test_buffers_that_follow_from_the_configuration_are_left_out(original: Callable[..., Path], tmp_path: Path) -> None:
    source = original("internlm")
    weights = load_file(source / "model.safetensors")
    buffers = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(8) for layer in range(2)}
    save_file({**weights, **buffers}, source / "model.safetensors")
    assert same(values(convert_internlm(source, tmp_path / "llama", "internlm").path), weights)


# --- the same tokens ---


def loaded(path: Path) -> Any:
    return AutoTokenizer.from_pretrained(path)


def noise(count: int) -> list[str]:
    """Texts of characters that are rare, or that tokens are cut at."""
    draw = random.Random(0)
    return ["".join(draw.choices("      aab\n\t.é東—1０①\u200b😀𠮷\u0301ж", k=draw.randint(1, 14))) for _ in range(count)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"vocab_size": 1000, "character_coverage": 0.98},
        {"user_defined_symbols": ["▁▁▁▁", "<eoh>"]},
        {"remove_extra_whitespaces": True},
        {"add_dummy_prefix": True, "user_defined_symbols": []},
        {"add_dummy_prefix": True, "remove_extra_whitespaces": True, "user_defined_symbols": []},
    ],
    ids=["as InternLM's", "mostly bytes", "blanks as a token", "single blanks", "a blank in front", "both"],
)
def test_tokens_and_texts_are_those_of_sentencepiece(
    settings: Mapping[str, Any],
    original: Callable[..., Path],
    trained: Callable[..., bytes],
    texts: Sequence[str],
    tmp_path: Path,
) -> None:
    source = original()
    (source / "tokenizer.model").write_bytes(trained(**settings))
    converted = convert_internlm(source, tmp_path / "llama", "internlm2")
    assert converted.notes == ()
    tokenizer = loaded(converted.path)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=trained(**settings))
    seen = set()
    special = ("<s>", "</s>", "<unk>")
    for text in [*(text for text in texts if not any(name in text for name in special)), *noise(3000)]:
        expected = theirs.encode(text)
        assert tokenizer(text)["input_ids"] == [1, *expected], text
        assert tokenizer.decode(expected) == theirs.decode(expected), text
        seen |= {*expected}
    assert len(seen) > 300
    assert any(theirs.is_byte(i) for i in seen)


def test_tokens_of_published_questions_are_those_of_sentencepiece(
    original: Callable[..., Path], trained: Callable[..., bytes], published_texts: Sequence[str], tmp_path: Path
) -> None:
    tokenizer = loaded(convert_internlm(original(), tmp_path / "llama", "internlm2").path)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=trained())
    for text in published_texts:
        expected = theirs.encode(text)
        assert tokenizer(text)["input_ids"] == [1, *expected]
        assert tokenizer.decode(expected) == theirs.decode(expected)


def chat_tokens(path: Path, model: bytes) -> dict[str, int]:
    """Gives reserved tokens the names that they have in chats, as in InternLM 2's chat models."""
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    names = {"<|im_start|>": "[UNUSED_TOKEN_146]", "<|im_end|>": "[UNUSED_TOKEN_145]"}
    ids = {"<unk>": 0, "<s>": 1, "</s>": 2, **{name: theirs.piece_to_id(piece) for name, piece in names.items()}}
    settings = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    change(
        path,
        "tokenizer_config.json",
        added_tokens_decoder={str(i): {"content": name, **settings} for name, i in ids.items()},
        additional_special_tokens=[*names],
        chat_template=CHAT,
        pad_token="</s>",
    )
    return ids


def test_special_tokens_are_cut_out_of_text_under_their_new_names(
    original: Callable[..., Path], trained: Callable[..., bytes], tmp_path: Path
) -> None:
    source = original()
    ids = chat_tokens(source, trained())
    tokenizer = loaded(convert_internlm(source, tmp_path / "llama", "internlm2").path)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=trained())
    start, end = ids["<|im_start|>"], ids["<|im_end|>"]
    expected = [1, start, *theirs.encode("user\n Was  nun?"), end, *theirs.encode("\n"), start, *theirs.encode("assistant\n"), 2]
    assert tokenizer("<|im_start|>user\n Was  nun?<|im_end|>\n<|im_start|>assistant\n</s>")["input_ids"] == expected
    assert tokenizer.decode(expected, skip_special_tokens=True) == "user\n Was  nun?\nassistant\n"
    assert tokenizer.convert_ids_to_tokens([start, end]) == ["<|im_start|>", "<|im_end|>"]
    assert {*tokenizer.all_special_tokens} == {"<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"}
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    assert roles == (1, 2, 2, 0)


def test_the_chat_template_is_kept(original: Callable[..., Path], trained: Callable[..., bytes], tmp_path: Path) -> None:
    source = original()
    chat_tokens(source, trained())
    expected = "<s><|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
    messages = [{"role": "user", "content": "x"}]
    for name, prepare in {
        "in the configuration": lambda: None,
        "in a file": lambda: (source / "chat_template.jinja").write_text(CHAT.replace("assistant", "bot")),
    }.items():
        prepare()
        tokenizer = loaded(convert_internlm(source, tmp_path / name, "internlm2").path)
        assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == expected
        expected = expected.replace("assistant", "bot")


def test_tokens_beyond_sentencepieces_and_an_end_behind_text_are_taken_over(
    original: Callable[..., Path], trained: Callable[..., bytes], tmp_path: Path
) -> None:
    source = change(original(), "added_tokens.json", **{"<image>": 2040, "<more>": 2041})
    change(source, "tokenizer_config.json", add_eos_token=True)
    change(source, "special_tokens_map.json", pad_token={"content": "<unk>"}, additional_special_tokens=["<image>"])
    tokenizer = loaded(convert_internlm(source, tmp_path / "llama", "internlm2").path)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=trained())
    assert tokenizer("a<image> b")["input_ids"] == [1, *theirs.encode("a"), 2040, *theirs.encode(" b"), 2]
    assert tokenizer.pad_token_id == 0
    assert tokenizer.decode([2040, 2041], skip_special_tokens=True) == "<more>"


def message(*fields: tuple[int, bytes | int | float]) -> bytes:
    """A protobuf message; floats are of 32 bits."""

    def varint(value: int) -> bytes:
        return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])

    parts = []
    for number, value in fields:
        if isinstance(value, bytes):
            parts.append(varint(number * 8 + 2) + varint(len(value)) + value)
        elif isinstance(value, float):
            parts.append(varint(number * 8 + 5) + struct.pack("<f", value))
        else:
            parts.append(varint(number * 8) + varint(value))
    return b"".join(parts)


def with_piece(model: bytes, text: str, score: float, kind: int = 1) -> bytes:
    """A sentencepiece model with one more token: repeated fields go on, wherever they stand."""
    return model + message((1, message((1, text.encode()), (2, score), (3, kind))))


def test_tokens_that_are_split_otherwise_are_told(
    original: Callable[..., Path], trained: Callable[..., bytes], tmp_path: Path
) -> None:
    """sentencepiece joins characters that are no tokens themselves, transformers cannot."""
    source = original()
    (source / "tokenizer.model").write_bytes(with_piece(trained(), "齉齾", -1.0))
    [note] = convert_internlm(source, tmp_path / "llama", "internlm2").notes
    assert "texts made of the tokenizer's own tokens get other tokens than from sentencepiece, such as '齉齾'" in note


def test_a_zero_byte_may_be_a_token(original: Callable[..., Path], trained: Callable[..., bytes], tmp_path: Path) -> None:
    source = original()
    (source / "tokenizer.model").write_bytes(with_piece(trained(), "\0", -1.0))
    assert loaded(convert_internlm(source, tmp_path / "llama", "internlm2").path)("\0")["input_ids"] == [1, 2000]


UNUSABLE: Mapping[str, Callable[[bytes], bytes]] = {
    "is no whole sentencepiece model (it ends too early)": lambda model: model[:-1],
    "is no whole sentencepiece model": lambda model: b"\xff" * 40,
    "has no tokens and another method than BPE": lambda model: b"",
    "has another method than BPE": lambda model: model + message((2, message((3, 1)))),
    "has tokens that are of no use": lambda model: with_piece(model, "unheard", -5.0, 5),
    "has tokens twice": lambda model: with_piece(model, "a", -5.0),
    "has no bytes for rare characters": lambda model: model + message((2, message((35, 0)))),
    "has blanks behind words": lambda model: model + message((2, message((24, 1)))),
    "has rules that change characters": lambda model: model + message((3, message((2, b"\0\0\0\0")))),
    "has both user-defined tokens and a blank in front of texts": lambda model: model + message((3, message((3, 1)))),
    # The score decides what is joined first; sentencepiece would take "Wh" and "at" apart with neither of them a token.
    "makes the tokens": lambda model: with_piece(model, "龘", -1.0) and with_piece(model, "𠮷野", 1.0),
}


@pytest.mark.parametrize("sentence", UNUSABLE)
def test_a_tokenizer_that_cannot_be_the_same_is_refused(
    sentence: str, original: Callable[..., Path], trained: Callable[..., bytes], tmp_path: Path
) -> None:
    source = original()
    (source / "tokenizer.model").write_bytes(UNUSABLE[sentence](trained()))
    with pytest.raises(ModelError) as raised:
        convert_internlm(source, tmp_path / "llama", "internlm2")
    assert sentence in str(raised.value)
    assert not (tmp_path / "llama").exists()


# --- what is refused ---


def without(path: Path, name: str) -> Path:
    weights = load_file(path / "model.safetensors")
    del weights[name]
    save_file(weights, path / "model.safetensors")
    return path


def with_tensor(path: Path, name: str, tensor: torch.Tensor) -> Path:
    save_file({**load_file(path / "model.safetensors"), name: tensor}, path / "model.safetensors")
    return path


def emptied(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).unlink()
    return path


def torn_pickle(path: Path) -> Path:
    file = pickled(path, 1) / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-2000])
    return path


def integers(path: Path) -> Path:
    torch.save({"model.norm.weight": torch.ones(64, dtype=torch.int8)}, emptied(path, "model.safetensors") / "pytorch_model.bin")
    return path


W2 = "model.layers.1.feed_forward.w2"
REFUSED: Mapping[str, Callable[[Path], Path]] = {
    "is of type 'llama', not 'internlm2'": lambda path: change(path, model_type="llama"),
    "is of type 'internlm', not 'internlm2'; use mmed-train convert internlm": lambda path: change(path, model_type="internlm"),
    "holds quantised weights": lambda path: change(path, quantization_config={"bits": 4}),
    "hidden_size='64', which is no whole number above 0": lambda path: change(path, hidden_size="64"),
    "hidden_size=66, which does not go with num_attention_heads=4": lambda path: change(path, hidden_size=66),
    "num_key_value_heads=3, which does not go with num_attention_heads=4": lambda path: change(path, num_key_value_heads=3),
    "turns positions by 'yarn', which internlm2 does not know": lambda path: change(path, rope_scaling={"type": "yarn"}),
    "turns positions by 'dynamic', which cannot be read": lambda path: change(path, rope_scaling="dynamic"),
    "turns positions by {'type': 'linear', 'factor': 'x'}, which cannot be read": lambda path: change(
        path, rope_scaling={"type": "linear", "factor": "x"}
    ),
    f"lacks 1 of its model's tensors, such as {W2}.weight": lambda path: without(path, f"{W2}.weight"),
    "lacks 4 of its model's tensors, such as model.layers.0.attention.wo.bias": lambda path: change(path, bias=True),
    f"holds 1 tensors that internlm2 does not have, such as {W2}.bias": lambda path: with_tensor(
        path, f"{W2}.bias", torch.ones(64)
    ),
    "attention.wqkv.weight is of shape (128, 64), by config.json it is (192, 64)": lambda path: change(
        path, num_key_value_heads=4
    ),
    "model.norm.weight is of shape (1, 64), by config.json it is (64,)": lambda path: with_tensor(
        path, "model.norm.weight", torch.ones(1, 64)
    ),
    "tok_embeddings.weight is of shape (2048, 64), by config.json it is (2047, 64)": lambda path: change(path, vocab_size=2047),
    "pytorch_model.bin is not there; copy the whole folder": lambda path: emptied(path, "model.safetensors"),
    "pytorch_model.bin cannot be read": torn_pickle,
    "model.norm.weight is no tensor of type float64, float32, float16, bfloat16": integers,
    "tokenizer.model is not there": lambda path: emptied(path, "tokenizer.model"),
    "holds no config.json": lambda path: emptied(path, "config.json"),
    "has the token 2050, but the model has 2048 embeddings": lambda path: change(path, "added_tokens.json", zzz=2050),
    "has the token 'a' twice": lambda path: change(path, "added_tokens.json", a=2001),
    "names '[PAD]' as a special token, which is no token": lambda path: change(path, "tokenizer_config.json", pad_token="[PAD]"),
    "the added tokens in": lambda path: change(path, "tokenizer_config.json", added_tokens_decoder={"x": 1}),
    "a token without text": lambda path: change(path, "added_tokens.json", **{"": 2001}),
    "surrogates not allowed": lambda path: change(path, "added_tokens.json", **{"\ud800": 2001}),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_is_no_whole_internlm_2_is_refused(sentence: str, original: Callable[..., Path], tmp_path: Path) -> None:
    source = REFUSED[sentence](original())
    with pytest.raises(ModelError) as raised:
        convert_internlm(source, tmp_path / "llama", "internlm2")
    assert sentence in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["original"]


def test_what_is_there_is_not_written_over(original: Callable[..., Path], tmp_path: Path) -> None:
    source = original()
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "link", "original"):
        with pytest.raises(UsageError, match=f"{name} is there already; remove it, or name another folder"):
            convert_internlm(source, tmp_path / name, "internlm2")
    assert (tmp_path / "file").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file", "link", "original"}


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["Ctrl-C", "full disk"])
def test_an_interrupted_conversion_leaves_nothing(
    trouble: BaseException, original: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = original()
    written = []

    def write(file: Path, tensors: Sequence[Any]) -> None:
        written.append(file)
        file.write_bytes(b"half")
        if len(written) == 2:
            raise trouble

    monkeypatch.setattr(internlm, "_write_shard", write)
    with pytest.raises(type(trouble)):
        convert_internlm(source, tmp_path / "llama", "internlm2", largest_shard=600_000)
    assert len(written) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["original"]


# --- the engines ---


def test_the_configuration_says_all_that_the_original_said(original: Callable[..., Path], tmp_path: Path) -> None:
    source = original("internlm", rms_norm_eps=3e-6, bos_token_id=5, eos_token_id=[2, 7], torch_dtype="float16")
    change(source, "generation_config.json", eos_token_id=[2, 9], max_new_tokens=17)
    out = convert_internlm(source, tmp_path / "llama", "internlm").path
    assert sorted(path.name for path in out.iterdir()) == [
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    ]
    config = AutoConfig.from_pretrained(out)
    assert (config.model_type, config.architectures, config.dtype) == ("llama", ["LlamaForCausalLM"], torch.float16)
    assert (config.rms_norm_eps, config.bos_token_id, config.eos_token_id, config.pad_token_id) == (3e-6, 5, [2, 7], 2)
    assert (config.attention_bias, config.mlp_bias, config.num_key_value_heads, config.head_dim) == (True, False, 4, 16)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 20000.0}
    assert "auto_map" not in (out / "config.json").read_text() + (out / "tokenizer_config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(out).generation_config.eos_token_id == [2, 9]


def test_a_run_with_the_converted_model_answers_every_question(
    original: Callable[..., Path], trained: Callable[..., bytes], tmp_path: Path
) -> None:
    source = original()
    chat_tokens(source, trained())
    out = convert_internlm(source, tmp_path / "llama", "internlm2").path
    plan = RunPlan(model=f"hf:{out}", tasks=("mmedbench_mini_en", "mmedbench_mini_zh"), model_args={"device": "cpu"})
    record, _ = run(plan, Catalog(make_host(block=[])), tmp_path / "run")
    assert {(figure.language, figure.failed) for figure in record.aggregates} >= {("en", 0), ("zh", 0)}


def scores(backend: Any) -> list[float]:
    """The loglikelihoods of some continuations of prompts in three languages."""
    prompts = ["Question: Which metal is it?\nAnswer:", "问题：是哪种金属？　😀\n答案：", "Вопрос:  какой металл? Ответ:"]
    continuations = (" A", " B,C\n", " железо", "亜鉛")
    requests = [
        LoglikelihoodRequest(
            id=str(i),
            prompt=Prompt(question=prompt),
            continuations=continuations,
            answers=tuple(frozenset("ABCD"[k]) for k in range(len(continuations))),
            options={},
        )
        for i, prompt in enumerate(prompts)
    ]
    found = {response.request_id: response for response in backend.loglikelihood(requests)}
    assert all(isinstance(response, Loglikelihoods) for response in found.values()), found
    return [value for request in requests for value in found[request.id].values]


@pytest.mark.parametrize("kind", ["internlm", "internlm2"])
def test_llama_cpp_computes_the_same_from_the_exported_file(
    kind: Kind, original: Callable[..., Path], trained: Callable[..., bytes], texts: Sequence[str], tmp_path: Path
) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed")
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (make test-gguf builds it)")
    from mmed_train.gguf import export_gguf
    from mmedeval_gguf.backend import GGUFBackend
    from mmedeval_hf.backend import HFBackend

    source = original(kind)
    chat_tokens(source, trained())
    out = convert_internlm(source, tmp_path / "llama", kind).path
    exported = export_gguf(out, tmp_path / "model.gguf", "f32")
    assert exported.warnings == ()
    with GGUFBackend(str(exported.path), {"threads": "1"}) as theirs, HFBackend(str(out), {"device": "cpu"}) as ours:
        assert max(abs(a - b) for a, b in zip(scores(theirs), scores(ours), strict=True)) < 1e-4
        for text in [*texts[:400], *noise(200)]:
            assert theirs.encoder.encode([text]) == ours.encoder.encode([text]), text


# --- the command ---


def command(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli(list(args))
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_the_command_writes_a_folder_and_says_what_it_is(
    original: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = original(rope_scaling={"type": "dynamic", "factor": 1.0})
    code, out, err = command(capsys, "convert", "internlm2", str(source), str(tmp_path / "llama"))
    assert code == 0
    assert out.startswith(f"{tmp_path / 'llama'}: 21 tensors, 1.3 MB; the tokenizer was held against sentencepiece on ")
    assert err.startswith("note: up to 4,096 tokens")
    assert (tmp_path / "llama" / "config.json").is_file()


def test_pickled_weights_of_a_hub_name_are_fetched_only_where_there_are_no_others(
    original: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = pickled(original(), 1)
    asked = []

    def fetch(name: str, **settings: Any) -> str:
        asked.append((name, "pytorch_model*.bin" in settings["allow_patterns"]))
        return str(source)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert command(capsys, "convert", "internlm2", "org/model", str(tmp_path / "llama"))[0] == 0
    assert asked == [("org/model", False), ("org/model", True)]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["convert", "internlm", "./nowhere", "out"], "the model folder ./nowhere does not exist; check the path"),
        (["convert", "internlm", ".", "out"], "holds no config.json; name the folder that save_pretrained wrote"),
        (["convert", "internlm", ".", "."], ". is there already; remove it, or name another folder"),
        (["convert", "internlm", ".", "no/where"], "/no does not exist; make it, or name another folder"),
        (["convert", "internlm"], "Missing argument 'SRC'"),
        (["convert", "internlm3", ".", "out"], "No such command 'internlm3'"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_exit_code_2(
    args: Sequence[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(capsys, *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err


def test_a_missing_package_is_named_with_the_line_that_brings_it(tmp_path: Path) -> None:
    script = (
        "import sys\nsys.modules['sentencepiece'] = None\nfrom mmed_train.cli import cli\n"
        f"cli(['convert', 'internlm', {str(tmp_path)!r}, 'out'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert (
        "mmed-train convert internlm needs sentencepiece, not installed here; run: pip install 'mmedeval[convert]'" in done.stderr
    )
