"""What a page says, read without a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmedeval.report.html import make_page
from mmedeval.runs import read_runs
from mmedeval.testing import make_sample
from mmedeval.types import Generation

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
Make = Callable[..., Path]
THREE = ("mmedbench_mini_en", "mmedbench_mini_ja", "mmedbench_mini_fr")


def section(page: str, name: str) -> str:
    found = re.search(rf'<section class="card" id="{name}".*?</section>', page, re.DOTALL)
    return "" if found is None else found[0]


def test_an_average_over_fewer_tasks_says_over_how_many(store: Make) -> None:
    runs = read_runs([store("a", tasks=THREE, limit=4), store("b", "baseline:longest", tasks=THREE[:2], limit=4)])
    page = section(make_page(runs, samples=False), "accuracy")
    assert page.count("<small>of 2 tasks</small>") == 1
    # In the chart it is left out: three runs' languages, two of the other, one average.
    assert page.count("<use ") == 3 + 2 + 1


def test_classes_are_shown_where_there_are_several(ask: Make) -> None:
    def write(request: Any) -> Generation:
        return Generation(request_id=request.id, text="Answer: A")

    alike = {"en": [make_sample(n, meta={"topic": f"topic {n % 2}"}) for n in range(1, 5)]}
    page = make_page(read_runs([ask("a", alike, write=write)]), samples=False)
    assert "By number of" not in page
    assert "<summary>By topic, static_en</summary>" in section(page, "classes")
    several = {"en": [make_sample(n, options=("a", "b", "c")[: 2 + n % 2]) for n in range(1, 5)]}
    page = section(make_page(read_runs([ask("b", several, write=write)]), samples=False), "classes")
    assert "By number of options" in page
    assert "By number of right letters" not in page
    assert "By topic" not in page


def test_guessing_is_named_where_it_is_drawn(store: Make) -> None:
    runs = read_runs([store("a", limit=4), store("b", protocol="cloze", limit=9)])
    assert "Dashed: what guessing gives." in section(make_page(runs, samples=False), "accuracy")


def test_other_orders_of_the_options_are_costs_too(store: Make) -> None:
    (run,) = read_runs([store("a", limit=2, rotations=3)])
    page = make_page([run], samples=False)
    read = sum(each["tokens_in"] for each in run.data["rotations"]["usage"].values())
    assert f"{read:,} tokens read" in section(page, "cost")
    assert "every item under up to 3 orders of its options" in section(page, "orders")
