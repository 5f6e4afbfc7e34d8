"""Words in six languages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmedeval_rationale.words import bare_words, describe, words


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "It doesn't rise by 3.5%, at 1,000 steps.", "It doesn't rise by 3.5 % , at 1,000 steps ."),
        ("fr", "L’hépatite aiguë, c'est-à-dire…", "L' hépatite aiguë , c' est - à - dire . . ."),
        ("es", "¿El niño está bien?", "¿ El niño está bien ?"),
        ("ru", "Ёлка и подъём: глюко́за.", "Ёлка и подъём : глюко́за ."),
        ("zh", "胰岛素能降低血糖。", "胰岛素 能 降低 血糖 。"),
        ("ja", "血糖値が下がった。", "血糖 値 が 下がっ た 。"),
    ],
)
def test_a_text_is_cut_as_its_language_needs_it(language: str, text: str, expected: str) -> None:
    assert " ".join(words(text, language)) == expected


@pytest.mark.parametrize(
    ("language", "wide", "narrow"),
    [("ja", "ＡＢＣ１２３ｶﾞﾝ", "ABC123ガン"), ("zh", "Ａ１", "A1"), ("fr", "e\u0301te\u0301", "été")],
)
def test_two_spellings_of_a_text_give_the_same_words(language: str, wide: str, narrow: str) -> None:
    assert words(wide, language) == words(narrow, language)


@pytest.mark.parametrize("language", ["en", "zh", "ja", "fr", "ru", "es"])
def test_white_space_and_new_lines_are_no_words(language: str) -> None:
    assert words(" \n\t\u3000\n", language) == ()
    assert words("A1\r\nB2\n\n", language) == words("A1 B2", language)
    assert all(word.strip() == word for word in words("血 糖\u3000A  B\n", language))


@pytest.mark.parametrize("language", ["en", "zh", "ja", "fr", "ru", "es"])
def test_half_a_surrogate_pair_is_a_sign_like_another_and_a_nul_ends_no_text(language: str) -> None:
    assert bare_words("A1 \ud800 B2 \x00 C3", language) == bare_words("A1 B2 C3", language)
    assert len(words("A1 \ud800 B2", language)) == len(words("A1 % B2", language))


def test_letters_without_an_end_do_not_end_the_process() -> None:
    """A process of its own, as it would be killed."""
    program = "from mmedeval_rationale.words import words; print(len(''.join(words('x' * 300_000, 'ja'))))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "300000\n"


def test_bare_words_are_lower_case_and_without_signs() -> None:
    assert bare_words("The LIVER – (Ёлка), 3.5!", "en") == ["the", "liver", "ёлка", "3.5"]


def test_ten_thousand_words_are_cut_without_loss() -> None:
    for language, sentence in (("en", "The liver is well. "), ("zh", "胰岛素降低血糖。"), ("ja", "血糖値が下がった。")):
        assert len(words(sentence * 2500, language)) == 2500 * len(words(sentence, language))


def test_the_cutter_is_named_with_its_version() -> None:
    assert describe("zh").startswith("jieba 0.")
    assert "unidic-lite" in describe("ja")
