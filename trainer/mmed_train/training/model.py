"""The model that is trained: float32 weights, adapters, and the proof that documents in a row do not see each other."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mmed_train.corpus.tokenizing import TextEncoder
from mmed_train.training.recipe import Recipe
from mmedeval import MmedevalError, ModelError
from mmedeval.model_files import LocalModel, ModelFolder, find_model
from mmedeval.text import first_line
from mmedeval_hf.loading import check_files

# Logits that differ by less than this come of another order of additions; a leak changes them by whole numbers' tenths.
LEAK = 1e-3


def find_base(recipe: Recipe, *, weights: bool = True) -> ModelFolder:
    """The folder of the base, fetched from the hub if need be; without `weights`, nothing but configuration and tokenizer."""
    revision = recipe.model.revision or None
    folder = find_model(recipe.named(recipe.model.path), revision=revision, safe_only=True, code=False, weights=weights)
    if folder.is_adapter:
        raise ModelError(
            f"{recipe.model.path} is an adapter; merge it first (mmed-train merge {recipe.model.path} FOLDER) and name the folder"
        )
    if weights:
        folder.check_model(trust="")
        check_files(LocalModel(base=folder))
    return folder


@contextmanager
def sentence(what: str) -> Iterator[None]:
    """Makes any error of others a `ModelError`: what a file can hold is without end, and so is what comes of it."""
    try:
        yield
    except MmedevalError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # Some errors say what is wrong below a heading.
        reason = " ".join(line.strip() for line in lines[:2]) if lines[0].endswith(":") else lines[0]
        if "trust_remote_code" in str(error):
            reason = "it comes with Python code of its own, which is not run"
        raise ModelError(f"{what}: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Within, transformers prints no table of weights and no bar."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()


def read_config(recipe: Recipe) -> Any:
    """The architecture: that of the base, or what `model.config` says."""
    from transformers import AutoConfig

    if not recipe.model.config:
        folder = find_base(recipe, weights=False).path
        with sentence(f"the config of {folder} cannot be used"), quiet():
            return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    file = recipe.inside(recipe.model.config)
    file = file / "config.json" if file.is_dir() else file
    with sentence(f"{file} cannot be used as a model's config"), quiet():
        settings = json.loads(file.read_text(encoding="utf-8"))
        return AutoConfig.for_model(settings.pop("model_type"), **settings)


def load_tokenizer(recipe: Recipe) -> Any:
    from transformers import AutoTokenizer

    name = recipe.named(recipe.model.tokenizer) if recipe.model.tokenizer else str(find_base(recipe, weights=False).path)
    with sentence(f"the tokenizer {name} cannot be loaded"), quiet():
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def digest_of(tokenizer: Any) -> str:
    """The digest that token shards name their tokenizer by."""
    return TextEncoder(tokenizer, bos=False, eos=False).vocabulary.tokenizer


def check_vocabulary(tokenizer: Any, embeddings: int, name: str) -> None:
    """Raises `ModelError` for a tokenizer with tokens that the model does not know."""
    largest = max(tokenizer.get_vocab().values())
    if largest >= embeddings:
        raise ModelError(
            f"the tokenizer has tokens up to {largest}, but {name} has {embeddings} embeddings; name the tokenizer that was "
            "saved with it (model.tokenizer)"
        )


@contextmanager
def old_names() -> Iterator[None]:
    """Within, peft and accelerate may call transformers' gradient checkpointing by its old name without a word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        yield


@old_names()
def load_model(recipe: Recipe, *, seed: int, say: Callable[[str], None] = lambda _: None) -> Any:
    """The model in float32 with its adapter, if any, ready for training. Raises `ModelError`; `say` tells what is strange.

    Weights are float32 whatever the checkpoint's type: steps of 1e-6 are lost on bfloat16 ones.
    """
    from transformers import AutoModelForCausalLM

    settings: dict[str, Any] = {"dtype": torch.float32}
    if recipe.model.attention:
        settings["attn_implementation"] = recipe.model.attention
    if recipe.adapter.kind == "qlora":
        settings |= _four_bits()
    with sentence(f"the model {recipe.model.path or recipe.model.config} cannot be loaded"), quiet():
        if recipe.model.config:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = AutoModelForCausalLM.from_config(read_config(recipe), trust_remote_code=False, **settings)
        else:
            model, told = load_whole(find_base(recipe), settings)
            for each in told:
                say(each)
    # A cache would hide where documents begin, and is of no use in training.
    model.config.use_cache = False
    if recipe.model.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model if recipe.adapter.kind == "none" else _with_adapter(model, recipe, seed)


