"""Corpus, shards, a small model pretrained from nothing, finetuned, evaluated before and after: each step as a user takes it."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmed_train.corpus.config import LANGUAGES, read_corpus
from mmed_train.corpus.report import read_stats, show
from mmed_train.corpus.steps import run_steps
from mmed_train.training.jobs import prepare
from mmed_train.training.loop import train
from mmed_train.training.recipe import Kind, read_recipe
from mmedeval import RunPlan, Sample, Split, Task, TaskOptions, TaskSpec, bootstrap_mean, hookimpl
from mmedeval.catalog import Catalog
from mmedeval.console import make_console, make_table, plain, print_table
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.store import read_samples

TEXTS = Path(__file__).parent / "corpus"
TASKS = "mmedbench_mini"
HELD_IN = "seen"
VOCABULARY = 4000
MODEL = {
    "model_type": "llama", "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 32, "max_position_embeddings": 1024, "tie_word_embeddings": True, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip

CORPUS = """\
[corpus]
output = "corpus"
tasks = 2
{sources}
[decontaminate]
tasks = ["mmedbench_mini"]      # no test question may be learnt

[tokenize]
tokenizer = "start"

[mix]
window = 256
"""
SOURCE = """
[[source]]
language = "{language}"
path = "texts/{language}.jsonl"
name = "textbook-{language}"
"""
PRETRAIN = """\
output = "pretrained"

[model]
config = "start"                # from random weights; path = "org/model" goes on from a model
tokenizer = "start"

[data]
corpus = "corpus.toml"

[train]
epochs = 4
batch = 4
lr = 3e-3
warmup = 0.1
log_every = 20

[eval]
validation = 2                  # windows per language are held out
"""
FINETUNE = """\
output = "finetuned"

[model]
path = "pretrained/final"

[data]
tasks = ["mmedbench_mini"]      # its train split
protocols = ["letter"]
max_length = 1024

[train]
epochs = 10
batch = 1
lr = 2e-3
log_every = 20
"""


@dataclass(frozen=True)
class _Seen:
    """The train questions of a task, asked as if they were its test: what was learnt by heart."""

    task: Task
    name: str

    @property
    def language(self) -> str:
        return self.task.language

    @property
    def max_answers(self) -> int:
        return self.task.max_answers

    @property
    def source(self) -> str:
        return self.task.source

    def samples(self, split: Split) -> Sequence[Sample]:
        return self.task.samples("train")


class _Plugin:
    """Offers the train questions of the mini set as tasks."""

    @hookimpl
    def mmedeval_tasks(self) -> Iterable[TaskSpec]:
        specs = Catalog(make_host()).select_tasks([TASKS])
        for spec in specs:
            name = f"{HELD_IN}_{spec.language}"
            yield TaskSpec(
                name=name,
                summary="questions of the training",
                language=spec.language,
                load=partial(_seen, spec, name),
                group=HELD_IN,
            )


def _seen(spec: TaskSpec, name: str, options: TaskOptions) -> Task:
    return _Seen(spec.load(options), name)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What finetuning changed: accuracy before and after over `n` questions, and the paired difference with its 95 % interval."""

    title: str
    n: int
    before: float
    after: float
    low: float
    high: float


