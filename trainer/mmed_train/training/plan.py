"""What a recipe would do, need and take: all of it is read and checked as for the training, but for the weights.

Data are read and counted by the training's own `prepare`, around a model without contents; memory is measured on a step without
contents (`memory.py`). What is not exact is said to be so: time, and memory where several devices share it out.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmed_train.settings import read_toml
from mmed_train.training.fit import GIB, Memory, Target, weigh
from mmed_train.training.jobs import obstacles, read_job
from mmed_train.training.logs import card_rate, flops_of
from mmed_train.training.loop import Job, Steps, arguments, count_steps, strange_steps
from mmed_train.training.memory import FLOAT32, Batch, Footprint
from mmed_train.training.model import computes_all_logits, find_base, load_whole, parameters_of, quiet, sentence
from mmed_train.training.presets import PRESETS
from mmed_train.training.recipe import Kind, Recipe
from mmed_train.training.rows import ItemRows
from mmed_train.training.saving import find_saved
from mmedeval import UsageError

# Shares of the peak rate that trainings reach; on GPUs, torchtitan tells 0.33 to 0.39 for Llama 3.1 8B on H100.
GPU_SHARE, CPU_SHARE = 0.35, 0.5
# Float32 products, without TF32, have about this share of the rate of bfloat16 ones on A100 and H100.
FLOAT32_SHARE = 1 / 15
# Scheduler, random states, recipe and the like of a checkpoint; a line of the Trainer's own history; a tensor's heads in files.
REST_BYTES, HISTORY_BYTES, TENSOR_BYTES = 30_000, 250, 400


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model. `longest` is the most positions it knows, if it says so; `tokens` are those of the tokenizer."""

    name: str
    kind: str
    layers: int
    longest: int | None
    embeddings: int
    tokens: int
    parameters: int
    trained: int


@dataclass(frozen=True, kw_only=True)
class Language:
    """Tokens to learn from; of a finetuning, items, and answers' tokens, in one pass; of a pretraining, tokens that there are
    beside those held out, windows that are held out, and tokens that all epochs take (of published windows: at least)."""

    language: str
    tokens: int
    items: int | None = None
    answers: int | None = None
    held_out: int | None = None
    taken: int | None = None


