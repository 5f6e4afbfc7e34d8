"""Text to tokens: special tokens, chat templates, and the border between a prompt and its continuations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmedeval.errors import ModelError, UsageError
from mmedeval.text import first_line
from mmedeval.types import Failure, GenerateRequest, LoglikelihoodRequest, Prompt, Usage

# So many requests with the same last line are tokenised the slow way too, before the fast one is trusted.
VERIFIED_PAIRS = 4
# A shared beginning of fewer characters is not worth the trouble.
SHORTEST_HEAD = 400
NOT_A_NUMBER = "the model's probabilities are no numbers: its weights are damaged, or too large for its precision"
NO_CHARACTER = "the prompt or a continuation holds half of a surrogate pair, which is no character"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """A request for loglikelihoods as tokens: of the prompt and of each continuation, none of them empty."""

    request: LoglikelihoodRequest
    context: list[int]
    continuations: list[list[int]]
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """A request for text: its prompt as tokens, at least one, and the tokens that there is room for."""

    request: GenerateRequest
    ids: list[int]
    max_tokens: int
    usage: Usage

    @property
    def seed(self) -> int:
        """A stream of its own for each request (63 bits), so that a text depends on nothing else that is asked."""
        key = f"{self.request.sampling.seed}/{self.request.id}"
        return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1

    def ended(self, new: Sequence[int], ends: Callable[[int], bool], decode: Callable[[Sequence[int]], str]) -> bool:
        """Whether a text ends with its last token: one that ends a turn, or the end of a stop string."""
        stop = self.request.sampling.stop
        if ends(new[-1]) or not stop:
            return ends(new[-1])
        # A token is at least a byte: no more tokens than this can hold the longest stop string and the token that ends it.
        tail = max(len(string.encode("utf-8", "surrogatepass")) for string in stop) + 1
        text = decode(new[-tail:])
        return any(string in text for string in stop)

    def until_stop(self, text: str) -> tuple[str, bool]:
        """A text up to its first stop string, and whether there is one."""
        places = [at for string in self.request.sampling.stop if (at := text.find(string)) >= 0]
        return (text[: min(places)], True) if places else (text, False)


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
        # Half of a surrogate pair, which tokenizers call a wrong type.
        "".join(texts).encode()
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
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:
            # A template is a program that came with the model: it may raise anything.
            raise ModelError(
                f"the chat template of {self.name} cannot be filled in: {first_line(error)}; mend it, or run with "
                "--no-chat-template"
            ) from error
        return str(text), False

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        text, special = self.prompt_text(prompt)
        return self._context(text, special=special)

    def fit_scoring(self, request: LoglikelihoodRequest, limit: int, *, reads_last: bool = False) -> Scoring | Failure:
        """The request as tokens, for a model that reads up to `limit`; shots that do not fit are dropped from the front.

        The last token of a continuation is only predicted, unless the model `reads_last` all the same.
        """
        prompt = request.prompt
        try:
            for dropped in range(len(prompt.shots) + 1):
                context, continuations, merged = self.encode_pair(prompt.without_shots(dropped), request.continuations)
                longest = len(context) + max(map(len, continuations), default=1) - (0 if reads_last else 1)
                if longest <= limit:
                    break
            else:
                return _too_long(request.id, longest, dropped, limit)
        except UnicodeEncodeError:
            return _refused(request.id, NO_CHARACTER)
        if not context:
            return _refused(request.id, "the prompt has no token to predict from; use add_bos=true")
        if not continuations or not all(continuations):
            return _refused(request.id, "a continuation has no token of its own to score")
        usage = Usage(
            tokens_in=len(context),
            tokens_out=sum(map(len, continuations)),
            bos=self.bos_count(context),
            shots_dropped=dropped,
            border_merged=merged,
        )
        return Scoring(request=request, context=context, continuations=continuations, usage=usage)

    def fit_writing(self, request: GenerateRequest, limit: int) -> Writing | Failure:
        """The prompt as tokens, for a model that reads up to `limit`.

        Shots are dropped while the answer has no room; then the answer gets the room that is left.
        """
        prompt, wanted = request.prompt, request.sampling.max_tokens
        try:
            for dropped in range(len(prompt.shots) + 1):
                ids = self.encode_prompt(prompt.without_shots(dropped))
                if len(ids) + wanted <= limit:
                    break
        except UnicodeEncodeError:
            return _refused(request.id, NO_CHARACTER)
        if not ids:
            return _refused(request.id, "the prompt has no token to write from; use add_bos=true")
        room = limit - len(ids)
        if room < 1:
            return _too_long(request.id, len(ids), dropped, limit)
        usage = Usage(tokens_in=len(ids), bos=self.bos_count(ids), shots_dropped=dropped)
        return Writing(request=request, ids=ids, max_tokens=min(wanted, room), usage=usage)

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


def check_chat_template(template: object, name: str) -> None:
    """Raises `ModelError` where a tokenizer has no chat template, with the ways out."""
    if not template:
        raise ModelError(f"the tokenizer of {name} has no chat template; run with --no-chat-template, or with --protocol letter")


def _too_long(request_id: str, tokens: int, dropped: int, limit: int) -> Failure:
    without = f" without its {dropped} solved examples" if dropped else ""
    usage = Usage(tokens_in=tokens, shots_dropped=dropped)
    message = f"{tokens} tokens{without}, the model reads {limit}"
    return Failure(request_id=request_id, kind="too_long", message=message, usage=usage)


def _refused(request_id: str, message: str) -> Failure:
    return Failure(request_id=request_id, kind="refused", message=message)


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """How many first elements two sequences share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
