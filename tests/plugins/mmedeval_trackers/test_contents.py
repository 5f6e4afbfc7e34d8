"""What trackers are told of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmedeval import UsageError
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import run
from mmedeval.types import RunPlan
from mmedeval_trackers import mmedeval_trackers
from mmedeval_trackers.contents import figures, parameters, record_text, run_name


@pytest.mark.parametrize("where", ["a/b/c", "/b", "a/", "/"])
def test_a_place_at_wandb_that_names_no_project_is_refused_before_the_run(where: str) -> None:
    (spec,) = (spec for spec in mmedeval_trackers() if spec.name == "wandb")
    with pytest.raises(UsageError, match=f"the tracker wandb={where} names no project; write wandb=PROJECT or"):
        spec.load(where)


def test_parameters_are_what_was_chosen() -> None:
    plan = RunPlan(model="hf:./x", tasks=("a", "b"), model_args={"dtype": "bfloat16"}, limit=7, data_dir=Path("data"))
    chosen = parameters(plan)
    assert chosen["tasks"] == "a,b"
    assert chosen["model_args.dtype"] == "bfloat16"
    assert chosen["limit"] == "7"
    assert not {"languages", "max_tokens", "rotations", "metrics"} & set(chosen)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("hf:./runs/checkpoint-9/", "checkpoint-9"),
        ("baseline:random", "baseline:random"),
        ("openai:some-model", "openai:some-model"),
    ],
)
def test_a_run_bears_the_name_of_its_model(model: str, name: str) -> None:
    assert run_name(RunPlan(model=model, tasks=())) == name


def test_every_figure_is_there_with_its_interval_and_what_it_leaves_out(tmp_path: Path) -> None:
    record, _ = run(RunPlan(model="baseline:longest", tasks=("mmedbench_mini",)), Catalog(make_host()), tmp_path / "run")
    found = figures(record)
    for figure in record.aggregates:
        assert found[f"{figure.metric}/{figure.task}"] == figure.value
        assert found[f"{figure.metric}/{figure.task}/low"] == figure.low
        assert found[f"{figure.metric}/{figure.task}/high"] == figure.high
    assert (found["n/mmedbench_mini_ja"], found["failed/mmedbench_mini_ja"]) == (40, 0)
    assert json.loads(record_text(record)) == record.data
