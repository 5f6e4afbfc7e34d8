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

from mmedeval.errors import ModelError
from mmedeval.types import digest

CONFIGURATION = (
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer*.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "chat_template.*",
)  # fmt: skip
SAFE_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
PICKLED_WEIGHTS = ("pytorch_model*.bin", "pytorch_model*.bin.index.json", "adapter_model.bin")


@dataclass(frozen=True)
class ModelFolder:
    """A model's files. `safe_only` leaves out pickled weights, `code` takes Python files in."""

    path: Path
    safe_only: bool = True
    code: bool = False

    @cached_property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Name -> bytes and SHA-256 of each file that makes the model what it is."""
        patterns = [*CONFIGURATION, *SAFE_WEIGHTS]
        patterns += [] if self.safe_only else PICKLED_WEIGHTS
        patterns += ["*.py"] if self.code else []
        names = sorted(
            entry.name
            for entry in self.path.iterdir()
            if entry.is_file() and any(fnmatch.fnmatch(entry.name, pattern) for pattern in patterns)
        )
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            digests = list(pool.map(lambda name: _sha256(self.path / name), names))
        return {
            name: {"bytes": (self.path / name).stat().st_size, "sha256": sha256}
            for name, sha256 in zip(names, digests, strict=True)
        }

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
        except (ValueError, OSError) as error:
            raise ModelError(f"{file} cannot be read: {error}; restore the file or export the model again") from error
        if not isinstance(content, dict):
            raise ModelError(f"{file} holds no JSON object; restore the file or export the model again")
        return content

    def check_model(self) -> None:
        """Raises `ModelError` for a folder that cannot be a model, with what is missing and what to do."""
        if not (self.path / "config.json").is_file():
            raise ModelError(
                f"{self.path} holds no config.json, so it is no model of transformers; name the folder that save_pretrained wrote"
            )
        self.json("config.json")
        # Tokenizers may be called *.model, adapters adapter_model.*: neither is the model's weights.
        if not any(name.endswith((".safetensors", ".bin")) and not name.startswith("adapter_") for name in self.files):
            raise ModelError(
                f"{self.path} holds no weights in safetensors; copy the whole model folder, or, if its weights are pickle files, "
                "which can run code when read, convert them or trust them with --model-arg use_safetensors=false"
            )

    def check_adapter(self) -> None:
        """Raises `ModelError` for a folder that cannot be an adapter."""
        if not self.is_adapter:
            raise ModelError(
                f"{self.path} holds no adapter_config.json, so it is no adapter of peft; name the folder that peft saved"
            )
        self.json("adapter_config.json")
        if "adapter_model.safetensors" not in self.files and "adapter_model.bin" not in self.files:
            raise ModelError(f"{self.path} has an adapter_config.json but no adapter_model.safetensors; save the adapter again")


def find_model(name: str, *, revision: str | None, safe_only: bool, code: bool) -> ModelFolder:
    """The folder of a model given by path or hub name; what is missing is fetched from the hub into its cache.

    Raises `ModelError` for a path that does not exist, and for a hub name that cannot be had.
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # `~somebody` who is not here
        path = Path(name)
    if path.is_dir():
        return ModelFolder(path=path, safe_only=safe_only, code=code)
    if path.exists():
        raise ModelError(f"{name} is a file; name the folder that holds config.json and the weights")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelError(f"the model folder {name} does not exist; check the path, or give a hub name such as org/model")
    patterns = [*CONFIGURATION, *SAFE_WEIGHTS, *([] if safe_only else PICKLED_WEIGHTS), *(["*.py"] if code else [])]
    return ModelFolder(path=_fetch(name, revision, patterns), safe_only=safe_only, code=code)


def _fetch(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]  # httpx's, or its successor's

    at = f" at revision {revision!r}" if revision else ""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
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
