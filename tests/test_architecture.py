"""Who may import whom, held over the syntax trees; and how little is imported before something is used."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mmedeval

ROOT = Path(__file__).parents[1]
CORE = ROOT / "mmedeval"
OUTSIDERS = sorted(
    package.parent for folder in ("plugins", "tasks", "trainer") for package in (ROOT / folder).glob("*/__init__.py")
)  # every first-party package outside of the core
PUBLIC_MODULES = {"mmedeval"} | {
    f"mmedeval.{name}" for name in ("batches", "model_files", "prompts", "remote", "servers", "testing", "text", "tokens")
}
# The trainer is a program, too: it asks the host for tasks, evaluates what it trains, and prints tables.
HOST_MODULES = {f"mmedeval.{name}" for name in ("catalog", "cli", "console", "host", "runner", "store")}
# The one plugin that another package builds on: the trainer's model in memory is asked as `hf:` asks one.
BUILT_ON = {("mmed_train", "mmedeval_hf")}
# What these modules serve plugins with needs packages that those plugins bring; imported when used.
SERVICES = {("mmedeval.model_files", "huggingface_hub")}
HEAVY = {
    "torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy", "scipy", "huggingface_hub", "rich",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported module, as in `mmedeval.types`; `name` is what was taken out of it, if it is not a module itself."""

    module: str
    name: str | None
    line: int
    only_for_types: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imports_of(file: Path) -> list[Import]:
    """Every import of a file, wherever it stands, also inside a function."""
    return list(_imports(ast.parse(file.read_text(encoding="utf-8")), only_for_types=False))


def _imports(node: ast.AST, *, only_for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, None, child.lineno, only_for_types)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: relative imports hide who imports whom"
            assert child.module is not None
            for alias in child.names:
                dotted = f"{child.module}.{alias.name}"
                module, name = (dotted, None) if is_module(dotted) else (child.module, alias.name)
                yield Import(module, name, child.lineno, only_for_types)
        elif isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for part in child.body:
                yield from _imports(ast.Module([part], []), only_for_types=True)
            for part in child.orelse:
                yield from _imports(ast.Module([part], []), only_for_types=only_for_types)
        else:
            yield from _imports(child, only_for_types=only_for_types)


