"""`mmed-train merge`: an adapter and its base as one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmed_train.cli.training import need_packages

if TYPE_CHECKING:
    from mmed_train.training.export import Dtype


@click.command("merge", short_help="Merge an adapter into its base.")
@click.argument("adapter", metavar="ADAPTER")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--base", metavar="BASE", help="Folder or hub name of the base (default: the one that the adapter names).")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="What weights are stored in (default: as the base's are).",
)
def command(adapter: str, folder: Path, base: str | None, dtype: Dtype | None) -> None:
    """Write the adapter in the folder ADAPTER, merged into its base, to the new folder FOLDER.

    What was written is read back and held against the adapter on its base; a model that is another one is not kept.
    """
    need_packages("merge")
    from mmed_train.training.merge import merge
    from mmedeval.cli import one_line, tell

    merged = merge(adapter, folder, base=base, dtype=dtype, say=tell)
    exact, stored = merged.exact, merged.stored
    click.echo(
        one_line(f"{merged.path}: {merged.parameters:,} weights in {merged.dtype} (mmedeval run --model hf:{merged.path})")
    )
    click.echo(
        f"held against the adapter on its base, in float32, at {stored.places} places of {merged.probes} texts in "
        f"{merged.languages} languages:"
    )
    if exact != stored:
        click.echo(f"  merged: logits differ by at most {exact.largest:.2g}, the likeliest next token at {exact.flipped}")
    click.echo(
        f"  read back from disk in {merged.dtype}: logits differ by at most {stored.largest:.2g}, the likeliest next token at "
        f"{stored.flipped}"
    )
