"""Attention to a prefix that all rows of a batch share, and to each row's own tokens: the prefix is there once, never copied.

Attention over two sets of keys is the average of the attention over each, weighted by the sums of their exponentials. Source:
Juravsky et al., "Hydragen: High-Throughput LLM Inference with Shared Prefixes" (2024), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.cache_utils import DynamicLayer

SHARED_PREFIX = "mmedeval_shared_prefix"
# torch's own attention, in the form that also tells the sums of exponentials.
_ON_CPU = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


class PrefixLayer(DynamicLayer):
    """One layer's keys and values of a prefix, or of none; what a forward pass adds is not kept here.

    `apart`: the pass gets its own keys alone, for `shared_prefix_attention`; else with the prefix in front of each row's.
    `remember`: `take` gives what the last pass added.
    """

    def __init__(self, layer: Any = None, *, apart: bool = False, remember: bool = False) -> None:
        super().__init__()
        self.apart, self.remember = apart, remember
        self._added: tuple[torch.Tensor, torch.Tensor] | None = None
        if layer is not None:
            self.lazy_initialization(layer.keys, layer.values)
            self.keys: torch.Tensor = layer.keys
            self.values: torch.Tensor = layer.values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.remember:
            self._added = (key_states, value_states)
        if self.apart or not self.is_initialized:
            return key_states, value_states
        rows = key_states.shape[0]
        keys = torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2)
        values = torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2)
        return keys, values

    def take(self) -> tuple[torch.Tensor, torch.Tensor]:
        added, self._added = self._added, None
        if added is None:
            raise NotImplementedError("a layer that keeps no keys and values")
        return added


def fits_long_queries(model: Any) -> bool:
    """Whether the two parts may be computed apart for many new tokens at once, without a matrix of all scores in memory."""
    config = model.config.get_text_config()
    plain = model.config._attn_implementation == "sdpa" and not getattr(config, "attn_logit_softcapping", None)
    return _ON_CPU is not None and model.device.type == "cpu" and plain


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    shared_prefix: Sequence[PrefixLayer] = (),
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers; `shared_prefix` are the prefix's layers.

    `query` is rows x heads x length x size; `key` and `value` are rows x key heads x width x size and the rows' own.
    `attention_mask` is rows x 1 x length x width and is added; without one, new tokens see each other causally. Returns rows x
    length x heads x size.
    """
    if s_aux is not None:
        raise NotImplementedError("attention sinks")
    rows, heads, length, size = query.shape
    scale = scaling if scaling is not None else size**-0.5
    out, norm = _partial(query, key, value, attention_mask, scale, softcap, causal=attention_mask is None)
    if shared_prefix:
        layer = shared_prefix[int(module.layer_idx)]  # type: ignore[arg-type]  # an int, set by transformers
        together = query.transpose(0, 1).reshape(1, heads, rows * length, size)
        before, before_norm = _partial(together, layer.keys, layer.values, None, scale, softcap, causal=False)
        before = before.view(heads, rows, length, size).transpose(0, 1)
        before_norm = before_norm.view(heads, rows, length).transpose(0, 1)
        share = torch.sigmoid(before_norm - norm).unsqueeze(-1).to(out.dtype)
        out = torch.lerp(out, before, share)
    return out.transpose(1, 2).contiguous(), None


def _partial(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    softcap: float | None,
    *,
    causal: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention (rows x heads x length x size), and the logarithm of the sum of its exponentials (rows x heads x length)."""
    rows, heads, length, size = query.shape
    own, times = key.shape[1], query.shape[1] // key.shape[1]
    causal = causal and length > 1
    if times > 1 and (length == 1 or (mask is None and not causal)):
        # Heads that share keys are more queries of the same keys.
        query = query.reshape(rows, own, times * length, size)
    elif times > 1:
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    if _ON_CPU is not None and query.device.type == "cpu" and softcap is None:
        out, norm = _ON_CPU(query, key, value, 0.0, causal, attn_mask=mask, scale=scale)
    else:
        if causal:
            raise NotImplementedError("many new tokens at once")
        scores = torch.matmul(query, key.transpose(2, 3)).float() * scale
        scores = scores if softcap is None else torch.tanh(scores / softcap) * softcap
        scores = scores if mask is None else scores + mask
        norm = scores.logsumexp(-1)
        out = torch.matmul((scores - norm.unsqueeze(-1)).exp().to(value.dtype), value)
    return out.reshape(rows, heads, length, size), norm.reshape(rows, heads, length)


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
