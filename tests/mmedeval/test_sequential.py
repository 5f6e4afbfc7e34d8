"""A run that stops once it is certain: how seldom it errs, how much it saves, and that its part passes for no whole."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from mmedeval import StoreError, UsageError, hookimpl
from mmedeval.catalog import Catalog
from mmedeval.cli import cli
from mmedeval.compare import compare
from mmedeval.gate import Rules, gate
from mmedeval.host import make_host
from mmedeval.outcomes import read_outcomes, write_baseline
from mmedeval.runner import RunStopped, rescore, run
from mmedeval.runs import read_runs
from mmedeval.sequential import Changes, answer, bounds, evidence, looks, order, stop_sentence
from mmedeval.store import read_record, read_samples
from mmedeval.testing import ScriptedBackend, StaticTask, make_sample, prefer
from mmedeval.types import Failure, LoglikelihoodRequest, Loglikelihoods, RunPlan, StopEarly

ITEMS = 1273


# --- the test itself ---


def of(n: int, gained: int, lost: int) -> Changes:
    """So many of `n` questions gained and lost."""
    return {1.0: gained, 0.0: n - gained - lost, -1.0: lost}


def wealth(differences: Sequence[float], mean: float, stakes: Sequence[float]) -> float:
    """The gamblers' wealth bet by bet, written down apart from the counts: each stakes a part of it on every difference."""
    purses = [1 / len(stakes)] * len(stakes)
    for difference in differences:
        pays = (difference + 1) / (1 + mean)
        purses = [purse * (1 - stake) + purse * stake * pays for purse, stake in zip(purses, stakes, strict=True)]
    return sum(purses)


@pytest.mark.parametrize("mean", [-0.5, -0.01, 0.0, 0.3])
def test_the_evidence_of_counts_is_the_wealth_of_gamblers_who_bet_item_by_item(mean: float) -> None:
    differences = random.Random(1).choices([-1, 0, 1], [1, 5, 3], k=200)
    counts = of(n=200, gained=differences.count(1), lost=differences.count(-1))
    stakes = (0.95, 0.45, 0.2, 0.09, 0.04, 0.018)
    assert evidence(counts, mean) == pytest.approx(math.log(wealth(differences, mean, stakes)))


@pytest.mark.parametrize("mean", [-0.9, -0.01, 0.0, 0.2])
def test_a_game_whose_mean_is_as_claimed_is_fair_and_one_with_a_lower_mean_pays_less(mean: float) -> None:
    """The expected factor of one more item, summed over its outcomes: what makes the evidence a (super)martingale."""
    before = of(n=40, gained=6, lost=4)
    after = {1: of(n=41, gained=7, lost=4), 0: of(n=41, gained=6, lost=4), -1: of(n=41, gained=6, lost=5)}
    for true_mean in (mean, (mean - 1) / 2):
        for changed in (abs(true_mean), 1.0):
            chances = {1: (changed + true_mean) / 2, -1: (changed - true_mean) / 2, 0: 1 - changed}
            expected = sum(chance * math.exp(evidence(after[step], mean)) for step, chance in chances.items())
            now = math.exp(evidence(before, mean))
            assert expected <= now * (1 + 1e-9)
            if true_mean == mean:
                assert expected == pytest.approx(now)


def draws(generator: random.Random, lost: float, gained: float) -> Iterator[Changes]:
    """What is seen at each look of a run of so many items, each of which is lost or gained with these chances."""
    steps = generator.choices((-1, 0, 1), (lost, 1 - lost - gained, gained), k=ITEMS)
    losses = [*itertools.accumulate((step == -1 for step in steps), initial=0)]
    gains = [*itertools.accumulate((step == 1 for step in steps), initial=0)]
    for n in looks(ITEMS):
        yield of(n=n, gained=gains[n], lost=losses[n])


def answers(lost: float, gained: float, runs: int, seed: int = 0, **limits: float) -> tuple[list[str], float]:
    """What simulated runs are told, and how many items they asked in the mean."""
    generator, rules = random.Random(seed), Rules(**limits)  # type: ignore[arg-type]
    found, asked = [], 0
    for _ in range(runs):
        for counts in draws(generator, lost, gained):
            said = answer(counts, rules)
            if said != "cannot tell" or sum(counts.values()) == ITEMS:
                found.append(said)
                asked += sum(counts.values())
                break
    return found, asked / runs


