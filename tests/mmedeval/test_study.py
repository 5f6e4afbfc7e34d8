"""A study with people: who sees what, that nobody learns which model it is, and that answers come back as they were given."""

from __future__ import annotations

import csv
import hashlib
import html.parser
import io
import json
import random
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmedeval.agreement import kendall_tau
from mmedeval.errors import DataError, UsageError
from mmedeval.study import (
    KEY,
    Plan,
    balanced_orders,
    export,
    hold_against,
    import_answers,
    load_runs,
    plot,
    shared_items,
    write_agreement,
    write_json,
)

MakeRuns = Callable[..., list[Path]]
RATIONALE = re.compile(r"###Rationale: (.*)\n###Answer", re.DOTALL)


def text_of(output: str) -> str:
    found = RATIONALE.match(output)
    return found.group(1) if found else output


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def key_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / KEY).read_text(encoding="utf-8"))


def page_data(file: Path) -> dict[str, Any]:
    """The data in a rating page, found as a browser finds them."""

    class Reader(html.parser.HTMLParser):
        CDATA_CONTENT_ELEMENTS = ("script", "style")
        inside = False
        text = ""
        scripts = 0

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.scripts += tag == "script"
            self.inside = tag == "script" and ("id", "data") in attrs

        def handle_endtag(self, tag: str) -> None:
            self.inside = False

        def handle_data(self, data: str) -> None:
            self.text += data * self.inside

    reader = Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    assert reader.scripts == 2
    return json.loads(reader.text)


def rows_of(file: Path) -> list[dict[str, str]]:
    return [*csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline=""))]


# --- export ---


