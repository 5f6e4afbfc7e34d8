"""Studies with people: blinded sheets out of runs, answers back in, and stored metrics held against them. See docs/human.md."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from mmedeval.aggregate import AVERAGE
from mmedeval.agreement import Comparison, Figure, Judged, compare_with_people, rater_agreement
from mmedeval.errors import DataError, UsageError
from mmedeval.specs import LANGUAGES
from mmedeval.store import read_record, read_samples
from mmedeval.text import csv_cell, printable, to_json
from mmedeval.types import Sample, SampleResult, digest, join_letters

FORMAT = 1
KEY = "key.json"
KEY_KIND, ANSWERS_KIND, STUDY_KIND = "mmedeval-study-key", "mmedeval-ratings", "mmedeval-study"
RATINGS = range(1, 6)
# Texts of an item are told apart by a letter; six is what a person can rank.
MOST_RUNS = 12
COLUMNS = (
    "study", "rater", "item", "language", "question", "options", "answer", "reference", "candidate", "text", "rating", "place",
)  # fmt: skip

SampleKey = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run as far as a study needs it."""

    path: Path
    model: str
    fingerprint: str
    protocol: str
    results: Mapping[SampleKey, SampleResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked of how many people. `items`: in all, or of each language; `own_raters`: each language has its own raters."""

    items: int = 50
    per_language: bool = False
    raters: int = 3
    own_raters: bool = False
    seed: int = 0
    checked_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A question of the study. `texts[candidate]` is what the run `runs[candidate]` wrote; candidates say nothing of the run."""

    id: str
    task: str
    sample: Sample
    texts: Mapping[str, str]
    runs: Mapping[str, int]
    outputs: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What one rater sees, in order: items, and of each its candidates."""

    rater: str
    pages: Sequence[tuple[Item, Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """`items[language]` were taken of the `offered[language]` that all runs answered."""

    items: Mapping[str, int]
    offered: Mapping[str, int]
    raters: Sequence[str]
    per_rater: Sequence[int]


# --- runs ---


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Finished runs. Raises `UsageError` for fewer than two, too many, or one that is there twice; `StoreError` for no run."""
    if not 2 <= len(paths) <= MOST_RUNS:
        raise UsageError(f"people compare 2 to {MOST_RUNS} runs, not {len(paths)}; name that many run folders")
    runs: list[Run] = []
    for path in paths:
        record = read_record(path)
        run = Run(
            path=path,
            model=str(record["model"]["reference"]),
            fingerprint=str(record.get("fingerprint", "")),
            protocol=str(record["protocol"]["used"]),
            results={result.key: result for result in read_samples(path)},
        )
        for other in runs:
            if other.fingerprint == run.fingerprint:
                raise UsageError(f"{other.path} and {path} hold the same run; name each run once")
        runs.append(run)
    return runs


def shared_items(runs: Sequence[Run], *, checked_only: bool) -> list[SampleKey]:
    """What all runs answered with a text, in the first one's order; `checked_only`: and whose reference a person found good."""
    for run in runs:
        if not any(result.output is not None for result in run.results.values()):
            raise UsageError(
                f"{run.path} holds no texts (protocol {run.protocol}), so there is nothing to rate; run it with --protocol chat "
                "or paper"
            )
    keys = [
        key
        for key, result in runs[0].results.items()
        if all(key in run.results and run.results[key].output is not None for run in runs)
        and (not checked_only or (result.sample.meta.get("human_check_passed") and result.sample.rationale.strip()))
    ]
    for key in keys:
        for run in runs[1:]:
            if run.results[key].sample.contents() != runs[0].results[key].sample.contents():
                raise UsageError(
                    f"{'/'.join(key)} is not the same question in {runs[0].path} and {run.path}; run both on the same data"
                )
    return keys


# --- export ---


def export(paths: Sequence[Path], out: Path, plan: Plan, text_of: Callable[[str], str]) -> Exported:
    """Writes the sheets and the key of a study into the new folder `out`; the same runs and plan give the same bytes.

    `text_of` takes the rationale out of an output. Raises `UsageError` where the runs share nothing to rate, or `out` is in use.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder, and answers to the sheets in it would be lost; choose another --out")
    runs = load_runs(paths)
    keys = shared_items(runs, checked_only=plan.checked_only)
    if not keys:
        hint = "; --rationale-items all also takes items whose reference no person has checked" if plan.checked_only else ""
        raise UsageError(
            f"no item was answered by all {len(runs)} runs{' and has a checked reference' * plan.checked_only}{hint}"
        )
    items = make_items(runs, choose(keys, runs[0].results, plan), plan.seed, text_of)
    sheets = make_sheets(items, plan)
    key = make_key(runs, items, sheets, plan)
    out.mkdir(parents=True, exist_ok=True)
    for sheet in sheets:
        (out / f"{sheet.rater}.csv").write_text(sheet_csv(sheet, key["study"]), encoding="utf-8-sig", newline="")
        (out / f"{sheet.rater}.html").write_text(sheet_page(sheet, key["study"]), encoding="utf-8", newline="\n")
    write_json(key, out / KEY)
    return Exported(
        items=Counter(item.sample.language for item in items),
        offered=Counter(runs[0].results[each].sample.language for each in keys),
        raters=[sheet.rater for sheet in sheets],
        per_rater=[len(sheet.pages) for sheet in sheets],
    )


def choose(keys: Sequence[SampleKey], results: Mapping[SampleKey, SampleResult], plan: Plan) -> list[SampleKey]:
    """A sample drawn by the seed, languages together, each in the order of the data."""
    groups: dict[str, list[SampleKey]] = {}
    for key in keys:
        groups.setdefault(results[key].sample.language if plan.per_language else "", []).append(key)
    drawn = {
        key
        for name, members in groups.items()
        for key in random.Random(f"{plan.seed}/items/{name}").sample(members, min(plan.items, len(members)))
    }
    order = {language: i for i, language in enumerate(LANGUAGES)}
    return sorted((key for key in keys if key in drawn), key=lambda key: order.get(results[key].sample.language, len(order)))


def make_items(runs: Sequence[Run], keys: Sequence[SampleKey], seed: int, text_of: Callable[[str], str]) -> list[Item]:
    """The items with their candidates, whose letters are dealt to the runs anew for every item."""
    letters = [chr(ord("a") + i) for i in range(len(runs))]
    items = []
    for number, key in enumerate(keys, start=1):
        outputs = [run.results[key].output or "" for run in runs]
        dealt = random.Random(f"{seed}/letters/{number}").sample(range(len(runs)), len(runs))
        items.append(
            Item(
                id=f"q{number:03d}",
                task=key[0],
                sample=runs[0].results[key].sample,
                texts={letter: text_of(outputs[run]) for letter, run in zip(letters, dealt, strict=True)},
                runs=dict(zip(letters, dealt, strict=True)),
                outputs=outputs,
            )
        )
    return items


def make_sheets(items: Sequence[Item], plan: Plan) -> list[Sheet]:
    """A sheet per rater: items in an order of their own, the runs of an item in balanced order."""
    groups = {"": list(items)}
    if plan.own_raters:
        groups = {}
        for item in items:
            groups.setdefault(f"-{item.sample.language}", []).append(item)
    sheets = []
    for suffix, members in groups.items():
        for number in range(1, plan.raters + 1):
            rater = f"rater{number}{suffix}"
            generator = random.Random(f"{plan.seed}/sheet/{rater}")
            shuffled = generator.sample(members, len(members))
            orders = balanced_orders(len(shuffled), len(members[0].runs), generator)
            pages = []
            for item, order in zip(shuffled, orders, strict=True):
                candidate_of = {run: candidate for candidate, run in item.runs.items()}
                pages.append((item, [candidate_of[run] for run in order]))
            sheets.append(Sheet(rater=rater, pages=pages))
    return sheets


def balanced_orders(count: int, width: int, generator: random.Random) -> list[list[int]]:
    """`count` orders of 0..width-1 in which each stands equally often in each place, to within one: rows of Latin squares."""
    orders: list[list[int]] = []
    while len(orders) < count:
        names = generator.sample(range(width), width)
        orders += [names[shift:] + names[:shift] for shift in generator.sample(range(width), width)]
    return orders[:count]


def make_key(runs: Sequence[Run], items: Sequence[Item], sheets: Sequence[Sheet], plan: Plan) -> dict[str, Any]:
    """What unblinds the answers. `study` is a fingerprint of all of it, and tells nothing."""
    key: dict[str, Any] = {
        "plan": asdict(plan),
        "runs": [{"model": run.model, "fingerprint": run.fingerprint, "folder": str(run.path)} for run in runs],
        "items": [
            {
                "item": item.id,
                "task": item.task,
                "id": item.sample.id,
                "language": item.sample.language,
                "candidates": dict(item.runs),
                "outputs": [digest(output) for output in item.outputs],
            }
            for item in items
        ],
        "sheets": {sheet.rater: [[item.id, "".join(order)] for item, order in sheet.pages] for sheet in sheets},
    }
    contents = {**key, "runs": [run.fingerprint for run in runs]}
    # Begins with a letter: a spreadsheet would take some digests for numbers.
    return {"format": FORMAT, "kind": KEY_KIND, "study": f"s{digest(contents)[:12]}", **key}


def _shown(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def sheet_csv(sheet: Sheet, study: str) -> str:
    """A row per text; rating and place are to be filled in. No cell is a formula to a spreadsheet."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for item, order in sheet.pages:
        sample = item.sample
        options = "\n".join(f"{letter}. {text}" for letter, text in sample.options.items())
        about = (sample.language, sample.question, options, join_letters(sample.answer), sample.rationale)
        for candidate in order:
            row = (study, sheet.rater, item.id, *about, candidate, item.texts[candidate], "", "")
            writer.writerow([_cell(each) for each in row])
    return file.getvalue()


def _cell(text: str) -> str:
    return csv_cell(_shown(text))


def sheet_page(sheet: Sheet, study: str) -> str:
    """The rating page: one file, no network. What it shows lies in it as data, which only its own script may read."""
    data = {
        "format": FORMAT,
        "kind": ANSWERS_KIND,
        "study": study,
        "rater": sheet.rater,
        "items": [
            {
                "item": item.id,
                "language": item.sample.language,
                "name": LANGUAGES.get(item.sample.language, item.sample.language),
                "question": _shown(item.sample.question),
                "options": [[letter, _shown(text)] for letter, text in item.sample.options.items()],
                "answer": sorted(item.sample.answer),
                "reference": _shown(item.sample.rationale),
                "candidates": [{"candidate": each, "text": _shown(item.texts[each])} for each in order],
            }
            for item, order in sheet.pages
        ],
    }
    # Neither an end of the script element nor the start of a comment can stand in the data.
    safe = to_json(data).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    template = resources.files("mmedeval").joinpath("study_page.html").read_text(encoding="utf-8")
    style, script = (template.split(f"<{tag}>")[1].split(f"</{tag}>")[0] for tag in ("style", "script"))
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; base-uri 'none'; form-action 'none'; "
        "connect-src 'none'; frame-src 'none'; object-src 'none'"
    )
    return template.replace("{{POLICY}}", policy).replace("{{RATER}}", sheet.rater).replace("{{DATA}}", safe)


