"""A run from plan to record: nothing is asked twice, nothing is lost, and nothing is scored in silence."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmedeval import Answer, BackendError, MetricSpec, PluginError, Prompt, StoreError, UnknownNameError, UsageError, hookimpl
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import RunStopped, prepare, rescore, run
from mmedeval.store import read_record, read_samples
from mmedeval.testing import ScriptedBackend, StaticTask, make_sample, prefer
from mmedeval.types import (
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    Response,
    RunPlan,
    RunRecord,
    Sample,
    SampleResult,
    Usage,
)

PLAN = RunPlan(model="scripted:any", tasks=("static",))
# Right answers A, B, C, D, A, B.
SAMPLES = [make_sample(i, answer="ABCDAB"[i - 1]) for i in range(1, 7)]


def offer(backend: ScriptedBackend | None = None, *tasks: StaticTask, **hooks: Any) -> Catalog:
    """A catalogue with this backend (as `scripted:any`), these tasks (default: the six samples), and these hooks."""
    given = tasks or (StaticTask(test=SAMPLES, train=[make_sample(i, answer="B") for i in range(11, 15)]),)
    plugin = SimpleNamespace(mmedeval_tasks=hookimpl(lambda: [task.spec() for task in given]))
    if backend is not None:
        plugin.mmedeval_backends = hookimpl(lambda: [backend.spec()])
    for name, function in hooks.items():
        setattr(plugin, name, hookimpl(function))
    return Catalog(make_host(extra=[plugin]))


def number(request: GenerateRequest | LoglikelihoodRequest) -> int:
    return int(request.id.rpartition("-")[2])


def say(texts: dict[int, str | Failure]) -> ScriptedBackend:
    """A backend that writes a given text, or fails, per sample."""

    def write(request: GenerateRequest) -> Generation | Failure:
        text = texts.get(number(request), "Answer: A")
        return replace(text, request_id=request.id) if isinstance(text, Failure) else Generation(request_id=request.id, text=text)

    return ScriptedBackend(write=write)


def failure(message: str = "gone") -> Failure:
    return Failure(request_id="", kind="backend", message=message)


def stopping_after(count: int) -> Callable[..., None]:
    """An event hook that stops the run as Ctrl-C does, when so many answers were stored."""
    seen: list[str] = []

    def mmedeval_sample_finished(result: SampleResult) -> None:
        seen.append(result.sample.id)
        if len(seen) == count:
            raise KeyboardInterrupt

    return mmedeval_sample_finished


def figure(record: RunRecord, metric: str, task: str = "static") -> Any:
    (found,) = [a for a in record.aggregates if (a.metric, a.task) == (metric, task)]
    return found


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


# --- what is counted as what ---


def test_unread_is_not_wrong_and_failed_is_not_wrong_except_in_the_strict_figure(tmp_path: Path) -> None:
    backend = say({1: "Answer: A", 2: "Answer: C", 3: "I would rather not say.", 4: failure(), 5: "Answer: A", 6: ""})
    record, _ = run(PLAN, offer(backend), tmp_path / "run")
    accuracy, strict = figure(record, "accuracy"), figure(record, "accuracy_strict")
    assert (accuracy.value, accuracy.scored, accuracy.n) == (2 / 3, 3, 6)
    assert (strict.value, strict.scored, strict.n) == (2 / 6, 6, 6)
    assert (accuracy.unread, accuracy.failed) == (strict.unread, strict.failed) == (2, 1)
    counts = record.data["counts"]
    assert {name: counts[name] for name in ("n", "ok", "unread", "failed", "right")} == {
        "n": 6, "ok": 3, "unread": 2, "failed": 1, "right": 2,
    }  # fmt: skip
    assert counts["failures"] == {"backend": 1}
    by_id = {result.sample.id: result for result in read_samples(tmp_path / "run")}
    assert [by_id[f"test-{i}"].status for i in range(1, 7)] == ["ok", "ok", "unread", "failed", "ok", "unread"]
    assert by_id["test-4"].failure == "backend: gone"
    assert "accuracy" not in by_id["test-3"].scores
    assert by_id["test-3"].scores["accuracy_strict"] == 0


def test_a_run_in_which_nothing_was_answered_has_no_accuracy_rather_than_zero(tmp_path: Path) -> None:
    record, path = run(PLAN, offer(say(dict.fromkeys(range(1, 7), failure()))), tmp_path / "run")
    assert figure(record, "accuracy").value is None
    assert figure(record, "accuracy_strict").value == 0
    assert read_record(path) == record.data


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_loglikelihoods_that_are_no_numbers_are_no_answer(tmp_path: Path, value: float) -> None:
    def score(request: LoglikelihoodRequest) -> Loglikelihoods:
        return Loglikelihoods(request_id=request.id, values=(value,) * len(request.answers))

    record, path = run(PLAN, offer(ScriptedBackend(score=score)), tmp_path / "run")
    assert record.data["counts"]["ok"] == 0
    assert figure(record, "accuracy").value is None
    for line in (path / "samples.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


# --- resuming ---


def test_failures_are_asked_again_when_an_unfinished_run_goes_on_and_answers_are_not(tmp_path: Path) -> None:
    first = say({1: failure(), 3: failure()})
    with pytest.raises(RunStopped, match=r"2 of 6 answered; the same command goes on"):
        run(PLAN, offer(first, mmedeval_sample_finished=stopping_after(4)), tmp_path / "run")
    assert first.closed
    second = say({3: failure("again")})
    totals: list[int] = []

    def mmedeval_run_started(total: int) -> None:
        totals.append(total)

    record, path = run(PLAN, offer(second, mmedeval_run_started=mmedeval_run_started), tmp_path / "run")
    assert second.asked == [f"static/test-{i}" for i in (5, 6, 1, 3)]
    assert totals == [4]
    assert (record.data["counts"]["ok"], record.data["counts"]["failed"]) == (5, 1)
    assert [(result.sample.id, result.status) for result in read_samples(path)] == [
        (f"test-{i}", "failed" if i == 3 else "ok") for i in range(1, 7)
    ]


@pytest.mark.parametrize("stop", range(1, 6))
def test_a_run_that_was_stopped_anywhere_ends_in_the_same_record(tmp_path: Path, stop: int) -> None:
    texts: dict[int, str | Failure] = {2: "nothing", 4: failure(), 5: "Answer: \ud800 B\u2028"}
    whole, _ = run(PLAN, offer(say(texts)), tmp_path / "whole")
    with pytest.raises(RunStopped):
        run(PLAN, offer(say(texts), mmedeval_sample_finished=stopping_after(stop)), tmp_path / "cut")
    resumed, _ = run(PLAN, offer(say(texts)), tmp_path / "cut")
    own = {"started", "finished", "process"}
    assert {k: v for k, v in resumed.data.items() if k not in own} == {k: v for k, v in whole.data.items() if k not in own}
    assert contents(tmp_path / "cut")["samples.jsonl"] == contents(tmp_path / "whole")["samples.jsonl"]
    assert contents(tmp_path / "cut")["plan.json"] == contents(tmp_path / "whole")["plan.json"]


def test_a_torn_last_line_is_asked_again_and_told(tmp_path: Path) -> None:
    with pytest.raises(RunStopped):
        run(PLAN, offer(say({}), mmedeval_sample_finished=stopping_after(3)), tmp_path / "run")
    samples = tmp_path / "run" / "samples.jsonl"
    samples.write_bytes(samples.read_bytes()[:-20])
    backend = say({})
    _, path = run(PLAN, offer(backend), tmp_path / "run")
    assert backend.asked == [f"static/test-{i}" for i in (3, 4, 5, 6)]
    assert read_record(path)["process"] == {"answers_found": 2, "torn_lines": 1}


def test_a_finished_run_is_shown_again_without_asking_the_model(tmp_path: Path) -> None:
    first, path = run(PLAN, offer(say({2: failure()})), tmp_path / "run")
    before = contents(path)
    backend = say({})
    events: list[str] = []
    catalog = offer(
        backend,
        mmedeval_run_started=lambda: events.append("started"),
        mmedeval_run_finished=lambda: events.append("finished"),
    )
    again, same = run(PLAN, catalog, tmp_path / "run")
    assert (backend.asked, events) == ([], [])
    assert (again, same) == (first, path)
    assert contents(path) == before


def test_the_same_plan_finds_its_folder_again_and_another_plan_gets_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, first = run(PLAN, offer(say({})))
    _, again = run(PLAN, offer(say({})))
    _, other = run(replace(PLAN, seed=1), offer(say({})))
    assert first == again != other
    assert first.parent == Path("runs")
    assert "static" in first.name


def test_a_folder_of_another_plan_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    _, path = run(PLAN, offer(say({})), tmp_path / "run")
    before = contents(path)
    backend = say({})
    with pytest.raises(StoreError, match=r"holds another run: shots was 0, is now 2"):
        run(replace(PLAN, shots=2), offer(backend), path)
    assert backend.asked == []
    assert contents(path) == before


# --- backends and metrics that break the rules ---


def broken(change: Callable[[list[Generation | Failure]], list[Generation | Failure]]) -> ScriptedBackend:
    """A backend whose list of responses is changed before it is given."""

    class Broken(ScriptedBackend):
        def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
            yield from change(list(super().generate(requests)))

    return Broken(write=lambda request: Generation(request_id=request.id, text="Answer: A"))


def another(response: Response, request_id: str) -> Generation:
    assert isinstance(response, Generation)
    return replace(response, request_id=request_id)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda given: [*given, given[2]], r"answered 'static/test-3', which was not asked or is answered already"),
        (lambda given: [another(given[0], "static/test-99"), *given], r"answered 'static/test-99', which was not asked"),
        (lambda given: given[:-2], r"gave no answer to 2 requests, the first is 'static/test-5'"),
        (lambda given: [], r"gave no answer to 6 requests, the first is 'static/test-1'"),
    ],
    ids=["twice", "unknown", "some missing", "none"],
)
def test_a_backend_that_does_not_answer_each_request_once_is_told(
    tmp_path: Path, change: Callable[[list[Generation | Failure]], list[Generation | Failure]], sentence: str
) -> None:
    with pytest.raises(PluginError, match=sentence):
        run(PLAN, offer(broken(change)), tmp_path / "run")
    assert not (tmp_path / "run" / "record.json").exists()
    record, _ = run(PLAN, offer(say({})), tmp_path / "run")
    assert record.data["counts"]["ok"] == 6


def test_a_backend_that_answers_what_is_stored_already_is_told_and_the_stored_answer_stays(tmp_path: Path) -> None:
    with pytest.raises(RunStopped):
        run(PLAN, offer(say({1: "Answer: C"}), mmedeval_sample_finished=stopping_after(5)), tmp_path / "run")
    with pytest.raises(PluginError, match="static/test-1"):
        run(PLAN, offer(broken(lambda given: [another(given[0], "static/test-1")])), tmp_path / "run")
    assert read_samples(tmp_path / "run")[0].output == "Answer: C"


def test_a_run_that_ends_early_asks_no_more_while_its_error_is_still_looked_at(tmp_path: Path) -> None:
    ended: list[str] = []

    class Asking(ScriptedBackend):
        def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
            try:
                yield from super().generate(requests)
            finally:
                ended.append("asking")

        def close(self) -> None:
            ended.append("backend")

    backend = Asking(write=lambda request: Generation(request_id=request.id, text="Answer: A"))
    with pytest.raises(RunStopped):
        run(PLAN, offer(backend, mmedeval_sample_finished=stopping_after(2)), tmp_path / "run")
    assert ended == ["asking", "backend"]


def test_a_backend_that_breaks_keeps_what_it_had_answered(tmp_path: Path) -> None:
    def write(request: GenerateRequest) -> Generation:
        if number(request) == 4:
            raise ZeroDivisionError
        return Generation(request_id=request.id, text="Answer: A")

    backend = ScriptedBackend(write=write)
    with pytest.raises(ZeroDivisionError):
        run(PLAN, offer(backend), tmp_path / "run")
    assert backend.closed
    assert len(read_samples(tmp_path / "run")) == 3
    going_on = say({})
    run(PLAN, offer(going_on), tmp_path / "run")
    assert going_on.asked == [f"static/test-{i}" for i in (4, 5, 6)]


def test_loglikelihoods_that_do_not_fit_their_continuations_are_told(tmp_path: Path) -> None:
    backend = ScriptedBackend(score=lambda request: Loglikelihoods(request_id=request.id, values=(-1.0,)))
    with pytest.raises(PluginError, match="static/test-1 do not fit"):
        run(PLAN, offer(backend), tmp_path / "run")


@pytest.mark.parametrize(
    "values",
    [[1.0], [1.0] * 7, [math.nan] * 6, [math.inf] * 6, ["good"] * 6, [[1.0]] * 6],
    ids=["few", "many", "nan", "inf", "words", "lists"],
)
def test_a_metric_that_gives_no_fitting_scores_is_told_and_the_answers_stay(tmp_path: Path, values: list[Any]) -> None:
    spec = MetricSpec(name="odd", summary="", load=lambda: lambda results: values)
    with pytest.raises(PluginError, match="odd"):
        run(replace(PLAN, metrics=("odd",)), offer(say({}), mmedeval_metrics=lambda: [spec]), tmp_path / "run")
    assert len(read_samples(tmp_path / "run")) == 6


def test_numbers_of_another_kind_than_pythons_own_are_stored_as_plain_ones(tmp_path: Path) -> None:
    """As numpy's are, which JSON does not take."""

    def score(request: LoglikelihoodRequest) -> Loglikelihoods:
        return Loglikelihoods(request_id=request.id, values=tuple(Fraction(-1 - i, 2) for i in range(4)))

    spec = MetricSpec(name="half", summary="", load=lambda: lambda results: [Fraction(1, 2) for _ in results])
    catalog = offer(ScriptedBackend(score=score), mmedeval_metrics=lambda: [spec])
    record, path = run(replace(PLAN, metrics=("half",)), catalog, tmp_path / "run")
    assert figure(record, "half").value == 0.5
    first = read_samples(path)[0]
    assert (first.logprobs, first.scores["half"]) == ({"A": -0.5, "B": -1.0, "C": -1.5, "D": -2.0}, 0.5)


