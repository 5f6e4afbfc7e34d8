"""What is sent for a request, and what is read out of an answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from mmedeval import GenerateRequest, Shot
from mmedeval.remote import Trouble
from mmedeval.servers import Price
from mmedeval_openai.options import Options
from mmedeval_openai.wire import body_of, generation_of, letters_of, most_cost, rest_of

Make = Callable[..., Any]
LOCAL = {"base_url": "http://127.0.0.1:9/v1"}
THOUGHT = "all {} tokens went into thinking; allow more with --max-tokens"
PRICE = Price(input=1.0, output=10.0, cached=0.5)


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def body(request: Any, **arguments: str) -> dict[str, Any]:
    return body_of(request, "m", Options.parse(arguments), request.prompt)


def answer(content: Any = "Answer: A", finish: Any = "stop", usage: Any = None, **message: Any) -> dict[str, Any]:
    return {
        "model": "m-2026",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}],
        "usage": usage or {"prompt_tokens": 100, "completion_tokens": 20},
    }


# --- what is sent ---


def test_a_conversation_is_sent_turn_by_turn(write: Make) -> None:
    shot = Shot(asked="1?", answered="yes")
    sent = body(write("2?", opening="Be brief.", shots=(shot,), chat=True, max_tokens=7), **LOCAL)
    assert sent == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1?"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "2?"},
        ],
        "max_tokens": 7,
        "temperature": 0.0,
    }


def test_a_text_is_one_turn_of_the_user_in_chat_and_the_prompt_in_completions(write: Make) -> None:
    request = write("2?", opening="Be brief.\n", shots=(Shot(asked="1?", answered="yes\n"),))
    assert body(request, **LOCAL)["messages"] == [{"role": "user", "content": "Be brief.\n1?yes\n2?"}]
    sent = body(request, endpoint="completions", **LOCAL)
    assert sent["prompt"] == "Be brief.\n1?yes\n2?"
    assert "messages" not in sent


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (None, "max_completion_tokens"),
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("https://mine.services.ai.azure.com/openai/v1", "max_completion_tokens"),
        ("https://mine.cognitiveservices.azure.com/openai/v1", "max_completion_tokens"),
        ("http://127.0.0.1:8000/v1", "max_tokens"),
        ("https://notapi.openai.com.example.org/v1", "max_tokens"),
    ],
)
def test_the_limit_has_the_name_that_the_server_knows(write: Make, address: str | None, name: str) -> None:
    address_of = {} if address is None else {"base_url": address}
    assert body(write(max_tokens=5), **address_of)[name] == 5
    assert len({"max_tokens", "max_completion_tokens"} & body(write(), **address_of).keys()) == 1
    assert body(write(max_tokens=5), max_tokens_name="max_tokens", **address_of)["max_tokens"] == 5


def test_a_drawn_answer_has_a_seed_of_its_own_and_a_greedy_one_none(write: Make) -> None:
    seeds = [body(write(id=name, temperature=0.7, seed=seed), **LOCAL)["seed"] for name in "ab" for seed in (0, 1)]
    assert len({*seeds}) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds[0] == body(write(id="a", temperature=0.7, seed=0), **LOCAL)["seed"]
    assert "seed" not in body(write(), **LOCAL)


def test_settings_are_sent_as_asked(write: Make) -> None:
    sent = body(
        write(stop=("a", "b", "c", "d", "e")), temperature="false", reasoning_effort="high", extra_body='{"top_k": 1}', **LOCAL
    )
    assert "temperature" not in sent
    assert (sent["reasoning_effort"], sent["top_k"], sent["stop"]) == ("high", 1, ["a", "b", "c", "d"])


@pytest.mark.parametrize("name", ["temperature", "seed", "stop", "response_format"])
def test_what_some_servers_refuse_can_be_left_out(write: Make, name: str) -> None:
    request = write(temperature=0.7, stop=("x",), schema={"type": "object"})
    assert body(request).keys() - body(request, **{name: "false"}).keys() == {name}


def test_a_schema_goes_to_the_provider_alone(write: Make) -> None:
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    for arguments in ({}, {"base_url": "https://api.openai.com/v1"}):
        assert body(write(schema=schema), **arguments)["response_format"]["json_schema"]["schema"] == schema
    assert "response_format" not in body(write(schema=schema), **LOCAL)


def test_letters_are_asked_for_with_one_token_and_its_best(score: Make) -> None:
    sent = body(score(), logprobs="true", **LOCAL)
    assert {name: sent[name] for name in ("max_tokens", "logprobs", "top_logprobs", "temperature")} == {
        "max_tokens": 1, "logprobs": True, "top_logprobs": 20, "temperature": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("prompt", ["Is iron a metal?", "鉄は金属ですか。", "Железо — это металл?"])
def test_no_request_costs_more_than_its_bound(write: Make, score: Make, prompt: str) -> None:
    """Of a tokenizer that takes a byte for a token, and a server that adds some around every turn."""
    options = Options.parse(LOCAL)
    request = write(prompt, chat=True, max_tokens=11)
    assert most_cost(request, options, PRICE) >= (len(prompt.encode()) * 1.0 + 11 * 10.0) / 1e6
    assert most_cost(request, Options.parse({**LOCAL, "batch": "true"}), PRICE) == most_cost(request, options, PRICE) / 2
    echoed = most_cost(score(prompt), Options.parse({**LOCAL, "endpoint": "completions"}), PRICE)
    assert echoed >= (3 * len(prompt.encode()) * 1.0 + 3 * 10.0) / 1e6


# --- what comes back ---


def read(request: GenerateRequest, given: Any, **more: Any) -> Any:
    return generation_of(request, given, PRICE, **{"batch": False, **more})


def test_an_answer_is_read_with_what_it_took(write: Make) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 60},
        "completion_tokens_details": {"reasoning_tokens": 15},
    }
    got = read(write(), answer(usage=usage, reasoning_content="Let me think. Answer: J"))
    assert (got.text, got.finish_reason) == ("Answer: A", "stop")
    assert (got.usage.tokens_in, got.usage.tokens_cached, got.usage.tokens_out, got.usage.tokens_thinking) == (100, 60, 20, 15)
    assert got.usage.cost == pytest.approx((40 * 1.0 + 60 * 0.5 + 20 * 10.0) / 1e6)
    assert read(write(), answer(usage=usage), batch=True).usage.cost == pytest.approx(got.usage.cost / 2)


def test_a_plain_completion_is_read_too(write: Make) -> None:
    got = read(write(), {"choices": [{"text": " yes", "finish_reason": "length"}], "usage": None})
    assert (got.text, got.finish_reason, got.usage.tokens_in) == (" yes", "length", 0)


def test_thinking_that_stands_in_the_text_stays_there_for_the_reader_of_answers(write: Make) -> None:
    assert read(write(), answer("<think>J?</think>Answer: A")).text == "<think>J?</think>Answer: A"


def test_of_a_list_of_parts_the_text_is_the_answer(write: Make) -> None:
    """As Mistral's models give it."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Answer: J"}]}
    parts = [
        thinking,
        {"type": "text", "text": "Answer: "},
        {"type": "reference", "reference_ids": [1]},
        {"type": "text", "text": "A"},
    ]
    assert read(write(), answer(parts)).text == "Answer: A"
    with pytest.raises(Trouble, match=THOUGHT.format(20)):
        read(write(), answer([thinking], finish="length"))
    for odd in ([7], [{"text": "A"}], [{"type": "text", "text": 7}], [{"type": ["text"]}], {"type": "text"}):
        with pytest.raises(Trouble, match="none of the format") as caught:
            read(write(), answer(odd))
        assert caught.value.verdict == "passing"


