"""Speed of training as ratios within one run, on a CPU: `python benchmarks/training.py`, about ten minutes on two cores.

Against the published recipe's windows and batches (Qiu et al. 2024, restated here), and against a bare loop of torch on the same
rows. Everything is measured by turns; figures are medians of the turns' ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmed_train.corpus.mixing import IGNORED
from mmed_train.corpus.shards import Kind, ShardWriter
from mmed_train.corpus.tokenizing import load_encoder
from mmed_train.training.attention import attend_within_documents
from mmed_train.training.jobs import prepare
from mmed_train.training.loop import Job, train
from mmed_train.training.recipe import read_recipe
from mmed_train.training.rows import collate
from mmedeval_hf.tiny import make_tiny_model

SIZES = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "initializer_range": 0.02,
}
VOCABULARY = 8000
WINDOW = 2048
# The train splits of MMedBench, where they are; else the embedded questions, whose lengths differ less.
ITEMS = Path(__file__).parents[2] / "shared" / "data" / "mmedbench"
REAL: Mapping[str, Any] = {"tasks": ["mmedbench"], "data_dir": str(ITEMS), "limit": 8}
EMBEDDED: Mapping[str, Any] = {"tasks": ["mmedbench_mini"], "limit": 6}
# Tokens of web documents: half of them under 480, a few very long (as in FineWeb's samples).
MEDIAN, SPREAD, DOCUMENTS = 480, 1.1, 1500


def make_shards(folder: Path, base: Path) -> None:
    encoder, draw = load_encoder(base, bos=False, eos=True), np.random.default_rng(0)
    with ShardWriter(folder / "shards" / "0.tokens", encoder.vocabulary) as writer:
        for length in np.exp(draw.normal(np.log(MEDIAN), SPREAD, DOCUMENTS)).astype(int).clip(20, 20_000):
            writer.add([*draw.integers(3, encoder.vocabulary.size, length), 1], Kind(source="web", language="en"))


def recipe(folder: Path, kind: Any, name: str, **tables: Mapping[str, Any]) -> Any:
    lines = [f'output = "{name}"']
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    (folder / f"{name}.toml").write_text("\n".join(lines), encoding="utf-8")
    return read_recipe(folder / f"{name}.toml", kind)


def seconds_per_step(job: Job, steps: int) -> float:
    """Of the Trainer, without its start, its first step and its end: from the log's own times."""
    times: list[float] = []
    from mmed_train.training import loop

    original = loop._Trainer.training_step

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        times.append(time.perf_counter())
        return original(self, *args, **kwargs)

    loop._Trainer.training_step = timed  # type: ignore[method-assign]
    try:
        train(job, resume=False, say=lambda _: None)
    finally:
        loop._Trainer.training_step = original  # type: ignore[method-assign]
    return (times[-1] - times[1]) / (len(times) - 2)


def bare_loop(job: Job, steps: int, *, published: bool = False) -> float:
    """Seconds per step of torch alone on the same rows: the fewest lines that train."""
    model, told = job.model, job.recipe.train
    optimizer = torch.optim.AdamW(model.parameters(), lr=told.lr, fused=True)
    loader = torch.utils.data.DataLoader(job.rows, batch_size=told.batch, collate_fn=collate)
    head = model.get_output_embeddings()
    times = []
    for number, batch in enumerate(loader):
        times.append(time.perf_counter())
        if number > steps:
            break
        labels = batch["shift_labels"]
        wanted = labels != IGNORED
        if published:
            # As the script's collator and model have it: a mask over the padding, and logits of all tokens.
            mask = torch.arange(labels.shape[1]) < batch["lengths"][:, None]
            logits, labels = model(input_ids=batch["input_ids"], attention_mask=mask).logits.flatten(0, 1), labels.flatten()
        else:
            hidden = model.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).last_hidden_state
            logits, labels = head(hidden[wanted]), labels[wanted]
        loss = torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return (times[-1] - times[1]) / (len(times) - 2)


def within_documents(job: Job) -> Job:
    """With the attention that the Trainer gets on a CPU."""
    attend_within_documents(job.model)
    return job


