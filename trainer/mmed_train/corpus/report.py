"""What there is of a corpus, and what went on the way: out of the manifests of its steps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmed_train.corpus.config import LANGUAGES, Corpus
from mmed_train.corpus.run import MANIFEST, read_json, step_folder
from mmedeval import MissingPackageError, UsageError
from mmedeval.console import make_console, make_table, print_table

DOCUMENT_STEPS = ("extract", "filter", "dedup", "decontaminate")
"""Those that write documents."""
MORE = 1.25
"""Room above the longest bar of a chart."""


@dataclass(frozen=True, kw_only=True)
class SourceStats:
    """One source: `kept` documents behind each step, and characters, tokens and lengths of what is left.

    `lengths[n]` counts documents of 2 ** (n - 1) up to 2 ** n - 1 characters; `rejected` is by step and reason; `broken` counts
    files, or row groups of Parquet, that could not be read, or not to their end.
    """

    source: str
    language: str
    kept: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    broken: int = 0
    characters: int = 0
    lengths: Mapping[str, int] = field(default_factory=dict)
    tokens: int | None = None
    mixed: Mapping[str, float] | None = None
    """What the first epoch takes: tokens, their share in it, and how often that is all of them."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    steps: tuple[str, ...]
    sources: tuple[SourceStats, ...]


def read_stats(corpus: Corpus) -> Stats:
    """Of the steps that are done. Raises `UsageError` where none is."""
    done = {step: step_folder(corpus, step) / MANIFEST for step in corpus.steps}
    counts = {step: read_json(file)["counts"] for step, file in done.items() if file.exists()}
    if not counts:
        raise UsageError(f"nothing is done of {corpus.file} yet; run: mmed-train corpus run {corpus.file}")
    documents = [step for step in DOCUMENT_STEPS if step in counts]
    found = []
    for source in corpus.sources:
        told = {step: counts[step].get("sources", {}).get(source.name, {}).get(source.language, {}) for step in counts}
        last = told[documents[-1]] if documents else {}
        found.append(
            SourceStats(
                source=source.name,
                language=source.language,
                kept={step: told[step].get("documents", 0) for step in documents},
                rejected={step: told[step]["rejected"] for step in counts if told[step].get("rejected")},
                broken=told["extract"].get("broken", 0) if "extract" in told else 0,
                characters=last.get("characters", 0),
                lengths=last.get("lengths", {}),
                tokens=told["tokenize"].get("tokens", 0) if "tokenize" in told else None,
                mixed=told.get("mix") or None,
            )
        )
    return Stats(steps=tuple(documents), sources=tuple(found))


def show(stats: Stats, *, as_json: bool = False) -> str:
    """The figures as tables of text, or as JSON."""
    if as_json:
        return json.dumps(asdict(stats), ensure_ascii=False, indent=1)
    console = make_console()
    with console.capture() as captured:
        table = make_table()
        mixed = ("in an epoch", "share", "passes") if any(each.mixed for each in stats.sources) else ()
        for name in ("source", "language", *(f"after {step}" for step in stats.steps), "characters", "tokens", *mixed):
            table.add_column(name, justify="left" if name in ("source", "language") else "right")
        for each in sorted(stats.sources, key=lambda each: (LANGUAGES.index(each.language), each.source)):
            kept = [f"{each.kept[step]:,}" for step in stats.steps]
            taken = each.mixed or {"tokens": 0, "share": 0.0, "passes": 0.0}
            epoch = (f"{taken['tokens']:,}", f"{taken['share']:.1%}", f"{taken['passes']:.2f}") if mixed else ()
            table.add_row(each.source, each.language, *kept, f"{each.characters:,}", _number(each.tokens), *epoch)
        print_table(console, table)
        reasons = _reasons(stats)
        if reasons:
            table = make_table("left out")
            for name in ("step", "reason", "documents"):
                table.add_column(name, justify="right" if name == "documents" else "left")
            for (step, reason), count in reasons.most_common():
                table.add_row(step, reason, f"{count:,}")
            print_table(console, table)
        if broken := sum(each.broken for each in stats.sources):
            console.print(f"broken files, read as far as they could be: {broken:,}")
    return captured.get().rstrip()


def _reasons(stats: Stats) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for each in stats.sources:
        for step, reasons in each.rejected.items():
            for reason, count in reasons.items():
                found[step, reason] += count
    return found


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def draw(stats: Stats, file: Path) -> None:
    """A chart of amounts per language and source, and of the documents' lengths. Raises `UsageError` for another kind of file."""
    if file.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"--chart {file}: charts are .png or .svg files")
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingPackageError("a chart", ["matplotlib"], "corpus") from error
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    amounts, lengths = figure.subplots(1, 2)
    languages = [language for language in LANGUAGES if any(each.language == language for each in stats.sources)]
    with_tokens = all(each.tokens is not None for each in stats.sources)
    floor = dict.fromkeys(languages, 0)
    for each in stats.sources:
        amount = (each.tokens or 0) if with_tokens else each.characters
        amounts.bar(each.language, amount, bottom=floor[each.language], label=each.source)
        floor[each.language] += amount
    amounts.set_title("tokens" if with_tokens else "characters")
    amounts.set_ylim(0, max(floor.values(), default=0) * MORE or 1)
    amounts.legend(fontsize="x-small", ncols=2, loc="upper right")
    for language in languages:
        total: Counter[int] = Counter()
        for each in stats.sources:
            if each.language == language:
                total.update({int(size): count for size, count in each.lengths.items()})
        sizes = sorted(total)
        documents = sum(total.values()) or 1
        shares = [total[size] / documents for size in sizes]
        lengths.plot([2.0 ** (size - 1) for size in sizes], shares, marker=".", label=language)
    lengths.set_xscale("log", base=2)
    lengths.set_title("documents by length in characters")
    lengths.set_ylabel("share of the language's documents")
    lengths.legend(fontsize="small")
    figure.savefig(file, dpi=150)
