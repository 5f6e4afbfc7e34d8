"""Texts as tokens: those of the tokenizer alone, with BOS and EOS as asked for, however long the text, whatever is in it."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from mmed_train.corpus import tokenizing
from mmed_train.corpus.shards import Kind, Shard, open_shards
from mmed_train.corpus.tokenizing import TextEncoder, load_encoder, write_shard
from mmedeval.errors import ModelError, StoreError, UsageError

SPECIAL = ["<s>", "</s>", "<unk>"]
LLAMA3 = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
EN, FR = Kind(source="books", language="en"), Kind(source="books", language="fr")
KINDS = ("GPT-2's", "Llama 3's", "Llama 2's", "XLM-R's", "BERT's")


def wrapped(tokenizer: Tokenizer, **roles: str) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def byte_level(pre_tokenizer: Any, texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def llama2_like(texts: Sequence[str]) -> Tokenizer:
    """Learnt with words apart, used without: merges look at the whole text, which gets a blank in front."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=2500, special_tokens=SPECIAL, show_progress=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = None
    return tokenizer


def unigram(texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=2000, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def word_piece(texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=2000, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.fixture(scope="session")
def tokenizers(texts: Sequence[str]) -> Mapping[str, Any]:
    few = texts[::8]
    llama3 = [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    made = {
        "GPT-2's": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), few),
        "Llama 3's": byte_level(pre_tokenizers.Sequence(llama3), few),
        "Llama 2's": llama2_like(few),
        "XLM-R's": unigram(few),
        "BERT's": word_piece(few),
    }
    return {name: wrapped(tokenizer, bos_token="<s>", eos_token="</s>") for name, tokenizer in made.items()}


def plain(tokenizer: Any, text: str) -> list[int]:
    """What transformers makes of a text and nothing else."""
    found: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return found


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "PIECE", 1000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_documents_tokens_are_those_of_its_text_between_bos_and_eos(
    kind: str, tokenizers: Mapping[str, Any], texts: Sequence[str]
) -> None:
    tokenizer = tokenizers[kind]
    # The awkward ones come first.
    texts = [*texts[:100], *texts[100::6]]
    wanted = [plain(tokenizer, text) for text in texts]
    for bos, eos in ((True, True), (False, True), (True, False), (False, False)):
        found = TextEncoder(tokenizer, bos=bos, eos=eos).encode(texts)
        assert [ids.tolist() for ids in found] == [[0] * bos + ids + [1] * eos if ids else [] for ids in wanted]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("short_pieces")
def test_a_long_text_in_pieces_has_the_tokens_of_the_whole(
    kind: str, tokenizers: Mapping[str, Any], texts: Sequence[str]
) -> None:
    encoder = TextEncoder(tokenizers[kind], bos=False, eos=False)
    draw = random.Random(0)
    for joint in (" ", "\n", "\n\n", "", "。", "  "):
        text = joint.join(draw.sample(texts, 120))
        assert encoder.encode([text])[0].tolist() == plain(tokenizers[kind], text)
    natural = " ".join(text for text in draw.sample(texts, 200) if text.isascii() and "  " not in text)
    assert len(encoder.pieces(natural)) > len(natural) // 4000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "unit", ["a", " ", "\n", "1", "a ", "ab\n", "病", "病。", "é", "e\u0301", "👩🏽‍⚕️", "don't ", "\r\n", "x\u3000y"]
)
@pytest.mark.usefixtures("short_pieces")
def test_so_has_a_text_that_repeats_itself(kind: str, unit: str, tokenizers: Mapping[str, Any]) -> None:
    text = unit * (4000 // len(unit))
    assert TextEncoder(tokenizers[kind], bos=False, eos=False).encode([text])[0].tolist() == plain(tokenizers[kind], text)


@pytest.mark.usefixtures("short_pieces")
def test_a_tokenizer_that_no_cut_suits_gets_the_text_whole(tokenizers: Mapping[str, Any]) -> None:
    backend = Tokenizer.from_str(tokenizers["GPT-2's"].backend_tokenizer.to_str())
    backend.normalizer = normalizers.Prepend("Text: ")
    encoder = TextEncoder(wrapped(backend, eos_token="</s>"), bos=False, eos=True)
    text = "the cat sat on the mat " * 300
    assert encoder.pieces(text) == [text]


def test_an_end_of_text_that_a_text_spells_out_ends_nothing(tokenizers: Mapping[str, Any]) -> None:
    (ids,) = TextEncoder(tokenizers["GPT-2's"], bos=True, eos=True).encode(["<s>one</s>two"])
    assert (ids[0], ids[-1]) == (0, 1)
    assert not {0, 1} & {*ids[1:-1].tolist()}


def test_what_the_tokenizer_is_set_to_changes_nothing_and_is_not_changed(tokenizers: Mapping[str, Any]) -> None:
    backend = Tokenizer.from_str(tokenizers["GPT-2's"].backend_tokenizer.to_str())
    backend.enable_truncation(3)
    backend.enable_padding(length=50, pad_id=1, pad_token="</s>")
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer = wrapped(backend, bos_token="<s>", eos_token="</s>")
    # What calling it last left behind.
    tokenizer(["a b"], truncation=True, max_length=2, padding=True)
    before = tokenizer.backend_tokenizer.to_str()
    encoder, clean = (TextEncoder(each, bos=False, eos=True) for each in (tokenizer, tokenizers["GPT-2's"]))
    text = "a text that is longer than that"
    assert encoder.encode([text])[0].tolist() == clean.encode([text])[0].tolist()
    assert tokenizer.backend_tokenizer.to_str() == before
    assert encoder.vocabulary == clean.vocabulary


def test_merges_that_are_left_out_at_random_are_not(tokenizers: Mapping[str, Any]) -> None:
    backend = Tokenizer.from_str(tokenizers["GPT-2's"].backend_tokenizer.to_str())
    backend.model.dropout = 0.9
    encoder = TextEncoder(wrapped(backend, eos_token="</s>"), bos=False, eos=True)
    assert encoder.encode(["the patient"] * 20)[0].tolist() == [*plain(tokenizers["GPT-2's"], "the patient"), 1]


def test_another_vocabulary_or_another_way_to_split_is_another_tokenizer(tokenizers: Mapping[str, Any], tmp_path: Path) -> None:
    digests = {name: TextEncoder(each, bos=True, eos=True).vocabulary.tokenizer for name, each in tokenizers.items()}
    assert len({*digests.values()}) == len(KINDS)
    for name, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(tmp_path / name)
        assert load_encoder(tmp_path / name, bos=False, eos=True).vocabulary.tokenizer == digests[name]
    backend = Tokenizer.from_str(tokenizers["GPT-2's"].backend_tokenizer.to_str())
    backend.normalizer = normalizers.NFC()
    other = wrapped(backend, bos_token="<s>", eos_token="</s>")
    assert TextEncoder(other, bos=True, eos=True).vocabulary.tokenizer not in digests.values()


def test_tokens_that_were_added_count_to_the_vocabulary(tokenizers: Mapping[str, Any]) -> None:
    tokenizer = wrapped(tokenizers["BERT's"].backend_tokenizer, eos_token="</s>")
    size = TextEncoder(tokenizer, bos=False, eos=True).vocabulary.size
    tokenizer.add_tokens(["qwertz"])
    encoder = TextEncoder(tokenizer, bos=False, eos=True)
    assert (encoder.vocabulary.size, encoder.encode(["qwertz"])[0].tolist()) == (size + 1, [size, 1])


def test_a_tokenizer_of_python_does_as_well() -> None:
    tokenizer = ByT5Tokenizer()
    encoder = TextEncoder(tokenizer, bos=False, eos=True)
    (ids,) = encoder.encode(["é</s>"])
    assert ids.tolist() == [3 + byte for byte in "é</s>".encode()] + [1]
    assert encoder.vocabulary == TextEncoder(ByT5Tokenizer(), bos=False, eos=True).vocabulary
    assert encoder.vocabulary.tokenizer != TextEncoder(ByT5Tokenizer(extra_ids=5), bos=False, eos=True).vocabulary.tokenizer


@pytest.mark.parametrize("kind", ["GPT-2's", "Llama 2's"])
def test_half_a_surrogate_pair_becomes_the_sign_for_what_cannot_be_read(kind: str, tokenizers: Mapping[str, Any]) -> None:
    encoder = TextEncoder(tokenizers[kind], bos=True, eos=True)
    half, whole, pair, sign = encoder.encode(["a\ud800b", "a\ufffdb", "\ud83e\ude7a", "🩺"])
    assert (half.tolist(), pair.tolist()) == (whole.tolist(), sign.tolist())


def test_texts_without_characters_do_not_pile_up(tokenizers: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "BATCH", 100)
    stream = TextEncoder(tokenizers["GPT-2's"], bos=True, eos=True).stream(("", i) for i in itertools.count())
    assert [(other, len(tokens)) for other, tokens in itertools.islice(stream, 300)] == [(i, 0) for i in range(300)]


def test_a_policy_that_the_tokenizer_has_no_token_for_is_refused(tokenizers: Mapping[str, Any]) -> None:
    tokenizer = wrapped(tokenizers["BERT's"].backend_tokenizer)
    with pytest.raises(UsageError, match="has no BOS token; set bos = false, or name another tokenizer"):
        TextEncoder(tokenizer, bos=True, eos=True)
    with pytest.raises(UsageError, match="has no EOS token; set eos = false"):
        TextEncoder(tokenizer, bos=False, eos=True)
    assert TextEncoder(tokenizer, bos=False, eos=False).encode([""])[0].tolist() == []


def test_a_folder_without_a_tokenizer_is_one_sentence(tmp_path: Path, checkpoint: Callable[..., Path]) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"^the tokenizer .* cannot be loaded: .*$"):
        load_encoder(tmp_path, bos=False, eos=True)
    assert load_encoder(checkpoint(), bos=True, eos=True).vocabulary.eos == 1


