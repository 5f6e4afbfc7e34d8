"""`mmedeval compare`: what changed between runs over the same items?"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("compare", short_help="Runs over the same items: what changed, and whether by more than chance.")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("new", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="NEW...")
@click.option("--items", is_flag=True, help="Also the items gained and lost.")
@click.option("--force", is_flag=True, help="Compare what runs share that are not comparable; the result says so.")
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write the tables as Markdown, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparisons as JSON.")
def command(base: Path, new: tuple[Path, ...], items: bool, force: bool, markdown: Path | None, as_json: bool) -> None:
    """Compare each run NEW with the run BASE, item by item. A run is a folder, or a file that mmedeval baseline wrote.

    Differences with intervals, McNemar's test, effect sizes, and what so many items could have shown. See docs/ci.md
    """
    from mmedeval import verdict_console
    from mmedeval.cli import echo_json
    from mmedeval.compare import compare
    from mmedeval.outcomes import read_outcomes
    from mmedeval.verdict_formats import comparison_markdown, write

    first, *others = read_outcomes([base, *new])
    comparisons = [compare(first, other, force=force) for other in others]
    if markdown is not None:
        write("\n".join(comparison_markdown(each, items=items) for each in comparisons), markdown, "--markdown")
    if as_json:
        echo_json([each.as_json(items=items) for each in comparisons], indent=2)
        return
    for comparison in comparisons:
        verdict_console.print_comparison(comparison, items=items)
