"""Batch sizes from memory arithmetic."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig

from mmedeval import ModelError
from mmedeval_hf import budget
from mmedeval_hf.compute import Compute
from mmedeval_hf.options import Options

LLAMA_8B = AutoConfig.for_model(
    "llama",
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=128256,
)
GIB = 2**30


def test_keys_and_values_of_a_token_of_an_8b_llama_take_128_kib_in_half_precision() -> None:
    assert budget.cache_bytes(LLAMA_8B, torch.bfloat16) == 2 * 32 * 8 * 128 * 2 == 128 * 1024


# The last two have sizes that differ from layer to layer, in a list and in a configuration of each.
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen3", "gemma2", "bloom", "mamba", "gemma3n_text", "gemma4_text"])
def test_every_architecture_has_a_size(model_type: str) -> None:
    config = AutoConfig.for_model(model_type)
    assert budget.activation_bytes(config, torch.float32) == 2 * budget.activation_bytes(config, torch.float16) > 0
    assert budget.cache_bytes(config, torch.float32) > 0


def test_layers_of_several_sizes_count_as_the_largest() -> None:
    sizes = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "global_head_dim": 128, "num_hidden_layers": 4}
    config = AutoConfig.for_model("gemma4_text", **sizes, layer_types=["sliding_attention", "full_attention"] * 2)
    assert budget.cache_bytes(config, torch.float32) == 4 * 2 * 4 * 2 * 128
    config = AutoConfig.for_model(
        "gemma3n_text", hidden_size=64, head_dim=8, intermediate_size=[96, 480, 96], num_hidden_layers=3
    )
    assert budget.activation_bytes(config, torch.float32) == 4 * (8 * 64 + 3 * 480)


def test_a_model_whose_sizes_cannot_be_told_is_one_sentence() -> None:
    model = SimpleNamespace(config=AutoConfig.for_model("blt"), device="cpu", dtype=torch.float32)
    with pytest.raises(ModelError, match="org/blt is of the type blt, of which this backend cannot tell the sizes") as caught:
        Compute(model, "org/blt", Options())
    assert "\n" not in str(caught.value)


def test_a_batch_is_as_large_as_is_of_use_and_no_larger_than_fits() -> None:
    per_token = budget.activation_bytes(LLAMA_8B, torch.bfloat16)
    assert budget.tokens_at_once(60 * GIB, per_token, "cuda") == budget.BEST_TOKENS_GPU
    assert budget.tokens_at_once(60 * GIB, per_token, "cpu") == budget.BEST_TOKENS_CPU
    small = budget.tokens_at_once(GIB, per_token, "cuda")
    assert budget.FEWEST_TOKENS < small < budget.BEST_TOKENS_GPU
    assert small * per_token <= budget.ACTIVATION_SHARE * GIB < (small + 1) * per_token
    assert budget.tokens_at_once(0, per_token, "cuda") == budget.FEWEST_TOKENS


def test_kept_tokens_fit_into_their_share_and_take_no_more_of_a_cpu_than_is_ours() -> None:
    per_token = budget.cache_bytes(LLAMA_8B, torch.bfloat16)
    assert budget.cache_tokens(64 * GIB, per_token, "cuda") == 16 * GIB // per_token
    assert budget.cache_tokens(64 * GIB, per_token, "cpu") == 2 * GIB // per_token
    assert budget.cache_tokens(0, per_token, "cpu") == 1


def test_free_memory_is_what_the_system_says_and_what_is_left_to_a_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:   12000000 kB\n")
    assert budget._available(meminfo) == 12_000_000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("500\n")
    assert budget._left_to_group(tmp_path) > 2**60
    (tmp_path / "memory.max").write_text("2000\n")
    assert budget._left_to_group(tmp_path) == 1500


def test_where_the_system_says_nothing_a_modest_amount_is_assumed(tmp_path: Path) -> None:
    assert budget._available(tmp_path / "absent") == budget.ASSUMED_BYTES
    assert budget.free_memory(torch.device("cpu")) > 0
