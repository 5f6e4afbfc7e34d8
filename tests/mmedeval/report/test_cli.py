"""The commands `mmedeval report` and `mmedeval plot`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mmedeval.cli import cli
from mmedeval.testing import make_sample
from mmedeval.types import Failure

Make = Callable[..., Path]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)], catch_exceptions=False)


def refused(*arguments: object) -> str:
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize(
    ("name", "options", "begins"),
    [
        ("x.html", (), "<!doctype html>"),
        ("x.HTM", (), "<!doctype html>"),
        ("x.txt", ("--format", "html", "--no-samples"), "<!doctype html>"),
        ("x.md", (), "# Evaluation report"),
        ("x.csv", (), "run,model,"),
        ("x.csv", ("--samples",), "run,task,"),
        ("x.parquet", (), "PAR1"),
    ],
)
def test_a_report_is_written_as_its_name_or_the_option_says(
    store: Make, tmp_path: Path, name: str, options: tuple[str, ...], begins: str
) -> None:
    run = store("a", limit=3)
    result = call("report", run, "-o", tmp_path / name, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"written to {tmp_path / name} (0.")
    written = (tmp_path / name).read_bytes()
    assert written.startswith(begins.encode())
    assert (b'id="samples"' in written) == (name in ("x.html", "x.HTM"))


def test_runs_of_different_tasks_stand_side_by_side(store: Make, tmp_path: Path) -> None:
    runs = [store("a", tasks=("mmedbench_mini_en",)), store("b", tasks=("mmedbench_mini_ja",), protocol="cloze")]
    assert call("report", *runs, "-o", tmp_path / "x.md").exit_code == 0
    text = (tmp_path / "x.md").read_text(encoding="utf-8")
    assert "| baseline\\:random letter |" in text
    assert text.count("| – |") == 6


def test_a_run_with_only_failures_has_an_honest_page(ask: Make, tmp_path: Path) -> None:
    samples = {"en": [make_sample(n) for n in (1, 2)], "ja": [make_sample(1, language="ja")]}
    run = ask("broken", samples, write=lambda request: Failure(request_id=request.id, kind="refused", message="no"))
    assert call("report", run, "-o", tmp_path / "x.html").exit_code == 0
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "no answer was read in any of the 3 items (0 unread, 3 failed)" in page
    assert "Failures of scripted:broken: refused 3" in page
    assert 'id="classes"' not in page


def test_a_wrong_call_is_one_sentence(store: Make, tmp_path: Path) -> None:
    run, out = store("a", limit=2), tmp_path / "x.html"
    (tmp_path / "empty").mkdir()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "record.json").write_text('{"format": 7}', encoding="utf-8")
    assert "is no run folder" in refused("report", tmp_path / "empty", "-o", out)
    assert "is no run folder" in refused("report", tmp_path / "nothing", "-o", out)
    assert "has format 7" in refused("report", foreign, "-o", out)
    assert "hold the same run" in refused("report", run, run, "-o", out)
    assert "its name does not say what to write; end it in .html" in refused("report", run, "-o", tmp_path / "report")
    assert "is no folder; make it" in refused("report", run, "-o", tmp_path / "none" / "x.html")
    assert "--format md has no samples" in refused("report", run, "-o", tmp_path / "x.md", "--samples")
    assert "is no run folder" in refused("plot", foreign.parent / "empty", "--kind", "bars", "-o", tmp_path / "x.svg")
    for kind in ("md", "parquet"):
        assert "is a folder; name the file to write in it" in refused("report", run, "-o", tmp_path, "--format", kind)
    assert "is no folder; make it" in refused("plot", run, "--kind", "bars", "-o", tmp_path / "none" / "x.svg")
    assert "is a part of a run, which would be lost" in refused("report", run, "-o", run / "record.json", "--format", "md")
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    (run / "record.json").write_text(json.dumps({**record, "usage": 3}), encoding="utf-8")
    assert "record.json is damaged" in refused("report", run, "-o", out)
    assert not out.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no file that is always full")
@pytest.mark.parametrize("name", ["x.md", "x.parquet", "x.svg"])
def test_what_cannot_be_written_is_told_with_its_name(store: Make, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    out.symlink_to("/dev/full")
    command = ("plot", "--kind", "bars") if name.endswith("svg") else ("report",)
    told = refused(*command, store("a", limit=2), "-o", out)
    assert told.startswith(f"error: {out} cannot be written: ")
    assert "No space left on device" in told


def test_a_picture_is_drawn(store: Make, tmp_path: Path) -> None:
    result = call("plot", store("a", limit=2), "--kind", "bars", "--metric", "accuracy_strict", "-o", tmp_path / "x.png")
    assert (result.exit_code, result.stderr, result.stdout) == (0, "", f"written to {tmp_path / 'x.png'}\n")


@pytest.mark.parametrize(("package", "name"), [("matplotlib", "x.html"), ("pyarrow", "x.parquet")])
def test_a_missing_package_is_named_with_its_extra(
    store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str
) -> None:
    for module in [package, *(each for each in sys.modules if each.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    told = refused("report", store("a", limit=2), "-o", tmp_path / name)
    assert f"needs {package}, not installed here; run: pip install 'mmedeval[report]'" in told
    assert not (tmp_path / name).exists()
