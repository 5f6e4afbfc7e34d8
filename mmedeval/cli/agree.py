"""`mmedeval agree`: which metric can be trusted?"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("agree", short_help="Which metrics agree with people.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN...")
@click.option("--human", type=click.Path(path_type=Path), required=True, metavar="FILE", help="What mmedeval human import wrote.")
@click.option("--metrics", default="", metavar="NAME,...", help="Stored metrics to compare (default: all that every run has).")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder for agree.json, .csv, .png and .svg.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(runs: tuple[Path, ...], human: Path, metrics: str, out: Path | None, as_json: bool) -> None:
    """Hold the metrics stored in the study's run folders RUN RUN... against what people said.

    Kendall's tau, Spearman's and Pearson's correlation, and the share of pairs in people's order, with intervals; each metric is
    tested against the best one. See docs/human.md
    """
    from mmedeval import study_console
    from mmedeval.cli import echo_json
    from mmedeval.study import hold_against, write_agreement

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    found = hold_against(runs, human, names)
    drawn = write_agreement(found, out) if out is not None else True
    if as_json:
        echo_json(found.as_json(), indent=2)
    else:
        study_console.print_agreement(found, out, drawn=drawn)
    if not drawn:
        click.echo("no plot: it needs matplotlib, not installed here; run: pip install 'mmedeval[human]'", err=True)
