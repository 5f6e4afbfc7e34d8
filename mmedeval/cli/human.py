"""`mmedeval human`: sheets for people out of runs, and their answers back in."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("human", short_help="Let people rate and rank the rationales of several runs.")
def command() -> None:
    """Let people rate and rank what several runs wrote, without knowing which run it is.

    \b
    mmedeval human export runs/A runs/B --items 50 --out study
    mmedeval human import study/*.json --study study --out study.json
    mmedeval agree runs/A runs/B --human study.json
    """


@command.command("export", short_help="Write blinded sheets: a page and a CSV file per rater.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN...")
@click.option("--items", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="Questions in all.")
@click.option("--per-language", is_flag=True, help="N questions of each language, instead of N in all.")
@click.option("--raters", type=click.IntRange(1, 99), default=3, show_default=True, metavar="N", help="How many people.")
@click.option("--own-raters", is_flag=True, help="N raters for each language, who see only that language.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws questions and orders.")
@click.option(
    "--rationale-items",
    type=click.Choice(["checked", "all"]),
    default="checked",
    show_default=True,
    help="Questions whose reference a person found good, or all.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="A new folder for sheets and key.")
def export(
    runs: tuple[Path, ...],
    items: int,
    per_language: bool,
    raters: int,
    own_raters: bool,
    seed: int,
    rationale_items: str,
    out: Path,
) -> None:
    """Write a study of the rationales in the run folders RUN RUN... into DIR.

    Each rater gets RATER.html, which works without a network and exports RATER.json, or RATER.csv. Keep key.json to yourself:
    it tells which text is of which run.
    """
    from mmedeval import study_console
    from mmedeval.rationales import rationale_of
    from mmedeval.study import Plan, export

    plan = Plan(
        items=items,
        per_language=per_language,
        raters=raters,
        own_raters=own_raters,
        seed=seed,
        checked_only=rationale_items == "checked",
    )
    # People read what the metrics read.
    study_console.print_export(export(runs, out, plan, rationale_of), plan, out)


@command.command("import", short_help="Check and merge the raters' answers.")
@click.argument("answers", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--study", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder that export wrote.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The merged answers, as in study.json."
)
@click.option("--json", "as_json", is_flag=True, help="Print the merged answers as JSON.")
def import_(answers: tuple[Path, ...], study: Path, out: Path, as_json: bool) -> None:
    """Check, merge and unblind the raters' answers: files that the page exported, or filled CSV sheets.

    Says how far the raters agree with each other. The key and sheets that nobody filled in are passed over.
    """
    from mmedeval import study_console
    from mmedeval.cli import echo_json
    from mmedeval.study import import_answers, write_json

    found = import_answers(answers, study)
    write_json(found.data, out)
    if as_json:
        echo_json(found.data, indent=2)
    else:
        study_console.print_study(found, out)
