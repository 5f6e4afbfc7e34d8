"""The core's own hook implementations: baselines, accuracies, the default prompts and the default reading of answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mmedeval.hookspecs import hookimpl
from mmedeval.specs import BackendSpec, MetricSpec

if TYPE_CHECKING:
    from mmedeval.backend import Backend
    from mmedeval.specs import ProtocolName
    from mmedeval.types import Answer, Generation, MetricFunction, Prompt, Sample, SampleResult, Task


def _load_baseline(name: str, arguments: Mapping[str, str]) -> Backend:
    from mmedeval.baselines import Baseline
    from mmedeval.errors import UsageError

    try:
        seed = int(arguments.get("seed", "0"))
    except ValueError as error:
        raise UsageError(f"--model-arg seed={arguments['seed']!r} is not a whole number") from error
    return Baseline(name, seed)


@hookimpl
def mmedeval_backends() -> Iterable[BackendSpec]:
    return [
        BackendSpec(
            name="baseline",
            summary="answers without a model: random, first, majority, longest",
            load=_load_baseline,
            arguments={"seed": "for random: another draw (default 0)"},
        )
    ]


@hookimpl
def mmedeval_metrics() -> Iterable[MetricSpec]:
    return [
        MetricSpec(
            name="accuracy",
            summary="share of items whose set of letters is exactly right, of those that were read",
            load=lambda: accuracy,
            default=True,
        ),
        MetricSpec(
            name="accuracy_strict",
            summary="the same over all items: unread and failed ones count as wrong",
            load=lambda: accuracy_strict,
            default=True,
        ),
        MetricSpec(
            name="accuracy_per_byte",
            summary="accuracy of cloze with each loglikelihood divided by the option's UTF-8 bytes",
            load=lambda: _normalised(lambda text: len(text.encode())),
            default=True,
            protocols=("cloze",),
        ),
        MetricSpec(
            name="accuracy_per_char",
            summary="accuracy of cloze with each loglikelihood divided by the option's characters",
            load=lambda: _normalised(len),
            default=True,
            protocols=("cloze",),
        ),
    ]


@hookimpl(trylast=True)
def mmedeval_render_prompt(task: Task, sample: Sample, shots: Sequence[Sample], protocol: ProtocolName) -> Prompt:
    from mmedeval.prompts import render_prompt

    return render_prompt(task, sample, shots, protocol)


@hookimpl(trylast=True)
def mmedeval_parse_answer(task: Task, sample: Sample, generation: Generation, protocol: ProtocolName) -> Answer:
    from mmedeval.answers import read_answer, read_paper_answer
    from mmedeval.types import Answer

    several = task.max_answers > 1
    if protocol in ("paper", "paper-direct"):
        return Answer(letters=read_paper_answer(generation.text, sample.options, several=several))
    return Answer(letters=read_answer(generation.text, sample.options, sample.language, several=several))


def accuracy(results: Sequence[SampleResult]) -> list[float | None]:
    """1 where the set of letters is exactly right, 0 where it is not, nothing where none was read (Qiu et al. 2024)."""
    return [None if result.right is None else float(result.right) for result in results]


def accuracy_strict(results: Sequence[SampleResult]) -> list[float | None]:
    """As `accuracy`, but an unread or failed item counts as wrong."""
    return [None if result.status == "unscored" else float(bool(result.right)) for result in results]


def _normalised(length: Callable[[str], int]) -> MetricFunction:
    """Accuracy of the option with the best loglikelihood per unit of its text's length (without the gap before it)."""

    def score(results: Sequence[SampleResult]) -> list[float | None]:
        values: list[float | None] = []
        for result in results:
            if result.status != "ok" or result.logprobs is None:
                values.append(None)
                continue
            logprobs, options = result.logprobs, result.sample.options
            best = max(logprobs, key=lambda letter: logprobs[letter] / length(options[letter]))
            values.append(float({best} == result.sample.answer))
        return values

    return score
