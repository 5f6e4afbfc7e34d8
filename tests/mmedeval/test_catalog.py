"""Finding things by name: globs, groups, languages; what is unknown, doubled or missing becomes one sentence."""

import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest

from mmedeval import (
    BackendSpec,
    MetricSpec,
    MissingPackageError,
    PluginError,
    TaskOptions,
    TaskSpec,
    UnknownNameError,
    UsageError,
    hookimpl,
)
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.specs import LANGUAGES
from mmedeval.testing import ScriptedBackend, StaticTask, make_sample, prefer

PAPER_ORDER = [*LANGUAGES]
MISSING = "no_such_package_anywhere"


def plugin(name: str, hooks: Mapping[str, Callable[[], object]], *, trylast: bool = False) -> types.ModuleType:
    """A plugin as hosts see one: a module with hook implementations."""
    module = types.ModuleType(name)
    for hook, function in hooks.items():
        setattr(module, hook, hookimpl(trylast=trylast)(function))
    return module


def task_spec(name: str, language: str = "en", group: str | None = None, requires: tuple[str, ...] = ()) -> TaskSpec:
    def load(_: TaskOptions) -> StaticTask:
        raise AssertionError("a task is loaded only when it is used")

    return TaskSpec(name=name, summary="a test", language=language, load=load, group=group, requires=requires)


def catalog_with(*tasks: TaskSpec, block: Sequence[str] = ("hf", "mmedbench")) -> Catalog:
    def offer() -> Iterable[TaskSpec]:
        return tasks

    return Catalog(make_host(block=block, extra=[plugin("offering", {"mmedeval_tasks": offer})]))


def names(specs: Iterable[TaskSpec]) -> list[str]:
    return [spec.name for spec in specs]


# Tasks


def test_a_single_star_stands_for_one_part_of_a_name_and_two_for_any_number() -> None:
    catalog = Catalog(make_host(block=[]))
    languages = names(catalog.select_tasks(["mmedbench_*"]))
    assert languages == [f"mmedbench_{code}" for code in PAPER_ORDER]
    mini = names(catalog.select_tasks(["mmedbench_mini_*"]))
    assert mini == [f"mmedbench_mini_{code}" for code in PAPER_ORDER]
    assert names(catalog.select_tasks(["mmedbench_**"])) == [*languages, *mini]
    assert names(catalog.select_tasks(["mmedbench**"])) == [*languages, *mini]
    assert names(catalog.select_tasks(["**_ja"])) == ["mmedbench_ja", "mmedbench_mini_ja"]


def test_globs_know_sets_and_single_characters_within_a_part() -> None:
    catalog = Catalog(make_host(block=[]))
    assert names(catalog.select_tasks(["mmedbench_[ef]*"])) == ["mmedbench_en", "mmedbench_fr", "mmedbench_es"]
    assert names(catalog.select_tasks(["mmedbench_?s"])) == ["mmedbench_es"]
    assert names(catalog.select_tasks(["*_mini_ru"])) == ["mmedbench_mini_ru"]


def test_a_group_is_all_of_its_tasks_in_the_papers_order() -> None:
    catalog = Catalog(make_host(block=[]))
    assert names(catalog.select_tasks(["mmedbench"])) == [f"mmedbench_{code}" for code in PAPER_ORDER]
    assert catalog.groups["mmedbench_mini"] == tuple(f"mmedbench_mini_{code}" for code in PAPER_ORDER)


def test_tasks_come_in_the_order_asked_and_each_once() -> None:
    catalog = Catalog(make_host(block=[]))
    asked = ["mmedbench_ja", "mmedbench_mini_en", "mmedbench", "mmedbench_ja"]
    rest = [f"mmedbench_{code}" for code in PAPER_ORDER if code != "ja"]
    assert names(catalog.select_tasks(asked)) == ["mmedbench_ja", "mmedbench_mini_en", *rest]


def test_an_exact_name_wins_over_a_group_of_that_name() -> None:
    catalog = catalog_with(task_spec("quiz", group="sets"), task_spec("sets"), task_spec("other", group="sets"))
    assert names(catalog.select_tasks(["sets"])) == ["sets"]


def test_languages_narrow_the_tasks_and_an_unknown_one_is_named() -> None:
    catalog = Catalog(make_host(block=[]))
    assert names(catalog.select_tasks(["mmedbench"], ["ja", "fr"])) == ["mmedbench_ja", "mmedbench_fr"]
    with pytest.raises(UnknownNameError, match=r"'jp'.*did you mean ja"):
        catalog.select_tasks(["mmedbench"], ["jp"])
    with pytest.raises(UnknownNameError, match=r"'fr'.*known: en"):
        catalog.select_tasks(["mmedbench_en"], ["fr"])


def test_no_task_at_all_is_a_wrong_call() -> None:
    with pytest.raises(UsageError, match=r"--tasks.*mmedeval list tasks"):
        Catalog(make_host()).select_tasks([])


