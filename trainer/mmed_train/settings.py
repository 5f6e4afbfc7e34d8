"""Settings out of a TOML file: names and types are checked, and what is wrong is told with its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mmedeval import DataError, UnknownNameError


def read_toml(file: Path, document: str) -> tuple[Mapping[str, Any], Lines]:
    """What a file says, and its lines. Raises `DataError`; `document` is where a reader finds what such a file holds."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        return tomllib.loads(text), Lines(file, text)
    except FileNotFoundError as error:
        raise DataError(f"{file} does not exist; see {document} for what it holds") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def hints(kind: type) -> Mapping[str, Any]:
    """The type of each field of a dataclass."""
    found = get_type_hints(kind)
    return {each.name: found[each.name] for each in fields(kind)}


def read_values(told: Any, where: Lines, table: str, number: int, known: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table, whose names and types must be among the `known`; `number` counts tables of the same name."""
    if not isinstance(told, dict):
        raise where.wrong(f"{table} must be a table", table, number)
    values = {}
    for name, value in told.items():
        if name not in known or name == "line":
            raise where.unknown("setting", name, known, table=table, number=number, key=name)
        values[name] = typed(value, known[name])
        if values[name] is MISSING:
            raise where.wrong(f"{name} = {value!r} is no {said(known[name])}", table, number, name)
    return values


def typed(value: Any, hint: Any) -> Any:
    """The value as its type wants it; `MISSING` where it does not fit."""
    hint = _sole(hint)
    if get_origin(hint) is Literal:
        return value if isinstance(value, str) and value in get_args(hint) else MISSING
    if hint == tuple[str, ...]:
        return tuple(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else MISSING
    if get_origin(hint) is Mapping:
        kind = get_args(hint)[1]
        fits = isinstance(value, dict) and all(typed(each, kind) is not MISSING for each in value.values())
        return dict(value) if fits else MISSING
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)) else MISSING


def _sole(hint: Any) -> Any:
    """What a type is that may be `None`, which TOML does not know."""
    if get_origin(hint) is UnionType:
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    return hint


def said(hint: Any) -> str:
    """A type in words."""
    hint = _sole(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if hint == tuple[str, ...]:
        return "list of strings"
    if get_origin(hint) is Mapping:
        return "table of numbers by language"
    return {str: "string", int: "whole number", float: "number", bool: "true or false"}[hint]


@dataclass(frozen=True)
class Lines:
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
            if current == table and (seen == number or not table):  # above all tables nothing is counted
                head = head or index
                if key is not None and re.match(rf"\s*(\[\w+\.)?[\"']?{re.escape(key)}\b", line):
                    return index
        return head or 1

    def wrong(self, message: str, table: str, number: int = 0, key: str | None = None) -> DataError:
        """The error for a setting; a table named "" is what stands above all tables."""
        return DataError.at(self.file, self.line(table, number, key), message)

    def unknown(
        self, kind: str, name: str, known: Iterable[str], *, table: str, number: int = 0, key: str | None = None
    ) -> DataError:
        return DataError.at(self.file, self.line(table, number, key), str(UnknownNameError(kind, name, known)))