@pytest.mark.parametrize(
    "change", [{"choices": []}, {"choices": None}, {"choices": [{"message": {"content": 7}}]}, {"choices": [{"text": None}]}]
)
def test_an_answer_in_no_known_format_was_paid_all_the_same(write: Make, score: Make, change: Any) -> None:
    given = {**answer(), **change}
    paid = pytest.approx((100 * 1.0 + 20 * 10.0) / 1e6)
    for batch in (False, True):
        with pytest.raises(Trouble) as caught:
            read(write(), given, batch=batch)
        assert caught.value.usage.cost == (pytest.approx(paid.expected / 2) if batch else paid)
    with pytest.raises(Trouble) as caught:
        letters_of(score(), given, PRICE, batch=False)
    assert caught.value.usage.cost == paid


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": "many"}, {"prompt_tokens": math.inf}, [1], "none", {"prompt_tokens": {"of": 1}}]
)
def test_a_count_that_is_none_makes_an_answer_one_of_no_known_format(write: Make, usage: Any) -> None:
    with pytest.raises(Trouble, match="none of the format") as caught:
        read(write(), answer(usage=usage))
    assert (caught.value.verdict, caught.value.usage.cost) == ("passing", None)


@pytest.mark.parametrize("finish", ["stop", "eos", None])
def test_all_ends_but_the_limit_are_ends_of_the_text(write: Make, finish: Any) -> None:
    assert read(write(), answer(finish=finish)).finish_reason == "stop"


