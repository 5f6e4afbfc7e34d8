"""Texts to token shards against the bare tokenizer, and random windows of shards against one .npy file per window.

    python benchmarks/shards.py                                          # texts made here, about two minutes on two cores
    python benchmarks/shards.py --texts FOLDER --tokenizer MODEL         # real ones: JSON lines with a "text" each

The bare tokenizer gets all texts in one call of `encode_batch`, and nobody reads its tokens; ours gets them one by one and leaves
a finished shard. Both ways run by turns in one process; medians. Reading is timed by the processor's clock, with all files in the
system's cache. Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mmed_train.corpus.shards import Kind, ShardWriter, Vocabulary, open_shards
from mmed_train.corpus.tokenizing import TextEncoder, write_shard
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.specs import TaskOptions

# How Llama 3's tokenizer splits text.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KIND = Kind(source="benchmark", language="en")
TOKENS = 2048
LEAST_TOKENISING, LEAST_READING = 0.95, 20.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, metavar="FOLDER", help="JSON lines, also in folders within")
    parser.add_argument("--tokenizer", metavar="MODEL", help="a model's folder, or its name on the Hugging Face hub")
    parser.add_argument("--characters", type=int, default=2_000_000, metavar="N", help="of text at most (%(default)s)")
    parser.add_argument("--windows", type=int, default=2000, metavar="N", help=f"of {TOKENS} tokens (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each way (%(default)s)")
    options = parser.parse_args()
    texts = read_texts(options.texts, options.characters) if options.texts else make_texts(options.characters)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer) if options.tokenizer else learn(texts)
    with tempfile.TemporaryDirectory() as folder:
        tokenising = compare_tokenising(texts, tokenizer, Path(folder), options.runs)
        reading = compare_reading(Path(folder), options.windows, options.runs)
    return int(tokenising < LEAST_TOKENISING or reading < LEAST_READING)


def compare_tokenising(texts: Sequence[str], tokenizer: Any, folder: Path, runs: int) -> float:
    encoder = TextEncoder(tokenizer, bos=False, eos=True)
    path = folder / "texts.tokens"

    def ours() -> None:
        write_shard(((text, KIND) for text in texts), encoder, path, replace=True)

    theirs, mine = by_turns([lambda: tokenizer.backend_tokenizer.encode_batch(texts), ours], runs)
    ratio = statistics.median(a / b for a, b in zip(theirs, mine, strict=True))
    characters = sum(map(len, texts))
    print(f"{len(texts)} texts, {characters} characters, {len(open_shards([path]))} tokens")
    for name, seconds in (("encode_batch", theirs), ("to a shard", mine)):
        print(
            f"  {name:13} {statistics.median(seconds):8.2f} s {characters / statistics.median(seconds) / 1e6:8.2f} M characters/s"
        )
    print(f"  {ratio:.3f} of the bare tokenizer's speed (target: {LEAST_TOKENISING})")
    return ratio


def compare_reading(folder: Path, windows: int, runs: int) -> float:
    """With tokens at random, of a vocabulary like Llama 3's, in documents of 20 to 4000."""
    draw = np.random.default_rng(0)
    with ShardWriter(folder / "random.tokens", Vocabulary(tokenizer="none", size=128_256, bos=None, eos=None)) as writer:
        while writer.tokens < windows * TOKENS:
            writer.add(draw.integers(128_256, size=round(20 * 200 ** draw.random())), KIND)
    space = open_shards([folder / "random.tokens"])
    for i in range(windows):
        np.save(folder / f"{i}.npy", space.window(i * TOKENS, TOKENS)[0])
    names = [str(folder / f"{i}.npy") for i in draw.permutation(windows)]
    starts = draw.integers(len(space) - TOKENS, size=windows).tolist()

    def files() -> None:
        for name in names:
            np.load(name)

    def shard() -> None:
        for start in starts:
            space.window(start, TOKENS)

    theirs, mine = by_turns([files, shard], runs, process_time)
    ratio = statistics.median(a / b for a, b in zip(theirs, mine, strict=True))
    print(f"{windows} random windows of {TOKENS} tokens")
    for name, seconds in (("a file each", theirs), ("of a shard", mine)):
        print(f"  {name:13} {statistics.median(seconds) / windows * 1e6:8.1f} microseconds each")
    print(f"  {ratio:.1f} times as fast (target: {LEAST_READING:.0f})")
    return ratio


def by_turns(ways: Sequence[Callable[[], object]], runs: int, clock: Callable[[], float] = perf_counter) -> list[list[float]]:
    """Seconds of each way's runs; a first run of each is not counted."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(runs + 1):
        for way, found in zip(ways, seconds, strict=True):
            started = clock()
            way()
            found.append(clock() - started)
    return [found[1:] for found in seconds]


def read_texts(folder: Path, characters: int) -> list[str]:
    lines = [line for file in sorted(folder.rglob("*.jsonl")) for line in file.read_text(encoding="utf-8").splitlines()]
    random.Random("texts").shuffle(lines)
    return up_to(characters, (json.loads(line)["text"] for line in lines))


def make_texts(characters: int) -> list[str]:
    """Of 100 to 20,000 characters in six languages, put together at random from the embedded questions and rationales."""
    samples = [
        sample
        for task in Catalog(make_host()).select_tasks(["mmedbench_mini"])
        for sample in task.load(TaskOptions()).samples("test")
    ]
    parts = [text for sample in samples for text in (f"{sample.question}\n", f"{sample.rationale} ")]
    draw = random.Random("shards")

    def texts() -> Iterator[str]:
        while True:
            length, text = round(100 * 200 ** draw.random()), ""
            while len(text) < length:
                text += draw.choice(parts)
            yield text

    return up_to(characters, texts())


def up_to(characters: int, texts: Iterable[str]) -> list[str]:
    found: list[str] = []
    for text in texts:
        if characters <= 0:
            break
        found.append(text)
        characters -= len(text)
    return found


def learn(texts: Sequence[str]) -> Any:
    """A byte-level tokenizer that splits as Llama 3's does, learnt from some of the texts."""
    tokenizer = Tokenizer(models.BPE())
    parts = [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=32_000, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts[:300], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")  # type: ignore[no-untyped-call]  # transformers is typed in parts


if __name__ == "__main__":
    sys.exit(main())
