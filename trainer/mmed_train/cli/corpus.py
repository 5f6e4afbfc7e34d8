"""`mmed-train corpus`: from raw text to shuffled token shards."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mmed_train.corpus.config import Corpus

FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="CORPUS.TOML")
STEPS = {
    "extract": "Read documents out of files of any kind.",
    "filter": "Keep what is in its language, of quality, and medical.",
    "dedup": "Drop what is there twice, or nearly.",
    "decontaminate": "Drop what holds test items.",
    "tokenize": "Write token shards.",
    "mix": "Decide what an epoch sees, and tell the ratios.",
}


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
    from mmed_train.corpus.steps import check

    corpus = _read(file)
    check(corpus)
    for name in corpus.steps:
        _do(corpus, name, executor, workers)
    _show(corpus)


def _add(name: str, words: str) -> None:
    @command.command(name, short_help=words, help=f"{words[:-1]}, as CORPUS.TOML says; the steps before must be done.")
    @_options
    def step(file: Path, executor: str, workers: int | None) -> None:
        corpus = _read(file)
        if name not in corpus.steps:
            from mmedeval import UsageError

            raise UsageError(f"{name} is not among the steps of {file}")
        _do(corpus, name, executor, workers)


for _name, _words in STEPS.items():
    _add(_name, _words)


@command.command("stats", short_help="What there is, and what went.")
@FILE
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--chart", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Also draw a chart (PNG or SVG).")
def stats(file: Path, as_json: bool, chart: Path | None) -> None:
    """Tell documents, characters and tokens per language and source, how long they are, and why others were left out."""
    from mmed_train.corpus.config import read_corpus

    corpus = read_corpus(file)
    _show(corpus, as_json=as_json)
    if chart is not None:
        from mmed_train.corpus.report import draw, read_stats

        draw(read_stats(corpus), chart)
        click.echo(f"{chart} written", err=True)


def _read(file: Path) -> Corpus:
    from mmed_train.corpus.config import read_corpus
    from mmed_train.corpus.documents import spool_stdin

    corpus = read_corpus(file)
    spool_stdin(corpus, sys.stdin.buffer)
    return corpus


def _do(corpus: Corpus, name: str, executor: Any, workers: int | None) -> None:
    from mmed_train.corpus.run import run_step
    from mmed_train.corpus.steps import STEP_MAKERS

    found = run_step(
        corpus, STEP_MAKERS[name](corpus), executor=executor, workers=workers, tell=lambda words: click.echo(words, err=True)
    )
    counts = found["counts"]
    empty = [s.name for s in corpus.sources if not counts.get("sources", {}).get(s.name, {}).get(s.language, {}).get("documents")]
    if name == "extract" and empty:
        click.echo(f"warning: no document came out of {', '.join(empty)}", err=True)
    for warning in counts.get("warnings", ()):
        click.echo(f"warning: {warning}", err=True)


def _show(corpus: Corpus, *, as_json: bool = False) -> None:
    from mmed_train.corpus.report import read_stats, show

    click.echo(show(read_stats(corpus), as_json=as_json))
