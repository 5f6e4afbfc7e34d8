"""`mmed-train export`: checkpoints for other engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

if TYPE_CHECKING:
    from mmed_train.training.export import Dtype


@click.group("export", short_help="Write a checkpoint for other engines.")
def command() -> None:
    """Write a checkpoint for other engines.

    \b
    mmed-train export gguf ./checkpoint --type f16
    """


@command.command("gguf", short_help="One file for llama.cpp.")
@click.argument("checkpoint", type=click.Path(path_type=Path), metavar="CHECKPOINT")
@click.option("--type", "kind", type=click.Choice(["f32", "f16", "q8_0"]), required=True, help="How weights are stored.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A new file (default: the checkpoint's name and type, here).",
)
def gguf(checkpoint: Path, kind: str, out: Path | None) -> None:
    """Write the llama, mistral or qwen2 checkpoint in the folder CHECKPOINT as one GGUF file for llama.cpp and `gguf:`."""
    from mmedeval import MissingPackageError

    try:
        from mmed_train.gguf import Kind, export_gguf
    except ModuleNotFoundError as error:
        if error.name not in ("gguf", "numpy"):
            raise
        raise MissingPackageError("mmed-train export gguf", [error.name], "export") from error
    wanted: Kind = next(each for each in get_args(Kind) if each == kind)
    exported = export_gguf(checkpoint, out or Path(f"{checkpoint.resolve().name}-{kind}.gguf"), wanted)
    click.echo(f"{exported.path}: {exported.tensors} tensors, {exported.bytes / 1e6:,.1f} MB")
    for warning in exported.warnings:
        click.echo(f"note: {warning}", err=True)


@command.command("safetensors", short_help="Without what only training needs, in a type of one's choice.")
@click.argument("checkpoint", type=click.Path(path_type=Path), metavar="CHECKPOINT")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    help="What weights are stored in (default: as they are).",
)
def safetensors(checkpoint: Path, folder: Path, dtype: Dtype | None) -> None:
    """Write the checkpoint in the folder CHECKPOINT, without what only training needs, to the new folder FOLDER."""
    from mmedeval import MissingPackageError
    from mmedeval.cli import one_line, tell

    try:
        from mmed_train.training.export import export_safetensors
    except ModuleNotFoundError as error:
        if error.name not in ("safetensors", "torch"):
            raise
        raise MissingPackageError("mmed-train export safetensors", [error.name], "train") from error
    exported = export_safetensors(checkpoint, folder, dtype)
    types = ", ".join(exported.types)
    click.echo(one_line(f"{exported.path}: {exported.tensors} tensors in {types}, {exported.bytes / 1e6:,.1f} MB"))
    for note in exported.notes:
        tell(f"note: {note}")
