"""What finetuning learns from: the train items of tasks as token ids, the same ids that the harness asks with.

A prompt is rendered by the hooks that render it for an evaluation, and tokenised by the same `Encoder`. The answer is what a
solved example of that protocol shows (in the protocols of the paper: the published target). Loss is on the answer and its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from mmed_train.training.recipe import Recipe
from mmedeval import DataError, ModelError, Prompt, ProtocolName, Sample, Task, TaskOptions, TaskSpec, UnknownNameError
from mmedeval.catalog import Catalog
from mmedeval.prompts import LOGLIKELIHOOD_PROTOCOLS, plain_chat, same_question
from mmedeval.tokens import Encoder

# Protocols whose answer begins with the reason.
REASONED: frozenset[ProtocolName] = frozenset({"paper", "chat"})
# The published scripts' one difference between the prompt of the training and that of the inference (see `as_published`).
SPACES, SPACE = "step-by-step.  You", "step-by-step. You"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item under one protocol. `ids` is the prompt and then the answer with its end; `prompt` counts the prompt's tokens."""

    task: str
    sample: str
    language: str
    protocol: ProtocolName
    ids: npt.NDArray[np.int32]
    prompt: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class Items:
    """All items, and why others were left out: per reason how many, and the first few as `task/sample (protocol)`.

    `data` maps each task to the digest of its train items as they were read.
    """

    items: tuple[Item, ...]
    left_out: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]
    data: Mapping[str, str]

    def report(self) -> list[str]:
        """A sentence per reason."""
        return [
            f"{count:,} items were left out: {reason} ({', '.join(self.examples[reason])}{', ...' if count > 3 else ''})"
            for reason, count in self.left_out.items()
        ]


def read_items(recipe: Recipe, catalog: Catalog, tokenizer: Any, *, embeddings: int) -> Items:
    """Every train item of the recipe's tasks, once per protocol. Raises `DataError` where none is left."""
    protocols = _protocols(recipe.data.protocols)
    specs = catalog.select_tasks(recipe.data.tasks)
    options = TaskOptions(data_dir=recipe.inside(recipe.data.data_dir) if recipe.data.data_dir else None)
    encoder = Encoder(tokenizer, name=recipe.model.tokenizer or recipe.model.path, add_bos=None, embeddings=embeddings)
    asked = forbidden_questions(catalog, specs, recipe.eval.tasks, options)
    items: list[Item] = []
    reasons: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    digests = {}

    def leave_out(reason: str, name: str, count: int) -> None:
        reasons[reason] += count
        examples.setdefault(reason, [])
        if len(examples[reason]) < 3:
            examples[reason].append(name)

    for spec in specs:
        task = spec.load(options)
        samples = task.samples("train")
        digests[spec.name] = _digest(samples)
        for sample in samples[: recipe.data.limit]:
            name = f"{spec.name}/{sample.id}"
            if same_question(sample.question) in asked:
                leave_out("their question is in a test split", name, len(protocols))
                continue
            for protocol in protocols:
                if protocol == "paper" and not sample.rationale.strip():
                    leave_out(f"they have no rationale for the protocol {protocol}", name, 1)
                    continue
                item = make_item(catalog, encoder, task, sample, protocol, as_published=recipe.data.as_published)
                if len(item) > recipe.data.max_length:
                    leave_out(f"they are longer than max_length = {recipe.data.max_length} tokens", f"{name} ({protocol})", 1)
                else:
                    items.append(item)
    found = Items(
        items=tuple(items),
        left_out=dict(reasons),
        examples={reason: tuple(names) for reason, names in examples.items()},
        data=digests,
    )
    if not items:
        raise DataError(" ".join([f"no train item of {', '.join(recipe.data.tasks)} is left to learn from:", *found.report()]))
    return found


def forbidden_questions(
    catalog: Catalog, specs: Sequence[TaskSpec], evaluated: Iterable[str], options: TaskOptions
) -> frozenset[str]:
    """The questions of the test splits of these tasks, of their groups, and of what is evaluated."""
    groups = {spec.group for spec in specs if spec.group}
    names = {spec.name: spec for spec in specs} | {name: spec for name, spec in catalog.tasks.items() if spec.group in groups}
    names |= {spec.name: spec for spec in (catalog.select_tasks(tuple(evaluated)) if evaluated else ())}
    found: set[str] = set()
    for spec in names.values():
        try:
            samples = spec.load(options).samples("test")
        except DataError:
            # A group may be there in part; what is learnt from or evaluated must be whole.
            if spec in specs:
                raise
            continue
        found.update(same_question(sample.question) for sample in samples)
    return frozenset(found)


