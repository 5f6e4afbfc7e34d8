"""`mmed-train finetune`: finetuning on the train split of tasks."""

from __future__ import annotations

from mmed_train.cli.training import training_command

command = training_command(
    "finetune",
    "Finetune on the train split of any task of mmedeval, all weights or an adapter, as RECIPE.TOML says; see docs/training.md.",
    "Finetune on the train split of tasks.",
)
