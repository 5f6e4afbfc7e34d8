"""The training itself: transformers' Trainer with exact token counts, whole checkpoints, and looks at the model on the way."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from mmed_train.corpus.mixing import IGNORED
from mmed_train.training import harness
from mmed_train.training.attention import attend_within_documents
from mmed_train.training.card import write_card
from mmed_train.training.logs import Log, flops_of, rate_of
from mmed_train.training.model import assert_master_weights, check_isolation, computes_all_logits, head_sees, old_names, quiet
from mmed_train.training.recipe import Recipe, differences
from mmed_train.training.rows import Even, Row, collate
from mmed_train.training.saving import BESIDE, PREFIX, Saved, find_saved, finish, publish, rotate, told, write_json
from mmedeval import BackendError, MmedevalError, StoreError, UsageError, digest
from mmedeval.text import first_line

RECIPE, DATA, PROGRESS = "recipe.json", "data.json", "progress.json"
# Waiting for the one process that evaluates is no hang.
PATIENCE_SECONDS = 6 * 3600
# While it goes on, the picture of the loss is drawn at most so often.
PICTURE_SECONDS = 60.0


class TrainingStopped(Exception):
    """The user stopped the training. What was learnt is in the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a training needs. `data` says what the rows are made of; `validation` holds rows by language."""

    recipe: Recipe
    model: Any
    tokenizer: Any
    rows: Any
    epoch_ends: Sequence[int]
    data: Mapping[str, Any]
    validation: Mapping[str, Sequence[Row]]
    isolated: bool
    way_out: str


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How many optimizer steps there are, and after which of them an epoch is over."""

    total: int
    epochs: frozenset[int]


def count_steps(recipe: Recipe, rows: int, epoch_ends: Sequence[int], processes: int) -> Steps:
    """As the Trainer counts them: each process reads every `processes`-th batch; what is left at the end makes a step, too."""
    batch, accumulate = recipe.train.batch, recipe.train.accumulate
    per_step = batch * accumulate * processes
    total = math.ceil(math.ceil(math.ceil(rows / batch) / processes) / accumulate)
    if recipe.train.steps is not None:
        total = min(total, recipe.train.steps)
    return Steps(total=total, epochs=frozenset(math.ceil(end / per_step) for end in epoch_ends))


def arguments(recipe: Recipe, steps: Steps) -> TrainingArguments:
    """What the Trainer is told. Raises `UsageError` for what it refuses."""
    try:
        return _arguments(recipe, steps)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{recipe.file}: transformers refuses these settings: {first_line(error)}") from error


def _arguments(recipe: Recipe, steps: Steps) -> TrainingArguments:
    told, model = recipe.train, recipe.model
    # At least one step has the whole rate, and a decay begins where the warm-up is over.
    warmup = int(told.warmup) if told.warmup >= 1 else min(math.ceil(told.warmup * steps.total), steps.total - 1)
    decay = max(1, min(round(told.decay * steps.total), steps.total - warmup))
    schedules: Mapping[str, tuple[str, Mapping[str, Any]]] = {
        "cosine": ("cosine_with_min_lr", {"min_lr_rate": told.min_lr}),
        "wsd": (
            "warmup_stable_decay",
            {"num_decay_steps": decay, "min_lr_ratio": told.min_lr, "decay_type": "1-sqrt"},
        ),
        "linear": ("linear", {}),
        "constant": ("constant_with_warmup", {}),
    }
    schedule, settings = schedules[told.schedule]
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(recipe.output),
        per_device_train_batch_size=told.batch,
        gradient_accumulation_steps=told.accumulate,
        num_train_epochs=1,
        max_steps=steps.total,
        learning_rate=told.lr,
        lr_scheduler_type=schedule,
        lr_scheduler_kwargs=dict(settings),
        warmup_steps=warmup,
        optim=told.optimizer,
        weight_decay=told.weight_decay,
        adam_beta1=told.beta1,
        adam_beta2=told.beta2,
        max_grad_norm=told.clip,
        seed=told.seed,
        data_seed=told.seed,
        bf16=uses_bf16(recipe),
        torch_compile=model.compile,
        use_liger_kernel=model.liger,
        use_cpu=not cuda,
        dataloader_num_workers=told.loaders,
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        # When to log, look and save is said by `_Flow`.
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        log_level="error",
        report_to=list(recipe.logs.to) or "none",
        run_name=recipe.output.name,
        project="mmed-train",
        ddp_find_unused_parameters=False,
        ddp_timeout=PATIENCE_SECONDS,
        fsdp=True if recipe.distributed.fsdp and processes() > 1 else None,  # type: ignore[arg-type]  # as its help says
        fsdp_config={"version": 2, "cpu_offload": recipe.distributed.cpu_offload, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}
        if recipe.distributed.fsdp and processes() > 1
        else None,
    )


