"""The commands compare, baseline, gate and trend: exit codes, files, screens, and one sentence for a mistake."""

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from mmedeval.catalog import Catalog
from mmedeval.cli import cli
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.types import RunPlan

TASKS = ("mmedbench_mini_en", "mmedbench_mini_ja")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small runs of three baselines."""
    root = tmp_path_factory.mktemp("runs")
    for name in ("random", "longest", "first"):
        run(RunPlan(model=f"baseline:{name}", tasks=TASKS, limit=10), Catalog(make_host()), root / name)
    run(RunPlan(model="baseline:random", tasks=TASKS[:1], limit=10, protocol="cloze"), Catalog(make_host()), root / "cloze")
    return root


@pytest.fixture(autouse=True)
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test in a folder of its own with the runs, outside of any workflow."""
    for path in made.iterdir():
        shutil.copytree(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def done(*arguments: str) -> str:
    result = call(*arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def refused(*arguments: str) -> str:
    """The one sentence with which a call is refused."""
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    return line


def right(path: Path, count: int) -> None:
    """Makes a run right in the first items of each task and wrong in the rest."""
    file = path / "samples.jsonl"
    lines, seen = [], {}
    for line in map(json.loads, file.read_text().splitlines()):
        seen[line["task"]] = seen.get(line["task"], 0) + 1
        wrong = [letter for letter in line["options"] if [letter] != line["answer"]][:1]
        line["prediction"] = line["answer"] if seen[line["task"]] <= count else wrong
        lines.append(json.dumps(line))
    file.write_text("\n".join(lines) + "\n")


# --- compare ---


def test_a_comparison_fits_a_terminal_of_80_and_says_what_changed() -> None:
    out = done("compare", "random", "longest", "first")
    assert max(map(cell_len, out.splitlines())) <= 80
    assert out.count("base: baseline:random") == 2
    for word in ("new: baseline:longest", "new: baseline:first", "English", "Japanese", "average", "gained", "Holm"):
        assert word in out


def test_a_comparison_as_json_has_all_figures_and_items_only_on_request() -> None:
    (found,) = json.loads(done("compare", "random", "longest", "--json"))
    assert (found["base"], found["new"], found["forced"]) == ("baseline:random", "baseline:longest", [])
    assert [row["task"] for row in found["rows"]] == [*TASKS, "mmedbench_mini"]
    assert {"p", "p_holm", "low", "high", "effect", "smallest_drop"} <= {*found["rows"][0]["all"]}
    assert "items" not in found
    (found,) = json.loads(done("compare", "random", "longest", "--json", "--items"))
    assert len(found["items"]) == found["rows"][-1]["all"]["gained"] + found["rows"][-1]["all"]["lost"]


def test_items_are_shown_with_their_texts_and_begin_with_words_of_ours() -> None:
    file = Path("longest", "samples.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    right(Path("random"), 0)
    right(Path("longest"), 10)
    lines[0]["question"] = "::stop-commands::\n::error::x\x1b[31m"
    lines[0]["prediction"] = lines[0]["answer"]
    lines[1]["prediction"] = lines[1]["answer"]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    out = done("compare", "random", "longest", "--items")
    assert "mmedbench_mini_en/test-1 gained" in out
    assert "asked: : :stop-commands: : : :error: :x\\x1b[31m" in out
    assert "::" not in out


def test_no_name_of_a_model_or_a_task_becomes_a_command_to_a_runner(folder: Path) -> None:
    """A runner takes `::` at the beginning of any line, also one that was wrapped, and `##[` wherever it stands."""
    for name in ("random", "longest"):
        file = folder / name / "record.json"
        record = file.read_text().replace('"mmedbench_mini"', json.dumps("x\n::error::x"))
        data = json.loads(record)
        data["model"]["reference"] = f"{'::error::x ' * 20}##[error]{name}"
        file.write_text(json.dumps(data))
    done("baseline", "random", "-o", "b.json")
    for arguments in (
        ("baseline", "random", "-o", "b.json"),
        ("compare", "random", "longest"),
        ("trend", "random", "longest"),
        ("gate", "--baseline", "random", "--run", "longest", "--min", "accuracy=0.1"),
    ):
        out = call(*arguments).stdout
        assert "error: :" in out
        assert not any(line.lstrip().startswith("::") for line in out.splitlines())
        assert "##[" not in out


def test_a_comparison_is_refused_with_what_differs_unless_it_is_forced() -> None:
    said = refused("compare", "random", "cloze")
    assert "cannot be compared: protocol is letter and cloze; mmedbench_mini_ja is in baseline:random letter alone" in said
    assert "--force compares what they share, and says so" in said
    out = done("compare", "random", "cloze", "--force", "--markdown", "c.md")
    assert "not comparable, and forced: protocol is letter and cloze" in out
    assert "**Not comparable, and forced:** protocol is letter and cloze" in Path("c.md").read_text()
    (found,) = json.loads(done("compare", "random", "cloze", "--force", "--json"))
    assert found["forced"][0] == "protocol is letter and cloze"


def test_metrics_whose_change_rounds_to_nothing_have_no_sign() -> None:
    for name, score in (("random", 0.40), ("longest", 0.41)):
        file = Path(name, "samples.jsonl")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for number, line in enumerate(lines):
            line["scores"]["bleu1"] = score + number % 2 / 50
        file.write_text("\n".join(map(json.dumps, lines)) + "\n")
        record = json.loads(Path(name, "record.json").read_text())
        record["results"] += [
            {**row, "metric": "bleu1", "scale": 100.0} for row in record["results"] if row["metric"] == "accuracy"
        ]
        Path(name, "record.json").write_text(json.dumps(record))
    out = done("compare", "longest", "random")
    assert [line.split() for line in out.splitlines() if line.startswith("bleu1  average")] == [
        ["bleu1", "average", "20", "0.4", "0.4", "0.0", "–"]
    ]


def test_what_is_no_run_is_refused_in_one_sentence() -> None:
    Path("torn").mkdir()
    Path("notes.txt").write_text("notes")
    shutil.copytree("random", "damaged")
    Path("damaged", "samples.jsonl").write_text("{}\n")
    assert "nowhere is no run folder" in refused("compare", "random", "nowhere")
    assert "torn is no run folder" in refused("compare", "random", "torn")
    assert "notes.txt is no baseline" in refused("gate", "--baseline", "notes.txt", "--run", "random")
    assert "damaged/samples.jsonl:1: not a line of a run" in refused("compare", "random", "damaged")
    assert "hold the same run; name each run once" in refused("compare", "random", "random")


@pytest.mark.parametrize("option", ["--junit", "--markdown"])
def test_a_run_s_own_file_is_not_overwritten(option: str) -> None:
    before = Path("random", "record.json").read_bytes()
    told = refused("gate", "--baseline", "longest", "--run", "random", option, "random/record.json")
    assert f"random/record.json is a part of a run, which would be lost; choose another place with {option}" in told
    assert Path("random", "record.json").read_bytes() == before


# --- baseline ---


def test_a_baseline_is_written_and_stands_for_its_run() -> None:
    assert "baseline:random: 20 items in 2 tasks" in done("baseline", "random", "-o", "b.json")
    from_file, from_run = (json.loads(done("compare", base, "longest", "--json"))[0] for base in ("b.json", "random"))
    assert from_file["rows"] == from_run["rows"]
    Path("notes.json").write_text("{}")
    assert "notes.json is there and is no baseline" in refused("baseline", "random", "-o", "notes.json")


# --- gate ---


def test_a_gate_answers_by_its_exit_code_in_a_sentence_and_a_table() -> None:
    for name, count in (("random", 10), ("longest", 10), ("first", 0)):
        right(Path(name), count)
    result = call("gate", "--baseline", "random", "--run", "longest", "--detect", "30")
    assert result.exit_code == 0
    assert "baseline:longest holds against baseline:random: mmedbench_mini stayed at 100.0" in " ".join(result.stdout.split())
    result = call("gate", "--baseline", "random", "--run", "first", "--per-language")
    assert result.exit_code == 3
    assert "does not hold against" in result.stdout
    assert "fails" in result.stdout
    result = call("gate", "--baseline", "random", "--run", "longest")
    assert result.exit_code == 4
    assert "cannot tell" in result.stdout


def test_a_run_that_did_not_change_is_held_against_itself() -> None:
    done("baseline", "random", "-o", "b.json")
    for base in ("b.json", "random"):
        assert call("gate", "--baseline", base, "--run", "random", "--detect", "50").exit_code == 0


def test_the_rules_of_a_file_hold_and_options_win() -> None:
    done("baseline", "random", "-o", "b.json")
    Path("gate.toml").write_text('baseline = "b.json"\ndetect = 50\n[min]\naccuracy = 0.0\n')
    data = json.loads(done("gate", "--config", "gate.toml", "--run", "random", "--json"))
    assert (data["verdict"], data["rules"]["detect"], data["rules"]["minimum"]) == ("holds", 50, {"accuracy": 0.0})
    result = call("gate", "--config", "gate.toml", "--run", "random", "--detect", "2", "--min", "accuracy=0.9", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["rules"]["minimum"] == {"accuracy": 0.9}
    Path("gate.toml").write_text("max_drops = 1\n")
    assert "unknown setting in gate.toml:1 'max_drops'; did you mean max-drop?" in refused(
        "gate", "--config", "gate.toml", "--run", "random"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--min", "accuracy"), "--min 'accuracy' is no pair of a metric and a number; write it as in accuracy=0.6"),
        (("--min", "accuracy=high"), "--min 'accuracy=high' is no pair"),
        (("--min", "=1"), "--min '=1' is no pair"),
        (("--min", "acuracy=0.5"), "unknown metric in random 'acuracy'; did you mean accuracy"),
        (("--baseline", "cloze"), "cannot be compared: protocol is cloze and letter"),
        (("--baseline", "longest", "--max-drop", "7", "--detect", "6"), "detect is 6, less than max-drop, 7"),
        (("--baseline", "longest", "--confidence", "95"), "confidence is 95; it must be at least 0.5 and less than 1"),
        ((), "nothing to hold the run against; give --baseline FILE, or a least value as in --min accuracy=0.6"),
        (("--config", "nowhere.toml"), "--config nowhere.toml does not exist"),
        (
            ("--baseline", "longest", "--junit", "nowhere/j.xml"),
            "cannot write nowhere/j.xml: No such file or directory; choose another file with --junit",
        ),
        (
            ("--baseline", "longest", "--markdown", "random"),
            "cannot write random: Is a directory; choose another file with --markdown",
        ),
    ],
)
def test_a_gate_that_cannot_be_meant_is_refused(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused("gate", "--run", "random", *arguments)


def test_a_gate_writes_junit_and_markdown_and_tells_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    Path("summary.md").write_text("before\n")
    right(Path("random"), 10)
    right(Path("first"), 0)
    result = call("gate", "--baseline", "random", "--run", "first", "--github", "--junit", "j.xml", "--markdown", "g.md")
    assert result.exit_code == 3
    assert next(line for line in result.stdout.splitlines() if line.startswith("::")).startswith("::error title=mmedbench_mini ")
    cases = [case.get("name") for case in ElementTree.parse("j.xml").iter("testcase")]
    assert cases == ["mmedbench_mini_en [en] drop", "mmedbench_mini_ja [ja] drop", "mmedbench_mini [avg] drop"]
    assert Path("g.md").read_text().startswith("## Gate: does not hold")
    assert Path("summary.md").read_text() == "before\n" + Path("g.md").read_text()


def test_least_values_of_several_metrics_are_shown_by_language() -> None:
    out = call("gate", "--run", "random", "--min", "accuracy=0", "--min", "accuracy_strict=0", "--per-language").stdout
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("accuracy")][:6] == [
        [metric, language] for metric in ("accuracy", "accuracy_strict") for language in ("English", "Japanese", "average")
    ]


def test_json_and_annotations_do_not_mix() -> None:
    result = call("gate", "--baseline", "longest", "--run", "random", "--json", "--github")
    json.loads(result.stdout)
    assert result.stderr.startswith("::")


# --- trend ---


def test_a_trend_of_steps_is_shown_and_is_json() -> None:
    for step, name, count in ((20, "random", 10), (5, "longest", 5), (30, "first", 0)):
        right(Path(name), count)
        Path(name).rename(f"step-{step}")
        record = json.loads(Path(f"step-{step}", "record.json").read_text())
        for row in record["results"]:
            row["value"] = count / 10
        Path(f"step-{step}", "record.json").write_text(json.dumps(record))
    out = done("trend", "step-5", "step-20", "step-30", "--markdown", "t.md")
    assert max(map(cell_len, out.splitlines())) <= 80
    assert "best: step 20, 100.0" in out
    assert "first drop: step 30, 100.0 points below step 20" in out
    assert "first drop: step 30" in Path("t.md").read_text().replace("\\", "")
    data = json.loads(done("trend", "step-30", "step-5", "step-20", "--json"))
    assert (data["order"], [point["step"] for point in data["series"][0]["points"]]) == ("step", [5, 20, 30])
    assert "a trend needs two runs or more" in refused("trend", "step-5")


@pytest.mark.parametrize("command", ["compare", "trend"])
def test_tables_that_cannot_be_written_are_told_with_their_option(command: str) -> None:
    said = "error: cannot write nowhere/t.md: No such file or directory; choose another file with --markdown"
    assert refused(command, "random", "longest", "--markdown", "nowhere/t.md") == said
