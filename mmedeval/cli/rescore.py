"""`mmedeval rescore`: scores a stored run again."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("rescore", short_help="Score a stored run again, without the model.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--metrics", default="", metavar="NAME,...", help="Metrics to add. See: mmedeval list metrics")
def command(run: Path, metrics: str) -> None:
    """Score the run stored in the folder RUN again: answers are read anew, metrics are added, no model is asked."""
    from mmedeval import console
    from mmedeval.catalog import Catalog
    from mmedeval.host import make_host
    from mmedeval.runner import rescore

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    console.print_record(rescore(run, Catalog(make_host()), names), run)
