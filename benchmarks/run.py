"""Measures mmedeval's `hf:` backend against lm-eval on the same strings, and writes `benchmarks/RESULTS.md`.

    .venv/bin/python benchmarks/run.py                                  all, about 50 minutes on two quiet cores
    .venv/bin/python benchmarks/run.py --only small/cloze --items 24 --runs 1

lm-eval is installed once into an environment of its own; models and data are made from fixed seeds; all of it under `.bench/`.
Exit status 1 if a workload could not be measured or if the two programs do not score the same; a missed target is only shown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from arms import HERE, Bench, introduce, measure, quiet_environment
from command import measure_command
from figures import BenchmarkError, Failed, Outcome
from machine import cores, describe
from peer import install
from table import Report, render
from workloads import Places, Sizes, Workload, workloads

RESULTS = HERE / "RESULTS.md"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes, small = Sizes(), "of the small model"
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="workloads whose name holds this; repeatable")
    parser.add_argument("--list", action="store_true", help="show the names of the workloads and stop")
    parser.add_argument("--items", type=_positive, metavar="N", help="at most so many items in any workload")
    parser.add_argument(
        "--scored", type=_positive, default=sizes.scored, metavar="N", help=f"items {small}, scoring (%(default)s)"
    )
    parser.add_argument(
        "--written", type=_positive, default=sizes.written, metavar="N", help=f"items {small}, text (%(default)s)"
    )
    parser.add_argument(
        "--large", type=_positive, default=sizes.large, metavar="N", help="items of the large model (%(default)s)"
    )
    parser.add_argument(
        "--large-shots",
        type=_positive,
        default=sizes.large_shots,
        metavar="N",
        help="the same with solved examples (%(default)s)",
    )
    parser.add_argument("--runs", type=_positive, default=3, metavar="N", help="runs of each arm (%(default)s)")
    parser.add_argument("--threads", type=_positive, default=cores(), metavar="N", help="threads of each arm (%(default)s)")
    parser.add_argument(
        "--batch-sizes", type=_positive, nargs="+", default=[1, 4, 8, 16], metavar="N", help="tried for lm-eval (%(default)s)"
    )
    parser.add_argument("--folder", type=Path, default=HERE.parent / ".bench", help="where all but the results lies")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md after a partial run too")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def main() -> int:
    options = parse()
    sizes = Sizes(scored=options.scored, written=options.written, large=options.large, large_shots=options.large_shots)
    chosen = workloads(sizes, options.only, options.items)
    if options.list or not chosen:
        print("\n".join(each.name for each in chosen) or f"no workload's name holds {options.only}; see --list")
        return 0 if chosen else 2
    partial = bool(options.only) or options.items is not None or options.runs < 3 or sizes != Sizes()
    started, load_average = datetime.now(UTC), os.getloadavg()[0]
    try:
        bench = prepare(options)
        introductions = introduce(bench)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    outcomes, failed = measure_all(bench, chosen)
    report = Report(
        date=f"{started:%Y-%m-%d}",
        machine=describe(),
        python=platform.python_version(),
        threads=bench.threads,
        runs=bench.runs,
        load_average=load_average,
        made=json.loads(bench.places.made.read_text(encoding="utf-8")),
        about=introductions,
        outcomes=outcomes,
        failed=failed,
        partial=partial,
    )
    text = render(report)
    print(text)
    save(bench.places.root / f"results-{started:%Y%m%d-%H%M%S}.json", report)
    if options.write or not partial:
        RESULTS.write_text(text, encoding="utf-8")
    return 1 if report.problems else 0


def prepare(options: argparse.Namespace) -> Bench:
    """Everything that is made once: lm-eval's environment, models, data and requests."""
    places = Places(root=options.folder.resolve())
    places.root.mkdir(parents=True, exist_ok=True)
    # Whatever the repository ignores, this folder is none of its business.
    (places.root / ".gitignore").write_text("*\n", encoding="utf-8")
    peer = install(places.environment)
    environment = os.environ | quiet_environment(options.threads, places.scratch)
    # In a process of its own: a child's peak memory begins with that of its parent, so this one stays small.
    done = subprocess.run([sys.executable, HERE / "making.py", places.root], env=environment, check=False)
    if done.returncode:
        raise BenchmarkError(f"models and data could not be made (exit status {done.returncode})")
    return Bench(
        places=places, peer=peer, runs=options.runs, threads=options.threads, batch_sizes=tuple(sorted(set(options.batch_sizes)))
    )


def measure_all(bench: Bench, chosen: Sequence[Workload]) -> tuple[list[Outcome], list[Failed]]:
    """What could be measured, and what could not."""
    outcomes: list[Outcome] = []
    failed: list[Failed] = []
    for workload in chosen:
        print(f"{datetime.now():%H:%M:%S} {workload.name}, {workload.items} items ...", file=sys.stderr)
        try:
            outcomes.append(measure_command(bench, workload) if workload.command else measure(bench, workload))
            print(f"  {outcomes[-1].ratio:.2f} times as fast", file=sys.stderr)
        except BenchmarkError as error:
            failed.append(Failed(workload=workload, error=str(error)))
            print(f"  failed: {error}", file=sys.stderr)
    return outcomes, failed


def save(file: Path, report: Report) -> None:
    derived = [{"name": each.workload.name, "ratio": each.ratio, "distance": each.distance} for each in report.outcomes]
    contents = {**asdict(report), "problems": report.problems, "derived": derived}
    file.write_text(json.dumps(contents, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