def _source(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


# --- import ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One rater's word on one item: by candidate, a rating from 1 to 5 and a place from 1 (the best)."""

    item: str
    ratings: Mapping[str, int]
    places: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Merged and unblinded answers: the content of `study.json`."""

    data: Mapping[str, Any]
    agreement: Mapping[str, Mapping[str, Figure]]


def import_answers(files: Sequence[Path], folder: Path, *, draws: int = 2000) -> Study:
    """Reads exported answers and filled sheets, checks them against the study in `folder`, merges and unblinds them.

    The key and earlier results among `files` are passed over, and so are sheets nobody wrote in. Raises `DataError`, naming file
    and place, for anything that does not fit.
    """
    key_file = folder if folder.is_file() else folder / KEY
    key = _read_object(key_file, KEY_KIND)
    with _intact(key_file):
        sheets = {str(rater): [str(item) for item, _ in pages] for rater, pages in key["sheets"].items()}
        items = {str(item["item"]): item for item in key["items"]}
        order = {
            name: [str(c) for c, _ in sorted(item["candidates"].items(), key=lambda pair: int(pair[1]))]
            for name, item in items.items()
        }
        study = str(key["study"])
    given: dict[str, dict[str, Answer]] = {}
    source: dict[str, Path] = {}
    for file in files:
        for rater, answer, place in _read_answers(file, study, sheets):
            if rater not in sheets:
                raise DataError(f"{place}: {rater!r} is no rater of this study; its raters are {', '.join(sheets)}")
            if answer is None:
                continue
            if answer.item not in sheets[rater]:
                raise DataError(f"{place}: the item {answer.item!r} is not on the sheet of {rater}; answer the sheet as it is")
            _check(answer, order[answer.item], place)
            if source.setdefault(rater, file) != file:
                raise DataError(f"{place}: {rater} has answered in {source[rater]} already; give one file of each rater")
            if answer.item in given.setdefault(rater, {}):
                raise DataError(f"{place}: {rater} answers {answer.item} twice; keep one of the answers")
            given[rater][answer.item] = answer
    if not given:
        raise DataError(
            f"{', '.join(map(str, files[:3]))}: no answers in there; export them in the rating page, or fill in the sheets"
        )
    ratings = {r: {i: [a.ratings[c] for c in order[i]] for i, a in answers.items()} for r, answers in given.items()}
    places = {r: {i: [a.places[c] for c in order[i]] for i, a in answers.items()} for r, answers in given.items()}
    ratings, places = ({rater: table[rater] for rater in sheets if rater in table} for table in (ratings, places))
    agreement = _agreement(ratings, places, items, draws)
    data = {
        "format": FORMAT,
        "kind": STUDY_KIND,
        "study": study,
        "runs": key["runs"],
        "items": [{name: value for name, value in item.items() if name != "candidates"} for item in items.values()],
        "raters": [{"rater": r, "asked": len(asked), "answered": len(ratings.get(r, {}))} for r, asked in sheets.items()],
        "judgements": [
            {"rater": rater, "item": item, "ratings": ratings[rater][item], "places": places[rater][item]}
            for rater in ratings
            for item in items
            if item in ratings[rater]
        ],
        "agreement": {part: {name: asdict(figure) for name, figure in figures.items()} for part, figures in agreement.items()},
    }
    return Study(data=data, agreement=agreement)


def _agreement(
    ratings: Mapping[str, Mapping[str, Sequence[int]]],
    places: Mapping[str, Mapping[str, Sequence[int]]],
    items: Mapping[str, Mapping[str, Any]],
    draws: int,
) -> dict[str, dict[str, Figure]]:
    """Per language, and over all items together where there are several."""
    by_language: dict[str, list[str]] = {}
    for name, item in items.items():
        if any(name in answered for answered in ratings.values()):
            by_language.setdefault(str(item["language"]), []).append(name)
    parts = (
        by_language if len(by_language) == 1 else {**by_language, "all": [each for part in by_language.values() for each in part]}
    )
    return {part: rater_agreement(ratings, places, members, draws=draws) for part, members in parts.items()}


def _check(answer: Answer, candidates: Sequence[str], place: str) -> None:
    """Raises `DataError` unless every candidate has a rating, and every place is given once."""
    unknown = sorted({*answer.ratings, *answer.places} - {*candidates})
    if unknown:
        raise DataError(f"{place}: {answer.item} has no text {unknown[0]!r}; its texts are {', '.join(sorted(candidates))}")
    for candidate in sorted(candidates):
        if candidate not in answer.ratings:
            raise DataError(f"{place}: text {candidate} of {answer.item} has no rating; rate every text of an item, or none")
        if candidate not in answer.places:
            raise DataError(f"{place}: the ranking of {answer.item} is incomplete: text {candidate} has no place")
        if answer.ratings[candidate] not in RATINGS:
            value = answer.ratings[candidate]
            raise DataError(f"{place}: the rating {value} of text {candidate} of {answer.item} is not one of 1 to 5")
        if not 1 <= answer.places[candidate] <= len(candidates):
            value = answer.places[candidate]
            raise DataError(
                f"{place}: the place {value} of text {candidate} of {answer.item} is not one of 1 to {len(candidates)}"
            )
    taken = Counter(answer.places.values())
    for number, times in taken.items():
        if times > 1:
            raise DataError(f"{place}: {answer.item} has {times} texts in place {number}; a ranking gives every place once")


def _read_answers(file: Path, study: str, sheets: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Answer | None, str]]:
    """Rater, answer (`None`: a file without any) and where it stands."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    if file.suffix.lower() in (".csv", ".tsv", ".txt"):
        yield from _read_sheet(file, raw, study)
        return
    data = _parse(file, raw)
    kind = data.get("kind")
    if kind in (KEY_KIND, STUDY_KIND):
        return
    if kind != ANSWERS_KIND:
        raise DataError(f"{file} holds no answers; give the files that the rating page exports, or filled sheets (.csv)")
    _check_origin(f"{file}", data, study)
    rater, answers = data.get("rater"), data.get("answers")
    if not isinstance(rater, str) or not isinstance(answers, list):
        raise DataError(f"{file} is damaged: no rater, or no list of answers; export it again")
    if not answers:
        yield rater, None, f"{file}"
    for number, each in enumerate(answers, start=1):
        place = f"{file}: answer {number}"
        item, texts = (each.get("item"), each.get("candidates")) if isinstance(each, dict) else (None, None)
        if not isinstance(item, str) or not isinstance(texts, dict) or not all(isinstance(text, dict) for text in texts.values()):
            raise DataError(f"{place} is damaged: no item, or no candidates; export it again")
        values: dict[str, dict[str, int]] = {"rating": {}, "place": {}}
        for candidate, text in texts.items():
            for name, found in values.items():
                value = text.get(name)
                if value is not None:
                    found[candidate] = _whole(value, f"{place}: the {name} of text {printable(candidate)} of {printable(item)}")
        yield rater, Answer(item=item, ratings=values["rating"], places=values["place"]), place


def _read_sheet(file: Path, raw: bytes, study: str) -> Iterator[tuple[str, Answer | None, str]]:
    """A filled sheet, as saved by any spreadsheet: commas, semicolons or tabs."""
    try:
        text = raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not in UTF-8; save it as CSV UTF-8") from error
    header = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    rows: dict[tuple[str, str], list[tuple[int, str, dict[str, str]]]] = {}
    empty = False
    longest = csv.field_size_limit(max(len(text), 1))
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        missing = [name for name in ("study", "rater", "item", "candidate", "rating", "place") if name not in names]
        if missing:
            raise DataError.at(file, 1, f"there is no column {missing[0]!r}; fill in the sheet as it was exported")
        for row in reader:
            values = dict(zip(names, (cell.strip() for cell in row), strict=False))
            if not any(row):
                continue
            _check_origin(f"{file}:{reader.line_num}", {"format": FORMAT, **values}, study)
            if values.get("rating") or values.get("place"):
                found = rows.setdefault((values.get("rater", ""), values.get("item", "")), [])
                found.append((reader.line_num, values.get("candidate", ""), values))
            else:
                empty = True
    except csv.Error as error:
        raise DataError.at(file, reader.line_num, f"not a line of a sheet ({error}); save it as CSV UTF-8") from error
    finally:
        csv.field_size_limit(longest)
    for (rater, item), given in rows.items():
        ratings: dict[str, int] = {}
        places: dict[str, int] = {}
        for line, candidate, values in given:
            if candidate in ratings or candidate in places:
                raise DataError.at(file, line, f"text {candidate!r} of {item} is there twice; keep one of its lines")
            for name, table in (("rating", ratings), ("place", places)):
                if values.get(name):
                    table[candidate] = _whole(values[name], f"{file}:{line}: the {name} of text {candidate} of {item}")
        yield rater, Answer(item=item, ratings=ratings, places=places), f"{file}:{given[0][0]}"
    if not rows and not empty:
        raise DataError(f"{file} holds no lines; fill in the sheet as it was exported")


def _check_origin(place: str, data: Mapping[str, Any], study: str) -> None:
    if data.get("format") != FORMAT:
        raise DataError(f"{place}: format {data.get('format')!r}; this version reads format {FORMAT}")
    if data.get("study") != study:
        raise DataError(
            f"{place}: these are answers to the study {data.get('study')!r}, not to {study!r}; name its folder with --study"
        )


def _whole(value: object, what: str) -> int:
    """A whole number, also as a spreadsheet may write it: 4.0, or 4,0."""
    if isinstance(value, str):
        number, point, rest = value.replace(",", ".").partition(".")
        if number.isascii() and number.isdigit() and len(number) < 6 and not rest.strip("0") and (rest or not point):
            return int(number)
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    raise DataError(f"{what} is {printable(repr(value))}, no whole number")


def _read_object(file: Path, kind: str) -> dict[str, Any]:
    try:
        raw = file.read_bytes()
    except FileNotFoundError as error:
        made_by = "export" if kind == KEY_KIND else "import"
        raise DataError(f"{file} does not exist; it is written by mmedeval human {made_by}") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    data = _parse(file, raw)
    if data.get("kind") != kind or data.get("format") != FORMAT:
        raise DataError(f"{file} is not a file of the kind {kind}, format {FORMAT}")
    return data


def _parse(file: Path, raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise DataError(f"{file} is not a JSON object")
    return data


@contextmanager
def _intact(file: Path) -> Iterator[None]:
    """Turns what a changed file leads to into a sentence."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{file} is damaged ({type(error).__name__}: {error}); restore it") from error


# --- metrics against people ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Metrics held against a study. `left_out[metric]` items lack a value of that metric and are left out for all metrics."""

    comparison: Comparison
    items: Mapping[str, int]
    left_out: Mapping[str, int]
    study: str
    raters: int
    models: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": "mmedeval-agreement",
            "study": self.study,
            "models": list(self.models),
            "raters": self.raters,
            "items": dict(self.items),
            "left_out": dict(self.left_out),
            "draws": self.comparison.draws,
            "best": self.comparison.best,
            "metrics": {
                metric: {
                    "figures": {
                        language: {name: asdict(figure) for name, figure in part.items()} for language, part in figures.items()
                    },
                    "behind_best": asdict(self.comparison.differences[metric]) if metric in self.comparison.differences else None,
                }
                for metric, figures in self.comparison.figures.items()
            },
        }

    def rows(self) -> Iterator[tuple[object, ...]]:
        """The figures as a table: metric, language, statistic, value, low, high, n."""
        yield "metric", "language", "statistic", "value", "low", "high", "n"
        for metric, by_language in self.comparison.figures.items():
            for language, part in by_language.items():
                for name, figure in part.items():
                    yield metric, language, name, figure.value, figure.low, figure.high, figure.n


def hold_against(paths: Sequence[Path], study_file: Path, metrics: Sequence[str] = (), *, draws: int = 2000) -> Agreement:
    """How well the stored metrics of the study's runs agree with its people; without `metrics`, all that every run has.

    Raises `UsageError` for a run that is not of the study or is missing, and for a metric that a run lacks; `DataError` for a
    damaged study or a run whose texts are not those that people saw.
    """
    data = _read_object(study_file, STUDY_KIND)
    with _intact(study_file):
        known = [(str(run["fingerprint"]), str(run["model"]), str(run["folder"])) for run in data["runs"]]
        items = {str(item["item"]): item for item in data["items"]}
        judgements = [
            (str(each["item"]), [int(v) for v in each["ratings"]], [int(v) for v in each["places"]], str(each["rater"]))
            for each in data["judgements"]
        ]
        keys = {name: (str(item["task"]), str(item["id"])) for name, item in items.items()}
        languages = {name: str(item["language"]) for name, item in items.items()}
        outputs = {name: [str(each) for each in item["outputs"]] for name, item in items.items()}
        for name, ratings, places, _ in judgements:
            if not len(ratings) == len(places) == len(outputs[name]) == len(known):
                raise ValueError(f"{name} is not judged for every run")
    runs = _in_order(load_runs(paths), known, study_file)
    said: dict[str, list[tuple[list[int], list[int]]]] = {}
    for name, ratings, places, _ in judgements:
        said.setdefault(name, []).append((ratings, places))
    judged = [name for name in items if name in said]
    for name in judged:
        for run, expected in zip(runs, outputs[name], strict=True):
            result = run.results.get(keys[name])
            if result is None or digest(result.output) != expected:
                raise DataError(
                    f"{run.path}: the text of {'/'.join(keys[name])} is not the one that people saw; restore the run folder"
                )
    chosen = tuple(dict.fromkeys(metrics)) or _common_metrics(runs, [keys[name] for name in judged])
    values, left_out = _values(runs, chosen, keys, judged)
    whole = [name for name in judged if name in values]
    if not whole:
        raise UsageError(f"no judged item has a value of every metric and run; leave out {' or '.join(left_out)}")
    parts = list(dict.fromkeys(languages[name] for name in whole))
    comparison = compare_with_people(
        {part: [_mean_judgement(said[name]) for name in whole if languages[name] == part] for part in parts},
        {
            metric: {part: [values[name][metric] for name in whole if languages[name] == part] for part in parts}
            for metric in chosen
        },
        draws=draws,
    )
    return Agreement(
        comparison=comparison,
        items=Counter(languages[name] for name in whole),
        left_out=left_out,
        study=str(data.get("study")),
        raters=len({rater for *_, rater in judgements}),
        models=[run.model for run in runs],
    )


def _in_order(runs: Sequence[Run], known: Sequence[tuple[str, str, str]], study_file: Path) -> list[Run]:
    by_fingerprint = {run.fingerprint: run for run in runs}
    for run in runs:
        if run.fingerprint not in [fingerprint for fingerprint, *_ in known]:
            raise UsageError(
                f"{run.path} is not one of the runs of {study_file}; they are {', '.join(folder for *_, folder in known)}"
            )
    for fingerprint, model, folder in known:
        if fingerprint not in by_fingerprint:
            raise UsageError(f"the run of {model} (then in {folder}) is missing; name all runs of the study")
    return [by_fingerprint[fingerprint] for fingerprint, *_ in known]


def _common_metrics(runs: Sequence[Run], keys: Sequence[SampleKey]) -> tuple[str, ...]:
    """The metrics of which every run has a value for some judged item."""
    by_run = [dict.fromkeys(name for key in keys for name in run.results[key].scores) for run in runs]
    common = tuple(name for name in by_run[0] if all(name in names for names in by_run[1:]))
    if not common:
        raise UsageError(f"the runs share no metric; add some, as in: mmedeval rescore {runs[0].path} --metrics bleu1,rouge1")
    return common


def _values(
    runs: Sequence[Run], metrics: Sequence[str], keys: Mapping[str, SampleKey], judged: Iterable[str]
) -> tuple[dict[str, dict[str, list[float]]], dict[str, int]]:
    """`[item][metric]` -> a value per run, of the items that have them all; and how many items lack each metric."""
    found: dict[str, dict[str, list[float]]] = {}
    left_out: Counter[str] = Counter()
    there: Counter[tuple[str, int]] = Counter()
    for name in judged:
        row: dict[str, list[float]] = {}
        for metric in metrics:
            values = [run.results[keys[name]].scores.get(metric) for run in runs]
            there.update((metric, i) for i, value in enumerate(values) if value is not None)
            whole = [float(value) for value in values if value is not None]
            if len(whole) == len(runs):
                row[metric] = whole
            else:
                left_out[metric] += 1
        if len(row) == len(metrics):
            found[name] = row
    for metric in metrics:
        for i, run in enumerate(runs):
            if not there[metric, i]:
                raise UsageError(
                    f"{run.path} has no {metric} of the judged items; run: mmedeval rescore {run.path} --metrics {metric}"
                )
    return found, dict(left_out)


def _mean_judgement(said: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Judged:
    """The plain mean over the raters who judged the item."""
    ratings = [sum(column) / len(said) for column in zip(*(each for each, _ in said), strict=True)]
    places = [sum(column) / len(said) for column in zip(*(each for _, each in said), strict=True)]
    return Judged(places=tuple(places), ratings=tuple(ratings))


def write_json(value: Mapping[str, Any], file: Path) -> None:
    file.write_text(to_json(value, indent=1) + "\n", encoding="utf-8", newline="\n")


def write_agreement(agreement: Agreement, out: Path) -> bool:
    """Writes `agree.json`, `agree.csv` and the plots into the folder `out`; `False` where the plots need matplotlib."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(agreement.as_json(), out / "agree.json")
    with (out / "agree.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in agreement.rows():
            writer.writerow([_cell(each) if isinstance(each, str) else each for each in row])
    return plot(agreement, [out / "agree.png", out / "agree.svg"])


# --- the plot ---


def plot(agreement: Agreement, files: Sequence[Path]) -> bool:
    """Draws every metric's tau with its interval, the best on top, to PNG or SVG files. `False` where matplotlib is missing."""
    try:
        # By name: the core needs none of what only a picture needs.
        matplotlib, figures = importlib.import_module("matplotlib"), importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        return False
    by_metric = agreement.comparison.figures
    overall = AVERAGE if len(agreement.items) > 1 else next(iter(agreement.items))
    known = {metric: parts[overall]["tau"] for metric, parts in by_metric.items()}
    ordered = sorted(known, key=lambda metric: -2.0 if known[metric].value is None else known[metric].value or 0.0)
    # The same figures give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": agreement.study, "svg.fonttype": "none", "font.family": "DejaVu Sans"}):
        figure = figures.Figure(figsize=(7.5, 1.6 + 0.42 * len(ordered)), layout="constrained")
        axes = figure.subplots()
        marks = "osD^vP"
        if len(agreement.items) > 1:
            for i, language in enumerate(agreement.items):
                points = [(by_metric[metric][language]["tau"].value, row) for row, metric in enumerate(ordered)]
                xs, ys = [x for x, _ in points if x is not None], [y for x, y in points if x is not None]
                axes.scatter(xs, ys, s=22, alpha=0.55, marker=marks[i % 6], label=LANGUAGES.get(language, language), zorder=2)
        for row, metric in enumerate(ordered):
            value = known[metric]
            if value.value is None:
                continue
            if value.low is not None and value.high is not None:
                axes.plot([value.low, value.high], [row, row], color="#1f3a5f", linewidth=2.2, solid_capstyle="butt", zorder=3)
            axes.plot([value.value], [row], "o", color="#1f3a5f", markersize=7, zorder=4)
        axes.axvline(0, color="#999999", linewidth=0.8, zorder=1)
        axes.set_yticks(range(len(ordered)), [printable(metric).replace("$", r"\$") for metric in ordered])
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        axes.set_xlabel(
            f"Kendall's tau with people, 95 % interval ({sum(agreement.items.values())} items, {agreement.raters} raters)"
        )
        axes.grid(axis="x", alpha=0.25)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        if len(agreement.items) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
        for file in files:
            figure.savefig(file, dpi=160, metadata={"Date": None} if file.suffix == ".svg" else {"Software": None})
    return True
