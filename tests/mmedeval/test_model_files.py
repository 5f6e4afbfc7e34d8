"""Model folders as they come, without a library that loads them: which files count, where a base lies, and what is refused."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmedeval import ModelError, UsageError, model_files
from mmedeval.model_files import LocalModel, ModelFolder, find_local_model, find_model


def make(folder: Path, *names: str, **contents: Any) -> Path:
    """A folder with a config.json and a file of each name; `adapter_config={...}` and the like become JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(f"the content of {name}", encoding="utf-8")
    for name, content in {"config": {"model_type": "llama"}, **contents}.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def make_model(folder: Path, **contents: Any) -> Path:
    return make(folder, "model.safetensors", **contents)


def make_adapter(folder: Path, base: object, **settings: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_text("an adapter", encoding="utf-8")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, **settings}), encoding="utf-8")
    return folder


def make_sharded(folder: Path, parts: Mapping[str, Any], *there: str) -> Path:
    make(folder, *there)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}), encoding="utf-8")
    return folder


def find(name: Path | str, **settings: Any) -> LocalModel:
    defaults = {"scheme": "hf", "adapter": None, "revision": None, "safe_only": True, "code": False}
    return find_local_model(str(name), **{**defaults, **settings})


def refused(name: Path | str, **settings: Any) -> str:
    with pytest.raises((ModelError, UsageError)) as caught:
        find(name, **settings)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- which files are the model ---


def test_one_file_of_weights_counts_before_an_index_as_in_transformers(tmp_path: Path) -> None:
    path = make_sharded(tmp_path / "model", {"a": "part-1.safetensors"}, "part-1.safetensors")
    assert ModelFolder(path).weights == ["part-1.safetensors"]
    make(path, "model.safetensors", "pytorch_model.bin")
    assert ModelFolder(path).weights == ["model.safetensors"]
    # Who trusts pickled weights does not want them where there are others.
    assert ModelFolder(path, safe_only=False).weights == ["model.safetensors"]


def test_pickled_weights_count_only_when_they_are_trusted(tmp_path: Path) -> None:
    path = make(tmp_path / "old", "pytorch_model.bin")
    assert ModelFolder(path).weights == []
    assert ModelFolder(path, safe_only=False).weights == ["pytorch_model.bin"]
    assert "which can run code when read" in refused(path)


