"""The model: no document sees another, float32 weights, adapters that train."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmed_train.training.jobs import prepare
from mmed_train.training.model import check_isolation, leak, load_model, parameters_of
from mmed_train.training.recipe import Recipe
from mmedeval.errors import DataError, ModelError, UsageError
from mmedeval_hf.tiny import make_tiny_model

Make = Callable[..., Recipe]


@pytest.mark.parametrize(
    ("kind", "attention"),
    [
        *((kind, attention) for kind in ("llama", "qwen2", "mistral", "gpt2") for attention in ("eager", "sdpa")),
        ("gemma2", "eager"),
    ],
)
def test_documents_in_a_row_do_not_see_each_other(kind: str, attention: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    path = make_tiny_model(tmp_path, model_type=kind, vocabulary=300)
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation=attention)
    model.config.use_cache = False
    assert leak(model, rows=2) == 0.0


def test_a_model_whose_documents_see_each_other_is_refused_with_a_way_out(tmp_path: Path) -> None:
    """BLOOM has no positions that could begin again."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("bloom", vocab_size=100, hidden_size=32, n_layer=2, n_head=2)
    model = AutoModelForCausalLM.from_config(config)
    model.config.use_cache = False
    with pytest.raises(ModelError, match=r"documents in a row (would )?see each other.*; a way out"):
        check_isolation(model, rows=1, way_out="a way out")


def test_the_check_would_see_a_leak(base: Path) -> None:
    """A mask of ones says that all is one document."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    forward = model.forward
    model.forward = lambda **given: forward(**{**given, "attention_mask": torch.ones_like(given["input_ids"])})
    assert leak(model) > 0.01
    with pytest.raises(ModelError, match=r"a logit moved by"):
        check_isolation(model, rows=1, way_out="-")


@pytest.mark.parametrize(("kind", "targets"), [("lora", ["q_proj", "v_proj"]), ("dora", ["all-linear"])])
def test_an_adapter_trains_its_own_weights_alone(kind: str, targets: list[str], recipe: Make, base: Path) -> None:
    told = recipe("finetune", adapter={"kind": kind, "r": 4, "targets": targets}, model={"gradient_checkpointing": True})
    model = load_model(told, seed=0)
    everything, trained = parameters_of(model)
    assert 0 < trained < everything / 3
    assert all(("lora_" in name) == parameter.requires_grad for name, parameter in model.named_parameters())
    loss = model(input_ids=torch.arange(10)[None], labels=torch.arange(10)[None]).loss
    loss.backward()
    # The second matrix begins at zero, so that the first one gets its gradients later.
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in model.named_parameters() if "lora_B" in name)
    assert model.peft_config["default"].base_model_name_or_path == str(base)


def test_targets_that_the_model_does_not_have_are_told(recipe: Make) -> None:
    with pytest.raises(ModelError, match=r"adapter.targets = wqkv: .*not found"):
        load_model(recipe("finetune", adapter={"kind": "lora", "targets": ["wqkv"]}), seed=0)


def test_new_weights_are_those_of_the_seed(recipe: Make, base: Path) -> None:
    told = recipe(model={"path": None, "config": str(base), "tokenizer": str(base)})
    one, same, other = (load_model(told, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_tokenizer_that_did_not_make_the_shards_is_refused(recipe: Make, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", texts=["entirely other words " * 50], vocabulary=390)
    with pytest.raises(DataError, match=r"was made with another tokenizer .*tokenize its source again with the right one"):
        prepare(recipe(model={"tokenizer": str(other)}), say=print)


def test_a_model_with_fewer_embeddings_than_the_tokenizer_has_tokens_is_refused(recipe: Make, base: Path, tmp_path: Path) -> None:
    settings = json.loads((base / "config.json").read_text())
    (tmp_path / "small.json").write_text(json.dumps({**settings, "vocab_size": 300}))
    told = recipe(model={"path": None, "config": str(tmp_path / "small.json"), "tokenizer": str(base)})
    with pytest.raises(ModelError, match=r"the shards hold tokens up to \d+, the model knows 300; tokenize the corpus"):
        prepare(told, say=print)
    tuned = recipe("finetune", model={"path": None, "config": str(tmp_path / "small.json"), "tokenizer": str(base)})
    with pytest.raises(ModelError, match=r"embeddings"):
        prepare(tuned, say=print)


def test_rows_longer_than_the_models_positions_are_refused(recipe: Make) -> None:
    with pytest.raises(UsageError, match=r"mix.window = 5000 is more than the 4096 positions of the model; lower it"):
        prepare(recipe(mix={"window": 5000}), say=print)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"path": "./nowhere"}, r"the model folder .*nowhere does not exist"),
        ({"path": None, "config": "no.json", "tokenizer": "BASE"}, r"no.json cannot be used as a model's config"),
    ],
)
def test_a_model_that_is_not_there_is_one_sentence(model: dict[str, Any], said: str, recipe: Make, base: Path) -> None:
    told = {name: str(base) if value == "BASE" else value for name, value in model.items()}
    with pytest.raises(ModelError, match=said):
        prepare(recipe(model=told), say=print)


def test_an_adapter_as_the_base_is_refused(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"is an adapter; merge it first"):
        prepare(recipe(model={"path": str(tmp_path / "lora")}), say=print)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"adapter": {"kind": "qlora"}}, r"adapter.kind = 'qlora' needs bitsandbytes, not installed here; run: pip install"),
        ({"logs": {"to": ["tensorboard"]}}, r"logs.to = tensorboard needs tensorboard, not installed here; run: pip install"),
        ({"model": {"liger": True}}, r"model.liger needs (a GPU|liger-kernel, not installed here)"),
    ],
)
def test_a_package_that_is_missing_is_told_before_anything_is_read(
    sections: dict[str, Any], said: str, recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmed_train.training.jobs.find_spec", lambda name: None)
    monkeypatch.setattr("mmed_train.training.jobs.read_job", None)
    with pytest.raises(UsageError, match=said):
        prepare(recipe(**sections), say=print)


def test_an_adapter_on_random_weights_is_refused(recipe: Make, base: Path) -> None:
    told = recipe(model={"path": None, "config": str(base), "tokenizer": str(base)}, adapter={"kind": "lora"})
    with pytest.raises(UsageError, match=r"adapter.kind = 'lora' would put an adapter on random weights; give model.path"):
        prepare(told, say=print)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_qlora_trains_an_adapter_on_four_bits(recipe: Make, trained: Callable[..., Path], losses: Callable[..., Any]) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    told = recipe(
        "finetune", data={"limit": 1}, adapter={"kind": "qlora", "dropout": 0}, train={"epochs": 12, "steps": None, "lr": 2e-2}
    )
    job = prepare(told, say=print)
    layer = job.model.get_base_model().model.layers[0].mlp.up_proj.base_layer
    assert isinstance(layer, bitsandbytes.nn.Linear4bit)
    assert {each.dtype for each in job.model.parameters() if each.requires_grad} == {torch.float32}
    final = trained(told)
    assert (final / "adapter_model.safetensors").is_file()
    assert losses(told.output)[-1] < losses(told.output)[0] - 1


# --- folders of strangers ---


@pytest.fixture
def changed(base: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the base with other values in one of its JSON files."""

    def make(file: str = "config.json", **values: Any) -> Path:
        folder = tmp_path / "strange"
        shutil.copytree(base, folder)
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**settings, **values}))
        return folder

    return make


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"model_type": "strange", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}),
        ("tokenizer_config.json", {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.T", "own.T"]}}),
    ],
)
def test_code_that_comes_with_a_model_is_not_run_and_nobody_is_asked_to(
    file: str, values: dict[str, Any], recipe: Make, changed: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = changed(file, **values)
    ran = folder / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda _: "y")  # what transformers would ask on a terminal
    with pytest.raises(ModelError, match=r"it comes with Python code of its own, which is not run"):
        prepare(recipe("finetune", model={"path": str(folder)}), say=print)
    assert not ran.exists()


