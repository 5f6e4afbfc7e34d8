"""`mmed-train pretrain`: continued pretraining on token shards."""

from __future__ import annotations

from mmed_train.cli.training import training_command

command = training_command(
    "pretrain",
    "Continue pretraining on the token shards of a corpus, as RECIPE.TOML says; see docs/training.md.",
    "Continue pretraining on token shards.",
)
