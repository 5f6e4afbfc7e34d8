"""The description of a corpus: one TOML file, read and checked before anything is done."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from mmedeval import DataError, UnknownNameError

LANGUAGES: Final = ("en", "zh", "ja", "fr", "ru", "es")
FORMATS: Final = ("jsonl", "parquet", "text", "pdf", "html", "hub")
RULES: Final = ("language", "keywords", "quality")
STEPS: Final = ("extract", "filter", "dedup", "decontaminate", "tokenize", "mix")


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
    steps: tuple[str, ...] = STEPS
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


def read_corpus(file: Path) -> Corpus:
    """Raises `DataError` with file and line for what is wrong."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        told = tomllib.loads(text)
    except FileNotFoundError as error:
        raise DataError(f"{file} does not exist; see docs/corpus.md for what it holds") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    where = _Where(file, text)
    for name in told:
        if name not in ("corpus", "source", *SECTIONS):
            raise where.unknown("section", name, ("corpus", "source", *SECTIONS), table=name)
    general = _values(told.get("corpus", {}), where, "corpus", 0, _CORPUS)
    if "output" not in general:
        raise DataError(f'{file} names no output; give a new folder, as in [corpus] output = "corpus"')
    given = told.get("source", [])
    if not isinstance(given, list) or not given:
        raise DataError(f'{file} names no source; add one, as in [[source]] language = "en", path = "texts/*.jsonl"')
    sources = tuple(_source(each, number, where) for number, each in enumerate(given))
    for number, source in enumerate(sources):
        if source.name in [each.name for each in sources[:number]]:
            raise where.wrong(f"the name {source.name!r} is given twice; documents are counted by it", "source", number, "name")
    sections = {name: kind(**_values(told.get(name, {}), where, name, 0, _hints(kind))) for name, kind in SECTIONS.items()}
    # Absolute: tasks may run where another folder is the current one.
    file = file.absolute()
    output = file.parent / Path(general["output"]).expanduser()
    corpus = Corpus(file=file, sources=sources, **{**general, "output": output}, **sections)
    _check(corpus, where)
    return corpus


def _source(told: Any, number: int, where: _Where) -> Source:
    values = _values(told, where, "source", number, _hints(Source))
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


def _check(corpus: Corpus, where: _Where) -> None:
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
    if corpus.mix.window < 2:
        raise where.wrong(f"window = {corpus.mix.window} is below 2 tokens", "mix", 0, "window")
    if corpus.mix.temperature < 1:
        raise where.wrong(f"temperature = {corpus.mix.temperature:g} is below 1 (shares as they are)", "mix", 0, "temperature")
    if {"tokenize", "mix"} & {*corpus.steps} and not corpus.tokenize.tokenizer:
        raise DataError(
            f'{corpus.file} names no tokenizer; add [tokenize] tokenizer = "FOLDER", or leave tokenize and mix out of steps'
        )


def _hints(kind: type) -> Mapping[str, Any]:
    return {each.name: get_type_hints(kind)[each.name] for each in fields(kind)}


_CORPUS: Final[Mapping[str, Any]] = {"output": str, "tasks": int, "seed": int, "steps": tuple[str, ...]}


def _values(told: Any, where: _Where, table: str, number: int, hints: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table with names and types that are known."""
    if not isinstance(told, dict):
        raise where.wrong(f"{table} must be a table", table, number)
    values = {}
    for name, value in told.items():
        if name not in hints or name == "line":
            raise where.unknown("setting", name, hints, table=table, number=number, key=name)
        values[name] = _typed(value, hints[name])
        if values[name] is MISSING:
            raise where.wrong(f"{name} = {value!r} is no {_said(hints[name])}", table, number, name)
    return values


def _typed(value: Any, hint: Any) -> Any:
    """The value as its type wants it; `MISSING` where it does not fit."""
    hint = _sole(hint)
    if hint == tuple[str, ...]:
        return tuple(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else MISSING
    if get_origin(hint) is Mapping:
        kind = get_args(hint)[1]
        fits = isinstance(value, dict) and all(_typed(each, kind) is not MISSING for each in value.values())
        return dict(value) if fits else MISSING
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)) else MISSING


def _sole(hint: Any) -> Any:
    """What a type is that may be `None`, which TOML does not know."""
    if get_origin(hint) is UnionType:
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    return hint


def _said(hint: Any) -> str:
    hint = _sole(hint)
    if hint == tuple[str, ...]:
        return "list of strings"
    if get_origin(hint) is Mapping:
        return "table of numbers by language"
    return {str: "string", int: "whole number", float: "number", bool: "true or false"}[hint]


@dataclass(frozen=True)
class _Where:
    """Finds the lines of a TOML file again, which the parser does not tell."""

    file: Path
    text: str

    def line(self, table: str, number: int, key: str | None) -> int:
        """Of a key in the `number`-th table of this name (or in a part of it); of the table's head where there is none."""
        current, seen, head = "", -1, 0
        for index, line in enumerate(self.text.splitlines(), 1):
            if found := re.match(r"\s*(\[\[?)\s*([\w-]+)", line):
                current = found[2]
                seen += current == table and (found[1] == "[[" or seen < 0)
            if current == table and seen == number:
                head = head or index
                if key is not None and re.match(rf"\s*(\[\w+\.)?[\"']?{re.escape(key)}\b", line):
                    return index
        return head or 1

    def wrong(self, message: str, table: str, number: int, key: str | None = None) -> DataError:
        return DataError.at(self.file, self.line(table, number, key), message)

    def unknown(
        self, kind: str, name: str, known: Iterable[str], *, table: str, number: int = 0, key: str | None = None
    ) -> DataError:
        return DataError.at(self.file, self.line(table, number, key), str(UnknownNameError(kind, name, known)))
