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
        if char in _KEPT or char in _HARMLESS_FORMAT or unicodedata.category(char) not in _UNSAFE
        else char.encode("unicode_escape").decode("ascii")
        if not "\ud800" <= char <= "\udfff"
        else f"\\u{ord(char):04x}"
        for char in text
    )


def to_json(value: object, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """JSON that any UTF-8 stream takes: half surrogate pairs, which a model may write, are escaped, and so are odd line ends."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    text = text.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
