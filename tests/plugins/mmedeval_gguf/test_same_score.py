"""The same weights give the same score: a trained model through `hf:` and, exported, through `gguf:`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mmedeval import RunPlan
from mmedeval.catalog import Catalog
from mmedeval.cli import cli
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.store import read_samples

pytestmark = pytest.mark.usefixtures("llama_cpp")


def evaluate(model: str, folder: Path, protocol: Any, **arguments: str) -> tuple[Mapping[str, Any], dict[Any, Any]]:
    """The record of a run on the embedded set, and its samples by key."""
    shots = 2 if protocol in ("letter", "cloze") else 0
    plan = RunPlan(
        model=model, tasks=("mmedbench_mini",), protocol=protocol, shots=shots, max_tokens=24, model_args=arguments,
        limit=None if protocol in ("letter", "cloze") else 12,
    )  # fmt: skip
    record, out = run(plan, Catalog(make_host(block=[])), folder / f"{model.partition(':')[0]}-{protocol}")
    return record.data, {sample.key: sample for sample in read_samples(out)}


@pytest.fixture(scope="session")
def same(trained: Path, exported: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Both runs of a protocol: (record, samples) of `hf:` and of `gguf:`."""
    folder = tmp_path_factory.mktemp("runs")
    made: dict[str, Any] = {}

    def pair(protocol: str) -> Any:
        if protocol not in made:
            hf = evaluate(f"hf:{trained}", folder, protocol, device="cpu")
            made[protocol] = (hf, evaluate(f"gguf:{exported(trained)}", folder, protocol, threads="1"))
        return made[protocol]

    return pair


@pytest.mark.parametrize("protocol", ["letter", "cloze"])
def test_loglikelihoods_tokens_and_accuracy_are_the_same(protocol: str, same: Callable[..., Any]) -> None:
    (hf, ours), (gguf, theirs) = same(protocol)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 240
    worst = 0.0
    for key, one in ours.items():
        other = theirs[key]
        assert one.logprobs.keys() == other.logprobs.keys()
        worst = max(worst, *(abs(one.logprobs[name] - other.logprobs[name]) for name in one.logprobs))
        assert (one.prompt, one.prediction, one.usage.bos) == (other.prompt, other.prediction, other.usage.bos)
        assert (one.usage.tokens_in, one.usage.tokens_out) == (other.usage.tokens_in, other.usage.tokens_out)
    assert worst < 1e-3
    assert digests(hf) == digests(gguf)
    assert accuracies(hf) == accuracies(gguf)
    # The model has learnt something: what it prefers differs, and by more than rounding.
    assert len({sample.prediction for sample in ours.values()}) > 3
    assert statistics.median(sample.margin for sample in ours.values()) > 0.1


def digests(record: Mapping[str, Any]) -> Any:
    found = {name: (task["prompts_digest"], task["data_digest"]) for name, task in record["tasks"].items()}
    assert len(found) == 6
    return found


def accuracies(record: Mapping[str, Any]) -> Any:
    return [(each["metric"], each["task"], each["value"]) for each in record["results"]]


def test_greedy_text_is_the_same(same: Callable[..., Any]) -> None:
    (_, ours), (_, theirs) = same("chat")
    assert {key: (sample.output, sample.prediction) for key, sample in ours.items()} == {
        key: (sample.output, sample.prediction) for key, sample in theirs.items()
    }
    assert len({sample.output for sample in ours.values()}) > 10


def test_eight_bits_come_near(same: Callable[..., Any], trained: Path, exported: Callable[..., Path], tmp_path: Path) -> None:
    (_, exact), _ = same("letter")
    _, quantised = evaluate(f"gguf:{exported(trained, 'q8_0')}", tmp_path, "letter", threads="1")
    differences = [
        abs(exact[key].logprobs[name] - sample.logprobs[name]) for key, sample in quantised.items() for name in sample.logprobs
    ]
    assert 1e-3 < sum(differences) / len(differences) < 0.2
    assert sum(exact[key].prediction == sample.prediction for key, sample in quantised.items()) > 0.95 * len(exact)


def command(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli(list(args))
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_a_run_by_the_command_line_is_the_table_and_can_be_shown_again(
    trained: Path, exported: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model", f"gguf:{exported(trained, 'q8_0')}", "--tasks", "mmedbench_mini_fr", "--limit", "8"]
    code, out, _ = command(capsys, "run", *args, "--model-arg", "threads=1", "--out", str(tmp_path / "run"))
    assert code == 0
    assert "French" in out
    assert command(capsys, "show", str(tmp_path / "run"))[0] == 0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere.gguf", "the GGUF file nowhere.gguf does not exist; check the path"),
        (".", "is a folder; name one of its files, as in gguf:text.gguf"),
        ("text.gguf", "text.gguf is no GGUF file: it begins with b'just'"),
    ],
)
def test_a_wrong_file_is_one_sentence_and_exit_code_2(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.gguf").write_text("just text")
    code, out, err = command(capsys, "run", "--model", f"gguf:{name}", "--tasks", "mmedbench_mini_en")
    assert (code, out) == (2, "")
    (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert sentence in error
    assert err.endswith(f"{error}\n")
