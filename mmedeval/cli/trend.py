"""`mmedeval trend`: how a training run goes."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("trend", short_help="Accuracy over the checkpoints of a training run.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN...")
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write the tables as Markdown, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the trend as JSON.")
def command(runs: tuple[Path, ...], markdown: Path | None, as_json: bool) -> None:
    """Accuracy over the checkpoints of one training run: the best, and the first that is worse than one before it.

    Runs are ordered by the step in their names, as in step-500 or checkpoint-500; else as given.

    \b
    mmedeval trend out/eval/step-*
    """
    from mmedeval import verdict_console
    from mmedeval.cli import echo_json
    from mmedeval.outcomes import read_outcomes
    from mmedeval.trend import trend
    from mmedeval.verdict_formats import trend_markdown, write

    found = trend(read_outcomes(runs))
    if markdown is not None:
        write(trend_markdown(found), markdown, "--markdown")
    if as_json:
        echo_json(found.as_json(), indent=2)
    else:
        verdict_console.print_trend(found)
