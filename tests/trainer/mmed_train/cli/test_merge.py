"""`mmed-train merge` on the command line: what it prints, and with which code it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from mmed_train.cli import cli
from mmedeval_hf.tiny import make_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    base = make_tiny_model(folder / "base", vocabulary=400, config={"hidden_size": 32, "num_attention_heads": 2})
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder / "adapter")
    return folder / "adapter"


def test_the_proof_is_printed(adapter: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["merge", str(adapter), str(tmp_path / "merged"), "--dtype", "bfloat16"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'merged'}: ")
    assert lines[0].endswith(f" weights in bfloat16 (mmedeval run --model hf:{tmp_path / 'merged'})")
    assert "12 texts in 6 languages" in lines[1]
    assert lines[2].startswith("  merged: logits differ by at most ")
    assert lines[2].endswith("the likeliest next token at 0")
    assert lines[3].startswith("  read back from disk in bfloat16: logits differ by at most 0.")
    assert done.stderr == ""


def test_what_is_wrong_is_a_sentence_and_the_code_is_2(adapter: Path, tmp_path: Path) -> None:
    for arguments, words in (
        ([str(adapter), str(adapter)], "is there already"),
        ([str(adapter), str(tmp_path / "merged"), "--base", str(tmp_path / "gone")], "does not exist"),
        ([str(adapter.parent / "base"), str(tmp_path / "merged")], "is a whole model"),
        ([str(adapter), str(tmp_path / "merged"), "--dtype", "int8"], "'int8' is not one of"),
    ):
        done = CliRunner().invoke(cli, ["merge", *arguments])
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []
