"""Whether vLLM can put an adapter on a model; what it would fit in wrongly or leave out in silence is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmedeval import ModelError
from mmedeval.model_files import ModelFolder
from mmedeval_vllm.headers import shapes

# The ranks that vLLM makes room for.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
PREFIX = "base_model.model."
BEYOND = (
    "alora_invocation_tokens", "bias", "layer_replication", "lora_bias", "modules_to_save", "target_parameters",
    "trainable_token_indices", "use_bdlora", "use_qalora",
)  # fmt: skip
# Ways to begin the training of an adapter that leave its base as it is.
BEGUN = ("eva", "gaussian", "lora_ga", "mica", "orthogonal")


def room_for(adapter: ModelFolder) -> int:
    """The smallest rank that vLLM has room for and that takes the adapter. Raises `ModelError` where there is none."""
    config = adapter.json("adapter_config.json")
    patterns = config.get("rank_pattern") or {}
    ranks = [config.get("r"), *(patterns.values() if isinstance(patterns, dict) else [patterns])]
    kind = config.get("peft_type", "LORA")
    if kind == "LORA" and config.get("use_dora"):
        kind = "DoRA"
    elif kind == "LORA" and (beyond := _beyond(config)):
        kind = f"LoRA with {', '.join(beyond)}"
    if kind != "LORA":
        raise ModelError(
            f"the adapter in {adapter.path} is of the kind {kind}, and vLLM runs plain LoRA only; "
            "use hf:, or merge it into its base model"
        )
    if not all(isinstance(rank, int) and rank > 0 for rank in ranks):
        raise ModelError(f"{adapter.path}/adapter_config.json has the ranks {ranks}, which are no whole numbers above 0")
    rank = max(ranks)
    for room in RANKS:
        if rank <= room:
            return room
    raise ModelError(
        f"the adapter in {adapter.path} has the rank {rank}, and vLLM takes at most {RANKS[-1]}; use hf:, or merge it"
    )


def _beyond(config: Mapping[str, Any]) -> list[str]:
    """Settings of an adapter that change what it computes, and that vLLM refuses when all else is loaded, or leaves out."""
    found = [name for name in BEYOND if config.get(name) not in (None, False, "none", [], {})]
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower() not in BEGUN:
        # These change the base, too, whenever peft loads the adapter.
        found.append(f"init_lora_weights={begun}")
    return found


def adapted_modules(adapter: ModelFolder) -> list[str]:
    """The last names of the modules that an adapter changes, as in `q_proj`."""
    return sorted({module.rpartition(".")[2] for module, _, _ in map(_parsed, shapes(adapter, adapter=True)) if module})


def check_fit(adapter: ModelFolder, base: ModelFolder) -> None:
    """Raises `ModelError` for tensors that have no place in the base model, have another size there, or are not there.

    vLLM copies a smaller tensor into a larger one, and passes over layers that do not exist, without a word. Where the files
    cannot be compared by name (quantised weights, other names), vLLM's own checks have to do.
    """
    config, tensors = adapter.json("adapter_config.json"), shapes(adapter, adapter=True)
    if not tensors:
        raise ModelError(
            f"the adapter in {adapter.path} has no tensors in adapter_model.safetensors, and the backend reads no pickled ones; "
            "load it with peft and save it again"
        )
    if base.json("config.json").get("quantization_config"):
        return
    places = {name.removesuffix(".weight"): shape for name, shape in shapes(base, adapter=False).items() if len(shape) == 2}
    modules: dict[str, set[str]] = {"lora_A": set(), "lora_B": set()}
    strange = []
    for name, shape in tensors.items():
        module, side, embedding = _parsed(name)
        if not module:
            continue
        modules[side].add(module)
        if module not in places:
            strange.append(name)
            continue
        # A is rank x inputs, B outputs x rank; a weight is outputs x inputs, of embeddings and in some old models transposed.
        transposed = embedding or config.get("fan_in_fan_out")
        outputs, inputs = reversed(places[module]) if transposed else places[module]
        found, wanted = (shape[-1], inputs) if side == "lora_A" else (shape[0], outputs)
        if found != wanted:
            raise _misfit(adapter, f"{name} is made for a size of {found}, the model has {wanted}")
    if len(strange) == len(modules["lora_A"]) + len(modules["lora_B"]):
        return  # the model's files have other names
    if strange:
        raise _misfit(adapter, f"{len(strange)} of its tensors have no place there ({min(strange)}, ...)")
    targets = config.get("target_modules")
    if isinstance(targets, list) and not config.get("layers_to_transform") and not config.get("exclude_modules"):
        expected = {place for place in places if any(f".{place}".endswith(f".{target}") for target in targets)}
        absent = sorted(expected - (modules["lora_A"] & modules["lora_B"]))
        if absent:
            raise _misfit(adapter, f"it lacks the tensors of {len(absent)} modules ({absent[0]}, ...)")


def _parsed(name: str) -> tuple[str, str, bool]:
    """Of a tensor's name the module, `lora_A` or `lora_B`, and whether it is of an embedding; no module if it is neither."""
    module, _, kind = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
    side = kind.replace("_embedding", "")
    return (module if side in ("lora_A", "lora_B") else ""), side, side != kind


def _misfit(adapter: ModelFolder, what: str) -> ModelError:
    return ModelError(f"the adapter in {adapter.path} does not fit its base model: {what}")
