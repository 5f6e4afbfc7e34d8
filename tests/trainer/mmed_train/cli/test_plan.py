"""`mmed-train plan` on a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mmed_train.cli import cli

Checkpoint = Callable[..., Path]
FAR = ("--devices", "2", "--device-memory", "80GB", "--card", "H100")


@pytest.fixture
def recipe(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    file = tmp_path / "recipe.toml"
    file.write_text(
        f'output = "out"\n[model]\npath = "{checkpoint()}"\n[data]\ntasks = ["mmedbench_mini_en", "mmedbench_mini_fr"]\n'
        'protocols = ["letter", "paper"]\nmax_length = 700\n[train]\nepochs = 2\n'
    )
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["plan", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize("width", [80, 120])
def test_a_plan_fits_into_a_terminal_and_tells_all(width: int, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    told = run(recipe, *FAR)
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    # A path is as long as it is.
    assert all(len(line.rstrip()) <= width for line in lines if str(recipe.parent) not in line)
    text = " ".join(told.stdout.split())
    for words in (
        "finetune, preset default",
        "in the protocol letter",
        "items were left out: they are longer than max_length = 700",
        "8 rows at once x 2 devices = 16 rows",
        "epochs end at",
        "weights in float32",
        "optimizer state (adamw_torch_fused)",
        "it fits: H100 has 80.0 GiB, of which 75.0 GiB can be used",
        "2 x H100",
        "a checkpoint",
        "nothing is in the way",
    ):
        assert words in text
    assert not (recipe.parent / "out").exists()


def test_json_can_be_read_again(recipe: Path) -> None:
    told = json.loads(run(recipe, "--json", *FAR).stdout)
    assert (told["kind"], told["schedule"]["rows"], told["target"]["devices"]) == ("finetune", 16, 2)
    assert told["fits"]["memory"] is True
    assert {each["language"] for each in told["data"]["languages"]} == {"en", "fr"}


def test_settings_can_be_tried_out(recipe: Path) -> None:
    told = json.loads(run(recipe, "--json", "--set", "train.batch=2", "--set", "adapter.kind=lora", *FAR).stdout)
    assert (told["schedule"]["batch"], told["adapter"]) == (2, "lora")
    assert told["base"]["trained"] < told["base"]["parameters"]


def test_what_does_not_fit_ends_with_1_where_it_is_asked_for(recipe: Path) -> None:
    small = ("--device-memory", "1200MB", "--set", "train.batch=16")
    loose, strict = run(recipe, *small), run(recipe, "--strict", *small)
    assert (loose.exit_code, strict.exit_code) == (0, 1)
    text = " ".join(loose.stdout.split())
    assert "it does not fit" in text
    assert "model.gradient_checkpointing = true" in text
    assert "in the way:" in text
    assert run(recipe, "--strict", *FAR).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "train.batch=0"), "batch = 0 is below 1"),
        (("--set", "train.optimizer=adamw_toch"), "did you mean"),
        (("--device-memory", "lots"), "write it as in 80GB"),
        (("--kind", "pretrain"), "give either corpus"),
        (("--set", "data.max_length=5000"), "positions of the model"),
    ],
)
def test_a_wrong_recipe_or_call_is_refused_in_a_sentence(arguments: tuple[str, ...], words: str, recipe: Path) -> None:
    told = run(recipe, *arguments)
    assert told.exit_code == 2
    assert told.stdout == ""
    assert words in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    told = run(tmp_path / "none.toml")
    assert (told.exit_code, "does not exist" in told.stderr) == (2, True)
