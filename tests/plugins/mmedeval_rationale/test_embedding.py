"""BERTScore, held against bert-score's own scorer on a small model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmedeval import ModelError, UsageError
from mmedeval_rationale import sentence_scores
from mmedeval_rationale.embedding import BertScore

Pair = tuple[str, str, str]


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of four layers with random weights, that reads single characters; its tokenizer names no longest text."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("t5-like-name") / "bert"
    characters = [
        chr(code)
        for start, stop in ((33, 127), (0xC0, 0x250), (0x400, 0x450), (0x3040, 0x3100), (0x4E00, 0x5300))
        for code in range(start, stop)
    ]
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        classifier_dropout=0.1,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    return folder


PAIRS = [
    ("The liver is well.", "The liver is not well at all, says the doctor."),
    ("肝脏很好", "肝臓は元気です"),
    ("Печень здорова", "печень"),
    ("été", "ete"),
]


def test_scores_are_those_of_bert_score_itself(small_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from bert_score import BERTScorer

    # It takes whatever has "t5" in its path for a T5.
    plain = tmp_path_factory.mktemp("plain") / "bert"
    shutil.copytree(small_bert, plain)
    theirs = BERTScorer(model_type=str(plain), num_layers=3, device="cpu")
    theirs._tokenizer.model_max_length = 128
    candidates, references = [list(texts) for texts in zip(*PAIRS, strict=True)]
    expected = (100 * theirs.score(candidates, references)[2]).tolist()
    arguments = {"bertscore_model": str(small_bert), "bertscore_layers": "3"}
    assert sentence_scores("bertscore", candidates, references, "en", arguments=arguments) == pytest.approx(expected, abs=1e-3)


def test_an_empty_text_scores_nothing_and_a_long_one_is_cut(small_bert: Path) -> None:
    score = BertScore(str(small_bert), 2)
    long = "liver and kidney " * 10_000
    scores = score(["", "  ", "liver", long, "liver"], ["liver", "liver", "", long, "liver"])
    assert scores[:3] == [0, 0, 0]
    assert scores[3:] == pytest.approx([100, 100], abs=1e-3)
    assert score.describe()["longest"] == 128
    assert score([], []) == []


def test_the_layer_must_be_named_for_a_model_that_is_not_multilingual_bert(small_bert: Path) -> None:
    with pytest.raises(UsageError, match="bertscore_layers=N, one of its 4 layers"):
        BertScore(str(small_bert))
    with pytest.raises(UsageError, match="5 is none"):
        BertScore(str(small_bert), 5)


def test_the_papers_bertscore_takes_no_other_model(small_bert: Path) -> None:
    arguments = {"bertscore_model": str(small_bert), "bertscore_layers": "3"}
    with pytest.raises(UsageError, match="layer 9 of bert-base-multilingual-cased"):
        sentence_scores("paper_bertscore", ["a"], ["b"], "en", arguments=arguments)


def test_a_model_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="bertscore_model=FOLDER"):
        BertScore(str(tmp_path), 1)
