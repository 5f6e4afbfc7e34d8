"""The `vllm:` backend: a folder or hub name in, loglikelihoods and text out of vLLM's offline engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

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
from mmedeval.text import first_line
from mmedeval.tokens import Encoder
from mmedeval_vllm.adapters import adapted_modules, check_fit, room_for
from mmedeval_vllm.engine import FOREIGN_ERRORS, Ask, Engine, EngineGroup, OwnEngine, Told
from mmedeval_vllm.headers import stored_precision
from mmedeval_vllm.options import DTYPES, Options
from mmedeval_vllm.scoring import Scoring
from mmedeval_vllm.versions import version_warning

# Settings of a checkpoint that change a greedy text, known to transformers and not to vLLM; with the value that does nothing.
UNHEARD: Mapping[str, Any] = {
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "guidance_scale": 1.0,
    "no_repeat_ngram_size": 0,
    "sequence_bias": None,
    "suppress_tokens": None,
}

T = TypeVar("T")


class VLLMBackend(Backend):
    """A causal language model. `name` is a folder or a hub name; a folder with an adapter brings its base model along."""

    capabilities = frozenset({"loglikelihood", "generate", "chat"})

    def __init__(self, name: str, arguments: Mapping[str, str]) -> None:
        self.options = Options.parse(arguments)
        self.name = name
        self._asked_again = 0

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
                    f"{first.path}/adapter_config.json names no base model; use vllm:BASE with --model-arg adapter={self.name}"
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
                "engine": "vllm",
                "dtype": options.dtype,
                "add_bos": options.add_bos,
                "max_length": options.max_length,
                "quantization": options.quantization,
                "engine_args": options.engine_args,
                "trust_remote_code": options.trust_remote_code,
            },
        }

    def check(self, *, chat: bool) -> None:
        base, adapter = self._folders
        if adapter is not None:
            room_for(adapter)
            check_fit(adapter, base)
        if chat and not self.tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer of {self.name} has no chat template; run with --no-chat-template, or with --protocol letter"
            )

    # --- the model itself ---

    @property
    def _tokenizer_folder(self) -> Path:
        """An adapter may bring tokens of its own; then it was saved with its tokenizer."""
        base, adapter = self._folders
        return adapter.path if adapter and (adapter.path / "tokenizer_config.json").is_file() else base.path

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        loader: Any = AutoTokenizer  # typed only in parts
        try:
            return loader.from_pretrained(self._tokenizer_folder, trust_remote_code=self.options.trust_remote_code)
        except FOREIGN_ERRORS as error:
            raise ModelError(f"the tokenizer in {self._tokenizer_folder} cannot be loaded: {first_line(error)}") from error

    @cached_property
    def engine(self) -> Engine:
        (base, adapter), options = self._folders, self.options
        arguments = {
            "model": str(base.path),
            "tokenizer": str(self._tokenizer_folder),
            "runner": "generate",
            "dtype": self._dtype,
            "logprobs_mode": "raw_logprobs",
            # One progress bar is enough: the run's.
            "use_tqdm_on_load": False,
            # White space is allowed anywhere in JSON, and some models then write nothing else.
            "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
            **options.engine_arguments(),
        }
        if adapter is not None:
            check_fit(adapter, base)
            # Where vLLM may put an adapter on the output layer, it cannot compute prompt_logprobs.
            arguments |= {
                "enable_lora": True,
                "max_lora_rank": room_for(adapter),
                "lora_target_modules": adapted_modules(adapter),
            }
        lora = None if adapter is None else str(adapter.path)
        if options.data_parallel == 1:
            return OwnEngine(arguments, lora=lora, verbose=options.verbose)
        arguments |= {"data_parallel_size": options.data_parallel}
        if options.distributed_executor is not None:
            arguments |= {"data_parallel_backend": options.distributed_executor}
        return EngineGroup(arguments, lora=lora, verbose=options.verbose)

    @property
    def _dtype(self) -> str:
        """The precision asked for, else the checkpoint's: vLLM would halve float32 by itself."""
        if self.options.dtype != "auto":
            return self.options.dtype
        base = self._folders[0]
        config = base.json("config.json")
        parts = [config, *(part for part in (config.get("text_config"),) if isinstance(part, dict))]
        said = (part[key] for part in parts for key in ("dtype", "torch_dtype") if part.get(key) in DTYPES)
        return str(next(said, None) or stored_precision(base) or "auto")

    @cached_property
    def encoder(self) -> Encoder:
        size = self.engine.config.model_config.get_vocab_size()
        return Encoder(self.tokenizer, name=self.name, add_bos=self.options.add_bos, embeddings=size)

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens, that the model may see. vLLM adds a token to each, so scored texts are one shorter."""
        return int(self.engine.config.model_config.max_model_len)

    def runtime(self) -> Mapping[str, Any]:
        if "engine" not in self.__dict__:
            return {}
        from vllm.platforms import current_platform

        engine, config = self.engine, self.engine.config
        warnings = [each for each in (version_warning(engine.version), self._unheard()) if each]
        return {
            "vllm": engine.version,
            "device": current_platform.device_type,
            "device_name": current_platform.get_device_name(),
            "devices": config.parallel_config.world_size_across_dp,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "quantization": config.model_config.quantization,
            "max_length": self.max_length,
            **({"warnings": warnings} if warnings else {}),
            "process": {
                "prefix_caching": config.cache_config.enable_prefix_caching,
                "kv_cache_tokens": (config.cache_config.num_gpu_blocks or 0) * config.cache_config.block_size,
                "asked_tokens": engine.asked_tokens,
                "cached_tokens": engine.cached_tokens,
                "asked_again": self._asked_again,
            },
        }

    def _unheard(self) -> str | None:
        """What the checkpoint asks of whoever writes text with it, and vLLM does not do."""
        wanted = self._folders[0].json("generation_config.json")
        names = [name for name, neutral in UNHEARD.items() if wanted.get(name) not in (None, neutral)]
        told = f"the checkpoint sets {', '.join(names)} for generation, which vLLM leaves out: its texts are not those of hf:"
        return told if names else None

    def close(self) -> None:
        engine = self.__dict__.pop("engine", None)
        if engine is not None:
            engine.close()

    # --- requests ---

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods | Failure]:
        return self._score(requests)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        return self._write(requests)

    def alone(self, requests: Sequence[Request]) -> Iterator[Response]:
        """One sequence at a time; only what continuations of one question share is read from the cache."""
        engine = self.engine
        before = self._asked_again, engine.asked_tokens, engine.cached_tokens
        try:
            for request in requests:
                engine.forget()
                if isinstance(request, LoglikelihoodRequest):
                    yield from self._score([request], most=1)
                else:
                    yield from self._write([request], most=1)
        finally:
            self._asked_again, engine.asked_tokens, engine.cached_tokens = before

    def _score(self, requests: Sequence[LoglikelihoodRequest], most: int | None = None) -> Iterator[Loglikelihoods | Failure]:
        adapter = self._folders[1]
        if adapter is not None and "lm_head" in adapted_modules(adapter):
            raise ModelError(
                f"the adapter in {adapter.path} changes lm_head, for which vLLM computes no loglikelihoods; use hf:, merge it "
                "into its base model, or run with --protocol chat"
            )
        failed: list[Failure] = []
        again: list[Scoring] = []
        for scoring in self._scored(_kept(map(self._fit, requests), failed), most=most):
            yield from _emptied(failed)
            if scoring.missing:
                again.append(scoring)
            else:
                yield scoring.response()
        yield from _emptied(failed)
        self._asked_again += len(again)
        for scoring in self._scored(again, most=most, cached=False):
            yield scoring.response()

    def _scored(self, scorings: Iterable[Scoring], *, most: int | None, cached: bool = True) -> Iterator[Scoring]:
        """Each scoring, when all that was missing has been asked; those of one question follow each other into the cache."""
        engine = self.engine  # vLLM is imported by it, with the settings that it reads then
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            prompt_logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            # Unless told so, vLLM reads nothing from its cache for a request with prompt_logprobs, which lack those rows then.
            skip_reading_prefix_cache=not cached,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

        def asks() -> Iterator[Ask]:
            for group, scoring in enumerate(scorings):
                missing = scoring.missing
                scoring.open = len(missing)
                for continuation in missing:
                    yield Ask(about=(scoring, continuation), ids=[*scoring.context, *continuation], params=params, group=group)

        for told in engine.stream(asks(), whole=True, most=most):
            scoring, continuation = told.ask.about
            scoring.take(continuation, told.output.prompt_logprobs, told.output.num_cached_tokens if cached else 0)
            scoring.seconds += told.seconds
            scoring.open -= 1
            if not scoring.open:
                yield scoring

    def _fit(self, request: LoglikelihoodRequest) -> Scoring | Failure:
        """The request as tokens; shots that do not fit into the context are dropped from the front."""
        for dropped in range(len(request.prompt.shots) + 1):
            prompt = request.prompt.without_shots(dropped)
            context, continuations, merged = self.encoder.encode_pair(prompt, request.continuations)
            longest = len(context) + max(map(len, continuations))
            if longest < self.max_length:
                break
        else:
            return _too_long(request.id, longest, dropped, self.max_length - 1)
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
        return Scoring(request=request, context=context, continuations=continuations, usage=usage)

    def _write(self, requests: Sequence[GenerateRequest], most: int | None = None) -> Iterator[Generation | Failure]:
        failed: list[Failure] = []
        for told in self.engine.stream(_kept(map(self._ask, requests), failed), most=most):
            yield from _emptied(failed)
            yield self._written(told)
        yield from _emptied(failed)

    def _ask(self, request: GenerateRequest) -> Ask | Failure:
        """Shots are dropped while the answer has no room; then the answer gets the room that is left."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        sampling, wanted = request.sampling, request.sampling.max_tokens
        for dropped in range(len(request.prompt.shots) + 1):
            ids = self.encoder.encode_prompt(request.prompt.without_shots(dropped))
            if len(ids) + wanted <= self.max_length:
                break
        room = self.max_length - len(ids)
        if room < 1:
            return _too_long(request.id, len(ids), dropped, self.max_length)
        try:
            schema = request.schema and StructuredOutputsParams(json=dict(request.schema))
            params = SamplingParams(
                max_tokens=min(wanted, room),
                temperature=sampling.temperature,
                seed=_seed(sampling.seed, request.id),
                repetition_penalty=self._repetition_penalty,
                structured_outputs=schema,
                stop=list(sampling.stop),
                # Needed to see the stop strings; the text is made of the tokens in any case.
                detokenize=bool(sampling.stop),
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
        except (ValueError, VLLMError) as error:
            raise UsageError(f"vLLM does not take these settings of sampling: {first_line(error)}") from error
        usage = Usage(tokens_in=len(ids), bos=self.encoder.bos_count(ids), shots_dropped=dropped)
        return Ask(about=(request, usage), ids=ids, params=params)

    @cached_property
    def _repetition_penalty(self) -> float:
        """The checkpoint's own, as transformers applies it too; all else that it sets changes no greedy text."""
        return float(self.engine.config.model_config.get_diff_sampling_param().get("repetition_penalty", 1.0))

    def _written(self, told: Told) -> Generation | Failure:
        request, usage = told.ask.about
        (written,) = told.output.outputs
        usage = replace(usage, tokens_out=len(written.token_ids), seconds=told.seconds)
        if written.finish_reason not in ("stop", "length"):
            message = f"vLLM ended the text with the reason {written.finish_reason!r}"
            return Failure(request_id=request.id, kind="backend", message=message, usage=usage)
        text = self.tokenizer.decode(written.token_ids, skip_special_tokens=True)
        cut = min((at for string in request.sampling.stop if (at := text.find(string)) >= 0), default=len(text))
        return Generation(request_id=request.id, text=text[:cut], finish_reason=written.finish_reason, usage=usage)


def _too_long(request_id: str, tokens: int, dropped: int, limit: int) -> Failure:
    without = f" without its {dropped} solved examples" if dropped else ""
    usage = Usage(tokens_in=tokens, shots_dropped=dropped)
    return Failure(
        request_id=request_id, kind="too_long", message=f"{tokens} tokens{without}, the model reads {limit}", usage=usage
    )


def _kept(fitted: Iterable[T | Failure], failed: list[Failure]) -> Iterator[T]:
    """What fits; what does not is put into `failed`."""
    for each in fitted:
        if isinstance(each, Failure):
            failed.append(each)
        else:
            yield each


def _emptied(failed: list[Failure]) -> Iterator[Failure]:
    while failed:
        yield failed.pop(0)


def _seed(seed: int, request_id: str) -> int:
    """A stream of its own for each request, so that a text depends on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{request_id}".encode()).digest()[:8], "big") >> 1
