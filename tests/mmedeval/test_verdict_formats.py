"""Verdicts for machines and for pages, also where names and questions are hostile."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import pytest
from markdown_it import MarkdownIt

from mmedeval.compare import Comparison, Difference, Item, MetricRow, Row
from mmedeval.gate import DropCheck, MinimumCheck, Rules, Verdict
from mmedeval.trend import Point, Series, Trend
from mmedeval.verdict_formats import comparison_markdown, github_annotations, junit, trend_markdown, verdict_markdown

HOSTILE = 'a|b\n::error::x%0A<img src=x onerror=alert(1)>`c`**d**[e](http://f)\x00\x1b[31m\ud800\ufffe\u202e"&@user'


def drop(name: str = "exam_en", answer: str | None = "fails", language: str = "en") -> DropCheck:
    return DropCheck(
        task=name,
        language=language,
        group="exam",
        answer=answer,  # type: ignore[arg-type]
        n=100,
        base=0.6,
        new=0.5,
        drop=0.1,
        at_most=0.15,
        p=0.001,
        without_failed=None,
        unread=(0, 0),
        failed=(0, 0),
    )


def verdict(*drops: DropCheck, minimums: tuple[MinimumCheck, ...] = (), name: str = "new") -> Verdict:
    return Verdict(
        answer="fails",
        sentence=f"{name} does not hold: 100 % of it",
        base="base",
        run=name,
        rules=Rules(),
        drops=drops or (drop(),),
        minimums=minimums,
    )


LEAST = MinimumCheck(
    metric="accuracy", task="exam", language="avg", group="exam", answer="fails", value=0.5, low=0.4, high=0.6, least=0.6, scale=1
)
ALL = (
    drop(),
    drop("exam_ja", "cannot tell", "ja"),
    drop("exam_zh", "holds", "zh"),
    drop("exam_fr", None, "fr"),
    drop("exam", "fails", "avg"),
)


# --- JUnit ---


def test_junit_has_a_case_for_each_task_and_language() -> None:
    root = ElementTree.fromstring(junit(verdict(*ALL, minimums=(LEAST,))))
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert [*cases] == [
        "exam_en [en] drop",
        "exam_ja [ja] drop",
        "exam_zh [zh] drop",
        "exam_fr [fr] drop",
        "exam [avg] drop",
        "exam [avg] accuracy at least 0.6",
    ]
    kinds = [[child.tag for child in case if child.tag != "system-out"] for case in cases.values()]
    assert kinds == [["failure"], ["error"], [], ["skipped"], ["failure"], ["failure"]]
    suite = root.find("testsuite")
    assert suite is not None
    for element in (root, suite):
        assert {name: element.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
            "tests": "6",
            "failures": "3",
            "errors": "1",
            "skipped": "1",
        }


def test_junit_is_xml_whatever_names_hold() -> None:
    text = junit(verdict(drop(HOSTILE), name=HOSTILE))
    text.encode("utf-8")
    root = ElementTree.fromstring(text)
    (case,) = root.iter("testcase")
    assert "<img src=x onerror=alert(1)>" in str(case.get("name"))
    assert [child.tag for child in case] == ["failure", "system-out"]
    assert not re.search("[\x00-\x08\x0b-\x1f\ufffe\u202e]", text)


# --- GitHub ---


def test_github_gets_an_error_for_what_fails_and_a_warning_for_what_nobody_can_tell() -> None:
    lines = github_annotations(verdict(*ALL, minimums=(LEAST,)))
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::error", "::error"]
    assert lines[0].startswith("::error title=exam_en 60.0 to 50.0::exam_en fell by 10 points")
    assert lines[-1] == "::error title=accuracy of exam::accuracy of exam is 50.0, less than 60"


def test_github_gets_one_notice_where_all_holds() -> None:
    (line,) = github_annotations(verdict(drop(answer="holds")))
    assert line == "::notice title=mmedeval gate::new does not hold: 100 %25 of it"


def unescaped(text: str) -> str:
    """As the runner of GitHub reads it."""
    for code, char in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(code, char)
    return text


def test_an_annotation_is_one_line_and_one_command_whatever_names_hold() -> None:
    for line in github_annotations(verdict(drop(HOSTILE))):
        assert "\n" not in line
        assert "\r" not in line
        command, title, message = re.fullmatch(r"::(\w+) title=([^:,]*)::(.*)", line).groups()  # type: ignore[union-attr]
        assert command == "error"
        assert unescaped(title).startswith("a|b\n::error::x%0A<img")
        assert unescaped(message).startswith("a|b\n::error::x%0A<img")


# --- Markdown ---


def difference(**fields: object) -> Difference:
    return Difference(
        **{  # type: ignore[arg-type]
            "n": 100,
            "base": 0.6,
            "new": 0.5,
            "value": -0.1,
            "low": -0.2,
            "high": -0.01,
            "gained": 5,
            "lost": 15,
            "p": 0.04,
            "p_holm": 0.04,
            "effect": -0.25,
            "smallest_drop": 0.12,
            **fields,
        }
    )


def comparison(name: str = "new", question: str = "What?") -> Comparison:
    row = Row(
        task="exam_en",
        language="en",
        group="exam",
        all=difference(),
        read=difference(n=90),
        unread=(0, 10),
        failed=(0, 0),
        read_alone=(10, 0),
    )
    metric = MetricRow(metric=name, task="exam_en", language="en", n=5, base=1, new=2, value=1, low=None, high=None, scale=100)
    item = Item(task="exam_en", id="test-1", language="en", change="lost", base="A", new="B", answer="A", question=question)
    return Comparison(base="base", new=name, forced=(name,), notes=(name,), rows=(row,), metrics=(metric,), items=(item,))


def trend(name: str = "step-1") -> Trend:
    points = [
        Point(
            name=name,
            step=step,
            value=0.5,
            low=0.4,
            high=0.6,
            by_task={"t": 0.5},
            unread=0,
            failed=0,
            best_before=None,
            drop=None,
            p=None,
        )
        for step in (None, None)
    ]
    return Trend(
        order="given", pairs=1, series=(Series(title=name, languages={"t": "en"}, points=tuple(points), best=0, first_drop=None),)
    )


def tokens(text: str) -> list[str]:
    found = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    return [each.type for token in found for each in (token, *(token.children or ()))]


@pytest.mark.parametrize(
    "text",
    [
        verdict_markdown(verdict(drop(HOSTILE), name=HOSTILE)),
        comparison_markdown(comparison(HOSTILE, HOSTILE), items=True),
        trend_markdown(trend(HOSTILE)),
    ],
)
def test_markdown_shows_hostile_texts_as_they_are(text: str) -> None:
    kinds = tokens(text)
    for kind in ("image", "link_open", "code_inline", "html_block", "fence", "code_block"):
        assert kind not in kinds
    # The one comment that keeps GitHub from calling somebody.
    assert "<img" not in re.sub(r"\\<", "", text)
    assert "@user" not in text
    text.encode("utf-8")


def widths(text: str) -> list[set[int]]:
    """How many cells the rows of each table have."""
    found: list[set[int]] = []
    cells = 0
    for kind in tokens(text):
        if kind == "table_open":
            found.append(set())
        elif kind == "tr_open":
            cells = 0
        elif kind in ("td_open", "th_open"):
            cells += 1
        elif kind == "tr_close":
            found[-1].add(cells)
    return found


def test_tables_of_markdown_are_tables_with_all_their_cells() -> None:
    assert widths(comparison_markdown(comparison(), items=True)) == [{8}, {8}, {7}, {7}, {6}]
    assert widths(verdict_markdown(verdict(*ALL, minimums=(LEAST,)))) == [{8}, {6}]
    assert widths(trend_markdown(trend())) == [{6}]


def test_markdown_says_that_a_comparison_was_forced() -> None:
    assert "**Not comparable, and forced:** protocol is letter and chat" in comparison_markdown(
        dataclasses.replace(comparison(), forced=("protocol is letter and chat",))
    )


def test_markdown_shows_figures_without_escapes() -> None:
    text = verdict_markdown(verdict(*ALL))
    assert "| English | 100 | 60.0 | 50.0 | +10.0 | +15.0 | 0.0010 | fails |" in text
    assert "| **average** | **100** |" in text
