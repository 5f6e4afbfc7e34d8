"""What goes to the messages API, and what is read out of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mmedeval import Failure, GenerateRequest, Generation, ModelError, Prompt, Sampling, Shot, UsageError
from mmedeval.remote import Trouble
from mmedeval.servers import Price, name_in

pytest.importorskip("anthropic")

from mmedeval_anthropic.models import PRICES, WITH_TEMPERATURE
from mmedeval_anthropic.options import Options
from mmedeval_anthropic.troubles import status_trouble
from mmedeval_anthropic.wire import body_of, most_cost, response_of, rest_of

SHOT = Shot(asked="Is iron a metal?", answered="Answer: A")
LONG = Shot(asked="Is iron a metal? " * 100, answered="Because it is. " * 100)
NEW, OLD = "claude-opus-5-5", "claude-haiku-4-5"
PRICE = Price(input=10, output=50, cached=1, written=12.5)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def asked(prompt: Prompt | None = None, **sampling: Any) -> GenerateRequest:
    prompt = prompt or Prompt(question="Which metal?", chat=True)
    return GenerateRequest(id="x", prompt=prompt, sampling=Sampling(**sampling), options={"A": "a"})


def body(request: GenerateRequest, model: str = NEW, **arguments: str) -> dict[str, Any]:
    return body_of(request, model, Options.parse(model, arguments))


def message(text: str | None = "Answer: A", reason: str = "end_turn", **fields: Any) -> dict[str, Any]:
    content = [] if text is None else [{"type": "text", "text": text}]
    return {"content": content, "stop_reason": reason, "usage": {"input_tokens": 100, "output_tokens": 10}, **fields}


def read(found: Any, request: GenerateRequest | None = None, price: Price | None = None, *, batch: bool = False) -> Any:
    return response_of(request or asked(), found, price, redact=lambda text: text.replace("secret", "[key]"), batch=batch)


def test_the_provider_is_held_to_a_schema_and_servers_of_others_are_not() -> None:
    request = replace(asked(), schema={"type": "object"})
    form = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert body(request)["output_config"] == form
    assert body(request, effort="low")["output_config"] == {"effort": "low", **form}
    assert "output_config" not in body(request, base_url="http://127.0.0.1:1")


def test_a_conversation_becomes_turns_and_its_opening_the_system_prompt() -> None:
    prompt = Prompt(opening="Be short.", shots=(SHOT,), question="Is zinc?", chat=True)
    assert body(asked(prompt, max_tokens=7)) == {
        "model": NEW,
        "max_tokens": 7,
        "system": "Be short.",
        "messages": [
            {"role": "user", "content": "Is iron a metal?"},
            {"role": "assistant", "content": "Answer: A"},
            {"role": "user", "content": "Is zinc?"},
        ],
    }


def test_a_prompt_that_is_no_conversation_is_one_turn_byte_for_byte() -> None:
    prompt = Prompt(opening="One. ", shots=(LONG,), question="Two:\n\n", chat=False)
    assert body(asked(prompt))["messages"] == [{"role": "user", "content": prompt.text}]
    assert "system" not in body(asked(prompt))


def test_the_last_shared_turn_is_marked_where_it_is_worth_keeping() -> None:
    prompt = Prompt(shots=(SHOT, LONG), question="Is zinc?", chat=True)
    turns = body(asked(prompt))["messages"]
    marked = [{"type": "text", "text": LONG.answered, "cache_control": {"type": "ephemeral"}}]
    assert [turn["content"] for turn in turns] == [SHOT.asked, SHOT.answered, LONG.asked, marked, "Is zinc?"]
    assert "cache_control" not in str(body(asked(prompt), cache="false"))
    assert "cache_control" not in str(body(asked(Prompt(shots=(SHOT,), question="Is zinc?", chat=True))))
    opening = Prompt(opening="Be short. " * 300, question="Is zinc?", chat=True)
    assert body(asked(opening))["system"][0]["cache_control"] == {"type": "ephemeral"}


def test_a_temperature_goes_where_it_is_taken_and_nowhere_else() -> None:
    assert "temperature" not in body(asked())
    assert "temperature" not in body(asked(), "claude-mystery-9")
    assert body(asked(), OLD)["temperature"] == body(asked(), f"{OLD}-20251001")["temperature"] == 0.0
    # Behind an address of another, too; what is not the provider's model is one's own.
    for name in (NEW, f"{NEW}-20260801", f"anthropic/{NEW}"):
        assert "temperature" not in body(asked(), name, base_url="http://host")
    for name in (OLD, f"anthropic/{OLD}", "my-own", "claude"):
        assert body(asked(temperature=0.5), name, base_url="http://host")["temperature"] == 0.5
    assert body(asked(temperature=0.5), NEW, base_url="http://host", temperature="true")["temperature"] == 0.5
    assert body(asked(), NEW, temperature="true")["temperature"] == 0.0
    assert "temperature" not in body(asked(), OLD, temperature="false")
    # A model that thinks takes none either.
    assert "temperature" not in body(asked(), OLD, thinking="2000")
    assert body(asked(), OLD, thinking="disabled")["temperature"] == 0.0


def test_a_temperature_that_would_not_arrive_is_refused() -> None:
    for name, arguments in ((NEW, {}), (OLD, {"thinking": "2000"}), (NEW, {"base_url": "http://host", "thinking": "adaptive"})):
        options = Options.parse(name, arguments)
        options.check_sampling(Sampling(), name)
        options.check_sampling(Sampling(temperature=1.0), name)
        with pytest.raises(ModelError, match=r"^--temperature 0.5 cannot be given to anthropic:claude-[a-z0-9-]*: models from"):
            options.check_sampling(Sampling(temperature=0.5), name)
    Options.parse(OLD, {}).check_sampling(Sampling(temperature=0.5), OLD)


def test_thinking_gets_tokens_of_its_own_beside_those_of_the_answer() -> None:
    found = body(asked(max_tokens=100), OLD, thinking="2000")
    assert (found["max_tokens"], found["thinking"]) == (2100, {"type": "enabled", "budget_tokens": 2000})
    found = body(asked(max_tokens=100), thinking="adaptive", effort="low")
    assert (found["max_tokens"], found["thinking"], found["output_config"]) == (100, {"type": "adaptive"}, {"effort": "low"})
    assert body(asked(), thinking="disabled")["thinking"] == {"type": "disabled"}
    assert {"thinking", "output_config"} & body(asked()).keys() == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"thinking": "1000"}, "thinking=1000 is neither adaptive, nor disabled, nor a number of tokens from 1024 on"),
        ({"thinking": "yes"}, "thinking=yes is neither adaptive"),
        ({"effort": "huge"}, "effort=huge is none of low, medium, high, xhigh, max"),
        ({"temperature": "0.5"}, "temperature=0.5 is neither true nor false"),
        ({"thinking": "2000", "temperature": "true"}, "temperature=true goes not with thinking=2000"),
        ({"cache": "no"}, "cache=no is neither true nor false"),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments: Mapping[str, str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Options.parse(OLD, arguments)
    assert words in str(caught.value)


def test_the_address_may_end_in_v1_as_those_of_other_backends_do() -> None:
    assert Options.parse(NEW, {}).address == "https://api.anthropic.com"
    assert Options.parse(NEW, {"base_url": "http://host:1/v1/"}).address == "http://host:1"
    assert Options.parse(NEW, {"base_url": "http://host:1/x"}).address == "http://host:1/x"
    for own in ("https://api.anthropic.com", "https://api.anthropic.com/v1/"):
        options = Options.parse(NEW, {"base_url": own})
        assert (options.address, options.server.base_url) == ("https://api.anthropic.com", None)


def test_stop_strings_of_white_space_which_the_server_takes_not_are_cut_here() -> None:
    request = asked(stop=("\n\n", "END", "  "))
    assert body(request)["stop_sequences"] == ["END"]
    assert "stop_sequences" not in body(asked(stop=("\n",)))
    assert read(message("one  two\n\nthree", "max_tokens"), request) == Generation(
        request_id="x", text="one", finish_reason="stop", usage=read(message()).usage
    )
    assert read(message("one two", "max_tokens"), request).finish_reason == "length"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("model_context_window_exceeded", "length")],
)
def test_how_a_text_ends(reason: str, finish: str) -> None:
    response = read(message("Answer: A", reason))
    assert isinstance(response, Generation)
    assert (response.text, response.finish_reason) == ("Answer: A", finish)


def test_thinking_is_left_out_of_the_answer_and_its_tokens_are_counted() -> None:
    thinking = [{"type": "thinking", "thinking": "Answer: J", "signature": "x"}, {"type": "redacted_thinking", "data": "x"}]
    found = message(content=[*thinking, {"type": "text", "text": "Answer: "}, {"type": "text", "text": "A"}])
    found["usage"]["output_tokens_details"] = {"thinking_tokens": 6}
    response = read(found)
    assert response.text == "Answer: A"
    assert (response.usage.tokens_out, response.usage.tokens_thinking) == (10, 6)
    all_thought = read({**found, "content": thinking, "stop_reason": "max_tokens"})
    assert isinstance(all_thought, Failure)
    assert all_thought.message == "all 10 tokens went into thinking; allow more with --max-tokens"


def test_what_is_no_text_is_a_failure_with_its_reason_and_its_price() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "no secret"}
    refused = read(message(None, "refusal", stop_details=details), price=PRICE)
    assert isinstance(refused, Failure)
    assert (refused.kind, refused.message) == ("refused", "the model refused: bio, no [key]")
    assert refused.usage.cost == pytest.approx(0.0015)
    assert read(message(None, "refusal")).message == "the model refused"
    assert read(message(None)).message == "the answer is empty (stop_reason end_turn)"
    assert read(message("", "end_turn")).kind == "backend"
    assert "for the reason 'pause_turn'" in read(message("x", "pause_turn")).message
    # A stop string may stand at the very start.
    assert read(message("", "stop_sequence")).text == ""


@pytest.mark.parametrize(
    "found", [None, [], "text", {}, {"content": None}, {**message(), "usage": {}}, {**message(), "content": [3]}]
)
def test_what_is_no_message_at_all_is_asked_again(found: Any) -> None:
    with pytest.raises(Trouble) as caught:
        read(found)
    assert caught.value.verdict == "passing"


def test_what_is_no_message_was_paid_all_the_same() -> None:
    for broken in ({"content": None}, {"stop_reason": None, "content": [3]}):
        with pytest.raises(Trouble) as caught:
            read({**message(), **broken}, price=PRICE)
        assert caught.value.usage.cost == pytest.approx((100 * 10 + 10 * 50) / 1e6)


def test_tokens_of_the_cache_are_counted_and_priced_apart() -> None:
    found = message(
        usage={"input_tokens": 100, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 2000, "output_tokens": 10}
    )
    usage = read(found, price=PRICE).usage
    assert (usage.tokens_in, usage.tokens_cached, usage.tokens_out) == (3100, 1000, 10)
    assert usage.cost == pytest.approx((100 * 10 + 1000 * 1 + 2000 * 12.5 + 10 * 50) / 1e6)
    assert read(found, price=PRICE, batch=True).usage.cost == pytest.approx(usage.cost / 2)
    assert read(found).usage.cost is None


def test_the_most_that_a_request_may_cost_is_no_less_than_what_it_costs() -> None:
    prompt = Prompt(opening="Kurz. ", shots=(LONG,), question="鉄は金属ですか。", chat=True)
    for arguments in ({}, {"cache": "false"}, {"thinking": "2000"}, {"batch": "true"}):
        options = Options.parse(OLD, arguments)
        request = asked(prompt, max_tokens=50)
        found = body_of(request, OLD, options)
        tokens = len(prompt.text.encode())  # more than any tokenizer makes of it
        written = "cache_creation_input_tokens" if "cache_control" in str(found) else "input_tokens"
        usage = {"input_tokens": 0, written: tokens + 10, "output_tokens": found["max_tokens"]}
        cost = read(message(usage=usage), price=PRICE, batch=options.server.batch).usage.cost
        assert cost <= most_cost(request, options, PRICE) < 2 * cost


def test_a_rate_limit_that_is_used_up_tells_how_long_to_rest() -> None:
    soon, later = ((datetime.now(UTC) + timedelta(seconds=each)).isoformat().replace("+00:00", "Z") for each in (20, 40))
    headers = {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": soon,
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": later,
    }
    assert 39 < rest_of(headers) <= 40
    assert 19 < rest_of({**headers, "anthropic-ratelimit-input-tokens-remaining": "1000"}) <= 20
    # By the server's clock, if it tells the time: ours may be wrong.
    told = {"date": "Wed, 21 Oct 2015 07:28:00 GMT", "anthropic-ratelimit-tokens-remaining": "0"}
    assert rest_of({**told, "anthropic-ratelimit-tokens-reset": "2015-10-21T07:28:45Z"}) == 45
    assert rest_of({**told, "anthropic-ratelimit-tokens-reset": "2015-10-21T09:28:45+02:00"}) == 45
    assert rest_of({**told, "anthropic-ratelimit-tokens-reset": "2015-10-21T07:27:45Z"}) == 0
    assert rest_of({}) == 0
    for reset in ("2020-01-01T00:00:00Z", "soon", "2030-01-01T00:00:00", ""):
        assert rest_of({"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": reset}) == 0


@pytest.mark.parametrize(
    ("status", "words", "verdict", "kind"),
    [
        (400, "prompt is too long: 9 tokens > 8 maximum", "refused", "too_long"),
        (400, "input length and `max_tokens` exceed context limit: 9 + 9 > 8", "refused", "too_long"),
        (413, "Request exceeds the maximum size", "refused", "too_long"),
        (400, "Output blocked by content filtering policy", "refused", "refused"),
        (400, "messages: text content blocks must be non-empty", "refused", "backend"),
        (400, "Your credit balance is too low to access the Anthropic API.", "hopeless", "backend"),
        (401, "invalid x-api-key", "hopeless", "backend"),
        (402, "billing", "hopeless", "backend"),
        (403, "not allowed", "hopeless", "backend"),
        (404, "model: claude-x", "hopeless", "backend"),
        (429, "rate limit", "busy", "backend"),
        (500, "internal", "passing", "backend"),
        (529, "Overloaded", "busy", "backend"),
    ],
)
def test_what_the_servers_errors_mean(status: int, words: str, verdict: str, kind: str) -> None:
    trouble = status_trouble(status, {}, words, key_place="the file x")
    assert (trouble.verdict, trouble.kind) == (verdict, kind)
    assert str(trouble).startswith(f"HTTP {status}: {words}")
    assert str(trouble).endswith("; the key is from the file x") == (status in (401, 403))


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ("`temperature` may only be set to 1 when thinking is enabled", "hopeless"),
        ("temperature: Extra inputs are not permitted", "hopeless"),
        ("`temperature` is deprecated for this model.", "hopeless"),
        ("messages: the patient's temperature could not be parsed", "refused"),
    ],
)
def test_a_temperature_that_the_server_does_not_take_is_told_with_the_way_around(words: str, verdict: str) -> None:
    trouble = status_trouble(400, {}, words, key_place="the file x")
    assert trouble.verdict == verdict
    assert ("--model-arg temperature=false leaves it out" in str(trouble)) == (verdict == "hopeless")


def test_prices_are_sound_and_every_model_with_a_temperature_has_one() -> None:
    assert set(WITH_TEMPERATURE) <= PRICES.keys()
    for name, price in PRICES.items():
        assert name_in(PRICES, name) == name
        assert price.output == 5 * price.input
        assert price.written == pytest.approx(1.25 * price.input)
        assert price.cached is not None
        assert 0 < price.cached <= 0.1 * price.input
