"""Measures the keyword filter against the logic of the paper's script, restated here, on the same texts with the same keywords.

    .venv/bin/python benchmarks/keywords.py
    .venv/bin/python benchmarks/keywords.py --keywords 180 --runs 3

The texts are the corpora in ../shared/data/corpus, where they are, else texts put together from the embedded questions. Every
form in a lexicon is a keyword of its own here, whatever ending it would take: the script knows neither forms nor endings. Both
filters read all texts by turns in one process; medians, ratios run by run. Their decisions are compared twice: on the texts as
they are, and where the script's logic is right: without punctuation, which it takes for a part of words, and where no keywords
overlap, since it counts both. Exit status 1 if a target is missed, or a decision differs there.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from time import process_time

from mmed_train.corpus.keywords import PAPER, Keywords, Rule, fold, lexicon
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.specs import TaskOptions

CORPORA = Path(__file__).parents[2] / "shared" / "data" / "corpus"
UNSPACED = ("zh", "ja")
# Times as fast as the script's logic.
TARGETS: Mapping[str, float] = {"en": 10.0, "zh": 5.0}
MADE_TEXTS, MADE_SENTENCES = 300, 12
# Texts are read in rows of so many characters at least, so that a run takes long enough to be measured.
CHARACTERS = 1_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each filter (%(default)s)")
    parser.add_argument("--keywords", type=int, metavar="N", help="so many keywords, drawn at random (default: all)")
    parser.add_argument("--languages", nargs="+", choices=[*PAPER], default=[*PAPER], metavar="CODE", help="default: all six")
    options = parser.parse_args()
    print(f"texts: {'the corpora in ../shared/data/corpus' if CORPORA.is_dir() else 'made from the embedded questions'}")
    print("                 million               script's     ours  ratio                         same       where the")
    print("language  texts  characters  keywords   ns/char  ns/char  (from, to)            target  decisions  script is right")
    failed = False
    for language in options.languages:
        texts, words = texts_in(language), keywords_of(language, options.keywords)
        script, ours = Script(language, words), Keywords(language, words)
        characters = sum(map(len, texts))
        times = -(-CHARACTERS // characters)
        theirs_s, ours_s = [], []
        for _ in range(options.runs):
            theirs_s.append(timed(script.medical, texts, times))
            ours_s.append(timed(ours.medical, texts, times))
        ratios = [a / b for a, b in zip(theirs_s, ours_s, strict=True)]
        ratio, target = statistics.median(ratios), None if options.keywords else TARGETS.get(language)
        apart = without_others(words)
        clean = [text for text in (spaced(text, language) for text in texts) if not overlap(apart, text)]
        right = same(Script(language, apart).medical, Keywords(language, apart).medical, clean)
        failed |= (target is not None and ratio < target) or right < len(clean)
        ns = [statistics.median(seconds) / characters / times * 1e9 for seconds in (theirs_s, ours_s)]
        among = f"({min(ratios):.1f}, {max(ratios):.1f})"
        print(
            f"{language:8}  {len(texts):5}  {characters / 1e6:10.2f}  {len(words):8}  {ns[0]:8.0f}  {ns[1]:7.0f}  "
            f"{ratio:5.1f} {among:15} {target or '':6}  {same(script.medical, ours.medical, texts) / len(texts):9.2%}  "
            f"{right} of {len(clean)}",
            flush=True,
        )
    return int(failed)


class Script:
    """The matcher of the paper's script: keyword by keyword, short ones as members of the list of what white space separates.

    Repaired for Chinese and Japanese, where the script raises an error: every keyword matches anywhere.
    """

    def __init__(self, language: str, keywords: Sequence[str]) -> None:
        self.rule: Rule = PAPER[language]
        self.spaced = language not in UNSPACED
        words = [*map(str.lower, dict.fromkeys(keywords))]
        anywhere = [word for word in words if not self.spaced or len(word) > 10 or (len(word) > 5 and " " in word)]
        self.anywhere, self.whole = anywhere, [word for word in words if word not in {*anywhere}]

    def medical(self, text: str) -> bool:
        lowered = text.lower() if self.spaced else text
        distinct, characters = 0, 0
        for keyword in self.anywhere:
            if keyword in lowered:
                distinct += 1
                characters += lowered.count(keyword) * len(keyword)
        if self._enough(distinct, characters, text) or not self.whole:
            return self._enough(distinct, characters, text)
        words = lowered.split()
        for keyword in self.whole:
            if keyword in words:
                distinct += 1
                characters += words.count(keyword) * len(keyword)
        return self._enough(distinct, characters, text)

    def _enough(self, distinct: int, characters: int, text: str) -> bool:
        return bool(text) and distinct >= self.rule.distinct and characters / len(text) >= self.rule.share


def keywords_of(language: str, count: int | None) -> list[str]:
    forms = [fold(form.strip().removesuffix("*"), language) for term in lexicon(language) for form in term.split(",")]
    return forms if count is None else sorted(random.Random("keywords").sample(forms, min(count, len(forms))))


def without_others(keywords: Sequence[str]) -> list[str]:
    """The keywords that are no part of another one."""
    return [word for word in keywords if not any(word in other for other in keywords if other != word)]


def overlap(keywords: Sequence[str], text: str) -> bool:
    """Whether a keyword stands in the text that another one reaches into."""
    found = [each for word in keywords if word in text for each in re.finditer(re.escape(word), text)]
    spans = sorted(each.span() for each in found)
    return any(behind > start for (_, behind), (start, _) in pairwise(spans))


def spaced(text: str, language: str) -> str:
    """The text as our filter reads it, with spaces for all that is no letter or digit."""
    return " ".join("".join(each if each.isalnum() else " " for each in fold(text, language)).split())


def texts_in(language: str) -> list[str]:
    files = sorted((CORPORA / language).glob("*.jsonl"))
    if files:
        return [json.loads(line)["text"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    task = Catalog(make_host()).tasks[f"mmedbench_mini_{language}"].load(TaskOptions())
    sentences = [text for sample in task.samples("test") for text in (sample.question, sample.rationale)]
    draw = random.Random(f"keywords {language}")
    return ["\n".join(draw.choices(sentences, k=MADE_SENTENCES)) for _ in range(MADE_TEXTS)]


def same(one: Callable[[str], bool], other: Callable[[str], bool], texts: Sequence[str]) -> int:
    """Of how many texts both say the same."""
    return sum(one(text) == other(text) for text in texts)


def timed(medical: Callable[[str], bool], texts: Sequence[str], times: int) -> float:
    started = process_time()
    for _ in range(times):
        for text in texts:
            medical(text)
    return process_time() - started


if __name__ == "__main__":
    sys.exit(main())
