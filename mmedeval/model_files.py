"""Where a model lies, what it consists of, and the digest of its contents. Imports neither torch nor transformers."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmedeval.errors import ModelError, UsageError
from mmedeval.types import digest

CONFIGURATION = (
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer*.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "chat_template.*",
)  # fmt: skip
SAFE_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
PICKLED_WEIGHTS = ("pytorch_model*.bin", "pytorch_model*.bin.index.json", "adapter_model.bin")
# The same weights once more, under names of their own, for programs that read no config.json.
COPIES = ("consolidated*.safetensors", "consolidated*.safetensors.index.json")
# Where transformers looks for weights, in its order.
SAFE_NAMES = ("model.safetensors", "model.safetensors.index.json")
PICKLED_NAMES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class ModelFolder:
    """A model's files. `safe_only` leaves out pickled weights, `code` takes Python files in."""

    path: Path
    safe_only: bool = True
    code: bool = False

    @cached_property
    def names(self) -> Sequence[str]:
        """The files that make the model what it is."""
        patterns = _patterns(safe_only=self.safe_only, code=self.code)
        return sorted(
            entry.name
            for entry in self.path.iterdir()
            if entry.is_file() and _matches(entry.name, patterns) and not _matches(entry.name, COPIES)
        )

    @cached_property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Name -> bytes and SHA-256 of each file that makes the model what it is."""
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            digests = list(pool.map(lambda name: _sha256(self.path / name), self.names))
        return {
            name: {"bytes": (self.path / name).stat().st_size, "sha256": sha256}
            for name, sha256 in zip(self.names, digests, strict=True)
        }

    @cached_property
    def weights(self) -> Sequence[str]:
        """The files that transformers reads the model's weights from; none where it would find none.

        Raises `ModelError` for files that are not in the folder, and so in no digest of it.
        """
        named = self.json("config.json").get("transformers_weights")
        if named is not None and (named not in self.names or not _matches(named, SAFE_WEIGHTS)):
            raise ModelError(
                f"{self.path}/config.json says that its weights are in {named!r} (transformers_weights), which is no file of "
                "safetensors in this folder; remove the key, or restore the file"
            )
        places = [named] if named is not None else [*SAFE_NAMES, *PICKLED_NAMES]
        first = next((name for name in places if name in self.names), None)
        if first is None:
            return []
        if not first.endswith(".index.json"):
            return [first]
        parts = self.json(first).get("weight_map")
        if not isinstance(parts, dict) or not parts or not all(isinstance(part, str) for part in parts.values()):
            raise ModelError(f"{self.path / first} does not say which file holds which weight; copy or save the model again")
        found = sorted({*parts.values()})
        absent = [part for part in found if part not in self.names]
        if absent:
            raise ModelError(
                f"{self.path / first} names {len(absent)} files that are not in this folder ({absent[0]}, ...); "
                "copy the whole model folder"
            )
        return found

    @property
    def fingerprint(self) -> str:
        contents = dict(self.files)
        if self.is_adapter:
            # Where an adapter's base lay when it was saved is a place, not a content.
            config = self.json("adapter_config.json")
            contents["adapter_config.json"] = {name: config[name] for name in config if name != "base_model_name_or_path"}
        return digest(contents)

    @property
    def is_adapter(self) -> bool:
        return (self.path / "adapter_config.json").is_file()

    def json(self, name: str) -> dict[str, Any]:
        """One of the folder's JSON files; empty where it is absent. Raises `ModelError` for a broken one."""
        file = self.path / name
        if not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise ModelError(f"{file} cannot be read: {error}; restore the file or export the model again") from error
        if not isinstance(content, dict):
            raise ModelError(f"{file} holds no JSON object; restore the file or export the model again")
        return content

    def check_model(self, *, trust: str = ", or trust them with --model-arg use_safetensors=false") -> None:
        """Raises `ModelError` for a folder that cannot be a model, with what is missing and what to do.

        `trust` ends the sentence on pickled weights: what else a user may do than convert them.
        """
        if not (self.path / "config.json").is_file():
            raise ModelError(
                f"{self.path} holds no config.json, so it is no model of transformers; name the folder that save_pretrained wrote"
            )
        # Tokenizers may be called *.model, adapters adapter_model.*: neither is the model's weights.
        if not self.weights and not any(
            name.endswith((".safetensors", ".bin")) and not name.startswith("adapter_") for name in self.names
        ):
            raise ModelError(
                f"{self.path} holds no weights in safetensors; copy the whole model folder, or, if its weights are pickle files, "
                f"which can run code when read, convert them{trust}"
            )
        # transformers passes over a torn one, and with it over where texts end.
        ends = self.json("generation_config.json").get("eos_token_id")
        if not all(isinstance(end, int) for end in (ends if isinstance(ends, list) else [ends]) if end is not None):
            raise ModelError(
                f"{self.path}/generation_config.json has eos_token_id={ends!r}, which is no token's number; restore the file"
            )

    def check_adapter(self) -> None:
        """Raises `ModelError` for a folder that cannot be an adapter."""
        if not self.is_adapter:
            raise ModelError(
                f"{self.path} holds no adapter_config.json, so it is no adapter of peft; name the folder that peft saved"
            )
        self.json("adapter_config.json")
        if "adapter_model.safetensors" not in self.names and "adapter_model.bin" not in self.names:
            raise ModelError(f"{self.path} has an adapter_config.json but no adapter_model.safetensors; save the adapter again")


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A model whose weights lie here: its base, and the adapter that is put on it, if any."""

    base: ModelFolder
    adapter: ModelFolder | None = None

    @property
    def fingerprint(self) -> str:
        return digest([self.base.fingerprint, self.adapter.fingerprint if self.adapter else None])

    @property
    def tokenizer(self) -> Path:
        """Where its tokenizer lies. An adapter may bring tokens of its own; then it was saved with its tokenizer."""
        own = self.adapter is not None and (self.adapter.path / "tokenizer_config.json").is_file()
        return self.adapter.path if own and self.adapter else self.base.path

    def describe(self) -> dict[str, Any]:
        """What it is, for the record of a run."""
        config, adapter = self.base.json("config.json"), self.adapter
        return {
            "architecture": config.get("architectures"),
            "model_type": config.get("model_type"),
            "files": dict(self.base.files),
            "adapter": None if adapter is None else {"fingerprint": adapter.fingerprint, "files": dict(adapter.files)},
        }


def find_local_model(
    name: str, *, scheme: str, adapter: str | None, revision: str | None, safe_only: bool, code: bool
) -> LocalModel:
    """The model of a folder or hub name: of a model, or of an adapter, which brings its base along.

    `scheme` is the backend's name, for what the sentences propose. Raises `ModelError` and `UsageError`.
    """

    def find(name: str, revision: str | None = None) -> ModelFolder:
        return find_model(name, revision=revision, safe_only=safe_only, code=code)

    if revision is not None and _path(name).is_dir():
        raise UsageError(f"--model-arg revision={revision}: {name} is a folder here; only names on the hub have revisions")
    first = find(name, revision)
    if not first.is_adapter:
        first.check_model()
        second = None if adapter is None else find(adapter)
        if second is not None:
            second.check_adapter()
        return LocalModel(base=first, adapter=second)
    if adapter is not None:
        raise UsageError(f"{name} is an adapter itself; leave out --model-arg adapter={adapter}")
    first.check_adapter()
    config = first.json("adapter_config.json")
    named, pinned = config.get("base_model_name_or_path"), config.get("revision")
    instead = f"{scheme}:BASE with --model-arg adapter={name}"
    if not isinstance(named, str) or not named:
        raise ModelError(f"{first.path}/adapter_config.json names no base model; use {instead}")
    place = _base_folder(first, named, instead)
    try:
        base = find(named, pinned if isinstance(pinned, str) and pinned else None) if place is None else find(str(place))
        base.check_model()
    except ModelError as error:
        raise ModelError(f"the adapter in {first.path} has the base model {named!r}, but {error}; or use {instead}") from error
    if base.is_adapter:
        # transformers would put that one on, too, and lose a part of some kinds in silence.
        raise ModelError(
            f"the base model of the adapter in {first.path}, {base.path}, holds an adapter itself; merge that one into it "
            f"(merge_and_unload of peft), or, where it is the same, use {scheme}:BASE with a folder that holds the base alone"
        )
    return LocalModel(base=base, adapter=first)


def _base_folder(adapter: ModelFolder, named: str, instead: str) -> Path | None:
    """The folder that an adapter names as its base; `None` if there is none here, so that it may be a name on the hub.

    A relative path is one from here, as peft reads it, or from the adapter's folder, which may have moved with its base.
    """
    places = [place for place in (Path(named), (adapter.path / named).resolve()) if place.is_dir()]
    if len(places) == 2 and not places[0].samefile(places[1]):
        raise ModelError(
            f"the adapter in {adapter.path} has the base model {named!r}, which is a folder here and another one beside the "
            f"adapter; use {instead}"
        )
    return places[0] if places else None


def find_model(name: str, *, revision: str | None, safe_only: bool, code: bool, weights: bool = True) -> ModelFolder:
    """The folder of a model given by path or hub name; what is missing is fetched from the hub into its cache.

    Without `weights` nothing but configuration and tokenizer is fetched, for who reads no more.
    Raises `ModelError` for a path that does not exist, and for a hub name that cannot be had.
    """
    path = _path(name)
    if path.is_dir():
        return ModelFolder(path=path, safe_only=safe_only, code=code)
    if path.exists():
        raise ModelError(f"{name} is a file; name the folder that holds config.json and the weights")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelError(f"the model folder {name} does not exist; check the path, or give a hub name such as org/model")
    path = _fetch(name, revision, _patterns(safe_only=safe_only, code=code, weights=weights))
    return ModelFolder(path=path, safe_only=safe_only, code=code)


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # `~somebody` who is not here
        return Path(name)


def _patterns(*, safe_only: bool, code: bool, weights: bool = True) -> list[str]:
    of_weights = [*SAFE_WEIGHTS, *([] if safe_only else PICKLED_WEIGHTS)] if weights else []
    return [*CONFIGURATION, *of_weights, *(["*.py"] if code else [])]


def _matches(name: object, patterns: Sequence[str]) -> bool:
    return isinstance(name, str) and any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _fetch(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]  # httpx's, or its successor's

    at = f" at revision {revision!r}" if revision else ""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(COPIES)))
    except HFValidationError as error:
        raise ModelError(f"{name!r} is neither a folder here nor a valid hub name (org/model)") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"the model {name!r}{at} is neither a folder here nor on the hub; check the name, and log in (hf auth login) "
            "if it is private"
        ) from error
    except (OSError, ClientError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"the model {name!r}{at} is no folder here and could not be fetched from the hub ({reason}); "
            "check the name and the connection, or give the path of a downloaded copy"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
