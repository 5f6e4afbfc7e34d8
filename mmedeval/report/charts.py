"""Charts by matplotlib: for the page as SVG that takes its colours from the page, for papers as files of any kind."""

from __future__ import annotations

import html
import importlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmedeval.errors import MissingPackageError, UsageError
from mmedeval.report.data import Calibration, Column, Letter, Slice, factor_of
from mmedeval.text import printable
from mmedeval.types import Aggregate

EXTRA = "report"
# After Okabe and Ito, whom people tell apart who see fewer colours, but darker: what is behind is white. Shapes differ, too.
COLOURS = ("#0072b2", "#d55e00", "#008561", "#b5548f", "#a87400", "#2b8cc4", "#4d4d4d")
MARKS = "osD^vPX*"
# Faces with Chinese and Japanese characters, for names of models; those that are not installed are passed over.
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "WenQuanYi Zen Hei")
# How they stand in a drawing before they become the page's variables; no chart uses these colours for themselves.
_INK, _SOFT, _LINE = "#010203", "#040506", "#070809"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paint:
    """The colours of a chart."""

    ink: str
    soft: str
    line: str
    series: tuple[str, ...]

    def colour(self, number: int) -> str:
        return self.series[number % len(self.series)]


PAPER = Paint(ink="#1a1a1a", soft="#595959", line="#d0d0d0", series=COLOURS)
PAGE = Paint(ink=_INK, soft=_SOFT, line=_LINE, series=tuple(f"#0a0b{number:02x}" for number in range(len(COLOURS))))
_VARIABLES: Mapping[str, str] = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    **{placeholder: f"var(--s{number})" for number, placeholder in enumerate(PAGE.series)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run's figures for a chart: a value with its interval, or nothing, for each column."""

    name: str
    figures: tuple[Aggregate | None, ...]


def mark(number: int) -> str:
    """The shape of a run; together with the colour it is another one for each of the first 56 runs."""
    return MARKS[number % len(MARKS)]


# --- for the page ---


def dots(columns: Sequence[Column], rows: Sequence[Row], background: Mapping[str, Sequence[float]], title: str, key: str) -> str:
    """Accuracy of every run by column, with intervals; `background` gives other values by column, as short grey lines."""
    per_run = 0.19 if len(rows) <= 6 else 0.12
    band = max(0.4, per_run * len(rows) + 0.16)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, column in enumerate(columns):
            for value in background.get(column.task, ()):
                axes.plot([value, value], [place - 0.4, place + 0.4], color=PAGE.line, linewidth=1.1, zorder=1)
            for number, row in enumerate(rows):
                figure_ = row.figures[place]
                if figure_ is None or figure_.value is None:
                    continue
                y = place + (number - (len(rows) - 1) / 2) * per_run / band
                _dot(axes, number, 100 * figure_.value, y, figure_, PAGE)
            for chance, low, high in chances(rows, place, per_run / band, 0.42):
                axes.plot([100 * chance] * 2, [low, high], color=PAGE.soft, linewidth=1.2, linestyle=(0, (2, 2)), zorder=2)
        axes.set_yticks(range(len(columns)), [_shown(column.label) for column in columns])
        axes.set_ylim(len(columns) - 0.5, -0.5)
        for place in range(1, len(columns)):
            axes.axhline(place - 0.5, color=PAGE.line, linewidth=0.6, zorder=0)
        _per_cent(axes.xaxis)
        axes.set_xlim(left=0)
        _clean(axes, PAGE, keep=("bottom",))

    return _svg(key, (9.6, 0.6 + band * len(columns)), draw, title)


def slices(parts: Sequence[tuple[str, Sequence[Slice]]], title: str) -> str:
    """Accuracy by class of items, a panel for each way to class them."""

    def draw(figure: Any) -> None:
        panels = figure.subplots(
            1, len(parts), sharey=True, squeeze=False, width_ratios=[len(classes) + 0.6 for _, classes in parts]
        )[0]
        for axes, (heading, classes) in zip(panels, parts, strict=True):
            for place, each in enumerate(classes):
                runs = len(each.shares)
                for number, share in enumerate(each.shares):
                    if share.value is None or share.interval is None:
                        continue
                    x = place + (number - (runs - 1) / 2) * 0.72 / max(runs, 4)
                    low, high = share.interval
                    axes.plot([x, x], [100 * low, 100 * high], color=PAGE.colour(number), linewidth=1.3, zorder=2)
                    shape, colour = mark(number), PAGE.colour(number)
                    axes.plot([x], [100 * share.value], shape, color=colour, markersize=4.5, zorder=3, clip_on=False)
            axes.set_xticks(range(len(classes)), [each.label.split()[0] for each in classes])
            axes.set_xlim(-0.6, len(classes) - 0.4)
            axes.set_xlabel(heading)
            _clean(axes, PAGE, keep=("bottom",))
        _per_cent(panels[0].yaxis)
        panels[0].set_ylim(bottom=0)

    return _svg("classes", (9.6, 3.2), draw, title)


def letter_bias(runs: Sequence[Sequence[Letter]], title: str) -> str:
    """By letter, how much more often than right it was chosen, in points."""
    names = sorted({each.letter for run in runs for each in run})

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.axhline(0, color=PAGE.soft, linewidth=1, zorder=1)
        for number, run in enumerate(runs):
            for each in run:
                if each.chosen.value is not None and each.right.value is not None:
                    x = names.index(each.letter) + (number - (len(runs) - 1) / 2) * 0.72 / max(len(runs), 4)
                    points = 100 * (each.chosen.value - each.right.value)
                    axes.plot([x, x], [0, points], color=PAGE.colour(number), linewidth=1.6, zorder=2)
                    axes.plot([x], [points], mark(number), color=PAGE.colour(number), markersize=5, zorder=3, clip_on=False)
        axes.set_xticks(range(len(names)), [_shown(name) for name in names])
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_ylabel("chosen − right, points")
        axes.grid(axis="y", color=PAGE.line, linewidth=0.6)
        _clean(axes, PAGE, keep=())

    return _svg("letters", (9.6, 2.8), draw, title)


def reliability(found: Sequence[tuple[int, Calibration]], title: str) -> str:
    """Accuracy against confidence; `found` gives a run's number with its calibration."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=PAGE.soft, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for number, each in found:
            xs = [100 * part.confidence for part in each.bins]
            ys = [100 * (part.right.value or 0.0) for part in each.bins]
            axes.plot(xs, ys, color=PAGE.colour(number), linewidth=1.4, zorder=2)
            for x, y, part in zip(xs, ys, each.bins, strict=True):
                low, high = part.right.interval or (0.0, 1.0)
                axes.plot([x, x], [100 * low, 100 * high], color=PAGE.colour(number), linewidth=1, alpha=0.55, zorder=2)
                axes.plot([x], [y], mark(number), color=PAGE.colour(number), markersize=5, zorder=3, clip_on=False)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        for axis in (axes.xaxis, axes.yaxis):
            _per_cent(axis)
        axes.set_aspect("equal")
        _clean(axes, PAGE, keep=("bottom", "left"))

    return _svg("calibration", (4.4, 4.0), draw, title)


def _svg(key: str, size: tuple[float, float], draw: Callable[[Any], None], title: str) -> str:
    with _matplotlib(key, PAGE) as figures:
        figure = figures.Figure(figsize=size, layout="constrained", facecolor="none")
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return for_page(file.getvalue(), key, title)


def for_page(svg: str, key: str, title: str) -> str:
    """A drawing of matplotlib for a page whose policy allows no styles but its own: attributes, and the page's colours."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"\s*<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r' style="([^"]*)"', lambda found: _attributes(found[1]), body)
    # A tenth of a point is less than anybody sees.
    body = re.sub(r"(?<=[\d])(\.\d\d)\d+", r"\1", body)
    # Several drawings stand in one page; their names must not meet.
    body = re.sub(r'\bid="', f'id="{key}-', body)
    body = re.sub(r'xlink:href="#', f'href="#{key}-', body)
    body = body.replace("url(#", f"url(#{key}-")
    for placeholder, variable in _VARIABLES.items():
        body = body.replace(placeholder, variable)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)
    if box is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox")
    wide = float(box[1]) * 4 / 3
    kind = "chart" if wide > 600 else "chart small"
    head = (
        f'<svg class="{kind}" viewBox="0 0 {box[1]} {box[2]}" width="{wide:.0f}" role="img" '
        f'aria-labelledby="{key}-title" stroke-linejoin="round" stroke-linecap="butt">'
        f'<title id="{key}-title">{html.escape(title)}</title>'
    )
    return head + re.sub(r"^<svg[^>]*>", "", body).strip()


