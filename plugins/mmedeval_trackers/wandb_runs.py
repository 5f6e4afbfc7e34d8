"""Runs as runs of Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import wandb

from mmedeval import RunPlan, RunRecord, Tracker
from mmedeval_trackers.contents import figures, parameters, record_text, run_name

PROJECT = "mmedeval"


class WandB(Tracker):
    """Parameters as the run's config, figures as its summary, and the record as an artifact."""

    def __init__(self, where: str) -> None:
        entity, _, project = where.rpartition("/")
        self.entity, self.project = entity or None, project or PROJECT
        self._run: Any = None

    def started(self, plan: RunPlan) -> None:
        self._run = wandb.init(
            entity=self.entity,
            project=self.project,
            name=run_name(plan),
            job_type="mmedeval",
            config=parameters(plan),
            # What the client would look for beside what it is given: code, git, packages, the command line, the machine.
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, save_code=False,
                x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
            ),
        )  # fmt: skip

    def progress(self, counts: Mapping[str, int]) -> None:
        self._run.log({f"progress/{name}": count for name, count in counts.items()}, step=counts["answered"])

    def finished(self, record: RunRecord) -> None:
        self._run.summary.update(figures(record))
        used = {"protocol_used": record.data["protocol"]["used"], "fingerprint": record.data["fingerprint"]}
        self._run.config.update(used)
        artifact = wandb.Artifact(f"record-{record.data['fingerprint'][:8]}", type="record")
        with artifact.new_file("record.json", mode="w", encoding="utf-8") as file:
            file.write(record_text(record))
        self._run.log_artifact(artifact)

    def close(self, *, whole: bool) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if whole else 1)
