"""What `pretrain` and `finetune` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mmed_train.training.recipe import Kind

RECIPE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="RECIPE.TOML")
SET = click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Another value for a setting, as in train.lr=1e-5.")


def training_command(kind: Kind, words: str, summary: str) -> click.Command:
    """The command of a kind of training."""

    @click.command(kind, short_help=summary, help=words)
    @RECIPE
    @SET
    @click.option("--resume", is_flag=True, help="Go on from the last whole checkpoint.")
    def command(file: Path, overrides: tuple[str, ...], resume: bool) -> int:
        need_packages(kind)
        from mmed_train.training.recipe import read_recipe
        from mmedeval.cli import tell

        recipe = read_recipe(file, kind, overrides)
        from mmed_train.training.jobs import prepare
        from mmed_train.training.loop import TrainingStopped, first_process, train

        say = tell if first_process() else _nothing
        try:
            final = train(prepare(recipe, say=say), resume=resume, say=say)
        except TrainingStopped as stopped:
            tell(str(stopped))
            return 130
        if first_process():
            click.echo(f"{final}  (mmedeval run --model hf:{final})")
        return 0

    return command


def _nothing(_: str) -> None:
    """Says nothing: of several processes the first one speaks."""


def need_packages(what: str) -> None:
    """Raises `MissingPackageError` where a package that trains is not installed."""
    import importlib.util

    from mmedeval import MissingPackageError

    missing = [
        name for name in ("torch", "transformers", "accelerate", "peft", "matplotlib") if not importlib.util.find_spec(name)
    ]
    if missing:
        raise MissingPackageError(f"mmed-train {what}", missing, "train")
