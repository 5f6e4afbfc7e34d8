"""Text for requests: greedy or sampled, such that a row depends on nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from typing import Any

import torch

from mmedeval import Failure, Generation
from mmedeval.tokens import NOT_A_NUMBER, Writing
from mmedeval_hf.compute import Compute, Item
from mmedeval_hf.decoding import Decoded, Job, PlainDecoder
from mmedeval_hf.pool import PoolDecoder, Row
from mmedeval_hf.tree import BEHIND, WHOLE, distinct_tokens
from mmedeval_hf.verify import NOT_SUPPORTED, PLAIN, Way, barred, judge, telling, unsupported

FAST = "continuous batching"

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
NEUTRAL = {
    *STRUCTURAL, "bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config", "use_cache",
    "max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "output_attentions",
    "output_hidden_states",
}  # fmt: skip
# So many tokens of a few texts are compared at the start.
PROBE_TOKENS = 4


class Writer:
    """`way` tells, from the first result on, how the texts are written."""

    def __init__(self, compute: Compute, tokenizer: Any, *, sharing: bool) -> None:
        self.compute, self.tokenizer, self.sharing = compute, tokenizer, sharing
        self.way = Way(PLAIN, "nothing to compute")
        for name, value in STRUCTURAL.items():
            setattr(compute.model.generation_config, name, value)

    def write(self, pending: Sequence[Writing]) -> Iterator[Generation | Failure]:
        """An answer to each, as soon as it is there."""
        for decoded in self._decode([self._job(writing) for writing in pending]):
            writing = pending[decoded.index]
            if decoded.new is None:
                message = f"{len(writing.ids)} tokens and an answer of {writing.max_tokens} do not fit into memory"
                yield Failure(request_id=writing.request.id, kind="out_of_memory", message=message, usage=writing.usage)
            elif decoded.broken:
                yield Failure(request_id=writing.request.id, kind="backend", message=NOT_A_NUMBER, usage=writing.usage)
            else:
                yield self._generation(writing, decoded.new, decoded.seconds)

    def _decode(self, jobs: Sequence[Job]) -> Iterator[Decoded]:
        """The tokens of every job, the fast way where that may be gone."""
        if not jobs:
            return
        before = self.compute.tokens
        pool = PoolDecoder(self.compute)
        groups = pool.groups(jobs)
        steps = pool.steps(jobs, groups)
        own = sorted(self.compute.model.generation_config.to_diff_dict().keys() - NEUTRAL)
        longest = max(len(job.ids) + job.max_tokens for job in jobs)
        way = barred(self.compute, sharing=self.sharing, longest=longest)
        if own:
            way = Way(PLAIN, f"the checkpoint sets {', '.join(own)} for generation")
        # Prompts that share nothing show nothing of how prefixes are computed. Groups that share most come first.
        kind = f"{FAST}, {BEHIND if groups[0].prefix else WHOLE}"
        way = way or self.compute.ways.get(kind)
        held: list[Decoded] = []
        if way is None:
            pool.tracing = True
            try:
                while not held and not any(len(row.new) == PROBE_TOKENS for row in pool.begun):
                    held = next(steps)
            except NOT_SUPPORTED as error:
                way = unsupported(FAST, error)
            else:
                way = self._compare(jobs, pool.begun)
            self.compute.ways[kind] = way
            pool.tracing = False
        self.way = way
        if way.fast:
            yield from chain(held, chain.from_iterable(steps))
        else:
            # Frees what the fast way holds.
            steps.close()
            self.compute.tokens = before
            pad = self.tokenizer.pad_token_id
            pad = pad if pad is not None else next(iter(self.ends), 0)
            yield from PlainDecoder(self.compute, pad, self.ends).decode(jobs)

    def _compare(self, jobs: Sequence[Job], begun: Sequence[Row]) -> Way:
        """The first tokens of the first rows beside plain forward passes over them."""
        items = [Item(job.ids, []) for job in jobs]
        rows = [row for row in begun if row.new]
        total = distinct_tokens(items) + sum(job.max_tokens for job in jobs)
        pairs = []
        with self.compute.uncounted():
            for i in telling([len(row.job.ids) for row in rows], total):
                plain = self.compute.attempt(partial(_plain_scores, self.compute, rows[i].job.ids, rows[i].new))
                if plain is not None:
                    pairs.append((rows[i].scores, plain))
        return judge(self.compute, FAST, pairs)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Every token that ends a turn: the generation config's and the tokenizer's."""
        configured = self.compute.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return tuple(dict.fromkeys(i for i in [*ids, self.tokenizer.eos_token_id] if i is not None))

    def _job(self, writing: Writing) -> Job:
        return Job(
            ids=writing.ids,
            max_tokens=writing.max_tokens,
            ended=lambda new: writing.ended(new, self.ends.__contains__, self._decoded),
            temperature=writing.request.sampling.temperature,
            seed=writing.seed,
        )

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _generation(self, writing: Writing, new: list[int], seconds: float) -> Generation:
        text, stopped = writing.until_stop(self._decoded(new))
        ended = stopped or new[-1] in self.ends
        usage = replace(writing.usage, tokens_out=len(new), seconds=seconds)
        return Generation(request_id=writing.request.id, text=text, finish_reason="stop" if ended else "length", usage=usage)


def _plain_scores(compute: Compute, context: Sequence[int], new: Sequence[int]) -> list[float]:
    """Loglikelihoods of tokens behind a context, by one forward pass."""
    ids = torch.tensor([[*context, *new[:-1]]], device=compute.device)
    extra = {"logits_to_keep": len(new)} if compute.can_slice else {}
    logits = compute.model(input_ids=ids, use_cache=False, **extra).logits[0, -len(new) :]
    scores: list[float] = logits.log_softmax(dim=1, dtype=torch.float32)[range(len(new)), list(new)].tolist()
    return scores
