"""Presets are the paper's facts, and what is told of settings is what a recipe takes."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from mmed_train.training.presets import PRESETS, options, options_markdown, recipe_toml, shown, table
from mmed_train.training.recipe import SECTIONS, Kind, Recipe, read_recipe
from mmedeval import DataError, UnknownNameError

PATHS = {f"{section}.{each.name}" for section, kind in SECTIONS.items() for each in fields(kind)}
WAYS: list[tuple[str, Kind]] = [
    ("default", "pretrain"),
    ("default", "finetune"),
    ("paper-pretrain", "pretrain"),
    ("paper-full", "finetune"),
    ("paper-lora", "finetune"),
]


def by_preset(name: str, kind: Kind, folder: Path) -> Recipe:
    """The shortest recipe of a preset."""
    data = {"pretrain": 'corpus = "corpus.toml"', "finetune": 'tasks = ["mmedbench"]'}[kind]
    file = folder / "short.toml"
    file.write_text(f'preset = "{name}"\noutput = "out"\n[model]\npath = "base"\n[data]\n{data}\n')
    return read_recipe(file, kind)


# --- the paper ---


@pytest.mark.parametrize(
    ("name", "devices", "rows", "lr", "warmup", "decay", "epochs", "keep"),
    [
        ("paper-pretrain", 8, 512, 2e-5, 0.01, 0.01, 3, 2),
        ("paper-full", 4, 128, 1e-6, 0.03, 0.0, 5, 3),
        ("paper-lora", 4, 128, 2e-5, 0.03, 0.0, 3, 3),
    ],
)
def test_the_papers_presets_have_the_published_hyper_parameters(
    name: str, devices: int, rows: int, lr: float, warmup: float, decay: float, epochs: int, keep: int, tmp_path: Path
) -> None:
    told = by_preset(name, "pretrain" if name == "paper-pretrain" else "finetune", tmp_path)
    train = told.train
    assert train.batch * train.accumulate * devices == rows
    assert (train.lr, train.warmup, train.weight_decay, train.epochs, train.keep) == (lr, warmup, decay, epochs, keep)
    assert (train.schedule, train.clip, train.seed, told.model.precision) == ("cosine", 1.0, 42, "bf16")


def test_the_papers_pretraining_reads_its_windows(tmp_path: Path) -> None:
    told = by_preset("paper-pretrain", "pretrain", tmp_path)
    assert told.mix is not None
    assert (told.data.windows, told.mix.window, told.train.save_every) == ("published", 2048, 200)
    assert (told.distributed.fsdp, told.model.gradient_checkpointing) == (True, True)


@pytest.mark.parametrize("name", ["paper-full", "paper-lora"])
def test_the_papers_finetunings_show_each_item_twice(name: str, tmp_path: Path) -> None:
    told = by_preset(name, "finetune", tmp_path)
    assert set(told.data.protocols) == {"paper", "paper-direct"}
    assert (told.data.as_published, told.data.max_length, told.data.batching) == (True, 2048, "plain")
    assert told.train.save_every is None  # at the end of each epoch
    full = name == "paper-full"
    assert (told.distributed.fsdp, told.model.gradient_checkpointing) == (full, full)


def test_the_papers_adapters_are_on_query_and_value(tmp_path: Path) -> None:
    told = by_preset("paper-lora", "finetune", tmp_path).adapter
    assert (told.kind, told.r, told.dropout, told.targets) == ("lora", 16, 0.05, ("q_proj", "v_proj"))


def test_the_papers_presets_say_what_they_rest_on_whatever_the_defaults_become() -> None:
    for name, preset in PRESETS.items():
        if name != "default":
            said = {f"{section}.{each}" for section, values in preset.values.items() for each in values}
            assert said >= {"train.schedule", "train.warmup", "train.weight_decay", "train.clip", "train.seed"}, name


# --- reasons ---


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_has_a_reason_and_every_reason_a_setting(name: str) -> None:
    preset = PRESETS[name]
    values = {f"{section}.{each}" for section, told in preset.values.items() for each in told}
    assert values - set(preset.reasons) == set()
    assert set(preset.reasons) <= (PATHS if name == "default" else values)


# --- recipes to start from ---


@pytest.mark.parametrize(("name", "kind"), WAYS)
def test_a_recipe_to_start_from_reads_as_its_preset(name: str, kind: Kind, tmp_path: Path) -> None:
    text = recipe_toml(name).replace('output = ""', 'output = "out"').replace('\npath = ""', '\npath = "base"')
    text = text.replace('\ncorpus = ""', '\ncorpus = "corpus.toml"')
    choice = {"pretrain": "# corpus", "finetune": "# tasks"}[kind]
    text = text.replace(f"\n{choice}", f"\n{choice[2:]}")
    file = tmp_path / "long.toml"
    file.write_text(text)
    assert replace(read_recipe(file, kind), file=Path()) == replace(by_preset(name, kind, tmp_path), file=Path())


@pytest.mark.parametrize(("name", "kind"), WAYS)
def test_until_it_is_filled_in_it_says_what_is_missing(name: str, kind: Kind, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(recipe_toml(name))
    with pytest.raises(DataError, match="output"):
        read_recipe(file, kind)
    file.write_text(recipe_toml(name).replace('output = ""', 'output = "out"'))
    with pytest.raises(DataError, match=r"recipe\.toml:\d+: give either path"):
        read_recipe(file, kind)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="paper-lora"):
        recipe_toml("paper-lroa")


# --- tables ---


@pytest.mark.parametrize(("name", "kind"), WAYS)
def test_the_table_tells_what_a_recipe_of_the_preset_has(name: str, kind: Kind, tmp_path: Path) -> None:
    told = by_preset(name, kind, tmp_path)
    compared = 0
    for option, values in table():
        if name in values and option.is_for(kind) and option.path != "data.tasks":
            section = getattr(told, option.section)
            assert values[name] == (None if section is None else getattr(section, option.name)), option.path
            compared += 1
    assert compared > 15


def test_the_table_has_a_row_for_each_setting_that_a_preset_sets() -> None:
    rows = [option.path for option, _ in table()]
    said = {f"{section}.{each}" for preset in PRESETS.values() for section, values in preset.values.items() for each in values}
    assert set(rows) == said
    assert len(rows) == len(said)
    values = {option.path: each for option, each in table()}
    assert "paper-full" not in values["data.windows"]
    assert "paper-pretrain" not in values["data.protocols"]
    assert set(values["adapter.r"]) == {"default", "paper-lora"}


def test_every_setting_is_told_once_with_what_it_does() -> None:
    told = [option.path for option in options()]
    assert set(told) == PATHS | {"preset", "output"}
    assert len(told) == len(set(told))
    assert all(option.help and option.values for option in options())
    assert {option.path: option.default for option in options()}["train.lr"] == SECTIONS["train"]().lr


def test_markdown_has_every_setting_in_a_table_of_its_section() -> None:
    parts = re.split(r"^### .*$", options_markdown(), flags=re.MULTILINE)[1:]
    assert len(parts) == 1 + len(SECTIONS)
    for section, part in zip(["", *SECTIONS], parts, strict=True):
        head, rule, *rows = part.strip().splitlines()
        assert head.count("|") == rule.count("|") == 5
        cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
        assert all(len(row) == 4 and all(row) for row in cells)
        expected = [(f"`{each.name}`", shown(each.default)) for each in options() if each.section == section]
        assert [(row[0], row[2].replace("\\", "")) for row in cells] == expected
    assert "### `[train]`: The optimisation\n" in options_markdown()
    assert "see docs/corpus.md" in options_markdown()


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "none"), ("", "none"), ((), "none"), ({}, "none"), (True, "true"), (1e-5, "1e-05"), (("a", "b"), "a, b"), (0, "0")],
)
def test_a_value_is_told_in_words(value: Any, words: str) -> None:
    assert shown(value) == words
