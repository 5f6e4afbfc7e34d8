"""The workflow that docs/ci.md shows is run as it stands."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from mmedeval.gate import Rules, make_rules, read_rules

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
SETUP, RULES = (re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL) for kind in ("bash", "toml"))
GITHUB, GITLAB = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
INSTALLS = "pip install "


def steps() -> list[str]:
    return [step["run"] for job in GITHUB["jobs"].values() for step in job["steps"] if "run" in step]


def test_both_workflows_give_the_same_commands() -> None:
    assert [step.replace(" --github", "") for step in steps()] == GITLAB["gate"]["script"]


def test_what_a_workflow_installs_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (install,) = [step for step in steps() if step.startswith(INSTALLS)]
    name, extra = re.fullmatch(r"pip install '(\w+)\[(\w+)\]'", install).groups()  # type: ignore[union-attr]
    assert (name, extra in extras) == ("mmedeval", True)


def test_the_rules_shown_are_rules(tmp_path: Path) -> None:
    (shown,) = RULES
    (tmp_path / "gate.toml").write_text(shown, encoding="utf-8")
    settings = read_rules(tmp_path / "gate.toml")
    assert {*settings} == {"baseline", "max-drop", "detect", "confidence", "per-language", "min"}
    assert make_rules({**settings, "detect": 5.0, "min": {}}) == Rules()


@pytest.mark.skipif(os.name != "posix", reason="the steps of the workflow are for a POSIX shell")
@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_the_steps_of_the_workflow_run_as_they_stand(tmp_path: Path) -> None:
    """But for GitHub's own actions, and the installation, which needs the network: what it would bring is here."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "OMP_NUM_THREADS": "1",
    }

    def step(script: str) -> subprocess.CompletedProcess[str]:
        # As GitHub runs a step.
        command = ["bash", "-e", "-c", script]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)

    from mmedeval_hf.tiny import make_tiny_model

    # What the job before left.
    make_tiny_model(tmp_path / "checkpoint", config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1})
    (setup,), (rules,) = SETUP, RULES
    (tmp_path / "gate.toml").write_text(rules, encoding="utf-8")
    install, ask, judge = steps()
    assert install.startswith(INSTALLS)
    done = [step(ask), step(setup), step(judge)]
    assert [each.returncode for each in done] == [0, 0, 0], [each.stderr for each in done]
    assert "checkpoint holds against" in " ".join(done[-1].stdout.split())
    assert "::notice title=mmedeval gate::" in done[-1].stdout
    cases = [*ElementTree.parse(tmp_path / "gate.xml").iter("testcase")]
    assert len(cases) == 8
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == (tmp_path / "gate.md").read_text(encoding="utf-8")
    # A checkpoint that stopped answering rightly is caught by the very same step.
    (tmp_path / "gate.toml").write_text(rules.replace("accuracy = 0.01", "accuracy = 0.99"), encoding="utf-8")
    assert step(judge).returncode == 3