@dataclass(frozen=True, kw_only=True)
class Data:
    """`computed` tokens go through the model, padding included, and `predicted` are compared with a target; both in all steps.

    `predicted` is `None` where it would have to be read. `longest` is the longest row.
    """

    rows: int
    longest: int
    computed: int
    predicted: int | None
    languages: Sequence[Language]
    items: Mapping[str, int]
    left_out: Mapping[str, int]
    protocols: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Rows and steps. `looks` may be at step 0; with `best`, each look that is the best so far makes a checkpoint, too."""

    batch: int
    accumulate: int
    devices: int
    rows: int
    tokens: float
    epochs: Sequence[int]
    total: int
    warmup: int
    saves: Sequence[int]
    looks: Sequence[int]
    best: str


@dataclass(frozen=True, kw_only=True)
class Time:
    """`rate` is in FLOP/s of all devices; hours without looks and saving."""

    flops: float
    rate: float
    share: float
    measured: bool
    hours: float


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes of a checkpoint by part, and of the output at most: `kept` checkpoints, and the best model where there is one."""

    weights: int
    optimizer: int
    rest: int
    checkpoint: int
    kept: int
    total: int
    free: int

    @property
    def fits(self) -> bool:
        return self.total <= self.free


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`obstacles` would stop the training, `notes` would not."""

    file: Path
    kind: Kind
    preset: str
    output: Path
    adapter: str
    optimizer: str
    target: Target
    base: Base
    data: Data
    schedule: Schedule
    memory: Memory
    time: Time | None
    disk: Disk
    obstacles: Sequence[str]
    notes: Sequence[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        told = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        fits = {"memory": self.memory.fits, "disk": self.disk.fits}
        return {**told, "fits": fits}


def find_kind(file: Path, overrides: Iterable[str] = ()) -> Kind:
    """What a recipe is for, by its preset or its data. Raises `UsageError` where it does not say."""
    told, _ = read_toml(file, "docs/training.md")
    preset = PRESETS.get(str(told.get("preset")))
    if preset is not None and preset.kind != "both":
        return preset.kind
    data = told.get("data")
    names = {*(data if isinstance(data, dict) else ())}
    names |= {each.partition("=")[0].strip().removeprefix("data.") for each in overrides if each.strip().startswith("data.")}
    kinds: dict[Kind, set[str]] = {"pretrain": {"corpus", "shards"}, "finetune": {"tasks"}}
    found = [kind for kind, marks in kinds.items() if names & marks]
    if len(found) != 1:
        lacks = "names both a corpus and tasks" if found else "names neither data.corpus or data.shards nor data.tasks"
        raise UsageError(f"{file} {lacks}, so it does not tell what it is for; give --kind pretrain or --kind finetune")
    return found[0]


def make_plan(recipe: Recipe, target: Target, *, say: Callable[[str], None]) -> Plan:
    """Raises what the training would raise for a recipe, data or a model that cannot be used; `say` tells what takes long."""
    notes: list[str] = []
    bare = _without_weights(recipe, target, say=notes.append)
    with torch.device("meta"):
        job = read_job(replace(bare, adapter=replace(bare.adapter, kind="lora")) if _four_bits(bare) else bare, say=notes.append)
    steps = count_steps(recipe, len(job.rows), job.epoch_ends, target.devices)
    data, batch, squares = _read(job, recipe, steps, target.devices)
    schedule = _schedule(job, recipe, steps, data, target.devices)
    bf16 = recipe.model.precision == "bf16" or (recipe.model.precision == "auto" and target.gpu)
    footprint, memory, told = weigh(bare, batch, steps, target=target, bf16=bf16, say=say)
    notes += told
    model, trained = parameters_of(job.model)
    time_taken = _time(job, recipe, data, squares, target, bf16=bf16)
    disk = _disk(job, recipe, schedule, footprint)
    if recipe.model.compile or recipe.model.liger:
        notes.append("kernels that do several steps in one need less memory than is told")
    if recipe.distributed.fsdp and target.devices > 1:
        notes.append("memory under FSDP is reckoned from that of one device, and an upper bound")
    if job.isolated:
        notes.append("whether documents in a row see each other is tested on the model itself at the start of the training")
    if target.gpu and time_taken is None:
        notes.append(f"no rate is known of {target.name}, hence no time; name a card that is: --card H100")
    config = job.model.config.get_text_config()
    if getattr(config, "num_experts_per_tok", None) is not None:
        notes.append("the time is that of a model which takes each token through all of its experts, and so too long")
    notes += [*strange_steps(recipe, steps), *_about_output(recipe)]
    longest = getattr(config, "max_position_embeddings", None)
    return Plan(
        file=recipe.file,
        kind=recipe.kind,
        preset=recipe.preset,
        output=recipe.output,
        adapter=recipe.adapter.kind,
        optimizer=recipe.train.optimizer,
        target=target,
        base=Base(
            name=recipe.model.path or recipe.model.config,
            kind=config.model_type,
            layers=config.num_hidden_layers,
            longest=longest if isinstance(longest, int) else None,
            embeddings=job.model.get_input_embeddings().weight.shape[0],
            tokens=max(job.tokenizer.get_vocab().values()) + 1,
            parameters=model,
            trained=trained,
        ),
        data=data,
        schedule=schedule,
        memory=memory,
        time=time_taken,
        disk=disk,
        obstacles=[*_obstacles(recipe, target, memory, disk)],
        notes=notes,
    )


# --- the model ---


def _without_weights(recipe: Recipe, target: Target, *, say: Callable[[str], None]) -> Recipe:
    """The same recipe from the base's config. What the base must have, and a kernel that is not here, is seen to before."""
    model = recipe.model
    if not target.here and model.attention not in ("", "eager", "sdpa", "flex_attention"):
        model = replace(model, attention="sdpa")
    if model.path:
        here = Path(recipe.named(model.path)).expanduser().is_dir()
        folder = find_base(recipe, weights=here)
        if here:
            with sentence(f"the model {folder.path} cannot be loaded"), quiet():
                for each in load_whole(folder, {"device_map": "meta"})[1]:
                    say(each)
        else:
            say(f"the weights of {model.path} were not looked at: the training fetches them")
        tokenizer = recipe.named(model.tokenizer) if model.tokenizer else str(folder.path)
        model = replace(model, path="", revision="", config=str(folder.path.absolute()), tokenizer=tokenizer)
    return replace(recipe, model=model)


