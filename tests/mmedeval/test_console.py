"""Every screen fits into 80 columns, stands in line in any script, and prints hostile text harmlessly."""

from __future__ import annotations

import copy
import io
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console

from mmedeval import console
from mmedeval.catalog import Catalog
from mmedeval.doctor import Finding
from mmedeval.errors import StoreError
from mmedeval.hookspecs import hookimpl
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.specs import MetricSpec
from mmedeval.store import read_samples
from mmedeval.testing import ScriptedBackend, StaticTask, make_sample
from mmedeval.text import printable
from mmedeval.types import (
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    RunPlan,
    RunRecord,
    SampleResult,
    Usage,
)

WIDTH = 80
HOSTILE = [
    "\x1b[31mred\x1b[0m \x1b[2J\x1b[H screen cleared",
    "\x1b]8;;http://evil.example/\x1b\\a link\x1b]8;;\x1b\\ and \x1b]0;a title\x07",
    "\x9b31m as one byte",
    "Answer: A\rAnswer: B\b\b\b\x7f",
    "\u202eB :rewsnA\u202c \u2066isolated\u2069 \u200f\u061c",
    "[red]markup[/red] [/] [link=http://evil.example]x[/link] :warning: [bold",
    "line\u2028separator\u2029paragraph\x85next\x0bvertical\x0cform",
    "\ud800 lone \ufeff and \U000e0041 tags",
    "one\ttwo\t三\n\n\tfour",
]
SCRIPTS = [
    "患者，男，74岁，" * 40,
    "次のうち正しいものはどれか。カタカナとﾊﾝｶｸ、全角ＡＢＣ。" * 20,
    "Какой из перечисленных препаратов противопоказан при беременности? " * 20,
    "é" * 300 + " ¿Cuál? " + "ñ" * 200,
    "👩‍⚕️🩺🇯🇵 " * 60,
    "x" * 1000,
]


def screen(draw: Callable[[Console], None], width: int = WIDTH) -> str:
    """What a terminal that knows no colours gets."""
    file = io.StringIO()
    draw(Console(file=file, width=width, highlight=False, force_terminal=False))
    return file.getvalue()


def fits(text: str) -> bool:
    return max(map(cell_len, text.split("\n"))) <= WIDTH


def harmless(text: str) -> bool:
    acting = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    return not any(unicodedata.category(char) in acting for char in text if char not in "\n\u200d")


def scored(request: LoglikelihoodRequest) -> Loglikelihoods | Failure:
    """Every fifth request fails; the others prefer an answer by their number, and take some time and tokens."""
    number = int(request.id.rpartition("-")[2])
    if number % 5 == 0:
        return Failure(request_id=request.id, kind="too_long", message="9999 tokens, the model reads 4096")
    values = tuple(-1.0 - (i - number) % len(request.answers) for i in range(len(request.answers)))
    return Loglikelihoods(
        request_id=request.id, values=values, usage=Usage(tokens_in=123_456, tokens_out=99, seconds=345.678, shots_dropped=1)
    )


def evaluate(
    path: Path, tasks: Sequence[str] = ("mmedbench_mini",), *, static: Sequence[StaticTask] = (), name: str = "scripted"
) -> RunRecord:
    backend = ScriptedBackend(score=scored)
    plugin = SimpleNamespace(
        mmedeval_backends=hookimpl(lambda: [backend.spec()]),
        mmedeval_tasks=hookimpl(lambda: [task.spec("group") for task in static]),
        mmedeval_metrics=hookimpl(
            lambda: [MetricSpec(name="margin", summary="", scale=100, load=lambda: lambda results: [r.margin for r in results])]
        ),
    )
    plan = RunPlan(model=f"scripted:{name}", tasks=tuple(tasks), metrics=("margin",), shots=1 if not static else 0)
    return run(plan, Catalog(make_host(extra=[plugin])), path)[0]


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, Path]:
    path = (
        tmp_path_factory.mktemp("runs") / "a_folder_with_a_name_that_is_far_longer_than_any_terminal_is_wide_hf_checkpoint_letter"
    )
    return evaluate(path, name="/data/models/" + "llama-" * 20), path


