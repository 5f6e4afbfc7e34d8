"""Items of a finetuning: the harness's own ids, loss on the answer alone, nothing of a test split."""

from __future__ import annotations

from collections.abc import Callable

from mmed_train.training.recipe import Recipe

Make = Callable[..., Recipe]
PROTOCOLS = ("letter", "cloze", "chat", "paper", "paper-direct")
