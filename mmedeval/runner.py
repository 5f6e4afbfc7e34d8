"""Plan + catalogue -> requests -> responses -> scores -> record."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, assert_never

from mmedeval import __version__
from mmedeval.aggregate import TaskScores, aggregate_all, cross_lingual_consistency, figures_as_json
from mmedeval.backend import Backend
from mmedeval.catalog import Catalog, Metric
from mmedeval.determinism import checked, compare
from mmedeval.environment import environment
from mmedeval.errors import BackendError, PluginError, StoreError, UsageError
from mmedeval.outcomes import TaskOutcomes
from mmedeval.prompts import (
    CHAT_MAX_TOKENS,
    LOGLIKELIHOOD_PROTOCOLS,
    PAPER_MAX_TOKENS,
    ShotPool,
    chance,
    make_request,
    plain_chat,
)
from mmedeval.rotations import rotated, rotation_amounts, rotation_summary
from mmedeval.sequential import StopRule, make_stop_rule, stop_sentence
from mmedeval.specs import ProtocolName, TaskOptions, TaskSpec
from mmedeval.store import FORMAT, RunFolder, read_record, read_rotations, read_samples, record_from_json, rewrite
from mmedeval.types import (
    Answer,
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
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
    digest,
    join_letters,
)


class RunStopped(Exception):
    """The user stopped the run. What was answered is stored."""

    def __init__(self, folder: Path, answered: int, total: int) -> None:
        super().__init__(f"stopped with {answered} of {total} answered; the same command goes on from there ({folder})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """A sample with its options `rotation` places further on, and what is asked then."""

    sample: Sample
    request: Request
    rotation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTask:
    """A task of the run: what is asked, and the digests that say exactly what that was."""

    spec: TaskSpec
    task: Task
    samples: Sequence[Sample]
    requests: Sequence[Request]
    data_digest: str
    prompts_digest: str
    template_digest: str
    rotated: Sequence[Rotated] = ()

    def only(self, kept: Container[tuple[str, str]]) -> PreparedTask:
        """The same task with some of its items."""
        pairs = zip(self.samples, self.requests, strict=True)
        left = [(sample, request) for sample, request in pairs if (self.spec.name, sample.id) in kept]
        samples, requests = [sample for sample, _ in left], [request for _, request in left]
        return dataclasses.replace(
            self,
            samples=samples,
            requests=requests,
            data_digest=_data_digest(samples),
            prompts_digest=_prompts_digest(requests),
        )

    def outcomes(self) -> TaskOutcomes:
        """The task as it is compared with that of another run, before anything is answered."""
        return TaskOutcomes(
            language=self.spec.language,
            group=self.spec.group,
            data=self.data_digest,
            questions=_data_digest(self.samples),
            prompts=self.prompts_digest,
            ids=[sample.id for sample in self.samples],
            outcomes="",
            parallel=[sample.meta.get("parallel") for sample in self.samples],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request is about."""

    task: PreparedTask
    sample: Sample
    request: Request
    rotation: int = 0

    @property
    def key(self) -> tuple[str, str]:
        return self.task.spec.name, self.sample.id


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything that is known before the model is asked."""

    plan: RunPlan
    protocol: ProtocolName
    why: str
    sampling: Sampling
    tasks: Sequence[PreparedTask]
    metrics: Sequence[Metric]
    model: Mapping[str, Any]
    identity: Mapping[str, Any]
    stop_rule: StopRule | None = None

    @property
    def fingerprint(self) -> str:
        return digest(self.identity)

    @cached_property
    def context(self) -> Mapping[str, Asked]:
        """What each request is about, by its id: the given orders of options first."""
        given = (
            Asked(task=task, sample=sample, request=request)
            for task in self.tasks
            for sample, request in zip(task.samples, task.requests, strict=True)
        )
        others = (
            Asked(task=task, sample=each.sample, request=each.request, rotation=each.rotation)
            for task in self.tasks
            for each in task.rotated
        )
        return {asked.request.id: asked for asked in (*given, *others)}

    def only(self, kept: Container[tuple[str, str]]) -> Prepared:
        """What is left of the plan where only some items were asked: with digests of these, so that it passes for no whole run.

        A task without an item is left out, and its group then has no average: it would be one over fewer tasks.
        """
        tasks = [task.only(kept) for task in self.tasks]
        broken = {task.spec.group for task in tasks if not task.samples}
        tasks = [
            dataclasses.replace(task, spec=dataclasses.replace(task.spec, group=None)) if task.spec.group in broken else task
            for task in tasks
            if task.samples
        ]
        return dataclasses.replace(self, tasks=tasks)


def run(plan: RunPlan, catalog: Catalog, out: Path | None = None) -> tuple[RunRecord, Path]:
    """Does what the plan says, or goes on where an earlier try stopped. Returns the record and the run folder.

    `out` is the run folder; by default one under `runs/` whose name tells model, tasks, protocol and fingerprint. Raises
    `MmedevalError` for all that a user can mend and `RunStopped` on Ctrl-C; answers that have arrived are stored in any case.
    """
    with catalog.open_backend(plan.model, plan.model_args) as backend:
        prepared = prepare(plan, catalog, backend)
        path = out if out is not None else Path("runs") / _folder_name(prepared)
        with RunFolder(path, prepared.identity, plan.as_json()) as folder:
            if folder.complete:
                return record_from_json(read_record(path)), path
            for metric in prepared.metrics:
                metric.prepare(catalog, path)
            backend.keep_in(path)
            record = _ask_and_record(prepared, catalog, backend, folder)
    return record, path


def prepare(plan: RunPlan, catalog: Catalog, backend: Backend) -> Prepared:
    """Loads data and renders all prompts; computes nothing with the model."""
    if not math.isfinite(plan.temperature) or plan.temperature < 0:
        raise UsageError(f"--temperature {plan.temperature} is no number from 0 on")
    if plan.rotations not in (None, "all") and not (isinstance(plan.rotations, int) and plan.rotations > 1):
        raise UsageError(f"--rotations {plan.rotations} is neither 'all' nor a number of orders from 2 on")
    specs = catalog.select_tasks(plan.tasks, plan.languages)
    protocol, why = choose_protocol(plan, backend)
    if plan.shots and protocol in ("paper", "paper-direct"):
        raise UsageError(f"the protocol {protocol!r} has no solved examples; leave out --shots {plan.shots}")
    metrics = catalog.load_metrics(plan.metrics, protocol, plan.metric_args)
    backend.check(chat=protocol == "chat" and plan.chat_template)
    sampling = Sampling(
        max_tokens=plan.max_tokens or (CHAT_MAX_TOKENS if protocol == "chat" else PAPER_MAX_TOKENS),
        temperature=plan.temperature,
        seed=plan.seed,
    )
    tasks = [_prepare_task(spec, plan, protocol, sampling, catalog, backend) for spec in specs]
    model = {"reference": plan.model, "arguments": dict(plan.model_args), "fingerprint": backend.fingerprint()}
    generates = protocol not in LOGLIKELIHOOD_PROTOCOLS
    identity: dict[str, Any] = {
        "format": FORMAT,
        "model": model["fingerprint"],
        # What arguments change in the numbers (dtype, BOS) is the backend's to say; where the model lies is not part of it.
        "model_settings": dict(backend.describe().get("settings", {})),
        "protocol": protocol,
        "shots": plan.shots,
        "limit": plan.limit,
        "seed": plan.seed,
        # A list for the stop strings, so that it compares equal with what JSON gives back.
        "sampling": {**dataclasses.asdict(sampling), "stop": list(sampling.stop)} if generates else None,
        "chat_template": plan.chat_template if protocol == "chat" else None,
        "exclude_images": plan.exclude_images,
        "save_requests": plan.save_requests,
        "metrics": [metric.spec.name for metric in metrics],
        "metric_args": dict(plan.metric_args),
        "tasks": {task.spec.name: {"data": task.data_digest, "prompts": task.prompts_digest} for task in tasks},
    }
    if plan.rotations is not None:
        # Only where it is asked for: a run without keeps the fingerprint that it always had.
        prompts = {task.spec.name: _prompts_digest([each.request for each in task.rotated]) for task in tasks}
        identity["rotations"] = {"orders": plan.rotations, "prompts": prompts}
    stop_rule = None
    if plan.stop_early is not None:
        stop_rule = make_stop_rule(plan, protocol, identity["sampling"], {task.spec.name: task.outcomes() for task in tasks})
        identity["stop_early"] = stop_rule.identity()
    return Prepared(
        plan=plan,
        protocol=protocol,
        why=why,
        sampling=sampling,
        tasks=tasks,
        metrics=metrics,
        model=model,
        identity=identity,
        stop_rule=stop_rule,
    )


def choose_protocol(plan: RunPlan, backend: Backend) -> tuple[ProtocolName, str]:
    """The protocol to use, and why. `auto` prefers loglikelihoods: nothing has to be read out of free text then."""
    needs = "loglikelihood" if plan.protocol in LOGLIKELIHOOD_PROTOCOLS else "generate"
    if plan.protocol != "auto":
        if needs not in backend.capabilities:
            can = ", ".join(sorted(backend.capabilities))
            raise UsageError(f"the protocol {plan.protocol!r} needs {needs}, which {plan.model} cannot do; it can do: {can}")
        return plan.protocol, "asked for"
    if "loglikelihood" in backend.capabilities:
        return "letter", "auto: the backend computes loglikelihoods"
    if "generate" in backend.capabilities:
        return "chat", "auto: the backend generates text but gives no loglikelihoods"
    raise UsageError(f"{plan.model} can neither compute loglikelihoods nor generate text")


def _prepare_task(
    spec: TaskSpec, plan: RunPlan, protocol: ProtocolName, sampling: Sampling, catalog: Catalog, backend: Backend
) -> PreparedTask:
    task = spec.load(TaskOptions(data_dir=plan.data_dir))
    everything = task.samples("test")
    samples = [sample for sample in everything if not (plan.exclude_images and sample.meta.get("image"))][: plan.limit]
    if not samples:
        narrowed = f"{', --exclude-images' * plan.exclude_images}{'' if plan.limit is None else f', --limit {plan.limit}'}"
        raise UsageError(f"the task {spec.name!r} has no item left to ask ({len(everything)} items in all{narrowed})")
    _check_samples(spec, task, samples)
    train = task.samples("train") if plan.shots or backend.wants_train else ()
    if backend.wants_train:
        backend.learn(spec.name, train)
    pool = ShotPool(train, plan.seed, spec.name)
    shots_of = [pool.for_sample(sample, plan.shots) for sample in samples]
    enough = min(map(len, shots_of))
    if enough < plan.shots:
        raise UsageError(
            f"--shots {plan.shots} is more than the train split of {spec.name!r} can give "
            f"({len(train)} examples, without the question itself); ask for at most {enough}"
        )

    def ask(sample: Sample, shots: Sequence[Sample], suffix: str = "") -> Request:
        prompt = _render(catalog, task, sample, shots, protocol, plan)
        return make_request(task, sample, prompt, protocol, sampling, request_id=f"{spec.name}/{sample.id}{suffix}")

    requests = [ask(sample, shots) for sample, shots in zip(samples, shots_of, strict=True)]
    others = []
    if plan.rotations is not None:
        for sample, shots in zip(samples, shots_of, strict=True):
            for amount in rotation_amounts(len(sample.options), plan.rotations):
                turned = rotated(sample, amount)
                others.append(Rotated(sample=turned, request=ask(turned, shots, f"@{amount}"), rotation=amount))
        ids = {request.id for request in requests}
        twice = next((each.request.id for each in others if each.request.id in ids), None)
        if twice is not None:
            raise PluginError(f"{twice!r} is a sample of its own and another one's name under --rotations; rename it in its task")
    return PreparedTask(
        spec=spec,
        task=task,
        samples=samples,
        requests=requests,
        # A baseline that learns from the train split is another one with another split.
        data_digest=_data_digest([*samples, *(train if backend.wants_train else ())]),
        prompts_digest=_prompts_digest(requests),
        template_digest=_template_digest(catalog, task, protocol, plan),
        rotated=others,
    )


def _check_samples(spec: TaskSpec, task: Task, samples: Sequence[Sample]) -> None:
    """A task may come from anywhere: what could only be scored wrongly is refused before a model is asked."""
    seen: set[str] = set()
    questions: set[str] = set()
    for sample in samples:
        where = f"the task {spec.name!r} gives the sample {sample.id!r}"
        if sample.id in seen:
            raise PluginError(f"{where} twice; ids must differ")
        seen.add(sample.id)
        question = sample.meta.get("parallel")
        if question is not None:
            if str(question) in questions:
                raise PluginError(f"{where} with the meta['parallel'] {question!r} of another; within a task they must differ")
            questions.add(str(question))
        if len(sample.options) < 2 or not all(sample.options.values()):
            raise PluginError(f"{where} with the options {dict(sample.options)!r}; it needs two or more, and none empty")
        if not sample.answer or not sample.answer <= set(sample.options) or len(sample.answer) > task.max_answers:
            raise PluginError(
                f"{where} with the answer {sorted(sample.answer)}; it must name 1 to {task.max_answers} of the options "
                f"{', '.join(sample.options)}"
            )


def _render(
    catalog: Catalog, task: Task, sample: Sample, shots: Sequence[Sample], protocol: ProtocolName, plan: RunPlan
) -> Prompt:
    prompt = catalog.host.hook.mmedeval_render_prompt(task=task, sample=sample, shots=shots, protocol=protocol)
    if not isinstance(prompt, Prompt):
        raise PluginError(f"mmedeval_render_prompt returned {prompt!r} for {task.name}/{sample.id}; it must return a Prompt")
    return plain_chat(prompt) if prompt.chat and not plan.chat_template else prompt


def _template_digest(catalog: Catalog, task: Task, protocol: ProtocolName, plan: RunPlan) -> str:
    """A digest of the layout alone: the prompt of a fixed item behind fixed shots."""
    item = Sample(
        id="template",
        language=task.language,
        question="question",
        options={"A": "first", "B": "second"},
        answer=frozenset("A"),
        rationale="rationale",
    )
    prompt = _render(catalog, task, item, [item] * plan.shots, protocol, plan)
    request = make_request(task, item, prompt, protocol, Sampling(), request_id="template")
    return digest(_request_contents(request))


def _data_digest(samples: Iterable[Sample]) -> str:
    return digest([sample.contents() for sample in samples])


def _prompts_digest(requests: Iterable[Request]) -> str:
    return digest([_request_contents(request) for request in requests])


def _request_contents(request: Request) -> list[object]:
    shots: Iterable[Shot] = request.prompt.shots
    parts: list[object] = [request.prompt.opening, *([s.asked, s.answered] for s in shots), request.prompt.question]
    return [*parts, list(request.continuations)] if isinstance(request, LoglikelihoodRequest) else parts


def _folder_name(prepared: Prepared) -> str:
    """A name that tells what is in it and that the same command finds again."""
    plan = prepared.plan
    parts = [Path(plan.model.rstrip("/")).name, "+".join(plan.tasks), prepared.protocol, f"{plan.shots}shot"]
    words = [re.sub(r"[^\w.+-]+", "-", part.replace("**", "all").replace("*", "all")).strip("-")[:60] for part in parts]
    return "_".join([*(word for word in words if word), prepared.fingerprint[:8]])


def _ask_and_record(prepared: Prepared, catalog: Catalog, backend: Backend, folder: RunFolder) -> RunRecord:
    plan, hook = prepared.plan, catalog.host.hook
    started = datetime.now(UTC)
    before = folder.runtime()
    resumed = {"answers_found": len(folder.stored) + len(folder.rotated), "torn_lines": folder.dropped_lines}
    context, rule = prepared.context, prepared.stop_rule
    found = {name: folder.find(asked.key, asked.rotation) for name, asked in context.items()}
    # A failure is no answer: an unfinished run asks again.
    todo = [asked.request for name, asked in context.items() if (old := found[name]) is None or old.status == "failed"]
    # What failed before comes last: a server that refuses the first requests of all would end the run each time.
    todo.sort(key=lambda request: found[request.id] is not None)
    cost = backend.most_cost(todo)
    if cost is not None:
        catalog.tell(f"{len(todo)} requests to {plan.model}, for at most {cost:.2f} US dollars")
    hook.mmedeval_run_started(plan=plan, total=len(todo))
    stopped: dict[str, Any] = {}
    try:
        answered = 0
        if rule is None:
            answered = _ask(todo, 0, prepared, catalog, backend, folder)
        else:
            left = {context[request.id].key: request for request in todo}
            seen: dict[tuple[str, str], SampleResult] = {}
            for block in rule.blocks():
                answered += _ask([left[key] for key in block if key in left], answered, prepared, catalog, backend, folder)
                seen |= {key: folder.stored[key] for key in block}
                if rule.look(seen) != "cannot tell":
                    break
            stopped["sequential"] = report = rule.report(seen)
            if len(seen) < len(context):
                prepared = prepared.only(seen)
                stopped["stopped_early"] = stop_sentence(report)
        if answered:
            # The first response may have been a failure, from before the model was loaded; and warnings come later too.
            folder.note_runtime(_runtime(backend, before))
        determinism = _check_determinism(prepared, catalog, backend, folder)
    except KeyboardInterrupt as stop:
        stored = sum(result.status != "failed" for result in (*folder.stored.values(), *folder.rotated.values()))
        raise RunStopped(folder.path, stored, len(context)) from stop
    seen_of_run = {
        "determinism": determinism, "process": {**backend.runtime().get("process", {}), **resumed}, **stopped,
    }  # fmt: skip
    record, results, others = _score(prepared, catalog, folder, backend.describe(), started, seen_of_run)
    folder.finish(record.data, results, others)
    hook.mmedeval_run_finished(plan=plan, record=record)
    return record


def _ask(todo: Sequence[Request], before: int, prepared: Prepared, catalog: Catalog, backend: Backend, folder: RunFolder) -> int:
    """Asks, and stores the answers as they come; `before` were answered in this process already. Returns how many were."""
    plan, hook, context = prepared.plan, catalog.host.hook, prepared.context
    runtime = folder.runtime()
    expected = {request.id for request in todo}
    answered: set[str] = set()
    # Closed at once when something fails: a backend that talks to a server asks, and pays, no further.
    with closing(_responses(backend, todo)) as responses:
        for response in responses:
            if response.request_id in answered or response.request_id not in expected:
                raise PluginError(f"{plan.model} answered {response.request_id!r}, which was not asked or is answered already")
            answered.add(response.request_id)
            result = interpret(response, context[response.request_id], prepared.protocol, hook.mmedeval_parse_answer)
            if not plan.save_requests:
                result = dataclasses.replace(result, prompt=None)
            if before + len(answered) == 1:
                folder.note_runtime(_runtime(backend, runtime))
            folder.append(result)
            hook.mmedeval_sample_finished(plan=plan, result=result)
    if len(answered) < len(todo):
        missing = next(request.id for request in todo if request.id not in answered)
        raise PluginError(f"{plan.model} gave no answer to {len(todo) - len(answered)} requests, the first is {missing!r}")
    return len(answered)


def _check_determinism(prepared: Prepared, catalog: Catalog, backend: Backend, folder: RunFolder) -> dict[str, Any] | None:
    """What asking a few items again, each alone, changed; `None` where the backend computes nothing together.

    A backend that fails here has answered all the same: the run keeps its record, and the record says what failed.
    """
    context, parse = prepared.context, catalog.host.hook.mmedeval_parse_answer
    asked = checked([folder.stored[each.key] for each in context.values() if not each.rotation])
    try:
        with _backend_errors():
            responses = list(backend.alone([context["/".join(result.key)].request for result in asked]))
    except BackendError as error:
        return {"error": str(error)}
    if not responses:
        return None
    if sorted(response.request_id for response in responses) != sorted("/".join(result.key) for result in asked):
        raise PluginError(f"{prepared.plan.model} was asked {len(asked)} requests one by one and gave answers to others")
    alone = {}
    for response in responses:
        again = context[response.request_id]
        alone[again.key] = interpret(response, again, prepared.protocol, parse)
    # A text of an earlier process was read by the reader of its day.
    before = [_read_again(each, context["/".join(each.key)].task.task, prepared.protocol, catalog) for each in asked]
    return compare(before, alone)


def _runtime(backend: Backend, before: Mapping[str, Any]) -> dict[str, Any]:
    """What the backend says of itself now, with a warning where earlier answers of the run were computed differently."""
    runtime = {name: value for name, value in backend.runtime().items() if name != "process"}
    warnings = [*before.get("warnings", []), *runtime.get("warnings", [])]
    warnings += [
        f"resumed: one part was computed with {name} {before[name]}, another with {runtime.get(name)}"
        for name in ("device_name", "dtype")
        if name in before and before[name] != runtime.get(name)
    ]
    return {**runtime, **({"warnings": list(dict.fromkeys(warnings))} if warnings else {})}


def _responses(backend: Backend, requests: Sequence[Request]) -> Generator[Response, None, None]:
    if not requests:
        return
    scored = [request for request in requests if isinstance(request, LoglikelihoodRequest)]
    written = [request for request in requests if isinstance(request, GenerateRequest)]
    with _backend_errors():
        if scored:
            yield from backend.loglikelihood(scored)
        if written:
            yield from backend.generate(written)


@contextmanager
def _backend_errors() -> Iterator[None]:
    """Names what a backend's connections and files raise: further up it would pass for a closed terminal or a Ctrl-C."""
    try:
        yield
    except (OSError, EOFError) as error:
        raise BackendError(
            f"the backend stopped: {type(error).__name__}: {error}; what was answered is stored, the same command goes on "
            "from there"
        ) from error


