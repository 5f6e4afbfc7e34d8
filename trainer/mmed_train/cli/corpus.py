"""`mmed-train corpus`: from raw text to shuffled token shards."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from mmed_train.corpus.config import STEPS

FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="CORPUS.TOML")


@click.group("corpus", short_help="Make token shards of raw text.")
def command() -> None:
    """Make token shards of raw text in six languages, as a TOML file says; see docs/corpus.md.

    \b
    mmed-train corpus run corpus.toml
    mmed-train corpus stats corpus.toml
    """


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--executor",
            type=click.Choice(["local", "slurm", "ray"]),
            default="local",
            show_default=True,
            help="Where tasks run: processes here, or datatrove's executors for a cluster.",
        ),
        click.option("--workers", type=click.IntRange(min=1), help="Tasks at once (default: one per processor)."),
    ):
        function = option(function)
    return FILE(function)


@command.command("run", short_help="Do all steps.")
@_options
def run(file: Path, executor: str, workers: int | None) -> None:
    """Do all steps that CORPUS.TOML names, and go on where they were stopped."""
    _run(file, None, executor, workers)
    _show(file)


def _add(name: str, words: str) -> None:
    @command.command(name, short_help=words, help=f"{words[:-1]}, as CORPUS.TOML says; the steps before must be done.")
    @_options
    def step(file: Path, executor: str, workers: int | None) -> None:
        _run(file, [name], executor, workers)


for _name, _words in STEPS.items():
    _add(_name, _words)


@command.command("stats", short_help="What there is, and what went.")
@FILE
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--chart", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Also draw a chart (PNG or SVG).")
def stats(file: Path, as_json: bool, chart: Path | None) -> None:
    """Tell documents, characters and tokens per language and source, how long they are, and why others were left out."""
    _show(file, as_json=as_json)
    if chart is not None:
        from mmed_train.corpus.config import read_corpus
        from mmed_train.corpus.report import draw, read_stats

        draw(read_stats(read_corpus(file)), chart)
        click.echo(f"{chart} written", err=True)


def _run(file: Path, names: Sequence[str] | None, executor: Any, workers: int | None) -> None:
    from mmed_train.corpus.config import read_corpus
    from mmed_train.corpus.steps import run_steps

    corpus = read_corpus(file)
    # A program that is started without a standard input has none.
    stdin = sys.stdin.buffer if sys.stdin else io.BytesIO()
    run_steps(
        corpus,
        names or corpus.steps,
        stdin=stdin,
        executor=executor,
        workers=workers,
        tell=lambda words: click.echo(words, err=True),
    )


def _show(file: Path, *, as_json: bool = False) -> None:
    from mmed_train.corpus.config import read_corpus
    from mmed_train.corpus.report import read_stats, show

    click.echo(show(read_stats(read_corpus(file)), as_json=as_json))