def strange_steps(recipe: Recipe, steps: Steps) -> list[str]:
    """Sentences on settings that are lawful, and hardly meant."""
    told = recipe.train
    if told.warmup >= 1 and told.warmup >= steps.total:
        return [
            f"train.warmup = {told.warmup:g} steps, but the training has {steps.total}: it never gets to train.lr = {told.lr:g}"
        ]
    return []


def processes() -> int:
    """How many processes train together, as torchrun and accelerate tell."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_process() -> bool:
    """Whether this is the process that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def uses_bf16(recipe: Recipe) -> bool:
    """Whether is computed in bfloat16, under autocast."""
    if recipe.model.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return recipe.model.precision == "bf16"


def train(job: Job, *, resume: bool, say: Callable[[str], None]) -> Path:
    """Trains, from the last whole checkpoint with `resume`. Returns the folder of the finished model, `OUTPUT/final`.

    Raises `StoreError` for an output that belongs to another training, `UsageError` for a setting that cannot be had here and for
    a `resume` with another recipe or data, `BackendError` when the loss is no number any more, and `TrainingStopped` after Ctrl-C
    or SIGTERM, with a checkpoint saved.
    """
    recipe = job.recipe
    saved = _last(recipe, job.data, resume=resume, say=say)
    steps = count_steps(recipe, len(job.rows), job.epoch_ends, processes())
    for sentence in strange_steps(recipe, steps):
        say(sentence)
    told_arguments = arguments(recipe, steps)
    try:
        Trainer.get_optimizer_cls_and_kwargs(told_arguments, job.model)
    except (ValueError, ImportError) as error:
        raise UsageError(f"train.optimizer = {recipe.train.optimizer} cannot be had here: {first_line(error)}") from error
    if told_arguments.n_gpu > 1:
        raise UsageError(
            f"{told_arguments.n_gpu} GPUs are here and one process; start one for each: torchrun --nproc-per-node "
            f"{told_arguments.n_gpu} -m mmed_train ..., or choose one with CUDA_VISIBLE_DEVICES=0"
        )
    if told_arguments.device.type == "cpu" and not (recipe.model.attention or recipe.model.compile):
        attend_within_documents(job.model)
    if job.isolated:
        job.model.to(told_arguments.device)
        with torch.autocast(told_arguments.device.type, torch.bfloat16, enabled=uses_bf16(recipe)):
            check_isolation(job.model, rows=min(2, recipe.train.batch), way_out=job.way_out)
    if first_process():
        recipe.output.mkdir(parents=True, exist_ok=True)
        for beside in recipe.output.glob(f"{BESIDE}*"):
            shutil.rmtree(beside)
    folder = recipe.output if first_process() else None
    with Log(folder, total=steps.total, since=saved.step if saved else 0, say=say) as log:
        trainer = _Trainer(job, steps, told_arguments, log)
        if saved is not None and saved.step >= steps.total:
            # The Trainer would go one step beyond the end before it looks where that is.
            trainer.state.global_step = saved.step
        else:
            with _on_signals(trainer), old_names(), quiet(), _sentences(trainer):
                trainer.train(resume_from_checkpoint=None if saved is None else str(saved.path))
        with told(recipe.output):
            log.draw()
        if trainer.stopped:
            raise TrainingStopped(
                f"stopped after step {trainer.state.global_step} of {steps.total}; --resume goes on from there ({recipe.output})"
            )
        final = trainer.publish_final()
    if first_process():
        _write_card(final, say)
    return final


