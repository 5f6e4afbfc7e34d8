"""What is on disk about a model: its recipe, data, log, the training's own evaluations, and runs of the harness."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmedeval import Aggregate, DataError, StoreError, UsageError
from mmedeval.model_files import ModelFolder
from mmedeval.store import read_record, record_from_json

RECIPE, DATA, PROGRESS, MERGE, LOG, PICTURE = "recipe.json", "data.json", "progress.json", "merge.json", "log.jsonl", "loss.png"
# Folders of a training's output that hold a model, and say less about it than the output's own name.
MODELS = ("final", "best", "checkpoint-")
# What stands in the card that peft writes with every adapter; it tells nothing but where the base lay.
BLANK_CARD = "[More Information Needed]"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far logits lie apart: at most `largest`; at `flipped` of `places` the likeliest next token is another one."""

    largest: float
    flipped: int
    places: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a card tells of a run. `digests` says by task what was asked; a figure without one is an average."""

    model: str
    fingerprint: str
    protocol: str
    shots: int
    tasks: tuple[str, ...]
    accuracies: tuple[Aggregate, ...]
    digests: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a model. What is not recorded is empty, and `step` and `picture` are `None`.

    `base` is the base's name on the hub. `log` ends at `step`; so do `looks`, the first and the last evaluation of the training
    itself by step. `runs` are those that were asked for.
    """

    name: str
    folder: ModelFolder
    recipe: Mapping[str, Any]
    data: Mapping[str, Any]
    merge: Mapping[str, Any]
    base: str
    step: int | None
    log: Sequence[Mapping[str, Any]]
    looks: Sequence[tuple[int, Run]]
    runs: Sequence[Run]
    picture: Path | None

    @property
    def kind(self) -> str:
        return str(self.recipe.get("kind", ""))

    def settings(self, table: str) -> Mapping[str, Any]:
        """A table of the recipe."""
        return _mapping(self.folder.path / RECIPE, self.recipe, table)

    def told(self, table: str) -> Mapping[str, Any]:
        """A table of what the training says about its data."""
        return _mapping(self.folder.path / DATA, self.data, table)

    def counts(self, table: str) -> dict[str, int]:
        """The same, where it holds whole numbers."""
        return {name: whole(self.folder.path / DATA, self.told(table), name) for name in self.told(table)}


def gather(folder: ModelFolder, training: Path | None, runs: Sequence[Path]) -> Facts:
    """Reads all that is there. `training` is the output of the training (default: the folder around, if it is that).

    Raises `UsageError` for a `training` of another model, `DataError` and `StoreError` for what is damaged.
    """
    recipe, data, merge = (folder.json(name) for name in (RECIPE, DATA, MERGE))
    around = _find_training(folder, training)
    step = _find_step(folder, around)
    path = folder.path.resolve()
    return Facts(
        name=path.parent.name if around is not None and path.name.startswith(MODELS) else path.name,
        folder=folder,
        recipe=recipe,
        data=data,
        merge=merge,
        base=_base_name(folder, recipe),
        step=step,
        log=[] if around is None else _read_log(around / LOG, step),
        looks=[] if around is None else _looks(around, step),
        runs=[read_run(run) for run in runs],
        picture=around / PICTURE if around is not None and (around / PICTURE).is_file() else None,
    )


def _find_training(folder: ModelFolder, told: Path | None) -> Path | None:
    around = folder.path.resolve().parent if told is None else told
    if not (around / LOG).is_file():
        if told is not None:
            raise UsageError(f"{told} holds no {LOG}; name the output folder of the training")
        return None
    own = folder.json(RECIPE), folder.json(DATA)
    models = [ModelFolder(path=each) for each in sorted(around.iterdir()) if each.name.startswith(MODELS) and each.is_dir()]
    if all(own) and any((each.json(RECIPE), each.json(DATA)) == own for each in models):
        return around
    if told is not None:
        raise UsageError(
            f"{told} is another training than that of {folder.path}: none of its models has the same {RECIPE} and {DATA}"
        )
    return None


