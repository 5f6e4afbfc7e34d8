"""Does a new run hold against a baseline? Yes, no, or too few items to tell (pure but for reading the rules)."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmedeval.aggregate import ACCURACIES, AVERAGE
from mmedeval.compare import Pairs, changes_of, groups_of, pair, refuse
from mmedeval.errors import DataError, UnknownNameError, UsageError
from mmedeval.outcomes import FAILED, RIGHT, UNREAD, Outcomes, refuse_part
from mmedeval.paired import Changes, holm, interval, of_a_drop
from mmedeval.types import Aggregate

Answer = Literal["holds", "fails", "cannot tell"]
EXIT_CODES: Mapping[Answer, int] = {"holds": 0, "fails": 3, "cannot tell": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a run holds. `max_drop` and `detect` are in points (per cent of the items).

    It fails where a drop is shown (one-sided, at 1 - `confidence`) and is larger than `max_drop`. It holds where a drop of
    `detect` or more is excluded with this confidence. Where neither is so, there are too few items to tell.
    """

    max_drop: float = 1.0
    detect: float = 5.0
    confidence: float = 0.95
    per_language: bool = False
    minimum: Mapping[str, float] = field(default_factory=dict)
    """The least value of a metric's figure, as it stands in the record."""

    def __post_init__(self) -> None:
        # No accuracy falls by more than 100 points: with such a rule nothing could fail, or nothing be excluded.
        if not 0 <= self.max_drop < 100:
            raise UsageError(f"max-drop is {self.max_drop:g}; it must be at least 0 and less than 100 points, as in 1")
        if not 0 < self.detect < 100:
            raise UsageError(f"detect is {self.detect:g}; it must be more than 0 and less than 100 points, as in 5")
        if self.detect < self.max_drop:
            raise UsageError(
                f"detect is {self.detect:g}, less than max-drop, {self.max_drop:g}: a drop that is allowed need not be excluded; "
                f"set detect to {self.max_drop:g} or more"
            )
        if not 0.5 <= self.confidence < 1:
            raise UsageError(f"confidence is {self.confidence:g}; it must be at least 0.5 and less than 1, as in 0.95")
        for metric, least in self.minimum.items():
            if not math.isfinite(least):
                raise UsageError(f"the least {metric} is {least}, which is no finite number")

    @property
    def alpha(self) -> float:
        return 1 - self.confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class DropCheck:
    """A task, or the average of a group: by how much the share of right answers fell, in shares.

    An item without an answer counts as wrong; but where the answer hangs on items that failed, nobody can tell. `at_most` is the
    upper end of the one-sided interval; `p` is one-sided, corrected (Holm) for the number of judged rows. `answer` is `None`
    where the row is shown and not judged.
    """

    task: str
    language: str
    group: str | None
    answer: Answer | None
    n: int
    base: float
    new: float
    drop: float
    at_most: float
    p: float
    without_failed: Answer | None
    """The answer over the items that failed in neither run, where any failed: only what both say is said."""
    unread: tuple[int, int]
    """Counts of items in the baseline and in the run."""
    failed: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimumCheck:
    """A figure of the run beside its least value. Without a value (no item has a score) nobody can tell."""

    metric: str
    task: str
    language: str
    group: str | None
    answer: Answer
    value: float | None
    low: float | None
    high: float | None
    least: float
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    answer: Answer
    sentence: str
    base: str | None
    run: str
    rules: Rules
    drops: tuple[DropCheck, ...]
    minimums: tuple[MinimumCheck, ...]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.answer]

    def as_json(self) -> dict[str, Any]:
        return {"verdict": self.answer, "exit_code": self.exit_code, **{k: v for k, v in asdict(self).items() if k != "answer"}}


# --- the rules of a file ---

# Each setting of a file: its type, how that is called, and what it is named in `Rules`.
_NUMBER, _SWITCH = ("a number", (int, float)), ("true or false", (bool,))
_SETTINGS: Mapping[str, tuple[tuple[str, tuple[type, ...]], str | None]] = {
    "baseline": (("a text", (str,)), None),
    "max-drop": (_NUMBER, "max_drop"),
    "detect": (_NUMBER, "detect"),
    "confidence": (_NUMBER, "confidence"),
    "per-language": (_SWITCH, "per_language"),
    "min": (("a table, as in min = {accuracy = 0.6}", (dict,)), "minimum"),
}


