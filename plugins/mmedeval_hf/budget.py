"""How many tokens may be computed at once, and how many kept: arithmetic on the model's sizes and the memory that is free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

# More tokens at once are no faster: a CPU's caches are full long before, and a GPU's units are busy.
BEST_TOKENS_CPU, BEST_TOKENS_GPU = 4096, 32768
FEWEST_TOKENS = 64
# Of the memory that is free once the model is loaded, activations may take one part, kept keys and values another.
ACTIVATION_SHARE, CACHE_SHARE = 0.5, 0.25
# On a CPU more is no faster either, and the memory is not ours alone.
CACHE_BYTES_CPU = 2 * 2**30
# Where the system does not tell what is free.
ASSUMED_BYTES = 4 * 2**30


def activation_bytes(config: Any, dtype: torch.dtype) -> int:
    """Bytes of activations per token while a layer computes: eight vectors of its width and three of its inner width.

    Eight: the layer's input, its norm, queries, keys, values, attention, output, residual sum; three: gate, up and their product.
    """
    hidden = int(config.hidden_size)
    inner = _largest(config, "intermediate_size") or _largest(config, "n_inner") or 4 * hidden
    heads, size = _heads(config)
    return _size(dtype) * (8 * max(hidden, heads * size) + 3 * inner)


def cache_bytes(config: Any, dtype: torch.dtype) -> int:
    """Bytes of keys and values per token, over all layers, where layers differ as if all were as large as the largest."""
    heads, size = _heads(config)
    return _size(dtype) * 2 * int(config.num_hidden_layers) * (_largest(config, "num_key_value_heads") or heads) * size


def _heads(config: Any) -> tuple[int, int]:
    """Heads and their width; recurrent models count as one that is as wide as they are."""
    heads = _largest(config, "num_attention_heads") or 1
    return heads, _largest(config, "head_dim") or int(config.hidden_size) // heads


def _largest(config: Any, name: str) -> int:
    """A size that a model has once, or in a list with one for each layer, or in a configuration of each layer; 0 without it."""
    found: set[int] = set()
    for part in getattr(config, "per_layer_config", None) or [config]:
        value = getattr(part, name, None)
        found |= {int(each) for each in (value if isinstance(value, list | tuple) else [value]) if each is not None}
    return max(found, default=0)


def tokens_at_once(free: int, per_token: int, device: str) -> int:
    """A batch whose activations fit into their share of the free memory, and no larger than is of use."""
    best = BEST_TOKENS_CPU if device == "cpu" else BEST_TOKENS_GPU
    return max(FEWEST_TOKENS, min(best, int(ACTIVATION_SHARE * free) // per_token))


def cache_tokens(free: int, per_token: int, device: str) -> int:
    """How many tokens' keys and values may be kept."""
    room = int(CACHE_SHARE * free)
    return max(1, (min(room, CACHE_BYTES_CPU) if device == "cpu" else room) // per_token)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_available(Path("/proc/meminfo")), _left_to_group(Path("/sys/fs/cgroup")))


def _available(meminfo: Path) -> int:
    """What Linux says is available without swapping."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return ASSUMED_BYTES


def _left_to_group(folder: Path) -> int:
    """What a container may still take (control groups, version 2); without a limit, more than any machine has."""
    try:
        return max(0, int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text()))
    except (OSError, ValueError):  # absent, or "max"
        return 2**62


def _size(dtype: torch.dtype) -> int:
    return torch.finfo(dtype).bits // 8
