"""The rating page in a real browser, opened from disk: rate, reload, export, import."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmedeval.study import KEY, Plan, export, import_answers

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("selenium") is None, reason="selenium is not installed"),
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="Chromium or its driver is not installed"),
]
MakeRuns = Callable[..., list[Path]]
PATIENCE = 20.0
TEXTS = {"en": "Haem holds iron. ", "zh": "血红素的中心是铁，这一点很清楚。", "ja": "ヘムの中心には鉄がある。"}
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><!-- {{DATA}}"


class Page:
    """A browser with one rating page."""

    def __init__(self, downloads: Path, profile: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service

        options = Options()
        options.binary_location = str(BROWSER)
        for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1300,1000"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.downloads = downloads
        self._complaints: list[str] = []
        self.browser = webdriver.Chrome(options=options, service=Service(str(DRIVER)))

    def open(self, file: Path) -> Page:
        self.browser.get(file.as_uri())
        return self

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def click(self, selector: str) -> None:
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.find(selector))
        self.find(selector).click()

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def shift(self, number: int) -> None:
        """Shift with a digit of the keyboard, as the browser reports it."""
        code = {"code": f"Digit{number}", "windowsVirtualKeyCode": 48 + number, "modifiers": 8, "key": "!"}
        for kind in ("rawKeyDown", "keyUp"):
            self.browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, **code})

    def answer(self, opinion: Callable[[str], tuple[int, int]]) -> None:
        """Rates and ranks the texts of the question that is shown, with the mouse."""
        for card in self.all("#texts .card"):
            candidate = card.get_attribute("data-candidate")
            rating, place = opinion(candidate)
            for name, value in (("rating", rating), ("place", place)):
                self.click(f"label:has(input[name='{name}-{candidate}'][value='{value}'])")

    def chosen(self) -> dict[str, str]:
        return {each.get_attribute("name"): each.get_attribute("value") for each in self.all("#texts input:checked")}

    def text(self, selector: str) -> str:
        return str(self.find(selector).text)

    def exported(self, name: str) -> Path:
        """The file that a click on Export leaves in the folder of downloads."""
        file, end = self.downloads / name, time.monotonic() + PATIENCE
        file.unlink(missing_ok=True)
        self.click("#export")
        while not file.exists() or not file.stat().st_size:
            assert time.monotonic() < end, "nothing was downloaded"
            time.sleep(0.05)
        return file

    def complaints(self) -> list[str]:
        """What the browser blocked, and errors of the page's script, up to now."""
        self._complaints += [entry["message"] for entry in self.browser.get_log("browser")]
        return self._complaints


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    (tmp_path / "downloads").mkdir()
    page = Page(tmp_path / "downloads", tmp_path / "profile")
    yield page
    page.browser.quit()


@pytest.fixture
def study(make_runs: MakeRuns, tmp_path: Path) -> Path:
    runs = make_runs(text=lambda model, language, number: TEXTS[language] * (1 + 20 * model) + str(number))
    export(runs, tmp_path / "study", Plan(items=1, per_language=True, raters=2), lambda output: output.split("\n")[0][15:])
    return tmp_path / "study"


def test_what_was_rated_is_there_after_a_reload_and_is_exported_for_import(page: Page, study: Path) -> None:
    key = json.loads((study / KEY).read_text(encoding="utf-8"))
    runs = {item["item"]: item["candidates"] for item in key["items"]}
    order = [item for item, _ in key["sheets"]["rater1"]]
    page.open(study / "rater1.html")
    assert page.text("#count") == "0 of 3 done"
    assert page.text("#saved") == "saved in this browser"
    for number, item in enumerate(order[:2]):
        page.answer(lambda candidate, item=item: (max(1, 5 - runs[item][candidate]), runs[item][candidate] + 1))
        assert page.text("#count") == f"{number + 1} of 3 done"
        assert page.text("#order").startswith("Complete. Order: ")
        page.click("#next")
    page.click("#texts .card label:has(input[value='2'])")
    before = page.chosen()
    assert len(before) == 1

    page.browser.refresh()
    assert page.text("#count") == "2 of 3 done"
    assert page.text("#where").startswith("Question 3 of 3")
    assert page.chosen() == before
    page.click("#previous")
    assert len(page.chosen()) == 12

    file = page.exported("rater1.json")
    assert "1 of 3 questions are not complete yet, 1 of them begun" in page.text("#notice")
    found = import_answers([file], study, draws=20)
    assert [row["answered"] for row in found.data["raters"]] == [2, 0]
    for each in found.data["judgements"]:
        assert each["places"] == [1, 2, 3, 4, 5, 6]
        assert each["ratings"] == [5, 4, 3, 2, 1, 1]
    assert page.complaints() == []


