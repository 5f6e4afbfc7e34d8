"""From vLLM's prompt_logprobs to one loglikelihood per continuation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmedeval import Failure, Loglikelihoods
from mmedeval.tokens import Scoring


@dataclass(slots=True, kw_only=True)
class Asked:
    """A question with its continuations, and what is known of them so far.

    `known` maps the first tokens of a continuation to the loglikelihood of the last one of them; continuations that begin alike
    share it. vLLM leaves out the tokens whose predecessors it found in its prefix cache: those that lie in the question are not
    wanted, and those of a continuation another one has brought that begins alike. What is still missing has to be asked again
    without the cache.
    """

    scoring: Scoring
    known: dict[tuple[int, ...], float] = field(default_factory=dict)
    open: int = 0
    seconds: float = 0.0

    @property
    def missing(self) -> list[tuple[int, ...]]:
        """The continuations, each once, of which some token is not known."""
        distinct = dict.fromkeys(tuple(ids) for ids in self.scoring.continuations)
        return [ids for ids in distinct if any(ids[: i + 1] not in self.known for i in range(len(ids)))]

    def take(self, continuation: tuple[int, ...], rows: Sequence[Mapping[int, Any]], cached: int) -> None:
        """Reads the `prompt_logprobs` of question and continuation, the first `cached` tokens of which were not computed.

        Row i, counted from the end, is about the i-th last token. Of the cached ones there may be no row, or one with anything.
        """
        first = max(0, cached + 1 - len(self.scoring.context))
        for i in range(first, len(continuation)):
            found = rows[i - len(continuation)].get(continuation[i])
            if found is not None:
                self.known[continuation[: i + 1]] = float(found.logprob)

    def response(self) -> Loglikelihoods | Failure:
        name, usage = self.scoring.request.id, replace(self.scoring.usage, seconds=self.seconds)
        if self.missing:
            message = f"vLLM gave no loglikelihood of {len(self.missing)} continuations"
            return Failure(request_id=name, kind="backend", message=message, usage=usage)
        continuations = self.scoring.continuations
        values = tuple(sum(self.known[tuple(ids[: i + 1])] for i in range(len(ids))) for ids in continuations)
        return Loglikelihoods(request_id=name, values=values, usage=usage)
