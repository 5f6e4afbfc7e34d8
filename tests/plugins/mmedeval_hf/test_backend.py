"""Loglikelihoods of the transformers backend, held against transformers and peft themselves."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmedeval import (
    BackendError,
    Failure,
    GenerateRequest,
    LoglikelihoodRequest,
    Loglikelihoods,
    ModelError,
    Prompt,
    RunPlan,
    Sampling,
    Shot,
    UsageError,
    hookimpl,
)
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import prepare, run
from mmedeval.specs import ProtocolName
from mmedeval.store import read_samples
from mmedeval.testing import StaticTask, check_backend, make_sample
from mmedeval_hf import ARGUMENTS
from mmedeval_hf.backend import HFBackend
from mmedeval_hf.options import Options

# peft asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOLERANCE = 1e-5

# Recurrent and attending, with learned, rotary and linear positions; a window far smaller than the prompts.
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "gpt2": {},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2},
    "gemma2": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 8},
    "bloom": {},
    "mamba": {},
}

# Sizes that must fit each other.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "mamba2": {"hidden_size": 64, "num_heads": 8, "head_dim": 16, "expand": 2, "state_size": 16, "n_groups": 1},
}


def hf(path: Path, **arguments: str) -> HFBackend:
    return HFBackend(str(path), {"device": "cpu", **arguments})


def ask(prompt: Prompt | str, continuations: Sequence[str], name: str = "a") -> LoglikelihoodRequest:
    return LoglikelihoodRequest(
        id=name,
        prompt=prompt if isinstance(prompt, Prompt) else Prompt(question=prompt),
        continuations=tuple(continuations),
        answers=tuple(frozenset("ABCDEFGHIJ"[i]) for i in range(len(continuations))),
        options=dict(zip("ABCDEFGHIJ", continuations, strict=False)),
    )


def answers(backend: HFBackend, requests: Sequence[LoglikelihoodRequest]) -> dict[str, Loglikelihoods]:
    """The responses by id, none of them a failure."""
    found: dict[str, Loglikelihoods] = {}
    for response in backend.loglikelihood(requests):
        assert isinstance(response, Loglikelihoods), response
        found[response.request_id] = response
    assert sorted(found) == sorted(request.id for request in requests)
    return found


def answer(backend: HFBackend, request: LoglikelihoodRequest) -> Loglikelihoods:
    return answers(backend, [request])[request.id]


def failure(backend: HFBackend, request: LoglikelihoodRequest) -> Failure:
    (response,) = backend.loglikelihood([request])
    assert isinstance(response, Failure), response
    return response


def direct(model: Any, context: Sequence[int], scored: Sequence[int]) -> float:
    """log P(scored | context) by one forward pass of its own."""
    ids = torch.tensor([[*context, *scored][:-1]])
    with torch.no_grad():
        predicted = torch.log_softmax(model(ids).logits[0, len(context) - 1 :].double(), dim=-1)
    return float(predicted.gather(1, torch.tensor(scored).unsqueeze(1)).sum())


def worst(a: Mapping[str, Loglikelihoods], b: Mapping[str, Loglikelihoods]) -> float:
    """The largest difference between two sets of answers to the same requests."""
    return max(abs(x - y) for name in a for x, y in zip(a[name].values, b[name].values, strict=True))


def uneven_requests() -> list[LoglikelihoodRequest]:
    """Prompts of 3 to some 200 tokens, with continuations that are alike, begin one another or are longer than the prompt."""
    words = ["Which metal? ", "Какой металл? ", "哪种金属？", "¿Qué metal? "]
    endings = [[" A", " B"], [" A", " A,B", " A,B,C\n"], ["铁", "铁和锌", "铜" * 10], [" iron", " irons", "\n"]]
    requests = [
        ask(words[i % 4] * (1 + 3 * (i % 7)) + "Answer:", endings[i % 4 if i < 12 else (i + 1) % 4], name=f"r{i}")
        for i in range(24)
    ]
    # A prompt that is there already, and one that begins another.
    return [
        *requests,
        ask("Which metal? Answer:", [" C", " A"], name="same"),
        ask("Which metal?", [" A", " B"], name="beginning"),
    ]


def edit_json(file: Path, **values: Any) -> None:
    """Sets keys of a JSON file; `None` removes a key."""
    content = {**json.loads(file.read_text(encoding="utf-8")), **values}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), encoding="utf-8")


def variant(source: Path, target: Path, **tokenizer: Any) -> Path:
    """A copy of a model folder with another tokenizer configuration."""
    shutil.copytree(source, target)
    edit_json(target / "tokenizer_config.json", **tokenizer)
    return target


# --- the values are those of a direct computation ---


@pytest.fixture(scope="module")
def real_backend(real_tiny: Path) -> Iterator[HFBackend]:
    with hf(real_tiny) as backend:
        yield backend


@pytest.fixture(scope="module")
def real_model(real_tiny: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(real_tiny).eval(), AutoTokenizer.from_pretrained(real_tiny)


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("protocol", ["letter", "cloze"])
def test_real_items_score_as_one_plain_forward_pass_per_option_does(
    protocol: ProtocolName, shots: int, mmedbench: Path, real_backend: HFBackend, real_model: tuple[Any, Any]
) -> None:
    plan = RunPlan(model="hf:tiny", tasks=("mmedbench",), protocol=protocol, shots=shots, limit=10, data_dir=mmedbench)
    prepared = prepare(plan, Catalog(make_host()), real_backend)
    requests = [request for task in prepared.tasks for request in task.requests if isinstance(request, LoglikelihoodRequest)]
    assert len(requests) == 60
    found = answers(real_backend, requests)
    model, tokenizer = real_model
    differences = []
    for request in requests:
        assert len(request.prompt.shots) == shots
        text = request.prompt.text
        assert text == text.rstrip(), "lm-evaluation-harness would move the space behind the border"
        context = tokenizer(text)["input_ids"]
        assert context[0] == tokenizer.bos_token_id
        for continuation, value in zip(request.continuations, found[request.id].values, strict=True):
            scored = tokenizer(text + continuation)["input_ids"][len(context) :]
            assert scored
            differences.append(abs(direct(model, context, scored) - value))
        assert found[request.id].usage.tokens_in == len(context)
        assert found[request.id].usage.shots_dropped == 0
    assert max(differences) <= TOLERANCE


def test_a_space_at_the_end_of_the_prompt_is_scored_with_the_continuation(tiny: Callable[..., Path]) -> None:
    backend = hf(tiny())
    behind = answer(backend, ask("Question: Is iron a metal?\nAnswer:", [" yes", " no"]))
    before = answer(backend, ask("Question: Is iron a metal?\nAnswer: ", ["yes", "no"]))
    assert before.values == pytest.approx(behind.values, abs=TOLERANCE)
    assert before.usage.tokens_in == behind.usage.tokens_in


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_the_batch_does_not_change_a_loglikelihood(model_type: str, tiny: Callable[..., Path]) -> None:
    path = tiny(model_type, config={"initializer_range": 0.1, **ARCHITECTURES[model_type]})
    requests = uneven_requests()
    alone = answers(hf(path, batch_size="1"), requests)
    together = answers(hf(path, batch_size="32"), requests)
    squeezed = answers(hf(path, batch_tokens="150"), requests[::-1])
    unshared = answers(hf(path, prefix_sharing="false"), requests)
    assert worst(alone, together) <= TOLERANCE
    assert worst(alone, squeezed) <= TOLERANCE
    assert worst(alone, unshared) <= TOLERANCE


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_architecture_scores_as_its_own_forward_pass_does(model_type: str, tiny: Callable[..., Path]) -> None:
    path = tiny(model_type, config={"initializer_range": 0.1, **ARCHITECTURES[model_type]})
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    requests = uneven_requests()
    found = answers(hf(path), requests)
    for request in requests:
        context = tokenizer(request.prompt.text)["input_ids"]
        wanted = [
            direct(model, context, tokenizer(request.prompt.text + text)["input_ids"][len(context) :])
            for text in request.continuations
        ]
        # A long sum of large terms has the last digit of its float32 parts.
        assert found[request.id].values == pytest.approx(wanted, abs=TOLERANCE, rel=1e-7)


@pytest.mark.parametrize(
    ("model_type", "way"),
    [("llama", "shared prefixes"), ("gpt2", "shared prefixes"), ("mistral", "plain"), ("bloom", "plain"), ("mamba", "plain")],
)
def test_prefixes_are_shared_only_by_models_for_which_that_changes_nothing(
    model_type: str, way: str, tiny: Callable[..., Path]
) -> None:
    backend = hf(tiny(model_type, config={"initializer_range": 0.1, **ARCHITECTURES[model_type]}))
    answers(backend, uneven_requests())
    assert backend.runtime()["way"] == way


def test_a_tiny_model_of_any_architecture_can_be_asked(tiny: Callable[..., Path]) -> None:
    assert all(len(answer(hf(tiny(name)), ask("Iron is", [" A", " B"])).values) == 2 for name in ("qwen2", "mistral", "gemma"))


def test_the_contract_of_backends_is_kept(tiny: Callable[..., Path]) -> None:
    with hf(tiny()) as backend:
        check_backend(backend)


# --- the border between prompt and continuation ---


def border_model(base: Path, target: Path, tokens: Sequence[str], merges: Sequence[tuple[str, str]]) -> Path:
    """A copy of a model whose tokenizer has just these tokens behind BOS, EOS and padding, and merges as told."""
    from tokenizers import Tokenizer, models, processors

    shutil.copytree(base, target)
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", "<pad>", "<unk>", *tokens])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), unk_token="<unk>"))
    tokenizer.add_special_tokens(["<s>", "</s>", "<pad>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    tokenizer.save(str(target / "tokenizer.json"))
    return target


@pytest.mark.parametrize(("first", "second", "colon_with"), [("答", "案", "急"), ("答", "え", "鉄")])
def test_a_token_across_the_border_is_scored_as_lm_evaluation_harness_scores_it(
    first: str, second: str, colon_with: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    word, across = first + second, f"：{colon_with}"
    tokens = [first, second, "：", colon_with, "性", "慢", word, across]
    path = border_model(tiny(), tmp_path / "border", tokens, [(first, second), ("：", colon_with)])
    tokenizer = AutoTokenizer.from_pretrained(path)
    bos, word_id, colon, across_id, end, slow = tokenizer.convert_tokens_to_ids(["<s>", word, "：", across, "性", "慢"])
    context, backend = f"{word}：", hf(path)

    def encoded(continuations: Sequence[str]) -> tuple[list[int], list[list[int]], bool]:
        return backend.encoder.encode_pair(Prompt(question=context), continuations)

    # Nothing spans the border.
    assert encoded(["慢", "慢性"]) == ([bos, word_id, colon], [[slow], [slow, end]], False)

    # `_encode_pair` of lm-evaluation-harness: the prompt's own tokens, then the joined text's behind as many.
    continuations = [f"{colon_with}性", "慢性"]
    ids = tokenizer(context)["input_ids"]
    wanted = [tokenizer(context + text)["input_ids"][len(ids) :] for text in continuations]
    assert wanted == [[end], [slow, end]]
    assert encoded(continuations) == (ids, wanted, True)

    # Where that leaves nothing, all are scored from the first token that differs.
    continuations = [colon_with, "慢性"]
    wanted = [[across_id], [colon, slow, end]]
    assert encoded(continuations) == ([bos, word_id], wanted, True)

    found = answer(backend, ask(context, continuations))
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    assert found.values == pytest.approx([direct(model, [bos, word_id], scored) for scored in wanted], abs=TOLERANCE)
    assert found.usage.border_merged
    assert not answer(backend, ask(context, ["慢", "慢性"])).usage.border_merged


def test_a_continuation_without_a_token_is_a_failure_and_not_the_best_answer(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path = border_model(tiny(), tmp_path / "drops", ["a", "b", ":"], [])
    content = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["unk_token"] = None  # such a tokenizer drops what it does not know
    (path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    backend = hf(path)
    assert backend.encoder.encode_pair(Prompt(question="a:"), ["b", "β"]) == ([0, 4, 6], [[5], []], False)
    responses = {
        response.request_id: response for response in backend.loglikelihood([ask("a:", ["b", "β"]), ask("b:", ["a"], "b")])
    }
    assert isinstance(responses["a"], Failure)
    assert isinstance(responses["b"], Loglikelihoods)


# --- BOS ---


@pytest.mark.parametrize(
    ("of_tokenizer", "arguments", "wanted"),
    [
        (True, {}, 1),
        (False, {}, 0),
        (True, {"add_bos": "false"}, 0),
        (False, {"add_bos": "true"}, 1),
        (True, {"add_bos": "true"}, 1),
    ],
)
def test_the_bos_is_the_tokenizers_unless_add_bos_says_otherwise(
    of_tokenizer: bool, arguments: dict[str, str], wanted: int, tiny: Callable[..., Path]
) -> None:
    path = tiny(bos=of_tokenizer)
    backend = hf(path, **arguments)
    found = answer(backend, ask("Is iron a metal? Answer:", [" A", " B"]))
    assert found.usage.bos == (wanted or None)  # none is missing where none is wanted
    tokenizer = AutoTokenizer.from_pretrained(path)
    context = [0] * wanted + tokenizer("Is iron a metal? Answer:", add_special_tokens=False)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    wanted_values = [direct(model, context, tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (" A", " B")]
    assert found.values == pytest.approx(wanted_values, abs=TOLERANCE)
    assert found.usage.tokens_in == len(context)


def test_an_eos_that_the_tokenizer_puts_behind_text_stays_away(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path = variant(tiny(), tmp_path / "eos")
    content = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    content["post_processor"]["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    content["post_processor"]["special_tokens"]["</s>"] = {"id": "</s>", "ids": [1], "tokens": ["</s>"]}
    (path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert AutoTokenizer.from_pretrained(path)("Iron")["input_ids"][-1] == 1
    request = ask("Iron is", [" A", " metal"])
    assert answer(hf(path), request).values == answer(hf(tiny()), request).values


def test_add_bos_without_a_bos_token_is_refused(tiny: Callable[..., Path], tmp_path: Path) -> None:
    backend = hf(variant(tiny(bos=False), tmp_path / "none", bos_token=None), add_bos="true")
    with pytest.raises(UsageError, match="has no BOS token"):
        answer(backend, ask("Iron is", [" A", " B"]))


def test_a_chat_template_that_brings_its_bos_gets_no_second_one(tiny: Callable[..., Path]) -> None:
    path = tiny()
    tokenizer = AutoTokenizer.from_pretrained(path)
    turns = [{"role": "user", "content": "Is iron a metal?"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    wanted = tokenizer(rendered.rstrip(), add_special_tokens=False)["input_ids"]
    for arguments in ({}, {"add_bos": "true"}):
        backend = hf(path, **arguments)
        prompt = Prompt(question="Is iron a metal?", chat=True)
        assert backend.encoder.encode_pair(prompt, ["Yes", "No"])[0] == wanted
        assert answer(backend, ask(prompt, ["Yes", "No"])).usage.bos == 1
    # A plain prompt that begins with the BOS in words counts as one that has it.
    assert answer(hf(path), ask("<s>Is iron a metal?", ["Yes", "No"])).usage.bos == 1


@pytest.mark.parametrize(
    ("opening", "bos", "warning"),
    [
        ("{{ bos_token }}", 1, None),
        ("{{ bos_token }}{{ bos_token }}", 2, "3 prompts begin with more than one BOS token"),
        ("", 0, "3 prompts begin without the BOS token"),
    ],
)
def test_a_chat_template_that_doubles_or_forgets_the_bos_is_warned_of(
    opening: str, bos: int, warning: str | None, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    template = opening + "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    path = variant(tiny(), tmp_path / "model", chat_template=template)
    task = StaticTask(test=[make_sample(i) for i in range(3)])
    plugin = SimpleNamespace(mmedeval_tasks=hookimpl(specname="mmedeval_tasks")(lambda: [task.spec()]))
    plan = RunPlan(model=f"hf:{path}", model_args={"device": "cpu"}, tasks=("static",), protocol="chat", max_tokens=1)
    record, folder = run(plan, Catalog(make_host(extra=[plugin])), tmp_path / "run")
    assert [result.usage.bos for result in read_samples(folder)] == [bos] * 3
    assert [text for text in record.data["warnings"] if "BOS" in text and text.startswith(warning or "")] == record.data[
        "warnings"
    ]
    assert len(record.data["warnings"]) == (warning is not None)


def test_add_bos_also_helps_a_chat_template_that_forgets_it(tiny: Callable[..., Path], tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    path = variant(tiny(), tmp_path / "forgets", chat_template=template)
    turns, plain = (Prompt(question="Is iron a metal?", chat=chat) for chat in (True, False))
    with_bos = answer(hf(path, add_bos="true"), ask(turns, [" A", " B"]))
    assert with_bos.usage.bos == 1
    assert with_bos.values == pytest.approx(answer(hf(path), ask(plain, [" A", " B"])).values, abs=TOLERANCE)


# --- the context ---


def shot_prompt(count: int, *, chat: bool = False) -> Prompt:
    shots = tuple(Shot(asked=f"Question: Is number {i} even?\nAnswer:", answered=f" {i % 2}\n") for i in range(count))
    return Prompt(opening="", shots=shots, question="Question: Is iron a metal?\nAnswer:", chat=chat)


@pytest.mark.parametrize("chat", [False, True])
def test_shots_are_dropped_from_the_front_until_the_longest_option_fits(chat: bool, tiny: Callable[..., Path]) -> None:
    path, continuations, prompt = tiny(), [" A", " it is a metal"], shot_prompt(3, chat=chat)
    free = hf(path)
    for dropped in range(4):
        short = Prompt(shots=prompt.shots[dropped:], question=prompt.question, chat=chat)
        context, scored, _ = free.encoder.encode_pair(short, continuations)
        needed = len(context) + max(map(len, scored)) - 1  # the last token is predicted, never read
        found = answer(hf(path, max_length=str(needed)), ask(prompt, continuations))
        assert found.usage.shots_dropped == dropped
        assert found.usage.tokens_in == len(context)
        assert found.values == pytest.approx(answer(free, ask(short, continuations)).values, abs=TOLERANCE)
    refused = failure(hf(path, max_length=str(needed - 1)), ask(prompt, continuations))
    assert refused.kind == "too_long"
    assert refused.usage.shots_dropped == 3
    assert f"{needed} tokens" in refused.message
    assert f"{needed - 1}" in refused.message


def test_a_model_with_learned_positions_reads_to_its_last_one_and_not_beyond(tiny: Callable[..., Path]) -> None:
    path = tiny("gpt2", config={"max_position_embeddings": 32})
    backend = hf(path)
    assert backend.max_length == 32
    for tokens, fits in ((31, True), (32, True), (33, False)):
        prompt = " A" * (tokens - 1)  # and the BOS
        assert len(backend.encoder.encode([prompt])[0]) == tokens
        (response,) = backend.loglikelihood([ask(prompt, [" A", " B"])])
        assert isinstance(response, Loglikelihoods if fits else Failure)


# --- memory ---


def starve(backend: HFBackend, too_much: Callable[[torch.Size], bool], stop: Callable[[], object]) -> None:
    """Lets the model's forward pass end in `stop` where it is given too much."""
    forward = backend.model.forward

    @functools.wraps(forward)
    def limited(*args: Any, **kwargs: Any) -> Any:
        if too_much(kwargs["input_ids"].shape):
            stop()
        return forward(*args, **kwargs)

    backend.model.forward = limited


