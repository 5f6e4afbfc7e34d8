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


U32, F32, STRING, ARRAY = 4, 6, 8, 9


def pair(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def whole(number: int) -> bytes:
    return struct.pack("<I", number)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        # An array in an array in an array.
        (struct.pack("<IQ", ARRAY, 1) * 3000, "unknown type 9"),
        # So long that no machine can count to its end.
        (struct.pack("<IQ", 10, 2**63) + b"\0" * 64, "is cut off"),
        (struct.pack("<IQ", STRING, 2**63) + b"\0" * 64, "is cut off"),
        (struct.pack("<IQ", STRING, 1) + struct.pack("<Q", 2**64 - 1), "is cut off"),
        (struct.pack("<IQ", STRING, 2**40), "is cut off"),
    ],
    ids=["nested", "long", "many strings", "long string", "nothing"],
)
def test_a_forged_array_is_one_sentence(value: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("tokenizer.ggml.tokens", ARRAY, value))
    with pytest.raises(ModelError, match=sentence):
        read_header(file)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (pair("general.alignment", U32, whole(0)), "aligns its tensors by 0"),
        (pair("general.alignment", STRING, text("x")), "aligns its tensors by 'x'"),
        (pair("general.name", STRING, struct.pack("<Q", 2) + b"\xff\xfe"), "a text that is no UTF-8"),
    ],
)
def test_a_forged_value_is_one_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + content + b"\0" * 64)
    with pytest.raises(ModelError, match=f"{sentence}.*copy the file again"):
        read_header(file)


@pytest.mark.parametrize(("dimensions", "sentence"), [(5, "a tensor of 5 dimensions"), (2**32 - 1, "a tensor of 4294967295 dim")])
def test_a_tensor_of_too_many_dimensions_is_damage(dimensions: int, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("a") + whole(dimensions) + b"\0" * 400)
    with pytest.raises(ModelError, match=sentence):
        read_header(file)


def changed(model: Path, folder: Path, name: str, kind: int, value: bytes) -> Path:
    """A copy of a file with another value under a name."""
    import gguf

    reader = gguf.GGUFReader(model)
    kept = [field for field in reader.fields.values() if not field.name.startswith("GGUF.") and field.name != name]
    pairs = b"".join(part.tobytes() for field in kept for part in field.parts) + pair(name, kind, value)
    start = reader.tensors[0].field.offset
    infos = model.read_bytes()[
        start : reader.tensors[-1].field.offset + sum(part.nbytes for part in reader.tensors[-1].field.parts)
    ]
    header = b"GGUF" + struct.pack("<IQQ", 3, len(reader.tensors), len(kept) + 1) + pairs + infos
    path = folder / "changed.gguf"
    path.write_bytes(header + b"\0" * (-len(header) % 32) + model.read_bytes()[reader.data_offset :])
    return path


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("tokenizer.ggml.bos_token_id", U32, whole(10**9)),
        ("tokenizer.ggml.eos_token_id", U32, whole(10**9)),
        ("tokenizer.ggml.bos_token_id", STRING, text("<s>")),
        ("llama.block_count", U32, whole(0)),
        ("llama.block_count", U32, whole(10**9)),
        ("llama.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", -1.0)),
        ("llama.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", float("nan"))),
        ("llama.rope.freq_base", F32, struct.pack("<f", float("inf"))),
    ],
)
def test_numbers_for_which_llama_cpp_takes_others_or_ends_the_process_are_refused(
    name: str, kind: int, value: bytes, model: Path, tmp_path: Path
) -> None:
    path = changed(model, tmp_path, name, kind, value)
    with pytest.raises(ModelError, match=f"has {name}=.*its header is damaged"):
        check_model(path, read_header(path))


def test_a_part_of_a_model_is_told_by_a_number_and_by_nothing_else(model: Path, tmp_path: Path) -> None:
    path = changed(model, tmp_path, "split.count", U32, whole(3))
    with pytest.raises(ModelError, match="is one of 3 parts"):
        check_model(path, read_header(path))
    path = changed(model, tmp_path, "split.count", STRING, text("x"))
    check_model(path, read_header(path))


@pytest.mark.parametrize("role", ["unknown", "padding"])
def test_a_token_beyond_the_last_that_only_a_template_may_name_is_no_token(
    role: str, model: Path, llama_cpp: object, tmp_path: Path
) -> None:
    from mmedeval import Prompt
    from mmedeval_gguf.backend import GGUFBackend

    path = changed(model, tmp_path, f"tokenizer.ggml.{role}_token_id", U32, whole(10**9))
    with GGUFBackend(str(path), {"threads": "1"}) as forged, GGUFBackend(str(model), {"threads": "1"}) as sound:
        prompt = Prompt(question="Iron?", chat=True)
        assert forged.encoder.encode_prompt(prompt) == sound.encoder.encode_prompt(prompt)


def test_a_folder_is_answered_with_the_files_inside(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is a folder; it holds no \.gguf file; use hf: for transformers"):
        find_file(str(tmp_path))
    (tmp_path / "b.gguf").touch()
    (tmp_path / "a.gguf").touch()
    with pytest.raises(ModelError, match=f"name one of its files, as in gguf:{tmp_path}{os.sep}a.gguf"):
        find_file(str(tmp_path))
    with pytest.raises(ModelError, match="does not exist; check the path"):
        find_file(str(tmp_path / "c.gguf"))
