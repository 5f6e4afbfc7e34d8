"""What the tests of the backends that load models share: tiny models, and one that has learnt something."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from mmedeval_hf.tiny import TinyModels

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """Makes a tiny model like `make_tiny_model`, without a path; the same call gives the same folder."""
    return TinyModels(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def trained(pytestconfig: pytest.Config) -> Path:
    """A llama that has learnt the embedded questions; made once, kept in pytest's cache from session to session."""
    spec = importlib.util.spec_from_file_location("trained_model", TESTS / "trained_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert pytestconfig.cache is not None
    found: Path = module.trained_model(pytestconfig.cache.mkdir("trained_model"))
    return found
