"""Loads tokenizers, models and adapters; what transformers or peft would fill in or leave out in silence is an error."""

from __future__ import annotations

import warnings
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from mmedeval import ModelError
from mmedeval.model_files import ModelFolder
from mmedeval.text import first_line
from mmedeval_hf.options import DTYPES, Options

LOADING_ERRORS = (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError)


def load_tokenizer(base: ModelFolder, adapter: ModelFolder | None, options: Options) -> Any:
    # An adapter may bring tokens of its own; then it was saved with its tokenizer.
    folder = adapter if adapter and (adapter.path / "tokenizer_config.json").is_file() else base
    try:
        return AutoTokenizer.from_pretrained(folder.path, trust_remote_code=options.trust_remote_code)
    except LOADING_ERRORS as error:
        raise ModelError(f"the tokenizer in {folder.path} cannot be loaded: {first_line(error)}") from error


def load_model(base: ModelFolder, adapter: ModelFolder | None, options: Options) -> tuple[Any, list[str]]:
    """The model on its device, ready to be asked, and warnings. Raises `ModelError`."""
    # One progress bar is enough: the run's.
    transformers_logging.disable_progress_bar()
    settings: dict[str, Any] = {"dtype": DTYPES[options.dtype], "use_safetensors": options.use_safetensors}
    if options.attn_implementation:
        settings["attn_implementation"] = options.attn_implementation
    if options.device_map:
        settings["device_map"] = options.device_map
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            base.path, trust_remote_code=options.trust_remote_code, output_loading_info=True, **settings
        )
    except LOADING_ERRORS as error:
        raise ModelError(f"the model in {base.path} cannot be loaded: {first_line(error)}") from error
    model, loading = loaded
    absent = [*loading["missing_keys"], *loading["mismatched_keys"]]
    if absent:
        # transformers fills these with noise and goes on.
        raise ModelError(
            f"the weights in {base.path} lack {len(absent)} tensors of the model ({absent[0]}, ...); copy the whole folder"
        )
    unused = loading["unexpected_keys"]
    warned = [f"the weights hold {len(unused)} tensors that the model does not use ({min(unused)}, ...)"] if unused else []
    if adapter is not None:
        model = _with_adapter(model, adapter)
    if not options.device_map:
        try:
            model = model.to(options.torch_device())
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"the model does not fit on {options.device}: {first_line(error)}") from error
    return model.eval(), warned


def _with_adapter(model: Any, adapter: ModelFolder) -> Any:
    from peft import PeftModel, get_peft_model_state_dict

    try:
        with warnings.catch_warnings():
            # peft warns, and goes on with the base alone, where the file does not hold all that its configuration promises.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            # Through peft itself: transformers' own loading loses the magnitude vectors of DoRA in silence.
            adapted = PeftModel.from_pretrained(model, adapter.path)
    except (*LOADING_ERRORS, UserWarning) as error:
        raise ModelError(f"the adapter in {adapter.path} does not fit its base model: {first_line(error)}") from error
    weights = adapter.path / "adapter_model.safetensors"
    if weights.is_file():
        with safe_open(weights, "pt") as file:
            left = sorted(set(file.keys()) - set(get_peft_model_state_dict(adapted)))
        if left:
            raise ModelError(
                f"the adapter in {adapter.path} does not fit its base model: {len(left)} of its tensors have no place there "
                f"({left[0]}, ...)"
            )
    return adapted
