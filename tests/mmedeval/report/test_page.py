"""The page of a report in a real browser, opened from disk."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmedeval.report.html import make_page
from mmedeval.runs import StoredRun, read_runs
from mmedeval.testing import make_sample
from mmedeval.types import Failure, Generation

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("selenium") is None, reason="selenium is not installed"),
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="Chromium or its driver is not installed"),
]
Make = Callable[..., Path]
PATIENCE = 30.0
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><!-- {{DATA}} "
    "<a href=\"javascript:document.title='owned'\">x</a><svg onload=\"document.title='owned'\"></svg> &lt;b&gt; ' \" `"
)
ACTING = "\u202eright to left\u202c \u2066isolated\u2069 \x1b[31mred\x07 \u2028 \x00 \u200b end"
SHOWN = r"\u202eright to left\u202c \u2066isolated\u2069 \x1b[31mred\x07 \u2028 \x00 \u200b end"


class Page:
    """A browser with one report."""

    def __init__(self, profile: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service

        options = Options()
        options.binary_location = str(BROWSER)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.browser = webdriver.Chrome(options=options, service=Service(str(DRIVER)))

    def open(self, file: Path, link: str = "") -> Page:
        self.browser.get("about:blank")
        self.browser.get(file.as_uri() + link)
        self.wait(lambda: self.run("return document.documentElement.dataset.ready") == "yes")
        return self

    def wait(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def texts(self, selector: str) -> list[str]:
        return list(self.run("return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)", selector))

    def type(self, text: str) -> None:
        field = self.browser.find_element("id", "find")
        field.clear()
        field.send_keys(text)

    def choose(self, field: str, label: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.browser.find_element("id", field)).select_by_visible_text(label)

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def command(self, name: str, **arguments: Any) -> Any:
        return self.browser.execute_cdp_cmd(name, arguments)

    def complaints(self) -> list[str]:
        """What the browser blocked, and errors of the page's script."""
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("profile"))
    yield page
    page.browser.quit()


def write_page(runs: list[StoredRun], file: Path, **choices: Any) -> Path:
    file.write_text(make_page(runs, **choices), encoding="utf-8")
    return file


@pytest.fixture
def two(ask: Make, store: Make) -> list[StoredRun]:
    """A run that writes and one that scores, on other tasks; one answer of each kind in the first."""
    samples = {
        language: [make_sample(n, language=language, rationale=f"Because {n}.") for n in range(1, 5)] for language in ("en", "zh")
    }
    left = iter(["I think so.\nAnswer: A", "Answer: B", "no idea", None] * 2)

    def write(request: Any) -> Generation | Failure:
        text = next(left)
        if text is None:
            return Failure(request_id=request.id, kind="refused", message="it would not")
        return Generation(request_id=request.id, text=text)

    def other(request: Any) -> Generation:
        return Generation(request_id=request.id, text="血红素 Answer: A")

    return read_runs([ask("writer", samples, write=write), ask("other", {"en": samples["en"]}, write=other), store("scorer")])


def test_the_figures_of_the_page_are_those_of_the_records(page: Page, two: list[StoredRun], tmp_path: Path) -> None:
    page.open(write_page(two, tmp_path / "report.html"))
    tables = page.run(
        "return [...document.querySelectorAll('#accuracy table')].map((table) => [...table.rows].map((row) => "
        "[...row.cells].map((cell) => [...cell.childNodes].map((each) => each.textContent))))"
    )
    seen = 0
    for run in two:
        for metric, label in (("accuracy", "of the answers that were read"), ("accuracy_strict", "of all items")):
            for figure in (each for each in run.data["results"] if each["metric"] == metric):
                column = (
                    "average"
                    if figure["language"] == "avg"
                    else {"en": "English", "zh": "Chinese", "ja": "Japanese"}[figure["language"]]
                )
                cells = [
                    cell
                    for table, caption in zip(tables, page.texts("#accuracy caption"), strict=True)
                    if label in caption
                    for row in table[1:]
                    if row[0][-1] == run.name
                    for head, cell in zip(table[0], row, strict=True)
                    if head[0] == column
                ]
                if metric == "accuracy_strict" and not any(each["unread"] or each["failed"] for each in run.data["results"]):
                    continue
                value = "–" if figure["value"] is None else f"{100 * figure['value']:.1f}"
                interval = [] if figure["low"] is None else [f"{100 * figure['low']:.1f}–{100 * figure['high']:.1f}"]
                scored = (
                    [f"{figure['scored']} item{'s' * (figure['scored'] != 1)}"]
                    if figure["value"] is not None and figure["scored"] < figure["n"]
                    else []
                )
                assert [value, *interval, *scored] in cells, (run.name, metric, column)
                seen += 1
    assert seen == 10
    counts = page.run(
        "return [...document.querySelectorAll('#runs tbody tr')].map((row) => [...row.cells].map((each) => each.textContent))"
    )
    assert [row[3:6] for row in counts] == [[str(run.data["counts"][name]) for name in ("n", "unread", "failed")] for run in two]
    assert page.complaints() == []


