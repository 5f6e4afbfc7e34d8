"""The header of a GGUF file: what the model is, and whether the file is whole, without loading it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmedeval import ModelError

VERSIONS = (2, 3)
MOST_DIMENSIONS = 4
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
# Of a tensor type's number: its name, how many weights are a block, and the bytes of a block.
_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Header:
    """`metadata` has the scalars and strings of the file; of an array (tokens, merges) its length. `types` counts tensors."""

    version: int
    metadata: Mapping[str, Any]
    tensors: int
    types: Mapping[str, int]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def context_length(self) -> int | None:
        value = self.metadata.get(f"{self.architecture}.context_length")
        return int(value) if isinstance(value, int) and value > 0 else None

    @property
    def chat_template(self) -> str | None:
        template = self.metadata.get("tokenizer.chat_template")
        return template if isinstance(template, str) and template else None

    @property
    def warnings(self) -> list[str]:
        """What makes the model's answers doubtful, in sentences."""
        if self.metadata.get("tokenizer.ggml.model") == "gpt2" and "tokenizer.ggml.pre" not in self.metadata:
            return ["the file does not say how text is split into tokens (tokenizer.ggml.pre): convert the model again"]
        return []


def find_file(name: str) -> Path:
    """The file of a name that the user gave. Raises `ModelError` for a folder, naming the GGUF files inside, and for nothing."""
    path = Path(name).expanduser() if name.startswith("~/") else Path(name)
    if path.is_dir():
        inside = sorted(path.glob("*.gguf"))
        named = f"name one of its files, as in gguf:{inside[0]}" if inside else "it holds no .gguf file; use hf: for transformers"
        raise ModelError(f"{name} is a folder; {named}")
    if not path.is_file():
        raise ModelError(f"the GGUF file {name} does not exist; check the path")
    return path


def read_header(path: Path) -> Header:
    """Raises `ModelError` for a file that is no GGUF, of a version that llama.cpp does not read, or cut off."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        start = handle.read(8)
        if start[:4] != b"GGUF":
            raise ModelError(
                f"{path} is no GGUF file: it begins with {start[:4]!r}; export the model to GGUF, or name another file"
            )
        if size < 24:
            raise _cut_off(path, size, None)
        (version,) = struct.unpack("<I", start[4:])
        if version & 0xFFFF == 0:
            raise ModelError(f"{path} was written for big-endian machines; convert it with gguf_convert_endian.py of llama.cpp")
        if version not in VERSIONS:
            raise ModelError(f"{path} is GGUF of version {version}; versions 2 and 3 are read: convert the model again")
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _read(path, size, version, _Reader(data))
            except IndexError as error:
                raise _cut_off(path, size, None) from error
            except UnicodeDecodeError as error:
                raise ModelError(f"{path} has a text that is no UTF-8; its header is damaged: copy the file again") from error


class _Reader:
    """Reads values one behind the other; `IndexError` where the data end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 8

    def number(self, form: str) -> Any:
        start = self._skip(struct.calcsize(form))
        return struct.unpack_from(form, self.data, start)[0]

    def text(self) -> str:
        start = self._skip(self.number("<Q"))
        return self.data[start : self.at].decode("utf-8")

    def _skip(self, length: int) -> int:
        start, self.at = self.at, self.at + length
        if self.at > len(self.data):
            raise IndexError(self.at)
        return start

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.number(_SCALARS[kind])
        kind, length = self.number("<I"), self.number("<Q")
        if kind == _STRING:
            for _ in range(length):
                self._skip(self.number("<Q"))
        else:
            # llama.cpp, too, knows no arrays of arrays.
            self._skip(length * struct.calcsize(_SCALARS[kind]))
        return length


def _read(path: Path, size: int, version: int, reader: _Reader) -> Header:
    count, pairs = reader.number("<Q"), reader.number("<Q")
    metadata: dict[str, Any] = {}
    try:
        for _ in range(pairs):
            name = reader.text()
            metadata[name] = reader.value(reader.number("<I"))
    except KeyError as error:
        raise ModelError(f"{path} has a value of the unknown type {error}; its header is damaged: copy the file again") from error
    types: Counter[str] = Counter()
    end = 0
    for _ in range(count):
        reader.text()
        dimensions = reader.number("<I")
        if dimensions > MOST_DIMENSIONS:
            raise ModelError(f"{path} has a tensor of {dimensions} dimensions; its header is damaged: copy the file again")
        shape = [reader.number("<Q") for _ in range(dimensions)]
        kind, offset = reader.number("<I"), reader.number("<Q")
        # A type newer than this list is llama.cpp's to judge.
        name, block, width = _TYPES.get(kind, (f"type {kind}", 1, 0))
        types[name] += 1
        end = max(end, offset + math.prod(shape) // block * width)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ModelError(f"{path} aligns its tensors by {alignment!r}; its header is damaged: copy the file again")
    data_start = -(-reader.at // alignment) * alignment
    if count and data_start + end > size:
        raise _cut_off(path, size, data_start + end)
    return Header(version=version, metadata=metadata, tensors=count, types=dict(sorted(types.items())))


def _cut_off(path: Path, size: int, expected: int | None) -> ModelError:
    of = f" of {expected:,}" if expected else ""
    return ModelError(f"{path} is cut off: {size:,}{of} bytes are there; copy or download the whole file again")


def check_model(path: Path, header: Header) -> None:
    """Raises `ModelError` for a GGUF file that holds something else than a whole language model."""
    kind = header.metadata.get("general.type", "model")
    if kind == "adapter":
        raise ModelError(f"{path} is a LoRA adapter; name its base model, with --model-arg lora={path}")
    if kind not in ("model", "") or header.architecture == "clip" or not header.tensors:
        raise ModelError(
            f"{path} holds no language model (type {kind}, {header.architecture}, {header.tensors} tensors); name another"
        )
    parts = header.metadata.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        raise ModelError(f"{path} is one of {parts} parts; join them with llama-gguf-split --merge and name the whole file")
    if header.metadata.get("tokenizer.ggml.model") in (None, "none", "no_vocab"):
        raise ModelError(f"{path} has no tokenizer; convert the model again, with its tokenizer beside it")
    for name, wrong in _wrong(header):
        raise ModelError(f"{path} has {name}={wrong!r}, which no model has; its header is damaged: copy or convert it again")


def _wrong(header: Header) -> Iterator[tuple[str, Any]]:
    """What llama.cpp would put a token of its own in place of, or end the process at."""
    metadata = header.metadata
    tokens = metadata.get("tokenizer.ggml.tokens")
    for role in ("bos", "eos"):
        name = f"tokenizer.ggml.{role}_token_id"
        token = metadata.get(name, 0)
        if not isinstance(token, int) or (isinstance(tokens, int) and not 0 <= token < tokens):
            yield name, token
    name = f"{header.architecture}.block_count"
    blocks = metadata.get(name, 1)
    # A block has tensors.
    if not isinstance(blocks, int) or not 1 <= blocks <= header.tensors:
        yield name, blocks
    for name, value in metadata.items():
        if isinstance(value, float) and not (math.isfinite(value) and (value >= 0 or not name.endswith("epsilon"))):
            yield name, value
