"""One run sent by the command to the trackers that are installed, and read back as they keep it."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECRET = "sk-never-to-be-seen"
MODULES = {"tensorboard": "tensorboard", "mlflow": "sqlalchemy", "wandb": "wandb"}
THERE = [name for name, module in MODULES.items() if all(importlib.util.find_spec(each) for each in (name, module))]


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(name not in THERE, reason=f"the packages of the extra {name} are not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all the trackers at once, in a process of its own: MLflow and W&B leave threads and warnings behind."""
    root = tmp_path_factory.mktemp("trackers")
    where = {"tensorboard": f"={root / 'tb'}", "mlflow": f"={root / 'ml'}", "wandb": "=clinic/trials"}
    trackers = [part for name in THERE for part in ("--tracker", name + where[name])]
    environment = {
        **os.environ,
        "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false",
        "WANDB_MODE": "offline", "WANDB_DIR": str(root), "WANDB_API_KEY": SECRET, "OPENAI_API_KEY": SECRET, "PYTHONUTF8": "1",
    }  # fmt: skip
    environment.pop("MLFLOW_EXPERIMENT_NAME", None)
    call = ["run", "--model", "baseline:longest", "--tasks", "mmedbench_mini", "--quiet", "--out", str(root / "run"), *trackers]
    script = "from mmedeval.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *call], cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr
    return root


def record(folder: Path) -> Any:
    return json.loads((folder / "run" / "record.json").read_text(encoding="utf-8"))


def row(folder: Path, task: str) -> Any:
    (found,) = [row for row in record(folder)["results"] if (row["metric"], row["task"]) == ("accuracy", task)]
    return found


@needs("tensorboard")
def test_tensorboard_reads_figures_intervals_progress_and_choices(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = (folder / "tb").iterdir()
    events = EventAccumulator(str(run))
    events.Reload()
    for task in ("mmedbench_mini_ja", "mmedbench_mini"):
        figure = row(folder, task)
        for end, name in (("value", ""), ("low", "/low"), ("high", "/high")):
            (scalar,) = events.Scalars(f"accuracy/{task}{name}")
            assert scalar.value == pytest.approx(figure[end], rel=1e-6)
    assert [(each.step, each.value) for each in events.Scalars("progress/answered")] == [(n, n) for n in (50, 100, 150, 200)]
    text = events.Tensors("plan/text_summary")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text)["model"] == "baseline:longest"
    assert json.loads((run / "record.json").read_text(encoding="utf-8")) == record(folder)


@needs("mlflow")
def test_mlflow_keeps_parameters_figures_and_the_record(folder: Path) -> None:
    with sqlite3.connect(folder / "ml" / "mlflow.db") as database:
        assert database.execute("SELECT name, status FROM runs").fetchall() == [("baseline:longest", "FINISHED")]
        parameters = dict(database.execute("SELECT key, value FROM params").fetchall())
        metrics = {(key, step): value for key, value, step in database.execute("SELECT key, value, step FROM metrics")}
        experiments = [name for (name,) in database.execute("SELECT name FROM experiments")]
    database.close()
    assert "mmedeval" in experiments
    assert (parameters["tasks"], parameters["protocol_used"]) == ("mmedbench_mini", "letter")
    assert parameters["fingerprint"] == record(folder)["fingerprint"]
    figure = row(folder, "mmedbench_mini_fr")
    assert metrics["accuracy/mmedbench_mini_fr", 0] == pytest.approx(figure["value"])
    assert metrics["accuracy/mmedbench_mini_fr/low", 0] == pytest.approx(figure["low"])
    assert metrics["progress/answered", 200] == 200
    (stored,) = (folder / "ml" / "artifacts").rglob("record.json")
    assert json.loads(stored.read_text(encoding="utf-8")) == record(folder)


@needs("wandb")
def test_wandb_keeps_the_run_in_its_own_file_when_it_is_offline(folder: Path) -> None:
    """Its file is a log of protocol buffers, whose texts stand in it as they are."""
    (file,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    figure = row(folder, "mmedbench_mini_es")
    for wanted in (
        "clinic",
        "trials",
        "baseline:longest",
        "accuracy/mmedbench_mini_es",
        repr(figure["value"]),
        "progress/answered",
    ):
        assert wanted.encode() in content, wanted
    assert record(folder)["fingerprint"].encode() in content


@pytest.mark.skipif(not THERE, reason="no tracker is installed")
def test_no_key_and_no_other_variable_of_the_environment_is_kept(folder: Path) -> None:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 5
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file
