"""A plan as a reader takes it in: what is trained on what, in how many steps, what it needs, and what is in the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from mmed_train.training.fit import GIB, RESERVE, SLACK, Change, Memory
from mmed_train.training.plan import Disk, Plan, Schedule, Time
from mmedeval.console import make_console, make_table, plain, print_table

NAMES: Final = 9
PARTS: Final[Mapping[str, str]] = {
    "gradients": "gradients",
    "buckets": "gradients once more, to exchange (DDP)",
    "gathered": "weights and gradients that are whole (FSDP)",
    "copies": "copies of weights in bfloat16",
    "activations": "activations",
    "temporaries": "temporaries of the optimizer",
}


def print_plan(plan: Plan) -> None:
    console = make_console()
    console.print(plain(f"{plan.file}  ·  {plan.kind}, preset {plan.preset}"), style="bold")
    _print_rows(console, [("model", _model(plan)), ("tokenizer", _tokenizer(plan))])
    print_table(console, _languages(plan))
    _print_rows(console, [*_data(plan), *_steps(plan.schedule)])
    memory = plan.memory
    console.print(f"memory of each device when most is needed, in {memory.moment}:")
    print_table(console, _parts(plan, memory))
    console.print(plain(_fits(plan, memory)), style="red" if memory.fits is False else "")
    if memory.changes:
        console.print("what would need less, the least harm first:")
        console.print(_changes(memory.changes))
    if memory.fits is False and not any(change.fits for change in memory.changes):
        console.print("none of these fits: take more or larger devices, shorter rows, or a smaller model")
    _print_rows(console, [*([("time", _time(plan.time, plan))] if plan.time else []), *_disk(plan.disk, plan)])
    _print_rows(console, [("note", note) for note in plan.notes])
    for obstacle in plan.obstacles:
        console.print(plain(f"in the way: {obstacle}"), style="red")
    if not plan.obstacles:
        console.print("nothing is in the way" if memory.fits else "nothing else is in the way")


def _print_rows(console: Any, rows: Sequence[tuple[str, str]]) -> None:
    """Names with what there is to say of each, folded beside them."""
    table = make_table()
    table.show_header = False
    table.add_column(no_wrap=True, min_width=NAMES, style="dim")
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, plain(text))
    if rows:
        console.print(table)


def _model(plan: Plan) -> str:
    base = plan.base
    share = f"{base.trained:,} of them trained ({base.trained / base.parameters:.2%})"
    trained = "all trained" if base.trained == base.parameters else share
    return f"{base.name} ({base.kind}, {base.layers} layers): {base.parameters:,} parameters, {trained}"


def _tokenizer(plan: Plan) -> str:
    base = plan.base
    places = (
        "" if base.longest is None else f"; rows have up to {plan.data.longest:,} tokens, the model knows {base.longest:,} places"
    )
    return f"tokens up to {base.tokens - 1:,}, the model knows {base.embeddings:,}{places}"


def _languages(plan: Plan) -> Any:
    """A row per language."""
    tuned = plan.kind == "finetune"
    table = make_table()
    table.add_column("language", no_wrap=True)
    names = ("items", "tokens", "answer tokens") if tuned else ("tokens", "all epochs take", "share", "passes", "held out")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    taken = sum(each.taken or 0 for each in plan.data.languages)
    for each in plan.data.languages:
        if tuned:
            cells = [f"{each.items or 0:,}", f"{each.tokens:,}", f"{each.answers or 0:,}"]
        else:
            told = each.taken or 0
            cells = [f"{each.tokens:,}", f"{told:,}", f"{told / taken:.1%}", f"{told / max(each.tokens, 1):.2f}"]
            cells.append(f"{each.held_out or 0:,} windows")
        table.add_row(plain(each.language), *cells)
    return table


def _data(plan: Plan) -> Iterator[tuple[str, str]]:
    data = plan.data
    if data.items:
        counts: Counter[str] = Counter()
        for name, count in data.items.items():
            counts[name.rpartition(" ")[2].strip("()")] += count
        told = ", ".join(f"{count:,} in the protocol {name}" for name, count in counts.items())
        yield "items", f"{told}; of {len({name.partition(' ')[0] for name in data.items})} tasks, in one pass"
    padded = "" if data.predicted is None else f", padding included, and {data.predicted:,} predicted"
    yield "tokens", f"{data.computed:,} are computed in all steps{padded}"


def _steps(steps: Schedule) -> Iterator[tuple[str, str]]:
    parts = [f"{steps.batch} rows at once"]
    parts += [f"{steps.accumulate} passes"] if steps.accumulate > 1 else []
    parts += [f"{steps.devices} devices"] if steps.devices > 1 else []
    yield "a step", f"{' x '.join(parts)} = {steps.rows:,} rows, about {steps.tokens:,.0f} tokens"
    warm = f"{steps.warmup:,} of them to warm up" if steps.warmup else "without a warm-up"
    ends = f"epochs end at {_row(steps.epochs)}" if steps.epochs else "no epoch ends within them"
    yield "steps", f"{steps.total:,}, {warm}; {ends}"
    also = "" if steps.best == "none" or not steps.looks else ", and whenever a look is the best so far"
    yield "saves", f"after step {_row(steps.saves)}{also}"
    if steps.looks:
        yield "looks", f"after step {_row(steps.looks)}"


def _row(steps: Sequence[int]) -> str:
    told = [f"{step:,}" for step in steps]
    return ", ".join(told) if len(told) < 7 else f"{', '.join(told[:3])}, ..., {told[-1]} ({len(told)} times)"


def _parts(plan: Plan, memory: Memory) -> Any:
    table = make_table()
    table.add_column("part", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    words = {**PARTS, "optimizer": f"optimizer state ({plan.optimizer})"}
    words["weights"] = "weights, frozen ones in 4 bits" if plan.adapter == "qlora" else "weights in float32"
    for name, size in memory.parts.items():
        if size:
            table.add_row(plain(words[name]), _gib(size))
    table.add_section()
    table.add_row("together", _gib(memory.total), style="bold")
    return table


def _fits(plan: Plan, memory: Memory) -> str:
    target = plan.target
    if memory.usable is None or target.memory is None:
        return f"how much {target.name} has is not known; tell it with --device-memory, as in --device-memory 80GB"
    whose = target.name if target.gpu else "this machine"
    each = f" for each of {target.devices} processes" if target.devices > 1 and not target.gpu else ""
    has = f"{whose} has {_gib(target.memory)}{each}, of which {_gib(memory.usable)} can be used"
    why = f"(less {RESERVE / GIB:.0f} GiB for drivers and libraries, and {SLACK:.0%} that allocators lose)"
    verdict = {True: "it fits", False: "it does not fit", None: "without activations it fits"}[memory.fits]
    return f"{verdict}: {has} {why}"


def _changes(changes: Sequence[Change]) -> Any:
    table = make_table()
    table.add_column("needs", justify="right", no_wrap=True)
    table.add_column("fits", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for change in changes:
        told = ", ".join(f"{name} = {_toml(value)}" for name, value in change.settings.items())
        table.add_row(_gib(change.total), "yes" if change.fits else "no", plain(told))
    return table


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else "[]" if value == () else "none" if value is None else str(value)


def _time(time: Time, plan: Plan) -> str:
    minutes = time.hours * 60
    hours = f"about {time.hours:,.1f} hours" if minutes >= 60 else f"about {minutes:,.0f} minutes"
    hours = hours if minutes >= 1.5 else "a minute or less"
    rate = f"{time.rate / 1e12:,.2f}" if time.rate < 1e13 else f"{time.rate / 1e12:,.0f}"
    whose = "measured here" if time.measured else f"{plan.target.devices} x {plan.target.name}"
    return (
        f"{hours} without looks and saving: {time.flops:.3g} FLOPs at {time.share:.0%}, which is assumed, of {rate} "
        f"TFLOP/s ({whose})"
    )


def _disk(disk: Disk, plan: Plan) -> Iterator[tuple[str, str]]:
    best = ", best/" if plan.schedule.best != "none" else ""
    each = f"{_gb(disk.checkpoint)} a checkpoint ({_gb(disk.weights)} weights, {_gb(disk.optimizer)} optimizer)"
    most = f"at most {_gb(disk.total)} for {disk.kept}{' and best/' if best else ''}"
    yield "disk", f"{each}, {most}; {_gb(disk.free)} are free here"
    eval_folder = ", eval/" if plan.schedule.looks else ""
    yield "output", f"{plan.output}: checkpoint-N/, final/{best} (linked where the disk can), log.jsonl, loss.png{eval_folder}"


def _gib(size: int) -> str:
    """Memory, in the unit of its makers."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / 2**20:,.1f} MiB"


def _gb(size: int) -> str:
    """Room on a disk, in the unit of its makers."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