def test_samples_are_found_by_words_language_run_and_answer(page: Page, two: list[StoredRun], tmp_path: Path) -> None:
    page.open(write_page(two, tmp_path / "report.html"))
    assert page.text("#count") == "88 of 88 questions"

    def found() -> list[str]:
        return page.texts("#list .id > span:first-child")

    page.type("血红素")
    assert found() == [f"static_en/test-{n}" for n in range(1, 5)]
    page.type('"I think so" HAEM')
    assert found() == ["static_en/test-1", "static_zh/test-1"]
    page.type("static_zh/test-2")
    assert found() == ["static_zh/test-2"]
    page.type(" ")
    page.choose("in", "static_zh")
    assert found() == [f"static_zh/test-{n}" for n in range(1, 5)]
    for answer, number in (("right", 1), ("wrong", 2), ("unread", 3), ("failed", 4)):
        page.choose("verdict", answer)
        assert found() == [f"static_zh/test-{number}"]
    page.choose("in", "all")
    page.choose("verdict", "the runs disagree")
    assert found() == ["static_en/test-2"]
    page.choose("verdict", "any")
    page.choose("run", "baseline:random")
    assert page.text("#count") == "80 of 88 questions"
    page.choose("verdict", "right")
    scorer = two[2].data["counts"]["right"]
    assert page.text("#count") == f"{scorer} of 88 questions"
    page.type("nothing has these words")
    assert (page.text("#count"), found()) == ("0 of 88 questions", [])
    assert page.complaints() == []


def test_a_sample_has_a_link_and_shows_prompt_outputs_and_reference(page: Page, two: list[StoredRun], tmp_path: Path) -> None:
    file = write_page(two, tmp_path / "report.html")
    for number, (word, said) in enumerate(
        [
            ("✓ right: A", "I think so.\nAnswer: A"),
            ("✗ wrong: B", "Answer: B"),
            ("? unread", "no idea"),
            ("! failed", "refused: it would not"),
        ],
        start=1,
    ):
        page.open(file, f"#static_zh/test-{number}")
        assert page.text("#detail h3") == f"static_zh/test-{number}"
        cards = page.texts("#detail .side")
        assert cards[0].startswith("Question · Chinese")
        assert f"Which metal is at the centre of haem? ({number})" in cards[0]
        assert "A. iron  ✓ right" in cards[0]
        assert cards[1] == f"ReferenceBecause {number}."
        assert cards[2].startswith(f"{two[0].name}{word}")
        assert said in cards[2]
        assert cards[3:] == [f"{run.name}– not askedThis run was not asked this question." for run in two[1:]]
        prompt = next(result.prompt for result in two[0].results if result.key == ("static_zh", f"test-{number}"))
        assert page.text("#detail details .said") == prompt
        assert page.run("return document.querySelector('#detail .said').lang") == "zh"


