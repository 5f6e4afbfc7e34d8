"""`mmed-train card` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mmed_train.cli import cli
from mmedeval_hf.tiny import make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "model", vocabulary=400, config={"hidden_size": 32})


def test_a_card_says_where_it_is_and_what_it_lacks(model: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["card", str(model), "-o", str(tmp_path / "card.md"), "--license", "mit"])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'card.md'}\n"
    assert (tmp_path / "card.md").read_text().startswith('---\nlicense: "mit"\n')
    assert "not in it: the recipe: the folder holds no recipe.json\n" in done.stderr


def test_what_is_wrong_is_a_sentence_and_the_code_is_2(model: Path, tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("# Mine")
    for arguments, words in (
        ([str(tmp_path)], "holds no model"),
        ([str(model), "-o", str(tmp_path / "card.md")], "is there already"),
        ([str(model), "-o", str(tmp_path / "new.md"), "--run", str(tmp_path)], "is no run folder"),
        ([str(model), "-o", str(tmp_path / "new.md"), "--training", str(tmp_path)], "holds no log.jsonl"),
    ):
        done = CliRunner().invoke(cli, ["card", *arguments])
        assert (done.exit_code, done.stdout) == (2, "")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["card.md"]


def test_help_needs_neither_torch_nor_a_model() -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom mmed_train.cli import cli\n"
        "for name in ('card', 'merge', 'export'):\n"
        "    try:\n        cli([name, '--help'])\n    except SystemExit as end:\n        assert end.code == 0\n"
        "assert not {'torch', 'transformers', 'numpy', 'peft'} & set(sys.modules), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
