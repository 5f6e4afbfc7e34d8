"""A stranger's package, installed as a user installs it: what it adds is there, and works as if it were our own."""

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "outside_plugin"
COMMAND = Path(sysconfig.get_path("scripts")) / "mmedeval"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package, built by its own build backend, without a network."""
    for tool in ("pip", "hatchling"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed")
    target = tmp_path_factory.mktemp("site")
    offline = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", target, PACKAGE],
        env={**os.environ, **offline},
        check=True,
        timeout=120,
    )
    return target


def mmedeval(site: Path, folder: Path, *arguments: str, block: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(site), "MMEDEVAL_BLOCK": block, "COLUMNS": "200"}
    return subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=env, capture_output=True, encoding="utf-8", timeout=60, check=False
    )


def test_what_the_plugin_offers_is_listed_with_its_version(site: Path, tmp_path: Path) -> None:
    plugins = mmedeval(site, tmp_path, "list", "plugins")
    assert plugins.returncode == 0, plugins.stderr
    (line,) = [line.split() for line in plugins.stdout.splitlines() if "outside" in line]
    assert line == ["outside", "mmedeval-outside", "1.0"]
    everything = mmedeval(site, tmp_path, "list").stdout
    assert all(name in everything for name in ("outside:", "outside_quiz", "outside_length"))
    assert "longest" in mmedeval(site, tmp_path, "list", "backends").stdout
    assert "shipped with the plugin" in mmedeval(site, tmp_path, "doctor").stdout


def run(site: Path, folder: Path, *more: str) -> dict[str, dict[str, object]]:
    """The figures of the plugin's backend on its task with its metric, by name, and the counts."""
    arguments = ["--model", "outside:echo", "--tasks", "outside_quiz", "--metrics", "outside_length", "--json", "-q", *more]
    done = mmedeval(site, folder, "run", *arguments)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    return {**{figure["metric"]: figure for figure in record["results"]}, "counts": record["counts"]}


# The echo finds iron and parathyroid, and else takes the first option: pancreas (right) and kidney instead of liver.
ACCURACY, LIKENESS = 3 / 4, (1 + 1 + 5 / 6 + 1) / 4


@pytest.mark.parametrize("choice", [[], ["--protocol", "chat"], ["--shots", "1"]], ids=["letter", "chat", "few-shot"])
def test_its_backend_its_task_and_its_metric_work_together(site: Path, tmp_path: Path, choice: list[str]) -> None:
    figures = run(site, tmp_path, *choice)
    assert figures["accuracy"]["value"] == ACCURACY
    assert figures["outside_length"]["value"] == pytest.approx(LIKENESS)
    assert figures["outside_length"]["n"] == 4
    assert figures["counts"]["ok"] == 4


def test_each_of_them_works_with_what_is_ours(site: Path, tmp_path: Path) -> None:
    ours = mmedeval(
        site, tmp_path, "run", "--model", "baseline:first", "--tasks", "outside_quiz,mmedbench_mini_en", "-q", "--json"
    )
    assert ours.returncode == 0, ours.stderr
    values = {(row["task"], row["metric"]): row["value"] for row in json.loads(ours.stdout)["results"]}
    assert values["outside_quiz", "accuracy"] == 1 / 4
    theirs = mmedeval(
        site,
        tmp_path,
        *("run", "--model", "outside:echo", "--tasks", "mmedbench_mini_ja", "--metrics", "outside_length", "-q", "--json"),
    )
    assert theirs.returncode == 0, theirs.stderr
    assert json.loads(theirs.stdout)["counts"]["ok"] == 40


def test_a_question_that_it_cannot_read_is_a_counted_failure(site: Path, tmp_path: Path) -> None:
    figures = run(site, tmp_path, "--model-arg", "longest=90")
    assert figures["counts"]["failed"] == 2
    assert figures["counts"]["failures"] == {"too_long": 2}
    assert figures["outside_length"]["scored"] == 2


def test_its_wrong_calls_are_one_sentence(site: Path, tmp_path: Path) -> None:
    wrong = {
        "outside:ecko does not exist; there is outside:echo": ["--model", "outside:ecko"],
        "--model-arg longest='x' is not a whole number": ["--model", "outside:echo", "--model-arg", "longest=x"],
        "unknown --model-arg of outside 'longst'; did you mean longest?": ["--model", "outside:echo", "--model-arg", "longst=1"],
    }
    for sentence, arguments in wrong.items():
        done = mmedeval(site, tmp_path, "run", "-q", "--tasks", "outside_quiz", *arguments)
        assert (done.returncode, done.stderr) == (2, f"error: {sentence}\n")


def test_blocked_it_is_gone(site: Path, tmp_path: Path) -> None:
    done = mmedeval(site, tmp_path, "list", block="outside")
    assert done.returncode == 0
    assert "outside" not in done.stdout


def test_its_backend_keeps_the_contract(site: Path) -> None:
    code = "import mmedeval_outside, mmedeval.testing as kit; kit.check_backend(mmedeval_outside.EchoBackend())"
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_holds_no_tests_of_ours() -> None:
    """It is a package of its own: a test run does not collect it."""
    assert not [file for pattern in ("test_*.py", "*_test.py", "conftest.py") for file in PACKAGE.rglob(pattern)]
