"""The test kit for plugin authors: stand-ins for tasks and backends, and the contract that every backend keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmedeval.backend import Backend
from mmedeval.specs import BackendSpec, TaskSpec
from mmedeval.types import (
    Capability,
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    Prompt,
    Response,
    Sample,
    Sampling,
    Shot,
    Split,
    digest,
)


def make_sample(
    number: int = 1,
    *,
    answer: str = "A",
    options: Sequence[str] = ("iron", "zinc", "copper", "lead"),
    language: str = "en",
    question: str = "Which metal is at the centre of haem?",
    **fields: object,
) -> Sample:
    """A sample with sensible contents; `answer` holds the right letters, as in "AC"."""
    return Sample(
        id=f"test-{number}",
        language=language,
        question=f"{question} ({number})",
        options=dict(zip("ABCDEFGHIJ", options, strict=False)),
        answer=frozenset(answer),
        **fields,  # type: ignore[arg-type]  # any field of Sample
    )


@dataclass(frozen=True, kw_only=True)
class StaticTask:
    """A task whose samples are given."""

    test: Sequence[Sample]
    train: Sequence[Sample] = ()
    name: str = "static"
    language: str = "en"
    max_answers: int = 1
    source: str = "made by a test"

    def samples(self, split: Split) -> Sequence[Sample]:
        return self.test if split == "test" else self.train

    def spec(self, group: str | None = None) -> TaskSpec:
        """A spec that offers this task."""
        return TaskSpec(name=self.name, summary="a test", language=self.language, load=lambda _: self, group=group)


class ScriptedBackend(Backend):
    """Answers every request with what a function says; `asked` keeps the ids in the order in which they were answered."""

    def __init__(
        self,
        *,
        write: Callable[[GenerateRequest], Generation | Failure] | None = None,
        score: Callable[[LoglikelihoodRequest], Loglikelihoods | Failure] | None = None,
        name: str = "scripted",
    ) -> None:
        can: list[Capability] = []
        if write is not None:
            can += ["generate", "chat"]
        if score is not None:
            can += ["loglikelihood"]
        self.capabilities = frozenset(can)
        self._write, self._score, self.name = write, score, name
        self.asked: list[str] = []
        self.closed = False

    def fingerprint(self) -> str:
        return digest(self.name)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        if self._write is None:
            yield from super().generate(requests)
            return
        for request in requests:
            self.asked.append(request.id)
            yield self._write(request)

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods | Failure]:
        if self._score is None:
            yield from super().loglikelihood(requests)
            return
        for request in requests:
            self.asked.append(request.id)
            yield self._score(request)

    def close(self) -> None:
        self.closed = True

    def spec(self) -> BackendSpec:
        """A spec that offers this very backend as `scripted:NAME`."""
        return BackendSpec(name=self.name, summary="a test", load=lambda _name, _arguments: self)


def prefer(answer_of: Callable[[LoglikelihoodRequest], str]) -> Callable[[LoglikelihoodRequest], Loglikelihoods]:
    """A `score` function that gives the answer with these letters (as in "AC") the best loglikelihood."""

    def score(request: LoglikelihoodRequest) -> Loglikelihoods:
        wanted = frozenset(answer_of(request))
        values = tuple(-1.0 if answer == wanted else -2.0 - i for i, answer in enumerate(request.answers))
        return Loglikelihoods(request_id=request.id, values=values)

    return score


def check_backend(backend: Backend, *, tolerance: float = 1e-5) -> None:
    """Raises `AssertionError` where a backend breaks its contract: one answer per request, alone as in company.

    Asks a few short questions in several languages and lengths, all at once and then one by one. `tolerance` bounds the
    difference between loglikelihoods (1e-5 for float32).
    """
    assert backend.capabilities & {"loglikelihood", "generate"}, "the backend can do nothing"
    samples = _contract_samples()
    if "loglikelihood" in backend.capabilities:
        scored = [
            LoglikelihoodRequest(
                id=f"contract/{i}",
                prompt=prompt,
                continuations=(" A", " B", " A,B\n"),
                answers=(frozenset("A"), frozenset("B"), frozenset("AB")),
                options={"A": "a", "B": "b"},
            )
            for i, prompt in enumerate(samples)
        ]
        together = _by_id(backend.loglikelihood(scored), [request.id for request in scored])
        for request in scored:
            (alone,) = backend.loglikelihood([request])
            company = together[request.id]
            assert isinstance(alone, Loglikelihoods), f"{request.id} failed: {alone}"
            assert isinstance(company, Loglikelihoods), f"{request.id} failed: {company}"
            assert len(company.values) == len(request.continuations), "one value per continuation"
            assert all(value <= 0 for value in company.values), "a loglikelihood is a logarithm of a probability"
            differences = [abs(a - b) for a, b in zip(alone.values, company.values, strict=True)]
            assert all(each <= tolerance for each in differences), (
                f"{request.id}: alone and in company differ by {max(differences)}"
            )
    if "generate" in backend.capabilities:
        sampling = Sampling(max_tokens=8)
        written = [
            GenerateRequest(id=f"contract/{i}", prompt=prompt, sampling=sampling, options={"A": "a", "B": "b"})
            for i, prompt in enumerate(samples)
        ]
        texts = _by_id(backend.generate(written), [request.id for request in written])
        for asked in written:
            (single,) = backend.generate([asked])
            company_text = texts[asked.id]
            assert isinstance(single, Generation), f"{asked.id} failed: {single}"
            assert isinstance(company_text, Generation), f"{asked.id} failed: {company_text}"
            assert single.text == company_text.text, f"{asked.id}: alone and in company the texts differ"


def _by_id(responses: Iterable[Response], ids: Sequence[str]) -> Mapping[str, Response]:
    found: dict[str, Response] = {}
    for response in responses:
        assert response.request_id in ids, f"{response.request_id} was not asked"
        assert response.request_id not in found, f"{response.request_id} was answered twice"
        found[response.request_id] = response
    missing = set(ids) - set(found)
    assert not missing, f"no answer to {sorted(missing)}"
    return found


def _contract_samples() -> list[Prompt]:
    shot = Shot(asked="Question: Is water wet?\nAnswer:", answered=" A\n")
    return [
        Prompt(question="Question: Is iron a metal?\nAnswer:"),
        Prompt(question="問題：鉄は金属ですか。\n答え："),
        Prompt(question="Вопрос: Железо — это металл?\nОтвет:", shots=(shot, shot)),
        Prompt(question="问题：铁是金属吗？" * 20 + "\n答案："),
    ]
