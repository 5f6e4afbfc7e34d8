"""How long it takes to compare full runs, and how often a gate errs: the tables of docs/ci.md.

    python benchmarks/compare.py              # whole commands on runs of 8,518 items; half a minute
    python benchmarks/compare.py --gate       # how often the gate answers what, by simulation; some minutes

The runs are made here: as many questions in each language as MMedBench has, with prompts, outputs and the scores of six metrics.
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
import time
from collections import Counter
from pathlib import Path

from mmedeval import RunPlan
from mmedeval.catalog import Catalog
from mmedeval.gate import Rules, judge_drop
from mmedeval.host import make_host
from mmedeval.paired import Changes, Counts
from mmedeval.runner import run

# The test split of MMedBench: 8,518 questions.
SIZES = {"Chinese": 3426, "English": 1273, "French": 622, "Japanese": 199, "Russian": 256, "Spanish": 2742}
METRICS = ("bleu1", "rouge1", "rouge2", "rougeL", "chrf", "bertscore")
WORDS = (
    "a",
    "50-year-old",
    "man",
    "comes",
    "to",
    "the",
    "physician",
    "because",
    "of",
    "pain",
    "in",
    "his",
    "chest",
    "no",
    "fever",
)
PROGRAM = "from mmedeval.cli import main; main()"
TARGET = 3.0


def text(generator: random.Random, characters: int) -> str:
    return " ".join(generator.choices(WORDS, k=characters // 5))


def make_data(folder: Path) -> None:
    generator = random.Random(0)
    for split in ("Train", "Test"):
        (folder / split).mkdir(parents=True)
    for language, size in SIZES.items():
        for split, count in (("Train", 5), ("Test", size)):
            lines = []
            for number in range(count):
                # English has four options, the others five.
                options = {letter: text(generator, 40) for letter in ("ABCD" if language == "English" else "ABCDE")}
                item = {
                    "question": f"{number}: {text(generator, 600)}",
                    "options": options,
                    "answer_idx": generator.choice("ABCD"),
                }
                checked = {"rationale": text(generator, 700), "human_checked": True, "human_check_passed": True}
                lines.append(json.dumps({**item, **checked}))
            (folder / split / f"{language}.jsonl").write_text("\n".join(lines) + "\n")


def make_run(data: Path, out: Path, seed: int) -> Path:
    """A run of a random model, to which outputs and scores are added as if it had written rationales."""
    plan = RunPlan(model="baseline:random", tasks=("mmedbench",), data_dir=data, seed=seed)
    _, path = run(plan, Catalog(make_host(), lambda _: None), out)
    generator = random.Random(seed)
    lines = []
    for line in (path / "samples.jsonl").read_text().splitlines():
        item = json.loads(line)
        if generator.random() < 0.3:
            item["prediction"] = item["answer"]
        item["output"], item["finish_reason"] = text(generator, 900), "stop"
        item["scores"] |= {metric: generator.random() for metric in METRICS}
        lines.append(json.dumps(item))
    (path / "samples.jsonl").write_text("\n".join(lines) + "\n")
    # Random models of all seeds are the same model; these are to stand for different ones.
    record = json.loads((path / "record.json").read_text())
    (path / "record.json").write_text(json.dumps({**record, "fingerprint": f"{seed}"}))
    return path


def seconds(arguments: list[str], rounds: int) -> tuple[float, float, float]:
    """The wall time of a whole command, median and least, and the median of its processor time."""
    walls, processors = [], []
    for _ in range(rounds):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processors.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        if done.returncode not in (0, 3, 4):
            raise SystemExit(f"mmedeval {' '.join(arguments)} failed: {done.stderr}")
    return statistics.median(walls), min(walls), statistics.median(processors)


def measure(rounds: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_data(root / "data")
        runs = [str(make_run(root / "data", root / f"step-{seed}", seed)) for seed in range(5)]
        size = (Path(runs[0]) / "samples.jsonl").stat().st_size
        print(f"runs of {sum(SIZES.values())} items, {size / 1e6:.0f} MB each; {rounds} times each command\n")
        baseline = str(root / "baseline.json")
        commands = {
            "baseline RUN": ["baseline", runs[0], "-o", baseline],
            "compare RUN RUN": ["compare", *runs[:2]],
            "compare baseline.json RUN": ["compare", baseline, runs[1]],
            "gate": ["gate", "--baseline", baseline, "--run", runs[1]],
            "gate --per-language": ["gate", "--baseline", baseline, "--run", runs[1], "--per-language"],
            "trend, 5 runs": ["trend", *runs],
        }
        print("| command | seconds, median | least | on the processor |\n| :--- | ---: | ---: | ---: |")
        holds = True
        for name, arguments in commands.items():
            took, least, worked = seconds(arguments, rounds)
            print(f"| `mmedeval {name}` | {took:.2f} | {least:.2f} | {worked:.2f} |", flush=True)
            # On a machine that does other things, too, the least tells most of the program.
            holds = holds and (name != "compare RUN RUN" or least < TARGET)
        print(f"\nbaseline.json: {Path(baseline).stat().st_size / 1000:.0f} kB")
    return holds


def simulate(times: int) -> None:
    """The gate with its default rules on one task, a fifth of whose items changes between the runs."""
    generator = random.Random(0)
    drops = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1)
    print("| items | " + " | ".join(f"drop {100 * drop:g}" for drop in drops) + " |")
    print("| ---: |" + " :---: |" * len(drops))
    for n in (40, 100, 199, 500, 1273, 3426, 8518):
        cells = []
        for drop in drops:
            counted: Counter[str] = Counter()
            for _ in range(times):
                drawn = Counter(generator.choices((1, -1, 0), (0.1 - drop / 2, 0.1 + drop / 2, 0.8), k=n))
                counted[judge_drop([Changes((Counts(n, drawn[1], drawn[-1]),))], Rules())[0][0]] += 1
            cells.append(" / ".join(f"{100 * counted[answer] / times:.0f}" for answer in ("holds", "fails", "cannot tell")))
        print(f"| {n} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gate", action="store_true", help="simulate the gate instead")
    parser.add_argument("--rounds", type=int, default=5, help="times that each command is run")
    parser.add_argument("--times", type=int, default=2000, help="simulated gates for each cell")
    arguments = parser.parse_args()
    if arguments.gate:
        simulate(arguments.times)
    elif not measure(arguments.rounds):
        raise SystemExit(f"compare took more than {TARGET:g} s")


if __name__ == "__main__":
    main()
