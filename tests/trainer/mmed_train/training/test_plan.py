"""A plan tells of a recipe what its training then does."""

from __future__ import annotations

import fnmatch
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmed_train.corpus.shards import open_shards
from mmed_train.training.fit import GIB, Target, find_target
from mmed_train.training.jobs import prepare
from mmed_train.training.logs import flops_per_token
from mmed_train.training.loop import Steps, _Trainer, arguments, count_steps
from mmed_train.training.model import load_model, parameters_of
from mmed_train.training.plan import Plan, count_flops, find_kind, make_plan, moments, product_rate
from mmed_train.training.recipe import Recipe
from mmedeval import DataError, ModelError, UnknownNameError, UsageError
from mmedeval_hf.tiny import make_tiny_model

Make = Callable[..., Recipe]
Run = Callable[..., Path]
HERE = Target(name="CPU", gpu=False, memory=8 * GIB, devices=1, here=True)
THERE = Target(name="NVIDIA H100 80GB HBM3", gpu=True, memory=80 * GIB, devices=8, here=False)


def planned(recipe: Recipe, target: Target = HERE) -> Plan:
    return make_plan(recipe, target, say=lambda _: None)


def lines_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


# --- what is trained ---


@pytest.mark.parametrize("kind", ["none", "lora", "dora"])
def test_parameters_are_those_of_the_loaded_model(kind: str, recipe: Make) -> None:
    told = recipe(adapter={"kind": kind})
    plan = planned(told)
    assert (plan.base.parameters, plan.base.trained) == parameters_of(load_model(told, seed=0))


