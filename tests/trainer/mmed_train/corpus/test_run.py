"""Steps run in tasks: each once, found again after a stop, told in a manifest, and never over another run's output."""

from __future__ import annotations

import errno
import fcntl
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmed_train.corpus import run as module
from mmed_train.corpus.config import Corpus, Slurm, Source
from mmed_train.corpus.run import MANIFEST, Phase, Step, Task, merge, read_json, run_step, step_folder
from mmedeval import StoreError, UsageError
from mmedeval.errors import BackendError, DataError

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


def step(name: str = "extract", work: Any = write, tasks: int = 3, **settings: Any) -> Step:
    return Step(name=name, phases=(Phase(name="", work=work, tasks=tasks),), settings=settings, inputs=lambda: {"raw": "digest"})


def do(corpus: Corpus, given: Step, **more: Any) -> Any:
    return run_step(corpus, given, workers=1, tell=TOLD.append, **more)


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
        do(corpus, step("filter"))
    do(corpus, step())
    do(corpus, step("filter"))
    assert step_folder(corpus, "filter").name == "2-filter"


def test_phases_come_one_after_the_other(corpus: Corpus) -> None:
    order: list[tuple[str, int]] = []

    def noting(name: str) -> Callable[..., Any]:
        def work(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> dict[str, Any]:
            order.append((name, rank))
            return {}

        return work

    phases = (Phase(name="a", work=noting("a"), tasks=2), Phase(name="b", work=noting("b"), tasks=1))
    do(corpus, Step(name="extract", phases=phases, settings={}, inputs=dict))
    assert order == [("a", 0), ("a", 1), ("b", 0)]


def test_a_full_disk_is_one_sentence(corpus: Corpus) -> None:
    def full(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match=r"no space is left for .*1-extract; make room, then give the same command"):
        do(corpus, step(work=full))


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
    pytest.importorskip("datatrove")
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
    found = run_step(corpus, step(), executor="slurm", tell=TOLD.append)
    assert found["counts"]["documents"] == 3
    assert "#SBATCH --array=0-2" in scripts[0]
    assert "#SBATCH --job-name=mmed-train-1-extract" in scripts[0]
    assert "launch_pickled_pipeline" in scripts[0]


def test_tasks_that_a_cluster_lost_are_told(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_run_there", lambda *_: None)
    with pytest.raises(BackendError, match="3 tasks of 1-extract ended without a result"):
        run_step(corpus, step(), executor="ray", tell=TOLD.append)