@pytest.mark.parametrize("batch", [1, 5000, 1 << 20])
def test_batches_show_nowhere_in_the_shard(
    batch: int, tokenizers: Mapping[str, Any], texts: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "BATCH", batch)
    tokenizer = tokenizers["Llama 3's"]
    documents = [(text, (EN, FR)[i // 10 % 2]) for i, text in enumerate(texts[:300])]
    header, empty = write_shard(documents, TextEncoder(tokenizer, bos=True, eos=True), tmp_path / "x.tokens")
    wanted = [[0, *ids, 1] for text, _ in documents if (ids := plain(tokenizer, text))]
    space = open_shards([tmp_path])
    assert [space.document(i).tolist() for i in range(space.documents)] == wanted
    assert (header, header.documents) == (Shard(tmp_path / "x.tokens").header, len(wanted))
    assert empty == Counter(kind for text, kind in documents if not plain(tokenizer, text))
    assert empty.total() == len(documents) - len(wanted) > 0
    with pytest.raises(StoreError, match="is there already"):
        write_shard(documents, TextEncoder(tokenizer, bos=True, eos=True), tmp_path / "x.tokens")


def test_documents_come_one_batch_at_a_time(tokenizers: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "BATCH", 100)
    read = []

    def documents() -> Any:
        for i in range(1000):
            read.append(i)
            yield "ten signs.", i

    stream = TextEncoder(tokenizers["GPT-2's"], bos=True, eos=True).stream(documents())
    assert [next(stream)[0] for _ in range(10)] == list(range(10))
    # Ten documents are a batch, and the next one is under way.
    assert len(read) == 20
    assert next(stream)[0] == 10