def _write_card(final: Path, say: Callable[[str], None]) -> None:
    """A card beside the model, which is whole already: what is in the way of a card takes nothing away from it."""
    try:
        write_card(final, None)
    except (MmedevalError, OSError) as error:
        say(f"{final} has no card: {error}; once that is mended: mmed-train card {final}")


def _last(recipe: Recipe, data: Mapping[str, Any], *, resume: bool, say: Callable[[str], None]) -> Saved | None:
    saved, warnings = find_saved(recipe.output)
    for warning in warnings:
        say(warning)
    if not resume:
        if saved or warnings or (recipe.output / "final").exists():
            raise StoreError(f"{recipe.output} holds a training already; go on with --resume, or name another output")
        return None
    if not saved:
        say(f"{recipe.output} holds no whole checkpoint; the training starts from the beginning")
        return None
    last = saved[-1]
    old, old_data = (json.loads((last.path / name).read_text(encoding="utf-8")) for name in (RECIPE, DATA))
    changed = differences(old, recipe.as_json())
    if changed:
        raise UsageError(f"{last.path} was trained otherwise ({'; '.join(changed)}); set it back, or name another output")
    if old_data != json.loads(json.dumps(data)):
        names = [name for name in {*old_data, *data} if old_data.get(name) != json.loads(json.dumps(data)).get(name)]
        raise UsageError(
            f"{last.path} was trained on other data ({', '.join(sorted(names))}); bring them back, or name another output"
        )
    say(f"going on from {last.path}")
    return last


