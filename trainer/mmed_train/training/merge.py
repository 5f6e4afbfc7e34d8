"""Merges an adapter into its base, and proves on what was written that the model is still the same one."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from mmed_train.training.export import LARGEST_SHARD, TYPES, Dtype, check_range, new_folder, writing
from mmed_train.training.facts import DATA, MERGE, PROGRESS, RECIPE, Difference
from mmed_train.training.model import quiet
from mmedeval import ModelError, TaskOptions, UsageError, __version__
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.model_files import CONFIGURATION, LocalModel, ModelFolder, find_model
from mmedeval.text import first_line
from mmedeval.tokens import Encoder
from mmedeval_hf.loading import check_files, load_model, load_tokenizer
from mmedeval_hf.options import Options

# What float32 loses by adding in another order; a merge that goes wrong changes logits by tenths.
TOLERANCE = 1e-3
# Merged and compared in full precision, where there is room for it.
EXACT = Options(dtype="float32", device="cpu")
# Six languages of it come with the harness.
PROBES = "mmedbench_mini"
PROTOCOLS = ("letter", "paper", "chat")
# Tokens of a probe that are read, and the last of them at which logits are compared: each depends on all before it.
LONGEST, COMPARED = 256, 32
# What of its training an adapter's folder tells.
TOLD = (RECIPE, DATA, PROGRESS)


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A merged model. `exact` is the merge in float32; `stored` is what was written, read back from disk."""

    path: Path
    dtype: Dtype
    parameters: int
    probes: int
    languages: int
    exact: Difference
    stored: Difference


@dataclass(frozen=True, kw_only=True)
class _Probes:
    ids: tuple[tuple[int, ...], ...]
    languages: int


def merge(adapter: str, out: Path, *, base: str | None, dtype: Dtype | None, say: Callable[[str], None]) -> Merged:
    """Writes the adapter, merged into its base, to the new folder `out`, in `dtype` (default: as the base is stored).

    Raises `ModelError` where adapter and base do not belong together, and where the merged model is not what the adapter on its
    base is: then, and when interrupted, `out` is not there.
    """
    files = find_parts(adapter, base, say)
    check_files(files)
    kind = dtype or stored_dtype(files.base)
    with new_folder(out) as folder:
        tokenizer = load_tokenizer(files, EXACT)
        with _quiet():
            model, notes = load_model(files, EXACT)
            for note in notes:
                say(note)
            probes = make_probes(tokenizer, model, adapter)
            wanted = logits(model, probes)
            parameters, exact, written = _write(model, files, folder, out, kind, probes, wanted)
            del model
            # Its parts refer to each other, and the next model needs their room.
            gc.collect()
            with writing(out):
                _copy(files, folder)
            stored = _read_back(folder, probes, wanted, written)
        if exact is None:
            _check(stored)
        merged = Merged(
            path=out,
            dtype=kind,
            parameters=parameters,
            probes=len(probes.ids),
            languages=probes.languages,
            exact=exact or stored,
            stored=stored,
        )
        with writing(out):
            (folder / MERGE).write_text(json.dumps(_record(files, merged), indent=1) + "\n", encoding="utf-8")
    return merged


# --- what belongs together ---


def find_parts(adapter: str, base: str | None, say: Callable[[str], None]) -> LocalModel:
    """The adapter and its base: the one named, or what the adapter names. Raises `ModelError`."""
    folder = find_model(adapter, revision=None, safe_only=True, code=False)
    if not folder.is_adapter and (folder.path / "config.json").is_file():
        raise ModelError(f"{adapter} is a whole model, no adapter: there is nothing to merge")
    folder.check_adapter()
    found = _find_base(folder, base)
    if found.is_adapter:
        raise ModelError(
            f"the base {found.path} holds an adapter itself; merge that one first, and name what comes of it with --base"
        )
    found.check_model()
    if found.json("config.json").get("quantization_config"):
        raise ModelError(
            f"the base {found.path} holds quantised weights, which nothing can be added to; name the model that they were made "
            "from with --base"
        )
    files = LocalModel(base=found, adapter=folder)
    trained_on = folder.json(DATA).get("base")
    same = trained_on == found.fingerprint
    if trained_on is not None and not same:
        if base is None:
            raise ModelError(
                f"the adapter in {folder.path} was trained on another model than what lies in {found.path} now (fingerprint "
                f"{str(trained_on)[:12]}, not {found.fingerprint[:12]}); bring that one back, or, where it is the same in "
                f"another type or other files, name it: --base {found.path}"
            )
        say(f"the adapter was trained on files with another fingerprint ({str(trained_on)[:12]}) than those of {found.path}")
    if not same:
        _check_tokens(files)
    return files