def test_the_keyboard_is_enough(page: Page, two: list[StoredRun], tmp_path: Path) -> None:
    page.open(write_page(two, tmp_path / "report.html"))
    page.press("j", "j")
    assert page.text("#detail h3") == "static_en/test-3"
    assert page.run("return [location.hash, document.activeElement.tagName]") == ["#static_en/test-3", "H3"]
    page.press("k")
    assert page.text("#detail h3") == "static_en/test-2"
    page.press("/")
    page.press("jjj")
    assert page.run("return document.activeElement.value") == "jjj"
    page.press("\ue00c")  # Escape
    page.type("haem? (3)")
    page.press("\ue00c")
    assert page.run("return [document.getElementById('find').value, document.activeElement.tagName]") == ["haem? (3)", "BODY"]
    assert page.text("#count") == "2 of 88 questions"
    page.press("j")
    assert page.text("#detail h3") == "static_en/test-3"
    page.type(" ")
    page.run("document.querySelector('#list a').focus()")
    page.press("\ue007")  # Enter
    page.wait(lambda: page.text("#detail h3") == "static_en/test-1")
    assert page.run("return document.querySelector('#list a[aria-current]').dataset.place") == "0"


def test_words_are_found_whatever_their_accents_and_letters(page: Page, ask: Make, tmp_path: Path) -> None:
    questions = ["La fi\u00e8vre aigu\u00eb", "LA FIE\u0300VRE", "\uff34\uff33\uff28 \uff15\u338e が高い", "Ещё ЁЖ", "か"]
    samples = [make_sample(n, question=each) for n, each in enumerate(questions, start=1)]
    run = ask("a", {"en": samples}, write=lambda request: Generation(request_id=request.id, text="Answer: A"))
    page.open(write_page(read_runs([run]), tmp_path / "report.html"))
    for words, expected in (
        ("fievre", [1, 2]),
        ("FIÈVRE", [1, 2]),
        ("fie\u0300vre aigue", [1]),
        ("“la fièvre” aiguë", [1]),
        ("“fièvre la”", []),
        ('"tsh 5', [3]),
        ("5mg", [3]),
        ("が高い", [3]),
        ("ガ", []),
        ("か", [5]),
        ("еще еж", [4]),
    ):
        page.type(words)
        assert page.texts("#list .id > span:first-child") == [f"static_en/test-{n}" for n in expected], words
    assert page.complaints() == []


def test_the_runs_disagree_where_answers_that_were_read_differ(page: Page, ask: Make, tmp_path: Path) -> None:
    def answering(answers: str) -> Callable[[Any], Generation]:
        left = iter(answers)
        return lambda request: Generation(request_id=request.id, text=f"Answer: {next(left)}")

    samples = {"en": [make_sample(n) for n in range(1, 6)]}
    given = (("a", "AAA?A"), ("b", "ABABB"), ("c", "BBA?B"), ("d", "BBABB"))
    runs = read_runs([ask(name, samples, write=answering(answers)) for name, answers in given])
    page.open(write_page(runs, tmp_path / "report.html"))
    page.choose("verdict", "the runs disagree")
    for run in ("any", *(run.name for run in runs)):
        page.choose("run", run)
        assert page.texts("#list .id > span:first-child") == [f"static_en/test-{n}" for n in (1, 2, 5)]
    assert page.complaints() == []


def test_a_run_disagrees_only_where_it_was_read(page: Page, two: list[StoredRun], tmp_path: Path) -> None:
    page.open(write_page(two, tmp_path / "report.html"))
    page.choose("verdict", "the runs disagree")
    for run, expected in ((two[0].name, ["static_en/test-2"]), (two[1].name, ["static_en/test-2"]), (two[2].name, [])):
        page.choose("run", run)
        assert page.texts("#list .id > span:first-child") == expected


