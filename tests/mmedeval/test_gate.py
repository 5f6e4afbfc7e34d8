"""The verdict of a gate: its rule, how often it errs, and the settings of its file."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mmedeval.errors import DataError, UnknownNameError, UsageError
from mmedeval.gate import Rules, gate, judge_drop, make_rules, read_rules, told_drop
from mmedeval.outcomes import Outcomes, TaskOutcomes
from mmedeval.paired import Changes, Counts
from mmedeval.types import Aggregate

Draws = Sequence[tuple[int, int]]


def drawn(n: int, drop: float, changed: float, times: int, seed: int = 0) -> Draws:
    """How many items were gained and lost, `times` times, where a share of them is lost more often than gained by `drop`."""
    shares = [(changed - drop) / 2, (changed + drop) / 2, 1 - changed]
    return [(int(g), int(lost)) for g, lost, _ in np.random.default_rng(seed).multinomial(n, shares, size=times)]


def answers(n: int, draws: Draws, rules: Rules) -> Counter[str]:
    each: dict[tuple[int, int], str] = {}
    for counts in {*draws}:
        each[counts] = judge_drop([Changes((Counts(n, *counts),))], rules)[0][0]
    return Counter(each[counts] for counts in draws)


# --- how often it errs ---


@pytest.mark.parametrize(("n", "changed"), [(60, 0.2), (199, 0.1), (1273, 0.2), (1273, 0.48)])
@pytest.mark.parametrize("max_drop", [0.0, 1.0])
def test_a_run_that_is_as_good_fails_at_most_as_often_as_the_confidence_allows(n: int, changed: float, max_drop: float) -> None:
    times = 1500
    failed = answers(n, drawn(n, 0.0, changed, times), Rules(max_drop=max_drop))["fails"]
    assert failed / times <= 0.05 + 2 * (0.05 * 0.95 / times) ** 0.5
    # But the level is used: a rule that never fails would pass the line above.
    assert failed / times > 0.01


@pytest.mark.parametrize("changed", [0.1, 0.2, 0.35, 0.48])
def test_a_drop_of_5_points_on_1273_items_is_caught_in_more_than_80_of_100_cases(changed: float) -> None:
    """0.48 is what two models change that have nothing to do with each other, one right in 60, one in 55 of 100 cases."""
    assert answers(1273, drawn(1273, 0.05, changed, 1000), Rules())["fails"] / 1000 >= 0.8


@pytest.mark.parametrize(("n", "changed"), [(40, 0.1), (100, 0.2), (500, 0.3), (1273, 0.5)])
def test_a_run_that_fell_by_what_must_be_seen_holds_at_most_as_often_as_the_confidence_allows(n: int, changed: float) -> None:
    held = answers(n, drawn(n, 0.05, changed, 1000), Rules())["holds"]
    assert held / 1000 <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5


def test_many_items_leave_no_doubt_and_few_items_do() -> None:
    assert answers(8518, drawn(8518, 0.0, 0.2, 100), Rules())["cannot tell"] == 0
    assert answers(40, drawn(40, 0.0, 0.2, 300), Rules())["cannot tell"] > 200


def test_six_languages_that_are_as_good_fail_together_at_most_as_often_as_the_confidence_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No interval decides whether a gate fails; without the bootstrap this is quick.
    monkeypatch.setattr("mmedeval.gate.interval", lambda *_: (-1.0, 1.0))
    sizes, times = (1273, 3426, 199, 622, 256, 2742), 400
    draws = [drawn(n, 0.0, 0.2, times, seed) for seed, n in enumerate(sizes)]
    failed = 0
    for counts in zip(*draws, strict=True):
        tasks = tuple(Counts(n, *each) for n, each in zip(sizes, counts, strict=True))
        rows = [*(Changes((task,)) for task in tasks), Changes(tasks)]
        failed += any(answer == "fails" for answer, _, _ in judge_drop(rows, Rules(max_drop=0.0)))
    assert 0 < failed / times <= 0.05 + 2 * (0.05 * 0.95 / times) ** 0.5


def test_an_average_of_languages_that_is_as_good_fails_at_most_as_often_as_the_confidence_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmedeval.gate.interval", lambda *_: (-1.0, 1.0))
    sizes, times = (40, 60, 25), 800
    draws = [drawn(n, 0.0, 0.2, times, seed) for seed, n in enumerate(sizes)]
    failed = sum(
        judge_drop([Changes(tuple(Counts(n, *each) for n, each in zip(sizes, counts, strict=True)))], Rules())[0][0] == "fails"
        for counts in zip(*draws, strict=True)
    )
    assert 0.02 < failed / times <= 0.05 + 2 * (0.05 * 0.95 / times) ** 0.5


# --- the rule ---


@pytest.mark.parametrize(
    ("gained", "lost", "rules", "answer"),
    [
        (100, 101, Rules(), "holds"),
        (60, 140, Rules(), "fails"),
        (60, 140, Rules(max_drop=8.0, detect=12.0), "holds"),
        (60, 140, Rules(max_drop=8.0, detect=8.0), "cannot tell"),
        (90, 125, Rules(), "fails"),
        (90, 125, Rules(confidence=0.999), "cannot tell"),
        (100, 101, Rules(detect=1.0), "cannot tell"),
        (140, 60, Rules(max_drop=0.0, detect=0.1), "holds"),
    ],
)
def test_a_row_fails_by_a_drop_that_is_large_and_no_chance_and_holds_where_a_large_drop_is_excluded(
    gained: int, lost: int, rules: Rules, answer: str
) -> None:
    assert judge_drop([Changes((Counts(1273, gained, lost),))], rules)[0][0] == answer


def test_a_drop_that_is_exactly_allowed_does_not_fail() -> None:
    assert judge_drop([Changes((Counts(10_000, 0, 100),))], Rules(max_drop=1.0))[0][0] == "holds"
    assert judge_drop([Changes((Counts(10_000, 0, 101),))], Rules(max_drop=1.0))[0][0] == "fails"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_drop": -1.0}, "max-drop is -1"),
        ({"max_drop": float("nan")}, "max-drop is nan"),
        ({"max_drop": 100.0, "detect": 100.0}, "max-drop is 100; it must be at least 0 and less than 100 points"),
        ({"max_drop": 3.0, "detect": 2.0}, "detect is 2, less than max-drop, 3"),
        ({"detect": 0.0}, "detect is 0"),
        ({"detect": -5.0}, "detect is -5"),
        ({"detect": float("nan")}, "detect is nan"),
        ({"detect": 100.0}, "detect is 100; it must be more than 0 and less than 100 points"),
        ({"confidence": 1.0}, "confidence is 1"),
        ({"confidence": 95.0}, "confidence is 95"),
        ({"minimum": {"accuracy": float("inf")}}, "the least accuracy is inf"),
    ],
)
def test_rules_that_make_no_sense_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Rules(**settings)


def test_a_large_max_drop_moves_what_must_be_seen_unless_that_was_set() -> None:
    assert make_rules({"max-drop": 8.0}).detect == 8.0
    assert make_rules({"max-drop": 0.5}).detect == 5.0
    assert make_rules({"detect": 3}) == Rules(detect=3)


# --- the file ---


def test_a_files_settings_are_read_by_their_names(tmp_path: Path) -> None:
    file = tmp_path / "gate.toml"
    file.write_text('baseline = "b.json"\nmax-drop = 2\ndetect = 6.5\nper_language = true\n[min]\naccuracy = 0.5\n')
    settings = read_rules(file)
    assert settings["baseline"] == "b.json"
    assert make_rules(settings) == Rules(max_drop=2, detect=6.5, per_language=True, minimum={"accuracy": 0.5})


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("# rules\nmax-dorp = 1\n", UnknownNameError, r"gate.toml:2 'max-dorp'; did you mean max-drop"),
        ("confidence = 0.9\nmax-drop = '1'\n", DataError, r"gate.toml:2: max-drop is '1'; it must be a number"),
        ("per-language = 1\n", DataError, r"gate.toml:1: per-language is 1; it must be true or false"),
        ("detect = true\n", DataError, r"gate.toml:1: detect is True; it must be a number"),
        ("min = 0.6\n", DataError, r"gate.toml:1: min is 0.6; it must be a table, as in min = {accuracy = 0.6}"),
        ("\n[min]\naccuracy = 'high'\n", DataError, r"gate.toml:3: the least accuracy is 'high'; it must be a number"),
        ("min = {accuracy = true}\n", DataError, r"gate.toml:1: the least accuracy is True"),
        ("max-drop == 1\n", UsageError, r"gate.toml cannot be read: .*line 1"),
        pytest.param(
            f"detect = {'9' * 400}\n", DataError, r"toml:1: detect is of more than 300 digits; it must", id="long number"
        ),
        pytest.param(
            f"[min]\naccuracy = 0x{'f' * 9000}\n", DataError, r"toml:2: the least accuracy is of more", id="hexadecimal"
        ),
        pytest.param(
            f"detect = {'9' * 5000}\n", UsageError, r"gate.toml cannot be read: .*digits", id="longer than Python reads"
        ),
        pytest.param(f"x = {'[' * 3000}{']' * 3000}\n", UsageError, r"gate.toml cannot be read: .*recursion", id="deep"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path: Path, text: str, error: type[Exception], said: str) -> None:
    file = tmp_path / "gate.toml"
    file.write_text(text)
    with pytest.raises(error, match=said):
        read_rules(file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--config .*gate.toml does not exist"):
        read_rules(tmp_path / "gate.toml")


# --- whole verdicts ---


def outcomes(name: str, *tasks: str, metric: float | None = None, group: str | None = "exam") -> Outcomes:
    """A run whose tasks (en, zh, ...) have these outcomes, a letter an item."""
    languages = ("en", "zh", "ja")
    named = {f"exam_{language}": task for language, task in zip(languages, tasks, strict=False)}
    figures = [
        Aggregate(
            metric="accuracy",
            task=task,
            language=task[-2:],
            value=each.count("1") / len(each),
            low=0,
            high=1,
            n=len(each),
            scored=1,
        )
        for task, each in named.items()
    ]
    average = sum(figure.value or 0 for figure in figures) / len(figures)
    figures.append(Aggregate(metric="accuracy", task="exam", language="avg", value=average, low=0, high=1, n=1, scored=1))
    figures.append(
        Aggregate(metric="bleu", task="exam", language="avg", value=metric, low=None, high=None, n=1, scored=1, scale=100)
    )
    return Outcomes(
        name=name,
        path=Path(f"/{name}.json"),
        model=name,
        protocol="letter",
        shots=0,
        sampling=None,
        metric_args={},
        fingerprint=name,
        made="",
        tasks={
            task: TaskOutcomes(
                language=task[-2:],
                group=group,
                data="d",
                questions="q",
                prompts="p",
                ids=[f"test-{i}" for i in range(len(each))],
                outcomes=each,
            )
            for task, each in named.items()
        },
        figures=figures,
    )


GOOD, BAD = "1" * 700 + "0" * 300, "1" * 600 + "0" * 400


def test_the_average_alone_is_judged_and_languages_are_shown() -> None:
    verdict = gate(outcomes("base", GOOD, GOOD), outcomes("new", GOOD, GOOD), Rules())
    assert (verdict.answer, verdict.exit_code) == ("holds", 0)
    assert [(check.task, check.answer) for check in verdict.drops] == [("exam_en", None), ("exam_zh", None), ("exam", "holds")]
    assert verdict.sentence.startswith("new holds against base: exam stayed at 70.0, a drop of 5 points or more is excluded")


def test_a_language_that_fell_fails_the_gate_only_where_languages_are_judged() -> None:
    # The third language rose by what the first one fell.
    base, new = outcomes("base", GOOD, GOOD, BAD), outcomes("new", BAD, GOOD, GOOD)
    assert gate(base, new, Rules()).exit_code == 0
    verdict = gate(base, new, Rules(per_language=True))
    assert verdict.exit_code == 3
    assert [check.answer for check in verdict.drops] == ["fails", "holds", "holds", "holds"]
    assert verdict.sentence == (
        "new does not hold against base: exam_en fell by 10 points (70.0 to 60.0), more than 1 point and more than chance "
        "(p < 0.0001)"
    )


def test_the_shares_of_the_checks_are_those_of_the_outcomes() -> None:
    verdict = gate(outcomes("base", GOOD, BAD), outcomes("new", BAD, BAD), Rules())
    average = verdict.drops[-1]
    assert (average.base, average.new, average.drop) == pytest.approx((0.65, 0.6, 0.05))
    assert average.n == 2000


def test_a_model_that_stops_answering_does_not_hold() -> None:
    verdict = gate(outcomes("base", GOOD), outcomes("new", "1" * 600 + "u" * 100 + "0" * 300), Rules())
    assert verdict.exit_code == 3
    assert verdict.drops[0].unread == (0, 100)
    assert "100 items are unread, 0 were before" in verdict.sentence


def test_failed_items_prove_nothing_against_a_run_nor_for_it() -> None:
    base = outcomes("base", GOOD)
    verdict = gate(base, outcomes("new", "1" * 600 + "f" * 100 + "0" * 300), Rules())
    assert verdict.exit_code == 4
    assert (verdict.drops[0].failed, verdict.drops[0].without_failed) == ((0, 100), "holds")
    assert verdict.sentence == (
        "cannot tell: exam_en fell by 10 points (70.0 to 60.0), with 100 items failed; without these it holds: see why they "
        "failed, and run again"
    )
    # A few that failed change nothing, and what is bad without them is bad.
    assert gate(base, outcomes("new", "1" * 698 + "f" * 2 + "0" * 300), Rules()).exit_code == 0
    assert gate(base, outcomes("new", "1" * 600 + "0" * 100 + "f" * 50 + "0" * 250), Rules()).exit_code == 3
    # A baseline that failed often must not let a bad run pass.
    weak = outcomes("base", "1" * 600 + "f" * 100 + "1" * 100 + "0" * 200)
    assert gate(weak, outcomes("new", "1" * 700 + "0" * 300), Rules()).exit_code == 4


def test_what_holds_with_items_that_failed_and_cannot_be_told_without_them_is_said_so() -> None:
    # Over all 100 items a drop of 15 points is excluded; over the 12 that failed in neither run it is not.
    verdict = gate(
        outcomes("base", "1" * 6 + "f" * 88 + "0" * 6), outcomes("new", "1" * 6 + "f" * 88 + "0" * 6), Rules(detect=15)
    )
    assert (verdict.exit_code, verdict.drops[0].without_failed) == (4, "cannot tell")
    assert verdict.sentence == (
        "cannot tell: exam_en stayed at 6.0, with 88 items failed; without these nobody can tell: see why they failed, and run "
        "again"
    )


def test_a_row_that_is_not_judged_says_what_its_interval_says() -> None:
    verdict = gate(outcomes("base", GOOD, GOOD), outcomes("new", GOOD, GOOD), Rules())
    assert verdict.drops[0].answer is None
    assert told_drop(verdict.drops[0], verdict.rules) == (
        "exam_en stayed at 70.0, a drop of 5 points or more is excluded (at most 0.3, 95 % confidence)"
    )


def test_a_row_all_of_whose_items_failed_cannot_be_told() -> None:
    verdict = gate(outcomes("base", GOOD, GOOD), outcomes("new", GOOD, "f" * 1000), Rules(per_language=True))
    assert [check.answer for check in verdict.drops] == ["holds", "cannot tell", "cannot tell"]


def test_too_few_items_cannot_tell() -> None:
    verdict = gate(outcomes("base", "1100"), outcomes("new", "1010"), Rules())
    assert (verdict.answer, verdict.exit_code) == ("cannot tell", 4)
    assert "is not excluded by 4 items" in verdict.sentence
    assert verdict.sentence.endswith("ask more items")


def test_a_least_value_is_held_against_the_figure_itself() -> None:
    run = outcomes("new", GOOD, BAD)
    assert gate(None, run, Rules(minimum={"accuracy": 0.65})).exit_code == 0
    verdict = gate(None, run, Rules(minimum={"accuracy": 0.651}))
    assert verdict.exit_code == 3
    assert verdict.sentence == "new does not hold: accuracy of exam is 65.0, less than 65.1"
    by_language = gate(None, run, Rules(minimum={"accuracy": 0.65}, per_language=True))
    assert [(check.task, check.answer) for check in by_language.minimums] == [
        ("exam_en", "holds"),
        ("exam_zh", "fails"),
        ("exam", "holds"),
    ]


def test_a_least_value_of_a_metric_without_a_value_cannot_tell() -> None:
    verdict = gate(None, outcomes("new", GOOD), Rules(minimum={"bleu": 10}))
    assert verdict.exit_code == 4
    assert gate(None, outcomes("new", GOOD, metric=12.0), Rules(minimum={"bleu": 10})).exit_code == 0


def test_a_failure_weighs_more_than_a_doubt() -> None:
    verdict = gate(outcomes("base", "1100"), outcomes("new", "1010"), Rules(minimum={"accuracy": 0.9}))
    assert verdict.exit_code == 3


@pytest.mark.parametrize(
    ("minimum", "error", "said"),
    [
        ({"acuracy": 0.5}, UnknownNameError, "did you mean accuracy"),
        ({"accuracy": 60}, UsageError, "it is a share of the items: write 0.6 for 60 per cent"),
        ({}, UsageError, "nothing to hold the run against"),
    ],
)
def test_least_values_that_cannot_be_meant_are_refused(minimum: dict[str, float], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        gate(None, outcomes("new", GOOD), Rules(minimum=minimum))


def test_runs_that_are_not_comparable_are_refused_with_what_differs() -> None:
    with pytest.raises(UsageError, match=r"exam_zh is in base alone; make a new baseline: mmedeval baseline"):
        gate(outcomes("base", GOOD, GOOD), outcomes("new", GOOD), Rules())


def test_a_verdict_is_json() -> None:
    verdict = gate(outcomes("base", GOOD, GOOD), outcomes("new", GOOD, BAD), Rules(minimum={"accuracy": 0.5}))
    data = json.loads(json.dumps(verdict.as_json()))
    assert (data["verdict"], data["exit_code"], data["rules"]["max_drop"]) == ("fails", 3, 1.0)
    assert [row["task"] for row in data["drops"]] == ["exam_en", "exam_zh", "exam"]


def test_tasks_without_a_group_are_judged_each_with_the_correction_for_their_number() -> None:
    verdict = gate(outcomes("base", GOOD, GOOD, group=None), outcomes("new", GOOD, BAD, group=None), Rules())
    assert [(check.task, check.answer) for check in verdict.drops] == [("exam_en", "holds"), ("exam_zh", "fails")]
