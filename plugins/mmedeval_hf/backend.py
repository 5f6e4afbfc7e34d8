"""The `hf:` backend: a folder or hub name in, loglikelihoods and text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

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
from mmedeval.model_files import ModelFolder, find_model
from mmedeval.tokens import Encoder
from mmedeval_hf.compute import Compute, Item, keep_freed_memory
from mmedeval_hf.loading import load_model, load_tokenizer
from mmedeval_hf.options import Options
from mmedeval_hf.scoring import Scorer
from mmedeval_hf.tree import distinct_tokens
from mmedeval_hf.verify import Way
from mmedeval_hf.writing import Writer, Writing


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
    def _folders(self) -> tuple[ModelFolder, ModelFolder | None]:
        """The base model's folder and the adapter's, if there is one."""
        options, adapter = self.options, self.options.adapter
        first = self._find(self.name, options.revision)
        if first.is_adapter:
            if adapter is not None:
                raise UsageError(f"{self.name} is an adapter itself; leave out --model-arg adapter={adapter}")
            first.check_adapter()
            base_name = first.json("adapter_config.json").get("base_model_name_or_path")
            if not base_name:
                raise ModelError(
                    f"{first.path}/adapter_config.json names no base model; use hf:BASE with --model-arg adapter={self.name}"
                )
            base = self._find(str(base_name), None)
            base.check_model()
            return base, first
        first.check_model()
        if adapter is None:
            return first, None
        second = self._find(adapter, None)
        second.check_adapter()
        return first, second

    def _find(self, name: str, revision: str | None) -> ModelFolder:
        options = self.options
        if revision is not None and Path(name).expanduser().is_dir():
            raise UsageError(f"--model-arg revision={revision}: {name} is a folder here; only names on the hub have revisions")
        return find_model(name, revision=revision, safe_only=options.use_safetensors, code=options.trust_remote_code)

    def fingerprint(self) -> str:
        base, adapter = self._folders
        return digest([base.fingerprint, adapter.fingerprint if adapter else None])

    def describe(self) -> Mapping[str, Any]:
        base, adapter = self._folders
        config, options = base.json("config.json"), self.options
        return {
            "architecture": config.get("architectures"),
            "model_type": config.get("model_type"),
            "files": dict(base.files),
            "adapter": None if adapter is None else {"fingerprint": adapter.fingerprint, "files": dict(adapter.files)},
            "settings": {
                "dtype": options.dtype,
                "add_bos": options.add_bos,
                "max_length": options.max_length,
                "attn_implementation": options.attn_implementation,
                "trust_remote_code": options.trust_remote_code,
            },
        }

    def check(self, *, chat: bool) -> None:
        _ = self._folders
        if chat and not self.tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer of {self.name} has no chat template; run with --no-chat-template, or with --protocol letter"
            )

    # --- the model itself ---

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(*self._folders, self.options)

    @cached_property
    def compute(self) -> Compute:
        model, warnings = load_model(*self._folders, self.options)
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
        asked: list[tuple[LoglikelihoodRequest, Usage]] = []
        items: list[Item] = []
        for request in requests:
            fitted = self._fit(request)
            if isinstance(fitted, Failure):
                yield fitted
            else:
                items.append(fitted[0])
                asked.append((request, fitted[1]))
        self._distinct += distinct_tokens(items)
        scorer = Scorer(self.compute, sharing=self.options.prefix_sharing)
        for scored in scorer.score(items):
            self._way = scorer.way
            request, usage = asked[scored.index]
            usage = replace(usage, seconds=scored.seconds)
            if scored.values is None:
                message = f"{usage.tokens_in} tokens alone do not fit into memory"
                yield Failure(request_id=request.id, kind="out_of_memory", message=message, usage=usage)
            else:
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
        pending: list[Writing] = []
        for request in requests:
            writing = self._fit_writing(request)
            if isinstance(writing, Failure):
                yield writing
            else:
                pending.append(writing)
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

    def _fit_writing(self, request: GenerateRequest) -> Writing | Failure:
        """Shots are dropped while the answer has no room; then the answer gets the room that is left."""
        wanted = request.sampling.max_tokens
        for dropped in range(len(request.prompt.shots) + 1):
            ids = self.encoder.encode_prompt(request.prompt.without_shots(dropped))
            if len(ids) + wanted <= self.max_length:
                break
        room = self.max_length - len(ids)
        if room < 1:
            return self._too_long(request.id, len(ids), dropped)
        usage = Usage(tokens_in=len(ids), bos=self.encoder.bos_count(ids), shots_dropped=dropped)
        return Writing(request=request, ids=ids, max_tokens=min(wanted, room), usage=usage)

    def _too_long(self, request_id: str, tokens: int, dropped: int) -> Failure:
        without = f" without its {dropped} solved examples" if dropped else ""
        message = f"{tokens} tokens{without}, the model reads {self.max_length}"
        usage = Usage(tokens_in=tokens, shots_dropped=dropped)
        return Failure(request_id=request_id, kind="too_long", message=message, usage=usage)
