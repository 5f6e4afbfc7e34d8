"""Attention to a shared prefix, held against torch's own over keys that are put together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmedeval_hf import attention
from mmedeval_hf.attention import PrefixLayer, shared_prefix_attention

HEADS, SIZE, PREFIX = 4, 16, 9


def parts(rows: int, length: int, width: int, heads: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows * 100 + length)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "query": draw(rows, HEADS, length, SIZE),
        "key": draw(rows, heads, width, SIZE),
        "value": draw(rows, heads, width, SIZE),
        "prefix_key": draw(1, heads, PREFIX, SIZE),
        "prefix_value": draw(1, heads, PREFIX, SIZE),
    }


def together(p: dict[str, torch.Tensor], mask: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """Attention by its definition, in double precision, over the prefix and the rows' own keys."""
    rows, times = p["query"].shape[0], HEADS // p["key"].shape[1]
    key = torch.cat([p["prefix_key"].expand(rows, -1, -1, -1), p["key"]], 2).repeat_interleave(times, 1).double()
    value = torch.cat([p["prefix_value"].expand(rows, -1, -1, -1), p["value"]], 2).repeat_interleave(times, 1).double()
    scores = p["query"].double() @ key.transpose(2, 3) * SIZE**-0.5
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    visible = torch.cat([torch.zeros(rows, 1, mask.shape[2], PREFIX), mask], 3).double()
    return torch.softmax(scores + visible, -1) @ value


def ours(p: dict[str, torch.Tensor], mask: torch.Tensor | None, softcap: float | None = None) -> torch.Tensor:
    layer = PrefixLayer(SimpleNamespace(keys=p["prefix_key"], values=p["prefix_value"]), apart=True)
    module: Any = SimpleNamespace(layer_idx=0)
    out, _ = shared_prefix_attention(module, p["query"], p["key"], p["value"], mask, softcap=softcap, shared_prefix=[layer])
    return out.transpose(1, 2).double()


@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("native", [True, False])
def test_one_new_token_sees_the_prefix_and_its_own_row(heads: int, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native:
        # What other devices compute.
        monkeypatch.setattr(attention, "_ON_CPU", None)
    p = parts(3, 1, 7, heads)
    lengths = torch.tensor([2, 7, 4])
    mask = torch.zeros(3, 1, 1, 7).masked_fill(torch.arange(7) >= lengths[:, None, None, None], torch.finfo(torch.float32).min)
    assert (ours(p, mask) - together(p, mask, None)).abs().max() < 1e-6


@pytest.mark.parametrize("heads", [4, 2])
def test_many_new_tokens_see_each_other_causally_or_as_the_mask_says(heads: int) -> None:
    p = parts(3, 6, 6, heads)
    lowest = torch.finfo(torch.float32).min
    causal = torch.full((6, 6), lowest).triu(1).expand(3, 1, 6, 6)
    assert (ours(p, None) - together(p, causal, None)).abs().max() < 1e-6
    # The last two tokens are branches: they see what comes before, themselves, and not each other.
    tree = causal.clone()
    tree[:, :, 5, 4] = lowest
    assert (ours(p, tree) - together(p, tree, None)).abs().max() < 1e-6


def test_scores_are_capped_where_the_model_caps_them() -> None:
    p = parts(2, 1, 5, 4)
    mask = torch.zeros(2, 1, 1, 5)
    assert (ours(p, mask, softcap=0.7) - together(p, mask, 0.7)).abs().max() < 1e-6
    assert (ours(p, mask, softcap=0.7) - ours(p, mask)).abs().max() > 1e-3


def test_attention_sinks_are_refused_and_not_ignored() -> None:
    p = parts(1, 1, 5, 4)
    module: Any = SimpleNamespace(layer_idx=0)
    with pytest.raises(NotImplementedError, match="sinks"):
        shared_prefix_attention(module, p["query"], p["key"], p["value"], None, s_aux=torch.zeros(4))


def test_a_prefix_is_put_in_front_of_each_row_where_it_is_not_kept_apart() -> None:
    p = parts(2, 3, 3, 4)
    stored = SimpleNamespace(keys=p["prefix_key"], values=p["prefix_value"])
    keys, values = PrefixLayer(stored).update(p["key"], p["value"])
    assert torch.equal(keys[1], torch.cat([p["prefix_key"][0], p["key"][1]], 1))
    assert torch.equal(values[0], torch.cat([p["prefix_value"][0], p["value"][0]], 1))
    apart = PrefixLayer(stored, apart=True, remember=True)
    assert apart.update(p["key"], p["value"])[0] is p["key"]
    assert apart.take()[1] is p["value"]
    with pytest.raises(NotImplementedError):
        apart.take()
