"""`mmedeval doctor`, here and on a machine that has only what the core requires."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from mmedeval import BackendSpec, TaskSpec, hookimpl
from mmedeval.catalog import Catalog
from mmedeval.cli import cli
from mmedeval.doctor import diagnose
from mmedeval.host import make_host

CORE = ("click", "pluggy", "rich", "pygments", "markdown_it", "mdurl", "mmedeval", "mmedeval_hf", "mmedeval_mmedbench")
Bare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """Runs `mmedeval` as `pip install mmedeval` without extras leaves it: the core's requirements and nothing else."""
    site = tmp_path_factory.mktemp("site")
    for name in CORE:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            pytest.skip(f"{name} is not installed as a folder")
        (site / name).symlink_to(next(iter(spec.submodule_search_locations)), target_is_directory=True)
    installed = importlib.metadata.distribution("mmedeval")
    info = site / "mmedeval-0.dist-info"
    info.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (info / name).write_text(installed.read_text(name) or "", encoding="utf-8")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("MMED", "HF_", "PYTHON"))}
        return subprocess.run(
            [sys.executable, "-S", "-c", "from mmedeval.cli import cli; cli()", *arguments],
            cwd=site,
            env={**variables, "PYTHONPATH": str(site), "PYTHONUTF8": "1", "COLUMNS": "80"},
            capture_output=True,
            text=True,
            encoding="utf-8",
        )

    return run


def test_without_a_model_library_the_doctor_gives_the_pip_line_and_the_rest_works(bare: Bare) -> None:
    told = bare("doctor")
    assert (told.returncode, told.stderr) == (0, "")
    lines = told.stdout.splitlines()
    assert any(line.startswith("ok baseline:") for line in lines)
    assert any(line.startswith("no hf:") for line in lines)
    assert "pip install 'mmedeval[hf]'" in told.stdout
    assert all(f"{package} " in told.stdout for package in ("torch", "transformers", "huggingface_hub", "safetensors"))
    assert "not installed" in told.stdout
    assert "shipped with the package" in told.stdout
    assert max(map(cell_len, lines)) <= 80

    listed = bare("list", "backends")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "(needs torch," in listed.stdout

    done = bare("run", "-q", "--model", "baseline:majority", "--tasks", "mmedbench_mini_ja")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("model", "tasks", "line"),
    [
        ("hf:org/model", "mmedbench_mini_ja", "pip install 'mmedeval[hf]'"),
        ("baseline:random", "mmedbench_ja", "pip install 'mmedeval[hub]'"),
    ],
)
def test_what_needs_a_missing_package_says_how_to_get_it(bare: Bare, model: str, tasks: str, line: str) -> None:
    refused = bare("run", "-q", "--model", model, "--tasks", tasks)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("error: ")
    assert "not installed here" in refused.stderr
    assert line in refused.stderr


def test_the_doctor_prints_each_backend_each_plugin_and_where_the_data_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Test").mkdir()
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.delenv("MMEDBENCH_DIR", raising=False)
    expected = {
        "given": (["--data-dir", str(tmp_path)], f"ok mmedbench local folder: {tmp_path}"),
        "missing": (["--data-dir", str(tmp_path / "no")], f"no mmedbench the data folder {tmp_path / 'no'} does not exist"),
        "nothing": ([], "mmedbench not given; would be fetched from the hub"),
    }
    for arguments, line in expected.values():
        told = CliRunner().invoke(cli, ["doctor", *arguments], catch_exceptions=False)
        assert told.exit_code == 0
        squeezed = " ".join(told.stdout.split())
        assert line in squeezed
        for part in (
            "ok baseline: can run",
            "ok mmedbench_mini shipped with the package",
            "ok hf mmedeval ",
            "ok mmedbench mmedeval ",
        ):
            assert part in squeezed
    monkeypatch.setenv("MMEDBENCH_DIR", str(tmp_path))
    told = CliRunner().invoke(cli, ["doctor"], catch_exceptions=False)
    assert f"local folder: {tmp_path}" in told.stdout


def test_the_doctor_names_a_plugin_that_fails_to_import_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mmedeval_broken_thing.py").write_text("raise RuntimeError('no licence')", encoding="utf-8")
    info = tmp_path / "broken_thing-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-thing\nVersion: 1.5\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[mmedeval]\nbroken = mmedeval_broken_thing\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    told = CliRunner().invoke(cli, ["doctor"], catch_exceptions=False)
    assert told.exit_code == 0
    squeezed = " ".join(told.stdout.split())
    assert "no broken plugin 'broken' (broken-thing 1.5) failed to import: RuntimeError: no licence" in squeezed
    assert "MMEDEVAL_BLOCK=broken" in squeezed
    assert "ok baseline: can run" in squeezed


def test_what_a_backend_remarks_stands_behind_its_name() -> None:
    specs = [
        BackendSpec(name="keyless", summary="", load=lambda *_: pytest.fail("loaded"), remark=lambda: "SOME_KEY is not set"),
        BackendSpec(name="ready", summary="", load=lambda *_: pytest.fail("loaded"), remark=lambda: None),
    ]
    host = make_host(extra=[SimpleNamespace(mmedeval_backends=hookimpl(lambda: specs))])
    found = {finding.name: (finding.text, finding.good) for finding in diagnose(Catalog(host))}
    assert found["keyless:"] == ("can run; SOME_KEY is not set", None)
    assert found["ready:"] == ("can run", True)


def test_a_diagnosis_loads_no_backend_and_no_task() -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("loaded")

    backends = [
        BackendSpec(name="near", summary="", load=refuse),
        BackendSpec(name="far", summary="", load=refuse, requires=("no_such_package", "sys")),
    ]
    offer = SimpleNamespace(
        mmedeval_backends=hookimpl(lambda: backends),
        mmedeval_tasks=hookimpl(lambda: [TaskSpec(name="heavy", summary="", language="en", load=refuse)]),
    )
    findings = {finding.name: finding for finding in diagnose(Catalog(make_host(extra=[offer])))}
    assert findings["near:"].good is True
    assert findings["far:"].good is False
    assert findings["far:"].text.endswith("run: pip install no_such_package")
