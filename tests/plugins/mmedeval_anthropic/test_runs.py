"""Whole runs through the command line: killed, cut off, refused; and the key is in nothing that they leave behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mmedeval import remote
from mmedeval.cli import cli
from mmedeval.store import read_record, read_samples

pytest.importorskip("anthropic")

KEY = "sk-planted-77a1"
TASK = ("--tasks", "mmedbench_mini_en")
TOTAL = 40
PASSING = ("429", "429-seconds", "429-date", "500", "529", "reset", "drip", "half", "html", "cut", "spent")
FINAL = ("empty", "refusal", "filter", "too_long")
ENDING = ("expired", "unknown", "poor")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    for name, seconds in (("FIRST_PAUSE", 0.01), ("LONGEST_PAUSE", 0.05), ("FIRST_REST", 0.01)):
        monkeypatch.setattr(remote, name, seconds)


def command(server: Any, *more: str) -> tuple[str, ...]:
    return ("run", "--model", "anthropic:claude", "--model-arg", f"base_url={server.url}", *TASK, "--out", "run", *more)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def start(*arguments: str) -> subprocess.Popen[str]:
    def before() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-c", "from mmedeval.cli import cli; cli()", *arguments],
        env={**os.environ, "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        preexec_fn=before if os.name == "posix" else None,
    )


def lines(out: Path) -> int:
    file = out / "samples.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def wait_for(process: subprocess.Popen[str], out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while lines(out) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def places_with(secret: str, result: Result) -> Iterator[str]:
    """Where a secret stands among all that a call printed and wrote."""
    for name, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        if secret in text:
            yield name
    for file in Path().rglob("*"):
        if secret in str(file) or (file.is_file() and secret.encode() in file.read_bytes()):
            yield str(file)


def test_a_run_answers_all_questions_and_its_record_says_what_it_took(faulty_server: Any) -> None:
    Path("prices.toml").write_text("[claude]\ninput = 1\noutput = 2\n")
    result = call(*command(faulty_server, "--model-arg", "prices=prices.toml", "--shots", "2", "--json"))
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["protocol"]["used"] == "chat"
    assert set(faulty_server.counts()["asked"].values()) == {1}
    samples = read_samples(Path("run"))
    assert len(samples) == TOTAL
    assert {sample.status for sample in samples} == {"ok"}
    spent = sum(sample.usage.cost or 0 for sample in samples)
    assert record["process"]["cost"] == pytest.approx(spent, abs=1e-6)
    assert record["model"]["server"] == faulty_server.url


@pytest.mark.parametrize("first", [0, 10], ids=["from the start", "in the middle"])
@pytest.mark.parametrize("fault", [*PASSING, *FINAL, *ENDING])
def test_the_key_is_nowhere_whatever_goes_wrong(fault: str, first: int, faulty_server: Any) -> None:
    faulty_server.order(next=["ok"] * first, always={"": fault}, seconds=0.02)
    limits = ("--model-arg", "retries=1", "--model-arg", "timeout=0.2", "--limit", "18", "--concurrency", "4")
    result = call("--debug", *command(faulty_server, *limits))
    assert faulty_server.counts()["faults"][fault] > 0
    assert list(places_with(KEY, result)) == []
    assert Path("run").is_dir()
    if fault in ENDING:
        assert result.exit_code == 2
        assert "[key]" in result.stderr
    elif fault == "spent":
        assert result.exit_code == 0
    elif fault in FINAL:
        assert result.exit_code == 0
        assert sum(sample.status == "failed" for sample in read_samples(Path("run"))) == 18 - first
    else:
        assert result.exit_code == 1
        assert "Traceback" in result.stderr
        assert "what was answered is stored" in result.stderr.splitlines()[-1]
        assert len([s for s in read_samples(Path("run")) if s.status == "ok"]) == first


def test_the_key_is_nowhere_when_no_server_is_there_or_the_key_is_odd(
    make_faulty_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = make_faulty_server()
    gone.stop()
    result = call("--debug", *command(gone))
    assert result.exit_code == 1
    assert list(places_with(KEY, result)) == []
    monkeypatch.setenv("ANTHROPIC_API_KEY", f"{KEY} and more")
    result = call("--debug", *command(gone))
    assert result.exit_code == 2
    assert list(places_with(KEY, result)) == []


def test_a_key_on_the_command_line_is_no_argument_that_the_backend_takes(faulty_server: Any) -> None:
    result = call(*command(faulty_server, "--model-arg", f"api_key={KEY}"))
    assert result.exit_code == 2
    assert list(places_with(KEY, result)) == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_run_that_is_killed_three_times_asks_no_answered_question_again(faulty_server: Any) -> None:
    faulty_server.order(delay=0.05, rates={"500": 0.1}, seed=4)
    ours = command(faulty_server, "--concurrency", "4")
    for _ in range(3):
        before = lines(Path("run"))
        with start(*ours) as process:
            wait_for(process, Path("run"), before + 4)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert lines(Path("run")) < TOTAL
    stored = {sample.sample.question for sample in read_samples(Path("run"))}
    counts = faulty_server.counts()
    answered_before = {prompt for prompt in counts["answered"] if any(question in prompt for question in stored)}
    assert len(answered_before) == len(stored) >= 12
    times = {prompt: counts["asked"][prompt] for prompt in answered_before}
    result = call(*ours)
    assert result.exit_code == 0, result.output
    counts = faulty_server.counts()
    assert {prompt: counts["asked"][prompt] for prompt in answered_before} == times
    assert len(counts["answered"]) == TOTAL
    # Four may have been in flight at a kill and four been answered but not stored; nothing else was answered twice.
    assert sum(counts["answered"].values()) - TOTAL <= 3 * (4 + 4)
    assert len(read_samples(Path("run"))) == TOTAL
    assert read_record(Path("run"))["counts"]["failed"] == 0


def test_a_server_that_goes_away_ends_the_run_in_one_sentence_and_the_same_command_goes_on(make_faulty_server: Any) -> None:
    server = make_faulty_server()
    server.order(delay=0.05)
    ours = command(server, "--concurrency", "4", "--model-arg", "retries=2")
    with start(*ours) as process:
        wait_for(process, Path("run"), 8)
        server.stop()
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    stored = [sample for sample in read_samples(Path("run")) if sample.status == "ok"]
    assert 8 <= len(stored) < TOTAL
    sentence = stderr.splitlines()[-1]
    assert re.fullmatch(
        rf"error: {server.url} answers no more \(.*\); what was answered is stored, the same command goes on from there", sentence
    )
    assert "Traceback" not in stderr
    again = make_faulty_server(server.port)
    result = call(*ours)
    assert result.exit_code == 0, result.output
    asked = again.counts()["asked"]
    assert len(asked) == TOTAL - len(stored)
    assert set(asked.values()) == {1}


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_stops_at_once_and_says_how_to_go_on(faulty_server: Any) -> None:
    faulty_server.order(delay=0.05, always={"nothing": "ok"})
    ours = command(faulty_server, "--concurrency", "4")
    with start(*ours) as process:
        wait_for(process, Path("run"), 6)
        faulty_server.order(delay=30)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        stdout, stderr = process.communicate(timeout=60)
    assert time.monotonic() - begun < 5
    assert (process.returncode, stdout) == (130, "")
    assert re.search(rf"^stopped with \d+ of {TOTAL} answered; the same command goes on from there", stderr, re.MULTILINE)
