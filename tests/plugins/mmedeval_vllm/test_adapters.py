"""Adapters that vLLM would fit in wrongly or in part are refused, by their files alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mmedeval import LoglikelihoodRequest, ModelError, Prompt
from mmedeval.model_files import ModelFolder
from mmedeval_hf.tiny import make_tiny_model
from mmedeval_vllm.adapters import adapted_modules, check_fit, room_for
from mmedeval_vllm.backend import VLLMBackend

# peft asks transformers by an old name, and tells that it saves an embedding that it was told to adapt.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]

Make = Callable[..., Path]


@pytest.fixture
def adapter(tmp_path: Path) -> Make:
    """Makes an adapter for a base model, with peft's own settings."""

    def make(base: Path, **settings: Any) -> Path:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(**{"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **settings})
        folder = tmp_path / f"adapter-{len(list(tmp_path.iterdir()))}"
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
        return folder

    return make


def folder(path: Path) -> ModelFolder:
    return ModelFolder(path=path)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear", ["embed_tokens", "down_proj"]])
def test_an_adapter_fits_the_model_that_it_was_made_for(targets: Any, tiny: Path, adapter: Make) -> None:
    made = folder(adapter(tiny, target_modules=targets))
    check_fit(made, folder(tiny))
    linear = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert adapted_modules(made) == (linear if targets == "all-linear" else sorted(targets))


def test_an_adapter_on_some_layers_fits(tiny: Path, adapter: Make) -> None:
    check_fit(folder(adapter(tiny, layers_to_transform=[1])), folder(tiny))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"hidden_size": 32, "num_attention_heads": 2}, "is made for a size of 32, the model has 64"),
        ({"num_hidden_layers": 3}, "4 of its tensors have no place there"),
    ],
)
def test_an_adapter_of_a_model_of_another_size_is_refused(
    config: dict[str, int], told: str, tiny: Path, adapter: Make, tmp_path: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", config=config)
    with pytest.raises(ModelError, match=told):
        check_fit(folder(adapter(other)), folder(tiny))


@pytest.mark.parametrize("lost", ["layers.1.self_attn.q_proj.lora_A", "layers.0.self_attn.v_proj"])
def test_an_adapter_that_has_lost_tensors_is_refused(lost: str, tiny: Path, adapter: Make) -> None:
    path = adapter(tiny)
    tensors = load_file(path / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if lost not in name}
    assert len(kept) < len(tensors)
    save_file(kept, path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"lacks the tensors of 1 modules"):
        check_fit(folder(path), folder(tiny))


def test_a_pickled_adapter_is_refused_with_the_way_out(tiny: Path, adapter: Make) -> None:
    """vLLM would read it, and put nothing of it on the model, since the modules to put it on are found in the headers."""
    import torch

    path = adapter(tiny)
    torch.save(load_file(path / "adapter_model.safetensors"), path / "adapter_model.bin")
    (path / "adapter_model.safetensors").unlink()
    backend = VLLMBackend(str(tiny), {"adapter": str(path), "use_safetensors": "false"})
    with pytest.raises(ModelError, match="load it with peft and save it again"):
        backend.check(chat=False)


def test_a_torn_adapter_is_one_sentence(tiny: Path, adapter: Make) -> None:
    path = adapter(tiny)
    weights = path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be read") as caught:
        check_fit(folder(path), folder(tiny))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "room"),
    [
        ({"r": 4, "bias": "none", "modules_to_save": None, "init_lora_weights": True, "layer_replication": []}, 8),
        ({"init_lora_weights": "gaussian", "use_rslora": True}, 8),
        ({"r": 1}, 8),
        ({"r": 8}, 8),
        ({"r": 9}, 16),
        ({"rank_pattern": {"q_proj": 200}}, 256),
        ({"r": 512}, 512),
    ],
)
def test_the_room_for_an_adapter_is_the_next_rank_that_vllm_knows(settings: dict[str, Any], room: int, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, **settings}))
    assert room_for(folder(tmp_path)) == room


@pytest.mark.parametrize(
    "settings", [{"r": "8"}, {"r": 0}, {"r": None}, {"rank_pattern": {"q_proj": "x"}}, {"rank_pattern": [1]}]
)
def test_a_rank_that_is_no_number_is_one_sentence(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, **settings}))
    with pytest.raises(ModelError, match=r"adapter_config\.json has the ranks .*, which are no whole numbers above 0"):
        room_for(folder(tmp_path))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"r": 513}, "rank 513"),
        ({"use_dora": True}, "DoRA"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"target_parameters": ["mlp.experts.down_proj"]}, "LoRA with target_parameters"),
        ({"modules_to_save": ["lm_head"], "bias": "all"}, "LoRA with bias, modules_to_save"),
        ({"trainable_token_indices": [5]}, "LoRA with trainable_token_indices"),
        ({"alora_invocation_tokens": [1, 2]}, "LoRA with alora_invocation_tokens"),
        ({"init_lora_weights": "pissa_niter_4"}, "LoRA with init_lora_weights=pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "LoRA with init_lora_weights=olora"),
    ],
)
def test_an_adapter_that_vllm_cannot_run_is_refused_with_the_way_out(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, **settings}))
    with pytest.raises(ModelError, match=told) as caught:
        room_for(folder(tmp_path))
    assert "use hf:" in str(caught.value)


def test_the_check_before_a_run_looks_at_the_adapter(tiny: Path, adapter: Make, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", config={"num_hidden_layers": 1})
    VLLMBackend(str(tiny), {"adapter": str(adapter(tiny))}).check(chat=True)
    with pytest.raises(ModelError, match="lacks the tensors of 2 modules"):
        VLLMBackend(str(tiny), {"adapter": str(adapter(other))}).check(chat=True)


def test_an_adapter_on_the_output_layer_scores_nothing(tiny: Path, adapter: Make) -> None:
    """vLLM would apply it to the last token alone."""
    backend = VLLMBackend(str(tiny), {"adapter": str(adapter(tiny, target_modules=["q_proj", "lm_head"]))})
    backend.check(chat=True)
    request = LoglikelihoodRequest(
        id="a", prompt=Prompt(question="Iron?"), continuations=(" A",), answers=(frozenset("A"),), options={}
    )
    with pytest.raises(ModelError, match="changes lm_head, for which vLLM computes no loglikelihoods"):
        next(backend.loglikelihood([request]))


def test_an_adapter_without_weights_or_without_a_base_is_one_sentence(tiny: Path, adapter: Make, tmp_path: Path) -> None:
    path = adapter(tiny)
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        VLLMBackend(str(tiny), {"adapter": str(tiny)}).check(chat=False)
    shutil.copytree(path, tmp_path / "empty")
    (tmp_path / "empty" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        VLLMBackend(str(tmp_path / "empty"), {}).check(chat=False)
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(ModelError, match="use vllm:BASE with --model-arg adapter="):
        VLLMBackend(str(path), {}).check(chat=False)
