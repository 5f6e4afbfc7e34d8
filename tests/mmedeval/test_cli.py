"""The command line: a wrong call or bad input is one sentence and exit code 2; screens, files and JSON say the same."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from mmedeval import LoglikelihoodRequest, RunPlan
from mmedeval.catalog import Catalog
from mmedeval.cli import cli
from mmedeval.host import make_host
from mmedeval.runner import RunStopped, prepare
from mmedeval.store import read_record, read_samples

MINI = ("--model", "baseline:random", "--tasks", "mmedbench_mini_en")
HEAVY = ("torch", "transformers", "numpy", "scipy", "huggingface_hub", "peft", "safetensors", "tokenizers", "accelerate")
needs_transformers = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
LONG = "n" * 300
MINI_DATA = Path(str(importlib.util.find_spec("mmedeval_mmedbench").origin)).parent / "mini"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test in a folder of its own, without what the caller's environment says."""
    monkeypatch.chdir(tmp_path)
    for name in ("MMEDBENCH_DIR", "MMEDEVAL_BLOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A very small model with random weights, computed on one core: two that wait for each other are slower."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    import torch

    from mmedeval_hf.tiny import make_tiny_model

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    text = (MINI_DATA / "Test" / "English.jsonl").read_text(encoding="utf-8")
    config = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    yield make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", texts=[text], config=config)
    torch.set_num_threads(threads)


def call(*arguments: str) -> Result:
    """A call in this process; whatever is not turned into a sentence comes out as the exception it is."""
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def done(*arguments: str) -> str:
    result = call(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refused(*arguments: str) -> str:
    """The one sentence with which a call is refused."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.isascii() or result.stderr.rstrip("\n").isprintable()
    return result.stderr


def run_process(*arguments: str, encoding: str = "utf-8", **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MMED", "PYTHON"))}
    return subprocess.run(
        [sys.executable, "-c", "from mmedeval.cli import cli; cli()", *arguments],
        env={**kept, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        encoding=encoding,
        timeout=120,
    )


def install(folder: Path, name: str, code: str) -> None:
    """Puts a plugin into a folder as `pip install --target` does."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[mmedeval]\n{name} = {name}\n", encoding="utf-8")


# --- wrong calls ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--model", "baseline:random", "--tasks", "mmedbench_mini_jp"), ["mmedbench_mini_jp", "mmedbench_mini_ja"]),
        (("run", "--model", "baseline:random", "--tasks", "cooking"), ["unknown task 'cooking'", "mmedbench"]),
        (("run", "--model", "baseline:random", "--tasks", "mmedbench_?x"), ["unknown task 'mmedbench_?x'"]),
        (("run", "--model", "baseline:random", "--tasks", " , "), ["mmedeval list tasks"]),
        (("run", *MINI, "--languages", "jp"), ["unknown language", "'jp'", "en"]),
        (("run", "--model", "baselin:random", "--tasks", "mmedbench_mini"), ["unknown backend 'baselin'", "baseline"]),
        (("run", "--model", "./checkpoint", "--tasks", "mmedbench_mini"), ["SCHEME:NAME", "hf:", "baseline:"]),
        (("run", "--model", "baseline:", "--tasks", "mmedbench_mini"), ["SCHEME:NAME"]),
        (("run", "--model", "baseline:rando", "--tasks", "mmedbench_mini"), ["unknown baseline 'rando'", "random"]),
        (("run", *MINI, "--metrics", "acuracy"), ["unknown metric 'acuracy'", "accuracy"]),
        (("run", *MINI, "--metrics", "accuracy_per_byte"), ["accuracy_per_byte", "'letter'", "cloze"]),
        (("run", *MINI, "--protocol", "lettre"), ["lettre", "letter", "cloze", "chat", "paper"]),
        (("run", *MINI, "--protocol", "chat"), ["'chat' needs generate", "loglikelihood"]),
        (("run", *MINI, "--model-arg", "sed=1"), ["unknown --model-arg of baseline 'sed'", "seed"]),
        (("run", "--model", "hf:x", "--tasks", "mmedbench_mini", "--model-arg", "dtyp=float32"), ["of hf 'dtyp'", "dtype"]),
        (("run", *MINI, "--model-arg", "seed"), ["--model-arg 'seed' is no pair", "NAME=VALUE"]),
        (("run", *MINI, "--model-arg", "seed=one"), ["seed='one'", "whole number"]),
        (("run", *MINI, "--shots", "99"), ["--shots 99", "20 examples"]),
        (("run", *MINI, "--shots", "-1"), ["--shots", "-1"]),
        (("run", *MINI, "--limit", "0"), ["--limit", "0"]),
        (("run", *MINI, "--limit", "ten"), ["--limit", "ten"]),
        (("run", *MINI, "--temperature", "-1"), ["--temperature", "-1"]),
        (("run", *MINI, "--temperature", "nan"), ["--temperature", "nan"]),
        (("run", *MINI, "--temperature", "inf"), ["--temperature", "inf"]),
        (("run", *MINI, "--lmit", "3"), ["--lmit", "--limit"]),
        (("run", *MINI, "mmedbench_mini_fr"), ["mmedbench_mini_fr"]),
        (("run", "--tasks", "mmedbench_mini"), ["--model"]),
        (("run", "--model", "baseline:random"), ["--tasks"]),
        (("rnu",), ["unknown command 'rnu'", "run"]),
        (("list", "task"), ["task", "tasks", "backends"]),
        (("show",), ["RUN"]),
        (("show", "nowhere"), ["nowhere is no run folder", "plan.json"]),
        (("show", "nowhere", "--wrong"), ["nowhere holds no samples.jsonl"]),
        (("show", "."), [". is no run folder", "plan.json"]),
        (("rescore", "nowhere"), ["nowhere is no run folder", "plan.json"]),
        (("show", LONG), [LONG]),
        (("run", *MINI, "--out", LONG), [LONG, "--out"]),
        (("run", *MINI, "--out", f"{__file__}/below"), ["cannot write in", "below", "--out"]),
        (("run", "--model", "baseline:random", "--tasks", "mmedbench_en", "--data-dir", LONG), [LONG]),
        (("run", "--model", f"hf:{LONG}", "--tasks", "mmedbench_mini_en"), [LONG]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_a_wrong_call_is_refused_in_one_sentence(arguments: tuple[str, ...], words: list[str]) -> None:
    quiet = ("-q",) if arguments[0] == "run" else ()
    sentence = refused(*arguments, *quiet)
    assert [word for word in words if word not in sentence] == []


def test_a_hostile_name_in_a_wrong_call_is_printed_harmlessly() -> None:
    assert "\\x1b[2J\\u202e" in refused("run", "-q", "--model", "baseline:random", "--tasks", "\x1b[2J\u202ename")
    assert "\\x1b[2J" in refused("\x1b[2J")


def test_the_traceback_is_there_for_those_who_ask_for_it() -> None:
    told = run_process("--debug", "run", "-q", "--model", "baseline:random", "--tasks", "cooking")
    assert told.returncode == 2
    assert told.stderr.startswith("Traceback")
    assert told.stderr.splitlines()[-1].startswith("error: unknown task")


# --- plugins ---


def test_a_missing_package_of_a_plugin_is_one_sentence_with_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        tmp_path / "site",
        "mmedeval_needy",
        """
from mmedeval import BackendSpec, MetricSpec, TaskSpec, hookimpl

def never(*_):
    raise AssertionError("loaded")

@hookimpl
def mmedeval_backends():
    return [BackendSpec(name="needy", summary="", load=never, requires=("no_such_engine", "click"))]

@hookimpl
def mmedeval_tasks():
    return [TaskSpec(name="needy", summary="", language="en", load=never, requires=("no_such_data",), extra="needy")]

@hookimpl
def mmedeval_metrics():
    return [MetricSpec(name="needy", summary="", load=never, requires=("no_such_score", "nor_this"))]
""",
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    backend = refused("run", "-q", "--model", "needy:x", "--tasks", "mmedbench_mini")
    assert "the backend 'needy' needs no_such_engine, not installed here; run: pip install no_such_engine\n" in backend
    task = refused("run", "-q", "--model", "baseline:first", "--tasks", "needy")
    assert "the task 'needy' needs no_such_data, not installed here; run: pip install 'mmedeval[needy]'\n" in task
    metric = refused("run", "-q", *MINI, "--metrics", "needy")
    assert "run: pip install no_such_score nor_this\n" in metric
    assert "(needs no_such_engine)" in done("list", "backends")


def test_a_plugin_that_breaks_at_import_is_named_beside_the_name_that_it_may_have_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "mmedeval_broken", "import no_such_library_at_all")
    monkeypatch.syspath_prepend(tmp_path / "site")
    sentence = refused("run", "-q", "--model", "vendor:x", "--tasks", "mmedbench_mini")
    assert "unknown backend 'vendor'" in sentence
    assert "'mmedeval_broken' (mmedeval-broken 1.0) failed to import" in sentence
    assert "MMEDEVAL_BLOCK=mmedeval_broken" in sentence
    assert "mmedbench_mini_en" in done("list", "tasks")
    assert "no_such_library_at_all" in done("list", "plugins")


def test_a_backend_that_stops_is_one_sentence_and_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        tmp_path / "site",
        "mmedeval_stopping",
        """
from mmedeval import BackendError, BackendSpec, hookimpl
from mmedeval.testing import ScriptedBackend

def stop(request):
    raise BackendError("the server went away; start it again")

@hookimpl
def mmedeval_backends():
    return [BackendSpec(name="stopping", summary="", load=lambda name, arguments: ScriptedBackend(score=stop))]
""",
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    result = call("run", "-q", "--model", "stopping:x", "--tasks", "mmedbench_mini_en")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: the server went away; start it again\n"


# --- models ---


def spoil(model: Path, file: str, change: Callable[[bytes], bytes] | None) -> None:
    content = (model / file).read_bytes()
    (model / file).unlink()
    if change is not None:
        (model / file).write_bytes(change(content))


@needs_transformers
@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", None, ["holds no config.json", "save_pretrained"]),
        ("config.json", lambda content: content[:100], ["config.json cannot be read"]),
        ("config.json", lambda content: b"[]", ["config.json holds no JSON object"]),
        ("config.json", lambda content: content.replace(b'"llama"', b'"lama9"'), ["cannot be loaded", "lama9"]),
        ("model.safetensors", None, ["holds no weights"]),
        ("model.safetensors", lambda content: content[: len(content) // 2], ["cannot be loaded"]),
        ("model.safetensors", lambda content: b"", ["cannot be loaded"]),
        ("tokenizer.json", None, ["tokenizer", "cannot be loaded"]),
        ("tokenizer.json", lambda content: content[:1000], ["tokenizer", "cannot be loaded"]),
    ],
    ids=[
        "no config",
        "torn config",
        "list config",
        "unknown type",
        "no weights",
        "torn weights",
        "empty weights",
        "no tokenizer",
        "torn tokenizer",
    ],
)
def test_a_broken_model_folder_is_one_sentence(
    tmp_path: Path, tiny: Path, file: str, change: Callable[[bytes], bytes] | None, words: list[str]
) -> None:
    model = Path(shutil.copytree(tiny, tmp_path / "model"))
    spoil(model, file, change)
    sentence = refused("run", "-q", "--model", f"hf:{model}", "--tasks", "mmedbench_mini_en", "--limit", "1")
    assert [word for word in [str(model), *words] if word not in sentence] == []


@needs_transformers
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("./nowhere/model", ["the model folder ./nowhere/model does not exist"]),
        ("/nowhere", ["the model folder /nowhere does not exist"]),
        ("file", ["file is a file", "config.json"]),
        ("empty", ["holds no config.json"]),
    ],
)
def test_a_path_that_holds_no_model_is_one_sentence(tmp_path: Path, model: str, words: list[str]) -> None:
    (tmp_path / "file").write_text("not a model", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    sentence = refused("run", "-q", "--model", f"hf:{model}", "--tasks", "mmedbench_mini_en")
    assert [word for word in words if word not in sentence] == []
    assert not (tmp_path / "runs").exists()


@needs_transformers
def test_without_a_hub_a_name_is_one_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    model = run_process("run", "-q", "--model", "hf:org/no-such-model", "--tasks", "mmedbench_mini_en", **offline)
    data = run_process("run", "-q", "--model", "baseline:first", "--tasks", "mmedbench_en", **offline)
    for told, words in ((model, ["org/no-such-model", "path"]), (data, ["MMedBench", "--data-dir", "MMEDBENCH_DIR"])):
        assert (told.returncode, told.stdout) == (2, "")
        assert told.stderr.startswith("error: ")
        assert told.stderr.count("\n") == 1
        assert [word for word in words if word not in told.stderr] == []


@needs_transformers
def test_a_tokenizer_without_a_chat_template_is_refused_for_chat_with_the_way_out(tmp_path: Path) -> None:
    from mmedeval_hf.tiny import make_tiny_model

    model = make_tiny_model(tmp_path / "plain", chat_template=False, vocabulary=700)
    arguments = ("run", "-q", "--model", f"hf:{model}", "--tasks", "mmedbench_mini_en", "--limit", "1", "--max-tokens", "2")
    sentence = refused(*arguments, "--protocol", "chat")
    assert "has no chat template" in sentence
    assert "--no-chat-template" in sentence
    assert "plain" in done(*arguments, "--protocol", "chat", "--no-chat-template")


@pytest.mark.parametrize("fits", [0, 1, 2], ids="with {} shots dropped half of the prompts fit".format)
def test_a_prompt_that_is_too_long_loses_shots_then_fails_and_both_are_counted(tmp_path: Path, tiny: Path, fits: int) -> None:
    from transformers import AutoTokenizer

    shots, limit = 2, 8
    plan = RunPlan(model=f"hf:{tiny}", tasks=("mmedbench_mini_en",), shots=shots, limit=limit)
    catalog = Catalog(make_host())
    with catalog.open_backend(plan.model, {}) as backend:
        requests = prepare(plan, catalog, backend).tasks[0].requests
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    needed: dict[str, list[int]] = {}
    for request in requests:
        assert isinstance(request, LoglikelihoodRequest)
        texts = [request.prompt.without_shots(dropped).text for dropped in range(shots + 1)]
        # What the model must read: all but the last token of the longest continuation.
        needed[request.id.partition("/")[2]] = [
            max(len(tokenizer(text + answer)["input_ids"]) - 1 for answer in request.continuations) for text in texts
        ]
    room = sorted(tokens[fits] for tokens in needed.values())[limit // 2]
    expected = {name: next((i for i in range(shots + 1) if tokens[i] <= room), None) for name, tokens in needed.items()}
    assert set(expected.values()) == {fits, fits + 1 if fits < shots else None}

    arguments = ("--model", f"hf:{tiny}", "--tasks", "mmedbench_mini_en", "--shots", str(shots), "--limit", str(limit))
    text = done("run", "-q", *arguments, "--model-arg", f"max_length={room}", "--out", "run")
    record, results = read_record(tmp_path / "run"), {result.sample.id: result for result in read_samples(tmp_path / "run")}
    for name, dropped in expected.items():
        if dropped is None:
            assert results[name].status == "failed"
            assert str(results[name].failure).startswith("too_long: ")
        else:
            assert (results[name].status, results[name].usage.shots_dropped) == ("ok", dropped)
            assert str(results[name].prompt).count("Answer:") == shots - dropped + 1
    failed = sum(dropped is None for dropped in expected.values())
    lost = sum(dropped != 0 for dropped in expected.values())
    counts = record["counts"]
    assert (counts["failed"], counts["failures"]) == (failed, {"too_long": failed} if failed else {})
    assert counts["shots_dropped"] == lost
    warning = f"{lost} prompts were longer than the model's context and lost solved examples"
    assert warning in record["warnings"]
    assert f"warning: {warning}" in text
    assert (f"Failures: too_long {failed}" in text) is bool(failed)
    assert done("show", "run", "--failed").count("too_long: ") == failed


# --- data ---


def item(**change: object) -> dict[str, object]:
    whole: dict[str, object] = {
        "question": "ヘムの中心にある金属はどれか。",
        "options": {"A": "鉄", "B": "亜鉛", "C": "銅"},
        "answer_idx": ["A"],
        "rationale": "ヘムは鉄を含む。",
        "human_checked": 0,
        "human_check_passed": 0,
    }
    return {key: value for key, value in {**whole, **change}.items() if value is not ...}


def line(**change: object) -> bytes:
    return json.dumps(item(**change), ensure_ascii=False).encode() + b"\n"


def write_data(folder: Path, lines: Iterable[bytes], split: str = "Test") -> Path:
    file = folder / "data" / split / "Japanese.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(lines))
    return file


DATA_RUN = ("run", "-q", "--model", "baseline:first", "--tasks", "mmedbench_ja", "--data-dir", "data")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"{broken\n", ["not JSON", "mend or remove"]),
        (line()[:-20] + b"\n", ["not JSON"]),
        (b"[" * 100_000 + b"\n", ["not JSON"]),
        (b"1" * 5000 + b"\n", ["not JSON"]),
        (b"[1, 2]\n", ["list [1, 2], not an object"]),
        (line(question=...), ["'question' is missing", "'options'"]),
        (line(options=...), ["'options' is missing"]),
        (line(answer_idx=...), ["'answer_idx' is missing"]),
        (line(rationale=...), ["'rationale' is missing"]),
        (line(human_checked=...), ["'human_checked' is missing"]),
        (line(human_checked=2), ["'human_checked' is 2"]),
        (line(question=""), ["'question' is empty"]),
        (line(question=" \u3000\n"), ["'question' is empty"]),
        (line(question=7), ["'question' is 7, not a text"]),
        (line(answer_idx="D"), ['"D"', "none of the options A, B, C"]),
        (line(answer_idx=["A", "E"]), ['"E"', "none of the options A, B, C"]),
        (line(answer_idx="a"), ['"a"', "none of the options"]),
        (line(answer_idx=[]), ["'answer_idx' is []"]),
        (line(answer_idx=["A", "A"]), ["twice"]),
        (line(answer_idx=0), ["'answer_idx' is 0"]),
        (line(options={"A": "鉄", "B": "鉄", "C": "銅"}), ["options A and B are the same", "鉄"]),
        (line(options={"A": "鉄", "B": " 鉄 "}), ["options A and B are the same"]),
        (line().replace('"B": "亜鉛"'.encode(), '"A": "亜鉛", "B": "錫"'.encode()), ["A"]),
        (line(options={"A": "鉄"}), ["at least two"]),
        (line(options={"B": "鉄", "C": "銅"}), ["letters from A on"]),
        (line(options={"A": "鉄", "B": ""}), ["option B"]),
        (line(options=["鉄", "銅"]), ["not an object"]),
        (line(question="\\ud800".join("ab")).replace(b"\\\\", b"\\"), ["question"]),
        ("Où est le fer ?".encode("latin-1") + b"\n", ["not UTF-8", "0xf9 at column 2"]),
        (line().decode().encode("utf-16-le"), ["Japanese.jsonl"]),
        (b"\xef\xbb\xbf" + line(), ["not JSON"]),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else "",
)
def test_a_bad_line_of_data_is_named_by_file_and_line_with_what_is_wrong(tmp_path: Path, bad: bytes, words: list[str]) -> None:
    file = write_data(tmp_path, [line(), bad, line()])
    sentence = refused(*DATA_RUN)
    assert f"{file.relative_to(tmp_path)}:2: " in sentence
    assert [word for word in words if word not in sentence] == []
    assert len(sentence) < 1000
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xef\xbb\xbf" + line(), ["Japanese.jsonl:1: ", "BOM", "UTF-8 without BOM"]),
        (line().decode().encode("utf-16"), ["Japanese.jsonl:1: ", "UTF-16"]),
        (line().decode().encode("utf-16-be"), ["Japanese.jsonl:1: "]),
        (line().decode().encode("shift-jis"), ["Japanese.jsonl:1: ", "not UTF-8"]),
        (b"", ["holds no items"]),
        (b"\n \n\r\n", ["holds no items"]),
    ],
    ids=["bom", "utf-16 with bom", "utf-16 without", "shift-jis", "empty", "blank"],
)
def test_a_file_in_another_encoding_or_without_items_is_one_sentence(tmp_path: Path, content: bytes, words: list[str]) -> None:
    write_data(tmp_path, [content])
    sentence = refused(*DATA_RUN)
    assert [word for word in words if word not in sentence] == []


