"""The frozen values that flow through a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from mmedeval.specs import ProtocolName

Split = Literal["train", "test"]
Capability = Literal["loglikelihood", "generate", "chat"]
Status = Literal["ok", "unread", "failed", "unscored"]
FailureKind = Literal["too_long", "out_of_memory", "refused", "backend"]
FinishReason = Literal["stop", "length"]
Letters = frozenset[str]


def join_letters(letters: Iterable[str]) -> str:
    """The one way an answer is written: letters in order, joined by a comma, as in `A,C`."""
    return ",".join(sorted(letters))


def digest(value: object) -> str:
    """SHA-256 (hex) of a JSON-like value in its canonical form: a fingerprint of contents, not of a place."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One multiple-choice question.

    `options` maps a letter to its text, in the order in which they are shown. `answer` holds the right letters, one or
    several. `meta` is free; some keys mean something to the core: `parallel` (the same value in several tasks, once in each,
    marks the same question in other languages), `image` (the question needs a picture that is not there), `duplicate_options`
    (two options read the same: no example for others), `human_checked` and `human_check_passed` (a person read the rationale,
    found it good).
    """

    id: str
    language: str
    question: str
    options: Mapping[str, str]
    answer: Letters
    rationale: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def contents(self) -> dict[str, Any]:
        """All that makes the sample what it is, as JSON-like data."""
        return {
            "id": self.id,
            "language": self.language,
            "question": self.question,
            "options": dict(self.options),
            "answer": sorted(self.answer),
            "rationale": self.rationale,
            "meta": dict(self.meta),
        }


class Task(Protocol):
    """A set of questions in one language.

    `max_answers` is the largest number of right letters that an item of this task may have; 1 for single-answer tasks.
    `source` says in words where the data came from, without a path.
    """

    @property
    def name(self) -> str: ...
    @property
    def language(self) -> str: ...
    @property
    def max_answers(self) -> int: ...
    @property
    def source(self) -> str: ...

    def samples(self, split: Split) -> Sequence[Sample]:
        """The samples of a split, in file order. Raises `DataError`, naming file and line, for bad data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A solved example: what is asked, and how it is answered."""

    asked: str
    answered: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is shown: an opening, solved examples, then the question itself.

    With `chat` the parts are turns of a conversation, to be put into the model's chat template; without, their texts
    follow each other with nothing between them. A prompt that is too long loses shots from the front, never its question.
    """

    question: str
    opening: str = ""
    shots: tuple[Shot, ...] = ()
    chat: bool = False

    @property
    def text(self) -> str:
        return self.opening + "".join(shot.asked + shot.answered for shot in self.shots) + self.question

    @property
    def messages(self) -> tuple[Message, ...]:
        turns = [Message(role="system", content=self.opening)] if self.opening else []
        for shot in self.shots:
            turns.append(Message(role="user", content=shot.asked))
            turns.append(Message(role="assistant", content=shot.answered))
        return (*turns, Message(role="user", content=self.question))

    def without_shots(self, count: int) -> Prompt:
        """The same prompt without its first `count` solved examples."""
        return Prompt(question=self.question, opening=self.opening, shots=self.shots[count:], chat=self.chat)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How text is generated. Temperature 0 is greedy; otherwise each request draws from its own stream of `seed`."""

    max_tokens: int = 1024
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """Ask for text. `id` is unique within a run; `options` are the letters that an answer may name.

    `schema` is a JSON schema that the text must follow, for backends that can hold a model to it; others need not know it.
    """

    id: str
    prompt: Prompt
    sampling: Sampling
    options: Mapping[str, str]
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoglikelihoodRequest:
    """Ask for log P(continuation | prompt) of each continuation. `answers[i]` is the answer that `continuations[i]` gives."""

    id: str
    prompt: Prompt
    continuations: tuple[str, ...]
    answers: tuple[Letters, ...]
    options: Mapping[str, str]


Request = GenerateRequest | LoglikelihoodRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one request took. `seconds` is wall time, shared out over the requests that were computed together.

    `tokens_in` counts the tokens of the prompt (once, however many continuations follow it); `tokens_out` those that were
    generated, or those of all continuations that were scored. `bos` is the number of BOS tokens in front (1 is right, 0 is
    missing, more is doubled); `None` where the model wants none, or the backend cannot tell. `tokens_out` includes
    `tokens_thinking`, which are no part of the answer; `tokens_in` includes `tokens_cached`, which a server had read before and
    sells cheaper. `cost` is in US dollars, `None` where nothing has to be paid or no price is known.
    """

    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    bos: int | None = None
    shots_dropped: int = 0
    border_merged: bool = False
    tokens_thinking: int = 0
    tokens_cached: int = 0
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    request_id: str
    text: str
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loglikelihoods:
    """Natural logarithms, one per continuation of the request, in its order.

    `-inf` says "less likely than all others": what a server that tells only the best few left out. An item all of whose values
    are `-inf` is unread.
    """

    request_id: str
    values: tuple[float, ...]
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request that got no answer. It is data: counted apart and shown, never scored as wrong."""

    request_id: str
    kind: FailureKind
    message: str
    usage: Usage = Usage()


Response = Generation | Loglikelihoods | Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was read from an output: some of the letters of the item's options.

    `letters` is `None` where nothing clear stands there: unread, which is not wrong.
    """

    letters: Letters | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleResult:
    """One sample with what the model did.

    `prediction` is `None` unless `status` is "ok" (or "unscored", where a protocol cannot give the full answer).
    `logprobs` maps a written answer (`A`, `A,C`) to its loglikelihood; `margin` is the distance between the best two.
    Under a `rotation` of k, `sample` holds the options k places further on, and the letters here are those of that order.
    """

    task: str
    sample: Sample
    status: Status
    prediction: Letters | None = None
    prompt: str | None = None
    output: str | None = None
    finish_reason: FinishReason | None = None
    logprobs: Mapping[str, float] | None = None
    margin: float | None = None
    failure: str | None = None
    usage: Usage = Usage()
    scores: Mapping[str, float] = field(default_factory=dict)
    rotation: int = 0

    @property
    def key(self) -> tuple[str, str]:
        return self.task, self.sample.id

    @property
    def right(self) -> bool | None:
        """Whether the set of letters is exactly the right one; `None` where there is nothing to compare."""
        return self.prediction == self.sample.answer if self.status == "ok" else None


