"""`mmedeval doctor`: what works here, and how to get the rest."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("doctor", short_help="What works on this machine.")
@click.option("--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="Look for the data here (also: MMEDBENCH_DIR).")
def command(data_dir: Path | None) -> None:
    """What is installed, which backends can run here and how to get the others, and where data was found."""
    from mmedeval import console
    from mmedeval.catalog import Catalog
    from mmedeval.doctor import diagnose
    from mmedeval.host import make_host

    console.print_diagnosis(diagnose(Catalog(make_host()), data_dir))