def test_loglikelihoods_that_are_not_even_numbers_are_told(tmp_path: Path) -> None:
    backend = ScriptedBackend(score=lambda request: Loglikelihoods(request_id=request.id, values=(None,) * 4))
    with pytest.raises(PluginError, match="static/test-1 hold None, which is no number"):
        run(PLAN, offer(backend), tmp_path / "run")


@pytest.mark.parametrize(
    "letters",
    ["A", ["A"], {"A"}, frozenset("a"), frozenset("AZ"), frozenset()],
    ids=["text", "list", "set", "lower", "Z", "none"],
)
def test_a_reader_of_answers_that_gives_no_letters_of_the_options_is_told_rather_than_counted_as_wrong(
    tmp_path: Path, letters: Any
) -> None:
    with pytest.raises(PluginError, match=r"static/test-1; letters must be None or a frozenset of one or more of A, B, C, D"):
        run(PLAN, offer(say({}), mmedeval_parse_answer=lambda: Answer(letters=letters)), tmp_path / "run")


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), EOFError("no more"), ConnectionResetError(104, "reset")])
def test_a_connection_that_a_backend_loses_is_its_own_failure_and_not_the_terminals_or_the_users(
    tmp_path: Path, error: Exception
) -> None:
    def write(request: GenerateRequest) -> Generation:
        if number(request) == 4:
            raise error
        return Generation(request_id=request.id, text="Answer: A")

    with pytest.raises(BackendError, match=f"the backend stopped: {type(error).__name__}: .*; what was answered is stored"):
        run(PLAN, offer(ScriptedBackend(write=write)), tmp_path / "run")
    assert len(read_samples(tmp_path / "run")) == 3

    class Alone(ScriptedBackend):
        def alone(self, requests: Sequence[Any]) -> Iterator[Response]:
            raise error

    record, _ = run(
        PLAN, offer(Alone(write=lambda request: Generation(request_id=request.id, text="Answer: A"))), tmp_path / "run"
    )
    assert record.data["determinism"]["error"].startswith("the backend stopped")


