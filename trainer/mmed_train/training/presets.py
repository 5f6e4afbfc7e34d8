"""What a recipe starts from: the paper's settings, and ours, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Values by section that differ from a recipe's own defaults, and why, by `section.name`."""

    kind: Literal["pretrain", "finetune", "both"]
    summary: str
    values: Mapping[str, Mapping[str, Any]]
    reasons: Mapping[str, str]


_PAPER = "the published script"

PRESETS: Final[Mapping[str, Preset]] = {
    "default": Preset(
        kind="both",
        summary="what we would do",
        values={},
        reasons={
            "data.windows": "each token is read once; overlapping windows read up to 20 times as many",
            "data.batching": "no padding is computed",
            "train.lr": "high enough that a few thousand items change a model, low enough that it keeps its languages",
            "train.schedule": "cosine; take wsd where the length of the training is not known beforehand",
            "adapter.targets": "adapters on all linear layers come nearer to full finetuning than on q and v alone",
        },
    ),
    "paper-pretrain": Preset(
        kind="pretrain",
        summary="continued pretraining of MMedLM 2 (Qiu et al. 2024): 8 GPUs x 8 rows x 8 passes = 512 rows of 2048 tokens",
        values={
            "model": {"gradient_checkpointing": True, "precision": "bf16"},
            "data": {"windows": "published"},
            "mix": {"window": 2048},
            "train": {
                "epochs": 3,
                "batch": 8,
                "accumulate": 8,
                "lr": 2e-5,
                "schedule": "cosine",
                "warmup": 0.01,
                "weight_decay": 0.01,
                "clip": 1.0,
                "save_every": 200,
            },
            "distributed": {"fsdp": True},
        },
        reasons={
            "data.windows": f"{_PAPER}: windows of 2048 every 1536 tokens; here its padding is not trained on",
            "train.epochs": f"{_PAPER}; the card of the 1.8B model says 15,000 iterations",
            "train.batch": f"{_PAPER}, on 8 GPUs",
            "train.lr": _PAPER,
            "train.warmup": _PAPER,
            "train.weight_decay": _PAPER,
            "train.save_every": _PAPER,
            "model.precision": f"{_PAPER}; weights are fp32 here, where bf16 ones would hardly move at this rate",
            "distributed.fsdp": f"{_PAPER} (full shard)",
        },
    ),
    "paper-full": Preset(
        kind="finetune",
        summary="full finetuning on MMedBench (Qiu et al. 2024): 8 GPUs x 4 rows x 4 passes = 128 items",
        values={
            "model": {"gradient_checkpointing": True, "precision": "bf16"},
            "data": {
                "tasks": ("mmedbench",),
                "protocols": ("paper", "paper-direct"),
                "as_published": True,
                "max_length": 2048,
                "batching": "plain",
            },
            "train": {"epochs": 5, "batch": 4, "accumulate": 4, "lr": 1e-6, "schedule": "cosine", "warmup": 0.03},
            "distributed": {"fsdp": True},
        },
        reasons={
            "data.protocols": "two copies of every item, one with and one without its rationale",
            "data.as_published": f"{_PAPER} has one space where the one for inference has two",
            "data.batching": f"{_PAPER}: rows of one item, padded, in random order",
            "train.batch": f"{_PAPER}, on 8 GPUs",
            "train.lr": f"{_PAPER}: hardly moves bf16 weights, hence fp32 ones here",
        },
    ),
    "paper-lora": Preset(
        kind="finetune",
        summary="LoRA on MMedBench (Qiu et al. 2024): 32 rows x 4 = 128 items",
        values={
            "model": {"precision": "bf16"},
            "data": {
                "tasks": ("mmedbench",),
                "protocols": ("paper", "paper-direct"),
                "as_published": True,
                "max_length": 2048,
                "batching": "plain",
            },
            "train": {"epochs": 3, "batch": 4, "accumulate": 32, "lr": 2e-5, "schedule": "cosine", "warmup": 0.03},
            "adapter": {"kind": "lora", "r": 16, "alpha": 32, "dropout": 0.05, "targets": ("q_proj", "v_proj")},
        },
        reasons={
            "train.lr": f"{_PAPER}; its README says 1e-6",
            "train.accumulate": f"{_PAPER}: 4 rows x 1 GPU x 32 passes",
            "adapter.alpha": f"ours: {_PAPER} reads a field that does not exist, so the paper's value is unknown",
            "adapter.targets": f"{_PAPER}: q and v; query_key_value for BLOOM, and a converted InternLM 2 has q_proj and v_proj",
        },
    ),
}
