"""What counts as a keyword, against a slow count of the same; what is medical; and which lexicons are refused."""

from __future__ import annotations

import importlib
import pickle
import random
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmed_train.corpus.keywords import PAPER, KeywordCount, Keywords, Rule, fold, lexicon
from mmedeval import DataError, UnknownNameError, UsageError

pytest.importorskip("ahocorasick", reason="pyahocorasick is not installed")
BENCHMARKS = Path(__file__).parents[4] / "benchmarks"
ANY = Rule(distinct=1, share=0)
EVERYDAY = {
    "en": "The old harbour was quiet on Sunday. Two boys threw stones into the water while their grandfather repaired a net, and "
    "a dog slept in the shade of the church wall. Later the ferry came in with letters, bread and three tourists.",
    "zh": "周末我们一家人去郊外爬山。山路两旁开满了野花，孩子们跑在最前面，一路上唱着歌。"
    "中午在湖边野餐，下午坐火车回城里，晚上看了一场电影。",
    "ja": "日曜日に家族で海へ出かけた。子どもたちは砂浜で城を作り、父は釣りをしていた。"
    "夕方になると空が赤く染まり、みんなで写真を撮ってから電車で帰った。",
    "fr": "Dimanche, le village fêtait la fin des vendanges. Les enfants couraient entre les tables, un orchestre jouait sur la "
    "place et les anciens racontaient des histoires du temps où le train s'arrêtait encore à la gare.",
    "ru": "В воскресенье вся семья поехала на дачу. Дети собирали яблоки, дедушка чинил забор, а бабушка пекла пироги. Вечером "
    "все сидели на веранде, пили чай и слушали, как за рекой поют соловьи.",
    "es": "El domingo fuimos a la feria del pueblo. Los niños subieron a los caballitos, mi abuela compró queso y miel, y por la "
    "noche hubo baile en la plaza hasta que empezó a llover y todos corrieron a casa.",
}
MEDICAL = {
    "en": "The patient was admitted with fever, cough and dyspnea. Pneumonia was diagnosed and treated with antibiotics.",
    "zh": "患者因发热、咳嗽、呼吸困难住院。诊断为肺炎，给予抗生素治疗后症状好转。",
    "ja": "患者は発熱と咳嗽を主訴に入院した。肺炎と診断し、抗菌薬を投与したところ症状は軽快した。",
    "fr": "Le patient est hospitalisé pour fièvre, toux et dyspnée. Une pneumonie est traitée par antibiotiques.",
    "ru": "Пациент госпитализирован с лихорадкой, кашлем и одышкой. Диагноз: пневмония; лечение антибиотиками.",
    "es": "El paciente fue hospitalizado por fiebre, tos y disnea. La neumonía fue tratada con antibióticos.",
}


def count(text: str, *terms: str, language: str = "en") -> tuple[int, int, int]:
    """Different keywords, occurrences, characters."""
    found = Keywords(language, terms).found(text)
    return found.distinct, found.occurrences, found.characters


# --- the rule ---


@pytest.mark.parametrize("language", PAPER)
def test_medicine_is_medical_and_a_sunday_is_not(language: str) -> None:
    keywords = Keywords(language)
    assert keywords.medical(MEDICAL[language])
    assert keywords.medical(MEDICAL[language].upper())
    assert keywords.found(EVERYDAY[language]).distinct == 0
    # A sentence of medicine does not make a day at home medical.
    assert not keywords.medical(EVERYDAY[language] * 25 + MEDICAL[language])


def test_the_rule_asks_for_both_different_keywords_and_their_share() -> None:
    few = KeywordCount(distinct=1, occurrences=9, characters=50, length=100)
    thin = KeywordCount(distinct=9, occurrences=9, characters=3, length=100)
    just = KeywordCount(distinct=5, occurrences=5, characters=4, length=100)
    assert [PAPER["en"].holds(each) for each in (few, thin, just)] == [False, False, True]
    assert Rule(distinct=1, share=0.5).holds(few)


def test_the_rule_can_be_another_one() -> None:
    text = "A cough, and nothing else that day."
    assert not Keywords("en").medical(text)
    assert Keywords("en", rule=ANY).medical(text)
    assert Keywords("en", ["cough"], rule=Rule(distinct=1, share=5 / len(text))).medical(text)
    assert not Keywords("en", ["cough"], rule=Rule(distinct=1, share=5.1 / len(text))).medical(text)


@pytest.mark.parametrize(("distinct", "share"), [(0, 0.1), (-1, 0.1), (3, -0.1), (3, 1.1), (3, float("nan"))])
def test_a_rule_without_sense_is_refused(distinct: int, share: float) -> None:
    with pytest.raises(UsageError, match=f"a rule of {distinct} keywords"):
        Rule(distinct=distinct, share=share)