def test_the_table_of_a_run_fits_and_its_columns_stand_in_line(mini: tuple[RunRecord, Path]) -> None:
    record, path = mini
    text = screen(lambda out: console.print_record(record, path, out))
    assert fits(text)
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("language"))
    table = lines[start : start + 10]
    assert len({cell_len(line) for line in table}) == 1
    rows = [line for line in table[2:] if line.strip()]
    assert [row.split()[0] for row in rows] == ["English", "Chinese", "Japanese", "French", "Russian", "Spanish", "average"]
    # Every row has as many figures as there are columns: none was cut or ran into its neighbour.
    assert {len(row.replace(" – ", "–").split()) for row in rows} == {9}
    assert "…" not in text


def test_the_language_of_the_texts_and_what_they_cost_stand_beside_the_accuracy(tmp_path: Path) -> None:
    def write(request: GenerateRequest) -> Generation:
        french = "Le fer manque dans le sang de cette patiente.\nRéponse : A"
        return Generation(request_id=request.id, text=french, usage=Usage(tokens_in=10, tokens_out=5, cost=0.25))

    backend = ScriptedBackend(write=write)
    tasks = [
        StaticTask(name=f"t_{code}", language=code, test=[make_sample(i, language=code) for i in (1, 2, 3)])
        for code in ("fr", "ja")
    ]
    plugin = SimpleNamespace(
        mmedeval_backends=hookimpl(lambda: [backend.spec()]),
        mmedeval_tasks=hookimpl(lambda: [task.spec("group") for task in tasks]),
    )
    plan = RunPlan(model="scripted:any", tasks=("group",), metrics=("in_language",))
    record = run(plan, Catalog(make_host(extra=[plugin])), tmp_path / "run")[0]
    text = screen(lambda out: console.print_record(record, tmp_path / "run", out))
    lines = [
        line.split()
        for line in text.replace(" – ", "–").replace("95 % interval", "interval").replace("in language", "spoken").split("\n")
    ]
    head = next(line for line in lines if line[:1] == ["language"])
    rows = {line[0]: dict(zip(head, line, strict=True)) for line in lines if line[:1] in (["French"], ["Japanese"], ["average"])}
    assert {name: (row["accuracy"], row["spoken"], row["USD"]) for name, row in rows.items()} == {
        "French": ("100.0", "100.0", "0.75"),
        "Japanese": ("100.0", "0.0", "0.75"),
        "average": ("100.0", "50.0", "1.50"),
    }


def test_the_table_says_what_a_reader_must_know(mini: tuple[RunRecord, Path]) -> None:
    record, path = mini
    text = " ".join(screen(lambda out: console.print_record(record, path, out)).split())
    assert "letter, 1 shot " in text
    assert "0 unread and 48 failed items counted as wrong" in text
    assert "Failures: too_long 48" in text
    assert "warning: 192 prompts were longer than the model's context and lost solved examples" in text
    assert "Across 6 languages" in text
    assert "protocol letter: auto: the backend computes loglikelihoods" in text
    assert "margin" in text


def test_languages_and_names_in_any_script_stand_in_line_and_markup_is_text(tmp_path: Path) -> None:
    names = ["中文", "日本語", "русский", "[red]en", "[/red]", "a:smile:b"]
    static = [
        StaticTask(name=f"task{i}", language=name, test=[make_sample(n, language=name) for n in (1, 2, 3)])
        for i, name in enumerate(names)
    ]
    record = evaluate(tmp_path / "[bold]run[/bold]", ["group"], static=static, name="[red]model[/red]\x1b[31m")
    text = screen(lambda out: console.print_record(record, tmp_path / "[bold]run[/bold]", out))
    assert fits(text)
    assert harmless(text)
    for name in [*names, "[red]model[/red]\\x1b[31m", "[bold]run[/bold]"]:
        assert name in text.replace("\n", "")
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("language"))
    assert len({cell_len(line) for line in lines[start : start + 10]}) == 1


