"""The `vllm:` backend: a folder or hub name in, loglikelihoods and text out of vLLM's offline engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
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
    UsageError,
)
from mmedeval.model_files import LocalModel, find_local_model
from mmedeval.text import first_line
from mmedeval.tokens import Encoder, Writing, check_chat_template
from mmedeval_vllm.adapters import adapted_modules, check_fit, room_for
from mmedeval_vllm.engine import Ask, Engine, EngineGroup, OwnEngine, Told, reason
from mmedeval_vllm.headers import check_weights, stored_precision
from mmedeval_vllm.options import DTYPES, Options
from mmedeval_vllm.scoring import Asked
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
    def _files(self) -> LocalModel:
        options = self.options
        return find_local_model(
            self.name,
            scheme="vllm",
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
        base, adapter = self._files.base, self._files.adapter
        check_weights(base)
        if adapter is not None:
            room_for(adapter)
            check_fit(adapter, base)
        if chat:
            check_chat_template(self.tokenizer.chat_template, self.name)

    # --- the model itself ---

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        loader: Any = AutoTokenizer  # typed only in parts
        folder = self._files.tokenizer
        try:
            tokenizer = loader.from_pretrained(folder, trust_remote_code=self.options.trust_remote_code)
            # Some settings are looked at first when it is used.
            tokenizer("a")
        except Exception as error:  # what a file can hold is without end, and so is what comes of it
            raise ModelError(f"the tokenizer in {folder} cannot be loaded: {reason(error)}") from error
        return tokenizer

    @cached_property
    def engine(self) -> Engine:
        base, adapter, options = self._files.base, self._files.adapter, self.options
        check_weights(base)
        arguments = {
            "model": str(base.path),
            "tokenizer": str(self._files.tokenizer),
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
        base = self._files.base
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
        wanted = self._files.base.json("generation_config.json")
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
        adapter = self._files.adapter
        if adapter is not None and "lm_head" in adapted_modules(adapter):
            raise ModelError(
                f"the adapter in {adapter.path} changes lm_head, for which vLLM computes no loglikelihoods; use hf:, merge it "
                "into its base model, or run with --protocol chat"
            )
        failed: list[Failure] = []
        again: list[Asked] = []
        for asked in self._scored(_kept(map(self._fit, requests), failed), most=most):
            yield from _emptied(failed)
            if asked.missing:
                again.append(asked)
            else:
                yield asked.response()
        yield from _emptied(failed)
        self._asked_again += len(again)
        for asked in self._scored(again, most=most, cached=False):
            yield asked.response()

    def _scored(self, questions: Iterable[Asked], *, most: int | None, cached: bool = True) -> Iterator[Asked]:
        """Each question, when all that was missing has been asked; its continuations follow each other into the cache."""
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
            for group, asked in enumerate(questions):
                missing, context = asked.missing, asked.scoring.context
                asked.open = len(missing)
                for continuation in missing:
                    yield Ask(about=(asked, continuation), ids=[*context, *continuation], params=params, group=group)

        for told in engine.stream(asks(), whole=True, most=most):
            asked, continuation = told.ask.about
            asked.take(continuation, told.output.prompt_logprobs, told.output.num_cached_tokens if cached else 0)
            asked.seconds += told.seconds
            asked.open -= 1
            if not asked.open:
                yield asked

    def _fit(self, request: LoglikelihoodRequest) -> Asked | Failure:
        # vLLM reads the last token, too, and adds one of its own.
        fitted = self.encoder.fit_scoring(request, self.max_length - 1, reads_last=True)
        return fitted if isinstance(fitted, Failure) else Asked(scoring=fitted)

    def _write(self, requests: Sequence[GenerateRequest], most: int | None = None) -> Iterator[Generation | Failure]:
        failed: list[Failure] = []
        for told in self.engine.stream(_kept(map(self._ask, requests), failed), most=most):
            yield from _emptied(failed)
            yield self._written(told)
        yield from _emptied(failed)

    def _ask(self, request: GenerateRequest) -> Ask | Failure:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        writing, sampling = self.encoder.fit_writing(request, self.max_length), request.sampling
        if isinstance(writing, Failure):
            return writing
        try:
            schema = request.schema and StructuredOutputsParams(json=dict(request.schema))
            params = SamplingParams(
                max_tokens=writing.max_tokens,
                temperature=sampling.temperature,
                seed=writing.seed,
                repetition_penalty=self._repetition_penalty,
                structured_outputs=schema,
                stop=list(sampling.stop),
                # Needed to see the stop strings; the text is made of the tokens in any case.
                detokenize=bool(sampling.stop),
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
        except (ValueError, VLLMError) as error:
            raise UsageError(f"vLLM does not take these settings of sampling: {first_line(error)}") from error
        return Ask(about=writing, ids=writing.ids, params=params)

    @cached_property
    def _repetition_penalty(self) -> float:
        """The checkpoint's own, as transformers applies it too; all else that it sets changes no greedy text."""
        return float(self.engine.config.model_config.get_diff_sampling_param().get("repetition_penalty", 1.0))

    def _written(self, told: Told) -> Generation | Failure:
        writing: Writing = told.ask.about
        (written,) = told.output.outputs
        name, usage = writing.request.id, replace(writing.usage, tokens_out=len(written.token_ids), seconds=told.seconds)
        if written.finish_reason not in ("stop", "length"):
            message = f"vLLM ended the text with the reason {written.finish_reason!r}"
            return Failure(request_id=name, kind="backend", message=message, usage=usage)
        text, stopped = writing.until_stop(self.tokenizer.decode(written.token_ids, skip_special_tokens=True))
        return Generation(request_id=name, text=text, finish_reason="stop" if stopped else written.finish_reason, usage=usage)


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