def test_the_same_runs_and_seed_give_the_same_bytes_and_another_seed_others(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs = make_runs()
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        export(runs, tmp_path / name, Plan(items=10, raters=2, seed=seed), text_of)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    other = contents(tmp_path / "three")
    assert all(other[name] != content for name, content in contents(tmp_path / "one").items())


def test_items_are_those_that_a_person_checked_and_all_runs_answered(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs = make_runs(text=lambda model, language, number: None if (model, number) == (3, 4) else "some words")
    exported = export(runs, tmp_path / "study", Plan(items=100), text_of)
    assert exported.items == exported.offered == {"en": 7, "zh": 7, "ja": 7}
    assert {item["id"] for item in key_of(tmp_path / "study")["items"]} == {f"test-{n}" for n in (1, 2, 5, 7, 8, 10, 11)}
    export(runs, tmp_path / "all", Plan(items=100, checked_only=False), text_of)
    assert len(key_of(tmp_path / "all")["items"]) == 33


def test_items_are_drawn_in_all_or_from_each_language(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs = make_runs()
    assert sum(export(runs, tmp_path / "all", Plan(items=10), text_of).items.values()) == 10
    assert export(runs, tmp_path / "each", Plan(items=5, per_language=True), text_of).items == {"en": 5, "zh": 5, "ja": 5}


@pytest.mark.parametrize("width", range(1, 8))
def test_orders_give_everyone_every_place_equally_often(width: int) -> None:
    for count in (0, 1, width, 3 * width, 5 * width + 2):
        orders = balanced_orders(count, width, random.Random(count))
        assert all(sorted(order) == [*range(width)] for order in orders)
        for place in range(width):
            times = Counter(order[place] for order in orders)
            assert max(times.values(), default=0) - min((times[each] for each in range(width)), default=0) <= 1


def test_on_each_sheet_every_model_stands_equally_often_in_each_place(make_runs: MakeRuns, tmp_path: Path) -> None:
    export(make_runs(), tmp_path / "study", Plan(items=6, per_language=True), text_of)
    key = key_of(tmp_path / "study")
    runs = {item["item"]: item["candidates"] for item in key["items"]}
    for rater, pages in key["sheets"].items():
        places = Counter((place, runs[item][candidate]) for item, order in pages for place, candidate in enumerate(order))
        assert {places[place, run] for place in range(6) for run in range(6)} == {3}, rater


def test_a_candidates_letter_says_nothing_of_its_model(make_runs: MakeRuns, tmp_path: Path) -> None:
    export(make_runs(count=60), tmp_path / "study", Plan(items=100), text_of)
    letters = Counter((letter, run) for item in key_of(tmp_path / "study")["items"] for letter, run in item["candidates"].items())
    assert len(letters) == 36
    assert max(letters.values()) < 35  # of 100; about 17 each


def test_raters_see_the_same_items_in_different_orders(make_runs: MakeRuns, tmp_path: Path) -> None:
    export(make_runs(), tmp_path / "study", Plan(items=15), text_of)
    orders = [[item for item, _ in pages] for pages in key_of(tmp_path / "study")["sheets"].values()]
    assert len(orders) == 3
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert len({frozenset(order) for order in orders}) == 1


def test_page_and_sheet_of_a_rater_show_the_same(make_runs: MakeRuns, tmp_path: Path) -> None:
    export(make_runs(), tmp_path / "study", Plan(items=9), text_of)
    for rater in ("rater1", "rater2", "rater3"):
        data = page_data(tmp_path / "study" / f"{rater}.html")
        shown = [(item["item"], each["candidate"], each["text"]) for item in data["items"] for each in item["candidates"]]
        rows = rows_of(tmp_path / "study" / f"{rater}.csv")
        assert shown == [(row["item"], row["candidate"], row["text"]) for row in rows]
        assert len(rows) == 9 * 6
        assert all(re.fullmatch(r"words \d \w\w \d+", row["text"]) for row in rows)


def test_no_sheet_or_page_names_a_model_a_run_a_metric_or_a_verdict(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs = make_runs(
        text=lambda model, language, number: f"the same words {number}",
        scores=lambda *_: {"bleu1": 31.4159, "zebra_metric": 2.71828},
    )
    export(runs, tmp_path / "study", Plan(items=20, seed=424242), text_of)
    hidden = [b"secretive", str(tmp_path).encode(), b"hf:", b"zebra", b"31.4159", b"2.71828", b"0.125", b"static_", b"424242"]
    hidden += [run["fingerprint"].encode() for run in key_of(tmp_path / "study")["runs"]]
    names = [file for file in contents(tmp_path / "study") if file != KEY]
    assert len(names) == 6
    for name in names:
        content = (tmp_path / "study" / name).read_bytes()
        assert not [each for each in hidden if each in content], name
    assert all(each in (tmp_path / "study" / KEY).read_bytes() for each in (b"secretive", b"424242"))


def test_with_the_same_texts_from_all_models_nothing_but_their_letters_differs(make_runs: MakeRuns, tmp_path: Path) -> None:
    """Were anything else of a model on the page, the candidates would differ in it."""
    export(make_runs(text=lambda *_: "the same words"), tmp_path / "study", Plan(items=5), text_of)
    for item in page_data(tmp_path / "study" / "rater1.html")["items"]:
        assert [{**each, "candidate": ""} for each in item["candidates"]] == [{"candidate": "", "text": "the same words"}] * 6


def test_each_language_may_have_raters_of_its_own(make_runs: MakeRuns, tmp_path: Path) -> None:
    exported = export(make_runs(), tmp_path / "study", Plan(items=4, per_language=True, raters=2, own_raters=True), text_of)
    assert exported.raters == ["rater1-en", "rater2-en", "rater1-zh", "rater2-zh", "rater1-ja", "rater2-ja"]
    assert {item["language"] for item in page_data(tmp_path / "study" / "rater2-zh.html")["items"]} == {"zh"}


HOSTILE = [
    "</script><script>document.title = 'owned'</script>",
    "<!-- <script>",
    "<img src=x onerror=alert(1)>",
    "{{DATA}} {{POLICY}} {{RATER}}",
    "&lt;b&gt; \u2028 \u2029 \x00 \ud800 \u202e",
    "]]> \\u003cscript\\u003e ${1} `x`",
]


def test_hostile_text_stays_text_in_the_page(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs = make_runs(
        count=2,
        text=lambda model, *_: HOSTILE[model],
        question=HOSTILE[0],
        reference=HOSTILE[1],
        options=(HOSTILE[0], HOSTILE[2]),
    )
    export(runs, tmp_path / "study", Plan(), text_of)
    file = tmp_path / "study" / "rater1.html"
    data = page_data(file)
    for item in data["items"]:
        assert {each["text"] for each in item["candidates"]} == {text.strip() for text in HOSTILE}
        assert item["question"].startswith(HOSTILE[0])
        assert item["reference"] == HOSTILE[1]
    embedded = file.read_text(encoding="utf-8").split('<script id="data" type="application/json">')[1].split("</script>")[0]
    assert not {"<", ">", "&"} & {*embedded}


def test_the_page_allows_its_own_script_and_style_and_nothing_else(make_runs: MakeRuns, tmp_path: Path) -> None:
    export(make_runs(count=2), tmp_path / "study", Plan(raters=1), text_of)
    page = (tmp_path / "study" / "rater1.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (code,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert f"{tag}-src 'sha256-{b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" in policy
        assert not re.search(r"https?:|innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|fetch|XMLHttp|import\(", code)
    assert not re.search(r"<[^>]*\s(src|href|on\w+|style)=", page.split("<script")[0])


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝", " =", "\t=", "\r\n@"])
def test_no_cell_of_a_sheet_is_a_formula(make_runs: MakeRuns, tmp_path: Path, start: str) -> None:
    runs = make_runs(count=2, text=lambda *_: f'{start}HYPERLINK("http://x")', question=f"{start}1+1", reference=f"{start}2")
    export(runs, tmp_path / "study", Plan(raters=1), text_of)
    for row in rows_of(tmp_path / "study" / "rater1.csv"):
        assert not [cell for cell in row.values() if cell[:1] in "=+-@＝＋－＠\t\r" and cell]
        assert "HYPERLINK" in row["text"]


def test_a_folder_in_use_is_not_written_to(make_runs: MakeRuns, tmp_path: Path) -> None:
    export(make_runs(), tmp_path / "study", Plan(), text_of)
    before = contents(tmp_path / "study")
    with pytest.raises(UsageError, match="not an empty folder"):
        export(make_runs(folder="others"), tmp_path / "study", Plan(seed=1), text_of)
    assert contents(tmp_path / "study") == before


def test_runs_that_cannot_be_compared_are_refused(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs = make_runs()
    with pytest.raises(UsageError, match="2 to 12 runs, not 1"):
        load_runs(runs[:1])
    with pytest.raises(UsageError, match="hold the same run"):
        load_runs([*runs, runs[0]])
    with pytest.raises(UsageError, match="no item was answered by all 6 runs and has a checked reference; --rationale-items all"):
        export(make_runs(folder="unchecked", checked=lambda _: False), tmp_path / "study", Plan(), text_of)
    silent = make_runs(models=2, folder="silent", text=lambda *_: None)
    with pytest.raises(UsageError, match="holds no texts"):
        shared_items(load_runs(silent), checked_only=True)
    other = make_runs(models=7, folder="other", question="Which gas?")
    with pytest.raises(UsageError, match="is not the same question"):
        shared_items(load_runs([runs[0], other[6]]), checked_only=True)
    assert not (tmp_path / "study").exists()


# --- import ---

Judge = Callable[[int, str, str], tuple[float, int]]


@pytest.fixture
def study(make_runs: MakeRuns, tmp_path: Path) -> Path:
    export(make_runs(), tmp_path / "study", Plan(items=4, per_language=True), text_of)
    return tmp_path / "study"


def fill(folder: Path, rater: str, opinion: Callable[[str, int], float]) -> dict[str, Any]:
    """What the page exports when a rater thinks `opinion(item, run)` of a text."""
    key = key_of(folder)
    runs = {item["item"]: item["candidates"] for item in key["items"]}
    answers = []
    for item, order in key["sheets"][rater]:
        seen = {candidate: opinion(item, runs[item][candidate]) for candidate in order}
        ranked = sorted(seen, key=lambda candidate: -seen[candidate])
        given = {c: {"rating": min(5, max(1, round(seen[c]))), "place": ranked.index(c) + 1} for c in order}
        answers.append({"item": item, "candidates": given})
    return {"format": 1, "kind": "mmedeval-ratings", "study": key["study"], "rater": rater, "answers": answers, "drafts": []}


def put(folder: Path, answers: Mapping[str, Any], name: str | None = None) -> Path:
    file = folder / (name or f"{answers['rater']}.json")
    file.write_text(json.dumps(answers), encoding="utf-8")
    return file


def better_first(item: str, run: int) -> float:
    return 5 - run * 0.8


def fill_sheet(folder: Path, answers: Mapping[str, Any], *, delimiter: str = ",", encoding: str = "utf-8-sig") -> Path:
    """The same answers, written into the rater's CSV sheet."""
    file = folder / f"{answers['rater']}.csv"
    rows = rows_of(file)
    given = {each["item"]: each["candidates"] for each in answers["answers"]}
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0]], delimiter=delimiter, lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {**row, **{name: str(value) for name, value in given.get(row["item"], {}).get(row["candidate"], {}).items()}}
        )
    file.write_bytes(text.getvalue().encode(encoding))
    return file


def test_answers_come_back_unblinded(study: Path) -> None:
    files = [put(study, fill(study, rater, better_first)) for rater in ("rater1", "rater2", "rater3")]
    found = import_answers(files, study, draws=100)
    assert len(found.data["judgements"]) == 3 * 12
    for each in found.data["judgements"]:
        assert each["places"] == [1, 2, 3, 4, 5, 6]
        assert each["ratings"] == [5, 4, 3, 3, 2, 1]
    assert [run["model"] for run in found.data["runs"]] == [f"hf:secretive-model-{i}" for i in range(6)]
    assert found.agreement["all"]["alpha_ratings_ordinal"].value == pytest.approx(1)
    assert list(found.agreement) == ["en", "zh", "ja", "all"]


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8-sig"), (";", "utf-8"), ("\t", "utf-16")])
def test_a_filled_sheet_says_the_same_as_the_page(study: Path, delimiter: str, encoding: str) -> None:
    r = random.Random(1)
    thoughts = {(item["item"], run): r.uniform(1, 5) for item in key_of(study)["items"] for run in range(6)}
    answers = fill(study, "rater2", lambda item, run: thoughts[item, run])
    by_page = import_answers([put(study, answers)], study, draws=10).data
    by_sheet = import_answers([fill_sheet(study, answers, delimiter=delimiter, encoding=encoding)], study, draws=10).data
    assert by_sheet == by_page


def test_the_key_empty_sheets_and_earlier_results_are_passed_over(study: Path) -> None:
    put(study, fill(study, "rater1", better_first))
    first = import_answers(sorted(study.glob("*.json")) + sorted(study.glob("*.csv")), study, draws=50)
    write_json(first.data, study / "study.json")
    again = import_answers(sorted(study.glob("*.json")) + sorted(study.glob("*.csv")), study, draws=50)
    assert again.data == first.data
    assert [row["answered"] for row in first.data["raters"]] == [12, 0, 0]


def test_incomplete_raters_are_counted(study: Path) -> None:
    answers = fill(study, "rater1", better_first)
    answers["drafts"] = answers["answers"][7:]
    answers["answers"] = answers["answers"][:7]
    found = import_answers([put(study, answers), put(study, fill(study, "rater3", better_first))], study, draws=50)
    assert [(row["rater"], row["asked"], row["answered"]) for row in found.data["raters"]] == [
        ("rater1", 12, 7),
        ("rater2", 12, 0),
        ("rater3", 12, 12),
    ]
    assert found.agreement["all"]["tau_places"].n == 7


def test_raters_who_share_no_question_are_not_compared(make_runs: MakeRuns, tmp_path: Path) -> None:
    export(make_runs(), tmp_path / "own", Plan(items=4, per_language=True, raters=2, own_raters=True), text_of)
    files = [put(tmp_path / "own", fill(tmp_path / "own", rater, better_first)) for rater in key_of(tmp_path / "own")["sheets"]]
    found = import_answers(files, tmp_path / "own", draws=20)
    pairs = [name for name in found.agreement["all"] if name.startswith("kappa")]
    assert pairs == [f"kappa rater1-{language}, rater2-{language}" for language in ("en", "zh", "ja")]
    assert found.agreement["all"]["alpha_places"].n == 12


def broken(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], Path]:
    def make(study: Path) -> Path:
        answers = fill(study, "rater1", better_first)
        change(answers)
        return put(study, answers)

    return make


def first(answers: dict[str, Any]) -> dict[str, Any]:
    return answers["answers"][0]["candidates"]


def test_a_wrong_answer_is_refused_with_file_and_place(study: Path) -> None:
    item = fill(study, "rater1", better_first)["answers"][0]["item"]
    taken = next(c for c, given in first(fill(study, "rater1", better_first)).items() if given["place"] == 1)
    cases: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
        (lambda a: a.update(study="0000"), "answers to the study '0000', not to"),
        (lambda a: a.update(format=2), "format 2"),
        (lambda a: a.update(kind="other"), "holds no answers"),
        (lambda a: a.update(rater="rater9"), "'rater9' is no rater of this study; its raters are rater1, rater2, rater3"),
        (lambda a: a.update(rater=7), "damaged"),
        (lambda a: a.update(answers=[]), "no answers in there"),
        (lambda a: a.update(answers=["x"]), "answer 1 is damaged"),
        (lambda a: a["answers"][2].update(item="q999"), "answer 3: the item 'q999' is not on the sheet of rater1"),
        (lambda a: a["answers"].append(a["answers"][0]), f"answer 13: rater1 answers {item} twice"),
        (
            lambda a: first(a).update(z={"rating": 1, "place": 1}),
            f"answer 1: {item} has no text 'z'; its texts are a, b, c, d, e, f",
        ),
        (lambda a: first(a).pop("c"), f"answer 1: text c of {item} has no rating"),
        (lambda a: first(a)["c"].pop("place"), f"answer 1: the ranking of {item} is incomplete: text c has no place"),
        (lambda a: first(a)["c"].update(rating=6), f"answer 1: the rating 6 of text c of {item} is not one of 1 to 5"),
        (lambda a: first(a)["c"].update(rating=0), "the rating 0 of text c"),
        (lambda a: first(a)["c"].update(rating=True), "is True, no whole number"),
        (lambda a: first(a)["c"].update(rating=3.5), "is 3.5, no whole number"),
        (lambda a: first(a)["c"].update(place=7), f"the place 7 of text c of {item} is not one of 1 to 6"),
        (lambda a: [each.update(place=1) for each in first(a).values()], f"{item} has 6 texts in place 1"),
    ]
    assert taken in "abcdef"
    for change, message in cases:
        file = broken(change)(study)
        with pytest.raises(DataError, match=re.escape(message)) as caught:
            import_answers([file], study, draws=10)
        assert str(caught.value).startswith(str(file))
        assert "\n" not in str(caught.value)


def test_two_answers_of_one_rater_are_refused(study: Path) -> None:
    answers = fill(study, "rater1", better_first)
    files = [put(study, answers), put(study, answers, "copy.json")]
    with pytest.raises(DataError, match=r"copy\.json: answer 1: rater1 has answered in .*rater1\.json already"):
        import_answers(files, study)
    with pytest.raises(DataError, match=r"rater1\.csv:\d+: rater1 has answered in .*rater1\.json already"):
        import_answers([files[0], fill_sheet(study, answers)], study)


def test_a_wrong_line_of_a_sheet_is_refused_with_its_number(study: Path) -> None:
    answers = fill(study, "rater1", better_first)
    file = fill_sheet(study, answers)
    whole = file.read_text(encoding="utf-8-sig")
    lines = whole.replace("\r\n", "\n")
    for change, message in (
        (lambda text: text.replace("rating,place", "rating,rank", 1), r":1: there is no column 'place'"),
        (
            lambda text: re.sub(r",[1-5],1\n", ",good,1\n", text, count=1),
            r":\d+: the rating of text \w of q\d+ is 'good', no whole number",
        ),
        (lambda text: re.sub(r",[1-5],1\n", ",9,1\n", text, count=1), r":\d+: the rating 9 of text"),
        (lambda text: re.sub(r",[1-5],1\n", ",,1\n", text, count=1), r":\d+: text \w of q\d+ has no rating"),
        (lambda text: re.sub(r",([1-5]),1\n", r",\1,2\n", text, count=1), r":\d+: q\d+ has 2 texts in place 2"),
        (lambda text: text.replace(key_of(study)["study"], "f00", 1), r":\d+: these are answers to the study 'f00'"),
        (lambda text: text.split("\n")[0] + "\n", r"holds no lines"),
    ):
        file.write_text(change(lines), encoding="utf-8")
        with pytest.raises(DataError, match=re.escape(str(file)) + ".*" + message):
            import_answers([file], study, draws=10)
    file.write_bytes(whole.encode("utf-8").replace(b"words", b"\xe9\xff"))
    with pytest.raises(DataError, match="not in UTF-8; save it as CSV UTF-8"):
        import_answers([file], study)


def test_numbers_may_look_as_spreadsheets_write_them(study: Path) -> None:
    answers = fill(study, "rater1", better_first)
    file = fill_sheet(study, answers, delimiter=";")
    text = file.read_text(encoding="utf-8-sig")
    expected = import_answers([file], study, draws=10).data
    file.write_text(re.sub(r";(\d);(\d)\n", r"; \1.0 ;\2,0\n", text.replace("\r\n", "\n")), encoding="utf-8")
    assert import_answers([file], study, draws=10).data == expected


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"null"])
def test_a_file_that_is_no_json_object_is_refused(study: Path, content: bytes) -> None:
    file = study / "odd.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match="is not"):
        import_answers([file], study)


