"""Copies of test items are found in whatever shape they are, and ordinary medical text holds none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from time import process_time

import pytest

from mmed_train.corpus.decontaminate import COMMON, TestItems
from mmed_train.corpus.words import spans, units
from mmedeval import Sample, TaskOptions
from mmedeval.catalog import Catalog
from mmedeval.host import make_host

DATA = Path(__file__).parents[4].parent / "shared" / "data"
LANGUAGES = ("en", "zh", "ja", "fr", "ru", "es")
UNSPACED = ("zh", "ja")
Planted = Callable[[Sample, random.Random], str]


def sample(question: str, options: Sequence[str] = ("yes", "no"), *, id: str = "1", language: str = "en") -> Sample:
    return Sample(
        id=id,
        language=language,
        question=question,
        options=dict(zip("ABCDE", options, strict=False)),
        answer=frozenset("A"),
    )


@cache
def mini() -> Mapping[str, Sequence[Sample]]:
    """The embedded questions, in the language of the last two letters of the task's name."""
    tasks = [spec.load(TaskOptions()) for spec in Catalog(make_host(block=[])).select_tasks(["mmedbench_mini"])]
    return {task.name: task.samples("test") for task in tasks}


@cache
def real() -> Mapping[str, Sequence[Sample]]:
    if not (DATA / "mmedbench" / "Test").is_dir():
        pytest.skip("the MMedBench files are not beside the repository (shared/data/mmedbench)")
    options = TaskOptions(data_dir=DATA / "mmedbench")
    tasks = [spec.load(options) for spec in Catalog(make_host(block=[])).select_tasks(["mmedbench"])]
    return {task.name: task.samples("test") for task in tasks}


@cache
def real_documents() -> Mapping[str, Sequence[str]]:
    if not (DATA / "corpus").is_dir():
        pytest.skip("the corpora are not beside the repository (shared/data/corpus)")
    return {
        language: [
            json.loads(line)["text"]
            for file in sorted((DATA / "corpus" / language).glob("*.jsonl"))
            for line in file.read_text(encoding="utf-8").splitlines()
        ]
        for language in LANGUAGES
    }


@cache
def made_documents() -> Mapping[str, Sequence[str]]:
    """400 texts in each language: a walk from word to word of the embedded rationales, so that rows of three are medical."""
    documents: dict[str, list[str]] = {}
    for task, samples in mini().items():
        language = task[-2:]
        joint = "" if language in UNSPACED else " "
        words = [word for each in samples for word in (each.rationale if language in UNSPACED else each.rationale.split())]
        behind: dict[str, list[str]] = {}
        for before, after in pairwise(words):
            behind.setdefault(before, []).append(after)
        draw = random.Random(f"documents {language}")
        documents[language] = []
        for _ in range(400):
            walk = [draw.choice(words)]
            while len(walk) < 150:
                walk.append(draw.choice(behind.get(walk[-1], words)))
            documents[language].append(joint.join(walk))
    return documents


@cache
def mini_items() -> TestItems:
    return TestItems(mini())


@cache
def real_items() -> TestItems:
    return TestItems(real())


# --- shapes of copies ---


def listed(options: Sequence[str]) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip("ABCDEFGH", options, strict=False))


def verbatim(item: Sample, draw: random.Random) -> str:
    return f"{item.question}\n{listed([*item.options.values()])}"


def other_white_space(item: Sample, draw: random.Random) -> str:
    blanks = ["\n", "  ", "\u00a0", "\t\n", "\r\n", " \u3000"]
    return "".join(draw.choice(blanks) if sign.isspace() else sign for sign in verbatim(item, draw))


def without_signs(item: Sample, draw: random.Random) -> str:
    return " ".join(sign for part in (item.question, *item.options.values()) for sign in units(part)).upper()


def shuffled_options(item: Sample, draw: random.Random) -> str:
    options = [*item.options.values()]
    draw.shuffle(options)
    return f"{item.question}\n{listed(options)}"


def half_of(question: str, language: str, half: int) -> str:
    question = question[: spans(question)[-1][1]]  # without the blanks to fill in
    parts = [*question] if language in UNSPACED else question.split()
    middle = (len(parts) + 1) // 2
    return ("" if language in UNSPACED else " ").join(parts[:middle] if half == 0 else parts[-middle:])


