"""`mmedeval report`: finished runs as a page or a table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

KINDS = {".html": "html", ".htm": "html", ".md": "md", ".csv": "csv", ".parquet": "parquet"}


@click.command("report", short_help="Finished runs as a page, or as md, csv, parquet.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The file to write.")
@click.option("--format", "kind", type=click.Choice(["html", "md", "csv", "parquet"]), help="Default: as the file's name ends.")
@click.option(
    "--samples/--no-samples",
    default=None,
    help="Every sample: in a page a browser of them (default), in csv and parquet a row each instead of the figures.",
)
def command(runs: tuple[Path, ...], out: Path, kind: str | None, samples: bool | None) -> None:
    """Show the finished runs in the folders RUNS side by side, in one file.

    \b
    mmedeval report runs/a runs/b -o report.html
    mmedeval report runs/a -o figures.csv
    """
    from mmedeval.errors import UsageError
    from mmedeval.report import tables
    from mmedeval.report.data import check
    from mmedeval.report.html import make_page
    from mmedeval.runs import read_runs

    kind = kind or KINDS.get(out.suffix.lower())
    if kind is None:
        raise UsageError(f"{out}: its name does not say what to write; end it in {', '.join(KINDS)}, or give --format")
    if kind == "md" and samples:
        raise UsageError("--format md has no samples; use html, csv or parquet")
    check_place(out)
    found = read_runs(runs)
    check(found)
    with writing(out):
        if kind == "parquet":
            tables.write_parquet(found, out, samples=bool(samples))
        else:
            if kind == "html":
                text = make_page(found, samples=samples is not False)
            else:
                text = tables.as_markdown(found) if kind == "md" else tables.as_csv(found, samples=bool(samples))
            out.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    click.echo(f"written to {click.format_filename(out)} ({out.stat().st_size / 1e6:.2f} MB)")


def check_place(out: Path) -> None:
    """Raises `UsageError` where nothing can be written, before anything is read."""
    from mmedeval.errors import UsageError
    from mmedeval.store import refuse_own_file

    if out.is_dir():
        raise UsageError(f"{out} is a folder; name the file to write in it with --out")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is no folder; make it, or choose another place with --out")
    refuse_own_file(out, "--out")


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """What the file system refuses, told with the file: not all of its errors name one."""
    from mmedeval.errors import UsageError

    try:
        yield
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}; choose another place with --out") from error
