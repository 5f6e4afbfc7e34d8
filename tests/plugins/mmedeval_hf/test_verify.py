"""When a faster way is trusted: what is compared, how near it must come, and what bars it from the start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from mmedeval_hf.verify import COMPARED_ITEMS, PLAIN, TOLERANCE, TOLERANCE_HALF, Way, barred, judge, telling, together, turns

FAST = "shared prefixes"


def computing(dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    """What `judge` and `barred` look at of a model."""
    settings = SimpleNamespace(get_text_config=lambda: SimpleNamespace(**config))
    return SimpleNamespace(model=SimpleNamespace(dtype=dtype, config=settings))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, TOLERANCE), (torch.float64, TOLERANCE), (torch.bfloat16, TOLERANCE_HALF)]
)
def test_a_way_is_trusted_up_to_the_rounding_of_its_precision(dtype: torch.dtype, tolerance: float) -> None:
    near = judge(computing(dtype), FAST, [([-1.0, -2.0], [-1.0, -2.0]), ([-3.0], [-3.0 - 0.9 * tolerance])])
    assert (near.way, near.fast, near.verified_items) == (FAST, True, 2)
    assert near.largest_difference == pytest.approx(0.9 * tolerance)
    far = judge(computing(dtype), FAST, [([-1.0, -2.0], [-1.0, -2.0 + 1.1 * tolerance]), ([-3.0], [-3.0])])
    assert (far.way, far.fast) == (PLAIN, False)
    assert "changes loglikelihoods by" in far.why


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_never_near_whatever_comes_behind_it(strange: float) -> None:
    assert not judge(computing(), FAST, [([strange], [-1.0]), ([-3.0], [-3.0])]).fast
    assert not judge(computing(), FAST, [([-3.0], [-3.0]), ([strange], [strange])]).fast


def test_nothing_to_compare_is_no_proof() -> None:
    assert judge(computing(), FAST, []) == Way(PLAIN, "too little memory to compare")


def test_the_first_and_the_last_item_are_compared_and_others_while_that_costs_little() -> None:
    assert telling([10], 10) == [0]
    assert telling([10] * 50, 500) == [0]
    assert telling([10] * 50, 1000) == [0, 49]
    assert telling([10] * 50, 10**6) == [0, 49, 1, 2]
    assert len(telling([1] * 50, 10**9)) == COMPARED_ITEMS
    assert telling([], 0) == []
    # One that is long is passed over, not waited for.
    assert telling([10, 20, 10, 5000], 1500) == [0]


def test_of_several_kinds_one_that_goes_the_plain_way_takes_all_along() -> None:
    fast, other = Way(FAST, "", 2, 1e-6), Way(FAST, "", 3, 3e-6)
    found = together(FAST, [fast, other])
    assert (found.fast, found.verified_items, found.largest_difference) == (True, 5, 3e-6)
    assert together(FAST, [fast, Way(PLAIN, "why"), other]) == Way(PLAIN, "why")


def test_a_window_or_positions_that_turn_bar_items_that_are_longer() -> None:
    windowed = computing(sliding_window=24)
    assert barred(windowed, sharing=True, longest=24) is None
    found = barred(windowed, sharing=True, longest=25)
    assert found is not None
    assert found.why == "the model attends to no more than 24 tokens, the longest item has 25"
    assert barred(computing(), sharing=True, longest=10**6) is None
    assert barred(computing(), sharing=False, longest=1) == Way(PLAIN, "asked for")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"sliding_window": 24, "use_sliding_window": False}, []),
        ({"sliding_window": 24, "use_sliding_window": True}, [24]),
        ({"sliding_window": None, "attention_chunk_size": 8192}, [8192]),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, []),
        ({"rope_parameters": {"rope_type": "dynamic"}, "max_position_embeddings": 40}, [40]),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 64}}, [64]),
        (
            {
                "rope_parameters": {"full": {"rope_type": "default"}, "slow": {"rope_type": "dynamic"}},
                "max_position_embeddings": 9,
            },
            [9],
        ),
    ],
)
def test_what_turns_at_a_length_is_read_from_the_configuration(config: dict[str, Any], found: list[int]) -> None:
    assert [size for size, _ in turns(SimpleNamespace(**config))] == found


def test_configurations_of_transformers_are_read() -> None:
    assert [size for size, _ in turns(AutoConfig.for_model("mistral", sliding_window=24))] == [24]
    assert turns(AutoConfig.for_model("qwen2", sliding_window=24, use_sliding_window=False)) == []
    assert turns(AutoConfig.for_model("llama")) == []
