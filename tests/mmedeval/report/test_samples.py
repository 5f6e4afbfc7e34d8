"""The samples as they go into a page: nothing is lost, little is kept twice."""

from __future__ import annotations

import base64
import bz2
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmedeval.report.samples import fill, pack, pack_samples, template_of
from mmedeval.runs import read_runs
from mmedeval.testing import make_sample
from mmedeval.types import Generation, Loglikelihoods, join_letters

Make = Callable[..., Path]


def rows(questions: Any) -> list[list[Any]]:
    """The questions as the page has them: task, name, question, letters, options, answer, reference."""
    return [[task[0], *row] for task in questions["tasks"] for row in zip(*task[2:], strict=True)]


def read(parts: Sequence[str]) -> tuple[Any, ...]:
    """The questions, then each run's answers with its texts."""
    questions, answers, *written = map(opened, parts)
    return questions, *({**each, "outputs": outputs} for each, outputs in zip(answers, written, strict=True))


def opened(part: str) -> Any:
    return json.loads(bz2.decompress(base64.b85decode(part.translate(str.maketrans(",./", "<&>")))))


def test_what_is_packed_means_nothing_to_html_and_comes_back() -> None:
    value = {"text": "</script><!--&\u2028\x00 日本語 \U0001f600 \ud800", "numbers": [1, None]}
    packed = pack(value)
    assert not set(packed) & set("<>&\"'\\\n")
    assert opened(packed) == value


@pytest.mark.parametrize("protocol", ["letter", "cloze"])
@pytest.mark.parametrize("shots", [0, 2])
def test_every_prompt_of_a_run_can_be_made_again_from_few_templates(store: Make, protocol: str, shots: int) -> None:
    (run,) = read_runs([store("a", protocol=protocol, shots=shots)])
    questions, answers = read(pack_samples([run]).parts)
    assert len(answers["templates"]) <= 12
    stored = {result.key: result for result in run.results}
    for item, template in zip(rows(questions), answers["prompts"], strict=True):
        result = stored[item[0], item[1]]
        assert fill(answers["templates"][template], item[2], item[4]) == result.prompt


@pytest.mark.parametrize(
    ("prompt", "template"),
    [
        ("Q A. iron B. zinc", ("Q A. iron B. zinc",)),
        ("which? which? A. iron B. zinc", ("which? ", 0, " A. ", 1, " B. ", 2, "")),
        ("which? A. iron", ("", 0, " A. ", 1, "")),
        ("which? zinc iron", ("", 0, " zinc ", 1, "")),
    ],
)
def test_a_template_is_found_in_any_prompt(prompt: str, template: tuple[str | int, ...]) -> None:
    import dataclasses

    sample = dataclasses.replace(make_sample(options=("iron", "zinc")), question="which?")
    assert template_of(prompt, sample) == template
    assert fill(template, sample.question, list(sample.options.values())) == prompt


def test_answers_stand_where_their_questions_do(store: Make) -> None:
    runs = read_runs([store("a"), store("b", "baseline:longest", tasks=("mmedbench_mini_ja",)), store("c", limit=3)])
    questions, *answers = read(pack_samples(runs).parts)
    assert len(rows(questions)) == 80
    for run, own in zip(runs, answers, strict=True):
        stored = {result.key: result for result in run.results}
        assert own["outputs"] == 0
        for place, item in enumerate(rows(questions)):
            result = stored.get((item[0], item[1]))
            if result is None:
                assert own["verdicts"][place] == "-"
                continue
            assert own["verdicts"][place] == ("r" if result.right else "w")
            assert own["read"][0][own["read"][1][place]] == join_letters(result.prediction or ())
            assert (item[2], item[4], item[5]) == (
                result.sample.question, list(result.sample.options.values()), join_letters(result.sample.answer)
            )  # fmt: skip


def test_another_question_of_the_same_name_stands_beside_the_first(ask: Make) -> None:
    def write(request: Any) -> Generation:
        return Generation(request_id=request.id, text="Answer: A")

    runs = read_runs(
        [ask(name, {"en": [make_sample(1, question=question)]}, write=write) for name, question in (("a", "old"), ("b", "new"))]
    )
    questions, first, second = read(pack_samples(runs).parts)
    assert [item[2] for item in rows(questions)] == ["old (1)", "new (1)"]
    assert (first["verdicts"], second["verdicts"]) == ("r-", "-r")


def test_texts_lose_their_middle_only_where_all_are_too_much(ask: Make) -> None:
    lengths = iter([100, 5_000, 900, 300])

    def write(request: Any) -> Generation:
        return Generation(request_id=request.id, text="x" * next(lengths) + "\nAnswer: A")

    (run,) = read_runs([ask("a", {"en": [make_sample(n) for n in range(1, 5)]}, write=write)])
    assert pack_samples([run]).longest is None
    packed = pack_samples([run], most_characters=2_400)
    own = read(packed.parts)[1]
    assert (packed.shortened, sum(map(len, own["outputs"])) <= 2_400) == (1, True)
    (head, gone), whole = own["cut"]["1"], run.results[1].output
    assert whole is not None
    assert own["outputs"][1] == whole[:head] + whole[head + gone :]
    assert own["outputs"][1].endswith("Answer: A")
    assert [own["outputs"][i] for i in (0, 2, 3)] == [run.results[i].output for i in (0, 2, 3)]


def test_numbers_that_are_no_loglikelihoods_are_not_shown_as_such(store: Make, ask: Make) -> None:
    def score(request: Any) -> Loglikelihoods:
        return Loglikelihoods(request_id=request.id, values=(-1.0, -2.0, -3.0, -4.0))

    runs = read_runs([store("a", limit=1), ask("b", {"en": [make_sample(1)]}, score=score)])
    _, baseline, model = read(pack_samples(runs).parts)
    assert (baseline["scored"], model["scored"][-1]) == (0, ["A", -1.0, "B", -2.0, "C", -3.0, "D", -4.0])
