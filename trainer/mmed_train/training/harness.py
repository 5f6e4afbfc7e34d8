"""The harness in the loop: the model in memory, asked by `mmedeval` itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch

from mmed_train.training.attention import attending_plainly
from mmed_train.training.recipe import Recipe
from mmedeval import BackendSpec, ProtocolName, RunPlan, RunRecord, UnknownNameError, digest, hookimpl
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval_hf.backend import HFBackend
from mmedeval_hf.compute import Compute

SCHEME = "memory"


class Memory(HFBackend):
    """The `hf:` backend around a model that is loaded already."""

    def __init__(self, model: Any, tokenizer: Any, name: str, fingerprint: str) -> None:
        super().__init__(name, {})
        self._loaded, self._loaded_tokenizer, self._fingerprint = model, tokenizer, fingerprint

    def fingerprint(self) -> str:
        return self._fingerprint

    def describe(self) -> Mapping[str, Any]:
        config = self._loaded.config
        return {"architecture": config.architectures, "model_type": config.model_type, "settings": {}}

    def check(self, *, chat: bool) -> None:
        if chat and not self.tokenizer.chat_template:
            from mmedeval import ModelError

            raise ModelError("the tokenizer has no chat template; evaluate with another eval.protocol, such as letter")

    @cached_property
    def tokenizer(self) -> Any:
        return self._loaded_tokenizer

    @cached_property
    def compute(self) -> Compute:
        return Compute(self._loaded, self.name, self.options)


class _Plugin:
    """Offers the one model to a catalogue."""

    def __init__(self, backend: Memory) -> None:
        self.backend = backend

    @hookimpl
    def mmedeval_backends(self) -> Iterable[BackendSpec]:
        return [BackendSpec(name=SCHEME, summary="the model in memory", load=lambda *_: self.backend)]


def plan_of(recipe: Recipe) -> RunPlan:
    """What is evaluated on the way. Raises `UnknownNameError` for a protocol that is none."""
    told = recipe.eval
    protocol = next((name for name in get_args(ProtocolName) if name == told.protocol), None)
    if protocol is None:
        raise UnknownNameError("protocol", told.protocol, get_args(ProtocolName))
    return RunPlan(
        model=f"{SCHEME}:{recipe.output.name}",
        tasks=told.tasks,
        protocol=protocol,
        limit=told.limit,
        data_dir=recipe.inside(recipe.data.data_dir) if recipe.data.data_dir else None,
    )


def evaluate(model: Any, tokenizer: Any, plan: RunPlan, folder: Path, *, name: str, identity: str) -> RunRecord:
    """Runs the plan on the model as it is, into an ordinary run folder. Leaves the model and all random numbers as they were."""
    backend = Memory(model, tokenizer, name, digest([identity, name]))
    host = make_host(extra=(_Plugin(backend),))
    was_training, was_cached = model.training, model.config.use_cache
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    model.config.use_cache = True
    try:
        # The backend has kernels of its own in the place of the plain ones.
        with torch.random.fork_rng(devices=devices), attending_plainly(model):
            record, _ = run(replace(plan, model=f"{SCHEME}:{name}"), Catalog(host), folder)
    finally:
        model.config.use_cache = was_cached
        model.train(was_training)
    return record


def accuracies(record: RunRecord) -> dict[str, float]:
    """`accuracy_TASK` of each task that could be read at all, and `accuracy`, their plain mean."""
    tasks = {
        each.task: each.value for each in record.aggregates if each.metric == "accuracy" and each.task in record.data["tasks"]
    }
    values = {f"accuracy_{task}": value for task, value in tasks.items() if value is not None}
    return {**values, "accuracy": sum(values.values()) / len(values)} if values else {}
