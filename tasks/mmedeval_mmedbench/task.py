"""Reads MMedBench's JSON lines, with every quirk of the published files, into samples."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmedeval import DataError, Sample, Split
from mmedeval_mmedbench import LANGUAGES
from mmedeval_mmedbench.data import Source

LETTERS = "ABCDEFGHIJ"
KEPT_META = ("problem_id", "meta_info", "topic")

# Items of the published test splits in which two options read the same (four Chinese ones; a Japanese one whose table is in the
# question). Published accuracies count them, so they are asked. In other test items it is an error of the file.
PUBLISHED_DUPLICATES = frozenset(
    {"91c2a996896d499c", "657cdd66db39a93b", "ff19f1015b71d1fb", "a1e73471479e81c1", "2ffb94202f4febc4"}
)

# Questions whose picture is not part of the data. Held against the sources' own flags: Spanish HEAD-QA finds 165 of 165 with no
# false alarm, Japanese IgakuQA 517 of 529 with none (the rest do not say that there is a picture).
IMAGE_PHRASES: Mapping[str, re.Pattern[str]] = {
    "ja": re.compile(r"別に示す|別冊|(?:図|写真|像|標本)(?:（[^）]{0,20}）|[^。、]{0,12})を(?:以下に)?示す|図のよう"),
    "es": re.compile(
        r"pregunta (?:vinculada|asociada|relacionada)[^.]{0,20}imagen|imagen\s{0,3}(?:n[.º°]{0,2}\s{0,3})?\d"
        r"|imagen (?:adjunta|siguiente|mostrada)|im[aá]genes? (?:que se|n)|se muestran? (?:en )?(?:la|una|el|su) "
        r"|(?:figura|fotograf[ií]a|radiograf[ií]a|imagen)s? (?:adjunta|de la imagen|mostrada)|figura \d|\(ver imagen",
        re.IGNORECASE,
    ),
}


@dataclass(frozen=True, kw_only=True)
class MMedBenchTask:
    """One language of MMedBench, or of a set in its layout."""

    name: str
    language: str
    max_answers: int
    data: Source

    @property
    def source(self) -> str:
        return self.data.label

    def samples(self, split: Split) -> Sequence[Sample]:
        file, content = self.data.read(split, LANGUAGES[self.language])
        return parse_file(file, content, self.language, split, self.max_answers)


def parse_file(file: str, content: bytes, language: str, split: str, max_answers: int) -> list[Sample]:
    """All samples of a JSON-lines file. Raises `DataError` with file:line, the field and the value of the first bad one."""
    if content.startswith(b"\xef\xbb\xbf"):
        raise DataError.at(file, 1, "begins with a byte order mark (BOM); save the file as UTF-8 without BOM")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError.at(file, 1, "is UTF-16; save the file as UTF-8 without BOM")
    samples = []
    for number, raw in enumerate(content.split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            item = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_number)
        except UnicodeDecodeError as error:
            raise DataError.at(
                file,
                number,
                f"is not UTF-8 (byte {raw[error.start]:#04x} at column {error.start + 1}); convert the file to UTF-8",
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError.at(file, number, f"is not JSON ({error}); mend or remove the line") from error
        samples.append(_Line(file, number, item, max_answers).sample(language, split))
    if not samples:
        raise DataError(f"{file} holds no items; restore the file")
    return samples


@dataclass(frozen=True)
class _Line:
    """One line with the place that its errors name."""

    file: str
    number: int
    item: Any
    max_answers: int

    def sample(self, language: str, split: str) -> Sample:
        if not isinstance(self.item, dict):
            raise self._error(f"is {type(self.item).__name__} {_short(self.item)}, not an object")
        question = self._text("question")
        options = self._options()
        duplicates = self._duplicates(question, options, split)
        return Sample(
            id=f"{split}-{self.number}",
            language=language,
            question=question,
            options=options,
            answer=self._answer(options),
            rationale=self._text("rationale"),
            meta=self._meta(language, question) | ({"duplicate_options": True} if duplicates else {}),
        )

    def _error(self, message: str) -> DataError:
        return DataError.at(self.file, self.number, message)

    def _field(self, name: str) -> Any:
        if name not in self.item:
            raise self._error(f"the field {name!r} is missing (there: {', '.join(map(repr, self.item))})")
        return self.item[name]

    def _text(self, name: str) -> str:
        value = self._field(name)
        if not isinstance(value, str):
            raise self._error(f"{name!r} is {_short(value)}, not a text")
        if not _is_unicode(value):
            raise self._error(f"{name!r} holds half a surrogate pair, which is no character: {_short(value)}")
        if not value.strip() and name == "question":
            raise self._error(f"{name!r} is empty")
        return value

    def _options(self) -> dict[str, str]:
        value = self._field("options")
        if not isinstance(value, dict) or len(value) < 2:
            raise self._error(f"'options' is {_short(value)}, not an object with at least two letters")
        # In the file's order, which is not always the alphabet's.
        if sorted(value) != list(LETTERS[: len(value)]):
            raise self._error(
                f"'options' has the keys {', '.join(map(repr, value))}, not the letters from A on (up to {LETTERS[-1]})"
            )
        for letter, text in value.items():
            if not isinstance(text, str) or not text or not _is_unicode(text):
                raise self._error(f"option {letter} is {_short(text)}, not a text")
        return value

    def _duplicates(self, question: str, options: Mapping[str, str], split: str) -> bool:
        """Whether two options read the same; an error in a test item, where one of them would be wrong though it reads right."""
        seen: dict[str, str] = {}
        for letter, text in options.items():
            if text.strip() in seen:
                if split == "test" and _published_digest(question, options) not in PUBLISHED_DUPLICATES:
                    raise self._error(
                        f"the options {seen[text.strip()]} and {letter} are the same: {_short(text)}; mend the item"
                    )
                return True
            seen[text.strip()] = letter
        return False

    def _answer(self, options: Mapping[str, str]) -> frozenset[str]:
        value = self._field("answer_idx")
        # A list in French and Japanese, elsewhere a string; the data card promises "letters, split by ','".
        letters = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        if not isinstance(letters, list) or not letters:
            raise self._error(f"'answer_idx' is {_short(value)}, neither a letter nor a list of letters")
        for letter in letters:
            if not isinstance(letter, str) or letter not in options:
                raise self._error(f"'answer_idx' names {_short(letter)}, which is none of the options {', '.join(options)}")
        if len(set(letters)) < len(letters):
            raise self._error(f"'answer_idx' is {_short(value)}: a letter stands there twice")
        if len(letters) > self.max_answers:
            raise self._error(f"'answer_idx' has {len(letters)} letters; items of this task have at most {self.max_answers}")
        return frozenset(letters)

    def _meta(self, language: str, question: str) -> dict[str, Any]:
        meta: dict[str, Any] = {key: self.item[key] for key in KEPT_META if key in self.item}
        for flag in ("human_checked", "human_check_passed"):
            value = self._field(flag)
            # 0/1 in the files, booleans in the data card.
            if not isinstance(value, int) or value not in (0, 1):
                raise self._error(f"{flag!r} is {_short(value)}, neither 0/1 nor true/false")
            meta[flag] = bool(value)
        if "parallel" in self.item:
            meta["parallel"] = self._text("parallel")
        pattern = IMAGE_PHRASES.get(language)
        if pattern is not None and pattern.search(question):
            meta["image"] = True
        return meta


def _published_digest(question: str, options: Mapping[str, str]) -> str:
    return hashlib.sha256("\n".join([question, *options.values()]).encode()).hexdigest()[:16]


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no key stands twice: of two options B the parser would drop one in silence."""
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise ValueError(f"the key {key!r} stands there twice")
        unique[key] = value
    return unique


def _is_unicode(text: str) -> bool:
    """JSON may escape half a surrogate pair; no tokenizer and no file takes it."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _short(value: object) -> str:
    text = (
        json.dumps(value, ensure_ascii=False)
        if isinstance(value, (str, int, float, list, dict, bool, type(None)))
        else repr(value)
    )
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
