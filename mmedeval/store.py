"""The run folder: `plan.json`, `samples.jsonl` (appended as answers arrive), `record.json`; resumable, never overwritten."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, get_args

from mmedeval.errors import StoreError, UsageError
from mmedeval.types import Aggregate, RunRecord, Sample, SampleResult, Status, Usage, join_letters

FORMAT = 1
PLAN, SAMPLES, RUNTIME, RECORD = "plan.json", "samples.jsonl", "runtime.json", "record.json"
# Answers under other orders of the options stand apart: whoever reads the samples finds each item once, as it was given.
ROTATIONS = "rotations.jsonl"
RECORD_KEYS = (
    "plan", "protocol", "model", "tasks", "results", "counts", "usage", "consistency", "warnings", "determinism", "process",
)  # fmt: skip
LOCK = ".lock"
STATUSES = get_args(Status)


class RunFolder:
    """A folder held by one process for one plan, open for more answers.

    `identity` is what makes the run this run and not another: choices, and digests of model, data and prompts. A folder that
    holds another identity is refused, with the first differences named.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        self.path = path
        self.dropped_lines = 0
        # As JSON will give it back: a tuple, say, comes back as a list and would not compare equal.
        identity = json.loads(json.dumps(identity))
        with _told(path):
            path.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(path)
            self._lock = _lock(path)
            try:
                self._prepare(identity, plan)
                self.stored = {result.key: result for result in self._load(SAMPLES)}
                self.rotated = {(*result.key, result.rotation): result for result in self._load(ROTATIONS)}
                self._samples = _open_to_append(path / SAMPLES)
                self._rotations: IO[str] | None = None
            except BaseException:
                self._lock.close()
                raise

    def _prepare(self, identity: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        file = self.path / PLAN
        if file.exists():
            stored = _read_json(file)
            if not isinstance(stored.get("identity"), dict):
                raise StoreError(f"{file} is damaged: it tells no identity; restore it, or choose another folder with --out")
            different = list(_differences(stored["identity"], identity))
            if different:
                more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
                raise StoreError(
                    f"{self.path} holds another run: {'; '.join(different[:3])}{more}; choose another folder with --out"
                )
            return
        _write_atomic(file, json.dumps({"format": FORMAT, "identity": identity, "plan": plan}, ensure_ascii=False, indent=2))

    def _load(self, name: str) -> list[SampleResult]:
        """The answers that are there. A torn last line (the process was killed while writing) is cut off, to be redone."""
        file = self.path / name
        if not file.exists():
            return []
        whole = file.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            self.dropped_lines += 1
            with file.open("r+b") as handle:
                handle.truncate(end)
        return list(_parse_lines(file, whole[:end]))

    def find(self, key: tuple[str, str], rotation: int = 0) -> SampleResult | None:
        """The stored answer to a sample under one order of its options."""
        return self.rotated.get((*key, rotation)) if rotation else self.stored.get(key)

    @property
    def complete(self) -> bool:
        return (self.path / RECORD).exists()

    def append(self, result: SampleResult) -> None:
        """Stores one answer; when this returns, a kill of the process no longer loses it."""
        with _told(self.path, kept=self._kept):
            if not result.rotation:
                handle = self._samples
            elif self._rotations is None:
                handle = self._rotations = _open_to_append(self.path / ROTATIONS)
            else:
                handle = self._rotations
            handle.write(json.dumps(sample_to_json(result), ensure_ascii=False) + "\n")
            handle.flush()
        if result.rotation:
            self.rotated[*result.key, result.rotation] = result
        else:
            self.stored[result.key] = result

    @property
    def _kept(self) -> int:
        return len(self.stored) + len(self.rotated)

    def note_runtime(self, runtime: Mapping[str, Any]) -> None:
        """Keeps what the backend says of itself: the process that writes the record need not be the one that answered."""
        with _told(self.path, kept=self._kept):
            _write_atomic(self.path / RUNTIME, json.dumps(runtime, ensure_ascii=False, indent=2) + "\n")

    def runtime(self) -> dict[str, Any]:
        file = self.path / RUNTIME
        return _read_json(file) if file.exists() else {}

    def finish(self, record: Mapping[str, Any], results: Sequence[SampleResult], rotated: Sequence[SampleResult] = ()) -> None:
        """Replaces the samples by the same in the plan's order with their scores, and writes the record, each in one step."""
        with _told(self.path, kept=self._kept):
            self._close_files()
            _write_results(self.path, record, results, rotated)

    def close(self) -> None:
        with _told(self.path, kept=self._kept):
            try:
                self._close_files()
            finally:
                self._lock.close()

    def _close_files(self) -> None:
        try:
            self._samples.close()
        finally:
            if self._rotations is not None:
                self._rotations.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            self.close()
            return
        # What broke the run is told; a second error from flushing to the same full disk would only hide it.
        with suppress(StoreError):
            self.close()


def refuse_own_file(file: Path, option: str) -> None:
    """Raises `UsageError` where what is to be written would take the place of a run's own file."""
    if file.name in (PLAN, SAMPLES, RUNTIME, RECORD, ROTATIONS) and (file.parent / PLAN).exists():
        raise UsageError(f"{file} is a part of a run, which would be lost; choose another place with {option}")


def read_record(path: Path) -> dict[str, Any]:
    """`record.json` of a finished run. Raises `StoreError` for a folder that holds none."""
    file = path / RECORD
    if file.exists():
        record = _read_json(file)
        if record.get("format") != FORMAT:
            raise StoreError(
                f"{file} has format {record.get('format')!r}; this version reads format {FORMAT}; read it with the version that "
                "wrote it, or run again"
            )
        missing = [key for key in RECORD_KEYS if key not in record]
        if missing:
            raise StoreError(f"{file} is damaged: it lacks {missing[0]!r}; restore it, or run again with another --out")
        return record
    if (path / PLAN).exists():
        raise StoreError(f"the run in {path} is not finished; the same mmedeval run command goes on where it stopped")
    raise StoreError(f"{path} is no run folder: it holds no {PLAN}; name the folder that mmedeval run printed")


def read_samples(path: Path) -> tuple[SampleResult, ...]:
    """All stored answers of a run, finished or not; of a sample that was answered twice, the later one."""
    file = path / SAMPLES
    if not file.exists():
        raise StoreError(f"{path} holds no {SAMPLES}; name the folder that mmedeval run printed")
    whole = _read_bytes(file)
    results = {result.key: result for result in _parse_lines(file, whole[: whole.rfind(b"\n") + 1])}
    return tuple(results.values())


def read_rotations(path: Path) -> tuple[SampleResult, ...]:
    """The stored answers under other orders of the options; none for a run without `--rotations`."""
    file = path / ROTATIONS
    if not file.exists():
        return ()
    whole = _read_bytes(file)
    results = {(*each.key, each.rotation): each for each in _parse_lines(file, whole[: whole.rfind(b"\n") + 1])}
    return tuple(results.values())


def rewrite(path: Path, record: Mapping[str, Any], results: Sequence[SampleResult], rotated: Sequence[SampleResult] = ()) -> None:
    """Stores new scores of a finished run. Raises `StoreError` while another process holds the folder."""
    with _told(path), _lock(path):
        _write_results(path, record, results, rotated)


def record_from_json(data: Mapping[str, Any]) -> RunRecord:
    try:
        return RunRecord(data=data, aggregates=tuple(map(figure_from_json, data["results"])))
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"{RECORD} is damaged: not all its results are figures ({error}); restore it, or run again with another --out"
        ) from error


