"""Attention within documents: as transformers' own, with nothing computed between documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from mmed_train.training import attention
from mmed_train.training.attention import PLAIN, WITHIN, attend_within_documents, attending_plainly, blocks
from mmed_train.training.jobs import prepare
from mmed_train.training.loop import train
from mmed_train.training.model import old_names
from mmed_train.training.recipe import Recipe
from mmedeval_hf.tiny import make_tiny_model

Make = Callable[..., Recipe]


def blocks_one_by_one(mask: torch.Tensor) -> list[tuple[int, int, bool]]:
    """Of one row's mask: from one place to the next around which it is empty on both sides."""
    length = len(mask)
    borders = [at for at in range(length) if not mask[at:, :at].any() and not mask[:at, at:].any()] + [length]
    return [
        (start, end, all(bool(mask[a, b]) == (b <= a) for a in range(start, end) for b in range(start, end)))
        for start, end in pairwise(borders)
    ]


def test_blocks_are_what_looking_at_every_place_finds() -> None:
    draw = torch.Generator().manual_seed(0)
    several, causal = 0, Counter[bool]()
    for _ in range(300):
        length = int(torch.randint(1, 20, (1,), generator=draw))
        documents = torch.randint(2, (2, length), generator=draw).cumsum(-1) // 2
        see = (documents[:, :, None] == documents[:, None, :]).tril()
        # What a window hides, and a few that see what lies behind them.
        see = see & (torch.rand(see.shape, generator=draw) < 0.95) | torch.eye(length, dtype=torch.bool)
        see = see | (torch.rand(see.shape, generator=draw) < 0.003)
        found = blocks(see[:, None])
        assert found == [blocks_one_by_one(row) for row in see]
        several += sum(len(row) > 1 for row in found)
        causal.update(block.causal for row in found for block in row if block.end - block.start > 1)
    assert several > 200
    assert min(causal[False], causal[True]) > 200


def test_where_a_place_sees_nothing_there_is_one_block() -> None:
    mask = torch.eye(4, dtype=torch.bool)
    mask[3, 3] = False
    assert blocks(mask[None, None]) == [[(0, 4, False)]]


POSITIONS = torch.stack(
    [torch.cat([torch.arange(n) for n in lengths]) for lengths in ((7, 20, 1, 12), (40,), (3, 37))],
)


def computed(
    path: Path, way: str, positions: torch.Tensor, *, checkpointing: bool = False
) -> tuple[torch.Tensor, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation=PLAIN)
    model.config.use_cache = False
    model.train()
    if checkpointing:
        with old_names():
            model.gradient_checkpointing_enable({"use_reentrant": False})
    if way == WITHIN:
        attend_within_documents(model)
        assert model.config._attn_implementation == WITHIN
    ids = torch.randint(3, 250, positions.shape, generator=torch.Generator().manual_seed(1))
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    logits.square().mean().backward()
    return logits.detach(), {name: each.grad for name, each in model.named_parameters()}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("qwen2", {}),
        ("mistral", {"sliding_window": 5}),
        ("gpt2", {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}),
    ],
)
def test_logits_and_gradients_are_those_of_plain_attention(
    kind: str, settings: dict[str, Any], checkpointing: bool, tmp_path: Path
) -> None:
    path = make_tiny_model(tmp_path, model_type=kind, vocabulary=300, config=settings)
    for positions in (POSITIONS, POSITIONS[:1]):
        plain, plain_gradients = computed(path, PLAIN, positions)
        within, gradients = computed(path, WITHIN, positions, checkpointing=checkpointing)
        torch.testing.assert_close(within, plain, rtol=0, atol=1e-5)
        assert gradients.keys() == plain_gradients.keys()
        for name, each in gradients.items():
            torch.testing.assert_close(each, plain_gradients[name], rtol=1e-4, atol=1e-6)


def test_documents_are_computed_apart_and_without_a_mask(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, object]] = []
    kernel = attention.sdpa_attention_forward

    def noted(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: object, **settings: Any) -> Any:
        seen.append((query.shape[2], key.shape[2], mask))
        return kernel(module, query, key, value, mask, **settings)

    monkeypatch.setattr(attention, "sdpa_attention_forward", noted)
    computed(base, WITHIN, POSITIONS)
    assert set(seen) == {(n, n, None) for n in (7, 20, 1, 12, 40, 3, 37)}


@pytest.mark.parametrize(("told", "way"), [("", WITHIN), ("sdpa", PLAIN), ("eager", "eager")])
def test_a_training_on_a_cpu_attends_within_documents_unless_told_otherwise(recipe: Make, told: str, way: str) -> None:
    job = prepare(recipe(model={"attention": told} if told else {}, train={"steps": 1}), say=lambda _: None)
    train(job, resume=False, say=lambda _: None)
    expected = way if torch.device("cpu") == job.model.device else told or PLAIN
    assert job.model.config._attn_implementation == expected


def test_an_evaluation_on_the_way_attends_plainly(base: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation=PLAIN)
    attend_within_documents(model)
    with attending_plainly(model):
        assert model.config._attn_implementation == PLAIN
    assert model.config._attn_implementation == WITHIN


def test_a_model_with_attention_of_its_own_keeps_it() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("bloom", vocab_size=100, hidden_size=32, n_layer=2, n_head=2)
    model = AutoModelForCausalLM.from_config(config)
    before = model.config._attn_implementation
    attend_within_documents(model)
    assert model.config._attn_implementation == before
