"""The judge compares runs: in both orders, or all at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from mmedeval import GenerateRequest, Generation, RunPlan, SampleResult, UsageError, hookimpl
from mmedeval.catalog import Catalog
from mmedeval.cli import cli
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.testing import ScriptedBackend, StaticTask, make_sample
from mmedeval_rationale.contest import contest
from mmedeval_rationale.judge import Settings

SETTINGS = Settings.parse({"judge": "judging:any"})


def results(name: str, count: int = 8) -> list[SampleResult]:
    """What a run wrote: its name, as a text to be judged."""
    samples = [make_sample(i, rationale="Iron is low.", meta={"human_check_passed": True}) for i in range(count)]
    return [SampleResult(task="t", sample=sample, status="ok", output=f"text of {name}") for sample in samples]


def catalog(order: Callable[[Sequence[str]], Sequence[str]]) -> tuple[Catalog, list[str]]:
    """A judge that sees texts in their order and gives them back in another."""
    asked: list[str] = []

    def write(request: GenerateRequest) -> Generation:
        question = request.prompt.question
        asked.append(question)
        texts = dict(re.findall(r"\[[0-9a-f]{12} ([A-F])\]\ntext of (\w+)", question))
        letters = {text: letter for letter, text in texts.items()}
        mark = re.findall(r'\{"id": "([0-9a-f]{12})"', question)[-1]
        ranking = [letters[text] for text in order([*texts.values()])]
        return Generation(request_id=request.id, text=json.dumps({"id": mark, "ranking": ranking}))

    spec = replace(ScriptedBackend(write=write).spec(), name="judging")
    return Catalog(make_host(extra=[SimpleNamespace(mmedeval_backends=hookimpl(lambda: [spec]))])), asked


def test_a_better_text_wins_every_pair_whichever_stands_first(tmp_path: Path) -> None:
    judge, asked = catalog(sorted)
    found = contest({name: results(name) for name in ("bad", "abc", "cut")}, judge, SETTINGS, "pairwise", None, tmp_path)
    assert len(asked) == 8 * 3 * 2
    outcome = {tuple(pair["runs"]): (pair["won"], pair["tied"], pair["lost"], pair["value"]) for pair in found["pairs"]}
    assert outcome == {("bad", "abc"): (0, 0, 8, 0), ("bad", "cut"): (8, 0, 0, 1), ("abc", "cut"): (8, 0, 0, 1)}


def test_a_judge_that_prefers_the_first_place_gives_ties_only(tmp_path: Path) -> None:
    judge, _ = catalog(lambda texts: texts)
    found = contest({name: results(name) for name in ("one", "two")}, judge, SETTINGS, "pairwise", None, tmp_path)
    (pair,) = found["pairs"]
    assert (pair["won"], pair["tied"], pair["lost"], pair["value"]) == (0, 8, 0, 0.5)


def test_a_ranking_finds_the_order_and_each_run_stands_in_all_places(tmp_path: Path) -> None:
    judge, asked = catalog(sorted)
    names = ["f", "b", "d", "a", "c", "e"]
    found = contest({name: results(name, 60) for name in names}, judge, SETTINGS, "ranking", None, tmp_path)
    assert len(asked) == 60
    assert {rank["run"]: rank["value"] for rank in found["ranks"]} == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}
    for rank in found["ranks"]:
        assert sorted(rank["places"]) == [1, 2, 3, 4, 5, 6]


def test_figures_are_told_for_each_language_too(tmp_path: Path) -> None:
    def spoken(name: str, better: bool) -> list[SampleResult]:
        english, french = results("abc" if better else "bad", 3), results("bad" if better else "abc", 5)
        return [*english, *(replace(each, task="f", sample=replace(each.sample, language="fr")) for each in french)]

    judge, _ = catalog(sorted)
    found = contest({"one": spoken("one", True), "two": spoken("two", False)}, judge, SETTINGS, "pairwise", None, tmp_path)
    shares = {
        language: [(pair["won"], pair["lost"]) for pair in part["pairs"]] for language, part in found["by_language"].items()
    }
    assert shares == {"en": [(3, 0)], "fr": [(0, 5)]}
    assert [(pair["won"], pair["lost"]) for pair in found["pairs"]] == [(3, 5)]


def test_a_contest_that_was_stopped_asks_nothing_twice_and_a_seed_draws_the_items(tmp_path: Path) -> None:
    runs = {name: results(name, 20) for name in ("one", "two")}
    judge, asked = catalog(sorted)
    first = contest(runs, judge, SETTINGS, "pairwise", 5, tmp_path)
    assert (first["items"], len(asked)) == (5, 10)
    second = contest(runs, judge, SETTINGS, "pairwise", 5, tmp_path)
    assert len(asked) == 10
    assert {**first, "counts": None} == {**second, "counts": None}


def test_runs_on_other_questions_are_refused(tmp_path: Path) -> None:
    judge, _ = catalog(sorted)
    other = [replace(result, sample=replace(result.sample, question="Another?")) for result in results("two")]
    with pytest.raises(UsageError, match="t/test-0 is not the same question in all runs"):
        contest({"one": results("one"), "two": other}, judge, SETTINGS, "pairwise", None, tmp_path)
    unchecked: Any = [replace(result, sample=replace(result.sample, meta={})) for result in results("two")]
    with pytest.raises(UsageError, match="share no item"):
        contest({"one": results("one"), "two": unchecked}, judge, SETTINGS, "pairwise", None, tmp_path)
    with pytest.raises(UsageError, match="1 runs cannot be compared"):
        contest({"one": results("one")}, judge, SETTINGS, "ranking", None, tmp_path)


def test_the_command_compares_run_folders_and_keeps_figures_and_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, asked = catalog(sorted)
    runs = {}
    for name in ("one", "two"):
        samples = [result.sample for result in results(name, 4)]
        task = StaticTask(test=samples)
        backend = ScriptedBackend(write=lambda request, name=name: Generation(request_id=request.id, text=f"text of {name}"))
        hooks = {
            "mmedeval_tasks": hookimpl(lambda task=task: [task.spec()]),
            "mmedeval_backends": hookimpl(lambda it=backend: [it.spec()]),
        }
        plan = RunPlan(model="scripted:any", tasks=("static",), protocol="chat")
        _, runs[name] = run(plan, Catalog(make_host(extra=[SimpleNamespace(**hooks)])), tmp_path / name)
    monkeypatch.setattr("mmedeval.host.make_host", lambda: judge.host)
    arguments = ["judge", *map(str, runs.values()), "--judge", "judging:any", "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(cli, arguments)
    assert shown.exit_code == 0, shown.output
    assert "4 items: 8 verdicts, 0 unread" in shown.output
    assert len(asked) == 8
    found = json.loads((tmp_path / "out" / "contest.json").read_text(encoding="utf-8"))
    assert [(pair["won"], pair["lost"]) for pair in found["pairs"]] == [(4, 0)]
    assert len((tmp_path / "out" / "judge.jsonl").read_text(encoding="utf-8").splitlines()) == 8
    ranked = CliRunner().invoke(cli, [*arguments, "--mode", "ranking", "--json"])
    assert [rank["value"] for rank in json.loads(ranked.stdout)["ranks"]] == [1, 2]
    few = CliRunner().invoke(cli, [*arguments[:-1], str(tmp_path / "few"), "--max-requests", "7"])
    assert (few.exit_code, "would be asked 8 times" in few.output) == (2, True)
    twice = CliRunner().invoke(
        cli, ["judge", str(runs["one"]), str(runs["one"]), "--judge", "judging:any", "--out", str(tmp_path)]
    )
    assert (twice.exit_code, "a run is named twice" in twice.output) == (2, True)
