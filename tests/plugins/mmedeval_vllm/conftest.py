"""One trained model, asked through vLLM on a CPU and through transformers; skipped where vLLM is not installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mmedeval_hf.backend import HFBackend
    from mmedeval_vllm.backend import VLLMBackend

INSTALLED = importlib.util.find_spec("vllm") is not None
if INSTALLED:
    # Read when vLLM or torch is imported, which this file leaves to its fixtures: nothing is compiled, one machine, a gigabyte
    # for the cache, and one thread, since several that share a tiny model wait for each other longer than they compute.
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks an engine needs one. Its libraries warn of each other's old names."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "engine_of" in getattr(item, "fixturenames", ()):
            if not INSTALLED:
                item.add_marker(pytest.mark.skip(reason="vllm is not installed here; make test-vllm runs this"))
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def tiny(tiny: Callable[..., Path]) -> Path:
    """A model with random weights."""
    return tiny()


@pytest.fixture(scope="session")
def engine_of() -> Iterator[Callable[..., VLLMBackend]]:
    """A backend for a folder and arguments; the same call gives the same one, and its engine is started once."""
    from mmedeval_vllm.backend import VLLMBackend

    class LastingBackend(VLLMBackend):
        """Survives the runs that close it: an engine takes long to start, and closing one ends those beside it in the process."""

        def close(self) -> None:
            pass

        def end(self) -> None:
            super().close()

    made: dict[Any, LastingBackend] = {}

    def make(path: Path, **arguments: str) -> VLLMBackend:
        key = (path, *sorted(arguments.items()))
        if key not in made:
            made[key] = LastingBackend(str(path), {"enforce_eager": "true", **arguments})
        return made[key]

    yield make
    for backend in made.values():
        backend.end()


@pytest.fixture(scope="session")
def transformers_of() -> Iterator[Callable[..., HFBackend]]:
    """The same through transformers."""
    from mmedeval_hf.backend import HFBackend

    made: dict[Any, HFBackend] = {}

    def make(path: Path, **arguments: str) -> HFBackend:
        key = (path, *sorted(arguments.items()))
        if key not in made:
            made[key] = HFBackend(str(path), {"device": "cpu", **arguments})
        return made[key]

    yield make
    for backend in made.values():
        backend.close()
