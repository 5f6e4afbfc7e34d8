"""A file has its name only when it is whole, and two writers of the same file do not meet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmed_train.corpus.whole import beside, new_file, sweep


def test_a_file_appears_when_all_of_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flush, seen = tmp_path / "deep" / "x", os.fsync, []

    def fsync(file: int) -> None:
        seen.append(path.exists())
        flush(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with new_file(path) as file:
        file.write(b"whole")
    assert seen == [False]
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_nothing_and_the_old_file_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def write() -> None:
        with new_file(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        write()
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("x", b"old")]


def test_two_writers_of_a_file_each_finish_theirs(tmp_path: Path) -> None:
    with new_file(tmp_path / "x") as one, new_file(tmp_path / "x") as other:
        one.write(b"first half, ")
        other.write(b"all of it")
        one.write(b"second half")
    assert (tmp_path / "x").read_bytes() == b"first half, second half"
    assert len([*tmp_path.iterdir()]) == 1


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for path in (tmp_path / "x", tmp_path / "deep" / "y"):
        path.write_bytes(b"")
        beside(path).write_bytes(b"half")
    (tmp_path / "my.part").write_bytes(b"")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "my.part", "x", "y"]