@pytest.mark.parametrize(("lost", "gained"), [(0.01, 0.0), (0.06, 0.05), (0.205, 0.195)])
def test_a_drop_that_is_just_allowed_seldom_fails_although_one_looks_again_and_again(lost: float, gained: float) -> None:
    """At most 5 % of the time; 400 runs rarely show 7.5 % then. Nothing but the drop ends these runs."""
    generator, rules = random.Random(0), Rules(max_drop=1, detect=5)
    failed = sum(any(answer(counts, rules) == "fails" for counts in draws(generator, lost, gained)) for _ in range(400))
    assert failed <= 30


@pytest.mark.parametrize(("lost", "gained"), [(0.05, 0.0), (0.10, 0.05), (0.225, 0.175)])
def test_a_drop_that_must_not_be_missed_seldom_holds_although_one_looks_again_and_again(lost: float, gained: float) -> None:
    found, _ = answers(lost, gained, runs=400, max_drop=5, detect=5)
    assert found.count("holds") <= 30


def test_each_end_of_the_interval_holds_at_all_looks_at_once() -> None:
    """An end misses the truth, a drop of 10 points, where the answer leaves out just that drop (see the next test)."""
    generator, missed = random.Random(3), {"fails": 0, "holds": 0}
    for _ in range(300):
        said = {answer(counts, Rules(max_drop=10, detect=10, confidence=0.9)) for counts in draws(generator, 0.15, 0.05)}
        for name in missed:
            missed[name] += name in said
    assert max(missed.values()) <= 45


