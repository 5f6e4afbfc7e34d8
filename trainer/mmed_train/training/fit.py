"""Whether a training fits into a device's memory, and what would help where it does not."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import torch

from mmed_train.training.loop import Steps, arguments, processes
from mmed_train.training.memory import FLOAT32, Batch, CannotTellError, Footprint, Moment, measure
from mmed_train.training.recipe import Recipe
from mmedeval import ModelError, UsageError

GIB: Final = 2**30
# What is in a device's memory beside a training: the driver's and the libraries' own, and the share that an allocator cannot use.
RESERVE, SLACK = 1 * GIB, 0.05
# Where Linux tells what a container may use.
CGROUP: Final = Path("/sys/fs/cgroup/memory.max")
PASS, STEP = "a forward or backward pass", "the optimizer's step"
PLAIN_OPTIMIZER, FUSED_OPTIMIZER = "adamw_torch", "adamw_torch_fused"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the training is to run; `memory` in bytes of each device, or of this machine for each process."""

    name: str
    gpu: bool
    memory: int | None
    devices: int
    here: bool


@dataclass(frozen=True, kw_only=True)
class Change:
    """What would need less memory: the settings, the bytes, and whether they fit."""

    settings: Mapping[str, Any]
    total: int
    fits: bool


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes per device at the moment of most need: `parts` add up to `total`. `usable` is the device's memory but a reserve.

    Where not `whole`, activations are not among them.
    """

    parts: Mapping[str, int]
    moment: str
    total: int
    usable: int | None
    whole: bool = True
    changes: Sequence[Change] = ()

    @property
    def fits(self) -> bool | None:
        """`None` where that is not known."""
        if self.usable is None or (not self.whole and self.total <= self.usable):
            return None
        return self.total <= self.usable


def find_target(*, memory: str | None = None, devices: int | None = None, card: str | None = None) -> Target:
    """The devices of this machine, or those that are told. Raises `UsageError` for a memory that is none."""
    if memory is not None or card is not None:
        size = None if memory is None else _bytes(memory)
        return Target(name=card or "GPU", gpu=True, memory=size, devices=devices or 1, here=False)
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        count = processes() if processes() > 1 else torch.cuda.device_count()
        return Target(
            name=about.name, gpu=True, memory=about.total_memory, devices=devices or count, here=devices in (None, count)
        )
    count = devices or processes()
    main = _main_memory()
    return Target(name="CPU", gpu=False, memory=main and main // count, devices=count, here=True)


def _main_memory() -> int | None:
    """Bytes of this machine, or of the container around this process; `None` where the system does not tell."""
    if not hasattr(os, "sysconf"):
        return None
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CGROUP.read_text(encoding="ascii").strip() if CGROUP.is_file() else "max"
    return min(whole, int(limit)) if limit.isdigit() else whole


def _bytes(text: str) -> int:
    """A memory as its maker tells it: the 80 GB of a card are 80 x 2**30 bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:(G|M)i?B?)?", text.strip(), re.IGNORECASE)
    if found is None or not float(found[1]):
        raise UsageError(f"--device-memory {text}: write it as in 80GB")
    return round(float(found[1]) * (2**20 if (found[2] or "G").upper() == "M" else GIB))