def test_the_keyboard_is_enough(page: Page, study: Path) -> None:
    page.open(study / "rater2.html")
    for number in range(1, 7):
        page.press(*("j" if number > 1 else ""), str(min(number, 5)))
        page.shift(number)
    assert page.text("#order") == "Complete. Order: 1 > 2 > 3 > 4 > 5 > 6"
    page.press("k")
    page.shift(1)  # text 5 takes the place of text 1, which gets its place
    assert page.text("#order") == "Complete. Order: 5 > 2 > 3 > 4 > 1 > 6"
    page.press("r")
    assert page.find("#reference").get_attribute("open")
    page.press("n")
    assert page.text("#where").startswith("Question 2 of 3")
    page.press("u", "u")
    assert page.text("#where").startswith("Question 2 of 3")
    page.press("p")
    assert page.text("#count") == "1 of 3 done"


def test_exported_answers_can_be_loaded_elsewhere_and_those_of_others_cannot(page: Page, study: Path) -> None:
    page.open(study / "rater1.html")
    page.answer(lambda candidate: (3, "abcdef".index(candidate) + 1))
    page.click("#next")
    page.click("#texts .card label:has(input[value='4'])")
    file = page.exported("rater1.json")
    page.browser.execute_script("localStorage.clear()")
    page.browser.refresh()
    assert page.text("#count") == "0 of 3 done"
    page.find("#load").send_keys(str(file))
    wait(lambda: "2 answered questions were loaded" in page.text("#notice"))
    assert page.text("#count") == "1 of 3 done"
    page.open(study / "rater2.html").find("#load").send_keys(str(file))
    wait(lambda: "Nothing was changed" in page.text("#notice"))
    assert page.text("#count") == "0 of 3 done"


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_browser_that_keeps_nothing_is_told_of(page: Page, study: Path) -> None:
    refuse = "Storage.prototype.setItem = Storage.prototype.getItem = () => { throw new Error('no'); }"
    page.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": refuse})
    page.open(study / "rater1.html")
    assert "does not keep answers" in page.text("#notice")
    assert page.text("#saved") == "not saved: export"
    page.answer(lambda candidate: (3, "abcdef".index(candidate) + 1))
    assert len(json.loads(page.exported("rater1.json").read_text(encoding="utf-8"))["answers"]) == 1


def test_hostile_text_is_shown_and_does_not_run(page: Page, make_runs: MakeRuns, tmp_path: Path) -> None:
    runs = make_runs(count=2, text=lambda *_: HOSTILE, question=HOSTILE, reference=HOSTILE, options=(HOSTILE, HOSTILE))
    export(runs, tmp_path / "hostile", Plan(raters=1), lambda output: HOSTILE)
    page.open(tmp_path / "hostile" / "rater1.html")
    page.press("r")
    assert page.browser.title == "Rating sheet rater1"
    assert page.all("img") == []
    assert len(page.all("script")) == 2
    for selector in ("#question", "#options li", "#texts .text", "#reference-text"):
        assert HOSTILE in page.text(selector)
    assert page.complaints() == []


def test_the_page_may_neither_ask_a_network_nor_run_other_code(page: Page, study: Path) -> None:
    page.open(study / "rater1.html")
    page.browser.execute_script(
        "const s = document.createElement('script'); s.textContent = \"document.title = 'owned'\"; document.body.append(s);"
        "const i = new Image(); i.src = 'http://localhost:9/x.png'; document.body.append(i);"
    )
    wait(lambda: sum("Content Security Policy" in text for text in page.complaints()) >= 2)
    assert page.browser.title == "Rating sheet rater1"


@pytest.mark.parametrize("width", [360, 700, 1600])
def test_nothing_is_cut_off_at_any_width(page: Page, study: Path, width: int) -> None:
    page.browser.set_window_size(max(width, 500), 900)
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    page.open(study / "rater1.html")
    for _ in range(3):
        assert page.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        page.press("n")