def test_a_text_ends_at_the_first_stop_string_whatever_the_server_did(write: Make) -> None:
    got = read(write(stop=("\n\n", "###")), answer("Answer: A### and\n\nmore", finish="length"))
    assert (got.text, got.finish_reason) == ("Answer: A", "stop")
    assert read(write(stop=("\n",)), answer("")).text == ""


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (answer(None, refusal="I cannot help."), "refused", "the model refused: I cannot help."),
        (answer("Answ", finish="content_filter"), "refused", "a content filter stopped the answer"),
        (answer(None), "backend", "the answer is empty (finish_reason stop)"),
        (answer(""), "backend", "the answer is empty (finish_reason stop)"),
        (answer("", finish="length"), "backend", "the answer is empty (finish_reason length)"),
        (
            answer("", finish="length", reasoning="Hm"),
            "backend",
            "all 20 tokens went into thinking; allow more with --max-tokens",
        ),
        (
            answer(
                "",
                finish="length",
                usage={"prompt_tokens": 1, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 9}},
            ),
            "backend",
            THOUGHT.format(9),
        ),
    ],
)
def test_no_text_is_told_with_its_reason_and_what_it_cost(write: Make, given: Any, kind: str, words: str) -> None:
    with pytest.raises(Trouble) as caught:
        read(write(), given)
    trouble = caught.value
    assert (trouble.verdict, trouble.kind, str(trouble)) == ("refused", kind, words)
    assert trouble.usage.cost


@pytest.mark.parametrize(
    "given", [{}, {"choices": []}, {"choices": None}, {"choices": [{}]}, {"choices": [{"message": None}]}, answer(7)]
)
def test_what_is_no_answer_is_asked_for_again(write: Make, given: Any) -> None:
    with pytest.raises(Trouble) as caught:
        read(write(), given)
    assert caught.value.verdict == "passing"


def letters(*best: tuple[str, float]) -> dict[str, Any]:
    token = {
        "token": best[0][0],
        "logprob": best[0][1],
        "top_logprobs": [{"token": each, "logprob": value} for each, value in best],
    }
    return {**answer(), "choices": [{"message": {"content": best[0][0]}, "logprobs": {"content": [token]}}]}


def test_a_letter_is_the_sum_of_its_spellings_and_one_outside_the_best_is_unlikelier_than_all(score: Make) -> None:
    shares = {"A": 0.4, " A": 0.2, "A.": 0.1, "Answer": 0.1, "\nB": 0.05}
    given = letters(*((token, math.log(share)) for token, share in shares.items()))
    got = letters_of(score(continuations=(" A", " B", " C")), given, PRICE, batch=False)
    assert got.values == pytest.approx((math.log(0.6), math.log(0.05), -math.inf))
    assert got.usage.cost


def test_rounded_probabilities_above_one_are_one(score: Make) -> None:
    assert letters_of(score(), letters(("A", 0.0), (" A", -8.0)), None, batch=False).values[0] == 0.0


def test_an_answer_that_ends_at_once_has_no_letter(score: Make) -> None:
    given = {**answer(""), "choices": [{"message": {"content": ""}, "logprobs": {"content": []}}]}
    assert letters_of(score(), given, None, batch=False).values == (-math.inf, -math.inf)


@pytest.mark.parametrize("more", [{"finish_reason": "content_filter"}, {"message": {"content": None, "refusal": "No."}}])
def test_a_refusal_is_no_lack_of_log_probabilities(score: Make, more: Any) -> None:
    given = {**answer(""), "choices": [{"message": {"content": ""}, "logprobs": None, **more}]}
    with pytest.raises(Trouble) as caught:
        letters_of(score(), given, None, batch=False)
    assert (caught.value.verdict, caught.value.kind) == ("refused", "refused")


@pytest.mark.parametrize("reason", ["error", "abort"])
def test_an_answer_that_broke_off_is_none(write: Make, reason: str) -> None:
    with pytest.raises(Trouble, match="broke the answer off") as caught:
        read(write(), answer("The ans", finish=reason))
    assert caught.value.verdict == "passing"


def test_thinking_that_is_counted_in_the_total_alone_is_paid(write: Make) -> None:
    given = {**answer("Answer: A"), "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 60}}
    assert read(write(), given).usage.tokens_out == 50


@pytest.mark.parametrize("logprobs", [{}, {"logprobs": None}, {"logprobs": {"content": None}}])
def test_a_server_without_log_probabilities_ends_the_run(score: Make, logprobs: Any) -> None:
    with pytest.raises(Trouble, match=r"leave out --model-arg logprobs=true") as caught:
        letters_of(score(), {**answer(), "choices": [{"message": {"content": "A"}, **logprobs}]}, None, batch=False)
    assert caught.value.verdict == "hopeless"


@pytest.mark.parametrize(
    "given", [{}, {"choices": [{"logprobs": 5}]}, {"choices": [{"logprobs": {"content": [{"top_logprobs": [{}]}]}}]}]
)
def test_letters_in_no_known_format_are_asked_for_again(score: Make, given: Any) -> None:
    with pytest.raises(Trouble) as caught:
        letters_of(score(), given, None, batch=False)
    assert caught.value.verdict == "passing"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "8.64s"}, 8.64),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "0m12.5s"}, 12.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m"}, 60.0),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "30s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, 0.0),
    ],
)
def test_a_limit_that_is_used_up_asks_for_a_rest(headers: dict[str, str], seconds: float) -> None:
    assert rest_of(headers) == pytest.approx(seconds)
