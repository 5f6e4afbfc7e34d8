"""What is on offer, by name: backends, tasks, metrics; unknown names, duplicates and missing packages become sentences."""

from __future__ import annotations

import fnmatch
import gc
import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mmedeval.errors import MissingPackageError, PluginError, UnknownNameError, UsageError
from mmedeval.host import Host
from mmedeval.specs import LANGUAGES, BackendSpec, MetricSpec, ProtocolName, TaskSpec, TrackerSpec

if TYPE_CHECKING:
    from pathlib import Path

    from mmedeval.backend import Backend
    from mmedeval.trackers import Tracker
    from mmedeval.types import MetricFunction


class Spec(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def requires(self) -> tuple[str, ...]: ...
    @property
    def extra(self) -> str | None: ...


S = TypeVar("S", bound=Spec)


class Catalog:
    """The names that a host offers. Each kind is collected once, when it is first looked up.

    `tell` gets the sentences that a user should read while work goes on.
    """

    def __init__(self, host: Host, tell: Callable[[str], None] = lambda _: None) -> None:
        self.host, self.tell = host, tell

    @cached_property
    def backends(self) -> Mapping[str, BackendSpec]:
        return self._collect("backend", "mmedeval_backends", BackendSpec)

    @cached_property
    def tasks(self) -> Mapping[str, TaskSpec]:
        """In the order in which results are shown: by group, then as the paper orders its languages, then by name."""
        order = [*LANGUAGES]
        return dict(
            sorted(
                self._collect("task", "mmedeval_tasks", TaskSpec).items(),
                key=lambda item: (
                    item[1].group or "",
                    order.index(item[1].language) if item[1].language in order else len(order),
                    item[0],
                ),
            )
        )

    @cached_property
    def metrics(self) -> Mapping[str, MetricSpec]:
        return self._collect("metric", "mmedeval_metrics", MetricSpec)

    @cached_property
    def trackers(self) -> Mapping[str, TrackerSpec]:
        return self._collect("tracker", "mmedeval_trackers", TrackerSpec)

    @cached_property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Group name -> the names of its tasks, in the order in which they are offered."""
        groups: dict[str, tuple[str, ...]] = {}
        for spec in self.tasks.values():
            if spec.group is not None:
                groups[spec.group] = (*groups.get(spec.group, ()), spec.name)
        return groups

    def _collect(self, kind: str, hook: str, spec_type: type[S]) -> Mapping[str, S]:
        found: dict[str, S] = {}
        source: dict[str, str] = {}
        for impl in getattr(self.host.hook, hook).get_hookimpls():
            offered = impl.function()
            if not isinstance(offered, Iterable):
                raise PluginError(
                    f"plugin {impl.plugin_name!r} returned {offered!r} from {hook}; it must return {spec_type.__name__}s"
                )
            for spec in offered:
                if not isinstance(spec, spec_type):
                    raise PluginError(
                        f"plugin {impl.plugin_name!r} offers {spec!r} as a {kind}; {hook} must return {spec_type.__name__}s"
                    )
                if kind == "task" and "/" in spec.name:
                    raise PluginError(
                        f"plugin {impl.plugin_name!r} offers the task {spec.name!r}; a task's name must be without '/', which "
                        "parts it from the ids of its samples"
                    )
                if spec.name in found:
                    both = (source[spec.name], impl.plugin_name)
                    # The core cannot be left out.
                    other = next(name for name in both if name != "core" or set(both) == {"core"})
                    raise PluginError(
                        f"the {kind} {spec.name!r} is offered by two plugins, {both[0]!r} and {both[1]!r}; "
                        f"to go on without one, set MMEDEVAL_BLOCK={other}"
                    )
                found[spec.name] = spec
                source[spec.name] = impl.plugin_name
        return dict(sorted(found.items()))

    def _failed_plugins_hint(self) -> str:
        """A name may be unknown because its plugin did not load: say so beside the nearest names."""
        errors = [info.error for info in self.host.plugins if info.error]
        return "; ".join(["", *errors]).strip() if errors else ""

    def backend_spec(self, reference: str) -> tuple[BackendSpec, str]:
        """The backend and the model's name out of `SCHEME:NAME`. Raises `UsageError` for anything else."""
        scheme, colon, name = reference.partition(":")
        if not colon or not name:
            known = ", ".join(f"{backend}:..." for backend in self.backends)
            raise UsageError(f"--model {reference!r} does not say which backend; write SCHEME:NAME, one of {known}")
        if scheme not in self.backends:
            raise UnknownNameError("backend", scheme, self.backends, hint=self._failed_plugins_hint())
        return self.backends[scheme], name

    def open_backend(self, reference: str, arguments: Mapping[str, str]) -> Backend:
        """The backend for `SCHEME:NAME`, not yet loaded. Raises `UsageError` for an argument that it does not take."""
        spec, name = self.backend_spec(reference)
        for key in arguments:
            if key not in spec.arguments:
                raise UnknownNameError(f"--model-arg of {spec.name}", key, spec.arguments)
        require(f"the backend {spec.name!r}", spec)
        with _no_collection():
            return spec.load(name, arguments)

    def open_tracker(self, reference: str) -> tuple[str, Tracker]:
        """The name of a tracker and the tracker, out of `NAME` or `NAME=WHERE`."""
        name, _, where = reference.partition("=")
        if name not in self.trackers:
            raise UnknownNameError("tracker", name, self.trackers, hint=self._failed_plugins_hint())
        spec = self.trackers[name]
        require(f"the tracker {name!r}", spec)
        return name, spec.load(where)

    def select_tasks(self, patterns: Iterable[str], languages: Sequence[str] = ()) -> tuple[TaskSpec, ...]:
        """The tasks that names, groups and globs ask for, each once, in the order asked; `languages` narrows them.

        In a glob `*` stands for one part of a name between underscores, `**` for any number of them: `mmedbench_*` is the six
        languages of MMedBench and not the tasks of `mmedbench_mini`.
        """
        chosen: dict[str, TaskSpec] = {}
        for pattern in patterns:
            names = self._matching(pattern)
            if not names:
                raise UnknownNameError("task", pattern, [*self.tasks, *self.groups], hint=self._failed_plugins_hint())
            chosen.update({name: self.tasks[name] for name in names})
        known_languages = {spec.language for spec in chosen.values()}
        for language in languages:
            if language not in known_languages:
                raise UnknownNameError("language of these tasks", language, known_languages)
        specs = [spec for spec in chosen.values() if not languages or spec.language in languages]
        if not specs:
            raise UsageError("no task was asked for; name one with --tasks, see: mmedeval list tasks")
        for spec in specs:
            require(f"the task {spec.name!r}", spec)
        return tuple(specs)

    def _matching(self, pattern: str) -> Sequence[str]:
        if pattern in self.tasks:
            return [pattern]
        if pattern in self.groups:
            return self.groups[pattern]
        if not any(mark in pattern for mark in "*?["):
            return []
        if "**" in pattern:
            return [name for name in self.tasks if fnmatch.fnmatchcase(name, pattern.replace("**", "*"))]
        parts = pattern.split("_")
        return [
            name
            for name in self.tasks
            if len(name.split("_")) == len(parts)
            and all(fnmatch.fnmatchcase(a, b) for a, b in zip(name.split("_"), parts, strict=True))
        ]

    def select_metrics(self, names: Sequence[str], protocol: ProtocolName) -> tuple[MetricSpec, ...]:
        """The default metrics of the protocol and those asked for by name, in a fixed order."""
        for name in names:
            if name not in self.metrics:
                raise UnknownNameError("metric", name, self.metrics, hint=self._failed_plugins_hint())
            spec = self.metrics[name]
            if spec.protocols and protocol not in spec.protocols:
                raise UsageError(
                    f"the metric {name!r} has nothing to score under the protocol {protocol!r}; it needs one of: "
                    f"{', '.join(spec.protocols)}"
                )
        chosen = [
            spec
            for spec in self.metrics.values()
            if spec.name in names or (spec.default and (not spec.protocols or protocol in spec.protocols))
        ]
        for spec in chosen:
            require(f"the metric {spec.name!r}", spec)
        return tuple(sorted(chosen, key=lambda spec: (not spec.default, spec.name)))

    def load_metrics(self, names: Sequence[str], protocol: ProtocolName, arguments: Mapping[str, str]) -> tuple[Metric, ...]:
        """The metrics of `select_metrics`, loaded. Raises `UsageError` for an argument that none of them takes."""
        specs = self.select_metrics(names, protocol)
        taken = {argument: spec for spec in specs for argument in spec.arguments}
        for name in arguments:
            if name not in taken:
                others = [spec.name for spec in self.metrics.values() if name in spec.arguments]
                hint = f"it belongs to the metrics {', '.join(others)}; ask for one with --metrics" if others else ""
                raise UnknownNameError("--metric-arg", name, taken, hint=hint)
        loaded = []
        for spec in specs:
            if not 0 < spec.scale < math.inf:
                raise PluginError(f"the metric {spec.name!r} has the scale {spec.scale!r}; it must be a number above 0")
            given = {name: value for name, value in arguments.items() if name in spec.arguments}
            with _no_collection():
                loaded.append(Metric(spec=spec, score=spec.load(given) if spec.arguments else spec.load()))
        return tuple(loaded)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric that is ready to score."""

    spec: MetricSpec
    score: MetricFunction

    def prepare(self, catalog: Catalog, folder: Path) -> None:
        """Lets a metric look for what it needs of other plugins, and keep files of its own in the run folder."""
        prepare = getattr(self.score, "prepare", None)
        if prepare is not None:
            prepare(catalog, folder)

    def about(self) -> Mapping[str, Any]:
        """What it is made of, if it says so."""
        describe = getattr(self.score, "describe", None)
        return {} if describe is None else describe()


def missing_packages(spec: Spec) -> tuple[str, ...]:
    """The required packages that are not installed (looked up, not imported)."""
    return tuple(package for package in spec.requires if not _installed(package))


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of `a.b`, `a` is missing
        return False


def require(what: str, spec: Spec) -> None:
    """Raises `MissingPackageError`, with the pip line, where a package is missing."""
    missing = missing_packages(spec)
    if missing:
        raise MissingPackageError(what, missing, spec.extra)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Large libraries make a million objects and no garbage; searching for it takes a fifth of the time of their import."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
