"""Items under other orders of their options: what is asked, what is kept, and what the figures say."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from scipy import optimize, stats

from mmedeval import PluginError, UsageError, hookimpl
from mmedeval.aggregate import TaskScores
from mmedeval.catalog import Catalog
from mmedeval.cli import cli
from mmedeval.host import make_host
from mmedeval.rotations import formulation_spread, rotated, rotation_amounts, rotation_summary
from mmedeval.runner import RunStopped, rescore, run
from mmedeval.runs import read_runs
from mmedeval.store import ROTATIONS, read_record, read_rotations, read_samples
from mmedeval.testing import ScriptedBackend, StaticTask, make_sample, prefer
from mmedeval.types import Failure, GenerateRequest, Generation, LoglikelihoodRequest, RunPlan, SampleResult

PLAN = RunPlan(model="scripted:any", tasks=("static",), rotations="all")
# Right answers A, B, C, D, A, B; the right text is always another one.
SAMPLES = [make_sample(i, answer="ABCDAB"[i - 1]) for i in range(1, 7)]


def offer(backend: ScriptedBackend, *tasks: StaticTask, **hooks: Any) -> Catalog:
    given = tasks or (StaticTask(test=SAMPLES, train=[make_sample(i, answer="B") for i in range(11, 15)]),)
    plugin = SimpleNamespace(mmedeval_tasks=hookimpl(lambda: [task.spec() for task in given]))
    plugin.mmedeval_backends = hookimpl(lambda: [backend.spec()])
    for name, function in hooks.items():
        setattr(plugin, name, hookimpl(function))
    return Catalog(make_host(extra=[plugin]))


def knows_the_text(request: LoglikelihoodRequest | GenerateRequest) -> str:
    """The letters of the right texts, wherever they stand."""
    number = int(request.id.rpartition("-")[2].partition("@")[0])
    given = SAMPLES[number - 1]
    wanted = {given.options[letter] for letter in given.answer}
    return "".join(letter for letter, text in request.options.items() if text in wanted)


def figures(data: Any) -> dict[str, Any]:
    return {row["metric"]: row for row in data["rotations"]["results"] if row["task"] == "static"}


# --- orders ---


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10])
def test_over_all_orders_every_text_stands_once_under_every_letter(count: int) -> None:
    sample = make_sample(options=[f"text {i}" for i in range(count)])
    orders = [sample, *(rotated(sample, amount) for amount in rotation_amounts(count, "all"))]
    places = Counter((letter, text) for order in orders for letter, text in order.options.items())
    assert len(places) == count * count
    assert set(places.values()) == {1}


def test_a_rotated_item_keeps_its_letters_its_right_texts_and_its_name() -> None:
    sample = make_sample(answer="AC")
    for amount in rotation_amounts(4, "all"):
        turned = rotated(sample, amount)
        assert list(turned.options) == list("ABCD")
        assert {turned.options[letter] for letter in turned.answer} == {"iron", "copper"}
        assert (turned.id, turned.question) == (sample.id, sample.question)


def test_fewer_orders_than_options_are_spread_evenly_and_more_are_all_there_are() -> None:
    assert rotation_amounts(4, 2) == (2,)
    assert rotation_amounts(5, 3) == (1, 3)
    assert rotation_amounts(2, 9) == rotation_amounts(2, "all") == (1,)


# --- a run ---


def test_the_figures_of_the_given_order_are_those_of_a_run_without_rotations(tmp_path: Path) -> None:
    def score(request: LoglikelihoodRequest) -> str:
        return random.Random(request.id).choice("ABCD")

    plain, plain_path = run(
        dataclasses.replace(PLAN, rotations=None), offer(ScriptedBackend(score=prefer(score))), tmp_path / "p"
    )
    turned, turned_path = run(PLAN, offer(ScriptedBackend(score=prefer(score))), tmp_path / "r")
    assert turned.aggregates == plain.aggregates
    assert turned.data["counts"] == plain.data["counts"]
    assert turned.data["tasks"] == plain.data["tasks"]
    assert turned.data["fingerprint"] != plain.data["fingerprint"]
    assert (turned_path / "samples.jsonl").read_bytes() == (plain_path / "samples.jsonl").read_bytes()
    assert not (plain_path / ROTATIONS).exists()
    assert "rotations" not in plain.data
    assert len(read_rotations(turned_path)) == 18


def test_who_knows_the_texts_is_right_in_all_orders_and_favours_no_letter(tmp_path: Path) -> None:
    record, _ = run(PLAN, offer(ScriptedBackend(score=prefer(knows_the_text))), tmp_path / "run")
    assert {name: row["value"] for name, row in figures(record.data).items()} == {
        "right_in_all_orders": 1.0, "mean_over_orders": 1.0, "same_answer": 1.0,
    }  # fmt: skip
    (row,) = record.data["rotations"]["position"]
    assert row["recall_spread"] == 0
    assert {letter: about["share"] for letter, about in row["letters"].items()} == dict.fromkeys("ABCD", 0.25)
    assert all(about["low"] < 0.25 < about["high"] for about in row["letters"].values())


def test_of_two_options_that_read_the_same_it_is_all_one_which_is_chosen(tmp_path: Path) -> None:
    twins = make_sample(1, options=["one", "iron", "two", "iron"], answer="B")

    def first_iron(request: LoglikelihoodRequest | GenerateRequest) -> str:
        return next(letter for letter, text in request.options.items() if text == "iron")

    task = StaticTask(test=[twins], train=[])
    record, _ = run(PLAN, offer(ScriptedBackend(score=prefer(first_iron)), task), tmp_path / "run")
    assert figures(record.data)["same_answer"]["value"] == 1


def test_who_always_says_the_same_letter_is_right_in_one_order_in_four_and_is_found_out(tmp_path: Path) -> None:
    record, _ = run(PLAN, offer(ScriptedBackend(score=prefer(lambda _: "A"))), tmp_path / "run")
    by_metric = figures(record.data)
    assert by_metric["mean_over_orders"]["value"] == 0.25
    assert by_metric["right_in_all_orders"]["value"] == by_metric["same_answer"]["value"] == 0
    (row,) = record.data["rotations"]["position"]
    assert (row["options"], row["items"], row["expected"]) == (4, 6, 0.25)
    assert [about["share"] for about in row["letters"].values()] == [1, 0, 0, 0]
    assert row["letters"]["A"]["low"] > 0.25
    # RStd of recalls 1, 0, 0, 0, computed apart.
    assert row["recall_spread"] == pytest.approx(statistics.pstdev([1, 0, 0, 0]))


def position(*items: tuple[str, ...]) -> dict[str, Any]:
    """The letters of items of two options, each given as the letters chosen in its two orders; right is A, then B."""
    sample = make_sample(options=("iron", "zinc"))
    samples = [dataclasses.replace(sample, id=f"test-{number}") for number, _ in enumerate(items)]
    results = [
        [
            SampleResult(
                task="t", sample=rotated(each, amount), status="ok", prediction=frozenset(letters[amount]), rotation=amount
            )
            for each, letters in zip(samples, items, strict=True)
        ]
        for amount in (0, 1)
    ]
    task = TaskScores(task="t", language="en", group=None, results=results[0], scores={}, chances=[0.5] * len(items))
    (row,) = rotation_summary([task], results[1], "all")["position"]
    assert isinstance(row, dict)
    return row


def test_shares_recalls_and_their_spread_are_those_reckoned_by_hand() -> None:
    """Three items, of which A and then B is right: two are answered with A each time, one rightly."""
    row = position(("A", "A"), ("A", "B"), ("A", "A"))
    # A was chosen in 5 of 6 answers, in all 3 where it was right; B in 1, and in 1 of the 3 where it was right.
    assert {letter: (about["chosen"], about["right"]) for letter, about in row["letters"].items()} == {"A": (5, 3), "B": (1, 3)}
    assert [about["share"] for about in row["letters"].values()] == pytest.approx([5 / 6, 1 / 6])
    assert [about["recall"] for about in row["letters"].values()] == pytest.approx([1, 1 / 3])
    # From their mean, 2/3, both recalls are a third away.
    assert row["recall_spread"] == pytest.approx(1 / 3)
    # Three items can refute no share at all.
    assert (row["letters"]["A"]["low"], row["letters"]["A"]["high"]) == (0, 1)


def test_a_model_that_guesses_is_called_biased_in_at_most_5_of_100_cases_with_six_items_too() -> None:
    """All that can happen: of six items, so many answered with A twice, once or never, by a fair coin."""
    wrongly = 0.0
    for twice in range(7):
        for never in range(7 - twice):
            once = 6 - twice - never
            ways = math.comb(6, twice) * math.comb(6 - twice, never)
            about = position(*[("A", "A")] * twice, *[("B", "B")] * never, *[("A", "B")] * once)["letters"]["A"]
            if not about["low"] <= 0.5 <= about["high"]:
                wrongly += ways * 0.25**twice * 0.25**never * 0.5**once
    assert 0.01 < wrongly <= 0.05


def test_the_share_of_a_letter_and_its_interval_are_those_of_items_taken_as_wholes(tmp_path: Path) -> None:
    """An independent computation: with one letter per answer the ratio estimator is the mean of the items' own shares."""
    samples = [make_sample(i) for i in range(1, 41)]

    def score(request: LoglikelihoodRequest) -> str:
        return random.Random(request.id).choice("AABCD")

    catalog = offer(ScriptedBackend(score=prefer(score)), StaticTask(test=samples))
    record, path = run(PLAN, catalog, tmp_path / "run")
    shares: dict[str, list[int]] = {sample.id: [] for sample in samples}
    for result in [*read_samples(path), *read_rotations(path)]:
        shares[result.sample.id].append(result.prediction == frozenset("A"))
    means = [statistics.fmean(values) for values in shares.values()]
    share, n = statistics.fmean(means), len(means)

    def beyond(ratio: float) -> float:
        """How far the share is from a ratio, in standard errors that are those about this ratio, less what is allowed."""
        error = math.sqrt(statistics.fmean((mean - ratio) ** 2 for mean in means) / n)
        return abs(share - ratio) / error - stats.norm.ppf(0.975)

    (row,) = record.data["rotations"]["position"]
    assert row["letters"]["A"]["share"] == pytest.approx(share)
    assert row["letters"]["A"]["low"] == pytest.approx(optimize.brentq(beyond, 0, share))
    assert row["letters"]["A"]["high"] == pytest.approx(optimize.brentq(beyond, share, 1))


