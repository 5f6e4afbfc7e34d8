"""`mmedeval baseline`: a run as one small file."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("baseline", short_help="Keep a run as one small file, to hold others against.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The file, as in baseline.json."
)
def command(run: Path, out: Path) -> None:
    """Keep the run in the folder RUN as a file fit to be committed.

    It holds figures, what became of each item, and digests; no question, prompt or output. compare, gate and trend take it
    wherever they take a run.
    """
    from mmedeval import verdict_console
    from mmedeval.outcomes import read_outcomes, write_baseline

    (outcomes,) = read_outcomes([run])
    write_baseline(outcomes, out)
    verdict_console.print_baseline(outcomes, out)
