"""Hostile text is made harmless before it is printed, and honest text is left alone."""

from __future__ import annotations

import html
import json
import sys
import unicodedata

import pytest
from markdown_it import MarkdownIt

from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.specs import TaskOptions
from mmedeval.text import csv_cell, markdown, printable, to_json

# What terminals act upon, from the standards and not from the code: ECMA-48 controls, UAX 9 overrides and marks, line separators,
# byte order mark, tag characters, soft hyphen, surrogates, private use.
ACTING = [
    *map(chr, [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)]),
    *"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    *"\u2028\u2029\ufeff\u00ad\u200b\u2060\ue000\U000f0000\U000e0041\ud800\udfff\uffff",
]
# Categories of letters, combining marks, numbers, punctuation, symbols and the space.
SEEN = {
    "Zs",
    *(
        major + minor
        for major, minors in {"L": "ultmo", "M": "nce", "N": "dlo", "P": "cdseifo", "S": "mcko"}.items()
        for minor in minors
    ),
}


def test_a_character_that_acts_on_the_screen_is_written_as_its_escape() -> None:
    for char in ACTING:
        text = f"before{char}after"
        assert printable(text) == ascii(text)[1:-1], f"U+{ord(char):04X}"
    assert printable("one\ttwo\nthree") == "one\ttwo\nthree"


def test_json_says_the_same_and_holds_nothing_that_acts_on_the_screen() -> None:
    for char in ACTING:
        value = {"output": f"before{char}after\n\t中文 ¿👩\u200d⚕"}
        text = to_json(value, indent=2)
        assert char not in text, f"U+{ord(char):04X}"
        assert json.loads(text) == json.loads(to_json(value, ascii_only=True)) == value
        assert "中文 ¿👩\u200d⚕" in text


def test_nothing_in_all_of_unicode_gets_through_that_is_not_a_mark_to_be_seen() -> None:
    everything = printable("".join(map(chr, range(sys.maxunicode + 1))))
    assert {unicodedata.category(char) for char in {*everything} - {*"\n\t\u200c\u200d"}} <= SEEN
    assert everything.encode("utf-8").decode("utf-8") == everything


def test_making_text_printable_twice_changes_nothing_more() -> None:
    once = printable("\x1b[31m\u202etxt\ud800\r\n\t中文 ﷺ")
    assert printable(once) == once


def test_the_questions_of_six_languages_are_left_as_they_are() -> None:
    catalog = Catalog(make_host())
    texts = [
        text
        for spec in catalog.select_tasks(["mmedbench_mini"])
        for sample in spec.load(TaskOptions()).samples("test")
        for text in (sample.question, sample.rationale, *sample.options.values())
    ]
    assert len(texts) > 1000
    assert [text for text in texts if printable(text) != text] == []


HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[click](javascript:alert(1))",
    "![x](http://127.0.0.1/x.png)",
    "`code` ``more``", "*strong* _em_ ~~gone~~", "# heading", "- item", "+ item", "1. item", "123456789) item", "> quote",
    "a | b | c",
    "| - |", "---", "===", "&lt;b&gt; &#60;", "http://example.org www.example.org", "<http://example.org>",
    "me@example.org @somebody",
    "$x^2$", "\\", "\\*not\\*", "[a]: http://example.org", "    indented", "line\n\n# heading\n- item", "1.",
    "：|｜", "0.5 (-1.2)",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_markdown_is_shown_as_it_is(text: str) -> None:
    """By an independent renderer, in a line, in a list and in a table cell."""
    render = MarkdownIt("gfm-like", {"linkify": False}).render
    wanted = html.escape(" ".join(text.split()))
    for document, begin, end in (
        (markdown(text), "<p>", "</p>\n"),
        (f"a {markdown(text)}", "<p>a ", "</p>\n"),
        (f"- {markdown(text)}", "<ul>\n<li>", "</li>\n</ul>\n"),
        (f"| x |\n|---|\n| {markdown(text)} |", "<tbody>\n<tr>\n<td>", "</td>\n</tr>\n</tbody>\n</table>\n"),
    ):
        shown = render(document).replace("<!-- -->", "")
        assert shown.endswith(begin + wanted + end), document


def test_nobody_is_mentioned_and_nothing_is_linked_by_markdown() -> None:
    assert "@somebody" not in markdown("thanks @somebody")
    assert "http:" not in markdown("http://example.org")
    assert "www." not in markdown("WWW.example.org").lower()


@pytest.mark.parametrize(
    "begin",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\t1", "＝1", "＠x", "﹢1", "﹣1", "﹦1", "﹫x", " =1", "\n=1", "\xa0@x"],
    ids=ascii,
)
def test_a_cell_is_no_formula(begin: str) -> None:
    assert csv_cell(begin).startswith("'")


@pytest.mark.parametrize("text", ["", " ", "1 = 1", "'=1", " a-b", "é"], ids=ascii)
def test_a_cell_that_is_none_stays_as_it_is(text: str) -> None:
    assert csv_cell(text) == text
