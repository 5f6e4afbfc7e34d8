"""Tiny checkpoints with tokenizers of several kinds, and texts in many scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mmedeval import Task, TaskOptions
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval_hf.tiny import TinyModels, one_thread

DATA = Path(__file__).parents[3].parent / "shared" / "data" / "mmedbench"
# What pre-tokenizers like to disagree on: blanks, line ends, digits, contractions, marks, symbols, rare planes.
AWKWARD = (
    "", " ", "  ", "   a", "a   ", "\n", "\n\n", " \n", "\r\n\r\n  x", "\t\tx", "a\u00a0b", "\u3000全角", "x\u2028y",
    "I'm you'RE he'Ll 'tis don't DON'T l’eau l'eau", "1", "12", "123", "1234567", "3.14159", "1,000,000", "x²+y³", "½ ¾ ⅓", "٣٤٥",
    "naïve e\u0301te\u0301 ñ Ñ ß İ ı", "Ёлка ёж", "حبوب منع الحمل", "कोशिका झिल्ली", "ภาษาไทย", "한국어 시험",
    "👩🏽‍⚕️🩺 🇫🇷", "a\u200db",
    "A/B, C\\D; (E) [F] {G} <H>", "...!!!???", "——", "。。、", "《》「」", "CamelCaseHTTPServer", "snake_case_name",
    "  def f(x):\n    return x",
    "<s>", "</s> x", "a<s>b", "<pad>", "Ω≈ç√∫", "µg/mL ± 0.05 ≥ 3×10⁹/L", "𝔘𝔫𝔦", "\u0000", "x\u0000y", "\ufeffx", "Na⁺ K⁺",
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def single() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session", autouse=True)
def closed_streams() -> Iterator[None]:
    """Closes what llama_cpp leaves open, which would be a warning at the very end."""
    yield
    left = sys.modules.get("llama_cpp._utils")
    if left is not None:
        left.outnull_file.close()
        left.errnull_file.close()


def _tasks() -> list[Task]:
    return [spec.load(TaskOptions()) for spec in Catalog(make_host(block=[])).select_tasks(["mmedbench_mini"])]


@pytest.fixture(scope="session")
def texts() -> Sequence[str]:
    """Some 1,400 strings in six languages, and the awkward ones."""
    found = [*AWKWARD]
    for task in _tasks():
        for sample in [*task.samples("train"), *task.samples("test")]:
            found += [sample.question, " ".join(f"{key}. {text}\n" for key, text in sample.options.items()), sample.rationale]
            found += [f"\n{next(iter(sample.options.values()))}  "]
    return found


@pytest.fixture(scope="session")
def published_texts() -> Sequence[str]:
    """Questions and rationales of MMedBench, 200 of each language."""
    if not DATA.is_dir():
        pytest.skip("the MMedBench files are not beside the repository (shared/data/mmedbench)")
    found = []
    for file in sorted((DATA / "Test").glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines()[:200]:
            item = json.loads(line)
            found += [item["question"], item.get("rationale") or " ".join(item["options"].values())]
    return found


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """Makes a tiny checkpoint like `make_tiny_model`, without a path; the same call gives the same folder."""
    return TinyModels(tmp_path_factory.mktemp("tiny"))
