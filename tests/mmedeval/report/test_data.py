"""The figures of a report, held against independent computations."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binomtest

from mmedeval.cli import cli
from mmedeval.published import published
from mmedeval.report import data
from mmedeval.runs import read_runs
from mmedeval.testing import make_sample
from mmedeval.types import Failure, Generation, LoglikelihoodRequest, Loglikelihoods, Sample

Make = Callable[..., Path]


def written(answers: str) -> Callable[[object], Generation | Failure]:
    """Answers item by item: a letter, `?` for what cannot be read, `!` for a failure."""
    left = iter(answers)

    def write(request: object) -> Generation | Failure:
        letter, name = next(left), request.id  # type: ignore[attr-defined]
        if letter == "!":
            return Failure(request_id=name, kind="backend", message="it broke")
        return Generation(request_id=name, text="no idea" if letter == "?" else f"Answer: {letter}")

    return write


def test_classes_count_right_ones_among_those_that_were_read(ask: Make) -> None:
    samples = [make_sample(n, answer="A", options=("a", "b", "c", "d")[: 2 + 2 * (n > 4)]) for n in range(1, 9)]
    (run,) = read_runs([ask("one", {"en": samples}, write=written("AAB?AB!A"))])
    two, four = data.by_options([run])
    assert (two.label, two.items, two.shares) == ("2 options", 4, (data.Share(n=3, count=2),))
    assert (four.label, four.items, four.shares) == ("4 options", 4, (data.Share(n=3, count=2),))
    interval = binomtest(2, 3).proportion_ci(method="wilson")
    assert two.shares[0].interval == pytest.approx((interval.low, interval.high))
    (single,) = data.by_right_letters([run])
    assert (single.label, single.items, single.shares[0]) == ("1 right letter", 8, data.Share(n=6, count=4))


def test_quarters_of_length_are_taken_within_each_task(ask: Make) -> None:
    def items(language: str, scale: int) -> list[Sample]:
        return [make_sample(n, language=language, question="w" * (scale * n)) for n in range(1, 9)]

    (run,) = read_runs([ask("one", {"en": items("en", 10), "ja": items("ja", 1)}, write=written("AAAABBBBBBBBAAAA"))])
    found = data.by_length([run])
    assert [each.items for each in found] == [4, 4, 4, 4]
    assert [each.shares[0].count for each in found] == [2, 2, 2, 2]


def test_topics_are_those_of_the_data_the_largest_first(ask: Make) -> None:
    topics = ["heart", "lung", "heart", None, "heart"]
    samples = [make_sample(n, meta={"meta_info": topic} if topic else {}) for n, topic in enumerate(topics, start=1)]
    plain = [make_sample(n, language="ja", meta={"topic": "all the same"}) for n in (1, 2)]
    (run,) = read_runs([ask("one", {"en": samples, "ja": plain}, write=written("ABBAAAA"))])
    assert data.topics([run]) == {
        "static_en": (
            data.Slice(label="heart", items=3, shares=(data.Share(n=3, count=2),)),
            data.Slice(label="lung", items=1, shares=(data.Share(n=1, count=0),)),
        )
    }


def test_letters_are_counted_where_they_are_offered(ask: Make) -> None:
    samples = [make_sample(1, answer="A", options=("a", "b")), make_sample(2, answer="C"), make_sample(3, answer="A")]
    (run,) = read_runs([ask("one", {"en": samples}, write=written("BB?"))])
    assert [(each.letter, each.chosen, each.right) for each in data.letters(run)] == [
        ("A", data.Share(n=2, count=0), data.Share(n=2, count=1)),
        ("B", data.Share(n=2, count=2), data.Share(n=2, count=0)),
        ("C", data.Share(n=1, count=0), data.Share(n=1, count=1)),
        ("D", data.Share(n=1, count=0), data.Share(n=1, count=0)),
    ]


def test_calibration_equals_an_independent_computation(ask: Make) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(-3, 1.5, size=(200, 4))
    answers = rng.integers(0, 4, size=200)
    left = iter(values)

    def score(request: LoglikelihoodRequest) -> Loglikelihoods:
        return Loglikelihoods(request_id=request.id, values=tuple(map(float, next(left))))

    samples = [make_sample(n, answer="ABCD"[answer]) for n, answer in enumerate(answers)]
    (run,) = read_runs([ask("one", {"en": samples}, score=score)])
    sure = softmax(values, axis=1).max(axis=1)
    right = values.argmax(axis=1) == answers
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (sure >= low) & (sure < low + 0.1)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    found = data.calibration(run)
    assert found is not None
    assert found.error == pytest.approx(expected)
    assert (found.items, found.accuracy) == (200, pytest.approx(right.mean()))
    assert found.confidence == pytest.approx(sure.mean())
    assert sum(each.right.n for each in found.bins) == 200


def test_confidence_takes_any_loglikelihoods() -> None:
    assert data.confidence({"A": -2000.0, "B": -2000.0}) == pytest.approx(0.5)
    assert data.confidence({"A": 0.0, "B": -2000.0}) == 1.0
    assert data.confidence({"A,B": -1.0}) == 1.0
    assert data.confidence({"A": math.log(0.3), "B": math.log(0.1)}) == pytest.approx(0.75)


def test_only_probabilities_of_letters_are_calibrated(store: Make, ask: Make) -> None:
    runs = read_runs([store("a"), ask("b", {"en": [make_sample(1)]}, write=written("A"))])
    assert [data.calibration(run) for run in runs] == [None, None]


def test_agreement_is_over_questions_that_all_were_asked(ask: Make) -> None:
    samples = [make_sample(n) for n in range(1, 7)]
    runs = read_runs(
        [ask("one", {"en": samples}, write=written("AABB?A")), ask("two", {"en": samples[:5]}, write=written("ABBC?"))]
    )
    assert data.agreement(runs) == data.Agreement(asked=5, all_right=1, none_right=3, alike=2)
    assert data.agreement(runs[:1]) is None


def test_agreement_is_over_questions_with_the_same_options(ask: Make) -> None:
    orders = [("iron", "zinc"), ("zinc", "iron")]
    samples = [[make_sample(1), make_sample(2, options=options, answer="AB"[number])] for number, options in enumerate(orders)]
    runs = read_runs([ask(name, {"en": each}, write=written("AA")) for name, each in zip(("one", "two"), samples, strict=True)])
    assert data.agreement(runs) == data.Agreement(asked=1, all_right=1, none_right=0, alike=1)


def test_an_average_over_fewer_tasks_is_told_apart(store: Make) -> None:
    three = ("mmedbench_mini_en", "mmedbench_mini_ja", "mmedbench_mini_fr")
    runs = read_runs([store("a", tasks=three, limit=4), store("b", "baseline:longest", tasks=three[:2], limit=4)])
    (group,) = data.groups(runs)
    assert [data.asked_of(run, group) for run in runs] == [None, 2]
    for run, average in zip(runs, (True, False), strict=True):
        figures = data.whole_figures(run, group, "accuracy")
        assert figures[:2] == tuple(data.figures_of(run)["accuracy", task] for task in three[:2])
        assert (figures[2] is not None, figures[3] is not None) == (average, average)


def test_a_published_average_stands_beside_one_over_the_same_languages() -> None:
    (gpt4,) = (each for each in published("accuracy") if each.name == "GPT-4")
    languages = ("en", "zh", "ja", "fr", "ru", "es")
    columns = [data.Column(task=f"mmedbench_{each}", label=each, language=each) for each in languages]
    average = data.Column(task="mmedbench", label="average", language="avg")
    whole, part = (data.Group(name="mmedbench", columns=(*columns[:n], average)) for n in (6, 2))
    assert data.published_values(gpt4, whole) == [78.0, 75.07, 72.91, 56.59, 83.62, 85.67, 74.27]
    assert data.published_values(gpt4, part) == [78.0, 75.07, None]


def test_what_keeps_figures_from_being_compared_is_told(store: Make, ask: Make) -> None:
    runs = read_runs([store("a"), store("b", limit=5, shots=1), ask("c", {"en": [make_sample(1)]}, write=written("?"))])
    told = "\n".join(data.notes(runs))
    for part in (
        "protocols: letter, chat",
        "numbers of shots: 0, 1",
        "baseline:random letter 0-shot, baseline:random letter 1-shot were not all asked the same items in mmedbench_mini",
        "not asked static_en",
    ):
        assert part in told
    assert "no answer was read in any of the 1 items (1 unread, 0 failed)" in told
    assert data.notes(read_runs([store("d")])) == []


def test_other_layouts_and_ways_to_write_under_one_protocol_are_told(ask: Make) -> None:
    samples = {"en": [make_sample(1)], "ja": [make_sample(1, language="ja")]}
    ways: list[dict[str, object]] = [{}, {"chat_template": False}, {"max_tokens": 9, "temperature": 0.5}]
    one, plain, other = read_runs(
        [ask(f"m{number}", samples, write=written("AA"), **way) for number, way in enumerate(ways)]  # type: ignore[arg-type]
    )
    (told,) = data.notes([one, plain])
    assert told.startswith("The runs were asked in different words in static (other layouts of the prompt")
    told, second = data.notes([one, other])
    assert "(temperatures: 0.0, 0.5)" in told
    assert "(most tokens of an answer: 1024, 9)" in second


def test_the_command_of_a_run_asks_the_same_again(store: Make, tmp_path: Path) -> None:
    import shlex

    from click import Context

    run = read_runs(
        [store("a", limit=5, shots=2, seed=3, temperature=0.5, exclude_images=True, save_requests=False, rotations=2)]
    )[0]
    command = cli.get_command(Context(cli), "run")
    assert command is not None
    program, verb, *words = shlex.split(data.command_line(run))
    given = command.make_context("run", words).params
    assert (program, verb) == ("mmedeval", "run")
    wanted = {"limit": 5, "shots": 2, "seed": 3, "temperature": 0.5, "exclude_images": True, "save_requests": False}
    assert wanted.items() <= given.items()
    assert (given["model"], given["tasks"], given["protocol"], str(given["rotations"])) == (
        "baseline:random",
        "mmedbench_mini_en,mmedbench_mini_ja",
        "letter",
        "2",
    )


def test_the_step_of_a_checkpoint_is_that_of_its_folder_or_its_model(store: Make, tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    assert data.step_of(read_runs([store("eval/step-500", limit=1)])[0]) == 500
    assert data.step_of(read_runs([store("a", limit=2)])[0]) is None
