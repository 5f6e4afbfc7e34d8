"""The worker that asks mmedeval's `hf:` backend, and measures what the machine can do at best."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from serve import Answer, Command, read_requests, serve, timed

from mmedeval.tokens import common_prefix
from mmedeval.types import (
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    Prompt,
    Sampling,
)
from mmedeval_hf.backend import HFBackend
from mmedeval_hf.compute import Compute, Item
from mmedeval_hf.tree import distinct_tokens

ARGUMENTS = {"dtype": "float32", "device": "cpu"}
ROWS = (512, 1024, 2048, 4096)
# A burst can be faster than what a processor keeps up.
TRIAL_SECONDS, SUSTAINED_SECONDS = 0.2, 2.0


def load(command: Command) -> Mapping[str, Callable[[Command], Answer]]:
    path = command["model"]
    first = HFBackend(path, ARGUMENTS)
    model, tokenizer = first.model, first.tokenizer

    def fresh() -> HFBackend:
        """Around the loaded model; nothing that an earlier run found out is left."""
        backend = HFBackend(path, ARGUMENTS)
        backend.tokenizer = tokenizer
        backend.compute = Compute(model, path, backend.options)
        return backend

    def loglikelihood(command: Command) -> Answer:
        backend, rows = fresh(), read_requests(command)
        requests = [_scored(row) for row in rows]
        found, took = timed(lambda: _by_id(backend.loglikelihood(requests)))
        values = [_values(found[request.id]) for request in requests]
        return {**took, "values": values, "how": _how(backend)}

    def generate(command: Command) -> Answer:
        backend, rows = fresh(), read_requests(command)
        requests = [_written(row, command["max_tokens"]) for row in rows]
        found, took = timed(lambda: _by_id(backend.generate(requests)))
        answers = [_generation(found[request.id]) for request in requests]
        tokens = sum(answer.usage.tokens_out for answer in answers)
        return {**took, "texts": [answer.text for answer in answers], "tokens_out": tokens, "how": _how(backend)}

    def floor(command: Command) -> Answer:
        backend = fresh()
        pairs = [backend.encoder.encode_pair(Prompt(question=r["context"]), r["continuations"]) for r in read_requests(command)]
        items = [Item(context, continuations) for context, continuations, _ in pairs]
        return {"flops": floor_flops(model, items), "rate": matrix_rate(model), "distinct_tokens": distinct_tokens(items)}

    return {"loglikelihood": loglikelihood, "generate": generate, "floor": floor}


def _how(backend: HFBackend) -> dict[str, Any]:
    """What the backend says of the way it went, for the reader; nothing is computed from it."""
    runtime = backend.runtime()
    return {"way": runtime.get("way"), **runtime["process"]}


# --- requests ---


def _scored(row: Mapping[str, Any]) -> LoglikelihoodRequest:
    continuations = tuple(row["continuations"])
    answers = tuple(frozenset({chr(ord("A") + i)}) for i in range(len(continuations)))
    prompt = Prompt(question=row["context"])
    return LoglikelihoodRequest(id=row["id"], prompt=prompt, continuations=continuations, answers=answers, options={})


def _written(row: Mapping[str, Any], max_tokens: int) -> GenerateRequest:
    prompt = Prompt(question=row["context"])
    return GenerateRequest(id=row["id"], prompt=prompt, sampling=Sampling(max_tokens=max_tokens), options={})


def _by_id(
    responses: Iterable[Loglikelihoods | Generation | Failure],
) -> dict[str, Loglikelihoods | Generation | Failure]:
    return {response.request_id: response for response in responses}


def _values(response: Loglikelihoods | Generation | Failure) -> list[float]:
    if not isinstance(response, Loglikelihoods):
        raise SystemExit(f"no loglikelihoods came back but {response}")
    return list(response.values)


def _generation(response: Loglikelihoods | Generation | Failure) -> Generation:
    if not isinstance(response, Generation):
        raise SystemExit(f"no text came back but {response}")
    return response


# --- the floor ---


def floor_flops(model: Any, items: Sequence[Item]) -> int:
    """Floating-point operations that no way of scoring can avoid: each distinct token of the tree of sequences once."""
    config = model.config
    lengths = list(_lengths(items))
    if len(lengths) != (distinct := distinct_tokens(items)):
        raise SystemExit(f"{len(lengths)} tokens were counted for the floor, but the tree has {distinct}")
    scored = sum(1 + len(_inner(item)) for item in items)
    body = 2 * sum(layer.weight.numel() for layer in _linear_layers(model)) * len(lengths)
    attention = 4 * config.num_hidden_layers * config.hidden_size * sum(lengths)
    return int(body + attention + 2 * config.hidden_size * config.vocab_size * scored)


def _lengths(items: Sequence[Item]) -> Iterator[int]:
    """For each distinct token, how many tokens it sees, itself among them."""
    contexts = sorted(item.context for item in items)
    for before, context in itertools.pairwise([[], *contexts]):
        yield from range(common_prefix(before, context) + 1, len(context) + 1)
    for item in items:
        yield from (len(item.context) + len(path) for path in _inner(item))


def _inner(item: Item) -> set[tuple[int, ...]]:
    """The continuations' tokens that are read, each as the path to it; the last one of a continuation is only predicted."""
    return {tuple(path[:i]) for path in item.continuations for i in range(1, len(path))}


def _linear_layers(model: Any) -> list[torch.nn.Linear]:
    head = model.get_output_embeddings()
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]


def matrix_rate(model: Any) -> float:
    """Operations a second, kept up for a while, of passes through the matrices of one layer, at the best number of rows."""
    layers = _linear_layers(model)
    one = [layer.weight.detach() for layer in layers[: len(layers) // model.config.num_hidden_layers]]
    best = max(ROWS, key=lambda rows: _pass_rate(one, rows, TRIAL_SECONDS))
    return _pass_rate(one, best, SUSTAINED_SECONDS)


@torch.inference_mode()
def _pass_rate(weights: Sequence[torch.Tensor], rows: int, seconds: float) -> float:
    work = [(torch.randn(rows, w.shape[1]), w.T, torch.empty(rows, w.shape[0])) for w in weights]
    started, passes = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for given, weight, out in work:
            torch.mm(given, weight, out=out)
        passes += 1
    return 2 * rows * sum(w.numel() for w in weights) * passes / (time.perf_counter() - started)


if __name__ == "__main__":
    names = ("torch", "transformers", "tokenizers", "mmedeval")
    serve({"versions": {name: version(name) for name in names}, "threads": torch.get_num_threads()}, load)
