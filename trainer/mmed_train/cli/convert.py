"""`mmed-train convert`: checkpoints that transformers cannot load, in a layout that it can."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mmed_train.internlm import Kind


@click.group("convert", short_help="Rewrite a checkpoint into llama's layout.")
def command() -> None:
    """Rewrite a checkpoint that needs remote code into llama's layout, which every backend loads.

    \b
    mmed-train convert internlm2 Henrychur/MMedLM2 ./mmedlm2
    mmedeval run --model hf:./mmedlm2 --tasks mmedbench_ja
    """


@command.command("internlm", short_help="InternLM, as in MMedLM.")
@click.argument("source", metavar="SRC")
@click.argument("out", type=click.Path(path_type=Path), metavar="DST")
def internlm(source: str, out: Path) -> None:
    """Write the InternLM checkpoint SRC, a folder or a hub name, to the new folder DST."""
    _convert(source, out, "internlm")


@command.command("internlm2", short_help="InternLM 2, as in MMedLM 2.")
@click.argument("source", metavar="SRC")
@click.argument("out", type=click.Path(path_type=Path), metavar="DST")
def internlm2(source: str, out: Path) -> None:
    """Write the InternLM 2 checkpoint SRC, a folder or a hub name, to the new folder DST."""
    _convert(source, out, "internlm2")


def _convert(source: str, out: Path, kind: Kind) -> None:
    from mmedeval import MissingPackageError

    try:
        from mmed_train.internlm import convert_internlm, find_checkpoint

        converted = convert_internlm(find_checkpoint(source), out, kind)
    except ModuleNotFoundError as error:
        if error.name not in ("huggingface_hub", "numpy", "sentencepiece", "tokenizers", "torch"):
            raise
        raise MissingPackageError(f"mmed-train convert {kind}", [error.name], "convert") from error
    click.echo(
        f"{converted.path}: {converted.tensors} tensors, {converted.bytes / 1e6:,.1f} MB; "
        f"the tokenizer was held against sentencepiece on {converted.checked:,} texts"
    )
    for note in converted.notes:
        click.echo(f"note: {note}", err=True)
