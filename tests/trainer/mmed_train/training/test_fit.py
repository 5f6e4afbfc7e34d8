"""Whether a training fits, on one device and on several, and what makes it fit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmed_train.training import fit
from mmed_train.training.fit import GIB, PASS, RESERVE, SLACK, STEP, Memory, Target, find_target, share_out, weigh
from mmed_train.training.loop import Steps
from mmed_train.training.memory import Batch, Footprint, Moment
from mmed_train.training.recipe import Recipe
from mmedeval import ModelError, UsageError

Make = Callable[..., Recipe]
MIB = 2**20
FOUND = Footprint(
    parameters=1000,
    trained=1000,
    weights=4000,
    gradients=4000,
    optimizer=8000,
    passing=Moment(gradients=0, copies=2000, other=50_000),
    stepping=4000,
    block=(300, 300),
    root=(100, 100),
)
BATCH = Batch(rows=4, length=256, predicted=1024, packed=True)
STEPS = Steps(total=10, epochs=frozenset({10}))


def silent(_: str) -> None:
    pass


def from_config(recipe: Recipe) -> Recipe:
    path = Path(recipe.model.path)
    return replace(recipe, model=replace(recipe.model, path="", config=str(path), tokenizer=str(path)))


def gpu(memory: int | None, devices: int = 1) -> Target:
    return Target(name="H100", gpu=True, memory=memory, devices=devices, here=False)


def weighed(recipe: Recipe, target: Target, batch: Batch = BATCH) -> Memory:
    return weigh(recipe, batch, STEPS, target=target, bf16=True, say=silent)[1]


# --- sharing out ---


def test_one_device_holds_everything_itself(recipe: Make) -> None:
    parts, moment = share_out(FOUND, recipe(), 1, bf16=True)
    assert (sum(parts.values()), moment) == (4000 + 8000 + 2000 + 50_000, PASS)
    small = replace(FOUND, passing=Moment(other=100))
    parts, moment = share_out(small, recipe(), 1, bf16=True)
    assert (sum(parts.values()), moment) == (4000 + 4000 + 8000 + 4000, STEP)


def test_devices_that_hold_everything_hold_each_gradient_twice(recipe: Make) -> None:
    alone, _ = share_out(FOUND, recipe(), 1, bf16=True)
    beside, _ = share_out(FOUND, recipe(), 8, bf16=True)
    assert sum(beside.values()) - sum(alone.values()) == FOUND.gradients


def test_fsdp_shares_out_what_the_optimizer_needs_and_gathers_two_blocks(recipe: Make) -> None:
    told = recipe(distributed={"fsdp": True})
    parts, _ = share_out(FOUND, told, 4, bf16=True)
    assert parts == {
        "weights": 1000,
        "gradients": 1000,
        "optimizer": 2000,
        "gathered": 2 * (2 * 300 + 100 + 300 + 100),
        "activations": 50_000,
    }
    offloaded, _ = share_out(FOUND, recipe(distributed={"fsdp": True, "cpu_offload": True}), 4, bf16=True)
    assert (offloaded["weights"], offloaded["optimizer"], offloaded["activations"]) == (0, 0, 50_000)
    assert share_out(FOUND, told, 1, bf16=True) == share_out(FOUND, recipe(), 1, bf16=True)


# --- fitting ---


@pytest.fixture
def by_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of 1000 MiB in place of a real one, whose needs are by rule: so that what is proposed can be reckoned."""

    def measured(recipe: Recipe, batch: Batch, **_: Any) -> Footprint:
        adapted = recipe.adapter.kind != "none"
        trained = 10 if adapted else 1000
        each = 100 if recipe.model.gradient_checkpointing else 300
        return Footprint(
            parameters=250 * MIB,
            trained=trained * MIB // 4,
            weights={"none": 1000, "lora": 1010, "qlora": 200}[recipe.adapter.kind] * MIB,
            gradients=trained * MIB,
            optimizer=2 * trained * MIB,
            passing=Moment(gradients=trained * MIB if recipe.train.accumulate > 1 else 0, other=each * batch.rows * MIB),
            stepping=0 if recipe.train.optimizer == "adamw_torch_fused" else trained * MIB,
            block=(25 * MIB, 0),
            root=(0, 0),
        )

    monkeypatch.setattr(fit, "measure", measured)