def figure_from_json(row: Mapping[str, Any]) -> Aggregate:
    """A figure as it is stored. Raises `TypeError` and `ValueError` for what is none."""
    figure = Aggregate(**row)
    for name in ("metric", "task", "language"):
        if not isinstance(getattr(figure, name), str):
            raise TypeError(f"{name} is {getattr(figure, name)!r}, no text")
    for name in ("n", "scored", "unread", "failed", "unscored"):
        if type(getattr(figure, name)) is not int or getattr(figure, name) < 0:
            raise ValueError(f"{name} is {getattr(figure, name)!r}, no count")
    for name in ("value", "low", "high", "chance", "scale"):
        number = getattr(figure, name)
        if number is None and name != "scale":
            continue
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < math.inf:
            raise ValueError(f"{name} is {number!r}, no number")
    return figure


def sample_to_json(result: SampleResult) -> dict[str, Any]:
    """One line of `samples.jsonl`. Numbers of the model are kept as they are; absent things are left out."""
    line: dict[str, Any] = {"task": result.task, **result.sample.contents(), "status": result.status}
    optional = {
        "prediction": None if result.prediction is None else sorted(result.prediction),
        "prompt": result.prompt,
        "output": result.output,
        "finish_reason": result.finish_reason,
        "logprobs": None if result.logprobs is None else dict(result.logprobs),
        "margin": result.margin,
        "failure": result.failure,
    }
    line |= {name: value for name, value in optional.items() if value is not None}
    line["usage"] = asdict(result.usage)
    if result.scores:
        line["scores"] = dict(result.scores)
    if result.rotation:
        line["rotation"] = result.rotation
    return line


def sample_from_json(line: Mapping[str, Any]) -> SampleResult:
    """A sample as `sample_to_json` wrote it. Raises `KeyError`, `TypeError` and `ValueError` else."""
    sample = Sample(
        id=line["id"],
        language=line["language"],
        question=line["question"],
        options=line["options"],
        answer=frozenset(line["answer"]),
        rationale=line["rationale"],
        meta=line["meta"],
    )
    prediction = line.get("prediction")
    result = SampleResult(
        task=line["task"],
        sample=sample,
        status=line["status"],
        prediction=None if prediction is None else frozenset(prediction),
        prompt=line.get("prompt"),
        output=line.get("output"),
        finish_reason=line.get("finish_reason"),
        logprobs=line.get("logprobs"),
        margin=line.get("margin"),
        failure=line.get("failure"),
        usage=Usage(**line["usage"]),
        scores=line.get("scores", {}),
        rotation=line.get("rotation", 0),
    )
    _check(result)
    return result


