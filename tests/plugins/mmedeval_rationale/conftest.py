"""Pairs of texts: real ones where they are at hand, and some of our own that are odd."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "mmedbench" / "meds_bench_rationale_outputs.jsonl"
CODES = {"English": "en", "Chinese": "zh", "Japanese": "ja", "French": "fr", "Russian": "ru", "Spanish": "es"}
Pair = tuple[str, str, str]


@pytest.fixture(scope="session")
def real_pairs() -> list[Pair]:
    """Language, output and reference of 150 real items."""
    if not REAL.is_file():
        pytest.skip("the real outputs are not beside the repository (shared/data/mmedbench)")
    rows = [json.loads(line) for line in REAL.read_text(encoding="utf-8").splitlines()]
    pairs = [(CODES[row["language"]], row["model_output"], row["rationale"]) for row in rows]
    assert len(pairs) == 150
    return pairs


ODD: list[Pair] = [
    ("en", "Insulin lowers glucose. It doesn't raise it.", "Insulin doesn't raise glucose.\nIt lowers it, by 3.5 mmol/l."),
    ("en", "insulin insulin insulin", "insulin glucose"),
    ("en", "word", "word"),
    ("fr", "L’hépatite est une maladie du foie.", "L'hépatite touche le foie. C’est une maladie."),
    ("ru", "Инсулин снижает уровень глюкозы.", "Уровень глюкозы снижает инсулин. Это гормон."),
    ("es", "El hígado está inflamado…", "¿Está inflamado el hígado? Sí."),
    ("zh", "胰岛素降低血糖。Ａ型 正确", "胰岛素能降低血糖水平。\nA型 不正确。"),
    ("ja", "インスリンは血糖を下げる。", "血糖を下げるのはインスリンである。\nグルカゴンではない。"),
    ("en", "A. B. C. . .", "A. B. D."),
]


@pytest.fixture(params=ODD, ids=range(len(ODD)))
def odd_pair(request: pytest.FixtureRequest) -> Pair:
    pair: Pair = request.param
    return pair