def test_no_weight_is_read(recipe: Make, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hollow"
    folder.mkdir()
    for file in base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    head = 8 + int.from_bytes(data[:8], "little")
    broken = data[:head] + b"\xff" * (len(data) - head)  # each number is a NaN
    weights.write_bytes(broken)
    assert planned(recipe(model={"path": str(folder)})).base == replace(planned(recipe()).base, name=str(folder))


@pytest.mark.parametrize(("damage", "named"), [("missing", "up_proj"), ("other shape", "down_proj")])
def test_weights_that_lack_a_tensor_are_refused(damage: str, named: str, recipe: Make, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    folder.mkdir()
    for file in base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    name = next(each for each in tensors if named in each)
    if damage == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=name):
        planned(recipe(model={"path": str(folder)}))


def test_a_config_of_eight_billion_parameters_is_planned_without_them(recipe: Make, base: Path, tmp_path: Path) -> None:
    sizes = {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    told = recipe(
        model={"path": None, "config": "config.json", "tokenizer": str(base), "gradient_checkpointing": True},
        mix={"window": 2048},
        distributed={"fsdp": True},
    )
    began = time.process_time()
    plan = planned(told, THERE)
    assert time.process_time() - began < 60
    assert plan.base.parameters == plan.base.trained == 8_030_261_248
    assert plan.disk.weights == 4 * 8_030_261_248
    assert plan.disk.optimizer == pytest.approx(8 * 8_030_261_248, rel=1e-6)
    assert plan.memory.fits is True
    assert any("upper bound" in note for note in plan.notes)
    # An eighth of 16 bytes a parameter, and activations beside them.
    assert plan.memory.total > 16 * 8_030_261_248 / 8


def test_of_a_hub_name_no_weight_is_fetched(recipe: Make, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: set[str] = set()

    def fetch(name: str, *, allow_patterns: Sequence[str], **_: Any) -> str:
        folder = tmp_path / "cache"
        folder.mkdir(exist_ok=True)
        for file in base.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                fetched.add(file.name)
                (folder / file.name).write_bytes(file.read_bytes())
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    plan, local = planned(recipe(model={"path": "org/base"})), planned(recipe())
    assert "tokenizer.json" in fetched
    assert not any(name.endswith(".safetensors") for name in fetched)
    assert plan.base == replace(local.base, name="org/base")
    assert (plan.schedule, plan.memory, plan.data) == (local.schedule, local.memory, local.data)
    assert [note for note in plan.notes if note not in local.notes] == [
        "the weights of org/base were not looked at: the training fetches them"
    ]


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_an_adapter_on_a_config_is_planned_as_on_a_model_of_that_shape(kind: str, recipe: Make, base: Path) -> None:
    on_model = planned(recipe(adapter={"kind": kind}), THERE)
    on_config = planned(recipe(model={"path": None, "config": str(base), "tokenizer": str(base)}, adapter={"kind": kind}), THERE)
    assert on_config.base == replace(on_model.base, name=str(base))
    assert on_config.memory == on_model.memory
    assert on_model.obstacles == []
    assert on_config.obstacles == [f"adapter.kind = '{kind}' would put an adapter on random weights; give model.path"]


# --- data ---


def test_items_and_tokens_are_those_that_the_training_reads(recipe: Make, trained: Run) -> None:
    told = recipe(
        "finetune",
        data={"protocols": ["letter", "paper"], "limit": None, "max_length": 1000},
        train={"steps": None, "save_every": None},
    )
    plan = planned(told)
    trained(told)
    data = json.loads((told.output / "final" / "data.json").read_text())
    assert plan.data.items == data["items"]
    assert plan.data.left_out == data["left_out"] != {}
    assert sum(each.tokens for each in plan.data.languages) == data["tokens"]
    assert sum(each.answers or 0 for each in plan.data.languages) == data["answer_tokens"]
    assert plan.data.protocols == ["letter", "paper"]
    # What the training counts as predicted, step by step.
    assert [line["tokens"] for line in lines_of(told.output) if "tokens" in line][-1] == plan.data.predicted
    assert any("max_length" in note for note in plan.notes)


@pytest.mark.parametrize("batching", ["packed", "grouped", "plain"])
def test_computed_tokens_are_those_of_the_padded_batches(batching: str, recipe: Make) -> None:
    told = recipe("finetune", data={"batching": batching, "max_length": 512}, train={"batch": 3, "steps": 3})
    job = prepare(told, say=lambda _: None)
    rows = [len(job.rows[number]["input_ids"]) for number in range(min(9, len(job.rows)))]
    batches = [rows[start : start + 3] for start in range(0, len(rows), 3)]
    plan = planned(told)
    assert plan.data.computed == sum(max(batch) * len(batch) for batch in batches)
    assert plan.data.longest == max(len(job.rows[number]["input_ids"]) for number in range(len(job.rows)))


def test_languages_of_a_corpus_are_told_with_what_is_held_out_and_taken(recipe: Make, shards: Path) -> None:
    told = recipe(
        mix={"window": 32, "weights": {"en": 2, "fr": 1, "zh": 1}},
        train={"epochs": 2, "steps": None},
        eval={"validation": 2, "best": "loss"},
    )
    plan = planned(told)
    job = prepare(told, say=lambda _: None)
    space = open_shards([shards])
    for each in plan.data.languages:
        tokens = sum(count.tokens for kind, count in space.counts.items() if kind.language == each.language)
        assert each.tokens == tokens - job.data["held_out"][f"{each.language}/books"]
        assert each.taken == job.data["taken"][f"{each.language}/books"]
        assert each.held_out == len(job.validation[each.language]) > 0
    assert plan.data.computed == len(job.rows) * 32
    assert (plan.data.rows, plan.data.predicted) == (len(job.rows), None)


def test_published_windows_take_every_token_in_every_epoch(recipe: Make) -> None:
    plan = planned(recipe(data={"windows": "published"}, train={"epochs": 3, "steps": None}))
    assert all(each.taken == 3 * each.tokens for each in plan.data.languages)
    assert plan.data.computed > sum(each.taken or 0 for each in plan.data.languages)


# --- steps ---


@pytest.mark.parametrize(
    ("train", "evaluated"),
    [
        ({"steps": 7, "save_every": 3}, {}),
        ({"steps": None, "epochs": 2, "batch": 16, "save_every": None}, {}),
        ({"steps": 5, "save_every": 2}, {"every": 2}),
        ({"steps": 5, "save_every": 4}, {"every": 1}),
    ],
)
def test_it_is_saved_and_looked_when_the_plan_says(
    train: Mapping[str, Any], evaluated: Mapping[str, Any], recipe: Make, trained: Run
) -> None:
    told = recipe(train={**train, "keep": 50}, eval={"validation": 1, **evaluated})
    plan = planned(told)
    trained(told)
    saved = sorted(int(folder.name.rpartition("-")[2]) for folder in told.output.glob("checkpoint-*"))
    lines = lines_of(told.output)
    assert plan.schedule.saves == saved
    assert plan.schedule.looks == [line["step"] for line in lines if any(name.startswith("eval_loss") for name in line)]
    assert plan.schedule.total == max(line["step"] for line in lines)


def test_a_warm_up_that_never_ends_is_a_note(recipe: Make) -> None:
    notes = planned(recipe(train={"warmup": 2000}), HERE).notes
    assert "train.warmup = 2000 steps, but the training has 8: it never gets to train.lr = 0.001" in notes


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_steps_are_counted_as_for_so_many_processes(kind: str, devices: int, recipe: Make) -> None:
    told = recipe(kind, train={"batch": 2, "accumulate": 2, "steps": None, "epochs": 3, "save_every": None, "warmup": 0.3})
    job = prepare(told, say=lambda _: None)
    steps = count_steps(told, len(job.rows), job.epoch_ends, devices)
    schedule = planned(told, replace(HERE, devices=devices)).schedule
    assert (schedule.total, schedule.rows) == (steps.total, 4 * devices)
    assert set(schedule.epochs) == steps.epochs
    assert schedule.warmup == arguments(told, steps).warmup_steps
    # A training of one step has none to warm up in.
    assert (schedule.warmup > 0) == (steps.total > 1)


def test_the_trainer_takes_as_many_steps(recipe: Make, monkeypatch: pytest.MonkeyPatch, trained: Run) -> None:
    taken = []
    monkeypatch.setattr(_Trainer, "train", lambda self, **_: taken.append(self.args.max_steps))
    monkeypatch.setattr(_Trainer, "publish_final", lambda self: Path())
    told = recipe("finetune", train={"steps": None, "accumulate": 3, "save_every": None})
    trained(told)
    assert taken == [planned(told).schedule.total]


def test_a_training_that_ends_within_an_epoch_saves_at_its_end(recipe: Make) -> None:
    told = recipe(train={"save_every": None})
    steps = Steps(total=10, epochs=frozenset({4, 8, 12}))
    assert moments(told, steps, looks=False) == ([4, 8, 10], [])
    assert moments(told, steps, looks=True) == ([4, 8, 10], [0, 4, 8, 10])


# --- time ---


def test_flops_of_full_training_are_the_formula_of_the_log(recipe: Make) -> None:
    told = recipe()
    plan = planned(told)
    model = load_model(told, seed=0)
    matrices = sum(each.numel() for each in model.parameters()) - model.get_input_embeddings().weight.numel()
    each = flops_per_token(matrices, layers=2, width=32, length=32)
    assert count_flops(model, told, plan.data, 32.0) == pytest.approx(plan.data.computed * each)
    assert plan.time is not None
    assert plan.time.flops == pytest.approx(plan.data.computed * each)
    assert plan.time.hours == pytest.approx(plan.time.flops / plan.time.rate / plan.time.share / 3600)


def test_a_pass_that_is_done_again_and_frozen_matrices_are_counted_so(recipe: Make) -> None:
    told = recipe()
    data, model = planned(told).data, load_model(told, seed=0)
    whole = count_flops(model, told, data, 0.0)
    head = data.computed * 6 * model.get_output_embeddings().weight.numel()
    again = replace(told, model=replace(told.model, gradient_checkpointing=True))
    assert count_flops(model, again, data, 0.0) == pytest.approx((whole - head) * 4 / 3 + head)
    for each in model.parameters():
        each.requires_grad_(False)
    assert count_flops(model, told, data, 0.0) == pytest.approx(whole * 4 / 6)


def test_the_head_is_counted_for_the_tokens_that_are_predicted(recipe: Make) -> None:
    told = recipe()
    data, model = planned(told).data, load_model(told, seed=0)
    few = count_flops(model, told, replace(data, predicted=1), 0.0)
    head = model.get_output_embeddings().weight.numel()
    assert count_flops(model, told, data, 0.0) - few == pytest.approx(6 * head * (data.computed - 1))


def test_on_a_known_card_time_goes_with_the_number_of_cards(recipe: Make) -> None:
    one, eight = (planned(recipe(), replace(THERE, devices=devices)).time for devices in (1, 8))
    assert one is not None
    assert eight is not None
    assert (one.rate, eight.rate) == (989e12, 8 * 989e12)
    plan = planned(recipe(), replace(THERE, name="GPU"))
    assert plan.time is None
    assert any("--card" in note for note in plan.notes)


def test_a_processors_rate_is_measured() -> None:
    assert 1e8 < product_rate(torch.float32, size=256, seconds=0.01) < 1e15


# --- disk ---


@pytest.mark.parametrize(("kind", "keep"), [("none", 2), ("none", 1), ("lora", 2), ("dora", 3)])
def test_checkpoints_have_the_size_that_was_told(kind: str, keep: int, recipe: Make, trained: Run, tmp_path: Path) -> None:
    """Within 5 %. Of a base that is larger than its tokenizer."""
    sizes = {"hidden_size": 128, "intermediate_size": 320, "num_attention_heads": 4}
    base = make_tiny_model(tmp_path / "larger", vocabulary=400, config=sizes)
    told = recipe(model={"path": str(base)}, adapter={"kind": kind}, train={"steps": 4, "save_every": 1, "keep": keep})
    plan = planned(told)
    trained(told)
    folders = [*told.output.glob("checkpoint-*")]
    sizes_there = [sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in folders]
    assert plan.disk.checkpoint == pytest.approx(sum(sizes_there) / len(sizes_there), rel=0.05)
    # One more is there while the oldest is not yet gone.
    assert (len(folders), plan.disk.kept) == (keep, keep + 1)
    assert plan.disk.total == plan.disk.kept * plan.disk.checkpoint


def test_the_best_model_takes_room_of_its_own(recipe: Make) -> None:
    told = recipe(eval={"validation": 1, "best": "loss"}, train={"steps": 4, "save_every": 1})
    disk = planned(told).disk
    assert disk.total == 3 * disk.checkpoint + disk.weights + disk.rest


def test_a_disk_that_is_too_small_is_in_the_way(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(recipe())
    assert plan.disk.fits
    assert plan.obstacles == []
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    assert ["GB of disk" in each for each in planned(recipe()).obstacles] == [True]
    # Elsewhere there is another disk.
    assert planned(recipe(), replace(THERE, devices=1)).obstacles == []


# --- what is in the way ---


def test_a_memory_that_is_too_small_is_in_the_way(recipe: Make) -> None:
    plan = planned(recipe(), replace(HERE, memory=GIB))
    assert plan.memory.fits is False
    assert ["of memory are needed" in each for each in plan.obstacles] == [True]


def test_what_wants_a_gpu_or_a_package_that_is_not_here_is_in_the_way(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    told = recipe(adapter={"kind": "qlora"}, model={"liger": True}, logs={"to": ["trackio"]})
    monkeypatch.setattr("mmed_train.training.jobs.find_spec", lambda _: None)
    words = "\n".join(planned(told).obstacles)
    assert "model.liger needs a GPU" in words
    assert "needs bitsandbytes, not installed here" in words
    assert "needs trackio, not installed here" in words
    assert planned(told, THERE).obstacles == []


def test_the_harness_in_the_loop_and_fsdp_are_in_each_others_way(recipe: Make) -> None:
    told = recipe(distributed={"fsdp": True}, eval={"tasks": ["mmedbench_mini_en"]})
    assert any("eval.tasks" in each for each in planned(told, THERE).obstacles)
    assert not any("eval.tasks" in each for each in planned(told).obstacles)


def test_an_output_that_holds_a_training_is_told(recipe: Make, trained: Run) -> None:
    told = recipe(train={"steps": 2, "save_every": 2})
    assert not any("holds a training" in note for note in planned(told).notes)
    trained(told)
    assert any("up to step 2; go on with --resume" in note for note in planned(told).notes)


@pytest.mark.parametrize(
    ("sections", "error", "words"),
    [
        ({"mix": {"window": 5000}}, UsageError, "4096 positions"),
        ({"eval": {"tasks": ["no_such_task"]}}, UnknownNameError, "no_such_task"),
        ({"data": {"shards": ["nowhere"]}}, DataError, "nowhere"),
        ({"adapter": {"kind": "lora", "targets": ["no_such_layer"]}}, ModelError, "no_such_layer"),
        ({"model": {"attention": "no_such_attention"}}, ModelError, "no_such_attention"),
    ],
)
def test_what_the_training_would_refuse_is_refused(
    sections: Mapping[str, Any], error: type[Exception], words: str, recipe: Make
) -> None:
    with pytest.raises(error, match=words):
        planned(recipe(**sections))


def test_a_tokenizer_that_the_model_does_not_know_is_refused(recipe: Make, tmp_path: Path) -> None:
    larger = make_tiny_model(tmp_path / "larger", vocabulary=600)
    with pytest.raises(ModelError, match="embeddings"):
        planned(recipe("finetune", model={"tokenizer": str(larger)}))


# --- kinds ---


@pytest.mark.parametrize(
    ("text", "overrides", "kind"),
    [
        ('[data]\ncorpus = "c.toml"', (), "pretrain"),
        ('[data]\nshards = ["s"]', (), "pretrain"),
        ('[data]\ntasks = ["t"]', (), "finetune"),
        ('preset = "paper-lora"', (), "finetune"),
        ('preset = "paper-pretrain"', (), "pretrain"),
        ('preset = "default"', ("data.tasks=['t']",), "finetune"),
    ],
)
def test_a_recipe_tells_what_it_is_for(text: str, overrides: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    assert find_kind(tmp_path / "recipe.toml", overrides) == kind


@pytest.mark.parametrize("text", ["", '[data]\ntasks = ["t"]\nshards = ["s"]', "data = 1", 'preset = "none-such"'])
def test_one_that_does_not_tell_is_to_be_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(UsageError, match="--kind"):
        find_kind(tmp_path / "recipe.toml")


def test_json_holds_all_of_a_plan(recipe: Make) -> None:
    plan = planned(recipe(), find_target())
    told = json.loads(json.dumps(plan.as_json()))
    assert told["fits"] == {"memory": True, "disk": True}
    assert told["memory"]["total"] == sum(told["memory"]["parts"].values()) == plan.memory.total
    assert told["base"]["parameters"] == plan.base.parameters
