"""The metrics by name: what they score, which items they take, and when they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from mmedeval import GenerateRequest, Generation, PluginError, RunPlan, UsageError, hookimpl
from mmedeval.catalog import Catalog
from mmedeval.cli import cli
from mmedeval.errors import UnknownNameError
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.store import read_record, read_samples
from mmedeval.testing import ScriptedBackend, StaticTask, make_sample
from mmedeval_rationale import SUMMARIES, sentence_scores
from mmedeval_rationale.scores import CHECKS, PAIRWISE, check, load

LANGUAGES = ["en", "zh", "ja", "fr", "ru", "es"]


@pytest.mark.parametrize("metric", PAIRWISE)
@pytest.mark.parametrize("language", LANGUAGES)
def test_identical_texts_score_100_and_others_less_in_every_language(metric: str, language: str) -> None:
    one, other = CHECKS[language]
    same, different, empty = sentence_scores(metric, [one, one, ""], [one, other, one], language)
    assert same == pytest.approx(100, abs=1e-5)
    assert different == 0
    assert empty == 0


def test_a_metric_that_gives_nothing_to_identical_russian_refuses_to_run() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    latin_only = RougeScorer(["rouge1"])

    def score(candidates: Any, references: Any, language: str) -> list[float]:
        pairs = zip(candidates, references, strict=True)
        return [100 * latin_only.score(reference, candidate)["rouge1"].fmeasure for candidate, reference in pairs]

    with pytest.raises(PluginError, match="gives 0 to identical texts in Chinese"):
        check("rouge1", score)


def test_unknown_names_and_uneven_sequences_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="rouge1"):
        sentence_scores("rouge-1", ["a"], ["a"], "en")
    with pytest.raises(UnknownNameError, match="language"):
        sentence_scores("rouge1", ["a"], ["a"], "de")
    with pytest.raises(UsageError, match="2 candidates and 1 references"):
        sentence_scores("rouge1", ["a", "b"], ["a"], "en")
    with pytest.raises(UsageError, match="rationale-items some"):
        load("rouge1", {"rationale_items": "some"})


def offer(texts: dict[str, str], **metas: dict[str, Any]) -> Catalog:
    samples = [make_sample(i, answer="A", rationale="Iron is low.", meta=meta) for i, meta in enumerate(metas.values())]
    task = StaticTask(test=samples)

    def write(request: GenerateRequest) -> Generation:
        return Generation(request_id=request.id, text=texts[request.id.rpartition("-")[2]])

    backend = ScriptedBackend(write=write)
    plugin = SimpleNamespace(mmedeval_tasks=hookimpl(lambda: [task.spec()]), mmedeval_backends=hookimpl(lambda: [backend.spec()]))
    return Catalog(make_host(extra=[plugin]))


PLAN = {"model": "scripted:any", "tasks": ("static",), "protocol": "chat"}
TEXTS = {"0": "Iron is low.\nAnswer: A", "1": "Zinc.\nAnswer: B", "2": "Iron is low."}
PASSED = {"human_checked": True, "human_check_passed": True}


def test_by_default_only_references_that_a_person_found_good_are_compared(tmp_path: Path) -> None:
    catalog = offer(TEXTS, first=PASSED, second={"human_checked": True, "human_check_passed": False}, third={})
    record, path = run(RunPlan(**PLAN, metrics=("rouge1",)), catalog, tmp_path / "run")
    (figure,) = [figure for figure in record.aggregates if figure.metric == "rouge1"]
    assert (figure.value, figure.scored, figure.n, figure.scale) == (100, 1, 3, 100)
    assert read_record(path)["metrics"]["rouge1"]["rationale_items"] == "checked"
    assert "rouge-score" in read_record(path)["metrics"]["rouge1"]["signature"]


def test_all_references_are_compared_when_asked_for_and_an_unread_answer_keeps_its_rationale(tmp_path: Path) -> None:
    catalog = offer(TEXTS, first=PASSED, second={}, third={})
    plan = RunPlan(**PLAN, metrics=("rouge1",), metric_args={"rationale_items": "all"})
    record, path = run(plan, catalog, tmp_path / "run")
    (figure,) = [figure for figure in record.aggregates if figure.metric == "rouge1"]
    assert figure.scored == 3
    assert figure.value == pytest.approx(200 / 3)
    assert [result.scores["rouge1"] for result in read_samples(path)] == pytest.approx([100, 0, 100])


def test_a_stored_run_gets_any_metric_afterwards(tmp_path: Path) -> None:
    catalog = offer(TEXTS, first=PASSED, second={}, third={})
    run(RunPlan(**PLAN), catalog, tmp_path / "run")
    names = [name for name in SUMMARIES if "bertscore" not in name]
    arguments = ["rescore", str(tmp_path / "run"), "--metrics", ",".join([*names, "in_language"]), "--rationale-items", "all"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    figures = {figure["metric"]: figure for figure in record["results"]}
    assert {name for name in names if figures[name]["scored"] == 3} == set(names)
    assert record["plan"]["metric_args"] == {"rationale_items": "all"}


def test_a_setting_that_no_chosen_metric_takes_is_refused_before_the_model_is_asked(tmp_path: Path) -> None:
    catalog = offer(TEXTS, first=PASSED)
    plan = RunPlan(**PLAN, metric_args={"rationale_items": "all"})
    with pytest.raises(UnknownNameError, match=r"it belongs to the metrics .*rouge1"):
        run(plan, catalog, tmp_path / "run")
    assert not (tmp_path / "run").exists()