def test_long_names_of_tasks_widen_a_table_rather_than_cut_its_numbers(tmp_path: Path) -> None:
    static = [
        StaticTask(
            name=f"medical_licensing_exam_{language}_{n}_options", language=language, test=[make_sample(i) for i in (1, 2)]
        )
        for language in ("en", "fr")
        for n in (4, 5)
    ]
    record = evaluate(tmp_path / "run", ["group"], static=static)
    text = screen(lambda out: console.print_record(record, tmp_path / "run", out))
    lines = text.split("\n")
    rows = [line.replace(" – ", "–").split() for line in lines if line.startswith("medical_licensing_exam_en_")]
    assert [(len(row), row[4], row[7], row[8]) for row in rows] == [(9, "2", "247.1k", "691.4")] * 2
    (names,) = [line.split() for line in lines if line.startswith("metric")]
    assert names == ["metric", "±", "95", "%", *(task.name for task in static), "group"]
    (margins,) = [line.split() for line in lines if line.startswith("margin")]
    assert len(margins) == 6
    assert "…" not in text
    assert all(cell_len(line) <= WIDTH for line in lines if line.startswith(("Accuracy", "stored", "warning")))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (("usage", "mmedbench_mini_en"), r"KeyError: 'mmedbench_mini_en'"),
        (("usage", "mmedbench_mini_en", "seconds"), r"KeyError: 'seconds'"),
        (("tasks", "mmedbench_mini_en", "group"), r"KeyError: 'group'"),
        (("model", "reference"), r"KeyError: 'reference'"),
    ],
)
def test_a_record_that_lacks_what_its_table_shows_is_refused_in_one_sentence(
    mini: tuple[RunRecord, Path], place: tuple[str, ...], said: str
) -> None:
    data = copy.deepcopy(dict(mini[0].data))
    *way, last = place
    holder = data
    for name in way:
        holder = holder[name]
    del holder[last]
    with pytest.raises(StoreError, match=rf"run/record.json is damaged: {said}; restore it, or run again with another --out"):
        screen(lambda out: console.print_record(replace(mini[0], data=data), Path("run"), out))


def test_letters_and_reasons_out_of_a_stored_run_are_printed_harmlessly(mini: tuple[RunRecord, Path]) -> None:
    hostile = "\x1b[2J\u202e"
    record = replace(mini[0], data={**mini[0].data, "protocol": {"requested": "auto", "used": "letter", "why": hostile}})
    assert harmless(screen(lambda out: console.print_record(record, mini[1], out)))
    result = replace(written("x"), prediction=frozenset([hostile]), status=hostile)
    result = replace(result, sample=replace(result.sample, answer=frozenset([hostile])))
    assert harmless(screen(lambda out: console.print_samples([result], 1, whole=False, console=out)))


@pytest.mark.parametrize("whole", [False, True])
def test_the_samples_of_all_languages_fit(mini: tuple[RunRecord, Path], whole: bool) -> None:
    results = read_samples(mini[1])
    text = screen(lambda out: console.print_samples(results, len(results) + 3, whole=whole, console=out))
    assert fits(text)
    assert harmless(text)
    assert "240 of 243 shown" in text
    squeezed = "".join(text.split())
    for result in results:
        shown = [result.sample.question, *result.sample.options.values(), *([result.sample.rationale] if whole else [])]
        assert all("".join(part.split()) in squeezed for part in shown)


def written(output: str) -> SampleResult:
    return SampleResult(
        task="static",
        sample=replace(make_sample(1), question=output, rationale=output),
        status="unread",
        prompt=output,
        output=output,
        failure=output,
        finish_reason="stop",
    )


