"""`mmed-train presets` on a terminal."""

from __future__ import annotations

import json
import tomllib

import pytest
from click.testing import CliRunner, Result

from mmed_train.cli import cli
from mmed_train.training.presets import PRESETS, options, recipe_toml, table


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["presets", *arguments], catch_exceptions=False)


@pytest.mark.parametrize("width", [80, 120])
def test_presets_stand_side_by_side_in_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    told = run()
    lines = told.output.splitlines()
    assert told.exit_code == 0
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["setting", *PRESETS]
    firsts = [line.split()[0] for line in lines if line.strip()]
    assert {option.name for option, _ in table()} <= set(firsts)
    (lr,) = [line.split() for line in lines if line.startswith("lr ")]
    assert lr == ["lr", "1e-05", "2e-05", "1e-06", "2e-05"]
    reasons = " ".join(told.output.split())
    assert "its README says 1e-6" in reasons
    assert all(f"{name}: {preset.summary}" in reasons for name, preset in PRESETS.items())


@pytest.mark.parametrize("name", PRESETS)
def test_one_of_them_is_printed_as_a_recipe(name: str) -> None:
    told = run(name)
    assert told.output == recipe_toml(name)
    assert tomllib.loads(told.output)["preset"] == name


@pytest.mark.parametrize("width", [80, 120])
def test_every_setting_is_told_in_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run("--options").output.splitlines()
    assert max(map(len, lines)) <= width
    assert {option.name for option in options()} <= {line.split()[0] for line in lines if line.strip()}


def test_json_holds_presets_and_settings() -> None:
    assert json.loads(run("--json").output).keys() == PRESETS.keys()
    one = json.loads(run("paper-lora", "--json").output)
    assert one["paper-lora"]["values"]["adapter"]["targets"] == ["q_proj", "v_proj"]
    told = json.loads(run("--options", "--json").output)
    assert [f"{each['section']}.{each['name']}".strip(".") for each in told] == [option.path for option in options()]


def test_an_unknown_preset_and_two_wishes_are_refused_in_a_sentence() -> None:
    wrong = run("paper-lroa")
    assert (wrong.exit_code, "did you mean paper-lora" in wrong.output) == (2, True)
    both = run("paper-lora", "--options")
    assert (both.exit_code, both.output.startswith("error: --options")) == (2, True)
