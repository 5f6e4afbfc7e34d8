"""Text to tokens: what is tokenised once must be what is tokenised in full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

from mmedeval import Prompt, Shot
from mmedeval.tokens import Encoder
from mmedeval_hf.backend import HFBackend

SHOTS = tuple(
    Shot(
        asked=f"Question: Is number {i} even? Ist {i} gerade? 偶数ですか。\nA. yes\nB. no\nAnswer:",
        answered=f" {'AB'[i % 2]}\n\n",
    )
    for i in range(8)
)


class Counting:
    """A tokenizer that counts the characters it reads."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.characters = tokenizer, 0

    def __call__(self, texts: Any, **arguments: Any) -> Any:
        self.characters += sum(map(len, [texts] if isinstance(texts, str) else texts))
        return self.tokenizer(texts, **arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


@pytest.fixture
def tokenizer(tiny: Callable[..., Path]) -> Any:
    return HFBackend(str(tiny()), {"device": "cpu"}).tokenizer


def encoder(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer, name="tiny", add_bos=None, embeddings=100_000)


def prompts(count: int, opening: str = "Answer the questions.\n") -> list[Prompt]:
    ends = ["iron", "железо", "鉄", " two spaces", "\n\nnew lines", "1", "¿hierro?", ""]
    return [Prompt(question=f"{ends[i % 8]} {i}: which?\nAnswer:", opening=opening, shots=SHOTS) for i in range(count)]


def test_solved_examples_are_tokenised_once_and_give_the_tokens_of_the_whole_text(tokenizer: Any) -> None:
    counting = Counting(tokenizer)
    fast = encoder(counting)
    asked = prompts(64)
    for prompt in asked:
        whole = tokenizer(prompt.text)["input_ids"]
        assert fast.encode_prompt(prompt) == whole
    characters = sum(len(prompt.text) for prompt in asked)
    # Three of eight begin with a space, a new line or a sign, and those are read in full; so are the first few.
    assert counting.characters < 0.7 * characters


def test_a_sign_that_belongs_to_the_line_before_is_tokenised_with_it(tiny: Callable[..., Path]) -> None:
    tokenizer = HFBackend(str(tiny()), {"device": "cpu"}).tokenizer
    # As the tokenizers that follow o200k cut: signs, the end of the line, and slashes are one piece.
    cut = Split(Regex(r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s?[\p{L}\p{N}]+|\s+"), "isolated")
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([cut, ByteLevel(add_prefix_space=False, use_regex=False)])
    trained = BpeTrainer(special_tokens=["<s>", "</s>", "<pad>"], initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    tokenizer.backend_tokenizer.train_from_iterator([".\n/ or." * 50], trained)
    fast = encoder(tokenizer)
    head = "An example that all prompts share, line by line.\n" * 12
    for start in ["is", "Which", "What", "Are", "How", "Why", "/ or"]:
        text = f"{head}{start} it? "
        assert fast.encode_prompt(Prompt(question=text)) == tokenizer(text)["input_ids"]


def test_pairs_behind_shared_examples_are_those_of_the_joined_text(tokenizer: Any) -> None:
    fast = encoder(tokenizer)
    for prompt in prompts(24):
        context, continuations, merged = fast.encode_pair(prompt, [" A", " B", " A,B\n"])
        assert not merged
        for ids, text in zip(continuations, (" A", " B", " A,B\n"), strict=True):
            assert context + ids == tokenizer(prompt.text + text)["input_ids"]


def test_another_opening_gets_its_own_tokens(tokenizer: Any) -> None:
    fast = encoder(tokenizer)
    for prompt in [*prompts(12), *prompts(12, opening="Répondez aux questions.\n"), *prompts(12)]:
        assert fast.encode_prompt(prompt) == tokenizer(prompt.text)["input_ids"]


def test_a_tokenizer_for_which_lines_do_not_stand_alone_is_asked_for_the_whole_text(tokenizer: Any) -> None:
    class Leading(Counting):
        """As tokenizers that put a space in front of every text do."""

        def __call__(self, texts: Any, **arguments: Any) -> Any:
            spaced = " " + texts if isinstance(texts, str) else [" " + text for text in texts]
            return super().__call__(spaced, **arguments)

    slow = encoder(Leading(tokenizer))
    for prompt in prompts(24):
        assert slow.encode_prompt(prompt) == tokenizer(" " + prompt.text)["input_ids"]
