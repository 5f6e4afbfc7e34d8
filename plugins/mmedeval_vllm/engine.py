"""vLLM's engines: started, given requests as long as there is room for them, closed; their errors become sentences."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError

from mmedeval import BackendError, ModelError
from mmedeval.text import first_line

FOREIGN_ERRORS = (
    AssertionError, AttributeError, ImportError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Token ids, how to go on from there (vLLM's SamplingParams), and what the answer is for.

    Of several engines those of a `group` go to the same one, where they share what they begin with.
    """

    about: Any
    ids: Sequence[int]
    params: Any
    group: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An ask with vLLM's RequestOutput, and its part of the time that those answered together took."""

    ask: Ask
    output: Any
    seconds: float


class Engine:
    """Common to the engine of this process and to several beside it. `version` is vLLM's."""

    version: str

    def __init__(self) -> None:
        self.asked_tokens = self.cached_tokens = 0
        self._number = 0

    @property
    def config(self) -> Any:
        """vLLM's own configuration, as it has worked it out."""
        raise NotImplementedError

    def _add(self, name: str, ask: Ask) -> None:
        raise NotImplementedError

    def _finished(self) -> Sequence[Any]:
        """Computes until something has happened; what is finished by then, perhaps nothing."""
        raise NotImplementedError

    def _abort(self, names: Sequence[str]) -> None:
        raise NotImplementedError

    def forget(self) -> None:
        """Empties the prefix cache."""
        raise NotImplementedError

    def close(self) -> None:
        """Gives the memory back."""
        raise NotImplementedError

    def stream(self, asks: Iterable[Ask], *, whole: bool = False, most: int | None = None) -> Iterator[Told]:
        """Answers in the order in which they are ready; asks are taken when there is room, so that no pile of them grows.

        With `whole` no more are taken than the KV cache holds to their last token, so that none is thrown out and computed again,
        which would leave gaps in its `prompt_logprobs`. `most` bounds how many are computed together.
        """
        source, config = iter(asks), self.config
        engines, cache = config.parallel_config.data_parallel_size, config.cache_config
        # As many waiting as running: there is always a next one.
        most = most or 2 * config.scheduler_config.max_num_seqs * engines
        # Of one engine: those of a group may all go to the same.
        room = cache.kv_cache_size_tokens or (cache.num_gpu_blocks or 0) * cache.block_size // engines
        running: dict[str, tuple[Ask, int]] = {}
        taken, upcoming, clock = 0, next(source, None), time.perf_counter()
        try:
            while upcoming or running:
                while upcoming and len(running) < most:
                    # Whole blocks, and room for the token that vLLM always adds.
                    size = ((len(upcoming.ids) + 1) // cache.block_size + 1) * cache.block_size
                    if whole and running and taken + size > room:
                        break
                    self._number += 1
                    with _sentences():
                        self._add(str(self._number), upcoming)
                    running[str(self._number)] = upcoming, size
                    taken += size
                    upcoming = next(source, None)
                with _sentences():
                    finished = self._finished()
                now = time.perf_counter()
                for output in finished:
                    ask, size = running.pop(output.request_id)
                    taken -= size
                    self.asked_tokens += len(ask.ids)
                    self.cached_tokens += output.num_cached_tokens or 0
                    yield Told(ask=ask, output=output, seconds=(now - clock) / len(finished))
                clock = now if finished else clock
        finally:
            if running:
                self._abort([*running])


class OwnEngine(Engine):
    """The engine of vLLM's `LLM`, in this process."""

    def __init__(self, arguments: Mapping[str, Any], *, lora: str | None, verbose: bool) -> None:
        super().__init__()
        with _starting(arguments, lora=lora, verbose=verbose, apart=False):
            import vllm
            from vllm.lora.request import LoRARequest

            self.version = str(vllm.__version__)
            self._llm = vllm.LLM(**arguments)
            self._lora = None if lora is None else LoRARequest("adapter", 1, lora)
            if self._lora is not None:
                self._llm.llm_engine.add_lora(self._lora)

    @property
    def config(self) -> Any:
        return self._llm.llm_engine.vllm_config

    def _add(self, name: str, ask: Ask) -> None:
        from vllm.inputs import tokens_input

        self._llm.llm_engine.add_request(name, tokens_input(list(ask.ids)), ask.params, lora_request=self._lora)

    def _finished(self) -> Sequence[Any]:
        return [output for output in self._llm.llm_engine.step() if output.finished]

    def _abort(self, names: Sequence[str]) -> None:
        self._llm.llm_engine.abort_request(list(names))

    def forget(self) -> None:
        self._llm.reset_prefix_cache()

    def close(self) -> None:
        # It ends what all engines of a process share: of two, both are closed by the first call.
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm


class EngineGroup(Engine):
    """Several engines, each with the whole model, in processes of their own: `LLM` does not run them, `AsyncLLM` does."""

    def __init__(self, arguments: Mapping[str, Any], *, lora: str | None, verbose: bool) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._lora: Any = None
        with _starting(arguments, lora=lora, verbose=verbose, apart=True):
            import vllm
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.lora.request import LoRARequest
            from vllm.v1.engine.async_llm import AsyncLLM

            self.version = str(vllm.__version__)
            self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**{"disable_log_stats": True, **arguments}))
            if lora is not None:
                self._lora = LoRARequest("adapter", 1, lora)
                self._loop.run_until_complete(self._llm.add_lora(self._lora))

    @property
    def config(self) -> Any:
        return self._llm.vllm_config

    def _add(self, name: str, ask: Ask) -> None:
        self._tasks[name] = self._loop.create_task(self._answer(name, ask))

    async def _answer(self, name: str, ask: Ask) -> Any:
        from vllm.inputs import tokens_input

        rank = None if ask.group is None else ask.group % self.config.parallel_config.data_parallel_size
        outputs = self._llm.generate(
            tokens_input(list(ask.ids)), ask.params, name, lora_request=self._lora, data_parallel_rank=rank
        )
        return [output async for output in outputs][-1]

    def _finished(self) -> Sequence[Any]:
        waiting = asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        self._loop.run_until_complete(waiting)
        done = [name for name, task in self._tasks.items() if task.done()]
        return [self._tasks.pop(name).result() for name in done]

    def _abort(self, names: Sequence[str]) -> None:
        tasks = [self._tasks.pop(name) for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    def forget(self) -> None:
        self._loop.run_until_complete(self._llm.reset_prefix_cache())

    def close(self) -> None:
        self._llm.shutdown()
        self._loop.run_until_complete(asyncio.sleep(0))  # its own tasks see that they are cancelled
        self._loop.close()
        del self._llm


@contextmanager
def _starting(arguments: Mapping[str, Any], *, lora: str | None, verbose: bool, apart: bool) -> Iterator[None]:
    _prepare_process(verbose=verbose, apart=apart)
    try:
        with warnings.catch_warnings():
            if not verbose:
                # Of its libraries about each other.
                warnings.simplefilter("ignore")
            yield
    except _foreign_errors() as error:
        raise ModelError(
            f"vLLM cannot start with {arguments['model']}{f' and the adapter {lora}' if lora else ''}: {reason(error)}; "
            "--model-arg verbose=true shows its log"
        ) from error


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except _foreign_errors() as error:
        raise BackendError(
            f"vLLM stopped: {reason(error)}; if memory ran out, give it less with --model-arg max_num_seqs=... or "
            "max_num_batched_tokens=..., and --model-arg verbose=true shows its log"
        ) from error


def _foreign_errors() -> tuple[type[Exception], ...]:
    """With the own errors of vLLM and of Ray, where they were imported."""
    own = [("vllm.exceptions", "VLLMError"), ("ray.exceptions", "RayError")]
    return (*FOREIGN_ERRORS, *(getattr(sys.modules[module], name) for module, name in own if module in sys.modules))


def reason(error: BaseException) -> str:
    """What went wrong, in a line. pydantic, which reads vLLM's settings, says it below a heading; some errors say just a word."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return "; ".join(str(each["msg"]).removeprefix("Value error, ").split("\n")[0] for each in error.errors())
    line = first_line(error)
    return line if " " in line else f"{type(error).__name__} {line}"


def _prepare_process(*, verbose: bool, apart: bool) -> None:
    """Settings that vLLM takes from the environment, also in the processes that it starts. What the user has set stays."""
    level = "INFO" if verbose else "CRITICAL"
    settings = {
        # Where it need not run apart, its errors can be told, and the same requests make the same batches again.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1" if apart else "0",
        "VLLM_LOGGING_LEVEL": level,
        # The other stream is for results.
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "TORCH_CPP_LOG_LEVEL": "INFO" if verbose else "ERROR",
        "PYTHONWARNINGS": "default" if verbose else "ignore",
        # An evaluation sends nothing anywhere unasked.
        "VLLM_NO_USAGE_STATS": "1",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    logging.getLogger("vllm").setLevel(level if verbose else os.environ["VLLM_LOGGING_LEVEL"].upper())