def weigh(
    recipe: Recipe, batch: Batch, steps: Steps, *, target: Target, bf16: bool, say: Callable[[str], None]
) -> tuple[Footprint, Memory, list[str]]:
    """What a recipe whose model starts from a config needs on one device, and on each of the target's; what is to be known of it.

    `batch` is the largest of the training; `say` tells what takes long.
    """
    scale, notes = _Scale(recipe, batch, steps, target=target, bf16=bf16), []
    try:
        found = scale.weigh(recipe)
    except CannotTellError as error:
        # It may be one of a package that is not here.
        told, recipe = recipe.train.optimizer, replace(recipe, train=replace(recipe.train, optimizer=PLAIN_OPTIMIZER))
        found = scale.weigh(recipe)
        notes.append(f"the optimizer {told} cannot be tried here ({error}); memory and disk are those of {PLAIN_OPTIMIZER}")
    if found.passing is None:
        notes.append(f"a pass of this model cannot be tried without its weights ({found.why}): activations are not counted")
    need = scale.need(recipe, found)
    changes: tuple[Change, ...] = ()
    if scale.usable is not None and not scale.fits(need) and found.passing is not None:
        say("it does not fit; looking for what would help")
        changes = tuple(
            Change(settings=_settings(recipe, each.recipe), total=each.total, fits=scale.fits(each))
            for each in _ways_out(scale, need, found)
        )
    memory = Memory(
        parts=need.parts,
        moment=need.moment,
        total=need.total,
        usable=scale.usable,
        whole=found.passing is not None,
        changes=changes,
    )
    return found, memory, notes


@dataclass(frozen=True, kw_only=True)
class _Need:
    recipe: Recipe
    parts: Mapping[str, int]
    moment: str

    @property
    def total(self) -> int:
        return sum(self.parts.values())


class _Scale:
    """Weighs a step of the recipe, or of one that differs."""

    def __init__(self, recipe: Recipe, batch: Batch, steps: Steps, *, target: Target, bf16: bool) -> None:
        self.recipe, self.batch, self.steps, self.target, self.bf16 = recipe, batch, steps, target, bf16
        memory = target.memory
        self.usable = None if memory is None else max(0, round(memory * (1 - SLACK)) - RESERVE)

    def weigh(self, recipe: Recipe) -> Footprint:
        """Raises `CannotTellError`."""
        from transformers import Trainer

        told = arguments(recipe, self.steps)
        rows = min(self.batch.rows, recipe.train.batch)
        return measure(
            recipe,
            replace(self.batch, rows=rows, predicted=math.ceil(self.batch.predicted * rows / self.batch.rows)),
            bf16=self.bf16,
            gpu=self.target.gpu,
            make_optimizer=lambda model: Trainer.get_optimizer_cls_and_kwargs(told, model),
        )

    def need(self, recipe: Recipe, found: Footprint | None = None) -> _Need:
        parts, moment = share_out(found or self.weigh(recipe), recipe, self.target.devices, bf16=self.bf16)
        return _Need(recipe=recipe, parts=parts, moment=moment)

    def fits(self, need: _Need) -> bool:
        return self.usable is not None and need.total <= self.usable


def share_out(found: Footprint, recipe: Recipe, devices: int, *, bf16: bool) -> tuple[dict[str, int], str]:
    """Bytes per device by part, at the moment that needs most, and which one that is.

    DDP: each device holds all, and each gradient a second time, in the buckets that are exchanged. FSDP2: weights, gradients and
    optimizer state are shared out; two blocks at a time (one is fetched ahead) and what is in no block are whole, in the type
    that is computed in, and so are their gradients. Its activations are taken as those of one device: an upper bound.
    """
    passes = found.passing or Moment()
    held = {"weights": found.weights, "gradients": found.gradients, "optimizer": found.optimizer}
    if recipe.distributed.fsdp and devices > 1:
        (block, block_trained), (root, root_trained) = found.block, found.root
        whole = (2 if bf16 else FLOAT32) * (2 * block + root + block_trained + root_trained)
        share = 0.0 if recipe.distributed.cpu_offload else 1 / devices
        own = {name: math.ceil(size * share) for name, size in held.items()}
        passing = {**own, "gathered": whole, "activations": passes.other}
        stepping = {**own, "temporaries": math.ceil(found.stepping * share)}
    else:
        buckets = {"buckets": found.gradients} if devices > 1 else {}
        beside = {"copies": passes.copies, "activations": passes.other}
        passing = {**held, "gradients": passes.gradients, **buckets, **beside}
        stepping = {**held, **buckets, "temporaries": found.stepping}
    if sum(passing.values()) >= sum(stepping.values()):
        return passing, PASS
    return stepping, STEP


