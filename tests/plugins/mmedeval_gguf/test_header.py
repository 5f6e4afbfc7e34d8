"""GGUF files as they come: what is read of them without llama.cpp, and what is wrong with them in one sentence."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from mmedeval import ModelError
from mmedeval_gguf.header import check_model, find_file, read_header


@pytest.fixture(scope="session")
def model(exported: Callable[..., Path], tiny: Callable[..., Path]) -> Path:
    return exported(tiny(), "q8_0")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def tensorless(*pairs: tuple[str, str], tensors: int = 0) -> bytes:
    """A GGUF file with strings for metadata and no tensors."""
    body = b"".join(text(name) + struct.pack("<I", 8) + text(value) for name, value in pairs)
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(pairs)) + body


def test_the_header_is_what_the_gguf_package_reads(model: Path) -> None:
    import gguf

    reader = gguf.GGUFReader(model)
    header = read_header(model)
    assert header.version == 3
    assert header.tensors == len(reader.tensors)
    types = [tensor.tensor_type.name for tensor in reader.tensors]
    assert header.types == {name: types.count(name) for name in sorted({*types})}
    for name, field in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        value = field.contents()
        assert header.metadata[name] == (len(value) if isinstance(value, list) else value), name
    assert (header.architecture, header.context_length) == ("llama", 4096)
    assert header.chat_template == reader.fields["tokenizer.chat_template"].contents()
    check_model(model, header)


def test_the_sizes_of_tensor_types_are_those_of_the_gguf_package() -> None:
    import gguf

    from mmedeval_gguf.header import _TYPES

    known = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: known[kind] for kind in _TYPES} == _TYPES


@pytest.mark.parametrize("part", [0.0005, 0.01, 0.1, 0.5, 0.99, 1.0])
def test_a_file_that_is_cut_off_anywhere_is_seen_as_such(part: float, model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    cut = tmp_path / "cut.gguf"
    # 1.0: all but the last weights, beyond the padding that may follow them.
    cut.write_bytes(data[: min(int(len(data) * part), len(data) - 33)])
    with pytest.raises(ModelError, match=r"cut\.gguf is cut off: [\d,]+( of [\d,]+)? bytes are there; copy or download"):
        read_header(cut)


def test_every_length_of_a_header_gives_a_sentence(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in [*range(4, 400), *range(400, 60_000, 997)]:
        cut.write_bytes(data[:length])
        with pytest.raises(ModelError, match="is cut off"):
            read_header(cut)


def test_what_is_no_gguf_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04 a zip", b"{}"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ModelError, match="is no GGUF file: it begins with b'"):
            read_header(tmp_path / "x")


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (1, "is GGUF of version 1; versions 2 and 3 are read"),
        (9, "of version 9"),
        (3 << 24, "was written for big-endian machines"),
    ],
)
def test_a_version_that_llama_cpp_does_not_read_is_named(version: int, sentence: str, model: Path, tmp_path: Path) -> None:
    data = bytearray(model.read_bytes())
    data[4:8] = struct.pack("<I", version)
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(ModelError, match=sentence):
        read_header(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (tensorless(("general.type", "adapter")), "is a LoRA adapter; name its base model, with --model-arg lora="),
        (tensorless(("general.architecture", "clip")), r"holds no language model \(type model, clip, 0 tensors\)"),
        (tensorless(("general.architecture", "llama")), "holds no language model"),
    ],
)
def test_files_that_hold_something_else_are_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=sentence):
        check_model(file, read_header(file))


def test_a_value_of_an_unknown_type_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("general.name") + struct.pack("<I", 77) + b"\0" * 40)
    with pytest.raises(ModelError, match="unknown type 77; its header is damaged"):
        read_header(file)


def test_a_folder_is_answered_with_the_files_inside(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is a folder; it holds no \.gguf file; use hf: for transformers"):
        find_file(str(tmp_path))
    (tmp_path / "b.gguf").touch()
    (tmp_path / "a.gguf").touch()
    with pytest.raises(ModelError, match=f"name one of its files, as in gguf:{tmp_path}{os.sep}a.gguf"):
        find_file(str(tmp_path))
    with pytest.raises(ModelError, match="does not exist; check the path"):
        find_file(str(tmp_path / "c.gguf"))
