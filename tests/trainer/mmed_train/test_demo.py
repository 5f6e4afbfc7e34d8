"""The demo's story on one language: what it shows is real learning, and every file of it can be run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmed_train.corpus.config import LANGUAGES
from mmed_train.demo import story
from mmed_train.demo.story import TEXTS, tell_story
from mmed_train.training.recipe import read_recipe


def test_the_texts_are_sixty_in_each_language_and_some_300_kilobytes_in_all() -> None:
    texts = {
        language: [json.loads(line) for line in (TEXTS / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()]
        for language in LANGUAGES
    }
    for language, lines in texts.items():
        assert [line["id"] for line in lines] == [f"{language}-{number:03d}" for number in range(1, 61)]
        assert len({line["text"] for line in lines}) == 60
    assert 290_000 < sum(len(line["text"].encode()) for lines in texts.values() for line in lines) < 350_000


def test_finetuning_learns_its_questions_and_says_what_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(story, "LANGUAGES", ("en",))
    monkeypatch.setattr(story, "TASKS", "mmedbench_mini_en")
    monkeypatch.setattr(story, "VOCABULARY", 1000)
    monkeypatch.setattr(
        story, "MODEL", {**story.MODEL, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2, "head_dim": 16}
    )
    monkeypatch.setattr(story, "PRETRAIN", story.PRETRAIN.replace("epochs = 4", "epochs = 1"))
    monkeypatch.setattr(
        story,
        "FINETUNE",
        story.FINETUNE.replace("epochs = 10", "epochs = 40").replace('["mmedbench_mini"]', '["mmedbench_mini_en"]'),
    )
    said: list[str] = []
    seen, unseen = tell_story(tmp_path, say=said.append)
    assert (seen.n, unseen.n) == (20, 40)
    assert seen.low > 0, "what was learnt by heart is answered better, beyond chance"
    assert seen.after > seen.before + 0.2
    losses = {
        name: [
            line["loss"] for line in map(json.loads, (tmp_path / name / "log.jsonl").read_text().splitlines()) if "loss" in line
        ]
        for name in ("pretrained", "finetuned")
    }
    assert losses["pretrained"][-1] < losses["pretrained"][0] - 0.5
    assert losses["finetuned"][-1] < losses["finetuned"][0] / 4
    assert "questions it was trained on" in capsys.readouterr().out
    assert read_recipe(tmp_path / "finetune.toml", "finetune").train.epochs == 40
    # Told again, nothing is done twice.
    assert tell_story(tmp_path, say=said.append) == [seen, unseen]
    assert f"{tmp_path / 'finetuned'}/final is there already" in said