def _four_bits(recipe: Recipe) -> bool:
    return recipe.adapter.kind == "qlora"


# --- data and steps ---


def _read(job: Job, recipe: Recipe, steps: Steps, devices: int) -> tuple[Data, Batch, float]:
    """What the rows hold; the largest batch; and the mean over tokens of the length that each is computed in."""
    told = recipe.train
    taken = min(len(job.rows), steps.total * told.batch * told.accumulate * devices)
    protocols: Sequence[str] = ()
    items: Mapping[str, int] = {}
    if isinstance(job.rows, ItemRows):
        sizes = np.array([(len(each), len(each) - each.prompt) for each in job.rows.items])
        rows = [sizes[[*row]].sum(axis=0) for row in job.rows.layout.rows]
        pairs = np.array(rows + [np.zeros(2, np.int64)] * (-len(rows) % told.batch)).reshape(-1, told.batch, 2)
        lengths, answers = pairs[..., 0].max(axis=1), pairs[..., 1].sum(axis=1)
        filled = (pairs[..., 0] > 0).sum(axis=1)
        seen = math.ceil(taken / told.batch)
        batch = Batch(
            rows=min(told.batch, len(rows)), length=int(lengths.max()), predicted=int(answers.max()), packed=job.isolated
        )
        computed = int((lengths * filled)[:seen].sum())
        squares = float((lengths**2 * filled)[:seen].sum() / computed)
        predicted: int | None = int(answers[:seen].sum())
        items, protocols = job.data["items"], sorted({each.protocol for each in job.rows.items})
        longest = int(pairs[..., 0].max())
    else:
        longest = job.data["window"]
        rows_at_once = min(told.batch, len(job.rows))
        batch = Batch(rows=rows_at_once, length=longest, predicted=rows_at_once * longest, packed=job.isolated)
        computed, squares, predicted = taken * longest, float(longest), None
    data = Data(
        rows=len(job.rows),
        longest=longest,
        computed=computed,
        predicted=predicted,
        languages=[*_languages(job, recipe)],
        items=items,
        left_out=job.data.get("left_out", {}),
        protocols=protocols,
    )
    return data, batch, squares


def _languages(job: Job, recipe: Recipe) -> Iterator[Language]:
    if isinstance(job.rows, ItemRows):
        for language in sorted({each.language for each in job.rows.items}):
            items = [each for each in job.rows.items if each.language == language]
            tokens = sum(map(len, items))
            yield Language(
                language=language, items=len(items), tokens=tokens, answers=tokens - sum(each.prompt for each in items)
            )
        return
    there, held, taken = (_by_language(job.data.get(name)) for name in ("tokens", "held_out", "taken"))
    for language in sorted(there):
        tokens = there[language] - held[language]
        yield Language(
            language=language,
            tokens=tokens,
            held_out=len(job.validation.get(language, ())),
            # Published windows show every token in every epoch.
            taken=taken[language] if "taken" in job.data else tokens * recipe.train.epochs,
        )


def _by_language(counts: Mapping[str, int] | None) -> Counter[str]:
    found: Counter[str] = Counter()
    for name, count in (counts or {}).items():
        found[name.partition("/")[0]] += count
    return found


def moments(recipe: Recipe, steps: Steps, *, looks: bool) -> tuple[list[int], list[int]]:
    """After which steps a checkpoint is saved, and after which is looked at the model; `looks`: there is something to look at."""
    told, total = recipe.train, steps.total
    each = {*range(told.save_every, total + 1, told.save_every)} if told.save_every else {*steps.epochs}
    saves = sorted({step for step in each if step <= total} | {total})
    if not looks:
        return saves, []
    every = recipe.eval.every
    return saves, sorted({0, total, *(range(every, total + 1, every) if every else saves)})


def _schedule(job: Job, recipe: Recipe, steps: Steps, data: Data, devices: int) -> Schedule:
    told = recipe.train
    saves, looks = moments(recipe, steps, looks=bool(job.validation or recipe.eval.tasks))
    return Schedule(
        batch=told.batch,
        accumulate=told.accumulate,
        devices=devices,
        rows=told.batch * told.accumulate * devices,
        tokens=data.computed / steps.total,
        epochs=sorted(each for each in steps.epochs if each <= steps.total),
        total=steps.total,
        warmup=int(arguments(recipe, steps).warmup_steps),
        saves=saves,
        looks=looks,
        best=recipe.eval.best,
    )


