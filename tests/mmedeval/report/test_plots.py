"""Pictures for papers, and the charts of the page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from mmedeval.errors import UsageError
from mmedeval.report import charts, data
from mmedeval.report.html import make_page
from mmedeval.report.plots import draw
from mmedeval.runs import StoredRun, read_runs
from mmedeval.testing import make_sample
from mmedeval.types import Aggregate, Generation

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
Make = Callable[..., Path]


@pytest.fixture
def checkpoints(store: Make, tmp_path: Path) -> list[StoredRun]:
    (tmp_path / "eval").mkdir()
    tasks = ("mmedbench_mini_en", "mmedbench_mini_ja", "mmedbench_mini_fr")
    models = {"step-100": "baseline:random", "step-20": "baseline:longest", "step-3": "baseline:first"}
    return read_runs([store(f"eval/{name}", model, tasks, limit=6) for name, model in models.items()])


@pytest.mark.parametrize("kind", ["bars", "radar", "curve"])
@pytest.mark.parametrize(("suffix", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_same_runs_give_the_same_bytes(
    checkpoints: list[StoredRun], tmp_path: Path, kind: str, suffix: str, magic: bytes
) -> None:
    files = [tmp_path / f"{number}.{suffix}" for number in (1, 2)]
    for file in files:
        draw(checkpoints, kind, file)
    assert files[0].read_bytes().startswith(magic)
    assert files[0].read_bytes() == files[1].read_bytes()


def words(file: Path) -> list[str]:
    return ["".join(each.itertext()).strip() for each in ET.parse(file).iter("{http://www.w3.org/2000/svg}text")]


def test_a_picture_names_runs_and_languages_as_text(checkpoints: list[StoredRun], tmp_path: Path) -> None:
    for kind in ("bars", "radar"):
        draw(checkpoints, kind, tmp_path / "x.svg")
        assert {"English", "Japanese", "French", *(run.name for run in checkpoints)} <= set(words(tmp_path / "x.svg"))
    draw(checkpoints, "curve", tmp_path / "x.svg")
    assert {"English", "Japanese", "French", "average", "training step"} <= set(words(tmp_path / "x.svg"))


def test_a_curve_goes_through_the_checkpoints_in_the_order_of_their_steps(
    checkpoints: list[StoredRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[int], list[str]]] = []
    monkeypatch.setattr(
        charts, "curve", lambda columns, steps, rows, label, file: seen.append((steps, [row.name for row in rows]))
    )
    draw(checkpoints, "curve", tmp_path / "x.svg")
    assert seen == [([3, 20, 100], ["baseline:first", "baseline:longest", "baseline:random"])]


def test_intervals_of_one_step_stand_beside_each_other(checkpoints: list[StoredRun], tmp_path: Path) -> None:
    draw(checkpoints, "curve", tmp_path / "x.svg")
    svg = (tmp_path / "x.svg").read_text(encoding="utf-8")
    lines = re.findall(r'<path d="M ([\d.]+) [\d.]+ \nL \1 [\d.]+ \n"[^>]*stroke-opacity: 0.45', svg)
    assert len(lines) == len(set(lines)) == 3 * 3


def test_names_of_any_kind_are_shown_as_they_are(ask: Make, tmp_path: Path) -> None:
    names = ["_under $x^2$", "医学模型", "<b>\u202e&", "long " * 30]
    samples = {language: [make_sample(n, language=language) for n in (1, 2)] for language in ("en", "ja", "ru")}
    runs = read_runs(
        [ask(name, samples, write=lambda request: Generation(request_id=request.id, text="Answer: A")) for name in names]
    )
    for kind in ("bars", "radar"):
        draw(runs, kind, tmp_path / "x.svg")
        shown = words(tmp_path / "x.svg")
        for part in ("_under $x^2$", "医学模型", r"<b>\u202e&"):
            assert any(part in word for word in shown), part
        assert any("…" in word for word in shown)


def test_what_cannot_be_drawn_is_told_in_one_sentence(
    checkpoints: list[StoredRun], store: Make, ask: Make, tmp_path: Path
) -> None:
    out = tmp_path / "x.svg"
    one = read_runs([store("a", tasks=("mmedbench_mini_en",), limit=2)])
    unread = read_runs([ask("u", {"en": [make_sample(1)]}, write=lambda request: Generation(request_id=request.id, text="?"))])
    for runs, kind, choices, sentence in (
        (checkpoints, "bars", {"metric": "acuracy"}, "unknown metric of these runs 'acuracy'; did you mean accuracy"),
        (checkpoints, "bars", {"group": "x"}, "unknown group of these runs 'x'"),
        (checkpoints + unread, "bars", {}, "several groups of tasks; choose one with --group mmedbench_mini or static"),
        (unread, "bars", {}, "no run has a value of accuracy: nothing was read or scored"),
        (one, "radar", {}, "a radar needs three languages or more, these runs have 1; use --kind bars"),
        (one, "curve", {}, "tells no training step"),
        (checkpoints[:1], "curve", {}, "a curve needs the runs of two checkpoints or more"),
        (checkpoints[:1] * 2, "curve", {}, "are both of step 100"),
    ):
        with pytest.raises(UsageError, match=re.escape(sentence)):
            draw(runs, kind, out, **choices)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"x\.gif is no svg, png or pdf file"):
        draw(checkpoints, "bars", tmp_path / "x.gif")
    assert not out.exists()


def test_the_first_56_runs_differ_in_colour_or_shape() -> None:
    assert len({(charts.mark(number), charts.PAGE.colour(number)) for number in range(56)}) == 56


def test_a_page_is_the_same_each_time_and_holds_no_style_but_its_own(checkpoints: list[StoredRun]) -> None:
    page = make_page(checkpoints)
    assert page == make_page(checkpoints)
    assert " style=" not in page.partition("<script>")[0]
    assert page.count("<style") == 1
    ids = re.findall(r'\bid="([^"]+)"', page.partition("<script>")[0])
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:fill|stroke)="(#\w+)"', page)) == set()


def test_a_chart_has_a_mark_for_every_figure(checkpoints: list[StoredRun]) -> None:
    (group,) = data.groups(checkpoints)
    rows = [
        charts.Row(name=run.name, figures=tuple(data.figures_of(run).get(("accuracy", column.task)) for column in group.columns))
        for run in checkpoints
    ]
    svg = charts.dots(group.columns, rows, {}, "A & B", "key")
    assert '<title id="key-title">A &amp; B</title>' in svg
    assert len(re.findall(r"<use ", svg)) == len(rows) * len(group.columns)


def test_guessing_is_one_line_where_all_runs_have_the_same_and_else_one_for_each() -> None:
    def row(chance: float | None) -> charts.Row:
        figure = Aggregate(
            metric="accuracy", task="t", language="en", value=0.5, low=0.4, high=0.6, n=9, scored=9, chance=chance
        )  # fmt: skip
        return charts.Row(name="x", figures=(figure,))

    assert charts.chances([row(0.25), row(None), row(0.2501)], 0, 0.2, 0.4) == [(0.25, -0.4, 0.4)]
    found = charts.chances([row(0.25), row(None), row(0.1)], 0, 0.2, 0.4)
    assert [chance for chance, _, _ in found] == [0.25, 0.1]
    assert [each for _, *ends in found for each in ends] == pytest.approx([-0.3, -0.1, 0.1, 0.3])
    assert charts.chances([row(None), charts.Row(name="x", figures=(None,))], 0) == []


def test_a_chart_of_the_page_shows_what_acts_as_its_number() -> None:
    column = data.Column(task="t", label="\u202e<b>\ud800\x00", language="en")
    figure = Aggregate(metric="accuracy", task="t", language="en", value=0.5, low=None, high=None, n=9, scored=9)
    svg = charts.dots([column], [charts.Row(name="x", figures=(figure,))], {}, "title", "key")
    assert r"\u202e&lt;b&gt;\ud800\x00" in svg
    svg = charts.letter_bias(
        [[data.Letter(letter="\u202e\ud800", chosen=data.Share(n=2, count=1), right=data.Share(n=2, count=1))]], "x"
    )
    assert r"\u202e\ud800" in svg
