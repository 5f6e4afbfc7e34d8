"""What is measured: models, forms of question, numbers of items, and the targets that were set for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

ModelName = Literal["small", "small-spaces", "large"]
Form = Literal["letter", "cloze", "generate"]

MAX_NEW_TOKENS = 64
OPTIONS_PER_ITEM = 4.5


@dataclass(frozen=True, kw_only=True)
class Target:
    """lm-eval's wall time over ours, at least; ours over the floor, at most. `None` where nothing was set."""

    ratio: float | None = None
    floor: float | None = None


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`command`: the whole command in a process of its own, not the request loop alone."""

    model: ModelName
    form: Form
    shots: int
    items: int
    target: Target = field(default_factory=Target)
    command: bool = False

    @property
    def name(self) -> str:
        return f"{self.model}/{'command-' * self.command}{self.form}-{self.shots}"

    @property
    def requests(self) -> str:
        """The name of the file of requests. Text is written behind the prompts of the letters."""
        return f"{'letter' if self.form == 'generate' else self.form}-{self.shots}.jsonl"

    @property
    def trial_items(self) -> int:
        """So many items tell batch sizes apart; fewer where a row takes long, so that trials stay shorter than runs."""
        slow = (self.model == "large") + (self.model == "large" and self.shots > 0) + (self.form == "generate")
        rows = 64 >> slow
        return min(self.items, math.ceil(rows / OPTIONS_PER_ITEM) if self.form == "cloze" else rows)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Items per workload: of the small model when scoring and when writing, of the large one without and with solved examples.

    Fewer where lm-eval reads five solved examples once per option.
    """

    scored: int = 400
    written: int = 100
    large: int = 60
    large_shots: int = 40


def workloads(sizes: Sizes, patterns: Sequence[str], at_most: int | None) -> list[Workload]:
    """Those whose name holds one of the patterns, all without any."""
    return [
        each
        for each in _all(sizes, at_most if at_most is not None else max(vars(sizes).values()))
        if not patterns or any(fnmatchcase(each.name, f"*{pattern}*") for pattern in patterns)
    ]


def _all(sizes: Sizes, at_most: int) -> list[Workload]:
    def one(model: ModelName, form: Form, shots: int, items: int, target: Target, *, command: bool = False) -> Workload:
        return Workload(model=model, form=form, shots=shots, items=min(items, at_most), target=target, command=command)

    return [
        one("small", "letter", 0, sizes.scored, Target(ratio=1.5)),
        one("small", "letter", 5, sizes.scored, Target(ratio=6)),
        one("small", "cloze", 0, sizes.scored, Target(ratio=4)),
        one("small", "cloze", 5, sizes.scored // 2, Target(ratio=20)),
        one("small", "generate", 0, sizes.written, Target(ratio=2)),
        one("small", "generate", 5, sizes.written, Target(ratio=4)),
        one("small", "letter", 0, sizes.scored, Target(ratio=3), command=True),
        one("small-spaces", "letter", 0, sizes.scored, Target()),
        one("small-spaces", "cloze", 0, sizes.scored, Target()),
        one("large", "letter", 0, sizes.large, Target(ratio=1.1, floor=1.5)),
        one("large", "letter", 5, sizes.large_shots, Target(ratio=5)),
        one("large", "cloze", 0, sizes.large, Target(ratio=3.5, floor=1.5)),
        one("large", "cloze", 5, sizes.large_shots * 3 // 4, Target(ratio=15)),
    ]


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things lie under the benchmark's folder."""

    root: Path

    @property
    def environment(self) -> Path:
        return self.root / "lm-eval"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def task(self) -> Path:
        return self.root / "lm_eval_task"

    @property
    def made(self) -> Path:
        return self.root / "made.json"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    def model(self, name: str) -> Path:
        return self.root / "models" / name

    def requests(self, name: str) -> Path:
        return self.root / "requests" / name
