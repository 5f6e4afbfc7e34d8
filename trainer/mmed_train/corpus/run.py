"""Runs the steps of a corpus: tasks over processes or a cluster, each done once, found again after a stop, told in a manifest.

    OUTPUT/2-filter/settings.json       what decides on the step's bytes, and the versions it was begun with; others are refused
    OUTPUT/2-filter/tasks/00003.json    task 3 is done: what it counted, and the digests of its files
    OUTPUT/2-filter/documents/...       what it wrote
    OUTPUT/2-filter/manifest.json       all tasks are done: settings, versions, counts, digests

Tasks run in processes of our own, or through datatrove's executors for Slurm and Ray.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from mmed_train.corpus.config import STEPS, Corpus
from mmed_train.corpus.whole import new_file, sweep
from mmedeval import BackendError, DataError, MissingPackageError, MmedevalError, StoreError, UsageError, digest

ExecutorName = Literal["local", "slurm", "ray"]
Counts = dict[str, Any]
Work = Callable[[Corpus, int, Path, Sequence[Path]], Counts]
"""Does one task: corpus, number of the task, the step's folder, the folders of the steps before. Returns what it counted."""
SETTINGS, MANIFEST, TASKS, FAILED = "settings.json", "manifest.json", "tasks", "failed"
SCRATCH = "scratch"
"""A folder that the phases of a step share, gone when the step is done."""
LOOK = 2.0
"""Seconds between two looks at what a cluster has done."""
TICK = 2 * 10**9
"""Nanoseconds: a file that was changed less than this before it was read may be changed again under the same time."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a step, all of whose tasks must be done before the next part begins."""

    name: str
    work: Work
    tasks: int
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """`settings` is JSON-like: what decides on the step's output. So do `inputs`, beside what the step before wrote."""

    phases: tuple[Phase, ...]
    settings: Mapping[str, Any]
    inputs: Callable[[], Mapping[str, Any]] = dict


@dataclass(frozen=True, kw_only=True)
class Task:
    """One phase as datatrove's executors call it: any number of times, on any machine that sees the folders."""

    corpus: Corpus
    phase: Phase
    folder: Path
    before: tuple[Path, ...]

    def __call__(self, _data: Any, rank: int, _world_size: int) -> None:
        self.run(rank)

    def run(self, rank: int) -> None:
        done = self.done(rank)
        if done.exists():
            return
        try:
            with sentences(self.folder):
                counts = self.phase.work(self.corpus, rank, self.folder, self.before)
                write_json(done, counts)
        except Exception as error:
            # Noted for whoever waits somewhere else.
            told = {"message": str(error) or type(error).__name__, "exit_code": getattr(error, "exit_code", 1)}
            write_json(self.folder / FAILED / done.name, told)
            raise

    def attempt(self, rank: int) -> None:
        """`run`, whose sentences stay in their file: not every error can be sent from process to process."""
        with contextlib.suppress(MmedevalError):
            self.run(rank)

    def done(self, rank: int) -> Path:
        return self.folder / TASKS / f"{self.phase.name}{rank:05d}.json"

    def left(self) -> list[int]:
        return [rank for rank in range(self.phase.tasks) if not self.done(rank).exists()]


def step_folder(corpus: Corpus, step: str) -> Path:
    return corpus.output / f"{[*STEPS].index(step) + 1}-{step}"


def run_step(
    corpus: Corpus,
    name: str,
    step: Step,
    *,
    executor: ExecutorName = "local",
    workers: int | None = None,
    tell: Callable[[str], None],
) -> Mapping[str, Any]:
    """Does what is left of a step and returns its manifest.

    Raises `StoreError` where its folder was made with other settings, or begun with other versions of packages, and `UsageError`
    where a step before is not done.
    """
    folder = step_folder(corpus, name)
    steps_before = corpus.steps[: corpus.steps.index(name)]
    before = tuple(step_folder(corpus, each) for each in steps_before)
    if before and not (before[-1] / MANIFEST).exists():
        raise UsageError(f"{name} needs what {steps_before[-1]} writes; run: mmed-train corpus {steps_before[-1]} {corpus.file}")
    with sentences(folder), held(corpus.output):
        inputs = {**step.inputs(), **{each: _written(corpus, each) for each in steps_before[-1:]}}
        decides = json.loads(json.dumps({"settings": step.settings, "inputs": inputs}))
        manifest = folder / MANIFEST
        _same_settings(folder, decides)
        if manifest.exists():
            shutil.rmtree(folder / SCRATCH, ignore_errors=True)
            tell(f"{name}: done before")
            return read_json(manifest)
        decides["versions"] = versions(step)
        _same_versions(folder, decides["versions"])
        write_json(folder / SETTINGS, decides)
        for phase in step.phases:
            task = Task(corpus=corpus, phase=phase, folder=folder, before=before)
            _run_tasks(task, name, executor, workers, tell)
        sweep(folder)
        found: dict[str, Any] = {
            **decides,
            "step": name,
            "counts": merge(read_json(file) for file in sorted((folder / TASKS).glob("*.json")) if file.name[0] != "."),
            "files": _digests(folder),
        }
        write_json(manifest, found)
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)
        return found


