"""Every hook that a plugin may implement, each saying when it is called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from mmedeval.specs import BackendSpec, MetricSpec, ProtocolName, TaskSpec, TrackerSpec
    from mmedeval.types import Answer, Generation, Prompt, RunPlan, RunRecord, Sample, SampleResult, Task

hookspec = pluggy.HookspecMarker("mmedeval")
hookimpl = pluggy.HookimplMarker("mmedeval")


@hookspec
def mmedeval_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]  # a hook has no body
    """Called once, at the first look-up of a backend. Does no I/O and imports nothing heavy. All results are merged."""


@hookspec
def mmedeval_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]  # a hook has no body
    """Called once, at the first look-up of a task. Does no I/O and imports nothing heavy. All results are merged."""


@hookspec
def mmedeval_metrics() -> Iterable[MetricSpec]:  # type: ignore[empty-body]  # a hook has no body
    """Called once, at the first look-up of a metric. Does no I/O and imports nothing heavy. All results are merged."""


@hookspec
def mmedeval_trackers() -> Iterable[TrackerSpec]:  # type: ignore[empty-body]  # a hook has no body
    """Called once, at the first look-up of a tracker. Does no I/O and imports nothing heavy. All results are merged."""


@hookspec(firstresult=True)
def mmedeval_render_prompt(task: Task, sample: Sample, shots: Sequence[Sample], protocol: ProtocolName) -> Prompt | None:
    """Called per sample, before its request is made. The first answer that is not `None` wins; the core comes last."""


@hookspec(firstresult=True)
def mmedeval_parse_answer(task: Task, sample: Sample, generation: Generation, protocol: ProtocolName) -> Answer | None:
    """Called per generation. The first answer that is not `None` wins; the core comes last. Unread is not wrong."""


@hookspec
def mmedeval_run_started(plan: RunPlan, total: int) -> None:
    """Called before the first request, with the number of requests that are still to be answered."""


@hookspec
def mmedeval_sample_finished(plan: RunPlan, result: SampleResult) -> None:
    """Called on the main thread as each answer arrives, after it was stored; `result.rotation` tells the order of the options."""


@hookspec
def mmedeval_run_finished(plan: RunPlan, record: RunRecord) -> None:
    """Called after the last answer, when the record was stored."""