def read_rules(file: Path) -> dict[str, Any]:
    """The settings of a `gate.toml`, by their names there. Raises with the line of what is wrong."""
    try:
        text = file.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except FileNotFoundError as error:
        raise UsageError(f"--config {file} does not exist") from error
    # A ValueError is also what Python says of a number with thousands of digits.
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--config {file} cannot be read: {error}") from error
    settings: dict[str, Any] = {}
    for key, value in content.items():
        name, line = key.replace("_", "-"), _line_of(text, key)
        if name not in _SETTINGS:
            raise UnknownNameError(f"setting in {file}:{line}", key, _SETTINGS)
        (wanted, types), _ = _SETTINGS[name]
        if not _is_a(value, types):
            raise DataError.at(file, line, f"{key} is {_shortly(value)}; it must be {wanted}")
        settings[name] = value
    for metric, least in settings.get("min", {}).items():
        if not _is_a(least, _NUMBER[1]):
            raise DataError.at(file, _line_of(text, metric), f"the least {metric} is {_shortly(least)}; it must be a number")
    return settings


def _is_a(value: object, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and (bool in types or not isinstance(value, bool)) and not _is_endless(value)


def _is_endless(value: object) -> bool:
    """TOML's whole numbers may be any; with those beyond a float's nothing can be reckoned, nor can all of them be printed."""
    return isinstance(value, int) and value.bit_length() > 1000


def _shortly(value: object) -> str:
    text = "of more than 300 digits" if _is_endless(value) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _line_of(text: str, key: str) -> int:
    """The line where a key is set; 1 where it cannot be found, as in a quoted or dotted one."""
    pattern = re.compile(rf"^\s*(?:\[\s*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]|[{{,]\s*{re.escape(key)}\s*=")
    return next((number for number, line in enumerate(text.splitlines(), start=1) if pattern.search(line)), 1)


def make_rules(settings: Mapping[str, Any]) -> Rules:
    """Rules from settings by name; a `detect` that was not set is never less than `max-drop`."""
    chosen = {own: settings[name] for name, (_, own) in _SETTINGS.items() if own is not None and name in settings}
    return Rules(**{"detect": max(Rules().detect, chosen.get("max_drop", 0.0)), **chosen})


# --- the verdict ---


def judge_drop(all_changes: Sequence[Changes], rules: Rules) -> list[tuple[Answer, float, float]]:
    """For each row its answer, the upper end of its drop, and its one-sided p, corrected for the number of rows.

    Of rows that are all as good as before, any fails in at most 1 - confidence of the cases; and where a row's drop is `detect`
    or more, the gate holds in at most 1 - confidence of them.
    """
    corrected = holm([of_a_drop(changes) for changes in all_changes])
    found = []
    for changes, p in zip(all_changes, corrected, strict=True):
        low, _ = interval(changes, 2 * rules.confidence - 1)
        # Rounded, as 0.01 * 100 is not 1: a drop that is exactly allowed is allowed.
        drop = round(-100 * changes.difference, 9)
        answer: Answer
        if p <= rules.alpha and drop > rules.max_drop:
            answer = "fails"
        elif _excludes(-low, rules):
            answer = "holds"
        else:
            answer = "cannot tell"
        found.append((answer, -low, p))
    return found


def _excludes(at_most: float, rules: Rules) -> bool:
    return round(100 * at_most, 9) < rules.detect


def gate(base: Outcomes | None, run: Outcomes, rules: Rules) -> Verdict:
    """Holds a run against a baseline and least values. Raises `UsageError` for what cannot be compared."""
    if base is None and not rules.minimum:
        raise UsageError("nothing to hold the run against; give --baseline FILE, or a least value as in --min accuracy=0.6")
    refuse_part(run)
    drops = () if base is None else _drop_checks(base, run, rules)
    minimums = _minimum_checks(run, rules)
    answers = [*(check.answer for check in drops), *(check.answer for check in minimums)]
    answer: Answer = "fails" if "fails" in answers else "cannot tell" if "cannot tell" in answers else "holds"
    return Verdict(
        answer=answer,
        sentence=_sentence(answer, base, run, drops, minimums, rules),
        base=None if base is None else base.name,
        run=run.name,
        rules=rules,
        drops=drops,
        minimums=minimums,
    )


def _drop_checks(base: Outcomes, run: Outcomes, rules: Rules) -> tuple[DropCheck, ...]:
    refuse(base, run, hint="make a new baseline: mmedeval baseline")
    rows: list[list[Pairs]] = []
    for members in groups_of(pair(base, run)):
        rows += [[each] for each in members]
        if len(members) > 1:
            rows.append(members)
    all_changes = []
    for members in rows:
        changes = changes_of(members)
        assert changes is not None  # a task without an item to compare is no pair
        all_changes.append(changes)
    judged = [i for i, members in enumerate(rows) if rules.per_language or _is_overall(members, rows)]
    answers = dict(zip(judged, judge_drop([all_changes[i] for i in judged], rules), strict=True))
    without_failed = _without_failed([rows[i] for i in judged], rules)
    others: dict[int, Answer] = dict(zip(judged, without_failed, strict=True)) if without_failed else {}
    checks = []
    for i, (members, changes) in enumerate(zip(rows, all_changes, strict=True)):
        answer, at_most, p = answers.get(i) or (None, *judge_drop([changes], rules)[0][1:])
        if answer is not None and others.get(i, answer) != answer:
            answer = "cannot tell"
        one = len(members) == 1
        shares = [
            [
                sum(outcomes[side] == RIGHT for outcomes in pairs.outcomes) / task.n
                for pairs, task in zip(members, changes.tasks, strict=True)
            ]
            for side in (0, 1)
        ]
        checks.append(
            DropCheck(
                task=members[0].task if one else str(members[0].group),
                language=members[0].language if one else AVERAGE,
                group=members[0].group,
                answer=answer,
                without_failed=others.get(i),
                n=sum(task.n for task in changes.tasks),
                base=sum(shares[0]) / len(members),
                new=sum(shares[1]) / len(members),
                drop=-changes.difference,
                at_most=at_most,
                p=p,
                unread=_counted(members, UNREAD),
                failed=_counted(members, FAILED),
            )
        )
    return tuple(checks)


def _is_overall(members: Sequence[Pairs], rows: Sequence[Sequence[Pairs]]) -> bool:
    """Whether a row sums up its group: the average, or the only task."""
    return len(members) == max(
        len(other) for other in rows if (other[0].group or other[0].task) == (members[0].group or members[0].task)
    )


def _without_failed(rows: Sequence[Sequence[Pairs]], rules: Rules) -> list[Answer]:
    """What the rows say of the items that failed in neither run; empty where none failed.

    That a server was away, or the memory was full, is no proof against a model; and none for it.
    """
    if not any(FAILED in outcomes for members in rows for pairs in members for outcomes in pairs.outcomes):
        return []
    all_changes = [changes_of(members, frozenset({FAILED})) for members in rows]
    judged = iter(judge_drop([changes for changes in all_changes if changes is not None], rules))
    return ["cannot tell" if changes is None else next(judged)[0] for changes in all_changes]


def _counted(members: Sequence[Pairs], letter: str) -> tuple[int, int]:
    outcomes = [outcomes for pairs in members for outcomes in pairs.outcomes]
    return sum(a == letter for a, _ in outcomes), sum(b == letter for _, b in outcomes)


def _minimum_checks(run: Outcomes, rules: Rules) -> tuple[MinimumCheck, ...]:
    checks = []
    known = {figure.metric for figure in run.figures}
    for metric, least in rules.minimum.items():
        if metric not in known:
            raise UnknownNameError(f"metric in {run.path}", metric, known)
        if metric in ACCURACIES and not 0 <= least <= 1:
            raise UsageError(f"the least {metric} is {least:g}; it is a share of the items: write 0.6 for 60 per cent")
        figures = [figure for figure in run.figures if figure.metric == metric]
        averaged = {figure.task for figure in figures if figure.language == AVERAGE}
        checks += [
            _minimum_check(figure, _group_of(run, figure), least)
            for figure in figures
            if rules.per_language or figure.language == AVERAGE or _group_of(run, figure) not in averaged
        ]
    return tuple(checks)


def _group_of(run: Outcomes, figure: Aggregate) -> str | None:
    return figure.task if figure.language == AVERAGE else run.tasks[figure.task].group if figure.task in run.tasks else None


def _minimum_check(figure: Aggregate, group: str | None, least: float) -> MinimumCheck:
    return MinimumCheck(
        metric=figure.metric,
        task=figure.task,
        language=figure.language,
        group=group,
        # Rounded, as the mean of 0.7 and 0.6 is a hair less than 0.65.
        answer="cannot tell" if figure.value is None else "holds" if round(figure.value - least, 9) >= 0 else "fails",
        value=figure.value,
        low=figure.low,
        high=figure.high,
        least=least,
        scale=figure.scale,
    )


# --- in words ---


def _sentence(
    answer: Answer,
    base: Outcomes | None,
    run: Outcomes,
    drops: Sequence[DropCheck],
    minimums: Sequence[MinimumCheck],
    rules: Rules,
) -> str:
    # A checkpoint is often named as the one before it.
    against = "" if base is None else f" against {base.name if base.name != run.name else base.path.name}"
    head = {"holds": f"{run.name} holds{against}", "fails": f"{run.name} does not hold{against}", "cannot tell": "cannot tell"}[
        answer
    ]
    told = [told_drop(check, rules) for check in drops if check.answer == answer]
    told += [told_minimum(check) for check in minimums if check.answer == answer]
    more = f"; and {len(told) - 3} more" if len(told) > 3 else ""
    sentence = f"{head}: {'; '.join(told[:3])}{more}"
    if answer == "cannot tell" and not any(check.failed[1] for check in drops if check.answer == answer):
        sentence += "; ask more items"
    return sentence


def told_drop(check: DropCheck, rules: Rules) -> str:
    """A row's answer in words."""
    moved = "fell" if check.drop > 0 else "rose"
    change = f"{check.task} {moved} by {amount(round(abs(100 * check.drop), 1))} ({points(check.base)} to {points(check.new)})"
    if not check.drop:
        change = f"{check.task} stayed at {points(check.base)}"
    is_excluded = _excludes(check.at_most, rules)
    hangs_on_failed = is_excluded if check.without_failed == "cannot tell" else check.without_failed is not None
    if check.answer == "fails":
        why = f"more than {amount(rules.max_drop)} and more than chance (p {p_value(check.p)})"
    elif check.answer == "cannot tell" and hangs_on_failed:
        others: dict[Answer | None, str] = {"holds": "it holds", "fails": "it does not hold", "cannot tell": "nobody can tell"}
        other = others[check.without_failed]
        why = f"with {max(check.failed)} items failed; without these {other}: see why they failed, and run again"
    else:
        end = f"{points(max(0.0, check.at_most))}, {100 * rules.confidence:g} % confidence"
        excluded = "excluded (at most" if is_excluded else f"not excluded by {check.n} items (up to"
        why = f"a drop of {amount(rules.detect)} or more is {excluded} {end})"
    if check.unread[1] > check.unread[0]:
        why += f"; {check.unread[1]} items are unread, {check.unread[0]} were before"
    return f"{change}, {why}"


def told_minimum(check: MinimumCheck) -> str:
    if check.value is None:
        return f"{check.task} has no {check.metric}: no item has a score"
    factor = 100 if check.scale == 1 else 1
    sign = {"holds": "at least", "fails": "less than"}[check.answer]
    return f"{check.metric} of {check.task} is {check.value * factor:.1f}, {sign} {check.least * factor:g}"


def points(share: float) -> str:
    return f"{100 * share:.1f}"


def amount(points: float) -> str:
    return f"{points:g} point{'' if points == 1 else 's'}"


def p_value(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
