"""Builds the plugin host: the core's own hooks first, then every installed plugin, through the same door."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions

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
    infos: list[PluginInfo] = []
    for entry, dist in _entry_points():
        if entry.name in block:
            continue
        infos.append(_load(manager, entry, dist))
    for plugin in extra:
        _register(manager, plugin, None, f"the plugin {plugin!r}", "mend it")
    return Host(manager=manager, plugins=tuple(infos))


def _entry_points() -> list[tuple[EntryPoint, Distribution]]:
    """Entry points of our group, each distribution once (the first on the path wins, as for imports)."""
    found: dict[str, list[tuple[EntryPoint, Distribution]]] = {}
    for dist in distributions():
        entries = [entry for entry in dist.entry_points if entry.group == GROUP]
        if entries:
            found.setdefault(dist.name.lower().replace("_", "-"), [(entry, dist) for entry in entries])
    return sorted((pair for pairs in found.values() for pair in pairs), key=lambda pair: pair[0].name)


def _load(manager: pluggy.PluginManager, entry: EntryPoint, dist: Distribution) -> PluginInfo:
    where = f"plugin {entry.name!r} ({dist.name} {dist.version})"
    way_out = f"to go on without it, set {BLOCK_VARIABLE}={entry.name}"
    if manager.has_plugin(entry.name):
        raise PluginError(f"{where} has the name of a plugin that is there already; {way_out}, or uninstall one of them")
    try:
        plugin = entry.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's module must not take the host down
        reason = f"{where} failed to import: {type(error).__name__}: {error}; {way_out}"
        return PluginInfo(name=entry.name, distribution=dist.name, version=dist.version, error=reason)
    _register(manager, plugin, entry.name, where, way_out)
    return PluginInfo(name=entry.name, distribution=dist.name, version=dist.version)


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
