"""Accuracy over checkpoints: their order, the best one, the first that is worse."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmedeval.errors import UsageError
from mmedeval.outcomes import Outcomes, TaskOutcomes
from mmedeval.paired import Changes, Counts, of_a_drop
from mmedeval.trend import step_of, trend
from mmedeval.types import Aggregate


def checkpoint(path: str, *tasks: str, model: str = "hf:out", figures: bool = True) -> Outcomes:
    """A run whose tasks (en, ja) have these outcomes, a letter an item."""
    named = {f"exam_{language}": each for language, each in zip(("en", "ja"), tasks, strict=False)}
    values = {name: each.count("1") / len(each) for name, each in named.items()}
    if len(named) > 1:
        values["exam"] = sum(values.values()) / len(values)
    return Outcomes(
        name=Path(path).name,
        path=Path(path),
        model=model,
        protocol="letter",
        shots=0,
        sampling=None,
        metric_args={},
        fingerprint=path,
        made="",
        tasks={
            name: TaskOutcomes(
                language=name[-2:],
                group="exam",
                data="d",
                questions="q",
                prompts="p",
                ids=[f"test-{i}" for i in range(len(each))],
                outcomes=each,
            )
            for name, each in named.items()
        },
        figures=[
            Aggregate(metric="accuracy_strict", task=name, language=name[-2:], value=value, low=value / 2, high=1, n=1, scored=1)
            for name, value in values.items()
            if figures
        ],
    )


def right(count: int, n: int = 400) -> str:
    return "1" * count + "0" * (n - count)


@pytest.mark.parametrize(
    ("path", "model", "step"),
    [
        ("out/eval/step-500", "hf:out", 500),
        ("runs/checkpoint-1500_mmedbench_letter_0shot_ab12cd34", "hf:out", 1500),
        ("runs/new", "hf:out/checkpoint-20", 20),
        ("runs/new", "hf:out/checkpoint-20/", 20),
        ("step-5.json", "x", 5),
        ("runs/new", "hf:out/final", None),
        ("runs/footstep-5", "x", None),
        ("step-100/other", "hf:out", None),
    ],
)
def test_the_step_is_in_the_name_of_the_folder_or_of_the_model(path: str, model: str, step: int | None) -> None:
    assert step_of(checkpoint(path, "1", model=model)) == step


def test_checkpoints_are_ordered_by_their_steps() -> None:
    found = trend([checkpoint(f"step-{step}", right(count)) for step, count in ((1000, 120), (200, 100), (90, 90))])
    assert found.order == "step"
    assert [point.step for point in found.series[0].points] == [90, 200, 1000]


def test_without_a_step_for_each_the_order_given_is_kept() -> None:
    found = trend([checkpoint("step-9", "11"), checkpoint("step-2", "10"), checkpoint("final", "00")])
    assert found.order == "given"
    assert [point.name for point in found.series[0].points] == ["step-9", "step-2", "final"]


def test_the_best_and_the_first_drop_below_the_best_before_are_found() -> None:
    counts = (100, 200, 198, 120, 60, 150)
    (series,) = trend([checkpoint(f"step-{i}", right(count)) for i, count in enumerate(counts)]).series
    assert series.best == 1
    assert series.first_drop == 3
    assert [point.best_before for point in series.points] == [None, "step-0", *["step-1"] * 4]
    assert series.points[3].drop == pytest.approx(80 / 400)
    assert [point.value for point in series.points] == [count / 400 for count in counts]


def test_the_p_of_a_drop_is_corrected_for_all_pairs_of_checkpoints() -> None:
    found = trend([checkpoint(f"step-{i}", right(count)) for i, count in enumerate((100, 120, 108))])
    assert found.pairs == 3
    assert found.series[0].points[2].p == pytest.approx(3 * of_a_drop(Changes((Counts(400, 0, 12),))))
    assert found.series[0].points[1].p == 1.0


def test_checkpoints_that_are_as_good_show_a_drop_at_most_as_often_as_5_in_100() -> None:
    generator, times, shown = np.random.default_rng(0), 300, 0
    for _ in range(times):
        # Each checkpoint is right in 60 of 100 cases, whatever the others are: the hardest case for "the best so far".
        drawn = generator.random((6, 200)) < 0.6
        runs = [checkpoint(f"step-{i}", "".join("1" if each else "0" for each in row)) for i, row in enumerate(drawn)]
        shown += trend(runs).series[0].first_drop is not None
    assert shown / times <= 0.05 + 2 * (0.05 * 0.95 / times) ** 0.5


def test_the_average_of_languages_is_what_is_followed_and_languages_stand_beside() -> None:
    (series,) = trend([checkpoint("step-1", right(300), right(100)), checkpoint("step-2", right(200), right(100))]).series
    assert series.title == "exam"
    assert series.languages == {"exam_en": "en", "exam_ja": "ja", "exam": "avg"}
    assert [point.value for point in series.points] == pytest.approx([0.5, 0.375])
    assert series.points[0].by_task == {"exam_en": 0.75, "exam_ja": 0.25}
    assert series.points[1].drop == pytest.approx(0.125)
    assert series.first_drop == 1


def test_items_without_an_answer_are_counted() -> None:
    (series,) = trend([checkpoint("step-1", "1100"), checkpoint("step-2", "1uuf")]).series
    assert [(point.unread, point.failed) for point in series.points] == [(0, 0), (2, 1)]


def test_what_is_no_trend_is_refused() -> None:
    one = checkpoint("out/step-1", "11")
    with pytest.raises(UsageError, match="a trend needs two runs or more"):
        trend([one])
    with pytest.raises(UsageError, match=r"out/step-1 and other/step-1 are both of step 1; name one of them"):
        trend([one, checkpoint("other/step-1", "11")])
    with pytest.raises(
        UsageError, match=r"cannot be compared: exam_ja is in step-2 alone; give checkpoints that were asked alike"
    ):
        trend([one, checkpoint("out/step-2", "11", "11")])
    with pytest.raises(UsageError, match="out/step-2 has no accuracy_strict of exam_en; mmedeval rescore out/step-2 adds it"):
        trend([one, checkpoint("out/step-2", "11", figures=False)])


def test_a_trend_is_json() -> None:
    found = trend([checkpoint("step-1", "11"), checkpoint("step-2", "10")])
    assert json.loads(json.dumps(found.as_json()))["series"][0]["best"] == 0
