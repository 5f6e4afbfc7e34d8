"""Checkpoints as GGUF: what comes back, that llama.cpp computes and tokenises the same, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

pytest.importorskip("gguf", reason="gguf is not installed")

import gguf

from mmed_train.cli import cli
from mmed_train.gguf import Kind, export_gguf
from mmedeval import LoglikelihoodRequest, Loglikelihoods, ModelError, Prompt, UsageError

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 1, "sliding_window": None},
    "qwen2": {"num_key_value_heads": 2},
}
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "tied embeddings": ("llama", {"tie_word_embeddings": True}),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "heads of their own size": ("llama", {"head_dim": 32}),
    "another base": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 777.0}}),
    "linear scaling": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
    "the scaling of Llama 3.1": ("llama", {"rope_parameters": {**LLAMA3, "original_max_position_embeddings": 64}}),
    "YaRN": (
        "qwen2",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}},
    ),
}


def export(path: Path, folder: Path, kind: Kind = "f32") -> Path:
    return export_gguf(path, folder / f"{path.name}-{kind}.gguf", kind).path


def fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def backend(path: Path, **arguments: str) -> Any:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (make test-gguf builds it)")
    from mmedeval_gguf.backend import GGUFBackend

    return GGUFBackend(str(path), {"threads": "1", **arguments})


def scores(backend: Any, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
    """The loglikelihoods of every continuation of every prompt."""
    requests = [
        LoglikelihoodRequest(
            id=str(i),
            prompt=Prompt(question=prompt),
            continuations=tuple(continuations),
            answers=tuple(frozenset("ABCDEFGH"[k]) for k in range(len(continuations))),
            options={},
        )
        for i, prompt in enumerate(prompts)
    ]
    found = {response.request_id: response for response in backend.loglikelihood(requests)}
    assert all(isinstance(response, Loglikelihoods) for response in found.values()), found
    return [value for request in requests for value in found[request.id].values]


def direct(path: Path, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
    """The same by transformers alone, in float32 and without a cache."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    values = []
    for prompt in prompts:
        start = len(tokenizer(prompt)["input_ids"])
        for continuation in continuations:
            ids = tokenizer(prompt + continuation)["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            values.append(float(sum(logits[i - 1, ids[i]] for i in range(start, len(ids)))))
    return values


def worst(a: Sequence[float], b: Sequence[float]) -> float:
    assert len(a) == len(b) > 0
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


PROMPTS = [
    "Question: Which metal is it?\nAnswer:",
    "問題：どの金属ですか。\n" * 4 + "答え：",
    "Вопрос: какой металл? " * 9 + "Ответ:",
]
CONTINUATIONS = [" A", " B,C\n", " железо", "亜鉛"]


# --- what comes back ---


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_tensor_and_every_size_comes_back(model_type: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = checkpoint(model_type, config={**SIZES, **ARCHITECTURES[model_type]})
    out = export(path, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(path)
    found = tensors(out)
    config = model.config
    mapping = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2 if model_type == "qwen2" else gguf.MODEL_ARCH.LLAMA, 2)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight" or "output.weight" in found}
    assert {mapping.get_name(name, try_suffixes=(".weight", ".bias")) for name in state} == {*found}
    for name, tensor in state.items():
        stored = torch.tensor(found[mapping.get_name(name, try_suffixes=(".weight", ".bias"))].data)
        assert stored.shape == tensor.shape
        if model_type != "qwen2" and (".q_proj." in name or ".k_proj." in name):
            # llama.cpp turns neighbours, transformers turns halves.
            size = config.head_dim
            order = [
                head * size + half * size // 2 + i
                for head in range(len(tensor) // size)
                for i in range(size // 2)
                for half in (0, 1)
            ]
            tensor = tensor[order]
        assert torch.equal(stored, tensor), name
    about = fields(out)
    arch = "qwen2" if model_type == "qwen2" else "llama"
    assert about["general.architecture"] == arch
    assert (about[f"{arch}.context_length"], about[f"{arch}.block_count"]) == (4096, 2)
    assert (about[f"{arch}.attention.head_count"], about[f"{arch}.attention.head_count_kv"]) == (4, config.num_key_value_heads)
    assert about["tokenizer.ggml.pre"] == "gpt-2"
    assert (about["tokenizer.ggml.bos_token_id"], about["tokenizer.ggml.eos_token_id"]) == (0, 1)
    assert about["tokenizer.ggml.padding_token_id"] == 2
    assert about["tokenizer.ggml.add_bos_token"] is True
    assert about["tokenizer.ggml.add_eos_token"] is False
    assert about["tokenizer.chat_template"] == AutoTokenizer.from_pretrained(path).chat_template


def test_vectors_stay_in_f32_and_odd_rows_in_f16(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = checkpoint("llama", config={**SIZES, "intermediate_size": 100})
    sizes = {}
    for kind in ("f32", "f16", "q8_0"):
        out = export(path, tmp_path, kind)
        sizes[kind] = out.stat().st_size
        types = {name: tensor.tensor_type.name for name, tensor in tensors(out).items()}
        assert {name for name, of in types.items() if of == "F32"} == (
            {*types} if kind == "f32" else {name for name in types if "norm" in name}
        )
        # 100 is no multiple of 32, and only this matrix has such rows.
        assert types["blk.0.ffn_down.weight"] == {"f32": "F32", "f16": "F16", "q8_0": "F16"}[kind]
        assert types["blk.0.attn_q.weight"] == kind.upper()
        assert types["token_embd.weight"] == kind.upper()
    assert sizes["f32"] > 1.7 * sizes["f16"] > 2 * sizes["q8_0"]


def test_an_output_layer_of_its_own_is_kept_though_the_configuration_ties_it(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """As transformers does: the values of both are told by llama.cpp, too."""
    path = changed_config(checkpoint(config=SIZES), tmp_path, tie_word_embeddings=True)
    exported = export_gguf(path, tmp_path / "model.gguf", "f32")
    assert "output.weight" in tensors(exported.path)
    assert "another one, which is kept" in exported.warnings[0]
    with backend(exported.path) as opened:
        assert worst(scores(opened, PROMPTS, CONTINUATIONS), direct(path, PROMPTS, CONTINUATIONS)) < 2e-5


def test_an_output_layer_that_is_the_embeddings_is_stored_once(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tied = checkpoint("llama", config={**SIZES, "tie_word_embeddings": True})
    copy = tmp_path / "twice"
    shutil.copytree(tied, copy)
    weights = load_file(copy / "model.safetensors")
    assert "lm_head.weight" not in weights
    save_file({**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}, copy / "model.safetensors")
    exported = export_gguf(copy, tmp_path / "model.gguf", "f32")
    assert exported.warnings == ()
    assert "output.weight" not in tensors(exported.path)


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert export(checkpoint(), tmp_path).read_bytes() == export(checkpoint(), tmp_path / "other").read_bytes()


def test_memory_holds_a_tensor_at_a_time(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = checkpoint("llama", config={"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8})
    size = (path / "model.safetensors").stat().st_size
    tracemalloc.start()
    try:
        out = export(path, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert out.stat().st_size > size > 25e6
    assert peak < size / 3


def test_a_window_ends_the_context_of_the_file(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    exported = export_gguf(checkpoint("mistral", config={"sliding_window": 512}), tmp_path / "m.gguf", "f32")
    assert fields(exported.path)["llama.context_length"] == 512
    assert "512 of 4096" in exported.warnings[0]


# --- the same numbers ---


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_llama_cpp_computes_what_transformers_does(model_type: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = checkpoint(model_type, config={**SIZES, **ARCHITECTURES[model_type]})
    with backend(export(path, tmp_path)) as exported:
        assert worst(scores(exported, PROMPTS, CONTINUATIONS), direct(path, PROMPTS, CONTINUATIONS)) < 2e-5


@pytest.mark.parametrize("name", VARIANTS)
def test_so_it_does_with(name: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    model_type, settings = VARIANTS[name]
    # Random weights that the sharpest of these settings does not turn into certainty about one token.
    path = checkpoint(model_type, config={**SIZES, "initializer_range": 0.1, **settings})
    with backend(export(path, tmp_path)) as exported:
        assert worst(scores(exported, PROMPTS, CONTINUATIONS), direct(path, PROMPTS, CONTINUATIONS)) < 2e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights_in_several_files_arrive_exactly(
    dtype: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "half"
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama", config=SIZES), dtype=getattr(torch, dtype))
    model.save_pretrained(path, max_shard_size="200KB")
    assert len([*path.glob("*.safetensors")]) > 1
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint("llama", config=SIZES) / file, path)
    with backend(export(path, tmp_path)) as exported:
        assert worst(scores(exported, PROMPTS, CONTINUATIONS), direct(path, PROMPTS, CONTINUATIONS)) < 2e-5


# --- the same tokens ---


def rewrite_tokenizer(path: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a checkpoint with another tokenizer.json."""
    copy = folder / "changed"
    shutil.copytree(path, copy)
    content = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    (copy / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return copy


def with_tokenizer(path: Path, folder: Path, tokenizer: Any) -> Path:
    """A copy of a checkpoint with this tokenizer; it must have room among the checkpoint's embeddings."""
    copy = folder / "changed"
    shutil.copytree(path, copy)
    tokenizer.save(str(copy / "tokenizer.json"))
    return copy


def trained(texts: Sequence[str], pre_tokenizer: Any, *, ignore_merges: bool = False) -> Any:
    """A byte-level BPE tokenizer that has read `texts` through a pre-tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1900,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def split_by(pattern: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def differences(path: Path, out: Path, texts: Sequence[str]) -> list[str]:
    """The texts that llama.cpp and transformers make different tokens of, with and without special tokens in front."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    with backend(out) as exported:
        ours = exported.vocabulary
        plain = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        full = tokenizer(list(texts))["input_ids"]
        wrong = [
            text
            for text, a, b in zip(texts, plain, full, strict=True)
            if ours(text, add_special_tokens=False)["input_ids"] != a or ours(text)["input_ids"] != b
        ]
        back = [
            text
            for text, ids in zip(texts, plain, strict=True)
            if ours.decode(ids) != tokenizer.decode(ids, skip_special_tokens=True)
        ]
    return wrong + back


def patterns() -> Mapping[str, tuple[str, bool]]:
    from mmed_train.gguf_tokenizer import PRE_TOKENIZERS

    return {name: found for found, name in PRE_TOKENIZERS.items()}


@pytest.mark.parametrize("name", ["gpt-2", "qwen2", "llama-bpe", "smaug-bpe", "tekken"])
def test_texts_in_six_languages_and_awkward_ones_become_the_same_tokens(
    name: str, checkpoint: Callable[..., Path], texts: Sequence[str], tmp_path: Path
) -> None:
    pattern, ignore_merges = patterns()[name]
    made = trained(texts, split_by(pattern), ignore_merges=ignore_merges)
    path = with_tokenizer(checkpoint(config={"vocab_size": 2000}), tmp_path, made)
    out = export(path, tmp_path)
    assert fields(out)["tokenizer.ggml.pre"] == name
    assert len(texts) > 900
    assert differences(path, out, texts) == []


def test_so_do_the_texts_of_mmedbench(checkpoint: Callable[..., Path], published_texts: Sequence[str], tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    made = trained(published_texts, pre_tokenizers.ByteLevel(add_prefix_space=False))
    path = with_tokenizer(checkpoint(config={"vocab_size": 2000}), tmp_path, made)
    assert len(published_texts) > 900
    assert differences(path, export(path, tmp_path), published_texts) == []


def sentencepiece_like(texts: Sequence[str], *, prefix: bool = True, whole: bool = True) -> Any:
    """A tokenizer as transformers makes of Llama 2's: blanks as ▁, bytes for what is unknown, and every way to make a token.

    With `whole` unset only one way to make each token is listed, as a trainer of BPE does.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.train_from_iterator(
        [word for text in texts for word in text.replace("\0", "").replace(" ", " ▁").split(" ")],
        # Rarer characters become bytes.
        trainers.BpeTrainer(vocab_size=2400, limit_alphabet=800, show_progress=False),
    )
    learnt = json.loads(learner.to_str())["model"]
    special = ["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(learnt["vocab"], key=learnt["vocab"].get)])}
    merges: list[tuple[str, str]] = []
    for pair in learnt["merges"]:
        token = "".join(pair)
        ways = [(token[:i], token[i:]) for i in range(1, len(token)) if {token[:i], token[i:]} <= {*vocabulary}]
        merges += [way for way in ways if way not in merges] if whole else [tuple(pair)]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    blanks = [normalizers.Prepend("▁")] * prefix
    tokenizer.normalizer = normalizers.Sequence([*blanks, normalizers.Replace(" ", "▁")])
    ends = [decoders.Strip(" ", 1, 0)] * prefix
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *ends])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "<pad>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


@pytest.mark.parametrize("prefix", [True, False], ids=["with a blank in front", "without"])
def test_tokenizers_of_the_sentencepiece_kind_give_the_same_tokens(
    prefix: bool, checkpoint: Callable[..., Path], texts: Sequence[str], tmp_path: Path
) -> None:
    path = with_tokenizer(checkpoint(config={"vocab_size": 3000}), tmp_path, sentencepiece_like(texts, prefix=prefix))
    out = export(path, tmp_path)
    about = fields(out)
    assert about["tokenizer.ggml.model"] == "llama"
    assert about["tokenizer.ggml.add_space_prefix"] is prefix
    # transformers puts no blank in front of nothing, llama.cpp does; no prompt is empty.
    assert differences(path, out, [text for text in texts if text]) == []


def test_a_tokenizer_without_bos_says_so(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = checkpoint(bos=False)
    out = export(path, tmp_path)
    assert fields(out)["tokenizer.ggml.add_bos_token"] is False
    assert differences(path, out, ["iron", " zinc", "<s>copper"]) == []


def test_more_ends_than_one_are_told(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint(), copy)
    (copy / "generation_config.json").write_text('{"eos_token_id": [1, 7, 9, 11]}')
    exported = export_gguf(copy, tmp_path / "model.gguf", "f32")
    assert exported.warnings == ("GGUF has no place for further tokens that end a text: 11",)
    about = fields(exported.path)
    assert [about[f"tokenizer.ggml.{role}_token_id"] for role in ("eos", "eot", "eom")] == [1, 7, 9]


# --- what is refused ---


def changed_config(path: Path, folder: Path, **settings: Any) -> Path:
    copy = folder / "changed"
    shutil.copytree(path, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps({**config, **settings}), encoding="utf-8")
    return copy


def with_text(path: Path, folder: Path, name: str, content: str) -> Path:
    copy = folder / "changed"
    shutil.copytree(path, copy)
    (copy / name).write_text(content, encoding="latin-1")
    return copy


def with_json(path: Path, folder: Path, name: str, **values: Any) -> Path:
    return with_text(path, folder, name, json.dumps({**json.loads((path / name).read_text(encoding="utf-8")), **values}))


REFUSED: Mapping[str, Callable[[Path, Path], Path]] = {
    "is of type 'bloom'": lambda path, folder: changed_config(path, folder, model_type="bloom"),
    "turns positions by 'dynamic' scaling": lambda path, folder: changed_config(
        path, folder, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    ),
    "has the activation 'gelu'": lambda path, folder: changed_config(path, folder, hidden_act="gelu"),
    "lacks 9 of its model's tensors": lambda path, folder: changed_config(path, folder, num_hidden_layers=3),
    "holds the tensor model.layers.1.": lambda path, folder: changed_config(path, folder, num_hidden_layers=1),
    "holds model.layers.0.self_attn.k_proj.weight of the size [64, 64], its config.json says [16, 64]": lambda path, folder: (
        changed_config(path, folder, num_key_value_heads=1)
    ),
    "holds model.layers.0.self_attn.k_proj.weight of the size [64, 64], its config.json says [32, 64]": lambda path, folder: (
        changed_config(path, folder, head_dim=8)
    ),
    "holds model.layers.0.mlp.down_proj.weight of the size [64, 176], its config.json says [64, 100]": lambda path, folder: (
        changed_config(path, folder, intermediate_size=100)
    ),
    "holds lm_head.weight of the size [1110, 64], its config.json says [1110, 32]": lambda path, folder: changed_config(
        path, folder, hidden_size=32, head_dim=16
    ),
    "num_key_value_heads='x'": lambda path, folder: changed_config(path, folder, num_key_value_heads="x"),
    "head_dim=0": lambda path, folder: changed_config(path, folder, head_dim=0),
    "num_attention_heads=True": lambda path, folder: changed_config(path, folder, num_attention_heads=True),
    "rms_norm_eps='x'": lambda path, folder: changed_config(path, folder, rms_norm_eps="x"),
    "turns positions by 5": lambda path, folder: changed_config(path, folder, rope_parameters=5),
    "has rope_theta='x'": lambda path, folder: changed_config(
        path, folder, rope_parameters={"rope_type": "default", "rope_theta": "x"}
    ),
    "the token -1, but the model has": lambda path, folder: rewrite_tokenizer(
        path, folder, lambda content: content["model"]["vocab"].update(zzz=-1)
    ),
    "the token 'x', but the model has": lambda path, folder: rewrite_tokenizer(
        path, folder, lambda content: content["model"]["vocab"].update(zzz="x")
    ),
    "cannot be read (KeyError: 'vocab')": lambda path, folder: rewrite_tokenizer(
        path, folder, lambda content: content["model"].pop("vocab")
    ),
    "cannot be read (KeyError: 'merges')": lambda path, folder: rewrite_tokenizer(
        path, folder, lambda content: content["model"].pop("merges")
    ),
    "cannot be read (KeyError: 'special')": lambda path, folder: rewrite_tokenizer(
        path, folder, lambda content: content["added_tokens"][0].pop("special")
    ),
    "cannot be read (TypeError: ": lambda path, folder: rewrite_tokenizer(
        path, folder, lambda content: content.update(added_tokens=[5])
    ),
    "cannot be read (AttributeError: ": lambda path, folder: rewrite_tokenizer(
        path, folder, lambda content: content.update(model=[1])
    ),
    "cannot be read (TypeError: a chat template is text, not 5)": lambda path, folder: with_json(
        path, folder, "tokenizer_config.json", chat_template=5
    ),
    "chat_template.json cannot be read": lambda path, folder: with_text(path, folder, "chat_template.json", "{"),
    "cannot be read (UnicodeDecodeError: ": lambda path, folder: with_text(path, folder, "chat_template.jinja", "\xff"),
    "num_hidden_layers=None": lambda path, folder: changed_config(path, folder, num_hidden_layers=None),
    "embeddings, but its config.json says 100": lambda path, folder: changed_config(path, folder, vocab_size=100),
    "they do not belong together": lambda path, folder: rewrite_tokenizer(
        path, folder, lambda content: content["model"]["vocab"].update(zzz=5000)
    ),
    "turns positions by 'yarn' scaling (attention_factor, factor": lambda path, folder: changed_config(
        path, folder, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "attention_factor": 1.5}
    ),
    "turns positions by 'llama3' scaling, but has low_freq_factor=None": lambda path, folder: changed_config(
        path, folder, rope_parameters={"rope_type": "llama3", "rope_theta": 1e4, "factor": 2.0}
    ),
    "a way of splitting text": lambda path, folder: rewrite_tokenizer(
        path, folder, lambda content: content.update(pre_tokenizer={"type": "Whitespace"})
    ),
    "a normalizer of type Lowercase": lambda path, folder: rewrite_tokenizer(
        path, folder, lambda content: content.update(normalizer={"type": "Lowercase"})
    ),
    "a tokenizer of type WordLevel": lambda path, folder: rewrite_tokenizer(
        path, folder, lambda content: content.update(model={"type": "WordLevel", "vocab": {}, "unk_token": "x"})
    ),
    "special tokens around a text": lambda path, folder: rewrite_tokenizer(
        path,
        folder,
        lambda content: content["post_processor"].update(
            single=[{"SpecialToken": {"id": "<pad>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            special_tokens={"<pad>": {"id": "<pad>", "ids": [2], "tokens": ["<pad>"]}},
        ),
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_llama_cpp_would_do_otherwise_is_refused(sentence: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = REFUSED[sentence](checkpoint(), tmp_path)
    with pytest.raises(ModelError) as raised:
        export(path, tmp_path)
    assert sentence in str(raised.value)
    assert [*tmp_path.glob("*.gguf*")] == []


def test_a_list_of_merges_that_llama_cpp_would_not_follow_is_refused(
    checkpoint: Callable[..., Path], texts: Sequence[str], tmp_path: Path
) -> None:
    path = with_tokenizer(checkpoint(config={"vocab_size": 3000}), tmp_path, sentencepiece_like(texts, whole=False))
    with pytest.raises(ModelError, match="a list of merges"):
        export(path, tmp_path)


def test_numbers_beyond_f16_are_refused_and_nothing_is_left(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "large"
    shutil.copytree(checkpoint(), path)
    model = AutoModelForCausalLM.from_pretrained(path)
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = 1e5
    model.save_pretrained(path)
    with pytest.raises(ModelError, match=r"blk\.1\.ffn_up\.weight holds numbers too large for F16; export with --type f32"):
        export(path, tmp_path, "f16")
    assert [file.name for file in tmp_path.iterdir()] == ["large"]
    assert export(path, tmp_path).is_file()


@pytest.mark.parametrize(
    ("kind", "number", "fits"),
    [("f16", 65504.0, True), ("f16", -65520.0, False), ("q8_0", 127 * 65504.0, True), ("q8_0", -127 * 65520.0, False)],
)
def test_what_a_type_can_hold_is_what_it_gives_back(
    kind: Kind, number: float, fits: bool, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "large"
    shutil.copytree(checkpoint(), path)
    model = AutoModelForCausalLM.from_pretrained(path)
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = number
    model.save_pretrained(path)
    if not fits:
        with pytest.raises(ModelError, match=rf"holds numbers too large for {kind.upper()}"):
            export(path, tmp_path, kind)
        return
    stored = tensors(export(path, tmp_path, kind))["blk.1.ffn_up.weight"]
    assert gguf.dequantize(stored.data, stored.tensor_type)[0, 0] == pytest.approx(number, rel=1e-3)


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_not_exported(
    kind: Kind, number: float, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "diverged"
    shutil.copytree(checkpoint(), path)
    model = AutoModelForCausalLM.from_pretrained(path)
    model.model.layers[1].mlp.up_proj.weight.data[3, 3] = number
    model.save_pretrained(path)
    with pytest.raises(ModelError, match=r"blk\.1\.ffn_up\.weight holds what is no number \(NaN or infinite\)"):
        export(path, tmp_path, kind)
    assert [file.name for file in tmp_path.iterdir()] == ["diverged"]


@pytest.mark.parametrize("cut", [4, 100, -10])
def test_torn_weights_are_refused(cut: int, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "torn"
    shutil.copytree(checkpoint(), path)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut])
    with pytest.raises(ModelError, match="is no whole safetensors file"):
        export(path, tmp_path)


def test_a_disk_that_is_full_is_one_sentence_and_leaves_nothing(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full(self: Any, data: Any) -> None:
        written.append(data)
        if len(written) == 3:
            raise OSError("71040 requested and 40408 written")  # as numpy says it

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(
        ModelError, match=r"model\.gguf cannot be written \(71040 requested and 40408 written\); is the disk full"
    ):
        export_gguf(checkpoint(), tmp_path / "model.gguf", "f32")
    assert [*tmp_path.iterdir()] == []


def test_a_file_that_is_there_is_not_written_over(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        export_gguf(checkpoint(), tmp_path / "model.gguf", "f32")
    assert (tmp_path / "model.gguf").read_text() == "mine"


# --- the command ---


def command(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli(list(args))
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_the_command_writes_a_file_and_says_what_it_is(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = checkpoint("mistral", config={"sliding_window": 512})
    code, out, err = command(capsys, "export", "gguf", str(path), "--type", "q8_0")
    assert (code, [file.name for file in tmp_path.iterdir()]) == (0, [f"{path.name}-q8_0.gguf"])
    assert "21 tensors" in out
    assert err.startswith("note: the model attends to 512 tokens")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["export", "gguf", "nowhere", "--type", "f32"], "nowhere is no folder; name the checkpoint's folder"),
        (["export", "gguf", ".", "--type", "f32"], "holds no config.json; name the folder that save_pretrained wrote"),
        (["export", "gguf", "adapter", "--type", "f32"], "is an adapter; merge it into its base model first"),
        (["export", "gguf", "adapter", "--type", "q4_0"], "'q4_0' is not one of 'f32', 'f16', 'q8_0'"),
        (["export", "gguf", "adapter", "--type", "f32", "--out", "no/where.gguf"], "the folder no does not exist"),
        (["exprot"], "unknown command 'exprot'; did you mean export?"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_exit_code_2(
    args: Sequence[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    code, out, err = command(capsys, *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom mmed_train.cli import cli\n"
        "try:\n    cli(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'numpy', 'gguf', 'torch', 'rich'} & {*sys.modules}, sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "export" in done.stdout
