"""How errors of the engine's parts reach the user, without an engine."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from mmedeval import BackendError
from mmedeval_vllm.engine import _sentences


@pytest.mark.parametrize(("module", "name"), [("vllm.exceptions", "VLLMError"), ("ray.exceptions", "RayError")])
def test_an_error_of_vllms_or_rays_own_kind_is_one_sentence(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(name, (Exception,), {})
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{name: kind}))
    with pytest.raises(BackendError, match="vLLM stopped: no node has room for a worker;") as caught, _sentences():
        raise kind("no node has room for a worker\nof which there are two")
    assert "\n" not in str(caught.value)


def test_an_error_that_nobody_expects_is_not_made_a_sentence() -> None:
    with pytest.raises(ZeroDivisionError), _sentences():
        raise ZeroDivisionError("a fault of our own")