def test_a_missing_or_changed_key_is_a_sentence(study: Path, tmp_path: Path) -> None:
    file = put(study, fill(study, "rater1", better_first))
    with pytest.raises(DataError, match="does not exist; it is written by mmedeval human export"):
        import_answers([file], tmp_path)
    key = key_of(study)
    del key["items"][0]["candidates"]
    (study / KEY).write_text(json.dumps(key))
    with pytest.raises(DataError, match=r"key\.json is damaged \(KeyError"):
        import_answers([file], study)


def test_a_very_long_text_does_not_keep_a_sheet_from_being_read(make_runs: MakeRuns, tmp_path: Path) -> None:
    export(make_runs(count=2, text=lambda *_: "word " * 60_000), tmp_path / "long", Plan(raters=1), text_of)
    answers = fill(tmp_path / "long", "rater1", better_first)
    limit = csv.field_size_limit(10**7)
    try:
        file = fill_sheet(tmp_path / "long", answers)
    finally:
        csv.field_size_limit(limit)
    assert len(import_answers([file], tmp_path / "long").data["judgements"]) == 6


# --- metrics against people ---


def simulate(
    make_runs: MakeRuns, tmp_path: Path, *, seed: int = 0, count: int = 25, raters: int = 3, draws: int = 50
) -> tuple[list[Path], Path]:
    """A whole study: people and metrics look at one quality, each through a noise of their own."""

    def seen(who: str, error: float, *text: object) -> float:
        quality = random.Random(f"{seed}/{text}").gauss(0, 1)
        return quality + random.Random(f"{seed}/{who}/{text}").gauss(0, error)

    def scores(run: int, language: str, number: int) -> dict[str, float]:
        good = seen("good", 0.4, run, language, number)
        return {"good": good, "poor": seen("poor", 4.0, run, language, number), "inverse": -good, "flat": 1.0}

    folder = tmp_path / f"study-{seed}"
    runs = make_runs(count=count + 3, scores=scores, checked=lambda _: True, folder=f"runs-{seed}")
    export(runs, folder, Plan(items=count, per_language=True, raters=raters, seed=seed), text_of)
    where = {item["item"]: (item["language"], int(item["id"].removeprefix("test-"))) for item in key_of(folder)["items"]}
    files = []
    for number in range(1, raters + 1):
        rater = f"rater{number}"
        files.append(put(folder, fill(folder, rater, lambda item, run, rater=rater: 3 + seen(rater, 0.5, run, *where[item]))))
    write_json(import_answers(files, folder, draws=draws).data, tmp_path / f"study-{seed}.json")
    return runs, tmp_path / f"study-{seed}.json"


