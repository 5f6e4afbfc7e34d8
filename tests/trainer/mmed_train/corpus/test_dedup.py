"""Documents that are there twice are found, the right one of them stays, and no other goes."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mmed_train.corpus import dedup
from mmed_train.corpus.dedup import Duplicate, MinHash, Signer, choose, duplicates, pair, sign
from mmedeval import DataError, TaskOptions, UsageError
from mmedeval.catalog import Catalog
from mmedeval.host import make_host

LANGUAGES = ("en", "zh", "ja", "fr", "ru", "es")
UNSPACED = ("zh", "ja")


@cache
def words_of(language: str) -> Sequence[str]:
    """All words of the embedded rationales, in their order; in Chinese and Japanese all characters."""
    [spec] = Catalog(make_host(block=[])).select_tasks([f"mmedbench_mini_{language}"])
    rationales = [sample.rationale for sample in spec.load(TaskOptions()).samples("test")]
    return [word for each in rationales for word in (each if language in UNSPACED else each.split())]


@cache
def _followers(language: str) -> dict[str, list[str]]:
    behind: dict[str, list[str]] = {}
    for before, after in pairwise(words_of(language)):
        behind.setdefault(before, []).append(after)
    return behind


def document(language: str, size: int, draw: random.Random) -> list[str]:
    """A walk from word to word: documents share many rows of two words, as those on one subject do."""
    words, behind = words_of(language), _followers(language)
    walk = [draw.choice(words)]
    while len(walk) < size:
        walk.append(draw.choice(behind.get(walk[-1], words)))
    return walk


def changed(words: Sequence[str], language: str, draw: random.Random, share: float = 0.05) -> list[str]:
    """Other words in the place of this share of them."""
    new = [*words]
    for place in draw.sample(range(len(words)), max(1, round(share * len(words)))):
        new[place] = draw.choice([word for word in draw.choices(words_of(language), k=20) if word != new[place]])
    return new


def joined(words: Sequence[str], language: str) -> str:
    return ("" if language in UNSPACED else " ").join(words)


def deduplicated(folder: Path, tasks: Sequence[Sequence[str]], how: MinHash) -> tuple[dict[str, int], list[list[Duplicate]]]:
    """The counts, and the duplicates of each task."""
    for task, texts in enumerate(tasks):
        assert sign(texts, folder, task, how) == len(texts)
    for number in range(how.passes):
        pair(folder, number, how)
    counts = choose(folder, how)
    return counts, [[*duplicates(folder, task)] for task in range(len(tasks))]


@pytest.mark.parametrize("language", LANGUAGES)
def test_near_duplicates_are_found_and_distinct_documents_stay(language: str, tmp_path: Path) -> None:
    draw = random.Random(f"dedup {language}")
    originals = [document(language, draw.randint(100, 1000), draw) for _ in range(60)]
    first = [joined(each, language) for each in originals]
    second = [joined(changed(each, language, draw), language) for each in originals]
    others = [joined(document(language, draw.randint(100, 1000), draw), language) for _ in range(60)]
    counts, gone = deduplicated(tmp_path, [first, second, others], MinHash())
    assert counts["documents"] == 180
    pairs = [{(task, each.place), each.kept} for task in range(3) for each in gone[task]]
    assert sorted(map(sorted, pairs)) == [[(0, place), (1, place)] for place in range(60)]


def test_documents_that_differ_in_case_accents_and_white_space_are_exact_duplicates(tmp_path: Path) -> None:
    texts = ["L'hépatite aiguë est virale.", "Autre chose.", "L’HEPATITE  AIGUE\nest virale", "血糖値が高い。", "血糖値が\n高い"]
    counts, [gone] = deduplicated(tmp_path, [texts], MinHash())
    assert counts == {"documents": 5, "exact": 2, "near": 0}
    assert gone == [Duplicate(place=2, kind="exact", kept=(0, 0)), Duplicate(place=4, kind="exact", kept=(0, 3))]


def test_the_longest_stays_and_of_equally_long_ones_the_first(tmp_path: Path) -> None:
    draw = random.Random(1)
    words = document("en", 300, draw)
    short, long = " ".join(words), " ".join([*words, "and", "more"])
    counts, gone = deduplicated(tmp_path, [[short, "one", long], [long.upper(), "two"]], MinHash())
    assert gone[0] == [Duplicate(place=0, kind="near", kept=(0, 2))]
    assert gone[1] == [Duplicate(place=0, kind="exact", kept=(0, 2))]
    assert counts == {"documents": 5, "exact": 1, "near": 1}


def test_of_documents_that_hang_together_one_stays(tmp_path: Path) -> None:
    """Each is near to the next one, and the last far from the first."""
    words = document("en", 720, random.Random(2))
    texts = [" ".join([*words[40 * step : 40 * step + 400], *["x"] * (step == 5)]) for step in range(8)]
    _, [gone] = deduplicated(tmp_path, [texts], MinHash())
    assert [each.place for each in gone] == [0, 1, 2, 3, 4, 6, 7]
    assert {each.kept for each in gone} == {(0, 5)}


def test_without_bands_only_exact_duplicates_go(tmp_path: Path) -> None:
    draw = random.Random(3)
    words = document("en", 200, draw)
    texts = [" ".join(words), " ".join(changed(words, "en", draw)), " ".join(words).upper()]
    how = MinHash(bands=0)
    assert how.passes == 1
    _, [gone] = deduplicated(tmp_path, [texts], how)
    assert gone == [Duplicate(place=2, kind="exact", kept=(0, 0))]


def test_short_documents_are_compared_exactly_only(tmp_path: Path) -> None:
    texts = ["I have a cold and feel bad today.", "I have a cold and feel bad today too.", "I have a cold and feel bad, today!"]
    _, [gone] = deduplicated(tmp_path / "a", [texts], MinHash())
    assert [each.place for each in gone] == [2]
    _, [gone] = deduplicated(tmp_path / "b", [texts], MinHash(shortest=3))
    assert [each.place for each in gone] == [0, 2]


def test_empty_documents_and_empty_tasks_are_no_trouble(tmp_path: Path) -> None:
    counts, gone = deduplicated(tmp_path, [[], ["", " . ", "a", "\ud800 b"], []], MinHash())
    assert counts == {"documents": 4, "exact": 1, "near": 0}
    assert gone == [[], [Duplicate(place=1, kind="exact", kept=(1, 0))], []]
    assert deduplicated(tmp_path / "none", [[]], MinHash(bands=0))[0] == {"documents": 0, "exact": 0, "near": 0}


def test_the_share_of_equal_values_estimates_the_share_of_common_rows() -> None:
    signer = Signer(MinHash(bands=100, values=10))
    words = [f"w{number}" for number in range(2000)]
    for shared in (0.2, 0.5, 0.8):
        middle = round(2000 * shared)
        other = [*words[:middle], *(f"v{number}" for number in range(2000 - middle))]
        a, b = ({*zip(each, each[1:], each[2:], strict=False)} for each in (words, other))
        estimate = (signer.values(words) == signer.values(other)).mean()
        assert estimate == pytest.approx(len(a & b) / len(a | b), abs=0.05)


def test_a_long_document_is_hashed_in_pieces_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    words = document("en", 500, random.Random(6))
    whole = Signer(MinHash()).values(words)
    monkeypatch.setattr(dedup, "HASHED", 7)
    assert (Signer(MinHash()).values(words) == whole).all()


def corpus_of(seed: int) -> list[list[str]]:
    """Three tasks with exact, near and no duplicates among them."""
    draw = random.Random(seed)
    originals = [document("en", draw.randint(60, 200), draw) for _ in range(60)]
    texts = [
        *(" ".join(each) for each in originals),
        *(" ".join(changed(each, "en", draw)) for each in originals[:30]),
        *(" ".join(each) for each in originals[20:40]),
    ]
    draw.shuffle(texts)
    return [texts[0:50], texts[50:51], texts[51:]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_documents_give_the_same_bytes_in_whatever_parts_they_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = corpus_of(7)
    first = deduplicated(tmp_path / "a", tasks, MinHash())
    assert first[0]["exact"] + first[0]["near"] == 50
    monkeypatch.setattr(dedup, "MERGED", 16)
    assert deduplicated(tmp_path / "b", tasks, MinHash()) == first
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not [name for name in contents(tmp_path / "a") if "part" in name]


def test_runs_of_keys_and_parts_of_pairs_of_any_length_give_the_same_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = corpus_of(7)
    first = deduplicated(tmp_path / "a", tasks, MinHash())
    for run, pairs, merged in ((7, 3, 1 << 20), (1, 1, 16), (50, 1 << 18, 16)):
        monkeypatch.setattr(dedup, "RUN", run)
        monkeypatch.setattr(dedup, "_PAIRS", pairs)
        monkeypatch.setattr(dedup, "MERGED", merged)
        assert deduplicated(tmp_path / f"{run}", tasks, MinHash()) == first
        for name in ("pairs", "duplicates"):
            assert contents(tmp_path / f"{run}" / name) == contents(tmp_path / "a" / name)


def test_a_document_is_compared_with_the_first_and_with_the_one_before_that_have_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(4)
    one, other = document("en", 200, draw), document("en", 200, draw)
    near_one, near_other = changed(one, "en", draw), changed(other, "en", draw)
    monkeypatch.setattr(dedup, "_key", lambda records, number, how: np.full(len(records), 5, np.uint64))
    for name, words, pairs in (
        # In each case one of the two comparisons alone finds them.
        ("first", [one, other, near_one], {(0, 2)}),
        ("before", [one, other, near_other], {(1, 2)}),
    ):
        how = MinHash(bands=1, values=200)
        sign([" ".join(each) for each in words], tmp_path / name, 0, how)
        assert pair(tmp_path / name, 1, how) == 1
        found = np.fromfile(tmp_path / name / "pairs" / "001.pairs", dedup._PAIR)
        assert {(int(row["place"]), int(row["other_place"])) for row in found} == pairs


@pytest.mark.parametrize("what", ["keys", "records"])
@pytest.mark.parametrize("left", [0, 1, 500])
def test_a_file_that_is_cut_off_is_one_sentence(tmp_path: Path, what: str, left: int) -> None:
    how = MinHash(bands=3)
    sign([f"document {number}" for number in range(50)], tmp_path, 0, how)
    file = tmp_path / "signatures" / f"00000.{what}"
    size = how.record.itemsize if what == "records" else 12
    os.truncate(file, left // size * size or left)
    with pytest.raises(DataError, match=r"00000\.(keys|records) is damaged.*; remove the folder of its step and run it again"):
        pair(tmp_path, 3, how)


def test_two_that_sign_the_same_documents_at_once_are_not_in_each_others_way(tmp_path: Path) -> None:
    """As two nodes of a cluster may, when one of them was taken for lost."""
    texts, how = [f"document {number}" for number in range(50)], MinHash(bands=3)

    def meanwhile() -> Iterator[str]:
        yield from texts[:20]
        sign(texts, tmp_path / "both", 0, how)
        yield from texts[20:]

    sign(meanwhile(), tmp_path / "both", 0, how)
    sign(texts, tmp_path / "one", 0, how)
    assert contents(tmp_path / "both") == contents(tmp_path / "one")


def test_a_pass_done_again_writes_the_same(tmp_path: Path) -> None:
    tasks, how = corpus_of(8), MinHash()
    deduplicated(tmp_path, tasks, how)
    before = contents(tmp_path)
    sign(tasks[1], tmp_path, 1, how)
    pair(tmp_path, 3, how)
    choose(tmp_path, how)
    assert contents(tmp_path) == before


def test_another_seed_finds_the_same_duplicates_by_other_values(tmp_path: Path) -> None:
    tasks = corpus_of(9)
    _, first = deduplicated(tmp_path / "a", tasks, MinHash(seed=0))
    _, other = deduplicated(tmp_path / "b", tasks, MinHash(seed=1))
    assert first == other
    assert contents(tmp_path / "a") != contents(tmp_path / "b")


def test_edges_become_clusters_named_by_their_least_member() -> None:
    draw = np.random.default_rng(0)
    for count, edges in ((1, 0), (50, 30), (500, 490), (300, 1000)):
        left, right = draw.integers(0, count, edges), draw.integers(0, count, edges)
        name = list(range(count))
        for _ in range(count):
            for a, b in zip(left.tolist(), right.tolist(), strict=True):
                name[a] = name[b] = min(name[a], name[b])
        assert dedup._connected(count, left, right).tolist() == name
    long = np.arange(999)
    assert (dedup._connected(1000, long[::-1] + 1, long[::-1]) == 0).all()


@pytest.mark.parametrize(
    "wrong", [{"bands": -1}, {"values": 0}, {"words": 0}, {"least": 0.0}, {"least": 1.5}, {"seed": -1}], ids=str
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="MinHash"):
        MinHash(**wrong)


def test_a_pass_that_was_left_out_is_named(tmp_path: Path) -> None:
    how = MinHash(bands=1)
    with pytest.raises(DataError, match="run the pass sign"):
        pair(tmp_path, 0, how)
    sign(["a b c"], tmp_path, 0, how)
    pair(tmp_path, 0, how)
    with pytest.raises(DataError, match=r"001\.pairs does not exist; run the pass pair"):
        choose(tmp_path, how)
    with pytest.raises(DataError, match="run the passes sign, pair and choose"):
        next(duplicates(tmp_path, 0))
    with pytest.raises(UsageError, match="pass 2 of 2"):
        pair(tmp_path, 2, how)
    with pytest.raises(DataError, match="made with other parameters"):
        pair(tmp_path, 1, MinHash(bands=2))


def test_a_task_that_was_stopped_leaves_no_file_under_its_name(tmp_path: Path) -> None:
    def texts() -> Iterator[str]:
        yield "a text"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sign(texts(), tmp_path, 0, MinHash())
    with pytest.raises(DataError, match="no signatures"):
        pair(tmp_path, 0, MinHash())
