"""Requests, a backend that asks the server that misbehaves on order, and small models for real servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mmedeval import GenerateRequest, LoglikelihoodRequest, Prompt, Sampling, Shot, remote
from mmedeval.catalog import Catalog
from mmedeval.host import make_host

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for name, seconds in (("FIRST_PAUSE", 0.01), ("LONGEST_PAUSE", 0.05), ("FIRST_REST", 0.01)):
        monkeypatch.setattr(remote, name, seconds)


@pytest.fixture(scope="session")
def key() -> str:
    return "sk-planted-31ab"


@pytest.fixture
def write() -> Make:
    """Makes a request for text."""

    def make(
        question: str = "Is iron a metal?",
        *,
        id: str = "task/1",
        opening: str = "",
        shots: tuple[Shot, ...] = (),
        chat: bool = False,
        schema: Any = None,
        **sampling: Any,
    ) -> GenerateRequest:
        prompt = Prompt(question=question, opening=opening, shots=shots, chat=chat)
        return GenerateRequest(id=id, prompt=prompt, sampling=Sampling(**sampling), options={"A": "a", "B": "b"}, schema=schema)

    return make


@pytest.fixture
def score() -> Make:
    """Makes a request for loglikelihoods."""

    def make(
        question: str = "Is iron a metal?\nA. yes\nB. no\nAnswer:",
        continuations: tuple[str, ...] = (" A", " B"),
        *,
        answers: tuple[str, ...] = ("A", "B"),
        id: str = "task/1",
        shots: tuple[Shot, ...] = (),
    ) -> LoglikelihoodRequest:
        return LoglikelihoodRequest(
            id=id,
            prompt=Prompt(question=question, shots=shots),
            continuations=continuations,
            answers=tuple(frozenset(each.split(",")) for each in answers),
            options={"A": "yes", "B": "no"},
        )

    return make


@pytest.fixture
def open_backend(faulty_server: Any) -> Make:
    """Opens backends as a run does, by default for the server that misbehaves on order."""

    def opened(name: str = "some-model", **arguments: str) -> Any:
        given = {"base_url": f"{faulty_server.url}/v1", **arguments}
        return Catalog(make_host(block=[])).open_backend(f"openai:{name}", given)

    return opened
