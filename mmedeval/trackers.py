"""Trackers of experiments: they watch a run, and whatever happens to them, the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mmedeval.hookspecs import hookimpl
from mmedeval.text import first_line
from mmedeval.types import RunPlan, RunRecord, SampleResult


class Tracker:
    """Sends a run to where experiments are kept.

    Any method may raise: the user is told, the run goes on, and the tracker is closed without a further call.
    """

    def started(self, plan: RunPlan) -> None:
        """Called before the first request, or before `finished` where there is nothing left to ask."""

    def progress(self, counts: Mapping[str, int]) -> None:
        """Called now and then with the number of answers so far: `answered`, of these `unread` and `failed`."""

    def finished(self, record: RunRecord) -> None:
        """Called when the record was stored."""

    def close(self, *, whole: bool) -> None:
        """Called once at the end of what was started; `whole` is false where the run was stopped or broke."""


class Watcher:
    """An event plugin that passes a run's events on to one tracker, until that fails."""

    EVERY = 50

    def __init__(self, name: str, tracker: Tracker, tell: Callable[[str], None]) -> None:
        self.name, self._tracker, self._tell = name, tracker, tell
        self._counts = {"answered": 0, "unread": 0, "failed": 0}
        self._started = self._finished = self._broken = False

    def _try(self, call: Callable[[], None], *, last: bool = False) -> None:
        if self._broken and not last:
            return
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever breaks in a stranger's client must not lose the answers
            if self._broken:
                return
            self._broken = True
            what = f"{type(error).__name__}: {first_line(error)}"
            self._tell(f"warning: the tracker {self.name} failed ({what}); the run goes on without it")

    @hookimpl
    def mmedeval_run_started(self, plan: RunPlan) -> None:
        self._started = True
        self._try(lambda: self._tracker.started(plan))

    @hookimpl
    def mmedeval_sample_finished(self, result: SampleResult) -> None:
        self._counts["answered"] += 1
        if result.status in self._counts:
            self._counts[result.status] += 1
        if self._counts["answered"] % self.EVERY == 0:
            self._try(lambda: self._tracker.progress(dict(self._counts)))

    @hookimpl
    def mmedeval_run_finished(self, record: RunRecord) -> None:
        self._finished = True
        self._try(lambda: self._tracker.finished(record))

    def catch_up(self, plan: RunPlan, record: RunRecord) -> None:
        """Sends a run that was finished before, of which there are no events."""
        if not self._started:
            self.mmedeval_run_started(plan)
            self.mmedeval_run_finished(record)

    def close(self) -> None:
        if self._started:
            self._try(lambda: self._tracker.close(whole=self._finished and not self._broken), last=True)