def test_languages_without_words_of_their_own_come_after_the_six() -> None:
    specs = [task_spec(f"quiz_{code}", code, "quiz") for code in ("de", "es", "ar", "en")]
    assert names(catalog_with(*specs).select_tasks(["quiz"])) == ["quiz_en", "quiz_es", "quiz_ar", "quiz_de"]


# Unknown names


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("mmedbench_jp", "mmedbench_ja"),
        ("mmedbnch", "mmedbench"),
        ("MMedBench_en", "mmedbench_en"),
        ("mmedbench-mini-fr", "mmedbench_mini_fr"),
    ],
)
def test_an_unknown_task_is_answered_with_the_nearest_names(pattern: str, near: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        Catalog(make_host(block=[])).select_tasks(["mmedbench_en", pattern])
    assert near in caught.value.near
    assert str(caught.value).startswith(f"unknown task {pattern!r}; did you mean ")
    assert caught.value.exit_code == 2


def test_a_name_like_no_other_is_answered_with_all_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown task 'zzz'; known: quiz$"):
        catalog_with(task_spec("quiz")).select_tasks(["zzz"])
    with pytest.raises(UnknownNameError, match="there is no task at all"):
        catalog_with().select_tasks(["zzz*"])


def test_unknown_backends_arguments_and_metrics_are_answered_with_the_nearest_names() -> None:
    catalog = Catalog(make_host(block=[]))
    with pytest.raises(UnknownNameError, match="unknown backend 'baselin'; did you mean baseline"):
        catalog.open_backend("baselin:random", {})
    with pytest.raises(UnknownNameError, match="'sed'; did you mean seed"):
        catalog.open_backend("baseline:random", {"sed": "1"})
    with pytest.raises(UnknownNameError, match="unknown metric 'acuracy'; did you mean accuracy"):
        catalog.select_metrics(["acuracy"], "letter")


@pytest.mark.parametrize("reference", ["baseline", "baseline:", "", "./model"])
def test_a_model_without_a_backend_is_told_how_to_name_one(reference: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(reference)) + ".*SCHEME:NAME.*baseline:"):
        Catalog(make_host()).open_backend(reference, {})


def test_a_model_name_may_hold_colons() -> None:
    spec, name = Catalog(make_host()).backend_spec("baseline:a:b/c:d")
    assert (spec.name, name) == ("baseline", "a:b/c:d")


# What plugins offer


@pytest.mark.parametrize("kind", ["task", "backend", "metric"])
def test_two_plugins_that_offer_the_same_name_are_both_named(kind: str) -> None:
    def offer() -> Iterable[object]:
        backend = ScriptedBackend(score=prefer(lambda _: "A"), name="twin").spec()
        metric = MetricSpec(name="twin", summary="a test", load=lambda: lambda results: [None for _ in results])
        return [{"task": task_spec("twin"), "backend": backend, "metric": metric}[kind]]

    hook = f"mmedeval_{kind}s"
    host = make_host(extra=[plugin("first_plugin", {hook: offer}), plugin("second_plugin", {hook: offer})])
    with pytest.raises(PluginError) as caught:
        getattr(Catalog(host), f"{kind}s")
    message = str(caught.value)
    assert f"the {kind} 'twin'" in message
    assert "'first_plugin'" in message
    assert "'second_plugin'" in message
    assert re.search("MMEDEVAL_BLOCK=(first|second)_plugin", message)


def test_a_task_whose_name_would_run_into_the_ids_of_its_samples_is_refused() -> None:
    with pytest.raises(PluginError, match=r"offers the task 'med/qa'; a task's name must be without '/'"):
        _ = catalog_with(task_spec("med/qa")).tasks


@pytest.mark.parametrize("trylast", [False, True])
def test_a_plugin_that_takes_a_name_of_the_core_is_the_one_to_be_blocked(trylast: bool) -> None:
    def offer() -> Iterable[BackendSpec]:
        return [ScriptedBackend(score=prefer(lambda _: "A"), name="baseline").spec()]

    host = make_host(extra=[plugin("thief", {"mmedeval_backends": offer}, trylast=trylast)])
    with pytest.raises(PluginError, match="MMEDEVAL_BLOCK=thief"):
        _ = Catalog(host).backends


@pytest.mark.parametrize(
    "offered",
    [
        [object()],
        ["quiz"],
        [{"name": "quiz"}],
        [ScriptedBackend(score=prefer(lambda _: "A")).spec()],
        None,
        task_spec("quiz"),
        7,
    ],
    ids=["object", "name", "mapping", "spec of another kind", "nothing", "spec without a list", "number"],
)
def test_a_hook_that_returns_something_else_is_named_with_what_it_must_return(offered: object) -> None:
    host = make_host(extra=[plugin("confused", {"mmedeval_tasks": lambda: offered})])
    with pytest.raises(PluginError, match=r"'confused'.*mmedeval_tasks.*TaskSpec"):
        _ = Catalog(host).tasks


