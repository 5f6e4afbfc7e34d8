"""A run as the files of the submission guide: all that is asked for, as it was written, or a sentence on what to run."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from mmedeval import MetricSpec, SampleResult, StoreError, UsageError, hookimpl, rationale_of
from mmedeval.catalog import Catalog
from mmedeval.cli import cli
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.runs import StoredRun, read_runs
from mmedeval.specs import LANGUAGES
from mmedeval.submit import TASKS, submission, write_submission
from mmedeval.testing import ScriptedBackend, StaticTask, make_sample, prefer
from mmedeval.types import Failure, GenerateRequest, Generation, RunPlan

METRICS = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge1", "rouge2", "rougeL")
PLAN = RunPlan(model="scripted:any", tasks=("mmedbench",), protocol="paper", metrics=METRICS)
HOSTILE = '=HYPERLINK("http://x", "y")\r\nsecond line, with "quotes"\x00 and 鉄\n###Answer: OPTION A IS CORRECT.'


def samples(language: str) -> list[Any]:
    """Four items: right are A, B, A and C, A; the last one's reference nobody found good."""
    return [
        make_sample(
            i,
            answer=answer,
            language=language,
            rationale="Iron stands at the centre of haem.",
            meta={"human_checked": True, "human_check_passed": i < 4},
        )
        for i, answer in enumerate(("A", "B", "AC", "A"), start=1)
    ]


def write(request: GenerateRequest) -> Generation | Failure:
    """Right, right, wrong (one letter of two), unread; in French the first fails."""
    task, number = request.id.partition("/")[0], int(request.id[-1])
    if task == "mmedbench_fr" and number == 1:
        return Failure(request_id=request.id, kind="backend", message="gone")
    text = {
        1: HOSTILE,
        2: "###Rationale: Iron is in haem. ###Answer: OPTION B IS CORRECT.</s>",
        3: "###Rationale: Iron stands at the centre of haem. ###Answer: OPTION A IS CORRECT.",
        4: "- I cannot say \ud800.\rNor can others.",
    }[number]
    return Generation(request_id=request.id, text=text)


def overlap(number: int, text: str, reference: str) -> float:
    """A stand-in for the rationale metrics, which take seconds to load: whether so many words are in common."""
    return float(len({*text.split()} & {*reference.split()}) >= number)


def metric(number: int, name: str) -> MetricSpec:
    def score(results: Sequence[SampleResult]) -> list[float | None]:
        return [
            overlap(number, rationale_of(result.output), result.sample.rationale)
            if result.output is not None and result.sample.meta["human_check_passed"]
            else None
            for result in results
        ]

    return MetricSpec(name=name, summary="a test", load=lambda _: score, arguments={"rationale_items": ""})