def out_of_gpu_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def out_of_cpu_memory() -> None:
    torch.empty(2**52)


@pytest.mark.parametrize("sharing", ["true", "false"])
@pytest.mark.parametrize("stop", [out_of_gpu_memory, out_of_cpu_memory])
def test_out_of_memory_halves_the_batch_and_changes_no_value(
    stop: Callable[[], object], sharing: str, tiny: Callable[..., Path]
) -> None:
    path, requests = tiny(config={"initializer_range": 0.1}), uneven_requests()
    free = answers(hf(path), requests)
    limit = max(found.usage.tokens_in + found.usage.tokens_out for found in free.values())
    backend = hf(path, prefix_sharing=sharing)
    starve(backend, lambda shape: shape.numel() > limit, stop)
    assert worst(answers(backend, requests), free) <= TOLERANCE
    runtime = backend.runtime()
    assert runtime["way"] == ("shared prefixes" if sharing == "true" else "plain")
    assert runtime["process"]["out_of_memory_halvings"] > 0


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="other systems tell the peak memory in other units, or not at all"
)
def test_peak_memory_does_not_grow_with_the_number_of_items(tiny: Callable[..., Path]) -> None:
    import resource

    backend = hf(tiny(), batch_tokens="1024")

    def peak_after(count: int) -> int:
        requests = [ask(f"Which of the {i} metals? " * 12, [" A", " A,B\n"], f"{count}/{i}") for i in range(count)]
        answers(backend, requests)
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    peak_after(40)
    few = peak_after(40)
    # In kibibytes; ten times as many items, with less than 100 for each of the others, prompts and answers included.
    assert peak_after(400) - few < 36_000


