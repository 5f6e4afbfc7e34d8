"""Whether a text is in a language."""

from __future__ import annotations

import pytest

from mmedeval_rationale.language import in_language

TEXTS = {
    "en": "The patient has a fever and needs fluids; glucose (血糖) is normal.",
    "zh": "患者发热，需要补液，血糖正常。选项 B 是正确的，因为 insulin 降低血糖。",
    "ja": "患者は発熱しており、補液が必要である。血糖値は正常範囲内です。",
    "fr": "Le patient a de la fièvre et doit recevoir des liquides.",
    "ru": "У пациента лихорадка, ему нужна жидкость; уровень глюкозы в норме.",
    "es": "El paciente tiene fiebre y necesita líquidos; la glucosa es normal.",
}


@pytest.mark.parametrize("language", TEXTS)
def test_each_text_is_in_its_language_and_in_no_other(language: str) -> None:
    assert {other for other in TEXTS if in_language(TEXTS[language], other)} == {language}


def test_a_text_in_a_seventh_language_is_in_none_of_the_six() -> None:
    german = "Der Patient hat Fieber und braucht Flüssigkeit; der Blutzucker ist unauffällig."
    assert [in_language(german, language) for language in TEXTS] == [0.0] * 6


@pytest.mark.parametrize("text", ["", "B", "Answer: B", "1234567890 1234567890", "β-blocker"])
def test_a_text_of_few_letters_tells_no_language(text: str) -> None:
    assert in_language(text, "en") is None


def test_nearly_all_of_the_real_outputs_are_in_the_language_of_their_question(real_pairs: list[tuple[str, str, str]]) -> None:
    found = [in_language(candidate, language) for language, candidate, _ in real_pairs]
    assert sum(value == 1 for value in found) >= 148
