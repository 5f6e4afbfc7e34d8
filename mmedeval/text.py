"""Makes hostile text safe to print: what a model wrote must not move the cursor, colour the screen or reverse the line."""

from __future__ import annotations

import json
import re
import unicodedata

# Line breaks and tabs are wanted; everything else of these categories changes how the rest of the screen is read.
_KEPT = "\n\t"
_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
# Joiners belong to how some scripts and emoji are written.
_HARMLESS_FORMAT = "\u200c\u200d"


def printable(text: str) -> str:
    """The text with control, format, bidi-override and unassigned characters written as `\\xNN`, `\\uNNNN`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char
        if not _acts(char)
        else char.encode("unicode_escape").decode("ascii")
        if not "\ud800" <= char <= "\udfff"
        else f"\\u{ord(char):04x}"
        for char in text
    )


def to_json(value: object, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """JSON that any UTF-8 stream and any screen takes: what acts on a screen, and half surrogate pairs, are `\\uNNNN` escapes."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    return text.translate({ord(char): json.dumps(char)[1:-1] for char in {*text} if _acts(char)})


def _acts(char: str) -> bool:
    return char not in _KEPT and char not in _HARMLESS_FORMAT and unicodedata.category(char) in _UNSAFE


# What begins like this a spreadsheet computes, and with it may send what is in other cells anywhere.
_FORMULA = "=+-@"
# What begins a link, a tag, a code span, emphasis, a formula, a table cell, an entity; and, at the beginning of a line, a block.
_MARKUP = re.compile(r"[\\`*_{}\[\]<>()!|~&:$]|^[-+=#]|(?<=www)\.", re.IGNORECASE)
_NUMBERED = re.compile(r"^(\d{1,9})\.")


def csv_cell(text: str) -> str:
    """Text as a spreadsheet shows it: no formula, and nothing that acts on a screen. An apostrophe in front says "text"."""
    text = printable(text)
    # Some skip white space, and read full-width and small signs as the plain ones.
    first = unicodedata.normalize("NFKC", text.lstrip()[:1])
    return f"'{text}" if text.startswith("\t") or (first and first in _FORMULA) else text


def markdown(text: str) -> str:
    """Text as it is, in one line or one table cell of Markdown: no markup, no HTML, no link, nobody mentioned."""
    line = _NUMBERED.sub(r"\1\\.", _MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split()))))
    # Escaped or not, an @ with a name behind it calls that person on GitHub; with a comment between them it does not.
    return line.replace("@", "@<!-- -->")


def first_line(error: BaseException) -> str:
    """What a foreign error says, for a sentence of ours."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
