"""Attention on a CPU that computes nothing between the documents of a row.

transformers' `sdpa` gives a row of several documents a mask, and computes what the mask then hides: most of a long row. Here each
document is computed by itself, by the same kernel and under its own part of the same mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PLAIN, WITHIN = "sdpa", "sdpa_within_documents"


def attend_within_documents(model: Any) -> None:
    """From now on, where the model takes such a choice and attends by `sdpa`."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if base.config._attn_implementation == PLAIN and base._can_set_attn_implementation():
        base.set_attn_implementation(WITHIN)


@contextmanager
def attending_plainly(model: Any) -> Iterator[None]:
    """Within, the model attends as it did before `attend_within_documents`."""
    before = model.config._attn_implementation
    if before == WITHIN:
        model.config._attn_implementation = PLAIN
    try:
        yield
    finally:
        model.config._attn_implementation = before


class Block(NamedTuple):
    """Places of a row that see no other than each other; `causal` says that each sees all before it, and itself."""

    start: int
    end: int
    causal: bool


def blocks(mask: torch.Tensor) -> list[list[Block]]:
    """The blocks of a mask, row by row.

    `mask` is bool, rows x 1 x length x length, true where a place (third axis) sees another (fourth).
    """
    length = mask.shape[-1]
    places, seen = torch.arange(length), mask[:, 0].to(torch.uint8)
    # A place that sees nothing counts as one that sees all: then there is no border, which is never wrong.
    first, last = seen.argmax(-1), length - 1 - seen.flip(-1).argmax(-1)
    none_back = first.flip(-1).cummin(-1).values.flip(-1) >= places
    none_forth = torch.nn.functional.pad(last.cummax(-1).values[:, :-1], (1, 0), value=-1) < places
    borders = [[*row.nonzero().flatten().tolist(), length] for row in none_back & none_forth]
    triangle = torch.ones(length, length, dtype=torch.bool).tril()
    return [
        [
            Block(start, end, torch.equal(row[0, start:end, start:end], triangle[: end - start, : end - start]))
            for start, end in pairwise(each)
        ]
        for row, each in zip(mask, borders, strict=True)
    ]


def _mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    mask: torch.Tensor | None = sdpa_mask(*args, **kwargs)
    if mask is not None and mask.dtype == torch.bool and mask.shape[-1] == mask.shape[-2]:
        # Found once, for all layers.
        mask.blocks = blocks(mask)  # type: ignore[attr-defined]
    return mask


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers: returns rows x length x heads x size."""
    found: list[list[Block]] = getattr(attention_mask, "blocks", [])
    if attention_mask is None or all(len(row) == 1 for row in found) or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    rows, masks = query.shape[0], attention_mask.expand(query.shape[0], -1, -1, -1)

    def within(row: int, block: Block) -> torch.Tensor:
        part, places = slice(row, row + 1), slice(block.start, block.end)
        seen = (query[part, :, places], key[part, :, places], value[part, :, places])
        # Without a mask the kernel is causal, and computes half.
        mask = None if block.causal else masks[part, :, places, places]
        return sdpa_attention_forward(module, *seen, mask, **kwargs)[0]

    # One row of a mask may stand for all rows.
    found = found * (rows // len(found))
    return torch.cat([torch.cat([within(row, each) for each in found[row]], dim=1) for row in range(rows)]), None


AttentionInterface.register(WITHIN, _attention)
AttentionMaskInterface.register(WITHIN, _mask)
