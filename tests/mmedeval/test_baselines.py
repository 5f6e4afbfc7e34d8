"""What answers without a model: chance and simple rules, as exact as they claim."""

import types
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from scipy import stats

from mmedeval import (
    LoglikelihoodRequest,
    Prompt,
    RunPlan,
    RunRecord,
    Sample,
    TaskSpec,
    UnknownNameError,
    UsageError,
    hookimpl,
)
from mmedeval.baselines import BASELINES, Baseline
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.prompts import answer_sets
from mmedeval.runner import run
from mmedeval.store import read_samples
from mmedeval.testing import StaticTask, check_backend, make_sample


def request(number: int, options: str = "ABCDE", max_answers: int = 1, texts: Sequence[str] = ()) -> LoglikelihoodRequest:
    answers = answer_sets(options, max_answers)
    return LoglikelihoodRequest(
        id=f"static/{number}",
        prompt=Prompt(question="?"),
        continuations=tuple(map(str, answers)),
        answers=answers,
        options=dict(zip(options, texts or options, strict=True)),
    )


def chosen(backend: Baseline, requests: Sequence[LoglikelihoodRequest]) -> list[str]:
    """The letters that the backend thinks likeliest, request by request."""
    found = []
    for asked, response in zip(requests, backend.loglikelihood(requests), strict=True):
        assert response.request_id == asked.id
        best = max(range(len(asked.answers)), key=lambda i: response.values[i])
        assert response.values.count(response.values[best]) == 1, "one answer stands out"
        found.append("".join(sorted(asked.answers[best])))
    return found


@pytest.mark.parametrize(("options", "max_answers"), [("AB", 1), ("ABCD", 1), ("ABCDE", 3), ("ABCDE", 5)])
def test_random_gives_every_allowed_answer_equally_often(options: str, max_answers: int) -> None:
    requests = [request(number, options, max_answers) for number in range(6000)]
    counts = Counter(chosen(Baseline("random"), requests))
    candidates = ["".join(sorted(answer)) for answer in requests[0].answers]
    assert set(counts) == set(candidates)
    assert stats.chisquare([counts[name] for name in candidates]).pvalue > 0.001


def test_random_answers_do_not_depend_on_company_or_order_but_on_the_seed() -> None:
    requests = [request(number) for number in range(50)]
    together = chosen(Baseline("random"), requests)
    assert chosen(Baseline("random"), requests[::-1]) == together[::-1]
    assert [chosen(Baseline("random"), [asked])[0] for asked in requests] == together
    assert chosen(Baseline("random", 1), requests) != together


def test_first_takes_the_first_option_that_is_shown() -> None:
    assert chosen(Baseline("first"), [request(1), request(2, "BCA"), request(3, "AB", 2)]) == ["A", "B", "A"]


def test_longest_takes_the_longest_text_in_characters_and_the_first_of_equals() -> None:
    assert chosen(
        Baseline("longest"),
        [
            request(1, "ABC", texts=["aa", "aaaa", "aaa"]),
            request(2, "ABC", texts=["aaaa", "肝細胞癌と胆管癌", "aaaaa"]),
            request(3, "ABC", texts=["aa", "bb", "c"]),
            request(4, "ABC", 3, texts=["a", "b", "ccc"]),
        ],
    ) == ["B", "B", "A", "C"]


def test_majority_takes_the_answer_that_is_most_frequent_in_the_train_split() -> None:
    backend = Baseline("majority")
    backend.learn("static", [make_sample(answer=answer) for answer in ["B", "AC", "AC", "D", "AC", "B"]])
    # What is not among a question's candidates is passed over for the next most frequent.
    assert chosen(backend, [request(1, "ABCD", 2), request(2, "ABCD"), request(3, "AC")]) == ["AC", "B", "A"]


def test_majority_learns_each_task_apart_and_breaks_a_tie_in_one_way() -> None:
    for order in (1, -1):
        backend = Baseline("majority")
        backend.learn("static", [make_sample(answer=answer) for answer in ["D", "B", "D", "B"][::order]])
        backend.learn("other", [make_sample(answer="A")] * 9)
        assert chosen(backend, [request(1)]) == ["B"]


def test_only_majority_asks_for_the_train_split() -> None:
    assert [name for name in BASELINES if Baseline(name).wants_train] == ["majority"]


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_keeps_the_contract_of_backends(name: str) -> None:
    check_backend(Baseline(name))


def test_the_seed_is_part_of_what_random_is_and_of_no_other() -> None:
    prints = {(name, seed): Baseline(name, seed).fingerprint() for name in BASELINES for seed in (0, 1)}
    assert [name for name in BASELINES if prints[name, 0] != prints[name, 1]] == ["random"]
    assert len({prints[name, 0] for name in BASELINES}) == len(BASELINES)


def evaluated(task: StaticTask, folder: Path, model: str, **arguments: str) -> RunRecord:
    plugin = types.ModuleType("static_task")

    def mmedeval_tasks() -> Sequence[TaskSpec]:
        return [task.spec()]

    plugin.mmedeval_tasks = hookimpl(mmedeval_tasks)
    plan = RunPlan(model=model, tasks=(task.name,), model_args=arguments)
    record, _ = run(plan, Catalog(make_host(block=["hf", "mmedbench"], extra=[plugin])), folder)
    return record


def mixed_samples(count: int) -> list[Sample]:
    answers = ["A", "B", "AC", "D", "ABD"]
    return [make_sample(number, answer=answers[number % len(answers)]) for number in range(count)]


def test_in_a_run_majority_reads_the_train_split_and_never_the_test_split(tmp_path: Path) -> None:
    task = StaticTask(
        test=[make_sample(number, answer="A") for number in range(5)] + [make_sample(9, answer="BC")],
        train=[make_sample(number, answer="BC") for number in range(3)] + [make_sample(9, answer="A")],
        max_answers=2,
    )
    record = evaluated(task, tmp_path / "run", "baseline:majority")
    assert {result.prediction for result in read_samples(tmp_path / "run")} == {frozenset("BC")}
    assert record.aggregates[0].value == pytest.approx(1 / 6)


def test_the_accuracy_of_random_is_the_chance_that_is_shown_beside_it(tmp_path: Path) -> None:
    task = StaticTask(test=mixed_samples(3000), max_answers=3)
    figure = evaluated(task, tmp_path / "run", "baseline:random", seed="5").aggregates[0]
    assert figure.metric == "accuracy"
    assert figure.chance == pytest.approx(1 / 14)
    assert figure.value is not None
    assert stats.binomtest(round(figure.value * 3000), 3000, figure.chance).pvalue > 0.001


def test_an_unknown_baseline_and_a_seed_that_is_no_number_are_wrong_calls() -> None:
    catalog = Catalog(make_host())
    with pytest.raises(UnknownNameError, match="'majorty'; did you mean majority"):
        catalog.open_backend("baseline:majorty", {})
    with pytest.raises(UsageError, match="seed='x'"):
        catalog.open_backend("baseline:random", {"seed": "x"})
