"""Loads tokenizers, models and adapters; what transformers or peft would fill in or leave out in silence is an error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from mmedeval import ModelError
from mmedeval.model_files import LocalModel, ModelFolder
from mmedeval_hf.options import DTYPES, Options


def check_files(files: LocalModel) -> None:
    """Raises `ModelError` for what can be known to go wrong before anything is loaded."""
    base, adapter = files.base, files.adapter
    config, tensors = base.json("config.json"), 0
    with _sentence(f"the model in {base.path} cannot be loaded"):
        for name in base.weights:
            if name.endswith(".safetensors"):
                with safe_open(base.path / name, "pt") as file:
                    tensors += len(file.keys())
    layers = config.get("num_hidden_layers")
    if tensors and isinstance(layers, int) and layers > tensors:
        # transformers would make them all, whatever their number, before it looks for their weights.
        raise ModelError(
            f"{base.path}/config.json says {layers:,} layers, its weights are {tensors} tensors; copy the whole folder"
        )
    if adapter is not None and str(adapter.json("adapter_config.json").get("init_lora_weights")).startswith("pissa_niter"):
        # peft changes the base by the same decomposition again, which is another one each time.
        raise ModelError(
            f"the adapter in {adapter.path} was begun by a random decomposition of its base (pissa_niter), which cannot be had "
            "again; save it as a plain one (path_initial_model_for_weight_conversion of peft), or merge it where it was trained"
        )


def load_tokenizer(files: LocalModel, options: Options) -> Any:
    with _sentence(f"the tokenizer in {files.tokenizer} cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(files.tokenizer, trust_remote_code=options.trust_remote_code)
        # Some settings are looked at first when it is used.
        tokenizer("a")
        return tokenizer


def load_model(files: LocalModel, options: Options) -> tuple[Any, list[str]]:
    """The model on its device, ready to be asked, and warnings. Raises `ModelError`."""
    base, adapter = files.base, files.adapter
    settings: dict[str, Any] = {
        "dtype": DTYPES[options.dtype],
        # `False` would be to read pickled weights where there are others, too.
        "use_safetensors": options.use_safetensors or None,
    }
    if options.attn_implementation:
        settings["attn_implementation"] = options.attn_implementation
    if options.device_map:
        settings["device_map"] = options.device_map
    with _sentence(f"the model in {base.path} cannot be loaded"), _quiet():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            base.path, trust_remote_code=options.trust_remote_code, output_loading_info=True, **settings
        )
    model, loading = loaded
    absent = loading["missing_keys"]
    if absent:
        # transformers fills these with noise and goes on.
        raise ModelError(
            f"the weights in {base.path} lack {len(absent)} tensors of the model ({min(absent)}, ...); copy the whole folder"
        )
    unused = loading["unexpected_keys"]
    warned = [f"the weights hold {len(unused)} tensors that the model does not use ({min(unused)}, ...)"] if unused else []
    if adapter is not None:
        model = _with_adapter(model, adapter)
    if not options.device_map:
        with _sentence(f"the model does not fit on {options.device}"):
            model = model.to(options.torch_device())
    return model.eval(), warned


def _with_adapter(model: Any, adapter: ModelFolder) -> Any:
    from peft import PeftModel, get_peft_model_state_dict

    with _sentence(f"the adapter in {adapter.path} does not fit its base model"), warnings.catch_warnings():
        # peft warns, and goes on with the base alone, where the file does not hold all that its configuration promises.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        # And it asks transformers by an old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        # Through peft itself: transformers' own loading loses the magnitude vectors of DoRA in silence.
        adapted = PeftModel.from_pretrained(model, adapter.path)
        weights = adapter.path / "adapter_model.safetensors"
        if not weights.is_file():
            return adapted
        with safe_open(weights, "pt") as file:
            # Told whether embeddings count: peft would look for the base's configuration on the hub to find out.
            left = sorted(set(file.keys()) - set(get_peft_model_state_dict(adapted, save_embedding_layers=True)))
    if left:
        raise ModelError(
            f"the adapter in {adapter.path} does not fit its base model: {len(left)} of its tensors have no place there "
            f"({left[0]}, ...)"
        )
    return adapted


@contextmanager
def _sentence(what: str) -> Iterator[None]:
    """Makes any error of others a sentence: what a file can hold is without end, and so is what comes of it."""
    try:
        yield
    except Exception as error:
        raise ModelError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What went wrong, in a line; some errors say it below a heading."""
    if "ignore_mismatched_sizes" in str(error):
        return "its weights have other sizes than its config.json says; copy the whole folder"
    if "trust_remote_code" in str(error):
        return "it comes with Python code of its own; read that, and let it run with --model-arg trust_remote_code=true"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    reason = f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    return reason if " " in reason else f"{type(error).__name__} {reason}"


@contextmanager
def _quiet() -> Iterator[None]:
    """No table of weights, whose names are a stranger's, and no bar: one progress bar is enough, the run's."""
    before = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