def test_what_a_backend_says_of_itself_is_that_of_its_last_answer(tmp_path: Path) -> None:
    """The first response may be a failure from before the model was loaded, and a warning may come with any answer."""

    class Loading(ScriptedBackend):
        def runtime(self) -> dict[str, object]:
            loaded = len(self.asked) > 1
            return {"dtype": "float32", "warnings": ["slow"]} if loaded else {}

    def score(request: LoglikelihoodRequest) -> Loglikelihoods | Failure:
        return replace(failure(), request_id=request.id) if number(request) == 1 else prefer(lambda _: "A")(request)

    record, _ = run(PLAN, offer(Loading(score=score)), tmp_path / "run")
    assert (record.data["runtime"], record.data["warnings"]) == ({"dtype": "float32"}, ["slow"])


# --- events ---


def test_events_come_in_order_each_after_what_it_tells_of_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "run"
    events: list[object] = []

    def mmedeval_run_started(plan: RunPlan, total: int) -> None:
        assert (path / "plan.json").exists()
        events.append(("started", total, plan))

    def mmedeval_sample_finished(plan: RunPlan, result: SampleResult) -> None:
        assert read_samples(path)[-1] == result
        assert not (path / "record.json").exists()
        events.append(result.sample.id)

    def mmedeval_run_finished(plan: RunPlan, record: RunRecord) -> None:
        assert read_record(path) == record.data
        events.append("finished")

    catalog = offer(
        say({2: failure(), 3: "nothing"}),
        mmedeval_run_started=mmedeval_run_started,
        mmedeval_sample_finished=mmedeval_sample_finished,
        mmedeval_run_finished=mmedeval_run_finished,
    )
    run(PLAN, catalog, path)
    assert events == [("started", 6, PLAN), *(f"test-{i}" for i in range(1, 7)), "finished"]


