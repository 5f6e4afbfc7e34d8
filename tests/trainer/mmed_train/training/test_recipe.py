"""Recipes: presets under files under `--set`, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmed_train.training.recipe import SECTIONS, Kind, differences, read_recipe, settings_of
from mmedeval.errors import DataError, MmedevalError

PRETRAIN = 'output = "out"\n[model]\npath = "org/base"\n[data]\nshards = ["tokens"]\n'
FINETUNE = 'output = "out"\n[model]\npath = "org/base"\n[data]\ntasks = ["mmedbench"]\n'


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_file_wins_over_its_preset_and_set_wins_over_both(tmp_path: Path) -> None:
    file = written(tmp_path, 'preset = "paper-full"\n' + FINETUNE + "[train]\nbatch = 2\nlr = 3e-6\n")
    recipe = read_recipe(file, "finetune", ["train.lr=1e-4", "eval.tasks=['mmedbench_mini']", "model.precision=fp32"])
    assert (recipe.train.epochs, recipe.train.batch, recipe.train.lr) == (5, 2, 1e-4)
    assert recipe.data.protocols == ("paper", "paper-direct")
    assert recipe.eval.tasks == ("mmedbench_mini",)
    assert recipe.model.precision == "fp32"
    assert recipe.output == tmp_path / "out"


def test_a_value_of_a_table_can_be_set_alone(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, PRETRAIN), "pretrain", ["mix.weights.en=2", "mix.window=512"])
    assert recipe.mix is not None
    assert recipe.mix.window == 512
    assert recipe.mix.weights == {"en": 2.0}


@pytest.mark.parametrize(
    ("kind", "text", "line", "said"),
    [
        ("pretrain", PRETRAIN + "[train]\nlearning_rate = 1\n", 7, "unknown setting 'learning_rate'"),
        ("pretrain", PRETRAIN + "[trian]\n", 6, "unknown section 'trian'; did you mean train?"),
        ("pretrain", PRETRAIN + '[train]\nlr = "fast"\n', 7, "lr = 'fast' is no number"),
        ("pretrain", PRETRAIN + "[train]\nlr = -1\n", 7, "lr = -1 does not lie between 0 and 10"),
        ("pretrain", PRETRAIN + "[train]\nlr = nan\n", 7, "lr = nan does not lie between"),
        ("pretrain", PRETRAIN + "[train]\nbatch = 0\n", 7, "batch = 0 is below 1"),
        (
            "pretrain",
            PRETRAIN + '[train]\nschedule = "cosin"\n',
            7,
            "schedule = 'cosin' is no one of cosine, wsd, linear, constant",
        ),
        ("pretrain", PRETRAIN + '[eval]\nbest = "accuracy"\n', 7, 'best = "accuracy" needs tasks to look at'),
        (
            "pretrain",
            PRETRAIN + '[train]\noptimizer = "adamw_toch"\n',
            7,
            "unknown optimizer 'adamw_toch'; did you mean adamw",
        ),
        ("pretrain", PRETRAIN + '[logs]\nto = ["tensorbord"]\n', 7, "unknown logger 'tensorbord'; did you mean tensorboard?"),
        ("pretrain", PRETRAIN + "[eval]\npatience = 2\n", 7, "patience needs best"),
        ("pretrain", PRETRAIN.replace("org/base", ""), 2, "give either path"),
        ("pretrain", PRETRAIN + 'corpus = "c.toml"\n', 4, "give either corpus"),
        ("pretrain", PRETRAIN.replace('path = "org/base"', 'config = "c.json"'), 3, "a config brings no tokenizer"),
        ("pretrain", 'preset = "paper-lora"\n' + PRETRAIN, 1, "unknown preset of pretrain 'paper-lora'"),
        ("pretrain", PRETRAIN.replace('"out"', "3"), None, "names no output"),
        ("finetune", PRETRAIN, 4, "give tasks"),
        ("finetune", FINETUNE + "[eval]\nvalidation = 3\n", 7, "validation windows are held out of a corpus"),
        ("finetune", FINETUNE + "protocols = []\n", 6, "give protocols"),
        ("finetune", FINETUNE + "[adapter]\ndropout = 1.5\n", 7, "dropout = 1.5 does not lie between 0 and 1"),
    ],
)
def test_a_mistake_is_told_with_its_line(kind: Kind, text: str, line: int | None, said: str, tmp_path: Path) -> None:
    file = written(tmp_path, text)
    with pytest.raises(DataError) as error:
        read_recipe(file, kind)
    assert said in str(error.value)
    if line is not None:
        assert str(error.value).startswith(f"{file}:{line}: ")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.lr", "write it as --set TABLE.NAME=VALUE"),
        ("lr=1", "write it as --set TABLE.NAME=VALUE"),
        ("trian.lr=1", "unknown section of --set 'trian'"),
        ("train.rl=1", "unknown setting of [train] 'rl'"),
        ("train.batch=many", "--set train.batch=many: many is no whole number"),
    ],
)
def test_a_set_that_does_not_fit_is_told(setting: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(MmedevalError) as error:
        read_recipe(written(tmp_path, PRETRAIN), "pretrain", [setting])
    assert said in str(error.value)
    assert error.value.exit_code == 2


def test_two_recipes_differ_in_what_changes_a_weight_alone(tmp_path: Path) -> None:
    one = read_recipe(written(tmp_path, PRETRAIN), "pretrain").as_json()
    other = read_recipe(
        written(tmp_path, PRETRAIN), "pretrain", ["train.log_every=3", "train.seed=1", "eval.limit=5", "model.precision=bf16"]
    )
    assert differences(one, other.as_json()) == ["model.precision: auto -> bf16", "train.seed: 42 -> 1"]
    assert differences(one, one) == []


def test_every_setting_says_what_it_does() -> None:
    for section in SECTIONS.values():
        assert all(len(words) > 3 for words in settings_of(section).values())
