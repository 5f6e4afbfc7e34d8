"""`mmedeval rescore`: scores a stored run again."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("rescore", short_help="Score a stored run again, without the model.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--metrics", default="", metavar="NAME,...", help="Metrics to add. See: mmedeval list metrics")
@click.option("--metric-arg", multiple=True, metavar="NAME=VALUE", help="A setting of a metric; may be repeated.")
@click.option("--rationale-items", type=click.Choice(["checked", "all"]), help="Short for --metric-arg rationale_items=...")
@click.option("--judge", metavar="SCHEME:NAME", help="Short for --metric-arg judge=...")
def command(run: Path, metrics: str, metric_arg: tuple[str, ...], rationale_items: str | None, judge: str | None) -> None:
    """Score the run stored in the folder RUN again: answers are read anew, metrics are added, no model is asked."""
    from mmedeval import console
    from mmedeval.catalog import Catalog
    from mmedeval.cli import tell
    from mmedeval.cli.run import metric_arguments, names
    from mmedeval.host import make_host
    from mmedeval.runner import rescore

    arguments = metric_arguments(metric_arg, rationale_items=rationale_items, judge=judge)
    console.print_record(rescore(run, Catalog(make_host(), tell), names(metrics), arguments), run)
