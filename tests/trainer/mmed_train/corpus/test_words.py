"""Texts that differ in what does not matter are cut into the same units."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mmed_train.corpus.words import is_unspaced, normal, spans, units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It doesn't rise by 3.5%, at 1,000 steps.", "it doesn t rise by 3 5 at 1 000 steps"),
        ("L’hépatite aiguë, c'est-à-dire…", "l hepatite aigue c est a dire"),
        ("¿El NIÑO está bien?", "el nino esta bien"),
        ("Ёлка и подъём: глюко́за.", "елка и подъем глюкоза"),
        ("胰岛素能降低血糖。", "胰 岛 素 能 降 低 血 糖"),
        ("血糖値が１２０ｍｇ／ｄＬに下がった。", "血 糖 値 が 120mg dl に 下 が っ た"),
        ("CT检查 of the 肺", "ct 检 查 of the 肺"),
        ("snake_case — ½ … ( ) 。", "snake case 1 2"),
        (" \n\u3000", ""),
    ],
)
def test_units_are_words_and_characters_without_case_accents_and_punctuation(text: str, expected: str) -> None:
    assert units(text) == expected.split()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("e\u0301te\u0301", "été"),
        ("ｶﾞﾝ", "ガン"),
        ("か\u3099ん", "がん"),
        ("ﬁbrose", "fibrose"),
        ("glu\u00adco\u200bse", "glucose"),
        ("глюко\u0301за", "глюкоза"),
        ("STRASSE", "straße"),
        ("血 糖\n値", "血糖値"),
        ("blood\u00a0\tglucose\r\n", "blood glucose"),
    ],
)
def test_two_spellings_of_a_text_have_the_same_units(one: str, other: str) -> None:
    assert units(one) == units(other) != []


def test_every_unit_has_its_place_in_the_text(texts: Sequence[str]) -> None:
    for text in [*texts, "e\u0301te\u0301 ﬁn ½ x²"]:
        cut, places = units(text), spans(text)
        assert all(unit in normal(text[start:end]) for (start, end), unit in zip(places, cut, strict=True))
        assert places == sorted(places)
    # A mark that stands behind its letter belongs to it, but is no part of its place.
    assert len(spans("ｶﾞﾝ か\u3099ん")) == len(units("ｶﾞﾝ か\u3099ん")) == 4
    assert [("Été: 血糖値"[start:end]) for start, end in spans("Été: 血糖値")] == ["Été", "血", "糖", "値"]


def test_only_han_and_kana_stand_without_white_space() -> None:
    assert all(map(is_unspaced, "血がガー々〇"))
    assert not any(map(is_unspaced, ["a", "я", "1", "한", "ct"]))
