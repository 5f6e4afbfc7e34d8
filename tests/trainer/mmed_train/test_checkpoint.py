"""Checkpoints as files: which tensors are read from where, and headers that lie."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy", reason="numpy is not installed")

import numpy as np

from mmed_train.checkpoint import Checkpoint
from mmedeval import ModelError


def entry(dtype: str, shape: list[Any], start: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def write(file: Path, header: object, data: bytes = b"\0" * 64) -> Path:
    """A file of safetensors; returns its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(content)) + content + data)
    return file.parent


def store(file: Path, **tensors: Any) -> Path:
    """A file with float32 tensors."""
    header, data = {}, b""
    for name, values in tensors.items():
        array = np.asarray(values, dtype="<f4")
        header[name] = entry("F32", list(array.shape), len(data), len(data) + array.nbytes)
        data += array.tobytes()
    return write(file, header, data)


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        _ = Checkpoint(path).tensors
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tensors_of_every_kind_are_read_exactly(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    tensors = {
        "double": random.normal(size=(3, 5)),
        "single": random.normal(size=(7,)).astype(np.float32),
        "half": random.normal(size=(2, 2, 2)).astype(np.float16),
        "empty": np.zeros((0, 4), dtype=np.float32),
        "scalar": np.array(3.5, dtype=np.float32),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.tensors.keys() == tensors.keys()
    for name, wanted in tensors.items():
        found = checkpoint.read(name)
        assert found.shape == wanted.shape
        assert np.array_equal(found, wanted.astype(np.float32) if name == "double" else wanted)


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    # 1, -2.5, 3.140625 and the largest of all, by the definition of bfloat16.
    halves = np.array([0x3F80, 0xC020, 0x4049, 0x7F7F], dtype="<u2")
    write(tmp_path / "model.safetensors", {"a": entry("BF16", [2, 2], 0, 8)}, halves.tobytes())
    assert Checkpoint(tmp_path).read("a").tolist() == [[1.0, -2.5], [3.140625, (2 - 2**-7) * 2.0**127]]


def test_of_whole_weights_and_an_index_left_over_the_whole_ones_are_read_as_in_transformers(tmp_path: Path) -> None:
    store(tmp_path / "part.safetensors", a=[1.0])
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part.safetensors"}}))
    assert Checkpoint(tmp_path).read("a").tolist() == [1.0]
    store(tmp_path / "model.safetensors", a=[2.0])
    assert Checkpoint(tmp_path).read("a").tolist() == [2.0]


def test_an_index_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path / "checkpoint" / "here.safetensors", a=[1.0])
    store(tmp_path / "there.safetensors", b=[1.0])
    weights = {"a": "here.safetensors", "b": "../there.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    assert "../there.safetensors" in refused(path)


def test_a_tensor_in_two_files_is_refused_since_either_may_be_meant(tmp_path: Path) -> None:
    store(tmp_path / "one.safetensors", a=[1.0], b=[1.0])
    store(tmp_path / "two.safetensors", b=[2.0])
    weights = {"a": "one.safetensors", "b": "two.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    assert "holds the tensor b in two files" in refused(tmp_path)


def test_a_checkpoint_without_weights_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    assert "model.safetensors is not there; save the checkpoint again, in safetensors" in refused(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry("F32", [4], 0, 12)},
        {"a": entry("F32", [4], 60, 76)},
        {"a": entry("F32", [4], -16, 0)},
        {"a": entry("F32", [-2, -2], 0, 16)},
        {"a": entry("F32", [2.0, 2.0], 0, 16)},
        {"a": entry("F32", [4], 0.0, 16.0)},
        {"a": entry("F32", [True, 4], 0, 16)},
        {"a": entry("F32", [2**62, 4], 0, 2**66)},
        {"a": {"dtype": "F32", "shape": 4, "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0]}},
        {"a": {"dtype": [], "shape": [4], "data_offsets": [0, 16]}},
        {"a": {}},
        {"a": 5},
        [],
        5,
        b"[" * 100_000,
        b"\xff\xff",
        b"",
    ],
    ids=str,
)
def test_a_header_that_does_not_fit_its_file_is_one_sentence(header: object, tmp_path: Path) -> None:
    assert "is no whole safetensors file" in refused(write(tmp_path / "model.safetensors", header))


@pytest.mark.parametrize("length", [2**64 - 1, 2**40, 100_000_001, 1000])
def test_a_header_longer_than_its_file_is_not_read(length: int, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}" * 100)
    assert "is no whole safetensors file" in refused(tmp_path)


def test_a_type_that_is_not_exported_is_named(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", {"a": entry("F8_E4M3", [4], 0, 4)})
    assert "the tensor a is of type F8_E4M3; the export reads F64, F32, F16, BF16" in refused(tmp_path)


def test_two_tensors_are_the_same_byte_for_byte_however_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmed_train.checkpoint.CHUNK", 8)
    other = np.arange(20.0)
    other[-1] += 1
    store(tmp_path / "model.safetensors", a=np.arange(20.0), b=np.arange(20.0), c=other, d=np.arange(20.0).reshape(4, 5), e=[])
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.same("a", "b")
    assert not checkpoint.same("a", "c")
    assert not checkpoint.same("a", "d")
    assert checkpoint.same("e", "e")


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_a_damaged_json_file_is_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json (cannot be read|holds no JSON object).*save the checkpoint again"):
        _ = Checkpoint(tmp_path).config
