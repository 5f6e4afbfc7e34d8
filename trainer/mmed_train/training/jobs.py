"""From a recipe to all that a training needs: model, tokenizer, rows, and what they are made of."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import torch

from mmed_train.corpus.config import read_corpus
from mmed_train.corpus.mixing import Mix, Windows
from mmed_train.corpus.run import step_folder
from mmed_train.corpus.shards import Kind, TokenSpace, open_shards
from mmed_train.corpus.steps import SHARDS, mix_of
from mmed_train.training import harness
from mmed_train.training.items import Items, read_items, tokens_of
from mmed_train.training.loop import Job, count_steps, processes
from mmed_train.training.model import (
    check_vocabulary,
    digest_of,
    embeddings_of,
    find_base,
    load_model,
    load_tokenizer,
    read_config,
)
from mmed_train.training.recipe import LOGGERS, Recipe
from mmed_train.training.rows import ItemRows, PackedWindows, PublishedWindows, hold_out, lay_out, validation_rows
from mmedeval import DataError, MissingPackageError, ModelError, UsageError
from mmedeval.catalog import Catalog
from mmedeval.host import make_host

# The extras that bring what a setting needs; who wants another package installs it by its own name.
EXTRAS = {"bitsandbytes": "qlora", "tensorboard": "tensorboard", "wandb": "wandb"}
CROSSING = 'let them, as most published recipes do, with data.isolate = false, or try model.attention = "eager"'
UNPACKED = 'train with data.batching = "grouped", or try model.attention = "eager"'


def prepare(recipe: Recipe, *, say: Callable[[str], None]) -> Job:
    """All that a training here needs. Raises what is in its way before anything is read."""
    for obstacle in obstacles(recipe, devices=processes(), gpu=torch.cuda.is_available(), here=True):
        raise obstacle
    return read_job(recipe, say=say)


def obstacles(recipe: Recipe, *, devices: int, gpu: bool, here: bool) -> Iterator[UsageError]:
    """What would stop the training on so many devices, GPUs or not; `here`: with the packages of this machine."""
    model, adapter = recipe.model, recipe.adapter
    if model.config and adapter.kind != "none":
        yield UsageError(f"adapter.kind = {adapter.kind!r} would put an adapter on random weights; give model.path")
    if recipe.distributed.fsdp and devices > 1 and recipe.eval.tasks:
        yield UsageError(
            "eval.tasks asks the model on one process, and fsdp has shared it out; leave eval.tasks out and evaluate the "
            "checkpoints: mmedeval run --model hf:OUTPUT/checkpoint-N"
        )
    if model.liger and not gpu:
        yield UsageError("model.liger needs a GPU; leave it out")
    needs: dict[str, Sequence[str]] = {"model.liger": ("liger_kernel",)} if model.liger else {}
    needs |= {"adapter.kind = 'qlora'": ("bitsandbytes",)} if adapter.kind == "qlora" else {}
    needs |= {f"logs.to = {name}": LOGGERS[name] for name in recipe.logs.to}
    for setting, packages in needs.items():
        if here and not any(map(find_spec, packages)):
            yield MissingPackageError(setting, [packages[0].replace("_", "-")], EXTRAS.get(packages[0]))


def read_job(recipe: Recipe, *, say: Callable[[str], None]) -> Job:
    """Reads the data, then the model: what is wrong with the data is told before the weights are loaded."""
    if recipe.eval.tasks:
        Catalog(make_host(), say).select_tasks(recipe.eval.tasks)
        harness.plan_of(recipe)
    return _pretraining(recipe, say) if recipe.kind == "pretrain" else _finetuning(recipe, say)


def _pretraining(recipe: Recipe, say: Callable[[str], None]) -> Job:
    config = read_config(recipe)
    tokenizer = load_tokenizer(recipe)
    space, mix, window = open_corpus(recipe, digest_of(tokenizer))
    held_out = hold_out(space, windows=recipe.eval.validation, window=window) if recipe.eval.validation else {}
    missing = sorted({kind.language for kind in space.counts} - {kind.language for kind in held_out})
    if recipe.eval.validation and missing:
        say(f"too little of {', '.join(missing)} to hold any out: no validation loss")
    _check_length(config, window, "mix.window")
    if space.vocabulary.size > config.get_text_config().vocab_size:
        raise ModelError(
            f"the shards hold tokens up to {space.vocabulary.size - 1}, the model knows {config.get_text_config().vocab_size}; "
            "tokenize the corpus with the model's own tokenizer"
        )
    rows, data = corpus_rows(recipe, space, mix, window, held_out)
    model = load_model(recipe, seed=recipe.train.seed, say=say)
    epochs = recipe.train.epochs
    return Job(
        recipe=recipe,
        model=model,
        tokenizer=tokenizer,
        rows=rows,
        epoch_ends=[len(rows) * epoch // epochs for epoch in range(1, epochs + 1)],
        data={**_base(recipe), **data},
        validation=validation_rows(space, held_out, window=window),
        isolated=recipe.data.windows == "packed" and recipe.data.isolate,
        way_out=CROSSING,
    )


def open_corpus(recipe: Recipe, tokenizer: str | None) -> tuple[TokenSpace, Mix, int]:
    """The shards, the mix and the window that a recipe of pretraining asks for."""
    data, told = recipe.data, recipe.mix
    if data.corpus:
        corpus = read_corpus(recipe.inside(data.corpus))
        folder = step_folder(corpus, "tokenize") / SHARDS
        if not folder.is_dir():
            raise DataError(f"{corpus.output} holds no token shards yet; run: mmed-train corpus run {data.corpus}")
        paths, mix, window = [folder], mix_of(corpus), corpus.mix.window
    else:
        paths, mix, window = [recipe.inside(path) for path in data.shards], Mix(), 2048
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist; name the folder that the tokenize step wrote")
    if told is not None:
        values = {name: value for name, value in asdict(told).items() if name != "window"}
        mix, window = Mix(**values), told.window
    return open_shards(paths, tokenizer=tokenizer), mix, window


def corpus_rows(
    recipe: Recipe, space: TokenSpace, mix: Mix, window: int, held_out: Mapping[Kind, int]
) -> tuple[PackedWindows | PublishedWindows, dict[str, Any]]:
    """The rows of a pretraining, and what they are made of, as JSON-like data."""
    epochs, seed = recipe.train.epochs, recipe.train.seed
    names = [shard.path.name for shard in space.shards]
    if len({*names}) < len(names):
        # Files of several folders may have the same name.
        names = [f"{place}/{name}" for place, name in enumerate(names)]
    shards = {name: shard.header.sha256 for name, shard in zip(names, space.shards, strict=True)}
    tokens = {f"{kind.language}/{kind.source}": count.tokens for kind, count in sorted(space.counts.items())}
    data: dict[str, Any] = {
        "shards": shards,
        "tokenizer": space.vocabulary.tokenizer,
        "tokens": tokens,
        "held_out": {f"{kind.language}/{kind.source}": count for kind, count in held_out.items()},
        "window": window,
    }
    if recipe.data.windows == "published":
        published = PublishedWindows(space, window=window, seed=seed, epochs=epochs, held_out=held_out)
        return published, {**data, "rows": len(published), "real_tokens_in_an_epoch": published.real}
    windows = Windows(space, mix, window=window, seed=seed, epochs=epochs, held_out=held_out)
    taken: Counter[str] = Counter()
    for epoch in range(epochs):
        for kind, realised in windows.mixture.realised(epoch).items():
            taken[f"{kind.language}/{kind.source}"] += realised.tokens
    return PackedWindows(windows, isolate=recipe.data.isolate), {**data, "rows": len(windows), "taken": dict(taken)}


def _finetuning(recipe: Recipe, say: Callable[[str], None]) -> Job:
    config = read_config(recipe)
    tokenizer = load_tokenizer(recipe)
    _check_length(config, recipe.data.max_length, "data.max_length")
    items = read_items(recipe, Catalog(make_host(), say), tokenizer, embeddings=config.get_text_config().vocab_size)
    for sentence in items.report():
        say(sentence)
    rows, ends = item_rows(recipe, items)
    model = load_model(recipe, seed=recipe.train.seed, say=say)
    check_vocabulary(tokenizer, embeddings_of(model), recipe.model.path or recipe.model.config)
    return Job(
        recipe=recipe,
        model=model,
        tokenizer=tokenizer,
        rows=rows,
        epoch_ends=ends,
        data={**_base(recipe), **items_data(items, tokenizer)},
        validation={},
        isolated=recipe.data.batching == "packed",
        way_out=UNPACKED,
    )


def item_rows(recipe: Recipe, items: Items) -> tuple[ItemRows, tuple[int, ...]]:
    """The rows of a finetuning, and how many there are up to the end of each epoch."""
    layout = lay_out(
        [len(item) for item in items.items],
        batching=recipe.data.batching,
        longest=recipe.data.max_length,
        batch=recipe.train.batch,
        epochs=recipe.train.epochs,
        seed=recipe.train.seed,
    )
    return ItemRows(items.items, layout), layout.epoch_ends


def items_data(items: Items, tokenizer: Any) -> dict[str, Any]:
    """What the items of a finetuning are, as JSON-like data."""
    tokens, answers = tokens_of(items.items)
    ids = hashlib.sha256()
    for item in items.items:
        ids.update(item.ids.tobytes())
    return {
        "tasks": dict(items.data),
        "tokenizer": digest_of(tokenizer),
        "items": dict(sorted(Counter(f"{item.task} ({item.protocol})" for item in items.items).items())),
        "left_out": dict(items.left_out),
        "tokens": tokens,
        "answer_tokens": answers,
        "ids_sha256": ids.hexdigest(),
    }


def _base(recipe: Recipe) -> dict[str, Any]:
    """The base by its contents, or the architecture that starts from nothing."""
    if recipe.model.config:
        return {"config": read_config(recipe).to_diff_dict()}
    return {"base": find_base(recipe).fingerprint}


def _check_length(config: Any, length: int, name: str) -> None:
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(longest, int) and length > longest:
        raise UsageError(f"{name} = {length} is more than the {longest} positions of the model; lower it")


def steps_of(job: Job) -> int:
    """How many optimizer steps the job takes."""
    return count_steps(job.recipe, len(job.rows), job.epoch_ends, processes()).total
