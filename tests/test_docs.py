"""What the documentation shows is what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from mmed_train.cli import cli as train_cli
from mmedeval.catalog import Catalog
from mmedeval.cli import cli
from mmedeval.host import make_host
from mmedeval.runner import prepare
from mmedeval.testing import ScriptedBackend, prefer
from mmedeval.types import Generation, RunPlan

ROOT = Path(__file__).parent.parent
PROTOCOLS = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
RENDERED = re.findall(r"<!-- rendered: (\S+) (\S+) (\d+) (\S+) -->\n```text\n(.*?)\n```", PROTOCOLS, re.DOTALL)


@pytest.mark.parametrize(("task", "protocol", "shots", "sample", "shown"), RENDERED)
def test_a_prompt_shown_in_the_documentation_is_the_prompt_that_is_sent(
    task: str, protocol: str, shots: str, sample: str, shown: str
) -> None:
    catalog = Catalog(make_host())
    backend = ScriptedBackend(write=lambda request: Generation(request_id=request.id, text=""), score=prefer(lambda request: "A"))
    plan = RunPlan(model="scripted:any", tasks=(task,), protocol=protocol, shots=int(shots))
    prepared = prepare(plan, catalog, backend).tasks[0]
    request = next(request for request in prepared.requests if request.id == f"{task}/{sample}")
    prompt = request.prompt
    assert shown == (prompt.messages[-1].content if prompt.chat else prompt.text)


def test_the_documentation_shows_every_protocol() -> None:
    assert {protocol for _, protocol, *_ in RENDERED} == {"letter", "cloze", "chat", "paper", "paper-direct"}


def commands_shown() -> list[str]:
    """Every `mmedeval ...` and `mmed-train ...` line in a shell block of the README and the documentation."""
    found = []
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"```sh\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL):
            found += [line for line in block.splitlines() if line.startswith(("mmedeval ", "mmed-train "))]
    return found


@pytest.mark.parametrize("line", commands_shown())
def test_a_command_shown_in_the_documentation_can_be_given(line: str) -> None:
    program, *arguments = shlex.split(line, comments=True)
    command: click.Command | None = {"mmedeval": cli, "mmed-train": train_cli}[program]
    context: click.Context | None = None
    while isinstance(command, click.Group):
        name, *arguments = arguments
        context = click.Context(command, parent=context)
        command = command.get_command(context, name)
    assert command is not None
    command.make_context(line, arguments)


def test_the_settings_shown_in_the_readme_are_options(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "run.toml").write_text(shown, encoding="utf-8")
    command = cli.get_command(click.Context(cli), "run")
    assert command is not None
    settings = command.make_context("run", ["--config", str(tmp_path / "run.toml")]).params
    assert (settings["tasks"], settings["shots"]) == ("mmedbench_ja,mmedbench_fr", 3)
    assert settings["model_arg"] == ("dtype=bfloat16",)


def test_the_documentation_of_training_lists_every_setting() -> None:
    from mmed_train.training.presets import options_markdown

    assert options_markdown().strip() in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_recipes_shown_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    from mmed_train.training.recipe import read_recipe

    shown = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "training.md").read_text(encoding="utf-8"), re.DOTALL)
    for text in shown:
        (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
        assert read_recipe(tmp_path / "recipe.toml", "finetune" if 'tasks = ["mmedbench"]' in text else "pretrain")
    assert len(shown) == 2
