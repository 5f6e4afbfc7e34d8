"""The paper's recipes, held against nltk and the `rouge` package themselves."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator

import pytest
from nltk.tokenize import NLTKWordTokenizer, word_tokenize
from nltk.tokenize.punkt import PunktSentenceTokenizer
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from mmedeval_rationale import paper

Pair = tuple[str, str, str]


@pytest.fixture(autouse=True)
def deep() -> Iterator[None]:
    """The `rouge` package walks a sentence word by word in recursion."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)


def cut(text: str, language: str) -> list[str]:
    if language == "zh":
        with warnings.catch_warnings():
            # Its own invalid escapes, and how it looks for its dictionary.
            warnings.simplefilter("ignore")
            import jieba
        return list(jieba.cut(text))
    if language == "ja":
        from janome.tokenizer import Tokenizer

        return [token.surface for token in Tokenizer().tokenize(text)]
    try:
        return word_tokenize(text)
    except LookupError:
        sentences = PunktSentenceTokenizer().tokenize(text)
        return [word for sentence in sentences for word in NLTKWordTokenizer().tokenize(sentence)]


def compare(pair: Pair, words: list[list[str]]) -> None:
    from rouge import Rouge

    language, candidate, reference = pair
    smooth = SmoothingFunction().method1
    expected = float(sentence_bleu([words[1]], words[0], weights=(1, 0, 0, 0), smoothing_function=smooth))
    assert paper.bleu1(candidate, reference, language) == pytest.approx(100 * expected, abs=1e-6)
    spaced = [" ".join(each) for each in words] if language in ("zh", "ja") else [candidate, reference]
    (scores,) = Rouge().get_scores(*spaced)
    assert paper.rouge1(candidate, reference, language) == pytest.approx(100 * scores["rouge-1"]["f"], abs=1e-6)
    assert paper.rouge_l(candidate, reference, language) == pytest.approx(100 * scores["rouge-l"]["f"], abs=1e-6)


def test_odd_texts_score_as_with_the_papers_packages(odd_pair: Pair) -> None:
    language, candidate, reference = odd_pair
    compare(odd_pair, [cut(candidate, language), cut(reference, language)])


def test_the_real_outputs_score_as_with_the_papers_packages(real_pairs: list[Pair]) -> None:
    from janome.tokenizer import Tokenizer

    tokenizer = Tokenizer()
    # Long Japanese and Chinese texts take the `rouge` package seconds each: it keeps its table in a dictionary.
    shortest = {
        language: sorted((pair for pair in real_pairs if pair[0] == language), key=lambda pair: len(pair[1]) * len(pair[2]))[:8]
        for language in ("en", "zh", "ja", "fr", "ru", "es")
    }
    for language, pairs in shortest.items():
        for pair in pairs:
            texts = pair[1:]
            words = [
                [token.surface for token in tokenizer.tokenize(text)] if language == "ja" else cut(text, language)
                for text in texts
            ]
            compare(pair, words)


def test_the_means_over_the_real_outputs_are_those_that_nltk_gives(real_pairs: list[Pair]) -> None:
    smooth = SmoothingFunction().method1
    for language in ("en", "zh", "fr", "ru", "es"):
        pairs = [pair for pair in real_pairs if pair[0] == language]
        ours = sum(paper.bleu1(candidate, reference, language) for _, candidate, reference in pairs) / len(pairs)
        theirs = sum(
            float(
                sentence_bleu(
                    [cut(reference, language)], cut(candidate, language), weights=(1, 0, 0, 0), smoothing_function=smooth
                )
            )
            for _, candidate, reference in pairs
        ) / len(pairs)
        assert ours == pytest.approx(100 * theirs, abs=1e-6)


@pytest.mark.parametrize("language", ["en", "zh", "ja"])
def test_a_text_without_words_scores_nothing(language: str) -> None:
    for candidate, reference in (("", "text 血"), ("text 血", ""), (".", "text"), ("", "")):
        for score in (paper.bleu1, paper.rouge1, paper.rouge_l):
            assert 0 <= score(candidate, reference, language) <= 0
