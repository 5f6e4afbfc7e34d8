"""A small model that has learnt something, the same at every making, for tests that hold backends against each other.

A llama of 0.9 million weights with a byte-level BPE tokenizer and a chat template, trained on the embedded questions as the
protocols put them: right answers stand out, and greedy text is no accident. It takes less than a minute on one core, once per
folder: `trained_model(folder)`, or `python tests/trained_model.py FOLDER`.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmedeval import Task, TaskOptions
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.prompts import join_letters, render_prompt, words_for
from mmedeval_hf.tiny import make_tiny_model

# Sizes that every engine takes: heads of 32, rows of whole blocks of 32 weights.
CONFIG = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.02,
}
STEPS, ROWS, WIDTH, RATE = 220, 8, 256, 3e-3


def trained_model(folder: Path) -> Path:
    """The model's own folder inside `folder`; made by the first call, found by the next ones."""
    made_of = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    path = folder / f"trained-{made_of}"
    if not path.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "model"
            _train(made)
            try:
                made.rename(path)
            except OSError:
                if not path.is_dir():  # else another process was faster
                    raise
    return path


def _tasks() -> list[Task]:
    catalog = Catalog(make_host(block=[]))
    return [spec.load(TaskOptions()) for spec in catalog.select_tasks(["mmedbench_mini"])]


def _parts() -> Iterator[tuple[Any, str]]:
    """Every prompt of the embedded set in three protocols, and what a model should say."""
    for task in _tasks():
        words = words_for(task.language)
        for sample in [*task.samples("train"), *task.samples("test")]:
            letters = join_letters(sample.answer)
            yield render_prompt(task, sample, (), "letter"), f" {letters}\n"
            right = ", ".join(sample.options[letter] for letter in sorted(sample.answer))
            yield render_prompt(task, sample, (), "cloze"), f"{words.gap}{right}\n"
            final = f"{words.final}{letters.replace(',', ', ')}"
            yield render_prompt(task, sample, (), "chat"), f"{sample.rationale}\n\n{final}"


def _train(path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parts = list(_parts())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the order of sums, and so the weights, would change with their number
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            make_tiny_model(path, texts=[prompt.text for prompt, _ in parts], config=CONFIG)
            tokenizer = AutoTokenizer.from_pretrained(path)
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).train()
            rows = _rows(tokenizer, parts)
            optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
            for step in range(STEPS):
                for group in optimizer.param_groups:
                    group["lr"] = RATE * min(1.0, (step + 1) / 20) * (1 - step / STEPS)
                ids = torch.tensor([next(rows) for _ in range(ROWS)])
                loss = model(input_ids=ids, labels=ids).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            model.eval().save_pretrained(path)
    finally:
        torch.set_num_threads(threads)
    print(f"trained to a loss of {loss.item():.3f} per token", file=sys.stderr)


def _rows(tokenizer: Any, parts: list[tuple[Any, str]]) -> Iterator[list[int]]:
    """Rows of WIDTH tokens without end: the texts in a new order each time round, one behind the other."""
    texts = []
    for prompt, answer in parts:
        if prompt.chat:
            messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + answer
            texts.append([*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id])
        else:
            texts.append([*tokenizer(prompt.text + answer)["input_ids"]])
    shuffle = random.Random(0).shuffle
    row: list[int] = []
    while True:
        shuffle(texts)
        for ids in texts:
            row += ids
            while len(row) >= WIDTH:
                yield row[:WIDTH]
                row = row[WIDTH:]


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: python tests/trained_model.py FOLDER")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(trained_model(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
