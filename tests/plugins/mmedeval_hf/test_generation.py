"""Text of the transformers backend: token for token that of transformers, alone as in company, and sampled as it should be."""

from __future__ import annotations

import functools
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmedeval import BackendError, Failure, GenerateRequest, Generation, Prompt, Sampling, Shot
from mmedeval_hf.backend import HFBackend

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "gpt2": {},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2},
    "gemma2": {"num_key_value_heads": 2, "initializer_range": 0.05},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 8},
    "bloom": {},
    "mamba": {},
}
QUESTIONS = tuple("Which metal? Какой металл? 哪种金属？ " * (1 + 2 * (i % 4)) + f"({i}) Answer:" for i in range(8))


def hf(path: Path, **arguments: str) -> HFBackend:
    return HFBackend(str(path), {"device": "cpu", **arguments})


def ask(prompt: Prompt | str, sampling: Sampling, name: str = "a") -> GenerateRequest:
    prompt = prompt if isinstance(prompt, Prompt) else Prompt(question=prompt)
    return GenerateRequest(id=name, prompt=prompt, sampling=sampling, options={"A": "iron", "B": "zinc"})


def ask_all(sampling: Sampling, questions: Sequence[str] = QUESTIONS) -> list[GenerateRequest]:
    return [ask(question, sampling, f"r{i}") for i, question in enumerate(questions)]


def written(backend: HFBackend, requests: Sequence[GenerateRequest]) -> list[Generation]:
    """The responses in the order of the requests, none of them a failure."""
    found: dict[str, Generation] = {}
    for response in backend.generate(requests):
        assert isinstance(response, Generation), response
        assert response.request_id not in found
        found[response.request_id] = response
    assert len(found) == len(requests)
    return [found[request.id] for request in requests]


def seen(generations: Sequence[Generation]) -> list[tuple[str, str, int]]:
    return [(one.text, one.finish_reason, one.usage.tokens_out) for one in generations]


@functools.cache
def plain(path: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def greedy(path: Path, question: str, max_tokens: int, **settings: Any) -> list[int]:
    """The new tokens of transformers' own greedy search on this prompt alone."""
    model, tokenizer = plain(path)
    ids = tokenizer(question, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=max_tokens, do_sample=False, **settings)
    return list(out[0, ids["input_ids"].shape[1] :].tolist())


def decoded(path: Path, ids: Sequence[int]) -> str:
    return str(plain(path)[1].decode(ids, skip_special_tokens=True))


# --- greedy ---


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_greedy_text_is_transformers_own_and_the_same_in_any_batch(model_type: str, tiny: Callable[..., Path]) -> None:
    path = tiny(model_type, config=ARCHITECTURES[model_type])
    requests = ask_all(Sampling(max_tokens=16))
    alone = written(hf(path, batch_size="1"), requests)
    for question, one in zip(QUESTIONS, alone, strict=True):
        wanted = greedy(path, question, 16)
        assert (one.text, one.usage.tokens_out) == (decoded(path, wanted), len(wanted))
    assert len({one.text for one in alone}) > 1
    assert seen(written(hf(path, batch_size="8"), requests)) == seen(alone)
    assert seen(written(hf(path, batch_size="3"), requests[::-1]))[::-1] == seen(alone)


@pytest.mark.parametrize(
    ("model_type", "way"),
    [
        ("llama", "continuous batching"),
        ("gpt2", "continuous batching"),
        ("qwen2", "continuous batching"),
        ("qwen3", "continuous batching"),
        ("gemma2", "continuous batching"),
        ("mistral", "plain"),
        ("bloom", "plain"),
        ("mamba", "plain"),
    ],
)
def test_rows_come_and_go_only_in_models_for_which_that_changes_nothing(
    model_type: str, way: str, tiny: Callable[..., Path]
) -> None:
    backend = hf(tiny(model_type, config=ARCHITECTURES[model_type]))
    written(backend, ask_all(Sampling(max_tokens=6)))
    assert backend.runtime()["way"] == way
    assert backend.runtime()["process"]["why"]


def ending_model(base: Path, target: Path, token: int, **generation: Any) -> Path:
    """A copy of a model that ends where it would have said `token`, with other settings for generation."""
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.lm_head.weight[1] = 1.01 * model.lm_head.weight[token]
    shutil.copytree(base, target)
    model.save_pretrained(target)
    file = target / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **generation}), encoding="utf-8")
    return target


