"""The description of a corpus: one TOML file, read and checked before anything is done."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mmed_train.settings import Lines, hints, read_toml, read_values
from mmedeval import DataError

LANGUAGES: Final = ("en", "zh", "ja", "fr", "ru", "es")
FORMATS: Final = ("jsonl", "parquet", "text", "pdf", "html", "hub")
RULES: Final = ("language", "keywords", "quality")
STEPS: Final[Mapping[str, str]] = {
    "extract": "Read documents out of files of any kind.",
    "filter": "Keep what is in its language, of quality, and medical.",
    "dedup": "Drop what is there twice, or nearly.",
    "decontaminate": "Drop what holds test items.",
    "tokenize": "Write token shards.",
    "mix": "Decide what an epoch sees, and tell the ratios.",
}
"""All steps in their order, and what they do."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where documents come from.

    `path` is a file, a folder or a glob beside the TOML file; `-` is standard input, `org/name` with `format = "hub"` a dataset
    of the Hugging Face hub. `text` and `id` name the fields of a record. `rules` are those of the step `filter` that its
    documents must pass. `epochs` is how often its tokens are on offer in an epoch. `line` is where the file names its path.
    """

    language: str
    path: str
    name: str = ""
    format: str = ""
    text: str = "text"
    id: str = "id"
    subset: str = ""
    revision: str = ""
    split: str = "train"
    rules: tuple[str, ...] = RULES
    epochs: float = 1.0
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Extract:
    """`ocr`: read scanned pages with Tesseract."""

    ocr: bool = False


@dataclass(frozen=True, kw_only=True)
class Filter:
    """`hits` and `share` replace a language's keyword rule: so many different keywords, so large a share of the characters."""

    hits: Mapping[str, int] = field(default_factory=dict)
    share: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Dedup:
    """`near`: also documents that are nearly the same (MinHash)."""

    near: bool = True


@dataclass(frozen=True, kw_only=True)
class Decontaminate:
    """Tasks of `mmedeval` whose test items must not be in the corpus; `data_dir` is where their data lie."""

    tasks: tuple[str, ...] = ("mmedbench",)
    data_dir: str = ""


@dataclass(frozen=True, kw_only=True)
class Tokenize:
    """`tokenizer` is a folder or a name on the hub; `bos` and `eos` put its tokens in front of and behind every document."""

    tokenizer: str = ""
    revision: str = ""
    bos: bool = False
    eos: bool = True