def true_tau() -> float:
    """The mean tau over very many items between the good metric and the mean places of three such raters."""
    r, taus = random.Random(99), []
    for _ in range(6000):
        latent = [r.gauss(0, 1) for _ in range(6)]
        metric = [value + r.gauss(0, 0.4) for value in latent]
        seen = [[value + r.gauss(0, 0.5) for value in latent] for _ in range(3)]
        places = [sum(1 + sum(other > one[i] for other in one) for one in seen) for i in range(6)]
        taus.append(kendall_tau(metric, [-place for place in places]) or 0.0)
    return sum(taus) / len(taus)


def test_simulated_studies_recover_the_true_tau_within_its_interval(make_runs: MakeRuns, tmp_path: Path) -> None:
    """From export over the raters' files and import to the figure: in at least 16 of 20 studies (of 95 in 100, chance 0.3 %)."""
    truth, held = true_tau(), 0
    for seed in range(20):
        runs, study = simulate(make_runs, tmp_path, seed=seed, count=12, draws=0)
        figure = hold_against(runs, study, ["good"], draws=300).comparison.figures["good"]["avg"]["tau"]
        held += figure.low <= truth <= figure.high
    assert held >= 16


def test_a_simulated_study_finds_the_good_metric(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs, study = simulate(make_runs, tmp_path)
    found = hold_against(runs, study, ["good", "poor", "inverse", "flat"], draws=500)
    assert found.comparison.best == "good"
    assert all(found.comparison.differences[name].p_holm < 0.05 for name in ("poor", "inverse", "flat"))
    figures = found.comparison.figures
    assert figures["inverse"]["avg"]["tau"].value == pytest.approx(-figures["good"]["avg"]["tau"].value)
    assert figures["flat"]["avg"]["tau"].value == 0
    assert found.items == {"en": 25, "zh": 25, "ja": 25}
    assert set(figures["good"]) == {"en", "zh", "ja", "avg"}


def test_the_order_in_which_runs_are_named_does_not_matter(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs, study = simulate(make_runs, tmp_path, raters=1)
    assert hold_against(runs[::-1], study, ["good"], draws=50) == hold_against(runs, study, ["good"], draws=50)


def test_without_names_all_metrics_are_compared_that_every_run_has(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs, study = simulate(make_runs, tmp_path, raters=1)
    assert set(hold_against(runs, study, draws=20).comparison.figures) == {"accuracy", "good", "poor", "inverse", "flat"}


def test_runs_and_metrics_that_do_not_fit_are_refused(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs, study = simulate(make_runs, tmp_path, raters=1)
    with pytest.raises(
        UsageError, match=r"has no bleu1 of the judged items; run: mmedeval rescore .*secretive-0 --metrics bleu1"
    ):
        hold_against(runs, study, ["good", "bleu1"])
    with pytest.raises(UsageError, match=r"the run of hf:secretive-model-5 \(then in .*\) is missing"):
        hold_against(runs[:5], study)
    with pytest.raises(UsageError, match="is not one of the runs of"):
        hold_against([*runs[:5], make_runs(folder="others")[0]], study)
    with pytest.raises(DataError, match=r"key\.json is not a file of the kind mmedeval-study"):
        hold_against(runs, tmp_path / "study-0" / KEY)
    with pytest.raises(DataError, match="does not exist; it is written by mmedeval human import"):
        hold_against(runs, tmp_path / "nowhere.json")
    data = json.loads(study.read_text(encoding="utf-8"))
    data["judgements"][3]["ratings"].pop()
    study.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(DataError, match=r"is damaged \(ValueError: q\d+ is not judged for every run\)"):
        hold_against(runs, study)


def test_a_run_whose_texts_have_changed_is_refused(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs, study = simulate(make_runs, tmp_path, raters=1)
    samples = runs[2] / "samples.jsonl"
    samples.write_text(samples.read_text(encoding="utf-8").replace("words 2", "other words 2"), encoding="utf-8")
    with pytest.raises(DataError, match="is not the one that people saw"):
        hold_against(runs, study)


def test_items_without_a_value_are_left_out_for_all_metrics_and_counted(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs, study = simulate(make_runs, tmp_path, raters=1)
    samples = runs[4] / "samples.jsonl"
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    judged = [(item["task"], item["id"]) for item in key_of(tmp_path / "study-0")["items"]][:4]
    for line in lines:
        if (line["task"], line["id"]) in judged:
            del line["scores"]["poor"]
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = hold_against(runs, study, ["good", "poor"], draws=20)
    assert found.left_out == {"poor": 4}
    assert sum(found.items.values()) == 71
    assert found.comparison.figures["good"]["avg"]["tau"].n == 71


def test_what_is_stored_says_the_same_in_json_and_csv(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs, study = simulate(make_runs, tmp_path, raters=1)
    found = hold_against(runs, study, ["good", "flat"], draws=50)
    write_agreement(found, tmp_path / "out")
    data = json.loads((tmp_path / "out" / "agree.json").read_text(encoding="utf-8"))
    rows = [*csv.DictReader(io.StringIO((tmp_path / "out" / "agree.csv").read_text(encoding="utf-8")))]
    assert len(rows) == 2 * 4 * 5
    for row in rows:
        figure = data["metrics"][row["metric"]]["figures"][row["language"]][row["statistic"]]
        for name in ("value", "low", "high", "n"):
            assert row[name] == ("" if figure[name] is None else str(figure[name]))
    assert data["metrics"]["good"]["behind_best"] is None
    assert data["metrics"]["flat"]["behind_best"]["value"] > 0


def test_the_plot_is_a_picture_that_does_not_change(make_runs: MakeRuns, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    runs, study = simulate(make_runs, tmp_path, raters=1)
    found = hold_against(runs, study, draws=50)
    pictures: list[Sequence[bytes]] = []
    for name in ("one", "two"):
        files = [tmp_path / f"{name}.png", tmp_path / f"{name}.svg"]
        assert plot(found, files)
        pictures.append([file.read_bytes() for file in files])
    assert pictures[0] == pictures[1]
    assert pictures[0][0].startswith(b"\x89PNG")
    assert all(word in pictures[0][1] for word in (b"<svg", b"good", b"inverse", b"Japanese", b"Kendall"))
