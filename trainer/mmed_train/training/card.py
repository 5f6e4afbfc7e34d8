"""A model card in the format of Hugging Face, made of what is on disk alone; what is not there is said to be missing."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mmed_train.corpus.whole import new_file
from mmed_train.training.facts import (
    BLANK_CARD,
    DATA,
    LOG,
    PICTURE,
    RECIPE,
    Facts,
    Run,
    gather,
    merge_difference,
    whole,
)
from mmed_train.training.presets import PRESETS
from mmed_train.training.recipe import SECTIONS
from mmed_train.training.saving import MARK
from mmedeval import LANGUAGES, ModelError, UsageError, __version__, digest
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.model_files import ModelFolder
from mmedeval.text import printable, to_json

THIS = "this one"
LIMITS = """\
- **Not for clinical use.** It is made for research on language models. It must not be used for diagnosis, treatment, triage or
  advice to patients, and nobody has tested whether it is safe for any of these.
- Accuracy on multiple-choice questions of medical examinations says how it answers such questions, not how it would do with
  patients. It holds for the languages, protocols and numbers of items above, and for no others.
- The intervals are over items. Another training with the same recipe would come out otherwise.
- It can state falsehoods fluently and with reasons, and repeat what is wrong or biased in its data."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A written card. `missing` holds what it could not tell, a sentence each."""

    path: Path
    missing: tuple[str, ...]


