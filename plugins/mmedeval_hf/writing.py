"""Text for requests: greedy or sampled, such that a row depends on nothing but itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch

from mmedeval import Failure, GenerateRequest, Generation, Usage
from mmedeval_hf.compute import Compute, Item
from mmedeval_hf.decoding import Decoder, Job, PlainDecoder
from mmedeval_hf.pool import PoolDecoder, Row
from mmedeval_hf.verify import PLAIN, Way, choose_way, differences

# Settings that a checkpoint may bring along and that change what `generate` returns, not what the model says.
STRUCTURAL: Mapping[str, Any] = {
    "return_dict_in_generate": False,
    "num_return_sequences": 1,
    "num_beams": 1,
    "stop_strings": None,
    "max_time": None,
    "max_length": None,
    "min_length": 0,
    "min_new_tokens": None,
}
# Settings that leave a greedy text as it is. Any other that a checkpoint brings is transformers' to apply.
NEUTRAL = frozenset(
    {
        *STRUCTURAL,
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
    }
    | {"transformers_version", "_from_model_config", "use_cache", "max_new_tokens", "output_attentions", "output_hidden_states"}
)
# So many tokens of a few texts are compared at the start.
PROBE_TOKENS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """A request with its prompt as tokens, and the room for its answer."""

    request: GenerateRequest
    ids: list[int]
    max_tokens: int
    usage: Usage


class Writer:
    """`choose` first, then `write`."""

    def __init__(self, compute: Compute, tokenizer: Any) -> None:
        self.compute, self.tokenizer = compute, tokenizer
        for name, value in STRUCTURAL.items():
            setattr(compute.model.generation_config, name, value)
        pad = tokenizer.pad_token_id
        self.plain = PlainDecoder(compute, pad if pad is not None else next(iter(self.ends), 0), self.ends)
        self.decoder: Decoder = self.plain

    def write(self, pending: Sequence[Writing]) -> Iterator[Generation | Failure]:
        """An answer to each, as soon as it is there."""
        for decoded in self.decoder.decode([self._job(writing) for writing in pending]):
            writing = pending[decoded.index]
            if decoded.new is None:
                message = f"{len(writing.ids)} tokens and an answer of {writing.max_tokens} do not fit into memory"
                yield Failure(request_id=writing.request.id, kind="out_of_memory", message=message, usage=writing.usage)
            else:
                yield self._generation(writing, decoded.new, decoded.seconds)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Every token that ends a turn: the generation config's and the tokenizer's."""
        configured = self.compute.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return tuple(dict.fromkeys(i for i in [*ids, self.tokenizer.eos_token_id] if i is not None))

    def _job(self, writing: Writing) -> Job:
        sampling = writing.request.sampling
        # A token is at least a byte: no more tokens than this can hold the longest stop string and the token that ends it.
        tail = max((len(string.encode()) for string in sampling.stop), default=0) + 1

        def ended(new: list[int]) -> bool:
            if new[-1] in self.ends:
                return True
            if not sampling.stop:
                return False
            text = self.tokenizer.decode(new[-tail:], skip_special_tokens=True)
            return any(string in text for string in sampling.stop)

        return Job(
            ids=writing.ids,
            max_tokens=writing.max_tokens,
            ended=ended,
            temperature=sampling.temperature,
            seed=_seed(sampling.seed, writing.request.id),
        )

    def _generation(self, writing: Writing, new: list[int], seconds: float) -> Generation:
        ended = new[-1] in self.ends
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        cut = min((at for string in writing.request.sampling.stop if (at := text.find(string)) >= 0), default=None)
        if cut is not None:
            text, ended = text[:cut], True
        usage = replace(writing.usage, tokens_out=len(new), seconds=seconds)
        return Generation(request_id=writing.request.id, text=text, finish_reason="stop" if ended else "length", usage=usage)

    def choose(self, pending: Sequence[Writing], *, sharing: bool) -> Way:
        """How these will be written."""
        if not sharing:
            return Way(PLAIN, "asked for")
        own = sorted(self.compute.model.generation_config.to_diff_dict().keys() - NEUTRAL)
        if own:
            return Way(PLAIN, f"the checkpoint sets {', '.join(own)} for generation")
        way = choose_way(
            self.compute,
            "continuous batching",
            [Item(writing.ids, []) for writing in pending],
            longest=max((len(writing.ids) + writing.max_tokens for writing in pending), default=0),
            measure=lambda probe: _measure(self.compute, probe),
        )
        self.decoder = PoolDecoder(self.compute) if way.fast else self.plain
        return way


class _Traced(PoolDecoder):
    """Notes the loglikelihood of each token that it chooses."""

    def __init__(self, compute: Compute) -> None:
        super().__init__(compute)
        self.scores: dict[int, list[float]] = {}

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
        tokens = super().choose(logits, rows)
        scores = logits.float().log_softmax(dim=1)
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            self.scores.setdefault(row.index, []).append(float(scores[i, token]))
        return tokens


def _measure(compute: Compute, items: Sequence[Item]) -> list[float] | None:
    """Differences between loglikelihoods while writing and in a plain forward pass over what was written."""
    jobs = [Job(ids=item.context, max_tokens=PROBE_TOKENS, ended=lambda _: False) for item in items]
    traced = _Traced(compute)
    written = {decoded.index: decoded.new for decoded in traced.decode(jobs)}
    ours, plain = [], []
    for i, job in enumerate(jobs):
        new = written[i]
        logits = None if new is None else compute.attempt(partial(_plain_logits, compute, job.ids, new))
        if new is None or logits is None:
            return None
        ours.append(traced.scores[i])
        plain.append(logits.log_softmax(dim=1)[range(len(new)), new].tolist())
    return differences(ours, plain)


def _plain_logits(compute: Compute, context: Sequence[int], new: Sequence[int]) -> torch.Tensor:
    ids = torch.tensor([[*context, *new[:-1]]], device=compute.device)
    logits: torch.Tensor = compute.model(input_ids=ids, use_cache=False).logits[0, len(context) - 1 :]
    return logits.float()


def _seed(seed: int, request_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{request_id}".encode()).digest()[:8], "big") >> 1