def load_whole(base: ModelFolder, settings: dict[str, Any]) -> tuple[Any, list[str]]:
    """The model of a folder, and sentences on what is strange. Raises `ModelError` where its weights are not all there."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        base.path,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        # Told below, in one sentence.
        ignore_mismatched_sizes=True,
        **settings,
    )
    model, loading = loaded
    absent = sorted({*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])})
    if absent:
        # transformers fills these with noise and goes on.
        raise ModelError(
            f"the weights in {base.path} lack {len(absent)} tensors of the model ({absent[0]}, ...); copy the whole folder"
        )
    unused = loading["unexpected_keys"]
    return model, [f"the weights hold {len(unused)} tensors that the model does not use ({min(unused)}, ...)"] if unused else []


def _four_bits() -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    # Each process on its own GPU; else all of them would take the first one.
    place = {"device_map": {"": int(os.environ.get("LOCAL_RANK", "0"))}} if torch.cuda.is_available() else {}
    config: Any = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    return {"quantization_config": config, **place}


def _with_adapter(model: Any, recipe: Recipe, seed: int) -> Any:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    told = recipe.adapter
    if told.kind == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=recipe.model.gradient_checkpointing)
    config = LoraConfig(
        r=told.r,
        lora_alpha=told.alpha,
        lora_dropout=told.dropout,
        target_modules="all-linear" if told.targets == ("all-linear",) else list(told.targets),
        use_rslora=told.rslora,
        use_dora=told.kind == "dora",
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            raise ModelError(f"adapter.targets = {', '.join(told.targets)}: {first_line(error)}") from error
    if recipe.model.gradient_checkpointing:
        # Else no gradient reaches the adapters: what goes into a checkpointed layer must ask for one.
        adapted.enable_input_require_grads()
    # Where the base lay: so that `hf:` and peft find it again from any folder.
    adapted.peft_config["default"].base_model_name_or_path = recipe.named(recipe.model.path)
    adapted.peft_config["default"].revision = recipe.model.revision or None
    return adapted


def computes_all_logits(recipe: Recipe) -> bool:
    """Whether logits of tokens that nothing is compared with are computed, too: where the head's inputs cannot be picked."""
    return recipe.model.liger or recipe.model.compile or recipe.distributed.fsdp


@contextmanager
def head_sees(model: Any, wanted: torch.Tensor) -> Iterator[None]:
    """Within, the model's head computes logits, of shape (1, wanted, vocabulary), for these places of the batch, flattened."""

    def pick(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].flatten(0, 1).index_select(0, wanted).unsqueeze(0), *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def leak(model: Any, *, rows: int = 1, length: int = 24) -> float:
    """How far the logits of a document move when the document before it in a row is another one.

    On the model as it is trained: its attention, its device, under autocast if the caller is. 0.0 says that a row of documents is
    as good as the documents apart; `LEAK` is the most that rounding explains.
    """
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    draw = torch.Generator().manual_seed(0)
    first, second, other = (torch.randint(vocabulary, (rows, length), generator=draw) for _ in range(3))
    positions = torch.arange(length).repeat(2).expand(rows, -1).to(device)

    def behind(before: torch.Tensor) -> torch.Tensor:
        ids = torch.cat([before, second], dim=1).to(device)
        logits: torch.Tensor = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        return logits[:, length:].float()

    was_training = model.training
    model.eval()
    try:
        return float((behind(first) - behind(other)).abs().max())
    finally:
        model.train(was_training)


def check_isolation(model: Any, *, rows: int, way_out: str) -> float:
    """Raises `ModelError` where documents in a row see each other; returns what `leak` found."""
    try:
        found = leak(model, rows=rows)
    except TypeError as error:
        raise ModelError(
            f"this architecture takes no positions, so documents in a row would see each other; {way_out}"
        ) from error
    if not found <= LEAK:  # nor a NaN
        attention = model.config._attn_implementation
        raise ModelError(
            f"documents in a row see each other in this model (attention {attention}: a logit moved by {found:.3g}); {way_out}"
        )
    return found


def assert_master_weights(optimizer: Any) -> None:
    """Raises `ModelError` unless everything that the optimizer changes is float32."""
    types = {parameter.dtype for group in optimizer.param_groups for parameter in group["params"]}
    if types != {torch.float32}:
        names = ", ".join(sorted(str(each).removeprefix("torch.") for each in types))
        raise ModelError(f"the optimizer holds weights in {names}; training needs float32 ones, or small steps are lost")


def embeddings_of(model: Any) -> int:
    """How many tokens the model knows."""
    return int(model.get_input_embeddings().weight.shape[0])


def parameters_of(model: Any) -> tuple[int, int]:
    """All parameters, and those that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)
