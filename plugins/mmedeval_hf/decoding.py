"""Continues prompts, as token ids: what is asked of a decoder, and the plain one, which is transformers' own `generate`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from mmedeval_hf.compute import Compute

# Generation computes one token of each row at a time; what fills up is the cache, and that holds far more tokens.
GENERATION_FACTOR = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A prompt to continue by 1 to `max_tokens` tokens; `ended` says of the new ones whether they are the whole answer."""

    ids: list[int]
    max_tokens: int
    ended: Callable[[list[int]], bool]
    temperature: float = 0.0
    seed: int = 0

    def noise(self) -> torch.Generator | None:
        """What a sampled text draws from: a stream of its own, so that it depends on nothing else in the batch."""
        return torch.Generator().manual_seed(self.seed) if self.temperature > 0 else None


@dataclass(frozen=True, slots=True)
class Decoded:
    """The new tokens of a job, by its index, up to and with its end; `None` where it does not fit into memory even alone.

    `broken`: the last one was chosen by probabilities that are no numbers.
    """

    index: int
    new: list[int] | None
    seconds: float
    broken: bool = False


def noisy(logits: torch.Tensor, job: Job, generator: torch.Generator) -> torch.Tensor:
    """Logits (vocabulary) whose largest is a sampled token.

    Sampling is a greedy choice over noisy logits, the Gumbel-max trick. Source: E. J. Gumbel (1954); argmax(logits / T + Gumbel
    noise) is distributed as softmax(logits / T).
    """
    uniform = torch.rand(len(logits), generator=generator).clamp(1e-20, 1 - 1e-7)
    return logits.float() / job.temperature - torch.log(-torch.log(uniform)).to(logits.device)


class PlainDecoder:
    """transformers' own `generate` on padded batches: the reference, and the way that every model can go."""

    def __init__(self, compute: Compute, pad: int, ends: Sequence[int]) -> None:
        self.compute, self.pad, self.ends = compute, pad, list(ends)
        self.room = GENERATION_FACTOR * compute.tokens_at_once

    def decode(self, jobs: Sequence[Job]) -> Iterator[Decoded]:
        """Longest prompts first. Rows of a batch share the length of their answers."""
        batch: list[int] = []
        for i in sorted(range(len(jobs)), key=lambda i: (-len(jobs[i].ids), jobs[i].max_tokens)):
            first = jobs[(batch or [i])[0]]
            size = (len(batch) + 1) * (len(first.ids) + first.max_tokens)
            alike = jobs[i].max_tokens == first.max_tokens
            if batch and (not alike or size > self.room or len(batch) >= self.compute.rows_at_once):
                yield from self._batch(jobs, batch)
                batch = []
            batch.append(i)
        if batch:
            yield from self._batch(jobs, batch)

    def _batch(self, jobs: Sequence[Job], batch: Sequence[int]) -> Iterator[Decoded]:
        """A batch by index, in halves where memory runs out."""
        started = time.perf_counter()
        members = [jobs[i] for i in batch]
        noise = _Noise(members)
        outputs = self.compute.attempt(lambda: self._generate(members, noise))
        if outputs is None and len(batch) > 1:
            half = len(batch) // 2
            self.compute.halvings += 1
            # Later batches are no larger than what may fit.
            self.room = half * (len(members[0].ids) + members[0].max_tokens)
            yield from self._batch(jobs, batch[:half])
            yield from self._batch(jobs, batch[half:])
            return
        seconds = (time.perf_counter() - started) / len(batch)
        for n, i in enumerate(batch):
            yield Decoded(i, None if outputs is None else outputs[n], seconds, n in noise.broken)

    def _generate(self, jobs: Sequence[Job], noise: _Noise) -> list[list[int]]:
        device = self.compute.device
        width = max(len(job.ids) for job in jobs)
        # Generation appends behind, so padding stands in front.
        ids = torch.tensor([[self.pad] * (width - len(job.ids)) + job.ids for job in jobs], device=device)
        mask = torch.tensor([[0] * (width - len(job.ids)) + [1] * len(job.ids) for job in jobs], device=device)
        ended = _Ended(jobs, width, noise)
        settings = GenerationConfig(
            max_new_tokens=jobs[0].max_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self.pad,
            eos_token_id=self.ends or None,
        )
        out = self.compute.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=LogitsProcessorList([noise]),
            stopping_criteria=StoppingCriteriaList([ended]),
        )
        self.compute.tokens += len(jobs) * (out.shape[1] - 1)
        # Another row may have kept the batch going behind this row's end.
        return [new[:length] for new, length in zip(out[:, width:].tolist(), ended.lengths, strict=True)]


class _Noise(LogitsProcessor):
    """`broken` are the rows that had logits which are no numbers."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs, self.generators = jobs, [job.noise() for job in jobs]
        self.broken: set[int] = set()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.broken |= {i for i, top in enumerate(scores.amax(dim=1).tolist()) if math.isnan(top)}
        if not any(self.generators):
            return scores
        rows = zip(scores, self.jobs, self.generators, strict=True)
        return torch.stack([row if generator is None else noisy(row, job, generator) for row, job, generator in rows])


class _Ended(StoppingCriteria):
    """Ends each row where its job says so, or where nothing can come of it; `lengths` are the new tokens up to there."""

    def __init__(self, jobs: Sequence[Job], width: int, noise: _Noise) -> None:
        self.jobs, self.width, self.noise = jobs, width, noise
        self.lengths: list[int | None] = [None] * len(jobs)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        for i, new in enumerate(input_ids[:, self.width :].tolist()):
            if self.lengths[i] is None and (i in self.noise.broken or self.jobs[i].ended(new)):
                self.lengths[i] = len(new)
        return torch.tensor([length is not None for length in self.lengths], device=input_ids.device)
