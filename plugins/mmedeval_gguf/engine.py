"""llama.cpp behind a few plain calls: a loaded model, its cells of keys and values, and batches of tokens over them."""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedeval import BackendError, ModelError
from mmedeval_gguf.options import Options

Row = npt.NDArray[np.float32]
ALL_LAYERS = 0x7FFFFFFF
# llama.cpp rounds the number of cells up to this.
CELLS = 256
# Of ggml's log levels, that of errors; and what goes on with the line before.
_ERROR, _CONTINUED = 4, 5


@dataclass(frozen=True, slots=True)
class Token:
    """A token to be read: where it stands, in which sequences, and whether its prediction of the next one is wanted."""

    token: int
    position: int
    sequences: Sequence[int]
    wanted: bool = False


class Engine:
    """A model of llama.cpp. Raises `ModelError` where it cannot be loaded, with what llama.cpp says of it."""

    def __init__(self, path: Path, options: Options, lora: Path | None) -> None:
        self.lib, self.log = library().functions, library().errors
        self.options = options
        self.tokens = 0
        self._context: Any = None
        self._memory: Any = None
        self._cells = self._sequences = 0
        self._adapter: Any = None
        parameters = self.lib.llama_model_default_params()
        parameters.n_gpu_layers = ALL_LAYERS if options.gpu_layers is None else options.gpu_layers
        self.log.clear()
        self._model = self.lib.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self._model:
            raise ModelError(
                f"llama.cpp cannot load {path}: {self._said('no reason given')}; "
                "convert the model again, or upgrade llama-cpp-python"
            )
        # Errors that did not keep it from loading.
        self.warnings = [f"llama.cpp: {self._said('')}"] if self.log else []
        try:
            self._check(path)
            if lora is not None:
                self._adapter = self.lib.llama_adapter_lora_init(self._model, os.fsencode(lora))
                if not self._adapter:
                    raise ModelError(
                        f"the adapter {lora} does not fit {path}: {self._said('no reason given')}; "
                        "name one that was made for this model"
                    )
        except ModelError:
            self.close()
            raise
        self.vocabulary = self.lib.llama_model_get_vocab(self._model)
        self.size = int(self.lib.llama_vocab_n_tokens(self.vocabulary))

    def _check(self, path: Path) -> None:
        lib, model = self.lib, self._model
        if lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model):
            raise ModelError(f"{path} is a recurrent model, whose state cannot be rolled back; evaluate its checkpoint with hf:")
        if lib.llama_model_has_encoder(model) or lib.llama_model_is_diffusion(model) or not lib.llama_model_has_decoder(model):
            raise ModelError(f"{path} does not write text from left to right, so it cannot be evaluated here")

    def _said(self, otherwise: str) -> str:
        """What llama.cpp logged as an error."""
        lines = [" ".join(line.split()) for line in self.log]
        return next((line.partition(": ")[2] or line for line in lines if line), otherwise)

    @property
    def parameters(self) -> int:
        return int(self.lib.llama_model_n_params(self._model))

    @property
    def threads(self) -> int:
        if self.options.threads is not None:
            return self.options.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def close(self) -> None:
        self._release()
        if self._model:
            # The adapter goes with its model.
            self.lib.llama_model_free(self._model)
        self._model = self._adapter = None

    def _release(self) -> None:
        if self._context:
            self.lib.llama_free(self._context)
        self._context = None

    # --- cells ---

    def reserve(self, cells: int, sequences: int) -> None:
        """Makes room for so many tokens in so many sequences; all that was read is forgotten."""
        cells = -(-cells // CELLS) * CELLS
        if self._context and cells <= self._cells and sequences <= self._sequences:
            self.lib.llama_memory_clear(self._memory, False)
            return
        self._release()
        lib, options = self.lib, self.options
        parameters = lib.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = cells, sequences
        # llama.cpp ends the process where a batch is smaller than the number of sequences.
        parameters.n_batch = parameters.n_ubatch = max(options.batch_tokens, sequences)
        parameters.n_threads = parameters.n_threads_batch = self.threads
        kind = {"f32": lib.GGML_TYPE_F32, "f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0}[options.cache_type]
        parameters.type_k = parameters.type_v = kind
        parameters.flash_attn_type = (
            lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if options.flash_attention else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        # Sequences share the cells of what they have in common; windowed layers keep what a rollback may need.
        parameters.kv_unified = parameters.swa_full = True
        parameters.no_perf = True
        self.log.clear()
        self._context = lib.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise ModelError(
                f"llama.cpp cannot make room for {cells} tokens: {self._said('too little memory')}; "
                "lower --model-arg context, sequences or gpu_layers, or choose another cache_type"
            )
        self._cells, self._sequences = cells, sequences
        self._memory = lib.llama_get_memory(self._context)
        if self._adapter:
            adapters = (lib.llama_adapter_lora_p_ctypes * 1)(self._adapter)
            if lib.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0)):
                raise ModelError(f"llama.cpp cannot use the adapter {options.lora}: {self._said('no reason given')}")

    def wipe(self) -> None:
        """Forgets all tokens, and what was computed of them: a cell that is free, but holds what is no number, spoils others."""
        self.lib.llama_memory_clear(self._memory, True)

    def roll_back(self, length: int, sequence: int = -1) -> None:
        """Forgets all tokens from position `length` on, of one sequence or of all."""
        if not self.lib.llama_memory_seq_rm(self._memory, sequence, length, -1):
            raise BackendError(f"llama.cpp cannot roll its state back to {length} tokens")

    def copy(self, source: int, target: int) -> None:
        """Gives the sequence `target` all tokens of another; they take no further cells."""
        self.lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    # --- computing ---

    def read(self, tokens: Sequence[Token], see: Callable[[int, Row], None]) -> None:
        """Computes tokens, and shows the logits (float32, one per token of the vocabulary) behind each that is wanted.

        `see` gets the number of the token in `tokens`, and a row that is valid within the call only.
        """
        for start in range(0, len(tokens), self.options.batch_tokens):
            part = tokens[start : start + self.options.batch_tokens]
            self._decode(part)
            wanted = [i for i, token in enumerate(part) if token.wanted]
            if not wanted:
                continue
            logits = np.ctypeslib.as_array(self.lib.llama_get_logits(self._context), shape=(len(wanted), self.size))
            for row, i in zip(logits, wanted, strict=True):
                see(start + i, row)
        self.tokens += len(tokens)

    def _decode(self, part: Sequence[Token]) -> None:
        ids = np.array([token.token for token in part], dtype=np.int32)
        positions = np.array([token.position for token in part], dtype=np.int32)
        counts = np.array([len(token.sequences) for token in part], dtype=np.int32)
        sequences = np.array([sequence for token in part for sequence in token.sequences], dtype=np.int32)
        # Where each token's sequences begin.
        places = sequences.ctypes.data + 4 * (np.cumsum(counts, dtype=np.uintp) - counts.astype(np.uintp))
        wanted = np.array([token.wanted for token in part], dtype=np.int8)
        integers = ctypes.POINTER(ctypes.c_int32)
        batch = self.lib.llama_batch(
            n_tokens=len(part),
            token=ids.ctypes.data_as(integers),
            pos=positions.ctypes.data_as(integers),
            n_seq_id=counts.ctypes.data_as(integers),
            seq_id=places.ctypes.data_as(ctypes.POINTER(integers)),
            logits=wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        self.log.clear()
        code = self.lib.llama_decode(self._context, batch)
        if code:
            raise BackendError(f"llama.cpp failed on {len(part)} tokens (code {code}): {self._said('no reason given')}")


@dataclass(frozen=True)
class _Library:
    """The functions of llama.cpp, the last errors that it logged, and what it calls to log them."""

    functions: Any
    errors: deque[str]
    callback: Any


@functools.cache
def library() -> _Library:
    """Loads llama.cpp, once; from then on it prints nothing."""
    try:
        lib: Any = importlib.import_module("llama_cpp.llama_cpp")
    except (RuntimeError, OSError) as error:
        raise ModelError(
            f"llama-cpp-python is installed, but its library cannot be loaded ({error}); "
            "build it again: pip install --force-reinstall --no-cache-dir llama-cpp-python"
        ) from error
    errors: deque[str] = deque(maxlen=20)
    level = 0

    def log(kind: int, text: bytes, _: Any) -> None:
        nonlocal level
        level = level if kind == _CONTINUED else kind
        if level == _ERROR:
            errors.append(text.decode("utf-8", "replace"))

    callback = lib.llama_log_callback(log)
    lib.llama_log_set(callback, ctypes.c_void_p(0))
    lib.llama_backend_init()
    return _Library(lib, errors, callback)