def test_bad_examples_are_found_where_they_are_used(tmp_path: Path) -> None:
    write_data(tmp_path, [line(), line()])
    write_data(tmp_path, [line(), line(answer_idx="Z")], split="Train")
    assert "average" not in done(*DATA_RUN)
    assert "data/Train/Japanese.jsonl:2: " in refused(*DATA_RUN, "--shots", "1").replace("\\", "/")


def test_blank_lines_count_in_the_numbers_of_lines_but_are_no_items(tmp_path: Path) -> None:
    write_data(tmp_path, [b"\n", line(), b"\r\n", line(question="もう一つ？").rstrip() + b"\r\n", b"  "])
    done(*DATA_RUN, "--out", "run")
    assert [result.sample.id for result in read_samples(tmp_path / "run")] == ["test-2", "test-4"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda data: None, ["the data folder data does not exist", "--data-dir", "MMEDBENCH_DIR"]),
        (lambda data: data.mkdir(), ["holds neither Test/ nor MMedBench.zip", "--data-dir"]),
        (lambda data: data.write_bytes(b"not a zip"), ["no readable zip"]),
        (lambda data: (data / "Test").mkdir(parents=True), ["Japanese.jsonl does not exist", "there: nothing"]),
        (lambda data: (data / "Train").mkdir(parents=True), ["Japanese.jsonl does not exist"]),
        (
            lambda data: shutil.copytree(MINI_DATA, data, ignore=lambda *_: ["Japanese.jsonl"]),
            ["Japanese.jsonl does not exist", "Test split in Japanese", "there: Chinese, English, French, Russian, Spanish"],
        ),
        (lambda data: (data / "Test" / "Japanese.jsonl").mkdir(parents=True), ["Japanese.jsonl cannot be read"]),
    ],
    ids=["missing", "empty", "no zip", "empty test", "train only", "no such language", "folder for a file"],
)
def test_data_that_are_not_there_are_one_sentence(tmp_path: Path, make: Callable[[Path], object], words: list[str]) -> None:
    make(tmp_path / "data")
    sentence = refused(*DATA_RUN)
    assert [word for word in words if word not in sentence] == []


