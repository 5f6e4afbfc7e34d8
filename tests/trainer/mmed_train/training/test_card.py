"""A card tells what is on disk, all of it in a form that the hub and a browser read, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from markdown_it.token import Token

from mmed_train.training.card import block, code, plain, table, write_card
from mmed_train.training.export import export_safetensors
from mmed_train.training.logs import Log
from mmed_train.training.merge import merge
from mmed_train.training.recipe import Recipe, read_recipe
from mmedeval import DataError, ModelError, RunPlan, StoreError, UsageError, digest
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.model_files import LocalModel, ModelFolder
from mmedeval.runner import run
from mmedeval.store import read_record, record_from_json
from mmedeval.text import printable

PICTURE = b"\x89PNG\r\n\x1a\n picture"
# What a model, its tasks or its makers may be called.
HOSTILE = (
    "a|b", "`x`", "``", "*bold*", "_x_", "<script>alert(1)</script>", "[link](http://a.b)", "![](http://a.b/c.png)", "&lt;", "\\",
    "\\|", "\\\\|", "# head", "line\nbreak", "www.example.org", "https://example.org", "a@example.org", "$x$", "~~x~~", "---",
    "\u202eback", "\x1b[31mred", "x: y", '"quoted"', "'", "{}", "<details>", "</details>", "|", "- item", "1. item", "> quote",
    ":smile:", "\u2028", "`|`", "a`b|c",
)  # fmt: skip


# --- models and what was written about them ---


def evaluated(folder: Path, *, limit: int = 4, tasks: tuple[str, ...] = ("mmedbench_mini_en", "mmedbench_mini_fr")) -> None:
    plan = RunPlan(model="baseline:first", tasks=tasks, protocol="letter", limit=limit)
    run(plan, Catalog(make_host(block=[])), folder)


def rewritten(folder: Path, **changes: Any) -> None:
    """A run as of another model."""
    file = folder / "record.json"
    record = json.loads(file.read_text())
    for name, values in changes.items():
        record[name] |= values
    file.write_text(json.dumps(record))


@pytest.fixture
def pretrained(tmp_path: Path, base: Path) -> Path:
    """The output of a pretraining of 40 steps, whose best checkpoint was that after 20, beside a run of what came of it."""
    file = tmp_path / "recipe.toml"
    file.write_text(
        f'output = "first"\npreset = "paper-pretrain"\n[model]\npath = "{base}"\n[data]\nshards = ["{tmp_path}/shards"]\n'
        '[train]\nlr = 1e-3\nsteps = 40\n[eval]\nvalidation = 2\nbest = "loss"\ntasks = ["mmedbench_mini_en"]\n'
    )
    recipe = read_recipe(file, "pretrain")
    data = {
        "base": ModelFolder(base).fingerprint,
        "shards": {"0.tokens": "ab" * 32},
        "tokenizer": "cd" * 32,
        "tokens": {"en/books": 2000, "zh/books": 3000, "zh/papers": 10},
        "held_out": {"en/books": 64},
        "window": 2048,
        "rows": 12,
        "taken": {"en/books": 1000, "zh/books": 2990, "zh/papers": 10},
    }
    output = tmp_path / "first"
    write_output(output, base, recipe, data)
    return output


def write_output(output: Path, base: Path, recipe: Recipe, data: Mapping[str, Any]) -> None:
    """As a training writes it: checkpoints after 20 and 40 steps, of which the first was better."""
    for step in (20, 40):
        checkpoint = output / f"checkpoint-{step}"
        shutil.copytree(base, checkpoint)
        for name, content in (
            ("recipe.json", recipe.as_json()),
            ("data.json", data),
            ("progress.json", {"step": step, "tokens": step * 100, "best": {"value": -5.0, "step": 20, "looks": 1}}),
        ):
            (checkpoint / name).write_text(json.dumps(content), encoding="utf-8")
    for name, step in (("best", 20), ("final", 40)):
        shutil.copytree(output / f"checkpoint-{step}", output / name)
        (output / name / "progress.json").unlink()
    with Log(output, total=40, since=0, say=lambda _: None) as log:
        log.write(0, {"eval_loss_en": 7.0, "eval_loss_zh": 7.5, "eval_loss": 7.25}, 0, None)
        log.write(1, {"loss": 7.1}, 100, None)
        log.write(20, {"loss": 5.5}, 2000, None)
        log.write(20, {"eval_loss_en": 5.0, "eval_loss_zh": 5.5, "eval_loss": 5.25}, 2000, None)
        log.write(40, {"loss": 4.5}, 4000, None)
        log.write(40, {"eval_loss_en": 6.0, "eval_loss_zh": 6.5, "eval_loss": 6.25}, 4000, None)
    (output / "loss.png").write_bytes(PICTURE)
    for step, limit in ((0, 4), (20, 5), (40, 6)):
        evaluated(output / "eval" / f"step-{step}", limit=limit)


def written(checkpoint: Path, out: Path | None = None, **arguments: Any) -> str:
    return write_card(checkpoint, out, **arguments).path.read_text(encoding="utf-8")


def front(text: str) -> dict[str, Any]:
    """As the hub reads it."""
    found = ModelCard(text).data.to_dict()
    assert found == yaml.safe_load(text.split("---\n")[1])
    return dict(found)


def parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(ModelCard(text).text)


def tables(text: str) -> list[list[list[str]]]:
    """The text of each cell of each table, as a reader sees it."""
    found: list[list[list[str]]] = []
    for token, following in zip(parsed(text), [*parsed(text)[1:], None], strict=True):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            assert following is not None
            found[-1][-1].append("".join(child.content for child in following.children or []))
    return found


def the_table(text: str, head: str) -> list[dict[str, str]]:
    """The rows of the table that has a column of this name."""
    (found,) = [rows for rows in tables(text) if head in rows[0]]
    return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


# --- what it tells ---


def test_a_card_begins_with_what_the_hub_reads(pretrained: Path) -> None:
    assert front(written(pretrained / "final")) == {
        "language": ["en", "zh"],
        "tags": ["medical", "mmed-train", "continued-pretraining"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "datasets": ["books", "papers"],
        "metrics": ["accuracy"],
    }


def test_a_license_is_the_users_to_choose(pretrained: Path, tmp_path: Path) -> None:
    text = written(pretrained / "final", tmp_path / "without.md")
    assert re.search(r"^# license: PUT ONE HERE", text, re.MULTILINE)
    text = written(pretrained / "final", tmp_path / "with.md", license="apache-2.0")
    assert front(text)["license"] == "apache-2.0"
    assert "PUT ONE HERE" not in text


def test_a_base_on_the_hub_is_named_and_a_folder_is_not(pretrained: Path, tmp_path: Path) -> None:
    text = written(pretrained / "final", tmp_path / "folder.md")
    assert "base_model" not in front(text)
    assert re.search(r"^# base_model: PUT ITS NAME", text, re.MULTILINE)
    for each in pretrained.glob("*/recipe.json"):
        recipe = json.loads(each.read_text())
        each.write_text(json.dumps({**recipe, "model": {**recipe["model"], "path": "some-org/Base-1.5B"}}))
    found = front(written(pretrained / "final", tmp_path / "hub.md"))
    assert (found["base_model"], found["base_model_relation"]) == ("some-org/Base-1.5B", "finetune")
    # The same words are a folder where there is one of this name around, as for the training.
    (tmp_path / "some-org" / "Base-1.5B").mkdir(parents=True)
    assert "base_model" not in front(written(pretrained / "final", tmp_path / "again.md"))


def test_a_card_tells_all_settings_that_differ_and_which_of_them_the_preset_chose(pretrained: Path) -> None:
    text = written(pretrained / "final")
    told = {row["setting"]: row for row in the_table(text, "setting")}
    recipe, default = json.loads((pretrained / "final" / "recipe.json").read_text()), {}
    for name, section in read_recipe_defaults().items():
        default |= {f"{name}.{key}": value for key, value in section.items()}
    values = {
        f"{name}.{key}": value for name, section in recipe.items() if isinstance(section, dict) for key, value in section.items()
    }
    assert told.keys() == {name for name in values if values[name] != default[name]}
    assert told["train.lr"] == {"setting": "train.lr", "value": "0.001", "default": "1e-05", "by": "recipe"}
    assert told["train.weight_decay"]["by"] == "preset"
    assert json.loads(told["data.shards"]["value"]) == ["…/shards"]
    whole = next(token.content for token in parsed(text) if token.type == "fence" and token.info == "json")
    shown = json.loads(whole)
    assert shown["train"] == recipe["train"]
    assert shown["model"] == {**recipe["model"], "path": "…/base"}


def read_recipe_defaults() -> dict[str, Any]:
    from dataclasses import asdict

    from mmed_train.training.recipe import SECTIONS

    return {name: json.loads(json.dumps(asdict(section()))) for name, section in SECTIONS.items()}


def test_the_tokens_of_a_pretraining_are_told_by_language_and_source(pretrained: Path) -> None:
    text = written(pretrained / "final")
    first, second = [rows for rows in tables(text) if "tokens" in rows[0]]
    assert first == [
        ["language", "tokens", "share"],
        ["English", "1,000", "25.0%"],
        ["Chinese", "3,000", "75.0%"],
        ["all", "4,000", ""],
    ]
    assert ["Chinese", "papers", "10"] in second
    assert "These weights have learnt 4,000 tokens." in text
    digests = the_table(text, "digest")
    assert {row["digest"] for row in digests} == {"ab" * 32, "cd" * 32}


def test_tokens_that_nobody_counted_are_told_as_those_on_offer(pretrained: Path) -> None:
    for each in pretrained.glob("*/data.json"):
        data = json.loads(each.read_text())
        del data["taken"]
        each.write_text(json.dumps(data))
    text = written(pretrained / "final")
    assert "Tokens on offer, by language; how often the windows read each of them is not recorded" in text
    assert ["English", "2,000", "39.9%"] in next(rows for rows in tables(text) if "share" in rows[0])


@pytest.mark.parametrize(("name", "step"), [("final", 40), ("checkpoint-40", 40), ("best", 20), ("checkpoint-20", 20)])
def test_a_card_tells_of_its_own_step_and_of_none_after_it(name: str, step: int, pretrained: Path) -> None:
    text = written(pretrained / name)
    assert ["optimizer steps", str(step)] in tables(text)[0]
    assert ["tokens that it learnt to predict", f"{step * 100:,}"] in tables(text)[0]
    losses = {row[""]: row for row in the_table(text, "first")}
    last = {20: ("5.5", "5"), 40: ("4.5", "6")}[step]
    assert losses["training"] == {"": "training", "first": "7.1 (step 1)", "last": f"{last[0]} (step {step})"}
    assert losses["held out, English"] == {"": "held out, English", "first": "7 (step 0)", "last": f"{last[1]} (step {step})"}
    steps = [row["step"] for row in the_table(text, "step")]
    assert set(steps) == {"0", str(step)}


def test_the_trainings_own_scores_are_those_of_its_run_folders(pretrained: Path) -> None:
    rows = the_table(written(pretrained / "final"), "step")
    records = {step: record_from_json(read_record(pretrained / "eval" / f"step-{step}")) for step in (0, 40)}
    wanted = [(step, each) for step, record in records.items() for each in record.aggregates if each.metric == "accuracy"]
    assert len(rows) == len(wanted) == 6
    for row, (step, each) in zip(rows, wanted, strict=True):
        assert each.value is not None
        assert (row["step"], row["task"], row["n"]) == (str(step), each.task, str(each.n))
        assert row["accuracy"] == f"{100 * each.value:.1f}"
        assert row["95 % interval"] == ("–" if each.low is None else f"{100 * each.low:.1f} – {100 * (each.high or 0):.1f}")
        assert row["protocol"] == "letter, 0 shots"
        about = records[step].data["tasks"].get(each.task)
        assert row["data"] == (about["data_digest"][:12] if about else "")
        assert row["language"] == {"en": "English", "fr": "French"}.get(each.language, "average")


def test_runs_are_told_by_whose_they_are(pretrained: Path, tmp_path: Path, base: Path) -> None:
    whose = {
        "own": LocalModel(base=ModelFolder(pretrained / "final")).fingerprint,
        "base": LocalModel(base=ModelFolder(base)).fingerprint,
        "other": digest("other"),
    }
    # Else they would have the same fingerprint: the model is a copy of its base.
    config = json.loads((pretrained / "final" / "config.json").read_text())
    (pretrained / "final" / "config.json").write_text(json.dumps({**config, "trained": True}))
    whose["own"] = LocalModel(base=ModelFolder(pretrained / "final")).fingerprint
    for name, fingerprint in whose.items():
        evaluated(tmp_path / name, limit=3)
        rewritten(tmp_path / name, model={"fingerprint": fingerprint, "reference": f"hf:{tmp_path}/models/{name}"})
    text = written(pretrained / "final", runs=[tmp_path / name for name in whose])
    assert [row["model"] for row in the_table(text, "model")] == [
        *(["this one"] * 3), *(["its base"] * 3), *(["another one: hf:…/other"] * 3),
    ]  # fmt: skip
    assert "mmedeval run --model hf:FOLDER --tasks mmedbench_mini_en,mmedbench_mini_fr --protocol letter" in text
    card = write_card(pretrained / "best", None, runs=[tmp_path / "other"])
    assert any("scores of this very model" in sentence for sentence in card.missing)


def test_the_curve_lies_beside_the_card(pretrained: Path, tmp_path: Path) -> None:
    text = written(pretrained / "final")
    (image,) = [child for token in parsed(text) for child in token.children or [] if child.type == "image"]
    assert image.attrs["src"] == "loss.png"
    assert (pretrained / "final" / "loss.png").read_bytes() == PICTURE
    (pretrained / "loss.png").unlink()
    (tmp_path / "cards").mkdir()
    card = write_card(pretrained / "best", tmp_path / "cards" / "card.md")
    assert "![" not in card.path.read_text()
    assert any("the loss curve" in sentence for sentence in card.missing)


def test_a_card_tells_nothing_of_the_machine(pretrained: Path, tmp_path: Path) -> None:
    evaluated(tmp_path / "run")
    rewritten(tmp_path / "run", model={"reference": f"hf:{tmp_path}/a/b"})
    text = written(pretrained / "final", runs=[tmp_path / "run"])
    assert not re.search(r"(?<![\w…])/\w+/\w+", text), re.search(r"(?<![\w…])/\w+/\w+.*", text)
    assert str(tmp_path) not in text
    for path in (r"C:\Users\me\model", r"..\model", "~/model", "../model", "./model", "/model", "a/b/model"):
        recipe = json.loads((pretrained / "final" / "recipe.json").read_text())
        recipe["model"]["tokenizer"] = path
        (pretrained / "final" / "recipe.json").write_text(json.dumps(recipe))
        text = written(pretrained / "final", tmp_path / "card.md")
        assert {row["setting"]: row["value"] for row in the_table(text, "setting")}["model.tokenizer"] == '"…/model"'
        assert f'"{path}"' not in text
        assert json.dumps(path) not in text
        (tmp_path / "card.md").unlink()


def test_everything_that_is_not_there_is_said(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "model")
    card = write_card(tmp_path / "model", None)
    text = card.path.read_text()
    for words in ("the recipe", "what it was trained on", "the losses", "scores of this very model", "fingerprint of its base"):
        assert any(words in sentence for sentence in card.missing), words
    for words in (
        "How it was trained is not recorded", "The recipe is not recorded", "What it was trained on is not recorded",
        "The log of the training was not at hand", "No run of `mmedeval` was at hand",
    ):  # fmt: skip
        assert words in text
    assert front(text) == {"library_name": "transformers", "pipeline_tag": "text-generation"}
    assert "Not for clinical use" in text


def test_nothing_is_missing_where_all_is_there(pretrained: Path, tmp_path: Path) -> None:
    evaluated(tmp_path / "run")
    rewritten(tmp_path / "run", model={"fingerprint": LocalModel(base=ModelFolder(pretrained / "final")).fingerprint})
    assert write_card(pretrained / "final", None, runs=[tmp_path / "run"]).missing == ()


def test_the_items_of_a_finetuning_are_told_and_those_that_were_left_out(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "model")
    data = {
        "tasks": {"mmedbench_mini_ja": "ef" * 32, "nobody_knows_it": "01" * 32},
        "items": {"mmedbench_mini_ja (paper)": 1200, "nobody_knows_it (paper)": 3},
        "left_out": {"they are longer than max_length = 2048 tokens": 17},
        "tokens": 5000,
        "answer_tokens": 1500,
    }
    (tmp_path / "model" / "data.json").write_text(json.dumps(data))
    (tmp_path / "model" / "recipe.json").write_text(json.dumps({"kind": "finetune", "preset": "default"}))
    text = written(tmp_path / "model")
    assert front(text)["language"] == ["ja"]
    assert front(text)["datasets"] == ["mmedbench_mini_ja", "nobody_knows_it"]
    assert the_table(text, "because") == [{"because": "they are longer than max_length = 2048 tokens", "items": "17"}]
    assert [row["items"] for row in the_table(text, "task (protocol)")] == ["1,200", "3"]
    assert "They hold 5,000 tokens, 1,500 of them in answers" in text


# --- what a training really writes ---


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_its_merged_model_and_its_export_tell_of_the_same_training(
    recipe: Callable[..., Recipe], trained: Callable[..., Path], tmp_path: Path
) -> None:
    told = recipe(
        "finetune",
        data={"limit": 3, "max_length": 900},
        train={"steps": 2, "save_every": 1, "batch": 1},
        adapter={"kind": "dora", "r": 4},
        eval={"tasks": ["mmedbench_mini_en"], "limit": 2},
    )
    final = trained(told)
    data = json.loads((final / "data.json").read_text())
    text = written(final, tmp_path / "adapter.md")
    assert front(text)["tags"] == ["medical", "mmed-train", "finetuned", "dora"]
    assert (front(text)["library_name"], front(text)["language"]) == ("peft", ["en"])
    assert front(text)["datasets"] == ["mmedbench_mini_en"]
    assert "an adapter (DoRA of rank 4), which needs its base" in text
    items = {row["task (protocol)"]: row["items"] for row in the_table(text, "task (protocol)")}
    assert items == {name: str(count) for name, count in data["items"].items()}
    assert f"{data['tokens']:,} tokens, {data['answer_tokens']:,} of them in answers" in text
    assert data["left_out"] == {row["because"]: int(row["items"]) for row in tables_with(text, "because")}
    assert ["optimizer steps", "2"] in tables(text)[0]
    assert {row["step"] for row in the_table(text, "step")} == {"0", "2"}
    assert str(tmp_path) not in text

    merge(str(final), tmp_path / "merged", base=None, dtype=None, say=lambda _: None)
    evaluated(tmp_path / "run")
    adapter = digest([data["base"], ModelFolder(final).fingerprint])
    rewritten(tmp_path / "run", model={"fingerprint": adapter})
    text = written(tmp_path / "merged", tmp_path / "merged.md", training=told.output, runs=[tmp_path / "run"])
    assert front(text)["library_name"] == "transformers"
    assert "trained as an adapter, which is merged into these weights, in `float32`" in text
    assert the_table(text, "model")[0]["model"] == "the adapter before it was merged"
    assert "the step of these weights is not recorded" in text
    assert str(tmp_path) not in text

    export_safetensors(told.output / "checkpoint-1", tmp_path / "exported", None)
    text = written(tmp_path / "exported", tmp_path / "exported.md", training=told.output)
    assert ["optimizer steps", "1"] in tables(text)[0]
    assert the_table(text, "first")[0]["last"].endswith("(step 1)")


def tables_with(text: str, head: str) -> list[dict[str, str]]:
    return the_table(text, head) if any(head in rows[0] for rows in tables(text)) else []


# --- files that are there ---


def test_a_card_that_is_there_is_left_as_it_is(pretrained: Path, tmp_path: Path) -> None:
    (pretrained / "final" / "README.md").write_text("# Mine")
    with pytest.raises(UsageError, match=r"README.md is there already; remove it, or name another file with -o"):
        write_card(pretrained / "final", None)
    assert (pretrained / "final" / "README.md").read_text() == "# Mine"
    with pytest.raises(UsageError, match="is there already"):
        write_card(pretrained / "final", tmp_path)
    with pytest.raises(UsageError, match="does not exist; make it"):
        write_card(pretrained / "final", tmp_path / "no" / "card.md")
    (tmp_path / "loss.png").write_bytes(b"another")
    with pytest.raises(UsageError, match="not this training's"):
        write_card(pretrained / "final", tmp_path / "card.md")
    assert not (tmp_path / "card.md").exists()


def test_pefts_blank_card_is_replaced_without_changing_the_checkpoint_that_it_is_linked_to(pretrained: Path) -> None:
    blank = "base_model: /home/somebody\n[More Information Needed]"
    (pretrained / "checkpoint-40" / "README.md").write_text(blank)
    (pretrained / "final" / "README.md").hardlink_to(pretrained / "checkpoint-40" / "README.md")
    assert "somebody" not in written(pretrained / "final")
    assert (pretrained / "checkpoint-40" / "README.md").read_text() == blank
    (pretrained / "checkpoint-40" / "complete.json").write_text(json.dumps({"step": 40, "files": {"README.md": len(blank)}}))
    with pytest.raises(UsageError, match="is a part of the checkpoint"):
        write_card(pretrained / "checkpoint-40", None)


def test_another_training_is_not_told_as_this_models(pretrained: Path, tmp_path: Path, base: Path) -> None:
    stranger = pretrained / "stranger"
    shutil.copytree(base, stranger)
    assert any("the losses" in sentence for sentence in write_card(stranger, None).missing)
    other = tmp_path / "other"
    shutil.copytree(pretrained, other)
    for file in other.glob("*/data.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "rows": 13}))
    with pytest.raises(UsageError, match="is another training"):
        write_card(pretrained / "final", None, training=other)
    with pytest.raises(UsageError, match=r"holds no log.jsonl"):
        write_card(pretrained / "final", None, training=tmp_path)


def test_what_is_no_model_has_no_card(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ModelError, match="holds no model"):
            write_card(folder, None)


DAMAGES: Mapping[str, tuple[str, str, type[Exception], str]] = {
    "no JSON": ("final/recipe.json", "{", ModelError, "recipe.json cannot be read"),
    "no table": ("final/recipe.json", '{"train": 3}', DataError, "train is no table"),
    "no number": ("final/data.json", '{"taken": {"en/books": "many"}}', DataError, "en/books = 'many' is no whole number"),
    "no step": ("checkpoint-40/progress.json", '{"best": {}}', DataError, "step = None is no whole number"),
    "a torn line": ("log.jsonl", '{"step": 1, "loss": 2.0}\n{"step": 2, "lo\n{"step": 3}\n', DataError, r"log.jsonl:2: no line"),
    "no record": ("eval/step-40/record.json", "[]", StoreError, "record.json is damaged"),
    "an odd record": ("eval/step-40/record.json", None, StoreError, "is damaged"),
}  # type: ignore[dict-item]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_told_in_a_sentence(damage: str, pretrained: Path) -> None:
    name, content, kind, words = DAMAGES[damage]
    file = pretrained / name
    if content is None:
        rewritten(file.parent, protocol={"used": None}, tasks={"mmedbench_mini_en": 3})
    else:
        file.write_text(content)
    if name.startswith("final/"):
        # The same in all, as if it had been written so.
        for each in pretrained.glob(f"*/{file.name}"):
            each.write_text(content)
    with pytest.raises(kind, match=words) as caught:
        write_card(pretrained / "final", None)
    assert "\n" not in str(caught.value)
    assert not (pretrained / "final" / "README.md").exists()


def test_a_log_that_is_being_written_is_read_up_to_its_last_whole_line(pretrained: Path) -> None:
    with (pretrained / "log.jsonl").open("a") as log:
        log.write('{"step": 40, "lo')
    assert the_table(written(pretrained / "final"), "first")[0]["last"] == "4.5 (step 40)"


def test_a_run_that_is_not_finished_is_refused(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no run folder"):
        write_card(pretrained / "final", None, runs=[tmp_path])


# --- text of strangers ---


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_shown_as_it_is(text: str) -> None:
    wanted = printable(" ".join(text.split()))
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for made in (plain(text), code(text)):
        tokens = [child for token in markdown.parse(f"Words {made} words") for child in token.children or []]
        assert {token.type for token in tokens} <= {"text", "text_special", "code_inline"}
        assert "".join(token.content for token in tokens) == " ".join(["Words", *([wanted] if wanted else [""]), "words"])
        (cells,) = tables("---\n---\n" + table(["head", "other"], [(made, "x")]))
        assert cells[1] == [wanted, "x"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_keeps_its_columns_whatever_stands_in_it(text: str) -> None:
    found = tables("---\n---\n" + table(["a", "b"], [(plain(text), code(text)), ("1", "2")]))
    assert [len(row) for row in found[0]] == [2, 2, 2]


def test_a_block_of_code_ends_where_it_ends() -> None:
    for text in ("```\n# head", "````", "a\n```\n```", ""):
        (token,) = MarkdownIt("commonmark").parse(block("json", text))
        assert (token.type, token.content) == ("fence", f"{text}\n")


def test_a_hostile_training_makes_a_harmless_card(pretrained: Path, tmp_path: Path) -> None:
    """Names of sources, tasks, settings and shards that try to be more than names."""
    attack = '"]\n---\n# Heading\n<img src=x onerror=alert(1)> ``` | `` [a](http://b.c) \x1b[2J\u202e'
    for each in pretrained.glob("*/data.json"):
        each.write_text(
            json.dumps({"taken": {f"{attack}/{attack}": 7}, "shards": {attack: attack}, "tokenizer": attack, "base": attack})
        )
    for each in pretrained.glob("*/recipe.json"):
        recipe = json.loads(each.read_text())
        each.write_text(
            json.dumps({**recipe, "preset": attack, "train": {"optimizer": attack, attack: attack}, attack: {attack: [attack]}})
        )
    evaluated(tmp_path / "run")
    rewritten(tmp_path / "run", model={"reference": attack}, protocol={"used": attack}, plan={"tasks": [attack]})
    harmless = written(pretrained / "best", tmp_path / "plain.md", runs=[])
    text = written(pretrained / "final", runs=[tmp_path / "run"], license=attack)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert front(text)["datasets"] == [front(harmless)["datasets"][0]]
    tokens = parsed(text)
    heads = [following.content for token, following in pairwise(tokens) if token.type == "heading_open"]
    assert heads == ["first", "What it is", "Training", "Data", "Loss", "Scores", "How to run it", "Limits"]
    inline = {child.type for token in tokens for child in token.children or []}
    assert inline <= {
        "text",
        "text_special",
        "code_inline",
        "softbreak",
        "strong_open",
        "strong_close",
        "em_open",
        "em_close",
        "image",
    }
    html = "".join(token.content for token in tokens if token.type == "html_block")
    assert set(re.findall(r"<[^>]*>", html)) == {"<details>", "</details>", "<summary>", "</summary>"}
