"""Which files vLLM would read, told by the folder alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from mmedeval import ModelError
from mmedeval.model_files import ModelFolder
from mmedeval_vllm.backend import VLLMBackend
from mmedeval_vllm.headers import check_weights, shapes


def sharded(source: Path, folder: Path) -> Path:
    """A copy of a model with its weights in two files and an index."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    half = len(weights) // 2
    parts = {"one.safetensors": dict([*weights.items()][:half]), "two.safetensors": dict([*weights.items()][half:])}
    for name, tensors in parts.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {tensor: name for name, tensors in parts.items() for tensor in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_a_model_in_one_file_or_in_several_with_an_index_is_read_as_transformers_reads_it(tiny: Path, tmp_path: Path) -> None:
    check_weights(ModelFolder(tiny))
    path = sharded(tiny, tmp_path / "sharded")
    check_weights(ModelFolder(path))
    # What no index names is read by neither.
    shutil.copy(tiny / "model.safetensors", path / "left-over.safetensors")
    check_weights(ModelFolder(path))
    assert shapes(ModelFolder(path), adapter=False) == shapes(ModelFolder(tiny), adapter=False)


@pytest.mark.parametrize("name", ["left-over.safetensors", "adapter_model.safetensors", "consolidated.safetensors"])
def test_a_file_that_vllm_alone_would_read_is_refused_before_a_run(name: str, tiny: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny, tmp_path / "model"))
    shutil.copy(tiny / "model.safetensors", path / name)
    with pytest.raises(ModelError, match=rf"vLLM would read {name}.*transformers model\.safetensors; move what is left over"):
        VLLMBackend(str(path), {}).check(chat=False)


def test_an_index_left_over_beside_whole_weights_is_refused(tiny: Path, tmp_path: Path) -> None:
    """transformers reads the whole, vLLM what the index names."""
    path = sharded(tiny, tmp_path / "model")
    shutil.copy(tiny / "model.safetensors", path)
    with pytest.raises(ModelError, match=r"vLLM would read one\.safetensors, two\.safetensors, transformers model\.safetensors;"):
        VLLMBackend(str(path), {}).check(chat=False)
    (path / "one.safetensors").unlink()
    with pytest.raises(ModelError, match=r"move what is left over \(of weights, or model\.safetensors\.index\.json\)"):
        VLLMBackend(str(path), {}).check(chat=False)


def test_pickled_weights_that_are_trusted_are_vllms_to_find(tiny: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny, tmp_path / "model"))
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    check_weights(ModelFolder(path, safe_only=False))