def test_pickled_weights_are_refused(recipe: Make, changed: Callable[..., Path]) -> None:
    folder = changed()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"holds no weights in safetensors; .* convert them$"):
        prepare(recipe("finetune", model={"path": str(folder)}), say=print)


@pytest.mark.parametrize("kind", ["torn", "elsewhere", "layers"])
def test_weights_that_cannot_be_read_are_one_sentence(
    kind: str, recipe: Make, changed: Callable[..., Path], tmp_path: Path
) -> None:
    folder = changed(num_hidden_layers=10**9) if kind == "layers" else changed()
    weights = folder / "model.safetensors"
    if kind == "torn":
        weights.write_bytes(weights.read_bytes()[:3000])
    elif kind == "elsewhere":
        weights.unlink()
        weights.symlink_to(Path(__file__))
    with pytest.raises(ModelError) as caught:
        prepare(recipe("finetune", model={"path": str(folder)}), say=print)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_none_is_one_sentence(recipe: Make, changed: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"the config of .* cannot be used: .*num_attention_heads"):
        prepare(recipe("finetune", model={"path": str(changed(num_attention_heads="many"))}), say=print)


def test_weights_that_the_model_has_no_use_for_are_told(recipe: Make, changed: Callable[..., Path]) -> None:
    said: list[str] = []
    prepare(recipe("finetune", model={"path": str(changed(num_hidden_layers=1))}), say=said.append)
    assert [line for line in said if "tensors that the model does not use (model.layers.1." in line]