def _find_step(folder: ModelFolder, training: Path | None) -> int | None:
    """After which step of its training the model was saved; `None` where nothing says so."""
    if folder.json(PROGRESS):
        return whole(folder.path / PROGRESS, folder.json(PROGRESS), "step")
    path = folder.path.resolve()
    if training is None or path.parent != training.resolve():
        return None
    checkpoints = [ModelFolder(path=each) for each in sorted(training.glob("checkpoint-*")) if (each / PROGRESS).is_file()]
    saved = {whole(each.path / PROGRESS, each.json(PROGRESS), "step"): each for each in checkpoints}
    if not saved:
        return None
    if path.name == "final":
        return max(saved)
    last = saved[max(saved)]
    file = last.path / PROGRESS
    return whole(file, _mapping(file, last.json(PROGRESS), "best"), "step") if path.name == "best" else None


def _read_log(file: Path, step: int | None) -> list[Mapping[str, Any]]:
    """The numbers of each line up to a step. What is being written, a last line without its end, is passed over."""
    found: list[Mapping[str, Any]] = []
    for place, line in enumerate(file.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            values = json.loads(line)
            numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
            if step is None or numbers["step"] <= step:
                found.append(numbers)
        except (ValueError, KeyError, AttributeError) as error:
            raise DataError.at(file, place, f"no line of a training's log ({error}); restore the file") from error
    return found


def _looks(training: Path, step: int | None) -> list[tuple[int, Run]]:
    found = {}
    for path in (training / "eval").glob("step-*"):
        place = path.name.removeprefix("step-")
        # What was cut off has no record.
        if place.isascii() and place.isdigit() and (path / "record.json").is_file() and (step is None or int(place) <= step):
            found[int(place)] = path
    return [(place, read_run(found[place])) for place in sorted({min(found), max(found)})] if found else []


def read_run(path: Path) -> Run:
    """A finished run. Raises `StoreError` for a folder that holds none, and for a damaged one."""
    record = record_from_json(read_record(path))
    data = record.data
    try:
        accuracies = tuple(each for each in record.aggregates if each.metric == "accuracy")
        for each in accuracies:
            for value in (each.value, each.low, each.high, each.chance, each.n, each.unread, each.failed):
                if not isinstance(value, int | float | None):
                    raise TypeError(f"{value!r} is no number")
        return Run(
            model=str(data["model"]["reference"]),
            fingerprint=str(data["model"]["fingerprint"]),
            protocol=str(data["protocol"]["used"]),
            shots=int(data["plan"]["shots"]),
            tasks=tuple(map(str, data["plan"]["tasks"])),
            accuracies=accuracies,
            digests={str(name): str(about["data_digest"]) for name, about in data["tasks"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"the record in {path} is damaged ({error}); restore it, or run again with another --out") from error


def _base_name(folder: ModelFolder, recipe: Mapping[str, Any]) -> str:
    """The base's name on the hub, or "" where it was a folder, or nothing tells."""
    name = folder.json("adapter_config.json").get("base_model_name_or_path") if folder.is_adapter else None
    if name is None:
        name = _mapping(folder.path / RECIPE, recipe, "model").get("path")
    if not isinstance(name, str) or not HUB_NAME.fullmatch(name):
        return ""
    # A recipe's paths begin where it lies, which is somewhere above what it made.
    return "" if any((place / name).is_dir() for place in (Path(), *folder.path.resolve().parents)) else name


def _mapping(file: Path, values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name) or {}
    if not isinstance(value, Mapping):
        raise DataError(f"{file}: {name} is no table; restore the file")
    return value


def whole(file: Path, values: Mapping[str, Any], name: str) -> int:
    """A whole number of a JSON file. Raises `DataError` for what is none."""
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{file}: {name} = {value!r} is no whole number; restore the file")
    return value


def merge_difference(facts: Facts) -> Difference:
    """How a merged model, read back from disk, differs from its adapter on its base."""
    file = facts.folder.path / MERGE
    stored = _mapping(file, facts.merge, "stored")
    largest = stored.get("largest")
    if not isinstance(largest, int | float):
        raise DataError(f"{file}: largest = {largest!r} is no number; restore the file")
    return Difference(largest=largest, flipped=whole(file, stored, "flipped"), places=whole(file, stored, "places"))