@pytest.mark.parametrize("sharing", ["true", "false"])
def test_a_request_that_never_fits_into_memory_fails_alone_and_once(sharing: str, tiny: Callable[..., Path]) -> None:
    path = tiny(config={"initializer_range": 0.1})
    long = ask("Is iron a metal? " * 30 + "Answer:", [" A", " it is", " it is not", " B and C"], "long")
    requests = [*uneven_requests()[:6], long]
    free = answers(hf(path), requests)
    limit = free["long"].usage.tokens_in  # one option fits in, longer ones do not
    backend = hf(path, prefix_sharing=sharing)
    starve(backend, lambda shape: shape[1] > limit, out_of_gpu_memory)
    responses = list(backend.loglikelihood(requests))
    failures = [response for response in responses if isinstance(response, Failure)]
    assert [(one.request_id, one.kind) for one in failures] == [("long", "out_of_memory")]
    found = {response.request_id: response for response in responses if isinstance(response, Loglikelihoods)}
    assert worst(found, free) <= TOLERANCE
    assert len(found) == 6


def test_any_other_error_of_the_model_ends_the_run_with_one_sentence(tiny: Callable[..., Path]) -> None:
    def mismatch() -> None:
        torch.ones(2, 3) @ torch.ones(2, 3)

    backend = hf(tiny())
    starve(backend, lambda shape: True, mismatch)
    with pytest.raises(BackendError, match="stopped while computing: mat1 and mat2 shapes cannot be multiplied") as caught:
        list(backend.loglikelihood(uneven_requests()))
    assert "\n" not in str(caught.value)