MetricFunction = Callable[[Sequence[SampleResult]], Sequence[float | None]]
"""Scores items of one task: a value each, or `None` where the metric does not apply to the item.

It may have two methods. `prepare(catalog, folder)` is called before the model is asked, with what plugins offer and the run
folder, where the metric may keep files of its own. `describe() -> Mapping[str, Any]` says what the metric is made of (versions,
models) and what happened, for the record.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """One figure: the mean of a metric over `scored` of the `n` items of a task, with its 95 % interval."""

    metric: str
    task: str
    language: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    scored: int
    unread: int = 0
    failed: int = 0
    unscored: int = 0
    chance: float | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StopEarly:
    """Ask no more once it is certain that accuracy fell by more than `max_drop` points, or by less than `detect`.

    `baseline` is a run folder or a file of `mmedeval baseline`; `confidence` a share.
    """

    baseline: Path
    max_drop: float = 1.0
    detect: float = 5.0
    confidence: float = 0.95

    def as_json(self) -> dict[str, Any]:
        return {
            "baseline": str(self.baseline),
            "max_drop": self.max_drop,
            "detect": self.detect,
            "confidence": self.confidence,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """All that the user chose. Where things lie is part of it, but not of the run's identity."""

    model: str
    tasks: tuple[str, ...]
    model_args: Mapping[str, str] = field(default_factory=dict)
    protocol: ProtocolName | Literal["auto"] = "auto"
    shots: int = 0
    limit: int | None = None
    languages: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    metric_args: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    max_tokens: int | None = None
    temperature: float = 0.0
    chat_template: bool = True
    exclude_images: bool = False
    data_dir: Path | None = None
    save_requests: bool = True
    rotations: int | Literal["all"] | None = None
    stop_early: StopEarly | None = None

    def as_json(self) -> dict[str, Any]:
        """Every choice as JSON-like data."""
        return {
            "model": self.model,
            "model_args": dict(self.model_args),
            "tasks": list(self.tasks),
            "protocol": self.protocol,
            "shots": self.shots,
            "limit": self.limit,
            "languages": list(self.languages),
            "metrics": list(self.metrics),
            "metric_args": dict(self.metric_args),
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "chat_template": self.chat_template,
            "exclude_images": self.exclude_images,
            "data_dir": None if self.data_dir is None else str(self.data_dir),
            "save_requests": self.save_requests,
            "rotations": self.rotations,
            "stop_early": None if self.stop_early is None else self.stop_early.as_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A finished run: the figures, and what is needed to make them again. `data` is the content of `record.json`."""

    data: Mapping[str, Any]
    aggregates: tuple[Aggregate, ...]
