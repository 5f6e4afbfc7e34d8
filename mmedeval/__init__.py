"""Evaluate language models on multilingual medical question answering: the names that plugins may use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmedeval.answers import final_part
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
    from mmedeval.rationales import rationale_of
    from mmedeval.specs import LANGUAGES, BackendSpec, MetricSpec, ProtocolName, TaskOptions, TaskSpec, TrackerSpec
    from mmedeval.stats import bootstrap_mean
    from mmedeval.trackers import Tracker
    from mmedeval.types import (
        Aggregate,
        Answer,
        Failure,
        GenerateRequest,
        Generation,
        LoglikelihoodRequest,
        Loglikelihoods,
        Message,
        MetricFunction,
        Prompt,
        Request,
        Response,
        RunPlan,
        RunRecord,
        Sample,
        SampleResult,
        Sampling,
        Shot,
        Split,
        Task,
        Usage,
        digest,
    )

__version__ = "0.1.0"

__all__ = [
    "LANGUAGES",
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
    "MetricFunction",
    "MetricSpec",
    "MissingPackageError",
    "MmedevalError",
    "ModelError",
    "PluginError",
    "Prompt",
    "ProtocolName",
    "Request",
    "Response",
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
    "Tracker",
    "TrackerSpec",
    "UnknownNameError",
    "Usage",
    "UsageError",
    "bootstrap_mean",
    "digest",
    "final_part",
    "hookimpl",
    "rationale_of",
]


def __getattr__(name: str) -> object:
    """A public name is imported when it is used: `mmedeval --help` needs none of them."""
    if name in __all__:
        for home in ("errors", "hookspecs", "specs", "types", "backend", "stats", "answers", "rationales", "trackers"):
            module = importlib.import_module(f"mmedeval.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'mmedeval' has no attribute {name!r}")
