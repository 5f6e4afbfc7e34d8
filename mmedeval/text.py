"""Makes hostile text safe to print: what a model wrote must not move the cursor, colour the screen or reverse the line."""

from __future__ import annotations

import json
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


def first_line(error: BaseException) -> str:
    """What a foreign error says, for a sentence of ours."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
