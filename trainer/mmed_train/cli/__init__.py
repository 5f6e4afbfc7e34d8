"""The command line of the trainer. A command's module is imported when it is used, so that `--help` answers at once."""

from __future__ import annotations

from collections.abc import Mapping

import click

from mmedeval.cli import CONTEXT, LazyGroup, show_version, start

COMMANDS: Mapping[str, str] = {
    "convert": "Rewrite a checkpoint into llama's layout.",
    "corpus": "Make token shards of raw text.",
    "presets": "The settings that a recipe can start from.",
    "plan": "Check a recipe, and tell what it needs.",
    "pretrain": "Continue pretraining on token shards.",
    "finetune": "Finetune on the train split of tasks.",
    "merge": "Merge an adapter into its base.",
    "export": "Write a checkpoint for other engines.",
    "card": "Write a model card out of what is on disk.",
}


def main() -> None:
    """The command `mmed-train`."""
    start(cli)


@click.group("mmed-train", cls=LazyGroup, package="mmed_train.cli", summaries=COMMANDS, context_settings=CONTEXT)
@click.option("--debug", is_flag=True, help="Show the full traceback of every error.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show the version.")
def cli(debug: bool) -> None:
    """Train the models that mmedeval evaluates.

    \b
    mmed-train corpus run corpus.toml
    mmed-train pretrain recipe.toml
    mmed-train export gguf CHECKPOINT --type q8_0
    """