def test_a_link_leads_to_its_sample_in_the_list_too(page: Page, ask: Make, tmp_path: Path) -> None:
    samples = {"en": [make_sample(n) for n in range(1, 200)]}
    run = ask("a", samples, write=lambda request: Generation(request_id=request.id, text="Answer: A"))
    page.open(write_page(read_runs([run]), tmp_path / "report.html"), "#static_en/test-130")

    def listed() -> tuple[str, str, int]:
        rows = page.texts("#list .id > span:first-child")
        return rows[0], rows[-1], len(rows)

    assert page.texts("#list a[aria-current] .id > span:first-child") == ["static_en/test-130"]
    assert listed() == ("static_en/test-121", "static_en/test-180", 60)
    page.run("document.querySelector('#earlier').click(); document.querySelector('#more').click()")
    assert listed() == ("static_en/test-61", "static_en/test-199", 139)
    assert page.run("return ['earlier', 'more'].map((id) => document.getElementById(id).hidden)") == [False, True]
    page.open(tmp_path / "report.html", "#static_en/test-180")
    page.press("j")
    assert page.texts("#list a[aria-current] .id > span:first-child") == ["static_en/test-181"]
    assert listed() == ("static_en/test-121", "static_en/test-199", 79)
    page.type("static_en/test-19")
    assert listed() == ("static_en/test-19", "static_en/test-199", 11)


def test_buttons_follow_what_was_found(page: Page, two: list[StoredRun], tmp_path: Path) -> None:
    page.open(write_page(two, tmp_path / "report.html"), "#static_en/test-4")

    def disabled() -> list[bool]:
        return list(page.run("return [...document.querySelectorAll('#detail .head button')].map((each) => each.disabled)"))

    assert disabled() == [False, False]
    page.type("static_en/test-4")
    assert disabled() == [True, True]
    page.type("static_en")
    assert disabled() == [False, True]


def test_a_run_that_wrote_nothing_has_no_text_to_wait_for(page: Page, store: Make, tmp_path: Path) -> None:
    page.open(write_page(read_runs([store("a", limit=2)]), tmp_path / "report.html"))
    assert page.texts("#detail .side")[1] == f"baseline:random{page.text('#detail .verdict')}"


def test_prompts_stay_open_from_sample_to_sample(page: Page, two: list[StoredRun], tmp_path: Path) -> None:
    page.open(write_page(two, tmp_path / "report.html"), "#static_zh/test-1")
    for opened in (True, False):
        page.browser.find_element("css selector", "#detail summary").click()
        page.press("j")
        page.wait(lambda opened=opened: page.run("return document.querySelector('#detail details').open") == opened)


