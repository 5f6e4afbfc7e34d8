"""The samples of all runs as data for the page: small, and unpacked by the browser.

A question's texts are there once, whatever the number of runs. A prompt is a template, mostly one for all the questions of a
task, into which the question and its options are filled; only what cannot be made so is kept as it is.
"""

from __future__ import annotations

import base64
import bz2
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mmedeval.report.data import contents, tells_probabilities
from mmedeval.runs import StoredRun
from mmedeval.types import Sample, SampleResult, join_letters

# What a browser still unpacks, keeps and searches with ease; models that write more have their longest texts shortened.
MOST_CHARACTERS = 60_000_000
SHORTEST = 200
BEST_ANSWERS = 5
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Of a text that is too long the beginning is shown and the end, where the answer mostly stands.
BEGINNING = 0.6

Template = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Parts for the page: the questions, all runs' answers, then the texts that each run wrote, which are most of it.

    `longest` is where texts were cut, if any were.
    """

    parts: tuple[str, ...]
    longest: int | None
    shortened: int


def pack_samples(runs: Sequence[StoredRun], most_characters: int = MOST_CHARACTERS) -> Packed:
    places = _places(runs)
    longest = _longest([len(result.output) for run in runs for result in run.results if result.output], most_characters)
    answers = [_answers(run, places, longest) for run in runs]
    shortened = sum(len(each["cut"]) for each in answers)
    # Packing leaves Python's lock.
    with ThreadPoolExecutor(2) as pool:
        written = [each.pop("outputs") for each in answers]
        parts = tuple(pool.map(pack, [_questions(runs, places), answers, *written]))
    return Packed(parts=parts, longest=longest if shortened else None, shortened=shortened)


def pack(value: object) -> str:
    """JSON, packed with bzip2 (a third smaller than gzip for such texts), in 85 characters that mean nothing to HTML."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Half a surrogate pair has no UTF-8; as an escape it has JSON.
    text = re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)
    return base64.b85encode(bz2.compress(text.encode())).decode("ascii").translate(str.maketrans("<&>", ",./"))


def _tasks(runs: Sequence[StoredRun]) -> list[list[str]]:
    return [
        [task, language]
        for task, language in {task: about["language"] for run in runs for task, about in run.data["tasks"].items()}.items()
    ]


def _places(runs: Sequence[StoredRun]) -> dict[tuple[Any, ...], int]:
    """All questions, task by task, and where each stands. What has one name but other contents in another run stands twice."""
    tasks = {task: number for number, (task, _) in enumerate(_tasks(runs))}
    found = dict.fromkeys(contents(result) for run in runs for result in run.results)
    return {question: place for place, question in enumerate(sorted(found, key=lambda question: tasks[question[0]]))}


def _questions(runs: Sequence[StoredRun], places: Mapping[tuple[Any, ...], int]) -> dict[str, Any]:
    """The questions by task and in columns, which are packed better than rows."""
    columns: dict[str, list[list[Any]]] = {task: [[], [], [], [], [], []] for task, _ in _tasks(runs)}
    for task, name, question, options, answer, reference in places:
        row = (name, question, _letters(options), [text for _, text in options], join_letters(answer), reference)
        for column, value in zip(columns[task], row, strict=True):
            column.append(value)
    return {"tasks": [[task, language, *columns[task]] for task, language in _tasks(runs)]}


def _letters(options: Sequence[tuple[str, str]]) -> list[str] | int:
    """The options' letters; 0 where they are the first ones of the alphabet, as nearly always."""
    letters = [letter for letter, _ in options]
    return 0 if letters == list(LETTERS[: len(letters)]) else letters


def _answers(run: StoredRun, places: Mapping[tuple[Any, ...], int], longest: int) -> dict[str, Any]:
    """One run's answers by the questions' places. `verdicts` has a letter for each question, `-` where it was not asked."""
    n = len(places)
    verdicts = ["-"] * n
    read: list[str] = [""] * n
    outputs: list[str | None] = [None] * n
    prompts: list[int] = [-1] * n
    scored: list[list[Any]] = [[] for _ in range(n)]
    failures: dict[int, str] = {}
    cut: dict[int, list[int]] = {}
    truncated: list[int] = []
    templates: dict[Template, int] = {}
    for result in run.results:
        place = places[contents(result)]
        verdicts[place] = _verdict(result)
        read[place] = "" if result.prediction is None else join_letters(result.prediction)
        outputs[place] = result.output
        if result.output is not None and len(result.output) > longest:
            head = int(longest * BEGINNING)
            tail = longest - head
            outputs[place] = result.output[:head] + result.output[-tail:]
            cut[place] = [head, len(result.output) - longest]
        if result.prompt is not None:
            prompts[place] = templates.setdefault(template_of(result.prompt, result.sample), len(templates))
        if result.logprobs and tells_probabilities(run):
            best = sorted(result.logprobs.items(), key=lambda pair: -pair[1])[:BEST_ANSWERS]
            scored[place] = [part for answer, value in best for part in (answer, round(value, 2))]
        if result.failure is not None:
            failures[place] = result.failure
        if result.finish_reason == "length":
            truncated.append(place)
    return {
        "verdicts": "".join(verdicts),
        "read": _coded(read),
        "outputs": outputs if any(output is not None for output in outputs) else 0,
        "prompts": prompts,
        "templates": [list(template) for template in templates],
        "scored": scored if any(scored) else 0,
        "failures": failures,
        "cut": cut,
        "truncated": truncated,
    }


def _verdict(result: SampleResult) -> str:
    if result.right is None:
        return {"unread": "u", "failed": "f"}.get(result.status, "x")
    return "r" if result.right else "w"


def _coded(values: Sequence[str]) -> list[Any]:
    """The different values, and for each place which of them."""
    kinds = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return [list(kinds), [kinds[value] for value in values]]


def template_of(prompt: str, sample: Sample) -> Template:
    """The prompt with 0 where the question stands and with 1, 2, ... where its options do.

    Few-shot examples stand before the question, so the last one counts. A prompt that does not hold the question, as those of
    other layouts may not, is its own template.
    """
    start = prompt.rfind(sample.question) if sample.question else -1
    if start < 0:
        return (prompt,)
    parts: list[str | int] = [prompt[:start], 0]
    end = start + len(sample.question)
    for number, option in enumerate(sample.options.values(), start=1):
        at = prompt.find(option, end)
        if at < 0:
            break
        parts += [prompt[end:at], number]
        end = at + len(option)
    return (*parts, prompt[end:])


def fill(template: Sequence[str | int], question: str, options: Sequence[str]) -> str:
    """The prompt that a template and a question make, as the page does it."""
    texts = [question, *options]
    return "".join(part if isinstance(part, str) else texts[part] for part in template)


def _longest(lengths: Sequence[int], most: int) -> int:
    """The largest length to which all texts can be cut so that they have at most `most` characters together."""
    low, high = SHORTEST, max([*lengths, SHORTEST])
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(length, middle) for length in lengths) <= most:
            low = middle
        else:
            high = middle - 1
    return low