class _Trainer(Trainer):
    """The Trainer, where rows bring `shift_labels` and a loss is the mean over all tokens that a step predicts."""

    def __init__(self, job: Job, steps: Steps, told_arguments: TrainingArguments, log: Log) -> None:
        self.job, self.steps, self.log_to = job, steps, log
        self.tokens = 0
        """Tokens predicted so far, over all processes."""
        self.flops = 0.0
        """What they took, with all that was read, but what is only padding."""
        self.best: float | None = None
        self.best_step = 0
        self.looks = 0
        """How often was looked since the best one."""
        self.stopped = False
        self._target = job.recipe.output
        recipe = job.recipe
        super().__init__(
            model=job.model,
            args=told_arguments,
            train_dataset=Even(job.rows, recipe.train.batch * processes()) if processes() > 1 else job.rows,
            data_collator=collate,
            processing_class=job.tokenizer,
            callbacks=[_Flow(self)],
        )
        # What it would print is told by the log.
        self.remove_callback(PrinterCallback)
        # The loss is divided by all tokens of a step here, whatever the model would make of their number.
        self.model_accepts_loss_kwargs = True
        self._rate = rate_of(self.args.device)
        self._count = None if self._rate is None else flops_of(job.model)

    # --- loss ---

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        count = max(1, int(num_items_in_batch)) if num_items_in_batch is not None else None
        loss = self._summed(model, inputs) / (count or 1)
        # Processes average their gradients; each has divided by the tokens of all.
        return loss * self.accelerator.num_processes

    def _summed(self, model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
        """The loss of a batch, summed over the tokens that it predicts."""
        labels = inputs["shift_labels"]
        given = {"input_ids": inputs["input_ids"], "position_ids": inputs["position_ids"], "use_cache": False}
        if self.job.recipe.model.liger and model.training:
            # liger never makes the logits.
            loss: torch.Tensor = model(**given, labels=labels, shift_labels=labels, num_items_in_batch=1).loss
            return loss
        if computes_all_logits(self.job.recipe):
            logits = model(**given).logits
            return torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum"
            )
        wanted = (labels.flatten() != IGNORED).nonzero().flatten()
        with head_sees(self.model, wanted):
            logits = model(**given).logits
        return torch.nn.functional.cross_entropy(logits[0].float(), labels.flatten()[wanted], reduction="sum")

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """The tokens that a step predicts, over all its passes and processes."""
        counts = torch.zeros(2, dtype=torch.float64)
        for batch in batch_samples:
            predicted = int((batch["shift_labels"] != IGNORED).sum())
            counts[0] += predicted
            if self._count is not None:
                read, length = int(batch["lengths"].sum()), batch["input_ids"].shape[1]
                logits = batch["input_ids"].numel() if computes_all_logits(self.job.recipe) else predicted
                counts[1] += self._count(read=read, logits=logits, length=length)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts.to(device)[None]).sum(0).cpu()
        total, flops = counts.tolist()
        self.tokens += int(total)
        self.flops += flops
        return torch.tensor(int(total), device=device)

    # --- looks on the way ---

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The validation loss by language and the accuracies of the harness; keeps what is best."""
        recipe, step = self.job.recipe, self.state.global_step
        found: dict[str, float] = {}
        if self.job.validation:
            found |= self._validation()
        if recipe.eval.tasks and self.is_world_process_zero():
            with self.compute_loss_context_manager():
                folder = recipe.output / "eval" / f"step-{step}"
                if folder.exists():
                    # Of a training that came here before it was cut off, and of settings that may be others now.
                    shutil.rmtree(folder)
                record = harness.evaluate(
                    self.accelerator.unwrap_model(self.model),
                    self.job.tokenizer,
                    harness.plan_of(recipe),
                    folder,
                    name=f"{recipe.output.name}-step-{step}",
                    identity=digest([recipe.as_json(), self.job.data]),
                )
            found |= harness.accuracies(record)
        self.accelerator.wait_for_everyone()
        self.log({f"eval_{name}": value for name, value in found.items()})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        self._judge(found)
        return found

    @torch.no_grad()
    def _validation(self) -> dict[str, float]:
        """Mean loss per predicted token. Every process computes all of it: so they stay in step, whatever is shared out."""
        self.job.model.eval()
        found, sums = {}, [0.0, 0]
        for language, rows in self.job.validation.items():
            loss, tokens = 0.0, 0
            for start in range(0, len(rows), self.args.per_device_train_batch_size):
                batch = self._prepare_inputs(collate(rows[start : start + self.args.per_device_train_batch_size]))
                with self.compute_loss_context_manager():
                    loss += float(self._summed(self.model, batch))
                tokens += int((batch["shift_labels"] != IGNORED).sum())
            found[f"loss_{language}"] = loss / tokens
            sums = [sums[0] + loss, sums[1] + tokens]
        self.job.model.train()
        return {**found, "loss": sums[0] / sums[1]}

    def _judge(self, found: Mapping[str, float]) -> None:
        """Notes whether this is the best look yet; with patience, ends the training when none was for too long."""
        told = self.job.recipe.eval
        if told.best == "none":
            return
        value = -found["loss"] if told.best == "loss" else found.get("accuracy", -math.inf)
        if self.args.world_size > 1:
            # Only the first process has seen the harness.
            shared = [value]
            torch.distributed.broadcast_object_list(shared)
            (value,) = shared
        if self.best is None or value > self.best:
            self.best, self.best_step, self.looks = value, self.state.global_step, 0
            self.control.should_save = self.state.global_step > 0
        else:
            self.looks += 1
            if told.patience is not None and self.looks >= told.patience:
                self.control.should_training_stop = self.control.should_save = True

    # --- what is kept ---

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        loss = logs.get("loss")
        if loss is not None:
            self._finite(loss, logs.get("grad_norm", 0.0))
        super().log(logs, start_time)
        if self.is_world_process_zero():
            told_step = self.state.global_step
            self.log_to.write(
                told_step,
                {name: value for name, value in logs.items() if name != "epoch"},
                self.tokens,
                None if self._rate is None else self.flops / (self._rate * self.args.world_size),
            )

    def _finite(self, *values: float) -> None:
        if not all(map(math.isfinite, values)):
            saved, _ = find_saved(self.job.recipe.output)
            way_out = f"the last whole checkpoint is {saved[-1].path}" if saved else "nothing was saved yet"
            raise BackendError(
                f"the loss is no number any more at step {self.state.global_step} (loss and norm of the gradient: "
                f"{', '.join(f'{value:g}' for value in values)}); {way_out}; lower train.lr or train.clip, and start again"
            )

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._target)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save and output_dir is not None:
            # The Trainer pickles its arguments, which the recipe says in words; peft writes a card with nothing in it.
            for name in ("training_args.bin", "README.md"):
                (Path(output_dir) / name).unlink(missing_ok=True)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        recipe, step = self.job.recipe, self.state.global_step
        path = recipe.output / f"{PREFIX}{step}"
        if path in (each.path for each in find_saved(recipe.output)[0]):
            return
        self._finite(
            float(self._tr_loss), *(float(p.detach().abs().max()) for p in self.job.model.parameters() if p.requires_grad)
        )
        beside = recipe.output / f"{BESIDE}-{step}"
        self._target = beside
        with told(path):
            try:
                super()._save_checkpoint(model, trial)
                if self.is_world_process_zero():
                    inside = beside / path.name
                    write_json(inside / RECIPE, recipe.as_json())
                    write_json(inside / DATA, self.job.data)
                    best = {"value": self.best, "step": self.best_step, "looks": self.looks}
                    write_json(inside / PROGRESS, {"step": step, "tokens": self.tokens, "best": best})
                self.accelerator.wait_for_everyone()
                if self.is_world_process_zero():
                    finish(beside / path.name, path, step=step)
                    rotate(recipe.output, recipe.train.keep)
                    if self.best_step == step and recipe.eval.best != "none":
                        publish(path, recipe.output / "best")
                    self.log_to.draw(every=PICTURE_SECONDS)
            except RuntimeError as error:
                # What torch and safetensors make of a full disk.
                raise StoreError(
                    f"cannot write {path}: {str(error).splitlines()[0]}; the last whole checkpoint is untouched: free some "
                    "space, then go on with --resume"
                ) from error
            finally:
                self._target = recipe.output
                if self.is_world_process_zero():
                    shutil.rmtree(beside, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        progress = json.loads((Path(resume_from_checkpoint) / PROGRESS).read_text(encoding="utf-8"))
        self.tokens = progress["tokens"]
        best = progress["best"]
        self.best, self.best_step, self.looks = best["value"], best["step"], best["looks"]

    def publish_final(self) -> Path:
        """`OUTPUT/final` out of the last checkpoint."""
        final = self.job.recipe.output / "final"
        if self.is_world_process_zero():
            publish(self.job.recipe.output / f"{PREFIX}{self.state.global_step}", final)
        self.accelerator.wait_for_everyone()
        return final


class _Flow(TrainerCallback):
    """When to log, to look and to save."""

    def __init__(self, trainer: _Trainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert_master_weights(kwargs["optimizer"])
        if state.global_step == 0 and (self.trainer.job.validation or self.trainer.job.recipe.eval.tasks):
            self.trainer.evaluate()
        self.trainer.log_to.start(self.trainer.tokens)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        recipe, step = self.trainer.job.recipe, state.global_step
        told, steps = recipe.train, self.trainer.steps
        last = step >= steps.total or self.trainer.stopped
        control.should_training_stop |= last
        control.should_log = step == 1 or step % told.log_every == 0 or last
        control.should_save = last or (step % told.save_every == 0 if told.save_every else step in steps.epochs)
        looks = bool(self.trainer.job.validation or recipe.eval.tasks) and not self.trainer.stopped
        control.should_evaluate = looks and (
            step % recipe.eval.every == 0 or step >= steps.total if recipe.eval.every else control.should_save
        )


@contextmanager
def _sentences(trainer: _Trainer) -> Iterator[None]:
    """Makes a sentence of what others raise for a setting that cannot be had here, and of a memory that is full."""
    recipe = trainer.job.recipe
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BackendError(
            f"the GPU's memory was not enough at step {trainer.state.global_step + 1}: {first_line(error)}; lower train.batch "
            f"and raise train.accumulate; what would fit is told by: mmed-train plan {recipe.file}"
        ) from error
    except Exception as error:
        package = type(error).__module__
        name = next((each for each in recipe.logs.to if package.startswith(each)), None)
        if name is not None:
            raise UsageError(f"logs.to = {name}: {first_line(error)}; mend it, or leave it out") from error
        if recipe.model.compile and package.startswith(("torch._dynamo", "torch._inductor")):
            raise UsageError(f"model.compile: {first_line(error)}; mend it, or leave it out") from error
        raise


@contextmanager
def _on_signals(trainer: _Trainer) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the training after its step, with a checkpoint; the second one at once.

    With several processes each would stop after a step of its own; there the last checkpoint has to do.
    """
    if processes() > 1:
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: Any) -> None:
        trainer.stopped = True
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