def catalog() -> Catalog:
    backend = ScriptedBackend(write=write, score=prefer(lambda _: "A"))
    tasks = [StaticTask(test=samples(code), name=f"mmedbench_{code}", language=code, max_answers=4) for code in LANGUAGES]
    plugin = SimpleNamespace(
        mmedeval_tasks=hookimpl(lambda: [task.spec("mmedbench") for task in tasks]),
        mmedeval_backends=hookimpl(lambda: [backend.spec()]),
        mmedeval_metrics=hookimpl(lambda: [metric(number, name) for number, name in enumerate(METRICS, start=1)]),
    )
    return Catalog(make_host(block=["mmedbench", "rationale"], extra=[plugin]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(PLAN, catalog(), tmp_path_factory.mktemp("runs") / "whole")[1]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_four_files_hold_what_the_guide_asks_for(tmp_path: Path, whole: Path) -> None:
    (stored,) = read_runs([whole])
    write_submission(submission(stored), tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "accuracy_metric.csv", "multi_choice_results.csv", "rationale_results.csv", "rationale_similarity_metric.csv",
    ]  # fmt: skip
    choices = rows(tmp_path / "out" / "multi_choice_results.csv")
    assert list(choices[0]) == ["Language", "ModelInput", "ModelOutput", "GT_Answer"]
    assert [row["Language"] for row in choices] == [name for name in LANGUAGES.values() for _ in range(4)]
    assert [row["GT_Answer"] for row in choices[:4]] == ["A", "B", "A,C", "A"]
    assert choices[0]["ModelInput"].startswith("Below is an instruction")
    assert choices[0]["ModelInput"].endswith("### Response:")
    rationales = rows(tmp_path / "out" / "rationale_results.csv")
    assert len(rationales) == 18
    assert {row["GT_Answer"] for row in rationales} == {"Iron stands at the centre of haem."}
    assert rationales[1]["ModelOutput"] == "Iron is in haem."
    (accuracy,) = rows(tmp_path / "out" / "accuracy_metric.csv")
    # Two of four; what is unread or failed is wrong, as in the benchmark's own script.
    assert accuracy == {name: "25.00" if name == "French" else "50.00" for name in LANGUAGES.values()}


def test_the_similarities_are_the_means_over_the_rows_of_the_rationales(tmp_path: Path, whole: Path) -> None:
    (stored,) = read_runs([whole])
    write_submission(submission(stored), tmp_path / "out")
    similarity = rows(tmp_path / "out" / "rationale_similarity_metric.csv")
    assert [row["Metric"] for row in similarity] == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L"]
    pairs = [row for row in rows(tmp_path / "out" / "rationale_results.csv") if row["Language"] == "Chinese"]
    for number, row in enumerate(similarity, start=1):
        scores = [overlap(number, pair["ModelOutput"], pair["GT_Answer"]) for pair in pairs]
        assert row["Chinese"] == f"{sum(scores) / 3:.2f}"


def test_texts_are_as_the_model_wrote_them_and_a_copy_to_look_at_computes_nothing(tmp_path: Path, whole: Path) -> None:
    (stored,) = read_runs([whole])
    found = submission(stored)
    assert write_submission(found, tmp_path / "true") == write_submission(found, tmp_path / "safe", safe_cells=True) == 16
    outputs = [row["ModelOutput"] for row in rows(tmp_path / "true" / "multi_choice_results.csv")]
    assert outputs[0] == HOSTILE
    # Half a surrogate pair has no UTF-8.
    assert outputs[3] == "- I cannot say \\ud800.\rNor can others."
    for name in found.files:
        with (tmp_path / "safe" / name).open(encoding="utf-8", newline="") as handle:
            assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for row in csv.reader(handle) for cell in row)


def test_files_that_are_there_are_not_overwritten(tmp_path: Path, whole: Path) -> None:
    (stored,) = read_runs([whole])
    write_submission(submission(stored), tmp_path / "out")
    with pytest.raises(UsageError, match=r"holds a multi_choice_results\.csv already"):
        write_submission(submission(stored), tmp_path / "out")


def test_where_one_file_cannot_be_written_there_is_none(tmp_path: Path, whole: Path) -> None:
    (stored,) = read_runs([whole])
    (tmp_path / "out" / "accuracy_metric.csv.new").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot write in .*out: Is a directory; choose another folder with -o"):
        write_submission(submission(stored), tmp_path / "out")
    assert not [*(tmp_path / "out").glob("*.csv")]


def changed(run: StoredRun, **data: Any) -> StoredRun:
    """The run, had it been made otherwise."""
    return dataclasses.replace(run, data={**run.data, **data})


def test_a_run_that_cannot_be_submitted_is_told_what_to_run_instead(whole: Path) -> None:
    (stored,) = read_runs([whole])
    plan, tasks = stored.data["plan"], stored.data["tasks"]
    without_prompts = dataclasses.replace(stored, results=[dataclasses.replace(each, prompt=None) for each in stored.results])
    one_metric = dataclasses.replace(stored, aggregates=[each for each in stored.aggregates if each.metric != "bleu2"])
    unchecked = [
        dataclasses.replace(each, sample=dataclasses.replace(each.sample, meta={})) if each.task == "mmedbench_ja" else each
        for each in stored.results
    ]
    for run_, sentence in (
        (
            changed(stored, protocol={"used": "letter"}),
            "asks for no rationale; run: mmedeval run --protocol paper --tasks mmedbench",
        ),
        (changed(stored, protocol={"used": "paper-direct"}), "asks for no rationale"),
        (without_prompts, "stores none; run without --no-save-requests"),
        (changed(stored, plan={**plan, "limit": 2}), "was narrowed by --limit 2"),
        (changed(stored, plan={**plan, "exclude_images": True}), "was narrowed by --exclude-images"),
        (changed(stored, stopped_early="so"), "was narrowed by --stop-early"),
        (changed(stored, tasks={"mmedbench_fr": tasks["mmedbench_fr"]}), "lacks English, Chinese, Japanese, Russian, Spanish"),
        (changed(stored, tasks={**tasks, "other": {}}), r"holds other tasks \(other\)"),
        (one_metric, "has no bleu2; add what is needed: mmedeval rescore .* --metrics bleu1,bleu2"),
        (changed(stored, plan={**plan, "metric_args": {"rationale_items": "all"}}), "--rationale-items checked"),
        (dataclasses.replace(stored, results=unchecked), "in Japanese was found good by a person"),
    ):
        with pytest.raises(UsageError, match=sentence):
            submission(run_)


@pytest.mark.parametrize("change", [{"metric_args": None}, {"metric_args": 7}])
def test_an_edited_record_is_refused_in_one_sentence(whole: Path, change: dict[str, Any]) -> None:
    (stored,) = read_runs([whole])
    with pytest.raises(StoreError, match=r"whole is damaged: AttributeError: .* has no attribute 'get'; restore it"):
        submission(changed(stored, plan={**stored.data["plan"], **change}))


def test_the_command_names_the_files_and_what_to_know(tmp_path: Path, whole: Path) -> None:
    done = CliRunner().invoke(cli, ["submit", str(whole), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "multi_choice_results.csv: 24 rows" in done.stdout
    assert "accuracy: English 50.00, Chinese 50.00, Japanese 50.00, French 25.00" in done.stdout
    assert "the run is of 24 items, the whole test set of 8518" in done.stderr
    assert "1 items have no output: wrong in accuracy_metric.csv" in done.stderr
    assert "16 cells begin as a spreadsheet's formulas do" in done.stderr


def test_the_small_set_is_no_submission(tmp_path: Path) -> None:
    call = ["run", "--model", "baseline:first", "--tasks", "mmedbench_mini_en", "--quiet", "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(cli, call).exit_code == 0
    done = CliRunner().invoke(cli, ["submit", str(tmp_path / "run"), "-o", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "is of MMedBench in all six languages" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_tasks_are_those_of_the_benchmark() -> None:
    assert list(TASKS) == ["mmedbench_en", "mmedbench_zh", "mmedbench_ja", "mmedbench_fr", "mmedbench_ru", "mmedbench_es"]
    assert set(TASKS) <= set(Catalog(make_host()).tasks)
