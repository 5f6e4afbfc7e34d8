"""Files that have their names only when they are whole and on disk, whoever else writes them at the same time."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PART = ".part"


def beside(path: Path) -> Path:
    """A new name in the same folder: on a cluster two nodes may do the same task, each in a file of its own until it is whole."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{PART}")


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears, or replaces another, in one step when the block ends, and not where it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = beside(path)
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sweep(folder: Path) -> None:
    """Removes what writers that were killed left in a folder and those within."""
    for part in folder.rglob(f".*{PART}"):
        part.unlink(missing_ok=True)
