"""Continuous batching: what is computed, in which order rows come and go, and what happens when memory runs out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmedeval_hf.backend import HFBackend
from mmedeval_hf.compute import Compute
from mmedeval_hf.decoding import Decoded, Job, PlainDecoder
from mmedeval_hf.pool import PoolDecoder

PREFIX = list(range(10, 90))


def compute_of(path: Path, **arguments: str) -> Compute:
    return HFBackend(str(path), {"device": "cpu", **arguments}).compute


def jobs(count: int, *, prefix: Sequence[int] = (), max_tokens: int = 12) -> list[Job]:
    """Prompts of 5 to some 30 tokens behind a prefix; every third answer ends early, by its length."""

    def until(length: int) -> Callable[[list[int]], bool]:
        return lambda new: len(new) >= length

    return [
        Job(
            ids=[*prefix, 100 + i, *range(200, 204 + 5 * (i % 6)), 300 + i],
            max_tokens=max_tokens,
            ended=until(3 + i % 4) if i % 3 == 0 else lambda _: False,
        )
        for i in range(count)
    ]


def pooled(compute: Compute, wanted: Sequence[Job]) -> dict[int, Decoded]:
    pool = PoolDecoder(compute)
    found: dict[int, Decoded] = {}
    for ended in pool.steps(wanted, pool.groups(wanted)):
        for decoded in ended:
            assert decoded.index not in found
            found[decoded.index] = decoded
    assert sorted(found) == list(range(len(wanted)))
    return found


def plain(compute: Compute, wanted: Sequence[Job]) -> dict[int, Decoded]:
    return {decoded.index: decoded for job in range(len(wanted)) for decoded in one_alone(compute, wanted, job)}


def one_alone(compute: Compute, wanted: Sequence[Job], job: int) -> list[Decoded]:
    return [replace(decoded, index=job) for decoded in PlainDecoder(compute, 2, [1]).decode([wanted[job]])]


def tokens(found: dict[int, Decoded]) -> list[list[int] | None]:
    return [found[i].new for i in sorted(found)]


@pytest.mark.parametrize("rows", ["1", "3", "64"])
@pytest.mark.parametrize("prefix", [(), tuple(PREFIX)])
@pytest.mark.parametrize("heads", [4, 2])
def test_every_row_gets_the_tokens_that_it_gets_alone(
    rows: str, prefix: Sequence[int], heads: int, tiny: Callable[..., Path]
) -> None:
    compute = compute_of(tiny(config={"num_key_value_heads": heads}), batch_size=rows)
    wanted = jobs(20, prefix=prefix)
    found = pooled(compute, wanted)
    assert tokens(found) == tokens(plain(compute, wanted))
    assert len({tuple(new or ()) for new in tokens(found)}) > 10


def test_a_shared_prefix_is_read_once_and_no_ended_row_is_computed_on(tiny: Callable[..., Path]) -> None:
    compute = compute_of(tiny(), batch_size="4")
    wanted = jobs(40, prefix=PREFIX)
    found = pooled(compute, wanted)
    own = sum(len(job.ids) - len(PREFIX) for job in wanted)
    written = sum(len(decoded.new or ()) - 1 for decoded in found.values())
    # The last token of a text is only predicted, never read.
    assert len(PREFIX) + own + written <= compute.tokens <= 1.05 * (len(PREFIX) + own + written)


def test_a_waiting_prompt_takes_the_place_of_a_row_that_has_ended(tiny: Callable[..., Path]) -> None:
    compute = compute_of(tiny(), batch_size="4")
    widths: list[int] = []
    forward = compute.model.forward

    @functools.wraps(forward)
    def noted(*args: Any, **kwargs: Any) -> Any:
        if kwargs["input_ids"].shape[1] == 1:
            widths.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    compute.model.forward = noted
    pooled(compute, jobs(24))
    # Full but for the last rows, and never more than may be at work.
    assert max(widths) == 4
    assert widths[: len(widths) * 2 // 3] == [4] * (len(widths) * 2 // 3)


def test_the_pool_holds_no_more_tokens_than_the_budget(tiny: Callable[..., Path]) -> None:
    compute = compute_of(tiny())
    wanted = jobs(20)
    longest = max(len(job.ids) + job.max_tokens for job in wanted)
    compute.cache_tokens = 5 * longest
    rows: list[int] = []
    forward = compute.model.forward

    @functools.wraps(forward)
    def noted(*args: Any, **kwargs: Any) -> Any:
        rows.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    compute.model.forward = noted
    pooled(compute, wanted)
    assert max(rows) == 5


@pytest.mark.parametrize("most", [1, 3])
def test_out_of_memory_while_writing_keeps_what_was_written(most: int, tiny: Callable[..., Path]) -> None:
    path = tiny()
    wanted = jobs(20, prefix=PREFIX)
    expected = tokens(pooled(compute_of(path), wanted))
    compute = compute_of(path)
    forward = compute.model.forward

    @functools.wraps(forward)
    def starved(*args: Any, **kwargs: Any) -> Any:
        rows, width = kwargs["input_ids"].shape
        if width == 1 and rows > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(*args, **kwargs)

    compute.model.forward = starved
    assert tokens(pooled(compute, wanted)) == expected
    assert compute.halvings > 0


def test_where_only_the_pool_is_too_large_all_texts_are_written_with_a_smaller_one(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny()
    wanted = jobs(16)
    expected = tokens(pooled(compute_of(path), wanted))
    from mmedeval_hf import pool

    slots: list[int] = []

    class Small(pool.PoolLayer):
        def __init__(self, keys: torch.Tensor, values: torch.Tensor, count: int, columns: int, at: pool.Slots) -> None:
            if count > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            slots.append(count)
            super().__init__(keys, values, count, columns, at)

    monkeypatch.setattr(pool, "PoolLayer", Small)
    assert tokens(pooled(compute_of(path), wanted)) == expected
    assert max(slots) > 1


def test_a_prompt_that_never_fits_takes_no_others_with_it(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from mmedeval_hf import pool

    class Small(pool.PoolLayer):
        def __init__(self, keys: torch.Tensor, values: torch.Tensor, count: int, columns: int, at: pool.Slots) -> None:
            if count * columns > 300:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            super().__init__(keys, values, count, columns, at)

    monkeypatch.setattr(pool, "PoolLayer", Small)
    giant = Job(ids=[3 + i % 90 for i in range(400)], max_tokens=8, ended=lambda _: False)
    compute = compute_of(tiny())
    wanted = [giant, *jobs(12)]
    found = pooled(compute, wanted)
    assert found[0].new is None
    assert tokens(found)[1:] == tokens(plain(compute, wanted[1:]))


def test_only_one_row_of_the_vocabulary_at_a_time_is_in_full_precision(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = compute_of(tiny())
    wanted = [replace(job, temperature=1.0, seed=i) for i, job in enumerate(jobs(12))]
    widths: list[int] = []
    convert = torch.Tensor.float

    def noted(tensor: torch.Tensor) -> torch.Tensor:
        widths.append(tensor.numel())
        return convert(tensor)

    monkeypatch.setattr(torch.Tensor, "float", noted)
    pooled(compute, wanted)
    assert widths
    assert max(widths) <= compute.vocabulary


@pytest.mark.parametrize("rows", ["2", "64"])
@pytest.mark.parametrize("prefix", [(), tuple(PREFIX)])
def test_a_row_of_what_is_no_number_ends_at_once_and_leaves_nothing_in_its_slot(
    rows: str, prefix: Sequence[int], tiny: Callable[..., Path]
) -> None:
    compute = compute_of(tiny(), batch_size=rows)
    sound = jobs(12, prefix=prefix)
    expected = tokens(pooled(compute, sound))
    with torch.no_grad():
        compute.model.get_input_embeddings().weight[999] = float("nan")
    # Longer than the others, so that they come first and the others into their slots.
    spoilt = [replace(sound[1], ids=[*prefix, 999, *range(400, 440 + i)]) for i in range(3)]
    found = pooled(compute, [*spoilt, *sound])
    assert [found[i].broken for i in sorted(found)] == [True] * 3 + [False] * 12
    assert [len(found[i].new or ()) for i in range(3)] == [1, 1, 1]
    assert tokens(found)[3:] == expected
    # The plain way ends it as soon.
    (plainly,) = one_alone(compute, spoilt, 0)
    assert (plainly.broken, len(plainly.new or ())) == (True, 1)
