"""What a recipe starts from: the paper's settings, and ours, each with its reason."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from mmed_train.settings import hints, said
from mmed_train.training.recipe import SECTIONS, settings_of
from mmedeval import UnknownNameError

# What a recipe of any kind says of its data, one or the other.
CHOICES: Final = {"data.corpus": '"corpus.toml"', "data.tasks": '["mmedbench"]'}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Values by section that differ from a recipe's own defaults, and why, by `section.name`."""

    kind: Literal["pretrain", "finetune", "both"]
    summary: str
    values: Mapping[str, Mapping[str, Any]]
    reasons: Mapping[str, str]


SCRIPT: Final = "the published script"
_FP32 = "weights stay fp32: steps this small are lost on bf16 ones"
# What the published trainings share. Values that are a recipe's own defaults, too, are said: these must not move with those.
_OPTIMISER = {"schedule": "cosine", "clip": 1.0, "seed": 42, "log_every": 1}
_OPTIMISER_REASONS = {
    "model.precision": f"{SCRIPT}; {_FP32}",
    "train.epochs": SCRIPT,
    "train.lr": SCRIPT,
    "train.schedule": SCRIPT,
    "train.warmup": SCRIPT,
    "train.weight_decay": SCRIPT,
    "train.clip": f"the Trainer's default; what {SCRIPT} calls gradient_clipping, nothing reads",
    "train.seed": SCRIPT,
    "train.log_every": SCRIPT,
}
_ITEMS = {
    "tasks": ("mmedbench",),
    "protocols": ("paper", "paper-direct"),
    "as_published": True,
    "max_length": 2048,
    "batching": "plain",
}
_ITEMS_REASONS = {
    "data.tasks": "all six languages",
    "data.protocols": "two copies of every item, one with and one without its rationale",
    "data.as_published": f"{SCRIPT} has one space where the one for inference has two",
    "data.max_length": f"{SCRIPT}, which cuts longer items, and their end with them; here they are left out",
    "data.batching": f"{SCRIPT}: rows of one item, padded, in random order",
}

