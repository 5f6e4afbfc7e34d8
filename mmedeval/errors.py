"""The errors that reach a user, each as one sentence with its exit code.

MmedevalError                  exit code 1
├── UsageError                 2   a wrong call: unknown name, impossible combination
│   ├── UnknownNameError       2   with the nearest names
│   └── MissingPackageError    2   with the pip line that brings it
├── DataError                  2   data that cannot be used, with file and line
├── ModelError                 2   a model that cannot be loaded, or cannot do what was asked
├── StoreError                 2   a run folder that cannot be read or written
├── PluginError                2   a plugin that fails to load, or breaks the rules
└── BackendError               1   a backend that stopped in the middle of a run
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


class MmedevalError(Exception):
    """Base of all errors that a user should read as one sentence."""

    exit_code = 1


class UsageError(MmedevalError):
    exit_code = 2


class UnknownNameError(UsageError):
    """A name that nothing on offer has."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        import difflib  # only an error needs it

        names = sorted(known)
        self.near: Sequence[str] = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
        if self.near:
            next_step = f"did you mean {' or '.join(self.near)}?"
        elif names:
            next_step = f"known: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
        else:
            next_step = f"there is no {kind} at all"
        super().__init__(f"unknown {kind} {name!r}; {next_step}{f' {hint}' if hint else ''}")


class MissingPackageError(UsageError):
    def __init__(self, what: str, packages: Sequence[str], extra: str | None) -> None:
        line = f"pip install 'mmedeval[{extra}]'" if extra else f"pip install {' '.join(packages)}"
        super().__init__(f"{what} needs {', '.join(packages)}, not installed here; run: {line}")


class DataError(MmedevalError):
    exit_code = 2

    @classmethod
    def at(cls, path: Path | str, line: int, message: str) -> DataError:
        """The error for one line of a file."""
        return cls(f"{path}:{line}: {message}")


class ModelError(MmedevalError):
    exit_code = 2


class StoreError(MmedevalError):
    exit_code = 2


class PluginError(MmedevalError):
    exit_code = 2


class BackendError(MmedevalError):
    exit_code = 1
