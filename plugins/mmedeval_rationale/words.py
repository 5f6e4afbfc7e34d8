"""Cuts text into words, language by language: what BLEU and ROUGE count."""

from __future__ import annotations

import re
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Numbers with their points and commas, words with their accents, each other sign by itself. English keeps its contractions whole;
# elsewhere an apostrophe ends a word, as in "l'hépatite".
_MARKS = r"\w\u0300-\u036f"
_ENGLISH = re.compile(rf"\d+(?:[.,]\d+)+|[{_MARKS}]+(?:'[{_MARKS}]+)*|[^\w\s]")
_OTHERS = re.compile(rf"\d+(?:[.,]\d+)+|[{_MARKS}]+'?|[^\w\s]")
# What MeCab can be given: half a surrogate pair has no UTF-8, and a NUL ends its text.
_UNFIT = re.compile(r"[\ud800-\udfff]")
# It takes the square of the time for letters without a space, and ends the process at some hundred thousand.
_LONGEST = 8192
# Two texts for each of the 3,426 items of the largest task.
_REMEMBERED = 8192


def normal(text: str) -> str:
    """Text in one of its many spellings: composed, half-width letters and digits, straight apostrophes."""
    return unicodedata.normalize("NFKC", text).replace("’", "'").replace("ʼ", "'")


@lru_cache(maxsize=_REMEMBERED)
def words(text: str, language: str) -> tuple[str, ...]:
    """The words and signs of a text, in order, without white space."""
    cut = _cutter(language)
    return tuple(sys.intern(word) for line in normal(text).splitlines() for word in cut(line) if not word.isspace())


def bare_words(text: str, language: str) -> list[str]:
    """The words in lower case, without signs."""
    return [word.lower() for word in words(text, language) if any(map(str.isalnum, word))]


def describe(language: str) -> str:
    """The cutter and its version."""
    if language == "zh":
        return f"jieba {version('jieba')}"
    if language == "ja":
        return f"fugashi {version('fugashi')}, unidic-lite {version('unidic-lite')}"
    return "unicode words"


@cache
def _cutter(language: str) -> Callable[[str], Iterable[str]]:
    if language == "zh":
        cut: Callable[[str], Iterable[str]] = jieba().lcut
        return cut
    if language == "ja":
        return _mecab()
    return (_ENGLISH if language == "en" else _OTHERS).findall


@cache
def jieba() -> Any:
    """jieba with its own dictionary; one for all texts."""
    with warnings.catch_warnings():
        # Invalid escapes and an old way to find its dictionary.
        warnings.simplefilter("ignore")
        import jieba as package

    package.setLogLevel(package.logging.WARNING)
    tokenizer = package.Tokenizer()
    # By default it reads what anyone on the machine may have put into the folder for temporary files.
    tokenizer.tmp_dir = str(_cache())
    return tokenizer


def _cache() -> Path:
    folder = Path.home() / ".cache" / "mmedeval"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def _mecab() -> Callable[[str], list[str]]:
    import fugashi
    import unidic_lite

    # Named, since another dictionary on the machine would cut otherwise.
    folder = Path(unidic_lite.DICDIR)
    tagger = fugashi.Tagger(f'-r "{folder / "mecabrc"}" -d "{folder}" -Owakati')

    def cut(line: str) -> list[str]:
        line = _UNFIT.sub("\ufffd", line).replace("\0", " ")
        pieces = (line[start : start + _LONGEST] for start in range(0, len(line), _LONGEST))
        return [word for piece in pieces for word in tagger.parse(piece).split()]

    return cut
