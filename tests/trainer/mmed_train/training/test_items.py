"""Items of a finetuning: the harness's own ids, loss on the answer alone, nothing of a test split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmed_train.training.items import Items, make_item, read_items, target
from mmed_train.training.model import load_tokenizer
from mmed_train.training.recipe import Recipe
from mmedeval import DataError, GenerateRequest, Generation, RunPlan, Sample, TaskOptions, UnknownNameError
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import prepare
from mmedeval_hf.backend import HFBackend

Make = Callable[..., Recipe]
PROTOCOLS = ("letter", "cloze", "chat", "paper", "paper-direct")


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(make_host())


@pytest.fixture(scope="module")
def backend(base: Path) -> HFBackend:
    return HFBackend(str(base), {})


def items_of(recipe: Recipe, catalog: Catalog) -> Items:
    return read_items(recipe, catalog, load_tokenizer(recipe), embeddings=400)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("language", ["en", "zh", "ja", "fr", "ru", "es"])
def test_the_ids_that_are_learnt_are_those_that_the_harness_asks_with(
    protocol: Any, language: str, backend: HFBackend, catalog: Catalog
) -> None:
    """The test items themselves, made as if they were to be learnt, against the requests of a run."""
    name = f"mmedbench_mini_{language}"
    plan = RunPlan(model=f"hf:{backend.name}", tasks=(name,), protocol=protocol, limit=10)
    prepared = prepare(plan, catalog, backend).tasks[0]
    for sample, request in zip(prepared.samples, prepared.requests, strict=True):
        item = make_item(catalog, backend.encoder, prepared.task, sample, protocol)
        if isinstance(request, GenerateRequest):
            asked = backend.encoder.encode_prompt(request.prompt)
        else:
            asked, continuations, _ = backend.encoder.encode_pair(request.prompt, request.continuations)
            right = [ids for ids, answer in zip(continuations, request.answers, strict=True) if answer == sample.answer]
            for ids in right:
                # What is scored is what was learnt.
                assert item.ids[item.prompt :][: len(ids)].tolist() == ids
            assert right or protocol == "cloze"
        assert item.ids[: item.prompt].tolist() == asked
        assert item.ids[-1] == backend.tokenizer.eos_token_id


@pytest.mark.parametrize("protocol", ["chat", "paper-direct"])
def test_what_is_learnt_is_read_as_the_right_answer(protocol: Any, backend: HFBackend, catalog: Catalog) -> None:
    for spec in catalog.select_tasks(["mmedbench_mini"]):
        task = spec.load(TaskOptions())
        for sample in task.samples("train"):
            item = make_item(catalog, backend.encoder, task, sample, protocol)
            written = backend.tokenizer.decode(item.ids[item.prompt : -1].tolist())
            assert written == target(catalog, task, sample, protocol)
            read = catalog.host.hook.mmedeval_parse_answer(
                task=task, sample=sample, generation=Generation(request_id="x", text=written), protocol=protocol
            )
            assert read.letters == sample.answer, written


def test_the_papers_targets_are_its_scripts_bytes(catalog: Catalog) -> None:
    task = catalog.tasks["mmedbench_mini_en"].load(TaskOptions())
    options = {"A": "a", "B": "b", "C": "c"}
    sample = Sample(id="x", language="en", question="Q?", options=options, answer=frozenset("CA"), rationale="Since.")
    assert target(catalog, task, sample, "paper") == "###Rationale: Since.\n###Answer: OPTION A,C IS CORRECT."
    assert target(catalog, task, sample, "paper-direct") == "###Answer: OPTION A,C IS CORRECT."


def test_as_published_puts_one_space_where_the_inference_has_two(backend: HFBackend, catalog: Catalog) -> None:
    task = catalog.tasks["mmedbench_mini_en"].load(TaskOptions())
    sample = task.samples("train")[0]
    texts = []
    for published in (False, True):
        item = make_item(catalog, backend.encoder, task, sample, "paper", as_published=published)
        texts.append(backend.tokenizer.decode(item.ids[: item.prompt].tolist(), skip_special_tokens=True))
    assert "step-by-step.  You should" in texts[0]
    assert texts[1] == texts[0].replace("step-by-step.  You", "step-by-step. You")


def test_an_item_is_shown_once_per_protocol(recipe: Make, catalog: Catalog) -> None:
    found = items_of(recipe("finetune", data={"protocols": ["paper-direct", "letter"], "limit": 5}), catalog)
    assert [(item.sample, item.protocol) for item in found.items[:4]] == [
        ("train-1", "letter"), ("train-1", "paper-direct"), ("train-2", "letter"), ("train-2", "paper-direct"),
    ]  # fmt: skip
    assert len(found.items) == 10
    assert found.left_out == {}


def written(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> Path:
    for split, items in (("Train", train), ("Test", test)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"rationale": "Why.", "human_checked": 0, "human_check_passed": 0, **item}) for item in items]
        (folder / split / "English.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def question(text: str, **more: Any) -> dict[str, Any]:
    return {"question": text, "options": {"A": "one", "B": "two"}, "answer_idx": "A", **more}


def test_an_item_whose_question_is_in_a_test_split_is_left_out_however_it_is_written(
    recipe: Make, catalog: Catalog, tmp_path: Path
) -> None:
    folder = written(
        tmp_path / "data",
        [question("What is the ＣＡＵＳＥ  of gout"), question("Another one?"), question("A third one?", rationale=" ")],
        [question("What is the cause of gout?", options={"A": "x", "B": "y", "C": "z"})],
    )
    told = recipe("finetune", data={"tasks": ["mmedbench_en"], "data_dir": str(folder), "protocols": ["paper", "letter"]})
    found = items_of(told, catalog)
    assert {item.sample for item in found.items} == {"train-2", "train-3"}
    assert found.left_out == {
        "their question is in a test split": 2,
        "they have no rationale for the protocol paper": 1,
    }
    assert found.report()[0] == "2 items were left out: their question is in a test split (mmedbench_en/train-1)"


def test_an_item_that_is_too_long_is_counted_and_never_cut(recipe: Make, catalog: Catalog) -> None:
    whole = items_of(recipe("finetune", data={"protocols": ["paper"], "limit": None}), catalog)
    longest = sorted(len(item) for item in whole.items)[-3]
    found = items_of(recipe("finetune", data={"protocols": ["paper"], "limit": None, "max_length": longest}), catalog)
    (reason,) = found.left_out
    assert "longer than max_length" in reason
    assert 0 < found.left_out[reason] == len(whole.items) - len(found.items)
    kept = {item.sample: item for item in whole.items}
    assert all(kept[item.sample].ids.tolist() == item.ids.tolist() for item in found.items)


def test_nothing_left_to_learn_from_is_one_sentence_with_the_reasons(recipe: Make, catalog: Catalog) -> None:
    with pytest.raises(
        DataError, match=r"no train item of mmedbench_mini_en is left to learn from: .*longer than max_length = 3"
    ):
        items_of(recipe("finetune", data={"max_length": 3}), catalog)


def test_a_protocol_that_is_none_is_named(recipe: Make, catalog: Catalog) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown protocol 'papper'; did you mean paper"):
        items_of(recipe("finetune", data={"protocols": ["papper"]}), catalog)


def test_a_chat_template_ends_the_turn_with_its_own_token(backend: HFBackend, catalog: Catalog) -> None:
    task = catalog.tasks["mmedbench_mini_en"].load(TaskOptions())
    item = make_item(catalog, backend.encoder, task, task.samples("train")[0], "chat")
    text = backend.tokenizer.decode(item.ids.tolist())
    assert text.count("<|assistant|>") == 1
    assert text.endswith("</s>")
    assert backend.tokenizer.decode(item.ids[: item.prompt].tolist()).endswith("<|assistant|>\n")
