"""What plugins offer, by name. Apart from the values of a run, so that listing what is on offer loads none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mmedeval.backend import Backend
    from mmedeval.trackers import Tracker
    from mmedeval.types import MetricFunction, Task

ProtocolName = Literal["letter", "cloze", "chat", "paper", "paper-direct"]
PROTOCOLS: Mapping[ProtocolName, str] = {
    "letter": "loglikelihood of the option letters (or sets of letters) after the options are listed",
    "cloze": "loglikelihood of each option's full text after the question alone",
    "chat": "reasoning and a final answer through the model's chat template, read out of free text",
    "paper": "the paper's prompt with rationale, byte for byte, greedy",
    "paper-direct": "the paper's prompt without rationale, byte for byte, greedy",
}

LANGUAGES: Mapping[str, str] = {
    "en": "English",
    "zh": "Chinese",
    "ja": "Japanese",
    "fr": "French",
    "ru": "Russian",
    "es": "Spanish",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What a user may say about where a task's data come from."""

    data_dir: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A task on offer. `load` is called only when the task is used and may do I/O.

    The tasks of a `group` can be asked for together by its name, and get an average.
    """

    name: str
    summary: str
    language: str
    load: Callable[[TaskOptions], Task]
    group: str | None = None
    requires: tuple[str, ...] = ()
    extra: str | None = None
    locate: Callable[[TaskOptions], str] | None = None
    """Says in one line where the data would be read from, for `mmedeval doctor`; may raise `DataError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """A backend on offer, addressed as `name:MODEL`. `load` gets the text after the colon and the `--model-arg` pairs.

    `load` must be cheap: weights are read at the first request, so that a finished run can be shown without them.
    `arguments` maps each accepted `--model-arg` to one line of help.
    """

    name: str
    summary: str
    load: Callable[[str, Mapping[str, str]], Backend]
    requires: tuple[str, ...] = ()
    extra: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    remark: Callable[[], str | None] | None = None
    """Says in one line, for `mmedeval doctor`, what may be missing here beside packages, such as a key; imports nothing heavy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """A metric on offer. `load`, called once a run before the model is asked, returns a function that scores many items at once.

    `arguments` maps each `--metric-arg` that the metric takes to one line of help; where there are any, `load` gets those given.
    `default` metrics are computed in every run to whose protocol they apply; `protocols` limits a metric to some (empty: all).
    `scale` is the value of a perfect item (1 for accuracies, shown as per cent; 100 for metrics that are on that scale).
    """

    name: str
    summary: str
    load: Callable[..., MetricFunction]
    default: bool = False
    protocols: tuple[ProtocolName, ...] = ()
    scale: float = 1.0
    requires: tuple[str, ...] = ()
    extra: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerSpec:
    """A tracker of experiments on offer, asked for as `--tracker name` or `--tracker name=WHERE`.

    `load` gets WHERE, or an empty text; `where` says in one line what it may be.
    """

    name: str
    summary: str
    load: Callable[[str], Tracker]
    where: str
    requires: tuple[str, ...] = ()
    extra: str | None = None
