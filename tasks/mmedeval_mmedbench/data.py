"""Where MMedBench comes from: a folder, its zip (read in place, never unpacked), the hub, or the embedded set."""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from mmedeval import DataError, MissingPackageError

VARIABLE = "MMEDBENCH_DIR"
ARCHIVE = "MMedBench.zip"
HUB_DATASET = "Henrychur/MMedBench"
HUB_REVISION = "d817c67d0bca216e63ea784fcf8a642c57bc372b"
FOLDERS = {"train": "Train", "test": "Test"}

# The published archive holds some 100 MB in 12 files; what claims, or turns out, to be far larger is no MMedBench.
MAX_MEMBER_BYTES = 512 * 2**20

# All that the standard library raises for a damaged or encrypted archive.
UNREADABLE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)

WHAT_TO_DO = (
    f"give the folder that holds Train/ and Test/, or {ARCHIVE}, with --data-dir or {VARIABLE}; "
    "the tasks mmedbench_mini_* need no data"
)


class Source(Protocol):
    """One place that has the files. `label` says in words what it is, without a path."""

    @property
    def label(self) -> str: ...

    def read(self, split: str, language: str) -> tuple[str, bytes]:
        """The name to use in messages, and the content, of the file of a split and language (English name)."""


@dataclass(frozen=True)
class FolderSource:
    path: Path
    label: str = "local folder"

    def read(self, split: str, language: str) -> tuple[str, bytes]:
        file = self.path / FOLDERS[split] / f"{language}.jsonl"
        try:
            return str(file), file.read_bytes()
        except FileNotFoundError as error:
            there = sorted(entry.stem for entry in file.parent.glob("*.jsonl"))
            raise DataError(
                f"{file} does not exist: the data have no {FOLDERS[split]} split in {language} "
                f"(there: {', '.join(there) or 'nothing'}); add the file, or choose other --languages"
            ) from error
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class ZipSource:
    """The published archive. Members are read in memory by their exact names, so none can write anywhere."""

    path: Path
    label: str = "local zip"

    def read(self, split: str, language: str) -> tuple[str, bytes]:
        wanted = (FOLDERS[split], f"{language}.jsonl")
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = [
                    info
                    for info in archive.infolist()
                    # One folder around Train/ and Test/ is allowed; anything else is another file of the same name.
                    if PurePosixPath(info.filename).parts[-2:] == wanted and len(PurePosixPath(info.filename).parts) <= 3
                    if ".." not in PurePosixPath(info.filename).parts and not info.filename.startswith("/")
                    if not info.filename.startswith("__MACOSX/")
                ]
                if len(members) != 1:
                    raise DataError(
                        f"{self.path} holds {len(members)} files {'/'.join(wanted)}, one was expected; fetch {ARCHIVE} again, or "
                        "choose other --languages"
                    )
                name = f"{self.path}!{members[0].filename}"
                with archive.open(members[0]) as member:
                    content = member.read(MAX_MEMBER_BYTES + 1)
        except UNREADABLE as error:
            raise DataError(f"{self.path} is no readable zip archive ({error}); fetch {ARCHIVE} again") from error
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error}") from error
        if len(content) > MAX_MEMBER_BYTES:
            raise DataError(f"{name} unpacks to more than {MAX_MEMBER_BYTES // 2**20} MiB; this is not MMedBench")
        return name, content


def embedded() -> Source:
    """The set that is shipped with the package."""
    return FolderSource(Path(__file__).parent / "mini", label="embedded")


def find_source(data_dir: Path | None) -> Source:
    """The data that the user named, else those of the hub. Raises `DataError`, with what to do, where there are none."""
    named = data_dir or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    return _local(named.expanduser()) if named is not None else _hub()


def locate(data_dir: Path | None) -> str:
    """One line for `mmedeval doctor`: where the data would be read from. Fetches nothing."""
    named = data_dir or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is None:
        return f"not given; would be fetched from the hub ({HUB_DATASET})"
    source = _local(named.expanduser())
    return f"{source.label}: {named}"


def _local(path: Path) -> Source:
    if path.is_file():
        return ZipSource(path)
    if not path.exists():
        raise DataError(f"the data folder {path} does not exist; {WHAT_TO_DO}")
    if (path / "Test").is_dir() or (path / "Train").is_dir():
        return FolderSource(path)
    if (path / ARCHIVE).is_file():
        return ZipSource(path / ARCHIVE)
    raise DataError(f"{path} holds neither Test/ nor {ARCHIVE}; {WHAT_TO_DO}")


def _hub() -> Source:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # the HTTP client's own, whichever it is
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise MissingPackageError("fetching MMedBench from the hub", ["huggingface_hub"], "hub") from error
    try:
        path = hf_hub_download(HUB_DATASET, ARCHIVE, repo_type="dataset", revision=HUB_REVISION)
    except (OSError, HTTPError) as error:
        raise DataError(f"MMedBench is not here and could not be fetched from the hub ({HUB_DATASET}); {WHAT_TO_DO}") from error
    return ZipSource(Path(path), label=f"hub: {HUB_DATASET} at {HUB_REVISION[:12]}")
