"""The `hf:` backend: a folder or hub name in, loglikelihoods and text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from mmedeval import (
    Backend,
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    Request,
    Response,
)
from mmedeval.model_files import LocalModel, find_local_model
from mmedeval.tokens import Encoder, Scoring, Writing, check_chat_template
from mmedeval_hf.compute import Compute, Item, keep_freed_memory
from mmedeval_hf.loading import check_files, load_model, load_tokenizer
from mmedeval_hf.options import Options
from mmedeval_hf.scoring import Scorer
from mmedeval_hf.tree import distinct_tokens
from mmedeval_hf.verify import Way
from mmedeval_hf.writing import Writer


class HFBackend(Backend):
    """A causal language model. `name` is a folder or a hub name; a folder with an adapter brings its base model along."""

    capabilities = frozenset({"loglikelihood", "generate", "chat"})

    def __init__(self, name: str, arguments: Mapping[str, str]) -> None:
        self.options = Options.parse(arguments)
        self.name = name
        self._way: Way | None = None
        self._distinct = 0

    # --- what the model is, known without loading it ---

    @cached_property
    def _files(self) -> LocalModel:
        options = self.options
        return find_local_model(
            self.name,
            scheme="hf",
            adapter=options.adapter,
            revision=options.revision,
            safe_only=options.use_safetensors,
            code=options.trust_remote_code,
        )

    def fingerprint(self) -> str:
        return self._files.fingerprint

    def describe(self) -> Mapping[str, Any]:
        options = self.options
        return {
            **self._files.describe(),
            "settings": {
                "dtype": options.dtype,
                "add_bos": options.add_bos,
                "max_length": options.max_length,
                "attn_implementation": options.attn_implementation,
                "trust_remote_code": options.trust_remote_code,
            },
        }

    def check(self, *, chat: bool) -> None:
        check_files(self._files)
        if chat:
            check_chat_template(self.tokenizer.chat_template, self.name)

    # --- the model itself ---

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self._files, self.options)

    @cached_property
    def compute(self) -> Compute:
        model, warnings = load_model(self._files, self.options)
        if model.device.type == "cpu":
            keep_freed_memory()
        return Compute(model, self.name, self.options, warnings)

    @property
    def model(self) -> Any:
        return self.compute.model

    @cached_property
    def encoder(self) -> Encoder:
        embeddings = self.model.get_input_embeddings().weight.shape[0]
        return Encoder(self.tokenizer, name=self.name, add_bos=self.options.add_bos, embeddings=embeddings)

    @cached_property
    def max_length(self) -> int:
        """The longest sequence, in tokens, that the model may see."""
        if self.options.max_length is not None:
            return self.options.max_length
        config = self.model.config.get_text_config()
        for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            value = getattr(config, name, None)
            if isinstance(value, int) and value > 0:
                return value
        # Models without position embeddings (recurrent ones) take any length; tokenizers without a limit say 1e30.
        return int(min(self.tokenizer.model_max_length, 2**20))

    def runtime(self) -> Mapping[str, Any]:
        if "compute" not in self.__dict__:
            return {}
        device = self.compute.device
        cuda = device.type == "cuda"
        return {
            "device": str(device),
            "device_name": torch.cuda.get_device_name(device) if cuda else str(device),
            "devices": torch.cuda.device_count() if cuda else 1,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "max_length": self.max_length,
            "way": None if self._way is None else self._way.way,
            **({"warnings": self.compute.warnings} if self.compute.warnings else {}),
            "process": {
                **({} if self._way is None else self._way.describe()),
                "batch_tokens": self.compute.tokens_at_once,
                "out_of_memory_halvings": self.compute.halvings,
                "distinct_tokens": self._distinct,
                "computed_tokens": self.compute.tokens,
                "computed_per_distinct": round(self.compute.tokens / self._distinct, 4) if self._distinct else None,
            },
        }

    def close(self) -> None:
        if self.__dict__.pop("compute", None) is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    # --- requests ---

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods | Failure]:
        pending: list[Scoring] = []
        for request in requests:
            fitted = self.encoder.fit_scoring(request, self.max_length)
            if isinstance(fitted, Failure):
                yield fitted
            else:
                pending.append(fitted)
        items = [Item(scoring.context, scoring.continuations) for scoring in pending]
        self._distinct += distinct_tokens(items)
        scorer = Scorer(self.compute, sharing=self.options.prefix_sharing)
        for scored in scorer.score(items):
            self._way = scorer.way
            scoring = pending[scored.index]
            name, usage = scoring.request.id, replace(scoring.usage, seconds=scored.seconds)
            if scored.values is None:
                message = f"{usage.tokens_in} tokens alone do not fit into memory"
                yield Failure(request_id=name, kind="out_of_memory", message=message, usage=usage)
            else:
                yield Loglikelihoods(request_id=name, values=tuple(scored.values), usage=usage)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        pending: list[Writing] = []
        for request in requests:
            fitted = self.encoder.fit_writing(request, self.max_length)
            if isinstance(fitted, Failure):
                yield fitted
            else:
                pending.append(fitted)
        sharing = self.options.prefix_sharing and self.options.attn_implementation is None
        writer = Writer(self.compute, self.tokenizer, sharing=sharing)
        self._distinct += distinct_tokens([Item(writing.ids, []) for writing in pending])
        for response in writer.write(pending):
            self._way = writer.way
            # The last token of a text is only predicted, never read.
            self._distinct += max(0, response.usage.tokens_out - 1)
            yield response

    def alone(self, requests: Sequence[Request]) -> Iterator[Response]:
        """One row at a time; a prefix that the requests share is encoded once for all of them."""
        way, distinct = self._way, self._distinct
        scored = [request for request in requests if isinstance(request, LoglikelihoodRequest)]
        written = [request for request in requests if isinstance(request, GenerateRequest)]
        try:
            with self.compute.uncounted(), self.compute.one_row():
                yield from self.loglikelihood(scored) if scored else ()
                yield from self.generate(written) if written else ()
        finally:
            self._way, self._distinct = way, distinct
