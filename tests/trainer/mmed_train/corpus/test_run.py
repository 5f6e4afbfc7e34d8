"""Steps run in tasks: each once, found again after a stop, told in a manifest, and never over another run's output."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmed_train.corpus import run as module
from mmed_train.corpus.config import Corpus, Slurm, Source
from mmed_train.corpus.run import MANIFEST, Phase, Step, Task, merge, raw_digests, read_json, run_step, step_folder
from mmed_train.corpus.whole import beside
from mmedeval import BackendError, DataError, MissingPackageError, StoreError, UsageError, digest

TOLD: list[str] = []


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    slurm = Slurm(partition="cpu")
    source = Source(name="s", language="en", path="a.jsonl", format="jsonl")
    return Corpus(
        file=tmp_path / "corpus.toml", output=tmp_path / "out", sources=(source,), steps=("extract", "filter"), slurm=slurm
    )


def write(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> dict[str, Any]:
    (folder / "documents").mkdir(parents=True, exist_ok=True)
    (folder / "documents" / f"{rank}").write_text(f"of {rank}", encoding="utf-8")
    return {"documents": rank, "names": [f"n{rank}"], "deep": {"a": 1, f"b{rank}": 2}}


def fail(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> dict[str, Any]:
    raise DataError(f"task {rank} cannot")


def step(work: Any = write, tasks: int = 3, packages: tuple[str, ...] = (), **settings: Any) -> Step:
    phase = Phase(name="", work=work, tasks=tasks, packages=packages)
    return Step(phases=(phase,), settings=settings, inputs=lambda: {"raw": "digest"})


def do(corpus: Corpus, given: Step, name: str = "extract") -> Any:
    return run_step(corpus, name, given, workers=1, tell=TOLD.append)


def test_a_step_ends_in_a_manifest_of_its_settings_counts_and_files(corpus: Corpus) -> None:
    found = do(corpus, step(colour="red"))
    assert found == read_json(corpus.output / "1-extract" / MANIFEST)
    assert (found["settings"], found["inputs"]) == ({"colour": "red"}, {"raw": "digest"})
    assert found["counts"] == {"documents": 3, "names": ["n0", "n1", "n2"], "deep": {"a": 3, "b0": 2, "b1": 2, "b2": 2}}
    assert found["files"]["documents/1"]["bytes"] == 4
    assert found["versions"]["python"].startswith("3.")


def test_tasks_that_are_done_are_not_done_again(corpus: Corpus) -> None:
    done: list[int] = []

    def stopped(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> dict[str, Any]:
        if rank == 2 and 2 not in done:
            done.append(2)
            raise KeyboardInterrupt
        done.append(rank)
        return write(corpus, rank, folder, before)

    with pytest.raises(KeyboardInterrupt):
        do(corpus, step(work=stopped))
    assert not (corpus.output / "1-extract" / MANIFEST).exists()
    TOLD.clear()
    do(corpus, step(work=stopped))
    assert done == [0, 1, 2, 2]
    assert TOLD == ["extract: 1 tasks, 2 were done before"]
    do(corpus, step(work=fail))
    assert TOLD[-1] == "extract: done before"


def test_what_a_task_says_of_its_failure_is_told_and_the_step_goes_on_later(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="task 0 cannot"):
        do(corpus, step(work=fail))
    assert do(corpus, step())["counts"]["documents"] == 3


def test_another_setting_is_refused_with_its_name_and_nothing_is_lost(corpus: Corpus) -> None:
    do(corpus, step(colour="red"))
    with pytest.raises(StoreError, match=r"1-extract was made with another colour; remove it"):
        do(corpus, step(colour="blue"))
    assert do(corpus, step(colour="red"))["settings"] == {"colour": "red"}


def test_a_step_wants_the_one_before(corpus: Corpus) -> None:
    with pytest.raises(UsageError, match=r"filter needs what extract writes; run: mmed-train corpus extract .*corpus\.toml"):
        do(corpus, step(), "filter")
    do(corpus, step())
    do(corpus, step(), "filter")
    assert step_folder(corpus, "filter").name == "2-filter"


def test_what_the_step_before_wrote_is_an_input(corpus: Corpus) -> None:
    do(corpus, step())
    found = do(corpus, step(), "filter")["inputs"]
    assert found == {"raw": "digest", "extract": digest(read_json(corpus.output / "1-extract" / MANIFEST)["files"])}
    shutil.rmtree(corpus.output / "1-extract")
    do(corpus, step(tasks=2))
    with pytest.raises(StoreError, match=r"2-filter was made with another inputs\.extract; remove it"):
        do(corpus, step(), "filter")


def test_phases_come_one_after_the_other(corpus: Corpus) -> None:
    order: list[tuple[str, int]] = []

    def noting(name: str) -> Callable[..., Any]:
        def work(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> dict[str, Any]:
            order.append((name, rank))
            return {}

        return work

    phases = (Phase(name="a", work=noting("a"), tasks=2), Phase(name="b", work=noting("b"), tasks=1))
    do(corpus, Step(phases=phases, settings={}))
    assert order == [("a", 0), ("a", 1), ("b", 0)]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, r"no space is left for .*1-extract; make room, then give the same command"),
        (
            errno.EFBIG,
            r"1-extract: a file becomes larger than is allowed here; raise the limit \(ulimit -f\), or give an output on",
        ),
        (errno.EIO, r"1-extract: Input/output error"),
    ],
)
def test_what_a_disk_refuses_is_one_sentence(corpus: Corpus, number: int, words: str) -> None:
    def refused(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> dict[str, Any]:
        raise OSError(number, os.strerror(number))

    with pytest.raises(StoreError, match=words):
        do(corpus, step(work=refused))


def begun(corpus: Corpus) -> None:
    """The first of three tasks is done."""

    def stopped(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> dict[str, Any]:
        if rank:
            raise KeyboardInterrupt
        return write(corpus, rank, folder, before)

    with pytest.raises(KeyboardInterrupt):
        do(corpus, step(work=stopped, packages=("pytest",)))


def test_a_step_goes_on_with_the_versions_that_it_was_begun_with(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(corpus)
    there = module.version
    monkeypatch.setattr(module, "version", lambda name: "0.0.1" if name == "pytest" else there(name))
    with pytest.raises(
        StoreError, match=rf"1-extract was begun with pytest {there('pytest')} \(here 0\.0\.1\); remove it to begin"
    ):
        do(corpus, step(packages=("pytest",)))
    monkeypatch.undo()
    assert do(corpus, step(packages=("pytest",)))["versions"]["pytest"] == there("pytest")
    # What is done is done: the manifest tells with what.
    monkeypatch.setattr(module, "version", lambda name: "0.0.1")
    assert do(corpus, step(packages=("pytest",)))["versions"]["pytest"] == there("pytest")


def test_a_package_that_is_not_there_is_told_before_any_work(corpus: Corpus) -> None:
    with pytest.raises(
        MissingPackageError, match=r"needs nowhere-to-be-found, not installed here; run: pip install 'mmedeval\[corpus\]'"
    ):
        do(corpus, step(work=fail, packages=("nowhere-to-be-found",)))


def test_what_a_killed_task_left_is_gone_when_its_step_goes_on(corpus: Corpus) -> None:
    begun(corpus)
    half = beside(corpus.output / "1-extract" / "documents" / "1")
    half.write_text("half", encoding="utf-8")

    def work(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> dict[str, Any]:
        assert not half.exists()
        return write(corpus, rank, folder, before)

    do(corpus, step(work=work, packages=("pytest",)))


def test_what_a_lost_node_left_is_no_file_of_the_step(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def there(task: Task, *_: Any) -> None:
        for rank in task.left():
            task.run(rank)
            beside(task.folder / "documents" / f"{rank}").write_text("half", encoding="utf-8")

    monkeypatch.setattr(module, "_run_there", there)
    found = run_step(corpus, "extract", step(), executor="ray", tell=TOLD.append)
    assert sorted(found["files"]) == ["documents/0", "documents/1", "documents/2"]


def test_files_are_read_for_their_digests_only_when_they_changed(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.output.mkdir()
    paths = [corpus.folder / name for name in ("a", "b", "new")]
    long_ago = time.time() - 100
    for path in paths:
        path.write_text(path.name, encoding="utf-8")
    digests = [hashlib.sha256(path.name.encode()).hexdigest() for path in paths]
    monkeypatch.setattr(module, "TICK", 0)
    assert raw_digests(corpus, paths) == digests
    read: list[str] = []
    real = module.file_digest
    monkeypatch.setattr(module, "file_digest", lambda path: read.append(path.name) or real(path))
    assert raw_digests(corpus, paths) == digests
    assert read == []
    paths[1].write_text("c", encoding="utf-8")  # as long as before
    os.utime(paths[1], (long_ago, long_ago))
    digests[1] = hashlib.sha256(b"c").hexdigest()
    assert raw_digests(corpus, paths) == digests
    assert read == ["b"]
    # What was changed a moment ago may be changed again within the same tick of the clock.
    monkeypatch.undo()
    paths[2].write_text("NEW", encoding="utf-8")
    digests[2] = hashlib.sha256(b"NEW").hexdigest()
    for _ in range(2):
        assert raw_digests(corpus, paths) == digests
    assert str(paths[2]) not in json.loads((corpus.output / ".digests.json").read_text(encoding="utf-8"))
    (corpus.output / ".digests.json").write_text("{", encoding="utf-8")
    assert raw_digests(corpus, paths) == digests


WORKING = """
import os, signal, sys, time
from pathlib import Path
from mmed_train.corpus.config import Corpus, Source
from mmed_train.corpus.run import Phase, Step, run_step

