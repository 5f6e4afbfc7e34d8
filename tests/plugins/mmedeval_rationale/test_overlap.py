"""BLEU, ROUGE and chrF, held against nltk and against their formulas written out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from mmedeval_rationale.overlap import bleu, chrf, rouge
from mmedeval_rationale.words import bare_words, normal, words

Pair = tuple[str, str, str]
LANGUAGES = ["en", "zh", "ja", "fr", "ru", "es"]


def own_bleu(order: int, candidate: Sequence[str], reference: Sequence[str]) -> float:
    """By nltk; its method 3 is the exponential smoothing. Orders that a sentence is too short for do not count."""
    order = min(order, len(candidate))
    weights = [1 / order] * order
    return 100 * float(sentence_bleu([reference], candidate, weights=weights, smoothing_function=SmoothingFunction().method3))


def own_rouge(kind: str, candidate: Sequence[str], reference: Sequence[str]) -> float:
    if kind == "rougeL":
        lengths = [[0] * (len(reference) + 1) for _ in range(len(candidate) + 1)]
        for i, j in itertools.product(range(len(candidate)), range(len(reference))):
            same = candidate[i] == reference[j]
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if same else max(lengths[i][j + 1], lengths[i + 1][j])
        common, sizes = lengths[-1][-1], (len(candidate), len(reference))
    else:
        n = int(kind[-1])
        grams = [Counter(zip(*(text[i:] for i in range(n)), strict=False)) for text in (candidate, reference)]
        common, sizes = (grams[0] & grams[1]).total(), (grams[0].total(), grams[1].total())
    return 200 * common / sum(sizes) if common else 0.0


def own_chrf(candidate: str, reference: str) -> float:
    """The mean precision and the mean recall of the orders that both texts have, weighted 1 to 4."""
    texts = ["".join(text.split()) for text in (candidate, reference)]
    precisions, recalls = [], []
    for n in range(1, 7):
        grams = [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in texts]
        if grams[0] and grams[1]:
            common = (grams[0] & grams[1]).total()
            precisions.append(common / grams[0].total())
            recalls.append(common / grams[1].total())
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 100 * 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def compare(pair: Pair) -> None:
    language, candidate, reference = pair
    cut = [list(words(text, language)) for text in (candidate, reference)]
    bare = [bare_words(text, language) for text in (candidate, reference)]
    for order in (1, 2, 3, 4):
        assert bleu(order, candidate, reference, language) == pytest.approx(own_bleu(order, *cut), abs=1e-6)
    for kind in ("rouge1", "rouge2", "rougeL"):
        assert rouge(kind, candidate, reference, language) == pytest.approx(own_rouge(kind, *bare), abs=1e-6)
    assert chrf(candidate, reference, language) == pytest.approx(own_chrf(normal(candidate), normal(reference)), abs=1e-6)


def test_odd_texts_score_as_the_formulas_say(odd_pair: Pair) -> None:
    compare(odd_pair)


def test_every_one_of_the_real_outputs_scores_as_the_formulas_say(real_pairs: list[Pair]) -> None:
    for pair in real_pairs:
        compare(pair)


def test_rouge_is_what_rouge_score_gives_on_the_same_words(odd_pair: Pair) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    class Cut:
        def tokenize(self, text: str) -> list[str]:
            return bare_words(text, odd_pair[0])

    language, candidate, reference = odd_pair
    scores = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Cut()).score(reference, candidate)
    for kind, score in scores.items():
        assert rouge(kind, candidate, reference, language) == pytest.approx(100 * score.fmeasure, abs=1e-9)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_text_without_words_scores_nothing(language: str) -> None:
    for candidate, reference in (("", "text 血"), ("text 血", ""), (" \n", "…"), ("", "")):
        assert bleu(1, candidate, reference, language) == 0
        assert rouge("rouge1", candidate, reference, language) == 0
        assert chrf(candidate, reference, language) == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_ten_thousand_words_are_scored(language: str) -> None:
    reference = "胰岛素降低血糖 glucose глюкоза."
    scores = [bleu(4, reference * 2500, reference, language), rouge("rougeL", reference * 2500, reference, language)]
    assert all(0 <= score < 1 for score in scores)
