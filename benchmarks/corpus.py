"""The memory that a whole run of `mmed-train corpus` takes, of all its processes, for a small corpus and for a large one.

    python benchmarks/corpus.py                           # 50 and 1,000 MB of text made here: some hours on two cores
    python benchmarks/corpus.py --megabytes 10 50

Documents are of 700 to 6,000 characters, in six languages in equal parts: words in a row from the embedded rationales, with terms
of the lexicons and words that are made up between them, so that no two documents are alike and each passes all filters. Every
`--copies`-th one comes again with a few words more, for deduplication to find. All sizes run with the same settings. Memory is
what is resident, files that are mapped included; of the largest process as the system keeps it (VmHWM), the sum of all processes
as it was seen, every tenth of a second. Exit status 1 if a document is dropped that should not be, or memory grows too much.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from machine import describe
from shards import learn

from mmed_train.corpus.config import STEPS, read_corpus
from mmed_train.corpus.keywords import lexicon
from mmed_train.corpus.report import Stats, read_stats
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.specs import TaskOptions

LANGUAGES = ("en", "zh", "ja", "fr", "ru", "es")
UNSPACED = ("zh", "ja")
SYLLABLES = {
    "ru": [a + b for a in "бвгджзклмнпрстфхц" for b in "аеиоу"],
    "zh": [chr(code) for code in range(0x4E8C, 0x8000, 23)],
    "ja": [chr(code) for code in range(0x4E8C, 0x8000, 29)],
}
LATIN = [a + b for a in "bcdfghjklmnprstvwxyz" for b in "aeiou"]
SHORTEST, LONGEST = 700, 6000
LOOK = 0.1
# The sum of all processes may be so many MiB more, whatever the size.
MOST_GROWTH = 64.0
MOST_STRANGE = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[50, 1000], metavar="N", help="of text (50 1000)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="tasks at once (%(default)s)")
    parser.add_argument("--tasks", type=int, default=8, metavar="N", help="tasks of a step (%(default)s)")
    parser.add_argument("--copies", type=int, default=20, metavar="N", help="every so many documents one is a copy (%(default)s)")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="for texts and corpora, which are removed again")
    options = parser.parse_args()
    print(describe())
    sums, failed = [], False
    for size in options.megabytes:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            documents, copies = write_texts(folder, size, options.copies)
            file = write_description(folder, options.tasks)
            found = watch(file, options.workers)
            stats = read_stats(read_corpus(file))
            print(f"\n{size} MB, {documents:,} documents, {copies:,} of them copies;", end=" ")
            print(f"{options.tasks} tasks, {options.workers} at once")
            failed |= show(found, stats, documents, copies)
            sums.append(max(peak.all for peak in found.values()))
    growth = sums[-1] - sums[0]
    first, last = options.megabytes[0], options.megabytes[-1]
    print(f"\nfrom {first} to {last} MB all processes grow by {growth:.0f} MiB (target: at most {MOST_GROWTH:.0f})")
    return int(failed or growth > MOST_GROWTH)


# --- texts ---


@cache
def words_of(language: str) -> Sequence[str]:
    """All words of the embedded rationales, in their order; in Chinese and Japanese all characters."""
    [spec] = Catalog(make_host()).select_tasks([f"mmedbench_mini_{language}"])
    rationales = [sample.rationale for sample in spec.load(TaskOptions()).samples("test")]
    return [word for each in rationales for word in (each if language in UNSPACED else each.split())]


@cache
def terms_of(language: str) -> Sequence[str]:
    return [form.strip().removesuffix("*") for term in lexicon(language) for form in term.split(",")]


@cache
def made_up(language: str) -> Sequence[str]:
    draw = random.Random(f"made up {language}")
    parts = SYLLABLES.get(language, LATIN)
    return ["".join(draw.choices(parts, k=2 if language in UNSPACED else draw.randint(2, 4))) for _ in range(100_000)]


def document(language: str, draw: random.Random) -> list[str]:
    """Sentences. Of three words in a row one is made up or a term, so that documents share next to no rows of words."""
    words, terms, new = words_of(language), terms_of(language), made_up(language)
    size = round(SHORTEST * (LONGEST / SHORTEST) ** draw.random() / (3 if language in UNSPACED else 1))
    joint, end = ("", "。") if language in UNSPACED else (" ", ". ")
    sentences, length = [], 0
    while length < size:
        start = draw.randrange(len(words) - 24)
        said = []
        for at in range(start, start + draw.randrange(8, 24, 2), 2):
            said += [*words[at : at + 2], draw.choice(new)]
        for at in range(2, len(said), 9):
            said[at] = draw.choice(terms)
        sentences.append(joint.join(said).strip(" .。-–—・*") + end)
        length += len(sentences[-1])
    return sentences


def write_texts(folder: Path, megabytes: int, every: int) -> tuple[int, int]:
    """A file per language; returns how many documents there are, and how many of them are copies."""
    documents = copies = 0
    for language in LANGUAGES:
        draw = random.Random(f"texts {language}")
        size = 0
        with (folder / f"{language}.jsonl").open("wb") as file:
            for text, is_copy in texts(language, draw, every):
                line = json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n"
                file.write(line)
                size += len(line)
                documents += 1
                copies += is_copy
                if size >= megabytes * 1_000_000 / len(LANGUAGES):
                    break
    return documents, copies


def texts(language: str, draw: random.Random, every: int) -> Iterator[tuple[str, bool]]:
    number = 0
    while True:
        sentences = document(language, draw)
        yield "".join(sentences).strip(), False
        number += 1
        if number % (every - 1) == 0:
            yield "".join([*sentences, draw.choice(made_up(language)), "。" if language in UNSPACED else "."]), True


def write_description(folder: Path, tasks: int) -> Path:
    some = ["".join(document(language, random.Random(f"tokenizer {number}"))) for number in range(50) for language in LANGUAGES]
    learn(some).save_pretrained(folder / "tokenizer")
    sources = "".join(f'[[source]]\nname = "{each}"\nlanguage = "{each}"\npath = "{each}.jsonl"\n' for each in LANGUAGES)
    file = folder / "corpus.toml"
    file.write_text(
        f'[corpus]\noutput = "out"\ntasks = {tasks}\n{sources}[decontaminate]\ntasks = ["mmedbench_mini"]\n'
        '[tokenize]\ntokenizer = "tokenizer"\n[mix]\ntemperature = 2\n',
        encoding="utf-8",
    )
    return file


# --- memory ---


@dataclass
class Peak:
    """What a step took at most, in MiB: the command itself, its largest worker, and all of them at once."""

    seconds: float = 0.0
    command: float = 0.0
    worker: float = 0.0
    all: float = 0.0


def watch(file: Path, workers: int) -> Mapping[str, Peak]:
    """Runs the whole pipeline; the peaks of each step, and of what comes before the first."""
    command = [
        sys.executable,
        "-c",
        "from mmed_train.cli import main; main()",
        "corpus",
        "run",
        str(file),
        "--workers",
        str(workers),
    ]
    peaks: dict[str, Peak] = defaultdict(Peak)
    with (file.parent / "log").open("wb") as log:
        # A session of its own, by which its processes are told from others.
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        before = time.monotonic()
        while process.poll() is None:
            begun = [each for each in STEPS if any((file.parent / "out").glob(f"?-{each}"))]
            peak, now = peaks[begun[-1] if begun else "start"], time.monotonic()
            peak.seconds += now - before
            before, members = now, processes(process.pid)
            peak.command = max(peak.command, members.get(process.pid, (0.0, 0.0))[0])
            peak.worker = max(peak.worker, *(highest for pid, (_, highest) in members.items() if pid != process.pid), 0.0)
            peak.all = max(peak.all, sum(resident for resident, _ in members.values()))
            time.sleep(LOOK)
    if process.returncode:
        sys.exit((file.parent / "log").read_text(encoding="utf-8"))
    return peaks


def processes(session: int) -> Mapping[int, tuple[float, float]]:
    """What is resident now of each process of a session, and what was at most, in MiB.

    A process that is being started is its parent once more, in the same memory, until it runs a program of its own.
    """
    found = {}
    leader = (Path("/proc") / str(session) / "cmdline").read_bytes()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # Behind the name, which may hold anything: state, parent, group, session.
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                continue
            if folder.name != str(session) and (folder / "cmdline").read_bytes() == leader:
                continue
            told = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        if "VmRSS" in told:
            now, most = (int(told[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
            found[int(folder.name)] = now, most
    return found


def show(peaks: Mapping[str, Peak], stats: Stats, documents: int, copies: int) -> bool:
    print(f"{'':14}{'seconds':>9}{'command MiB':>13}{'largest worker MiB':>20}{'all MiB':>9}")
    for name, peak in peaks.items():
        print(f"{name:14}{peak.seconds:9.0f}{peak.command:13.0f}{peak.worker:20.0f}{peak.all:9.0f}")
    print(
        f"{'whole':14}{sum(each.seconds for each in peaks.values()):9.0f}{max(each.command for each in peaks.values()):13.0f}",
        end="",
    )
    print(f"{max(each.worker for each in peaks.values()):20.0f}{max(each.all for each in peaks.values()):9.0f}")
    kept = {step: sum(each.kept[step] for each in stats.sources) for step in stats.steps}
    print(", ".join(f"{count:,} documents after {step}" for step, count in kept.items()))
    # Of texts that are made up a few in a hundred thousand break a rule by chance; their copies, if they have any, go with them.
    strange = kept["extract"] - kept["filter"]
    passed = (
        kept["extract"] == documents
        and strange <= documents * MOST_STRANGE
        and copies - strange <= kept["filter"] - kept["dedup"] <= copies
        and kept["decontaminate"] == kept["dedup"]
    )
    print(
        f"{sum(each.tokens or 0 for each in stats.sources):,} tokens; what is left is {'what should be' if passed else 'WRONG'}"
    )
    return not passed


if __name__ == "__main__":
    sys.exit(main())