def interpret(response: Response, asked: Asked, protocol: ProtocolName, parse_answer: Callable[..., Any]) -> SampleResult:
    """What a response says about its sample."""
    request, sample = asked.request, asked.sample
    result = SampleResult(
        task=asked.task.spec.name,
        sample=sample,
        status="failed",
        rotation=asked.rotation,
        prompt=_shown_prompt(request.prompt, response.usage.shots_dropped),
        usage=response.usage,
    )
    # `cloze` ranks single options: an item with several right ones has no right answer there to be found.
    unscored = protocol == "cloze" and len(sample.answer) > 1
    match response:
        case Failure() if unscored:
            return dataclasses.replace(result, status="unscored", failure=f"{response.kind}: {response.message}")
        case Failure():
            return dataclasses.replace(result, failure=f"{response.kind}: {response.message}")
        case Generation():
            if not isinstance(request, GenerateRequest):
                raise PluginError(f"the backend wrote a text for {request.id}, which asks for loglikelihoods")
            answer = _read(parse_answer, asked.task.task, sample, response, protocol)
            return dataclasses.replace(
                result,
                status="unread" if answer.letters is None else "ok",
                prediction=answer.letters,
                output=response.text,
                finish_reason=response.finish_reason,
            )
        case Loglikelihoods():
            if not isinstance(request, LoglikelihoodRequest) or len(response.values) != len(request.answers):
                raise PluginError(f"the backend's loglikelihoods for {request.id} do not fit its continuations")
            values = [_number(value, f"the backend's loglikelihoods for {request.id} hold") for value in response.values]
            broken = next((value for value in values if math.isnan(value) or value == math.inf), None)
            if broken is not None:
                return dataclasses.replace(result, failure=f"backend: a loglikelihood is {broken}, which ranks nothing")
            known = {answer: value for answer, value in zip(request.answers, values, strict=True) if value > -math.inf}
            if not known:
                return dataclasses.replace(result, status="unscored" if unscored else "unread")
            order = sorted(known, key=lambda answer: -known[answer])
            return dataclasses.replace(
                result,
                status="unscored" if unscored else "ok",
                prediction=order[0],
                logprobs={join_letters(answer): value for answer, value in known.items()},
                margin=known[order[0]] - known[order[1]] if len(order) > 1 else None,
            )
        case _:
            assert_never(response)


