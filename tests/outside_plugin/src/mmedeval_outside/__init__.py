"""A plugin for mmedeval: a backend that echoes its question, a quiz that it half knows, and a metric.

Everything comes from `mmedeval` itself. This module is imported whenever anything is listed, so it imports nothing heavy; a real
model library would be imported in the function that `load` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmedeval import (
    Backend,
    BackendSpec,
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    MetricSpec,
    ModelError,
    Sample,
    SampleResult,
    Split,
    TaskOptions,
    TaskSpec,
    UsageError,
    digest,
    hookimpl,
)

# The hooks: what is on offer. They are called once, and do no work of their own.


@hookimpl
def mmedeval_backends() -> Iterable[BackendSpec]:
    return [
        BackendSpec(
            name="outside",
            summary="echo: takes the option that the question repeats",
            load=load_backend,
            arguments={"longest": "characters of the longest prompt that it reads (default 10000)"},
        )
    ]


@hookimpl
def mmedeval_tasks() -> Iterable[TaskSpec]:
    return [
        TaskSpec(
            name="outside_quiz",
            summary="four easy questions",
            language="en",
            load=load_quiz,
            locate=lambda options: "shipped with the plugin",
        )
    ]


@hookimpl
def mmedeval_metrics() -> Iterable[MetricSpec]:
    return [
        MetricSpec(
            name="outside_length",
            summary="how near the length of the chosen options is to that of the right ones (1: the same)",
            load=lambda: length_likeness,
        )
    ]


# The backend


class EchoBackend(Backend):
    """Thinks an answer the likelier, the more often the prompt repeats its options."""

    capabilities = frozenset({"loglikelihood", "generate"})

    def __init__(self, longest: int = 10_000) -> None:
        self.longest = longest

    def fingerprint(self) -> str:
        """Of contents, never of a name or place; a model would digest its weights and its tokenizer."""
        return digest({"backend": "echo", "version": 1})

    def describe(self) -> Mapping[str, Any]:
        """What changes the numbers stands under "settings": another value there is another run."""
        return {"settings": {"longest": self.longest}}

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods | Failure]:
        for request in requests:  # all of a run at once: a model would sort them and compute them in batches
            text = request.prompt.text.casefold()
            if len(text) > self.longest:
                yield self._too_long(request)
                continue
            repeats = {letter: text.count(option.casefold()) for letter, option in request.options.items()}
            values = tuple(-1 / (1 + sum(repeats[letter] for letter in answer) / len(answer)) for answer in request.answers)
            yield Loglikelihoods(request_id=request.id, values=values)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        for request in requests:
            text = request.prompt.question.casefold()
            if len(text) > self.longest:
                yield self._too_long(request)
                continue
            letter = max(request.options, key=lambda letter: text.count(request.options[letter].casefold()))
            yield Generation(request_id=request.id, text=f"Answer: {letter}")

    def _too_long(self, request: LoglikelihoodRequest | GenerateRequest) -> Failure:
        """A question that cannot be answered is data; an exception would end the run."""
        return Failure(request_id=request.id, kind="too_long", message=f"more than {self.longest} characters")


def load_backend(name: str, arguments: Mapping[str, str]) -> Backend:
    """`--model outside:NAME --model-arg longest=N`. Cheap: weights would be read at the first request."""
    if name != "echo":
        raise ModelError(f"outside:{name} does not exist; there is outside:echo")
    try:
        return EchoBackend(longest=int(arguments.get("longest", "10000")))
    except ValueError as error:
        raise UsageError(f"--model-arg longest={arguments['longest']!r} is not a whole number") from error


# The task


QUIZ = (
    ("What is lacking in iron deficiency anaemia?", ("folate", "iron", "vitamin B12"), "B"),
    ("Which organ makes insulin?", ("pancreas", "liver", "spleen"), "A"),
    ("Which organ does viral hepatitis inflame?", ("kidney", "lung", "liver"), "C"),
    ("Which gland is overactive in parathyroid adenoma?", ("pituitary", "adrenal", "parathyroid"), "C"),
)
EXAMPLE = ("Which vitamin prevents scurvy?", ("vitamin C", "vitamin D", "vitamin K"), "A")


@dataclass(frozen=True)
class Quiz:
    """What `load` returns needs these four names and `samples`, and no base class."""

    name: str = "outside_quiz"
    language: str = "en"
    max_answers: int = 1
    source: str = "shipped with the plugin"

    def samples(self, split: Split) -> Sequence[Sample]:
        """In a fixed order, under names that stay: they are how a stopped run finds its answers again."""
        return [
            Sample(
                id=f"{split}-{number}",
                language=self.language,
                question=question,
                options=dict(zip("ABC", options, strict=True)),
                answer=frozenset(answer),
            )
            for number, (question, options, answer) in enumerate(QUIZ if split == "test" else [EXAMPLE], start=1)
        ]


def load_quiz(options: TaskOptions) -> Quiz:
    """Called when the task is used; `options.data_dir` is where the user says that the data lie."""
    return Quiz()


# The metric


def length_likeness(results: Sequence[SampleResult]) -> list[float | None]:
    """A value per item, in order, and `None` where there is nothing to score. Means and intervals are the core's work."""
    return [None if result.prediction is None else _likeness(result.sample, result.prediction) for result in results]


def _likeness(sample: Sample, chosen: frozenset[str]) -> float:
    lengths = [sum(len(sample.options[letter]) for letter in letters) for letters in (chosen, sample.answer)]
    return min(lengths) / max(lengths)