# --- the plan ---


def test_auto_prefers_loglikelihoods_and_says_why() -> None:
    text = Generation(request_id="", text="")
    scorer, writer = ScriptedBackend(score=prefer(lambda _: "A")), ScriptedBackend(write=lambda _: text)
    both = ScriptedBackend(score=prefer(lambda _: "A"), write=lambda _: text)
    chosen = {name: prepare(PLAN, offer(backend), backend) for name, backend in (("s", scorer), ("w", writer), ("b", both))}
    assert {name: prepared.protocol for name, prepared in chosen.items()} == {"s": "letter", "w": "chat", "b": "letter"}
    assert all(prepared.why.startswith("auto: ") for prepared in chosen.values())
    with pytest.raises(UsageError, match=r"needs generate, which scripted:any cannot do; it can do: loglikelihood"):
        prepare(replace(PLAN, protocol="paper"), offer(scorer), scorer)
    with pytest.raises(UsageError, match="neither"):
        prepare(PLAN, offer(), ScriptedBackend())


@pytest.mark.parametrize("protocol", ["paper", "paper-direct"])
def test_the_paper_protocols_take_no_shots(protocol: Any) -> None:
    backend = say({})
    with pytest.raises(UsageError, match="no solved examples; leave out --shots 3"):
        prepare(replace(PLAN, protocol=protocol, shots=3), offer(backend), backend)


