"""The base class of everything that answers requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmedeval.errors import ModelError
from mmedeval.types import (
    Capability,
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    Request,
    Response,
    Sample,
)


class Backend:
    """A model that can be asked.

    A backend gets all requests of a run at once, so that it may sort, pack and share prefixes, and yields one response per
    request in any order, as they are ready. A request that cannot be answered yields a `Failure`; an exception ends the run
    (what was yielded before is kept). Nothing heavy may happen before the first request.
    """

    capabilities: frozenset[Capability] = frozenset()

    def fingerprint(self) -> str:
        """A digest of the model's contents (weights, configuration, tokenizer), never of its name or place."""
        raise NotImplementedError

    def describe(self) -> Mapping[str, Any]:
        """What the record says about the model: JSON-like, no secrets, the same before and after loading."""
        return {}

    def runtime(self) -> Mapping[str, Any]:
        """What is known once the model is loaded: device, precision, limits.

        Under "warnings" stands a list of sentences. What stands under "process" (such as batch sizes) is this process's own: of a
        resumed run the record tells that of the last one.
        """
        return {}

    def learn(self, task: str, train: Sequence[Sample]) -> None:
        """Gets the train split of each task when `wants_train` is set; only baselines do."""

    wants_train: bool = False

    def check(self, *, chat: bool) -> None:
        """Raises `ModelError` where this model cannot do what the run will ask, before anything is computed."""

    def keep_in(self, folder: Path) -> None:
        """Names a folder of the run before anything is asked: there a backend may keep what it must find again after a stop.

        It may not exist yet.
        """

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        raise ModelError(f"{type(self).__name__} cannot generate text")

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods | Failure]:
        raise ModelError(f"{type(self).__name__} cannot compute loglikelihoods")

    def most_cost(self, requests: Sequence[Request]) -> float | None:
        """US dollars that these requests cost at most; `None` where nothing has to be paid or no price is known."""
        return None

    def alone(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Answers requests once more, each computed by itself, to see whether the company of others changes an answer.

        For backends that compute requests together; by default there is nothing to see.
        """
        return iter(())

    def close(self) -> None:
        """Gives back what the backend holds. Called once, also after an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
