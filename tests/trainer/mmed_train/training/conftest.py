"""A base model, token shards and recipes that are as small as they can be."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mmed_train.corpus.shards import Kind, ShardWriter
from mmed_train.corpus.tokenizing import load_encoder
from mmed_train.training.jobs import prepare
from mmed_train.training.loop import train
from mmed_train.training.recipe import Kind as Way
from mmed_train.training.recipe import Recipe, read_recipe
from mmedeval_hf.tiny import make_tiny_model

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "initializer_range": 0.05,
    "max_position_embeddings": 4096,
}
WINDOW = 32


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "base", vocabulary=400, config=SIZES)


@pytest.fixture(scope="session")
def shards(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of 2 to 90 tokens in three languages, whose tokens follow a pattern that can be learnt."""
    folder = tmp_path_factory.mktemp("shards")
    encoder = load_encoder(base, bos=False, eos=True)
    draw = random.Random(0)
    with ShardWriter(folder / "0.tokens", encoder.vocabulary) as writer:
        for number in range(90):
            language = ("en", "fr", "zh")[number % 3]
            start, step = draw.randrange(250), 3 + number % 3
            ids = [3 + (start + step * place) % 250 for place in range(draw.randint(1, 89))]
            writer.add([*ids, 1], Kind(source="books", language=language))
    return folder


@pytest.fixture
def recipe(tmp_path: Path, base: Path, shards: Path) -> Callable[..., Recipe]:
    """Makes a recipe out of `section={name: value}`; what is not said is as small as it can be."""

    def make(kind: Way = "pretrain", *, output: str = "out", **sections: Mapping[str, Any]) -> Recipe:
        told: dict[str, dict[str, Any]] = {
            "model": {"path": str(base)},
            "train": {"batch": 2, "lr": 1e-3, "log_every": 1, "steps": 8, "save_every": 4},
        }
        if kind == "pretrain":
            told |= {"data": {"shards": [str(shards)]}, "mix": {"window": WINDOW}}
        else:
            told |= {"data": {"tasks": ["mmedbench_mini_en"], "protocols": ["letter"], "limit": 12}}
        for name, values in sections.items():
            told[name] = {name: value for name, value in {**told.get(name, {}), **values}.items() if value is not None}
        lines = [f"output = {json.dumps(output)}"]
        for name, values in told.items():
            lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
        file = tmp_path / f"{output}.toml"
        file.write_text("\n".join(lines), encoding="utf-8")
        return read_recipe(file, kind)

    return make


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + "}"
    return json.dumps(value)


@pytest.fixture
def trained() -> Callable[..., Path]:
    """Trains what a recipe says; `said` takes its sentences."""

    def run(recipe: Recipe, *, resume: bool = False, said: list[str] | None = None) -> Path:
        say = (said if said is not None else []).append
        return train(prepare(recipe, say=say), resume=resume, say=say)

    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(next(folder.glob("*model.safetensors")))


@pytest.fixture
def same_weights() -> Callable[[Path, Path], bool]:
    """Whether two folders hold the same weights, bit by bit."""

    def same(first: Path, second: Path) -> bool:
        a, b = weights(first), weights(second)
        return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

    return same


@pytest.fixture
def weights_of() -> Callable[[Path], dict[str, torch.Tensor]]:
    return weights


@pytest.fixture
def losses() -> Callable[[Path], Sequence[float]]:
    """The training losses of an output, step by step."""

    def read(output: Path) -> list[float]:
        lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if "loss" in line]

    return read