def _written(corpus: Corpus, step: str) -> str:
    """What a step wrote: the digest of its files' digests."""
    return digest(read_json(step_folder(corpus, step) / MANIFEST)["files"])


def _same_settings(folder: Path, decides: Mapping[str, Any]) -> None:
    file = folder / SETTINGS
    stored = read_json(file) if file.exists() else decides
    if different := sorted(_differences({name: stored.get(name) for name in decides}, decides)):
        raise StoreError(
            f"{folder} was made with another {', '.join(different[:3])}; "
            "remove it and the steps behind it, or give another output"
        )


def _same_versions(folder: Path, now: Mapping[str, str]) -> None:
    """A half of a step by one version and a half by another would be bytes that nobody gets again."""
    file = folder / SETTINGS
    begun = read_json(file).get("versions", {}) if file.exists() else now
    if different := [f"{name} {begun.get(name)} (here {now.get(name)})" for name in now if begun.get(name) != now.get(name)]:
        raise StoreError(
            f"{folder} was begun with {', '.join(different[:3])}; remove it to begin again, or go on where it was begun"
        )


def _differences(stored: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(now, dict):
        for key in {*stored, *now}:
            yield from _differences(stored.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif stored != now:
        yield name.removeprefix("settings.")


# --- tasks ---


def _run_tasks(task: Task, step: str, executor: ExecutorName, workers: int | None, tell: Callable[[str], None]) -> None:
    left = task.left()
    if not left:
        return
    skipped = task.phase.tasks - len(left)
    found = f", {skipped} were done before" if skipped else ""
    tell(f"{step}{f' ({task.phase.name})' if task.phase.name else ''}: {len(left)} tasks{found}")
    if executor == "local":
        sweep(task.folder)
        _forget_failures(task)
        _run_here(task, left, workers or len(os.sched_getaffinity(0)), tell)
    else:
        _run_there(task, executor, workers, tell)
    if missing := task.left():
        raise _failure(task, missing)


def _forget_failures(task: Task) -> None:
    for rank in task.left():
        (task.folder / FAILED / task.done(rank).name).unlink(missing_ok=True)


def _run_here(task: Task, left: Sequence[int], workers: int, tell: Callable[[str], None]) -> None:
    if min(workers, len(left)) == 1:
        for rank in left:
            task.run(rank)
        return
    context = get_context("spawn")
    end, alive = context.Pipe(duplex=False)
    with end, alive, ProcessPoolExecutor(min(workers, len(left)), context, initializer=_end_with, initargs=(end,)) as pool:
        waiting: set[Future[None]] = {pool.submit(task.attempt, rank) for rank in left}
        total = len(waiting)
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                if sys.stderr.isatty():
                    tell(f"{total - len(waiting)} of {total}")
        except BrokenProcessPool as error:
            raise BackendError(
                f"a process ended in the middle of a task (killed, or out of memory); what is done is stored, the same command "
                f"goes on from there, with less memory at once under --workers {max(1, workers // 2)}"
            ) from error
        except BaseException:
            # Stopped: what runs may take hours more.
            alive.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with(end: Connection) -> None:
    """Makes a worker end with the other side of a pipe: when its parent says so, and when its parent is killed.

    It would go on writing else, beside the command that is given anew.
    """

    def watch() -> None:
        end.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_there(task: Task, executor: ExecutorName, workers: int | None, tell: Callable[[str], None]) -> None:
    try:
        from datatrove.executor import RayPipelineExecutor, SlurmPipelineExecutor
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"--executor {executor}", ["datatrove"], "cluster") from error
    logs = str(task.folder / "logs" / (task.phase.name or "tasks"))
    if executor == "ray":
        _forget_failures(task)
        RayPipelineExecutor(pipeline=[task], tasks=task.phase.tasks, workers=workers or -1, logging_dir=logs).run()
        return
    note = Path(logs) / "job.json"
    if note.exists():
        # A command that was stopped leaves its job with Slurm; a second one for the same tasks would be in its way.
        earlier = read_json(note)["job"]
        if _is_known(earlier):
            tell(f"job {earlier} of an earlier command is with Slurm; waiting for it")
        while task.left() and _is_known(earlier):
            time.sleep(LOOK)
        if not task.left():
            return
    _forget_failures(task)
    asked = task.corpus.slurm
    if not asked.partition:
        raise UsageError(f'{task.corpus.file} names no partition; give one, as in [slurm] partition = "cpu"')
    job = SlurmPipelineExecutor(
        pipeline=[task],
        tasks=task.phase.tasks,
        workers=workers or -1,
        time=asked.time,
        partition=asked.partition,
        qos=asked.qos,
        env_command=f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        cpus_per_task=asked.cpus_per_task,
        mem_per_cpu_gb=asked.mem_per_cpu_gb,
        job_name=f"mmed-train-{task.folder.name}",
        mail_type="NONE",
        logging_dir=logs,
    )
    job.run()
    write_json(note, {"job": job.job_id})
    tell(f"job {job.job_id} is with Slurm; leave this command running, it waits for the job")
    while task.left() and not any((task.folder / FAILED).glob("*.json")):
        time.sleep(LOOK)
        if task.left() and not _is_known(job.job_id):
            return


def _is_known(job: int) -> bool:
    """Whether Slurm still has a job: one that was cancelled, or took too long, leaves no word."""
    asked = subprocess.run(["squeue", "--noheader", "--jobs", str(job)], capture_output=True, text=True, check=False)
    if asked.returncode:
        # A controller that does not answer says nothing of the job.
        return "Invalid job id" not in asked.stderr
    return bool(asked.stdout.strip())


def _failure(task: Task, missing: Sequence[int]) -> MmedevalError:
    """What to tell of tasks that are not done: the first one's own words, where it left some."""
    for rank in missing:
        file = task.folder / FAILED / task.done(rank).name
        if file.exists():
            told = read_json(file)
            return (DataError if told["exit_code"] == DataError.exit_code else BackendError)(told["message"])
    return BackendError(f"{len(missing)} tasks of {task.folder.name} ended without a result; {task.folder / 'logs'} tells more")


# --- files ---


def merge(counts: Iterator[Counts]) -> Counts:
    """Counts of several tasks as one: numbers are added, lists joined (the first 100 of each)."""
    total: Counts = {}
    for each in counts:
        _add(total, each)
    return total


def _add(total: Counts, more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict):
            _add(total.setdefault(name, {}), value)
        elif isinstance(value, list):
            total[name] = [*total.get(name, []), *value][:100]
        else:
            total[name] = total.get(name, 0) + value


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    with new_file(file) as new:
        new.write(json.dumps(value, indent=1, sort_keys=True).encode())


def read_json(file: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{file} is damaged ({error}); remove {file.parent} and run its step again") from error
    return value


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def raw_digests(corpus: Corpus, paths: Sequence[Path]) -> list[str]:
    """SHA-256 of files. One that was not changed since it was read last is not read again."""
    store = corpus.output / ".digests.json"
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        known = {}
    seen: dict[str, Any] = {}
    found = []
    for path in paths:
        begun, told = time.time_ns(), path.stat()
        state = [told.st_size, told.st_mtime_ns, told.st_ctime_ns]
        *before, sha256 = known.get(str(path), [None])
        if before != state:
            sha256 = file_digest(path)
        if begun - max(state[1:]) > TICK:
            seen[str(path)] = [*state, sha256]
        found.append(sha256)
    if seen != known:
        write_json(store, seen)
    return found


def _digests(folder: Path) -> dict[str, Any]:
    kept = ("documents", "rejected", "shards", "removed")
    found = sorted(path for name in kept for path in (folder / name).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)} for path in found}


def versions(step: Step) -> dict[str, str]:
    """Of all that decides on a step's bytes. Raises `MissingPackageError` for a package that is not there."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("mmedeval", *sorted({name for phase in step.phases for name in phase.packages})):
        try:
            found[name] = version(name)
        except PackageNotFoundError as error:
            raise MissingPackageError("mmed-train corpus", [name], "corpus") from error
    return found


@contextmanager
def held(output: Path) -> Iterator[None]:
    """The output for this process alone, as far as the file system can."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{output} is being written by another mmed-train; wait for it, or give another output") from error
        except OSError:
            pass  # a file system without locks
        yield


@contextmanager
def sentences(place: Path) -> Iterator[None]:
    """What the file system refuses, as one sentence; `place` is named where it does not say itself what it is about."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"no space is left for {error.filename or place}; make room, then give the same command: it goes on from there"
            ) from error
        if error.errno == errno.EFBIG:
            raise StoreError(
                f"{error.filename or place}: a file becomes larger than is allowed here; raise the limit (ulimit -f), or give an "
                "output on another file system"
            ) from error
        raise StoreError(f"{error.filename or place}: {error.strerror or error}") from error
