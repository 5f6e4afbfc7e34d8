"""A training recipe: one TOML file over a preset, with `--set` on top, checked before anything is loaded."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from mmed_train.settings import Lines, hints, read_toml, read_values, said, typed
from mmedeval import DataError, UnknownNameError, UsageError

Kind = Literal["pretrain", "finetune"]
T = TypeVar("T")


def option(default: T, words: str) -> T:
    """A setting with its default and one sentence on what it does."""
    value: T = field(default=default, metadata={"help": words})
    return value


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained, and how it is computed."""

    path: str = option("", "the base: a folder that `save_pretrained` wrote, or a hub name")
    revision: str = option("", "branch, tag or commit on the hub")
    config: str = option("", "instead of `path`: a config.json, to start from random weights")
    tokenizer: str = option("", "folder or hub name of the tokenizer (default: the base's own)")
    precision: Literal["auto", "bf16", "fp32"] = option(
        "auto", "what is computed in: bf16 under autocast, or fp32; auto is bf16 where a GPU has it. Weights are always fp32"
    )
    attention: str = option("", "eager, sdpa, flash_attention_2, flex_attention (default: transformers' choice)")
    gradient_checkpointing: bool = option(False, "compute activations again in the backward pass: less memory, a third more time")
    compile: bool = option(False, "torch.compile the model")
    liger: bool = option(False, "liger's fused kernels (a GPU and the package liger-kernel)")


@dataclass(frozen=True, kw_only=True)
class Data:
    """What it is trained on: token shards, or the train split of tasks."""

    corpus: str = option("", "pretrain: the TOML file of a finished `mmed-train corpus run`, whose shards and mix are taken")
    shards: tuple[str, ...] = option((), "pretrain: folders or files of token shards, instead of `corpus`; mixed as `[mix]` says")
    windows: Literal["packed", "published"] = option(
        "packed", "pretrain: packed reads each token once; published is the paper's overlapping windows, a document at a time"
    )
    isolate: bool = option(True, "pretrain: documents in a window do not see each other (checked on the model before the start)")
    tasks: tuple[str, ...] = option((), "finetune: names, groups or globs of tasks, as in `mmedeval run --tasks`")
    data_dir: str = option("", "where the tasks' data lie, as in `mmedeval run --data-dir`")
    protocols: tuple[str, ...] = option(
        ("paper",), "finetune: each item is shown once per protocol: letter, cloze, chat, paper, paper-direct"
    )
    as_published: bool = option(False, "finetune: one space after `step-by-step.`, as the published training script has it")
    max_length: int = option(2048, "finetune: longer items are left out and counted, never cut")
    batching: Literal["packed", "grouped", "plain"] = option(
        "packed",
        "finetune: rows of several items that do not see each other, of one item beside others of like length, or of one item",
    )
    limit: int | None = option(None, "finetune: at most so many items of each task")


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How an epoch of pretraining is made up; see docs/corpus.md. Without it, the corpus's own mix."""

    window: int = option(2048, "tokens in a row")
    weights: Mapping[str, float] | None = option(None, "each language's share, in any unit")
    temperature: float = option(1.0, "without weights: shares in proportion to tokens ** (1 / temperature)")
    epochs: Mapping[str, float] = field(default_factory=dict, metadata={"help": "by source: how often its tokens are on offer"})
    tokens: float | None = option(None, "the size of an epoch (default: all that is on offer)")
    caps: Mapping[str, float] = field(default_factory=dict, metadata={"help": "by language: the most tokens of an epoch"})
    most_epochs: float = option(1e9, "how often at most an epoch takes what a language offers")


