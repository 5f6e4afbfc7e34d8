"""Whether a text is medical: by how many keywords it holds, and how much of it they are.

The rule is the paper's (Qiu et al. 2024, "Towards Building Multilingual Language Model for Medicine", MMedC): a text passes with
enough different keywords that make up enough of its characters. A keyword of more than 10 characters, or of several words and
more than 5, matches anywhere; a shorter one matches whole words, where a script sets words apart. Other than in the paper's
scripts, punctuation ends a word, keywords that overlap count once, inflected forms are one keyword, and Chinese and Japanese are
read at all.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from mmedeval import DataError, UnknownNameError, UsageError

# Longer keywords match inside of words, too. Source: the paper's scripts.
LONGEST_WORD, LONGEST_PHRASE = 10, 5
_UNSPACED = frozenset({"ja", "zh"})
# Soft hyphens, signs of no width and, in Russian, stress marks stand inside of words; ligatures come out of PDF files.
_REPLACED = (
    *((mark, "") for mark in "\u00ad\u0301\u200b\u200c\u200d\u2060\ufeff"),
    *(("\u2010", "-"), ("\u2011", "-"), ("’", "'"), ("œ", "oe"), ("æ", "ae"), ("ё", "е")),
    *(("\ufb00", "ff"), ("\ufb01", "fi"), ("\ufb02", "fl"), ("\ufb03", "ffi"), ("\ufb04", "ffl")),
    *((mark, " ") for mark in "\u0085\u00a0\u2002\u2003\u2009\u2028\u2029\u202f\u3000"),
)
# In Chinese and Japanese: letters, digits, hyphens and slashes of full width, katakana of half width, squared units.
_SHAPES = "\uff0d\uff0f-\uff19\uff21-\uff3a\uff41-\uff5a\uff65-\uff9f\u3380-\u33df"
_VARIANTS = re.compile(f"[{_SHAPES}{''.join(mark for mark, _ in _REPLACED)}]+")
_WHITE = "\n\t\r\v\f"
# Texts are read in parts of at least so many characters, which end with one of these marks: no keyword holds one.
_PART, _MARKS = 512, ".,;:!?()。，、；：！？（）"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeywordCount:
    """Different keywords, all their occurrences, the characters of these, and those of the whole text, as `fold` makes it."""

    distinct: int
    occurrences: int
    characters: int
    length: int

    @property
    def share(self) -> float:
        """The part of the text that is keywords, 0 to 1."""
        return self.characters / self.length if self.length else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """At least so many different keywords, which make up at least this share of the characters."""

    distinct: int
    share: float

    def __post_init__(self) -> None:
        if self.distinct < 1 or not 0 <= self.share <= 1:
            raise UsageError(f"a rule of {self.distinct} keywords and a share of {self.share}; give 1 or more, and 0 to 1")

    def holds(self, count: KeywordCount) -> bool:
        return count.distinct >= self.distinct and count.share >= self.share


# Source: the thresholds of the paper's scripts.
PAPER: Mapping[str, Rule] = MappingProxyType(
    {
        "en": Rule(distinct=5, share=0.04),
        "zh": Rule(distinct=5, share=0.05),
        "ja": Rule(distinct=5, share=0.05),
        "fr": Rule(distinct=4, share=0.04),
        "ru": Rule(distinct=4, share=0.02),
        "es": Rule(distinct=4, share=0.04),
    }
)


class Keywords:
    """Finds the keywords of one language, in time linear in the text. Can be pickled.

    A term is written as in a lexicon: forms, set apart by commas, that count as one keyword, each with any ending if it ends in
    "*". What `fold` makes equal is not told apart. Of keywords that overlap, only the leftmost counts, and of those that start
    together the longest.
    """

    def __init__(self, language: str, terms: Iterable[str] | None = None, *, rule: Rule | None = None) -> None:
        """By default the terms are those of `lexicon` and the rule is the paper's.

        Raises `UnknownNameError` for a language that is none of the six, `DataError` for terms that are empty or there twice.
        """
        import ahocorasick

        self.language = language
        self.rule = rule or _of(PAPER, language)
        self._unspaced = language in _UNSPACED
        self._automaton = ahocorasick.Automaton()
        terms = lexicon(language) if terms is None else tuple(terms)
        marks = {*_MARKS}
        for number, form, any_ending in _forms(enumerate(terms, 1), language, f"terms for {language}"):
            inside = len(form) > (LONGEST_PHRASE if " " in form else LONGEST_WORD)
            key = self._searched(form)
            starts = not inside and self._is_word(key[0])
            ends = not inside and not any_ending and self._is_word(key[-1])
            marks -= {*form}
            self._automaton.add_word(key, (len(key), number, len(form), starts, ends))
        if not terms:
            raise DataError(f"no medical terms for {language}; name one at least")
        self._automaton.make_automaton()
        self._mark = re.compile(f"[{''.join(sorted(marks))}]") if marks else None

    def medical(self, text: str) -> bool:
        """Whether the rule holds: enough different keywords, and enough of the text. Reads no further than it has to."""
        return self.rule.holds(self._count(text, self.rule))

    def found(self, text: str) -> KeywordCount:
        """Count the keywords of a text."""
        return self._count(text, None)

    def _count(self, text: str, enough: Rule | None) -> KeywordCount:
        text = fold(text, self.language)
        terms = set()
        occurrences = characters = 0
        for part in self._parts(text):
            covered = 0
            for start, minus_size, term, length in self._matches(self._searched(part)):
                if start >= covered:
                    covered = start - minus_size
                    occurrences += 1
                    characters += length
                    terms.add(term)
            if enough and len(terms) >= enough.distinct and characters / len(text) >= enough.share:
                break
        return KeywordCount(distinct=len(terms), occurrences=occurrences, characters=characters, length=len(text))

    def _parts(self, text: str) -> Iterator[str]:
        start = 0
        while start < len(text):
            mark = self._mark.search(text, start + _PART) if self._mark else None
            end = mark.end() if mark else len(text)
            yield text[start:end]
            start = end

    def _searched(self, text: str) -> str:
        """What the automaton reads: in Chinese and Japanese a character for every byte of UTF-8.

        It tries one by one what may come next, and every byte has 256 ways to go at most: this is twice as fast.
        """
        return text.encode("utf-8", "surrogatepass").decode("latin-1") if self._unspaced else text

    def _is_word(self, character: str) -> bool:
        """Whether it is a letter, and of a script that sets words apart."""
        return character.isalpha() and character < ("\u0080" if self._unspaced else "\u2e80")

    def _matches(self, text: str) -> list[tuple[int, int, int, int]]:
        """Start, size below zero, term and length of every keyword between borders, sorted: the longest of a start is first."""
        found = []
        for last, (size, number, length, starts, ends) in self._automaton.iter(text):
            end = last + 1
            start = end - size
            if starts and start and self._is_word(text[start - 1]):
                continue
            if ends and end < len(text) and self._is_word(text[end]):
                continue
            found.append((start, -size, number, length))
        found.sort()
        return found


def lexicon(language: str, path: Path | None = None) -> tuple[str, ...]:
    """The medical terms of a file in UTF-8, or of the project's own for a language: a term per line, `#` starts a comment line.

    Raises `DataError` with file and line for an empty line or form, and for a form that is there twice.
    """
    if path is None:
        _of(PAPER, language)
        name = f"lexicon/{language}.txt"
        text = resources.files("mmed_train.corpus").joinpath("lexicon", f"{language}.txt").read_text(encoding="utf-8")
    else:
        name = str(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: no lexicon could be read from it, {error}; give a text file in UTF-8") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if not line.lstrip().startswith("#")]
    for _ in _forms(lines, language, name):
        pass
    return tuple(line.strip() for _, line in lines)


def fold(text: str, language: str) -> str:
    """Text without what keywords are not told apart by.

    These are upper and lower case, kinds and runs of white space, ligatures, "ё" and "е", how accents, hyphens and apostrophes
    are encoded, and in Chinese and Japanese the width of letters. Accents remain.
    """
    if text.isascii():
        text = text.lower()
    else:
        text = unicodedata.normalize("NFC", text).lower()
        if language in _UNSPACED:  # one pattern is faster there: their texts have few of these, but more others
            text = _VARIANTS.sub(lambda run: _replaced(unicodedata.normalize("NFKC", run[0]).lower()), text)
        else:
            text = _replaced(text)
    for mark in _WHITE:
        text = text.replace(mark, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    return text.strip(" ")


def _replaced(text: str) -> str:
    for written, folded in _REPLACED:
        text = text.replace(written, folded)
    return text


def _forms(terms: Iterable[tuple[int, str]], language: str, where: str) -> Iterator[tuple[int, str, bool]]:
    """Number of the term, a form of it, and whether that takes any ending."""
    first: dict[str, int] = {}
    for number, term in terms:
        for written in term.split(","):
            form = fold(written.strip().removesuffix("*"), language)
            if not form:
                raise DataError.at(where, number, "an empty term; remove it, or write one")
            if form in first:
                raise DataError.at(where, number, f"the term {written.strip()!r} is in line {first[form]} too; keep one of them")
            first[form] = number
            yield number, form, written.rstrip().endswith("*")


def _of(rules: Mapping[str, Rule], language: str) -> Rule:
    if language not in rules:
        raise UnknownNameError("language", language, rules)
    return rules[language]