def test_more_shots_than_the_train_split_has_are_refused_with_what_it_has() -> None:
    backend = say({})
    assert len(prepare(replace(PLAN, shots=4), offer(backend), backend).tasks[0].requests[0].prompt.shots) == 4
    with pytest.raises(UsageError, match=r"--shots 5 is more than .*'static' can give \(4 examples.*ask for at most 4"):
        prepare(replace(PLAN, shots=5), offer(backend), backend)


@pytest.mark.parametrize("save", [True, False])
def test_prompts_are_stored_unless_they_are_not_wanted(tmp_path: Path, save: bool) -> None:
    _, path = run(replace(PLAN, save_requests=save, shots=2), offer(say({})), tmp_path / "run")
    secret = "Exactly one option is right"
    assert all((result.prompt is not None) is save for result in read_samples(path))
    assert (secret.encode() in b"".join(contents(path).values())) is save
    assert all(result.output == "Answer: A" for result in read_samples(path))


def test_questions_with_pictures_can_be_left_out_and_a_limit_counts_what_is_left(tmp_path: Path) -> None:
    samples = [replace(sample, meta={"image": i % 2 == 0}) for i, sample in enumerate(SAMPLES)]
    backend = say({})
    run(replace(PLAN, exclude_images=True, limit=2), offer(backend, StaticTask(test=samples)), tmp_path / "run")
    assert backend.asked == ["static/test-2", "static/test-4"]
    pictures = StaticTask(test=[replace(sample, meta={"image": True}) for sample in SAMPLES])
    with pytest.raises(UsageError, match=r"no item left to ask \(6 items in all, --exclude-images\)"):
        run(replace(PLAN, exclude_images=True), offer(backend, pictures), tmp_path / "none")