def _ways_out(scale: _Scale, need: _Need, found: Footprint) -> Iterator[_Need]:
    """Ever more of what needs less memory, in order of harm, up to what fits."""
    recipe, gpu = scale.recipe, scale.target.gpu
    at_rest = Moment()
    if gpu and recipe.train.optimizer == PLAIN_OPTIMIZER and not scale.fits(scale.need(recipe, replace(found, passing=at_rest))):
        # The same arithmetic, without temporaries of its own.
        recipe, found = replace(recipe, train=replace(recipe.train, optimizer=FUSED_OPTIMIZER)), replace(found, stepping=0)
        fused = scale.need(recipe, found)
        if need.moment == STEP:
            yield fused
        if scale.fits(fused):
            return
    variants = [replace(recipe, model=replace(recipe.model, gradient_checkpointing=True))]
    if scale.target.devices > 1 and not recipe.distributed.fsdp:
        variants.append(_with_fsdp(variants[-1]))
    kinds: list[Literal["none", "lora", "qlora"]] = ["none", "lora", *(["qlora"] if gpu else [])]  # type: ignore[list-item]
    if recipe.adapter.kind in kinds:
        harder = kinds[kinds.index(recipe.adapter.kind) + 1 :]
        variants += [replace(variants[-1], adapter=replace(recipe.adapter, kind=kind)) for kind in harder]
    for variant in variants:
        # What the optimizer's step needs, no smaller batch can save.
        if variant.adapter == recipe.adapter and not scale.fits(scale.need(variant, replace(found, passing=at_rest))):
            continue
        try:
            needs = [*_smaller(scale, variant)]
        except (CannotTellError, ModelError):
            # Not every optimizer can be tried here, and not every model takes every adapter.
            continue
        yield from needs
        if scale.fits(needs[-1]):
            return


def _with_fsdp(recipe: Recipe) -> Recipe:
    """Shared out, the model cannot be evaluated on the way."""
    best = "none" if recipe.eval.best == "accuracy" else recipe.eval.best
    evaluated = replace(recipe.eval, tasks=(), best=best, patience=None if best == "none" else recipe.eval.patience)
    return replace(recipe, distributed=replace(recipe.distributed, fsdp=True), eval=evaluated)


def _smaller(scale: _Scale, recipe: Recipe) -> Iterator[_Need]:
    """The recipe, and with as many rows at once as fit, or one, and more passes for as many rows per step."""
    batch, rows = recipe.train.batch, recipe.train.batch * recipe.train.accumulate
    whole = scale.need(recipe)
    if recipe != scale.recipe:
        yield whole
    if scale.fits(whole) or batch == 1:
        return
    one = scale.need(_with_batch(recipe, 1))
    if scale.usable is not None and scale.fits(one):
        # Bytes over rows bend upwards: no more than on the straight line between them are needed.
        most = 1 + (scale.usable - one.total) / (whole.total - one.total) * (batch - 1)
        fitting = max(each for each in range(1, batch) if rows % each == 0 and each <= most)
        several = scale.need(_with_batch(recipe, fitting)) if fitting > 1 else one
        one = several if scale.fits(several) else one
    yield one


def _with_batch(recipe: Recipe, batch: int) -> Recipe:
    rows = recipe.train.batch * recipe.train.accumulate
    return replace(recipe, train=replace(recipe.train, batch=batch, accumulate=rows // batch))


def _settings(old: Recipe, new: Recipe) -> dict[str, Any]:
    """The settings by which a recipe differs."""
    names = ("model", "train", "adapter", "eval", "distributed")
    sections = {name: (asdict(getattr(old, name)), asdict(getattr(new, name))) for name in names}
    return {f"{name}.{each}": b[each] for name, (a, b) in sections.items() for each in b if a[each] != b[each]}
