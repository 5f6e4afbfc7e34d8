"""BLEU-1, ROUGE-1 and ROUGE-L as in the paper (Qiu et al. 2024): for figures that stand beside the published ones.

Words by nltk's `word_tokenize` (jieba for Chinese, janome for Japanese), BLEU by nltk with its smoothing method 1, ROUGE by the
formulas of the `rouge` package 1.0.1, which counts every n-gram once. Texts are taken as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from mmedeval_rationale.words import jieba

# What the `rouge` package adds to a denominator that may be 0.
EPSILON = 1e-8


def bleu1(candidate: str, reference: str, language: str) -> float:
    """Unigram precision times the brevity penalty, 0 to 100. Source: nltk's `sentence_bleu`."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    cut, wanted = words(candidate, language), words(reference, language)
    if not cut or not wanted:
        return 0.0
    return 100 * float(sentence_bleu([wanted], cut, weights=(1, 0, 0, 0), smoothing_function=SmoothingFunction().method1))


def rouge1(candidate: str, reference: str, language: str) -> float:
    """F1 over the sets of words, 0 to 100. Source: `rouge` 1.0.1, `rouge_n`."""
    cut, wanted = (set(itertools.chain.from_iterable(sentences(text, language))) for text in (candidate, reference))
    return _f1(len(cut & wanted), len(cut), len(wanted))


def rouge_l(candidate: str, reference: str, language: str) -> float:
    """F1 over the union of the longest common subsequences of all pairs of sentences, 0 to 100.

    Source: `rouge` 1.0.1, `rouge_l_summary_level`: each word counts once, in the sizes and in the union.
    """
    cut, wanted = sentences(candidate, language), sentences(reference, language)
    common = {word for left in wanted for right in cut for word in _common_subsequence(left, right)}
    return _f1(len(common), len(set(itertools.chain.from_iterable(cut))), len(set(itertools.chain.from_iterable(wanted))))


def words(text: str, language: str) -> list[str]:
    """What the paper's BLEU counts."""
    return list(_cutter(language)(text))


def sentences(text: str, language: str) -> list[list[str]]:
    """What the paper's ROUGE counts: words between spaces, in sentences that end with a full stop of the Latin script."""
    spaced = " ".join(words(text, language)) if language in ("zh", "ja") else text
    return [part.split() or [""] for part in spaced.split(".") if part]


def describe(language: str) -> str:
    from importlib.metadata import version

    if language == "zh":
        return f"jieba {version('jieba')}"
    if language == "ja":
        return f"janome {version('janome')}"
    return f"nltk {version('nltk')}, sentences by {'punkt_tab' if _has_punkt() else 'an untrained Punkt'}"


def _f1(common: int, candidate: int, reference: int) -> float:
    if not candidate or not reference:
        return 0.0
    precision, recall = common / candidate, common / reference
    return 100 * 2 * precision * recall / (precision + recall + EPSILON)


def _common_subsequence(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """The longest common subsequence that the `rouge` package finds, of several of the same length."""
    table = [[0] * (len(right) + 1)]
    for word in left:
        above, row = table[-1], [0]
        for j, other in enumerate(right):
            row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
        table.append(row)
    found: list[str] = []
    i, j = len(left), len(right)
    while i and j:
        if left[i - 1] == right[j - 1]:
            found.append(left[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


@cache
def _cutter(language: str) -> Callable[[str], Iterable[str]]:
    if language == "zh":
        cut: Callable[[str], Iterable[str]] = jieba().lcut
        return cut
    if language == "ja":
        from janome.tokenizer import Tokenizer

        # One for all texts: it takes longer to make than to use.
        tokenizer: Any = Tokenizer(wakati=True)
        return lambda text: tokenizer.tokenize(text)
    return _nltk()


@cache
def _has_punkt() -> bool:
    """Whether nltk's downloadable data for sentences are on this machine."""
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        return False
    return True


def _nltk() -> Callable[[str], list[str]]:
    from nltk.tokenize import NLTKWordTokenizer, word_tokenize
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    if _has_punkt():
        return lambda text: list(word_tokenize(text))
    # Knows no abbreviations: without training there is nothing to download.
    cut, split = NLTKWordTokenizer(), PunktSentenceTokenizer()
    return lambda text: [word for sentence in split.tokenize(text) for word in cut.tokenize(sentence)]