def first_half_with_options(item: Sample, draw: random.Random) -> str:
    return f"{half_of(item.question, item.language, 0)} ...\n{listed([*item.options.values()])}"


def last_half_with_options(item: Sample, draw: random.Random) -> str:
    options = [*item.options.values()]
    draw.shuffle(options)
    return f"... {half_of(item.question, item.language, 1)}\n{listed(options)}"


SHAPES: Sequence[Planted] = (
    verbatim,
    other_white_space,
    without_signs,
    shuffled_options,
    first_half_with_options,
    last_half_with_options,
)


def missed(
    items: Mapping[str, Sequence[Sample]],
    found: TestItems,
    documents: Mapping[str, Sequence[str]],
    shape: Planted,
    most: int,
) -> list[tuple[str, str, str]]:
    """Which of up to `most` items per task are not found, each in the middle of a document of its own."""
    not_there = []
    for task, samples in items.items():
        draw = random.Random(f"{task} {shape.__name__}")
        for item in draw.sample(samples, min(most, len(samples))):
            host = draw.choice(documents[item.language])
            middle = draw.randrange(len(host) + 1)
            copy = shape(item, draw)
            text = f"{host[:middle]}\n{copy}\n{host[middle:]}"
            hits = [hit for hit in found.hits(text) if (hit.task, hit.item_id) == (task, item.id)]
            if not hits:
                not_there.append((task, item.id, copy))
            for hit in hits:
                start, end = hit.where
                assert start <= middle + len(copy), (hit, text[start:end])
                assert end > middle + 1, (hit, text[start:end])
    return not_there


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_every_copy_of_an_embedded_question_is_found_where_it_is(shape: Planted) -> None:
    assert missed(mini(), mini_items(), made_documents(), shape, most=40) == []


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_every_copy_of_a_real_test_item_is_found_where_it_is(shape: Planted) -> None:
    assert missed(real(), real_items(), real_documents(), shape, most=150) == []


@pytest.mark.parametrize("half", [0, 1])
def test_half_of_a_real_question_is_found_alone_from_14_words_or_24_characters_on(half: int) -> None:
    """Unless eight questions say the same, or it is cut so that it holds less than half of the words."""
    items = real_items()
    tried = 0
    for task, samples in real().items():
        for item in samples[:200]:
            copy = half_of(item.question, item.language, half)
            size, whole = len(units(copy)), len(units(item.question))
            if whole < (24 if item.language in UNSPACED else 14) or 2 * size < whole - 1 or shares(copy):
                continue
            tried += 1
            assert any((hit.task, hit.item_id) == (task, item.id) for hit in items.hits(f"...\n{copy}\n...")), (task, copy)
    assert tried > 300


def shares(part: str) -> bool:
    """Whether the words of a part are those of as many other questions as make a phrase."""
    row = " ".join(units(part))
    return sum(row in each for each in _real_questions()) >= COMMON


@cache
def _real_questions() -> Sequence[str]:
    return [" ".join(units(item.question)) for samples in real().values() for item in samples]


def test_2400_made_documents_hold_no_embedded_question() -> None:
    items = mini_items()
    flagged = [(text, hits) for texts in made_documents().values() for text in texts if (hits := items.hits(text))]
    assert flagged == []


