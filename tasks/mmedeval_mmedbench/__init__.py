"""The MMedBench tasks in six languages, and a small parallel set that is shipped with the package."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from mmedeval import TaskOptions, TaskSpec, hookimpl

if TYPE_CHECKING:
    from mmedeval import Task

LANGUAGES = {"en": "English", "zh": "Chinese", "ja": "Japanese", "fr": "French", "ru": "Russian", "es": "Spanish"}

# The most letters that are right in one item of the published data. Single-answer languages compare single letters.
MAX_ANSWERS = {"en": 1, "zh": 1, "ja": 3, "fr": 5, "ru": 1, "es": 1}
MINI_MAX_ANSWERS = 3


def _load(language: str, options: TaskOptions) -> Task:
    from mmedeval_mmedbench.data import find_source
    from mmedeval_mmedbench.task import MMedBenchTask

    source = find_source(options.data_dir)
    return MMedBenchTask(name=f"mmedbench_{language}", language=language, max_answers=MAX_ANSWERS[language], data=source)


def _load_mini(language: str, options: TaskOptions) -> Task:
    from mmedeval_mmedbench.data import embedded
    from mmedeval_mmedbench.task import MMedBenchTask

    return MMedBenchTask(name=f"mmedbench_mini_{language}", language=language, max_answers=MINI_MAX_ANSWERS, data=embedded())


def _locate(options: TaskOptions) -> str:
    from mmedeval_mmedbench.data import locate

    return locate(options.data_dir)


def _locate_mini(options: TaskOptions) -> str:
    return "shipped with the package"


@hookimpl
def mmedeval_tasks() -> Iterable[TaskSpec]:
    for code, name in LANGUAGES.items():
        yield TaskSpec(
            name=f"mmedbench_{code}",
            summary=f"MMedBench, {name}: medical multiple choice with rationales",
            language=code,
            load=partial(_load, code),
            group="mmedbench",
            locate=_locate,
        )
        yield TaskSpec(
            name=f"mmedbench_mini_{code}",
            summary=f"40 questions in {name}, the same in all six languages; works offline",
            language=code,
            load=partial(_load_mini, code),
            group="mmedbench_mini",
            locate=_locate_mini,
        )
