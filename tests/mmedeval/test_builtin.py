"""The core's own metrics, and its prompts and reading as the last word where no plugin has one."""

import math
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mmedeval import (
    Answer,
    BackendSpec,
    GenerateRequest,
    Generation,
    MetricSpec,
    PluginError,
    Prompt,
    RunPlan,
    RunRecord,
    Sample,
    SampleResult,
    Task,
    TaskSpec,
    hookimpl,
)
from mmedeval.builtin import accuracy, accuracy_strict, mmedeval_metrics
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.specs import ProtocolName
from mmedeval.store import read_samples
from mmedeval.testing import ScriptedBackend, StaticTask, make_sample
from mmedeval.types import Status


def result(right: str, given: str | None, status: Status = "ok") -> SampleResult:
    prediction = None if given is None else frozenset(given)
    return SampleResult(task="t", sample=make_sample(answer=right), status=status, prediction=prediction)


def test_accuracy_counts_exact_sets_and_leaves_out_what_was_not_read() -> None:
    results = [
        result("A", "A"),
        result("AC", "CA"),
        result("AC", "A"),
        result("A", "AC"),
        result("A", "B"),
        result("A", None, "unread"),
        result("A", None, "failed"),
        result("AC", "A", "unscored"),
    ]
    assert accuracy(results) == [1, 1, 0, 0, 0, None, None, None]
    assert accuracy_strict(results) == [1, 1, 0, 0, 0, 0, 0, None]


def metric(name: str) -> Callable[[Sequence[SampleResult]], Sequence[float | None]]:
    (spec,) = (spec for spec in mmedeval_metrics() if spec.name == name)
    return spec.load()


def cloze_result(texts: Sequence[str], logprobs: Sequence[float], right: str = "A", status: Status = "ok") -> SampleResult:
    return SampleResult(
        task="t",
        sample=make_sample(answer=right, options=texts),
        status=status,
        logprobs=dict(zip("ABCDE", logprobs, strict=False)),
    )


def test_bytes_and_characters_normalise_differently_and_both_ignore_the_gap() -> None:
    # Per byte: -6/2, -12/12, -9/4. Per character: -6/2, -12/4, -9/4.
    item = cloze_result(["ab", "肝細胞癌", "abcd"], [-6, -12, -9])
    per_byte, per_char = metric("accuracy_per_byte"), metric("accuracy_per_char")
    for letter in "ABC":
        answered = SampleResult(
            task="t", sample=make_sample(answer=letter, options=["ab", "肝細胞癌", "abcd"]), status="ok", logprobs=item.logprobs
        )
        assert per_byte([answered]) == [float(letter == "B")]
        assert per_char([answered]) == [float(letter == "C")]


@pytest.mark.parametrize(("name", "length"), [("accuracy_per_byte", lambda t: len(t.encode())), ("accuracy_per_char", len)])
def test_normalised_accuracy_is_that_of_the_best_logarithm_per_unit(name: str, length: Callable[[str], int]) -> None:
    texts = ["iron", "cuivre", "亜鉛", "й", "a b"]
    items, expected = [], []
    for number in range(60):
        logprobs = [-1 - 9 * abs(math.sin(number * 7 + i)) for i in range(len(texts))]
        best = "ABCDE"[min(range(5), key=lambda i, values=logprobs: -values[i] / length(texts[i]))]
        items.append(cloze_result(texts, logprobs, right="ABCDE"[number % 5]))
        expected.append(float(best == "ABCDE"[number % 5]))
    assert metric(name)(items) == expected
    assert 0 < sum(expected) < 60


def test_normalised_accuracy_leaves_out_items_without_logprobs_or_a_right_option_to_be_found() -> None:
    items = [result("A", None, "failed"), cloze_result(["a", "b"], [-1, -2], "AB", "unscored"), result("A", "A")]
    assert metric("accuracy_per_char")(items) == [None, None, None]


# Prompts and reading


def write(text: str) -> Callable[[GenerateRequest], Generation]:
    return lambda request: Generation(request_id=request.id, text=text)


def plugin(backend: ScriptedBackend, task: StaticTask, **hooks: Callable[..., object]) -> types.ModuleType:
    module = types.ModuleType("of_this_test")

    def mmedeval_backends() -> Sequence[BackendSpec]:
        return [backend.spec()]

    def mmedeval_tasks() -> Sequence[TaskSpec]:
        return [task.spec()]

    for name, function in {"mmedeval_backends": mmedeval_backends, "mmedeval_tasks": mmedeval_tasks, **hooks}.items():
        setattr(module, name, hookimpl(function))
    return module


