"""A language model as the judge of rationales, on the criteria of the paper's human study: accuracy, reasoning, knowledge.

What is judged is hostile text: it stands between marks that it cannot know, and a verdict counts only if the judge's whole answer
is the structure that was asked for, with the mark in it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmedeval import (
    Backend,
    BackendError,
    GenerateRequest,
    Generation,
    Prompt,
    Response,
    Sample,
    SampleResult,
    Sampling,
    UsageError,
    digest,
    final_part,
    rationale_of,
)
from mmedeval.remote import LimitReached
from mmedeval_rationale.rubrics import RUBRICS, Rubric
from mmedeval_rationale.scores import applies, items_of

CRITERIA = ("accuracy", "reasoning", "knowledge")
BEST = 5
MAX_TOKENS = 1024
STORE = "judge.jsonl"
ROUNDING = 1e-5
"""US dollars; less is a difference of rounding."""
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the judge is asked. `mark` stands around what is judged and in the verdict; `letters` name what is ranked."""

    key: str
    mark: str
    prompt: Prompt
    letters: str = ""

    @property
    def schema(self) -> Mapping[str, Any]:
        """What `read` takes, for judges that can be held to it (the subset of JSON Schema that servers know)."""
        parts: dict[str, Any] = {"id": {"type": "string", "enum": [self.mark]}}
        if self.letters:
            parts["ranking"] = {"type": "array", "items": {"type": "string", "enum": [*self.letters]}}
        else:
            parts |= {name: {"type": "integer", "enum": [*range(1, BEST + 1)]} for name in CRITERIA}
        return {"type": "object", "properties": parts, "required": [*parts], "additionalProperties": False}

    def read(self, text: str) -> dict[str, int] | str | None:
        """Points for each criterion, or the letters in order; `None` for anything but what was asked for."""
        return read_ranking(text, self.mark, self.letters) if self.letters else read_points(text, self.mark)


def ask(sample: Sample, candidates: Sequence[str], *, rubric: Rubric, shown: bool, judge: str) -> Question:
    """For points if there is one candidate, else for a ranking.

    `shown`: with the reference rationale; `judge` says which model is asked, and how, for the key of the stored verdict.
    """
    contents = [sample.question, dict(sample.options), sorted(sample.answer), sample.rationale if shown else None, [*candidates]]
    # Nobody can write a text that holds a digest of itself.
    mark = digest(["mark", contents])[:12]
    letters = "ABCDEF"[: len(candidates)] if len(candidates) > 1 else ""
    marked = [f"[{mark} {letter}]\n{text}" for letter, text in zip(letters, candidates, strict=False)]
    judged = "\n".join(marked) if letters else candidates[0]
    options = "\n".join(f"{letter}. {text}" for letter, text in sample.options.items())
    parts = [
        f"{rubric.question}\n{sample.question}\n{options}",
        f"{rubric.right_answer} {', '.join(sorted(sample.answer))}",
        *([f"{rubric.reference}\n{sample.rationale}"] if shown else []),
        f"{rubric.candidate.format(mark=mark)}\n[{mark}]\n{judged}\n[/{mark}]",
        (rubric.ranking if letters else rubric.points).format(mark=mark),
    ]
    prompt = Prompt(question="\n\n".join(parts), opening=rubric.opening, chat=True)
    return Question(key=digest([judge, prompt.opening, prompt.question]), mark=mark, prompt=prompt, letters=letters)


def read_points(text: str, mark: str) -> dict[str, int] | None:
    found = _verdict(text, mark)
    points = {criterion: found.get(criterion) for criterion in CRITERIA}
    if not all(isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= BEST for value in points.values()):
        return None
    return {criterion: int(value) for criterion, value in points.items() if value is not None}


def read_ranking(text: str, mark: str, letters: str) -> str | None:
    ranking = _verdict(text, mark).get("ranking")
    if (
        not isinstance(ranking, list)
        or not all(isinstance(letter, str) for letter in ranking)
        or sorted(ranking) != sorted(letters)
    ):
        return None
    return "".join(ranking)


