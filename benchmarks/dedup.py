"""Measures what deduplication and decontamination find, what they take from clean text, and what they cost.

    .venv/bin/python benchmarks/dedup.py
    .venv/bin/python benchmarks/dedup.py --documents 2000 --sizes 1000 4000

Documents are walks from word to word through the corpora of ../shared/data/corpus and, for clean text and test items, these
corpora and MMedBench's test files themselves; where they are not there, the embedded questions stand in. Exit status 1 if
a target is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from time import process_time

from mmed_train.corpus.decontaminate import TestItems
from mmed_train.corpus.dedup import MinHash, choose, duplicates, pair, sign
from mmed_train.corpus.words import spans, units
from mmedeval import Sample
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.specs import TaskOptions

DATA = Path(__file__).parents[2] / "shared" / "data"
LANGUAGES = ("en", "zh", "ja", "fr", "ru", "es")
UNSPACED = ("zh", "ja")
LEAST_RECALL = 0.99
# RSS may be this much more (MiB) for four times the documents.
MOST_GROWTH = 16.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000, metavar="N", help="distinct documents (%(default)s)")
    parser.add_argument("--pairs", type=int, default=250, metavar="N", help="near duplicates per language (%(default)s)")
    parser.add_argument("--sizes", type=int, nargs=2, default=[4_000, 16_000], metavar="N", help="documents for RSS")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of what is timed (%(default)s)")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        return use_memory(options.child)
    print(f"texts: {'the corpora in ../shared/data' if DATA.is_dir() else 'made from the embedded questions'}")
    failed = [
        # First: a process that is started begins with what is resident here.
        measure_memory(options.sizes),
        measure_near_duplicates(options.pairs),
        measure_distinct(options.documents, options.runs),
        measure_copies(),
        measure_clean(options.runs),
    ]
    return int(any(failed))


# --- texts ---


@cache
def texts_in(language: str) -> Sequence[str]:
    files = sorted((DATA / "corpus" / language).glob("*.jsonl"))
    if files:
        return [json.loads(line)["text"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    [spec] = Catalog(make_host()).select_tasks([f"mmedbench_mini_{language}"])
    return [sample.rationale for sample in spec.load(TaskOptions()).samples("test")]


@cache
def words_in(language: str) -> Sequence[str]:
    return [word for text in texts_in(language) for word in (text if language in UNSPACED else text.split())]


@cache
def followers(language: str) -> Mapping[str, Sequence[str]]:
    behind: dict[str, list[str]] = defaultdict(list)
    for before, after in pairwise(words_in(language)):
        behind[before].append(after)
    return behind


def walk(language: str, draw: random.Random) -> list[str]:
    """100 to 1,000 words: rows of two are those of real text."""
    words, behind, size = words_in(language), followers(language), draw.randint(100, 1000)
    found = [draw.choice(words)]
    while len(found) < size:
        found.append(draw.choice(behind.get(found[-1]) or words))
    return found


def changed(words: Sequence[str], language: str, draw: random.Random) -> list[str]:
    new = [*words]
    for place in draw.sample(range(len(words)), round(0.05 * len(words))):
        new[place] = draw.choice(words_in(language))
    return new


def joined(words: Sequence[str], language: str) -> str:
    return ("" if language in UNSPACED else " ").join(words)


def distinct(count: int) -> Iterator[str]:
    draw = random.Random("distinct")
    for number in range(count):
        language = LANGUAGES[number % len(LANGUAGES)]
        yield joined(walk(language, draw), language)


# --- deduplication ---


def deduplicate(folder: Path, tasks: Sequence[Sequence[str]], how: MinHash) -> dict[str, int]:
    for task, texts in enumerate(tasks):
        sign(texts, folder, task, how)
    for number in range(how.passes):
        pair(folder, number, how)
    return choose(folder, how)


def measure_near_duplicates(count: int) -> bool:
    print(f"\nnear duplicates: {count} documents of 100 to 1,000 words per language, and each with 5 % of its words changed")
    failed = False
    for language in LANGUAGES:
        draw = random.Random(f"near {language}")
        originals = [walk(language, draw) for _ in range(count)]
        both = [originals, [changed(each, language, draw) for each in originals]]
        with tempfile.TemporaryDirectory() as name:
            deduplicate(Path(name), [[joined(each, language) for each in one] for one in both], MinHash())
            gone = {(task, each.place): each.kept for task in (0, 1) for each in duplicates(Path(name), task)}
        found = sum(gone.get((0, place)) == (1, place) or gone.get((1, place)) == (0, place) for place in range(count))
        wrong = sum(place != kept[1] for (_, place), kept in gone.items())
        print(f"  {language}: found {found / count:7.2%} (target {LEAST_RECALL:.0%}), with another document {wrong} (target 0)")
        failed |= found / count < LEAST_RECALL or wrong > 0
    return failed


def measure_distinct(count: int, runs: int) -> bool:
    texts = [*distinct(count)]
    tasks = [texts[start::4] for start in range(4)]
    seconds: dict[str, list[float]] = defaultdict(list)
    dropped = 0
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as name:
            folder, how = Path(name), MinHash()
            with timed(seconds["sign"]):
                for task, each in enumerate(tasks):
                    sign(each, folder, task, how)
            with timed(seconds["pair"]):
                for number in range(how.passes):
                    pair(folder, number, how)
            with timed(seconds["choose"]):
                counts = choose(folder, how)
        dropped = max(dropped, counts["exact"] + counts["near"])
    print(f"\n{count} distinct documents, {sum(map(len, texts)) / count:.0f} characters each: dropped {dropped} (target 0)")
    told = (f"{name} {statistics.median(each) / count * 1000:.2f} s" for name, each in seconds.items())
    print(f"  CPU time per 1,000 documents: {', '.join(told)}")
    return dropped > 0


class timed:
    """Adds the CPU seconds of its block."""

    def __init__(self, to: list[float]) -> None:
        self._to = to

    def __enter__(self) -> None:
        self._started = process_time()

    def __exit__(self, *_: object) -> None:
        self._to.append(process_time() - self._started)


def measure_memory(sizes: Sequence[int]) -> bool:
    most = []
    for size in sizes:
        done = subprocess.run([sys.executable, __file__, "--child", str(size)], capture_output=True, text=True, check=True)
        most.append(float(done.stdout))
    print(f"\nRSS of all passes: {sizes[0]} documents {most[0]:.0f} MiB, {sizes[1]} documents {most[1]:.0f} MiB")
    print(f"  growth {most[1] - most[0]:.1f} MiB (target: at most {MOST_GROWTH:.0f})")
    return most[1] - most[0] > MOST_GROWTH


def use_memory(count: int) -> int:
    """All passes over so many documents, a fifth of them duplicates; prints the most that was resident, in MiB."""
    words = [f"word{number}" for number in range(20_000)]

    def texts() -> Iterator[str]:
        draw, before = random.Random("memory"), ""
        for number in range(count):
            text = before if number % 5 == 4 else " ".join(draw.choices(words, k=draw.randint(100, 1000)))
            yield text
            before = text

    with tempfile.TemporaryDirectory() as name:
        how = MinHash()
        sign(texts(), Path(name), 0, how)
        for number in range(how.passes):
            pair(Path(name), number, how)
        choose(Path(name), how)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20))
    return 0


# --- decontamination ---


@cache
def test_samples() -> Mapping[str, Sequence[Sample]]:
    there = (DATA / "mmedbench" / "Test").is_dir()
    options = TaskOptions(data_dir=DATA / "mmedbench") if there else TaskOptions()
    tasks = [spec.load(options) for spec in Catalog(make_host()).select_tasks(["mmedbench" if there else "mmedbench_mini"])]
    return {task.name: task.samples("test") for task in tasks}


@cache
def test_items() -> TestItems:
    return TestItems(test_samples())


def options_of(item: Sample, draw: random.Random | None = None) -> str:
    texts = [*item.options.values()]
    if draw:
        draw.shuffle(texts)
    return "\n".join(f"{letter}. {text}" for letter, text in zip("ABCDEFGH", texts, strict=False))


def half_of(item: Sample, last: bool) -> str:
    question = item.question[: spans(item.question)[-1][1]]  # without the blanks to fill in
    parts = [*question] if item.language in UNSPACED else question.split()
    size = (len(parts) + 1) // 2
    return joined(parts[-size:] if last else parts[:size], item.language)


def blanks(text: str, draw: random.Random) -> str:
    return "".join(draw.choice(["\n", "  ", "\u00a0", "\t"]) if sign.isspace() else sign for sign in text)


SHAPES: Mapping[str, Callable[[Sample, random.Random], str]] = {
    "verbatim": lambda item, draw: f"{item.question}\n{options_of(item)}",
    "other white space": lambda item, draw: blanks(f"{item.question}\n{options_of(item)}", draw),
    "options shuffled": lambda item, draw: f"{item.question}\n{options_of(item, draw)}",
    "first half, options": lambda item, draw: f"{half_of(item, last=False)}\n{options_of(item)}",
    "last half, options": lambda item, draw: f"{half_of(item, last=True)}\n{options_of(item, draw)}",
    "question alone": lambda item, draw: item.question,
    "first half alone": lambda item, draw: half_of(item, last=False),
    "last half alone": lambda item, draw: half_of(item, last=True),
}
# Half of a short question alone says too little to tell it from other text.
ALL_FOUND = tuple(SHAPES)[:5]


def measure_copies() -> bool:
    print(f"\ncopies of {len(test_items())} test items, each in a document of its own: found")
    print(f"  {'':20}" + "".join(f"{task[-2:]:>8}" for task in test_samples()))
    failed = False
    for shape, copy in SHAPES.items():
        shares = []
        for task, samples in test_samples().items():
            draw = random.Random(f"{shape} {task}")
            found = 0
            for item in samples:
                host = draw.choice(texts_in(item.language))[:2000]
                place = draw.randrange(len(host) + 1)
                hits = test_items().hits(f"{host[:place]}\n{copy(item, draw)}\n{host[place:]}")
                found += any((hit.task, hit.item_id) == (task, item.id) for hit in hits)
            shares.append(found / len(samples))
        failed |= shape in ALL_FOUND and min(shares) < 1
        print(f"  {shape:20}" + "".join(f"{share:8.1%}" for share in shares) + (" (target 100 %)" if shape in ALL_FOUND else ""))
    return failed


def measure_clean(runs: int) -> bool:
    texts = [text for language in LANGUAGES for text in texts_in(language)]
    items = test_items()
    seconds: list[float] = []
    for _ in range(runs):
        with timed(seconds):
            flagged = sum(bool(items.hits(text)) for text in texts)
    characters = sum(map(len, texts))
    print(f"\n{len(texts)} clean documents of {characters / len(texts):.0f} characters: flagged {flagged} (target 0)")
    print(f"  CPU time per 1,000 documents: {statistics.median(seconds) / len(texts) * 1000:.2f} s")
    print(f"  flagged by any n words, or 1.6 n characters, in a row: {fixed_rows(texts)}")
    return flagged > 0


def fixed_rows(texts: Sequence[str]) -> str:
    """What the same length for all items would flag."""
    questions = [(units(item.question), item.language) for samples in test_samples().values() for item in samples]
    cut = [units(text) for text in texts]
    told = []
    for words in (5, 8, 10, 13):
        rows: dict[int, set[tuple[str, ...]]] = {words: set(), round(1.6 * words): set()}
        for question, language in questions:
            size = round(1.6 * words) if language in UNSPACED else words
            rows[size].update(tuple(question[at : at + size]) for at in range(len(question) - size + 1))
        flagged = Counter(
            any(tuple(text[at : at + size]) in wanted for size, wanted in rows.items() for at in range(len(text) - size + 1))
            for text in cut
        )
        told.append(f"{words}: {flagged[True]}")
    return ", ".join(told)


if __name__ == "__main__":
    sys.exit(main())
