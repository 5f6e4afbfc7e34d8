"""The command line with vLLM, in a process of its own: with one engine, with two, and with one over two processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmedeval import LoglikelihoodRequest, RunPlan
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import prepare
from mmedeval.store import read_samples
from mmedeval.types import join_letters
from mmedeval_hf.backend import HFBackend

COMMAND = [sys.executable, "-c", "from mmedeval.cli import main; main()", "run", "--tasks", "mmedbench_mini", "--limit", "3"]


@pytest.mark.parametrize(
    "arguments",
    [[], ["data_parallel=2", "distributed_executor=mp"], ["tensor_parallel=2"]],
    ids=["one engine", "two engines", "two processes"],
)
def test_a_run_stores_the_values_of_transformers_and_prints_nothing_of_vllms(
    arguments: list[str], engine_of: object, transformers_of: Callable[..., HFBackend], trained: Path, tmp_path: Path
) -> None:
    settings = [word for pair in ["enforce_eager=true", *arguments] for word in ("--model-arg", pair)]
    command = [*COMMAND, "--model", f"vllm:{trained}", *settings, "--json", "--out", str(tmp_path / "run")]
    # As on a user's machine, but that several engines may share its cores.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_") or name in KEPT}
    environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000, env=environment)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"(?i)vllm|gloo|INFO|WARNING|Traceback", done.stderr), done.stderr

    record = json.loads(done.stdout)
    assert record["runtime"]["dtype"] == "float32"
    assert record["runtime"]["devices"] == (2 if arguments else 1)
    assert record["determinism"]["items"] == 18
    assert record["determinism"]["largest_loglikelihood_difference"] <= 1e-4
    assert record["determinism"]["flipped"] == []

    hf = transformers_of(trained)
    plan = RunPlan(model="any:model", tasks=("mmedbench_mini",), limit=3)
    requests = {request.id: request for task in prepare(plan, Catalog(make_host()), hf).tasks for request in task.requests}
    wanted = {response.request_id: response for response in hf.loglikelihood([*requests.values()])}
    found = list(read_samples(tmp_path / "run"))
    assert len(found) == len(requests) == 18
    for result in found:
        request = requests["/".join(result.key)]
        assert isinstance(request, LoglikelihoodRequest)
        values = wanted[request.id].values
        expected = {join_letters(answer): value for answer, value in zip(request.answers, values, strict=True)}
        assert result.logprobs == pytest.approx(expected, abs=1e-4)


KEPT = {"VLLM_HOST_IP", "VLLM_CPU_KVCACHE_SPACE"}
