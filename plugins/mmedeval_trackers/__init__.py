"""Trackers of experiments: TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mmedeval import TrackerSpec, UsageError, hookimpl

if TYPE_CHECKING:
    from mmedeval import Tracker


def _tensorboard(where: str) -> Tracker:
    from mmedeval_trackers.tensorboard_files import TensorBoard

    return TensorBoard(where)


def _mlflow(where: str) -> Tracker:
    from mmedeval_trackers.mlflow_runs import MLflow

    return MLflow(where)


def _wandb(where: str) -> Tracker:
    if not re.fullmatch(r"([^/]+/)?[^/]+|", where):
        raise UsageError(f"the tracker wandb={where} names no project; write wandb=PROJECT or wandb=ENTITY/PROJECT")
    from mmedeval_trackers.wandb_runs import WandB

    return WandB(where)


@hookimpl
def mmedeval_trackers() -> Iterable[TrackerSpec]:
    return [
        TrackerSpec(
            name="tensorboard",
            summary="event files that TensorBoard shows",
            load=_tensorboard,
            where="the folder for them (default runs/tensorboard); each run gets a folder of its own in it",
            requires=("tensorboard",),
            extra="tensorboard",
        ),
        TrackerSpec(
            name="mlflow",
            summary="a run of the MLflow experiment mmedeval (or MLFLOW_EXPERIMENT_NAME)",
            load=_mlflow,
            where="a folder, for a database and artifacts, or an address of MLflow (default: MLflow's own settings)",
            requires=("mlflow", "sqlalchemy", "alembic"),
            extra="mlflow",
        ),
        TrackerSpec(
            name="wandb",
            summary="a run at Weights & Biases; its own settings (WANDB_MODE, WANDB_API_KEY, ...) apply",
            load=_wandb,
            where="PROJECT or ENTITY/PROJECT (default mmedeval)",
            requires=("wandb",),
            extra="wandb",
        ),
    ]
