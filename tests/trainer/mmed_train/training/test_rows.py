"""Rows: what lies in each, over epochs and batches, without a token lost or seen by another's document."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mmed_train.corpus.mixing import IGNORED, Mix, Windows
from mmed_train.corpus.shards import Kind, ShardWriter, TokenSpace, Vocabulary, open_shards
from mmed_train.training.items import Item
from mmed_train.training.rows import ItemRows, PublishedWindows, collate, hold_out, lay_out, validation_rows

EN, FR = (Kind(source="books", language=language) for language in ("en", "fr"))


def published(ids: list[int], window: int, stride: int) -> list[list[int]]:
    """The windows of the paper's script, restated: slices every `stride`, the last one from the end."""
    if len(ids) <= window:
        return [ids]
    found, start = [], 0
    while start + window < len(ids):
        found.append(ids[start : start + window])
        start += stride
    return [*found, ids[-window:]]


@pytest.fixture
def space(tmp_path: Path) -> TokenSpace:
    """Documents of all lengths around the borders of windows; no token stands twice."""
    vocabulary, number = Vocabulary(tokenizer="a" * 64, size=60_000, bos=None, eos=0), 1
    with ShardWriter(tmp_path / "0.tokens", vocabulary) as writer:
        for length in [*range(1, 60), 200, 7, 64]:
            writer.add(range(number, number + length), EN if length % 3 else FR)
            number += length
    return open_shards([tmp_path])


def documents(space: TokenSpace) -> list[list[int]]:
    return [space.document(i).tolist() for i in range(space.documents)]


@pytest.mark.parametrize(("window", "stride"), [(8, 6), (16, 12), (16, 16), (64, 48), (500, 375)])
def test_published_windows_are_those_of_the_script(window: int, stride: int, space: TokenSpace) -> None:
    rows = PublishedWindows(space, window=window, stride=stride, seed=1, epochs=2, held_out={})
    wanted = Counter(tuple(each) for ids in documents(space) for each in published(ids, window, stride))
    half = len(rows) // 2
    for epoch in (range(half), range(half, len(rows))):
        found = Counter(tuple(token for token in rows[i]["input_ids"].tolist() if token) for i in epoch)
        assert found == wanted
    assert [rows[i]["input_ids"].tolist() for i in range(half)] != [rows[half + i]["input_ids"].tolist() for i in range(half)]


def test_published_windows_do_not_train_on_their_padding(space: TokenSpace) -> None:
    rows = PublishedWindows(space, window=64, seed=0, epochs=1, held_out={})
    for i in range(len(rows)):
        row = rows[i]
        real = int((row["input_ids"] != 0).sum())
        assert row["shift_labels"].tolist() == [*row["input_ids"].tolist()[1:real], *[IGNORED] * (65 - real)]


@pytest.mark.parametrize("windows", [1, 2, 5])
def test_what_is_held_out_is_the_end_of_each_language_and_is_in_no_window_of_the_training(
    windows: int, space: TokenSpace
) -> None:
    held = hold_out(space, windows=windows, window=16)
    assert {kind.language for kind in held} == {"en", "fr"}
    rows = validation_rows(space, held, window=16)
    seen = {token for group in rows.values() for row in group for token in row["input_ids"].tolist()}
    assert len(seen) == sum(held.values())
    for dataset in (
        Windows(space, Mix(), window=16, seed=0, held_out=held),
        PublishedWindows(space, window=16, seed=0, epochs=1, held_out=held),
    ):
        trained = {token for i in range(len(dataset)) for token in dataset[i]["input_ids"].tolist() if token}
        assert not trained & seen
        assert len(trained) + len(seen) == len(space)
        labels = {token for i in range(len(dataset)) for token in dataset[i]["shift_labels"].tolist() if token > 0}
        assert not labels & seen


