"""Which vLLM the suite was run with, and what to say where another one is installed. Imports nothing of vLLM's."""

from __future__ import annotations

TESTED = "0.32"


def version_warning(version: str) -> str | None:
    if version == TESTED or version.startswith(f"{TESTED}."):
        return None
    return f"vllm {version} is here, the backend was tested with {TESTED}: hold a few items against hf: before you rely on it"


def remark() -> str | None:
    """`version_warning` for what is installed here, under whatever package name it brings the module."""
    from importlib import metadata  # costs as much as the rest of a start

    packages = metadata.packages_distributions().get("vllm")
    return version_warning(metadata.version(packages[0])) if packages else None