def work(corpus, rank, folder, before):
    for _ in range(2000 if rank else 0):
        (corpus.folder / f"{os.getpid()}.alive").write_text(str(time.time()))
        time.sleep(0.05)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    source = Source(name="s", language="en", path="a.jsonl", format="jsonl")
    corpus = Corpus(file=folder / "corpus.toml", output=folder / "out", sources=(source,), steps=("extract",))
    step = Step(phases=(Phase(name="", work=work, tasks=3),), settings={})
    # What runs in a shell's background was told to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # One of the workers has nothing to do.
    run_step(corpus, "extract", step, workers=3, tell=print)
"""


@pytest.mark.parametrize(
    ("how", "alone"),
    [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGKILL, True), (signal.SIGINT, False)],
    ids=["interrupt", "terminate", "kill", "interrupt from the terminal"],
)
def test_tasks_end_with_their_command_and_in_silence(tmp_path: Path, how: signal.Signals, alone: bool) -> None:
    def signs() -> dict[str, str]:
        return {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.alive")}

    (tmp_path / "working.py").write_text(WORKING, encoding="utf-8")
    command = [sys.executable, tmp_path / "working.py", tmp_path]
    with (
        (tmp_path / "told").open("wb") as told,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told, start_new_session=True) as process,
    ):
        until(lambda: len(signs()) == 2)
        process.send_signal(how) if alone else os.killpg(process.pid, how)
        assert process.wait(timeout=30) == -how

    def silent() -> bool:
        before = signs()
        time.sleep(0.5)
        return signs() == before

    until(silent)
    assert len(signs()) == 2
    # The command tells of itself alone.
    assert "SpawnProcess" not in (tmp_path / "told").read_text(encoding="utf-8")


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_processes_do_not_write_one_output(corpus: Corpus) -> None:
    corpus.output.mkdir()
    with (corpus.output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="is being written by another mmed-train"):
            do(corpus, step())


def test_a_damaged_manifest_is_one_sentence(corpus: Corpus) -> None:
    do(corpus, step())
    (corpus.output / "1-extract" / MANIFEST).write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        do(corpus, step())


def test_lists_of_counts_stay_short() -> None:
    assert len(merge(iter([{"broken": ["x"] * 70}, {"broken": ["y"] * 70}]))["broken"]) == 100


# --- clusters ---


def test_slurm_gets_a_script_that_runs_the_tasks(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sbatch` is not here: what would be handed to it is looked at, and then run as a node would."""
    pytest.importorskip("datatrove", reason="datatrove is not installed")
    import dill
    from datatrove.executor import slurm

    scripts: list[str] = []

    def submitted(content: str, *_: Any) -> int:
        scripts.append(content)
        return 17

    monkeypatch.setattr(slurm, "launch_slurm_job", submitted)
    monkeypatch.setattr(slurm, "expand_slurm_nodelist", lambda names: [names])
    for name in ("SLURM_NODELIST", "SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_CPU", "SLURM_GPUS_ON_NODE"):
        monkeypatch.setenv(name, "localhost" if name == "SLURM_NODELIST" else "1")
    task = Task(corpus=corpus, phase=step().phases[0], folder=step_folder(corpus, "extract"), before=())

    def node(_seconds: float) -> None:
        with (task.folder / "logs" / "tasks" / "executor.pik").open("rb") as file:
            executor = dill.load(file)  # noqa: S301  # as datatrove's own program does it on a node
        for rank in json.loads((task.folder / "logs" / "tasks" / "ranks_to_run.json").read_text()):
            executor._run_for_rank(rank)

    monkeypatch.setattr(module.time, "sleep", node)
    found = run_step(corpus, "extract", step(), executor="slurm", tell=TOLD.append)
    assert found["counts"]["documents"] == 3
    assert "#SBATCH --array=0-2" in scripts[0]
    assert "#SBATCH --job-name=mmed-train-1-extract" in scripts[0]
    assert "launch_pickled_pipeline" in scripts[0]


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Slurm was given. Its jobs wait for ever, unless a test does their work."""
    pytest.importorskip("datatrove", reason="datatrove is not installed")
    from datatrove.executor import slurm

    scripts: list[str] = []

    def submit(content: str, *_: Any) -> int:
        scripts.append(content)
        return 17

    monkeypatch.setattr(slurm, "launch_slurm_job", submit)
    return scripts


def squeue(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, str, str]) -> None:
    """Its answers (exit status, output, error), the last one for ever."""
    left = [*answers]

    def run(command: list[str], **_: Any) -> Any:
        assert command[:2] == ["squeue", "--noheader"]
        status, out, error = left.pop(0) if len(left) > 1 else left[0]
        return subprocess.CompletedProcess(command, status, out, error)

    monkeypatch.setattr(module.subprocess, "run", run)


KNOWN, GONE, INVALID = (0, "17_[0-2] cpu R", ""), (0, "", ""), (1, "", "slurm_load_jobs error: Invalid job id specified")
SILENT = (1, "", "slurm_load_jobs error: Unable to contact slurm controller")


def stop_waiting(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that submits a job, and is stopped while it waits."""

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_step(corpus, "extract", step(), executor="slurm", tell=TOLD.append)


