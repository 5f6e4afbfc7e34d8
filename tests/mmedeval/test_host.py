"""Plugins of strangers, good and bad, as a user meets them: real distributions on the path, real commands."""

import os
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from mmedeval import PluginError, hookimpl
from mmedeval.catalog import Catalog
from mmedeval.host import make_host

COMMAND = Path(sysconfig.get_path("scripts")) / "mmedeval"

GOOD = """
from mmedeval import TaskSpec, hookimpl

@hookimpl
def mmedeval_tasks():
    return [TaskSpec(name="NAME_quiz", summary="a quiz by a stranger", language="en", load=None)]
"""


def install(
    site: Path, name: str, source: str, *, version: str = "1.0", module: str | None = None, target: str | None = None
) -> None:
    """What pip leaves of the distribution `fake-NAME`: a module, and metadata with an entry point."""
    module = module or f"fake_{name}"
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(source.replace("NAME", name), encoding="utf-8")
    info = site / f"fake_{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fake-{module}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[mmedeval]\n{name} = {target or module}\n", encoding="utf-8")


def mmedeval(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command in a folder, with what is installed in its `site`."""
    path = os.pathsep.join(str(folder / part) for part in ("site", "second"))
    settings = {**os.environ, "MMEDEVAL_BLOCK": "", "COLUMNS": "300", **(env or {}), "PYTHONPATH": path}
    return subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=settings, capture_output=True, encoding="utf-8", timeout=60, check=False
    )


def words(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


BASELINE = ("run", "-q", "--model", "baseline:first", "--tasks", "mmedbench_mini_en", "--limit", "2")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_package_anywhere", "ModuleNotFoundError: No module named 'no_such_package_anywhere'"),
        ("def broken(:", "SyntaxError: "),
        ("from mmedeval import NoSuchName", "ImportError: "),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('this needs a newer Python')", "SystemExit: this needs a newer Python"),
    ],
    ids=["missing package", "syntax", "missing name", "exception", "exit"],
)
def test_a_plugin_that_fails_to_import_is_named_and_everything_else_goes_on(tmp_path: Path, source: str, error: str) -> None:
    install(tmp_path / "site", "broken", source, version="2.7")
    install(tmp_path / "site", "sound", GOOD)
    help_text = mmedeval(tmp_path, "--help")
    assert (help_text.returncode, help_text.stderr) == (0, "")
    listed = mmedeval(tmp_path, "list", "plugins")
    assert listed.returncode == 0, listed.stderr
    assert f"plugin 'broken' (fake-fake-broken 2.7) failed to import: {error}" in words(listed.stdout)
    assert "set MMEDEVAL_BLOCK=broken" in words(listed.stdout)
    assert "sound_quiz" in mmedeval(tmp_path, "list", "tasks").stdout
    run = mmedeval(tmp_path, *BASELINE)
    assert run.returncode == 0, run.stderr
    blocked = mmedeval(tmp_path, "list", "plugins", env={"MMEDEVAL_BLOCK": "broken"})
    assert "broken" not in blocked.stdout
    assert "sound" in blocked.stdout


def test_an_unknown_name_may_be_that_of_a_plugin_that_failed_and_the_error_says_so(tmp_path: Path) -> None:
    install(tmp_path / "site", "broken", "raise ImportError('no driver')")
    run = mmedeval(tmp_path, "run", "-q", "--model", "broken:model", "--tasks", "mmedbench_mini_en")
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: unknown backend 'broken'; ")
    assert "plugin 'broken' (fake-fake-broken 1.0) failed to import: ImportError: no driver" in line


def test_an_entry_point_to_something_that_is_not_there_is_a_failed_import(tmp_path: Path) -> None:
    install(tmp_path / "site", "nowhere", GOOD, target="fake_nowhere:plugin")
    listed = mmedeval(tmp_path, "list", "plugins")
    assert listed.returncode == 0
    assert "plugin 'nowhere' (fake-fake-nowhere 1.0) failed to import: AttributeError: " in words(listed.stdout)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import mmedeval\n@mmedeval.hookimpl\ndef mmedeval_scores(): ...",
            "plugin 'wrong' (fake-fake-wrong 1.0) implements the hook 'mmedeval_scores', which does not exist; ",
        ),
        (
            "import mmedeval\n@mmedeval.hookimpl\ndef mmedeval_tasks(options): ...",
            "plugin 'wrong' (fake-fake-wrong 1.0) does not fit its hooks: ",
        ),
    ],
    ids=["unknown hook", "unknown argument"],
)
def test_a_plugin_that_breaks_the_rules_ends_the_command_with_the_way_out(tmp_path: Path, source: str, message: str) -> None:
    install(tmp_path / "site", "wrong", source)
    listed = mmedeval(tmp_path, "list")
    assert (listed.returncode, listed.stdout) == (2, "")
    (line,) = listed.stderr.splitlines()
    assert line.startswith(f"error: {message}")
    assert "set MMEDEVAL_BLOCK=wrong" in line
    assert mmedeval(tmp_path, "--help").returncode == 0
    blocked = mmedeval(tmp_path, "list", env={"MMEDEVAL_BLOCK": "other, wrong"})
    assert blocked.returncode == 0, blocked.stderr


def test_an_object_can_be_a_plugin_and_its_unknown_hook_is_found_too(tmp_path: Path) -> None:
    source = (
        "import mmedeval\nclass Plugin:\n    @mmedeval.hookimpl\n    def {hook}(self):\n        return []\nplugin = Plugin()\n"
    )
    install(tmp_path / "site", "object", source.format(hook="mmedeval_tasks"), target="fake_object:plugin")
    assert "fake-fake-object 1.0" in mmedeval(tmp_path, "list", "plugins").stdout
    install(tmp_path / "second", "wrong", source.format(hook="mmedeval_quiz"), target="fake_wrong:plugin")
    listed = mmedeval(tmp_path, "list")
    assert listed.returncode == 2
    (line,) = listed.stderr.splitlines()
    assert "plugin 'wrong' (fake-fake-wrong 1.0)" in line
    assert "mmedeval_quiz" in line
    assert "MMEDEVAL_BLOCK=wrong" in line


@pytest.mark.parametrize("taken", ["twin", "mmedbench", "core"])
def test_a_plugin_that_repeats_a_name_is_named_with_its_distribution(tmp_path: Path, taken: str) -> None:
    install(tmp_path / "site", "twin", GOOD, module="fake_first")
    install(tmp_path / "site", taken, GOOD.replace("NAME", "other"), module="fake_second", version="3.1")
    listed = mmedeval(tmp_path, "list")
    assert listed.returncode == 2
    (line,) = listed.stderr.splitlines()
    assert f"plugin {taken!r} (" in line
    assert "has the name of a plugin that is there already" in line
    assert f"MMEDEVAL_BLOCK={taken}" in line
    assert "uninstall one of them" in line


def test_a_distribution_that_is_on_the_path_twice_is_one_plugin(tmp_path: Path) -> None:
    install(tmp_path / "site", "sound", GOOD, version="1.0")
    install(tmp_path / "second", "sound", GOOD, version="0.9")
    listed = mmedeval(tmp_path, "list", "plugins")
    assert listed.returncode == 0, listed.stderr
    assert "fake-fake-sound 1.0" in listed.stdout
    assert "0.9" not in listed.stdout


def test_blocked_plugins_are_left_out_with_all_that_they_offer(tmp_path: Path) -> None:
    install(tmp_path / "site", "sound", GOOD)
    everything = mmedeval(tmp_path, "list")
    assert "sound_quiz" in everything.stdout
    assert "hf:" in everything.stdout
    less = mmedeval(tmp_path, "list", env={"MMEDEVAL_BLOCK": " sound ,hf,, mmedbench"})
    assert less.returncode == 0, less.stderr
    assert not any(name in less.stdout for name in ("sound", "hf:", "mmedbench"))
    assert "baseline:" in less.stdout


def test_a_blocked_plugin_is_not_even_imported(tmp_path: Path) -> None:
    install(tmp_path / "site", "loud", "print('imported')")
    assert "imported" in mmedeval(tmp_path, "list").stdout
    assert "imported" not in mmedeval(tmp_path, "list", env={"MMEDEVAL_BLOCK": "loud"}).stdout


def test_help_and_version_import_no_plugin(tmp_path: Path) -> None:
    install(tmp_path / "site", "loud", "print('imported')")
    for arguments in (["--help"], ["run", "--help"], ["--version"]):
        answer = mmedeval(tmp_path, *arguments)
        assert answer.returncode == 0
        assert "imported" not in answer.stdout


def test_blocking_by_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEDEVAL_BLOCK", "mmedbench")
    assert "mmedbench" not in {info.name for info in make_host().plugins}
    assert {"mmedbench", "hf"} <= {info.name for info in make_host(block=[]).plugins}
    assert "hf" not in {info.name for info in make_host(block=["hf"]).plugins}


def test_two_hosts_know_nothing_of_each_other() -> None:
    class Listener:
        heard = 0

        @hookimpl
        def mmedeval_run_started(self) -> None:
            self.heard += 1

    first, second = Listener(), Listener()
    hosts = [make_host(block=[], extra=[listener]) for listener in (first, second)]
    hosts[0].hook.mmedeval_run_started(plan=None, total=0)
    assert (first.heard, second.heard) == (1, 0)
    assert hosts[0].manager is not hosts[1].manager


def test_an_object_given_to_the_host_must_keep_the_rules_too() -> None:
    class Wrong:
        @hookimpl
        def mmedeval_no_such_hook(self) -> None: ...

    with pytest.raises(PluginError, match="mmedeval_no_such_hook"):
        Catalog(make_host(block=[], extra=[Wrong()]))
