"""The published figures that stand beside ours."""

import csv
from pathlib import Path

import pytest

from mmedeval.published import LANGUAGES, TEST_ITEMS, published

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "mmedbench_published.csv"


def test_every_published_row_has_all_languages_and_an_average_of_them() -> None:
    rows = published()
    assert (len(rows), len(published("accuracy")), len({row.metric for row in rows})) == (40, 20, 3)
    for row in rows:
        assert tuple(row.values) == LANGUAGES
        assert all(0 < value < 100 for value in row.values.values())
        mean = sum(row.values.values()) / 6
        # The paper's own average of GPT-4 is not the mean of its row.
        assert row.average == pytest.approx(74.27 if row.name == "GPT-4" else mean, abs=0.021), row.name


def test_the_test_set_has_8518_items() -> None:
    assert sum(TEST_ITEMS.values()) == 8518


@pytest.mark.skipif(not REFERENCE.exists(), reason="the table of published figures is not beside the project")
def test_the_published_figures_are_those_of_the_table() -> None:
    names = {"accuracy": "accuracy", "bleu1": "paper_bleu1", "rouge1": "paper_rouge1"}
    with REFERENCE.open(encoding="utf-8", newline="") as file:
        given = [
            (
                row["model"],
                row["size"].strip("-"),
                row["setting"],
                names[row["metric"]],
                *(float(row[each]) for each in (*LANGUAGES, "avg")),
            )
            for row in csv.DictReader(file)
        ]
    ours = [(row.model, row.size, row.setting, row.metric, *row.values.values(), row.average) for row in published()]
    assert ours == given