def test_on_a_phone_a_link_leads_to_the_text_of_the_sample(page: Page, two: list[StoredRun], tmp_path: Path) -> None:
    page.command("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    page.open(write_page(two, tmp_path / "report.html"), "#static_zh/test-1")
    page.wait(lambda: 0 <= page.run("return document.querySelector('#detail h3').getBoundingClientRect().top") < 200)
    page.command("Emulation.clearDeviceMetricsOverride")


def test_names_of_any_kind_have_links(page: Page, ask: Make, tmp_path: Path) -> None:
    names = ["\ud800", "% # ? ü", "constructor", "a~2", "a"]
    samples = [dataclasses.replace(make_sample(n), id=name) for n, name in enumerate(names)]
    others = [dataclasses.replace(samples[-1], question="another")]
    runs = [
        ask(name, {"en": each}, write=lambda request: Generation(request_id=request.id, text="Answer: A"))
        for name, each in (("one", samples), ("two", others))
    ]
    page.open(write_page(read_runs(runs), tmp_path / "report.html"))
    shown = page.texts("#list .id > span:first-child")
    assert shown == [f"static_en/{name}" for name in (r"\ud800", *names[1:], "a~3")]
    for number, name in enumerate(shown):
        page.run("document.querySelectorAll('#list a')[arguments[0]].click()", number)
        page.wait(lambda name=name: page.text("#detail h3") == name)
        link = page.run("return location.hash")
        page.open(tmp_path / "report.html", link)
        assert page.text("#detail h3") == name
    assert page.complaints() == []


def hostile_runs(ask: Make) -> list[StoredRun]:
    samples = [
        make_sample(n, question=text, rationale=text, options=(text, "zinc"), meta={"topic": f"{text} {n}"})
        for n, text in enumerate([HOSTILE, ACTING, "half \ud800 a pair"], start=1)
    ]
    left = iter([HOSTILE + "\nAnswer: A", ACTING, "half \ud800 a pair", HOSTILE, None, ""])

    def write(request: Any) -> Generation | Failure:
        text = next(left)
        if text is None:
            return Failure(request_id=request.id, kind="backend", message=HOSTILE + ACTING)
        return Generation(request_id=request.id, text=text)

    names = [f"{HOSTILE}{ACTING}".replace("/", "∕"), "b"]
    paths = [ask(name, {"ja": samples}, write=write) for name in names]
    record = json.loads((paths[0] / "record.json").read_text(encoding="utf-8"))
    record |= {
        "warnings": [HOSTILE, ACTING],
        "finished": HOSTILE,
        "environment": {"packages": {HOSTILE: ACTING}, "git_commit": HOSTILE},
    }
    record["protocol"]["why"] = HOSTILE
    record["counts"]["failures"] = {HOSTILE: 1}
    (paths[0] / "record.json").write_text(json.dumps(record), encoding="utf-8")
    return read_runs(paths)


def test_hostile_text_is_shown_and_does_not_run(page: Page, ask: Make, tmp_path: Path) -> None:
    runs = hostile_runs(ask)
    page.open(write_page(runs, tmp_path / "report.html"), "#static_ja/test-1")
    page.run("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.browser.title == "Evaluation of 2 runs"
    counts = [
        f"document.querySelectorAll('{what}').length"
        for what in ("img", "script:not([type])", "[onload], [onerror]", "svg svg, p svg")
    ]
    assert page.run(f"return [{', '.join(counts)}]") == [0, 1, 0, 0]
    assert page.run("return [...document.links].filter((each) => !each.getAttribute('href').startsWith('#')).length") == 0
    assert page.text("#detail .said").startswith(HOSTILE)
    assert page.texts("#detail .side")[2].endswith(f"{HOSTILE}\nAnswer: A")
    whole = page.text("body")
    assert whole.count(HOSTILE) > 12
    # Nothing turns the writing around or acts in any other way, wherever it stands.
    page.open(tmp_path / "report.html", "#static_ja/test-2")
    assert page.text("#detail .said") == f"{SHOWN} (2)"
    assert SHOWN in page.texts("#detail .side")[2]
    whole = page.run("return document.body.innerText + document.title")
    assert re.search(r"[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f\u200b\u2028]", whole) is None
    page.open(tmp_path / "report.html", "#static_ja/test-3")
    assert page.text("#detail .said") == r"half \ud800 a pair (3)"
    page.type("onerror")
    assert page.text("#count") == "2 of 3 questions"
    assert page.complaints() == []


def test_letters_of_any_kind_do_not_act_and_are_not_cut_off(page: Page, ask: Make, tmp_path: Path) -> None:
    run = ask("a", {"en": [make_sample(1)]}, write=lambda request: Generation(request_id=request.id, text="Answer: A"))
    (line,) = (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    letter = f"\u202e<b>{'x' * 300}"
    changed = {"options": {letter: "iron", "B": "zinc"}, "prediction": [letter], "logprobs": {letter: -1.0}}
    (run / "samples.jsonl").write_text(json.dumps({**json.loads(line), **changed}) + "\n", encoding="utf-8")
    page.command("Emulation.setDeviceMetricsOverride", width=360, height=900, deviceScaleFactor=1, mobile=False)
    page.open(write_page(read_runs([run]), tmp_path / "report.html"))
    shown = letter.replace("\u202e", r"\u202e")
    assert page.text("#detail .verdict") == f"✗ wrong: {shown}"
    assert "\u202e" not in page.run("return document.body.innerText")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    page.command("Emulation.clearDeviceMetricsOverride")


def test_the_page_may_neither_ask_a_network_nor_run_other_code(page: Page, store: Make, tmp_path: Path) -> None:
    page.open(write_page(read_runs([store("a", limit=2)]), tmp_path / "report.html"))
    page.run(
        "const s = document.createElement('script'); s.textContent = \"document.title = 'owned'\"; document.body.append(s);"
        "const i = new Image(); i.src = 'http://localhost:9/x.png'; document.body.append(i);"
        "document.body.insertAdjacentHTML('beforeend', '<p onclick=\"document.title = 1\" style=\"color: red\">x</p>');"
        "document.body.lastElementChild.click();"
    )
    seen: list[str] = []

    def blocked() -> bool:
        seen.extend(page.complaints())
        return sum("Content Security Policy" in text for text in seen) >= 4

    page.wait(blocked)
    assert page.browser.title == "Evaluation of baseline:random"


@pytest.mark.parametrize(("part", "rows"), [(0, 0), (2, 4)])
def test_damaged_data_are_told_of_and_the_rest_stays(page: Page, store: Make, tmp_path: Path, part: int, rows: int) -> None:
    file = write_page(read_runs([store("a", limit=2)]), tmp_path / "report.html")
    text = file.read_text(encoding="utf-8")
    start = text.index(mark := f'id="part-{part}">') + len(mark)
    file.write_text(text[:start] + "00000" + text[start + 5 :], encoding="utf-8")
    page.browser.get(file.as_uri())
    page.wait(lambda: "cannot be read" in page.text("#count"))
    assert "make it again with mmedeval report" in page.text("#count")
    assert len(page.texts("#accuracy tbody tr")) > 0
    # What the run wrote is the last part: questions and verdicts can be looked at without.
    assert len(page.texts("#list li")) == rows
    page.complaints()


def test_colours_follow_the_system_until_they_are_chosen(page: Page, store: Make, tmp_path: Path) -> None:
    file = write_page(read_runs([store("a", limit=2)]), tmp_path / "report.html")

    def colours() -> tuple[str, str]:
        drawn = "document.querySelector('#accuracy .chart text')"
        return tuple(page.run(f"return [getComputedStyle(document.body).backgroundColor, getComputedStyle({drawn}).fill]"))

    seen = {}
    for scheme in ("light", "dark"):
        page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        seen[scheme] = colours() if page.open(file) else None
    assert seen["light"] != seen["dark"]
    for label, scheme in (("Theme: light", "light"), ("Theme: dark", "dark"), ("Theme: system", "dark")):
        page.browser.find_element("id", "theme").click()
        assert (page.text("#theme"), colours()) == (label, seen[scheme])
    page.command("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_nothing_is_cut_off_at_any_width(page: Page, two: list[StoredRun], tmp_path: Path, width: int) -> None:
    page.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    page.open(write_page(two, tmp_path / "report.html"), "#static_zh/test-1")
    page.run("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    page.command("Emulation.clearDeviceMetricsOverride")


def test_all_but_the_records_is_there_on_paper(page: Page, two: list[StoredRun], tmp_path: Path) -> None:
    page.open(write_page(two, tmp_path / "report.html"))
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("return [...document.querySelectorAll('details:not([open])')].map((each) => each.className)") == ["raw"] * 3
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("return document.querySelectorAll('#reproduce details[open]').length") == 0


def axe() -> Path | None:
    """The script of axe-core, where npm has put it: in the project, for all users, or where AXE_CORE says."""
    places = [Path(os.environ["AXE_CORE"])] if "AXE_CORE" in os.environ else []
    places.append(Path(__file__).parents[3] / "node_modules" / "axe-core")
    if npm := shutil.which("npm"):
        found = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, timeout=60)
        places += [Path(found.stdout.strip()) / "axe-core"] if found.returncode == 0 else []
    return next((place / "axe.min.js" for place in places if (place / "axe.min.js").exists()), None)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page: Page, two: list[StoredRun], ask: Make, tmp_path: Path, scheme: str) -> None:
    script = axe()
    if script is None:
        pytest.skip("axe-core is not installed; npm install --global axe-core brings it")
    page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    for runs in (two, hostile_runs(ask)) if scheme == "light" else (two,):
        page.open(write_page(runs, tmp_path / "report.html"))
        page.run("for (const each of document.querySelectorAll('details')) each.open = true")
        page.command("Runtime.evaluate", expression=script.read_text(encoding="utf-8"))
        found = page.browser.execute_async_script("axe.run().then(arguments[0], (error) => arguments[0](String(error)))")
        faults = [
            (each["id"], each["nodes"][0]["html"]) for each in found["violations"] if each["impact"] in ("serious", "critical")
        ]
        assert faults == []
        assert len(found["passes"]) > 20
    page.command("Emulation.setEmulatedMedia", features=[])
    page.complaints()
