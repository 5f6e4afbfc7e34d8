"""The whole command of both programs, from the shell to the last file, on the same prompts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from arms import Bench, best_batch, log_end
from figures import BenchmarkError, Outcome, Side, compare_scores, worst
from serve import peak_bytes
from workloads import Workload

TASK = "bench_rendered"
# The prompt and the continuations are fields of the data: both programs score the same strings.
TASK_FILE = """\
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: context
doc_to_choice: continuations
doc_to_target: gold
target_delimiter: ""
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""


@dataclass(frozen=True, kw_only=True)
class Finished:
    wall: float
    cpu: float
    peak_bytes: int
    scores: list[list[float]]


def measure_command(bench: Bench, workload: Workload) -> Outcome:
    """Both commands by turns, each into a fresh folder and with fresh caches. Raises `BenchmarkError`."""
    tried = best_batch(bench, workload)
    batch = min(tried, key=lambda size: tried[size])
    _write_task(bench, workload)
    pairs = [(_run_ours(bench, workload), _run_theirs(bench, workload, batch)) for _ in range(bench.runs)]
    return Outcome(
        workload=workload,
        batch=batch,
        tried=tried,
        ours=_side([ours for ours, _ in pairs]),
        theirs=_side([theirs for _, theirs in pairs]),
        agreement=worst([compare_scores(ours.scores, theirs.scores) for ours, theirs in pairs]),
    )


def _side(finished: Sequence[Finished]) -> Side:
    return Side(
        walls=tuple(each.wall for each in finished),
        cpus=tuple(each.cpu for each in finished),
        peak_bytes=max(each.peak_bytes for each in finished),
    )


def _write_task(bench: Bench, workload: Workload) -> None:
    folder = bench.places.task
    folder.mkdir(parents=True, exist_ok=True)
    data = bench.places.requests(workload.requests)
    (folder / f"{TASK}.yaml").write_text(TASK_FILE.format(task=TASK, data=json.dumps(str(data))), encoding="utf-8")


def _run_ours(bench: Bench, workload: Workload) -> Finished:
    out = _fresh(bench.places.scratch / "command-mmedeval")
    model, data = str(bench.places.model(workload.model)), str(bench.places.data)
    program = str(Path(sys.executable).with_name("mmedeval"))
    arguments = ["--model-arg", "dtype=float32", "--model-arg", "device=cpu", "--tasks", "mmedbench_en", "--data-dir", data]
    arguments += ["--protocol", workload.form, "--shots", str(workload.shots), "--limit", str(workload.items)]
    usage = _timed(bench, out, [program, "run", "--model", f"hf:{model}", *arguments, "--out", str(out / "run")])
    lines = (out / "run" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return Finished(**usage, scores=[list(json.loads(line)["logprobs"].values()) for line in lines])


def _run_theirs(bench: Bench, workload: Workload, batch: int) -> Finished:
    out = _fresh(bench.places.scratch / "command-lm-eval")
    model = str(bench.places.model(workload.model))
    program = str(bench.peer.with_name("lm_eval"))
    arguments = ["--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--tasks", TASK]
    arguments += ["--include_path", str(bench.places.task), "--device", "cpu", "--batch_size", str(batch)]
    arguments += ["--limit", str(workload.items), "--output_path", str(out / "run"), "--log_samples"]
    usage = _timed(bench, out, [program, "run", *arguments])
    files = [*(out / "run").rglob("samples_*.jsonl")]
    if len(files) != 1:
        raise BenchmarkError(f"lm-eval wrote {len(files)} files of samples, one was expected")
    lines = [json.loads(line) for line in files[0].read_text(encoding="utf-8").splitlines()]
    lines.sort(key=lambda line: int(line["doc_id"]))
    return Finished(**usage, scores=[[float(option[0]) for option in line["filtered_resps"]] for line in lines])


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _timed(bench: Bench, out: Path, command: Sequence[str]) -> Mapping[str, Any]:
    """Seconds, seconds of all processors, and peak memory of a command. Its home for caches is as fresh as its folder."""
    log = out / "log"
    environment = bench.environment | {"HF_HOME": str(out / "huggingface")}
    with log.open("w", encoding="utf-8") as file:
        started = perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, cwd=out)
        _, status, usage = os.wait4(process.pid, 0)
        wall = perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchmarkError(f"exit status {process.returncode} from {Path(command[0]).name}; {log_end(log)}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak_bytes": peak_bytes(usage)}
