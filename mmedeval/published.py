"""Published results on MMedBench, to stand beside our own.

The figures are those of the tables in Qiu et al., "Towards Building Multilingual Language Model for Medicine" (2024), in per
cent, as data of ours in `published.csv`. The average is the paper's own: the mean of the languages but for rounding, and but
for GPT-4, for which it gives 74.27 where the mean is 75.31.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

SOURCE = "Qiu et al., “Towards Building Multilingual Language Model for Medicine” (2024)"
GROUP = "mmedbench"
LANGUAGES = ("en", "zh", "ja", "fr", "ru", "es")
# Items of the whole test set: a run of fewer is another measurement than the paper's.
TEST_ITEMS: Mapping[str, int] = {"en": 1273, "zh": 3426, "ja": 199, "fr": 622, "ru": 256, "es": 2742}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One row of a published table. `metric` has the name that ours has; `values` and `average` are in per cent."""

    model: str
    size: str
    setting: str
    metric: str
    values: Mapping[str, float]
    average: float

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.model, self.size) if part)


def published(metric: str | None = None) -> tuple[Published, ...]:
    """All published rows, or those of one metric, in the paper's order."""
    text = resources.files("mmedeval").joinpath("published.csv").read_text(encoding="utf-8")
    rows = (
        Published(
            model=row["model"],
            size=row["size"],
            setting=row["setting"],
            metric=row["metric"],
            values={language: float(row[language]) for language in LANGUAGES},
            average=float(row["average"]),
        )
        for row in csv.DictReader(io.StringIO(text))
    )
    return tuple(row for row in rows if metric in (None, row.metric))
