"""A loaded model with its budgets: what fits at once, and what happens when it does not."""

from __future__ import annotations

import ctypes
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from mmedeval import BackendError, ModelError
from mmedeval.text import first_line
from mmedeval_hf import budget
from mmedeval_hf.options import Options

# The logits of one batch stay under this many numbers (1 GiB in float32), whatever the vocabulary.
MAX_LOGITS = 2**28
# On a GPU a pass over so many random tokens shows what activations really take.
PROBE_TOKENS = 2048

if TYPE_CHECKING:
    from mmedeval_hf.verify import Way

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt and its continuations, as token ids; none is empty. Scoring gives one value per continuation."""

    context: list[int]
    continuations: list[list[int]]

    @property
    def longest(self) -> int:
        """The tokens of the longest sequence that a model must read: the last token of a continuation is only predicted."""
        return len(self.context) + max((len(continuation) - 1 for continuation in self.continuations), default=0)


@dataclass(frozen=True, slots=True)
class Scored:
    """The loglikelihoods of an item, by its index; `None` where it does not fit into memory even alone."""

    index: int
    values: list[float] | None
    seconds: float


class Compute:
    """Runs forward passes. Out of memory is no error here: `attempt` returns `None`, and budgets shrink."""

    def __init__(self, model: Any, name: str, options: Options, warnings: Sequence[str] = ()) -> None:
        self.model, self.name, self.warnings = model, name, list(warnings)
        self.device = torch.device(model.device)
        self.rows_at_once = options.batch_size
        self.halvings = 0
        self.ways: dict[str, Way] = {}
        """The kinds of faster ways that were tried on this model, and what came of it."""
        self.tokens = 0
        """Tokens computed so far, padding included."""
        try:
            config = model.config.get_text_config()
            self.vocabulary: int = config.vocab_size
            self.layers: int = config.num_hidden_layers
            per_cached = budget.cache_bytes(config, model.dtype)
            per_token = budget.activation_bytes(config, model.dtype)
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"{name} is of the type {model.config.model_type}, of which this backend cannot tell the sizes "
                f"({first_line(error)}); use another backend"
            ) from error
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        parameters = inspect.signature(base.forward).parameters
        # Whether the model can run its head on some positions only.
        self.can_slice = "logits_to_keep" in parameters
        free = budget.free_memory(self.device)
        self.cache_tokens = budget.cache_tokens(free, per_cached, self.device.type)
        """How many tokens' keys and values may be kept at once."""
        self.tokens_at_once = options.batch_tokens or budget.tokens_at_once(free, per_token, self.device.type)
        if self.device.type == "cuda" and options.batch_tokens is None:
            self.tokens_at_once = budget.tokens_at_once(free, max(per_token, self._probe()), "cuda")

    def _probe(self) -> int:
        """Bytes per token that a pass over some tokens took at its peak; on a CPU the run's first batch shows whether it fits."""
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        size = min(PROBE_TOKENS, self.tokens_at_once)
        ids = torch.randint(self.vocabulary, (max(1, size // 256), 256), device=self.device)
        extra = {"logits_to_keep": 1} if self.can_slice else {}
        if self.attempt(lambda: self.model(input_ids=ids, use_cache=False, **extra)) is None:
            return 0
        return int(torch.cuda.max_memory_allocated(self.device) - before) // ids.numel()

    def attempt(self, work: Callable[[], T]) -> T | None:
        """The result of `work`, or `None` when memory ran out. Raises `BackendError` for any other failure of the model."""
        try:
            with torch.inference_mode():
                return work()
        except IndexError as error:
            raise BackendError(
                f"{self.name} stopped while computing: {first_line(error)}; it may have fewer positions than it was given: "
                "lower --model-arg max_length"
            ) from error
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise BackendError(f"{self.name} stopped while computing: {first_line(error)}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # What the code of one model or another raises where it is not made for what it is given.
            raise BackendError(f"{self.name} stopped while computing: {type(error).__name__}: {first_line(error)}") from error
        # Outside of the handler: the exception's frames hold the tensors that are to be freed.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def logits_at(self, rows: torch.Tensor, columns: torch.Tensor, **arguments: Any) -> torch.Tensor:
        """Logits (places x vocabulary) at some places of a batch; the head, often the largest matrix, sees no other."""

        def pick(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            hidden = inputs[0]
            return (hidden[rows.to(hidden.device), columns.to(hidden.device)].unsqueeze(0), *inputs[1:])

        handle = self.model.get_output_embeddings().register_forward_pre_hook(pick)
        try:
            logits: torch.Tensor = self.model(**arguments).logits
        finally:
            handle.remove()
        return logits[0]

    @contextmanager
    def attention(self, name: str) -> Iterator[None]:
        """Lets the model attend in another way for a while."""
        config = self.model.config
        before = config._attn_implementation
        config._attn_implementation = name
        try:
            yield
        finally:
            config._attn_implementation = before

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What is computed meanwhile is no part of the run's own work."""
        before = self.tokens
        try:
            yield
        finally:
            self.tokens = before

    @contextmanager
    def one_row(self) -> Iterator[None]:
        """Every sequence is computed by itself meanwhile."""
        before, self.rows_at_once = self.rows_at_once, 1
        try:
            yield
        finally:
            self.rows_at_once = before

    def halve(self, tokens: int) -> None:
        """Memory ran out on a batch of so many tokens: later batches are at most half as large."""
        self.halvings += 1
        self.tokens_at_once = max(1, min(self.tokens_at_once, tokens // 2))


def keep_freed_memory() -> None:
    """Tells glibc to keep what it frees for the next layer, which asks for just as much.

    By default it gives activations back to the system and gets them again as fresh pages, which have to be zeroed: a fifth of the
    time of a small model on a CPU. Elsewhere than on Linux this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        # The numbers of malloc.h; 32 MiB is the most that may be asked for as a threshold.
        m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
        mallopt(m_mmap_threshold, 32 * 2**20)
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_top_pad, 64 * 2**20)


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error)
