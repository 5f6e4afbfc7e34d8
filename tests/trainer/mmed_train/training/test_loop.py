"""The training itself: right steps, whole checkpoints, exact resumes, and what ends it."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor.exc import InvalidCxxCompiler
from transformers import AutoModelForCausalLM, LlamaForCausalLM, get_scheduler

from mmed_train.corpus.shards import open_shards
from mmed_train.training import loop
from mmed_train.training.card import write_card
from mmed_train.training.jobs import prepare
from mmed_train.training.loop import Steps, TrainingStopped, arguments, train
from mmed_train.training.recipe import Recipe
from mmed_train.training.saving import MARK
from mmedeval.errors import BackendError, StoreError, UsageError

Make = Callable[..., Recipe]
Run = Callable[..., Path]
Same = Callable[[Path, Path], bool]
WINDOW = 32


def test_one_step_is_that_of_plain_torch_on_the_documents_apart(
    recipe: Make, trained: Run, base: Path, shards: Path, weights_of: Callable[[Path], dict[str, torch.Tensor]]
) -> None:
    """Packed, accumulated, with logits of the wanted places alone: against one document at a time with transformers' own loss."""
    told = recipe(
        mix={"window": 4096},
        train={"batch": 2, "accumulate": 2, "steps": 1, "warmup": 0, "schedule": "constant", "clip": 0, "save_every": None},
    )  # fmt: skip
    final = weights_of(trained(told))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    space = open_shards([shards])
    documents = [torch.tensor(space.document(i).astype("int64")) for i in range(space.documents)]
    predicted = sum(len(ids) - 1 for ids in documents)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for ids in documents:
        if len(ids) > 1:
            (model(input_ids=ids[None], labels=ids[None]).loss * (len(ids) - 1) / predicted).backward()
    optimizer.step()
    for name, value in model.state_dict().items():
        if name in final:
            # Adam's first step is the sign of the gradient where that is not next to nothing.
            moved = (value - final[name]).abs()
            assert (moved > 1e-5).float().mean() < 0.002, name


def test_an_epoch_predicts_each_token_but_the_documents_first_once(recipe: Make, trained: Run, shards: Path) -> None:
    told = recipe(train={"steps": None, "save_every": None})
    trained(told)
    lines = [json.loads(line) for line in (told.output / "log.jsonl").read_text().splitlines()]
    space = open_shards([shards])
    assert lines[-1]["step"] == lines[-2]["step"]
    assert [line["tokens"] for line in lines if "tokens" in line][-1] == len(space) - space.documents


def test_passes_that_are_accumulated_are_as_good_as_a_larger_batch(
    recipe: Make, trained: Run, losses: Callable[..., Any]
) -> None:
    one = recipe(output="one", train={"batch": 4, "steps": 6, "save_every": None})
    four = recipe(output="four", train={"batch": 1, "accumulate": 4, "steps": 6, "save_every": None})
    trained(one)
    trained(four)
    assert losses(one.output) == pytest.approx(losses(four.output), abs=2e-5)


