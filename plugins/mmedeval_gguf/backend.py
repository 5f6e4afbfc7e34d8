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
    UsageError,
    digest,
)
from mmedeval.tokens import NOT_A_NUMBER, Encoder, Scoring, Writing, check_chat_template
from mmedeval_gguf.engine import Engine
from mmedeval_gguf.header import Header, check_model, find_file, read_header
from mmedeval_gguf.options import Options
from mmedeval_gguf.scoring import score
from mmedeval_gguf.vocabulary import Vocabulary
from mmedeval_gguf.writing import Job, Written, write


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
    def lora(self) -> Path | None:
        return None if self.options.lora is None else find_file(self.options.lora)

    @cached_property
    def header(self) -> Header:
        header = read_header(self.path)
        check_model(self.path, header)
        trained, asked = header.context_length, self.options.context
        if asked is not None and trained is not None and asked > trained:
            raise UsageError(f"--model-arg context={asked} is longer than the {trained} tokens that {self.path} reads; lower it")
        if self.lora is not None and read_header(self.lora).metadata.get("general.type") != "adapter":
            raise ModelError(f"{self.lora} is no LoRA adapter; convert one with convert_lora_to_gguf.py of llama.cpp")
        return header

    @cached_property
    def _digests(self) -> tuple[str, str | None]:
        """Of the model's file and of the adapter's."""
        return _sha256(self.path), None if self.lora is None else _sha256(self.lora)

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
        if chat:
            check_chat_template(self.header.chat_template, self.name)
        _ = self.header

    # --- the model itself ---

    @cached_property
    def engine(self) -> Engine:
        _ = self.header
        return Engine(self.path, self.options, self.lora)

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
        pending: list[Scoring] = []
        for request in requests:
            fitted = self.encoder.fit_scoring(request, self.max_length)
            if isinstance(fitted, Failure):
                yield fitted
            else:
                pending.append(fitted)
        for scored in score(self.engine, pending):
            scoring = pending[scored.index]
            usage = replace(scoring.usage, seconds=scored.seconds)
            yield Loglikelihoods(request_id=scoring.request.id, values=tuple(scored.values), usage=usage)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        pending: list[Writing] = []
        for request in requests:
            fitted = self.encoder.fit_writing(request, self.max_length)
            if isinstance(fitted, Failure):
                yield fitted
            else:
                pending.append(fitted)
        for written in write(self.engine, [self._job(writing) for writing in pending], together=self.options.sequences):
            yield self._generation(pending[written.index], written)

    def _job(self, writing: Writing) -> Job:
        return Job(
            ids=writing.ids,
            max_tokens=writing.max_tokens,
            temperature=writing.request.sampling.temperature,
            seed=writing.seed,
            ended=lambda new: writing.ended(new, self.vocabulary.ends, self.vocabulary.decode),
        )

    def _generation(self, writing: Writing, written: Written) -> Generation | Failure:
        name, usage = writing.request.id, replace(writing.usage, tokens_out=len(written.new), seconds=written.seconds)
        if written.broken:
            return Failure(request_id=name, kind="backend", message=NOT_A_NUMBER, usage=usage)
        text, stopped = writing.until_stop(self.vocabulary.decode(written.new))
        ended = stopped or self.vocabulary.ends(written.new[-1])
        return Generation(request_id=name, text=text, finish_reason="stop" if ended else "length", usage=usage)

    def alone(self, requests: Sequence[Request]) -> Iterator[Response]:
        """One request at a time, and nothing kept from one to the next."""
        for request in requests:
            if isinstance(request, LoglikelihoodRequest):
                yield from self.loglikelihood([request])
            else:
                yield from self.generate([request])


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
