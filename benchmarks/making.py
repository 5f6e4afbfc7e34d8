"""Makes models, data and requests from fixed seeds: `python benchmarks/making.py FOLDER`."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging
from workloads import ModelName, Places

import mmedeval_mmedbench
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import PreparedTask, prepare
from mmedeval.specs import ProtocolName
from mmedeval.types import LoglikelihoodRequest, RunPlan, Sample
from mmedeval_hf import tiny

TASK = "mmedbench_en"
MINI = Path(mmedeval_mmedbench.__file__).parent / "mini"
TEST_ITEMS, TRAIN_ITEMS = 400, 40
# With these an average prompt of letters has 167 tokens, an option 6.4.
QUESTION_WORDS, OPTION_WORDS = (60, 70), (3, 5)
LETTERS = "ABCDE"
VOCABULARY = 8000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A llama's sizes. `isolates_spaces`: its tokenizer makes a space a token of its own."""

    config: Mapping[str, Any]
    isolates_spaces: bool = False


# The ranges shrink with the square root of the width: scores differ, yet attention does not fall on single tokens, where
# rounding would be magnified from layer to layer.
SMALL = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "intermediate_size": 640,
    "num_attention_heads": 4,
    "tie_word_embeddings": True,
    "initializer_range": 0.08,
}
LARGE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 2048,
    "num_attention_heads": 12,
    "vocab_size": 32000,
    "tie_word_embeddings": True,
    "initializer_range": 0.046,
}
SHAPES: Mapping[ModelName, Shape] = {
    "small": Shape(config=SMALL),
    "small-spaces": Shape(config=SMALL, isolates_spaces=True),
    "large": Shape(config=LARGE),
}


# --- models ---


def make_model(folder: Path, shape: Shape, texts: Sequence[str]) -> None:
    """Writes the model, unless these sources wrote it before."""
    stamp, key = folder / "made-from", _sources_digest(shape)
    if stamp.is_file() and stamp.read_text() == key:
        return
    shutil.rmtree(folder, ignore_errors=True)
    tiny.make_tiny_model(folder, texts=texts, vocabulary=VOCABULARY, config=shape.config)
    if shape.isolates_spaces:
        _isolate_spaces(folder / "tokenizer.json", texts)
    stamp.write_text(key)


def _sources_digest(shape: Shape) -> str:
    sources = [Path(__file__).read_bytes(), Path(tiny.__file__).read_bytes(), repr(shape).encode(), torch.__version__.encode()]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


def _isolate_spaces(file: Path, texts: Sequence[str]) -> None:
    tokenizer = Tokenizer.from_file(str(file))
    size = tokenizer.get_vocab_size()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(file))


def check_letters(folder: Path, shape: Shape) -> None:
    """The two tokenizers are there for what they do to ` A`; one that does not is no benchmark of it."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    for letter in LETTERS:
        before, after = (tokenizer(f"Answer:{text}", add_special_tokens=False)["input_ids"] for text in ("", f" {letter}"))
        if after[: len(before)] != before or (len(after) - len(before) > 1) != shape.isolates_spaces:
            raise SystemExit(f"the tokenizer of {folder.name} makes {after} of 'Answer: {letter}' and {before} of 'Answer:'")


def parameters(folder: Path) -> int:
    """The numbers in the file; embeddings that are the head too stand there once."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  # no mapping


# --- data ---


def mini_items() -> Iterator[dict[str, Any]]:
    for file in sorted(MINI.glob("*/*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(line) | {"language": file.stem}


def _texts_of(item: Mapping[str, Any]) -> list[str]:
    return [item["question"], *item["options"].values(), item["rationale"]]


def tokenizer_texts() -> list[str]:
    answers = [f"Answer: {letter}\n{letter}. {letter}" for letter in LETTERS]
    return [*(text for item in mini_items() for text in _texts_of(item)), *answers]


def english_words() -> list[str]:
    """Every occurrence: words are drawn as often as they are used."""
    english = (text for item in mini_items() if item["language"] == "English" for text in _texts_of(item))
    return [word for text in english for word in re.findall(r"\b[a-z]{2,}\b", text)]


def _phrase(draw: random.Random, words: Sequence[str], count: int) -> str:
    return " ".join(draw.choices(words, k=count))


def _question(draw: random.Random, words: Sequence[str]) -> str:
    left, sentences = draw.randint(*QUESTION_WORDS), []
    while left > 0:
        length = min(left, draw.randint(8, 14))
        sentences.append(_phrase(draw, words, length).capitalize())
        left -= length
    return ". ".join(sentences) + "?"


def _item(draw: random.Random, words: Sequence[str]) -> dict[str, Any]:
    letters = LETTERS[: draw.randint(4, 5)]
    return {
        "question": _question(draw, words),
        "options": {letter: _phrase(draw, words, draw.randint(*OPTION_WORDS)) for letter in letters},
        "answer_idx": draw.choice(letters),
        "rationale": _phrase(draw, words, 30) + ".",
        "human_checked": 0,
        "human_check_passed": 0,
    }


def make_data(folder: Path) -> None:
    """Questions of random words in MMedBench's layout."""
    words = english_words()
    for split, count in (("Test", TEST_ITEMS), ("Train", TRAIN_ITEMS)):
        draw = random.Random(f"benchmark {split}")
        write_lines(folder / split / "English.jsonl", [_item(draw, words) for _ in range(count)])


def write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


# --- requests ---


def prepared_task(places: Places, protocol: ProtocolName, shots: int) -> PreparedTask:
    catalog = Catalog(make_host())
    model = f"hf:{places.model('small')}"
    plan = RunPlan(model=model, tasks=(TASK,), protocol=protocol, shots=shots, data_dir=places.data)
    with catalog.open_backend(plan.model, plan.model_args) as backend:
        return prepare(plan, catalog, backend).tasks[0]


def request_lines(task: PreparedTask) -> list[dict[str, Any]]:
    requests = [request for request in task.requests if isinstance(request, LoglikelihoodRequest)]
    return [
        {"id": request.id, "context": request.prompt.text, "continuations": list(request.continuations), "gold": _gold(sample)}
        for request, sample in zip(requests, task.samples, strict=True)
    ]


def _gold(sample: Sample) -> int:
    return list(sample.options).index(min(sample.answer))


def average_tokens(folder: Path, lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def average(texts: Sequence[str]) -> float:
        return round(fmean(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]), 1)

    return {
        "prompt": average([line["context"] for line in lines]),
        "continuation": average([text for line in lines for text in line["continuations"]]),
    }


def main() -> None:
    places = Places(root=Path(sys.argv[1]))
    texts = tokenizer_texts()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers is typed in parts
    for name, shape in SHAPES.items():
        make_model(places.model(name), shape, texts)
        check_letters(places.model(name), shape)
    make_data(places.data)
    tokens: dict[str, dict[str, float]] = {}
    wanted: tuple[tuple[ProtocolName, int], ...] = (("letter", 0), ("letter", 5), ("cloze", 0), ("cloze", 5))
    for protocol, shots in wanted:
        lines = request_lines(prepared_task(places, protocol, shots))
        write_lines(places.requests(f"{protocol}-{shots}.jsonl"), lines)
        for model in SHAPES:
            tokens[f"{model}/{protocol}-{shots}"] = average_tokens(places.model(model), lines)
    places.made.write_text(
        json.dumps({"parameters": {name: parameters(places.model(name)) for name in SHAPES}, "tokens": tokens}, indent=1)
    )


if __name__ == "__main__":
    main()
