"""The real engine on a CPU, held against transformers with the same weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmedeval import (
    Backend,
    BackendError,
    Failure,
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Loglikelihoods,
    ModelError,
    Prompt,
    Request,
    RunPlan,
    Sampling,
    Shot,
    UsageError,
)
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import prepare
from mmedeval.specs import ProtocolName
from mmedeval.testing import check_backend
from mmedeval_hf.backend import HFBackend
from mmedeval_vllm.backend import VLLMBackend

# What is found in float32, with much to spare.
FOUND = 1e-4

Engines = Callable[..., VLLMBackend]
Transformers = Callable[..., HFBackend]


@pytest.fixture(scope="module")
def vllm(engine_of: Engines, trained: Path) -> VLLMBackend:
    return engine_of(trained)


@pytest.fixture(scope="module")
def hf(transformers_of: Transformers, trained: Path) -> HFBackend:
    return transformers_of(trained)


@pytest.fixture(scope="module")
def short(engine_of: Engines, trained: Path) -> VLLMBackend:
    """An engine that reads little, with small blocks in its cache."""
    return engine_of(trained, max_length="160", max_num_seqs="4", engine_args='{"block_size": 32}')


def questions(backend: Backend, protocol: ProtocolName, *, shots: int = 0, limit: int = 8, max_tokens: int = 24) -> list[Request]:
    """Requests of the embedded set, in all six languages."""
    plan = RunPlan(
        model="any:model", tasks=("mmedbench_mini",), protocol=protocol, shots=shots, limit=limit, max_tokens=max_tokens
    )
    return [request for task in prepare(plan, Catalog(make_host()), backend).tasks for request in task.requests]


def scored(backend: Backend, requests: Sequence[Any]) -> dict[str, Loglikelihoods]:
    found = {response.request_id: response for response in backend.loglikelihood(requests)}
    assert sorted(found) == sorted(request.id for request in requests)
    assert all(isinstance(response, Loglikelihoods) for response in found.values()), found
    return found


def written(backend: Backend, requests: Sequence[Any]) -> dict[str, Generation]:
    found = {response.request_id: response for response in backend.generate(requests)}
    assert sorted(found) == sorted(request.id for request in requests)
    assert all(isinstance(response, Generation) for response in found.values()), found
    return found


def ask(question: str, continuations: Sequence[str], name: str = "a", **prompt: Any) -> LoglikelihoodRequest:
    return LoglikelihoodRequest(
        id=name,
        prompt=Prompt(question=question, **prompt),
        continuations=tuple(continuations),
        answers=tuple(frozenset("ABCDEFGHIJ"[i]) for i in range(len(continuations))),
        options=dict(zip("ABCDEFGHIJ", continuations, strict=False)),
    )


def write(
    question: str, name: str = "a", *, chat: bool = False, shots: tuple[Shot, ...] = (), **sampling: Any
) -> GenerateRequest:
    prompt = Prompt(question=question, chat=chat, shots=shots)
    return GenerateRequest(id=name, prompt=prompt, sampling=Sampling(**{"max_tokens": 16, **sampling}), options={})


def worst(a: dict[str, Loglikelihoods], b: dict[str, Loglikelihoods]) -> float:
    return max(abs(x - y) for name in a for x, y in zip(a[name].values, b[name].values, strict=True))


def test_the_contract_of_backends_is_kept(vllm: VLLMBackend) -> None:
    check_backend(vllm, tolerance=FOUND)


# --- the same weights ---


def test_the_same_folder_has_the_same_fingerprint_and_other_settings(vllm: VLLMBackend, hf: HFBackend) -> None:
    assert vllm.fingerprint() == hf.fingerprint()
    assert vllm.describe()["files"] == hf.describe()["files"]
    assert vllm.describe()["settings"] != hf.describe()["settings"]


@pytest.mark.parametrize(("said", "found"), [({"dtype": "bfloat16"}, "bfloat16"), ({}, "float32"), ({"dtype": None}, "float32")])
def test_the_precision_is_what_the_configuration_says_or_else_that_of_the_weights(
    said: dict[str, Any], found: str, tiny: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(tiny, tmp_path / "model"))
    config = json.loads((path / "config.json").read_text())
    assert config.pop("dtype") == "float32"
    (path / "config.json").write_text(json.dumps({**config, **said}))
    assert VLLMBackend(str(path), {})._dtype == found
    assert VLLMBackend(str(path), {"dtype": "float16"})._dtype == "float16"


def test_the_precision_is_the_checkpoints_own(vllm: VLLMBackend) -> None:
    scored(vllm, [ask("Iron is", [" A", " B"])])
    runtime = vllm.runtime()
    assert runtime["dtype"] == "float32"
    assert runtime["device"] == "cpu"
    assert runtime["devices"] == 1
    assert "warnings" not in runtime
    json.dumps(runtime)


# --- the cache changes no value ---


def uneven() -> list[LoglikelihoodRequest]:
    """Questions whose borders lie anywhere in a block, with continuations that begin alike and cross blocks."""
    endings = [" A", " A,B", " A,B,C", " A,B,C,D\n", " B", " iron and zinc and copper and lead in the blood of the patient", " A"]
    return [ask("Which metal? " * (1 + i) + "x" * (i % 5) + " Answer:", endings, f"r{i}") for i in range(9)]


def test_values_are_the_same_with_the_cache_and_without_and_a_second_time(
    short: VLLMBackend, hf: HFBackend, engine_of: Engines, trained: Path
) -> None:
    wanted = scored(hf, uneven())
    first = scored(short, uneven())
    before = short.runtime()["process"]
    assert before["cached_tokens"] > before["asked_tokens"] / 3
    assert worst(first, wanted) <= FOUND
    assert all(response.values[0] == response.values[-1] for response in first.values())
    # Now whole continuations lie in the cache, of which vLLM tells nothing: they are asked again without it.
    assert worst(scored(short, uneven()[::-1]), wanted) <= FOUND
    assert short.runtime()["process"]["asked_again"] > before["asked_again"]
    without = engine_of(trained, engine_args='{"enable_prefix_caching": false}')
    assert worst(scored(without, uneven()), wanted) <= FOUND
    assert without.runtime()["process"]["cached_tokens"] == 0


def test_asking_alone_changes_nothing_and_leaves_no_trace(short: VLLMBackend) -> None:
    asked: list[Any] = [*uneven()[:3], write("Question: Is iron a metal?\nAnswer:", "text")]
    company = scored(short, asked[:3])
    text = written(short, asked[3:])["text"].text
    before = short.runtime()
    responses = {response.request_id: response for response in short.alone(asked)}
    assert short.runtime() == before
    assert worst({name: responses[name] for name in company}, company) <= FOUND
    assert isinstance(responses["text"], Generation)
    assert responses["text"].text == text


# --- requests are handed over as there is room ---


def test_requests_are_taken_as_the_engine_has_room_for_them(short: VLLMBackend) -> None:
    from mmedeval_vllm.engine import Ask

    taken = []

    def asks() -> Iterator[Ask]:
        for i in range(60):
            taken.append(i)
            yield Ask(about=i, ids=[5] * (20 + i % 7), params=parameters(max_tokens=2))

    told = []
    for answer in short.engine.stream(asks()):
        told.append(answer.ask.about)
        # Four at once, four waiting, one in the hand, and what an earlier step has brought.
        assert len(taken) - len(told) <= 8 + 1 + 4
    assert sorted(told) == [*range(60)]


def parameters(**settings: Any) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(**{"temperature": 0.0, "detokenize": False, "output_kind": RequestOutputKind.FINAL_ONLY, **settings})


def test_a_run_that_is_stopped_leaves_nothing_behind(short: VLLMBackend) -> None:
    responses = short.loglikelihood(uneven())
    next(responses)
    responses.close()
    assert not short.engine._llm.llm_engine.has_unfinished_requests()
    assert len(scored(short, uneven())) == 9


def test_an_engine_that_fails_ends_the_run_with_one_sentence(short: VLLMBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nof which nothing is left")

    with monkeypatch.context() as patch:
        patch.setattr(short.engine._llm.llm_engine, "step", fail)
        with pytest.raises(BackendError, match="vLLM stopped: CUDA out of memory") as caught:
            list(short.loglikelihood(uneven()))
    assert "\n" not in str(caught.value)
    assert len(scored(short, uneven())) == 9


# --- text ---


def test_a_stop_string_ends_the_text_and_is_no_part_of_it(vllm: VLLMBackend, hf: HFBackend) -> None:
    question = "Question: Is iron a metal?\nAnswer:"
    (free,) = written(vllm, [write(question, max_tokens=40)]).values()
    stop = free.text[len(free.text) // 2 :][:3]
    assert stop
    asked = [write(question, max_tokens=40, stop=(stop, "never there"))]
    ours, theirs = written(vllm, asked)["a"], written(hf, asked)["a"]
    assert ours.text == theirs.text == free.text[: free.text.index(stop)]
    assert ours.finish_reason == theirs.finish_reason == "stop"
    assert ours.usage.tokens_out == theirs.usage.tokens_out


def test_a_sampled_text_depends_on_its_seed_and_its_name_alone(vllm: VLLMBackend) -> None:
    def draw(seed: int, names: str) -> dict[str, str]:
        asked = [write("Question: Is iron a metal?\nAnswer:", name, temperature=1.0, seed=seed) for name in names]
        return {name: response.text for name, response in written(vllm, asked).items()}

    company = draw(1, "abcd")
    assert len({*company.values()}) > 1
    assert draw(1, "c") == {"c": company["c"]}
    assert draw(2, "abcd") != company


def test_a_temperature_that_vllm_does_not_take_is_one_sentence(vllm: VLLMBackend) -> None:
    with pytest.raises(UsageError, match="temperature must be in") as caught:
        written(vllm, [write("Iron?", temperature=3.0)])
    assert "\n" not in str(caught.value)


def test_a_text_that_must_follow_a_schema_follows_it(vllm: VLLMBackend) -> None:
    schema = {
        "type": "object",
        "properties": {"iron": {"type": "boolean"}, "points": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["iron", "points"],
        "additionalProperties": False,
    }
    (response,) = written(vllm, [replace(write("Question: Is iron a metal?\nAnswer:", max_tokens=60), schema=schema)]).values()
    found = json.loads(response.text)
    assert {*found} == {"iron", "points"}
    assert 1 <= found["points"] <= 5


def test_the_chat_template_is_filled_in_as_transformers_does(vllm: VLLMBackend, hf: HFBackend) -> None:
    request = write("Is iron a metal?", chat=True, shots=(Shot(asked="Is water wet?", answered="Yes."),))
    assert vllm.encoder.encode_prompt(request.prompt) == hf.encoder.encode_prompt(request.prompt)
    assert written(vllm, [request])["a"].text == written(hf, [request])["a"].text
    assert written(vllm, [request])["a"].usage.bos == 1


def test_a_model_without_a_chat_template_is_refused_with_the_way_out(trained: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(trained, tmp_path / "model"))
    about = json.loads((path / "tokenizer_config.json").read_text())
    about.pop("chat_template", None)
    (path / "tokenizer_config.json").write_text(json.dumps(about))
    (path / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="no chat template; run with --no-chat-template"):
        VLLMBackend(str(path), {}).check(chat=True)


# --- the context ---


def test_shots_are_dropped_until_the_longest_continuation_fits_and_then_the_item_fails(short: VLLMBackend, hf: HFBackend) -> None:
    shots = tuple(Shot(asked=f"Question: Is number {i} even, and what of it?\nAnswer:", answered=f" {i % 2}\n") for i in range(9))
    question, continuations = "Question: Is iron a metal?\nAnswer:", [" A", " it is a metal"]
    found = scored(short, [ask(question, continuations, shots=shots)])["a"]
    dropped = found.usage.shots_dropped
    assert 0 < dropped < 9
    kept = scored(hf, [ask(question, continuations, shots=shots[dropped:])])["a"]
    assert found.values == pytest.approx(kept.values, abs=FOUND)
    assert found.usage.tokens_in == kept.usage.tokens_in
    # With one shot more it would have been too long: vLLM adds a token of its own.
    more = hf.encoder.encode_pair(Prompt(question=question, shots=shots[dropped - 1 :]), continuations)
    assert len(more[0]) + max(map(len, more[1])) + 1 > 160

    (failed,) = short.loglikelihood([ask("Which metal? " * 200, continuations, shots=shots)])
    assert isinstance(failed, Failure)
    assert failed.kind == "too_long"
    assert "without its 9 solved examples, the model reads 159" in failed.message
    (unwritten,) = short.generate([write("Which metal? " * 200)])
    assert isinstance(unwritten, Failure)
    assert unwritten.kind == "too_long"


def test_a_text_is_scored_up_to_the_last_place_that_vllm_has(short: VLLMBackend, hf: HFBackend) -> None:
    for tokens, fits in ((158, True), (159, False)):
        prompt = " A" * (tokens - 1)  # and the BOS
        assert len(short.encoder.encode([prompt])[0]) == tokens
        request = ask(prompt, [" A", " B"])
        (response,) = short.loglikelihood([request])
        assert isinstance(response, Loglikelihoods) == fits
        if isinstance(response, Loglikelihoods):
            assert response.values == pytest.approx(scored(hf, [request])["a"].values, abs=FOUND)


def test_the_answer_gets_the_room_that_is_left(short: VLLMBackend) -> None:
    request = write(" A" * 149, max_tokens=1000)
    response = written(short, [request])["a"]
    assert response.usage.tokens_out <= 10
    assert response.finish_reason == ("length" if response.usage.tokens_out == 10 else "stop")


def test_a_prompt_without_a_token_is_refused(engine_of: Engines, vllm: VLLMBackend, trained: Path) -> None:
    bare = VLLMBackend(str(trained), {"add_bos": "false"})
    bare.__dict__["engine"] = vllm.engine
    (response,) = bare.loglikelihood([ask("", [" A", " B"])])
    assert isinstance(response, Failure)
    assert response.kind == "refused"


# --- adapters ---


@pytest.fixture(scope="module")
def adapter(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(7)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32), config)
    path = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(path)
    return path


def test_an_adapter_gives_the_values_and_texts_that_peft_gives(
    engine_of: Engines, transformers_of: Transformers, trained: Path, adapter: Path, vllm: VLLMBackend
) -> None:
    ours, theirs = engine_of(trained, adapter=str(adapter)), transformers_of(trained, adapter=str(adapter))
    requests = questions(ours, "letter", limit=4)
    found = scored(ours, requests)
    assert worst(found, scored(theirs, requests)) <= FOUND
    assert worst(found, scored(vllm, requests)) > 0.1
    texts = questions(ours, "chat", limit=2)
    wanted = written(theirs, texts)
    assert {name: each.text for name, each in written(ours, texts).items()} == {name: each.text for name, each in wanted.items()}
    assert ours.fingerprint() == theirs.fingerprint() == VLLMBackend(str(adapter), {}).fingerprint() != vllm.fingerprint()


# --- what cannot be started ---


def one_sentence(path: Path, **arguments: str) -> str:
    with VLLMBackend(str(path), {"enforce_eager": "true", **arguments}) as backend, pytest.raises(ModelError) as caught:
        scored(backend, [ask("Iron is", [" A", " B"])])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(source: Path, target: Path, **config: Any) -> Path:
    path = Path(shutil.copytree(source, target))
    content = {**json.loads((path / "config.json").read_text()), **config}
    (path / "config.json").write_text(json.dumps(content))
    return path


def test_an_architecture_that_vllm_does_not_know_is_one_sentence(engine_of: Engines, tiny: Path, tmp_path: Path) -> None:
    path = changed(tiny, tmp_path / "model", architectures=["NobodysForCausalLM"], model_type="nobodys")
    assert "vLLM cannot start" in one_sentence(path)


def test_weights_that_lack_tensors_are_one_sentence(engine_of: Engines, tiny: Path, tmp_path: Path) -> None:
    path = changed(tiny, tmp_path / "model", num_hidden_layers=3)
    assert "vLLM cannot start" in one_sentence(path)


def test_a_folder_that_is_no_whole_model_is_refused_before_anything_is_started(tiny: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny, tmp_path / "model"))
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        VLLMBackend(str(path), {}).check(chat=False)
    with pytest.raises(ModelError, match="does not exist"):
        VLLMBackend(str(tmp_path / "nothing"), {}).fingerprint()


def test_torn_weights_are_one_sentence(engine_of: Engines, tiny: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny, tmp_path / "model"))
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20_000])
    assert "vLLM cannot start" in one_sentence(path)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("max_length", "100000", "100000"),
        ("quantization", "alchemy", "alchemy"),
        ("engine_args", '{"no_such_thing": 1}', "no_such_thing"),
    ],
)
def test_what_vllm_does_not_take_is_one_sentence_that_names_it(
    name: str, value: str, told: str, engine_of: Engines, tiny: Path
) -> None:
    assert told in one_sentence(tiny, **{name: value})


def test_a_version_that_was_not_tested_is_a_warning(vllm: VLLMBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm.engine, "version", "9.9.9")
    (warning,) = vllm.runtime()["warnings"]
    assert "9.9.9" in warning


def test_settings_for_text_that_vllm_does_not_know_are_a_warning(vllm: VLLMBackend, trained: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(trained, tmp_path / "model"))
    settings = {"no_repeat_ngram_size": 3, "suppress_tokens": None, "guidance_scale": 1.0, "temperature": 0.7}
    (path / "generation_config.json").write_text(json.dumps(settings))
    backend = VLLMBackend(str(path), {})
    backend.__dict__["engine"] = vllm.engine
    (warning,) = backend.runtime()["warnings"]
    assert warning.startswith("the checkpoint sets no_repeat_ngram_size for generation, which vLLM leaves out")


def test_half_of_a_surrogate_pair_is_refused_and_the_others_are_answered(vllm: VLLMBackend) -> None:
    asked = [ask("x\ud800", [" A"]), ask("Iron is", [" A"], "b")]
    found = {response.request_id: response for response in vllm.loglikelihood(asked)}
    assert isinstance(found["a"], Failure)
    assert (found["a"].kind, type(found["b"])) == ("refused", Loglikelihoods)
    (text,) = vllm.generate([write("x\ud800")])
    assert isinstance(text, Failure)
    assert text.kind == "refused"
