"""Runs both arms in worker processes of their own, by turns, and measures their request loops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Agreement, BenchmarkError, Floor, Outcome, Side, compare_scores, compare_texts, worst
from workloads import MAX_NEW_TOKENS, Places, Workload

HERE = Path(__file__).resolve().parent
# Larger batches are not tried behind one that is slower than the best by this factor.
HOPELESS = 1.3


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all workloads have in common. `peer` is the python of lm-eval's environment."""

    places: Places
    peer: Path
    runs: int
    threads: int
    batch_sizes: tuple[int, ...]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | quiet_environment(self.threads, self.places.scratch)


def quiet_environment(threads: int, home: Path) -> dict[str, str]:
    """The same threads for both arms, and no network."""
    threading = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"), "1")
    return {
        **threading,
        **offline,
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HOME": str(home / "huggingface"),
    }


class Worker:
    """A process that answers one command at a time."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self.log = process, log
        started = time.perf_counter()
        self.about = self._answer()
        self.startup = time.perf_counter() - started

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        if self.process.stdin is None:
            raise BenchmarkError("the worker has no standard input")
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise BenchmarkError(f"the worker ended; {log_end(self.log)}") from error
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise BenchmarkError(f"the worker ended with status {self.process.wait()}; {log_end(self.log)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def log_end(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"the log ends: {lines[-1] if lines else '(empty)'} ({log.parent.name}/{log.name})"


@contextmanager
def worker(bench: Bench, python: Path, script: str, name: str) -> Iterator[Worker]:
    log = bench.places.scratch / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(python), str(HERE / script)]
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=bench.environment
        ) as process,
    ):
        try:
            # It ends when its standard input does, with this block.
            yield Worker(process, log)
        except BaseException:
            process.terminate()
            raise


def our_worker(bench: Bench, name: str = "mmedeval") -> AbstractContextManager[Worker]:
    return worker(bench, Path(sys.executable), "ours.py", name)


def their_worker(bench: Bench, name: str = "lm-eval") -> AbstractContextManager[Worker]:
    return worker(bench, bench.peer, "lm_eval_arm.py", name)


def command_of(bench: Bench, workload: Workload, items: int) -> dict[str, Any]:
    return {
        "do": "generate" if workload.form == "generate" else "loglikelihood",
        "requests": str(bench.places.requests(workload.requests)),
        "items": items,
        "max_tokens": MAX_NEW_TOKENS,
    }


def best_batch(bench: Bench, workload: Workload) -> dict[int, float]:
    """Seconds of lm-eval's loop per batch size, on a part of the workload; in a worker of its own, as peak memory only rises."""
    part = command_of(bench, workload, workload.trial_items)
    tried: dict[int, float] = {}
    with their_worker(bench) as theirs:
        _load(theirs, bench, workload)
        theirs.ask(**{**part, "items": 2}, batch=bench.batch_sizes[0])
        for size in bench.batch_sizes:
            tried[size] = theirs.ask(**part, batch=size)["wall"]
            if tried[size] > HOPELESS * min(tried.values()):
                break
    return tried


def introduce(bench: Bench) -> dict[str, Mapping[str, Any]]:
    """Versions and threads of both arms."""
    with our_worker(bench) as ours, their_worker(bench) as theirs:
        return {"mmedeval": ours.about, "lm-eval": theirs.about}


def measure(bench: Bench, workload: Workload) -> Outcome:
    """The request loops of both arms. Raises `BenchmarkError`."""
    tried = best_batch(bench, workload)
    batch = min(tried, key=lambda size: tried[size])
    everything = command_of(bench, workload, workload.items)
    with ExitStack() as stack:
        ours, theirs = stack.enter_context(our_worker(bench)), stack.enter_context(their_worker(bench))
        loads = [_load(each, bench, workload) for each in (ours, theirs)]
        # The first pass of a process is slower, whoever makes it.
        for each in (ours, theirs):
            each.ask(**{**everything, "items": min(2, workload.items)}, batch=batch)
        pairs, floors = [], []
        # Its matrices would count as memory of the worker that is measured.
        gauge = stack.enter_context(our_worker(bench, "gauge")) if workload.form != "generate" else None
        if gauge:
            _load(gauge, bench, workload)
        for _ in range(bench.runs):
            pairs.append((ours.ask(**everything), theirs.ask(**everything, batch=batch)))
            if gauge:
                # Between the runs, where the machine is as fast, or as busy, as for them.
                floors.append(gauge.ask(**{**everything, "do": "floor"}))
    mine, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Outcome(
        workload=workload,
        batch=batch,
        tried=tried,
        ours=_side(mine, ours.startup, loads[0]),
        theirs=_side(other, theirs.startup, loads[1]),
        agreement=worst([_compare(a, b) for a, b in pairs]),
        floor=_floor(floors),
        how=mine[-1].get("how") or {},
        tokens_out=mine[-1].get("tokens_out"),
    )


def _load(who: Worker, bench: Bench, workload: Workload) -> float:
    seconds: float = who.ask("load", model=str(bench.places.model(workload.model)))["wall"]
    return seconds


def _compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Agreement:
    if "texts" in ours:
        return compare_texts(ours["texts"], theirs["texts"])
    return compare_scores(ours["values"], theirs["values"])


def _side(answers: Sequence[Mapping[str, Any]], startup: float, load: float) -> Side:
    return Side(
        walls=tuple(answer["wall"] for answer in answers),
        cpus=tuple(answer["cpu"] for answer in answers),
        peak_bytes=max(answer["peak_bytes"] for answer in answers),
        startup=startup,
        load=load,
    )


def _floor(answers: Sequence[Mapping[str, Any]]) -> Floor | None:
    if not answers:
        return None
    first = answers[0]
    rates = tuple(answer["rate"] for answer in answers)
    return Floor(distinct_tokens=first["distinct_tokens"], flops=first["flops"], rates=rates)
