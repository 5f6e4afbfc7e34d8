"""Scores continuations and generates text with a transformers model, in batches that do not change the result."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.utils import logging as transformers_logging

from mmedeval import (
    Backend,
    BackendError,
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    ModelError,
    Prompt,
    Sampling,
    Usage,
    UsageError,
    digest,
)
from mmedeval_hf.files import ModelFolder, find_model

DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEFAULT_BATCH_TOKENS = {"cpu": 4096}
GPU_BATCH_TOKENS = 32768
DEFAULT_BATCH_SIZE = 256
# The logits of one batch stay under this many numbers (2 GiB in float32), whatever the vocabulary.
MAX_LOGITS = 2**29
# Generation computes one token of each row at a time; what fills up is the cache, and that holds far more tokens.
GENERATION_FACTOR = 8


class HFBackend(Backend):
    """A causal language model. `name` is a folder or a hub name; a folder with an adapter brings its base model along."""

    capabilities = frozenset({"loglikelihood", "generate", "chat"})

    def __init__(self, name: str, arguments: Mapping[str, str]) -> None:
        self.options = Options.parse(arguments)
        self.name = name
        self._oom_halvings = 0
        self._loaded = False

    # --- what the model is, known without loading it ---

    @cached_property
    def _folders(self) -> tuple[ModelFolder, ModelFolder | None]:
        """The base model's folder and the adapter's, if there is one."""
        options = self.options
        first = find_model(
            self.name, revision=options.revision, safe_only=options.use_safetensors, code=options.trust_remote_code
        )
        adapter = options.adapter
        if first.is_adapter and not (first.path / "config.json").is_file():
            if adapter is not None:
                raise UsageError(f"{self.name} is an adapter itself; leave out --model-arg adapter={adapter}")
            first.check()
            base = first.json("adapter_config.json").get("base_model_name_or_path")
            if not base:
                raise ModelError(
                    f"{first.path}/adapter_config.json names no base model; use hf:BASE with --model-arg adapter={self.name}"
                )
            base_folder = find_model(str(base), revision=None, safe_only=options.use_safetensors, code=options.trust_remote_code)
            base_folder.check()
            return base_folder, first
        first.check()
        if adapter is None:
            return first, None
        second = find_model(adapter, revision=None, safe_only=options.use_safetensors, code=False)
        if not second.is_adapter:
            raise ModelError(
                f"{adapter} holds no adapter_config.json, so it is no adapter of peft; name the folder that peft saved"
            )
        second.check()
        return first, second

    def fingerprint(self) -> str:
        base, adapter = self._folders
        return digest([base.fingerprint, adapter.fingerprint if adapter else None])

    def describe(self) -> Mapping[str, Any]:
        base, adapter = self._folders
        config = base.json("config.json")
        options = self.options
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
        base, adapter = self._folders
        # An adapter may bring tokens of its own; then it was saved with its tokenizer.
        folder = adapter if adapter and (adapter.path / "tokenizer_config.json").is_file() else base
        try:
            return AutoTokenizer.from_pretrained(folder.path, trust_remote_code=self.options.trust_remote_code)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise ModelError(f"the tokenizer in {folder.path} cannot be loaded: {_first_line(error)}") from error

    @cached_property
    def model(self) -> Any:
        base, adapter = self._folders
        options = self.options
        # One progress bar is enough: the run's.
        transformers_logging.disable_progress_bar()
        settings: dict[str, Any] = {"dtype": DTYPES[options.dtype], "use_safetensors": options.use_safetensors}
        if options.attn_implementation:
            settings["attn_implementation"] = options.attn_implementation
        if options.device_map:
            settings["device_map"] = options.device_map
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(base.path, trust_remote_code=options.trust_remote_code, **settings)
            if adapter is not None:
                from peft import PeftModel

                # Through peft itself: transformers' own loading loses the magnitude vectors of DoRA in silence.
                model = PeftModel.from_pretrained(model, adapter.path)
        except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
            raise ModelError(f"the model in {base.path} cannot be loaded: {_first_line(error)}") from error
        if not options.device_map:
            try:
                model = model.to(self.options.torch_device())
            except (RuntimeError, AssertionError) as error:
                raise ModelError(f"the model does not fit on {options.device}: {_first_line(error)}") from error
        self._loaded = True
        return model.eval()

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    def runtime(self) -> Mapping[str, Any]:
        if not self._loaded:
            return {}
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {
            "device": str(self.device),
            "device_name": name,
            "devices": torch.cuda.device_count() if self.device.type == "cuda" else 1,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "max_length": self.max_length,
            "batch_tokens": self.options.tokens_at_once(self.device.type),
            "out_of_memory_halvings": self._oom_halvings,
        }

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

    # --- tokens ---

    @cached_property
    def _prefix(self) -> list[int]:
        """The special tokens that stand in front of every text (a BOS, or none)."""
        tokenizer = self.tokenizer
        if self.options.add_bos is not None:
            if self.options.add_bos and tokenizer.bos_token_id is None:
                raise UsageError(f"--model-arg add_bos=true: the tokenizer of {self.name} has no BOS token")
            return [tokenizer.bos_token_id] if self.options.add_bos else []
        plain = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        # Only what stands in front counts: an EOS behind the text would end it before the continuation.
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return list(full[:start])
        return []

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Token ids of texts, each with the special tokens in front if `special`, unless the text brings its BOS itself."""
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        prefix = self._prefix if special else []
        if prefix and self.tokenizer.bos_token:
            return [
                ids if text.startswith(self.tokenizer.bos_token) else prefix + ids
                for text, ids in zip(texts, encoded, strict=True)
            ]
        return [prefix + ids for ids in encoded]

    def prompt_text(self, prompt: Prompt) -> tuple[str, bool]:
        """The prompt as text, and whether special tokens still have to be put in front (a chat template brings its own)."""
        if not prompt.chat:
            return prompt.text, True
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)), False

    def _bos_count(self, ids: Sequence[int]) -> int | None:
        """The BOS tokens in front; `None` where there is none and this tokenizer puts none in front of text."""
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return None
        count = next((i for i, token in enumerate(ids) if token != bos), len(ids))
        return count if count or bos in self._prefix else None

    # --- loglikelihoods ---

    def encode_pair(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[list[int], list[list[int]], bool]:
        """Ids of the prompt and of each continuation, and whether a token spans the border for any of them.

        The scored tokens are those of the joined text behind as many tokens as the prompt has alone. Where a token spans the
        border this is what lm-evaluation-harness scores (`TemplateLM._encode_pair`): the prompt's own tokens, then the rest of
        the joined text's. Where that leaves nothing, the joined text is scored from its first token that differs. Spaces at the
        prompt's end go to the continuation.
        """
        text, special = self.prompt_text(prompt)
        context = text.rstrip()
        moved = text[len(context) :]
        encoded = self.encode([context, *(context + moved + continuation for continuation in continuations)], special=special)
        prompt_ids, joined = encoded[0], encoded[1:]
        merged = any(whole[: len(prompt_ids)] != prompt_ids for whole in joined)
        if merged and any(len(whole) <= len(prompt_ids) for whole in joined):
            prompt_ids = prompt_ids[: min(_common_prefix(prompt_ids, whole) for whole in joined)]
        return prompt_ids, [whole[len(prompt_ids) :] for whole in joined], merged

    def loglikelihood(self, requests: Sequence[LoglikelihoodRequest]) -> Iterator[Loglikelihoods | Failure]:
        pending: list[Scoring] = []
        for index, request in enumerate(requests):
            scoring = self._fit(index, request)
            if isinstance(scoring, Failure):
                yield scoring
            else:
                pending.append(scoring)
        # Longest first: what does not fit into memory shows at once, and the progress bar errs on the safe side.
        pending.sort(key=lambda scoring: (-len(scoring.rows[0].ids), scoring.index))
        rows = [(scoring, row) for scoring in pending for row in scoring.rows]
        for batch in self._batches(rows):
            yield from self._score(batch)

    def _fit(self, index: int, request: LoglikelihoodRequest) -> Scoring | Failure:
        """The request as rows of tokens; shots that do not fit into the context are dropped from the front."""
        prompt = request.prompt
        for dropped in range(len(prompt.shots) + 1):
            context, continuations, merged = self.encode_pair(prompt.without_shots(dropped), request.continuations)
            longest = len(context) + max(map(len, continuations))
            # The last token is only predicted, never read.
            if longest - 1 <= self.max_length:
                break
        else:
            return self._too_long(request.id, longest - 1, dropped)
        if not context:
            return Failure(
                request_id=request.id,
                kind="refused",
                message="the prompt has no token to predict from; use add_bos=true",
            )
        usage = Usage(
            tokens_in=len(context),
            tokens_out=sum(map(len, continuations)),
            bos=self._bos_count(context),
            shots_dropped=dropped,
            border_merged=merged,
        )
        return Scoring(
            index=index, request_id=request.id, rows=_rows(context, continuations), usage=usage, size=len(continuations)
        )

    def _too_long(self, request_id: str, tokens: int, dropped: int) -> Failure:
        without = f" without its {dropped} solved examples" if dropped else ""
        message = f"{tokens} tokens{without}, the model reads {self.max_length}"
        return Failure(
            request_id=request_id,
            kind="too_long",
            message=message,
            usage=Usage(tokens_in=tokens, shots_dropped=dropped),
        )

    def _batches(self, rows: Sequence[tuple[Scoring, Row]]) -> Iterator[list[tuple[Scoring, Row]]]:
        """Neighbours in length together, within the token budget, the row limit and the memory for logits."""
        vocabulary = self.model.config.get_text_config().vocab_size
        tokens_at_once = self.options.tokens_at_once(self.device.type)
        batch: list[tuple[Scoring, Row]] = []
        width = kept = 0
        for scoring, row in rows:
            new_width, new_kept = max(width, len(row.ids)), max(kept, row.kept)
            # Padding to the widest row may push an earlier row's scored positions further from the end.
            new_kept = max(new_kept, new_width - min((r.first for _, r in batch), default=row.first), new_width - row.first)
            size = len(batch) + 1
            full = (
                size * new_width > tokens_at_once or size > self.options.batch_size or size * new_kept * vocabulary > MAX_LOGITS
            )
            if batch and full:
                yield batch
                batch, new_width, new_kept = [], len(row.ids), row.kept
            batch.append((scoring, row))
            width, kept = new_width, new_kept
        if batch:
            yield batch

    def _score(self, batch: Sequence[tuple[Scoring, Row]]) -> Iterator[Loglikelihoods | Failure]:
        """The scores of a batch; each request is answered when its last row is done. Out of memory halves the batch."""
        started = time.perf_counter()
        values = self._try(lambda: self._forward([row for _, row in batch]))
        if values is None:
            if len(batch) > 1:
                self._oom_halvings += 1
                half = len(batch) // 2
                yield from self._score(batch[:half])
                yield from self._score(batch[half:])
                return
            scoring = batch[0][0]
            if not scoring.failed:
                scoring.failed = True
                yield Failure(
                    request_id=scoring.request_id,
                    kind="out_of_memory",
                    message=f"{len(batch[0][1].ids)} tokens alone do not fit into memory",
                    usage=scoring.usage,
                )
            return
        seconds = time.perf_counter() - started
        total = sum(len(row.ids) for _, row in batch)
        for (scoring, row), row_values in zip(batch, values, strict=True):
            scoring.take(row, row_values, seconds * len(row.ids) / total)
            if scoring.done:
                yield scoring.response()

    def _try(self, work: Any) -> Any:
        """The result of `work`, or `None` when memory ran out."""
        try:
            with torch.inference_mode():
                return work()
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise BackendError(f"{self.name} stopped while computing: {_first_line(error)}") from error
        # Outside of the handler: the exception's frames hold the tensors that are to be freed.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _forward(self, rows: Sequence[Row]) -> list[list[float]]:
        """For each row, the loglikelihood of each of its targets. Padding stands behind, where no token looks."""
        width = max(len(row.ids) for row in rows)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        ids = torch.tensor([row.ids + [pad] * (width - len(row.ids)) for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows], device=self.device)
        kept = width - min(row.first for row in rows) if self._can_slice else width
        extra = {"logits_to_keep": kept} if self._can_slice else {}
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False, **extra).logits
        offset = width - logits.shape[1]
        where = [
            (i, target.start + j - offset, token)
            for i, row in enumerate(rows)
            for target in row.targets
            for j, token in enumerate(target.tokens)
        ]
        which = torch.tensor(where, device=logits.device)
        picked = logits[which[:, 0], which[:, 1]].float()
        scores = (picked.gather(1, which[:, 2:3]).squeeze(1) - picked.logsumexp(1)).tolist()
        result, position = [], 0
        for row in rows:
            values = []
            for target in row.targets:
                values.append(sum(scores[position : position + len(target.tokens)]))
                position += len(target.tokens)
            result.append(values)
        return result

    @cached_property
    def _can_slice(self) -> bool:
        """Whether the model can run its head on the last positions only."""
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        return "logits_to_keep" in inspect.signature(base.forward).parameters

    # --- text ---

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Generation | Failure]:
        pending: list[Writing] = []
        for request in requests:
            writing = self._fit_writing(request)
            if isinstance(writing, Failure):
                yield writing
            else:
                pending.append(writing)
        # Rows of a batch share the number of new tokens and the sampling, so that none computes for another.
        pending.sort(key=lambda writing: (-len(writing.ids), writing.max_tokens))
        batch: list[Writing] = []
        for writing in pending:
            size = (len(batch) + 1) * (len((batch or [writing])[0].ids) + writing.max_tokens)
            alike = not batch or (writing.max_tokens, writing.request.sampling) == (
                batch[0].max_tokens,
                batch[0].request.sampling,
            )
            room = GENERATION_FACTOR * self.options.tokens_at_once(self.device.type)
            if batch and (not alike or size > room or len(batch) >= self.options.batch_size):
                yield from self._write(batch)
                batch = []
            batch.append(writing)
        if batch:
            yield from self._write(batch)

    def _fit_writing(self, request: GenerateRequest) -> Writing | Failure:
        """Shots are dropped while the answer has no room; then the answer gets the room that is left."""
        prompt, wanted = request.prompt, request.sampling.max_tokens
        for dropped in range(len(prompt.shots) + 1):
            text, special = self.prompt_text(prompt.without_shots(dropped))
            ids = self.encode([text], special=special)[0]
            if len(ids) + wanted <= self.max_length:
                break
        room = self.max_length - len(ids)
        if room < 1:
            return self._too_long(request.id, len(ids), dropped)
        usage = Usage(tokens_in=len(ids), bos=self._bos_count(ids), shots_dropped=dropped)
        return Writing(request=request, ids=ids, max_tokens=min(wanted, room), usage=usage)

    def _write(self, batch: Sequence[Writing]) -> Iterator[Generation | Failure]:
        started = time.perf_counter()
        outputs = self._try(lambda: self._continue(batch))
        if outputs is None:
            if len(batch) > 1:
                self._oom_halvings += 1
                half = len(batch) // 2
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
        width = max(len(writing.ids) for writing in batch)
        sampling = batch[0].request.sampling
        ends = self._end_ids
        pad = self.tokenizer.pad_token_id
        pad = pad if pad is not None else (ends[0] if ends else 0)
        # Generation appends behind, so padding stands in front.
        ids = torch.tensor([[pad] * (width - len(w.ids)) + w.ids for w in batch], device=self.device)
        mask = torch.tensor([[0] * (width - len(w.ids)) + [1] * len(w.ids) for w in batch], device=self.device)
        processors = LogitsProcessorList()
        if sampling.temperature > 0:
            processors.append(_SeededNoise([w.request.id for w in batch], sampling, width))
        criteria = StoppingCriteriaList()
        if sampling.stop:
            criteria.append(_StopStrings(self.tokenizer, sampling.stop, width))
        settings = GenerationConfig(
            max_new_tokens=batch[0].max_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad,
            eos_token_id=list(ends) or None,
        )
        out = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=processors,
            stopping_criteria=criteria,
        )
        rows = []
        for new in out[:, width:].tolist():
            end = next((i for i, token in enumerate(new) if token in ends), None)
            rows.append(new if end is None else new[: end + 1])
        return rows

    @cached_property
    def _end_ids(self) -> tuple[int, ...]:
        """Every token that ends a turn: the generation config's and the tokenizer's."""
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return tuple(dict.fromkeys(i for i in [*ids, self.tokenizer.eos_token_id] if i is not None))

    def _generation(self, writing: Writing, new: list[int], seconds: float) -> Generation:
        ended = bool(new) and new[-1] in self._end_ids
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        cut = min((at for stop in writing.request.sampling.stop if (at := text.find(stop)) >= 0), default=None)
        if cut is not None:
            text, ended = text[:cut], True
            # Another row may have kept the batch going behind this row's stop string.
            new = self._up_to_stop(new, writing.request.sampling.stop)
        usage = Usage(
            tokens_in=writing.usage.tokens_in,
            tokens_out=len(new),
            seconds=seconds,
            bos=writing.usage.bos,
            shots_dropped=writing.usage.shots_dropped,
        )
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

    def close(self) -> None:
        self.__dict__.pop("model", None)
        if self._loaded and torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True, kw_only=True)