def _attributes(style: str) -> str:
    """CSS declarations as presentation attributes, which no policy forbids."""
    found = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            # As in `10px 'DejaVu Sans', ...`: the page has its own faces.
            size = re.search(r"([\d.]+)px", value)
            found.append(f'font-size="{size[1] if size else 10}"')
        elif name:
            found.append(f'{name}="{html.escape(value)}"')
    return "".join(f" {each}" for each in found)


# --- for papers ---


def bars(columns: Sequence[Column], rows: Sequence[Row], label: str, file: Path) -> None:
    """Grouped bars with intervals."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        width = 0.8 / len(rows)
        for number, row in enumerate(rows):
            for place, each in enumerate(row.figures):
                if each is None or each.value is None:
                    continue
                x = place + (number - (len(rows) - 1) / 2) * width
                factor = factor_of(each)
                axes.bar(
                    x, each.value * factor, width * 0.92, color=PAPER.colour(number), hatch=_hatch(number), edgecolor="white",
                    linewidth=0.4, label=_shown(row.name) if place == _first(row) else None, zorder=2,
                )  # fmt: skip
                if each.low is not None and each.high is not None:
                    axes.plot([x, x], [each.low * factor, each.high * factor], color=PAPER.ink, linewidth=0.9, zorder=3)
        known = [each for place in range(len(columns)) for each in chances(rows, place, width, 0.44)]
        for number, (chance, left, right) in enumerate(known):
            axes.plot(
                [left, right], [100 * chance] * 2, color=PAPER.ink, linewidth=1, linestyle=(0, (2, 2)), zorder=4,
                label="guessing" if number == 0 else None,
            )  # fmt: skip
        axes.set_xticks(range(len(columns)), [_shown(column.label) for column in columns])
        axes.set_ylabel(label)
        axes.grid(axis="y", color=PAPER.line, linewidth=0.6, zorder=0)
        axes.set_axisbelow(True)
        _clean(axes, PAPER, keep=("bottom",))
        _legend(figure, len(rows) + 1)

    _save(file, (max(6.4, 1.1 + len(columns) * (0.55 + 0.09 * len(rows))), 4.0), draw)


def radar(columns: Sequence[Column], rows: Sequence[Row], label: str, file: Path) -> None:
    """One axis per language; intervals as spokes."""
    if len(columns) < 3:
        raise UsageError(f"a radar needs three languages or more, these runs have {len(columns)}; use --kind bars")

    def draw(figure: Any) -> None:
        axes = figure.subplots(subplot_kw={"projection": "polar"})
        axes.set_theta_offset(math.pi / 2)
        axes.set_theta_direction(-1)
        angles = [2 * math.pi * place / len(columns) for place in range(len(columns))]
        for number, row in enumerate(rows):
            known = [each is not None and each.value is not None for each in row.figures]
            values = [math.nan if each is None or each.value is None else each.value * factor_of(each) for each in row.figures]
            colour = PAPER.colour(number)
            axes.plot(
                [*angles, angles[0]], [*values, values[0]], marker=mark(number), markersize=5, color=colour, linewidth=1.6,
                linestyle=("-", "--", "-.", ":")[number // len(COLOURS) % 4], label=_shown(row.name), zorder=3,
            )  # fmt: skip
            if all(known) and len(rows) <= 3:
                axes.fill([*angles, angles[0]], [*values, values[0]], color=colour, alpha=0.08, zorder=1)
            for angle, each in zip(angles, row.figures, strict=True):
                if each is not None and each.low is not None and each.high is not None:
                    ends = [each.low * factor_of(each), each.high * factor_of(each)]
                    aside = angle + (number - (len(rows) - 1) / 2) * min(0.05, 0.3 / len(rows))
                    axes.plot([aside] * 2, ends, color=colour, linewidth=1.8, alpha=0.4, zorder=2)
        axes.set_xticks(angles, [_shown(column.label) for column in columns])
        axes.tick_params(axis="x", pad=12)
        axes.set_rlabel_position(180 / len(columns))
        axes.set_ylim(bottom=0)
        axes.tick_params(colors=PAPER.soft)
        axes.grid(color=PAPER.line, linewidth=0.7)
        axes.spines["polar"].set_color(PAPER.line)
        axes.set_title(label, fontsize=10, color=PAPER.ink, pad=14)
        _legend(figure, len(rows))

    _save(file, (6.2, 5.6 + 0.2 * math.ceil(len(rows) / 2)), draw)


def curve(columns: Sequence[Column], steps: Sequence[int], rows: Sequence[Row], label: str, file: Path) -> None:
    """Figures over the steps of one training run, a line per column with its interval; the average stands out."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, column in enumerate(columns):
            average = column.language == "avg"
            colour = PAPER.ink if average else PAPER.colour(place)
            known = [
                (step, each)
                for step, row in zip(steps, rows, strict=True)
                if (each := row.figures[place]) and each.value is not None
            ]
            xs, ys = [step for step, _ in known], [(each.value or 0.0) * factor_of(each) for _, each in known]
            axes.plot(
                xs, ys, marker=mark(place), color=colour, linewidth=2.4 if average else 1.3, markersize=6 if average else 4.5,
                label=_shown(column.label), zorder=4 if average else 3,
            )  # fmt: skip
            band = [
                (step, each.low, each.high, factor_of(each))
                for step, each in known
                if each.low is not None and each.high is not None
            ]
            if band and (average or len(columns) <= 3):
                axes.fill_between(
                    [step for step, *_ in band], [low * factor for _, low, _, factor in band],
                    [high * factor for *_, high, factor in band], color=colour, alpha=0.14, linewidth=0, zorder=1,
                )  # fmt: skip
            else:
                # Beside each other, or those of one step would cover each other.
                aside = (place - (len(columns) - 1) / 2) * 0.005 * (max(steps) - min(steps))
                for step, low, high, factor in band:
                    axes.plot(
                        [step + aside] * 2, [low * factor, high * factor], color=colour, linewidth=0.9, alpha=0.45, zorder=2
                    )
        axes.set_xlabel("training step")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color=PAPER.line, linewidth=0.6)
        _clean(axes, PAPER, keep=("bottom",))
        _legend(figure, len(columns))

    _save(file, (7.2, 4.4), draw)


