"""Measures the metrics of rationales: as many pairs as MMedBench has test items, and the published script's way on Japanese.

    .venv/bin/python benchmarks/rationale.py
    .venv/bin/python benchmarks/rationale.py --pairs 600 --runs 1

Texts are sentences of the embedded questions' rationales, put together at random to the lengths that real rationales have. Both
ways run by turns in one process; medians. Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.specs import TaskOptions
from mmedeval_rationale import sentence_scores
from mmedeval_rationale.words import words

# The test items of MMedBench by language, and the characters of a rationale.
PAIRS: Mapping[str, int] = {"en": 1273, "zh": 3426, "ja": 199, "fr": 622, "ru": 256, "es": 2742}
CHARACTERS: Mapping[str, int] = {"en": 950, "zh": 280, "ja": 380, "fr": 1000, "ru": 450, "es": 1000}
METRICS = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge1", "rouge2", "rougeL")
MOST_SECONDS, LEAST_RATIO = 60.0, 20.0
Pair = tuple[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=sum(PAIRS.values()), metavar="N", help="pairs in all (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each way (%(default)s)")
    options = parser.parse_args()
    share = options.pairs / sum(PAIRS.values())
    pairs = {language: make_pairs(language, max(2, round(count * share))) for language, count in PAIRS.items()}
    count = sum(map(len, pairs.values()))
    for language in PAIRS:
        words("Warm up.", language)
    whole = statistics.median(timed(lambda: score_all(pairs)) for _ in range(options.runs))
    print(f"{count} pairs in six languages, {len(METRICS)} metrics: {whole:.1f} s")
    print(f"target for {sum(PAIRS.values())} pairs: {MOST_SECONDS:.0f} s")
    few = pairs["ja"][:20]
    scripts, ours = [], []
    for _ in range(options.runs):
        scripts.append(timed(lambda: published_way(few)))
        ours.append(timed(lambda: score_all({"ja": few}, ("bleu1", "rougeL"))))
    ratio = statistics.median(a / b for a, b in zip(scripts, ours, strict=True))
    print(f"{len(few)} Japanese pairs, BLEU and ROUGE-L: {ratio:.0f} times as fast as the published script")
    print(f"target: {LEAST_RATIO:.0f} times")
    return int(whole > MOST_SECONDS or ratio < LEAST_RATIO)


def make_pairs(language: str, count: int) -> list[Pair]:
    """Candidates and references that share some of their sentences."""
    task = Catalog(make_host()).tasks[f"mmedbench_mini_{language}"].load(TaskOptions())
    sentences = [
        part.strip() + mark
        for sample in task.samples("test")
        for mark in ("。" if language in ("zh", "ja") else ".",)
        for part in sample.rationale.split(mark)
        if part.strip()
    ]
    draw = random.Random(f"rationale {language}")

    def text() -> str:
        parts: list[str] = []
        while sum(map(len, parts)) < CHARACTERS[language]:
            parts.append(draw.choice(sentences))
        return ("" if language in ("zh", "ja") else " ").join(parts)

    return [(text(), text()) for _ in range(count)]


def score_all(pairs: Mapping[str, Sequence[Pair]], metrics: Sequence[str] = METRICS) -> None:
    for language, members in pairs.items():
        candidates, references = [list(texts) for texts in zip(*members, strict=True)]
        for metric in metrics:
            sentence_scores(metric, candidates, references, language)


def published_way(pairs: Sequence[Pair]) -> None:
    """A Japanese tokenizer made anew for every pair and metric, nltk's BLEU, and the `rouge` package."""
    from janome.tokenizer import Tokenizer
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from rouge import Rouge

    sys.setrecursionlimit(10_000)
    for candidate, reference in pairs:
        cut = [
            [token.surface for token in tokenizer.tokenize(text)]
            for tokenizer in [Tokenizer()]
            for text in (candidate, reference)
        ]
        sentence_bleu([cut[1]], cut[0], smoothing_function=SmoothingFunction().method1)
        cut = [
            [token.surface for token in tokenizer.tokenize(text)]
            for tokenizer in [Tokenizer()]
            for text in (candidate, reference)
        ]
        Rouge().get_scores(" ".join(cut[0]), " ".join(cut[1]))


def timed(work: Callable[[], None]) -> float:
    started = perf_counter()
    words.cache_clear()
    work()
    return perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
