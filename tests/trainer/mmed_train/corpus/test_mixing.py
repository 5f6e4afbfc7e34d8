"""Mixtures: every token once, shares as asked for and told to the token, an order that needs no memory, and what is refused."""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mmed_train.corpus.mixing import IGNORED, Mix, Mixture, Windows, permuted
from mmed_train.corpus.shards import Kind, ShardWriter, TokenSpace, Vocabulary, open_shards
from mmedeval.errors import DataError, UnknownNameError, UsageError

EN, FR, ZH = (Kind(source="books", language=language) for language in ("en", "fr", "zh"))
WEB = Kind(source="web", language="en")
KINDS = (EN, FR, ZH, WEB)


@pytest.fixture
def space(tmp_path: Path) -> TokenSpace:
    """Two shards whose tokens all differ: a document's first is a multiple of 100, each other one above the one before."""
    vocabulary = Vocabulary(tokenizer="a" * 64, size=13_000, bos=None, eos=0)
    draw, number = random.Random(0), 0
    for shard in range(2):
        with ShardWriter(tmp_path / f"{shard}.tokens", vocabulary) as writer:
            for _ in range(60):
                number = (number // 100 + 1) * 100
                length = draw.randint(1, 70)
                writer.add(range(number, number + length), draw.choice(KINDS))
                number += length
    return open_shards([tmp_path])


def tokens(space: TokenSpace) -> list[int]:
    return [int(token) for i in range(space.documents) for token in space.document(i)]


def trained(samples: Sequence[Mapping[str, Any]]) -> Counter[int]:
    """How often each token is read, but for padding."""
    return Counter(token for sample in samples for token in sample["input_ids"].tolist() if token)


def predicted(samples: Sequence[Mapping[str, Any]]) -> Counter[int]:
    return Counter(token for sample in samples for token in sample["shift_labels"].tolist() if token != IGNORED)


@pytest.mark.parametrize("window", [1, 2, 7, 64, 1000, 100_000])
def test_an_epoch_trains_every_token_of_the_shards_once(window: int, space: TokenSpace) -> None:
    dataset = Windows(space, Mix(), window=window, seed=3)
    samples = [dataset[i] for i in range(len(dataset))]
    read = trained(samples)
    assert sorted(read) == tokens(space)
    assert sum(read.values()) / len(space) == 1.000
    # Each but a document's first is predicted once, also where it is the first of a window.
    assert sorted(predicted(samples).elements()) == [token for token in tokens(space) if token % 100]
    assert sum(part.tokens for part in dataset.mixture.realised(0).values()) == len(space)


@pytest.mark.parametrize("window", [1, 7, 64, 1000])
def test_a_sample_is_a_window_with_its_documents_apart(window: int, space: TokenSpace) -> None:
    dataset = Windows(space, Mix(), window=window, seed=0)
    for i in range(len(dataset)):
        sample = {name: tensor.tolist() for name, tensor in dataset[i].items()}
        assert {len(values) for values in sample.values()} == {window}
        ids = sample["input_ids"]
        for place, (token, position) in enumerate(zip(ids, sample["position_ids"], strict=True)):
            padding = token == 0
            starts = place == 0 or (token % 100 == 0 and ids[place - 1] != 0)
            assert position == (0 if starts else sample["position_ids"][place - 1] + 1)
            assert sample["labels"][place] == (IGNORED if padding or token % 100 == 0 else token)
            follower = sample["shift_labels"][place]
            assert follower in (IGNORED, token + 1)
            if place + 1 < window:
                assert follower == sample["labels"][place + 1]


def test_a_model_of_transformers_predicts_what_follows_across_the_windows_end(space: TokenSpace) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: Any = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=13_000, **sizes))
    dataset = Windows(space, Mix(), window=64, seed=0)
    batch = {name: torch.stack([dataset[i][name] for i in range(3)]) for name in dataset[0]}
    with torch.no_grad():
        found = model(**batch, use_cache=False)
    wanted = torch.nn.functional.cross_entropy(found.logits.flatten(0, 1), batch["shift_labels"].flatten())
    assert found.loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert batch["shift_labels"][:, -1].max() > 0