def by_turns(turns: int, **arms: Callable[[int], float]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(turns):
        for name, arm in arms.items():
            found[name].append(arm(turn))
    return found


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def pretraining(folder: Path, base: Path, steps: int, turns: int) -> None:
    def job(name: str, windows: str) -> Job:
        return prepare(
            recipe(
                folder, "pretrain", name,
                model={"path": str(base)}, data={"shards": ["shards"], "windows": windows}, mix={"window": WINDOW},
                train={"batch": 1, "steps": steps, "save_every": 10**6, "log_every": 10**6},
            ),
            say=print,
        )  # fmt: skip

    packed, published = job("p", "packed"), job("q", "published")
    real = published.rows.real
    computed = {"ours": len(packed.rows) * WINDOW, "published": len(published.rows) * WINDOW}
    trained = {
        name: sum(int((each.rows[i]["input_ids"] != 0).sum()) for i in range(len(each.rows)))
        for name, each in (("ours", packed), ("published", published))
    }
    print(f"{DOCUMENTS} documents, {real:,} tokens, half of them under {MEDIAN}; windows of {WINDOW}")
    for name in trained:
        print(f"  {name}: trained / real tokens {trained[name] / real:.3f}, computed / real {computed[name] / real:.3f}")
    found = by_turns(
        turns,
        ours=lambda turn: seconds_per_step(job(f"ours{turn}", "packed"), steps),
        published=lambda turn: seconds_per_step(job(f"published{turn}", "published"), steps),
        bare=lambda turn: bare_loop(within_documents(job(f"bare{turn}", "packed")), steps),
    )
    speed = {
        "ours": [real / (len(packed.rows) * each) for each in found["ours"]],
        "published": [real / (len(published.rows) * each) for each in found["published"]],
    }
    print(f"  real tokens/s, ours against the published windows: {ratio(speed['ours'], speed['published'])} (target 1.8)")
    print(f"  {statistics.median(speed['ours']):,.0f} against {statistics.median(speed['published']):,.0f} real tokens/s")
    print(f"  seconds per step, the Trainer against a bare loop: {ratio(found['ours'], found['bare'])} (target 1.10)")


def finetuning(folder: Path, base: Path, turns: int) -> None:
    items = REAL if ITEMS.is_dir() else EMBEDDED

    def job(name: str, batching: str, batch: int) -> Job:
        return prepare(
            recipe(
                folder, "finetune", name,
                model={"path": str(base)},
                data={**items, "protocols": ["paper", "paper-direct"], "batching": batching},
                train={"batch": batch, "log_every": 10**6},
            ),
            say=print,
        )  # fmt: skip

    packed, grouped, plain = job("fp", "packed", 1), job("fg", "grouped", 4), job("fq", "plain", 4)
    answers = packed.data["answer_tokens"]
    steps = {"packed": len(packed.rows), "grouped": -(-len(grouped.rows) // 4), "published": -(-len(plain.rows) // 4)}
    found = by_turns(
        turns,
        packed=lambda turn: seconds_per_step(job(f"fpacked{turn}", "packed", 1), steps["packed"]),
        grouped=lambda turn: seconds_per_step(job(f"fgrouped{turn}", "grouped", 4), steps["grouped"]),
        published=lambda turn: bare_loop(job(f"fpublished{turn}", "plain", 4), steps["published"], published=True),
    )
    speed = {name: [answers / (steps[name] * each) for each in found[name]] for name in steps}
    count, tokens = sum(packed.data["items"].values()), packed.data["tokens"]
    print(f"{count} items of {', '.join(items['tasks'])}, {tokens:,} tokens, {answers:,} of answers")
    for name in ("packed", "grouped"):
        print(f"  answer tokens/s, {name} against padded batches of 4: {ratio(speed[name], speed['published'])} (target 1.5)")
    print("  " + ", ".join(f"{statistics.median(each):,.0f} {name}" for name, each in speed.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--turns", type=int, default=5)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = make_tiny_model(folder / "base", vocabulary=VOCABULARY, config=SIZES)
        make_shards(folder, base)
        pretraining(folder, base, told.steps, told.turns)
        finetuning(folder, base, told.turns)


if __name__ == "__main__":
    main()
