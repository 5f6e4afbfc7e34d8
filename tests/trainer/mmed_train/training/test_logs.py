"""What a training tells."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from mmed_train.training.logs import Log, card_rate, draw_loss, flops_of, flops_per_token, read_log


def test_a_resumed_log_has_each_step_once(tmp_path: Path) -> None:
    with Log(tmp_path, total=10, since=0, say=lambda _: None) as log:
        for step in range(1, 8):
            log.write(step, {"loss": 1 / step}, step * 100, None)
    with (tmp_path / "log.jsonl").open("a") as torn:
        torn.write('{"step": 8, "lo')
    with Log(tmp_path, total=10, since=5, say=lambda _: None) as log:
        log.start(500)
        log.write(6, {"loss": 1 / 6}, 600, None)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_line_tells_speed_and_the_share_of_the_card(tmp_path: Path) -> None:
    said: list[str] = []
    with Log(tmp_path, total=4, since=0, say=said.append) as log:
        log.start(0)
        time.sleep(0.2)
        log.write(1, {"loss": 2.5, "grad_norm": 1.0}, 1000, 0.1)
        log.write(1, {"eval_loss_en": 2.25, "eval_accuracy": 0.5}, 1000, None)
    (first, second) = read_log(tmp_path / "log.jsonl")
    assert first["tokens"] == 1000
    assert first["tokens_per_second"] > 0
    # A tenth of a second at the full rate, in two tenths and what the machine was late by.
    assert 0.05 < first["mfu"] <= 0.5
    assert first["mfu"] == pytest.approx(0.1 * first["tokens_per_second"] / 1000, rel=1e-4)
    assert second == {"step": 1, "eval_loss_en": 2.25, "eval_accuracy": 0.5}
    assert said[0].startswith("step 1/4  loss 2.5  ")
    assert f"MFU {first['mfu']:.0%}" in said[0]
    assert said[1] == "step 1: loss_en 2.25  accuracy 0.5"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def rows(self) -> list[str]:
        """What a reader sees at the end."""
        return [line.rpartition("\r\x1b[K")[2] for line in self.getvalue().split("\n")]


def test_on_a_terminal_one_line_goes_on_and_looks_stand_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "30")
    with Log(tmp_path, total=2, since=0, say=lambda text: print(text, file=terminal)) as log:
        log.write(0, {"eval_loss": 3.0}, 0, None)
        log.write(1, {"loss": 2.5}, 1000, None)
        log.write(1, {"eval_loss": 2.0}, 1000, None)
        log.write(2, {"loss": 1.5}, 2000, None)
    first, second, line, rest = terminal.rows()
    assert (first, second, rest) == ("step 0: loss 3", "step 1: loss 2", "")
    assert line.startswith("step 2/2  loss 1.5  ")
    assert len(line) == 29, "a longer line would break, and its first part stay"


def test_a_terminal_that_was_told_nothing_gets_no_empty_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Log(tmp_path, total=2, since=0, say=lambda _: None):
        pass
    assert terminal.getvalue() == ""


def test_the_picture_of_the_loss_has_all_curves(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 3.0}, {"step": 1, "eval_loss_en": 3.1, "eval_accuracy": 0.2}, {"step": 2, "loss": 2.0}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_loss(tmp_path / "log.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_is_drawn_again_only_after_so_many_seconds(tmp_path: Path) -> None:
    with Log(tmp_path, total=4, since=0, say=lambda _: None) as log:
        log.write(1, {"loss": 2.5}, 1000, None)
        log.draw(every=3600)
        assert not (tmp_path / "loss.png").exists()
        log.draw()
        assert (tmp_path / "loss.png").exists()


@pytest.mark.parametrize(
    ("name", "rate"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("Some GPU", None)],
)
def test_a_card_is_known_by_its_name(name: str, rate: float | None) -> None:
    assert card_rate(name) == rate


def test_a_step_of_full_training_takes_what_the_formula_says_and_a_frozen_weight_two_thirds_of_it(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    matrices = sum(each.numel() for each in model.parameters()) - model.get_input_embeddings().weight.numel()
    each = flops_per_token(matrices, layers=2, width=32, length=64)
    assert flops_of(model)(read=100, logits=100, length=64) == 100 * each
    head = model.get_output_embeddings().weight.numel()
    assert flops_of(model)(read=100, logits=10, length=64) == 100 * each - 90 * 6 * head
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert flops_of(model)(read=100, logits=100, length=0) == 100 * 4 * matrices


def test_the_published_share_of_palm_comes_out() -> None:
    """46.2 % at 238,300 tokens/s on 6,144 chips of 275 TFLOP/s: 118 layers, 48 heads of 256 (Chowdhery et al. 2022, table 3)."""
    each = flops_per_token(540_350_000_000, layers=118, width=48 * 256, length=2048)
    assert 238_300 * each / (6144 * 275e12) == pytest.approx(0.462, abs=0.0005)