def items(count: int, longest: int, seed: int = 0) -> list[Item]:
    draw = random.Random(seed)
    found, number = [], 1
    for place in range(count):
        length = draw.randint(4, longest)
        ids = np.arange(number, number + length, dtype=np.int32)
        found.append(
            Item(task="t", sample=str(place), language="en", protocol="paper", ids=ids, prompt=draw.randint(1, length - 2))
        )
        number += length
    return found


@pytest.mark.parametrize("batching", ["packed", "grouped", "plain"])
@pytest.mark.parametrize("count", [1, 7, 250])
def test_each_epoch_shows_every_item_once_and_in_another_order(batching: str, count: int) -> None:
    told = items(count, 90)
    layout = lay_out([len(item) for item in told], batching=batching, longest=100, batch=4, epochs=3, seed=5)
    assert Counter(place for row in layout.rows for place in row) == dict.fromkeys(range(count), 3)
    epochs = [layout.rows[start:end] for start, end in itertools.pairwise([0, *layout.epoch_ends])]
    if batching != "grouped":
        assert all(sorted(place for row in epoch for place in row) == [*range(count)] for epoch in epochs)
    if count > 100:
        assert epochs[0] != epochs[1]
    again = lay_out([len(item) for item in told], batching=batching, longest=100, batch=4, epochs=3, seed=5)
    assert again == layout


def test_packed_rows_are_nearly_full_and_never_too_long() -> None:
    told = items(3000, 90)
    layout = lay_out([len(item) for item in told], batching="packed", longest=256, batch=4, epochs=1, seed=0)
    sizes = [sum(len(told[place]) for place in row) for row in layout.rows]
    assert max(sizes) <= 256
    assert sum(sizes) / (256 * len(sizes)) > 0.98


def test_grouped_batches_have_little_padding_and_are_full_but_for_the_last() -> None:
    told = items(1003, 900)
    lengths = [len(item) for item in told]

    def padded(batching: str) -> float:
        rows = lay_out(lengths, batching=batching, longest=1000, batch=8, epochs=2, seed=0).rows
        batches = [[lengths[place] for (place,) in rows[at : at + 8]] for at in range(0, len(rows), 8)]
        return sum(max(batch) * len(batch) for batch in batches) / sum(map(sum, batches))

    assert padded("grouped") < 1.05 < 1.5 < padded("plain")


def test_a_row_predicts_the_answers_and_their_ends_and_nothing_else() -> None:
    told = items(40, 30)
    layout = lay_out([len(item) for item in told], batching="packed", longest=64, batch=2, epochs=1, seed=0)
    rows = ItemRows(told, layout)
    predicted = Counter()
    for index, places in enumerate(layout.rows):
        row = rows[index]
        starts = np.cumsum([0, *(len(told[place]) for place in places)])
        for start, place in zip(starts, places, strict=False):
            item = told[place]
            assert row["input_ids"][start : start + len(item)].tolist() == item.ids.tolist()
            assert row["position_ids"][start : start + len(item)].tolist() == [*range(len(item))]
        labels = row["shift_labels"]
        # Each is the token behind its place.
        where = torch.nonzero(labels != IGNORED).flatten()
        assert labels[where].tolist() == row["input_ids"][where + 1].tolist()
        predicted.update(labels[where].tolist())
    assert predicted == Counter(int(token) for item in told for token in item.ids[item.prompt :])


def test_rows_are_padded_behind_to_the_longest_and_padding_is_not_predicted() -> None:
    told = items(3, 50)
    rows = ItemRows(told, lay_out([len(item) for item in told], batching="plain", longest=64, batch=3, epochs=1, seed=0))
    batch = collate([rows[i] for i in range(3)])
    longest = max(len(item) for item in told)
    assert batch.pop("lengths").tolist() == [len(rows[i]["input_ids"]) for i in range(3)]
    assert {name: tuple(value.shape) for name, value in batch.items()} == dict.fromkeys(batch, (3, longest))
    for number in range(3):
        length = len(rows[number]["input_ids"])
        assert batch["position_ids"][number].tolist() == [*range(longest)]
        assert (batch["shift_labels"][number, length:] == IGNORED).all()