@dataclass(frozen=True, kw_only=True)
class Train:
    """The optimisation."""

    epochs: int = option(1, "passes over the data")
    steps: int | None = option(None, "end after so many optimizer steps")
    batch: int = option(8, "rows per device and forward pass")
    accumulate: int = option(1, "forward passes per optimizer step; the loss is the mean over all their tokens")
    lr: float = option(1e-5, "the highest learning rate")
    schedule: Literal["cosine", "wsd", "linear", "constant"] = option("cosine", "wsd: warm up, stay, decay")
    warmup: float = option(0.03, "below 1: a share of the steps; else steps")
    decay: float = option(0.1, "wsd: the share of the steps over which the rate falls")
    min_lr: float = option(0.0, "cosine and wsd: where the rate ends, as a share of `lr`")
    optimizer: str = option("adamw_torch_fused", "a name that transformers' TrainingArguments knows")
    weight_decay: float = option(0.0, "AdamW's")
    beta1: float = option(0.9, "AdamW's")
    beta2: float = option(0.999, "AdamW's")
    clip: float = option(1.0, "the largest norm of the gradient")
    seed: int = option(42, "of the order of samples, of dropout and of new weights")
    log_every: int = option(10, "steps")
    save_every: int | None = option(None, "steps (default: at the end of each epoch)")
    keep: int = option(2, "how many checkpoints stay, beside the best one")
    loaders: int = option(0, "processes that read data, per device")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Low-rank adapters (peft) instead of all weights."""

    kind: Literal["none", "lora", "dora", "qlora"] = option("none", "qlora: the base in 4 bits (the package bitsandbytes)")
    r: int = option(16, "rank")
    alpha: int = option(32, "scale: the update is multiplied by alpha / r, or alpha / sqrt(r) with rslora")
    dropout: float = option(0.05, "of the adapter's input")
    targets: tuple[str, ...] = option(("all-linear",), "modules by name, or all-linear: every linear layer but the head")
    rslora: bool = option(False, "scale by alpha / sqrt(r)")


@dataclass(frozen=True, kw_only=True)
class Eval:
    """What is looked at on the way; none of it changes what is trained."""

    every: int | None = option(None, "steps (default: whenever a checkpoint is saved)")
    validation: int = option(0, "pretrain: windows per language that are held out, for a loss by language")
    tasks: tuple[str, ...] = option((), "tasks that the harness evaluates on the model in memory")
    protocol: str = option("letter", "as in `mmedeval run --protocol`")
    limit: int | None = option(100, "items per task")
    best: Literal["none", "accuracy", "loss"] = option("none", "keep the best checkpoint by this as `best/`")
    patience: int | None = option(None, "stop after so many looks without a better one")


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """For several GPUs under `torchrun` or `accelerate launch`."""

    fsdp: bool = option(False, "share weights, gradients and optimizer state out (FSDP2); else each GPU has all (DDP)")
    cpu_offload: bool = option(False, "fsdp: keep them in the main memory")


@dataclass(frozen=True, kw_only=True)
class Logs:
    """Where figures go beside `log.jsonl`, which is always written."""

    to: tuple[str, ...] = option((), "tensorboard, wandb, trackio (each a package of its own)")


# Where else figures can go, and the packages of which one must be there.
LOGGERS: Final[Mapping[str, Sequence[str]]] = {
    "tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",),
}  # fmt: skip
SECTIONS: Final[Mapping[str, type]] = {
    "model": Model,
    "data": Data,
    "mix": Mixing,
    "train": Train,
    "adapter": Adapter,
    "eval": Eval,
    "distributed": Distributed,
    "logs": Logs,
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one TOML file says. Its paths begin where it lies; `mix` is `None` where the file has none."""

    file: Path
    kind: Kind
    output: Path
    preset: str = "default"
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    mix: Mixing | None = None
    train: Train = field(default_factory=Train)
    adapter: Adapter = field(default_factory=Adapter)
    eval: Eval = field(default_factory=Eval)
    distributed: Distributed = field(default_factory=Distributed)
    logs: Logs = field(default_factory=Logs)

    def inside(self, path: str) -> Path:
        """A path of the file, which begins where the file lies."""
        return self.file.parent / Path(path).expanduser()

    def named(self, name: str) -> str:
        """A folder as a path, a hub name as it stands."""
        inside = self.inside(name)
        return str(inside.resolve()) if inside.is_dir() else name

    def as_json(self) -> dict[str, Any]:
        """All that decides on the result, as JSON-like data: no place of this machine but those that the file names."""
        data = {name: None if (part := getattr(self, name)) is None else asdict(part) for name in SECTIONS}
        plain: dict[str, Any] = {name: value for name, value in data.items() if value is not None}
        return {"kind": self.kind, "preset": self.preset, **_listed(plain)}


# What may be another in a training that goes on: nothing that a weight depends on.
FREE: Final = frozenset({"train.log_every", "train.save_every", "train.keep", "train.loaders", "logs.to"})


def read_recipe(file: Path, kind: Kind, overrides: Iterable[str] = ()) -> Recipe:
    """Raises `DataError` with file and line for what is wrong, `UsageError` for a `--set` that is."""
    from mmed_train.training.presets import PRESETS

    told, where = read_toml(file, "docs/training.md")
    for name in told:
        if name not in ("preset", "output", *SECTIONS):
            raise where.unknown("section", name, ("preset", "output", *SECTIONS), table=name, key=name)
    preset = told.get("preset", "default")
    fitting = [name for name, each in PRESETS.items() if each.kind in (kind, "both")]
    if preset not in fitting:
        raise where.unknown(f"preset of {kind}", str(preset), fitting, table="", key="preset")
    values = {name: {**PRESETS[preset].values.get(name, {})} for name in SECTIONS}
    for name, section in SECTIONS.items():
        values[name] |= read_values(told.get(name, {}), where, name, 0, hints(section))
    given = {*told}
    for setting in overrides:
        table, name, value = _override(setting)
        values[table][name] = value
        given.add(table)
    if not isinstance(told.get("output"), str) or not told["output"]:
        raise DataError(f'{file} names no output; give a new folder, as in output = "runs/first"')
    sections = {name: section(**values[name]) for name, section in SECTIONS.items() if name != "mix"}
    recipe = Recipe(
        file=file.absolute(),
        kind=kind,
        output=file.absolute().parent / Path(told["output"]).expanduser(),
        preset=preset,
        mix=Mixing(**values["mix"]) if "mix" in given or PRESETS[preset].values.get("mix") else None,
        **sections,
    )
    _check(recipe, where)
    return recipe


