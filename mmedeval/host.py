"""Builds the plugin host: the core's own hooks first, then every installed plugin, through the same door."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pluggy

from mmedeval import builtin, hookspecs
from mmedeval.errors import PluginError

GROUP = "mmedeval"
BLOCK_VARIABLE = "MMEDEVAL_BLOCK"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """One plugin as `mmedeval list plugins` shows it. `error` is a sentence where the plugin could not be loaded."""

    name: str
    distribution: str
    version: str
    error: str | None = None


class Entry(NamedTuple):
    """An installed entry point."""

    name: str
    target: str
    distribution: str
    version: str

    def load(self) -> object:
        module, _, attributes = self.target.partition(":")
        loaded: object = importlib.import_module(module)
        for attribute in filter(None, attributes.split(".")):
            loaded = getattr(loaded, attribute)
        return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The hooks, with what is known of the plugins behind them."""

    manager: pluggy.PluginManager
    plugins: tuple[PluginInfo, ...]

    @property
    def hook(self) -> pluggy.HookRelay:
        return self.manager.hook


def make_host(*, block: Sequence[str] | None = None, extra: Sequence[object] = ()) -> Host:
    """A new host with the core's hooks, all plugins of the entry-point group `mmedeval`, and the objects in `extra`.

    `block` names plugins to leave out (default: the comma-separated list in MMEDEVAL_BLOCK). A plugin that fails to import is
    recorded, not fatal. Raises `PluginError` for a plugin that implements a hook that does not exist or repeats a name.
    """
    if block is None:
        block = [name.strip() for name in os.environ.get(BLOCK_VARIABLE, "").split(",") if name.strip()]
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(builtin, name="core")
    infos = [_load(manager, entry) for entry in installed_entries() if entry.name not in block]
    for plugin in extra:
        _register(manager, plugin, None, f"the plugin {plugin!r}", "mend it")
    return Host(manager=manager, plugins=tuple(infos))


def installed_entries() -> list[Entry]:
    """Entry points of our group, each distribution once (the first on the path wins, as for imports).

    Read straight from the files of the packaging standard: `importlib.metadata` imports an e-mail parser for it, which alone
    takes a third of the time in which `mmedeval list` answers.
    """
    found: dict[str, list[Entry]] = {}
    for folder in map(Path, dict.fromkeys(sys.path)):
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info")))
        except OSError:  # zip files and folders that are not there: nothing of ours is in them
            continue
        for name in names:
            try:
                text = (folder / name / "entry_points.txt").read_text(encoding="utf-8")
            except OSError:  # most distributions have none
                continue
            distribution, _, version = name.rpartition(".")[0].partition("-")
            distribution = distribution.replace("_", "-").lower()
            entries = [Entry(key, target, distribution, version or "unknown") for key, target in _group(text)]
            if entries:
                found.setdefault(distribution, entries)
    return sorted((entry for entries in found.values() for entry in entries), key=lambda entry: entry.name)


def _group(text: str) -> Iterator[tuple[str, str]]:
    """The `name = module:attribute` lines of our section of an entry_points.txt."""
    inside = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{GROUP}]"
        elif inside and "=" in line and not line.startswith(("#", ";")):
            name, _, target = line.partition("=")
            # Extras behind the target, `module:attribute [extra]`, are of no use once all is installed.
            yield name.strip(), target.partition("[")[0].strip()


def _load(manager: pluggy.PluginManager, entry: Entry) -> PluginInfo:
    where = f"plugin {entry.name!r} ({entry.distribution} {entry.version})"
    way_out = f"to go on without it, set {BLOCK_VARIABLE}={entry.name}"
    if manager.has_plugin(entry.name):
        raise PluginError(f"{where} has the name of a plugin that is there already; {way_out}, or uninstall one of them")
    try:
        plugin = entry.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's module must not take the host down
        reason = f"{where} failed to import: {type(error).__name__}: {error}; {way_out}"
        return PluginInfo(name=entry.name, distribution=entry.distribution, version=entry.version, error=reason)
    _register(manager, plugin, entry.name, where, way_out)
    return PluginInfo(name=entry.name, distribution=entry.distribution, version=entry.version)


def _register(manager: pluggy.PluginManager, plugin: object, name: str | None, where: str, way_out: str) -> None:
    unknown = [
        hook for hook in dir(plugin) if hasattr(getattr(plugin, hook, None), f"{GROUP}_impl") and not hasattr(hookspecs, hook)
    ]
    if unknown:
        raise PluginError(f"{where} implements the hook {unknown[0]!r}, which does not exist; {way_out}")
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(f"{where} does not fit its hooks: {error}; {way_out}") from error
