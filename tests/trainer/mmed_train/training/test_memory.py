"""What a step needs of memory, told without weights, is what it really takes."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW
from torch.profiler import ProfilerActivity, profile

from mmed_train.training import loop
from mmed_train.training.jobs import prepare
from mmed_train.training.loop import train
from mmed_train.training.memory import Batch, CannotTellError, bytes_of, measure
from mmed_train.training.model import load_model
from mmed_train.training.recipe import Recipe
from mmedeval_hf.tiny import make_tiny_model

Make = Callable[..., Recipe]
SIZES = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2}
WINDOW = 128


def adamw(_: Any) -> tuple[type[AdamW], dict[str, Any]]:
    return AdamW, {"lr": 1e-3, "weight_decay": 0.1}


@pytest.fixture(scope="session")
def of_kind(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A base of another architecture or size, with the same tokenizer."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            sizes = {**SIZES, **({"n_embd": 64, "n_head": 4, "n_positions": 4096} if kind == "gpt2" else {})}
            folder = tmp_path_factory.mktemp("kinds") / kind
            made[kind] = make_tiny_model(folder, model_type=kind, vocabulary=400, config=sizes)
        return made[kind]

    return make


def from_config(recipe: Recipe) -> Recipe:
    path = Path(recipe.model.path)
    return replace(recipe, model=replace(recipe.model, path="", config=str(path), tokenizer=str(path)))


def most_allocated(work: Callable[[], Any]) -> int:
    """Bytes that torch's allocator gave out beyond those at the start, as torch's profiler saw it."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    now = most = 0
    events = (event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]")
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