class Options:
    """The `--model-arg` pairs, read and checked."""

    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    revision: str | None = None
    adapter: str | None = None
    trust_remote_code: bool = False
    use_safetensors: bool = True
    max_length: int | None = None
    batch_tokens: int | None = None
    batch_size: int = DEFAULT_BATCH_SIZE
    attn_implementation: str | None = None
    add_bos: bool | None = None

    @classmethod
    def parse(cls, arguments: Mapping[str, str]) -> Options:
        """Raises `UsageError` naming the argument and what it may be."""
        values: dict[str, Any] = dict(arguments)
        for name in ("trust_remote_code", "use_safetensors", "add_bos"):
            if name in values:
                values[name] = _boolean(name, values[name])
        for name in ("max_length", "batch_tokens", "batch_size"):
            if name in values:
                values[name] = _positive(name, values[name])
        if values.get("dtype", "auto") not in DTYPES:
            raise UsageError(f"--model-arg dtype={values['dtype']!r} is none of {', '.join(DTYPES)}")
        options = cls(**values)
        options.torch_device()
        return options

    def torch_device(self) -> torch.device:
        if self.device == "auto":
            kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
            return torch.device(kind)
        try:
            return torch.device(self.device)
        except RuntimeError as error:
            raise UsageError(f"--model-arg device={self.device!r} is no device; use cpu, cuda, cuda:1 or mps") from error

    def tokens_at_once(self, device: str) -> int:
        return self.batch_tokens or DEFAULT_BATCH_TOKENS.get(device, GPU_BATCH_TOKENS)


