"""The same weights give the same score: whole runs of a trained model through `hf:` and through `vllm:`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmedeval import BackendSpec, RunPlan, hookimpl
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import prepare, run
from mmedeval.specs import ProtocolName
from mmedeval.store import read_samples
from mmedeval_hf.backend import HFBackend
from mmedeval_vllm.backend import VLLMBackend

# The bound that is promised, and what is found in float32 with much to spare.
PROMISED = 1e-3
FOUND = 1e-4

Run = tuple[Mapping[str, Any], dict[Any, Any]]
Pair = Callable[..., tuple[Run, Run]]


def plan_of(model: str, protocol: ProtocolName, shots: int, limit: int | None) -> RunPlan:
    return RunPlan(model=model, tasks=("mmedbench_mini",), protocol=protocol, shots=shots, limit=limit, max_tokens=24)


@pytest.fixture(scope="module")
def same(
    trained: Path,
    engine_of: Callable[..., VLLMBackend],
    transformers_of: Callable[..., HFBackend],
    tmp_path_factory: pytest.TempPathFactory,
) -> Pair:
    """The record and the samples of a run on the embedded set, of `hf:` and of `vllm:`, with the session's engines."""
    specs = [
        BackendSpec(name="hf", summary="", load=lambda name, _: transformers_of(Path(name))),
        BackendSpec(name="vllm", summary="", load=lambda name, _: engine_of(Path(name))),
    ]
    plugin = SimpleNamespace(mmedeval_backends=hookimpl(lambda: specs, specname="mmedeval_backends"))
    catalog = Catalog(make_host(block=["hf", "vllm"], extra=[plugin]))

    def pair(protocol: ProtocolName, *, shots: int = 0, limit: int | None = None) -> tuple[Run, Run]:
        runs = []
        for name in ("hf", "vllm"):
            plan = plan_of(f"{name}:{trained}", protocol, shots, limit)
            record, out = run(plan, catalog, tmp_path_factory.mktemp("run") / name)
            runs.append((record.data, {sample.key: sample for sample in read_samples(out)}))
        return runs[0], runs[1]

    return pair


def prompts(record: Mapping[str, Any]) -> Any:
    found = {name: (task["prompts_digest"], task["data_digest"]) for name, task in record["tasks"].items()}
    assert len(found) == 6
    return found


def accuracies(record: Mapping[str, Any]) -> Any:
    return [(each["metric"], each["task"], each["value"]) for each in record["results"]]


@pytest.mark.parametrize(("shots", "limit"), [(0, None), (2, 8)])
@pytest.mark.parametrize("protocol", ["letter", "cloze"])
def test_tokens_loglikelihoods_and_accuracy_are_the_same(
    protocol: ProtocolName, shots: int, limit: int | None, same: Pair, record_property: Callable[[str, object], None]
) -> None:
    (hf, ours), (vllm, theirs) = same(protocol, shots=shots, limit=limit)
    assert prompts(hf) == prompts(vllm)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 6 * (limit or 40)
    differences = []
    for key, one in ours.items():
        other = theirs[key]
        assert one.logprobs.keys() == other.logprobs.keys()
        differences += [abs(one.logprobs[name] - other.logprobs[name]) for name in one.logprobs]
        assert (one.prompt, one.prediction) == (other.prompt, other.prediction)
        assert (one.usage.tokens_in, one.usage.tokens_out) == (other.usage.tokens_in, other.usage.tokens_out)
        assert (one.usage.bos, one.usage.border_merged) == (other.usage.bos, other.usage.border_merged)
    record_property(f"largest difference, {protocol}, {shots} shots", max(differences))
    assert max(differences) <= FOUND < PROMISED
    assert accuracies(hf) == accuracies(vllm)
    # The model has learnt something: what it prefers differs, and by more than rounding.
    assert len({sample.prediction for sample in ours.values()}) > 2
    assert statistics.median(sample.margin for sample in ours.values()) > 0.1
    # All of a question but the last block is read from the cache for all its continuations but the first.
    assert vllm["process"]["cached_tokens"] > 0


@pytest.mark.parametrize(("protocol", "limit"), [("chat", 12), ("paper", 4)])
def test_greedy_texts_and_what_is_read_in_them_are_the_same(protocol: ProtocolName, limit: int, same: Pair) -> None:
    (hf, ours), (vllm, theirs) = same(protocol, limit=limit)
    assert prompts(hf) == prompts(vllm)
    assert len(ours) == len(theirs) == 6 * limit
    for key, one in ours.items():
        other = theirs[key]
        assert (one.output, one.finish_reason, one.prediction) == (other.output, other.finish_reason, other.prediction)
        assert (one.usage.tokens_in, one.usage.tokens_out) == (other.usage.tokens_in, other.usage.tokens_out)
    assert len({sample.output for sample in ours.values()}) > limit
    assert accuracies(hf) == accuracies(vllm)


@pytest.mark.parametrize("protocol", ["letter", "cloze", "chat"])
def test_prompts_and_continuations_are_the_same_tokens(
    protocol: ProtocolName, trained: Path, engine_of: Callable[..., VLLMBackend], transformers_of: Callable[..., HFBackend]
) -> None:
    backends = engine_of(trained), transformers_of(trained)
    plan = plan_of("any:model", protocol, 2 if protocol != "chat" else 0, 2)
    tasks = prepare(plan, Catalog(make_host(block=[])), backends[0]).tasks
    requests: list[Any] = [request for task in tasks for request in task.requests]
    assert len(requests) == 12
    for request in requests:
        if protocol == "chat":
            ours, theirs = (backend.encoder.encode_prompt(request.prompt) for backend in backends)
        else:
            ours, theirs = (backend.encoder.encode_pair(request.prompt, request.continuations) for backend in backends)
        assert ours == theirs