@dataclass(frozen=True, kw_only=True)
class Mix:
    """See `mmed_train.corpus.mixing.Mix`; `weights` and `caps` are by language, `window` and `tokens` are tokens."""

    window: int = 2048
    weights: Mapping[str, float] | None = None
    temperature: float = 1.0
    tokens: float | None = None
    caps: Mapping[str, float] = field(default_factory=dict)
    most_epochs: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """How jobs are asked of Slurm."""

    partition: str = ""
    qos: str = "normal"
    time: str = "24:00:00"
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 4


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What one TOML file says. `folder` is where it lies: its paths begin there."""

    file: Path
    output: Path
    sources: tuple[Source, ...]
    tasks: int = 8
    seed: int = 0
    steps: tuple[str, ...] = tuple(STEPS)
    extract: Extract = field(default_factory=Extract)
    filter: Filter = field(default_factory=Filter)
    dedup: Dedup = field(default_factory=Dedup)
    decontaminate: Decontaminate = field(default_factory=Decontaminate)
    tokenize: Tokenize = field(default_factory=Tokenize)
    mix: Mix = field(default_factory=Mix)
    slurm: Slurm = field(default_factory=Slurm)

    @property
    def folder(self) -> Path:
        return self.file.parent

    def inside(self, path: str) -> Path:
        """A path of the TOML file."""
        return self.folder / Path(path).expanduser()


SECTIONS: Final[Mapping[str, type]] = {
    "extract": Extract,
    "filter": Filter,
    "dedup": Dedup,
    "decontaminate": Decontaminate,
    "tokenize": Tokenize,
    "mix": Mix,
    "slurm": Slurm,
}
_GENERAL: Final[Mapping[str, Any]] = {"output": str, "tasks": int, "seed": int, "steps": tuple[str, ...]}


def read_corpus(file: Path) -> Corpus:
    """Raises `DataError` with file and line for what is wrong."""
    told, where = read_toml(file, "docs/corpus.md")
    for name in told:
        if name not in ("corpus", "source", *SECTIONS):
            raise where.unknown("section", name, ("corpus", "source", *SECTIONS), table=name)
    general = read_values(told.get("corpus", {}), where, "corpus", 0, _GENERAL)
    if "output" not in general:
        raise DataError(f'{file} names no output; give a new folder, as in [corpus] output = "corpus"')
    given = told.get("source", [])
    if not isinstance(given, list) or not given:
        raise DataError(f'{file} names no source; add one, as in [[source]] language = "en", path = "texts/*.jsonl"')
    sources = tuple(_source(each, number, where) for number, each in enumerate(given))
    for number, source in enumerate(sources):
        if source.name in [each.name for each in sources[:number]]:
            raise where.wrong(f"the name {source.name!r} is given twice; documents are counted by it", "source", number, "name")
    sections = {name: kind(**read_values(told.get(name, {}), where, name, 0, hints(kind))) for name, kind in SECTIONS.items()}
    # Absolute: tasks may run where another folder is the current one.
    file = file.absolute()
    output = file.parent / Path(general["output"]).expanduser()
    corpus = Corpus(file=file, sources=sources, **{**general, "output": output}, **sections)
    _check(corpus, where)
    return corpus


def _source(told: Any, number: int, where: Lines) -> Source:
    values = read_values(told, where, "source", number, hints(Source))
    for name in ("language", "path"):
        if not values.get(name):
            raise where.wrong(f"a source needs a {name}", "source", number)
    if values["language"] not in LANGUAGES:
        raise where.unknown("language", values["language"], LANGUAGES, table="source", number=number, key="language")
    for rule in values.get("rules", ()):
        if rule not in RULES:
            raise where.unknown("rule", rule, RULES, table="source", number=number, key="rules")
    values["format"] = values.get("format") or guess_format(values["path"])
    if values["format"] not in FORMATS:
        said = f"format {values['format']!r} is none of {', '.join(FORMATS)}" if values["format"] else "its path tells no format"
        raise where.wrong(f'{said}; give one, as in format = "jsonl"', "source", number, "format")
    if values["path"] == "-" and values["format"] != "jsonl":
        raise where.wrong("standard input is read as JSON lines only", "source", number, "format")
    values["name"] = values.get("name") or re.sub(r"\W+", "-", values["path"]).strip("-") or "stdin"
    if not re.fullmatch(r"[\w.-]+", values["name"]):
        raise where.wrong(
            f"the name {values['name']!r} may hold letters, digits, '_', '-' and '.' only", "source", number, "name"
        )
    if values.get("epochs", 0) < 0:
        raise where.wrong(f"epochs = {values['epochs']:g} is below 0", "source", number, "epochs")
    return Source(**values, line=where.line("source", number, "path"))


ENDINGS: Final[Mapping[str, str]] = {
    ".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".jsonl.zst": "jsonl", ".parquet": "parquet", ".txt": "text", ".pdf": "pdf",
    ".html": "html", ".htm": "html",
}  # fmt: skip


def guess_format(path: str) -> str:
    """By the ending; "" where it tells nothing."""
    if path == "-":
        return "jsonl"
    return next((kind for ending, kind in ENDINGS.items() if path.lower().endswith(ending)), "")


def _check(corpus: Corpus, where: Lines) -> None:
    for step in corpus.steps:
        if step not in STEPS:
            raise where.unknown("step", step, STEPS, table="corpus", key="steps")
    in_order = [step for step in STEPS if step in corpus.steps]
    if list(corpus.steps) != in_order or in_order[:1] != ["extract"] or ("mix" in in_order and "tokenize" not in in_order):
        told = f"steps must begin with extract, stand in the order {', '.join(STEPS)}, and hold tokenize where they hold mix"
        raise where.wrong(told, "corpus", 0, "steps")
    if sum(source.path == "-" for source in corpus.sources) > 1:
        raise where.wrong("only one source can be standard input", "source", 0, "path")
    for name, least in (("tasks", 1), ("seed", 0)):
        if getattr(corpus, name) < least:
            raise where.wrong(f"{name} = {getattr(corpus, name)} is below {least}", "corpus", 0, name)
    for table, name, values in (
        ("filter", "hits", corpus.filter.hits),
        ("filter", "share", corpus.filter.share),
        ("mix", "weights", corpus.mix.weights or {}),
        ("mix", "caps", corpus.mix.caps),
    ):
        for language, value in values.items():
            if language not in LANGUAGES:
                raise where.unknown("language", language, LANGUAGES, table=table, key=name)
            if not value >= 0:  # nor a NaN
                raise where.wrong(f"{name}.{language} = {value:g} is below 0", table, 0, name)
    spoken = {source.language for source in corpus.sources}
    for name, values in (("weights", corpus.mix.weights or {}), ("caps", corpus.mix.caps)):
        for language in values:
            if language not in spoken:
                raise where.unknown("language of a source", language, spoken, table="mix", key=name)
    if corpus.mix.weights is not None and (left_out := sorted(spoken - {*corpus.mix.weights})):
        raise where.wrong(f"weights: none for {', '.join(left_out)}; 0 leaves a language out", "mix", 0, "weights")
    if corpus.mix.window < 2:
        raise where.wrong(f"window = {corpus.mix.window} is below 2 tokens", "mix", 0, "window")
    if corpus.mix.temperature < 1:
        raise where.wrong(f"temperature = {corpus.mix.temperature:g} is below 1 (shares as they are)", "mix", 0, "temperature")
    if {"tokenize", "mix"} & {*corpus.steps} and not corpus.tokenize.tokenizer:
        raise DataError(
            f'{corpus.file} names no tokenizer; add [tokenize] tokenizer = "FOLDER", or leave tokenize and mix out of steps'
        )
