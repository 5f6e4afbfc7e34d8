"""Real data, and a tiny model with a tokenizer for it, for the tests of the transformers backend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmedeval_hf.tiny import one_thread

DATA = Path(__file__).parents[3].parent / "shared" / "data" / "mmedbench"


@pytest.fixture(scope="session", autouse=True)
def single() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def mmedbench() -> Path:
    """The folder with MMedBench's Train/ and Test/."""
    if not DATA.is_dir():
        pytest.skip("the MMedBench files are not beside the repository (shared/data/mmedbench)")
    return DATA


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
