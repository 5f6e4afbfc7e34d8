"""A corpus from raw text to shards, through the command line."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ahocorasick", reason="pyahocorasick is not installed")
pytest.importorskip("py3langid", reason="py3langid is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("zstandard", reason="zstandard is not installed")

from click.testing import CliRunner

from mmed_train.cli import cli
from mmed_train.corpus.config import STEPS, read_corpus
from mmed_train.corpus.documents import read_lines
from mmed_train.corpus.report import read_stats
from mmed_train.corpus.shards import open_shards
from mmedeval import TaskOptions
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval_hf.tiny import make_tiny_model

MEDICAL = (
    "The patient was admitted with pneumonia and treated with antibiotics. Blood pressure and heart rate were normal, "
    "and the diagnosis of sepsis was excluded by culture. Hypertension, diabetes and renal failure were known; an "
    "electrocardiogram showed atrial fibrillation, and anticoagulants were given. After surgery the wound healed "
    "without infection, and the patient left the hospital with a prescription for aspirin. A biopsy of the liver had "
    "shown cirrhosis two years before. "
)
PLAIN = (
    "The village lies on a hill above the river, and in summer many visitors come to see the old bridge and to walk "
    "along the water. There is a small shop that sells bread, and a school with one teacher who has been there for many "
    "years. On Sundays a band plays in the square, children run between the tables, and old men tell each other how it "
    "was when the railway came to the valley. "
)
FRENCH = (
    "Le patient a été admis pour une pneumonie et traité par des antibiotiques. La tension artérielle était normale, et "
    "le diagnostic de septicémie a été écarté. Le scanner thoracique montrait une embolie pulmonaire, et un traitement "
    "anticoagulant a été débuté. Le lendemain, la fièvre avait disparu et le malade pouvait quitter le service avec une "
    "ordonnance pour trois mois. "
)
MMED_TRAIN = (sys.executable, "-c", "from mmed_train.cli import main; main()")
WORDS = [
    f"{a}{b}" for a in ("ta", "mo", "ri", "lu", "se", "ko") for b in ("ban", "dir", "fol", "gem", "hus", "kip", "lor", "mun")
]


def made(number: int, words: int = 80) -> str:
    """A text like no other."""
    draw = random.Random(number)
    return " ".join(draw.choice(WORDS) for _ in range(words)) + "."


def lines(file: Path, texts: Mapping[str, str]) -> None:
    file.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()), encoding="utf-8")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def describe(tmp_path: Path, tokenizer: Path) -> Callable[..., Path]:
    """Writes a description of `texts.jsonl`, unless other sources are given."""

    def write(*sources: str, output: str = "out", more: str = "", **settings: Any) -> Path:
        told = "".join(f"{name} = {json.dumps(value)}\n" for name, value in {"output": output, "tasks": 3, **settings}.items())
        given = sources or ('name = "texts"\nlanguage = "en"\npath = "texts.jsonl"\nrules = []',)
        file = tmp_path / f"{output}.toml"
        file.write_text(
            f"[corpus]\n{told}"
            + "".join(f"[[source]]\n{source}\n" for source in given)
            + f'[decontaminate]\ntasks = ["mmedbench_mini"]\n[tokenize]\ntokenizer = "{tokenizer}"\n{more}',
            encoding="utf-8",
        )
        return file

    return write


def run(file: Path, *arguments: str, step: str = "run", code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["corpus", step, str(file), "--workers", "1", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def kept(output: Path, step: str) -> set[str]:
    return {each["id"].partition("/")[2] for file in (output / step / "documents").glob("*") for each in read_lines(file)}


def rejected(output: Path, step: str) -> dict[str, str]:
    found = [each for file in (output / step / "rejected").glob("*") for each in read_lines(file)]
    return {each["id"].partition("/")[2]: each["reason"] for each in found}


def contents(output: Path) -> dict[str, bytes]:
    return {
        file.relative_to(output).as_posix(): file.read_bytes()
        for file in sorted(output.rglob("*"))
        if file.is_file() and not {"logs", "failed", ".lock", ".digests.json"} & {*file.relative_to(output).parts}
    }


def test_each_step_keeps_and_drops_what_it_says(tmp_path: Path, describe: Callable[..., Path]) -> None:
    question = next(iter(Catalog(make_host()).select_tasks(["mmedbench_mini_en"])[0].load(TaskOptions()).samples("test")))
    item = f"{question.question}\n" + "\n".join(f"{letter}. {text}" for letter, text in question.options.items())
    texts = {
        "good": MEDICAL,
        "again": MEDICAL,
        "near": MEDICAL.replace("given", "administered").replace("shown", "found"),
        "plain": PLAIN,
        "french": FRENCH,
        "short": "Fever.",
        "item": f"{PLAIN} {item} {MEDICAL}",
    }
    lines(tmp_path / "texts.jsonl", texts)
    with (tmp_path / "texts.jsonl").open("a") as file:
        file.write('{"text": 1}\nno json\n')
    run(describe('name = "texts"\nlanguage = "en"\npath = "texts.jsonl"'))
    out = tmp_path / "out"
    assert kept(out, "1-extract") == set(texts)
    assert sorted(rejected(out, "1-extract").values()) == ["'text' is no string", "no JSON"]
    assert rejected(out, "2-filter") == {
        "french": "another language",
        "plain": "not medical",
        "short": rejected(out, "2-filter")["short"],
    }
    assert rejected(out, "2-filter")["short"].startswith("quality: ")
    assert len(kept(out, "3-dedup") & {"good", "again", "near"}) == 1
    assert rejected(out, "4-decontaminate") == {"item": "holds test items of mmedbench_mini_en"}
    stats = read_stats(read_corpus(tmp_path / "out.toml"))
    (source,) = stats.sources
    assert source.kept == {"extract": 7, "filter": 4, "dedup": 2, "decontaminate": 1}
    assert source.tokens == len(open_shards([out / "5-tokenize" / "shards"]))
    assert source.mixed is not None
    assert (source.mixed["tokens"], source.mixed["passes"]) == (source.tokens, 1.0)


def test_every_source_is_counted_by_its_name_and_language(tmp_path: Path, describe: Callable[..., Path]) -> None:
    (tmp_path / "pages").mkdir()
    for number in range(5):
        (tmp_path / "pages" / f"{number}.txt").write_text(made(number), encoding="utf-8")
    lines(tmp_path / "texts.jsonl", {str(number): made(number + 100) for number in range(7)})
    output = run(
        describe(
            'name = "a"\nlanguage = "en"\npath = "texts.jsonl"\nrules = []',
            'name = "b"\nlanguage = "fr"\npath = "pages"\nformat = "text"\nrules = []',
            more="[mix]\nwindow = 64\nweights = { en = 1, fr = 1 }\n",
        )
    )
    assert "after decontaminate" in output
    found = {each.source: each for each in read_stats(read_corpus(tmp_path / "out.toml")).sources}
    assert (found["a"].language, found["a"].kept["decontaminate"]) == ("en", 7)
    assert (found["b"].language, found["b"].kept["decontaminate"]) == ("fr", 5)
    assert found["a"].mixed is not None
    assert found["a"].mixed["share"] == pytest.approx(0.5, abs=0.05)


def test_the_same_description_gives_the_same_bytes_with_more_processes(tmp_path: Path, describe: Callable[..., Path]) -> None:
    lines(tmp_path / "texts.jsonl", {str(number): made(number // 2) for number in range(40)})
    run(describe(output="one"))
    run(describe(output="two"), "--workers", "2")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} == set()


def test_killed_anywhere_it_goes_on_to_the_same_bytes(tmp_path: Path, describe: Callable[..., Path]) -> None:
    """The command and both its workers at once, in the middle of three steps."""
    lines(tmp_path / "texts.jsonl", {str(number): made(number // 2, 400) for number in range(300)})
    run(describe(output="whole", tasks=16))
    file = describe(output="killed", tasks=16)
    for name in ("extract", "filter", "dedup", "decontaminate", "tokenize"):
        folder = tmp_path / "killed" / f"{[*STEPS].index(name) + 1}-{name}"
        if name in ("filter", "dedup", "tokenize"):
            command = [*MMED_TRAIN, "corpus", name, str(file), "--workers", "2"]
            with subprocess.Popen(
                command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
            ) as process:
                while process.poll() is None and not any((folder / "tasks").glob("pair0002*" if name == "dedup" else "0*")):
                    time.sleep(0.002)
                os.killpg(process.pid, signal.SIGKILL)
            assert process.returncode == -signal.SIGKILL
            assert not (folder / "manifest.json").exists()
            assert re.search(r": \d+ tasks, \d+ were done before", run(file, step=name))
        else:
            run(file, step=name)
    run(file)
    whole, again = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert {name for name in whole if whole[name] != again.get(name)} == set()
    assert whole.keys() == again.keys()


def piped(file: Path, data: bytes, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["corpus", "run", str(file), "--workers", "1", *arguments], input=data)
    assert result.exit_code == code, result.output
    return result.output.replace("\n", " ")


def test_standard_input_is_kept_and_read_again(tmp_path: Path, describe: Callable[..., Path]) -> None:
    file = describe('name = "pipe"\nlanguage = "en"\npath = "-"\nrules = []', steps=["extract"])
    data = "".join(json.dumps({"text": made(number)}) + "\n" for number in range(3)).encode()
    assert "the source pipe is standard input, which is empty; pipe JSON lines in" in piped(file, b"", code=2)
    assert "pipe: reading standard input extract" in piped(file, data)
    assert len(kept(tmp_path / "out", "1-extract")) == 3
    for given in (data, b""):
        assert "extract: done before" in piped(file, given)
    assert re.search(r"standard input is not what .*pipe\.jsonl was kept from; give nothing", piped(file, data + data, code=2))


def test_a_file_system_that_refuses_standard_input_is_one_sentence(tmp_path: Path, describe: Callable[..., Path]) -> None:
    """By the limit on the size of files, which is told as a full disk is, but for its number."""
    file = describe('name = "pipe"\nlanguage = "en"\npath = "-"\nrules = []', steps=["extract"])
    command = f"ulimit -f 1; exec {shlex.join([*MMED_TRAIN, 'corpus', 'run', str(file)])}"
    done = subprocess.run(["bash", "-c", command], input=b"{}\n" * 10_000, capture_output=True, check=False)
    told = " ".join(done.stderr.decode().split())
    assert done.returncode == 2
    assert re.search(r"out/stdin/pipe\.jsonl: a file becomes larger than is allowed here; raise the limit \(ulimit -f\)", told), (
        told
    )
    assert not [*(tmp_path / "out" / "stdin").iterdir()]


def test_a_source_of_which_nothing_is_left_is_told_and_has_no_part_in_the_mix(
    tmp_path: Path, describe: Callable[..., Path]
) -> None:
    lines(tmp_path / "texts.jsonl", {str(number): made(number) for number in range(7)})
    lines(tmp_path / "plain.jsonl", {"plain": PLAIN})
    file = describe(
        'name = "a"\nlanguage = "en"\npath = "texts.jsonl"\nrules = []',
        'name = "b"\nlanguage = "fr"\npath = "plain.jsonl"\nepochs = 2.0\nrules = ["language"]',
        more="[mix]\nwindow = 64\nweights = { en = 1, fr = 1 }\n",
    )
    assert "warning: nothing is left of b (fr); it has no part in the mix" in run(file)
    found = {each.source: each for each in read_stats(read_corpus(file)).sources}
    assert (found["b"].tokens, found["b"].mixed) == (0, None)
    assert found["a"].mixed is not None
    assert found["a"].mixed["share"] == 1.0


def test_what_a_tokenizer_has_no_token_for_is_told(tmp_path: Path, describe: Callable[..., Path], tokenizer: Path) -> None:
    lines(tmp_path / "texts.jsonl", {"a": made(1), "b": made(2), "mark": "\u2003\u00ad"})
    folder = tmp_path / "letters"
    shutil.copytree(tokenizer, folder)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"] = {"type": "Replace", "pattern": {"Regex": "[^a-z ]"}, "content": ""}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    file = describe()
    file.write_text(file.read_text(encoding="utf-8").replace(str(tokenizer), str(folder)), encoding="utf-8")
    output = run(file)
    (source,) = read_stats(read_corpus(file)).sources
    assert source.rejected["tokenize"] == {"no token": 1}
    assert re.search(r"tokenize +no token +1", output)


def test_a_shard_that_was_damaged_since_is_found_by_the_next_step(tmp_path: Path, describe: Callable[..., Path]) -> None:
    lines(tmp_path / "texts.jsonl", {str(number): made(number) for number in range(9)})
    file = describe(steps=["extract", "tokenize", "mix"])
    run(file, step="extract")
    run(file, step="tokenize")
    shard = tmp_path / "out" / "5-tokenize" / "shards" / "00000.tokens"
    content = bytearray(shard.read_bytes())
    content[70] ^= 1
    shard.write_bytes(content)
    assert "00000.tokens does not have the SHA-256 that it was written with" in run(file, step="mix", code=2)


def test_a_broken_file_is_told_by_name(tmp_path: Path, describe: Callable[..., Path]) -> None:
    (tmp_path / "texts.jsonl.gz").write_bytes(b"no gzip at all")
    output = run(describe('name = "texts"\nlanguage = "en"\npath = "texts.jsonl.gz"\nrules = []', steps=["extract"]))
    assert f"warning: {tmp_path / 'texts.jsonl.gz'}: Not a gzipped file" in output
    # It is no document.
    assert "broken files, read as far as they could be: 1" in output
    (source,) = read_stats(read_corpus(tmp_path / "out.toml")).sources
    assert (source.broken, dict(source.rejected)) == (1, {})
    assert "left out" not in output


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("texts.jsonl", "gone.jsonl", r"out\.toml:7: gone\.jsonl, the path of the source texts, does not exist"),
        ("mmedbench_mini", "mmedbench_mimi", "unknown task 'mmedbench_mimi'; did you mean mmedbench_mini"),
        ('tokenizer = "', 'tokenizer = "nowhere', "the tokenizer nowhere.* cannot be loaded"),
        ("[tokenize]", "[mix]\nweights = { en = 0 }\n[tokenize]", r"out\.toml: \[mix\] weights: all are 0; give at least one"),
        ("[tokenize]", "[mix]\ntokens = -1\n[tokenize]", r"out\.toml: \[mix\] tokens = -1\.0; give a number above 0"),
    ],
)
def test_what_would_stop_a_later_step_is_told_before_the_first(
    tmp_path: Path, describe: Callable[..., Path], old: str, new: str, words: str
) -> None:
    lines(tmp_path / "texts.jsonl", {"a": made(1)})
    file = describe()
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    output = run(file, code=2)
    assert re.search(words, output.replace("\n", " ")), output
    assert not (tmp_path / "out" / "1-extract").exists()


def test_the_figures_come_as_json_and_as_a_chart(tmp_path: Path, describe: Callable[..., Path]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    lines(tmp_path / "texts.jsonl", {str(number): made(number) for number in range(5)})
    file = describe(steps=["extract"])
    run(file)
    result = CliRunner().invoke(cli, ["corpus", "stats", str(file), "--json", "--chart", str(tmp_path / "chart.png")])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["sources"][0]["kept"] == {"extract": 5}
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_ray_gives_the_same_bytes(tmp_path: Path, describe: Callable[..., Path]) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    pytest.importorskip("datatrove", reason="datatrove is not installed")
    lines(tmp_path / "texts.jsonl", {str(number): made(number) for number in range(20)})
    run(describe(output="here", steps=["extract"]))
    command = [*MMED_TRAIN, "corpus", "run", str(describe(output="there", steps=["extract"]))]
    subprocess.run([*command, "--executor", "ray", "--workers", "2"], check=True, timeout=300, capture_output=True)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
