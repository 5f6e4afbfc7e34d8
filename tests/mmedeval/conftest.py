"""Finished runs whose rationales people can rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmedeval.store import RunFolder
from mmedeval.testing import make_sample
from mmedeval.types import SampleResult, digest

LANGUAGES = ("en", "zh", "ja")
MakeRuns = Callable[..., list[Path]]


@pytest.fixture
def make_runs(tmp_path: Path) -> MakeRuns:
    """Makes run folders: `models` runs of `count` questions in each language.

    `text(model, language, number)` is what a model writes (`None`: it failed), `scores(...)` its metrics. Of every three
    references one was found good by nobody.
    """

    def make(
        models: int = 6,
        count: int = 12,
        languages: Sequence[str] = LANGUAGES,
        *,
        text: Callable[[int, str, int], str | None] = lambda model, language, number: f"words {model} {language} {number}",
        scores: Callable[[int, str, int], Mapping[str, float]] = lambda *_: {},
        checked: Callable[[int], bool] = lambda number: number % 3 != 0,
        reference: str = "Haem holds iron.",
        folder: str = "runs",
        **fields: Any,
    ) -> list[Path]:
        paths = []
        for model in range(models):
            path = tmp_path / folder / f"secretive-{model}"
            results = []
            for language in languages:
                for number in range(1, count + 1):
                    meta = {"human_checked": True, "human_check_passed": checked(number)}
                    output = text(model, language, number)
                    results.append(
                        SampleResult(
                            task=f"static_{language}",
                            sample=make_sample(number, language=language, rationale=reference, meta=meta, **fields),
                            status="failed" if output is None else "ok",
                            prediction=None if output is None else frozenset("A"),
                            output=None if output is None else f"###Rationale: {output}\n###Answer: OPTION A IS CORRECT.",
                            finish_reason=None if output is None else "stop",
                            scores={"accuracy": 0.125, **scores(model, language, number)},
                        )
                    )
            record = {
                **{key: {} for key in ("plan", "tasks", "counts", "usage", "process")},
                **{key: [] for key in ("results", "consistency", "warnings")},
                "format": 1,
                "fingerprint": digest([folder, model]),
                "protocol": {"requested": "paper", "used": "paper", "why": ""},
                "model": {"reference": f"hf:secretive-model-{model}"},
                "determinism": None,
            }
            with RunFolder(path, {"model": model}, {}) as store:
                store.finish(record, results)
            paths.append(path)
        return paths

    return make