def modules(package: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of a package."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


CORE_MODULES = modules(CORE)


def told(offences: list[str]) -> str:
    return "\n".join(["", *offences])


def test_the_reader_of_imports_sees_all_kinds_of_them(tmp_path: Path) -> None:
    """Else the rules below would hold of anything."""
    source = """
import os, json.decoder
from typing import TYPE_CHECKING
from mmedeval import builtin, Sample
if TYPE_CHECKING:
    import torch
else:
    import rich.table
def late():
    with open("x") as x:
        from mmedeval.cli import run
class Some:
    import click as c
"""
    (tmp_path / "module.py").write_text(source)
    found = [(each.module, each.name, each.only_for_types) for each in imports_of(tmp_path / "module.py")]
    assert found == [
        ("os", None, False),
        ("json.decoder", None, False),
        ("typing", "TYPE_CHECKING", False),
        ("mmedeval.builtin", None, False),
        ("mmedeval", "Sample", False),
        ("torch", None, True),
        ("rich.table", None, False),
        ("mmedeval.cli.run", None, False),
        ("click", None, False),
    ]
    assert len(CORE_MODULES) > 15
    assert {"mmedeval_hf", "mmedeval_mmedbench"} <= {package.name for package in OUTSIDERS}


@pytest.mark.parametrize("name", ["types", "specs", "errors", "hookspecs"])
def test_the_ground_floor_imports_nothing_of_ours(name: str) -> None:
    ours = [each for each in imports_of(CORE / f"{name}.py") if each.package == "mmedeval" and not each.only_for_types]
    assert ours == []


def test_types_specs_and_errors_import_the_standard_library_alone() -> None:
    for name in ("types", "specs", "errors"):
        packages = {each.package for each in imports_of(CORE / f"{name}.py") if not each.only_for_types}
        assert packages <= sys.stdlib_module_names


def test_the_runner_and_all_that_it_uses_know_neither_click_nor_rich() -> None:
    todo, seen = ["mmedeval.runner"], set()
    while todo:
        name = todo.pop()
        if name in seen or name not in CORE_MODULES:
            continue
        seen.add(name)
        for each in imports_of(CORE_MODULES[name]):
            assert each.package not in ("click", "rich"), f"{name}:{each.line}"
            todo.append(each.module)
    assert {"mmedeval.runner", "mmedeval.store", "mmedeval.catalog", "mmedeval.host", "mmedeval.builtin"} <= seen


def test_nobody_imports_the_command_line() -> None:
    files = [*CORE_MODULES.values(), *(file for package in OUTSIDERS for file in modules(package).values())]
    offences = [
        f"{file.relative_to(ROOT)}:{each.line} imports {each.module}"
        for file in files
        if file.parent.name != "cli"
        for each in imports_of(file)
        if each.module == "mmedeval.cli" or each.module.startswith("mmedeval.cli.")
    ]
    assert not offences, told(offences)


def test_only_the_console_imports_rich() -> None:
    files = [*CORE_MODULES.values(), *(file for package in OUTSIDERS for file in modules(package).values())]
    using = {file for file in files for each in imports_of(file) if each.package == "rich"}
    assert using == {CORE / "console.py"}


def test_the_core_imports_no_plugin_and_nothing_heavy() -> None:
    outside = {package.name for package in OUTSIDERS} | (HEAVY - {"rich"})
    offences = [
        f"{name}:{each.line} imports {each.module}"
        for name, file in CORE_MODULES.items()
        for each in imports_of(file)
        if each.package in outside and (name, each.package) not in SERVICES
    ]
    assert not offences, told(offences)


def test_the_core_needs_three_packages() -> None:
    foreign = {
        each.package
        for name, file in CORE_MODULES.items()
        for each in imports_of(file)
        if each.package not in sys.stdlib_module_names and (name, each.package) not in SERVICES
    }
    assert foreign == {"mmedeval", "click", "pluggy", "rich"}


@pytest.mark.parametrize("package", OUTSIDERS, ids=lambda package: package.name)
def test_a_package_outside_the_core_imports_its_public_names_and_no_sibling(package: Path) -> None:
    siblings = {other.name for other in OUTSIDERS if other != package}
    offences = []
    for name, file in modules(package).items():
        for each in imports_of(file):
            where = f"{name}:{each.line} imports {each.module}" + (f".{each.name}" if each.name else "")
            if each.package in siblings and (package.name, each.package) not in BUILT_ON:
                offences.append(f"{where}, a sibling")
            allowed = PUBLIC_MODULES | (HOST_MODULES if package.name == "mmed_train" else set())
            if each.package == "mmedeval" and each.module not in allowed:
                offences.append(f"{where}, which is not public")
            if each.module == "mmedeval" and each.name is not None and each.name not in (*mmedeval.__all__, "__version__"):
                offences.append(f"{where}, which is not in __all__")
    assert not offences, told(offences)


@pytest.mark.parametrize("package", OUTSIDERS, ids=lambda package: package.name)
def test_a_packages_own_module_imports_nothing_but_the_core_and_the_standard_library(package: Path) -> None:
    """Its top is read whenever anything is listed; what is heavy waits inside of functions and other modules."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    top = ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)], [])
    packages = {each.package for each in _imports(top, only_for_types=False) if not each.only_for_types}
    assert packages <= {"mmedeval"} | sys.stdlib_module_names


@pytest.mark.parametrize("package", [CORE, *OUTSIDERS], ids=lambda package: package.name)
def test_every_package_tells_type_checkers_that_it_is_typed(package: Path) -> None:
    assert (package / "py.typed").exists()
    assert package == CORE or not (package.parent / "__init__.py").exists()


def test_the_public_names_are_sorted_and_complete() -> None:
    # Constants first.
    assert list(mmedeval.__all__) == sorted(mmedeval.__all__, key=lambda name: (not name.isupper(), name))
    imported = {each.name for each in imports_of(CORE / "__init__.py") if each.module.startswith("mmedeval.")}
    assert set(mmedeval.__all__) == imported
    assert all(hasattr(mmedeval, name) for name in mmedeval.__all__)


def test_every_name_in_the_signature_of_a_hook_or_a_backend_is_public() -> None:
    """A plugin's author can annotate what he implements."""
    named = set()
    for file in (CORE / "hookspecs.py", CORE / "backend.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                annotations = [node.returns, *(each.annotation for each in [*node.args.args, *node.args.kwonlyargs])]
                parts = (part for each in annotations if each is not None for part in ast.walk(each))
                named |= {part.id for part in parts if isinstance(part, ast.Name)}
    ours = {
        target.id if isinstance(target, ast.Name) else target.name
        for file in ("types.py", "specs.py")
        for node in ast.parse((CORE / file).read_text(encoding="utf-8")).body
        for target in ([node] if isinstance(node, ast.ClassDef) else node.targets if isinstance(node, ast.Assign) else [])
        if isinstance(target, ast.Name | ast.ClassDef)
    }
    assert {"Sample", "ProtocolName"} <= ours
    assert len(named & ours) > 10
    assert sorted(named & ours - set(mmedeval.__all__)) == []


def imported_after(code: str) -> set[str]:
    """The top-level packages that a fresh process has imported after some code."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_host_with_all_plugins_and_a_look_at_all_they_offer_import_nothing_heavy() -> None:
    code = """
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
catalog = Catalog(make_host(block=[]))
assert {info.name for info in catalog.host.plugins} >= {"hf", "mmedbench"}
assert not any(info.error for info in catalog.host.plugins), catalog.host.plugins
assert "mmedbench_en" in catalog.tasks and "hf" in catalog.backends and "accuracy" in catalog.metrics
catalog.backend_spec("hf:somewhere")
catalog.select_tasks(["mmedbench**"])
"""
    assert imported_after(code) & HEAVY == set()


def test_a_run_without_a_model_imports_nothing_heavy_and_no_terminal(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from mmedeval import RunPlan
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import run
run(RunPlan(model="baseline:first", tasks=("mmedbench_mini_en",)), Catalog(make_host(block=[])), Path({str(tmp_path)!r}) / "run")
"""
    assert imported_after(code) & (HEAVY | {"click"}) == set()


def test_help_needs_no_plugin_host() -> None:
    code = """
from mmedeval.cli import cli
try:
    cli(["--help"])
except SystemExit as end:
    assert end.code == 0
"""
    assert imported_after(code) & (HEAVY | {"mmedeval_hf", "mmedeval_mmedbench"}) == set()
