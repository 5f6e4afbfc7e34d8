"""The commands for studies with people: from runs to sheets, from answers to figures, and one sentence for every wrong call."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mmedeval import hookimpl
from mmedeval.catalog import Catalog
from mmedeval.cli import cli
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.testing import ScriptedBackend, StaticTask, make_sample
from mmedeval.types import Generation, RunPlan

MakeRuns = Callable[..., list[Path]]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)], catch_exceptions=False)


def done(*arguments: object) -> str:
    result = call(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refused(*arguments: object) -> str:
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def scores(run: int, language: str, number: int) -> dict[str, float]:
    r = random.Random(f"{run}/{language}/{number}")
    return {"good": 50 - 5 * run + r.gauss(0, 3), "poor": r.random()}


def answer_all(study: Path, rater: str, noise: float = 0.7, skip: int = 0) -> Path:
    """The file that the page exports for a rater who finds the first run best, mostly."""
    key = json.loads((study / "key.json").read_text(encoding="utf-8"))
    runs, r, answers = {item["item"]: item["candidates"] for item in key["items"]}, random.Random(rater), []
    for item, order in key["sheets"][rater][skip:]:
        seen = {candidate: 4 - 0.6 * runs[item][candidate] + r.gauss(0, noise) for candidate in order}
        ranked = sorted(seen, key=lambda candidate: -seen[candidate])
        given = {c: {"rating": min(5, max(1, round(seen[c]))), "place": 1 + ranked.index(c)} for c in order}
        answers.append({"item": item, "candidates": given})
    file = study / f"{rater}.json"
    whole: dict[str, Any] = {"format": 1, "kind": "mmedeval-ratings", "study": key["study"], "rater": rater, "answers": answers}
    file.write_text(json.dumps(whole), encoding="utf-8")
    return file


def test_a_study_from_runs_to_figures(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs = make_runs(count=30, scores=scores)
    shown = done("human", "export", *runs, "--items", "10", "--per-language", "--out", "study")
    assert "English: 10 of 20 questions" in shown
    assert "rater1 (30), rater2 (30), rater3 (30)" in shown
    assert "study/key.json to yourself" in shown
    assert {file.name for file in (tmp_path / "study").iterdir()} == {
        "key.json",
        *(f"rater{number}.{kind}" for number in (1, 2, 3) for kind in ("csv", "html")),
    }
    for number in (1, 2, 3):
        answer_all(tmp_path / "study", f"rater{number}", skip=number - 1)
    files = sorted((tmp_path / "study").glob("*.json"))
    shown = done("human", "import", *files, "--study", "study", "--out", "study.json")
    assert "rater1: 30 of 30 answered\n" in shown
    assert "rater3: 28 of 30 answered, 2 missing" in shown
    for words in ("alpha, ratings", "tau, places", "English", "Japanese", "all", "rater1, rater3", "stored in study.json"):
        assert words in shown
    shown = done("agree", *runs, "--human", "study.json", "--metrics", "good,poor")
    lines = [line.split()[0] for line in shown.splitlines() if line.startswith(("good", "poor"))]
    assert lines == ["good", "poor", "good", "poor"]
    for words in ("tau", "95 % interval", "Spearman", "right pairs", "best", "English", "6 runs, 3 raters"):
        assert words in shown


def test_figures_are_stored_and_printed_alike(make_runs: MakeRuns, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    runs = make_runs(count=12, languages=("ja",), scores=scores)
    done("human", "export", *runs, "--items", "6", "--raters", "1", "--out", "study")
    file = answer_all(tmp_path / "study", "rater1")
    stored = json.loads(done("human", "import", file, "--study", "study", "--out", "study.json", "--json"))
    assert stored == json.loads(Path("study.json").read_text(encoding="utf-8"))
    printed = done("agree", *runs, "--human", "study.json", "--out", "out", "--json")
    assert json.loads(printed) == json.loads(Path("out/agree.json").read_text(encoding="utf-8"))
    assert {file.name for file in Path("out").iterdir()} == {"agree.json", "agree.csv", "agree.png", "agree.svg"}
    assert "one rater only" in done("human", "import", file, "--study", "study", "--out", "study.json")
    assert "agreement with people, Japanese" in done("agree", *runs, "--human", "study.json")


def test_without_matplotlib_the_figures_are_there_and_a_sentence_says_what_is_missing(
    make_runs: MakeRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = make_runs(count=6, languages=("ja",), scores=scores)
    done("human", "export", *runs, "--out", "study")
    done("human", "import", answer_all(tmp_path / "study", "rater1"), "--study", "study", "--out", "study.json")
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = call("agree", *runs, "--human", "study.json", "--out", "out")
    assert result.exit_code == 0
    assert result.stderr == "no plot: it needs matplotlib, not installed here; run: pip install 'mmedeval[human]'\n"
    assert {file.name for file in Path("out").iterdir()} == {"agree.json", "agree.csv"}


def test_runs_as_the_runner_stores_them_can_be_rated(tmp_path: Path) -> None:
    """What people read is the rationale alone, as the metrics read it: no thinking, no line with the answer."""
    samples = [make_sample(n, rationale="Haem holds iron.", meta={"human_check_passed": True}) for n in range(1, 5)]
    runs = []
    for name in ("one", "two", "three"):
        text = f"<think>{name} thinks</think>Because {name} says so.\nAnswer: A"
        backend = ScriptedBackend(write=lambda request, text=text: Generation(request_id=request.id, text=text), name=name)
        plugin = SimpleNamespace(
            mmedeval_tasks=hookimpl(lambda: [StaticTask(test=samples).spec()]),
            mmedeval_backends=hookimpl(lambda backend=backend: [backend.spec()]),
        )
        plan = RunPlan(model=f"{name}:any", tasks=("static",), protocol="chat")
        run(plan, Catalog(make_host(extra=[plugin])), tmp_path / name)
        runs.append(tmp_path / name)
    done("human", "export", *runs, "--out", "study")
    sheet = Path("study/rater1.csv").read_text(encoding="utf-8-sig")
    assert sheet.count("Because three says so.") == 4
    assert "thinks" not in sheet
    assert "Answer: A" not in sheet
    done("human", "import", answer_all(tmp_path / "study", "rater1"), "--study", "study", "--out", "study.json")
    assert "accuracy" in done("agree", *runs, "--human", "study.json")


def test_a_wrong_call_is_one_sentence(make_runs: MakeRuns, tmp_path: Path) -> None:
    runs = make_runs(count=6, languages=("ja",), scores=scores)
    assert "Missing option '--out'" in refused("human", "export", *runs)
    assert "compare 2 to 12 runs, not 1" in refused("human", "export", runs[0], "--out", "study")
    assert "is no run folder" in refused("human", "export", runs[0], tmp_path, "--out", "study")
    assert not Path("study").exists()
    done("human", "export", *runs, "--out", "study")
    assert "not an empty folder" in refused("human", "export", *runs, "--out", "study")
    sheets = sorted((tmp_path / "study").iterdir())
    assert "no answers in there" in refused(
        "human", "import", *[s for s in sheets if s.suffix != ".html"], "--study", "study", "--out", "x"
    )
    assert "rater1.html is not JSON" in refused("human", "import", "study/rater1.html", "--study", "study", "--out", "x")
    assert "nowhere.json cannot be read: No such file" in refused(
        "human", "import", "nowhere.json", "--study", "study", "--out", "x"
    )
    assert "elsewhere/key.json does not exist" in refused(
        "human", "import", "study/key.json", "--study", "elsewhere", "--out", "x"
    )
    assert "study.json does not exist" in refused("agree", *runs, "--human", "study.json")
    done("human", "import", answer_all(tmp_path / "study", "rater1"), "--study", "study", "--out", "study.json")
    assert "mmedeval rescore" in refused("agree", *runs, "--human", "study.json", "--metrics", "chrf")
    assert "is missing; name all runs" in refused("agree", *runs[:4], "--human", "study.json")
    assert "No such command" in refused("human", "exprot")


def test_help_tells_of_all_three_commands() -> None:
    assert "human" in done("--help")
    assert "agree" in done("--help")
    for command in (("human",), ("human", "export"), ("human", "import"), ("agree",)):
        assert "Usage" in done(*command, "--help")
