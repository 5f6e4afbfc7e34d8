"""The `gguf:` backend: a GGUF file in, loglikelihoods and text out."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mmedeval import (
    Backend,
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    ModelError,
    Request,
    Response,
    Usage,
    UsageError,
    digest,
)
from mmedeval.tokens import Encoder
from mmedeval_gguf.engine import Engine
from mmedeval_gguf.header import Header, check_model, find_file, read_header
from mmedeval_gguf.options import Options
from mmedeval_gguf.scoring import Item, score
from mmedeval_gguf.vocabulary import Vocabulary
from mmedeval_gguf.writing import Job, seed_of, write


class GGUFBackend(Backend):
    """A model in one GGUF file; `name` is its path."""

    capabilities = frozenset({"loglikelihood", "generate", "chat"})

    def __init__(self, name: str, arguments: Mapping[str, str]) -> None:
        self.options = Options.parse(arguments)
        self.name = name

    # --- what the model is, known without loading it ---

    @cached_property
    def path(self) -> Path:
        return find_file(self.name)

    @cached_property
    def header(self) -> Header:
        header = read_header(self.path)
        check_model(self.path, header)
        trained, asked = header.context_length, self.options.context
        if asked is not None and trained is not None and asked > trained:
            raise UsageError(f"--model-arg context={asked} is longer than the {trained} tokens that {self.path} reads; lower it")
        if self.options.lora is not None:
            lora = find_file(self.options.lora)
            if read_header(lora).metadata.get("general.type") != "adapter":
                raise ModelError(f"{lora} is no LoRA adapter; convert one with convert_lora_to_gguf.py of llama.cpp")
        return header

    @cached_property
    def _digests(self) -> tuple[str, str | None]:
        """Of the model's file and of the adapter's."""
        lora = self.options.lora
        return _sha256(self.path), None if lora is None else _sha256(find_file(lora))

    def fingerprint(self) -> str:
        _ = self.header
        model, lora = self._digests
        return model if lora is None else digest([model, lora])

    def describe(self) -> Mapping[str, Any]:
        header, options = self.header, self.options
        model, lora = self._digests
        return {
            "architecture": header.architecture,
            "name": header.metadata.get("general.name"),
            "gguf_version": header.version,
            "file": {"bytes": self.path.stat().st_size, "sha256": model},
            "tensors": dict(header.types),
            "lora": lora,
            "settings": {
                "context": options.context,
                "cache_type": options.cache_type,
                "flash_attention": options.flash_attention,
                "gpu_layers": options.gpu_layers,
                "add_bos": options.add_bos,
            },
        }

    def check(self, *, chat: bool) -> None:
        if chat and self.header.chat_template is None:
            raise ModelError(
                f"the tokenizer of {self.name} has no chat template; run with --no-chat-template, or with --protocol letter"
            )
        _ = self.header

    # --- the model itself ---

    @cached_property
    def engine(self) -> Engine:
        _ = self.header
        return Engine(self.path, self.options)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.engine, self.header)

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.vocabulary, name=self.name, add_bos=self.options.add_bos, embeddings=self.engine.size)

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens, that the model may see."""
        return self.options.context or self.header.context_length or 2**20

    def runtime(self) -> Mapping[str, Any]:
        if "engine" not in self.__dict__:
            return {}
        engine = self.engine
        warnings = [*engine.warnings, *self.header.warnings]
        return {
            "device": "gpu" if engine.lib.llama_supports_gpu_offload() and self.options.gpu_layers != 0 else "cpu",
            "parameters": engine.parameters,
            "max_length": self.max_length,
            "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
            **({"warnings": warnings} if warnings else {}),
            "process": {"threads": engine.threads, "computed_tokens": engine.tokens},
        }

    def close(self) -> None:
        engine = self.__dict__.pop("engine", None)
        self.__dict__.pop("vocabulary", None)
        self.__dict__.pop("encoder", None)
        if engine is not None:
            engine.close()

    # --- requests ---

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods | Failure]:
        asked: list[tuple[LoglikelihoodRequest, Usage]] = []
        items: list[Item] = []
        for request in requests:
            fitted = self._fit(request)
            if isinstance(fitted, Failure):
                yield fitted
            else:
                items.append(fitted[0])
                asked.append((request, fitted[1]))
        for scored in score(self.engine, items):
            request, usage = asked[scored.index]
            usage = replace(usage, seconds=scored.seconds)
            yield Loglikelihoods(request_id=request.id, values=tuple(scored.values), usage=usage)

    def _fit(self, request: LoglikelihoodRequest) -> tuple[Item, Usage] | Failure:
        """The request as tokens; shots that do not fit into the context are dropped from the front."""
        for dropped in range(len(request.prompt.shots) + 1):
            prompt = request.prompt.without_shots(dropped)
            context, continuations, merged = self.encoder.encode_pair(prompt, request.continuations)
            # The last token is only predicted, never read.
            longest = len(context) + max(map(len, continuations)) - 1
            if longest <= self.max_length:
                break
        else:
            return self._too_long(request.id, longest, dropped)
        if not context:
            message = "the prompt has no token to predict from; use add_bos=true"
            return Failure(request_id=request.id, kind="refused", message=message)
        if not all(continuations):
            message = "a continuation has no token of its own to score"
            return Failure(request_id=request.id, kind="refused", message=message)
        usage = Usage(
            tokens_in=len(context),
            tokens_out=sum(map(len, continuations)),
            bos=self.encoder.bos_count(context),
            shots_dropped=dropped,
            border_merged=merged,
        )
        return Item(context, continuations), usage

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        pending: list[tuple[GenerateRequest, Usage]] = []
        jobs: list[Job] = []
        for request in requests:
            fitted = self._fit_writing(request)
            if isinstance(fitted, Failure):
                yield fitted
            else:
                jobs.append(fitted[0])
                pending.append((request, fitted[1]))
        for written in write(self.engine, jobs, together=self.options.sequences):
            request, usage = pending[written.index]
            yield self._generation(request, written.new, replace(usage, tokens_out=len(written.new), seconds=written.seconds))

    def _fit_writing(self, request: GenerateRequest) -> tuple[Job, Usage] | Failure:
        """Shots are dropped while the answer has no room; then the answer gets the room that is left."""
        sampling = request.sampling
        for dropped in range(len(request.prompt.shots) + 1):
            ids = self.encoder.encode_prompt(request.prompt.without_shots(dropped))
            if len(ids) + sampling.max_tokens <= self.max_length:
                break
        room = self.max_length - len(ids)
        if room < 1:
            return self._too_long(request.id, len(ids), dropped)
        if not ids:
            message = "the prompt has no token to write from; use add_bos=true"
            return Failure(request_id=request.id, kind="refused", message=message)
        # A token is at least a byte: no more tokens than this can hold the longest stop string and the token that ends it.
        tail = max((len(string.encode()) for string in sampling.stop), default=0) + 1

        def ended(new: Sequence[int]) -> bool:
            if self.vocabulary.ends(new[-1]):
                return True
            text = self.vocabulary.decode(new[-tail:]) if sampling.stop else ""
            return any(string in text for string in sampling.stop)

        job = Job(
            ids=ids,
            max_tokens=min(sampling.max_tokens, room),
            temperature=sampling.temperature,
            seed=seed_of(sampling.seed, request.id),
            ended=ended,
        )
        return job, Usage(tokens_in=len(ids), bos=self.encoder.bos_count(ids), shots_dropped=dropped)

    def _generation(self, request: GenerateRequest, new: Sequence[int], usage: Usage) -> Generation:
        ended = self.vocabulary.ends(new[-1])
        text = self.vocabulary.decode(new)
        cut = min((at for string in request.sampling.stop if (at := text.find(string)) >= 0), default=None)
        if cut is not None:
            text, ended = text[:cut], True
        return Generation(request_id=request.id, text=text, finish_reason="stop" if ended else "length", usage=usage)

    def alone(self, requests: Sequence[Request]) -> Iterator[Response]:
        """One request at a time, and nothing kept from one to the next."""
        for request in requests:
            if isinstance(request, LoglikelihoodRequest):
                yield from self.loglikelihood([request])
            else:
                yield from self.generate([request])

    def _too_long(self, request_id: str, tokens: int, dropped: int) -> Failure:
        without = f" without its {dropped} solved examples" if dropped else ""
        message = f"{tokens} tokens{without}, the model reads {self.max_length}"
        usage = Usage(tokens_in=tokens, shots_dropped=dropped)
        return Failure(request_id=request_id, kind="too_long", message=message, usage=usage)


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
