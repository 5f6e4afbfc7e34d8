"""What works on this machine: software, plugins, backends, data."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmedeval import __version__
from mmedeval.catalog import Catalog, missing_packages
from mmedeval.environment import PACKAGES, package_version
from mmedeval.errors import MissingPackageError, MmedevalError
from mmedeval.specs import BackendSpec, TaskOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the diagnosis. `good` is `None` where there is nothing to judge."""

    section: str
    name: str
    text: str
    good: bool | None = None


def diagnose(catalog: Catalog, data_dir: Path | None = None) -> Sequence[Finding]:
    """Looks at what is there; imports no model library, loads no data and fetches nothing."""
    findings = [
        Finding(section="Software", name="mmedeval", text=__version__),
        Finding(section="Software", name="python", text=f"{platform.python_version()} on {platform.platform()}"),
    ]
    versions = {name: package_version(name) for name in PACKAGES}
    findings += [Finding(section="Software", name=name, text=version or "not installed") for name, version in versions.items()]
    findings += [
        Finding(
            section="Plugins",
            name=info.name,
            text=info.error or f"{info.distribution} {info.version}",
            good=not info.error,
        )
        for info in catalog.host.plugins
    ]
    for backend in catalog.backends.values():
        findings.append(_backend(backend))
    places: dict[str, list[str]] = {}
    for spec in catalog.tasks.values():
        if spec.locate is None:
            continue
        try:
            place = spec.locate(TaskOptions(data_dir=data_dir))
        except MmedevalError as error:
            place = f"!{error}"
        places.setdefault(place, []).append(spec.group or spec.name)
    for place, names in places.items():
        good = None if "would be fetched" in place else not place.startswith("!")
        findings.append(Finding(section="Data", name=", ".join(dict.fromkeys(names)), text=place.removeprefix("!"), good=good))
    return findings


def _backend(spec: BackendSpec) -> Finding:
    name = f"{spec.name}:"
    missing = missing_packages(spec)
    if missing:
        text = str(MissingPackageError("it", missing, spec.extra))
        return Finding(section="Backends", name=name, text=text, good=False)
    remark = spec.remark() if spec.remark is not None else None
    if remark:
        return Finding(section="Backends", name=name, text=f"can run; {remark}")
    return Finding(section="Backends", name=name, text="can run", good=True)