def test_what_the_code_of_a_model_raises_is_one_sentence(tiny: Callable[..., Path]) -> None:
    def strange() -> None:
        raise ValueError("this cache has no length\nand so on")

    backend = hf(tiny())
    starve(backend, lambda shape: True, strange)
    with pytest.raises(BackendError, match=r"stopped while computing: ValueError: this cache has no length$"):
        answers(backend, uneven_requests())


def test_more_positions_than_the_model_has_are_one_sentence(tiny: Callable[..., Path]) -> None:
    backend = hf(tiny("gpt2", config={"max_position_embeddings": 8}), max_length="100")
    with pytest.raises(BackendError, match=r"index out of range.*lower --model-arg max_length") as caught:
        answer(backend, ask("Question: Is iron a metal?\nAnswer:", [" A", " B"]))
    assert "\n" not in str(caught.value)


def test_a_token_that_the_model_has_no_embedding_for_is_one_sentence(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path = variant(tiny(), tmp_path / "more")
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens(["haemoglobin"])
    tokenizer.save_pretrained(path)
    with pytest.raises((BackendError, ModelError)) as caught:
        answers(hf(path), [ask("Is haemoglobin a metal?", [" A", " B"])])
    assert "\n" not in str(caught.value)


# --- alone ---


@pytest.mark.parametrize("sharing", ["true", "false"])
def test_asked_alone_nothing_is_computed_beside_another_and_the_record_stays_the_same(
    sharing: str, tiny: Callable[..., Path]
) -> None:
    backend, requests = hf(tiny(config={"initializer_range": 0.1}), prefix_sharing=sharing), uneven_requests()[:8]
    texts = [
        GenerateRequest(id=f"text {one.id}", prompt=one.prompt, sampling=Sampling(max_tokens=4), options={}) for one in requests
    ]
    together = answers(backend, requests)
    before, rows = backend.runtime(), set()
    forward = backend.model.forward

    @functools.wraps(forward)
    def noted(*args: Any, **kwargs: Any) -> Any:
        rows.add(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    backend.model.forward = noted
    found = {response.request_id: response for response in backend.alone([*requests, *texts])}
    assert rows == {1}
    assert found.keys() == {request.id for request in [*requests, *texts]}
    assert worst(together, {name: found[name] for name in together}) <= TOLERANCE
    assert backend.runtime() == before


# --- adapters ---


@pytest.fixture(scope="module", params=["lora", "rslora", "dora", "rslora with dora"])
def adapted(
    request: pytest.FixtureRequest, tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Any]:
    """The base model's folder, the adapter's, and peft's own model that wrote it."""
    from peft import LoraConfig, get_peft_model

    base = tiny()
    torch.manual_seed(7)
    config = LoraConfig(
        r=4,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj"],
        use_rslora="rslora" in request.param,
        use_dora="dora" in request.param,
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    # As training would: magnitudes that no longer follow from the weights.
    for name, parameter in model.named_parameters():
        if "magnitude" in name:
            parameter.data.mul_(torch.rand_like(parameter) + 0.5)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return base, folder, model


def own_values(model: Any, base: Path, request: LoglikelihoodRequest) -> list[float]:
    tokenizer = AutoTokenizer.from_pretrained(base)
    context = tokenizer(request.prompt.text)["input_ids"]
    return [direct(model, context, tokenizer(text, add_special_tokens=False)["input_ids"]) for text in request.continuations]


def test_an_adapter_gives_pefts_own_values_however_it_is_named(adapted: tuple[Path, Path, Any]) -> None:
    base, folder, model = adapted
    request = ask("Question: Is iron a metal?\nAnswer:", [" A", " B", " C"])
    wanted = own_values(model, base, request)
    alone, beside = hf(folder), hf(base, adapter=str(folder))
    assert answer(alone, request).values == pytest.approx(wanted, abs=TOLERANCE)
    assert answer(beside, request).values == pytest.approx(wanted, abs=TOLERANCE)
    assert max(abs(a - b) for a, b in zip(wanted, answer(hf(base), request).values, strict=True)) > 0.1
    assert alone.fingerprint() == beside.fingerprint() != hf(base).fingerprint()


def test_an_adapter_finds_its_base_by_a_path_that_begins_at_its_own_folder(
    adapted: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    base, folder, model = adapted
    shutil.copytree(base, tmp_path / "models" / "base")
    own = Path(shutil.copytree(folder, tmp_path / "runs" / "adapter"))
    edit_json(own / "adapter_config.json", base_model_name_or_path="../../models/base")
    request = ask("Question: Is iron a metal?\nAnswer:", [" A", " B", " C"])
    assert answer(hf(own), request).values == pytest.approx(own_values(model, base, request), abs=TOLERANCE)


@pytest.mark.parametrize("whole", [False, True], ids=["its configuration", "all of it"])
def test_an_adapter_beside_a_copy_of_its_base_is_still_an_adapter(
    whole: bool, adapted: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    base, folder, model = adapted
    both = tmp_path / "trained"
    shutil.copytree(folder, both)
    for file in base.iterdir():  # as some trainers leave them
        if whole or file.suffix == ".json":
            shutil.copy(file, both)
    request = ask("Question: Is iron a metal?\nAnswer:", [" A", " B", " C"])
    backend = hf(both)
    assert answer(backend, request).values == pytest.approx(own_values(model, base, request), abs=TOLERANCE)
    assert backend.describe()["adapter"] is not None


def test_a_tokenizer_saved_with_the_adapter_is_the_one_that_is_used(adapted: tuple[Path, Path, Any], tmp_path: Path) -> None:
    base, folder, _ = adapted
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, own)
    edit_json(own / "tokenizer_config.json", chat_template="{{ bos_token }}{{ messages[0]['content'] }}")
    assert hf(own).encoder.prompt_text(Prompt(question="Iron?", chat=True))[0] == "<s>Iron?"
    assert hf(folder).encoder.prompt_text(Prompt(question="Iron?", chat=True))[0].endswith("<|assistant|>\n")


# --- what the user may say ---


def test_every_argument_in_the_help_is_read_and_none_else() -> None:
    assert set(ARGUMENTS) == {field.name for field in fields(Options)}


@pytest.mark.parametrize(
    "pair",
    [
        *("dtype=float64", "dtype=", "device=gpu", "device=cuda:x", "max_length=0", "max_length=-1", "batch_size=1.5"),
        *("batch_tokens=٣", f"max_length={'9' * 5000}", "add_bos=yes", "trust_remote_code=1", "use_safetensors="),
    ],
)
def test_a_bad_argument_is_refused_at_once_with_its_name_and_value(pair: str, tmp_path: Path) -> None:
    name, _, value = pair.partition("=")
    with pytest.raises(UsageError) as caught:
        HFBackend(str(tmp_path), {name: value})
    assert f"{name}={value!r}" in str(caught.value)


def test_an_attention_that_does_not_exist_is_one_sentence(tiny: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        _ = hf(tiny(), attn_implementation="telepathy").model
    assert "\n" not in str(caught.value)


def test_the_attention_and_the_precision_asked_for_are_used(tiny: Callable[..., Path]) -> None:
    request = ask("Question: Is iron a metal?\nAnswer:", [" A", " B"])
    usual = answer(hf(tiny()), request)
    eager = hf(tiny(), attn_implementation="eager")
    assert answer(eager, request).values == pytest.approx(usual.values, abs=TOLERANCE)
    assert eager.model.config._attn_implementation == "eager"
    half = hf(tiny(), dtype="bfloat16")
    assert answer(half, request).values == pytest.approx(usual.values, abs=0.5)
    assert half.runtime()["dtype"] == "bfloat16"
    assert half.describe()["settings"] != eager.describe()["settings"]


# --- before anything is computed ---


def test_the_chat_protocol_without_a_chat_template_is_refused_with_the_way_out(
    tiny: Callable[..., Path], mmedbench: Path
) -> None:
    backend, catalog = hf(tiny(chat_template=False)), Catalog(make_host())
    plan = {"model": "hf:tiny", "tasks": ("mmedbench_en",), "protocol": "chat", "limit": 2, "data_dir": mmedbench}
    with pytest.raises(ModelError, match="no chat template; run with --no-chat-template"):
        prepare(RunPlan(**plan), catalog, backend)
    assert len(prepare(RunPlan(**plan, chat_template=False), catalog, backend).tasks[0].requests) == 2
    prepare(RunPlan(**plan), catalog, hf(tiny()))


@pytest.mark.parametrize("template", ["{{ raise_exception('only one turn, please') }}", "{% for message in %}"])
def test_a_chat_template_that_cannot_be_filled_in_is_one_sentence(
    template: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    backend = hf(variant(tiny(), tmp_path / "strict", chat_template=template))
    with pytest.raises(ModelError) as caught:
        answer(backend, ask(Prompt(question="Iron?", chat=True), [" A", " B"]))
    assert "\n" not in str(caught.value)


def test_a_window_shorter_than_an_item_sends_the_model_the_plain_way(tiny: Callable[..., Path]) -> None:
    windowed = tiny("mistral", config={"num_key_value_heads": 2, "sliding_window": 24})
    short, long = ask("Which metal?", [" A", " A,B\n", " A,C\n"], "short"), ask("Which metal? " * 20, [" A", " A,B\n"], "long")
    backend = hf(windowed)
    answers(backend, [short])
    assert backend.runtime()["way"] == "shared prefixes"
    together = answers(backend, [short, long])
    assert backend.runtime()["way"] == "plain"
    assert "attends to no more than 24 tokens" in backend.runtime()["process"]["why"]
    assert worst(together, answers(hf(windowed, batch_size="1", prefix_sharing="false"), [short, long])) <= TOLERANCE


def test_positions_that_turn_otherwise_in_long_texts_send_the_model_the_plain_way(tiny: Callable[..., Path]) -> None:
    rotary = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    scaled = tiny("llama", config={"rope_parameters": rotary, "max_position_embeddings": 40})
    backend = hf(scaled, max_length="400")
    answers(backend, [ask("Which metal?", [" A", " A,B\n", " A,C\n"], "short")])
    assert backend.runtime()["way"] == "shared prefixes"
    answers(backend, [ask("Which metal? " * 20, [" A", " A,B\n"], "long")])
    assert "turns its positions otherwise beyond 40 tokens" in backend.runtime()["process"]["why"]


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "gpt2", "gemma2", "mistral"])
def test_sharing_prefixes_changes_no_value_and_computes_little_twice(model_type: str, tiny: Callable[..., Path]) -> None:
    path = tiny(model_type, config={"initializer_range": 0.05, "sliding_window": 4096})
    shared = " One metal is iron." * 12
    questions = [f"{chr(97 + i % 26) * 3} {i}: which of the metals" + " in the body" * (4 + i % 9) for i in range(40)]
    continuations = [" A\n", " A,B\n", " A,B,C\n", " B,C\n"]
    requests = [ask(f"{shared} Question {question}?", continuations, f"r{i}") for i, question in enumerate(questions)]
    sharing, plain = hf(path), hf(path, prefix_sharing="false")
    assert worst(answers(sharing, requests), answers(plain, requests)) <= TOLERANCE
    how, reference = (backend.runtime()["process"] for backend in (sharing, plain))
    assert (how["way"], reference["way"]) == ("shared prefixes", "plain")
    assert 1 <= how["computed_per_distinct"] <= 1.08
    assert reference["computed_per_distinct"] > 4


@pytest.mark.parametrize("model_type", ["bloom", "mamba"])
def test_a_model_that_takes_no_tree_goes_the_plain_way_and_the_record_says_why(
    model_type: str, tiny: Callable[..., Path]
) -> None:
    backend = hf(tiny(model_type))
    answers(backend, uneven_requests())
    assert backend.runtime()["way"] == "plain"
    assert backend.runtime()["process"]["why"] != "asked for"


LONG_HEAD = "A long head that many items share, so that their group comes first of all. " * 3


def long_first() -> list[LoglikelihoodRequest]:
    """The first continuation, which lies straight behind the context, is also the longest."""
    return [ask(f"Same head. Question {i}?", [" zinc and water", " iron", " salt", f" oil {i}"], f"{i}") for i in range(4)]


def straight_then_branched() -> list[LoglikelihoodRequest]:
    """The group that shares most, and so comes first, has no branch; the other one has."""
    letters = [ask(f"{LONG_HEAD}Question {i}?", [" A", " B", " C", " D"], f"letter {i}") for i in range(8)]
    several = [ask(f"Other head. Question {i}?", [" A", " B", " A,B", " B,C,D"], f"several {i}") for i in range(4)]
    return [*letters, *several]


@pytest.mark.parametrize("requests", [long_first, straight_then_branched])
@pytest.mark.parametrize("model_type", ["llama", "mpt", "mamba2", "bloom", "mamba"])
def test_no_kind_of_batch_is_trusted_unseen(
    model_type: str, requests: Callable[[], list[LoglikelihoodRequest]], tiny: Callable[..., Path]
) -> None:
    path = tiny(model_type, config=SMALL.get(model_type))
    backend = hf(path)
    assert worst(answers(backend, requests()), answers(hf(path, prefix_sharing="false"), requests())) <= TOLERANCE
    assert backend.runtime()["way"] == ("shared prefixes" if model_type == "llama" else "plain")


def test_what_was_seen_without_a_prefix_says_nothing_of_prefixes(tiny: Callable[..., Path]) -> None:
    path = tiny("mpt")
    backend = hf(path)
    answer(backend, ask("One question?", [" A", " B"]))
    assert backend.runtime()["way"] == "shared prefixes"
    asked = straight_then_branched()
    assert worst(answers(backend, asked), answers(hf(path, prefix_sharing="false"), asked)) <= TOLERANCE
    assert backend.runtime()["way"] == "plain"


def test_asking_alone_leaves_no_trace_even_if_it_is_given_up(tiny: Callable[..., Path]) -> None:
    backend = hf(tiny())
    asked = straight_then_branched()
    answers(backend, asked)
    before, rows = backend.runtime(), backend.compute.rows_at_once
    responses = iter(backend.alone(asked))
    next(responses)
    responses.close()
    assert backend.runtime() == before
    assert backend.compute.rows_at_once == rows


def test_what_ran_out_of_memory_is_not_counted_as_computed(tiny: Callable[..., Path]) -> None:
    free, starved = hf(tiny()), hf(tiny())
    answers(free, uneven_requests())
    starve(starved, lambda shape: shape[0] > 1, out_of_gpu_memory)
    answers(starved, uneven_requests())
    count = [backend.runtime()["process"]["computed_tokens"] for backend in (free, starved)]
    assert starved.runtime()["process"]["out_of_memory_halvings"] > 0
    # Without padding, if anything.
    assert count[1] <= count[0]


def test_rows_of_many_branches_and_those_padded_to_them_need_no_positions_beyond_the_models(tiny: Callable[..., Path]) -> None:
    path = tiny("gpt2", config={"max_position_embeddings": 32, "initializer_range": 0.1})
    sharing, plain = hf(path), hf(path, prefix_sharing="false")
    # 28 tokens and two branches of 3 in one row, which ends behind the last position; and a row of 31 without a branch.
    branched = [ask(f"{i}{' A' * 26}", [" B A A A", " C A A A"], f"r{i}") for i in range(9)]
    straight = ask(f"9{' A' * 29}", [" A"], "straight")
    requests = [*branched, straight]
    found = answers(sharing, requests)
    assert {one.usage.tokens_in for one in found.values()} == {28, 31}
    assert (sharing.max_length, sharing.runtime()["way"]) == (32, "shared prefixes")
    assert worst(found, answers(plain, requests)) <= TOLERANCE


def test_an_adapter_with_tensors_that_have_no_place_is_refused(tiny: Callable[..., Path], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    deep, flat = tiny("llama", config={"num_hidden_layers": 3}), tiny("llama", config={"num_hidden_layers": 2})
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(deep), config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="have no place there"):
        answers(hf(flat, adapter=str(tmp_path / "adapter")), [ask("Iron", [" A", " B"])])


def test_weights_that_the_model_does_not_use_are_told(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny("llama", config={"num_hidden_layers": 3}), tmp_path / "model"))
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    (path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}), encoding="utf-8")
    backend = hf(path)
    answers(backend, [ask("Iron", [" A", " B"])])
    (warning,) = backend.runtime()["warnings"]
    assert "does not use" in warning


@pytest.mark.parametrize("shots", [0, 3])
def test_of_the_tokens_of_the_embedded_questions_one_in_twenty_is_computed_twice_at_most(
    shots: int, tiny: Callable[..., Path]
) -> None:
    backend = hf(tiny())
    prepared = prepare(
        RunPlan(model="hf:any", tasks=("mmedbench_mini",), protocol="letter", shots=shots), Catalog(make_host()), backend
    )
    requests = [request for task in prepared.tasks for request in task.requests]
    assert len(list(backend.loglikelihood(requests))) == 240
    assert backend.runtime()["process"]["computed_per_distinct"] <= 1.05


def test_a_revision_of_a_folder_is_refused(tiny: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="only names on the hub have revisions"):
        hf(tiny(), revision="main").fingerprint()
