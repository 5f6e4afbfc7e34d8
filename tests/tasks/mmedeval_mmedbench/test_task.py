"""MMedBench's files with every quirk of theirs: the real ones where they are, and made ones for what must not pass."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmedeval import DataError, RunPlan, Sample, TaskOptions
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.store import read_samples
from mmedeval_mmedbench import LANGUAGES, MAX_ANSWERS
from mmedeval_mmedbench.task import parse_file

DATA = Path(__file__).parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data beside the repository")

TEST_ITEMS = {"en": 1273, "zh": 145, "ja": 125, "fr": 142, "ru": 131, "es": 142}
TRAIN_ITEMS = 30


def load(language: str, split: Any, data_dir: Path = DATA / "mmedbench") -> Sequence[Sample]:
    """A split as the catalogue's task gives it."""
    (spec,) = Catalog(make_host(block=[])).select_tasks([f"mmedbench_{language}"])
    return spec.load(TaskOptions(data_dir=data_dir)).samples(split)


def raw(language: str, split: str) -> list[dict[str, Any]]:
    """The file's objects, read without the code under test."""
    with (DATA / "mmedbench" / split.capitalize() / f"{LANGUAGES[language]}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def json_lines(items: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in items)


def item(**fields: Any) -> dict[str, Any]:
    """An item that is good but for `fields`; a field of `...` is left out."""
    good = {
        "question": "Which metal is at the centre of haem?",
        "options": {"A": "iron", "B": "zinc", "C": "copper"},
        "answer_idx": "A",
        "rationale": "Haem holds iron.",
        "human_checked": 0,
        "human_check_passed": 0,
    }
    return {name: value for name, value in {**good, **fields}.items() if value is not ...}


def parse(*items: Mapping[str, Any], language: str = "en", max_answers: int = 1, split: str = "test") -> list[Sample]:
    return parse_file("English.jsonl", json_lines(items), language, split, max_answers)


# The real files


@needs_data
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sample_is_its_line_of_the_file(language: str, split: str) -> None:
    samples, lines = load(language, split), raw(language, split)
    assert len(samples) == (TRAIN_ITEMS if split == "train" else TEST_ITEMS[language])
    for number, (sample, line) in enumerate(zip(samples, lines, strict=True), start=1):
        assert sample.id == f"{split}-{number}"
        assert sample.language == language
        assert (sample.question, sample.rationale) == (line["question"], line["rationale"])
        assert list(sample.options.items()) == list(line["options"].items())
        assert sorted(sample.answer) == sorted(line["answer_idx"])
        for flag in ("human_checked", "human_check_passed"):
            assert sample.meta[flag] is bool(line[flag])
        for extra in ("problem_id", "meta_info"):
            assert sample.meta.get(extra) == line.get(extra)


@needs_data
def test_the_flags_of_the_english_test_are_the_documented_ones() -> None:
    flags = Counter((sample.meta["human_checked"], sample.meta["human_check_passed"]) for sample in load("en", "test"))
    assert flags == {(True, True): 195, (True, False): 5, (False, False): 1073}


@needs_data
def test_languages_differ_in_their_options_as_documented() -> None:
    letters = {
        (language, split): {"".join(sample.options) for sample in load(language, split)}
        for language in LANGUAGES
        for split in ("train", "test")
    }
    assert letters == {
        **{(language, split): {"ABCD"} for language in ("en", "zh") for split in ("train", "test")},
        **{(language, split): {"ABCDE"} for language in ("ja", "fr") for split in ("train", "test")},
        **{("ru", split): {"AB"} for split in ("train", "test")},
        ("es", "train"): {"ABCDE"},
        ("es", "test"): {"ABCD"},
    }
    assert all(sample.options == {"A": "да", "B": "нет"} for sample in load("ru", "test"))


@needs_data
def test_answers_stand_in_lists_and_in_texts_and_are_read_from_both() -> None:
    types = {language: {type(line["answer_idx"]) for line in raw(language, "test")} for language in LANGUAGES}
    assert types == {"en": {str}, "zh": {str}, "ja": {list}, "fr": {list}, "ru": {str}, "es": {str}}
    sizes = {language: {len(sample.answer) for sample in load(language, "test")} for language in LANGUAGES}
    assert sizes == {"en": {1}, "zh": {1}, "ja": {1, 2, 3}, "fr": {1, 2, 3, 4, 5}, "ru": {1}, "es": {1}}


# The sets that MMedBench was made of: its full files hold these items


def igakuqa() -> Iterator[dict[str, Any]]:
    for file in sorted((DATA / "igakuqa" / "data").glob("*/*.jsonl")):
        if not file.stem.endswith("metadata"):
            yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def headqa() -> Iterator[dict[str, Any]]:
    for split in ("train", "dev", "test"):
        exams = json.loads((DATA / "headqa" / "HEAD" / f"{split}_HEAD.json").read_text(encoding="utf-8"))["exams"]
        for exam in exams.values():
            yield from ({**each, "split": split} for each in exam["data"])


def medqa(file: str) -> Iterator[dict[str, Any]]:
    for line in (DATA / "medqa" / "questions" / file).read_text(encoding="utf-8").split("\n"):
        if line:
            source = json.loads(line)
            yield item(**{key: source[key] for key in ("question", "options", "answer_idx")})


def japanese_items() -> Iterator[dict[str, Any]]:
    for source in igakuqa():
        # Items without options are not in MMedBench; how the one with "a or d" was written there is not known.
        if source["choices"] and source["answer"] != ["a or d"]:
            options = dict(zip("ABCDEFGHIJ", source["choices"], strict=False))
            answer = [letter.upper() for letter in source["answer"]]
            yield item(problem_id=source["problem_id"], question=source["problem_text"], options=options, answer_idx=answer)


def french_items(split: str) -> Iterator[dict[str, Any]]:
    for source in json.loads((DATA / "frenchmedmcqa" / "corpus" / f"{split}.json").read_text(encoding="utf-8")):
        options = {letter.upper(): text for letter, text in source["answers"].items()}
        answer = [letter.upper() for letter in source["correct_answers"]]
        yield item(question=source["question"], options=options, answer_idx=answer)


def spanish_items(split: str) -> Iterator[dict[str, Any]]:
    for source in headqa():
        if source["split"] == split:
            options = {"ABCDE"[each["aid"] - 1]: each["atext"] for each in source["answers"]}
            yield item(question=source["qtext"], options=options, answer_idx="ABCDE"[int(source["ra"]) - 1])


def russian_items(split: str) -> Iterator[dict[str, Any]]:
    for line in (DATA / "rumeddanet" / f"{split}_v1.jsonl").read_text(encoding="utf-8").splitlines():
        source = json.loads(line)
        answer = {"да": "A", "нет": "B"}[source["answer"]]
        yield item(question=source["question"], options={"A": "да", "B": "нет"}, answer_idx=answer)


FULL_SETS: Mapping[str, tuple[str, int, Callable[[], Iterator[dict[str, Any]]]]] = {
    "en test": ("en", 1273, lambda: medqa("US/4_options/phrases_no_exclude_test.jsonl")),
    "zh test": ("zh", 3426, lambda: medqa("Mainland/4_options/test.jsonl")),
    "ja": ("ja", 1987, japanese_items),
    "fr train": ("fr", 2171, lambda: french_items("train")),
    "fr test": ("fr", 622, lambda: french_items("test")),
    "ru train": ("ru", 1052, lambda: russian_items("train")),
    "ru test": ("ru", 256, lambda: russian_items("test")),
    "es train": ("es", 2657, lambda: spanish_items("train")),
    "es test": ("es", 2742, lambda: spanish_items("test")),
}


@needs_data
@pytest.mark.parametrize("name", FULL_SETS)
def test_every_item_of_the_sets_that_mmedbench_was_made_of_can_be_read(name: str) -> None:
    """One that is refused would end the evaluation of the whole language."""
    language, count, make = FULL_SETS[name]
    items = list(make())
    assert len(items) == count
    refused = []
    for each in items:
        try:
            (sample,) = parse(each, language=language, max_answers=MAX_ANSWERS[language], split=name.partition(" ")[2] or "test")
        except DataError as error:
            refused.append(str(error))
            continue
        assert dict(sample.options) == each["options"]
        assert sorted(sample.answer) == sorted(each["answer_idx"])
    assert refused == []


@needs_data
def test_the_most_answers_of_a_language_are_those_of_its_sources() -> None:
    most = {"ja": max(len(each["answer_idx"]) for each in japanese_items())}
    most["fr"] = max(len(each["answer_idx"]) for split in ("train", "test") for each in french_items(split))
    assert {**dict.fromkeys(LANGUAGES, 1), **most} == MAX_ANSWERS


# Pictures


def marked(language: str, questions: Sequence[str]) -> list[bool]:
    samples = parse(*(item(question=question) for question in questions), language=language)
    return [bool(sample.meta.get("image")) for sample in samples]


def precision_and_recall(found: Sequence[bool], true: Sequence[bool]) -> tuple[float, float]:
    hits = sum(a and b for a, b in zip(found, true, strict=True))
    return hits / sum(found), hits / sum(true)


@needs_data
def test_japanese_questions_that_need_a_picture_are_marked_and_no_others() -> None:
    exams = list(igakuqa())
    true = [not each["text_only"] for each in exams]
    assert (len(true), sum(true)) == (2000, 529)
    precision, recall = precision_and_recall(marked("ja", [each["problem_text"] for each in exams]), true)
    assert precision == 1.0
    assert recall >= 0.97


@needs_data
def test_spanish_questions_that_need_a_picture_are_marked_and_no_others() -> None:
    exams = list(headqa())
    true = [bool(each["image"]) for each in exams]
    assert (len(true), sum(true)) == (6765, 165)
    assert precision_and_recall(marked("es", [each["qtext"] for each in exams]), true) == (1.0, 1.0)


def test_the_mark_is_only_set_where_the_data_have_pictures_and_is_never_false() -> None:
    japanese = "心電図を別に示す。診断はどれか。"
    assert marked("ja", [japanese, "診断はどれか。"]) == [True, False]
    assert marked("zh", [japanese]) == [False]
    assert "image" not in parse(item(question="診断はどれか。"), language="ja")[0].meta


def asked_in_a_run(folder: Path, data_dir: Path, language: str, *, exclude: bool) -> set[str]:
    plan = RunPlan(model="baseline:first", tasks=(f"mmedbench_{language}",), data_dir=data_dir, exclude_images=exclude)
    record, _ = run(plan, Catalog(make_host(block=["hf"])), folder)
    results = read_samples(folder)
    assert record.data["counts"]["n"] == len(results)
    return {result.sample.id for result in results}


@needs_data
@pytest.mark.parametrize(("language", "with_picture", "recall"), [("ja", 34, 0.97), ("es", 4, 1.0)])
def test_a_run_can_leave_out_the_questions_that_need_a_picture(
    tmp_path: Path, language: str, with_picture: int, recall: float
) -> None:
    if language == "ja":
        pictured = {each["problem_id"] for each in igakuqa() if not each["text_only"]}
        true = {sample.id for sample in load("ja", "test") if sample.meta["problem_id"] in pictured}
    else:
        questions = {each["qtext"].strip() for each in headqa() if each["image"]}
        true = {sample.id for sample in load("es", "test") if sample.question.strip() in questions}
    assert len(true) == with_picture
    everything = asked_in_a_run(tmp_path / "all", DATA / "mmedbench", language, exclude=False)
    left = asked_in_a_run(tmp_path / "some", DATA / "mmedbench", language, exclude=True)
    assert len(everything) == TEST_ITEMS[language]
    assert everything - left <= true
    assert len(everything - left) >= recall * with_picture


def test_leaving_out_pictures_comes_before_the_limit(tmp_path: Path) -> None:
    (tmp_path / "Test").mkdir()
    questions = [
        "CTを別に示す。診断はどれか。",
        "診断はどれか。",
        "写真を別に示す。病名はどれか。",
        "病名はどれか。",
        "治療はどれか。",
    ]
    (tmp_path / "Test" / "Japanese.jsonl").write_bytes(json_lines([item(question=text) for text in questions]))
    plan = RunPlan(model="baseline:first", tasks=("mmedbench_ja",), data_dir=tmp_path, exclude_images=True, limit=2)
    run(plan, Catalog(make_host(block=["hf"])), tmp_path / "run")
    assert [result.sample.id for result in read_samples(tmp_path / "run")] == ["test-2", "test-4"]


# What the files may hold


def test_numbers_count_lines_of_the_file_and_blank_ones_are_passed_over() -> None:
    content = b"\n" + json_lines([item()]) + b"  \r\n\n" + json_lines([item(question="Second?")])
    samples = parse_file("f", content, "en", "train", 1)
    assert [sample.id for sample in samples] == ["train-2", "train-5"]


def test_lines_may_end_as_on_windows_and_the_last_may_lack_its_end() -> None:
    content = json_lines([item(), item(question="Second?")])
    expected = parse_file("f", content, "en", "test", 1)
    assert parse_file("f", content.replace(b"\n", b"\r\n"), "en", "test", 1) == expected
    assert parse_file("f", content.rstrip(b"\n"), "en", "test", 1) == expected


def test_only_a_line_feed_ends_a_line() -> None:
    question = "Before\u2028after\u2029and\x85more\x0band more?"
    assert [sample.question for sample in parse(item(question=question))] == [question]


@pytest.mark.parametrize("answer", ["A,C", "C,A", "A, C", ["A", "C"], ["C", "A"]])
def test_several_answers_are_read_however_they_are_written(answer: object) -> None:
    assert parse(item(answer_idx=answer), max_answers=2)[0].answer == frozenset("AC")


def test_flags_may_be_numbers_or_booleans() -> None:
    zero, one = parse(item(human_checked=1, human_check_passed=0), item(human_checked=True, human_check_passed=False))
    assert zero.meta == one.meta == {"human_checked": True, "human_check_passed": False}


def test_an_empty_rationale_and_unknown_fields_are_no_error() -> None:
    (sample,) = parse(item(rationale="", metamap_phrases=["x"], answer="iron", topic="Haematology", parallel="q1"))
    assert sample.rationale == ""
    assert sample.meta == {"topic": "Haematology", "parallel": "q1", "human_checked": False, "human_check_passed": False}


# What they may not: each error names file:line, the field and the value


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"question": ...}, ["'question'", "missing"]),
        ({"question": 7}, ["'question'", "7"]),
        ({"question": "  "}, ["'question'", "empty"]),
        ({"options": ...}, ["'options'", "missing"]),
        ({"options": ["iron", "zinc"]}, ["'options'", '["iron", "zinc"]']),
        ({"options": {"A": "iron"}}, ["'options'", '{"A": "iron"}']),
        ({"options": {"A": "iron", "C": "zinc"}}, ["'options'", "'A', 'C'"]),
        ({"options": {"a": "iron", "b": "zinc"}}, ["'options'", "'a', 'b'"]),
        ({"options": {"1": "iron", "2": "zinc"}}, ["'options'", "'1', '2'"]),
        ({"options": {letter: letter for letter in "ABCDEFGHIJK"}}, ["'options'", "'K'", "up to J"]),
        ({"options": {"A": "iron", "B": 7}}, ["option B", "7"]),
        ({"options": {"A": "iron", "B": None}}, ["option B", "null"]),
        ({"answer_idx": ...}, ["'answer_idx'", "missing"]),
        ({"answer_idx": "D"}, ["'answer_idx'", '"D"', "A, B, C"]),
        ({"answer_idx": "a"}, ["'answer_idx'", '"a"']),
        ({"answer_idx": "iron"}, ["'answer_idx'", '"iron"']),
        ({"answer_idx": ""}, ["'answer_idx'", '""']),
        ({"answer_idx": []}, ["'answer_idx'", "[]"]),
        ({"answer_idx": None}, ["'answer_idx'", "null"]),
        ({"answer_idx": 0}, ["'answer_idx'", "0"]),
        ({"answer_idx": ["A", 1]}, ["'answer_idx'", "1"]),
        ({"answer_idx": [["A"]]}, ["'answer_idx'", '["A"]']),
        ({"answer_idx": ["A", "A"]}, ["'answer_idx'", '["A", "A"]', "twice"]),
        ({"answer_idx": "A,C"}, ["'answer_idx'", "2 letters", "at most 1"]),
        ({"rationale": ...}, ["'rationale'", "missing"]),
        ({"rationale": None}, ["'rationale'", "null"]),
        ({"human_checked": ...}, ["'human_checked'", "missing"]),
        ({"human_checked": 2}, ["'human_checked'", "2"]),
        ({"human_check_passed": "yes"}, ["'human_check_passed'", '"yes"']),
        ({"human_check_passed": None}, ["'human_check_passed'", "null"]),
        ({"parallel": 3}, ["'parallel'", "3"]),
    ],
    ids=str,
)
def test_a_bad_field_is_named_with_its_file_its_line_and_its_value(fields: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        parse(item(), item(), item(**fields))
    message = str(caught.value)
    assert message.startswith("English.jsonl:3: ")
    assert all(part in message for part in parts), message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (b'{"question": ', "not JSON"),
        (b"{'question': 'x'}", "not JSON"),
        (b"null", "not an object"),
        (b'["a"]', '["a"]'),
        (b'"a text"', '"a text"'),
        (b'{"question": "caf\xe9"}', "0xe9 at column 18"),
        (b'\xef\xbb\xbf{"question": "x"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
    ],
    ids=["torn", "quotes", "null", "list", "text", "Latin 1", "mark inside", "deep list", "deep object"],
)
def test_a_line_that_holds_no_object_is_named_with_its_number(line: bytes, part: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_file("English.jsonl", json_lines([item()]) + line + b"\n", "en", "test", 1)
    assert str(caught.value).startswith("English.jsonl:2: ")
    assert part in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"\xef\xbb\xbf" + json_lines([item()]), "byte order mark"),
        (json_lines([item()]).decode().encode("utf-16"), "UTF-16"),
        (b"", "no items"),
        (b"\n \n", "no items"),
    ],
    ids=["UTF-8 with mark", "UTF-16", "empty", "blank"],
)
def test_a_file_of_another_kind_is_told_what_to_do(content: bytes, part: str) -> None:
    with pytest.raises(DataError, match=rf"^English\.jsonl.*{part}.*(save|restore)"):
        parse_file("English.jsonl", content, "en", "test", 1)


def test_a_long_value_is_shown_by_its_beginning() -> None:
    with pytest.raises(DataError) as caught:
        parse(item(options=["x" * 10_000, "y"]))
    assert len(str(caught.value)) < 200
