"""Cut off by a kill, by Ctrl-C or by a full disk, the same command goes on and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mmedeval.cli import cli
from mmedeval.store import read_record, read_samples

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits"),
    pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed"),
]
# Few tokens at once, so that the answers arrive one by one.
SETTINGS = ("--tasks", "mmedbench_mini", "--protocol", "letter", "--limit", "5", "--model-arg", "batch_tokens=64")
TOTAL = 30
LAST_DIGITS = 1e-5


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """The call that is cut off and repeated, but for its folder. One core: two that wait for each other are slower."""
    import torch

    from mmedeval_hf.tiny import make_tiny_model

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    model = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", config=config)
    yield ("run", "--model", f"hf:{model}", *SETTINGS)
    torch.set_num_threads(threads)


def call(command: Sequence[str], out: Path) -> Result:
    """The call in this process, in a folder that is no checkout: the record names the commit of the folder around it."""
    with contextlib.chdir(out.parent):
        return CliRunner().invoke(cli, [*command, "--out", str(out)], catch_exceptions=False)


def finish(command: Sequence[str], out: Path) -> int:
    """Lets the call run to its end; the number of requests that were left to answer."""
    result = call(command, out)
    assert result.exit_code == 0, result.output
    (left,) = re.findall(r"mmedeval: (\d+) requests to answer", result.stderr)
    return int(left)


def start(command: Sequence[str], out: Path, prepare: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    def before() -> None:
        # A test runner in the background may have been started deaf to Ctrl-C, and children inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if prepare is not None:
            prepare()

    return subprocess.Popen(
        [sys.executable, "-c", "from mmedeval.cli import cli; cli()", *command, "--out", str(out)],
        cwd=out.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        preexec_fn=before,
    )


def lines(out: Path) -> int:
    file = out / "samples.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def wait_for(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Returns when so many answers are stored and the process is still at work."""
    deadline = time.monotonic() + 120
    while lines(out) < count:
        assert process.poll() is None, f"ended early: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def without_times(value: Any) -> Any:
    """Also without what the last process did: another one did it, and less."""
    if isinstance(value, dict):
        own = ("started", "finished", "seconds", "process")
        return {key: without_times(item) for key, item in value.items() if key not in own}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def assert_same_run(out: Path, whole: Path, *, torn: bool = False) -> None:
    """The records are equal but for times the samples but for times and last digits."""
    record, expected = without_times(read_record(out)), without_times(read_record(whole))
    assert read_record(out)["process"]["torn_lines"] == torn
    assert record == expected
    stored = [
        [json.loads(text) for text in (path / "samples.jsonl").read_text(encoding="utf-8").splitlines()] for path in (out, whole)
    ]
    assert len(stored[0]) == len(stored[1]) == TOTAL
    for ours, theirs in zip(*map(without_times, stored), strict=True):
        for name in ("logprobs", "margin"):
            assert ours.pop(name) == pytest.approx(theirs.pop(name), abs=LAST_DIGITS, rel=0)
        assert ours == theirs
    plans = [json.loads((path / "plan.json").read_text(encoding="utf-8")) for path in (out, whole)]
    assert plans[0] == plans[1]


@pytest.fixture(scope="module")
def whole(command: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert finish(command, out) == TOTAL
    return out


@pytest.fixture(scope="module")
def killed(command: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was started three times and killed each time at a random moment behind a random number of answers."""
    out = tmp_path_factory.mktemp("killed") / "run"
    draw = random.Random(5)
    for _ in range(3):
        before = lines(out)
        with start(command, out) as process:
            wait_for(process, out, before + draw.randint(1, 4))
            time.sleep(draw.uniform(0, 0.05))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert before < lines(out) < TOTAL
    assert not (out / "record.json").exists()
    return out


def test_a_run_that_was_killed_three_times_ends_as_if_undisturbed(
    command: tuple[str, ...], whole: Path, killed: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(killed, tmp_path / "run"))
    stored = lines(out)
    assert len(read_samples(out)) == stored
    assert finish(command, out) == TOTAL - stored
    assert_same_run(out, whole)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_that_was_killed_in_the_middle_of_a_line_ends_as_if_undisturbed(
    command: tuple[str, ...], whole: Path, killed: Path, tmp_path: Path, seed: int
) -> None:
    out = Path(shutil.copytree(killed, tmp_path / "run"))
    content = (out / "samples.jsonl").read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    last = content.rfind(b"\n", 0, -1) + 1
    (out / "samples.jsonl").write_bytes(content[: random.Random(seed).randrange(last + 1, len(content))])
    stored = lines(out)
    assert finish(command, out) == TOTAL - stored
    assert_same_run(out, whole, torn=True)


def test_a_run_that_was_killed_between_its_last_answer_and_its_record_ends_as_if_undisturbed(
    command: tuple[str, ...], whole: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    (out / "record.json").unlink()
    assert finish(command, out) <= 1
    assert_same_run(out, whole)


def test_ctrl_c_says_how_to_go_on_and_a_second_process_is_refused_meanwhile(
    command: tuple[str, ...], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with start(command, out) as process:
        wait_for(process, out, 3)
        process.send_signal(signal.SIGSTOP)
        second = call(command, out)
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert second.exit_code == 2
    assert "another mmedeval process is working in" in second.stderr.splitlines()[-1]
    assert (process.returncode, stdout) == (130, "")
    stored = lines(out)
    assert 3 <= stored < TOTAL
    *progress, sentence = stderr.splitlines()
    assert all(text.startswith("mmedeval: ") for text in progress)
    assert sentence == f"stopped with {stored} of {TOTAL} answered; the same command goes on from there ({out})"
    assert finish(command, out) == TOTAL - stored
    assert_same_run(out, whole)


def test_ctrl_c_before_the_first_answer_is_no_error_either(command: tuple[str, ...], tmp_path: Path) -> None:
    with start(command, tmp_path / "run") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "mmedeval: reading data and model files\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert [line.startswith("stopped") for line in stderr.splitlines() if line] == [True]


def test_a_disk_that_fills_up_in_the_middle_is_one_sentence_and_what_was_answered_is_safe(tmp_path: Path) -> None:
    import resource

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = ("run", "--model", "baseline:random", "--tasks", "mmedbench_mini", "-q")
    out = tmp_path / "run"
    with start(command, out, fill) as process:
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (2, "")
    stored = len(read_samples(out))
    assert 10 < stored < 240
    assert stderr.startswith(f"error: no space left to write in {out}")
    assert f"{stored} answers are safe, the same command goes on from there" in stderr
    assert stderr.count("\n") == 1
    assert call(command, out).exit_code == 0
    assert call(command, tmp_path / "whole").exit_code == 0
    record, expected = (without_times(read_record(path)) for path in (out, tmp_path / "whole"))
    assert record == expected
    assert read_samples(out) == read_samples(tmp_path / "whole")
