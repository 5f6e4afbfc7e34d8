"""The backend against servers of others, with the same weights as `hf:`: llama_cpp.server and `transformers serve`."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmedeval import (
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    ModelError,
    Prompt,
    Request,
    RunPlan,
    Sampling,
    Task,
    TaskOptions,
)
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.prompts import make_request, render_prompt
from mmedeval.runner import run
from mmedeval.testing import check_backend

pytest.importorskip("openai")
pytest.importorskip("transformers", reason="transformers is not installed")

Make = Callable[..., Any]
NOT_HERE = "llama_cpp.server is not installed (make test-gguf builds it)"
GREEDY = '{"repeat_penalty": 1.0}'
"""llama_cpp.server punishes repetition unless told otherwise."""


class Server:
    """A program that answers on a free port, once it does."""

    def __init__(self, folder: Path, port: int, *command: str, ready: str, seconds: float = 120.0) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.log = folder / f"server-{port}.log"
        with self.log.open("w") as log:
            env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            self.process = subprocess.Popen([*command], stdout=log, stderr=subprocess.STDOUT, env=env, cwd=folder)
        deadline = time.monotonic() + seconds
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5).close()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(self.log.read_text()[-3000:]) from None
                time.sleep(0.1)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))
        port: int = link.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], str]]:
    """Serves a checkpoint as an F32 GGUF file and gives the address."""
    for package in ("llama_cpp", "uvicorn", "fastapi", "gguf"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(NOT_HERE)
    from mmed_train.gguf import export_gguf

    folder = tmp_path_factory.mktemp("llama")
    servers: dict[Path, Server] = {}

    def serve(checkpoint: Path) -> str:
        if checkpoint not in servers:
            file = export_gguf(checkpoint, folder / f"{len(servers)}.gguf", "f32").path
            port = free_port()
            settings = {"n_ctx": 2048, "n_threads": 1, "n_threads_batch": 1, "type_k": 0, "type_v": 0, "verbose": "false"}
            options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
            where = ("--host", "127.0.0.1", "--port", str(port))
            command = (sys.executable, "-m", "llama_cpp.server", "--model", str(file), *where, *options)
            servers[checkpoint] = Server(folder, port, *command, ready="/v1/models")
        return servers[checkpoint].url

    yield serve
    for server in servers.values():
        server.stop()


@pytest.fixture(scope="module")
def transformers_server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip("transformers serve needs fastapi and uvicorn, which are not installed")
    port = free_port()
    program = "from transformers.cli.transformers import main; main()"
    where = ("--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32")
    server = Server(
        tmp_path_factory.mktemp("serve"), port, sys.executable, "-c", program, "serve", str(trained), *where, ready="/health"
    )
    yield server.url
    server.stop()


def opened(reference: str, **arguments: str) -> Any:
    return Catalog(make_host(block=[])).open_backend(reference, arguments)


def tasks(*names: str) -> list[Task]:
    return [spec.load(TaskOptions()) for spec in Catalog(make_host(block=[])).select_tasks(names)]


def asked(protocol: Any, languages: Sequence[str], count: int, max_tokens: int = 40) -> list[Any]:
    """The first questions of the embedded sets, as a run puts them."""
    sampling = Sampling(max_tokens=max_tokens)
    found: list[Request] = []
    for task in tasks(*(f"mmedbench_mini_{language}" for language in languages)):
        for sample in task.samples("test")[:count]:
            prompt = render_prompt(task, sample, (), protocol)
            found.append(make_request(task, sample, prompt, protocol, sampling, request_id=f"{task.name}/{sample.id}"))
    return found


def by_id(responses: Iterator[Any]) -> dict[str, Any]:
    return {response.request_id: response for response in responses}


@pytest.fixture(scope="module")
def completions(llama_server: Callable[[Path], str], trained: Path) -> Make:
    def make(**arguments: str) -> Any:
        given = {"base_url": llama_server(trained), "endpoint": "completions", "concurrency": "2", "extra_body": GREEDY}
        return opened("openai:trained", **{**given, **arguments})

    return make


# --- llama_cpp.server: completions ---


def test_llama_server_keeps_the_contract(completions: Make) -> None:
    with completions() as backend:
        check_backend(backend, tolerance=1e-3)


@pytest.mark.parametrize(("protocol", "count"), [("letter", 1), ("cloze", 1)])
def test_loglikelihoods_through_llama_server_are_those_of_hf(completions: Make, trained: Path, protocol: str, count: int) -> None:
    requests = asked(protocol, ("en", "zh", "ru"), count)
    if protocol == "letter":
        # Each option and some of the sets: this server takes a tenth of a second for each.
        requests = [_fewer(request, 6) for request in requests]
    with completions() as ours, opened(f"hf:{trained}", dtype="float32") as theirs:
        got, reference = by_id(ours.loglikelihood(requests)), by_id(theirs.loglikelihood(requests))
    assert len(got) == len(requests)
    for name, response in reference.items():
        assert isinstance(got[name], Loglikelihoods), got[name]
        assert got[name].values == pytest.approx(response.values, abs=1e-3)
        assert got[name].usage.tokens_in == response.usage.tokens_in
        assert got[name].usage.tokens_out == response.usage.tokens_out
        assert got[name].usage.border_merged == response.usage.border_merged


def _fewer(request: LoglikelihoodRequest, count: int) -> LoglikelihoodRequest:
    return LoglikelihoodRequest(
        id=request.id,
        prompt=request.prompt,
        continuations=request.continuations[:count],
        answers=request.answers[:count],
        options=request.options,
    )


def test_a_token_across_the_border_is_told_as_hf_tells_it(completions: Make, trained: Path) -> None:
    """Continuations that begin in the middle of a word, and a prompt that ends in spaces."""
    requests = [
        LoglikelihoodRequest(
            id=f"t/{i}",
            prompt=Prompt(question=question),
            continuations=continuations,
            answers=(frozenset("A"), frozenset("B")),
            options={"A": "a", "B": "b"},
        )
        for i, (question, continuations) in enumerate(
            [
                ("Question: pat", ("ient", "tern")),
                ("Answer:  ", ("A", "B")),
                ("Answer: Quest", ("ion", "ion: Which")),
                ("问题：患", ("者", "病")),
            ]
        )
    ]
    with completions() as ours, opened(f"hf:{trained}", dtype="float32") as theirs:
        got, reference = by_id(ours.loglikelihood(requests)), by_id(theirs.loglikelihood(requests))
    for name, response in reference.items():
        assert got[name].usage.border_merged == response.usage.border_merged
        assert got[name].usage.tokens_out == response.usage.tokens_out
        if not response.usage.border_merged:
            assert got[name].values == pytest.approx(response.values, abs=1e-3)
    assert {each.usage.border_merged for each in reference.values()} == {True, False}


def test_greedy_text_through_llama_server_is_that_of_hf(completions: Make, trained: Path) -> None:
    requests = asked("paper", ("en", "ja", "fr"), 3)
    with completions() as ours, opened(f"hf:{trained}", dtype="float32") as theirs:
        got, reference = by_id(ours.generate(requests)), by_id(theirs.generate(requests))
    assert len(got) == 9
    for name, response in reference.items():
        assert isinstance(got[name], Generation), got[name]
        assert (got[name].text, got[name].finish_reason) == (response.text, response.finish_reason)


def test_a_model_without_a_bos_token_is_refused_where_the_server_shifts_its_log_probabilities(
    llama_server: Callable[[Path], str], tmp_path: Path, score: Make
) -> None:
    from mmedeval_hf.tiny import make_tiny_model

    address = llama_server(make_tiny_model(tmp_path / "no-bos", bos=False))
    backend = opened("openai:tiny", base_url=address, endpoint="completions")
    with backend, pytest.raises(ModelError, match="belong to other tokens"):
        list(backend.loglikelihood([score()]))


def test_a_prompt_that_is_too_long_for_llama_server_is_told(completions: Make, write: Make) -> None:
    with completions() as backend:
        (failure,) = backend.generate([write("iron and zinc " * 2000)])
    assert failure.kind == "too_long"
    assert "maximum context length is 2048 tokens" in failure.message


# --- llama_cpp.server: chat ---


def test_letters_of_a_chat_are_ranked_as_hf_ranks_them(llama_server: Callable[[Path], str], trained: Path) -> None:
    """By the first token of the answer to the prompt as one turn of the user."""
    requests = []
    for request in asked("letter", ("en",), 6):
        letters = tuple(request.options)
        requests.append(
            LoglikelihoodRequest(
                id=request.id,
                prompt=Prompt(question=request.prompt.text, chat=True),
                continuations=letters,
                answers=tuple(map(frozenset, letters)),
                options=request.options,
            )
        )
    with opened("openai:trained", base_url=llama_server(trained), logprobs="true", concurrency="1") as ours:
        got = by_id(ours.loglikelihood(requests))
    with opened(f"hf:{trained}", dtype="float32") as theirs:
        reference = by_id(theirs.loglikelihood(requests))
    assert len(got) == 6
    for name, response in reference.items():
        # `hf:` scores the line end of the chat template too: the same for all letters.
        offsets = [ours - theirs for ours, theirs in zip(got[name].values, response.values, strict=True)]
        assert offsets == pytest.approx([offsets[0]] * len(offsets), abs=1e-3)
        assert abs(offsets[0]) < 0.05


def test_chat_text_through_llama_server_is_that_of_hf(llama_server: Callable[[Path], str], trained: Path) -> None:
    requests = asked("chat", ("en", "es"), 3)
    given = {"base_url": llama_server(trained), "extra_body": GREEDY, "concurrency": "1"}
    with opened("openai:trained", **given) as ours, opened(f"hf:{trained}", dtype="float32") as theirs:
        got, reference = by_id(ours.generate(requests)), by_id(theirs.generate(requests))
    for name, response in reference.items():
        assert (got[name].text, got[name].finish_reason) == (response.text, response.finish_reason)


def test_a_whole_run_gets_the_same_answers_as_hf(llama_server: Callable[[Path], str], trained: Path, tmp_path: Path) -> None:
    arguments = {"base_url": llama_server(trained), "extra_body": GREEDY, "concurrency": "1"}
    common = {"tasks": ("mmedbench_mini_en",), "protocol": "chat", "limit": 6, "max_tokens": 40}
    catalog = Catalog(make_host(block=[]))
    ours, _ = run(RunPlan(model="openai:trained", model_args=arguments, **common), catalog, tmp_path / "ours")
    theirs, _ = run(RunPlan(model=f"hf:{trained}", model_args={"dtype": "float32"}, **common), catalog, tmp_path / "theirs")
    assert ours.data["tasks"]["mmedbench_mini_en"] == theirs.data["tasks"]["mmedbench_mini_en"]
    assert [each.value for each in ours.aggregates] == [each.value for each in theirs.aggregates]


# --- transformers serve ---


def test_chat_text_through_transformers_serve_is_that_of_hf(transformers_server: str, trained: Path) -> None:
    requests = asked("chat", ("en", "ja", "ru"), 2)
    with opened(f"openai:{trained}", base_url=transformers_server, concurrency="2") as ours:
        got = by_id(ours.generate(requests))
    with opened(f"hf:{trained}", dtype="float32") as theirs:
        reference = by_id(theirs.generate(requests))
    for name, response in reference.items():
        assert isinstance(got[name], Generation), got[name]
        assert got[name].text == response.text


def test_transformers_serve_gives_no_log_probabilities_and_is_told_so(
    transformers_server: str, trained: Path, score: Make
) -> None:
    for arguments, words in (
        ({"logprobs": "true"}, "holds no log-probabilities"),
        ({"endpoint": "completions"}, "does not echo"),
    ):
        backend = opened(f"openai:{trained}", base_url=transformers_server, **arguments)
        with backend, pytest.raises(ModelError, match=words):
            list(backend.loglikelihood([score()]))