def proposals(recipe: Recipe, mib: int, devices: int = 1, rows: int = 8) -> list[tuple[dict[str, Any], int, bool]]:
    """Settings, MiB and whether they fit, for a device with so many MiB that can be used."""
    target = gpu(math.ceil((RESERVE + mib * MIB) / (1 - SLACK)), devices)
    memory = weighed(from_config(recipe), target, replace(BATCH, rows=rows))
    return [(dict(change.settings), change.total // MIB, change.fits) for change in memory.changes]


def test_a_part_of_the_memory_is_kept_in_reserve(by_rule: None, recipe: Make) -> None:
    memory = weighed(from_config(recipe()), gpu(8 * GIB))
    assert memory.usable == round(8 * GIB * (1 - SLACK)) - RESERVE
    assert (memory.fits, memory.changes) == (True, ())
    assert weighed(from_config(recipe()), gpu(None)).fits is None


def test_what_helps_is_proposed_in_order_of_harm_up_to_what_fits(by_rule: None, recipe: Make) -> None:
    told = recipe(train={"batch": 8, "accumulate": 3, "optimizer": "adamw_torch"})
    # Weights, gradients and state are 4000, and 1000 more in the optimizer's step; a row is 300, checkpointed 100.
    assert proposals(told, 6400) == []
    first = {"model.gradient_checkpointing": True}
    assert proposals(told, 5000) == [(first, 5000, True)]
    first["train.optimizer"] = "adamw_torch_fused"
    assert proposals(told, 4800) == [(first, 4800, True)]
    smaller = {**first, "train.batch": 6, "train.accumulate": 4}
    assert proposals(told, 4700) == [(first, 4800, False), (smaller, 4600, True)]


def test_an_adapter_is_proposed_where_the_optimizers_state_alone_is_too_much(by_rule: None, recipe: Make) -> None:
    told = recipe(train={"batch": 8, "accumulate": 3, "optimizer": "adamw_torch_fused"})
    lora = {"model.gradient_checkpointing": True, "adapter.kind": "lora"}
    assert proposals(told, 2000) == [(lora, 1010 + 30 + 800, True)]
    found = proposals(told, 1100)
    assert [(each[0]["adapter.kind"], each[0].get("train.batch")) for each in found] == [
        ("lora", None),
        ("lora", 1),
        ("qlora", None),
    ]
    assert found[-1] == ({**lora, "adapter.kind": "qlora"}, 200 + 30 + 800, True)
    assert [fits for *_, fits in proposals(told, 100)] == [False] * 4


def test_where_the_optimizers_step_needs_most_its_fused_form_is_proposed_first(by_rule: None, recipe: Make) -> None:
    told = recipe(train={"batch": 1, "optimizer": "adamw_torch"})
    assert proposals(told, 4600, rows=1) == [({"train.optimizer": "adamw_torch_fused"}, 4000, True)]


def test_several_devices_are_to_share_before_an_adapter_is_proposed(by_rule: None, recipe: Make) -> None:
    told = recipe(
        train={"batch": 8, "accumulate": 3, "optimizer": "adamw_torch_fused"},
        eval={"tasks": ["mmedbench_mini_en"], "best": "accuracy", "patience": 2},
    )
    (proposed,) = proposals(told, 2500, devices=4)
    # The harness asks a model on one process.
    assert proposed[0] == {
        "model.gradient_checkpointing": True,
        "distributed.fsdp": True,
        "eval.tasks": (),
        "eval.best": "none",
        "eval.patience": None,
    }
    assert proposed[1:] == (4000 // 4 + 8 * 100 + 2 * 2 * 25, True)


def test_a_recipe_with_the_proposed_settings_needs_what_was_told(recipe: Make) -> None:
    """With steps that are really tried."""
    told = from_config(recipe(train={"batch": 4}))
    need = weighed(told, gpu(None)).total
    changes = weighed(told, gpu(round((RESERVE + need * 0.5) / (1 - SLACK)))).changes
    assert [change.fits for change in changes] == [False] * (len(changes) - 1) + [True]
    proposed = told
    for path, value in changes[-1].settings.items():
        section, name = path.split(".")
        proposed = replace(proposed, **{section: replace(getattr(proposed, section), **{name: value})})
    assert proposed.train.batch * proposed.train.accumulate == 4
    rows = proposed.train.batch
    assert weighed(proposed, gpu(None), replace(BATCH, rows=rows, predicted=256 * rows)).total == changes[-1].total


def test_a_model_that_takes_no_such_adapter_is_proposed_none(
    by_rule: None, recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = fit.measure

    def without(recipe: Recipe, batch: Batch, **settings: Any) -> Footprint:
        if recipe.adapter.kind != "none":
            raise ModelError("adapter.targets = all-linear: no")
        return measured(recipe, batch, **settings)

    monkeypatch.setattr(fit, "measure", without)
    assert proposals(recipe(train={"optimizer": "adamw_torch_fused"}), 100) == []


def test_an_optimizer_of_a_package_that_is_not_here_is_taken_for_adamw(recipe: Make) -> None:
    told = from_config(recipe(train={"optimizer": "grokadamw"}))
    found, memory, notes = weigh(told, BATCH, STEPS, target=gpu(None), bf16=True, say=silent)
    assert found.optimizer == pytest.approx(2 * found.gradients, rel=0.01)
    assert "grokadamw" in notes[0]
    assert memory.whole


def test_without_activations_nothing_is_said_to_fit(by_rule: None, recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = fit.measure
    monkeypatch.setattr(fit, "measure", lambda *a, **k: replace(measured(*a, **k), passing=None, why="of experts"))
    _, memory, notes = weigh(from_config(recipe()), BATCH, STEPS, target=gpu(80 * GIB), bf16=True, say=silent)
    assert (memory.fits, memory.whole) == (None, False)
    assert "of experts" in notes[0]
    assert weighed(from_config(recipe()), gpu(2 * GIB)).fits is False


# --- the target ---


@pytest.mark.parametrize(
    ("text", "size"), [("80GB", 80 * GIB), ("80", 80 * GIB), ("24 GiB", 24 * GIB), ("512M", 512 * MIB), ("1.5g", 3 * GIB // 2)]
)
def test_a_memory_is_what_its_maker_says(text: str, size: int) -> None:
    target = find_target(memory=text, devices=2)
    assert (target.memory, target.devices, target.gpu, target.here) == (size, 2, True, False)


@pytest.mark.parametrize("text", ["", "much", "80TB", "-1GB", "0GB", "nan"])
def test_a_memory_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="80GB"):
        find_target(memory=text)


@pytest.mark.parametrize(("limit", "size"), [("1048576\n", MIB), ("max\n", None), (f"{2**62}\n", None)])
def test_a_containers_memory_is_what_it_may_use(
    limit: str, size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(fit, "CGROUP", tmp_path / "memory.max")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert find_target().memory == whole
    (tmp_path / "memory.max").write_text(limit)
    assert find_target().memory == (size or whole)


def test_without_a_gpu_processes_share_this_machines_memory() -> None:
    one, two = find_target(), find_target(devices=2)
    if one.gpu:
        pytest.skip("a GPU is here, which has its own memory")
    assert (one.name, one.here, two.here) == ("CPU", True, True)
    assert one.memory is not None
    assert two.memory == one.memory // 2