def _find_base(adapter: ModelFolder, base: str | None) -> ModelFolder:
    if base is not None:
        return find_model(base, revision=None, safe_only=True, code=False)
    config = adapter.json("adapter_config.json")
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(named, str) or not named:
        raise ModelError(f"{adapter.path}/adapter_config.json names no base model; name it with --base")
    # A relative path is one from here, as peft reads it, or from the adapter's folder, which may have moved with its base.
    places = [place for place in (Path(named), adapter.path / named) if place.is_dir()]
    if len(places) == 2 and not places[0].samefile(places[1]):
        raise UsageError(
            f"the adapter in {adapter.path} has the base model {named!r}, which is a folder here and another one beside the "
            "adapter; say which with --base"
        )
    try:
        if places:
            return find_model(str(places[0]), revision=None, safe_only=True, code=False)
        return find_model(
            named, revision=revision if isinstance(revision, str) and revision else None, safe_only=True, code=False
        )
    except ModelError as error:
        raise ModelError(
            f"the adapter in {adapter.path} has the base model {named!r}, but {error}; or name it with --base"
        ) from error


def _check_tokens(files: LocalModel) -> None:
    """Raises `ModelError` where the adapter's own tokenizer says other numbers for the base's tokens."""
    if files.adapter is None or files.tokenizer == files.base.path or not (files.base.path / "tokenizer_config.json").is_file():
        return
    own = load_tokenizer(files, EXACT).get_vocab()
    bases = load_tokenizer(LocalModel(base=files.base), EXACT).get_vocab()
    other = [token for token, number in sorted(bases.items(), key=lambda item: item[1]) if own.get(token) != number]
    if other:
        raise ModelError(
            f"the tokenizer in {files.adapter.path} is another one than that of the base {files.base.path}: {len(other)} tokens "
            f"differ ({other[0]!r} is {bases[other[0]]} there, {own.get(other[0], 'none')} here); name the base that the adapter "
            "was trained on with --base"
        )


def stored_dtype(base: ModelFolder) -> Dtype:
    """What the base's config says that its weights are stored in."""
    config = base.json("config.json")
    told = config.get("dtype") or config.get("torch_dtype")
    kind = next((name for name in TYPES if name == told), None)
    if kind is None:
        known = f"is stored in {told!r}" if told else "does not say what it is stored in"
        raise UsageError(f"the base {base.path} {known}; choose with --dtype {', '.join(TYPES)}")
    return kind


# --- probes ---


def make_probes(tokenizer: Any, model: Any, name: str) -> _Probes:
    """A text in each language, and a prompt as the harness renders it, of one protocol after the other; as tokens."""
    encoder = Encoder(tokenizer, name=name, add_bos=None, embeddings=model.get_input_embeddings().weight.shape[0])
    catalog = Catalog(make_host())
    protocols = cycle(PROTOCOLS if tokenizer.chat_template else PROTOCOLS[:-1])
    ids, languages = [], set()
    for spec, protocol in zip(catalog.select_tasks([PROBES]), protocols, strict=False):
        task = spec.load(TaskOptions())
        sample = task.samples("test")[0]
        prompt = catalog.host.hook.mmedeval_render_prompt(task=task, sample=sample, shots=(), protocol=protocol)
        languages.add(sample.language)
        ids += [*encoder.encode([sample.rationale or sample.question]), encoder.encode_prompt(prompt)]
    limit = min(LONGEST, _positions(model))
    ids = [text[:limit] for text in ids]
    return _Probes(ids=tuple(map(tuple, ids)), languages=len(languages))


def _positions(model: Any) -> int:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else LONGEST


@torch.no_grad()
def logits(model: Any, probes: _Probes) -> list[torch.Tensor]:
    """For each probe the logits at its last tokens, of shape (places, vocabulary)."""
    with _sentence("the model cannot be asked"):
        return [model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -COMPARED:].clone() for ids in probes.ids]


