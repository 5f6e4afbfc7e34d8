"""Generates text in batches, greedy or sampled, such that a row depends on nothing but itself."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from mmedeval import Failure, GenerateRequest, Generation, Sampling, Usage
from mmedeval_hf.compute import Compute

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """A request with its prompt as tokens, and the room for its answer."""

    request: GenerateRequest
    ids: list[int]
    max_tokens: int
    usage: Usage


class Writer:
    def __init__(self, compute: Compute, tokenizer: Any) -> None:
        self.compute, self.tokenizer = compute, tokenizer
        for name, value in STRUCTURAL.items():
            setattr(compute.model.generation_config, name, value)

    def write(self, pending: Sequence[Writing]) -> Iterator[Generation | Failure]:
        """An answer to each, longest prompts first. Rows of a batch share the length of their answers and the sampling."""
        batch: list[Writing] = []
        for writing in sorted(pending, key=lambda each: (-len(each.ids), each.max_tokens)):
            size = (len(batch) + 1) * (len((batch or [writing])[0].ids) + writing.max_tokens)
            alike = not batch or _terms(writing) == _terms(batch[0])
            room = self.compute.generated_tokens_at_once
            if batch and (not alike or size > room or len(batch) >= self.compute.rows_at_once):
                yield from self._write(batch)
                batch = []
            batch.append(writing)
        if batch:
            yield from self._write(batch)

    def _write(self, batch: Sequence[Writing]) -> Iterator[Generation | Failure]:
        started = time.perf_counter()
        outputs = self.compute.attempt(lambda: self._continue(batch))
        if outputs is None:
            if len(batch) > 1:
                self.compute.halvings += 1
                half = len(batch) // 2
                # Later batches are no larger than what may fit.
                self.compute.generated_tokens_at_once = half * (len(batch[0].ids) + batch[0].max_tokens)
                yield from self._write(batch[:half])
                yield from self._write(batch[half:])
                return
            message = f"{len(batch[0].ids)} tokens and an answer of {batch[0].max_tokens} do not fit into memory"
            yield Failure(request_id=batch[0].request.id, kind="out_of_memory", message=message, usage=batch[0].usage)
            return
        seconds = (time.perf_counter() - started) / len(batch)
        for writing, new in zip(batch, outputs, strict=True):
            yield self._generation(writing, new, seconds)

    def _continue(self, batch: Sequence[Writing]) -> list[list[int]]:
        """The new tokens of each row, up to and with its end."""
        device = self.compute.device
        width = max(len(writing.ids) for writing in batch)
        sampling = batch[0].request.sampling
        pad = self.tokenizer.pad_token_id
        pad = pad if pad is not None else (self.ends[0] if self.ends else 0)
        # Generation appends behind, so padding stands in front.
        ids = torch.tensor([[pad] * (width - len(w.ids)) + w.ids for w in batch], device=device)
        mask = torch.tensor([[0] * (width - len(w.ids)) + [1] * len(w.ids) for w in batch], device=device)
        processors = LogitsProcessorList()
        if sampling.temperature > 0:
            processors.append(_SeededNoise([w.request.id for w in batch], sampling))
        criteria = StoppingCriteriaList()
        if sampling.stop:
            criteria.append(_StopStrings(self.tokenizer, sampling.stop, width))
        settings = GenerationConfig(
            max_new_tokens=batch[0].max_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad,
            eos_token_id=list(self.ends) or None,
        )
        out = self.compute.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=processors,
            stopping_criteria=criteria,
        )
        rows = []
        for new in out[:, width:].tolist():
            end = next((i for i, token in enumerate(new) if token in self.ends), None)
            rows.append(new if end is None else new[: end + 1])
        return rows

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Every token that ends a turn: the generation config's and the tokenizer's."""
        configured = self.compute.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return tuple(dict.fromkeys(i for i in [*ids, self.tokenizer.eos_token_id] if i is not None))

    def _generation(self, writing: Writing, new: list[int], seconds: float) -> Generation:
        ended = bool(new) and new[-1] in self.ends
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        stop = writing.request.sampling.stop
        cut = min((at for string in stop if (at := text.find(string)) >= 0), default=None)
        if cut is not None:
            text, ended = text[:cut], True
            # Another row may have kept the batch going behind this row's stop string.
            new = self._up_to_stop(new, stop)
        usage = replace(writing.usage, tokens_out=len(new), seconds=seconds)
        return Generation(request_id=writing.request.id, text=text, finish_reason="stop" if ended else "length", usage=usage)

    def _up_to_stop(self, new: list[int], stop: Sequence[str]) -> list[int]:
        low, high = 1, len(new)
        while low < high:
            middle = (low + high) // 2
            text = self.tokenizer.decode(new[:middle], skip_special_tokens=True)
            if any(string in text for string in stop):
                high = middle
            else:
                low = middle + 1
        return new[:low]


class _SeededNoise(LogitsProcessor):
    """Sampling as greedy choice over noisy logits (the Gumbel-max trick), each row with a stream of its own.

    So a sampled text depends on the seed and the request alone, not on its neighbours in the batch.
    Source: E. J. Gumbel (1954); argmax(logits / T + Gumbel noise) is distributed as softmax(logits / T).
    """

    def __init__(self, request_ids: Sequence[str], sampling: Sampling) -> None:
        self.temperature = sampling.temperature
        self.generators = [torch.Generator().manual_seed(_seed(sampling.seed, name)) for name in request_ids]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        uniform = torch.stack([torch.rand(scores.shape[1], generator=generator) for generator in self.generators])
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores.float() / self.temperature + noise.to(scores.device)


class _StopStrings(StoppingCriteria):
    """Ends a row when its new text holds a stop string."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], width: int) -> None:
        self.tokenizer, self.stop, self.width = tokenizer, stop, width
        # A token is at least a byte: no more tokens than this can hold the longest stop string and the token that ends it.
        self.tail = max(len(string.encode()) for string in stop) + 1

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        start = max(self.width, input_ids.shape[1] - self.tail)
        texts = self.tokenizer.batch_decode(input_ids[:, start:], skip_special_tokens=True)
        return torch.tensor([any(string in text for string in self.stop) for text in texts], device=input_ids.device)


def _terms(writing: Writing) -> tuple[int, Sampling]:
    return writing.max_tokens, writing.request.sampling


def _seed(seed: int, request_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{request_id}".encode()).digest()[:8], "big") >> 1
