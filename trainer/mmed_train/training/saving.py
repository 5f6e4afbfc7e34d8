"""Checkpoints that are whole: written beside, synced, marked, renamed; what has no mark, or lacks a file, is none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mmedeval import StoreError

MARK: Final = "complete.json"
PREFIX: Final = "checkpoint-"
BESIDE: Final = ".saving"
# What only the training itself needs again.
STATE: Final = ("optimizer.pt", "scheduler.pt", "scaler.pt", "trainer_state.json", "progress.json", MARK)
STATE_PATTERNS: Final = ("rng_state*.pth", "optimizer_*", "pytorch_model_fsdp_*")


@dataclass(frozen=True, kw_only=True, order=True)
class Saved:
    """A whole checkpoint."""

    step: int
    path: Path


def finish(beside: Path, path: Path, *, step: int) -> None:
    """Marks what was written beside as whole and gives it its name. Raises `StoreError` where the disk refuses."""
    with told(path):
        files = sorted(file for file in beside.rglob("*") if file.is_file())
        sizes = {str(file.relative_to(beside)): file.stat().st_size for file in files}
        for file in files:
            _sync(file)
        mark = beside / MARK
        mark.write_text(json.dumps({"step": step, "files": sizes}, indent=1), encoding="utf-8")
        _sync(mark)
        _sync(beside)
        if path.exists():
            # Only what lacks its mark may be in the way: whole ones are never written twice.
            shutil.rmtree(path)
        beside.rename(path)
        _sync(path.parent)


def find_saved(folder: Path) -> tuple[list[Saved], list[str]]:
    """The whole checkpoints in a folder, oldest first, and a sentence for each that is not whole."""
    saved, warnings = [], []
    for path in folder.glob(f"{PREFIX}*"):
        if not path.name.removeprefix(PREFIX).isdigit():
            continue
        why = what_lacks(path)
        if why:
            warnings.append(f"{path} is passed over: {why}")
        else:
            saved.append(Saved(step=int(path.name.removeprefix(PREFIX)), path=path))
    return sorted(saved), sorted(warnings)


def what_lacks(path: Path) -> str:
    """Why a folder is no whole checkpoint; "" for one that is."""
    try:
        sizes: Mapping[str, int] = json.loads((path / MARK).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"it has no {MARK}, so its saving was cut off"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {MARK} cannot be read ({error})"
    for name, size in sizes.items():
        file = path / name
        if not file.is_file():
            return f"{name} is not there"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes, {size} were written"
    return ""


def rotate(folder: Path, keep: int) -> None:
    """Removes all but the last `keep` checkpoints, the mark first, so that none is ever taken for whole while it goes."""
    saved, _ = find_saved(folder)
    for old in saved[:-keep]:
        (old.path / MARK).unlink()
        shutil.rmtree(old.path)


def publish(checkpoint: Path, target: Path) -> None:
    """A model's folder out of a checkpoint: all of it but what only the training needs; files are linked where the disk can."""
    beside = target.with_name(f".{target.name}{BESIDE}")
    with told(target):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for file in sorted(checkpoint.rglob("*")):
            name = file.relative_to(checkpoint)
            if file.is_dir() or name.parts[0] in STATE or any(Path(name.parts[0]).match(each) for each in STATE_PATTERNS):
                continue
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, beside / name)
            except OSError:
                shutil.copyfile(file, beside / name)
        if target.exists():
            shutil.rmtree(target)
        beside.rename(target)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into one sentence."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; the last whole checkpoint is untouched: free some space, then go "
            "on with --resume"
        ) from error


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        # Some file systems cannot sync a folder.
        with suppress(OSError) if path.is_dir() else _strict():
            os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _strict() -> Iterator[None]:
    yield
