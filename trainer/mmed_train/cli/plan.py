"""`mmed-train plan`: what a recipe would do, need and take, without the training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmed_train.cli.training import RECIPE, SET, need_packages

if TYPE_CHECKING:
    from mmed_train.training.recipe import Kind


@click.command("plan", short_help="Check a recipe, and tell what it needs.")
@RECIPE
@SET
@click.option("--kind", type=click.Choice(["pretrain", "finetune"]), help="What it is for (default: as its data say).")
@click.option("--devices", type=click.IntRange(min=1), help="How many (default: those of this machine).")
@click.option("--device-memory", "memory", metavar="80GB", help="Memory of each GPU, as its maker tells it.")
@click.option("--card", metavar="H100", help="The GPU's name, for the time (default: this machine's).")
@click.option("--strict", is_flag=True, help="Exit with 1 where something is in the way.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    file: Path,
    overrides: tuple[str, ...],
    kind: Kind | None,
    devices: int | None,
    memory: str | None,
    card: str | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Check all of RECIPE.TOML, and tell what it would do, without training and without reading weights.

    Data are read and counted as for the training; memory is that of a step of the model without contents. Tell the devices where
    the training is to run elsewhere:

    \b
    mmed-train plan recipe.toml --devices 8 --device-memory 80GB --card H100
    """
    need_packages("plan")
    from mmed_train.training.fit import find_target
    from mmed_train.training.plan import find_kind, make_plan
    from mmed_train.training.plan_console import print_plan
    from mmed_train.training.recipe import read_recipe
    from mmedeval.cli import echo_json, tell

    target = find_target(memory=memory, devices=devices, card=card)
    plan = make_plan(read_recipe(file, kind or find_kind(file, overrides), overrides), target, say=tell)
    if as_json:
        echo_json(plan.as_json(), indent=1)
    else:
        print_plan(plan)
    return 1 if strict and plan.obstacles else 0