def _verdict(text: str, mark: str) -> dict[str, Any]:
    """The verdict, if the whole answer (behind any thinking) is one JSON object with the mark; else nothing."""
    final = (final_part(text) or "").strip()
    fenced = _FENCE.fullmatch(final)
    try:
        found = json.loads(fenced[1] if fenced else final, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and found.get("id") == mark else {}


def _no_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


class Store:
    """Verdicts with their prompts in a file of the run folder: a line each, the last one for a key counts.

    A line without a key is money that brought no verdict. `spent`: US dollars, those of earlier commands included.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: dict[str, dict[str, Any]] = {}
        self.spent = 0.0
        if file.exists():
            # Not `splitlines`: a text may hold other ends of lines.
            for line in file.read_text(encoding="utf-8").split("\n"):
                try:
                    self._take(json.loads(line))
                except (ValueError, TypeError, AttributeError):
                    # The process was killed while it wrote this line: the judge is asked again.
                    continue

    def _take(self, entry: Mapping[str, Any]) -> None:
        self.spent += entry.get("cost") or 0.0
        if "key" in entry:
            self.lines[entry["key"]] = dict(entry)

    def add(self, entry: Mapping[str, Any]) -> None:
        self._take(entry)
        whole = self.file.read_text(encoding="utf-8").endswith("\n") if self.file.exists() else True
        with self.file.open("a", encoding="utf-8") as file:
            file.write(("" if whole else "\n") + json.dumps(entry, ensure_ascii=False) + "\n")


def consult(catalog: Any, settings: Settings, questions: Sequence[Question], store: Store, counts: Counter[str]) -> None:
    """Asks the judge what is not in the store; each answer is stored as it arrives.

    Raises `UsageError` for more questions than allowed, and `BackendError` where all that was asked for the store may cost more.
    """
    by_key = {question.key: question for question in questions if question.key not in store.lines}
    if settings.most is not None and counts["asked"] + len(by_key) > settings.most:
        raise UsageError(
            f"the judge would be asked {counts['asked'] + len(by_key)} times, more than --metric-arg judge_max_requests="
            f"{settings.most} allows; nothing was asked"
        )
    if not by_key:
        return
    sampling = Sampling(max_tokens=MAX_TOKENS, seed=settings.seed)
    requests = [
        GenerateRequest(id=key, prompt=question.prompt, sampling=sampling, options={}, schema=question.schema)
        for key, question in by_key.items()
    ]
    if settings.max_cost is not None and store.spent >= settings.max_cost:
        raise _spent(settings.max_cost, store)
    with open_judge(catalog, settings, spent=store.spent) as backend:
        backend.check(chat=True)
        backend.keep_in(store.file.with_suffix(""))
        cost = backend.most_cost(requests)
        paid = "" if cost is None else f", for at most {cost:.2f} US dollars"
        before = f"; {store.spent:.2f} are spent" if settings.max_cost is not None and store.spent else ""
        catalog.tell(f"{settings.model} will be asked {len(requests)} times{paid}{before}")
        told = store.spent
        try:
            for response in backend.generate(requests):
                counts["asked"] += 1
                _keep(response, by_key[response.request_id], settings, store, counts)
        except LimitReached as error:
            assert settings.max_cost is not None
            raise _spent(settings.max_cost, store, f", and the next question may cost {error.most:.4f}") from error
        finally:
            # Tries that gave no answer were paid, too, and are in the backend's sum alone.
            more = backend.runtime().get("process", {}).get("cost", 0.0) - (store.spent - told)
            if more > ROUNDING:
                store.add({"judge": settings.model, "cost": more})


def _keep(response: Response, question: Question, settings: Settings, store: Store, counts: Counter[str]) -> None:
    bill = {} if response.usage.cost is None else {"cost": response.usage.cost}
    if isinstance(response, Generation):
        messages = [{"role": message.role, "content": message.content} for message in question.prompt.messages]
        entry = {"key": question.key, "judge": settings.model, "prompt": messages, "output": response.text}
        store.add({**entry, "verdict": question.read(response.text), **bill})
        return
    # No answer is not kept: the next try asks again.
    counts["failed"] += 1
    if bill:
        store.add({"judge": settings.model, **bill})


def _spent(limit: float, store: Store, more: str = "") -> BackendError:
    return BackendError(
        f"stopped before the judge costs more in all than judge_max_cost (--max-cost) allows, {limit:g} US dollars: "
        f"{store.spent:.4f} are spent on what {store.file} holds{more}; the same command goes on from there with a higher limit"
    )


def open_judge(catalog: Any, settings: Settings, *, spent: float = 0.0) -> Backend:
    """The judge, not yet loaded, who may cost what the limit leaves.

    Raises `UsageError` for one that cannot write, or that sends no bill to be limited.
    """
    arguments = dict(settings.model_args)
    if settings.max_cost is not None:
        arguments["max_cost"] = str(settings.max_cost - spent)
    backend: Backend = catalog.open_backend(settings.model, arguments)
    if "generate" not in backend.capabilities:
        raise UsageError(f"--judge {settings.model} cannot generate text; choose another judge")
    return backend


class Judge:
    """A metric: the mean points of an item's rationale (or those of one `criterion`), from 1 to 5.

    An item whose verdict cannot be read, or that the judge did not answer, has no value; `describe` counts them.
    """

    def __init__(self, criterion: str | None, arguments: Mapping[str, str]) -> None:
        self.criterion = criterion
        self.settings = Settings.parse(arguments)
        self.counts: Counter[str] = Counter()
        self._catalog: Any = None
        self._folder: Path | None = None
        self._fingerprint = ""

    def prepare(self, catalog: Any, folder: Path) -> None:
        """Refuses a judge that cannot be asked, before anything else is."""
        self._catalog, self._folder = catalog, folder
        with open_judge(catalog, self.settings) as backend:
            self._fingerprint = backend.fingerprint()

    def __call__(self, results: Sequence[SampleResult]) -> list[float | None]:
        if self._folder is None:
            raise UsageError("the judge keeps its verdicts in a run folder; call prepare first")
        store = Store(self._folder / STORE)
        questions = {i: self._question(result) for i, result in enumerate(results) if applies(result, self.settings.items)}
        consult(self._catalog, self.settings, [*questions.values()], store, self.counts)
        values: list[float | None] = [None] * len(results)
        for i, question in questions.items():
            verdict = store.lines[question.key]["verdict"] if question.key in store.lines else None
            self.counts["judged" if verdict else "unread"] += 1
            if verdict:
                values[i] = verdict[self.criterion] if self.criterion else sum(verdict.values()) / len(verdict)
        return values

    def compare(self, runs: Mapping[str, Sequence[SampleResult]], mode: str, count: int | None) -> dict[str, Any]:
        """Lets the judge compare runs, by name: "pairwise" in both orders, or in one "ranking". See `contest`."""
        from mmedeval_rationale.contest import contest

        assert self._folder is not None, "prepare comes first"
        return contest(runs, self._catalog, self.settings, mode, count, self._folder)

    def _question(self, result: SampleResult) -> Question:
        settings = self.settings
        rubric = RUBRICS[result.sample.language if settings.language == "item" else settings.language]
        judge = digest([self._fingerprint, dict(settings.model_args), settings.seed])
        return ask(result.sample, [rationale_of(result.output or "")], rubric=rubric, shown=settings.shown, judge=judge)

    def describe(self) -> Mapping[str, Any]:
        return {**self.settings.describe(), "counts": dict(self.counts)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    model: str
    model_args: Mapping[str, str]
    language: str
    shown: bool
    seed: int
    most: int | None
    max_cost: float | None
    items: str

    @classmethod
    def parse(cls, arguments: Mapping[str, str]) -> Settings:
        """Raises `UsageError` for what is missing or wrong."""
        model = arguments.get("judge")
        if not model:
            raise UsageError("the metric judge needs a judge; name one with --judge, as in --judge openai:MODEL")
        language = arguments.get("judge_language", "en")
        if language not in (*RUBRICS, "item"):
            raise UsageError(f"--metric-arg judge_language={language} is neither item nor one of {', '.join(RUBRICS)}")
        reference = arguments.get("judge_reference", "shown")
        if reference not in ("shown", "hidden"):
            raise UsageError(f"--metric-arg judge_reference={reference} is neither shown nor hidden")
        return cls(
            model=model,
            model_args=dict(_pairs(arguments.get("judge_args", ""))),
            language=language,
            shown=reference == "shown",
            seed=_whole(arguments, "judge_seed") or 0,
            most=_whole(arguments, "judge_max_requests"),
            max_cost=_dollars(arguments, "judge_max_cost"),
            items=items_of(arguments),
        )

    def describe(self) -> dict[str, Any]:
        return {
            "judge": self.model,
            "judge_args": dict(self.model_args),
            "language": self.language,
            "reference": "shown" if self.shown else "hidden",
            "seed": self.seed,
            "rationale_items": self.items,
        }


def _whole(arguments: Mapping[str, str], name: str) -> int | None:
    value = arguments.get(name)
    if value is not None and not value.isdecimal():
        raise UsageError(f"--metric-arg {name}={value} is not a whole number")
    return None if value is None else int(value)


def _dollars(arguments: Mapping[str, str], name: str) -> float | None:
    value = arguments.get(name)
    if value is None:
        return None
    try:
        dollars = float(value)
    except ValueError:
        dollars = 0.0
    if not 0 < dollars < float("inf"):
        raise UsageError(f"--metric-arg {name}={value} is no number above 0")
    return dollars


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"--metric-arg judge_args={text!r} holds {part!r}, which is no pair; write NAME=VALUE,NAME=VALUE")
        yield name.strip(), value.strip()