def difference(wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> Difference:
    """NaN where any logit is no number."""
    apart = [(a - b).abs().max() for a, b in zip(wanted, found, strict=True)]
    flipped = sum(int((a.argmax(-1) != b.argmax(-1)).sum()) for a, b in zip(wanted, found, strict=True))
    return Difference(largest=float(torch.stack(apart).max()), flipped=flipped, places=sum(len(each) for each in wanted))


def _check(found: Difference) -> None:
    if not found.largest < TOLERANCE:  # nor a NaN
        raise ModelError(
            f"the merged model is not the adapter on its base: logits differ by {found.largest:.3g}, in float32 at most "
            f"{TOLERANCE:g} is rounding; nothing was written: use the adapter as it is (mmedeval run --model hf:ADAPTER)"
        )


# --- merging ---


def _write(
    model: Any, files: LocalModel, folder: Path, out: Path, kind: Dtype, probes: _Probes, wanted: Sequence[torch.Tensor]
) -> tuple[int, Difference | None, Mapping[str, str]]:
    """Merges and writes; returns the number of parameters, the exact merge's difference, and the digest of each tensor."""
    merged = _merge_in_place(model, files)
    exact = None
    if kind != "float32":
        # What is stored in float32 is compared when it is read back.
        exact = difference(wanted, logits(merged, probes))
        _check(exact)
        _narrow(merged, kind)
    # The base's own is copied; one that is at odds with itself is not saved by all versions of transformers.
    merged.generation_config = GenerationConfig.from_model_config(merged.config)
    with writing(out), _sentence("the merged model cannot be saved"):
        merged.save_pretrained(folder, max_shard_size=LARGEST_SHARD)
    return sum(parameter.numel() for parameter in merged.parameters()), exact, _digests(merged)


def _merge_in_place(model: Any, files: LocalModel) -> Any:
    _part_head(model.get_base_model())
    with _sentence(f"the adapter in {None if files.adapter is None else files.adapter.path} cannot be merged"):
        merged = model.merge_and_unload(safe_merge=True)
    head, embedding = merged.get_output_embeddings(), merged.get_input_embeddings()
    if head is not None and head.weight is not embedding.weight:  # which only newer versions of peft note
        merged.config.tie_word_embeddings = False
    return merged


def _part_head(model: Any) -> None:
    """Gives a head that shares the embedding's weights its own, where the adapter changes one of the two."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or not any(hasattr(each, "base_layer") for each in (head, embedding)):
        return
    head, embedding = getattr(head, "base_layer", head), getattr(embedding, "base_layer", embedding)
    if head.weight is embedding.weight:
        head.weight = torch.nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)


def _narrow(model: Any, kind: Dtype) -> None:
    """Gives all weights their type, one after the other."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            narrow = tensor.data.to(TYPES[kind])
            check_range(tensor.data, narrow, name)
            tensor.data = narrow


def _digests(model: Any) -> dict[str, str]:
    """A digest of each tensor's numbers as float32, which holds them whatever their type."""
    return {
        name: hashlib.sha256(tensor.detach().float().contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()
        for name, tensor in model.state_dict().items()
    }


def _read_back(folder: Path, probes: _Probes, wanted: Sequence[torch.Tensor], written: Mapping[str, str]) -> Difference:
    """Loads what lies on the disk, as anyone would, and holds it against what was written and against the adapter."""
    files = LocalModel(base=ModelFolder(folder))
    model, _ = load_model(files, EXACT)
    read = _digests(model)
    other = sorted(name for name in {*read, *written} if read.get(name) != written.get(name))
    if other:
        raise ModelError(
            f"transformers reads {len(other)} tensors otherwise than they were written ({other[0]}, ...); nothing was kept"
        )
    if make_probes(load_tokenizer(files, EXACT), model, str(folder)) != probes:
        raise ModelError("the tokenizer reads texts otherwise once it is copied; nothing was kept")
    return difference(wanted, logits(model, probes))


# --- what stands beside the weights ---


def _copy(files: LocalModel, folder: Path) -> None:
    """The tokenizer's files and the base's generation config as they are, and what the adapter tells of its training."""
    patterns = [name for name in CONFIGURATION if name not in ("config.json", "generation_config.json", "adapter_config.json")]
    for pattern in patterns:
        for file in files.tokenizer.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    templates = files.tokenizer / "additional_chat_templates"
    if templates.is_dir():
        shutil.copytree(templates, folder / templates.name)
    generation = files.base.path / "generation_config.json"
    if generation.is_file():
        shutil.copyfile(generation, folder / generation.name)
    for name in TOLD:
        if files.adapter is not None and (files.adapter.path / name).is_file():
            shutil.copyfile(files.adapter.path / name, folder / name)


def _record(files: LocalModel, merged: Merged) -> dict[str, Any]:
    """What was merged, by contents, and how well."""
    assert files.adapter is not None
    return {
        "mmedeval": __version__,
        "adapter": files.adapter.fingerprint,
        "base": files.base.fingerprint,
        "dtype": merged.dtype,
        "probes": merged.probes,
        "exact": asdict(merged.exact),
        "stored": asdict(merged.stored),
    }


@contextmanager
def _sentence(what: str) -> Iterator[None]:
    """Makes a sentence of what torch, transformers and peft say of models that they cannot do this with."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{what}: {first_line(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars, and no warnings of what is seen to here."""
    with quiet(), warnings.catch_warnings():
        # peft asks transformers by an old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        # Embeddings that an adapter changes are parted before it is merged.
        warnings.filterwarnings("ignore", message="(?s).*tie_word_embeddings")
        yield