# --- settings from a file ---


def test_a_config_file_sets_the_options_of_the_same_names_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        """
        model = "baseline:random"
        model-arg = { seed = 7 }
        tasks = ["mmedbench_ja", "mmedbench_fr"]
        protocol = "cloze"
        shots = 2
        limit = 5
        languages = ["fr"]
        metrics = ["accuracy_per_char"]
        seed = 3
        max_tokens = 50
        temperature = 0.5
        chat-template = false
        exclude-images = true
        data-dir = "data"
        save-requests = false
        quiet = true
        json = true
        """,
        encoding="utf-8",
    )
    shutil.copytree(MINI_DATA, tmp_path / "data")
    options = (
        *("--model", "baseline:random", "--model-arg", "seed=7", "--tasks", "mmedbench_ja,mmedbench_fr", "--languages", "fr"),
        *("--protocol", "cloze", "--shots", "2", "--limit", "5", "--metrics", "accuracy_per_char", "--seed", "3"),
        *("--max-tokens", "50", "--temperature", "0.5", "--no-chat-template", "--exclude-images", "--data-dir", "data"),
        *("--no-save-requests", "--quiet", "--json"),
    )
    by_file = json.loads(done("run", "--config", "run.toml"))
    by_options = json.loads(done("run", *options))
    assert by_file == by_options
    assert by_file["plan"]["shots"] == 2
    changed = (
        "--tasks",
        "mmedbench_ja",
        "--languages",
        "ja",
        "--limit",
        "3",
        "--chat-template",
        "--model-arg",
        "seed=8",
        "--save-requests",
    )
    for order in (("--config", "run.toml", *changed), (*changed, "--config", "run.toml")):
        plan = json.loads(done("run", *order))["plan"]
        assert plan == {
            **by_file["plan"],
            "tasks": ["mmedbench_ja"],
            "languages": ["ja"],
            "limit": 3,
            "chat_template": True,
            "model_args": {"seed": "8"},
            "save_requests": True,
        }


