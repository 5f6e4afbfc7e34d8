"""Several processes on CPUs: what two learn together, and FSDP2 by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmed_train.training.recipe import Recipe
from mmedeval_hf.tiny import make_tiny_model

Make = Callable[..., Recipe]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def launched(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TORCHRUN, *command], capture_output=True, text=True, env=ENVIRONMENT, timeout=300)


def test_two_processes_learn_in_an_epoch_what_one_with_twice_the_batch_learns(
    recipe: Make, trained: Callable[..., Path], losses: Callable[..., Any], weights_of: Callable[[Path], Any]
) -> None:
    """Each row once: at the end there are too few for all processes, and none is read a second time."""
    rows = {"mix": {"window": 121}, "eval": {"validation": 1}}
    one = recipe(output="one", train={"batch": 8, "steps": None, "save_every": None}, **rows)
    two = recipe(output="two", train={"batch": 2, "accumulate": 2, "steps": None, "save_every": None}, **rows)
    final = trained(one)
    number = json.loads((final / "data.json").read_text())["rows"]
    assert number % 8 in (1, 2), "the second process has nothing to read in the last step, or less than the first"
    done = launched("-m", "mmed_train", "--debug", "pretrain", str(two.file))
    assert done.returncode == 0, done.stderr
    # One of them speaks and writes.
    assert done.stdout.count("mmedeval run --model") == 1
    assert losses(two.output) == pytest.approx(losses(one.output), abs=1e-5)
    first, second = (weights_of(each.output / "final") for each in (one, two))
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-4
    validated = [
        [
            line["eval_loss"]
            for line in map(json.loads, (each.output / "log.jsonl").read_text().splitlines())
            if "eval_loss" in line
        ]
        for each in (one, two)
    ]
    assert validated[0] == pytest.approx(validated[1], abs=1e-5)
    predicted = [
        [line["tokens"] for line in map(json.loads, (each.output / "log.jsonl").read_text().splitlines()) if "tokens" in line]
        for each in (one, two)
    ]
    assert predicted[0] == predicted[1]
    (checkpoint,) = two.output.glob("checkpoint-*")
    assert sorted(path.name for path in checkpoint.glob("rng_state*")) == ["rng_state_0.pth", "rng_state_1.pth"]


def test_two_processes_that_were_killed_go_on_to_the_same_weights(
    recipe: Make, same_weights: Callable[[Path, Path], bool], tmp_path: Path
) -> None:
    """With dropout, whose numbers each process draws for itself."""
    base = make_tiny_model(tmp_path / "gpt2", model_type="gpt2", vocabulary=400, config={"attn_pdrop": 0.2})
    told = {"model": {"path": str(base)}, "train": {"batch": 2, "steps": 60, "save_every": 5}}
    whole, cut = (recipe(output=name, **told) for name in ("whole", "cut"))
    done = launched("-m", "mmed_train", "--debug", "pretrain", str(whole.file))
    assert done.returncode == 0, done.stderr
    with subprocess.Popen(
        [*TORCHRUN, "-m", "mmed_train", "--debug", "pretrain", str(cut.file)], start_new_session=True, env=ENVIRONMENT
    ) as running:
        until = time.monotonic() + 120
        while not (cut.output / "checkpoint-10").exists() and time.monotonic() < until:
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
    assert (cut.output / "checkpoint-10").exists()
    assert not (cut.output / "checkpoint-60").exists(), "it was over before it was killed"
    done = launched("-m", "mmed_train", "--debug", "pretrain", str(cut.file), "--resume")
    assert done.returncode == 0, done.stderr
    assert "going on from" in done.stdout + done.stderr
    assert same_weights(whole.output / "final", cut.output / "final")


SHARED_OUT = """
import sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.fsdp import fully_shard
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from transformers import AutoModelForCausalLM
dist.init_process_group("gloo")
torch.set_num_threads(1)

def start():
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
    for layer in model.model.layers: fully_shard(layer)
    fully_shard(model)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

def step(model, optimizer, number):
    ids = torch.randint(400, (2, 24), generator=torch.Generator().manual_seed(10 * number + dist.get_rank()))
    positions = torch.arange(12).repeat(2).expand(2, -1)
    loss = model(input_ids=ids, position_ids=positions, labels=ids, use_cache=False).loss
    loss.backward(); optimizer.step(); optimizer.zero_grad()
    return loss.item()

model, optimizer = start()
for number in range(3): step(model, optimizer, number)
weights, state = get_state_dict(model, optimizer)
dcp.save({"model": weights, "optimizer": state}, checkpoint_id=sys.argv[2])
whole = [step(model, optimizer, number) for number in range(3, 6)]
model, optimizer = start()
weights, state = get_state_dict(model, optimizer)
dcp.load({"model": weights, "optimizer": state}, checkpoint_id=sys.argv[2])
set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
resumed = [step(model, optimizer, number) for number in range(3, 6)]
assert whole == resumed, (whole, resumed)
if dist.get_rank() == 0: print("equal", whole)
dist.destroy_process_group()
"""


def test_packed_rows_under_fsdp2_go_on_from_a_checkpoint_to_the_same_losses(base: Path, tmp_path: Path) -> None:
    """By torch itself: accelerate takes FSDP back to DDP on CPUs, so the recipe's switch cannot be tried without GPUs."""
    program = tmp_path / "shared_out.py"
    program.write_text(SHARED_OUT)
    done = launched(str(program), str(base), str(tmp_path / "saved"))
    assert done.returncode == 0, done.stderr
    assert "equal" in done.stdout