def _check(result: SampleResult) -> None:
    """Raises as above: an edited line is to be told where it is read, not to fail where it is used."""
    sample, usage, scores, logprobs = result.sample, result.usage, result.scores, result.logprobs or {}
    _refuse_other("an object", (sample.options, sample.meta, scores, logprobs), {dict})
    named = (result.task, sample.id, sample.language, sample.question, sample.rationale)
    chosen = (*sample.options.values(), *sample.answer, *(result.prediction or ()))
    _refuse_other("a text", (*named, *chosen), {str})
    _refuse_other("a text", (result.prompt, result.output, result.finish_reason, result.failure), {str, type(None)})
    counts = (usage.tokens_in, usage.tokens_out, usage.tokens_thinking, usage.tokens_cached, usage.shots_dropped, result.rotation)
    maybe = [each for each in (usage.cost, usage.bos, result.margin) if each is not None]
    numbers = (*counts, usage.seconds, *maybe, *scores.values(), *logprobs.values())
    _refuse_other("a number", numbers, {int, float})
    # By comparing, as a whole number may be larger than any float.
    if not all(-math.inf < each < math.inf for each in numbers):
        raise ValueError("it holds a number that is none, or without an end")
    if result.status not in STATUSES:
        raise ValueError(f"the status {result.status!r} is none")
    chosen_letters = result.prediction or frozenset()
    if not chosen_letters <= sample.options.keys() or (result.status == "ok" and not chosen_letters):
        raise ValueError(f"the prediction {join_letters(chosen_letters)!r} is not of the options")


def _refuse_other(kind: str, values: Collection[object], allowed: Set[type]) -> None:
    # A set of types, as this is asked of every line of every run that is read.
    if not {*map(type, values)} <= allowed:
        raise TypeError(f"{next(each for each in values if type(each) not in allowed)!r} is not {kind}")


def _parse_lines(file: Path, content: bytes) -> Iterator[SampleResult]:
    # Split at "\n" alone: a model may write other line ends, and JSON leaves U+2028 as it is.
    for number, raw in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            yield sample_from_json(json.loads(raw))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreError(
                f"{file}:{number}: not a line of a run ({type(error).__name__}: {error}); restore the file, or start again in "
                "another folder with --out"
            ) from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(_read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{file} is damaged: {error}; restore it, or start again in another folder with --out") from error
    if not isinstance(data, dict):
        raise StoreError(f"{file} is damaged: not an object; restore it, or start again in another folder with --out")
    return data


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}") from error


def _write_results(
    path: Path, record: Mapping[str, Any], results: Iterable[SampleResult], rotated: Sequence[SampleResult]
) -> None:
    for name, group in ((SAMPLES, results), *([(ROTATIONS, rotated)] if rotated else [])):
        _write_atomic(path / name, "".join(json.dumps(sample_to_json(each), ensure_ascii=False) + "\n" for each in group))
    _write_atomic(path / RECORD, json.dumps(record, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def _open_to_append(file: Path) -> IO[str]:
    return file.open("a", encoding="utf-8", errors="surrogatepass", newline="\n")


def _write_atomic(file: Path, text: str) -> None:
    new = file.with_name(file.name + ".new")
    with new.open("w", encoding="utf-8", errors="surrogatepass", newline="\n") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    new.replace(file)


def _lock(path: Path) -> IO[str]:
    """A lock that the system drops when the process ends, however it ends."""
    handle = (path / LOCK).open("a", encoding="utf-8")
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
            raise
        raise StoreError(
            f"another mmedeval process is working in {path}; wait for it, or choose another folder with --out"
        ) from error
    return handle


@contextmanager
def _told(path: Path, kept: int | None = None) -> Iterator[None]:
    """Turns what the file system refuses into one sentence with the next step."""
    try:
        yield
    except OSError as error:
        safe = f"; {kept} answers are safe, the same command goes on from there" if kept is not None else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(f"no space left to write in {path}; free some, or choose another folder with --out{safe}") from error
        raise StoreError(f"cannot write in {path}: {error.strerror or error}; choose another folder with --out{safe}") from error


def _refuse_foreign(path: Path) -> None:
    """A folder with other things in it and no plan is somebody's: nothing is written there, not even a lock."""
    names = sorted(entry.name for entry in path.iterdir() if entry.name not in (LOCK, f"{PLAN}.new"))
    if names and PLAN not in names:
        raise StoreError(f"{path} is no run folder and is not empty (it holds {names[0]!r}); choose another folder with --out")


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*stored, *wanted}):
        old, new = stored.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key} was {_short(old)}, is now {_short(new)}"


def _short(value: object) -> str:
    text = join_letters(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