def _read(parse_answer: Callable[..., Any], task: Task, sample: Sample, generation: Generation, protocol: ProtocolName) -> Answer:
    answer = parse_answer(task=task, sample=sample, generation=generation, protocol=protocol)
    if not isinstance(answer, Answer):
        raise PluginError(
            f"mmedeval_parse_answer returned {answer!r} for {generation.request_id}; it must return an Answer or None"
        )
    letters = answer.letters
    if letters is not None and not (isinstance(letters, frozenset) and letters and letters <= {*sample.options}):
        raise PluginError(
            f"mmedeval_parse_answer read {letters!r} for {generation.request_id}; letters must be None or a frozenset of one "
            f"or more of {', '.join(sample.options)}"
        )
    return answer


def _number(value: Any, who: str) -> float:
    """A plugin's number as a plain float, which JSON takes: it may be one of numpy's."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise PluginError(f"{who} {value!r}, which is no number") from error


def _shown_prompt(prompt: Prompt, shots_dropped: int) -> str:
    """The prompt as the model saw it, once. Turns of a conversation are shown with their roles, before any template."""
    prompt = prompt.without_shots(shots_dropped)
    if not prompt.chat:
        return prompt.text
    return "\n\n".join(f"[{message.role}]\n{message.content}" for message in prompt.messages)


def _score(
    prepared: Prepared,
    catalog: Catalog,
    folder: RunFolder,
    model: Mapping[str, Any],
    started: datetime,
    seen: Mapping[str, Any],
) -> tuple[RunRecord, list[SampleResult], list[SampleResult]]:
    plan = prepared.plan
    # Read once more: an answer that was stored before a stop may have been read by an older reader.
    by_task = {
        task.spec.name: [
            _read_again(folder.stored[task.spec.name, sample.id], task.task, prepared.protocol, catalog)
            for sample in task.samples
        ]
        for task in prepared.tasks
    }
    tasks = [
        score_task(
            task.spec.name,
            task.spec.language,
            task.spec.group,
            by_task[task.spec.name],
            prepared.metrics,
            [chance(sample, prepared.protocol, task.task.max_answers) for sample in task.samples],
        )
        for task in prepared.tasks
    ]
    results = [result for task in tasks for result in task.results]
    others = [
        _read_again(folder.rotated[task.spec.name, each.sample.id, each.rotation], task.task, prepared.protocol, catalog)
        for task in prepared.tasks
        for each in task.rotated
    ]
    runtime = folder.runtime()
    warnings = runtime.pop("warnings", [])
    head = {
        "format": FORMAT,
        "mmedeval": __version__,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": prepared.fingerprint,
        "plan": plan.as_json(),
        "protocol": {"requested": plan.protocol, "used": prepared.protocol, "why": prepared.why},
        "sampling": prepared.identity["sampling"],
        "model": {**prepared.model, **model},
        "runtime": runtime,
        "tasks": {
            task.spec.name: {
                "language": task.spec.language,
                "group": task.spec.group,
                "source": task.task.source,
                "max_answers": task.task.max_answers,
                "data_digest": task.data_digest,
                "prompts_digest": task.prompts_digest,
                "prompt_template_digest": task.template_digest,
                "chances": [chance(sample, prepared.protocol, task.task.max_answers) for sample in task.samples],
            }
            for task in prepared.tasks
        },
        "environment": environment(),
        **seen,
    }
    record = {**head, **summarise(tasks, prepared.metrics, warnings), **_rotations(plan.rotations, tasks, others)}
    return record_from_json(record), results, others


def _rotations(
    wanted: int | Literal["all"] | None, tasks: Sequence[TaskScores], others: Sequence[SampleResult]
) -> dict[str, Any]:
    """The part of a record that only a run under several orders of the options has."""
    if wanted is None:
        return {}
    usage = {task.task: _usage([each for each in others if each.task == task.task]) for task in tasks}
    return {"rotations": {**rotation_summary(tasks, others, wanted), "usage": usage}}


def score_task(
    name: str,
    language: str,
    group: str | None,
    results: Sequence[SampleResult],
    metrics: Sequence[Metric],
    chances: Sequence[float | None],
) -> TaskScores:
    """All metrics on one task's results; the results come back with their scores."""
    scores: dict[str, Sequence[float | None]] = {}
    for metric in metrics:
        own = metric.spec.name
        given = list(metric.score(results))
        if len(given) != len(results):
            raise PluginError(f"the metric {own!r} gave {len(given)} scores for {len(results)} items of {name}")
        values = [None if value is None else _number(value, f"the metric {own!r} gave {name}") for value in given]
        if not all(value is None or math.isfinite(value) for value in values):
            raise PluginError(f"the metric {own!r} gave a score for {name} that is no finite number")
        scores[own] = values
    scored = [
        dataclasses.replace(result, scores={own: value for own, values in scores.items() if (value := values[i]) is not None})
        for i, result in enumerate(results)
    ]
    return TaskScores(task=name, language=language, group=group, results=scored, scores=scores, chances=chances)


