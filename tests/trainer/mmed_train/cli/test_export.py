"""`mmed-train export safetensors` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mmed_train.cli import cli
from mmedeval_hf.tiny import make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_tiny_model(tmp_path_factory.mktemp("model") / "model", vocabulary=400, config={"hidden_size": 32})
    (path / "optimizer.pt").write_bytes(b"state")
    return path


def test_an_export_says_what_it_wrote_and_what_it_left_out(model: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["export", "safetensors", str(model), str(tmp_path / "out"), "--dtype", "float16"])
    assert done.exit_code == 0, done.output
    size = (tmp_path / "out" / "model.safetensors").stat().st_size / 1e6
    assert done.stdout == f"{tmp_path / 'out'}: 21 tensors in float16, {size:.1f} MB\n"
    assert done.stderr == "note: left out: optimizer.pt\n"


def test_a_folder_that_is_there_is_a_wrong_call(model: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["export", "safetensors", str(model), str(tmp_path)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path} is there already; remove it, or name another folder to write to\n"
