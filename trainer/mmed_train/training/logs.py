"""What a training tells: JSON lines, a line on the terminal, and a picture of the loss."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmedeval.text import printable

NAME, PICTURE = "log.jsonl", "loss.png"
# On something that is no terminal a line comes at most so often, in seconds.
PLAIN_LINE_SECONDS = 15.0
# Dense bfloat16 rates in TFLOP/s, from the vendors' data sheets.
CARDS: Mapping[str, float] = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "GH200": 989, "A100": 312, "A800": 312,
    "L40S": 362, "L40": 181, "L4": 121, "A10G": 70, "A10": 125, "RTX 4090": 165, "RTX 3090": 71, "MI300X": 1307, "MI250": 383,
}  # fmt: skip


def card_rate(name: str) -> float | None:
    """A card's dense bfloat16 rate in FLOP/s, by its name; `None` for one that the table does not hold."""
    return next((rate * 1e12 for card, rate in CARDS.items() if card in name), None)


def flops_per_token(parameters: int, *, layers: int, width: int, length: int) -> float:
    """Of a training step, forward and backward, without what gradient checkpointing computes again.

    6 per parameter of a matrix, and 12 x layers x width x length for attention, `width` being heads x their size (Chowdhery et
    al. 2022, PaLM, appendix B).
    """
    return 6 * parameters + 12 * layers * width * length


def rate_of(device: Any) -> float | None:
    """The rate of a device in FLOP/s; `None` where it is not known."""
    import torch

    return card_rate(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def flops_of(model: Any) -> Callable[..., float]:
    """A function of tokens that are `read`, of `logits` and of the `length` of rows: the FLOPs of a training step, forward and
    backward, without what gradient checkpointing computes again.

    As `flops_per_token`, but 4 per parameter that is frozen, which is given no gradient; the head's are per logit.
    """
    config = model.config.get_text_config()
    head = model.get_output_embeddings().weight
    tables = {id(head), id(model.get_input_embeddings().weight)}
    layers = {id(each): each for each in model.parameters() if id(each) not in tables}.values()
    each_token = sum(_size(each) * (6 if each.requires_grad else 4) for each in layers)
    each_logit = head.numel() * (6 if head.requires_grad else 4)
    # Not every architecture has attention.
    heads = getattr(config, "num_attention_heads", 0)
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1))
    attention = flops_per_token(0, layers=config.num_hidden_layers, width=width, length=1)
    return lambda *, read, logits, length: read * (each_token + attention * length) + logits * each_logit


def _size(parameter: Any) -> int:
    """How many numbers it holds: in 4 bits, two to a byte."""
    packed = getattr(parameter, "quant_state", None)
    return math.prod(packed.shape) if packed is not None else int(parameter.numel())


class Log:
    """`log.jsonl` in the output folder, and what a person reads. After a resume from step `since` later lines are gone.

    Without a folder nothing is written or said: one of several processes speaks for all.
    """

    def __init__(self, folder: Path | None, *, total: int, since: int, say: Callable[[str], None]) -> None:
        self.file = None if folder is None else folder / NAME
        self.total, self.say = total, say
        self.live = self.file is not None and sys.stderr.isatty()
        if self.file is not None:
            lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= since] if since else []
            beside = self.file.with_suffix(".new")
            beside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            beside.replace(self.file)
        self._last = (time.monotonic(), 0, 0.0)
        self._since = since
        self._began = (time.monotonic(), since)
        self._said = 0.0
        self._shown = ""
        self._drawn = time.monotonic()

    def start(self, tokens: int) -> None:
        """The first step begins now."""
        self._last = (time.monotonic(), tokens, 0.0)
        self._began = (time.monotonic(), self._since)

    def write(self, step: int, values: Mapping[str, float], tokens: int, needed: float | None) -> None:
        """One line; with a loss, also the speed since the last one. `tokens` are those predicted since the training's start;
        `needed` are the seconds that all since `start` would have taken at the full rate of the devices, if that is known."""
        if self.file is None:
            return
        line: dict[str, Any] = {"step": step, **{name: _short(value) for name, value in values.items()}}
        now = time.monotonic()
        if "loss" in values:
            then, before, needed_before = self._last
            speed = (tokens - before) / max(now - then, 1e-9)
            line |= {"tokens": tokens, "tokens_per_second": _short(speed)}
            if needed is not None:
                line["mfu"] = _short((needed - needed_before) / max(now - then, 1e-9))
            self._last = (now, tokens, needed or 0.0)
        with self.file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
        self._tell(line, now)

    def _tell(self, line: Mapping[str, Any], now: float) -> None:
        step = line["step"]
        if "loss" in line:
            began, first = self._began
            left = (now - began) / max(step - first, 1) * (self.total - step)
            words = [f"step {step:,}/{self.total:,}", f"loss {line['loss']:.4g}", f"{line['tokens_per_second']:,.0f} tokens/s"]
            words += [f"MFU {line['mfu']:.0%}"] if "mfu" in line else []
            text = "  ".join([*words, f"left {_clock(left)}"])
            if self.live:
                # In one line: of a longer one only the last would be written over.
                self._shown = text[: max(shutil.get_terminal_size().columns - 1, 1)]
                _over(self._shown)
            elif now - self._said >= PLAIN_LINE_SECONDS or step >= self.total or self._said == 0:
                self.say(text)
                self._said = now
        elif looked := {name.removeprefix("eval_"): value for name, value in line.items() if name.startswith("eval_")}:
            if self._shown:
                _over("")
            self.say(f"step {step:,}: " + "  ".join(f"{printable(name)} {value:.4g}" for name, value in looked.items()))
            if self._shown:
                _over(self._shown)

    def draw(self, *, every: float = 0.0) -> None:
        """The picture of the loss so far, at most once in so many seconds."""
        if self.file is not None and time.monotonic() - self._drawn >= every:
            draw_loss(self.file, self.file.with_name(PICTURE))
            self._drawn = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._shown:
            sys.stderr.write("\n")


def read_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a log."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def draw_loss(log: Path, picture: Path) -> None:
    """Training loss, validation losses and accuracies over steps, as PNG."""
    from matplotlib.figure import Figure

    lines = read_log(log)
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name == "loss" or name.startswith(("eval_loss", "eval_accuracy")):
                curves.setdefault(name, []).append((line["step"], value))
    if not curves:
        return
    losses = {name: points for name, points in curves.items() if "accuracy" not in name}
    accuracies = {name: points for name, points in curves.items() if "accuracy" in name}
    figure = Figure(figsize=(8, 4.5 if not accuracies else 8), layout="constrained")
    panels = figure.subplots(2 if accuracies else 1, 1, squeeze=False, sharex=True)[:, 0]
    for panel, group, label in zip(panels, (losses, accuracies), ("loss per token", "accuracy"), strict=False):
        for name, points in sorted(group.items()):
            style = {"marker": "."} if name.startswith("eval_") or len(points) < 30 else {"linewidth": 1.0}
            panel.plot(*zip(*points, strict=True), label=name.removeprefix("eval_") if name != "loss" else "training", **style)
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    panels[-1].set_xlabel("step")
    beside = picture.with_name(f".{picture.name}")
    figure.savefig(beside, format="png", dpi=120)
    beside.replace(picture)


def _over(text: str) -> None:
    """Writes over the line of the terminal."""
    sys.stderr.write(f"\r\x1b[K{text}")
    sys.stderr.flush()


def _short(value: float) -> float:
    """Seven digits are what a float32 holds."""
    return float(f"{value:.7g}")


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
