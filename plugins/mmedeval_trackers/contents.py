"""What trackers are told of a run (pure)."""

from __future__ import annotations

from mmedeval import RunPlan, RunRecord
from mmedeval.text import to_json


def parameters(plan: RunPlan) -> dict[str, str]:
    """What the user chose, by name, and set apart from what is left as it is; texts, as all trackers take them."""
    chosen: dict[str, str] = {}
    for name, value in plan.as_json().items():
        if isinstance(value, dict):
            chosen |= {f"{name}.{key}": str(each) for key, each in value.items()}
        elif isinstance(value, list):
            if value:
                chosen[name] = ",".join(map(str, value))
        elif value is not None:
            chosen[name] = str(value)
    return chosen


def figures(record: RunRecord) -> dict[str, float]:
    """Every figure of a record with the ends of its interval and what it leaves out, by names as `accuracy/mmedbench_ja`."""
    found: dict[str, float] = {}
    for figure in record.aggregates:
        name = f"{figure.metric}/{figure.task}"
        values = {"": figure.value, "/low": figure.low, "/high": figure.high}
        found |= {f"{name}{end}": value for end, value in values.items() if value is not None}
        if figure.metric == "accuracy":
            for count in ("n", "unread", "failed"):
                found[f"{count}/{figure.task}"] = float(getattr(figure, count))
    return found


def run_name(plan: RunPlan) -> str:
    """A short name for the run: the model's own."""
    return plan.model.rstrip("/").rpartition("/")[2] or plan.model


def record_text(record: RunRecord) -> str:
    """The content of `record.json`."""
    return to_json(record.data, indent=2) + "\n"