# --- time and disk ---


def _time(job: Job, recipe: Recipe, data: Data, squares: float, target: Target, *, bf16: bool) -> Time | None:
    """Of all passes, at the share of the rate that trainings reach. `None` for a card whose rate is not known."""
    if target.gpu:
        rate = card_rate(target.name)
        if rate is None:
            return None
        rate, share = rate * (1 if bf16 else FLOAT32_SHARE), GPU_SHARE
    else:
        rate, share = product_rate(torch.bfloat16 if bf16 else torch.float32), CPU_SHARE
    flops = count_flops(job.model, recipe, data, squares)
    # Processes on one machine share its processor.
    whole = rate * (target.devices if target.gpu else 1)
    return Time(flops=flops, rate=whole, share=share, measured=not target.gpu, hours=flops / (whole * share) / 3600)


def count_flops(model: Any, recipe: Recipe, data: Data, squares: float) -> float:
    """Of all passes, as `flops_of` counts them, and the forward pass of the layers once more where it is computed again."""
    logits = data.computed if data.predicted is None or computes_all_logits(recipe) else data.predicted
    count = flops_of(model)
    flops: float = count(read=data.computed, logits=logits, length=squares)
    if not recipe.model.gradient_checkpointing:
        return flops
    tables = {id(model.get_output_embeddings().weight), id(model.get_input_embeddings().weight)}
    layers = sum(each.numel() for each in {id(each): each for each in model.parameters() if id(each) not in tables}.values())
    attention = count(read=1, logits=0, length=squares) - count(read=1, logits=0, length=0)
    return flops + data.computed * float(2 * layers + attention / 3)


def product_rate(dtype: torch.dtype, *, size: int = 1024, seconds: float = 0.5) -> float:
    """FLOP/s of this processor in products of matrices: the best of some."""
    a, b = (torch.rand(size, size).to(dtype) for _ in range(2))
    best, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end or best == math.inf:
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return float(2 * size**3 / best)


def _disk(job: Job, recipe: Recipe, schedule: Schedule, footprint: Footprint) -> Disk:
    """`final` and `best` share their files with a checkpoint, but `best` outlives the one that it came of."""
    saved = {id(each): each.numel() for each in job.model.parameters() if recipe.adapter.kind == "none" or each.requires_grad}
    weights = sum(saved.values()) * FLOAT32
    with tempfile.TemporaryDirectory() as folder:
        job.tokenizer.save_pretrained(folder)
        tokenizer = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    history = schedule.total // recipe.train.log_every * HISTORY_BYTES
    rest = tokenizer + REST_BYTES + history + TENSOR_BYTES * len(saved)
    checkpoint = weights + footprint.optimizer + rest
    # The new one is whole before the oldest goes.
    kept = min(len(schedule.saves) + (schedule.best != "none") * len(schedule.looks), recipe.train.keep + 1)
    place = recipe.output
    while not place.exists():
        place = place.parent
    return Disk(
        weights=weights,
        optimizer=footprint.optimizer,
        rest=rest,
        checkpoint=checkpoint,
        kept=kept,
        total=kept * checkpoint + (schedule.best != "none") * (weights + rest),
        free=shutil.disk_usage(place).free,
    )


# --- what is in the way ---


def _about_output(recipe: Recipe) -> Iterator[str]:
    saved, warnings = find_saved(recipe.output)
    yield from warnings
    if saved:
        step = saved[-1].step
        yield f"{recipe.output} holds a training already, up to step {step}; go on with --resume, or name another output"
    elif warnings or (recipe.output / "final").exists():
        yield f"{recipe.output} holds a training already; name another output"


def _obstacles(recipe: Recipe, target: Target, memory: Memory, disk: Disk) -> Iterator[str]:
    """What would stop the training where it is to run, as far as that can be seen from here."""
    if memory.fits is False:
        yield f"{memory.total / GIB:.2f} GiB of memory are needed, {(memory.usable or 0) / GIB:.2f} GiB can be used"
    if target.here and not disk.fits:
        yield f"{disk.total / 1e9:.1f} GB of disk are needed, {disk.free / 1e9:.1f} GB are free; lower train.keep, or free some"
    yield from map(str, obstacles(recipe, devices=target.devices, gpu=target.gpu, here=target.here))
