"""What a stored run must be made of for a report: one that was edited or cut is told of before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmedeval.determinism import sentence
from mmedeval.runs import StoredRun
from mmedeval.store import RECORD, figure_from_json

# More than any count, and still exact as a float.
LARGEST = 1e15
# A type, or a list with the shape of its elements, or an object with the shapes of its values by name: `name?` may be absent or
# null, `*` is every value there is. `float` is any number.
SHAPE: Mapping[str, Any] = {
    "fingerprint?": str,
    "model": {"reference": str, "fingerprint?": str},
    "protocol": {"used": str},
    "plan": {
        "tasks?": [str], "languages?": [str], "metrics?": [str], "model_args?": {}, "metric_args?": {}, "stop_early?": {},
    },
    "tasks": {"*": {"language": str, "group?": str, "data_digest?": str}},
    "counts": {
        "n": int, "unread": int, "failed": int, "unscored": int, "truncated": int, "shots_dropped": int, "failures?": {"*": int},
    },
    "usage": {"*": {"*": float}},
    "consistency": [
        {"group": str, "languages": int, "read": int, "alike": {"count": int}, "all_right": {"count": int}},
    ],
    "warnings": [str],
    "determinism?": {},
    "sampling?": {},
    "environment?": {"packages?": {}},
    "runtime?": {},
    "rotations?": {
        "usage": {"*": {"*": float}},
        "position": [
            {
                "task": str, "options": int, "items": int, "expected": float,
                "letters": {"*": {"share": float, "low": float, "high": float}},
            }
        ],
    },
}  # fmt: skip


def fault_of(run: StoredRun) -> str | None:
    """What no report can be made of in the record of a run, in words; `None` where all is well."""
    found = _fault_of_record(run)
    return f"{run.path / RECORD} is damaged: {found}" if found else None


def _fault_of_record(run: StoredRun) -> str | None:
    found = _fault(run.data, SHAPE, "")
    if found:
        return found
    bare = run.data["tasks"].keys() - {figure.task for figure in run.aggregates}
    if bare:
        return f"results holds no figure of {min(bare)}"
    if run.data["determinism"]:
        try:
            sentence(run.data["determinism"])
        except (KeyError, TypeError, ValueError) as error:
            return f"determinism is not what it should be ({type(error).__name__}: {error})"
    for entry in run.data["consistency"]:
        counts = (entry["alike"]["count"], entry["all_right"]["count"])
        if not 0 <= min(counts) <= max(counts) <= entry["read"]:
            return f"of {entry['read']} questions that were read {counts[0]} are counted as alike, {counts[1]} as right"
    try:
        figures = [*run.aggregates, *map(figure_from_json, (run.data.get("rotations") or {}).get("results", []))]
    except (TypeError, ValueError) as error:
        return f"rotations.results holds no figures ({error})"
    for figure in figures:
        numbers = (figure.value, figure.low, figure.high, figure.chance)
        if figure.scale <= 0 or not all(each is None or _is_number(each) for each in numbers):
            return f"the results of {figure.metric} are no figures"
    return None


def _fault(value: object, shape: Any, place: str) -> str | None:
    if isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            return f"{place} is {_shown(value)}, no object"
        for key, inner in shape.items():
            for name in value if key == "*" else [key.rstrip("?")]:
                if key.endswith("?") and value.get(name) is None:
                    continue
                inside = f"{place}.{name}" if place else name
                found = _fault(value[name], inner, inside) if name in value else f"it lacks {inside!r}"
                if found:
                    return found
        return None
    if isinstance(shape, Sequence):
        if not isinstance(value, list):
            return f"{place} is {_shown(value)}, no list"
        return next((found for each in value if (found := _fault(each, shape[0], place))), None)
    if shape is str:
        return None if isinstance(value, str) else f"{place} is {_shown(value)}, no text"
    fits = _is_number(value) and (shape is float or isinstance(value, int))
    return None if fits else f"{place} is {_shown(value)}, no {'number' if shape is float else 'whole number'}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