CASES: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "llama": ("llama", {"precision": "fp32"}, {}),
    "llama in bf16": ("llama", {"precision": "bf16"}, {}),
    "llama checkpointed": ("llama", {"precision": "fp32", "gradient_checkpointing": True}, {}),
    "llama checkpointed in bf16, accumulated": (
        "llama",
        {"precision": "bf16", "gradient_checkpointing": True},
        {"accumulate": 2},
    ),
    "llama with eager attention": ("llama", {"precision": "bf16", "attention": "eager"}, {}),
    "llama with lora": ("llama", {"precision": "bf16"}, {"kind": "lora"}),
    "llama with lora, checkpointed": ("llama", {"precision": "bf16", "gradient_checkpointing": True}, {"kind": "lora"}),
    "llama with dora": ("llama", {"precision": "fp32"}, {"kind": "dora"}),
    "gpt2 in bf16": ("gpt2", {"precision": "bf16"}, {}),
    "gemma2": ("gemma2", {"precision": "fp32"}, {}),
    "qwen3 in bf16": ("qwen3", {"precision": "bf16"}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_most_memory_is_that_of_a_real_training(
    case: str, recipe: Make, of_kind: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 5 %: against the allocator, over three steps of the training itself. What documents of a row by themselves save
    on a CPU depends on their lengths, and is not reckoned with."""
    monkeypatch.setattr(loop, "attend_within_documents", lambda _: None)
    kind, model, rest = CASES[case]
    adapter = {"kind": rest["kind"]} if "kind" in rest else {}
    told = recipe(
        model={"path": str(of_kind(kind)), **model},
        mix={"window": WINDOW},
        train={"batch": 4, "steps": 3, "save_every": None, "accumulate": rest.get("accumulate", 1)},
        adapter=adapter,
    )
    batch = Batch(rows=4, length=WINDOW, predicted=4 * WINDOW, packed=True)
    found = measure(from_config(told), batch, bf16=model["precision"] == "bf16", gpu=False, make_optimizer=adamw)
    job = prepare(told, say=lambda _: None)
    real = most_allocated(lambda: train(job, resume=False, say=lambda _: None))
    assert found.passing is not None
    expected = found.optimizer + max(found.passing.total, found.gradients + found.stepping)
    assert expected == pytest.approx(real, rel=0.05)


@pytest.mark.parametrize("kind", ["none", "lora", "dora"])
def test_weights_gradients_and_optimizer_state_are_to_the_byte_those_of_a_real_step(kind: str, recipe: Make) -> None:
    told = recipe(adapter={"kind": kind})
    batch = Batch(rows=2, length=16, predicted=8, packed=False)
    found = measure(from_config(told), batch, bf16=False, gpu=False, make_optimizer=adamw)
    model = load_model(told, seed=0)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = AdamW(trained, lr=1e-3, weight_decay=0.1)
    ids = torch.zeros(2, 16, dtype=torch.long)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert found.parameters == sum(each.numel() for each in model.parameters())
    assert found.trained == sum(each.numel() for each in trained)
    assert found.weights == bytes_of([*model.parameters(), *model.buffers()])
    assert found.gradients == bytes_of(each.grad for each in trained if each.grad is not None)
    state = [each for states in optimizer.state.values() for each in states.values()]
    assert found.optimizer == bytes_of(state)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_what_is_saved_for_the_backward_pass_is_counted(bf16: bool, checkpointed: bool, recipe: Make, tmp_path: Path) -> None:
    """Against torch's own hooks on saved tensors: without checkpointing little is needed beside them."""
    folder = make_tiny_model(tmp_path / "deep", vocabulary=400, config={**SIZES, "num_hidden_layers": 12})
    told = recipe(model={"path": str(folder), "gradient_checkpointing": checkpointed})
    batch = Batch(rows=4, length=WINDOW, predicted=4 * WINDOW, packed=False)
    found = measure(from_config(told), batch, bf16=bf16, gpu=False, make_optimizer=adamw)
    model = load_model(told, seed=0).train()
    own = {each.untyped_storage().data_ptr() for each in model.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.zeros(4, WINDOW, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(input_ids=ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids.flatten(), reduction="sum")
    assert found.passing is not None
    kept = sum(size for place, size in saved.items() if place not in own)
    # Checkpointed, the layer that is computed again comes on top.
    assert kept < found.passing.other + found.passing.copies < (2.5 if checkpointed else 1.25) * kept


def test_logits_are_counted_for_the_tokens_that_are_predicted_alone(recipe: Make, base: Path) -> None:
    told = from_config(recipe())
    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]

    def other(recipe: Recipe, predicted: int) -> int:
        batch = Batch(rows=2, length=64, predicted=predicted, packed=False)
        found = measure(recipe, batch, bf16=False, gpu=False, make_optimizer=adamw).passing
        assert found is not None
        return found.other

    few, all_of_them = other(told, 8), other(told, 128)
    assert all_of_them - few > 120 * vocabulary * 4
    shared = replace(told, distributed=replace(told.distributed, fsdp=True))
    assert other(shared, 8) == all_of_them
    assert other(replace(told, model=replace(told.model, liger=True)), 128) < all_of_them


def test_more_rows_need_more_and_checkpointing_needs_less(recipe: Make) -> None:
    told = from_config(recipe())

    def other(recipe: Recipe, rows: int) -> int:
        batch = Batch(rows=rows, length=64, predicted=rows * 64, packed=True)
        found = measure(recipe, batch, bf16=True, gpu=True, make_optimizer=adamw).passing
        assert found is not None
        return found.other

    checkpointed = replace(told, model=replace(told.model, gradient_checkpointing=True))
    assert other(told, 2) < other(told, 4)
    assert other(checkpointed, 4) < other(told, 4)


def test_a_gpus_attention_keeps_no_weights_for_its_dropout(recipe: Make, of_kind: Callable[[str], Path]) -> None:
    told = from_config(recipe(model={"path": str(of_kind("gpt2"))}))
    batch = Batch(rows=2, length=256, predicted=8, packed=False)
    there, here = (measure(told, batch, bf16=False, gpu=gpu, make_optimizer=adamw).passing for gpu in (True, False))
    assert there is not None
    assert here is not None
    scores = 2 * 4 * 256 * 256 * 4
    assert here.other - there.other > 2 * scores


def test_a_frozen_base_in_four_bits_takes_an_eighth(recipe: Make) -> None:
    lora = from_config(recipe(adapter={"kind": "lora"}))
    batch = Batch(rows=2, length=32, predicted=8, packed=False)
    plain = measure(lora, batch, bf16=True, gpu=True, make_optimizer=adamw)
    told = replace(lora, adapter=replace(lora.adapter, kind="qlora"))
    small = measure(told, batch, bf16=True, gpu=True, make_optimizer=adamw)
    # Two layers of q, k, v, o of 32 x 32 and of gate, up, down of 32 x 64; embeddings, norms and the head stay as they are.
    frozen = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    assert plain.weights - small.weights == pytest.approx(frozen * (4 - 0.5 - 1 / 64), rel=0.01)
    assert small.optimizer == plain.optimizer
    assert small.passing is not None
    # No frozen matrix but the head is copied.
    assert small.passing.copies <= 2 * (small.root[0] // 2 + small.trained)


def test_a_gpus_optimizer_takes_all_tensors_at_once_unless_it_is_fused(recipe: Make) -> None:
    told = from_config(recipe())
    batch = Batch(rows=1, length=8, predicted=8, packed=False)

    def stepping(**settings: Any) -> int:
        found = measure(
            told, batch, bf16=False, gpu=True, make_optimizer=lambda _: (AdamW, {"lr": 1e-3, "weight_decay": 0.1, **settings})
        )
        return found.stepping - (found.trained * 4 if not settings else 0)

    assert stepping() == 0
    assert stepping(fused=True) == 0


def test_any_optimizer_of_torch_is_weighed(recipe: Make) -> None:
    batch = Batch(rows=1, length=8, predicted=8, packed=False)
    told = from_config(recipe())
    with_momentum = measure(told, batch, bf16=False, gpu=False, make_optimizer=lambda _: (SGD, {"lr": 1e-3, "momentum": 0.9}))
    assert with_momentum.optimizer == with_momentum.gradients


def test_an_optimizer_that_fake_tensors_cannot_step_is_said(recipe: Make) -> None:
    class Odd(SGD):
        def step(self, closure: Any = None) -> None:
            self.param_groups[0]["params"][0].sum().item()

    batch = Batch(rows=1, length=8, predicted=8, packed=False)
    with pytest.raises(CannotTellError):
        measure(from_config(recipe()), batch, bf16=False, gpu=False, make_optimizer=lambda _: (Odd, {"lr": 1e-3}))


def test_a_pass_that_fake_tensors_cannot_do_is_said(
    recipe: Make, of_kind: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    told = from_config(recipe(model={"path": str(of_kind("mixtral"))}))
    batch = Batch(rows=1, length=8, predicted=8, packed=False)
    found = measure(told, batch, bf16=False, gpu=False, make_optimizer=adamw)
    assert (found.passing, bool(found.why)) == (None, True)
    assert found.weights >= found.gradients > 0
    assert "Traceback" not in capfd.readouterr().err


def test_blocks_and_what_is_in_none_make_up_the_model(recipe: Make) -> None:
    batch = Batch(rows=1, length=8, predicted=8, packed=False)
    found = measure(from_config(recipe(adapter={"kind": "lora"})), batch, bf16=False, gpu=False, make_optimizer=adamw)
    assert 2 * found.block[0] + found.root[0] == found.parameters
    assert (2 * found.block[1], found.root[1]) == (found.trained, 0)