@pytest.mark.parametrize("output", [*HOSTILE, *SCRIPTS], ids=[*"abcdefghi", *"uvwxyz"])
@pytest.mark.parametrize("whole", [False, True])
def test_whatever_a_model_wrote_is_shown_harmlessly_and_within_the_screen(output: str, whole: bool) -> None:
    text = screen(lambda out: console.print_samples([written(output)], 1, whole=whole, console=out))
    assert fits(text)
    assert harmless(text)
    assert "".join(printable(output).split()) in "".join(text.split())


def test_brackets_in_an_output_are_shown_as_they_are() -> None:
    text = screen(lambda out: console.print_samples([written("[red]A[/red] [/b] :smile:")], 1, whole=False, console=out))
    assert text.count("[red]A[/red] [/b] :smile:") == 3


def test_even_a_terminal_with_colours_gets_no_code_from_an_output() -> None:
    file = io.StringIO()
    out = Console(file=file, width=WIDTH, highlight=False, force_terminal=True, color_system="truecolor")
    for output in HOSTILE:
        console.print_samples([written(output)], 1, whole=True, console=out)
    text = file.getvalue()
    codes = {part.partition("m")[0] for part in text.split("\x1b[")[1:]}
    assert codes <= {"0", "1", "2", "31", "32", "33", "1;31", "1;33", "1;32"}
    assert not any(char in text for char in "\r\x07\x08\x9b\u202e\u2066")
    assert "]8;;" not in text.replace("\\x1b]8;;", "")


def test_a_diagnosis_fits_and_keeps_the_pip_line_whole_to_the_eye() -> None:
    findings = [
        Finding(section="Software", name="python", text="3.11 on " + "Linux-" * 30),
        Finding(section="Backends", name="hf:", text="it needs torch; run: pip install 'mmedeval[hf]'", good=False),
        Finding(section="Plugins", name="[red]x[/red]", text="failed to import: \x1b[31m[/] " + "ошибка " * 40, good=False),
        Finding(section="Data", name="mmedbench, mmedbench_mini", text="/資料/" * 30, good=True),
    ]
    text = screen(lambda out: console.print_diagnosis(findings, out))
    assert fits(text)
    assert harmless(text)
    assert "[red]x[/red]" in text
    assert "no hf:" in text
    assert "pip install 'mmedeval[hf]'" in text


def progress_of(file: io.StringIO, *, terminal: bool, samples: int) -> None:
    def write(request: GenerateRequest) -> Generation:
        return Generation(request_id=request.id, text="Answer: A", usage=Usage(tokens_in=10, tokens_out=5))

    backend = ScriptedBackend(write=write)
    task = StaticTask(test=[make_sample(i) for i in range(samples)])
    bar = console.Progress(Console(file=file, width=WIDTH, force_terminal=terminal))
    plugin = SimpleNamespace(mmedeval_backends=hookimpl(lambda: [backend.spec()]), mmedeval_tasks=hookimpl(lambda: [task.spec()]))
    run(RunPlan(model="scripted:any", tasks=("static",)), Catalog(make_host(extra=[bar, plugin])))


def test_off_a_terminal_progress_is_plain_lines_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "PLAIN_LINE_SECONDS", 0.0)
    file = io.StringIO()
    progress_of(file, terminal=False, samples=20)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == file.getvalue() == ""
    assert all(line.startswith("mmedeval: ") and line.isprintable() for line in lines)
    assert lines[1] == "mmedeval: 20 requests to answer"
    assert [line.split()[1] for line in lines[2:-1]] == [f"{i}/20," for i in range(1, 21)]
    assert lines[-1].startswith("mmedeval: 20 answered in ")
    assert lines[-1].endswith("0 failed, 0 unread")


def test_off_a_terminal_a_short_run_says_only_how_it_began_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    progress_of(io.StringIO(), terminal=False, samples=200)
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_on_a_terminal_progress_is_one_line_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = io.StringIO()
    progress_of(file, terminal=True, samples=300)
    text = file.getvalue()
    assert "300/300" in text
    assert "0 failed, 0 unread" in text
    assert text.endswith("\x1b[2K")  # the line of the bar is cleared
    assert "\x1b[?25h" in text  # and the cursor is back