def summarise(tasks: Sequence[TaskScores], metrics: Sequence[Metric], warnings: Sequence[str]) -> dict[str, Any]:
    """The part of a record that follows from its samples: figures, counts, usage, consistency, warnings."""
    results = [result for task in tasks for result in task.results]
    figures = aggregate_all(tasks, {metric.spec.name: metric.spec.scale for metric in metrics})
    groups: dict[str, list[TaskScores]] = {}
    for task in tasks:
        if task.group is not None:
            groups.setdefault(task.group, []).append(task)
    consistency = [cross_lingual_consistency(group, members) for group, members in groups.items()]
    statuses = Counter(result.status for result in results)
    bos = Counter(result.usage.bos for result in results if result.usage.bos is not None)
    return {
        "results": figures_as_json(figures),
        "metrics": {metric.spec.name: dict(about) for metric in metrics if (about := metric.about())},
        "consistency": [entry for entry in consistency if entry is not None],
        "counts": {
            "n": len(results),
            **{status: statuses[status] for status in ("ok", "unread", "failed", "unscored")},
            "right": sum(result.right is True for result in results),
            "truncated": sum(result.finish_reason == "length" for result in results),
            "shots_dropped": sum(result.usage.shots_dropped > 0 for result in results),
            "border_merged": sum(result.usage.border_merged for result in results),
            "bos": {str(count): items for count, items in sorted(bos.items())},
            "failures": dict(Counter((result.failure or "").partition(":")[0] for result in results if result.failure)),
        },
        "usage": {task.task: _usage(task.results) for task in tasks},
        "warnings": [*warnings, *_warnings(results)],
    }