def test_a_row_that_ends_early_says_stop_and_keeps_nothing_of_its_neighbours_length(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    base = tiny()
    new = greedy(base, QUESTIONS[0], 16)
    path = ending_model(base, tmp_path / "ends", new[6])
    requests = ask_all(Sampling(max_tokens=16))
    together = written(hf(path), requests)
    assert seen(together) == seen(written(hf(path, batch_size="1"), requests))
    assert {one.finish_reason for one in together} == {"stop", "length"}
    for question, one in zip(QUESTIONS, together, strict=True):
        wanted = greedy(path, question, 16)
        assert (one.finish_reason == "stop") == (wanted[-1] == 1)
        assert (one.text, one.usage.tokens_out) == (decoded(path, wanted), len(wanted))


def test_every_end_token_of_the_generation_config_ends_a_text(tiny: Callable[..., Path], tmp_path: Path) -> None:
    base = tiny()
    new = greedy(base, QUESTIONS[0], 16)
    path = tmp_path / "ends"
    shutil.copytree(base, path)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, new[6]]}), encoding="utf-8")
    (one,) = written(hf(path), [ask(QUESTIONS[0], Sampling(max_tokens=16))])
    length = new.index(new[6]) + 1
    assert (one.finish_reason, one.usage.tokens_out, one.text) == ("stop", length, decoded(path, new[:length]))


def test_the_models_own_settings_for_generation_do_not_make_the_batch_matter(tiny: Callable[..., Path], tmp_path: Path) -> None:
    base = tiny()
    new = greedy(base, QUESTIONS[0], 16, repetition_penalty=1.3)
    # As chat models ship them; and padding that is an end token, which a penalty on what stands in the prompt would hit.
    own = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.3}
    path = ending_model(base, tmp_path / "chatty", new[6], **own)
    about = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
    (path / "tokenizer_config.json").write_text(json.dumps({**about, "pad_token": "</s>"}), encoding="utf-8")
    requests = ask_all(Sampling(max_tokens=16))
    alone = written(hf(path, batch_size="1"), requests)
    assert "stop" in {one.finish_reason for one in alone}
    backend = hf(path)
    assert seen(written(backend, requests)) == seen(alone)
    # Penalties are transformers' to apply.
    assert "repetition_penalty" in backend.runtime()["process"]["why"]
    assert seen(written(hf(path, batch_size="8"), requests)) == seen(alone)


def test_chat_prompts_are_continued_behind_the_models_own_template(tiny: Callable[..., Path]) -> None:
    path = tiny()
    prompt = Prompt(
        opening="You are a doctor.",
        shots=(Shot(asked="Is tin a metal?", answered="Yes"),),
        question="Is iron a metal?",
        chat=True,
    )
    (one,) = written(hf(path), [ask(prompt, Sampling(max_tokens=8))])
    model, tokenizer = plain(path)
    turns = [
        {"role": "system", "content": "You are a doctor."},
        {"role": "user", "content": "Is tin a metal?"},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "Is iron a metal?"},
    ]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    width = ids["input_ids"].shape[1]
    out = model.generate(**ids, max_new_tokens=8, do_sample=False)
    assert one.text == tokenizer.decode(out[0, width:], skip_special_tokens=True)
    assert (one.usage.tokens_in, one.usage.bos) == (width, 1)


# --- the context ---


def test_shots_give_way_to_the_answer_and_then_the_answer_to_the_question(tiny: Callable[..., Path]) -> None:
    path = tiny()
    shots = tuple(Shot(asked=f"Question: Is number {i} even?\nAnswer:", answered=f" {i % 2}\n") for i in range(3))
    prompt, sampling = Prompt(shots=shots, question="Question: Is iron a metal?\nAnswer:"), Sampling(max_tokens=12)
    free = hf(path)
    for dropped in range(4):
        short = Prompt(shots=shots[dropped:], question=prompt.question)
        width = len(free.encoder.encode([short.text])[0])
        (one,) = written(hf(path, max_length=str(width + 12)), [ask(prompt, sampling)])
        (wanted,) = written(free, [ask(short, sampling)])
        assert (one.usage.shots_dropped, one.usage.tokens_in) == (dropped, width)
        assert seen([one]) == seen([wanted])
    # No shot is left to drop: the answer gets the room that is left, down to one token.
    for room in (5, 1):
        (one,) = written(hf(path, max_length=str(width + room)), [ask(prompt, sampling)])
        assert (one.usage.shots_dropped, one.usage.tokens_out, one.finish_reason) == (3, room, "length")
        assert wanted.text.startswith(one.text)
    (response,) = hf(path, max_length=str(width)).generate([ask(prompt, sampling)])
    assert isinstance(response, Failure)
    assert (response.kind, response.usage.shots_dropped) == ("too_long", 3)
    assert f"{width} tokens" in response.message