def test_offers_are_collected_once_and_only_when_looked_up() -> None:
    calls = []

    def offer() -> Iterable[TaskSpec]:
        calls.append("tasks")
        yield task_spec("quiz")

    catalog = Catalog(make_host(extra=[plugin("counting", {"mmedeval_tasks": offer})]))
    assert catalog.backends
    assert calls == []
    catalog.select_tasks(["quiz"])
    catalog.select_tasks(["quiz"])
    assert calls == ["tasks"]


# Missing packages


@pytest.mark.parametrize("package", [MISSING, f"{MISSING}.part"])
def test_a_missing_package_is_named_with_the_line_that_brings_it(package: str) -> None:
    backend = BackendSpec(name="needy", summary="a test", load=lambda *_: ScriptedBackend(), requires=("click", package))
    metric = MetricSpec(name="needy", summary="a test", load=lambda: lambda _: [], requires=(package,), extra="texts")
    task = task_spec("needy", requires=(package,))
    hooks: dict[str, Callable[[], object]] = {
        "mmedeval_backends": lambda: [backend],
        "mmedeval_metrics": lambda: [metric],
        "mmedeval_tasks": lambda: [task],
    }
    catalog = Catalog(make_host(extra=[plugin("needy", hooks)]))
    uses: list[tuple[Callable[[], object], str]] = [
        (lambda: catalog.open_backend("needy:x", {}), f"the backend 'needy' needs {package}, .*pip install {package}$"),
        (lambda: catalog.select_tasks(["needy"]), f"the task 'needy' needs {package}, .*pip install {package}$"),
        (lambda: catalog.select_metrics(["needy"], "letter"), "the metric 'needy' .*pip install 'mmedeval\\[texts\\]'$"),
    ]
    for use, what in uses:
        with pytest.raises(MissingPackageError, match=what):
            use()


def test_what_is_not_asked_for_may_miss_its_packages() -> None:
    catalog = catalog_with(task_spec("needy", "fr", "quiz", requires=(MISSING,)), task_spec("plain", "en", "quiz"))
    assert names(catalog.select_tasks(["plain"])) == ["plain"]
    assert names(catalog.select_tasks(["quiz"], ["en"])) == ["plain"]


# Metrics


def test_the_default_metrics_are_those_that_fit_the_protocol() -> None:
    catalog = Catalog(make_host(block=["hf", "mmedbench"]))
    plain = ["accuracy", "accuracy_strict"]
    assert [spec.name for spec in catalog.select_metrics([], "letter")] == plain
    assert [spec.name for spec in catalog.select_metrics([], "chat")] == plain
    cloze = ["accuracy", "accuracy_per_byte", "accuracy_per_char", "accuracy_strict"]
    assert [spec.name for spec in catalog.select_metrics([], "cloze")] == cloze


def test_a_metric_that_cannot_score_the_protocol_is_refused_with_those_that_it_can() -> None:
    with pytest.raises(UsageError, match=r"'accuracy_per_char'.*'letter'.*needs one of: cloze"):
        Catalog(make_host()).select_metrics(["accuracy_per_char"], "letter")


def test_metrics_asked_for_come_after_the_default_ones_in_a_fixed_order() -> None:
    def offer() -> Iterable[MetricSpec]:
        return [MetricSpec(name=name, summary="a test", load=lambda: lambda _: []) for name in ("zeta", "alpha", "unasked")]

    catalog = Catalog(make_host(extra=[plugin("measuring", {"mmedeval_metrics": offer})]))
    chosen = [[spec.name for spec in catalog.select_metrics(asked, "letter")] for asked in (["zeta", "alpha"], ["alpha", "zeta"])]
    assert chosen[0] == chosen[1] == ["accuracy", "accuracy_strict", "alpha", "zeta"]


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_metric_on_no_scale_is_refused_before_anything_is_asked(scale: float) -> None:
    def offer() -> Iterable[MetricSpec]:
        return [MetricSpec(name="odd", summary="a test", load=lambda: lambda _: [], scale=scale)]

    catalog = Catalog(make_host(extra=[plugin("measuring", {"mmedeval_metrics": offer})]))
    with pytest.raises(PluginError, match=r"the metric 'odd' has the scale .*; it must be a number above 0"):
        catalog.load_metrics(["odd"], "letter", {})


def test_the_helpers_of_the_test_kit_offer_what_a_catalogue_takes() -> None:
    backend, task = ScriptedBackend(score=prefer(lambda _: "A")), StaticTask(test=[make_sample()])
    hooks: dict[str, Callable[[], object]] = {
        "mmedeval_backends": lambda: [backend.spec()],
        "mmedeval_tasks": lambda: [task.spec("g")],
    }
    catalog = Catalog(make_host(extra=[plugin("kit", hooks)]))
    assert catalog.open_backend("scripted:anything", {}) is backend
    assert catalog.select_tasks(["g"])[0].load(TaskOptions()) is task
