"""`mmed-train card`: a model card out of what is on disk."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("card", short_help="Write a model card out of what is on disk.")
@click.argument("checkpoint", type=click.Path(path_type=Path), metavar="CHECKPOINT")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="A new file (default: README.md in CHECKPOINT)."
)
@click.option("--run", "runs", multiple=True, type=click.Path(path_type=Path), metavar="RUN", help="A run folder of mmedeval.")
@click.option(
    "--training",
    type=click.Path(path_type=Path),
    metavar="OUTPUT",
    help="The output folder of its training (default: the folder around CHECKPOINT).",
)
@click.option("--license", "license_", metavar="NAME", help="Its license, as the hub calls it (default: left to you).")
def command(checkpoint: Path, out: Path | None, runs: tuple[Path, ...], training: Path | None, license_: str | None) -> None:
    """Write a model card in the format of Hugging Face for the model or adapter in the folder CHECKPOINT.

    \b
    mmed-train card runs/first/final --run results/first-on-mmedbench
    """
    from mmed_train.training.card import write_card
    from mmedeval.cli import one_line, tell

    card = write_card(checkpoint, out, runs=runs, training=training, license=license_)
    click.echo(one_line(str(card.path)))
    for sentence in card.missing:
        tell(f"not in it: {sentence}")
