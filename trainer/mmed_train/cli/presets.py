"""`mmed-train presets`: what a recipe can start from, and every setting that it can have."""

from __future__ import annotations

import click


@click.command("presets", short_help="The settings that a recipe can start from.")
@click.argument("name", required=False)
@click.option("--options", "all_options", is_flag=True, help="Every setting of a recipe, with its default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, all_options: bool, as_json: bool) -> None:
    """All presets side by side, with their reasons; with NAME, a recipe to start from.

    \b
    mmed-train presets paper-lora > recipe.toml
    """
    from dataclasses import asdict

    from mmed_train.training.presets import PRESETS, options, preset_of, recipe_toml
    from mmed_train.training.presets_console import print_options, print_presets
    from mmedeval import UsageError
    from mmedeval.cli import echo_json

    if name is not None and all_options:
        raise UsageError(f"--options tells every setting, of no preset; leave out {name} or --options")
    if as_json and all_options:
        echo_json([asdict(each) for each in options()], indent=1)
    elif as_json:
        echo_json({each: asdict(preset_of(each)) for each in ([name] if name else PRESETS)}, indent=1)
    elif all_options:
        print_options()
    elif name is not None:
        click.echo(recipe_toml(name), nl=False)
    else:
        print_presets()
