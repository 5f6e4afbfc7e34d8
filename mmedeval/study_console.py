"""The tables of a study: what was exported, how raters agree with each other, how metrics agree with them."""

from __future__ import annotations

from pathlib import Path

from mmedeval.aggregate import AVERAGE
from mmedeval.agreement import Figure, Statistic
from mmedeval.console import make_console, make_table, plain, print_table
from mmedeval.specs import LANGUAGES
from mmedeval.study import KEY, Agreement, Exported, Plan, Study

MEASURES = {
    "alpha_ratings_ordinal": "alpha, ratings",
    "alpha_ratings_interval": "alpha, interval",
    "alpha_places": "alpha, places",
    "tau_places": "tau, places",
}
COLUMNS: dict[Statistic, str] = {
    "tau_pairs": "all pairs",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "accuracy": "right pairs",
}


def print_export(exported: Exported, plan: Plan, out: Path) -> None:
    console = make_console()
    for language, count in exported.items.items():
        wanted = f", {plan.items} were asked for" if plan.per_language and count < plan.items else ""
        console.print(plain(f"{_name(language)}: {count} of {exported.offered[language]} questions{wanted}"))
    if not plan.per_language and sum(exported.items.values()) < plan.items:
        console.print(plain(f"{sum(exported.items.values())} questions in all, {plan.items} were asked for"))
    sheets = ", ".join(f"{rater} ({number})" for rater, number in zip(exported.raters, exported.per_rater, strict=True))
    console.print(plain(f"sheets in {out}, a .html and a .csv each: {sheets}"))
    console.print(plain(f"send each rater one of the two; keep {out / KEY} to yourself, it tells which text is of which run"))


def print_study(study: Study, out: Path) -> None:
    console = make_console()
    for row in study.data["raters"]:
        missing = row["asked"] - row["answered"]
        console.print(
            plain(f"{row['rater']}: {row['answered']} of {row['asked']} answered{f', {missing} missing' if missing else ''}")
        )
    table = make_table("agreement of the raters, with 95 % intervals")
    table.add_column("language", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for title in MEASURES.values():
        table.add_column(title, justify="right", no_wrap=True)
    for part, figures in study.agreement.items():
        n = figures["alpha_ratings_ordinal"].n
        table.add_row(plain(_name(part)), str(n), *(_with_interval(figures[name]) for name in MEASURES))
    print_table(console, table)
    parts = study.agreement.values()
    pairs = dict.fromkeys(name for figures in parts for name in figures if name.startswith("kappa "))
    if pairs:
        table = make_table("ratings of two raters: Cohen's kappa, quadratic weights")
        table.add_column("raters", no_wrap=True)
        for part in study.agreement:
            table.add_column(plain(_name(part)), justify="right", no_wrap=True)
        for pair in pairs:
            cells = (_with_interval(figures[pair]) if pair in figures else "–" for figures in parts)
            table.add_row(plain(pair.removeprefix("kappa ")), *cells)
        print_table(console, table)
    else:
        console.print("one rater only: nothing to say about agreement")
    console.print(plain(f"n: questions that two or more rated; stored in {out}"))


def print_agreement(agreement: Agreement, out: Path | None, *, drawn: bool = True) -> None:
    console = make_console()
    compared = agreement.comparison
    several = len(agreement.items) > 1
    overall = AVERAGE if several else next(iter(agreement.items))
    ordered = sorted(compared.figures, key=lambda name: -_or(compared.figures[name][overall]["tau"].value, -2.0))
    title = "mean of the languages" if several else _name(overall)
    table = make_table(f"agreement with people, {title}")
    table.add_column("metric", no_wrap=True)
    for heading in ("tau", "95 % interval", *COLUMNS.values(), "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric in ordered:
        figures = compared.figures[metric][overall]
        tau, difference = figures["tau"], compared.differences.get(metric)
        table.add_row(
            plain(metric),
            _number(tau.value),
            _ends(tau) or "–",
            *(_number(figures[name].value) for name in COLUMNS),
            "best" if metric == compared.best else "–" if difference is None else f"{difference.p_holm:.3f}",
            style="bold" if metric == compared.best else None,
        )
    print_table(console, table)
    if several:
        table = make_table("Kendall's tau by language")
        table.add_column("metric", no_wrap=True)
        for language in agreement.items:
            table.add_column(plain(_name(language)), justify="right", no_wrap=True)
        for metric in ordered:
            cells = (_with_interval(compared.figures[metric][language]["tau"]) for language in agreement.items)
            table.add_row(plain(metric), *cells)
        print_table(console, table)
    counts = ", ".join(f"{_name(language)} {count}" for language, count in agreement.items.items())
    console.print(plain(f"{len(agreement.models)} runs, {agreement.raters} raters; questions: {counts}"))
    console.print("tau is the mean over the questions, as in the paper; p: against the best metric, Holm-corrected")
    for metric, number in agreement.left_out.items():
        console.print(plain(f"{number} judged questions have no {metric} of some run, and are left out for all metrics"))
    if out is not None:
        plots = ", agree.png, agree.svg" if drawn else ""
        console.print(plain(f"stored in {out}: agree.json, agree.csv (all intervals){plots}"))


def _name(part: str) -> str:
    return LANGUAGES.get(part, part)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _ends(figure: Figure) -> str:
    return "" if figure.low is None or figure.high is None else f"{figure.low:.2f} – {figure.high:.2f}"


def _with_interval(figure: Figure) -> str:
    ends = _ends(figure)
    return _number(figure.value) + (f" ({ends})" if ends else "")
