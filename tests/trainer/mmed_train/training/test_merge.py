"""A merged model is the adapter on its base: the same logits, the same answers; what is not is refused, and leaves nothing."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from mmed_train.training import merge as merging
from mmed_train.training.merge import TOLERANCE, Merged, merge
from mmedeval import ModelError, RunPlan, StoreError, UsageError
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.model_files import ModelFolder
from mmedeval.runner import run
from mmedeval.store import read_samples
from mmedeval_hf.tiny import make_tiny_model

pytestmark = [
    # peft asks transformers by an old name, and warns of adapted embeddings that are tied.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:(?s).*tie_word_embeddings:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
TEXT = "The patient has had fever and a cough since Monday. Пациент кашляет. 患者咳嗽。"
KINDS: Mapping[str, Mapping[str, Any]] = {
    "LoRA": {},
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "LoRA with biases": {"bias": "all"},
    "LoRA of the head": {"target_modules": ["q_proj", "lm_head"]},
    "LoRA of the embeddings": {"target_modules": ["v_proj", "embed_tokens"]},
    "LoRA and a head of its own": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes bases; the same call gives the same folder."""
    made: dict[str, Path] = {}

    def make(*, tied: bool = False, dtype: torch.dtype = torch.float32, **arguments: Any) -> Path:
        key = json.dumps([tied, str(dtype), arguments], sort_keys=True)
        if key not in made:
            path = tmp_path_factory.mktemp("base") / "base"
            settings = {**SMALL, "tie_word_embeddings": tied, **arguments.pop("config", {})}
            made[key] = make_tiny_model(path, vocabulary=600, config=settings, **arguments)
            if dtype != torch.float32:
                AutoModelForCausalLM.from_pretrained(path).to(dtype).save_pretrained(path)
        return made[key]

    return make


