"""An exported checkpoint is the model and nothing else: the same weights, bit by bit or rounded once, and what describes it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmed_train.training import export
from mmed_train.training.export import Exported, export_safetensors, new_folder
from mmed_train.training.saving import find_saved, finish
from mmedeval import ModelError, StoreError, UsageError
from mmedeval_hf.tiny import make_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
STATE = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def saved(folder: Path, files: Path, *, step: int = 8) -> Path:
    """A whole checkpoint of a training, around the files of a model."""
    beside = folder / ".saving"
    shutil.copytree(files, beside)
    for name in STATE:
        (beside / name).write_bytes(b"state")
    for name, content in {"recipe.json": {"kind": "pretrain"}, "data.json": {"rows": 3}, "progress.json": {"step": step}}.items():
        (beside / name).write_text(json.dumps(content))
    finish(beside, folder / f"checkpoint-{step}", step=step)
    return folder / f"checkpoint-{step}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "model", vocabulary=600, config=SMALL)


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("out"), model)


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint of a DoRA on the model."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", use_dora=True, init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    folder = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(folder)
    return saved(tmp_path_factory.mktemp("out"), folder)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def refused(kind: type[Exception], words: str, source: Path, out: Path, **arguments: Any) -> None:
    before = sorted(out.parent.iterdir())
    with pytest.raises(kind, match=words) as caught:
        export_safetensors(source, out, arguments.pop("dtype", None), **arguments)
    assert "\n" not in str(caught.value)
    assert getattr(caught.value, "exit_code", None) == 2
    assert sorted(out.parent.iterdir()) == before


# --- what is written ---


def test_what_only_the_training_needs_stays_behind(whole: Path, tmp_path: Path) -> None:
    exported = export_safetensors(whole, tmp_path / "out", None)
    names = {file.name for file in exported.path.iterdir()}
    assert names & {*STATE, "complete.json"} == set()
    kept = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert names == kept | {"recipe.json", "data.json", "progress.json"}
    for name in names - {"model.safetensors"}:
        assert (exported.path / name).read_bytes() == (whole / name).read_bytes()
    assert exported.notes == (f"left out: {', '.join(sorted([*STATE, 'complete.json']))}",)


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16"])
def test_weights_are_rounded_once_or_kept_bit_by_bit(dtype: Any, whole: Path, tmp_path: Path) -> None:
    exported = export_safetensors(whole, tmp_path / "out", dtype)
    wanted = getattr(torch, dtype or "float32")
    before, after = weights(whole), weights(exported.path)
    assert before.keys() == after.keys()
    for name in before:
        assert after[name].dtype == wanted
        assert torch.equal(after[name], before[name].to(wanted))
    assert exported == Exported(
        path=tmp_path / "out",
        bytes=sum(tensor.nbytes for tensor in after.values()),
        tensors=len(after),
        types=(dtype or "float32",),
        notes=exported.notes,
    )
    model = AutoModelForCausalLM.from_pretrained(exported.path)
    assert model.dtype == wanted
    assert json.loads((exported.path / "config.json").read_text())["dtype"] == (dtype or "float32")


def test_a_model_in_several_files_is_the_same_model(whole: Path, tmp_path: Path) -> None:
    exported = export_safetensors(whole, tmp_path / "several", None, largest_shard=60_000)
    files = sorted(exported.path.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert max(sum(tensor.nbytes for tensor in load_file(file).values()) for file in files) <= max(
        60_000, *(tensor.nbytes for tensor in weights(whole).values())
    )
    again = export_safetensors(exported.path, tmp_path / "again", None)
    for path in (exported.path, again.path):
        state = AutoModelForCausalLM.from_pretrained(path).state_dict()
        wanted = AutoModelForCausalLM.from_pretrained(whole).state_dict()
        assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert not (again.path / "model.safetensors.index.json").exists()
    assert weights(again.path).keys() == weights(whole).keys()


def test_numbers_that_are_whole_keep_their_type(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(model, source)
    held = {**weights(source), "steps": torch.tensor([3, 4]), "scalar": torch.tensor(0.5), "none": torch.zeros(0, 3)}
    save_file(held, source / "model.safetensors", metadata={"format": "pt"})
    after = weights(export_safetensors(source, tmp_path / "out", "bfloat16").path)
    assert torch.equal(after["steps"], held["steps"])
    assert (after["scalar"].dtype, after["scalar"].shape, after["none"].shape) == (torch.bfloat16, (), (0, 3))


def test_the_types_of_a_models_parts_are_told_too(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(model, source)
    edit(source / "config.json", torch_dtype="float32", text_config={"dtype": "float64", "layers": 2}, other={"dtype": "float32"})
    config = json.loads((export_safetensors(source, tmp_path / "out", "float16").path / "config.json").read_text())
    assert (config["dtype"], config["torch_dtype"]) == ("float16", "float16")
    assert config["text_config"] == {"dtype": "float16", "layers": 2}
    assert config["other"] == {"dtype": "float32"}


def test_an_adapter_stays_one(adapter: Path, model: Path, tmp_path: Path) -> None:
    exported = export_safetensors(adapter, tmp_path / "out", "bfloat16")
    names = {file.name for file in exported.path.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "recipe.json", "data.json", "progress.json"}
    ids = AutoTokenizer.from_pretrained(model)("Fever and cough.", return_tensors="pt")["input_ids"]
    apart = [
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), path).eval()(input_ids=ids).logits
        for path in (adapter, exported.path)
    ]
    assert 0 < float((apart[0] - apart[1]).abs().max()) < 1
    _, stays, base = exported.notes
    assert f"mmed-train merge {adapter} FOLDER" in stays
    assert str(model) in base


def test_the_blank_card_that_peft_writes_is_left_out_and_a_written_one_is_not(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(model, source)
    (source / "README.md").write_text("base_model: /home/somebody\n[More Information Needed]")
    assert not (export_safetensors(source, tmp_path / "blank", None).path / "README.md").exists()
    (source / "README.md").write_text("# A model")
    assert (export_safetensors(source, tmp_path / "written", None).path / "README.md").exists()


def test_a_pickle_is_never_copied(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(model, source)
    for name in ("pytorch_model.bin", "training_args.bin", "model.pt", "state.pkl"):
        (source / name).write_bytes(b"pickle")
    (source / "global_step8").mkdir()
    exported = export_safetensors(source, tmp_path / "out", None)
    assert {file.suffix for file in exported.path.iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert "global_step8, model.pt, pytorch_model.bin, state.pkl, training_args.bin" in exported.notes[0]


def test_no_more_than_a_file_of_weights_is_in_memory(tmp_path: Path) -> None:
    wide = make_tiny_model(tmp_path / "wide", config={"num_hidden_layers": 24, "hidden_size": 128, "intermediate_size": 512})
    size = (wide / "model.safetensors").stat().st_size
    assert size > 2e7
    held = []
    real = export.save_file

    def watched(tensors: dict[str, torch.Tensor], *given: Any, **more: Any) -> None:
        held.append(sum(tensor.nbytes for tensor in tensors.values()))
        real(tensors, *given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "save_file", watched)
        export_safetensors(wide, tmp_path / "out", "bfloat16", largest_shard=1_000_000)
    assert len(held) > 5
    assert max(held) <= 1_000_000


# --- what is refused ---


def test_a_checkpoint_that_is_not_whole_is_refused(whole: Path, tmp_path: Path) -> None:
    torn = tmp_path / "checkpoint-8"
    shutil.copytree(whole, torn)
    (torn / "optimizer.pt").unlink()
    refused(ModelError, "is not whole: optimizer.pt is not there", torn, tmp_path / "out")
    os.truncate(torn / "model.safetensors", 10_000)
    (torn / "complete.json").unlink()
    refused(ModelError, "cannot be read", torn, tmp_path / "out")
    (torn / "model.safetensors").unlink()
    refused(ModelError, "holds no weights in safetensors", torn, tmp_path / "out")
    refused(ModelError, "is no folder", tmp_path / "gone", tmp_path / "out")


def test_numbers_too_large_for_a_type_are_refused(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(model, source)
    held = weights(source)
    held["model.norm.weight"][3] = 1e5
    save_file(held, source / "model.safetensors", metadata={"format": "pt"})
    refused(ModelError, "model.norm.weight holds numbers too large for float16", source, tmp_path / "out", dtype="float16")
    held["model.norm.weight"][3] = torch.inf
    save_file(held, source / "model.safetensors", metadata={"format": "pt"})
    assert export_safetensors(source, tmp_path / "out", "float16").tensors == len(held)


def test_quantised_weights_keep_their_types(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(model, source)
    edit(source / "config.json", quantization_config={"quant_method": "gptq"})
    refused(ModelError, "quantised weights", source, tmp_path / "out", dtype="bfloat16")
    assert export_safetensors(source, tmp_path / "out", None).types == ("float32",)


def test_what_is_there_is_left_as_it_is(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    refused(UsageError, "is there already", whole, tmp_path / "out")
    with pytest.raises(UsageError, match="does not exist; make it"):
        export_safetensors(whole, tmp_path / "no" / "out", None)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(whole: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        refused(StoreError, "no space left to write .*out; free some", whole, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_the_disk_gives_back_otherwise_is_refused(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = export.save_file

    def rotten(tensors: dict[str, torch.Tensor], file: Path, **more: Any) -> None:
        real(tensors, file, **more)
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)

    monkeypatch.setattr(export, "save_file", rotten)
    refused(StoreError, "does not hold what was written", whole, tmp_path / "out")


# --- a folder in one step ---


def test_a_new_folder_is_there_when_it_is_whole_or_not_at_all(tmp_path: Path) -> None:
    def half(stop: type[BaseException]) -> None:
        with new_folder(tmp_path / "new") as folder:
            (folder / "half").write_text("half")
            raise stop

    for stop in (KeyboardInterrupt, ValueError):
        with pytest.raises(stop):
            half(stop)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "new"):
        os.kill(os.getpid(), signal.SIGTERM)
    with new_folder(tmp_path / "new") as folder:
        (folder / "whole").write_text("whole")
        assert not (tmp_path / "new").exists()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["whole"]


def test_an_exported_checkpoint_is_none_to_go_on_from(whole: Path, tmp_path: Path) -> None:
    export_safetensors(whole, tmp_path / "checkpoint-8", None)
    found, warnings = find_saved(tmp_path)
    assert found == []
    assert "has no complete.json" in warnings[0]


def test_a_safetensors_file_of_transformers_is_read_as_safetensors_reads_it(
    whole: Path, tmp_path: Path, checkpoint: Callable[..., Path]
) -> None:
    """Of architectures that transformers stores otherwise than it computes them."""
    for source in (whole, checkpoint("gpt2"), checkpoint("qwen2", config={"tie_word_embeddings": True})):
        out = export_safetensors(source, tmp_path / source.name, None).path
        with safe_open(source / "model.safetensors", "pt") as a, safe_open(out / "model.safetensors", "pt") as b:
            names = sorted(a.keys())
            assert names == sorted(b.keys())
            assert all(torch.equal(a.get_tensor(name), b.get_tensor(name)) for name in names)