def make_item(
    catalog: Catalog, encoder: Encoder, task: Task, sample: Sample, protocol: ProtocolName, *, as_published: bool = False
) -> Item:
    """An item as tokens: the ids of the harness's prompt, then those of the answer and the token that ends it."""
    prompt = _render(catalog, task, sample, (), protocol)
    if as_published:
        prompt = replace(prompt, question=prompt.question.replace(SPACES, SPACE))
    answer = target(catalog, task, sample, protocol)
    eos = encoder.tokenizer.eos_token_id
    if eos is None:
        raise ModelError(f"the tokenizer of {encoder.name} has no EOS token, so a model cannot learn to stop; set its eos_token")
    if protocol in LOGLIKELIHOOD_PROTOCOLS:
        context, (behind,), _ = encoder.encode_pair(prompt, [answer])
        behind = [*behind, eos]
    elif prompt.chat and encoder.tokenizer.chat_template:
        context, behind = _conversation(encoder, prompt, answer, eos)
    else:
        # Apart, so that no token spans the border: the model is asked with the prompt's own tokens.
        context = encoder.encode_prompt(plain_chat(prompt) if prompt.chat else prompt)
        behind = [*encoder.encode([answer], special=False)[0], eos]
    return Item(
        task=task.name,
        sample=sample.id,
        language=sample.language,
        protocol=protocol,
        ids=np.array([*context, *behind], np.int32),
        prompt=len(context),
    )


def target(catalog: Catalog, task: Task, sample: Sample, protocol: ProtocolName) -> str:
    """What the model is to answer. The paper's targets are its published script's (Qiu et al. 2024); letters as it joins them."""
    if protocol in ("paper", "paper-direct"):
        reason = f"###Rationale: {sample.rationale}\n" if protocol == "paper" else ""
        return f"{reason}###Answer: OPTION {','.join(sorted(sample.answer))} IS CORRECT."
    shots = _render(catalog, task, sample, (sample,), protocol).shots
    if not shots:
        raise DataError(f"the task {task.name} shows no solved example in the protocol {protocol}; train with another protocol")
    return shots[0].answered


def _conversation(encoder: Encoder, prompt: Prompt, answer: str, eos: int) -> tuple[list[int], list[int]]:
    """Prompt and answer as the chat template puts them, up to the token that ends the turn."""
    context = encoder.encode_prompt(prompt)
    text, _ = encoder.prompt_text(prompt)
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    whole = str(encoder.tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], tokenize=False))
    # Some templates write the turn of the model in another way than they ask for it.
    behind = encoder.encode([whole[len(text) :] if whole.startswith(text) else answer], special=False)[0]
    special = {eos, *encoder.tokenizer.all_special_ids}
    end = next((place for place, token in enumerate(behind) if token in special), None)
    return context, [*behind, eos] if end is None else behind[: end + 1]


def _render(catalog: Catalog, task: Task, sample: Sample, shots: Sequence[Sample], protocol: ProtocolName) -> Prompt:
    prompt = catalog.host.hook.mmedeval_render_prompt(task=task, sample=sample, shots=shots, protocol=protocol)
    if not isinstance(prompt, Prompt):
        raise DataError(f"the task {task.name} gives no prompt for {sample.id} in the protocol {protocol}")
    return prompt


def _protocols(names: Sequence[str]) -> list[ProtocolName]:
    known = get_args(ProtocolName)
    for name in names:
        if name not in known:
            raise UnknownNameError("protocol", name, known)
    return [name for name in known if name in names]


def _digest(samples: Sequence[Sample]) -> str:
    from mmedeval import digest

    return digest([sample.contents() for sample in samples])


def tokens_of(items: Iterable[Item]) -> tuple[int, int]:
    """All tokens, and those of answers."""
    rows = [(len(item), len(item) - item.prompt) for item in items]
    return sum(row[0] for row in rows), sum(row[1] for row in rows)
