"""Text to tokens: special tokens, chat templates, and the border between a prompt and its continuations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmedeval.errors import ModelError, UsageError
from mmedeval.text import first_line
from mmedeval.types import Prompt

# So many requests with the same last line are tokenised the slow way too, before the fast one is trusted.
VERIFIED_PAIRS = 4
# A shared beginning of fewer characters is not worth the trouble.
SHORTEST_HEAD = 400


class Encoder:
    """A tokenizer with the model's policy on special tokens. `embeddings` is the number of tokens that the model knows."""

    def __init__(self, tokenizer: Any, *, name: str, add_bos: bool | None, embeddings: int) -> None:
        self.tokenizer, self.name, self.add_bos, self.embeddings = tokenizer, name, add_bos, embeddings
        self._tails: dict[str, list[int]] = {}
        self._verified: dict[str, int] = {}
        self._tails_hold = True
        self._head: _Head | None = None
        self._heads_hold = True
        self._last = ""

    @cached_property
    def prefix(self) -> list[int]:
        """The special tokens that stand in front of every text (a BOS, or none)."""
        tokenizer = self.tokenizer
        if self.add_bos is not None:
            if self.add_bos and tokenizer.bos_token_id is None:
                raise UsageError(f"--model-arg add_bos=true: the tokenizer of {self.name} has no BOS token")
            return [tokenizer.bos_token_id] if self.add_bos else []
        plain = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        # Only what stands in front counts: an EOS behind the text would end it before the continuation.
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return list(full[:start])
        return []

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Token ids of texts, each with the special tokens in front if `special`, unless the text brings its BOS itself."""
        prefix = self.prefix if special or self.add_bos else []
        bos = self.tokenizer.bos_token
        return [
            ids if bos and text.startswith(bos) else prefix + ids for text, ids in zip(texts, self._plain(texts), strict=True)
        ]

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        token = max((token for ids in encoded for token in ids), default=0)
        if token >= self.embeddings:
            raise ModelError(
                f"the tokenizer of {self.name} gives the token {token}, but the model has {self.embeddings} embeddings; "
                "they do not belong together: copy the tokenizer that was saved with the model"
            )
        return encoded

    def prompt_text(self, prompt: Prompt) -> tuple[str, bool]:
        """The prompt as text, and whether special tokens still have to be put in front (a chat template brings its own)."""
        if not prompt.chat:
            return prompt.text, True
        from jinja2 import TemplateError  # what fills in the template brings it

        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise ModelError(f"the chat template of {self.name} cannot be filled in: {first_line(error)}") from error
        return str(text), False

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        text, special = self.prompt_text(prompt)
        return self._context(text, special=special)

    def bos_count(self, ids: Sequence[int]) -> int | None:
        """The BOS tokens in front; `None` where there is none and this tokenizer puts none in front of text."""
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return None
        count = next((i for i, token in enumerate(ids) if token != bos), len(ids))
        return count if count or bos in self.prefix else None

    def encode_pair(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[list[int], list[list[int]], bool]:
        """Ids of the prompt and of each continuation, and whether a token spans the border for any of them.

        The scored tokens are those of the joined text behind as many tokens as the prompt has alone. Where a token spans the
        border this is what lm-evaluation-harness scores (`TemplateLM._encode_pair`): the prompt's own tokens, then the rest of
        the joined text's. Where that leaves nothing, the joined text is scored from its first token that differs. Spaces at the
        prompt's end go to the continuation.
        """
        text, special = self.prompt_text(prompt)
        context = text.rstrip()
        behind = [text[len(context) :] + continuation for continuation in continuations]
        prompt_ids = self._context(context, special=special)
        joined = self._join(context, prompt_ids, behind, special=special)
        merged = any(whole[: len(prompt_ids)] != prompt_ids for whole in joined)
        if merged and any(len(whole) <= len(prompt_ids) for whole in joined):
            prompt_ids = prompt_ids[: min(common_prefix(prompt_ids, whole) for whole in joined)]
        return prompt_ids, [whole[len(prompt_ids) :] for whole in joined], merged

    def _context(self, text: str, *, special: bool) -> list[int]:
        """The ids of a prompt; the solved examples that it shares with the one before are tokenised once.

        Up to the start of a line, that is, where the lines' tokens stand alone as they stand in the prompt. The first few prompts
        with such a head are tokenised in full too; one difference, and all are.
        """
        head = self._head
        known = head is not None and head.special == special and text.startswith(head.text)
        behind = text[len(head.text) :] if known and head is not None else ""
        # White space and signs may belong to the line before, whatever other prompts have shown.
        alone = self._heads_hold and behind[:1].isalnum()
        if alone and head is not None:
            joined = head.ids + self._plain([behind])[0]
            head.verified += 1
            if head.verified > VERIFIED_PAIRS:
                return joined
        whole = self.encode([text], special=special)[0]
        if alone:
            self._heads_hold = joined == whole
        elif self._heads_hold and not known:
            cut = text.rfind("\n", 0, common_prefix(self._last, text)) + 1
            if cut >= SHORTEST_HEAD:
                self._head = _Head(text[:cut], self.encode([text[:cut]], special=special)[0], special)
        self._last = text
        return whole

    def _join(self, context: str, context_ids: list[int], behind: Sequence[str], *, special: bool) -> list[list[int]]:
        """The ids of `context` followed by each of the texts `behind`.

        A long prompt is not tokenised once per continuation: its last line is, where that line's tokens stand alone as they stand
        in the prompt. The first requests with such a line are tokenised in full too; one difference, and all are.
        """
        tail = context[context.rfind("\n") + 1 :]
        tail_ids = self._tail(tail)
        alone = self._tails_hold and 0 < len(tail_ids) < len(context_ids) and context_ids[-len(tail_ids) :] == tail_ids
        if alone:
            joined = [context_ids[: -len(tail_ids)] + self._tail(tail + text) for text in behind]
            # Per last line: each language has its own.
            self._verified[tail] = self._verified.get(tail, 0) + 1
            if self._verified[tail] > VERIFIED_PAIRS:
                return joined
        whole = self.encode([context + text for text in behind], special=special)
        if alone and joined != whole:
            self._tails_hold = False
        return whole

    def _tail(self, text: str) -> list[int]:
        """The plain ids of a short text; those of the letters come again for every question."""
        if text not in self._tails:
            if len(self._tails) > 10_000:
                self._tails.clear()
            self._tails[text] = self._plain([text])[0] if text else []
        return self._tails[text]


@dataclass(slots=True)
class _Head:
    """The beginning that prompts share, and how often its tokens were seen to stand alone."""

    text: str
    ids: list[int]
    special: bool
    verified: int = 0


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """How many first elements two sequences share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