def tell_story(folder: Path, *, say: Callable[[str], None]) -> list[Change]:
    """Does all of it in a folder, whose recipes can be run again by hand. Returns the changes that it prints."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_start(folder)
    _write_texts(folder)
    sources = "".join(SOURCE.format(language=language) for language in LANGUAGES)
    for name, text in (
        ("corpus.toml", CORPUS.format(sources=sources)), ("pretrain.toml", PRETRAIN), ("finetune.toml", FINETUNE),
    ):  # fmt: skip
        (folder / name).write_text(text, encoding="utf-8")

    say(f"\n$ mmed-train corpus run {folder}/corpus.toml")
    corpus = read_corpus(folder / "corpus.toml")
    # So little text is done sooner than another process has started.
    run_steps(corpus, corpus.steps, stdin=io.BytesIO(), executor="local", workers=1, tell=say)
    say(show(read_stats(corpus), as_json=False))
    for kind, name in (("pretrain", "pretrained"), ("finetune", "finetuned")):
        say(f"\n$ mmed-train {kind} {folder}/{kind}.toml")
        _train(folder / f"{kind}.toml", kind, folder / name, say)
    results = {}
    for name in ("pretrained", "finetuned"):
        say(f"\n$ mmedeval run --model hf:{folder}/{name}/final --tasks {TASKS}   (and the questions of the training)")
        results[name] = _evaluate(folder / name, say)
    changes = [
        _change(title, tasks, results["pretrained"], results["finetuned"])
        for title, tasks in (("questions it was trained on", HELD_IN), ("questions it has never seen", TASKS))
    ]
    _print(changes)
    return changes


def _write_start(folder: Path) -> None:
    """A tokenizer trained on the texts, and the sizes of the model."""
    from mmedeval_hf.tiny import write_tokenizer

    start = folder / "start"
    if (start / "config.json").is_file():
        return
    start.mkdir(exist_ok=True)
    texts = [text for language in LANGUAGES for text in _texts(language)]
    size = write_tokenizer(start, texts, VOCABULARY, bos=False, chat_template=False)
    (start / "config.json").write_text(json.dumps({**MODEL, "vocab_size": size}, indent=1) + "\n", encoding="utf-8")


def _write_texts(folder: Path) -> None:
    (folder / "texts").mkdir(exist_ok=True)
    for language in LANGUAGES:
        (folder / "texts" / f"{language}.jsonl").write_bytes((TEXTS / f"{language}.jsonl").read_bytes())


def _texts(language: str) -> list[str]:
    lines = (TEXTS / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def _train(file: Path, kind: Any, output: Path, say: Callable[[str], None]) -> None:
    wanted: Kind = kind
    if (output / "final").is_dir():
        say(f"{output}/final is there already")
        return
    train(prepare(read_recipe(file, wanted), say=say), resume=output.is_dir(), say=say)


def _evaluate(output: Path, say: Callable[[str], None]) -> dict[tuple[str, str], float]:
    """Whether each question of each task was answered rightly."""
    plan = RunPlan(model=f"hf:{output / 'final'}", tasks=(TASKS, HELD_IN), protocol="letter")
    run(plan, Catalog(make_host(extra=(_Plugin(),)), say), output / "evaluation")
    return {result.key: float(bool(result.right)) for result in read_samples(output / "evaluation")}


def _change(title: str, tasks: str, before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> Change:
    keys = sorted(key for key in before if key[0].startswith(tasks))
    differences = [after[key] - before[key] for key in keys]
    low, high = bootstrap_mean([differences])
    return Change(
        title=title,
        n=len(keys),
        before=sum(before[key] for key in keys) / len(keys),
        after=sum(after[key] for key in keys) / len(keys),
        low=low,
        high=high,
    )


def _print(changes: Sequence[Change]) -> None:
    console = make_console()
    table = make_table("What finetuning changed: accuracy in per cent")
    for name in ("", "n", "before", "after", "change", "95 % interval"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for change in changes:
        values = [100 * each for each in (change.before, change.after, change.after - change.before, change.low, change.high)]
        table.add_row(
            plain(change.title),
            str(change.n),
            f"{values[0]:.1f}",
            f"{values[1]:.1f}",
            f"{values[2]:+.1f}",
            f"{values[3]:+.1f} – {values[4]:+.1f}",
        )
    console.print()
    print_table(console, table)
    console.print(
        "A model of a million weights that has read 300 kB learns answers by heart; it cannot learn medicine. What is shown is "
        "that every part works, and that the interval tells the two apart."
    )


def as_json(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """The changes as JSON-like data."""
    return [dataclasses.asdict(change) for change in changes]