def test_answers_with_unequal_room_do_not_shorten_each_other(tiny: Callable[..., Path]) -> None:
    path = tiny("gpt2", config={"max_position_embeddings": 128})
    backend = hf(path)
    questions = ["Is iron a metal?" + " A" * extra for extra in (100, 20, 105, 0)]
    room = [128 - len(backend.encoder.encode([question])[0]) for question in questions]
    assert min(room) < 40 < max(room)
    found = written(backend, ask_all(Sampling(max_tokens=40), questions))
    assert [one.usage.tokens_out for one in found] == [min(40, left) for left in room]


# --- memory ---


def starve(backend: HFBackend, too_much: Callable[[torch.Size], bool], error: RuntimeError) -> None:
    """Lets the model's forward pass end in `error` where it is given too much."""
    forward = backend.model.forward

    @functools.wraps(forward)
    def limited(*args: Any, **kwargs: Any) -> Any:
        if too_much(kwargs["input_ids"].shape):
            raise error
        return forward(*args, **kwargs)

    backend.model.forward = limited


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_out_of_memory_halves_the_batch_and_changes_no_text(temperature: float, tiny: Callable[..., Path]) -> None:
    path, requests = tiny(), ask_all(Sampling(max_tokens=8, temperature=temperature))
    backend = hf(path)
    starve(backend, lambda shape: shape[0] > 3, torch.OutOfMemoryError("CUDA out of memory."))
    assert seen(written(backend, requests)) == seen(written(hf(path), requests))
    assert backend.runtime()["process"]["out_of_memory_halvings"] > 0


def test_a_prompt_that_never_fits_into_memory_fails_alone(tiny: Callable[..., Path]) -> None:
    path, requests = tiny(), [*ask_all(Sampling(max_tokens=8)), ask("Is iron a metal? " * 200, Sampling(max_tokens=8), "long")]
    backend = hf(path)
    starve(backend, lambda shape: shape[1] > 500, torch.OutOfMemoryError("CUDA out of memory."))
    responses = {response.request_id: response for response in backend.generate(requests)}
    refused = responses.pop("long")
    assert isinstance(refused, Failure)
    assert refused.kind == "out_of_memory"
    others = [one for one in (responses[request.id] for request in requests[:-1]) if isinstance(one, Generation)]
    assert seen(others) == seen(written(hf(path), requests[:-1]))


def test_any_other_error_while_writing_ends_the_run_with_one_sentence(tiny: Callable[..., Path]) -> None:
    backend = hf(tiny())
    starve(backend, lambda shape: True, RuntimeError("shapes do not fit\nand much more"))
    with pytest.raises(BackendError, match=r"stopped while computing: shapes do not fit$"):
        list(backend.generate(ask_all(Sampling(max_tokens=4))))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("sharing", ["true", "false"])