def _usage(results: Sequence[SampleResult]) -> dict[str, float]:
    usages = [result.usage for result in results]
    used: dict[str, float] = {
        "tokens_in": sum(usage.tokens_in for usage in usages),
        "tokens_out": sum(usage.tokens_out for usage in usages),
        "seconds": round(sum(usage.seconds for usage in usages), 3),
    }
    # What only some servers tell, where they told it.
    for name in ("tokens_thinking", "tokens_cached"):
        if count := sum(getattr(usage, name) for usage in usages):
            used[name] = count
    costs = [usage.cost for usage in usages if usage.cost is not None]
    return {**used, **({"cost": round(math.fsum(costs), 6)} if costs else {})}


def _warnings(results: Sequence[SampleResult]) -> list[str]:
    missing = sum(result.usage.bos == 0 for result in results)
    doubled = sum((result.usage.bos or 0) > 1 for result in results)
    dropped = sum(result.usage.shots_dropped > 0 for result in results)
    merged = sum(result.usage.border_merged for result in results)
    found = []
    if missing:
        found.append(f"{missing} prompts begin without the BOS token that this model's tokenizer puts in front of text")
    if doubled:
        found.append(f"{doubled} prompts begin with more than one BOS token: the chat template and the tokenizer both add it")
    if dropped:
        found.append(f"{dropped} prompts were longer than the model's context and lost solved examples")
    if merged:
        found.append(f"in {merged} items a token spans the border between prompt and continuation; see docs/protocols.md")
    return found