def test_a_second_command_waits_for_the_job_of_the_first(
    corpus: Corpus, submitted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue(monkeypatch, KNOWN, SILENT, KNOWN)
    stop_waiting(corpus, monkeypatch)
    jobs = len(submitted)
    task = Task(corpus=corpus, phase=step().phases[0], folder=step_folder(corpus, "extract"), before=())
    monkeypatch.setattr(module.time, "sleep", lambda _: task.run(task.left()[0]))
    TOLD.clear()
    assert run_step(corpus, "extract", step(), executor="slurm", tell=TOLD.append)["counts"]["documents"] == 3
    assert TOLD == ["extract: 3 tasks", "job 17 of an earlier command is with Slurm; waiting for it"]
    assert len(submitted) == jobs


@pytest.mark.parametrize("answer", [GONE, INVALID])
def test_a_job_that_is_no_longer_there_is_submitted_again(
    corpus: Corpus, submitted: list[str], monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str, str]
) -> None:
    squeue(monkeypatch, answer)
    stop_waiting(corpus, monkeypatch)
    jobs = len(submitted)
    stop_waiting(corpus, monkeypatch)
    assert len(submitted) == 2 * jobs > 0


def test_tasks_that_a_cluster_lost_are_told(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_run_there", lambda *_: None)
    with pytest.raises(BackendError, match="3 tasks of 1-extract ended without a result"):
        run_step(corpus, "extract", step(), executor="ray", tell=TOLD.append)