def write_card(
    checkpoint: Path, out: Path | None, *, runs: Sequence[Path] = (), training: Path | None = None, license: str | None = None
) -> Card:
    """Writes the card of the model in the folder `checkpoint` (default: as its README.md), its loss curve beside it.

    A card that says no more than what is on disk, as this writes it of itself, is replaced. Raises `UsageError` for any other
    file that is there already, and what `gather` does.
    """
    folder = ModelFolder(path=checkpoint)
    if not any((checkpoint / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ModelError(f"{checkpoint} holds no model; name the folder with its config.json or adapter_config.json")
    out = checkpoint / "README.md" if out is None else out
    facts = gather(folder, training, runs)
    _check_free(out, replace(facts, runs=()))
    picture = out.absolute().parent / PICTURE
    if facts.picture is not None and picture.exists() and picture.read_bytes() != facts.picture.read_bytes():
        raise UsageError(f"{picture} is there already, and not this training's; remove it, or name a file elsewhere with -o")
    missing: list[str] = []
    text = render(facts, license, missing)
    # New files, never written in place: what lies there may be a link to a file of another checkpoint.
    with new_file(out) as file:
        file.write(text.encode())
    if facts.picture is not None and not picture.exists():
        with new_file(picture) as file:
            file.write(facts.picture.read_bytes())
    return Card(path=out, missing=tuple(missing))


def _check_free(out: Path, facts: Facts) -> None:
    """Raises `UsageError` unless a card can be written there; `facts` are those of a card that nobody has added to."""
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out}: the folder {out.absolute().parent} does not exist; make it, or name another file with -o")
    if not out.exists():
        return
    there = "" if out.is_dir() else out.read_text(encoding="utf-8", errors="replace")
    if BLANK_CARD not in there and there != render(facts, None, []):
        raise UsageError(f"{out} is there already; remove it, or name another file with -o")
    files = ModelFolder(path=out.absolute().parent).json(MARK).get("files")
    if isinstance(files, dict) and out.name in files:
        raise UsageError(
            f"{out} is a part of the checkpoint, which would not be whole with another one; name another file with -o"
        )


# --- the card ---


def render(facts: Facts, license: str | None, missing: list[str]) -> str:
    """The card. What it cannot tell is added to `missing`."""
    parts = [
        _front(facts, license),
        f"# {plain(facts.name)}",
        *_what(facts, missing),
        *_training(facts, missing),
        *_data(facts, missing),
        *_losses(facts, missing),
        *_scores(facts, missing),
        *_running(facts),
        *_limits(),
    ]
    return "\n\n".join(parts) + "\n"


def _front(facts: Facts, license: str | None) -> str:
    """The part that the hub reads. Strings are quoted as JSON quotes them, which YAML understands."""
    lines = ["---"]
    if license:
        lines.append(f"license: {_quoted(license)}")
    else:
        lines.append("# license: PUT ONE HERE. Nothing on disk says which; it has to suit those of the base and of the data.")
    if facts.base:
        lines += [
            f"base_model: {_quoted(facts.base)}",
            f"base_model_relation: {'adapter' if facts.folder.is_adapter else 'finetune'}",
        ]
    elif not _from_nothing(facts):
        lines.append("# base_model: PUT ITS NAME ON THE HUB HERE. Nothing on disk says it.")
    lines += _listed("language", languages_of(facts))
    lines += _listed("tags", _tags(facts))
    lines += [f"library_name: {'peft' if facts.folder.is_adapter else 'transformers'}", "pipeline_tag: text-generation"]
    if datasets := datasets_of(facts):
        lines += [
            "# As the training called them; put their names on the hub where they have some.",
            *_listed("datasets", datasets),
        ]
    if facts.runs or facts.looks:
        lines += _listed("metrics", ["accuracy"])
    return "\n".join([*lines, "---"])


def _listed(name: str, values: Iterable[str]) -> list[str]:
    found = [f"- {_quoted(value)}" for value in values]
    return [f"{name}:", *found] if found else []


def _quoted(text: str) -> str:
    return json.dumps(printable(text), ensure_ascii=False)


def _tags(facts: Facts) -> Iterator[str]:
    if facts.recipe:
        yield from ("medical", "mmed-train")
    if facts.kind == "pretrain":
        yield "pretrained" if _from_nothing(facts) else "continued-pretraining"
    elif facts.kind == "finetune":
        yield "finetuned"
    if facts.folder.is_adapter:
        yield _adapter_kind(facts).lower()


def _from_nothing(facts: Facts) -> bool:
    return bool(facts.settings("model").get("config"))


def _adapter_kind(facts: Facts) -> str:
    config = facts.folder.json("adapter_config.json")
    if config.get("peft_type") != "LORA":
        return str(config.get("peft_type") or "adapter")
    return "DoRA" if config.get("use_dora") else "rsLoRA" if config.get("use_rslora") else "LoRA"


def languages_of(facts: Facts) -> list[str]:
    """The languages that it was trained on: of the tokens, or of those of its tasks that are on offer here."""
    if tokens := _tokens(facts):
        return sorted({kind.partition("/")[0] for kind in tokens})
    known = Catalog(make_host()).tasks if facts.told("tasks") else {}
    return sorted({known[task].language for task in facts.told("tasks") if task in known})


def datasets_of(facts: Facts) -> list[str]:
    """Sources of a corpus, or tasks."""
    return sorted({kind.partition("/")[2] for kind in _tokens(facts)} or facts.told("tasks"))


def _tokens(facts: Facts) -> dict[str, int]:
    """Tokens by `language/source` of a pretraining: those that its epochs take, or, where that was not noted, those on offer."""
    return (facts.counts("taken") or facts.counts("tokens")) if facts.kind == "pretrain" else {}


# --- what it is ---


def _what(facts: Facts, missing: list[str]) -> Iterator[str]:
    yield "## What it is"
    yield " ".join(_sentences(facts))
    rows = [("fingerprint", code(facts.folder.fingerprint))]
    if model_type := facts.folder.json("config.json").get("model_type"):
        rows.append(("architecture", code(str(model_type))))
    if _from_nothing(facts):
        rows.append(("base", "none: it began with random weights"))
    else:
        rows.append(("base", code(facts.base) or "not known by a name on the hub"))
        rows.append(("fingerprint of the base", code(_base_fingerprint(facts)) or "not recorded"))
        if not _base_fingerprint(facts):
            missing.append(f"the fingerprint of its base: there is no {DATA} that says it")
    if facts.step is not None:
        rows.append(("optimizer steps", f"{facts.step:,}"))
    elif facts.recipe:
        missing.append("after which step of its training it was saved")
    if tokens := _learnt(facts):
        rows.append(("tokens that it learnt to predict", tokens))
    yield table(["", ""], rows)


def _learnt(facts: Facts) -> str:
    """How many tokens it learnt to predict up to its step; "" where that is not recorded."""
    found = [line["tokens"] for line in facts.log if "tokens" in line] if facts.step is not None else []
    return f"{found[-1]:,}" if found else ""


def _sentences(facts: Facts) -> Iterator[str]:
    spoken = ", ".join(_language(language) for language in languages_of(facts))
    if facts.kind == "pretrain":
        start = "Pretrained from random weights" if _from_nothing(facts) else "A language model whose pretraining was continued"
        yield f"{start} on medical text{f' in {spoken}' if spoken else ''} with `mmed-train`."
    elif facts.kind == "finetune":
        tasks = ", ".join(code(task) for task in facts.told("tasks")) or "tasks"
        yield f"A language model finetuned with `mmed-train` on the train split of {tasks}{f' ({spoken})' if spoken else ''}."
    else:
        yield "A language model. How it was trained is not recorded in this folder."
    if facts.folder.is_adapter:
        rank = facts.folder.json("adapter_config.json").get("r")
        words = f"{_adapter_kind(facts)} of rank {rank}" if isinstance(rank, int) else _adapter_kind(facts)
        yield f"These files are an adapter ({plain(words)}), which needs its base."
    if facts.merge:
        found = merge_difference(facts)
        yield (
            f"It was trained as an adapter, which is merged into these weights, in {code(str(facts.merge.get('dtype')))}. "
            f"Read back from disk and computed in float32, its logits differed from those of the adapter on its base by at most "
            f"{found.largest:.2g}, and the likeliest next token was another one at {found.flipped} of {found.places} places."
        )


def _base_fingerprint(facts: Facts) -> str:
    value = facts.merge.get("base") or facts.data.get("base")
    return value if isinstance(value, str) else ""


# --- how it was trained ---


def _training(facts: Facts, missing: list[str]) -> Iterator[str]:
    yield "## Training"
    if not facts.recipe:
        missing.append(f"the recipe: the folder holds no {RECIPE}")
        yield "The recipe is not recorded in this folder."
        return
    preset = str(facts.recipe.get("preset", "default"))
    summary = f": {plain(PRESETS[preset].summary)}" if preset in PRESETS and preset != "default" else ""
    yield f"Preset {code(preset)}{summary}."
    if rows := list(_changed(facts, preset)):
        yield "Settings that differ from the default:"
        yield table(["setting", "value", "default", "by"], rows)
    else:
        yield "Every setting is the default one."
    yield _details("The whole recipe", block("json", to_json(_without_places(facts.recipe), indent=1)))


def _changed(facts: Facts, preset: str) -> Iterator[tuple[str, ...]]:
    by_preset = PRESETS[preset].values if preset in PRESETS else {}
    for name, section in SECTIONS.items():
        defaults = _as_json(asdict(section()))
        for key, value in facts.settings(name).items():
            if key not in defaults or value != defaults[key]:
                whose = "preset" if value == _as_json(by_preset.get(name, {}).get(key)) else "recipe"
                shown = [code(json.dumps(each, ensure_ascii=False)) for each in (_without_places(value), defaults.get(key))]
                yield code(f"{name}.{key}"), *shown, whose


def _as_json(value: Any) -> Any:
    """As it comes out of JSON again, with lists for tuples."""
    return json.loads(json.dumps(value))


def _without_places(value: Any) -> Any:
    """The same without where things lay on a machine: of a path its last part is left."""
    if isinstance(value, Mapping):
        return {name: _without_places(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_places(each) for each in value]
    return _without_place(value) if isinstance(value, str) else value


def _without_place(text: str) -> str:
    parts = [part for part in re.split(r"[/\\]", text) if part]
    if len(parts) > 2 or re.match(r"[/\\~]|\.{1,2}([/\\]|$)|[A-Za-z]:[/\\]", text):
        return f"…/{parts[-1]}" if len(parts) > 1 or parts[:1] not in ([], ["."], [".."], ["~"]) else "…"
    return text


def _data(facts: Facts, missing: list[str]) -> Iterator[str]:
    yield "## Data"
    if not facts.data:
        missing.append(f"what it was trained on: the folder holds no {DATA}")
        yield "What it was trained on is not recorded in this folder."
        return
    yield from _corpus(facts) if facts.kind == "pretrain" else _items(facts)
    rows = [("token shard", code(name), code(str(value))) for name, value in facts.told("shards").items()]
    rows += [("train split", code(name), code(str(value))) for name, value in facts.told("tasks").items()]
    for name, words in (("ids_sha256", "all token ids"), ("tokenizer", "tokenizer")):
        if name in facts.data:
            rows.append((words, "", code(str(facts.data[name]))))
    yield _details("Digests of the data (SHA-256)", table(["of", "", "digest"], rows))


def _corpus(facts: Facts) -> Iterator[str]:
    tokens = _tokens(facts)
    languages: dict[str, int] = {}
    for kind, count in tokens.items():
        language = kind.partition("/")[0]
        languages[language] = languages.get(language, 0) + count
    total = sum(tokens.values())
    if facts.counts("taken"):
        yield "Tokens that its epochs take, by language:"
    else:
        yield "Tokens on offer, by language; how often the windows read each of them is not recorded:"
    rows = [(_language(name), f"{count:,}", f"{count / (total or 1):.1%}") for name, count in sorted(languages.items())]
    yield table(["language", "tokens", "share"], [*rows, ("all", f"{total:,}", "")], right=(1, 2))
    learnt = _learnt(facts)
    yield (
        f"These weights have learnt {learnt} tokens." if learnt else "How many tokens these weights have learnt is not recorded."
    )
    rows = [
        (_language(kind.partition("/")[0]), code(kind.partition("/")[2]), f"{count:,}") for kind, count in sorted(tokens.items())
    ]
    yield _details("By source", table(["language", "source", "tokens"], rows, right=(2,)))


def _items(facts: Facts) -> Iterator[str]:
    if items := facts.counts("items"):
        yield "Items of an epoch, by task and the protocol that they are shown in:"
        yield table(["task (protocol)", "items"], [(code(name), f"{count:,}") for name, count in items.items()], right=(1,))
    if "answer_tokens" in facts.data:
        tokens, answers = (whole(facts.folder.path / DATA, facts.data, name) for name in ("tokens", "answer_tokens"))
        yield f"They hold {tokens:,} tokens, {answers:,} of them in answers, which alone are learnt."
    if left_out := facts.counts("left_out"):
        yield "Left out:"
        yield table(["because", "items"], [(plain(reason), f"{count:,}") for reason, count in left_out.items()], right=(1,))
    elif "left_out" in facts.data:
        yield "No item was left out."


def _language(language: str) -> str:
    return LANGUAGES.get(language) or code(language)


def _losses(facts: Facts, missing: list[str]) -> Iterator[str]:
    yield "## Loss"
    if not any("loss" in line for line in facts.log):
        missing.append(f"the losses: no {LOG} of its training is here; name the training's output with --training")
        yield "The log of the training was not at hand."
        return
    names = sorted({name for line in facts.log for name in line if name.startswith("eval_loss_")})
    labels = {name: f"held out, {_language(name.removeprefix('eval_loss_'))}" for name in names}
    last = "" if facts.step is not None else "; the step of these weights is not recorded, so the last of the log is shown"
    yield f"Mean loss per predicted token, in nats{last}:"
    rows = [_loss_row(facts, name, label) for name, label in {"loss": "training", **labels, "eval_loss": "held out, all"}.items()]
    yield table(["", "first", "last"], [row for row in rows if row], right=(1, 2))
    if facts.picture is not None:
        yield f"![Loss over the steps]({PICTURE})"
    else:
        missing.append(f"the loss curve: there is no {PICTURE} beside the {LOG}")


def _loss_row(facts: Facts, name: str, label: str) -> tuple[str, ...]:
    lines = [line for line in facts.log if name in line]
    return (label, *(f"{line[name]:.4g} (step {line['step']:,})" for line in (lines[0], lines[-1]))) if lines else ()


# --- how good it is ---


def _scores(facts: Facts, missing: list[str]) -> Iterator[str]:
    yield "## Scores"
    head = ["task", "language", "accuracy", "95 % interval", "chance", "n", "unread", "failed", "protocol", "data"]
    right = (3, 4, 5, 6, 7, 8)
    if facts.runs:
        yield "Accuracy in per cent, by `mmedeval`:"
        rows = [(_whose(facts, run), *row) for run in facts.runs for row in _score_rows(run)]
        yield table(["model", *head], rows, right=right)
    if THIS not in {_whose(facts, run) for run in facts.runs}:
        missing.append("scores of this very model: give run folders with --run")
        if not facts.runs:
            yield "No run of `mmedeval` was at hand."
    if facts.looks:
        last = "" if facts.step is not None else ", up to its end, since the step of these weights is not recorded"
        yield f"The model in memory during the training{last}:"
        rows = [(f"{step:,}", *row) for step, run in facts.looks for row in _score_rows(run)]
        yield table(["step", *head], rows, right=right)
    if facts.runs or facts.looks:
        yield "`n` counts items, and `data` begins the digest of what was asked. Unread and failed items are not in the accuracy."


def _score_rows(run: Run) -> Iterator[tuple[str, ...]]:
    for each in run.accuracies:
        digest_of = run.digests.get(each.task)
        yield (
            code(each.task),
            _language(each.language) if digest_of is not None else "average",
            _percent(each.value),
            "–" if each.low is None else f"{_percent(each.low)} – {_percent(each.high)}",
            _percent(each.chance),
            f"{each.n:,}",
            f"{each.unread:,}",
            f"{each.failed:,}",
            f"{code(run.protocol)}, {run.shots} shot{'' if run.shots == 1 else 's'}",
            code((digest_of or "")[:12]),
        )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _whose(facts: Facts, run: Run) -> str:
    """Which model a run is of, by its fingerprint."""
    base, own = _base_fingerprint(facts), facts.folder.fingerprint
    known = {digest([base, None]): "its base"}
    if facts.merge:
        known[digest([base, facts.merge.get("adapter")])] = "the adapter before it was merged"
    known[digest([base, own] if facts.folder.is_adapter else [own, None])] = THIS
    scheme, colon, name = run.model.partition(":")
    return known.get(run.fingerprint) or f"another one: {code(f'{scheme}{colon}{_without_place(name)}')}"


# --- how it is used ---


def _running(facts: Facts) -> Iterator[str]:
    asked = _names(facts.settings("eval").get("tasks"))
    learnt = _names(facts.settings("data").get("tasks")) if facts.kind == "finetune" else ()
    if facts.runs:
        tasks, protocol = facts.runs[0].tasks, facts.runs[0].protocol
    elif asked:
        tasks, protocol = asked, str(facts.settings("eval").get("protocol", "letter"))
    else:
        tasks = learnt or ("mmedbench",)
        protocol = next(iter(_names(facts.settings("data").get("protocols")) if learnt else ()), "letter")
    yield "## How to run it"
    command = ["mmedeval", "run", "--model", "hf:FOLDER", "--tasks", ",".join(tasks), "--protocol", protocol]
    yield block("sh", printable(f"pip install 'mmedeval[hf]'\n{shlex.join(command)}"))
    words = "`FOLDER` is where these files lie, or their name on the hub."
    if facts.folder.is_adapter:
        words += (
            " The base is looked for where `adapter_config.json` says; where it lies elsewhere: `--model hf:BASE --model-arg "
            "adapter=FOLDER`. `mmed-train merge FOLDER MERGED --base BASE` makes one model of both."
        )
    yield words


def _names(value: Any) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _limits() -> Iterator[str]:
    yield "## Limits"
    yield LIMITS
    yield f"*Written by `mmed-train card` of mmedeval {__version__} from the files of the training and of the runs alone.*"


# --- Markdown ---


def plain(text: str) -> str:
    """Any text, as Markdown that shows just it: no markup, no link, no line of its own."""
    escaped = re.sub(r"([\\`*_{}\[\]<>#~&$@:!])", r"\\\1", printable(" ".join(text.split())))
    return re.sub(r"(?i)(?<=www)\.", r"\\.", escaped)


def code(text: str) -> str:
    """Any text as a span of code; nothing for nothing."""
    shown = printable(" ".join(text.split()))
    if not shown:
        return ""
    ticks = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{space}{shown}{space}{ticks}"


def block(language: str, text: str) -> str:
    """Any text as a block of code."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A table of cells that are Markdown already."""
    rule = ["---:" if place in right else "---" for place in range(len(head))]
    lines = (" | ".join(cell.replace("|", r"\|") for cell in cells) for cells in (head, rule, *rows))
    return "\n".join(f"| {line} |" for line in lines)


def _details(summary: str, content: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{content}\n\n</details>"
