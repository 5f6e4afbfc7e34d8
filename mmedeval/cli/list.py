"""`mmedeval list`: what is on offer."""

from __future__ import annotations

import shutil

import click

KINDS = ("tasks", "backends", "metrics", "protocols", "trackers", "plugins")


@click.command("list", short_help="What is on offer.")
@click.argument("kind", type=click.Choice(KINDS), required=False)
def command(kind: str | None) -> None:
    """What is on offer: tasks, backends, metrics, protocols, trackers, plugins; all of it without KIND."""
    from mmedeval.catalog import Catalog, missing_packages
    from mmedeval.host import make_host
    from mmedeval.specs import PROTOCOLS
    from mmedeval.text import printable

    host = make_host()
    catalog = Catalog(host)
    for name in [kind] if kind else KINDS:
        rows: list[tuple[str, str]] = []
        if name == "tasks":
            rows += [(task, spec.summary) for task, spec in catalog.tasks.items()]
            rows += [(group, f"group of {len(members)} tasks") for group, members in catalog.groups.items()]
        elif name == "backends":
            for backend in catalog.backends.values():
                missing = missing_packages(backend)
                rows.append((f"{backend.name}:", backend.summary + (f" (needs {', '.join(missing)})" if missing else "")))
                if kind:
                    rows += [(f"  {argument}", text) for argument, text in backend.arguments.items()]
        elif name == "metrics":
            for metric in catalog.metrics.values():
                missing = missing_packages(metric)
                rows.append((metric.name, metric.summary + (f" (needs {', '.join(missing)})" if missing else "")))
            if kind:
                # Several metrics share a setting.
                arguments = {name: text for metric in catalog.metrics.values() for name, text in metric.arguments.items()}
                rows += [(f"  {argument}=", text) for argument, text in arguments.items()]
        elif name == "protocols":
            rows += [("auto", "letter where the backend computes loglikelihoods, else chat"), *PROTOCOLS.items()]
        elif name == "trackers":
            for tracker in catalog.trackers.values():
                missing = missing_packages(tracker)
                rows.append((tracker.name, tracker.summary + (f" (needs {', '.join(missing)})" if missing else "")))
                if kind:
                    rows.append((f"  {tracker.name}=", tracker.where))
        else:
            rows += [(info.name, info.error or f"{info.distribution} {info.version}") for info in host.plugins]
        formatter = click.HelpFormatter(width=min(100, shutil.get_terminal_size().columns))
        with formatter.section(name.capitalize()):
            formatter.write_dl([(printable(left), printable(right)) for left, right in rows] or [("none", "")])
        click.echo(formatter.getvalue().rstrip() + ("\n" if not kind else ""))