def evaluated(
    folder: Path, module: types.ModuleType, protocol: ProtocolName = "chat"
) -> tuple[RunRecord, tuple[SampleResult, ...]]:
    plan = RunPlan(model="scripted:it", tasks=("static",), protocol=protocol)
    record, _ = run(plan, Catalog(make_host(block=["hf", "mmedbench"], extra=[module])), folder)
    return record, read_samples(folder)


def test_a_plugin_may_write_the_prompt_and_where_it_passes_the_core_does(tmp_path: Path) -> None:
    def mmedeval_render_prompt(sample: Sample) -> Prompt | None:
        return Prompt(question="my own words", chat=True) if sample.id == "test-1" else None

    module = plugin(
        ScriptedBackend(write=write("Answer: A")),
        StaticTask(test=[make_sample(1), make_sample(2)]),
        mmedeval_render_prompt=mmedeval_render_prompt,
    )
    _, results = evaluated(tmp_path / "run", module)
    prompts = {result.sample.id: result.prompt for result in results}
    assert prompts["test-1"] == "[user]\nmy own words"
    assert "Think step by step" in (prompts["test-2"] or "")


def test_a_plugin_may_read_the_answer_and_where_it_passes_the_core_does(tmp_path: Path) -> None:
    def mmedeval_parse_answer(task: Task, sample: Sample, generation: Generation) -> Answer | None:
        assert (task.name, generation.text) == ("static", "Answer: A")
        return {"test-1": Answer(letters=frozenset("D")), "test-2": Answer(letters=None)}.get(sample.id)

    module = plugin(
        ScriptedBackend(write=write("Answer: A")),
        StaticTask(test=[make_sample(number) for number in (1, 2, 3)]),
        mmedeval_parse_answer=mmedeval_parse_answer,
    )
    _, results = evaluated(tmp_path / "run", module)
    read = {result.sample.id: (result.status, result.prediction) for result in results}
    assert read == {
        "test-1": ("ok", frozenset("D")),
        "test-2": ("unread", None),
        "test-3": ("ok", frozenset("A")),
    }


@pytest.mark.parametrize("protocol", ["paper", "paper-direct"])
def test_the_papers_answers_are_read_as_it_writes_them(tmp_path: Path, protocol: ProtocolName) -> None:
    text = "###Rationale: Iron, not zinc.\n###Answer: OPTION A,C IS CORRECT."
    several = StaticTask(test=[make_sample(answer="AC")], max_answers=2)
    _, (read,) = evaluated(tmp_path / "run", plugin(ScriptedBackend(write=write(text)), several), protocol)
    assert (read.status, read.prediction) == ("ok", frozenset("AC"))


@pytest.mark.parametrize("returned", ["a text", 7])
def test_a_plugin_whose_prompt_is_no_prompt_is_told_so(tmp_path: Path, returned: object) -> None:
    module = plugin(
        ScriptedBackend(write=write("A")), StaticTask(test=[make_sample()]), mmedeval_render_prompt=lambda sample: returned
    )
    with pytest.raises(PluginError, match=r"static/test-1.*must return a Prompt"):
        evaluated(tmp_path / "run", module)


@pytest.mark.parametrize("returned", [frozenset("A"), "A"])
def test_a_plugin_whose_reading_is_no_answer_is_told_so(tmp_path: Path, returned: object) -> None:
    module = plugin(
        ScriptedBackend(write=write("A")), StaticTask(test=[make_sample()]), mmedeval_parse_answer=lambda sample: returned
    )
    with pytest.raises(PluginError, match="mmedeval_parse_answer"):
        evaluated(tmp_path / "run", module)


def test_a_metric_with_too_few_scores_is_named(tmp_path: Path) -> None:
    def mmedeval_metrics() -> Sequence[MetricSpec]:
        return [MetricSpec(name="short", summary="a test", load=lambda: lambda _: [1.0], default=True)]

    task = StaticTask(test=[make_sample(1), make_sample(2)])
    module = plugin(ScriptedBackend(write=write("Answer: A")), task, mmedeval_metrics=mmedeval_metrics)
    with pytest.raises(PluginError, match="'short' gave 1 scores for 2 items of static"):
        evaluated(tmp_path / "run", module)