def _override(setting: str) -> tuple[str, str, Any]:
    """`a.b=c` as table, name and value. A value that is no TOML is a string."""
    path, equals, text = setting.partition("=")
    table, dot, name = path.strip().partition(".")
    if not equals or not dot:
        raise UsageError(f"--set {setting}: write it as --set TABLE.NAME=VALUE, as in --set train.lr=1e-5")
    if table not in SECTIONS:
        raise UnknownNameError("section of --set", table, SECTIONS)
    known = hints(SECTIONS[table])
    name, _, key = name.partition(".")
    if name not in known:
        raise UnknownNameError(f"setting of [{table}]", name, known)
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    value = typed({key: value} if key else value, known[name])
    if value is MISSING:
        raise UsageError(f"--set {setting}: {text} is no {said(known[name])}")
    return table, name, value


def _check(recipe: Recipe, where: Lines) -> None:
    model, data, train, adapter = recipe.model, recipe.data, recipe.train, recipe.adapter
    if bool(model.path) == bool(model.config):
        raise where.wrong("give either path (a model to go on from) or config (to start from random weights)", "model")
    if model.config and not model.tokenizer:
        raise where.wrong("a config brings no tokenizer; name one with tokenizer", "model", 0, "config")
    if recipe.kind == "pretrain" and bool(data.corpus) == bool(data.shards):
        raise where.wrong('give either corpus = "corpus.toml" or shards = ["FOLDER"]', "data")
    if recipe.kind == "finetune" and not data.tasks:
        raise where.wrong('give tasks, as in tasks = ["mmedbench_mini"]', "data")
    if recipe.kind == "finetune" and not data.protocols:
        raise where.wrong('give protocols, as in protocols = ["paper"]', "data", 0, "protocols")
    for table, part, least in (
        ("train", train, {"epochs": 1, "batch": 1, "accumulate": 1, "log_every": 1, "keep": 1, "seed": 0, "loaders": 0}),
        ("train", train, {"steps": 1, "save_every": 1, "weight_decay": 0, "warmup": 0, "clip": 0}),
        ("data", data, {"max_length": 2, "limit": 1}),
        ("mix", recipe.mix, {"window": 2}),
        ("adapter", adapter, {"r": 1}),
        ("eval", recipe.eval, {"every": 1, "validation": 0, "limit": 1, "patience": 1}),
    ):
        for name, smallest in least.items():
            value = None if part is None else getattr(part, name)
            if value is not None and not value >= smallest:  # nor a NaN
                raise where.wrong(f"{name} = {value:g} is below {smallest}", table, 0, name)
    for table, part, bounds in (
        ("train", train, {"lr": (0, 10), "beta1": (0, 1), "beta2": (0, 1), "decay": (0, 1), "min_lr": (0, 1)}),
        ("adapter", adapter, {"dropout": (0, 1), "alpha": (1, 1e6)}),
    ):
        for name, (low, high) in bounds.items():
            if not low <= (value := getattr(part, name)) < high:
                raise where.wrong(f"{name} = {value:g} does not lie between {low:g} and {high:g}", table, 0, name)
    for name in recipe.logs.to:
        if name not in LOGGERS:
            raise where.unknown("logger", name, LOGGERS, table="logs", key="to")
    if train.optimizer != Train.optimizer:
        from transformers.training_args import OptimizerNames

        if train.optimizer not in (optimizers := [each.value for each in OptimizerNames]):
            raise where.unknown("optimizer", train.optimizer, optimizers, table="train", key="optimizer")
    if recipe.eval.best == "accuracy" and not recipe.eval.tasks:
        raise where.wrong('best = "accuracy" needs tasks to look at', "eval", 0, "best")
    if recipe.eval.best == "loss" and not recipe.eval.validation:
        raise where.wrong('best = "loss" needs validation windows (of a pretraining) to look at', "eval", 0, "best")
    if recipe.eval.validation and recipe.kind != "pretrain":
        raise where.wrong("validation windows are held out of a corpus; use tasks in a finetuning", "eval", 0, "validation")
    if recipe.eval.patience and recipe.eval.best == "none":
        raise where.wrong("patience needs best, which says what is looked at", "eval", 0, "patience")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The settings, as `table.name: old -> new`, that two recipes (`as_json`) do not share, but for those that change nothing."""
    found = []
    for table in sorted({*old, *new} - {"preset"}):
        a, b = old.get(table) or {}, new.get(table) or {}
        if not isinstance(a, Mapping) or not isinstance(b, Mapping):
            found += [] if a == b else [f"{table}: {a} -> {b}"]
            continue
        for name in sorted({*a, *b}):
            if a.get(name) != b.get(name) and f"{table}.{name}" not in FREE and table != "eval":
                found.append(f"{table}.{name}: {a.get(name)} -> {b.get(name)}")
    return found


def settings_of(section: type) -> Mapping[str, str]:
    """Name -> what it does, for each setting of a section."""
    return {each.name: each.metadata["help"] for each in fields(section)}


def _listed(value: Any) -> Any:
    """Tuples as lists, so that what is read from JSON again compares equal."""
    if isinstance(value, Mapping):
        return {name: _listed(each) for name, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, tuple) else value