PRESETS: Final[Mapping[str, Preset]] = {
    "default": Preset(
        kind="both",
        summary="what we would do",
        values={},
        reasons={
            "data.windows": "each token is read once; overlapping windows read up to 20 times as many",
            "data.batching": "no padding is computed",
            "train.lr": "high enough that a few thousand items change a model, low enough that it keeps its languages",
            "train.schedule": "cosine; take wsd where the length of the training is not known beforehand",
            "adapter.targets": "adapters on all linear layers come nearer to full finetuning than on q and v alone",
        },
    ),
    "paper-pretrain": Preset(
        kind="pretrain",
        summary="continued pretraining of MMedLM 2 (Qiu et al. 2024): 8 GPUs x 8 rows x 8 passes = 512 rows of 2048 tokens",
        values={
            "model": {"gradient_checkpointing": True, "precision": "bf16"},
            "data": {"windows": "published"},
            "mix": {"window": 2048},
            "train": {
                **_OPTIMISER,
                "epochs": 3,
                "batch": 8,
                "accumulate": 8,
                "lr": 2e-5,
                "warmup": 0.01,
                "weight_decay": 0.01,
                "save_every": 200,
                "keep": 2,
            },
            "distributed": {"fsdp": True},
        },
        reasons={
            **_OPTIMISER_REASONS,
            "model.gradient_checkpointing": SCRIPT,
            "data.windows": f"{SCRIPT}: 2048 tokens every 1536, a document at a time; here its padding is not trained on",
            "mix.window": SCRIPT,
            "train.epochs": f"{SCRIPT}; the card of the 1.8B model says 15,000 iterations",
            "train.batch": f"{SCRIPT}, on 8 GPUs",
            "train.accumulate": f"{SCRIPT}: 8 GPUs x 8 rows x 8 passes; on one GPU, 64 passes",
            "train.seed": f"the Trainer's default, which {SCRIPT} leaves",
            "train.save_every": SCRIPT,
            "train.keep": SCRIPT,
            "distributed.fsdp": f"{SCRIPT} (full shard)",
        },
    ),
    "paper-full": Preset(
        kind="finetune",
        summary="full finetuning on MMedBench (Qiu et al. 2024): 4 GPUs x 4 rows x 8 passes = 128 items",
        values={
            "model": {"gradient_checkpointing": True, "precision": "bf16"},
            "data": _ITEMS,
            "train": {
                **_OPTIMISER,
                "epochs": 5,
                "batch": 4,
                "accumulate": 8,
                "lr": 1e-6,
                "warmup": 0.03,
                "weight_decay": 0.0,
                "keep": 3,
            },
            "distributed": {"fsdp": True},
        },
        reasons={
            **_OPTIMISER_REASONS,
            **_ITEMS_REASONS,
            "model.gradient_checkpointing": SCRIPT,
            "train.batch": f"{SCRIPT}, on 4 GPUs",
            "train.accumulate": f"{SCRIPT}: 4 GPUs x 4 rows x 8 passes; on one GPU, 32 passes",
            "train.keep": SCRIPT,
            "distributed.fsdp": f"{SCRIPT} (full shard)",
        },
    ),
    "paper-lora": Preset(
        kind="finetune",
        summary="LoRA on MMedBench (Qiu et al. 2024): 4 GPUs x 1 row x 32 passes = 128 items",
        values={
            "model": {"precision": "bf16"},
            "data": _ITEMS,
            "train": {
                **_OPTIMISER,
                "epochs": 3,
                "batch": 1,
                "accumulate": 32,
                "lr": 2e-5,
                "warmup": 0.03,
                "weight_decay": 0.0,
                "keep": 3,
            },
            "adapter": {"kind": "lora", "r": 16, "alpha": 32, "dropout": 0.05, "targets": ("q_proj", "v_proj")},
        },
        reasons={
            **_OPTIMISER_REASONS,
            **_ITEMS_REASONS,
            "train.batch": f"{SCRIPT}, on 4 GPUs",
            "train.accumulate": f"{SCRIPT}: 4 GPUs x 1 row x 32 passes; on one GPU, 128 passes",
            "train.lr": f"{SCRIPT}; its README says 1e-6",
            "train.keep": SCRIPT,
            "adapter.kind": SCRIPT,
            "adapter.r": SCRIPT,
            "adapter.alpha": f"ours: {SCRIPT} reads a field that does not exist, so the paper's value is unknown",
            "adapter.dropout": SCRIPT,
            "adapter.targets": f"{SCRIPT}: q and v; query_key_value for BLOOM, and a converted InternLM 2 has q_proj and v_proj",
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class Option:
    """A setting: what it may be, its default, and what it does. `section` is "" for what stands above all tables."""

    section: str
    name: str
    values: str
    default: Any
    help: str

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name

    def is_for(self, kind: str) -> bool:
        """Whether a pretraining or a finetuning reads it."""
        only = {"pretrain", "finetune"} & {"pretrain" if self.section == "mix" else self.help.partition(":")[0]}
        return kind == "both" or not only or kind in only


def options() -> list[Option]:
    """Every setting of a recipe, in order."""
    named = ", ".join(PRESETS)
    found = [
        Option(section="", name="preset", values=f"one of {named}", default="default", help="what all other settings start from"),
        Option(section="", name="output", values="string", default="", help="a new folder, for all that the training writes"),
    ]
    for name, section in SECTIONS.items():
        defaults, words, types = section(), settings_of(section), hints(section)
        found += [
            Option(section=name, name=each, values=said(types[each]), default=getattr(defaults, each), help=words[each])
            for each in types
        ]
    return found


def options_markdown() -> str:
    """Every setting as Markdown, a table per section."""
    parts = []
    for section in dict.fromkeys(option.section for option in options()):
        title = f"`[{section}]`: {_purpose(section)}" if section else "Above all tables"
        rows = [
            f"| `{each.name}` | {_cell(each.values)} | {_cell(shown(each.default))} | {_cell(each.help)} |"
            for each in options()
            if each.section == section
        ]
        parts.append("\n".join([f"### {title}", "", "| setting | value | default | what it does |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _purpose(section: str) -> str:
    """The first sentence of a section's docstring."""
    return " ".join(re.split(r"\.(?:\s|$)", SECTIONS[section].__doc__ or "")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "\\<")


def shown(value: Any) -> str:
    """A value for a reader; "none" where nothing is set."""
    if value is None or value == "" or (isinstance(value, tuple | Mapping) and not value):
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def table() -> list[tuple[Option, dict[str, Any]]]:
    """Each setting that any preset sets, with its value in every preset that has a use for it; `None` where it has none set."""
    return [
        (option, {name: _value(option, each) for name, each in PRESETS.items() if _uses(each, option)})
        for option in options()
        if any(option.name in preset.values.get(option.section, {}) for preset in PRESETS.values())
    ]


def _uses(preset: Preset, option: Option) -> bool:
    adapts = preset.kind == "both" or option.path == "adapter.kind" or "adapter" in preset.values
    return option.is_for(preset.kind) and (adapts or option.section != "adapter")


def _value(option: Option, preset: Preset) -> Any:
    own = preset.values.get(option.section, {})
    # Without a `[mix]`, the corpus's own is taken.
    return own.get(option.name, None if option.section == "mix" and not own else option.default)


def preset_of(name: str) -> Preset:
    """Raises `UnknownNameError`."""
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]


def recipe_toml(name: str) -> str:
    """A recipe to start from: all that its preset is about, and, empty, what must be filled in. Raises `UnknownNameError`."""
    preset = preset_of(name)
    kinds = ("pretrain", "finetune") if preset.kind == "both" else (preset.kind,)
    wanted = {option.path: values[name] for option, values in table() if values.get(name) not in (None, ())}
    lines = [*_comment(f"{name}: {preset.summary}."), "# Fill in what is empty; then, where this is recipe.toml:"]
    lines += [f"# mmed-train plan recipe.toml; mmed-train {' or '.join(kinds)} recipe.toml", ""]
    lines += [f"preset = {_toml(name)}", 'output = ""  # a new folder']
    blanks = {"model.path": '""'}
    if preset.kind == "pretrain":
        blanks["data.corpus"] = '""'
    section = ""
    for option in options():
        line = None
        if option.path in wanted:
            why = preset.reasons.get(option.path)
            line = f"{option.name} = {_toml(wanted[option.path])}{f'  # {why}' if why else ''}"
        elif option.path in blanks:
            line = f"{option.name} = {blanks[option.path]}  # {option.help}"
        elif preset.kind == "both" and option.path in CHOICES:
            line = f"# {option.name} = {CHOICES[option.path]}  # {option.help}"
        if line is not None and option.section:
            lines += [] if option.section == section else ["", f"[{option.section}]"]
            section = option.section
            lines.append(line)
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 98)]


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # Strings and numbers are written as in JSON.
    return json.dumps(value, ensure_ascii=False)