@pytest.mark.parametrize(
    "part", ["../other/part.safetensors", "{tmp}/other/part.safetensors", "gone.safetensors", "sub/part.safetensors"]
)
def test_weights_outside_of_the_folder_are_refused_since_no_digest_covers_them(part: str, tmp_path: Path) -> None:
    part = part.replace("{tmp}", str(tmp_path))
    make(tmp_path / "other", "part.safetensors")
    path = make_sharded(tmp_path / "model", {"a": "here.safetensors", "b": part}, "here.safetensors")
    make(path / "sub", "part.safetensors")
    text = refused(path)
    assert part in text
    assert "not in this folder" in text


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": {"a": 5}}', "[]", "{"])
def test_a_damaged_index_is_one_sentence_that_names_it(content: str, tmp_path: Path) -> None:
    path = make_sharded(tmp_path / "model", {}, "part.safetensors")
    (path / "model.safetensors.index.json").write_text(content, encoding="utf-8")
    assert f"{path}/model.safetensors.index.json" in refused(path)


@pytest.mark.parametrize("named", ["adapter_model.bin", "sub/model.safetensors", "../model.safetensors", "config.json", 5, []])
def test_a_configuration_cannot_name_weights_that_are_pickled_or_elsewhere(named: object, tmp_path: Path) -> None:
    path = make_model(tmp_path / "model", config={"transformers_weights": named})
    make(tmp_path, "model.safetensors")
    (path / "adapter_model.bin").write_bytes(b"a pickle")
    assert f"its weights are in {named!r}" in refused(path)


def test_a_configuration_may_name_another_file_of_the_folder(tmp_path: Path) -> None:
    path = make(
        tmp_path / "model", "model.safetensors", "other.safetensors", config={"transformers_weights": "other.safetensors"}
    )
    assert find(path).base.weights == ["other.safetensors"]


def test_what_training_leaves_beside_a_model_is_no_part_of_it(tmp_path: Path) -> None:
    path = make_model(tmp_path / "checkpoint-100")
    before = find(path).fingerprint
    make(
        path,
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "training_args.bin",
        "pytorch_model.bin",
        trainer_state={"step": 100},
    )
    # The same weights again, in a layout for other programs, which nothing here reads.
    make(path, "consolidated.safetensors", "consolidated-00001-of-00002.safetensors")
    assert find(path).fingerprint == before
    assert sorted(find(path).describe()["files"]) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("content", ["{", "[]", '{"eos_token_id": "x"}', '{"eos_token_id": [1, "x"]}', '{"eos_token_id": {}}'])
def test_a_generation_config_that_does_not_say_where_texts_end_is_refused(content: str, tmp_path: Path) -> None:
    path = make_model(tmp_path / "model")
    (path / "generation_config.json").write_text(content, encoding="utf-8")
    assert f"{path}/generation_config.json" in refused(path)


@pytest.mark.parametrize("content", [{"eos_token_id": None}, {"eos_token_id": 3}, {"eos_token_id": [3, 4]}, {}])
def test_a_generation_config_may_name_no_end_one_or_several(content: dict[str, Any], tmp_path: Path) -> None:
    find(make_model(tmp_path / "model", generation_config=content))


def test_a_file_of_nothing_but_brackets_is_one_sentence(tmp_path: Path) -> None:
    path = make_model(tmp_path / "model")
    (path / "config.json").write_text("[" * 100_000, encoding="utf-8")
    assert "config.json cannot be read" in refused(path)


# --- where an adapter's base lies ---


@pytest.mark.parametrize("named", ["../base", "base", "./base"])
def test_a_base_named_by_a_relative_path_is_looked_for_from_here_and_from_the_adapter(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(tmp_path / "runs" / "adapter", named)
    beside = make_model((adapter / named).resolve())
    wanted = find(adapter)
    assert wanted.base.path == beside
    assert wanted.adapter is not None
    before = wanted.fingerprint
    # Moved together, they still belong together.
    moved = (tmp_path / "runs").rename(tmp_path / "elsewhere") / "adapter"
    assert find(moved).fingerprint == before
    # As peft reads it: from where the command runs.
    alone = make_adapter(tmp_path / "alone" / "deep" / "adapter", named)
    work = tmp_path / "work" / "folder"
    here = make_model(work / named)
    monkeypatch.chdir(work)
    assert find(alone).base.path.samefile(here)


def test_two_folders_that_a_base_may_be_are_told_and_none_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = make_adapter(tmp_path / "adapter", "base")
    make_model(adapter / "base")
    make_model(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    text = refused(adapter)
    assert "'base', which is a folder here and another one beside the adapter" in text
    assert f"use hf:BASE with --model-arg adapter={adapter}" in text
    monkeypatch.chdir(adapter)
    assert find(adapter).base.path.samefile(adapter / "base")


@pytest.mark.parametrize("named", ["../gone", "{tmp}/gone", "~/gone-from-here"])
def test_a_base_that_is_not_there_is_one_sentence_with_the_way_out(named: str, tmp_path: Path) -> None:
    named = named.replace("{tmp}", str(tmp_path))
    adapter = make_adapter(tmp_path / "adapter", named)
    text = refused(adapter, scheme="vllm")
    assert f"the adapter in {adapter} has the base model {named!r}, but" in text
    assert "does not exist" in text
    assert f"use vllm:BASE with --model-arg adapter={adapter}" in text


def test_a_base_that_is_no_model_is_told_as_the_adapters_base(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    text = refused(make_adapter(tmp_path / "adapter", "../base"))
    assert "has the base model '../base', but" in text
    assert "holds no config.json" in text


@pytest.mark.parametrize("named", [None, "", 5, ["org/base"], {}])
def test_an_adapter_that_names_no_base_is_one_sentence(named: object, tmp_path: Path) -> None:
    assert "names no base model; use hf:BASE" in refused(make_adapter(tmp_path / "adapter", named))


def test_the_revision_that_an_adapter_was_trained_on_is_the_one_that_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(name: str, revision: str | None, patterns: object) -> Path:
        asked.append((name, revision))
        return make_model(tmp_path / "fetched")

    monkeypatch.setattr(model_files, "_fetch", fetch)
    find(make_adapter(tmp_path / "pinned", "org/base", revision="v2"))
    find(make_adapter(tmp_path / "free", "org/base", revision=None))
    assert asked == [("org/base", "v2"), ("org/base", None)]


def test_without_weights_nothing_but_configuration_and_tokenizer_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ("config.json", "tokenizer.json", "tokenizer.model", "model.safetensors", "pytorch_model.bin", "code.py")
    fetched = {}

    def fetch(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
        names = [each for each in there if any(fnmatch.fnmatch(each, pattern) for pattern in patterns)]
        fetched[name] = names
        return make(tmp_path / name, *names)

    monkeypatch.setattr(model_files, "_fetch", fetch)
    find_model("org/all", revision=None, safe_only=True, code=False)
    find_model("org/light", revision=None, safe_only=False, code=False, weights=False)
    assert fetched == {"org/all": [*there[:4]], "org/light": [*there[:3]]}


def test_a_base_with_an_adapter_of_its_own_is_refused(tmp_path: Path) -> None:
    """transformers would put that one on, too: twice where it is the same, and without DoRA's magnitudes."""
    both = make_adapter(tmp_path / "both", str(tmp_path / "both"))
    make_model(both)
    assert "holds an adapter itself" in refused(both)
    assert "holds an adapter itself" in refused(make_adapter(tmp_path / "second", "../both"))


def test_an_adapter_named_beside_its_base_is_the_same_model(tmp_path: Path) -> None:
    base, adapter = make_model(tmp_path / "base"), make_adapter(tmp_path / "adapter", "org/never-asked-for")
    named = find(base, adapter=str(adapter))
    (tmp_path / "own").mkdir()
    assert named.fingerprint == find(make_adapter(tmp_path / "own" / "adapter", str(base))).fingerprint != find(base).fingerprint
    assert named.tokenizer == base
    make(adapter, tokenizer_config={})
    (adapter / "config.json").unlink()
    assert find(base, adapter=str(adapter)).tokenizer == adapter


def test_a_revision_of_a_folder_is_refused_and_a_strange_home_is_no_accident(tmp_path: Path) -> None:
    assert "only names on the hub have revisions" in refused(make_model(tmp_path / "model"), revision="v1")
    assert "does not exist" in refused("~nobody-of-this-name/model", revision="v1")