def test_the_answer_is_whether_the_interval_leaves_out_the_limits() -> None:
    generator, rules = random.Random(4), Rules(max_drop=2, detect=6)
    seen = set()
    for _ in range(300):
        n = generator.randrange(1, 800)
        lost = generator.randrange(0, n + 1) // generator.choice([1, 4, 20])
        counts = of(n=n, lost=lost, gained=generator.randrange(0, n - lost + 1) // generator.choice([1, 4, 20]))
        low, high = bounds(counts, 0.95)
        assert low <= (counts[1.0] - counts[-1.0]) / n <= high
        said = answer(counts, rules)
        assert said == ("fails" if high < -0.02 else "holds" if low > -0.06 else "cannot tell")
        seen.add(said)
    assert seen == {"fails", "holds", "cannot tell"}


def test_a_large_drop_is_found_in_a_tenth_of_the_items() -> None:
    found, asked = answers(lost=0.25, gained=0.05, runs=100)
    assert found.count("fails") == 100
    assert asked < 0.1 * ITEMS


def test_a_drop_of_five_points_that_is_not_seen_early_runs_on_and_is_seldom_cleared() -> None:
    found, asked = answers(lost=0.13, gained=0.08, runs=100)
    assert found.count("holds") <= 8
    assert found.count("fails") > 50
    assert asked < 0.9 * ITEMS


def test_a_model_that_answers_just_as_before_is_cleared_early() -> None:
    found, asked = answers(lost=0.0, gained=0.0, runs=1)
    assert found == ["holds"]
    assert asked < 0.1 * ITEMS


def test_the_order_depends_on_the_seed_alone_and_mixes_the_tasks() -> None:
    keys = [("a", f"test-{i}") for i in range(300)] + [("b", f"test-{i}") for i in range(100)]
    shuffled = order(keys, 0)
    assert order(reversed(keys), 0) == shuffled != order(keys, 1)
    assert sorted(shuffled) == sorted(keys)
    assert 15 <= sum(task == "b" for task, _ in shuffled[:100]) <= 35


@pytest.mark.parametrize("items", [1, 49, 50, 51, 8518])
def test_looks_grow_and_end_with_all_items(items: int) -> None:
    ends = looks(items)
    assert ends == sorted(set(ends))
    assert ends[-1] == items
    assert ends[0] == min(50, items)


# --- a run ---

COUNT = 240
SAMPLES = [make_sample(i, answer="ABCD"[i % 4]) for i in range(COUNT)]
PLAN = RunPlan(model="scripted:any", tasks=("static",), protocol="letter")


def offer(backend: ScriptedBackend, *tasks: StaticTask, **hooks: Any) -> Catalog:
    given = tasks or (StaticTask(test=SAMPLES),)
    plugin = SimpleNamespace(mmedeval_tasks=hookimpl(lambda: [task.spec("all") for task in given]))
    plugin.mmedeval_backends = hookimpl(lambda: [backend.spec()])
    for name, function in hooks.items():
        setattr(plugin, name, hookimpl(function))
    return Catalog(make_host(extra=[plugin]))


def model(accuracy: float, name: str = "scripted") -> ScriptedBackend:
    """Right with this chance, drawn from the item's name."""

    def answer(request: LoglikelihoodRequest) -> str:
        right = "ABCD"[int(request.id.rpartition("-")[2]) % 4]
        return right if random.Random(f"{request.id}").random() < accuracy else "ABCD"["BCDA".index(right)]

    return ScriptedBackend(score=prefer(answer), name=name)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(PLAN, offer(model(0.9)), tmp_path_factory.mktemp("runs") / "base")[1]


def test_a_bad_model_is_stopped_and_what_is_stored_is_a_part_that_says_so(tmp_path: Path, base: Path) -> None:
    backend = model(0.4)
    plan = dataclasses.replace(PLAN, stop_early=StopEarly(baseline=base))
    record, path = run(plan, offer(backend), tmp_path / "run")
    tested = record.data["sequential"]
    assert tested["answer"] == "fails"
    assert len(backend.asked) == tested["asked"] == 50
    assert tested["planned"] == COUNT
    assert record.data["stopped_early"] == stop_sentence(tested)
    assert "after 50 of 240 items" in record.data["stopped_early"]
    assert record.data["counts"]["n"] == len(read_samples(path)) == 50
    assert [a.n for a in record.aggregates if a.metric == "accuracy"] == [50]
    # The asked items are a fair draw, not the first of the file.
    assert {result.sample.id for result in read_samples(path)} != {sample.id for sample in SAMPLES[:50]}
    assert read_record(path) == record.data


def test_a_part_is_read_like_a_run_and_compared_like_none(tmp_path: Path, base: Path) -> None:
    plan = dataclasses.replace(PLAN, stop_early=StopEarly(baseline=base))
    _, path = run(plan, offer(model(0.4)), tmp_path / "run")
    (stored,) = read_runs([path])
    assert len(stored.results) == 50
    parts = read_outcomes([base, path])
    with pytest.raises(UsageError, match=r"is a part of a run, stopped early; .* has other items"):
        compare(*parts)
    # Not even with a part of the same items: which they are hangs on the answers.
    with pytest.raises(UsageError, match="is a part of a run, stopped early"):
        compare(parts[1], dataclasses.replace(parts[1], part=False))
    with pytest.raises(UsageError, match="is a part of a run, stopped early after 50 items; run it without --stop-early"):
        gate(None, parts[1], Rules(minimum={"accuracy": 0.1}))
    with pytest.raises(UsageError, match="is a part of a run, stopped early after 50 items; run it without --stop-early"):
        write_baseline(parts[1], tmp_path / "base.json")
    assert not (tmp_path / "base.json").exists()
    # Nor is it anybody's baseline.
    with pytest.raises(UsageError, match="has other items"):
        run(dataclasses.replace(PLAN, stop_early=StopEarly(baseline=path)), offer(model(0.4)), tmp_path / "other")
    before = read_record(path)
    again = rescore(path, offer(model(0.4)), ())
    assert again.data["results"] == before["results"]
    assert again.data["stopped_early"] == before["stopped_early"]


def test_a_run_without_an_answer_is_a_whole_run(tmp_path: Path, base: Path) -> None:
    plain, _ = run(PLAN, offer(model(0.88)), tmp_path / "plain")
    plan = dataclasses.replace(PLAN, stop_early=StopEarly(baseline=base, detect=1))
    record, path = run(plan, offer(model(0.88)), tmp_path / "run")
    assert record.data["sequential"]["answer"] == "cannot tell"
    assert record.data["sequential"]["asked"] == COUNT
    assert "stopped_early" not in record.data
    assert record.aggregates == plain.aggregates
    assert record.data["tasks"] == plain.data["tasks"]
    assert (path / "samples.jsonl").read_bytes() == (tmp_path / "plain" / "samples.jsonl").read_bytes()
    compare(*read_outcomes([base, path]))


def test_a_baseline_file_does_as_well_as_the_run_that_it_was_made_of(tmp_path: Path, base: Path) -> None:
    write_baseline(read_outcomes([base])[0], tmp_path / "base.json")
    found = []
    for name, baseline in (("folder", base), ("file", tmp_path / "base.json")):
        plan = dataclasses.replace(PLAN, stop_early=StopEarly(baseline=baseline))
        found.append(run(plan, offer(model(0.4)), tmp_path / name)[0].data)
    assert found[0]["sequential"] == found[1]["sequential"]
    assert found[0]["fingerprint"] == found[1]["fingerprint"]


def test_a_stopped_command_goes_on_and_ends_as_an_undisturbed_one(tmp_path: Path, base: Path) -> None:
    plan = dataclasses.replace(PLAN, stop_early=StopEarly(baseline=base, max_drop=25, detect=26))
    whole, whole_path = run(plan, offer(model(0.5)), tmp_path / "whole")
    seen: list[int] = []

    def mmedeval_sample_finished() -> None:
        seen.append(1)
        if len(seen) == 60:
            raise KeyboardInterrupt

    with pytest.raises(RunStopped, match="60 of 240 answered"):
        run(plan, offer(model(0.5), mmedeval_sample_finished=mmedeval_sample_finished), tmp_path / "run")
    rest = model(0.5)
    record, path = run(plan, offer(rest), tmp_path / "run")
    assert len(rest.asked) == whole.data["sequential"]["asked"] - 60
    assert record.data["sequential"] == whole.data["sequential"]
    assert (path / "samples.jsonl").read_bytes() == (whole_path / "samples.jsonl").read_bytes()
    # A finished one is not asked again.
    idle = model(0.5)
    assert run(plan, offer(idle), tmp_path / "run")[0].data == record.data
    assert idle.asked == []


def test_only_whole_blocks_are_judged_and_no_answer_of_the_next_is_asked_for(tmp_path: Path, base: Path) -> None:
    """A backend may answer what is easy, or long, first."""
    calls: list[int] = []

    class Sorting(ScriptedBackend):
        def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Any:
            calls.append(len(requests))
            return super().loglikelihood(sorted(requests, key=lambda request: request.id))

    plan = dataclasses.replace(PLAN, stop_early=StopEarly(baseline=base, max_drop=25, detect=26))
    backend = model(0.5)
    assert backend._score is not None
    record, _ = run(plan, offer(Sorting(score=backend._score)), tmp_path / "run")
    plain, _ = run(plan, offer(model(0.5)), tmp_path / "plain")
    assert record.data["sequential"] == plain.data["sequential"]
    assert 1 < len(calls) < 8
    assert list(itertools.accumulate(calls)) == looks(COUNT)[: len(calls)]


def test_a_server_that_is_away_proves_nothing(tmp_path: Path, base: Path) -> None:
    def fail(request: LoglikelihoodRequest) -> Loglikelihoods | Failure:
        return Failure(request_id=request.id, kind="backend", message="gone")

    plan = dataclasses.replace(PLAN, stop_early=StopEarly(baseline=base))
    record, _ = run(plan, offer(ScriptedBackend(score=fail)), tmp_path / "run")
    assert record.data["sequential"]["answer"] == "cannot tell"
    assert record.data["sequential"]["failed"] == COUNT


def test_where_a_task_was_not_reached_its_group_has_no_average(tmp_path: Path) -> None:
    tasks = (StaticTask(test=SAMPLES), StaticTask(test=[make_sample(7, answer="D")], name="rare"))
    keys = [("static", f"item {sample.id}") for sample in SAMPLES] + [("rare", "item test-7")]
    seed = next(seed for seed in range(20) if keys[-1] not in order(keys, seed)[:50])
    plan = dataclasses.replace(PLAN, tasks=("all",), seed=seed)
    base, base_path = run(plan, offer(model(0.9), *tasks), tmp_path / "base")
    assert "all" in {a.task for a in base.aggregates}
    record, path = run(
        dataclasses.replace(plan, stop_early=StopEarly(baseline=base_path)), offer(model(0.4), *tasks), tmp_path / "run"
    )
    assert set(record.data["tasks"]) == {"static"}
    assert {a.task for a in record.aggregates} == {"static"}
    assert len(read_runs([path])) == 1


def test_a_baseline_of_more_tasks_serves_for_some_of_them(tmp_path: Path) -> None:
    tasks = (StaticTask(test=SAMPLES), StaticTask(test=SAMPLES[:20], name="more"))
    _, base = run(dataclasses.replace(PLAN, tasks=("all",)), offer(model(0.9), *tasks), tmp_path / "base")
    plan = dataclasses.replace(PLAN, stop_early=StopEarly(baseline=base))
    assert run(plan, offer(model(0.4), *tasks), tmp_path / "run")[0].data["sequential"]["planned"] == COUNT


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"protocol": "cloze"}, "protocol is letter and cloze"),
        ({"limit": 7}, "has other items"),
        ({"tasks": ("static", "more")}, "more is in this run alone"),
        ({"rotations": "all"}, "leave one of them out"),
        ({"model_args": {"batch": "true"}}, "waits up to a day"),
    ],
)
def test_what_the_baseline_was_not_asked_is_refused(tmp_path: Path, base: Path, change: Any, sentence: str) -> None:
    plan = dataclasses.replace(PLAN, stop_early=StopEarly(baseline=base), **change)
    catalog = offer(model(0.4), StaticTask(test=SAMPLES), StaticTask(test=SAMPLES[:20], name="more"))
    spec = catalog.backends["scripted"]
    catalog.__dict__["backends"] = {"scripted": dataclasses.replace(spec, arguments={"batch": ""})}
    with pytest.raises(UsageError, match=sentence):
        run(plan, catalog, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"detect": 100.0}, "detect is 100; it must be more than 0 and less than 100 points, as in 5"),
        ({"detect": 0.0}, "detect is 0; it must be more than 0"),
        ({"max_drop": -1.0}, "max-drop is -1; it must be at least 0"),
        ({"max_drop": math.nan}, "max-drop is nan; it must be at least 0"),
        ({"max_drop": 50.0}, "detect is 5, less than max-drop, 50: .* set detect to 50 or more"),
    ],
)
def test_limits_that_no_run_could_be_held_against_are_refused(
    tmp_path: Path, base: Path, limits: dict[str, float], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(dataclasses.replace(PLAN, stop_early=StopEarly(baseline=base, **limits)), offer(model(0.4)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_rule_is_part_of_what_the_run_is(tmp_path: Path, base: Path) -> None:
    plan = dataclasses.replace(PLAN, stop_early=StopEarly(baseline=base))
    run(plan, offer(model(0.4)), tmp_path / "run")
    for other in (
        None,
        StopEarly(baseline=base, max_drop=2),
        StopEarly(baseline=base, detect=9),
        StopEarly(baseline=base, confidence=0.9),
    ):
        with pytest.raises(StoreError, match="holds another run: stop_early"):
            run(dataclasses.replace(PLAN, stop_early=other), offer(model(0.4)), tmp_path / "run")


def parallel_tasks(count: int) -> list[StaticTask]:
    """The same questions in four languages."""
    return [
        StaticTask(
            test=[make_sample(i, answer="ABCD"[i % 4], language=code, meta={"parallel": i}) for i in range(count)],
            name=f"shared_{code}",
            language=code,
        )
        for code in ("en", "zh", "ja", "fr")
    ]


def test_a_question_that_several_tasks_ask_is_asked_in_all_of_them_and_counts_once(tmp_path: Path) -> None:
    """In four languages the same is known or not: 40 items that change together are 10 that change."""
    tasks = parallel_tasks(100)

    def alike(accuracy: float) -> ScriptedBackend:
        def choose(request: LoglikelihoodRequest) -> str:
            number = int(request.id.rpartition("-")[2])
            return "ABCD"[(number + (random.Random(number).random() > accuracy)) % 4]

        return ScriptedBackend(score=prefer(choose))

    plan = dataclasses.replace(PLAN, tasks=("all",))
    base = run(plan, offer(alike(0.9), *tasks), tmp_path / "base")[1]
    plan = dataclasses.replace(plan, stop_early=StopEarly(baseline=base, max_drop=5, detect=6))
    record, path = run(plan, offer(alike(0.5), *tasks), tmp_path / "run")
    tested = record.data["sequential"]
    assert tested["asked"] == 4 * tested["questions"] < 400
    shared = [{result.sample.id for result in read_samples(path) if result.task == task.name} for task in tasks]
    assert all(ids == shared[0] for ids in shared)
    # As many questions in one language alone tell the same.
    lost = tested["lost"] // 4
    assert (tested["low"], tested["high"]) == bounds(of(n=tested["questions"], gained=0, lost=lost), 0.95)
    assert tested["gained"] == 0


def test_the_evidence_of_shared_questions_is_that_of_their_means() -> None:
    changes = {0.25: 3, -0.5: 7, 0.0: 20, -1.0: 2}
    steps = [change for change, count in changes.items() for _ in range(count)]
    stakes = (0.95, 0.45, 0.2, 0.09, 0.04, 0.018)
    assert evidence(changes, -0.05) == pytest.approx(math.log(wealth(steps, -0.05, stakes)))


# --- the command ---


def test_the_command_says_at_once_that_it_is_a_part_and_its_exit_code_is_the_verdict(tmp_path: Path) -> None:
    call = ["run", "--tasks", "mmedbench_mini", "--quiet", "--protocol", "letter"]
    base, part, same = (str(tmp_path / name) for name in ("base", "part", "same"))
    code: Callable[..., Any] = lambda *more: CliRunner().invoke(cli, [*call, *more])  # noqa: E731
    assert code("--model", "baseline:longest", "--out", base).exit_code == 0
    stop = ("--stop-early", "--baseline", base)
    told = code("--model", "baseline:longest", "--out", same, *stop, "--detect", "20")
    assert told.exit_code == 0, told.output
    assert "a part of a run, stopped early: accuracy did not fall by 20 points or more" in told.stdout
    unsure = code("--model", "baseline:first", "--out", part, *stop)
    assert unsure.exit_code == 4
    assert "it is not certain how accuracy compares" in unsure.stdout
    dropped = code(
        "--model", "baseline:longest", "--out", str(tmp_path / "worse"), "--stop-early", "--baseline", _all_right(base)
    )
    assert dropped.exit_code == 3
    assert json.loads((tmp_path / "worse" / "record.json").read_text(encoding="utf-8"))["sequential"]["answer"] == "fails"


def _all_right(base: str) -> str:
    """The same run, had it known everything."""
    folder = Path(base)
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    text = "".join(json.dumps({**line, "prediction": line["answer"]}) + "\n" for line in lines)
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")
    return base


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--stop-early"], "--baseline"),
        (["--baseline", "x"], "--baseline is for --stop-early"),
        (["--max-drop", "2"], "--max-drop is for --stop-early"),
        (["--stop-early", "--baseline", "nowhere"], "nowhere"),
        (["--stop-early", "--baseline", "x", "--max-drop", "101"], "max-drop is 101"),
        (["--stop-early", "--baseline", "x", "--confidence", "1"], "confidence is 1"),
    ],
)
def test_a_wrong_call_is_one_sentence(options: list[str], sentence: str) -> None:
    call = ["run", "--model", "baseline:first", "--tasks", "mmedbench_mini_en", "--quiet"]
    done = CliRunner().invoke(cli, [*call, *options])
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
