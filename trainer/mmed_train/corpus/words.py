"""Cuts text in six languages into the units that duplicates and test items are looked for by: its letters and numbers only."""

from __future__ import annotations

import re
import unicodedata

# Han, kana and their repeat marks. Such a script has no white space, so that each character is a unit of its own.
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_UNSPACED = rf"\u3005-\u3007{_KANA}\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_UNSPACED_UNIT = re.compile(rf"[{_UNSPACED}]")
# Accents and stress marks, soft hyphens and what else is not seen: copies often lack them, or have them in addition.
_UNSEEN = re.compile("[\u00ad\u0300-\u036f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")


def normal(text: str) -> str:
    """Text without what copies of it lose or gain: case, accents, widths of letters, ligatures, signs that are not seen."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", _UNSEEN.sub("", unicodedata.normalize("NFKD", text))).casefold()


def units(text: str) -> list[str]:
    """The words of `text` in order, without punctuation and white space; of Han and kana every character.

    The script decides, not a label: a text in two languages is cut as both need it, and a wrong label does no harm.
    """
    return _UNIT.findall(normal(text))


def is_unspaced(unit: str) -> bool:
    """Whether a unit is a character of a script without white space."""
    return _UNSPACED_UNIT.match(unit) is not None


def spans(text: str) -> list[tuple[int, int]]:
    """Where each of `units(text)` stands: its first character in `text`, and the one behind its last. Slow: for reports."""
    if text.isascii():
        return [unit.span() for unit in _UNIT.finditer(text)]
    normals = {character: normal(character) for character in {*text}}
    owners = [place for place, character in enumerate(text) for _ in normals[character]]
    whole = "".join(normals[character] for character in text)
    return [(owners[unit.start()], owners[unit.end() - 1] + 1) for unit in _UNIT.finditer(whole)]
