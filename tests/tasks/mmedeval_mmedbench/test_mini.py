"""The set that is shipped: the same questions in six languages, fit to be compared with each other."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import mmedeval_mmedbench
from mmedeval import RunPlan, Sample, TaskOptions
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.prompts import same_question
from mmedeval.runner import run
from mmedeval_mmedbench import LANGUAGES

FILES = Path(mmedeval_mmedbench.__file__).parent / "mini"
SPLITS = ("train", "test")


def load(language: str, split: Any) -> Sequence[Sample]:
    (spec,) = Catalog(make_host(block=[])).select_tasks([f"mmedbench_mini_{language}"])
    return spec.load(TaskOptions()).samples(split)


def texts(sample: Sample) -> list[str]:
    """All that a reader sees of a sample."""
    return [sample.question, *sample.options.values(), sample.rationale]


def test_there_are_forty_questions_and_twenty_examples_in_each_language() -> None:
    assert {(language, split): len(load(language, split)) for language in LANGUAGES for split in SPLITS} == {
        (language, split): {"train": 20, "test": 40}[split] for language in LANGUAGES for split in SPLITS
    }


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_all_languages_ask_the_same_in_the_same_order_with_the_same_letters(language: str, split: str) -> None:
    def shape(sample: Sample) -> tuple[object, ...]:
        return sample.id, sample.meta["parallel"], sample.meta["topic"], list(sample.options), sample.answer

    assert [shape(sample) for sample in load(language, split)] == [shape(sample) for sample in load("en", split)]


def test_no_question_of_one_language_stands_in_another() -> None:
    """Texts are translated, not copied; a name such as `pH` or a number may stay."""
    long = [text for language in LANGUAGES for sample in load(language, "test") for text in (sample.question, sample.rationale)]
    assert [text for text, count in Counter(long).items() if count > 1] == []


def test_parallel_names_are_unique() -> None:
    names = [sample.meta["parallel"] for split in SPLITS for sample in load("en", split)]
    assert len(names) == len(set(names)) == 60


def test_kinds_of_questions_and_letters_are_mixed() -> None:
    test = load("en", "test")
    several = [sample for sample in test if len(sample.answer) > 1]
    yes_or_no = [sample for sample in test if len(sample.options) == 2]
    assert len(several) >= 6
    assert len(yes_or_no) >= 6
    assert {len(sample.options) for sample in test} == {2, 4, 5}
    assert max(len(sample.answer) for sample in test) <= 3
    single = [next(iter(sample.answer)) for sample in test if len(sample.answer) == 1]
    shares = {letter: single.count(letter) / len(single) for letter in "ABCD"}
    assert all(0.15 <= share <= 0.35 for share in shares.values()), shares
    assert len({frozenset(sample.answer) for sample in yes_or_no}) == 2, "yes is not always right"
    assert len({sample.meta["topic"] for sample in test}) >= 15


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_yes_or_no_question_offers_the_words_of_its_language_in_one_order(language: str) -> None:
    offered = {tuple(sample.options.values()) for split in SPLITS for sample in load(language, split) if len(sample.options) == 2}
    assert len(offered) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_question_of_the_test_split_is_an_example(language: str) -> None:
    train = {same_question(sample.question) for sample in load(language, "train")}
    test = [same_question(sample.question) for sample in load(language, "test")]
    assert len(set(test)) == 40
    assert train.isdisjoint(test)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_item_has_a_rationale_and_none_claims_to_be_checked(language: str) -> None:
    for split in SPLITS:
        for sample in load(language, split):
            assert len(sample.rationale) > 30
            assert not sample.meta["human_checked"]
            assert not sample.meta["human_check_passed"]


LETTER = r"[A-EＡ-Ｅ]"
# "option A", "answers B and C", "(A)", "A is right", in the languages of the set.
REFERENCES = re.compile(
    rf"(?:选项|選項|答案|選択肢|正解は)\s*{LETTER}|正[解答][：:]\s*{LETTER}|(?i:вариант|ответ)\w*\s+[A-EА-Д]\b"
    r"|\b(?i:option|answer|choice|statement|proposition|réponse|choix|opci[oó]n|respuesta|inciso)(?:e?s)?\s+[A-E]\b"
    rf"|^{LETTER}\s*[.)、．：:]|[(（]{LETTER}[)）]",
    re.MULTILINE,
)

REFERRING = [
    "Option A is wrong.",
    "選択肢Aは誤り。",
    "选项A正确",
    "la proposition C",
    "las opciones B y C",
    "вариант Б",
    "Thus (D).",
    "B. zinc",
    "答案 C",
]


@pytest.mark.parametrize("text", REFERRING)
def test_references_to_letters_are_recognised(text: str) -> None:
    """Else the next test would hold of anything."""
    assert REFERENCES.search(text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_refers_to_an_option_by_its_letter(language: str) -> None:
    """The letters could not be moved then, and a model would read its answer out of a shot."""
    seen = [text for split in SPLITS for sample in load(language, split) for text in texts(sample)]
    vitamins = re.compile(r"(?:vitamin\w*|витамин\w*|hepatit\w*|гепатит\w*)\s+[A-E]\b", re.IGNORECASE)
    assert [text for text in seen if REFERENCES.search(vitamins.sub("", text))] == []


def scripts(text: str) -> Counter[str]:
    """How many letters of the text belong to which script."""
    found: Counter[str] = Counter()
    for char in text:
        name = unicodedata.name(char, "")
        if char.isalpha():
            kind = {"HIRAGANA": "kana", "KATAKANA": "kana", "CJK": "Han", "CYRILLIC": "Cyrillic", "LATIN": "Latin"}
            found[next((script for start, script in kind.items() if name.startswith(start)), "other")] += 1
    return found


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_in_the_script_of_its_language(language: str, split: str) -> None:
    main = {"en": "Latin", "fr": "Latin", "es": "Latin", "ru": "Cyrillic", "zh": "Han"}
    foreign = {
        "en": {"kana", "Han", "Cyrillic"},
        "fr": {"kana", "Han", "Cyrillic"},
        "es": {"kana", "Han", "Cyrillic"},
        "ru": {"kana", "Han"},
        "zh": {"kana", "Cyrillic"},
        "ja": {"Cyrillic"},
    }[language]
    for sample in load(language, split):
        assert not foreign & set(scripts("".join(texts(sample)))), sample.id
        for text in (sample.question, sample.rationale):
            found = scripts(text)
            if language == "ja":
                assert found["kana"] >= 3, text
                assert found["kana"] + found["Han"] > 0.6 * found.total(), text
            else:
                assert found[main[language]] > 0.6 * found.total(), text


ACCENTS = {"fr": "éèêàçùîôœ", "es": "áéíóúñ¿"}


@pytest.mark.parametrize(("language", "marks"), ACCENTS.items())
def test_languages_in_the_same_script_are_told_apart_by_their_accents(language: str, marks: str) -> None:
    marked = {
        code: sum(any(mark in " ".join(texts(sample)) for mark in marks) for sample in load(code, "test"))
        for code in (language, "en")
    }
    assert marked[language] == 40
    assert marked["en"] <= 4


def test_texts_are_clean() -> None:
    """Composed characters, no stray blanks, no control characters, no line breaks."""
    for language in LANGUAGES:
        for split in SPLITS:
            for sample in load(language, split):
                for text in texts(sample):
                    assert text == text.strip()
                    assert text == unicodedata.normalize("NFC", text)
                    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp") for char in text)
                    assert "  " not in text


def test_the_right_option_is_not_given_away_by_its_length() -> None:
    """Taking the longest option is no better than a good deal of luck."""
    for language in LANGUAGES:
        single = [sample for sample in load(language, "test") if len(sample.answer) == 1 and len(sample.options) > 2]
        longest = [max(sample.options, key=lambda letter, s=sample: len(s.options[letter])) for sample in single]
        right = sum(letter in sample.answer for letter, sample in zip(longest, single, strict=True))
        assert right / len(single) <= 0.5, language


def test_the_files_have_the_layout_of_the_published_ones() -> None:
    """So that they also serve as an example of a data folder."""
    for folder in ("Train", "Test"):
        assert sorted(file.stem for file in (FILES / folder).iterdir()) == sorted(LANGUAGES.values())
        for file in (FILES / folder).iterdir():
            content = file.read_bytes()
            assert content.endswith(b"}\n")
            for line in content.decode("utf-8").splitlines():
                assert set(json.loads(line)) == {
                    "parallel", "topic", "question", "options", "answer_idx", "rationale", "human_checked", "human_check_passed",
                }  # fmt: skip


def test_a_run_over_the_small_set_needs_no_data_and_tells_how_consistent_the_answers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("MMEDBENCH_DIR", raising=False)
    plan = RunPlan(model="baseline:first", tasks=("mmedbench_mini",))
    record, _ = run(plan, Catalog(make_host(block=["hf"])), tmp_path / "run")
    values = {(figure.language, figure.metric): figure.value for figure in record.aggregates}
    assert len({values[language, "accuracy"] for language in LANGUAGES}) == 1, "the letters are the same everywhere"
    assert values["avg", "accuracy"] == pytest.approx(values["en", "accuracy"])
    (consistency,) = record.data["consistency"]
    assert (consistency["languages"], consistency["questions"], consistency["read"]) == (6, 40, 40)
    assert consistency["alike"]["value"] == 1.0
    assert consistency["all_right"]["value"] == values["en", "accuracy"]
