"""Baselines that look at no model: what a score is worth is its distance from these."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmedeval.backend import Backend
from mmedeval.errors import UnknownNameError
from mmedeval.types import Letters, LoglikelihoodRequest, Loglikelihoods, Sample, digest

BASELINES: Mapping[str, str] = {
    "random": "any allowed answer, each as likely as the others",
    "first": "the first option",
    "majority": "the answer that is most frequent in the train split",
    "longest": "the option with the longest text",
}


class Baseline(Backend):
    """Gives its answer the loglikelihood 0 and every other one -1."""

    capabilities = frozenset({"loglikelihood"})

    def __init__(self, name: str, seed: int = 0) -> None:
        if name not in BASELINES:
            raise UnknownNameError("baseline", name, BASELINES)
        self.name = name
        self.seed = seed
        self.wants_train = name == "majority"
        self._ranking: dict[str, list[Letters]] = {}

    def fingerprint(self) -> str:
        return digest({"baseline": self.name, "seed": self.seed if self.name == "random" else 0})

    def describe(self) -> Mapping[str, Any]:
        return {"baseline": self.name, "rule": BASELINES[self.name]}

    def learn(self, task: str, train: Sequence[Sample]) -> None:
        counts = Counter(sample.answer for sample in train)
        self._ranking[task] = sorted(counts, key=lambda answer: (-counts[answer], sorted(answer)))

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods]:
        choose = self._choosers()[self.name]
        for request in requests:
            chosen = choose(request)
            values = tuple(0.0 if i == chosen else -1.0 for i in range(len(request.answers)))
            yield Loglikelihoods(request_id=request.id, values=values)

    def _choosers(self) -> Mapping[str, Callable[[LoglikelihoodRequest], int]]:
        return {"random": self._random, "first": self._first, "majority": self._majority, "longest": self._longest}

    def _random(self, request: LoglikelihoodRequest) -> int:
        # Drawn from the request's own name: the answer depends neither on order nor on where a run was resumed.
        return random.Random(f"{self.seed}/{request.id}").randrange(len(request.answers))

    def _first(self, request: LoglikelihoodRequest) -> int:
        return request.answers.index(frozenset({next(iter(request.options))}))

    def _majority(self, request: LoglikelihoodRequest) -> int:
        task = request.id.partition("/")[0]
        return next((request.answers.index(a) for a in self._ranking.get(task, []) if a in request.answers), 0)

    def _longest(self, request: LoglikelihoodRequest) -> int:
        longest = max(request.options, key=lambda letter: len(request.options[letter]))
        return request.answers.index(frozenset({longest}))
