"""Tiny models for the tests of the transformers backend, each made once in a session."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mmedeval_hf.tiny import make_tiny_model

DATA = Path(__file__).parents[3].parent / "shared" / "data" / "mmedbench"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that share a tiny model wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mmedbench() -> Path:
    """The folder with MMedBench's Train/ and Test/."""
    if not DATA.is_dir():
        pytest.skip("the MMedBench files are not beside the repository (shared/data/mmedbench)")
    return DATA


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a tiny model like `make_tiny_model`, without a path; the same call gives the same folder."""
    made: dict[str, Path] = {}

    def make(model_type: str = "llama", **arguments: Any) -> Path:
        key = json.dumps([model_type, arguments], sort_keys=True)
        if key not in made:
            made[key] = make_tiny_model(tmp_path_factory.mktemp(model_type), model_type=model_type, **arguments)
        return made[key]

    return make


@pytest.fixture(scope="session")
def real_tiny(mmedbench: Path, tiny: Callable[..., Path]) -> Path:
    """A tiny model whose tokenizer has read the train questions of all six languages."""
    texts = []
    for file in sorted((mmedbench / "Train").glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            texts += [item["question"], *item["options"].values()]
    # Small in everything but the vocabulary, which keeps six languages short.
    small = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "initializer_range": 0.1}
    return tiny(texts=texts, vocabulary=4000, config=small)