# --- the fingerprint ---


def fingerprint(plan: RunPlan = PLAN, *tasks: StaticTask, name: str = "any", **hooks: Any) -> str:
    backend = ScriptedBackend(write=lambda request: Generation(request_id=request.id, text=""))
    backend.fingerprint = lambda: name
    return prepare(plan, offer(backend, *tasks, **hooks), backend).fingerprint


def test_whatever_changes_a_number_changes_the_fingerprint_and_nothing_else_does() -> None:
    def prompt(sample: Sample) -> Prompt:
        return Prompt(question=f"Please: {sample.question}")

    tasks = [
        StaticTask(test=[replace(SAMPLES[0], **change), *SAMPLES[1:]])
        for change in ({"question": "Which?"}, {"answer": frozenset("B")}, {"options": {"A": "x", "B": "y"}})
    ]
    changed = [
        fingerprint(),
        fingerprint(name="another model"),
        *(fingerprint(replace(PLAN, **change)) for change in (
            {"seed": 1}, {"limit": 3}, {"shots": 1}, {"protocol": "paper"}, {"max_tokens": 7}, {"temperature": 0.5},
            {"chat_template": False}, {"exclude_images": True},
        )),
        *(fingerprint(PLAN, task) for task in tasks),
        fingerprint(PLAN, StaticTask(test=SAMPLES[:5])),
        fingerprint(PLAN, StaticTask(test=SAMPLES, max_answers=3)),
        fingerprint(mmedeval_render_prompt=prompt),
    ]  # fmt: skip
    assert len(set(changed)) == len(changed)
    same = [
        fingerprint(),
        fingerprint(replace(PLAN, model="scripted:elsewhere/any")),
        fingerprint(replace(PLAN, data_dir=Path("somewhere"))),
        fingerprint(replace(PLAN, protocol="chat")),
        fingerprint(PLAN, StaticTask(test=SAMPLES, source="another place")),
    ]
    assert set(same) == {changed[0]}


