"""GGUF files for the tests of the backend, each written once in a session."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmedeval_hf.tiny import one_thread

WITHOUT = "llama-cpp-python is not installed (make test-gguf builds it)"


@pytest.fixture(scope="session", autouse=True)
def single() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def llama_cpp() -> Iterator[Any]:
    yield pytest.importorskip("llama_cpp", reason=WITHOUT)
    # What it leaves open would be a warning at the very end.
    left = sys.modules["llama_cpp._utils"]
    left.outnull_file.close()
    left.errnull_file.close()


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
