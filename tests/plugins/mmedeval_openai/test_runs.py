"""Whole runs through the command line: and the key is in nothing that they leave behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mmedeval import batches
from mmedeval.cli import cli
from mmedeval.store import read_record, read_samples

pytest.importorskip("openai")

PASSING = ("429", "429-seconds", "429-date", "500", "529", "reset", "drip", "half", "html", "cut")
FINAL = ("empty", "refusal", "filter", "too_long")
ENDING = ("expired", "unknown", "poor")
ITEMS = 14


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("FIRST_LOOK", "LONGEST_LOOK", "FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(batches, name, 0.01)


def call(server: Any, *more: str, debug: bool = True, model: str = "some-model") -> Result:
    ours = ("run", "--model", f"openai:{model}", "--model-arg", f"base_url={server.url}/v1", "--tasks", "mmedbench_mini_en")
    limits = ("--limit", str(ITEMS), "--out", "run", "--model-arg", "retries=1", "--model-arg", "timeout=0.3")
    return CliRunner().invoke(cli, [*(["--debug"] if debug else []), *ours, *limits, *more], catch_exceptions=False)


def places_with(secret: str, result: Result) -> Iterator[str]:
    """Where a secret stands among all that a call printed and wrote."""
    for name, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        if secret in text:
            yield name
    for file in Path().rglob("*"):
        if secret in str(file) or (file.is_file() and secret.encode() in file.read_bytes()):
            yield str(file)


def statuses() -> list[str]:
    return [sample.status for sample in read_samples(Path("run"))]


def test_a_run_answers_all_questions_and_its_record_says_what_it_took(faulty_server: Any) -> None:
    Path("prices.toml").write_text("[some-model]\ninput = 1\noutput = 2\n")
    result = call(faulty_server, "--model-arg", "prices=prices.toml", "--shots", "2", "--json", debug=False)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["protocol"]["used"] == "chat"
    assert statuses() == ["ok"] * ITEMS
    assert record["process"]["tries"] == ITEMS
    spent = sum(sample.usage.cost or 0 for sample in read_samples(Path("run")))
    assert record["process"]["cost"] == pytest.approx(spent, abs=1e-6)
    assert record["model"]["server"] == f"{faulty_server.url}/v1"
    assert record["model"]["known_by"].startswith("its name alone")


@pytest.mark.parametrize("batch", [(), ("--batch",)], ids=["one by one", "batch"])
@pytest.mark.parametrize("fault", [*PASSING, *FINAL, *ENDING])
def test_the_key_is_nowhere_whatever_goes_wrong(fault: str, batch: tuple[str, ...], faulty_server: Any, key: str) -> None:
    faulty_server.order(next=[] if batch else ["ok"] * 3, always={"/v1/files" if batch and fault not in FINAL else "": fault})
    if batch and fault in FINAL:
        faulty_server.order(always={"A. ": fault})
    result = call(faulty_server, *batch)
    assert faulty_server.counts()["faults"][fault] > 0
    assert list(places_with(key, result)) == []
    assert Path("run").is_dir()
    if fault in ENDING:
        assert result.exit_code == 2
        assert "[key]" in result.stderr
    elif fault in FINAL:
        assert result.exit_code == 0
        assert statuses().count("failed") == (ITEMS if batch else ITEMS - 3)
    else:
        assert result.exit_code == 1
        assert "Traceback" in result.stderr
        assert "the same command" in result.stderr.splitlines()[-1]


def test_the_key_is_nowhere_when_no_server_is_there(make_faulty_server: Any, key: str) -> None:
    gone = make_faulty_server()
    gone.stop()
    result = call(gone)
    assert result.exit_code == 1
    assert list(places_with(key, result)) == []


def test_a_key_from_a_file_is_used_and_nowhere_else(faulty_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "key.txt").write_text("sk-from-a-file\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    faulty_server.order(always={"": "expired"})
    result = call(faulty_server, "--model-arg", f"key_file={outside / 'key.txt'}")
    assert result.exit_code == 2
    assert f"the key [key] has expired; the key is from the file {outside / 'key.txt'}" in result.stderr
    assert list(places_with("sk-from-a-file", result)) == []


def test_a_wrong_model_is_one_sentence_with_exit_code_2(faulty_server: Any) -> None:
    faulty_server.order(always={"": "unknown"})
    result = call(faulty_server, debug=False)
    assert result.exit_code == 2
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert sentence == f"error: {faulty_server.url}/v1: HTTP 404: model: some-model; key [key]"
    assert "Traceback" not in result.stderr


def test_a_batch_run_is_the_same_run_for_half_the_price(faulty_server: Any) -> None:
    Path("prices.toml").write_text("[some-model]\ninput = 1\noutput = 2\n")
    priced = ("--model-arg", "prices=prices.toml")
    assert call(faulty_server, *priced, "--out", "single").exit_code == 0
    assert call(faulty_server, *priced, "--batch", "--out", "batch").exit_code == 0
    single, batch = (read_samples(Path(name)) for name in ("single", "batch"))
    assert [each.output for each in single] == [each.output for each in batch]
    costs = [read_record(Path(name))["process"]["cost"] for name in ("single", "batch")]
    assert costs[1] == pytest.approx(costs[0] / 2, abs=2e-6)
    assert faulty_server.counts()["paths"]["POST /v1/batches"] == 1
    assert json.loads(Path("batch/batches.json").read_text())["batches"] == []


def test_a_batch_run_that_is_stopped_fetches_its_batch_the_next_time(faulty_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty_server.order(polls=2)
    with monkeypatch.context() as patch:
        patch.setattr(batches.time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
        stopped = call(faulty_server, "--batch", debug=False)
    assert stopped.exit_code == 130
    assert f"stopped with 0 of {ITEMS} answered" in stopped.stderr
    result = call(faulty_server, "--batch", debug=False)
    assert result.exit_code == 0, result.output
    assert statuses() == ["ok"] * ITEMS
    counts = faulty_server.counts()
    assert counts["paths"]["POST /v1/batches"] == 1
    assert set(counts["asked"].values()) == {1}
