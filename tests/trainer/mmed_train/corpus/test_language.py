"""Documents are told by their language, Chinese and Japanese apart, and what cannot be told is not."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from mmed_train.corpus.language import FEWEST_LETTERS, PIECE, Guess, guess, identify, sample
from mmedeval import UsageError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("py3langid") is None, reason="py3langid is not installed")
DATA = Path(__file__).parents[4].parent / "shared" / "data" / "corpus"
TEXTS = {
    "en": "The patient was admitted to the hospital with a cough that had lasted for three weeks and had become worse at night.",
    "fr": "La patiente a été admise à l'hôpital pour une toux qui durait depuis trois semaines et qui s'aggravait la nuit.",
    "es": "La paciente ingresó en el hospital por una tos que duraba ya tres semanas y que había empeorado por las noches.",
    "ru": "Больная поступила в больницу с кашлем, который продолжался уже три недели и становился сильнее по ночам.",
    "zh": "患者因咳嗽三周入院，夜间加重，无发热，既往体健，无药物过敏史。",
    "ja": "患者は三週間前から続く咳を主訴に入院した。夜間に悪化し、発熱はなかった。",
    "de": "Die Patientin wurde wegen eines Hustens aufgenommen, der seit drei Wochen anhielt und nachts schlimmer geworden war.",
    "pt": "A paciente foi internada no hospital com uma tosse que já durava três semanas e que não melhorava durante a noite.",
    "uk": "Хвора надійшла до лікарні з кашлем, який тривав уже три тижні і ставав сильнішим уночі, температура була нормальною.",
    "ko": "환자는 삼 주 전부터 계속된 기침으로 입원하였다. 밤에 기침이 심해졌으며 열은 없었고 과거력에도 특이 사항이 없었다. "
    "환자는 약을 복용하지 않았고 알레르기도 없었다.",
}
TRADITIONAL = "患者因咳嗽三週入院，夜間加重，無發熱，既往體健，無藥物過敏史，檢查結果正常。"
KANJI_ONLY = "症例五十四歳男性。主訴発熱、咳嗽。既往歴高血圧。検査所見異常。胸部単純撮影、血液検査実施。"


@pytest.mark.parametrize("language", TEXTS)
def test_a_sentence_or_two_tell_the_language_also_of_those_that_a_corpus_does_not_want(language: str) -> None:
    found = guess(TEXTS[language])
    assert found.language == identify(TEXTS[language]) == language
    assert 0.75 <= found.probability <= 1
    assert 0 < found.margin <= found.probability


def test_chinese_is_chinese_in_both_its_scripts_and_japanese_is_japanese_even_without_kana() -> None:
    assert identify(TRADITIONAL) == "zh"
    assert identify(KANJI_ONLY) == "ja"
    assert not re.search("[ぁ-ヿ]", KANJI_ONLY)
    assert identify("ｼﾞｬﾊﾟﾆｰｽﾞ ﾊﾝｶｸ ﾉ ｶﾅ") == "ja"


def test_a_few_kana_do_not_make_chinese_japanese_but_leave_it_undecided() -> None:
    chinese = TEXTS["zh"] * 2
    assert identify(chinese + "の") == "zh"
    assert identify(chinese + "のにをはが") is None
    assert identify(chinese + "ひらがなとカタカナがたくさんある") == "ja"


def test_a_title_of_ideographs_alone_may_be_of_both_and_is_undecided() -> None:
    assert identify("急性心筋梗塞患者一例") is None
    assert identify("急性心筋梗塞の一例報告") is None  # one kana
    assert identify("急性心筋梗塞になった例") == "ja"


@pytest.mark.parametrize("language", TEXTS)
def test_too_short_a_text_is_undecided(language: str) -> None:
    limit = 9 if language in ("zh", "ja") else FEWEST_LETTERS - 1
    letters = 0
    for place, character in enumerate(TEXTS[language]):
        letters += character.isalpha()
        if letters > limit:
            assert identify(TEXTS[language][:place]) is None
            break


@pytest.mark.parametrize("text", ["", " \n", "120/80 98 % 37.2 - 36.9 " * 20, "★☆♪" * 100, "\ud800" * 50])
def test_a_text_without_words_has_no_language(text: str) -> None:
    assert guess(text) == Guess(language=None)


def test_a_text_in_two_languages_at_once_is_undecided_and_in_mainly_one_is_in_that() -> None:
    assert identify(TEXTS["zh"] + TEXTS["en"]) is None
    assert identify(TEXTS["zh"] * 3 + "(SARS-CoV-2, ACE2)") == "zh"
    assert identify(TEXTS["en"] * 3 + "肺炎") == "en"


def test_more_can_be_asked_of_a_language() -> None:
    found = guess(TEXTS["zh"] * 3 + "(coronavirus disease)")
    assert found.language == "zh"
    assert guess(TEXTS["zh"] * 3 + "(coronavirus disease)", least=found.probability + 0.01).language is None
    for least in (-0.1, 1.1):
        with pytest.raises(UsageError, match="give 0 to 1"):
            identify("x", least=least)


def test_of_a_long_text_the_start_the_middle_and_the_end_are_read() -> None:
    text = "a" * 10_000 + "b" * 10_000 + "c" * 10_000
    assert Counter(sample(text)) == {"a": PIECE, "b": PIECE, "c": PIECE, "\n": 2}
    assert sample("x" * 3 * PIECE) == "x" * 3 * PIECE
    assert identify(TEXTS["en"] * 20 + TEXTS["fr"] * 20 + TEXTS["zh"] * 60) is None


@pytest.mark.skipif(not DATA.is_dir(), reason="the corpora are not beside the repository (shared/data/corpus)")
@pytest.mark.parametrize("language", ["en", "zh", "ja", "fr", "ru", "es"])
def test_real_documents_are_told_right_or_are_too_short_to_be(language: str) -> None:
    found: Counter[str | None] = Counter()
    for file in sorted((DATA / language).glob("*.jsonl")):
        found.update(identify(json.loads(line)["text"]) for line in file.read_text(encoding="utf-8").splitlines()[:250])
    assert {*found} <= {language, None}
    assert found[language] >= 0.98 * found.total()
