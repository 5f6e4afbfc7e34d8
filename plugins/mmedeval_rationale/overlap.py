"""BLEU, ROUGE and chrF of single sentences: their standard implementations, on words cut as the language needs it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from mmedeval_rationale.words import bare_words, normal, words


def bleu(order: int, candidate: str, reference: str, language: str) -> float:
    """BLEU of n-grams up to `order`, 0 to 100. Source: Papineni et al. 2002; sacrebleu, exponential smoothing."""
    cut = [" ".join(words(text, language)) for text in (candidate, reference)]
    return float(_bleu(order).sentence_score(cut[0], [cut[1]]).score) if all(cut) else 0.0


def rouge(kind: str, candidate: str, reference: str, language: str) -> float:
    """F1 of n-grams or of the longest common subsequence, 0 to 100. Source: Lin 2004; rouge-score on our words."""
    if kind == "rougeL":
        cut, wanted = bare_words(candidate, language), bare_words(reference, language)
        # 2PR / (P + R), with P and R over the two lengths.
        return 200 * _common_length(cut, wanted) / (len(cut) + len(wanted)) if cut and wanted else 0.0
    scores = _rouge(kind, language).score(reference, candidate)
    return 100 * float(scores[kind].fmeasure)


def _common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of the table at a time: rouge-score's table takes 50 times as long.

    Source: Hyyrö, "Bit-parallel LCS-length computation revisited" (2004).
    """
    places: dict[str, int] = {}
    for i, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << i
    every = row = (1 << len(left)) - 1
    for word in right:
        found = row & places.get(word, 0)
        row = (row + found | row - found) & every
    return len(left) - row.bit_count()


def chrf(candidate: str, reference: str, _: str) -> float:
    """F2 of character n-grams up to 6, 0 to 100. Source: Popović 2015; sacrebleu's chrF2."""
    texts = [normal(text).strip() for text in (candidate, reference)]
    return float(_chrf().sentence_score(texts[0], [texts[1]]).score) if all(texts) else 0.0


def signature(metric: str) -> str:
    """What the implementation says of itself."""
    if metric.startswith("bleu"):
        return str(_bleu(int(metric[-1])).get_signature())
    if metric == "chrf":
        return str(_chrf().get_signature())
    from importlib.metadata import version

    return f"rouge-score {version('rouge-score')}"


@cache
def _bleu(order: int) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    # Short sentences have no n-grams of the higher orders: those they have count.
    return BLEU(max_ngram_order=order, effective_order=True, tokenize="none")


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


class _Words:
    """A tokenizer as rouge-score wants it."""

    def __init__(self, language: str) -> None:
        self.language = language

    def tokenize(self, text: str) -> Sequence[str]:
        return bare_words(text, self.language)


@cache
def _rouge(kind: str, language: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], tokenizer=_Words(language))