def test_an_empty_text_holds_nothing_and_is_not_medical() -> None:
    for text in ("", " \n "):
        assert Keywords("en").found(text) == KeywordCount(distinct=0, occurrences=0, characters=0, length=0)
        assert Keywords("en").found(text).share == 0
        assert not Keywords("en").medical(text)


# --- words and their borders ---


@pytest.mark.parametrize(
    "text", ["cough.", "(cough)", '"cough"', "cough,fever", "cough\nfever", "1cough2", "COUGH!", "dry-cough"]
)
def test_punctuation_digits_and_line_ends_are_borders_of_words(text: str) -> None:
    assert count(text, "cough") == (1, 1, 5)


@pytest.mark.parametrize(
    ("language", "word", "text"),
    [
        ("en", "cough", "coughdrop hiccough"),
        ("es", "tos", "tosí, votos; tosá"),
        ("fr", "rate", "raté, karaté, pirates"),
        ("fr", "toux", "toux\u00e9 \u00e9toux"),
        ("ru", "язва", "язвам, соязва"),
        ("en", "cough", "co\u0301ugh coughe\u0301"),
    ],
)
def test_a_letter_with_an_accent_or_of_another_script_is_no_border(language: str, word: str, text: str) -> None:
    assert count(text, word, language=language) == (0, 0, 0)


def test_letters_of_scripts_without_spaces_are_borders() -> None:
    assert count("手術後のcoughあり", "cough") == (1, 1, 5)


def test_long_keywords_match_inside_of_words_and_so_in_all_their_inflections() -> None:
    assert count("antihypertensives", "hypertensive") == (1, 1, 12)
    assert count("гипергликемической", "гипергликеми", language="ru") == (1, 1, 12)
    assert count("the mad hatter's hay fevers", "hay fever") == (1, 1, 9)
    assert count("hypertensives", "hypertensi") == (0, 0, 0)  # ten characters
    assert count("my ct xs", "ct x") == (0, 0, 0)  # four, in two words


def test_a_star_allows_any_ending_but_no_other_beginning() -> None:
    assert count("abscess, abscesses, preabscess", "abscess*") == (1, 2, 14)
    assert count("запором, запоров", "запор*", language="ru") == (1, 2, 10)


def test_the_forms_of_a_term_are_one_keyword_and_each_counts_its_own_characters() -> None:
    assert count("Fever; fevers, feverish. Cough!", "fever, fevers, feverish", "cough") == (2, 4, 5 + 6 + 8 + 5)


def test_of_keywords_that_overlap_the_leftmost_counts_and_of_these_the_longest() -> None:
    assert count("heart failure", "heart", "heart failure", "failure") == (1, 1, 13)
    assert count("acute heart failure", "acute heart", "heart failure") == (1, 1, 11)
    assert count("心肌梗死", "心肌", "心肌梗死", "梗死", language="zh") == (1, 1, 4)


def test_a_keyword_that_ends_inside_of_a_word_gives_way_to_one_that_does_not() -> None:
    assert count("heart failures", "heart", "heart failure*") == (1, 1, 13)
    assert count("low backs", "low", "low ba") == (1, 1, 6)
    assert count("ct os", "ct", "ct o") == (1, 1, 2)


# --- scripts without spaces ---


@pytest.mark.parametrize(
    ("language", "text", "term"),
    [
        ("zh", "病人患肺炎三天", "肺炎"),
        ("zh", "病人患糖尿病", "糖尿病"),
        ("ja", "急性心筋梗塞と診断", "心筋梗塞"),
        ("ja", "抗がん剤", "がん"),
    ],
)
def test_keywords_in_chinese_and_japanese_need_no_borders(language: str, text: str, term: str) -> None:
    assert count(text, term, language=language) == (1, 1, len(term))


def test_letters_in_chinese_and_japanese_do_need_them() -> None:
    assert count("行头颅MRI检查", "mri", language="zh") == (1, 1, 3)
    assert count("由amrita提供", "mri", language="zh") == (0, 0, 0)
    assert count("b超，Web超市", "b超", language="zh") == (1, 1, 2)


def test_characters_are_counted_and_not_bytes() -> None:
    found = Keywords("zh", ["肺炎", "mri"]).found("肺炎患者做了MRI，肺炎好转。")
    assert found == KeywordCount(distinct=2, occurrences=3, characters=7, length=15)


def test_widths_of_letters_are_not_told_apart() -> None:
    assert count("ＣＯＶＩＤ－１９とｱｽﾋﾟﾘﾝ５㎎／㎏", "covid-19", "アスピリン", "mg/kg", language="ja") == (3, 3, 8 + 5 + 5)


