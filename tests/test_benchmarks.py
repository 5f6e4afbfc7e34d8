"""The benchmark's own arithmetic: the floor is that of a real forward pass, and arms that differ are told apart."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

FOLDER = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the benchmark measures with POSIX calls")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmark, which is a folder of scripts and no package."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def test_the_workloads_are_listed_without_measuring_anything() -> None:
    done = subprocess.run([sys.executable, FOLDER / "run.py", "--list"], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert {"small/letter-0", "small/cloze-5", "small/generate-5", "small/command-letter-0", "large/cloze-0"} <= set(names)
    none = subprocess.run([sys.executable, FOLDER / "run.py", "--only", "nothing"], capture_output=True, text=True, check=False)
    assert (none.returncode, "no workload's name holds" in none.stdout) == (2, True)


def test_the_floor_is_what_a_forward_pass_computes_but_for_what_no_token_sees(module: Any, tmp_path: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    from mmedeval_hf.compute import Item
    from mmedeval_hf.tiny import make_tiny_model

    path = make_tiny_model(tmp_path / "tiny")
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    length, config = 37, model.config
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.arange(10, 10 + length)[None], logits_to_keep=1)
    hidden_from_view = 4 * config.num_hidden_layers * config.hidden_size * (length**2 - length * (length + 1) // 2)
    one = Item(list(range(10, 10 + length)), [[5], [6]])
    rotary = 2 * length * config.head_dim // 2
    ours = module("ours").floor_flops(model, [one])
    assert counter.get_total_flops() - rotary == pytest.approx(ours + hidden_from_view, rel=1e-3)
    # A second item that shares all but its last token adds one token, and two continuations of two tokens add two.
    other = Item([*one.context[:-1], 99], [[5], [6]])
    branching = Item(one.context, [[5, 7], [6, 7]])
    per_token = ours / length
    assert module("ours").floor_flops(model, [one, other]) - ours < 2.5 * per_token + 2 * config.hidden_size * config.vocab_size
    assert module("ours").floor_flops(model, [branching]) > ours + per_token


def test_arms_that_differ_are_told_apart(module: Any) -> None:
    figures = module("figures")
    same = figures.compare_scores([[-1.0, -2.0]], [[-1.00001, -2.0]])
    assert same.holds
    assert same.largest == pytest.approx(1e-5)
    assert not figures.compare_scores([[-1.0, -2.0]], [[-1.1, -2.0]]).holds
    assert not figures.compare_scores([[-1.0, -1.00001]], [[-1.00001, -1.0]]).holds
    assert not figures.compare_scores([[float("nan"), -2.0]], [[-1.0, -2.0]]).holds
    assert not figures.compare_scores([], []).holds
    assert not figures.compare_texts(["a", "b"], ["a", "c"]).holds
    with pytest.raises(figures.BenchmarkError, match="do not score the same"):
        figures.compare_scores([[-1.0]], [[-1.0, -2.0]])


def test_the_ratio_and_the_distance_are_medians_over_the_runs(module: Any) -> None:
    figures, workloads = module("figures"), module("workloads")
    (workload,) = workloads.workloads(workloads.Sizes(), ["small/letter-0"], 10)

    def side(*walls: float) -> Any:
        return figures.Side(walls=walls, cpus=walls, peak_bytes=1)

    measured = figures.Outcome(
        workload=workload,
        batch=8,
        tried={8: 1.0},
        ours=side(1.0, 2.0, 1.0),
        theirs=side(3.0, 4.0, 5.0),
        agreement=figures.compare_texts(["a"], ["a"]),
        floor=figures.Floor(distinct_tokens=1, flops=100, rates=(200.0, 100.0, 400.0)),
    )
    assert measured.ratios == [3.0, 2.0, 5.0]
    assert (measured.ratio, measured.distance) == (3.0, 2.0)
