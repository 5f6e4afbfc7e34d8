"""Bytes of HTML pages to text: in the encoding that they prove, that the page declares, or that fits its language best."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*(?:x-)?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# Encodings of text, by Python's names, and those for which browsers take larger sets that contain them.
# Source: https://encoding.spec.whatwg.org/#names-and-labels
_ENCODINGS = frozenset({
    "utf-8", "cp866", "cp874", "cp932", "cp949", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256",
    "cp1257", "cp1258", "iso8859-2", "iso8859-3", "iso8859-4", "iso8859-5", "iso8859-6", "iso8859-7", "iso8859-8",
    "iso8859-10", "iso8859-13", "iso8859-14", "iso8859-15", "iso8859-16", "koi8-r", "koi8-u", "mac-roman",
    "mac-cyrillic", "big5hkscs", "euc_jp", "gb18030", "iso2022_jp",
})  # fmt: skip
_LARGER: Mapping[str, str] = MappingProxyType(
    {
        "ascii": "cp1252",
        "iso8859-1": "cp1252",
        "iso8859-9": "cp1254",
        "iso8859-11": "cp874",
        "tis-620": "cp874",
        "gb2312": "gb18030",
        "gbk": "gb18030",
        "shift_jis": "cp932",
        "big5": "big5hkscs",
        "euc_kr": "cp949",
    }
)
_LIKELY: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "en": ("cp1252",),
        "fr": ("cp1252",),
        "es": ("cp1252",),
        "ru": ("cp1251", "koi8-r", "cp866"),
        "zh": ("gb18030", "big5hkscs"),
        "ja": ("cp932", "euc_jp"),
    }
)
# The letters that make up half of any text; in a wrong encoding they are others.
_FREQUENT: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "ru": frozenset("оеаинтсрвл"),
        "zh": frozenset("的是不一有和在人病者为中患可国这了我治以上大出会时要发用年生個為這來時說們"),
        "ja": frozenset("のにはをたがでとしてるいなれかっんらまこ、。"),
    }
)
# Where ISO-2022-JP goes over to two bytes a character.
_SHIFTS = re.compile(rb"\x1b\$[@B]")
# An encoding in which a larger share of characters cannot be read is wrong.
_MOST_WRONG = 0.01
# The same for UTF-8 and ISO-2022-JP, of the characters beyond ASCII: other encodings, read as these, have 0.3 and more, nearly
# always 0.5 and more.
_MOST_WRONG_BEYOND, _MOST_WRONG_DECLARED = 0.2, 0.5


def decoded(data: bytes, language: str) -> tuple[str, list[str]]:
    """A page's text, and what could not be read of it."""
    text, name = _read(data, language)
    wrong = text.count("\ufffd")
    return text, [f"{wrong} characters could not be read as {name}"] if wrong else []


def _read(data: bytes, language: str) -> tuple[str, str]:
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace"), name
    declared = _declared(data)
    # Bytes of another encoding are hardly ever one of these by chance, whatever is declared.
    for name in ("iso2022_jp", "utf-8") if _SHIFTS.search(data) else ("utf-8",):
        text = data.decode(name, "replace")
        beyond = len(text) - len(text.encode("ascii", "ignore"))
        most = (_MOST_WRONG_DECLARED if name == declared else _MOST_WRONG_BEYOND) * beyond
        if text.count("\ufffd") <= most and (beyond or name == "utf-8"):
            return text, name
    names = [declared] if declared not in (None, "utf-8", "iso2022_jp") else []
    readings = [(data.decode(name, "replace"), name) for name in (*names, _likeliest(data, language))]
    return min(readings, key=lambda reading: max(reading[0].count("\ufffd") / len(reading[0]), _MOST_WRONG))


def _declared(data: bytes) -> str | None:
    found = _DECLARED.search(data[:4096])
    if found is None:
        return None
    try:
        name = codecs.lookup(found[1].decode("ascii")).name
    except LookupError:
        return None
    name = _LARGER.get(name, name)
    return name if name in _ENCODINGS else None


def _likeliest(data: bytes, language: str) -> str:
    sample, names = data[: 1 << 18], _LIKELY[language]
    if len(names) == 1:
        return names[0]
    frequent = _FREQUENT[language]

    def fits(name: str) -> float:
        letters = [char for char in sample.decode(name, "replace") if char > "\x7f"]
        good = sum(char in frequent for char in letters)
        # Half-width katakana are what Shift JIS makes of other encodings.
        bad = sum(char == "\ufffd" or "\uff61" <= char <= "\uff9f" for char in letters)
        return (good - 2 * bad) / max(len(letters), 1)

    return max(names, key=fits)