def test_a_text_whose_probabilities_are_no_numbers_is_a_failure_and_spoils_no_other(
    sharing: str, temperature: float, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "spoilt"
    shutil.copytree(tiny(), path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    poison = tokenizer(" ¿")["input_ids"][-1]
    with torch.no_grad():
        # As where numbers grew too large for half precision.
        model.model.embed_tokens.weight[poison] = float("nan")
    model.save_pretrained(path)
    questions = [*QUESTIONS, *(f"{question} ¿" for question in QUESTIONS), *(f"again {question}" for question in QUESTIONS)]
    spoilt = {f"r{i}" for i, question in enumerate(questions) if poison in tokenizer(question)["input_ids"]}
    assert len(spoilt) == len(QUESTIONS)
    requests = ask_all(Sampling(max_tokens=12, temperature=temperature), questions)
    # The longest are read first, and rows take the places of rows that have ended.
    responses = {one.request_id: one for one in hf(path, prefix_sharing=sharing, batch_size="4").generate(requests)}
    assert {name for name, one in responses.items() if isinstance(one, Failure)} == spoilt
    assert all(one.kind == "backend" and "no numbers" in one.message for one in responses.values() if isinstance(one, Failure))
    sound = [request for request in requests if request.id not in spoilt]
    found = [one for one in (responses[request.id] for request in sound) if isinstance(one, Generation)]
    assert seen(found) == seen(written(hf(tiny(), prefix_sharing=sharing), sound))


# --- sampling ---


def test_sampled_text_depends_on_seed_and_request_but_not_on_the_batch(tiny: Callable[..., Path]) -> None:
    path, sampling = tiny(), Sampling(max_tokens=12, temperature=1.5, seed=3)
    requests = ask_all(sampling)
    alone = written(hf(path, batch_size="1"), requests)
    assert seen(written(hf(path, batch_size="8"), requests)) == seen(alone)
    assert seen(written(hf(path, batch_size="8"), requests[::-1]))[::-1] == seen(alone)
    another = written(hf(path), ask_all(Sampling(max_tokens=12, temperature=1.5, seed=4)))
    assert all(a.text != b.text for a, b in zip(alone, another, strict=True))
    # The same prompt under different ids draws differently.
    assert len({one.text for one in written(hf(path), ask_all(sampling, [QUESTIONS[0]] * 8))}) == 8


def test_sampled_tokens_follow_the_softmax_at_their_temperature(tiny: Callable[..., Path]) -> None:
    temperature, draws = 0.7, 3000
    path = tiny(vocabulary=300, config={"initializer_range": 0.08})
    sampling = Sampling(max_tokens=2, temperature=temperature, seed=1)
    counts: dict[str, int] = defaultdict(int)
    for one in written(hf(path), ask_all(sampling, ["Answer:"] * draws)):
        counts[one.text] += 1

    # Two tokens, so that a second one that does not draw afresh shows; every pair, added up by what it decodes to.
    model, tokenizer = plain(path)
    context = tokenizer("Answer:")["input_ids"]
    size = model.config.vocab_size
    with torch.no_grad():
        first = torch.softmax(model(torch.tensor([context])).logits[0, -1].double() / temperature, -1)
        behind = torch.tensor([[*context, token] for token in range(size)])
        second = torch.softmax(model(behind).logits[:, -1].double() / temperature, -1)
    probabilities: dict[str, float] = defaultdict(float)
    for token in range(size):
        if token == tokenizer.eos_token_id:
            probabilities[""] += float(first[token])
            continue
        texts = tokenizer.batch_decode([[token, other] for other in range(size)], skip_special_tokens=True)
        for text, probability in zip(texts, (first[token] * second[token]).tolist(), strict=True):
            probabilities[text] += probability
    assert sum(probabilities.values()) == pytest.approx(1)
    assert set(counts) <= set(probabilities)

    often = [text for text, probability in probabilities.items() if probability * draws >= 5]
    observed = [counts[text] for text in often]
    expected = [probabilities[text] * draws for text in often]
    assert len(often) > 20
    assert chisquare([*observed, draws - sum(observed)], [*expected, draws - sum(expected)]).pvalue > 0.001


# --- stop strings ---


def test_text_is_cut_at_the_first_stop_string_and_tokens_are_counted_to_it(tiny: Callable[..., Path]) -> None:
    path = tiny()
    full = written(hf(path), ask_all(Sampling(max_tokens=24)))
    # From the middle of different rows, one across the border of two tokens; the rows end at different places.
    stop = (full[0].text[6:9], full[1].text[12:14], "никогда")
    requests = ask_all(Sampling(max_tokens=24, stop=stop))
    alone = written(hf(path, batch_size="1"), requests)
    for question, whole, one in zip(QUESTIONS, full, alone, strict=True):
        ids = greedy(path, question, 24)
        cuts = [at for string in stop if (at := whole.text.find(string)) >= 0]
        if not cuts:
            assert seen([one]) == seen([whole])
            continue
        needed = next(n for n in range(1, 25) if any(string in decoded(path, ids[:n]) for string in stop))
        assert seen([one]) == [(whole.text[: min(cuts)], "stop", needed)]
    assert alone[0].usage.tokens_out < 24
    assert len({one.usage.tokens_out for one in alone}) > 1
    assert seen(written(hf(path, batch_size="8"), requests)) == seen(alone)


def test_nothing_is_computed_behind_a_stop_string(tiny: Callable[..., Path]) -> None:
    backend = hf(tiny())
    # The first call also compares the way of writing with plain forward passes.
    (full,) = written(backend, [ask(QUESTIONS[0], Sampling(max_tokens=24))])
    assert backend.runtime()["way"] == "continuous batching"
    steps = 0
    forward = backend.model.forward

    @functools.wraps(forward)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        return forward(*args, **kwargs)

    backend.model.forward = counted
    (one,) = written(backend, [ask(QUESTIONS[0], Sampling(max_tokens=24, stop=(full.text[6:9],)))])
    assert steps == one.usage.tokens_out < 24