def test_names_with_underscores_and_strings_do_as_well_in_a_config_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'model = "baseline:random"\ntasks = "mmedbench_mini_en, mmedbench_mini_fr"\nsave_requests = false\nlimit = "2"\n'
        "[model_arg]\nseed = 4\n",
        encoding="utf-8",
    )
    plan = json.loads(done("run", "-q", "--json", "--config", "run.toml"))["plan"]
    assert plan["tasks"] == ["mmedbench_mini_en", "mmedbench_mini_fr"]
    assert (plan["limit"], plan["save_requests"], plan["model_args"]) == (2, False, {"seed": "4"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'modle = "x"\n', ["run.toml", "modle", "model"]),
        (b'config = "other.toml"\n', ["run.toml", "config"]),
        (b"[run]\nshots = 3\n", ["run.toml", "run"]),
        (b"shots = \n", ["run.toml", "line 1"]),
        (b"shots = 1\nshots = 2\n", ["run.toml", "line 2"]),
        ("tasks = 'é'\n".encode("latin-1"), ["run.toml", "cannot be read"]),
        (b"limit = " + b"9" * 5000, ["run.toml", "cannot be read", "digits"]),
        (b"limit = " + b"[" * 3000, ["run.toml", "cannot be read", "recursion"]),
        (b"shots = 'three'\n", ["shots", "three"]),
        (b"shots = [1, 2]\n", ["shots", "1,2"]),
        (b"limit = 2.5\n", ["limit", "2.5"]),
        (b"chat-template = 'no'\n", ["run.toml", "chat-template", "neither true nor false"]),
        (b"[shots]\none = 1\n", ["run.toml", "shots is a table"]),
        (b"model-arg = 'seed'\n", ["seed", "NAME=VALUE"]),
        (b"protocol = 'lettre'\n", ["lettre", "letter"]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_config_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "run.toml").write_bytes(content)
    sentence = refused("run", "-q", *MINI, "--config", "run.toml")
    assert [word for word in words if word not in sentence] == []


@pytest.mark.parametrize("path", ["nowhere.toml", "."])
def test_a_config_file_that_is_not_there_is_one_sentence(path: str) -> None:
    assert f"--config {path} " in refused("run", "-q", *MINI, "--config", path)


# --- what is printed ---


def test_json_is_the_record_and_nothing_else_and_quiet_is_silent(tmp_path: Path, tiny: Path) -> None:
    arguments = ("run", "--model", f"hf:{tiny}", "--tasks", "mmedbench_mini_zh", "--protocol", "chat", "--limit", "3")
    told = run_process(*arguments, "--max-tokens", "3", "--json", "--quiet", "--out", str(tmp_path / "run"))
    assert (told.returncode, told.stderr) == (0, "")
    record = json.loads(told.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record == read_record(tmp_path / "run")
    assert json.loads(done("show", str(tmp_path / "run"), "--json")) == record


def test_progress_goes_to_stderr_and_the_table_to_stdout(tmp_path: Path) -> None:
    told = run_process("run", *MINI, "--out", str(tmp_path / "run"))
    assert told.returncode == 0
    assert told.stdout.startswith("baseline:random  ·  letter, 0 shots\n")
    assert [text.startswith("mmedeval: ") and text.isprintable() for text in told.stderr.splitlines()] == [True] * 3
    again = run_process("run", *MINI, "--out", str(tmp_path / "run"))
    assert again.stdout == told.stdout
    shown = run_process("show", str(tmp_path / "run"))
    assert (shown.stdout, shown.stderr) == (told.stdout, "")


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with right, wrong, unread and failed samples, whose texts are hostile."""
    monkeypatch.setattr("sys.path", [str(tmp_path / "site"), *sys.path])
    install(
        tmp_path / "site",
        f"mmedeval_hostile_{tmp_path.name.replace('-', '_')}",
        r"""
from mmedeval import BackendSpec, Failure, Generation, hookimpl
from mmedeval.testing import ScriptedBackend

def write(request):
    number = int(request.id.rpartition("-")[2])
    if number % 4 == 0:
        return Failure(request_id=request.id, kind="backend", message="gone \x1b[2J")
    if number % 4 == 1:
        return Generation(request_id=request.id, text="\ud800 \u2028 \x1b[31m[/red] ¿quién? 鉄 🩺")
    return Generation(request_id=request.id, text=f"Answer: {'AB'[number % 2]}")

@hookimpl
def mmedeval_backends():
    return [BackendSpec(name="hostile", summary="", load=lambda name, arguments: ScriptedBackend(write=write))]
""",
    )
    done("run", "-q", "--model", "hostile:x", "--tasks", "mmedbench_mini_es,mmedbench_mini_ja", "--out", "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("option", "belongs"),
    [
        ("--wrong", lambda result: result.status == "ok" and result.prediction != result.sample.answer),
        ("--unread", lambda result: result.status == "unread"),
        ("--failed", lambda result: result.status == "failed"),
    ],
)
def test_show_picks_the_samples_that_were_asked_for(finished: Path, option: str, belongs: Callable[[Any], bool]) -> None:
    expected = ["/".join(result.key) for result in read_samples(finished) if belongs(result)]
    assert len(expected) > 10
    lines = done("show", str(finished), option, "--json", "--limit", "1000").splitlines()
    shown = [json.loads(text) for text in lines]
    assert [f"{sample['task']}/{sample['id']}" for sample in shown] == expected
    assert len(done("show", str(finished), option, "--json", "--limit", "3").splitlines()) == 3
    text = done("show", str(finished), option, "--limit", "4")
    assert [name for name in expected if f"{name}  " in text] == expected[:4]
    assert f"4 of {len(expected)} shown; --limit N shows more" in text
    assert text.replace("\n", "").isprintable()


def test_a_screen_gets_the_first_20_samples_and_a_program_all(finished: Path) -> None:
    wrong = [result for result in read_samples(finished) if result.right is False]
    assert len(wrong) > 20
    assert f"20 of {len(wrong)} shown" in done("show", str(finished), "--wrong")
    assert len(done("show", str(finished), "--wrong", "--json").splitlines()) == len(wrong)


def test_show_gives_all_of_one_sample(finished: Path) -> None:
    text = done("show", str(finished), "--sample", "mmedbench_mini_ja/test-5")
    (result,) = [result for result in read_samples(finished) if result.key == ("mmedbench_mini_ja", "test-5")]
    squeezed = "".join(text.split())
    for part in (result.sample.question, result.sample.rationale, *result.sample.options.values(), str(result.prompt)):
        assert "".join(part.split()) in squeezed
    assert "\\ud800 \\u2028 \\x1b[31m[/red] ¿quién? 鉄 🩺" in text
    assert "mmedbench_mini_ja/test-5  unread" in text
    assert "mmedbench_mini_es" not in text
    both = done("show", str(finished), "--sample", "test-5")
    assert "mmedbench_mini_ja/test-5" in both
    assert "mmedbench_mini_es/test-5" in both
    (given,) = done("show", str(finished), "--sample", "mmedbench_mini_ja/test-5", "--json").splitlines()
    assert json.loads(given)["question"] == result.sample.question
    sentence = refused("show", str(finished), "--sample", "mmedbench_mini_ja/test-99")
    assert "unknown sample" in sentence
    assert "mmedbench_mini_ja/test-9" in sentence


def test_what_a_process_prints_of_a_hostile_run_is_valid_utf_8(finished: Path) -> None:
    told = run_process("show", str(finished), "--unread", "--json")
    assert (told.returncode, told.stderr) == (0, "")
    assert json.loads(told.stdout.splitlines()[0])["status"] == "unread"
    told = run_process("show", str(finished), "--unread")
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_output_that_lacks_characters_gets_escapes_and_json_stays_json(finished: Path, encoding: str) -> None:
    def show(*options: str) -> str:
        # Where the output claims to know only ASCII it may get UTF-8 all the same.
        read_as = "utf-8" if encoding == "ascii" else encoding
        told = run_process("show", str(finished), *options, encoding=read_as, PYTHONIOENCODING=encoding)
        assert (told.returncode, told.stderr) == (0, "")
        return told.stdout

    assert "accuracy" in show()
    assert "\\u9244 \\U0001fa7a" in show("--unread")
    assert json.loads(show("--unread", "--json").splitlines()[0])["output"].endswith("¿quién? 鉄 🩺")


@pytest.mark.skipif(os.name != "posix", reason="needs pipes that tell their writer")
def test_a_run_goes_on_when_nobody_reads_its_progress_any_more(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ("run", *MINI, "--limit", "2", "--out", str(tmp_path / "run"))
    code = "from mmedeval.cli import cli; cli()"
    told = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=writer, text=True, timeout=120)
    os.close(writer)
    assert told.returncode == 0
    assert "English" in told.stdout
    assert read_record(tmp_path / "run")["counts"]["n"] == 2


def test_the_folder_of_a_stopped_run_is_printed_harmlessly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise RunStopped(Path("\x1b[2Jrun"), 1, 2)

    monkeypatch.setattr("mmedeval.runner.run", stop)
    result = call("run", "-q", *MINI)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "stopped with 1 of 2 answered; the same command goes on from there (\\x1b[2Jrun)\n"


@pytest.mark.skipif(os.name != "posix", reason="needs pipes that tell their writer")
def test_a_reader_that_has_enough_ends_the_printing_without_a_word(finished: Path) -> None:
    arguments = ("show", str(finished), "--wrong", "--failed", "--unread", "--limit", "1000")
    with subprocess.Popen(
        [sys.executable, "-c", "from mmedeval.cli import cli; cli()", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"mmedbench_mini_")
        process.stdout.close()
        assert process.stderr.read() == b""


def test_an_unfinished_run_shows_its_samples_but_no_table(finished: Path) -> None:
    (finished / "record.json").unlink()
    assert "is not finished; the same mmedeval run command goes on" in refused("show", str(finished))
    assert "test-1  unread" in done("show", str(finished), "--unread")
    assert "is not finished" in refused("rescore", str(finished))


def test_a_run_can_be_scored_again_where_its_backend_is_not(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_record(finished)
    name = f"mmedeval_hostile_{tmp_path.name.replace('-', '_')}"
    install(
        tmp_path / "site",
        "mmedeval_lengths",
        """
from mmedeval import MetricSpec, hookimpl

@hookimpl
def mmedeval_metrics():
    score = lambda results: [None if result.output is None else float(len(result.output)) for result in results]
    return [MetricSpec(name="length", summary="characters", load=lambda: score, scale=100)]
""",
    )
    monkeypatch.setenv("MMEDEVAL_BLOCK", f"{name},hf,mmedbench")
    text = done("rescore", "run", "--metrics", "length")
    assert "length" in text
    after = read_record(finished)
    assert after["counts"] == before["counts"]
    old = [row for row in after["results"] if row["metric"] != "length"]
    assert old == before["results"]
    assert {row["language"] for row in after["results"] if row["metric"] == "length"} == {"es", "ja", "avg"}
    assert done("show", "run") == text
    assert "unknown metric 'lenght'; did you mean length" in refused("rescore", "run", "--metrics", "lenght")


def test_list_names_what_is_on_offer() -> None:
    whole = done("list")
    for kind, words in {
        "tasks": ["mmedbench_ru", "mmedbench_mini", "group of 6 tasks"],
        "backends": ["baseline:", "hf:", "seed", "batch_tokens"],
        "metrics": ["accuracy", "accuracy_strict"],
        "protocols": ["auto", "letter", "cloze", "chat", "paper", "paper-direct"],
        "plugins": ["hf", "mmedbench"],
    }.items():
        assert kind.capitalize() in whole
        assert [word for word in words if word not in done("list", kind)] == []


def test_every_page_of_help_and_every_list_fits_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = ("run", "list", "show", "rescore", "doctor")
    pages = {name: done(name, "--help") for name in commands} | {
        "": done("--help"),
        "all": done("list"),
        "args": done("list", "backends"),
    }
    assert {name: line for name, page in pages.items() for line in page.splitlines() if cell_len(line) > 80} == {}
    assert [name for name in commands if name not in pages[""]] == []


# --- lightness ---


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("cli(['--help'])", (*HEAVY, "rich")),
        ("cli(['run', '--help'])", (*HEAVY, "rich")),
        ("cli(['list'])", HEAVY),
        ("cli(['doctor'])", HEAVY),
        (f"cli(['run', '-q', *{MINI!r}])", HEAVY),
        ("make_host()", HEAVY),
    ],
)
def test_what_needs_no_model_library_imports_none(code: str, unwanted: tuple[str, ...]) -> None:
    script = (
        "import contextlib, sys\nfrom mmedeval.cli import cli\n"
        f"with contextlib.suppress(SystemExit):\n    {code}\n"
        "print('\\n', *{name.partition('.')[0] for name in sys.modules})"
    ).replace("    make_host()", "    from mmedeval.host import make_host; make_host()")
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, encoding="utf-8", check=True)
    imported = set(told.stdout.splitlines()[-1].split())
    assert "mmedeval" in imported
    assert imported & set(unwanted) == set()


def test_help_takes_at_most_150_milliseconds_of_cpu() -> None:
    resource = pytest.importorskip("resource", reason="this system cannot measure the CPU time of a child")

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", "from mmedeval.cli import cli; cli()", "--help"], stdout=subprocess.DEVNULL, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return float(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    assert min(seconds() for _ in range(5)) <= 0.15