@pytest.fixture(scope="module")
def adapters(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains adapters for a few steps, as the trainer does: on a base in float32, whatever it is stored in."""
    made: dict[str, Path] = {}

    def make(base: Path | None = None, **lora: Any) -> Path:
        base = base or bases()
        key = json.dumps([str(base), lora], sort_keys=True)
        if key not in made:
            torch.manual_seed(3)
            config = LoraConfig(**{"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **lora})
            model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
            optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=0.02)
            ids = AutoTokenizer.from_pretrained(base)(TEXT, return_tensors="pt")["input_ids"]
            for _ in range(4):
                model(input_ids=ids, labels=ids).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            folder = tmp_path_factory.mktemp("adapter") / "adapter"
            model.save_pretrained(folder)
            made[key] = folder
        return made[key]

    return make


def told(adapter: Path, out: Path, **arguments: Any) -> tuple[Merged, list[str]]:
    said: list[str] = []
    merged = merge(str(adapter), out, **{"base": None, "dtype": None, "say": said.append, **arguments})
    return merged, said


@torch.no_grad()
def logits_of(model: Any, tokenizer: Path) -> torch.Tensor:
    """By transformers alone, on a text that is none of the probes."""
    ids = AutoTokenizer.from_pretrained(tokenizer)(TEXT, return_tensors="pt")["input_ids"]
    return model.eval()(input_ids=ids).logits


def loaded(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def edit(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **values}), encoding="utf-8")


# --- the same model ---


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_computes_what_peft_computes_with_the_adapter(
    kind: str, tied: bool, bases: Callable[..., Path], adapters: Callable[..., Path], tmp_path: Path
) -> None:
    base = bases(tied=tied)
    adapter = adapters(base, **KINDS[kind])
    merged, _ = told(adapter, tmp_path / "merged")
    wanted = logits_of(PeftModel.from_pretrained(loaded(base), adapter), base)
    assert apart(logits_of(loaded(merged.path), merged.path), wanted) < 1e-4
    assert apart(logits_of(loaded(base), base), wanted) > 0.05
    assert merged.stored.largest < TOLERANCE
    assert (merged.stored.flipped, merged.languages, merged.dtype) == (0, 6, "float32")
    assert (merged.probes, merged.stored.places) == (12, 12 * 32)


@pytest.mark.parametrize(("kind", "stays"), [("DoRA", True), ("LoRA of the head", False), ("LoRA of the embeddings", False)])
def test_embeddings_stay_tied_unless_the_adapter_parts_them(
    kind: str, stays: bool, bases: Callable[..., Path], adapters: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = adapters(bases(tied=True), **KINDS[kind])
    told(adapter, tmp_path / "merged")
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    with safe_open(tmp_path / "merged" / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in set(file.keys())) is not stays
    assert config["tie_word_embeddings"] is stays


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16"])
def test_weights_are_stored_as_the_bases_are_or_as_asked(
    dtype: Any, bases: Callable[..., Path], adapters: Callable[..., Path], tmp_path: Path
) -> None:
    base = bases(dtype=torch.bfloat16)
    merged, _ = told(adapters(base, use_dora=True), tmp_path / "merged", dtype=dtype)
    wanted = dtype or "bfloat16"
    with safe_open(merged.path / "model.safetensors", "pt") as file:
        types = {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118
    assert types == {f"torch.{wanted}"}
    assert json.loads((merged.path / "config.json").read_text())["dtype"] == merged.dtype == wanted
    # The merge itself is exact; what is lost is lost in rounding the sum, and told.
    assert merged.exact.largest < 1e-4
    assert (merged.stored.largest < 1e-4) is (wanted == "float32")
    assert json.loads((merged.path / "merge.json").read_text())["stored"]["largest"] == merged.stored.largest


def test_a_sum_is_rounded_once(bases: Callable[..., Path], adapters: Callable[..., Path], tmp_path: Path) -> None:
    """Merged in bfloat16 it would be rounded after each of its steps."""
    base = bases(dtype=torch.bfloat16)
    adapter = adapters(base)
    merged, _ = told(adapter, tmp_path / "merged")
    exact = PeftModel.from_pretrained(loaded(base), adapter).merge_and_unload().state_dict()
    with safe_open(merged.path / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118
            assert torch.equal(file.get_tensor(name), exact[name].to(torch.bfloat16)), name


def test_the_harness_gives_a_merged_model_the_answers_of_its_adapter(adapters: Callable[..., Path], tmp_path: Path) -> None:
    adapter = adapters(use_dora=True)
    told(adapter, tmp_path / "merged")
    answers = {}
    for model in (adapter, tmp_path / "merged"):
        plan = RunPlan(model=f"hf:{model}", tasks=("mmedbench_mini_en", "mmedbench_mini_ja"), protocol="letter", limit=6)
        run(plan, Catalog(make_host()), tmp_path / f"run-{model.name}")
        answers[model.name] = read_samples(tmp_path / f"run-{model.name}")
    first, second = answers.values()
    assert len(first) == 12
    for one, other in zip(first, second, strict=True):
        assert (one.key, one.prediction) == (other.key, other.prediction)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)


# --- what stands beside the weights ---


def test_a_merged_folder_has_the_tokenizer_and_how_to_generate_as_they_were(
    bases: Callable[..., Path], adapters: Callable[..., Path], tmp_path: Path
) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(bases(), base)
    shutil.copytree(adapters(), adapter)
    # Some versions of transformers refuse to save such a one: there is a temperature, and nothing is sampled.
    (base / "generation_config.json").write_text(json.dumps({"temperature": 0.3, "do_sample": False, "eos_token_id": [1, 2]}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, adapter)
    edit(adapter / "tokenizer_config.json", chat_template=None)
    (adapter / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0]['content'] }}!")
    for name, content in {"recipe.json": {"kind": "finetune"}, "data.json": {}, "progress.json": {"step": 4}}.items():
        (adapter / name).write_text(json.dumps(content))
    (adapter / "optimizer.pt").write_bytes(b"state")
    (adapter / "README.md").write_text("base_model: /home/somebody/base")
    merged, _ = told(adapter, tmp_path / "merged", base=str(base))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "recipe.json", "data.json", "progress.json"):
        assert (merged.path / name).read_bytes() == (adapter / name).read_bytes()
    assert (merged.path / "generation_config.json").read_bytes() == (base / "generation_config.json").read_bytes()
    assert {file.name for file in merged.path.iterdir()} & {"optimizer.pt", "README.md", "adapter_config.json"} == set()
    record = json.loads((merged.path / "merge.json").read_text())
    assert (record["base"], record["adapter"]) == (ModelFolder(base).fingerprint, ModelFolder(adapter).fingerprint)
    written = "".join(file.read_text() for file in merged.path.glob("*.json"))
    assert str(tmp_path) not in written


# --- what is refused ---


def refused(kind: type[Exception], words: str, adapter: Path | str, out: Path, **arguments: Any) -> str:
    before = sorted(out.parent.iterdir())
    with pytest.raises(kind) as caught:
        told(adapter, out, **arguments)  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert words in sentence
    assert "\n" not in sentence
    assert getattr(caught.value, "exit_code", None) == 2
    assert sorted(out.parent.iterdir()) == before
    return sentence


@pytest.mark.parametrize("where", ["as it is merged", "as it is stored", "as it is read back"])
def test_a_merge_that_changes_the_model_is_refused(
    where: str, adapters: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturbed(model: Any) -> Any:
        model.get_input_embeddings().weight.data += 0.01 * torch.randn_like(model.get_input_embeddings().weight)
        return model

    if where == "as it is merged":
        real = merging._merge_in_place
        monkeypatch.setattr(merging, "_merge_in_place", lambda *given: disturbed(real(*given)))
    elif where == "as it is stored":
        save = PreTrainedModel.save_pretrained
        monkeypatch.setattr(
            PreTrainedModel, "save_pretrained", lambda model, *given, **more: save(disturbed(model), *given, **more)
        )
    else:
        load = merging.load_model
        monkeypatch.setattr(
            merging,
            "load_model",
            lambda files, options: load(files, options) if files.adapter else (disturbed(load(files, options)[0]), []),
        )
    words = (
        "otherwise than they were written" if where == "as it is read back" else "the merged model is not the adapter on its base"
    )
    refused(ModelError, words, adapters(), tmp_path / "merged")


def test_a_magnitude_that_is_lost_is_noticed(
    adapters: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers' own loading of an adapter loses it, without a word."""
    real = merging._merge_in_place

    def forgetful(model: Any, files: Any) -> Any:
        for module in model.modules():
            if hasattr(module, "lora_variant"):
                module.lora_variant.clear()
        return real(model, files)

    monkeypatch.setattr(merging, "_merge_in_place", forgetful)
    refused(
        ModelError,
        "the merged model is not the adapter on its base",
        adapters(use_dora=True),
        tmp_path / "merged",
        dtype="bfloat16",
    )


def test_no_numbers_are_refused(adapters: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = tmp_path / "adapter"
    shutil.copytree(adapters(), adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    refused(ModelError, "cannot be merged: NaNs detected", adapter, tmp_path / "merged")


def test_numbers_that_a_type_cannot_hold_are_refused(
    bases: Callable[..., Path], adapters: Callable[..., Path], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases(), base)
    model = loaded(base)
    model.get_input_embeddings().weight.data[300, 0] = 1e6
    model.save_pretrained(base)
    refused(ModelError, "too large for float16", adapters(), tmp_path / "merged", base=str(base), dtype="float16")


def test_a_folder_that_is_there_is_left_as_it_is(adapters: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    refused(UsageError, "is there already", adapters(), tmp_path / "merged")
    (tmp_path / "dangling").symlink_to("nowhere")
    refused(UsageError, "is there already", adapters(), tmp_path / "dangling")
    with pytest.raises(UsageError, match="does not exist; make it"):
        told(adapters(), tmp_path / "no" / "merged")


def test_what_is_no_adapter_is_told_so(bases: Callable[..., Path], tmp_path: Path) -> None:
    refused(ModelError, "is a whole model, no adapter", bases(), tmp_path / "merged")
    refused(ModelError, "does not exist", tmp_path / "gone", tmp_path / "merged")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(ModelError, "holds no adapter_config.json", empty, tmp_path / "merged")


def test_an_adapter_that_cannot_be_merged_is_told_so(bases: Callable[..., Path], tmp_path: Path) -> None:
    model = get_peft_model(loaded(bases()), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    model.save_pretrained(tmp_path / "adapter")
    refused(ModelError, "cannot be merged", tmp_path / "adapter", tmp_path / "merged")


def test_an_adapter_whose_base_cannot_be_had_again_is_told_so(adapters: Callable[..., Path], tmp_path: Path) -> None:
    """Its base was changed by a random decomposition before it was trained."""
    adapter = tmp_path / "adapter"
    shutil.copytree(adapters(), adapter)
    edit(adapter / "adapter_config.json", init_lora_weights="pissa_niter_4")
    refused(ModelError, "random decomposition", adapter, tmp_path / "merged")


def test_a_base_that_is_not_there_is_named_with_the_way_out(adapters: Callable[..., Path], tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(adapters(), adapter)
    edit(adapter / "adapter_config.json", base_model_name_or_path="/models/gone")
    assert "--base" in refused(ModelError, "/models/gone does not exist", adapter, tmp_path / "merged")
    edit(adapter / "adapter_config.json", base_model_name_or_path=None)
    refused(ModelError, "names no base model; name it with --base", adapter, tmp_path / "merged")
    refused(ModelError, "./gone does not exist", adapter, tmp_path / "merged", base="./gone")


def test_a_relative_base_is_found_from_here_or_from_the_adapters_folder(
    bases: Callable[..., Path], adapters: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, here = tmp_path / "moved", tmp_path / "here"
    shutil.copytree(adapters(), moved / "adapter")
    shutil.copytree(bases(), moved / "base")
    here.mkdir()
    edit(moved / "adapter" / "adapter_config.json", base_model_name_or_path="../base")
    monkeypatch.chdir(here)
    told(moved / "adapter", tmp_path / "beside")
    edit(moved / "adapter" / "adapter_config.json", base_model_name_or_path="moved/base")
    monkeypatch.chdir(tmp_path)
    told(moved / "adapter", tmp_path / "from-here")
    shutil.copytree(bases(seed=1), tmp_path / "base")
    edit(moved / "adapter" / "adapter_config.json", base_model_name_or_path="../base")
    monkeypatch.chdir(here)
    refused(UsageError, "say which with --base", moved / "adapter", tmp_path / "merged")


def test_an_adapter_is_no_base(adapters: Callable[..., Path], tmp_path: Path) -> None:
    refused(ModelError, "holds an adapter itself", adapters(), tmp_path / "merged", base=str(adapters(use_dora=True)))


def test_quantised_weights_are_no_base(bases: Callable[..., Path], adapters: Callable[..., Path], tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases(), base)
    edit(base / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    refused(ModelError, "quantised weights", adapters(), tmp_path / "merged", base=str(base))


def test_an_adapter_of_another_architecture_does_not_fit(
    bases: Callable[..., Path], adapters: Callable[..., Path], tmp_path: Path
) -> None:
    wider = bases(config={"hidden_size": 64, "num_attention_heads": 4})
    refused(ModelError, "does not fit its base model", adapters(), tmp_path / "merged", base=str(wider))
    refused(ModelError, "does not fit its base model", adapters(), tmp_path / "merged", base=str(bases(model_type="gpt2")))


def test_a_base_with_another_vocabulary_is_refused(
    bases: Callable[..., Path], adapters: Callable[..., Path], tmp_path: Path
) -> None:
    """Its weights may fit all the same: a vocabulary shows in the embeddings alone."""
    adapter = tmp_path / "adapter"
    shutil.copytree(adapters(), adapter)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bases() / name, adapter)
    other = bases(texts=["Κάτι άλλο, σε άλλη γλώσσα: πυρετός, βήχας και πόνος."] * 50)
    assert "tokens differ" in refused(
        ModelError, "is another one than that of the base", adapter, tmp_path / "merged", base=str(other)
    )
    told(adapter, tmp_path / "fits", base=str(bases()))


def test_another_base_than_it_was_trained_on_is_refused_unless_it_is_named(
    bases: Callable[..., Path], adapters: Callable[..., Path], tmp_path: Path
) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(bases(), base)
    shutil.copytree(adapters(), adapter)
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    (adapter / "data.json").write_text(json.dumps({"base": ModelFolder(base).fingerprint}))
    assert told(adapter, tmp_path / "same")[1] == []
    loaded(base).save_pretrained(base, max_shard_size="50KB")
    (base / "model.safetensors").unlink()
    refused(ModelError, "was trained on another model", adapter, tmp_path / "merged")
    _, said = told(adapter, tmp_path / "merged", base=str(base))
    assert "another fingerprint" in said[0]


def test_a_base_in_a_type_of_its_own_asks_for_one(
    bases: Callable[..., Path], adapters: Callable[..., Path], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases(), base)
    for told_type, words in (("float64", "is stored in 'float64'"), (None, "does not say what it is stored in")):
        edit(base / "config.json", dtype=told_type)
        refused(UsageError, words, adapters(), tmp_path / "merged", base=str(base))
    told(adapters(), tmp_path / "merged", base=str(base), dtype="float32")


# --- cut off ---


def test_a_merge_that_is_terminated_leaves_nothing(
    adapters: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def terminated(folder: Path, *_: Any) -> None:
        seen.extend(file.name for file in folder.iterdir())
        assert not (tmp_path / "merged").exists()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(merging, "_read_back", terminated)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        told(adapters(), tmp_path / "merged")
    assert "model.safetensors" in seen
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_a_killed_merge_left_is_removed_by_the_next_one(adapters: Callable[..., Path], tmp_path: Path) -> None:
    left = tmp_path / ".merged.part"
    left.mkdir()
    (left / "model-00001-of-00002.safetensors").write_bytes(b"half")
    merged, _ = told(adapters(), tmp_path / "merged")
    assert list(tmp_path.iterdir()) == [merged.path]
    assert not list(merged.path.glob("model-*"))


def test_a_full_disk_is_one_sentence_and_leaves_nothing(adapters: Callable[..., Path], tmp_path: Path) -> None:
    adapter, limits = adapters(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        refused(StoreError, f"no space left to write {tmp_path / 'merged'}; free some", adapter, tmp_path / "merged")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_folder_that_cannot_be_written_is_one_sentence(
    adapters: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    refused(StoreError, "Permission denied", adapters(), tmp_path / "merged")
