"""Evaluate language models on multilingual medical question answering: the names that plugins may use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmedeval.backend import Backend
    from mmedeval.errors import (
        BackendError,
        DataError,
        MissingPackageError,
        MmedevalError,
        ModelError,
        PluginError,
        StoreError,
        UnknownNameError,
        UsageError,
    )
    from mmedeval.hookspecs import hookimpl
    from mmedeval.types import (
        Aggregate,
        Answer,
        BackendSpec,
        Failure,
        GenerateRequest,
        Generation,
        LoglikelihoodRequest,
        Loglikelihoods,
        Message,
        MetricSpec,
        Prompt,
        ProtocolName,
        RunPlan,
        RunRecord,
        Sample,
        SampleResult,
        Sampling,
        Shot,
        Split,
        Task,
        TaskOptions,
        TaskSpec,
        Usage,
        digest,
    )

__version__ = "0.1.0"

__all__ = [
    "Aggregate",
    "Answer",
    "Backend",
    "BackendError",
    "BackendSpec",
    "DataError",
    "Failure",
    "GenerateRequest",
    "Generation",
    "LoglikelihoodRequest",
    "Loglikelihoods",
    "Message",
    "MetricSpec",
    "MissingPackageError",
    "MmedevalError",
    "ModelError",
    "PluginError",
    "Prompt",
    "ProtocolName",
    "RunPlan",
    "RunRecord",
    "Sample",
    "SampleResult",
    "Sampling",
    "Shot",
    "Split",
    "StoreError",
    "Task",
    "TaskOptions",
    "TaskSpec",
    "UnknownNameError",
    "Usage",
    "UsageError",
    "digest",
    "hookimpl",
]

# Where each public name lives. It is imported when it is used: `mmedeval --help` needs none of them.
_HOMES = {
    "backend": ("Backend",),
    "errors": (
        "BackendError",
        "DataError",
        "MissingPackageError",
        "MmedevalError",
        "ModelError",
        "PluginError",
        "StoreError",
        "UnknownNameError",
        "UsageError",
    ),
    "hookspecs": ("hookimpl",),
    "types": (
        "Aggregate",
        "Answer",
        "BackendSpec",
        "Failure",
        "GenerateRequest",
        "Generation",
        "LoglikelihoodRequest",
        "Loglikelihoods",
        "Message",
        "MetricSpec",
        "Prompt",
        "ProtocolName",
        "RunPlan",
        "RunRecord",
        "Sample",
        "SampleResult",
        "Sampling",
        "Shot",
        "Split",
        "Task",
        "TaskOptions",
        "TaskSpec",
        "Usage",
        "digest",
    ),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"mmedeval.{home}"), name)
    raise AttributeError(f"module 'mmedeval' has no attribute {name!r}")
