"""Finished runs to report on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmedeval import hookimpl
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.testing import ScriptedBackend, StaticTask
from mmedeval.types import Failure, GenerateRequest, Generation, LoglikelihoodRequest, Loglikelihoods, RunPlan, Sample

Write = Callable[[GenerateRequest], Generation | Failure]
Score = Callable[[LoglikelihoodRequest], Loglikelihoods | Failure]


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Path]:
    """Stores a run of a baseline on the embedded tasks; returns its folder."""

    def make(
        name: str,
        model: str = "baseline:random",
        tasks: Sequence[str] = ("mmedbench_mini_en", "mmedbench_mini_ja"),
        **choices: object,
    ) -> Path:
        plan = RunPlan(model=model, tasks=tuple(tasks), **choices)  # type: ignore[arg-type]
        return run(plan, Catalog(make_host()), tmp_path / name)[1]

    return make


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Path]:
    """Stores a run of given samples, by language, answered by a function; returns its folder."""

    def make(
        name: str,
        samples: Mapping[str, Sequence[Sample]],
        *,
        write: Write | None = None,
        score: Score | None = None,
        max_answers: int = 1,
        group: str | None = "static",
        **choices: object,
    ) -> Path:
        tasks = [
            StaticTask(test=items, name=f"static_{language}", language=language, max_answers=max_answers)
            for language, items in samples.items()
        ]
        backend = ScriptedBackend(write=write, score=score, name="scripted")
        backend.fingerprint = lambda: name  # type: ignore[method-assign]
        plugin = SimpleNamespace(
            mmedeval_tasks=hookimpl(lambda: [task.spec(group) for task in tasks]),
            mmedeval_backends=hookimpl(lambda: [backend.spec()]),
        )
        choices = {"protocol": "chat" if write else "letter", **choices}
        plan = RunPlan(model=f"scripted:{name}", tasks=tuple(task.name for task in tasks), **choices)  # type: ignore[arg-type]
        return run(plan, Catalog(make_host(extra=[plugin])), tmp_path / "".join(filter(str.isalnum, name)))[1]

    return make