def _save(file: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    kind = file.suffix.lower().lstrip(".")
    nothing = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    if kind not in nothing:
        raise UsageError(f"{file} is no svg, png or pdf file; end its name in .svg, .png or .pdf")
    with _matplotlib("plot", PAPER) as figures:
        figure = figures.Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(file, format=kind, dpi=200, metadata=nothing[kind])


# --- both ---


@contextmanager
def _matplotlib(salt: str, paint: Paint) -> Iterator[Any]:
    """Matplotlib's figures under settings of ours; the same figures give the same bytes."""
    try:
        # By name: the core needs none of what only a picture needs.
        matplotlib, figures = importlib.import_module("matplotlib"), importlib.import_module("matplotlib.figure")
        fonts = importlib.import_module("matplotlib.font_manager")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise MissingPackageError("a chart", ["matplotlib"], EXTRA) from error
    installed = {face.name for face in fonts.fontManager.ttflist}
    settings = {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "font.family": [name for name in FONTS if name in installed],
        "font.size": 10,
        # A name of a model is no formula.
        "text.parse_math": False,
        "text.color": paint.ink,
        "axes.labelcolor": paint.soft,
        "axes.edgecolor": paint.soft,
        "xtick.color": paint.soft,
        "ytick.color": paint.ink,
        "hatch.linewidth": 0.5,
    }
    # Of other settings of the user's only those count that are not for looks.
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **settings}), warnings.catch_warnings():
        # What none of the faces has is shown as a box; in an SVG the reader's own faces may have it.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        yield figures


