"""GGUF files for the tests of the backend, each written once in a session."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mmedeval_hf.tiny import make_tiny_model

TESTS = Path(__file__).parents[2]
WITHOUT = "llama-cpp-python is not installed (make test-gguf builds it)"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that share a tiny model wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def closed_streams() -> Iterator[None]:
    """Closes what llama_cpp leaves open, which would be a warning at the very end."""
    yield
    left = sys.modules.get("llama_cpp._utils")
    if left is not None:
        left.outnull_file.close()
        left.errnull_file.close()


@pytest.fixture(scope="session")
def llama_cpp() -> Any:
    return pytest.importorskip("llama_cpp", reason=WITHOUT)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes the checkpoint in a folder as GGUF; the same call gives the same file."""
    pytest.importorskip("gguf", reason="gguf is not installed")
    from mmed_train.gguf import export_gguf

    folder = tmp_path_factory.mktemp("gguf")

    def export(path: Path, kind: Any = "f32") -> Path:
        out = folder / f"{path.name}-{kind}.gguf"
        return out if out.is_file() else export_gguf(path, out, kind).path

    return export


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a tiny checkpoint like `make_tiny_model`, without a path; the same call gives the same folder."""
    made: dict[str, Path] = {}

    def make(model_type: str = "llama", **arguments: Any) -> Path:
        key = json.dumps([model_type, arguments], sort_keys=True)
        if key not in made:
            made[key] = make_tiny_model(tmp_path_factory.mktemp(model_type), model_type=model_type, **arguments)
        return made[key]

    return make


@pytest.fixture(scope="session")
def trained(pytestconfig: pytest.Config) -> Path:
    """The checkpoint of the model that has learnt something; kept in pytest's cache from session to session."""
    spec = importlib.util.spec_from_file_location("trained_model", TESTS / "trained_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder: Path = pytestconfig.cache.mkdir("trained_model")
    path: Path = module.trained_model(folder)
    return path