def test_the_loss_is_a_mean_over_tokens_whatever_a_model_says_of_its_own_loss(
    recipe: Make, trained: Run, losses: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Trainer divides once more by the passes where a model's class does not take their number."""
    sizes: dict[str, Any] = {"train": {"batch": 1, "accumulate": 4, "steps": 3, "save_every": None}}
    usual, other = recipe(output="usual", **sizes), recipe(output="other", **sizes)
    trained(usual)
    monkeypatch.setattr(LlamaForCausalLM, "accepts_loss_kwargs", False, raising=False)
    trained(other)
    assert losses(other.output) == losses(usual.output)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_every_schedule_reaches_its_rate_and_falls_from_there(schedule: str, steps: int, recipe: Make) -> None:
    told = recipe(train={"schedule": schedule, "warmup": 0.3, "decay": 0.9, "steps": steps, "min_lr": 0.1})
    settings = arguments(told, Steps(total=steps, epochs=frozenset()))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(
        settings.lr_scheduler_type,
        optimizer,
        settings.warmup_steps,
        steps,
        scheduler_specific_kwargs=settings.lr_scheduler_kwargs,
    )
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    top = rates.index(1.0)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(("warmup", "told"), [(0.9, False), (3, False), (4, True), (2000, True)])
def test_a_warm_up_that_never_ends_is_told(warmup: float, told: bool, recipe: Make, trained: Run) -> None:
    said: list[str] = []
    trained(recipe(train={"warmup": warmup, "steps": 4, "save_every": None}), said=said)
    found = [each for each in said if "warmup" in each]
    assert found == (
        [f"train.warmup = {warmup} steps, but the training has 4: it never gets to train.lr = 0.001"] if told else []
    )


def test_the_self_test_computes_in_the_type_of_the_training(recipe: Make, trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some attention kernels know no other type than bfloat16."""
    found = []

    def look(model: Any, **_: Any) -> None:
        found.append(torch.is_autocast_enabled("cpu"))

    monkeypatch.setattr(loop, "check_isolation", look)
    trained(recipe(output="half", model={"precision": "bf16"}, train={"steps": 1, "save_every": None}))
    trained(recipe(output="whole", model={"precision": "fp32"}, train={"steps": 1, "save_every": None}))
    assert found == [True, False]


def test_what_was_looked_at_before_a_training_was_cut_off_is_looked_at_anew(recipe: Make, trained: Run) -> None:
    """Under the settings of now, which may be others than those of the run that lies there."""
    looks: dict[str, Any] = {"tasks": ["mmedbench_mini_en"], "every": 2}
    trained(recipe(train={"steps": 4, "save_every": 2}, eval={**looks, "limit": 2}))
    again = recipe(train={"steps": 4, "save_every": 2}, eval={**looks, "limit": 3})
    (again.output / "checkpoint-4" / MARK).unlink()
    trained(again, resume=True)
    asked = {path.name: len((path / "samples.jsonl").read_text().splitlines()) for path in (again.output / "eval").iterdir()}
    assert asked == {"step-0": 2, "step-2": 2, "step-4": 3}


@pytest.mark.parametrize("way", ["liger-less plain path", "gradient checkpointing"])
def test_other_ways_to_compute_give_the_same_losses(
    way: str, recipe: Make, trained: Run, losses: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = recipe(output="usual", train={"steps": 4})
    trained(usual)
    other = recipe(output="other", train={"steps": 4}, model={"gradient_checkpointing": way == "gradient checkpointing"})
    if way != "gradient checkpointing":
        monkeypatch.setattr(loop, "head_sees", None)
        monkeypatch.setattr(loop, "computes_all_logits", lambda _: True)
    trained(other)
    assert losses(usual.output) == pytest.approx(losses(other.output), abs=1e-5)


# --- checkpoints and resumes ---


def killed(recipe: Recipe, patch: Callable[[Callable[[], None]], None]) -> None:
    """Trains in a process of its own that `patch`, given what kills, makes end without warning."""
    with warnings.catch_warnings():
        # Only this thread goes on in the child, and no other one has a lock: torch computes with one.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            patch(lambda: os.kill(os.getpid(), signal.SIGKILL))
            train(prepare(recipe, say=print), resume=False, say=print)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def in_a_step(die: Callable[[], None]) -> None:
    whole = loop._Flow.on_step_end

    def end(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 6:
            die()
        whole(self, args, state, control, **kwargs)

    loop._Flow.on_step_end = end  # type: ignore[method-assign]


def in_a_save(die: Callable[[], None]) -> None:
    finish = loop.finish

    def cut(beside: Path, path: Path, *, step: int) -> None:
        if step == 8:
            die()
        finish(beside, path, step=step)

    loop.finish = cut


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("patch", [in_a_step, in_a_save])
@pytest.mark.parametrize("adapter", ["none", "dora"])
def test_a_training_that_is_killed_goes_on_to_the_same_bits(
    adapter: str, patch: Any, recipe: Make, trained: Run, same_weights: Same, losses: Callable[..., Any]
) -> None:
    told: dict[str, Any] = {"train": {"steps": 12}, "adapter": {"kind": adapter, "dropout": 0.3}}
    whole, cut = recipe(output="whole", **told), recipe(output="cut", **told)
    trained(whole)
    killed(cut, patch)
    said: list[str] = []
    final = trained(cut, resume=True, said=said)
    assert f"going on from {cut.output / 'checkpoint-4'}" in said
    assert same_weights(final, whole.output / "final")
    assert losses(cut.output) == losses(whole.output)
    assert not list(cut.output.glob(".saving*"))


def test_a_resume_reads_the_rows_that_are_left_and_no_other(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    told = recipe(train={"steps": None, "save_every": 20, "batch": 3, "keep": 9})
    job = prepare(told, say=print)
    train(job, resume=False, say=print)
    for checkpoint in told.output.glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-20":
            (checkpoint / MARK).unlink()
    again = prepare(told, say=print)
    read: list[int] = []
    rows = type(again.rows)
    get = rows.__getitem__
    monkeypatch.setattr(rows, "__getitem__", lambda self, index: read.append(index) or get(self, index))
    train(again, resume=True, say=print)
    assert read == list(range(60, len(again.rows)))


def test_looks_at_the_model_change_nothing_of_what_is_learnt(recipe: Make, trained: Run, same_weights: Same) -> None:
    plain = recipe(output="plain", adapter={"kind": "lora", "dropout": 0.3})
    looked = recipe(
        output="looked", adapter={"kind": "lora", "dropout": 0.3}, eval={"tasks": ["mmedbench_mini_en"], "limit": 3, "every": 2}
    )
    assert same_weights(trained(plain), trained(looked))
    assert sorted(path.name for path in (looked.output / "eval").iterdir()) == [f"step-{step}" for step in (0, 2, 4, 6, 8)]


@pytest.mark.parametrize("steps", [4, None], ids=["within an epoch", "a whole epoch"])
def test_a_training_that_is_over_takes_no_further_step(
    steps: int | None, recipe: Make, trained: Run, same_weights: Same, losses: Callable[..., Any]
) -> None:
    told = recipe(mix={"window": 128}, train={"steps": steps, "save_every": None, "accumulate": 2})
    final = trained(told)
    before, names = losses(told.output), sorted(path.name for path in told.output.glob("checkpoint-*"))
    kept = final.rename(told.output / "kept")
    assert same_weights(trained(told, resume=True), kept)
    assert losses(told.output) == before
    assert sorted(path.name for path in told.output.glob("checkpoint-*")) == names


def test_a_checkpoint_that_is_not_whole_is_passed_over_with_a_warning(recipe: Make, trained: Run, same_weights: Same) -> None:
    told = recipe()
    final = trained(told)
    before = final.rename(told.output / "before")
    (told.output / "checkpoint-8" / MARK).unlink()
    (told.output / "checkpoint-9").mkdir()
    (told.output / "checkpoint-999").mkdir()
    (told.output / "checkpoint-999" / MARK).write_text(json.dumps({"files": {"model.safetensors": 7}}))
    said: list[str] = []
    assert same_weights(trained(told, resume=True, said=said), before)
    assert sum("is passed over" in line for line in said) == 3
    assert any("model.safetensors is not there" in line for line in said)


def test_only_as_many_checkpoints_stay_as_were_asked_for(recipe: Make, trained: Run) -> None:
    told = recipe(train={"save_every": 2, "keep": 2})
    trained(told)
    assert sorted(path.name for path in told.output.glob("checkpoint-*")) == ["checkpoint-6", "checkpoint-8"]


def test_nothing_in_a_finished_model_has_to_be_unpickled(recipe: Make, trained: Run) -> None:
    final = trained(recipe())
    assert {path.suffix for path in final.iterdir()} <= {".json", ".safetensors", ".jinja", ".md", ".png"}


def test_an_output_with_a_training_in_it_is_not_written_over(recipe: Make, trained: Run) -> None:
    told = recipe()
    final = trained(told)
    with pytest.raises(StoreError, match=r"holds a training already; go on with --resume, or name another output"):
        trained(told)
    assert final.is_dir()


def test_a_resume_with_another_recipe_or_other_data_is_refused(recipe: Make, trained: Run, tmp_path: Path, base: Path) -> None:
    trained(recipe())
    with pytest.raises(UsageError, match=r"was trained otherwise \(train.lr: 0.001 -> 0.002\)"):
        trained(recipe(train={"lr": 2e-3}), resume=True)
    with pytest.raises(UsageError, match=r"was trained on other data \(held_out, rows, taken\)"):
        trained(recipe(eval={"validation": 1}), resume=True)
    trained(recipe(train={"log_every": 5, "keep": 1}), resume=True)


def test_ctrl_c_ends_a_training_after_its_step_and_nothing_is_lost(
    recipe: Make, trained: Run, same_weights: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = recipe(output="whole"), recipe(output="cut")
    trained(whole)
    before = signal.getsignal(signal.SIGINT)
    step = loop._Trainer.training_step

    def stop(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(loop._Trainer, "training_step", stop)
        with pytest.raises(TrainingStopped, match=r"stopped after step 3 of 8; --resume goes on from there"):
            trained(cut)
    assert signal.getsignal(signal.SIGINT) is before
    assert same_weights(trained(cut, resume=True), whole.output / "final")


def test_a_loss_that_is_no_number_ends_the_training_and_is_not_saved(recipe: Make, trained: Run) -> None:
    told = recipe(train={"lr": 9.9, "clip": 0, "warmup": 0, "schedule": "constant", "steps": 400, "save_every": 1, "keep": 1})
    import mmed_train.training.loop as module

    original = module._Trainer.training_step

    def poisoned(self: Any, model: Any, *args: Any) -> Any:
        if self.state.global_step == 3:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))
        return original(self, model, *args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module._Trainer, "training_step", poisoned)
        with pytest.raises(BackendError, match=r"the loss is no number any more at step 4 .*checkpoint-3; lower train.lr"):
            trained(told)
    assert sorted(path.name for path in told.output.glob("checkpoint-*")) == ["checkpoint-3"]


@pytest.mark.parametrize("where", ["weights", "state", "mark"])
def test_a_full_disk_costs_no_whole_checkpoint(where: str, recipe: Make, trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told = recipe()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def patch(module: Any, name: str, error: Exception) -> None:
        whole = getattr(module, name)

        def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
            step = kwargs.get("step", getattr(getattr(self, "state", None), "global_step", 0))
            if step == 8:
                raise error
            return whole(self, *args, **kwargs)

        monkeypatch.setattr(module, name, fail)

    if where == "weights":
        patch(loop._Trainer, "_save", RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    elif where == "state":
        patch(loop._Trainer, "_save_optimizer_and_scheduler", full)
    else:
        patch(loop, "finish", full)
    with pytest.raises(
        StoreError, match=r"cannot write .*checkpoint-8: .*No space left.*free some space, then go on with --resume"
    ):
        trained(told)
    assert sorted(path.name for path in told.output.iterdir() if path.is_dir()) == ["checkpoint-4"]


def errors_of_others() -> list[Any]:
    login = type("UsageError", (Exception,), {"__module__": "wandb.errors.errors"})("No API key configured.")
    return [
        pytest.param(
            {"logs": {"to": ["wandb"]}}, login, UsageError, r"logs.to = wandb: No API key configured.; mend it", id="logger"
        ),
        pytest.param(
            {"model": {"compile": True}}, InvalidCxxCompiler(), UsageError, r"model.compile: No working C", id="compiler"
        ),
        pytest.param(
            {}, torch.OutOfMemoryError("CUDA out of memory.\nTried"), BackendError,
            r"memory was not enough at step 1: CUDA out of memory.; lower train.batch .* mmed-train plan .*toml$", id="memory",
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(("sections", "raised", "kind", "said"), errors_of_others())
def test_what_others_raise_for_a_setting_is_one_sentence(
    sections: Any, raised: Exception, kind: type[Exception], said: str, recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a stand-in raises it: what they need is not on every machine."""
    job = prepare(recipe(), say=print)
    others = replace(job, recipe=recipe(**sections))
    monkeypatch.setattr(loop, "arguments", lambda _, steps, made=loop.arguments: made(job.recipe, steps))

    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(loop._Trainer, "training_step", fail)
    with pytest.raises(kind, match=said):
        train(others, resume=False, say=print)


def test_an_error_that_nobody_foresaw_keeps_its_traceback(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise LookupError("unforeseen")

    monkeypatch.setattr(loop._Trainer, "training_step", fail)
    with pytest.raises(LookupError, match="unforeseen"):
        train(prepare(recipe(), say=print), resume=False, say=print)


def test_an_optimizer_that_cannot_be_had_here_is_one_sentence(recipe: Make, trained: Run) -> None:
    with pytest.raises(UsageError, match=r"train.optimizer = galore_adamw cannot be had here: "):
        trained(recipe(train={"optimizer": "galore_adamw"}))


# --- the card ---


def test_a_finished_model_has_a_card_which_one_with_runs_replaces_and_an_edited_one_stays(recipe: Make, trained: Run) -> None:
    final = trained(recipe(train={"steps": 2, "save_every": None}))
    card = final / "README.md"
    assert "## Training" in card.read_text()
    assert (final / "loss.png").is_file()
    assert write_card(final, None, license="mit").path == card
    assert 'license: "mit"' in card.read_text()
    with pytest.raises(UsageError, match=r"README.md is there already"):
        write_card(final, None)


def test_a_card_that_cannot_be_written_costs_no_model(recipe: Make, trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loop, "write_card", full)
    said: list[str] = []
    final = trained(recipe(train={"steps": 1, "save_every": None}), said=said)
    assert [line for line in said if f"{final} has no card: " in line and f"mmed-train card {final}" in line]
    assert (final / "model.safetensors").is_file()


# --- switches ---


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch", "ignore::UserWarning:torch")
def test_a_compiled_model_gives_the_same_losses(
    recipe: Make, trained: Run, losses: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and differentiated as a whole by torch.compile; its C++ code, which takes minutes to make, is left out."""
    sizes: dict[str, Any] = {"train": {"steps": 2, "save_every": None}}
    usual, compiled = recipe(output="usual", **sizes), recipe(output="compiled", model={"compile": True}, **sizes)
    trained(usual)
    calls = []

    def compile_(model: Any, **settings: Any) -> Any:
        calls.append(settings["backend"])
        return torch_compile(model, backend="aot_eager")

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile_)
    for name in ("BACKEND", "MODE", "FULLGRAPH", "DYNAMIC"):
        monkeypatch.setenv(f"ACCELERATE_DYNAMO_{name}", "")  # set by transformers; taken back with this
    trained(compiled)
    assert calls == ["inductor"]
    assert losses(compiled.output) == pytest.approx(losses(usual.output), abs=1e-5)


def test_figures_go_to_tensorboard(recipe: Make, trained: Run, losses: Callable[..., Any]) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed")
    told = recipe(train={"steps": 3, "save_every": None}, logs={"to": ["tensorboard"]}, eval={"validation": 1})
    trained(told)
    (folder,) = (told.output / "runs").iterdir()
    events = reader.EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses(told.output))
    looked = [json.loads(line) for line in (told.output / "log.jsonl").read_text().splitlines() if "eval_loss_en" in line]
    assert [event.value for event in events.Scalars("eval/loss_en")] == pytest.approx([line["eval_loss_en"] for line in looked])


# --- looks ---


def test_a_look_tells_the_validation_loss_by_language_as_a_plain_forward_pass_does(
    recipe: Make, trained: Run, shards: Path, base: Path
) -> None:
    told = recipe(eval={"validation": 2}, train={"steps": 1, "save_every": None})
    job = prepare(told, say=print)
    trained(told)
    first = json.loads((told.output / "log.jsonl").read_text().splitlines()[0])
    model = AutoModelForCausalLM.from_pretrained(base)
    for language, rows in job.validation.items():
        total = tokens = 0.0
        for row in rows:
            starts = [*torch.nonzero(row["position_ids"] == 0).flatten().tolist(), len(row["input_ids"])]
            for start, end in itertools.pairwise(starts):
                with torch.no_grad():
                    logits = model(row["input_ids"][None, start:end]).logits[0]
                labels = row["shift_labels"][start:end]
                total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=-100))
                tokens += int((labels != -100).sum())
        assert first[f"eval_loss_{language}"] == pytest.approx(total / tokens, abs=1e-5)


def test_no_held_out_token_is_trained_on(recipe: Make) -> None:
    job = prepare(recipe(eval={"validation": 2}), say=print)
    held = {tuple(row["input_ids"].tolist()) for rows in job.validation.values() for row in rows}
    assert held
    space = open_shards([Path(job.recipe.data.shards[0])])
    assert sum(job.data["taken"].values()) + sum(job.data["held_out"].values()) == len(space)


def test_the_best_checkpoint_is_kept_and_patience_ends_the_training(
    recipe: Make, trained: Run, same_weights: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = recipe(
        train={"steps": 40, "save_every": None, "keep": 1}, eval={"validation": 1, "every": 2, "best": "loss", "patience": 2}
    )
    values = iter([5.0, 4.0, 3.0, 3.5, 3.6, 1.0])
    monkeypatch.setattr(loop._Trainer, "_validation", lambda _: {"loss": next(values)})
    final = trained(told)
    best = json.loads((told.output / "checkpoint-8" / "progress.json").read_text())
    assert best["best"] == {"value": -3.0, "step": 4, "looks": 2}
    assert not same_weights(told.output / "best", final)
    assert (told.output / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_harness_finds_in_memory_what_it_finds_in_the_saved_model(recipe: Make, trained: Run, tmp_path: Path) -> None:
    told = recipe("finetune", eval={"tasks": ["mmedbench_mini_en"], "limit": 8}, train={"steps": 2, "batch": 1})
    final = trained(told)
    command = [Path(sys.executable).with_name("mmedeval"), "run", "--model", f"hf:{final}", "--tasks", "mmedbench_mini_en"]
    done = subprocess.run(
        [*command, "--limit", "8", "--protocol", "letter", "--out", tmp_path / "run"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    def logprobs(folder: Path) -> Sequence[Any]:
        lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        return [value for line in sorted(lines, key=lambda line: line["id"]) for value in line["logprobs"].values()]

    assert logprobs(tmp_path / "run") == pytest.approx(
        logprobs(told.output / "eval" / "step-2"), abs=1e-4
    )  # another batch size, other roundings


# --- weights ---


def test_a_bfloat16_base_is_trained_in_float32_and_every_weight_moves_at_a_small_rate(
    recipe: Make, trained: Run, tmp_path: Path, base: Path, weights_of: Callable[[Path], dict[str, torch.Tensor]]
) -> None:
    half = tmp_path / "half"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model.save_pretrained(half)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (half / name).write_bytes((base / name).read_bytes())
    told = recipe(
        model={"path": str(half)}, train={"lr": 1e-6, "steps": 20, "warmup": 0, "save_every": None, "weight_decay": 0.1}
    )
    final = weights_of(trained(told))
    before = {name: value.float() for name, value in weights_of(half).items()}
    assert {value.dtype for value in final.values()} == {torch.float32}
    moved = [(final[name] != before[name]) for name in final if "embed" not in name]
    assert sum(int(each.sum()) for each in moved) / sum(each.numel() for each in moved) > 0.97


def test_an_optimizer_that_holds_other_weights_than_float32_is_refused(recipe: Make) -> None:
    job = prepare(recipe(), say=print)
    job.model.to(torch.bfloat16)
    with pytest.raises(Exception, match=r"the optimizer holds weights in bfloat16; training needs float32 ones"):
        train(job, resume=False, say=print)