def _dot(axes: Any, number: int, x: float, y: float, figure: Aggregate, paint: Paint) -> None:
    colour = paint.colour(number)
    if figure.low is not None and figure.high is not None:
        axes.plot([100 * figure.low, 100 * figure.high], [y, y], color=colour, linewidth=1.6, zorder=3)
    axes.plot([x], [y], mark(number), color=colour, markersize=5.5, zorder=4, clip_on=False)


def chances(rows: Sequence[Row], place: int, width: float = 0, half: float = 0) -> list[tuple[float, float, float]]:
    """What guessing gives in a column, with the ends of the line that shows it: one for all the runs, or, where their answers
    are to other items or of another kind, one for each over its own `width`."""
    known = [
        (number, figure.chance)
        for number, row in enumerate(rows)
        if (figure := row.figures[place]) is not None and figure.chance is not None
    ]
    if len({round(chance, 3) for _, chance in known}) == 1:
        return [(known[0][1], place - half, place + half)]
    starts = [(chance, place + (number - len(rows) / 2) * width) for number, chance in known]
    return [(chance, start, start + width) for chance, start in starts]


def _first(row: Row) -> int:
    """The place of the first bar, which carries the name for the legend."""
    return next((place for place, each in enumerate(row.figures) if each is not None and each.value is not None), -1)


def _hatch(number: int) -> str:
    return ("", "///", "...", "xxx")[number // len(COLOURS) % 4]


def _legend(figure: Any, entries: int) -> None:
    columns = 1 if entries == 1 else 2 if entries <= 4 else 3
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize="small")


def _shown(name: str) -> str:
    """A name in a legend: nothing that acts, no line breaks, and short enough to stand beside others."""
    text = printable(" ".join(name.split()))
    text = text if len(text) <= 44 else f"{text[:28]}…{text[-14:]}"
    # What begins with an underscore matplotlib leaves out.
    return f" {text}" if text.startswith("_") else text


def _per_cent(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: f"{value:g} %")
    axis.grid(True, color=PAGE.line, linewidth=0.6)


def _clean(axes: Any, paint: Paint, *, keep: Sequence[str]) -> None:
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in keep)
        spine.set_color(paint.line)
    axes.tick_params(length=0)
    axes.set_facecolor("none")
