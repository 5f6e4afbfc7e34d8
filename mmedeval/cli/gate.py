"""`mmedeval gate`: does a run hold?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from mmedeval.errors import UsageError


@click.command("gate", short_help="Does a run hold against a baseline? The exit code says.")
@click.option("--run", "run_", type=click.Path(path_type=Path), required=True, metavar="RUN", help="The run to judge.")
@click.option(
    "--baseline", type=click.Path(path_type=Path), metavar="FILE|RUN", help="What mmedeval baseline wrote, or a run folder."
)
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="TOML file with the options below; options win.")
@click.option("--max-drop", type=float, metavar="POINTS", help="A drop that is no larger never fails (default: 1.0).")
@click.option("--detect", type=float, metavar="POINTS", help="It holds only where so large a drop is excluded (default: 5.0).")
@click.option("--confidence", type=float, metavar="C", help="How sure both must be (default: 0.95).")
@click.option(
    "--min", "minimum", multiple=True, metavar="METRIC=VALUE", help="The least value, as in accuracy=0.6; may be repeated."
)
@click.option("--per-language/--overall", default=None, help="Judge every language, or the average alone (default).")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML.")
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write the tables as Markdown.")
@click.option("--github", is_flag=True, help="Print annotations, and add the tables to the step's summary.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    run_: Path,
    baseline: Path | None,
    config: Path | None,
    minimum: tuple[str, ...],
    junit: Path | None,
    markdown: Path | None,
    github: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Say whether a run holds against a baseline.

    \b
    0  holds: a drop of --detect points or more is excluded
    3  does not hold: a drop of more than --max-drop is seen, and is more than chance
    4  cannot tell: too few items for either
    2  a wrong call, or runs that cannot be compared

    \b
    mmedeval gate --baseline baseline.json --run runs/new
    mmedeval gate --baseline baseline.json --run runs/new --per-language --min accuracy=0.6
    """
    from mmedeval import verdict_console
    from mmedeval.cli import echo_json
    from mmedeval.gate import gate, make_rules, read_rules
    from mmedeval.outcomes import read_outcomes
    from mmedeval.verdict_formats import github_annotations, verdict_markdown, write
    from mmedeval.verdict_formats import junit as as_junit

    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    settings = {**(read_rules(config) if config is not None else {}), **given}
    settings["min"] = {**settings.get("min", {}), **_pairs(minimum)}
    if baseline is None and "baseline" in settings:
        baseline = Path(settings["baseline"])
    rules = make_rules(settings)
    # Apart: a run that has not changed is the same run, and holds.
    base = None if baseline is None else read_outcomes([baseline])[0]
    verdict = gate(base, read_outcomes([run_])[0], rules)
    if junit is not None:
        write(as_junit(verdict), junit, "--junit")
    if markdown is not None:
        write(verdict_markdown(verdict), markdown, "--markdown")
    if as_json:
        echo_json(verdict.as_json(), indent=2)
    else:
        verdict_console.print_verdict(verdict)
    if github:
        for line in github_annotations(verdict):
            click.echo(line, err=as_json)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            write(verdict_markdown(verdict), Path(summary), "GITHUB_STEP_SUMMARY", add=True)
    ctx.exit(verdict.exit_code)


def _pairs(pairs: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        try:
            found[name.strip()] = float(value) if equals and name.strip() else _refused(pair)
        except ValueError:
            _refused(pair)
    return found


def _refused(pair: str) -> float:
    raise UsageError(f"--min {pair!r} is no pair of a metric and a number; write it as in accuracy=0.6")
