"""What a record tells about the machine: enough to repeat a run, and nothing of its user."""

import json
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from mmedeval.environment import PACKAGES, environment, git_commit, package_version


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "file").write_text("1")
    git(folder, "add", "file")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_the_commit_is_that_of_the_folder_and_dirty_only_with_changes_to_tracked_files(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (checkout / "notes").write_text("untracked")
    assert git_commit(checkout) == commit
    (checkout / "file").write_text("2")
    assert git_commit(checkout) == f"{commit}+dirty"
    (checkout / "inner").mkdir()
    assert git_commit(checkout / "inner") == f"{commit}+dirty"


def test_the_commit_is_that_of_the_working_directory_unless_told_otherwise(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    assert git_commit() == environment()["git_commit"] == git(checkout, "rev-parse", "HEAD")


def test_without_a_checkout_without_a_commit_or_without_git_there_is_no_commit(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert git_commit(tmp_path) is None
    assert git_commit(tmp_path / "nowhere") is None
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    assert git_commit(empty) is None
    monkeypatch.setenv("PATH", "")
    assert git_commit(checkout) is None


def test_the_environment_is_json_with_the_versions_that_are_installed() -> None:
    told = json.loads(json.dumps(environment()))
    assert told["python"] == platform.python_version()
    assert told["packages"]["click"] == metadata.version("click")
    assert set(told["packages"]) <= set(PACKAGES)
    assert told["cores"] >= 1
    assert told["memory_gib"] is None or told["memory_gib"] > 0
    assert isinstance(told["cpu"], str)
    assert told["cpu"]


def test_the_environment_tells_nothing_of_the_users_variables_or_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    monkeypatch.setenv("HOME", str(tmp_path / "home-of-somebody"))
    monkeypatch.setenv("USER", "somebody-secret")
    monkeypatch.chdir(tmp_path)
    told = json.dumps(environment())
    assert "secret" not in told
    assert "home-of-somebody" not in told
    assert str(tmp_path) not in told


def test_versions_are_found_without_importing_what_they_belong_to() -> None:
    code = (
        "import sys; from mmedeval.environment import PACKAGES, environment; "
        "print(environment()['packages']); print(sorted(set(PACKAGES) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages, imported = done.stdout.splitlines()
    assert "pluggy" in packages
    assert imported in ("['pluggy']", "[]")


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert package_version("no-such-package-anywhere") is None
    assert package_version("pytest") == pytest.__version__