def test_none_of_2000_real_documents_holds_a_test_item() -> None:
    items = real_items()
    texts = [text for texts in real_documents().values() for text in texts[:: max(1, len(texts) // 400)]]
    assert len(texts) > 2000
    assert [hits for text in texts if (hits := items.hits(text))] == []


# --- single rules ---

LONG = (
    "A 45-year-old man comes to the emergency department because of crushing chest pain that began two hours ago while he was "
    "shovelling snow; which of the following is the most likely diagnosis?"
)
PAIN = ("Myocardial infarction", "Aortic dissection", "Pulmonary embolism", "Pericarditis")


def test_a_hit_says_what_was_found_where_and_why() -> None:
    items = TestItems({"heart": [sample(LONG, PAIN, id="7")]})
    text = f"Case of the month.\n{LONG}\nThe answer is below."
    [hit] = items.hits(text)
    assert (hit.task, hit.item_id, hit.kind, hit.share) == ("heart", "7", "passage", 1.0)
    assert text[slice(*hit.where)] == LONG.rstrip("?")


def test_a_passage_counts_and_less_does_not() -> None:
    items = TestItems({"heart": [sample(LONG, PAIN)]})
    words = LONG.split()
    [hit] = items.hits(" ".join(words[5:21]))
    assert hit.kind == "passage"
    assert 0.4 < hit.share < 0.6
    assert items.hits(" ".join(words[5:15])) == []


def test_a_short_question_is_found_with_the_marks_that_end_it_or_with_its_options() -> None:
    items = TestItems({"t": [sample("Does insulin lower blood glucose?", ("Yes, always", "Never in adults"))]})
    assert [hit.kind for hit in items.hits("1. DOES insulin lower\nblood-glucose ?")] == ["question"]
    assert items.hits("We ask how it does: insulin lower blood glucose. It also does more.") == []
    assert items.hits("One may say: does insulin lower blood glucose. Yes.") == []
    [hit] = items.hits("b) never in adults a) yes, always; ... lower blood glucose")
    assert (hit.kind, hit.share) == ("question and options", 0.6)
    assert items.hits("Does insulin lower it? Yes, always.") == []


def test_an_options_rule_needs_them_close_to_the_question() -> None:
    items = TestItems({"t": [sample("Does insulin lower blood glucose", ("Yes, always", "Never in adults"))]})
    far = " and so on" * 30
    assert items.hits(f"insulin lower blood {far} yes, always {far} never in adults") == []


def test_all_options_are_a_copy_if_they_are_long() -> None:
    options = (
        "the left kidney lies higher than the right",
        "the right kidney lies behind the whole of the spleen",
        "both kidneys have two ureters each",
    )
    items = TestItems({"t": [sample("Which is true?", options)]})
    assert [hit.kind for hit in items.hits("\n".join(reversed(options)))] == ["options"]
    assert items.hits("\n".join(options[:2])) == []


def test_what_many_questions_say_is_no_item() -> None:
    phrase = "Which of the following statements about the disease that was described here is the right one to make"
    many = [sample(f"{phrase}, case {number}?", (f"one {number}", f"two {number}"), id=str(number)) for number in range(COMMON)]
    assert TestItems({"t": many}).hits(phrase) == []
    assert len(TestItems({"t": many[1:]}).hits(phrase)) == COMMON - 1
    for item in many:
        [hit] = TestItems({"t": many}).hits(verbatim(item, random.Random(0)))
        assert hit.item_id == item.id


def test_an_item_of_several_tasks_is_told_for_each() -> None:
    items = TestItems({"a": [sample(LONG, PAIN)], "b": [sample(LONG, PAIN)]})
    assert [hit.task for hit in items.hits(LONG)] == ["a", "b"]
    assert len(items) == 2


def test_no_items_and_empty_ones_are_found_nowhere() -> None:
    assert TestItems({}).hits("Any text at all.") == []
    strange = [sample("", ()), sample("?", ("A", "B")), sample("x", ()), sample("血", ("", "。")), sample("...", (LONG,))]
    items = TestItems({"t": strange})
    assert items.hits("") == items.hits("  。") == []
    assert items.hits(LONG) == []


def test_the_script_decides_how_a_copy_is_cut() -> None:
    question = "高尿酸血症をきたす患者の治療として最も適切でないものはどれか。"
    items = TestItems({"t": [sample(question, ("A薬", "B薬"), language="en")]})
    spaced = " ".join(question[:-1])
    [hit] = items.hits(f"English text around it. {spaced} And more.")
    assert hit.share == 1.0


def test_time_grows_with_the_text_and_no_faster() -> None:
    """Also where the text is made of what is looked for."""
    items = TestItems({**mini(), "n": [sample("How many lobes has the left lung?", ("2", "3", "4", "5"))]})
    parts = "1 2 3 4 5 yes no да нет lobes left lung 是 の "

    def seconds(times: int) -> float:
        text = parts * times
        started = process_time()
        items.hits(text)
        return process_time() - started

    seconds(100)
    short = min(seconds(500) for _ in range(3))
    assert seconds(4000) < 8 * 3 * max(short, 0.01)