# --- how a text is written ---


def test_case_accents_ligatures_spaces_and_signs_of_no_width_are_no_difference() -> None:
    text = "L’Œdème, l'oede\u0300me; l’œ\u00addème"
    assert count(text, "œdème", language="fr") == (1, 3, 18)
    assert count("heart\u00a0\n  failure", "heart failure") == (1, 1, 13)
    assert count("e\ufb03cacy", "efficacy") == (1, 1, 8)
    assert count("Отёк и оте\u0301к", "отек", language="ru") == (1, 2, 8)
    assert count("covid\u201119", "covid-19") == (1, 1, 8)


def test_an_accent_that_is_missing_is_a_difference() -> None:
    assert count("fievre", "fièvre", language="fr") == (0, 0, 0)


def test_no_string_is_too_strange() -> None:
    for language in PAPER:
        for text in ("\ud800", "\x00cough\x00", "a\udfff肺炎", "\u0301\u0301", "İ" * 600, "." * 2000):
            Keywords(language).found(text)
    assert count("\ud800肺炎", "肺炎", language="zh") == (1, 1, 2)


def test_fold_changes_nothing_any_more_when_it_is_done_again() -> None:
    for language in PAPER:
        for text in (MEDICAL[language], EVERYDAY[language].upper(), "ＡＢ　Œ\u00ad e\u0301  x", "㎎ ﬃ\t\t."):
            assert fold(fold(text, language), language) == fold(text, language)


# --- against a slow count ---


def slowly(language: str, terms: Sequence[str], text: str) -> KeywordCount:
    """The same by regular expressions, position by position."""
    text = fold(text, language)
    patterns = []
    for number, term in enumerate(terms):
        for written in term.split(","):
            form = fold(written.strip().removesuffix("*"), language)
            inside = len(form) > 10 or (" " in form and len(form) > 5)
            letter = "[a-z]" if language in ("zh", "ja") else r"[^\W\d_\u2e80-\U0010ffff]"
            before = f"(?<!{letter})" if not inside and re.match(letter, form) else ""
            after = f"(?!{letter})" if not inside and re.match(letter, form[-1]) and not written.strip().endswith("*") else ""
            patterns.append((re.compile(before + re.escape(form) + after), number))
    place, lengths, seen = 0, [], set()
    while place < len(text):
        here = [(found.end() - place, number) for pattern, number in patterns if (found := pattern.match(text, place))]
        if here:
            length, number = max(here)
            lengths.append(length)
            seen.add(number)
        place += max(here)[0] if here else 1
    return KeywordCount(distinct=len(seen), occurrences=len(lengths), characters=sum(lengths), length=len(text))


@pytest.mark.parametrize("language", PAPER)
def test_a_count_is_that_of_a_slow_reader(language: str) -> None:
    draw = random.Random(language)
    forms = [form.strip().removesuffix("*") for term in lexicon(language) for form in term.split(",")]
    terms = draw.sample(lexicon(language), 60)
    keywords = Keywords(language, terms)
    between = ("", "", " ", ", ", "\n", "-", "x", "é", "ж", "肺", "1", ". ")
    totals = 0
    for _ in range(60):
        wanted = [form.strip() for term in draw.choices(terms, k=4) for form in term.split(",")]
        words = [*draw.choices(forms, k=4), *EVERYDAY[language][:40].split(), *(word.removesuffix("*") for word in wanted)]
        draw.shuffle(words)
        text = "".join(word + draw.choice(between) for word in words)
        text = draw.choice((str, str.upper, lambda each: unicodedata.normalize("NFD", each)))(text)
        found = keywords.found(text)
        assert found == slowly(language, terms, text), text
        totals += found.occurrences
    assert totals > 150


@pytest.mark.parametrize("language", PAPER)
def test_stopping_early_does_not_change_a_decision(language: str) -> None:
    draw = random.Random(language)
    mark = "" if language in ("zh", "ja") else " "
    decisions = []
    for _ in range(60):
        parts = [*[MEDICAL[language]] * draw.randrange(12), *[EVERYDAY[language]] * draw.randrange(25)]
        draw.shuffle(parts)
        text = mark.join(parts)
        keywords = Keywords(language, rule=Rule(distinct=draw.randint(1, 12), share=draw.random() * 0.3))
        decisions.append(keywords.medical(text))
        assert decisions[-1] == keywords.rule.holds(keywords.found(text))
    assert 5 < sum(decisions) < len(decisions) - 5