def rescore(path: Path, catalog: Catalog, metric_names: Sequence[str], metric_args: Mapping[str, str] | None = None) -> RunRecord:
    """Scores a finished run again: answers are read anew, `metric_names` are added; the model is not asked."""
    old = read_record(path)
    protocol: ProtocolName = old["protocol"]["used"]
    names = dict.fromkeys([*(name for name in old["plan"]["metrics"]), *metric_names])
    arguments = {**old["plan"].get("metric_args", {}), **(metric_args or {})}
    metrics = catalog.load_metrics(tuple(names), protocol, arguments)
    for metric in metrics:
        metric.prepare(catalog, path)
    stored: dict[str, list[SampleResult]] = {}
    for result in read_samples(path):
        stored.setdefault(result.task, []).append(result)
    if {name: len(results) for name, results in stored.items()} != {
        name: len(about["chances"]) for name, about in old["tasks"].items()
    }:
        raise StoreError(f"{path}: the samples are not those of the record; restore the folder, or run again")
    tasks, others = [], []
    rotations = read_rotations(path)
    for name, about in old["tasks"].items():
        task = _StoredTask(name=name, language=about["language"], max_answers=about["max_answers"], source=about["source"])
        results = [_read_again(result, task, protocol, catalog) for result in stored[name]]
        tasks.append(score_task(name, about["language"], about["group"], results, metrics, about["chances"]))
        others += [_read_again(result, task, protocol, catalog) for result in rotations if result.task == name]
    kept = [text for text in old["warnings"] if text not in _warnings([result for task in tasks for result in task.results])]
    record = {
        **old,
        "plan": {**old["plan"], "metrics": list(names), "metric_args": arguments},
        **summarise(tasks, metrics, kept),
        **_rotations(old["plan"].get("rotations"), tasks, others),
        "rescored": {"at": datetime.now(UTC).isoformat(timespec="seconds"), "mmedeval": __version__},
    }
    rewrite(path, record, [result for task in tasks for result in task.results], others)
    return record_from_json(record)


@dataclass(frozen=True, kw_only=True)
class _StoredTask:
    """A task as far as a stored run knows it."""

    name: str
    language: str
    max_answers: int
    source: str

    def samples(self, split: Split) -> Sequence[Sample]:
        return ()


def _read_again(result: SampleResult, task: Task, protocol: ProtocolName, catalog: Catalog) -> SampleResult:
    if result.output is None or result.finish_reason is None:
        return result
    generation = Generation(
        request_id=f"{result.task}/{result.sample.id}",
        text=result.output,
        finish_reason=result.finish_reason,
        usage=result.usage,
    )
    answer = _read(catalog.host.hook.mmedeval_parse_answer, task, result.sample, generation, protocol)
    return dataclasses.replace(result, status="unread" if answer.letters is None else "ok", prediction=answer.letters, scores={})
