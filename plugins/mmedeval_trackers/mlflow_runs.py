"""Runs as runs of MLflow."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from mmedeval import RunPlan, RunRecord, Tracker
from mmedeval_trackers.contents import figures, parameters, record_text, run_name

EXPERIMENT = "mmedeval"
# The most that MLflow takes in one call, and in one parameter.
MOST_METRICS, MOST_PARAMETERS, LONGEST = 1000, 100, 500


class MLflow(Tracker):
    """Parameters, metrics and the record as an artifact, through a client of its own: MLflow's global state stays as it is."""

    def __init__(self, where: str) -> None:
        self.where = where

    def started(self, plan: RunPlan) -> None:
        uri, artifacts = self._place()
        self.client = MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name, artifact_location=artifacts)
        self.run = self.client.create_run(experiment, run_name=run_name(plan)).info.run_id
        chosen = [Param(name, value[:LONGEST]) for name, value in parameters(plan).items()]
        for start in range(0, len(chosen), MOST_PARAMETERS):
            self.client.log_batch(self.run, params=chosen[start : start + MOST_PARAMETERS])

    def _place(self) -> tuple[str | None, str | None]:
        """The address of the store, and where artifacts of a new experiment go; `None` is MLflow's own choice."""
        if not self.where:
            return None, None
        if "://" in self.where:
            return self.where, None
        folder = Path(self.where).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()

    def progress(self, counts: Mapping[str, int]) -> None:
        self._metrics({f"progress/{name}": float(count) for name, count in counts.items()}, counts["answered"])

    def finished(self, record: RunRecord) -> None:
        self._metrics(figures(record), 0)
        used = {"protocol_used": record.data["protocol"]["used"], "fingerprint": record.data["fingerprint"]}
        self.client.log_batch(self.run, params=[Param(name, value) for name, value in used.items()])
        self.client.log_text(self.run, record_text(record), "record.json")

    def close(self, *, whole: bool) -> None:
        if hasattr(self, "run"):
            self.client.set_terminated(self.run, status="FINISHED" if whole else "KILLED")

    def _metrics(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        for start in range(0, len(metrics), MOST_METRICS):
            self.client.log_batch(self.run, metrics=metrics[start : start + MOST_METRICS])