def test_a_keyword_that_holds_a_full_stop_or_all_marks_is_found_wherever_it_stands() -> None:
    keywords = Keywords("en", ["t.i.d.", ".,;:!?()。，、；：！？（）"], rule=ANY)
    for place in range(500, 530):
        text = "x" * place + " t.i.d. " + "y" * 600 + ".,;:!?()。，、；：！？（）"
        assert keywords.found(text).distinct == 2
    for place in range(480, 530):
        assert (
            Keywords("en", ["heart failure"], rule=ANY)
            .found("x. " * (place // 3) + " " * (place % 3) + "heart failure.")
            .distinct
        )


def test_keywords_can_be_sent_to_other_processes() -> None:
    keywords = Keywords("ja")
    again = pickle.loads(pickle.dumps(keywords))  # noqa: S301  # made on the spot
    assert again.found(MEDICAL["ja"]) == keywords.found(MEDICAL["ja"])
    assert again.rule == keywords.rule


# --- the paper's script ---


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("keywords")


@pytest.mark.parametrize("language", PAPER)
def test_decisions_are_those_of_the_papers_script_where_it_is_right(benchmark: Any, language: str) -> None:
    keywords = benchmark.without_others(benchmark.keywords_of(language, None))
    script, ours = benchmark.Script(language, keywords), Keywords(language, keywords)
    texts = [benchmark.spaced(text, language) for text in benchmark.texts_in(language)[:150]]
    texts += [benchmark.spaced(each[language] * times, language) for each in (MEDICAL, EVERYDAY) for times in (1, 3)]
    texts = [text for text in texts if not benchmark.overlap(keywords, text)]
    decisions = [script.medical(text) for text in texts]
    assert decisions == [ours.medical(text) for text in texts]
    assert len(texts) > 10
    assert {*decisions} == {True, False}


def test_where_the_papers_script_is_wrong_decisions_differ(benchmark: Any) -> None:
    words = ["cough", "fever", "sputum", "asthma", "nausea"]
    text = "Cough, fever, sputum; asthma, nausea."
    assert not benchmark.Script("en", words).medical(text)  # punctuation is a part of words there
    assert Keywords("en", words).medical(text)
    nested = ["acute myocardial infarction", "myocardial infarction", "acute myocardial", "infarction of", "infarction o"]
    text = "an acute myocardial infarction of a friend of ours"
    assert benchmark.Script("en", nested).medical(text)  # one place counts five times
    assert not Keywords("en", nested).medical(text)


# --- lexicons ---


@pytest.mark.parametrize("language", PAPER)
def test_each_lexicon_has_300_terms_or_more_in_its_own_script(language: str) -> None:
    terms = lexicon(language)
    assert len(terms) >= 300
    letter = {"zh": "[\u4e00-\u9fff]", "ja": "[\u3040-\u30ff\u4e00-\u9fff]", "ru": "[а-яё]"}.get(language, "[a-z]")
    latin = {term for term in terms if not re.search(letter, term)}
    assert latin <= {"covid-19", "sars-cov-2", "mg/kg", "mri"}
    assert all(term == fold(term, language) or "œ" in term for term in terms)


def test_a_lexicon_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("\ufeff# ours\ncough, coughs\n  # indented\nfever*\n", encoding="utf-8")
    assert lexicon("en", file) == ("cough, coughs", "fever*")
    assert Keywords("en", lexicon("en", file), rule=ANY).found("Coughs and fevers").distinct == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cough\n\nfever\n", "{file}:2: an empty term; remove it, or write one"),
        ("cough\n   \n", "{file}:2: an empty term; remove it, or write one"),
        ("cough, , coughs\n", "{file}:1: an empty term; remove it, or write one"),
        ("cough,\n", "{file}:1: an empty term; remove it, or write one"),
        ("*\n", "{file}:1: an empty term; remove it, or write one"),
        ("# c\ncough\nfever\nCough\n", "{file}:4: the term 'Cough' is in line 2 too; keep one of them"),
        ("fever, fever*\n", "{file}:1: the term 'fever*' is in line 1 too; keep one of them"),
    ],
)
def test_a_lexicon_with_blanks_or_duplicates_is_refused_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as refused:
        lexicon("en", file)
    assert str(refused.value) == message.format(file=file)


def test_a_lexicon_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("fièvre\n".encode("latin-1"))
    for file in (tmp_path / "none.txt", latin, tmp_path):
        with pytest.raises(DataError, match=re.escape(f"{file}: no lexicon could be read")):
            lexicon("fr", file)


def test_unknown_languages_and_empty_lists_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown language 'jp'; did you mean ja"):
        Keywords("jp", ["癌"])
    with pytest.raises(UnknownNameError, match="unknown language 'xx'"):
        lexicon("xx")
    with pytest.raises(DataError, match="no medical terms for en"):
        Keywords("en", [])
    with pytest.raises(DataError, match="terms for en:2: the term 'fever' is in line 1 too"):
        Keywords("en", ["fever", "fever"])