def test_parts_of_a_pass_go_on_where_the_last_epoch_stopped(space: TokenSpace) -> None:
    mix = Mix(weights={"en": 1, "fr": 0.2, "zh": 3})
    dataset = Windows(space, mix, window=16, seed=1, epochs=30)
    kinds = [tokens(TokenSpace(space.shards, kinds=[kind])) for kind in KINDS]
    counts: Counter[int] = Counter()
    length = len(dataset.mixture)
    for epoch in range(30):
        counts += trained([dataset[i] for i in range(epoch * length, (epoch + 1) * length)])
        for members in kinds:
            often = {counts[token] for token in members}
            assert max(often) - min(often) <= 1
    assert min(counts.values()) > 1


def test_a_part_of_a_pass_is_taken_from_everywhere() -> None:
    mixture = Mixture({EN: 1_000_000}, Mix(tokens=100_000), window=100, seed=0)
    starts = [start for _, start, _ in (mixture.place(0, i) for i in range(len(mixture)))]
    assert len({start // 100_000 for start in starts}) == 10


def test_every_pass_goes_through_the_windows_in_another_order() -> None:
    """Read one window an epoch, so that the order is that of the passes alone."""
    mixture = Mixture({EN: 2000}, Mix(tokens=100), window=100, seed=0)
    assert len(mixture) == 1
    starts = [mixture.place(epoch, 0)[1] for epoch in range(60)]
    passes = [starts[:20], starts[20:40], starts[40:]]
    assert all(sorted(each) == [*range(0, 2000, 100)] for each in passes)
    assert len({tuple(each) for each in passes}) == 3


def test_what_an_epoch_takes_is_told_to_the_token(space: TokenSpace) -> None:
    mix = Mix(weights={"en": 1, "fr": 0.3, "zh": 2}, epochs={"web": 0.7})
    dataset = Windows(space, mix, window=10, seed=1, epochs=7)
    belongs = {token: kind for kind in KINDS for token in tokens(TokenSpace(space.shards, kinds=[kind]))}
    length = len(dataset.mixture)
    for epoch in range(7):
        read = trained([dataset[i] for i in range(epoch * length, (epoch + 1) * length)])
        found: Counter[Kind] = Counter()
        for token, often in read.items():
            found[belongs[token]] += often
        told = dataset.mixture.realised(epoch)
        assert {kind: part.tokens for kind, part in told.items()} == found
        assert sum(part.share for part in told.values()) == pytest.approx(1)
        assert all(part.passes == part.tokens / space.counts[kind].tokens for kind, part in told.items())


def test_the_order_is_that_of_the_seed_the_epoch_and_the_number_alone(space: TokenSpace) -> None:
    one, same, other = (Windows(space, Mix(), window=8, seed=seed, epochs=3) for seed in (5, 5, 6))
    order = list(range(len(one)))
    random.Random(0).shuffle(order)
    assert all(torch.equal(one[i]["input_ids"], same[i]["input_ids"]) for i in order)
    length = len(one.mixture)
    # Known numbers: another order would make every checkpoint's resumption another run.
    assert [permuted(i, 10, "5 0") for i in range(10)] == [4, 7, 6, 5, 0, 8, 9, 3, 2, 1]
    places = [[dataset.mixture.place(epoch, i) for i in range(length)] for dataset in (one, other) for epoch in (0, 1)]
    assert all(sorted(each) == sorted(places[0]) for each in places)
    assert all(a != b for i, a in enumerate(places) for b in places[:i])


def test_a_loader_and_a_copy_in_another_process_read_the_same(space: TokenSpace) -> None:
    dataset = Windows(space, Mix(), window=32, seed=0)
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301  # made on the spot
    assert torch.equal(copy[3]["input_ids"], dataset[3]["input_ids"])
    assert len(pickle.dumps(dataset)) < 3000
    loader = torch.utils.data.DataLoader(dataset, batch_size=4)
    read = torch.cat([batch["input_ids"] for batch in loader])
    assert torch.equal(read, torch.stack([dataset[i]["input_ids"] for i in range(len(dataset))]))


# Permutations.


@pytest.mark.parametrize("size", [*range(1, 40), 99, 100, 101, 1000, 1023, 4097])
def test_a_permutation_has_every_place_once(size: int) -> None:
    assert sorted(permuted(i, size, "x") for i in range(size)) == list(range(size))


@pytest.mark.parametrize("size", [2, 3, 5, 12, 100])
def test_every_place_is_as_likely_for_every_number(size: int) -> None:
    draws = 3000
    for number in (0, size // 2, size - 1):
        found = Counter(permuted(number, size, str(key)) for key in range(draws))
        chi_squared = sum((found[place] - draws / size) ** 2 / (draws / size) for place in range(size))
        # Six deviations above what chance gives.
        assert chi_squared < size - 1 + 6 * math.sqrt(2 * size)


def test_neighbours_are_not_neighbours_any_more() -> None:
    size = 10_000
    order = [permuted(i, size, "x") for i in range(size)]
    mean = (size - 1) / 2
    for distance in (1, 2, 100, 101):
        pairs = zip(order, order[distance:], strict=False)
        correlation = sum((a - mean) * (b - mean) for a, b in pairs) / (size**3 / 12)
        assert abs(correlation) < 0.06


# Shares.


def shares(mix: Mix, **tokens: int) -> dict[str, float]:
    """Tokens that an epoch wants of each language, of a single source."""
    found = mix.shares({Kind(source="s", language=language): count for language, count in tokens.items()})
    return {kind.language: share for kind, share in found.items()}


def test_without_wishes_all_tokens_are_wanted_once() -> None:
    assert shares(Mix(), en=1000, fr=3, zh=77) == {"en": 1000, "fr": 3, "zh": 77}


def test_a_temperature_brings_shares_closer() -> None:
    assert shares(Mix(temperature=2), en=900, fr=100) == {"en": 750, "fr": 250}
    found = shares(Mix(temperature=1e9), en=900, fr=100)
    assert found == pytest.approx({"en": 500, "fr": 500})


def test_weights_are_shares_in_any_unit() -> None:
    for unit in (1, 0.01, 50):
        found = shares(Mix(weights={"en": unit, "fr": 3 * unit, "zh": 0}), en=100, fr=100, zh=200)
        assert found == pytest.approx({"en": 100, "fr": 300, "zh": 0})


@pytest.mark.parametrize("unit", [5e-324, 1e-320, 1e-300, 1e300, 5e307])
def test_weights_may_be_as_small_or_large_as_numbers_can_be(unit: float) -> None:
    found = shares(Mix(weights={"en": unit, "fr": 2 * unit, "zh": unit}), en=100, fr=100, zh=200)
    assert found == pytest.approx({"en": 100, "fr": 200, "zh": 100})
    # Also those that are left when others have all they may.
    found = shares(Mix(weights={"en": 1e-9 * unit, "fr": 1e-9 * unit, "zh": unit}, caps={"zh": 50}), en=100, fr=100, zh=200)
    assert found == pytest.approx({"en": 175, "fr": 175, "zh": 50} if unit > 1e-310 else {"en": 0, "fr": 0, "zh": 50})


def test_a_language_of_which_nothing_is_left_has_no_part() -> None:
    """Whatever the mix says of it and of its source."""
    counts = {EN: 100, WEB: 0, FR: 0}
    for mix in (
        Mix(weights={"en": 1, "fr": 3}),
        Mix(temperature=3, epochs={"web": 2}),
        Mix(caps={"fr": 10}, most_epochs=2),
        Mix(weights={"en": 1, "fr": 1}, most_epochs=math.inf, tokens=100),
    ):
        assert mix.shares(counts) == {EN: 100, WEB: 0, FR: 0}
        assert [part.kind for part in Mixture(counts, mix, window=7, seed=0).parts] == [EN]


def test_an_epoch_may_be_of_any_size() -> None:
    assert shares(Mix(tokens=50), en=900, fr=100) == {"en": 45, "fr": 5}
    assert shares(Mix(tokens=5000), en=900, fr=100) == {"en": 4500, "fr": 500}


def test_what_is_over_a_cap_goes_to_the_others() -> None:
    even = {"en": 1, "fr": 1, "zh": 2}
    assert shares(Mix(weights=even, caps={"zh": 300}), en=500, fr=500, zh=200) == {"en": 450, "fr": 450, "zh": 300}
    assert shares(Mix(weights=even, most_epochs=1.5), en=1000, fr=100, zh=100) == {"en": 900, "fr": 150, "zh": 150}
    # Nobody may have more.
    assert shares(Mix(weights=even, most_epochs=0.5), en=100, fr=100, zh=100) == {"en": 50, "fr": 50, "zh": 50}


def test_a_source_may_be_on_offer_more_or_less_than_once() -> None:
    counts = {EN: 100, WEB: 1000, FR: 200}
    assert Mix(epochs={"books": 3, "web": 0.5}).shares(counts) == {EN: 300, WEB: 500, FR: 600}
    assert Mix(epochs={"web": 0}).shares(counts) == {EN: 100, WEB: 0, FR: 200}
    # Within a language in proportion to what is on offer.
    found = Mix(weights={"en": 1, "fr": 1}, epochs={"books": 2}, tokens=240).shares(counts)
    assert found == pytest.approx({EN: 20, WEB: 100, FR: 120})


def test_realised_shares_are_those_asked_for() -> None:
    counts = {EN: 900_000, FR: 20_000, ZH: 300_000}
    weights = {"en": 0.5, "fr": 0.1, "zh": 0.4}
    mixture = Mixture(counts, Mix(weights=weights), window=128, seed=0)
    for epoch in range(3):
        found = {kind.language: part.share for kind, part in mixture.realised(epoch).items()}
        assert found == pytest.approx(weights, abs=1e-3)


def test_a_kind_that_has_a_share_is_never_rounded_away() -> None:
    mixture = Mixture({EN: 1_000_000, FR: 10}, Mix(tokens=10_000), window=1000, seed=0)
    assert {part.kind: part.taken for part in mixture.parts} == {EN: 10, FR: 1}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Mix(weights={"en": -1}), "weights: en = -1; give a number that is not below 0"),
        (lambda: Mix(weights={"en": 0}), "weights: all are 0; give at least one language a share"),
        (lambda: Mix(weights={"en": 1}, temperature=2), "a mix has weights or a temperature, not both; leave out one of them"),
        (lambda: Mix(temperature=0.5), r"temperature = 0\.5; give a number from 1 .*"),
        (lambda: Mix(temperature=math.nan), "temperature = nan; .*"),
        (lambda: Mix(epochs={"web": math.inf}), "epochs: web = inf; give a number that is not below 0"),
        (lambda: Mix(caps={"en": -5}), "caps: en = -5; give a number that is not below 0"),
        (lambda: Mix(tokens=0), "tokens = 0; give a number above 0"),
        (lambda: Mix(most_epochs=-1), "most_epochs = -1; give a number above 0"),
        (
            lambda: shares(Mix(weights={"en": 1}), en=5, fr=5),
            "weights: none for fr, which the shards hold; 0 leaves a language out",
        ),
        (lambda: Mixture({EN: 5}, Mix(), window=0, seed=0), "windows of 0 tokens; give a number above 0"),
        (
            lambda: shares(Mix(tokens=1e300), en=5),
            r"an epoch of 1e\+300 tokens is more than can be counted; give fewer tokens, .*",
        ),
        (lambda: shares(Mix(epochs={"s": 1e308}), en=500), "an epoch of inf tokens is more than can be counted; .*"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UsageError, match=f"^{sentence}$"):
        make()


def test_names_that_no_shard_has_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown language 'eng'; did you mean en"):
        shares(Mix(weights={"eng": 1, "fr": 1}), en=5, fr=5)
    with pytest.raises(UnknownNameError, match="unknown language 'de'"):
        shares(Mix(caps={"de": 1}), en=5, fr=5)
    with pytest.raises(UnknownNameError, match="unknown source 'web'"):
        shares(Mix(epochs={"web": 1}), en=5, fr=5)
    with pytest.raises(DataError, match="the mix leaves out every token"):
        Mixture({EN: 5}, Mix(epochs={"books": 0}), window=4, seed=0)


def test_samples_beyond_the_end_are_an_index_error(space: TokenSpace) -> None:
    dataset = Windows(space, Mix(), window=8, seed=0)
    for index in (-1, len(dataset)):
        with pytest.raises(IndexError):
            dataset[index]
    with pytest.raises(UsageError, match="epochs = 0"):
        Windows(space, Mix(), window=8, seed=0, epochs=0)
