"""`mmedeval judge`: a language model compares the rationales of several runs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("judge", short_help="Let a language model compare the rationales of several runs.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN...")
@click.option("--judge", required=True, metavar="SCHEME:NAME", help="The model that judges, as in openai:MODEL or hf:PATH.")
@click.option(
    "--mode",
    type=click.Choice(["pairwise", "ranking"]),
    default="pairwise",
    show_default=True,
    help="Two texts at a time, in both orders; or up to six at once.",
)
@click.option("--items", type=click.IntRange(min=1), metavar="N", help="Only N items of each task, drawn by the seed.")
@click.option(
    "--rationale-items",
    type=click.Choice(["checked", "all"]),
    help="Items whose reference a person found good (default), or all.",
)
@click.option(
    "--metric-arg", multiple=True, metavar="NAME=VALUE", help="A setting of the judge; may be repeated. See docs/metrics.md"
)
@click.option("--max-requests", type=click.IntRange(min=0), metavar="N", help="Refuse to start when more would be asked.")
@click.option(
    "--max-cost", type=click.FloatRange(min=0, min_open=True), metavar="USD", help="Ask no more once so much may be spent."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder for verdicts and figures.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(
    runs: tuple[Path, ...],
    judge: str,
    mode: str,
    items: int | None,
    rationale_items: str | None,
    metric_arg: tuple[str, ...],
    max_requests: int | None,
    max_cost: float | None,
    out: Path,
    as_json: bool,
) -> None:
    """Compare the rationales in the run folders RUN RUN... by a language model.

    Every verdict is stored with its prompt in DIR: the same command goes on where it was stopped, and asks nothing twice.
    """
    from mmedeval import console
    from mmedeval.catalog import Catalog
    from mmedeval.cli import echo_json, tell
    from mmedeval.cli.run import metric_arguments
    from mmedeval.errors import UsageError
    from mmedeval.host import make_host
    from mmedeval.store import read_samples
    from mmedeval.text import to_json

    names = [str(run) for run in runs]
    if len(set(names)) < len(names):
        raise UsageError(f"a run is named twice: {', '.join(names)}")
    results = {name: read_samples(run) for name, run in zip(names, runs, strict=True)}
    catalog = Catalog(make_host(), tell)
    arguments = metric_arguments(
        metric_arg,
        rationale_items=rationale_items,
        judge=judge,
        judge_max_requests=None if max_requests is None else str(max_requests),
        judge_max_cost=None if max_cost is None else str(max_cost),
    )
    metric = next(metric for metric in catalog.load_metrics(["judge"], "chat", arguments) if metric.spec.name == "judge")
    out.mkdir(parents=True, exist_ok=True)
    metric.prepare(catalog, out)
    found = metric.score.compare(results, mode, items)  # type: ignore[attr-defined]  # asked for by name
    (out / "contest.json").write_text(to_json(found, indent=2) + "\n", encoding="utf-8")
    if as_json:
        echo_json(found, indent=2)
    else:
        console.print_contest(found, out)