@dataclass(frozen=True, slots=True)
class Target:
    """Tokens to score: `tokens[j]` is predicted at position `start + j` of the row. `index` is the continuation's."""

    index: int
    start: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A sequence to compute once, with everything that is scored on it."""

    ids: list[int]
    targets: tuple[Target, ...]

    @property
    def first(self) -> int:
        return min(target.start for target in self.targets)

    @property
    def kept(self) -> int:
        return len(self.ids) - self.first


@dataclass(kw_only=True)
class Scoring:
    """A request on its way: its rows, and the values that have arrived."""

    index: int
    request_id: str
    rows: list[Row]
    usage: Usage
    size: int
    failed: bool = False

    def __post_init__(self) -> None:
        self.values: dict[int, float] = {}
        self.seconds = 0.0

    def take(self, row: Row, values: Sequence[float], seconds: float) -> None:
        self.seconds += seconds
        self.values.update({target.index: value for target, value in zip(row.targets, values, strict=True)})

    @property
    def done(self) -> bool:
        return not self.failed and len(self.values) == self.size

    def response(self) -> Loglikelihoods:
        usage = Usage(
            tokens_in=self.usage.tokens_in,
            tokens_out=self.usage.tokens_out,
            seconds=self.seconds,
            bos=self.usage.bos,
            shots_dropped=self.usage.shots_dropped,
            border_merged=self.usage.border_merged,
        )
        return Loglikelihoods(request_id=self.request_id, values=tuple(self.values[i] for i in range(self.size)), usage=usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    request: GenerateRequest
    ids: list[int]
    max_tokens: int
    usage: Usage


class _SeededNoise(LogitsProcessor):
    """Sampling as greedy choice over noisy logits (the Gumbel-max trick), each row with a stream of its own.

    So a sampled text depends on the seed and the request alone, not on its neighbours in the batch.
    Source: E. J. Gumbel (1954); argmax(logits / T + Gumbel noise) is distributed as softmax(logits / T).
    """

    def __init__(self, request_ids: Sequence[str], sampling: Sampling, width: int) -> None:
        self.temperature = sampling.temperature
        self.generators = [torch.Generator().manual_seed(_seed(sampling.seed, request_id)) for request_id in request_ids]

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
        texts = self.tokenizer.batch_decode(
            input_ids[:, max(self.width, input_ids.shape[1] - self.tail) :], skip_special_tokens=True
        )
        found = [any(string in text for string in self.stop) for text in texts]
        return torch.tensor(found, device=input_ids.device)


def _rows(context: list[int], continuations: Sequence[list[int]]) -> list[Row]:
    """The fewest sequences on which all continuations can be scored: one that begins another is scored on the longer."""
    ordered = sorted(range(len(continuations)), key=lambda i: continuations[i][:-1])
    groups: list[tuple[list[int], list[int]]] = []
    for i in reversed(ordered):
        read = continuations[i][:-1]
        if groups and groups[-1][0][: len(read)] == read:
            groups[-1][1].append(i)
        else:
            groups.append((read, [i]))
    start = len(context) - 1
    rows = [Row(context + read, tuple(Target(i, start, tuple(continuations[i])) for i in members)) for read, members in groups]
    return sorted(rows, key=lambda row: -len(row.ids))


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _seed(seed: int, request_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{request_id}".encode()).digest()[:8], "big") >> 1


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise UsageError(f"--model-arg {name}={value!r} is neither true nor false")
    return value.lower() == "true"


def _positive(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise UsageError(f"--model-arg {name}={value!r} is no whole number above 0")
    return int(value)