def test_items_with_several_right_answers_are_turned_too(tmp_path: Path) -> None:
    samples = [make_sample(1, answer="AC"), make_sample(2, answer="B", options=("yes", "no"))]
    right = {1: {"iron", "copper"}, 2: {"no"}}

    def score(request: LoglikelihoodRequest) -> str:
        texts = right[int(request.id.partition("-")[2].partition("@")[0])]
        return "".join(letter for letter, text in request.options.items() if text in texts)

    task = StaticTask(test=samples, max_answers=4)
    record, path = run(PLAN, offer(ScriptedBackend(score=prefer(score)), task), tmp_path / "run")
    assert figures(record.data)["right_in_all_orders"]["value"] == 1
    assert [row["options"] for row in record.data["rotations"]["position"]] == [2, 4]
    assert [(each.sample.id, each.rotation) for each in read_rotations(path)] == [
        ("test-1", 1), ("test-1", 2), ("test-1", 3), ("test-2", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("protocol", ["chat", "paper", "paper-direct"])
def test_texts_are_read_with_the_letters_of_their_own_order(tmp_path: Path, protocol: Any) -> None:
    def write(request: GenerateRequest) -> Generation:
        letter = knows_the_text(request)
        text = f"Answer: {letter}" if protocol == "chat" else f"###Answer: OPTION {letter} IS CORRECT."
        return Generation(request_id=request.id, text=text)

    record, _ = run(dataclasses.replace(PLAN, protocol=protocol), offer(ScriptedBackend(write=write)), tmp_path / "run")
    assert figures(record.data)["right_in_all_orders"]["value"] == 1


def test_under_cloze_the_texts_are_scored_and_their_order_is_all_that_changes(tmp_path: Path) -> None:
    asked: list[LoglikelihoodRequest] = []

    def score(request: LoglikelihoodRequest) -> Any:
        asked.append(request)
        return prefer(knows_the_text)(request)

    record, _ = run(dataclasses.replace(PLAN, protocol="cloze"), offer(ScriptedBackend(score=score)), tmp_path / "run")
    assert figures(record.data)["right_in_all_orders"]["value"] == 1
    first = [request for request in asked if request.id.partition("@")[0] == "static/test-1"]
    assert len({request.prompt for request in first}) == 1
    assert len({frozenset(request.continuations) for request in first}) == 1


def test_solved_examples_keep_their_order(tmp_path: Path) -> None:
    prompts: dict[str, Any] = {}

    def score(request: LoglikelihoodRequest) -> Any:
        prompts[request.id] = request.prompt
        return prefer(lambda _: "A")(request)

    run(dataclasses.replace(PLAN, shots=2), offer(ScriptedBackend(score=score)), tmp_path / "run")
    assert len({prompt.shots for prompt in prompts.values()}) == 1
    assert "A. zinc\nB. copper\nC. lead\nD. iron" in prompts["static/test-1@1"].question


def test_an_item_that_was_not_read_in_some_order_is_left_out_and_counted(tmp_path: Path) -> None:
    def write(request: GenerateRequest) -> Generation | Failure:
        if request.id == "static/test-1@2":
            return Failure(request_id=request.id, kind="backend", message="gone")
        return Generation(request_id=request.id, text="Hm." if request.id == "static/test-2@1" else "Answer: A")

    record, _ = run(PLAN, offer(ScriptedBackend(write=write)), tmp_path / "run")
    row = figures(record.data)["right_in_all_orders"]
    assert (row["n"], row["scored"], row["unread"], row["failed"]) == (6, 4, 1, 1)
    assert record.data["rotations"]["counts"] == {"n": 18, "ok": 16, "unread": 1, "failed": 1, "unscored": 0}
    assert record.data["rotations"]["position"][0]["items"] == 4
    # The given order was answered in full.
    assert record.data["counts"]["ok"] == 6


def test_with_fewer_orders_than_options_no_letter_bias_is_claimed(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, rotations=2)
    record, path = run(plan, offer(ScriptedBackend(score=prefer(lambda _: "A"))), tmp_path / "run")
    assert record.data["rotations"]["position"] == []
    assert {each.rotation for each in read_rotations(path)} == {2}


def test_what_the_backend_gets_at_once_are_all_orders_so_that_it_may_share_their_prefix(tmp_path: Path) -> None:
    calls: list[int] = []

    class Counting(ScriptedBackend):
        def loglikelihood(self, requests: Any) -> Any:
            calls.append(len(requests))
            return super().loglikelihood(requests)

    run(PLAN, offer(Counting(score=prefer(lambda _: "A"))), tmp_path / "run")
    assert calls == [24]


# --- stops, other plans, scoring again ---


def stopping_after(count: int) -> Callable[..., None]:
    seen: list[int] = []

    def mmedeval_sample_finished() -> None:
        seen.append(1)
        if len(seen) == count:
            raise KeyboardInterrupt

    return mmedeval_sample_finished


@pytest.mark.parametrize("after", [3, 11])
def test_a_stopped_run_goes_on_with_the_orders_that_are_missing(tmp_path: Path, after: int) -> None:
    whole = ScriptedBackend(score=prefer(knows_the_text))
    expected, _ = run(PLAN, offer(whole), tmp_path / "whole")
    with pytest.raises(RunStopped, match=f"{after} of 24 answered"):
        run(PLAN, offer(whole, mmedeval_sample_finished=stopping_after(after)), tmp_path / "run")
    if after > 6:
        torn = tmp_path / "run" / ROTATIONS
        torn.write_bytes(torn.read_bytes()[:-20])
    rest = ScriptedBackend(score=prefer(knows_the_text))
    record, path = run(PLAN, offer(rest), tmp_path / "run")
    assert len(rest.asked) == 24 - after + (after > 6)
    assert record.data["rotations"] == expected.data["rotations"]
    for name in ("samples.jsonl", ROTATIONS):
        assert (path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed in the middle of the other orders, with the first half of a line written."""
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_rotations as ours
class Killed:
    seen = 0
def score(request):
    Killed.seen += 1
    if Killed.seen == 12:
        with open("run/rotations.jsonl", "a") as file:
            file.write('{{"task": "sta')
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    return ours.prefer(ours.knows_the_text)(request)
ours.run(ours.PLAN, ours.offer(ours.ScriptedBackend(score=score)), ours.Path("run"))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    expected, whole = run(PLAN, offer(ScriptedBackend(score=prefer(knows_the_text))), tmp_path / "whole")
    rest = ScriptedBackend(score=prefer(knows_the_text))
    record, path = run(PLAN, offer(rest), tmp_path / "run")
    assert len(rest.asked) == 24 - 11
    assert record.data["process"]["torn_lines"] == 1
    assert record.data["rotations"] == expected.data["rotations"]
    for name in ("samples.jsonl", ROTATIONS):
        assert (path / name).read_bytes() == (whole / name).read_bytes()


def test_another_number_of_orders_is_another_run(tmp_path: Path) -> None:
    backend = ScriptedBackend(score=prefer(lambda _: "A"))
    run(PLAN, offer(backend), tmp_path / "run")
    with pytest.raises(UsageError, match=r"'all' nor a number"):
        run(dataclasses.replace(PLAN, rotations=1), offer(backend), tmp_path / "other")
    with pytest.raises(Exception, match=r"holds another run: rotations\.orders was all, is now 2"):
        run(dataclasses.replace(PLAN, rotations=2), offer(backend), tmp_path / "run")


def test_a_sample_that_bears_the_name_of_a_rotated_one_is_refused(tmp_path: Path) -> None:
    twins = [SAMPLES[0], dataclasses.replace(SAMPLES[1], id="test-1@1")]
    with pytest.raises(PluginError, match="'static/test-1@1' is a sample of its own"):
        run(PLAN, offer(ScriptedBackend(score=prefer(lambda _: "A")), StaticTask(test=twins)), tmp_path / "run")


def test_scoring_again_reads_the_other_orders_again_and_keeps_the_rest(tmp_path: Path) -> None:
    def write(request: GenerateRequest) -> Generation:
        return Generation(request_id=request.id, text=f"Answer: {knows_the_text(request)}")

    catalog = offer(ScriptedBackend(write=write))
    before, path = run(PLAN, catalog, tmp_path / "run")
    again = rescore(path, catalog, ())
    assert again.data["rotations"] == before.data["rotations"]
    # What an older reader had not read is read now.
    lines = [json.loads(line) for line in (path / ROTATIONS).read_text(encoding="utf-8").splitlines()]
    lines[0] = {name: value for name, value in lines[0].items() if name != "prediction"} | {"status": "unread"}
    (path / ROTATIONS).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert rescore(path, catalog, ()).data["rotations"] == before.data["rotations"]
    assert all(result.status == "ok" for result in read_rotations(path))


def test_the_command_shows_orders_and_letters_and_refuses_nonsense(tmp_path: Path) -> None:
    call = ["run", "--model", "baseline:first", "--tasks", "mmedbench_mini_en", "--quiet", "--out", str(tmp_path / "run")]
    shown = CliRunner().invoke(cli, [*call, "--rotations", "all"])
    assert shown.exit_code == 0, shown.output
    assert "right in all" in shown.stdout
    assert "100.0*" in shown.stdout
    assert CliRunner().invoke(cli, ["show", str(tmp_path / "run")]).stdout == shown.stdout
    assert read_record(tmp_path / "run")["plan"]["rotations"] == "all"
    for wrong in ("1", "some", "-2", "²"):
        refused = CliRunner().invoke(cli, [*call, "--rotations", wrong])
        assert refused.exit_code == 2
        assert f"{wrong!r} is neither 'all' nor a number of orders from 2 on" in refused.stderr


# --- letter, cloze, chat on the same items ---


def test_the_spread_over_formulations_is_that_of_the_items_which_all_runs_read(tmp_path: Path) -> None:
    def write(request: GenerateRequest) -> Generation:
        text = {"1": "Hm.", "2": "Answer: D"}.get(request.id[-1], f"Answer: {knows_the_text(request)}")
        return Generation(request_id=request.id, text=text)

    backend = ScriptedBackend(
        write=write, score=prefer(lambda request: "A" if request.id.endswith("3") else knows_the_text(request))
    )
    paths = []
    for protocol in ("letter", "chat"):
        plan = dataclasses.replace(PLAN, rotations=None, protocol=protocol)
        paths.append(run(plan, offer(backend), tmp_path / protocol)[1])
    found = formulation_spread(read_runs(paths))
    # Item 1 is unread in chat; of the other five, letter misses item 3 and chat item 2.
    assert (found["items"], found["read"]) == (6, 5)
    assert [(way["protocol"], way["value"]) for way in found["formulations"]] == [("letter", 0.8), ("chat", 0.8)]
    assert found["spread"] == 0
    (pair,) = found["pairs"]
    assert pair["protocols"] == ["letter", "chat"]
    assert pair["agreement"]["value"] == 3 / 5
    assert pair["difference"] == 0
    assert pair["low"] < 0 < pair["high"]
    assert found["tasks"]["static"]["read"] == 5


def test_a_spread_over_one_protocol_or_two_models_is_refused(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, rotations=None, protocol="letter")
    one = run(plan, offer(ScriptedBackend(score=prefer(lambda _: "A"))), tmp_path / "one")[1]
    other_plan = dataclasses.replace(plan, model="other:any", protocol="cloze")
    other = run(other_plan, offer(ScriptedBackend(score=prefer(lambda _: "A"), name="other")), tmp_path / "other")[1]
    with pytest.raises(UsageError, match="two or more protocols, each once; given: letter"):
        formulation_spread(read_runs([one]))
    with pytest.raises(UsageError, match="hold different models"):
        formulation_spread(read_runs([one, other]))