def test_a_copy_of_a_model_has_its_fingerprint_and_a_changed_weight_does_not(tmp_path: Path) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    from mmedeval_hf.tiny import make_tiny_model

    made = make_tiny_model(tmp_path / "one")
    copy = Path(shutil.copytree(made, tmp_path / "deep" / "two"))
    (copy / "README.md").write_text("what a copy may have beside", encoding="utf-8")
    changed = Path(shutil.copytree(made, tmp_path / "three"))
    weights = bytearray((changed / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed / "model.safetensors").write_bytes(weights)

    def of(model: Path) -> str:
        catalog = Catalog(make_host())
        plan = RunPlan(model=f"hf:{model}", tasks=("mmedbench_mini_fr",))
        with catalog.open_backend(plan.model, {}) as backend:
            return prepare(plan, catalog, backend).fingerprint

    assert of(made) == of(copy) != of(changed)


def test_data_in_another_folder_or_a_zip_have_the_same_fingerprint_and_a_changed_question_does_not(tmp_path: Path) -> None:
    import mmedeval_mmedbench

    mini = Path(mmedeval_mmedbench.__file__).parent / "mini"
    one = Path(shutil.copytree(mini, tmp_path / "one"))
    two = Path(shutil.copytree(mini, tmp_path / "deep" / "two"))
    changed = Path(shutil.copytree(mini, tmp_path / "three"))
    file = changed / "Test" / "French.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("homme", "femme", 1), encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "MMedBench.zip", "w") as archive:
        for member in one.rglob("*.jsonl"):
            archive.write(member, Path("MMedBench") / member.relative_to(one))

    def of(data: Path) -> str:
        catalog = Catalog(make_host())
        plan = RunPlan(model="baseline:random", tasks=("mmedbench_fr",), shots=2, data_dir=data)
        with catalog.open_backend(plan.model, {}) as backend:
            return prepare(plan, catalog, backend).fingerprint

    assert of(one) == of(two) == of(tmp_path / "MMedBench.zip") == of(tmp_path) != of(changed)


# --- scoring again ---


def test_scoring_again_without_a_change_changes_nothing(tmp_path: Path) -> None:
    record, path = run(PLAN, offer(say({2: failure(), 3: "nothing", 4: "Answer: D"})), tmp_path / "run")
    before = contents(path)
    again = rescore(path, offer(), [])
    assert {key: value for key, value in again.data.items() if key != "rescored"} == record.data
    assert contents(path)["samples.jsonl"] == before["samples.jsonl"]
    assert read_record(path) == again.data


def test_scoring_again_reads_the_answers_anew_and_adds_a_metric_without_the_backend(tmp_path: Path) -> None:
    texts: dict[int, str | Failure] = {2: failure(), 3: "Hard to say yet.", 4: "Answer: D"}
    record, path = run(PLAN, offer(say(texts)), tmp_path / "run")
    assert (figure(record, "accuracy").scored, record.data["counts"]["unread"]) == (4, 1)

    def mmedeval_parse_answer(sample: Sample, generation: Generation) -> Answer | None:
        return Answer(letters=frozenset("C")) if "Hard" in generation.text else None

    length = MetricSpec(
        name="length", summary="", scale=100, load=lambda: lambda results: [len(r.output) if r.output else None for r in results]
    )
    catalog = offer(mmedeval_parse_answer=mmedeval_parse_answer, mmedeval_metrics=lambda: [length])
    assert "scripted" not in catalog.backends
    again = rescore(path, catalog, ["length"])
    assert (figure(again, "accuracy").scored, again.data["counts"]["unread"], again.data["counts"]["failed"]) == (5, 0, 1)
    assert figure(again, "accuracy").value == 4 / 5
    assert figure(again, "length").value == (9 + 16 + 9 + 9 + 9) / 5
    assert again.data["plan"]["metrics"] == ["length"]
    for key in ("started", "finished", "fingerprint", "model", "tasks", "environment", "runtime"):
        assert again.data[key] == record.data[key]
    stored = {result.sample.id: result for result in read_samples(path)}
    assert stored["test-3"].prediction == frozenset("C")
    assert stored["test-3"].scores == {"accuracy": 1, "accuracy_strict": 1, "length": 16}
    assert stored["test-2"].scores == {"accuracy_strict": 0}
    with pytest.raises(UnknownNameError, match="length"):
        rescore(path, offer(), ["lenght", "length"])
    assert read_record(path) == again.data


def test_scoring_again_keeps_loglikelihoods_and_what_the_run_warned_of(tmp_path: Path) -> None:
    def score(request: LoglikelihoodRequest) -> Loglikelihoods:
        answer = prefer(lambda _: "B")(request)
        return replace(answer, usage=Usage(tokens_in=9, bos=2, shots_dropped=1))

    with pytest.raises(RunStopped):
        run(PLAN, offer(ScriptedBackend(score=score), mmedeval_sample_finished=stopping_after(2)), tmp_path / "run")
    with (tmp_path / "run" / "samples.jsonl").open("ab") as torn:
        torn.write(b'{"task"')
    record, path = run(PLAN, offer(ScriptedBackend(score=score)), tmp_path / "run")
    assert len(record.data["warnings"]) == 2
    before = read_samples(path)
    assert rescore(path, offer(), []).data["warnings"] == record.data["warnings"]
    assert read_samples(path) == before


def test_what_is_not_a_whole_finished_run_is_not_scored_again(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run folder"):
        rescore(tmp_path, offer(), [])
    with pytest.raises(RunStopped):
        run(PLAN, offer(say({}), mmedeval_sample_finished=stopping_after(2)), tmp_path / "run")
    with pytest.raises(StoreError, match="not finished"):
        rescore(tmp_path / "run", offer(), [])
    _, path = run(PLAN, offer(say({})), tmp_path / "run")
    lines = (path / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (path / "samples.jsonl").write_bytes(b"".join(lines[:-1]))
    before = contents(path)
    with pytest.raises(StoreError, match="samples are not those of the record"):
        rescore(path, offer(), [])
    assert contents(path) == before


@pytest.mark.parametrize(
    ("told", "samples"),
    [
        ("twice", [make_sample(1), make_sample(1)]),
        ("none empty", [replace(make_sample(1), options={"A": "iron", "B": ""})]),
        ("must name 1 to 1", [replace(make_sample(1), answer=frozenset("Z"))]),
        ("must name 1 to 1", [replace(make_sample(1), answer=frozenset("AB"))]),
        ("must name 1 to 1", [replace(make_sample(1), answer=frozenset())]),
        ("'q1' of another", [make_sample(1, meta={"parallel": "q1"}), make_sample(2, meta={"parallel": "q1"})]),
    ],
)
def test_a_sample_that_could_only_be_scored_wrongly_is_refused_before_a_model_is_asked(
    tmp_path: Path, told: str, samples: list[Sample]
) -> None:
    backend = say({})
    with pytest.raises(PluginError, match=told):
        run(PLAN, offer(backend, StaticTask(test=samples)), tmp_path / "run")
    assert backend.asked == []


def test_a_text_where_loglikelihoods_were_asked_for_is_refused(tmp_path: Path) -> None:
    class Confused(ScriptedBackend):
        def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[Any]:
            yield from (Generation(request_id=request.id, text="Answer: A") for request in requests)

    with pytest.raises(PluginError, match="asks for loglikelihoods"):
        run(PLAN, offer(Confused(score=prefer(lambda _: "A"))), tmp_path / "run")


def test_a_run_that_is_resumed_on_another_device_says_so(tmp_path: Path) -> None:
    class Somewhere(ScriptedBackend):
        def __init__(self, device: str) -> None:
            super().__init__(score=prefer(lambda _: "A"))
            self.device = device

        def runtime(self) -> dict[str, object]:
            return {"device_name": self.device, "dtype": "float32"}

    with pytest.raises(RunStopped):
        run(PLAN, offer(Somewhere("a gpu"), mmedeval_sample_finished=stopping_after(2)), tmp_path / "run")
    record, _ = run(PLAN, offer(Somewhere("a cpu")), tmp_path / "run")
    assert record.data["runtime"]["device_name"] == "a cpu"
    assert record.data["warnings"] == ["resumed: one part was computed with device_name a gpu, another with a cpu"]


def test_answers_that_were_read_before_a_stop_are_read_again_by_the_reader_of_today(tmp_path: Path) -> None:
    def unread() -> Answer:
        return Answer(letters=None)

    with pytest.raises(RunStopped):
        run(PLAN, offer(say({}), mmedeval_parse_answer=unread, mmedeval_sample_finished=stopping_after(3)), tmp_path / "run")
    resumed, _ = run(PLAN, offer(say({})), tmp_path / "run")
    whole, _ = run(PLAN, offer(say({})), tmp_path / "whole")
    assert resumed.data["counts"] == whole.data["counts"]


def test_a_baseline_that_learns_is_another_one_with_another_train_split(tmp_path: Path) -> None:
    def majority(answer: str) -> str:
        task = StaticTask(test=SAMPLES, train=[make_sample(i, answer=answer) for i in range(11, 15)])
        catalog = offer(None, task)
        plan = replace(PLAN, model="baseline:majority")
        with catalog.open_backend(plan.model, {}) as backend:
            return prepare(plan, catalog, backend).fingerprint

    assert majority("A") != majority("B")
