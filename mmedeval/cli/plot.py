"""`mmedeval plot`: finished runs as a picture for a paper."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("plot", short_help="Finished runs as a picture: bars, a radar, a curve over checkpoints.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--kind", required=True, type=click.Choice(["bars", "radar", "curve"]), help="curve: over the steps of a training.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="svg, png or pdf.")
@click.option("--metric", default="accuracy", metavar="NAME", help="What to show (default: accuracy).")
@click.option("--group", metavar="NAME", help="The tasks to show, where the runs have several groups of them.")
def command(runs: tuple[Path, ...], kind: str, out: Path, metric: str, group: str | None) -> None:
    """Draw a metric of the finished runs in the folders RUNS by language, with 95 % intervals.

    \b
    mmedeval plot runs/a runs/b --kind radar -o radar.svg
    mmedeval plot out/eval/step-* --kind curve -o curve.pdf
    """
    from mmedeval.cli.report import check_place, writing
    from mmedeval.report import data
    from mmedeval.report.plots import draw
    from mmedeval.runs import read_runs

    check_place(out)
    found = read_runs(runs)
    data.check(found)
    with writing(out):
        draw(found, kind, out, metric=metric, group=group)
    click.echo(f"written to {click.format_filename(out)}")
