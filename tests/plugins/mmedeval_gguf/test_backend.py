"""The backend of llama.cpp: the same numbers alone as in company, everything shared read once, and errors in one sentence."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from mmedeval import (
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    ModelError,
    Prompt,
    Sampling,
    Shot,
    UsageError,
)
from mmedeval.testing import check_backend
from mmedeval_gguf import ARGUMENTS

pytestmark = pytest.mark.usefixtures("llama_cpp")
TOLERANCE = 1e-5


def gguf(path: Path, **arguments: str) -> Any:
    from mmedeval_gguf.backend import GGUFBackend

    return GGUFBackend(str(path), {"threads": "1", **arguments})


@pytest.fixture(scope="session")
def model(exported: Callable[..., Path], tiny: Callable[..., Path]) -> Path:
    return exported(tiny("llama", config={"num_key_value_heads": 2, "initializer_range": 0.1}))


@pytest.fixture
def backend(model: Path) -> Iterator[Any]:
    with gguf(model) as opened:
        yield opened


def ask(prompt: Prompt | str, continuations: Sequence[str], name: str = "a") -> LoglikelihoodRequest:
    return LoglikelihoodRequest(
        id=name,
        prompt=prompt if isinstance(prompt, Prompt) else Prompt(question=prompt),
        continuations=tuple(continuations),
        answers=tuple(frozenset(f"{i}") for i in range(len(continuations))),
        options={},
    )


def write(prompt: Prompt | str, name: str = "a", **sampling: Any) -> GenerateRequest:
    prompt = prompt if isinstance(prompt, Prompt) else Prompt(question=prompt)
    return GenerateRequest(id=name, prompt=prompt, sampling=Sampling(**sampling), options={})


def answers(backend: Any, requests: Sequence[LoglikelihoodRequest]) -> dict[str, Loglikelihoods]:
    found: dict[str, Loglikelihoods] = {}
    for response in backend.loglikelihood(requests):
        assert isinstance(response, Loglikelihoods), response
        found[response.request_id] = response
    assert sorted(found) == sorted(request.id for request in requests)
    return found


def texts(backend: Any, requests: Sequence[GenerateRequest]) -> dict[str, Generation]:
    found: dict[str, Generation] = {}
    for response in backend.generate(requests):
        assert isinstance(response, Generation), response
        found[response.request_id] = response
    assert sorted(found) == sorted(request.id for request in requests)
    return found


def uneven_requests() -> list[LoglikelihoodRequest]:
    """Prompts of 3 to some 200 tokens, with continuations that are alike, begin one another or are longer than the prompt."""
    words = ["Which metal? ", "Какой металл? ", "哪种金属？", "¿Qué metal? "]
    endings = [[" A", " B"], [" A", " A,B", " A,B,C\n"], ["铁", "铁和锌", "铜" * 10], [" iron", " irons", "\n"]]
    return [ask(words[i % 4] * (1 + 3 * (i % 7)) + "Answer:", endings[(i + i // 12) % 4], name=f"r{i}") for i in range(24)]


# --- the contract ---


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "mistral"])
def test_the_contract_of_backends_is_kept(model_type: str, exported: Callable[..., Path], tiny: Callable[..., Path]) -> None:
    with gguf(
        exported(tiny(model_type, config={"num_key_value_heads": 2, "initializer_range": 0.1, "sliding_window": None}))
    ) as opened:
        check_backend(opened, tolerance=TOLERANCE)


@pytest.mark.parametrize("arguments", [{"batch_tokens": "7"}, {"batch_tokens": "1"}, {"threads": "2"}], ids=str)
def test_how_many_tokens_go_at_once_changes_nothing(arguments: dict[str, str], model: Path, backend: Any) -> None:
    expected = answers(backend, uneven_requests())
    with gguf(model, **arguments) as other:
        found = answers(other, uneven_requests())
    for name, response in expected.items():
        assert found[name].values == pytest.approx(response.values, abs=TOLERANCE)


def test_alone_is_as_in_company(backend: Any) -> None:
    requests = uneven_requests()
    together = answers(backend, requests)
    alone = {response.request_id: response for response in backend.alone(requests)}
    for name, response in together.items():
        assert alone[name].values == pytest.approx(response.values, abs=TOLERANCE)


def test_sums_over_all_next_tokens_are_one(backend: Any) -> None:
    """Else a normalisation would be off that every comparison between continuations hides."""
    vocabulary = backend.vocabulary
    single = [(i, vocabulary.decode([i])) for i in range(3, backend.engine.size)]
    words = [text for i, text in single if vocabulary(text, add_special_tokens=False)["input_ids"] == [i]]
    values = answers(backend, [ask("Which metal is it? Answer", words)])["a"].values
    assert len(words) > 64  # more than go at once
    assert 0.2 < sum(map(math.exp, values)) < 1 + 1e-6


# --- what is shared is read once ---


def test_every_token_that_requests_share_is_computed_once(backend: Any) -> None:
    shots = tuple(Shot(asked=f"Question {i}: is iron a metal?\nAnswer:", answered=" A\n") for i in range(6))
    requests = [
        ask(Prompt(question=f"Question: is number {i} a metal?\nAnswer:", shots=shots), [" A\n", " A,B\n", " A,C\n"], f"r{i}")
        for i in range(5)
    ]
    encoded = [backend.encoder.encode_pair(request.prompt, request.continuations)[:2] for request in requests]
    # Each path from the first token on, once; the last token of a continuation is only predicted.
    paths = {tuple(context[:n]) for context, _ in encoded for n in range(1, len(context) + 1)}
    paths |= {(*context, *each[:n]) for context, behind in encoded for each in behind for n in range(1, len(each))}
    answers(backend, requests)
    assert backend.runtime()["process"]["computed_tokens"] == len(paths)


def test_prompts_that_share_their_beginning_are_read_once_for_texts_too(backend: Any) -> None:
    opening = "Is iron a metal? It is. " * 20
    requests = [write(Prompt(question=f"{opening}Number {i}", opening=""), f"r{i}", max_tokens=4) for i in range(5)]
    ids = [backend.encoder.encode_prompt(request.prompt) for request in requests]
    prompts = {tuple(each[:n]) for each in ids for n in range(1, len(each) + 1)}
    generated = texts(backend, requests)
    steps = sum(response.usage.tokens_out - 1 for response in generated.values())
    assert backend.runtime()["process"]["computed_tokens"] == len(prompts) + steps


def test_the_same_prompt_twice_is_answered_twice(backend: Any) -> None:
    twice = [ask("Which metal?", [" A", " B"], "a"), ask("Which metal?", [" A", " B"], "b")]
    found = answers(backend, twice)
    assert found["a"].values == pytest.approx(found["b"].values, abs=TOLERANCE)


# --- text ---


def test_texts_alone_are_those_in_company(model: Path, backend: Any) -> None:
    requests = [
        write(f"Which metal? Какой металл? {'哪种金属？' * i} ({i}) Answer:", f"r{i}", max_tokens=5 + 3 * i) for i in range(11)
    ]
    together = texts(backend, requests)
    with gguf(model, sequences="1") as single:
        alone = texts(single, requests)
    shown = {name: (each.text, each.finish_reason, each.usage.tokens_out) for name, each in together.items()}
    assert shown == {name: (each.text, each.finish_reason, each.usage.tokens_out) for name, each in alone.items()}
    assert len({each.text for each in together.values()}) > 5
    assert all(each.usage.tokens_out == 5 + 3 * int(name[1:]) or each.finish_reason == "stop" for name, each in together.items())


def test_few_cells_make_texts_wait_for_each_other(model: Path, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [write(f"{i} " * (3 + 40 * (i % 3)) + "metal", f"r{i}", max_tokens=12) for i in range(9)]
    expected = {name: each.text for name, each in texts(backend, requests).items()}
    monkeypatch.setattr("mmedeval_gguf.writing.TOGETHER", 1)
    with gguf(model) as narrow:
        assert {name: each.text for name, each in texts(narrow, requests).items()} == expected


def test_a_stop_string_ends_a_text_and_is_no_part_of_it(backend: Any) -> None:
    whole = texts(backend, [write("Which metal? Answer:", max_tokens=24)])["a"].text
    stop = whole[8:11]
    cut = texts(backend, [write("Which metal? Answer:", max_tokens=24, stop=("never", stop))])["a"]
    assert cut.text == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.usage.tokens_out < 24


def test_a_token_that_ends_a_turn_ends_the_text(exported: Callable[..., Path], tiny: Callable[..., Path], tmp_path: Path) -> None:
    source = tiny("llama", config={"num_key_value_heads": 2, "initializer_range": 0.1})
    with gguf(exported(source)) as plain:
        new: list[int] = []
        request = write("Which metal? Answer:", max_tokens=12)
        job = plain._job(plain.encoder.fit_writing(request, plain.max_length))
        from mmedeval_gguf.writing import write as run

        new = next(run(plain.engine, [job], together=1)).new
    end = next(token for i, token in enumerate(new) if i > 2 and token not in new[:i])
    copy = tmp_path / "ends"
    shutil.copytree(source, copy)
    (copy / "generation_config.json").write_text(f'{{"eos_token_id": [1, {end}]}}')
    with gguf(exported(copy)) as opened:
        stopped = texts(opened, [request])["a"]
        assert stopped.finish_reason == "stop"
        assert stopped.usage.tokens_out == new.index(end) + 1
        # To the tokenizer this one is a token like others, so it is written too.
        assert stopped.text == opened.vocabulary.decode(new[: new.index(end) + 1])


def test_sampled_text_is_drawn_from_the_models_own_probabilities(backend: Any) -> None:
    request = [write("Which metal?", f"r{i}", max_tokens=1, temperature=1.5) for i in range(3000)]
    drawn = Counter(response.text for response in texts(backend, request).values())
    context = backend.encoder.encode_prompt(request[0].prompt)
    rows: list[np.ndarray] = []
    from mmedeval_gguf.engine import Token

    backend.engine.reserve(len(context), 1)
    tokens = [Token(token, i, (0,), wanted=i == len(context) - 1) for i, token in enumerate(context)]
    backend.engine.read(tokens, lambda _, row: rows.append(row.astype(np.float64) / 1.5))
    weights = np.exp(rows[0] - rows[0].max())
    expected: Counter[str] = Counter()
    for token, weight in enumerate(weights / weights.sum()):
        expected[backend.vocabulary.decode([token])] += 3000 * weight
    common = [text for text, count in expected.items() if count >= 8]
    observed = [drawn[text] for text in common] + [3000 - sum(drawn[text] for text in common)]
    wanted = [expected[text] for text in common] + [3000 - sum(expected[text] for text in common)]
    assert len(common) > 5
    assert chisquare(observed, wanted).pvalue > 1e-4


def test_a_seed_gives_the_same_text_again_whatever_else_is_asked(backend: Any) -> None:
    requests = [write("Which metal?", f"r{i}", max_tokens=6, temperature=1.0, seed=3) for i in range(6)]
    first = {name: each.text for name, each in texts(backend, requests).items()}
    again = {name: each.text for name, each in texts(backend, requests[3:]).items()}
    assert {name: first[name] for name in again} == again
    assert len({*first.values()}) > 1
    other = texts(backend, [write("Which metal?", "r0", max_tokens=6, temperature=1.0, seed=4)])
    assert other["r0"].text != first["r0"]


# --- tokens, templates, limits ---


def test_the_files_own_chat_template_is_filled_in_as_transformers_does(tiny: Callable[..., Path], backend: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny("llama", config={"num_key_value_heads": 2, "initializer_range": 0.1}))
    prompt = Prompt(question="Which <metal>?", opening="Be brief.", shots=(Shot(asked="a & b", answered="c"),), chat=True)
    messages = [{"role": each.role, "content": each.content} for each in prompt.messages]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert backend.encoder.prompt_text(prompt) == (expected, False)
    assert backend.encoder.encode_prompt(prompt) == tokenizer(expected, add_special_tokens=False)["input_ids"]


TEMPLATES = {
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m['content'] | tojson }}{% endfor %}": '"Är?\\n"',
    "{% generation %}{{ messages[-1].content }}{% endgeneration %}{{ eos_token }}": "Är?\n</s>",
    "{{ bos_token }}{% if tools %}x{% endif %}{{ documents is none }}{{ strftime_now('%%') }}": "<s>True%",
    "  {%- if true %}\n  a\n  {% endif %}\nb": "  a\nb",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_may_use_what_transformers_offers(template: str, model: Path, backend: Any) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    backend.vocabulary.chat_template = template
    prompt = Prompt(question="Är?\n", opening="Be brief.", chat=True)
    messages = [{"role": each.role, "content": each.content} for each in prompt.messages]
    theirs, _ = render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )
    assert backend.encoder.prompt_text(prompt)[0] == TEMPLATES[template] == theirs[0]


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ messages[0]['content'] + 1 }}", "cannot be filled in: can only concatenate str"),
        ("{% for i in range(10**6) %}a{% endfor %}", "cannot be filled in: Range too big"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "cannot be filled in: maximum recursion depth exceeded"),
        ("{{ raise_exception('no system message, please') }}", "cannot be filled in: no system message, please"),
        ("{% if %}", "cannot be filled in: "),
        ("{{ ''.__class__.__mro__ }}", "cannot be filled in: access to attribute '__class__' of 'str' object is unsafe"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_one_sentence(template: str, sentence: str, backend: Any) -> None:
    backend.vocabulary.chat_template = template
    with pytest.raises(ModelError) as raised:
        backend.encoder.prompt_text(Prompt(question="x", chat=True))
    assert sentence in str(raised.value)


def test_a_file_without_a_template_says_so_before_it_is_loaded(exported: Callable[..., Path], tiny: Callable[..., Path]) -> None:
    backend = gguf(exported(tiny(chat_template=False)))
    with pytest.raises(ModelError, match=r"has no chat template; run with --no-chat-template, or with --protocol letter"):
        backend.check(chat=True)
    backend.check(chat=False)
    assert "engine" not in vars(backend)


def test_add_bos_overrules_the_file(model: Path, exported: Callable[..., Path], tiny: Callable[..., Path]) -> None:
    counts = {}
    for path, arguments in ((model, {}), (model, {"add_bos": "false"}), (exported(tiny(bos=False)), {"add_bos": "true"})):
        with gguf(path, **arguments) as opened:
            counts[len(counts)] = answers(opened, [ask("Which metal?", [" A"])])["a"].usage.bos
    assert counts == {0: 1, 1: None, 2: 1}


def test_shots_that_do_not_fit_are_dropped_and_what_is_still_too_long_fails(model: Path) -> None:
    shots = tuple(Shot(asked=f"Question {i}: is iron a metal?\nAnswer:", answered=" A\n") for i in range(4))
    fits = Prompt(question="Question: is zinc a metal?\nAnswer:", shots=shots)
    endless = Prompt(question="哪种金属？" * 60, shots=shots)
    with gguf(model, context="70") as small:
        first, second = sorted(
            small.loglikelihood([ask(fits, [" A", " B"], "a"), ask(endless, [" A"], "b")]), key=lambda one: one.request_id
        )
        assert isinstance(first, Loglikelihoods)
        assert 0 < first.usage.shots_dropped < 4
        assert first.usage.tokens_in <= 70
        assert isinstance(second, Failure)
        assert second.kind == "too_long"
        assert second.message.endswith("tokens without its 4 solved examples, the model reads 70")
        (text,) = small.generate([write(fits, max_tokens=20)])
        assert isinstance(text, Generation)
        assert text.usage.shots_dropped > 0
        (failed,) = small.generate([write(endless, max_tokens=20)])
        assert isinstance(failed, Failure)
        assert failed.kind == "too_long"


def test_what_has_no_token_is_refused(model: Path) -> None:
    with gguf(model, add_bos="false") as opened:
        (empty,) = opened.loglikelihood([ask("", [" A"])])
        (nothing,) = opened.loglikelihood([ask("x", [" A", ""])])
    assert (empty.kind, nothing.kind) == ("refused", "refused")
    assert "add_bos=true" in empty.message


def test_half_of_a_surrogate_pair_is_refused_and_the_run_goes_on(backend: Any) -> None:
    found = {response.request_id: response for response in backend.loglikelihood([ask("x\ud800", [" A"]), ask("x", [" A"], "b")])}
    assert (found["a"].kind, type(found["b"])) == ("refused", Loglikelihoods)
    (text,) = backend.generate([write("x\ud800")])
    assert text.kind == "refused"


# --- what is no number ---


@pytest.fixture
def spoilt(backend: Any, model: Path, tmp_path: Path) -> Path:
    """The model with one token, ¿, that makes numbers of nothing."""
    import gguf as package

    path = tmp_path / "spoilt.gguf"
    shutil.copy(model, path)
    token = backend.vocabulary(" ¿")["input_ids"][-1]
    (embeddings,) = (tensor for tensor in package.GGUFReader(path, "r+").tensors if tensor.name == "token_embd.weight")
    embeddings.data[token] = np.nan
    return path


@pytest.mark.parametrize("arguments", [{}, {"flash_attention": "true"}, {"sequences": "2"}], ids=str)
def test_what_is_no_number_is_told_and_spoils_nothing_that_is_asked_with_it(
    arguments: dict[str, str], spoilt: Path, model: Path
) -> None:
    questions = [f"Is {'gold' * (i % 3)} number {i} a metal?" for i in range(6)]
    poisoned = [f"Is number {i} ¿ a metal? {'Perhaps. ' * 9}" for i in range(3)]
    scored = [ask(question, [" A", " B,C\n"], f"r{i}") for i, question in enumerate([*questions[:3], *poisoned, *questions[3:]])]
    written = [write(request.prompt, request.id, max_tokens=6) for request in scored]
    sound = [request.id for request in scored if "¿" not in request.prompt.question]
    assert len(sound) == 6
    with gguf(model, **arguments) as whole, gguf(spoilt, **arguments) as half:
        values = answers(half, scored)
        expected = answers(whole, [request for request in scored if request.id in sound])
        assert [name for name in values if not math.isnan(values[name].values[1])] == [name for name in values if name in sound]
        for name in sound:
            assert values[name].values == pytest.approx(expected[name].values, abs=TOLERANCE)
        found = {response.request_id: response for response in half.generate(written)}
        wanted = texts(whole, [request for request in written if request.id in sound])
        assert {name: found[name].text for name in sound} == {name: wanted[name].text for name in sound}
        failed = [response for response in found.values() if isinstance(response, Failure)]
        assert sorted(failure.request_id for failure in failed) == ["r3", "r4", "r5"]
        assert all(failure.kind == "backend" and "no numbers" in failure.message for failure in failed)
        # Nothing of it is left for what is asked next.
        assert answers(half, scored[:1])["r0"].values == pytest.approx(expected["r0"].values, abs=TOLERANCE)


# --- settings ---


def test_half_a_cache_is_near_and_the_default_is_exact(exported: Callable[..., Path], tiny: Callable[..., Path]) -> None:
    # Blocks of q8_0 are 32 long, and so must heads be.
    model = exported(tiny("llama", config={"hidden_size": 128, "initializer_range": 0.1}))
    with gguf(model) as default:
        exact = answers(default, uneven_requests())
    worst = {}
    for name, arguments in (("f16", {}), ("q8_0", {"flash_attention": "true"}), ("f32", {"flash_attention": "true"})):
        with gguf(model, cache_type=name, **arguments) as other:
            found = answers(other, uneven_requests())
        worst[name] = max(abs(a - b) for key in exact for a, b in zip(exact[key].values, found[key].values, strict=True))
    assert 1e-5 < worst["f16"] < 5e-2
    assert 1e-4 < worst["q8_0"] < 0.5
    assert worst["f32"] < 5e-2


WRONG: Mapping[str, Mapping[str, str]] = {
    "cache_type='q5' is none of f32, f16, q8_0": {"cache_type": "q5"},
    "cache_type=q8_0 works in flash attention only; add --model-arg flash_attention=true": {"cache_type": "q8_0"},
    "context='0' is no whole number of at least 1": {"context": "0"},
    "gpu_layers='-1' is no whole number of at least 0": {"gpu_layers": "-1"},
    "flash_attention='yes' is neither true nor false": {"flash_attention": "yes"},
    "sequences=65 is more than 64": {"sequences": "65"},
    "threads=513 is more than 512": {"threads": "513"},
    "batch_tokens='4294967296' is no whole number of at least 1, of at most 9 digits": {"batch_tokens": "4294967296"},
    "context=5000 is longer than the 4096 tokens that": {"context": "5000"},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_a_wrong_argument_is_named_with_what_it_may_be(sentence: str, model: Path) -> None:
    with pytest.raises(UsageError) as raised:
        gguf(model, **WRONG[sentence]).check(chat=False)
    assert sentence in str(raised.value)


def test_every_argument_is_documented_and_read() -> None:
    from mmedeval_gguf.options import Options

    assert sorted(ARGUMENTS) == sorted(field.name for field in fields(Options))


def test_what_the_record_says_is_known_without_loading_and_stays_the_same(model: Path, tmp_path: Path) -> None:
    with gguf(model) as opened:
        before = (opened.fingerprint(), opened.describe())
        assert "engine" not in vars(opened)
        assert opened.runtime() == {}
        answers(opened, [ask("x", [" A"])])
        assert (opened.fingerprint(), opened.describe()) == before
        assert opened.runtime()["parameters"] > 100_000
        assert opened.runtime()["max_length"] == 4096
    assert before[1]["architecture"] == "llama"
    assert before[1]["tensors"] == {"F32": 21}
    moved = tmp_path / "moved.gguf"
    shutil.copy(model, moved)
    assert gguf(moved).fingerprint() == before[0]
    data = bytearray(moved.read_bytes())
    data[-64] ^= 1
    moved.write_bytes(data)
    assert gguf(moved).fingerprint() != before[0]


# --- an adapter ---


def write_adapter(path: Path, rank: int = 4, alpha: float = 8.0, *, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A LoRA adapter on the first layer's down projection, and its two factors."""
    import gguf as package

    random = np.random.default_rng(0)
    a, b = (random.normal(0, 0.2, shape).astype(np.float32) for shape in ((rank, 176), (size, rank)))
    writer = package.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_tensor("blk.0.ffn_down.weight.lora_a", a)
    writer.add_tensor("blk.0.ffn_down.weight.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return a, b


def test_an_adapter_gives_the_scores_of_the_merged_model(
    exported: Callable[..., Path], tiny: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = tiny("llama", config={"num_key_value_heads": 2, "initializer_range": 0.1})
    a, b = write_adapter(tmp_path / "lora.gguf")
    merged = AutoModelForCausalLM.from_pretrained(source)
    import torch

    merged.model.layers[0].mlp.down_proj.weight.data += torch.tensor(2.0 * b @ a)
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "merged")
    requests = uneven_requests()
    with gguf(exported(source)) as plain, gguf(exported(source), lora=str(tmp_path / "lora.gguf")) as adapted:
        with gguf(exported(tmp_path / "merged")) as expected:
            wanted, found, without = (answers(each, requests) for each in (expected, adapted, plain))
        assert adapted.fingerprint() != plain.fingerprint()
        assert adapted.describe()["lora"] is not None
    assert max(abs(x - y) for name in wanted for x, y in zip(wanted[name].values, found[name].values, strict=True)) < 1e-4
    assert max(abs(x - y) for name in wanted for x, y in zip(wanted[name].values, without[name].values, strict=True)) > 0.1


def test_an_adapter_may_lie_at_home(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(tmp_path / "lora.gguf")
    monkeypatch.setenv("HOME", str(tmp_path))
    with gguf(model, lora="~/lora.gguf") as at_home, gguf(model, lora=str(tmp_path / "lora.gguf")) as named:
        requests = uneven_requests()[:4]
        assert {name: one.values for name, one in answers(at_home, requests).items()} == {
            name: one.values for name, one in answers(named, requests).items()
        }
        assert at_home.fingerprint() == named.fingerprint()


def test_a_wrong_adapter_is_one_sentence(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no LoRA adapter; convert one with convert_lora_to_gguf\.py"):
        gguf(model, lora=str(model)).check(chat=False)
    with pytest.raises(ModelError, match="nowhere does not exist; check the path"):
        gguf(model, lora="nowhere").check(chat=False)
    write_adapter(tmp_path / "wide.gguf", size=96)
    wide = gguf(model, lora=str(tmp_path / "wide.gguf"))
    wide.check(chat=False)
    with pytest.raises(
        ModelError, match=r"the adapter .*wide\.gguf does not fit .*: \S.*; name one that was made for this model"
    ):
        next(wide.loglikelihood([ask("x", [" A"])]))
    with pytest.raises(ModelError, match="is a LoRA adapter; name its base model, with --model-arg lora="):
        gguf(tmp_path / "wide.gguf").check(chat=False)


# --- models that cannot be rolled back, or are told to be doubtful ---


def test_a_recurrent_model_is_refused(model: Path, tmp_path: Path) -> None:
    import gguf as package

    writer = package.GGUFWriter(tmp_path / "mamba.gguf", "mamba")
    for name, value in (("context_length", 512), ("embedding_length", 64), ("block_count", 1), ("feed_forward_length", 0)):
        writer.add_uint32(f"mamba.{name}", value)
    for name, value in (("conv_kernel", 4), ("inner_size", 128), ("state_size", 16), ("time_step_rank", 4)):
        writer.add_uint32(f"mamba.ssm.{name}", value)
    writer.add_uint32("mamba.attention.head_count", 0)
    writer.add_float32("mamba.attention.layer_norm_rms_epsilon", 1e-5)
    fields = package.GGUFReader(model).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(fields["tokenizer.ggml.token_type"].contents())
    writer.add_token_merges(fields["tokenizer.ggml.merges"].contents())
    shapes = {
        "token_embd.weight": (len(tokens), 64), "output_norm.weight": (64,), "blk.0.attn_norm.weight": (64,),
        "blk.0.ssm_in.weight": (256, 64), "blk.0.ssm_conv1d.weight": (128, 4), "blk.0.ssm_conv1d.bias": (128,),
        "blk.0.ssm_x.weight": (36, 128), "blk.0.ssm_dt.weight": (128, 4), "blk.0.ssm_dt.bias": (128,),
        "blk.0.ssm_a": (128, 16), "blk.0.ssm_d": (128,), "blk.0.ssm_out.weight": (64, 128),
    }  # fmt: skip
    for name, shape in shapes.items():
        writer.add_tensor(name, np.zeros(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        ModelError, match="is a recurrent model, whose state cannot be rolled back; evaluate its checkpoint with hf:"
    ):
        next(gguf(tmp_path / "mamba.gguf").loglikelihood([ask("x", [" A"])]))


def test_a_file_that_does_not_say_how_text_is_split_is_told_in_the_record(model: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent.gguf"
    silent.write_bytes(model.read_bytes().replace(b"tokenizer.ggml.pre", b"tokenizer.ggml.erp", 1))
    with gguf(silent) as opened:
        answers(opened, [ask("x", [" A"])])
        assert opened.runtime()["warnings"] == [
            "the file does not say how text is split into tokens (tokenizer.ggml.pre): convert the model again"
        ]


# --- llama.cpp's own voice ---


def test_llama_cpp_prints_nothing(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with gguf(model) as opened:
        answers(opened, [ask("Which metal?", [" A", " B"])])
        texts(opened, [write("Which metal?", max_tokens=3)])
    assert capfd.readouterr() == ("", "")


def test_a_model_that_llama_cpp_refuses_gets_its_reason_and_prints_nothing(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = model.read_bytes()
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(data.replace(b"llama", b"lamma", 1))
    backend = gguf(strange)
    backend.check(chat=False)
    with pytest.raises(ModelError) as raised:
        next(backend.loglikelihood([ask("x", [" A"])]))
    assert "unknown model architecture: 'lamma'" in str(raised.value)
    assert capfd.readouterr() == ("", "")
