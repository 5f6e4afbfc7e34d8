"""The worker that asks lm-eval; runs in lm-eval's own environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from lm_eval.api.instance import Instance  # type: ignore[import-not-found]  # of the other environment
from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]
from serve import Answer, Command, read_requests, serve, timed


def load(command: Command) -> Mapping[str, Callable[[Command], Answer]]:
    lm = HFLM(pretrained=command["model"], dtype="float32", device="cpu", batch_size=1)

    def loglikelihood(command: Command) -> Answer:
        rows = read_requests(command)
        pairs = [(row["context"], continuation) for row in rows for continuation in row["continuations"]]
        instances = [_instance("loglikelihood", i, pair) for i, pair in enumerate(pairs)]
        lm.batch_size_per_gpu = command["batch"]
        scored, took = timed(lambda: lm.loglikelihood(instances))
        values = iter([value for value, _ in scored])
        return {**took, "values": [[next(values) for _ in row["continuations"]] for row in rows]}

    def generate(command: Command) -> Answer:
        settings = {"until": [], "do_sample": False, "max_gen_toks": command["max_tokens"]}
        rows = read_requests(command)
        instances = [_instance("generate_until", i, (row["context"], settings)) for i, row in enumerate(rows)]
        lm.batch_size_per_gpu = command["batch"]
        texts, took = timed(lambda: lm.generate_until(instances))
        return {**took, "texts": texts}

    return {"loglikelihood": loglikelihood, "generate": generate}


def _instance(kind: str, index: int, arguments: Sequence[Any]) -> Any:
    return Instance(request_type=kind, doc={}, arguments=tuple(arguments), idx=index)


if __name__ == "__main__":
    names = ("torch", "transformers", "tokenizers", "lm_eval")
    serve({"versions": {name: version(name) for name in names}, "threads": torch.get_num_threads()}, load)
