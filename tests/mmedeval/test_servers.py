"""Settings, keys and prices of servers: a mistake is one sentence, and a secret is in none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mmedeval import DataError, GenerateRequest, ModelError, Prompt, Sampling, Shot, UsageError
from mmedeval.remote import Traffic
from mmedeval.servers import FRAME, SERVER_ARGUMENTS, Price, ServerOptions, most_tokens, name_in

SECRET = "sk-planted-8b1f"
OWN = "https://api.provider.com/v1"
KNOWN = {"big": Price(input=5, output=25), "big-5": Price(input=4, output=20)}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("THE_KEY", "THE_URL"):
        monkeypatch.delenv(name, raising=False)


def parse(**arguments: str) -> ServerOptions:
    return ServerOptions.parse(arguments, key_env="THE_KEY", url_env="THE_URL", address=OWN)


def refusal(**arguments: str) -> str:
    with pytest.raises((UsageError, DataError)) as caught:
        parse(**arguments)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_without_arguments_the_defaults_hold_and_the_help_names_them() -> None:
    options = parse()
    assert options == ServerOptions(
        base_url=None,
        address=OWN,
        key=None,
        key_place="the environment variable THE_KEY",
        traffic=Traffic(),
        prices={},
        batch=False,
    )
    for name in ("concurrency", "retries", "timeout"):
        assert f"default {getattr(Traffic(), name):g}" in SERVER_ARGUMENTS[name]


def test_every_argument_is_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f" {SECRET}\n")
    (tmp_path / "prices.toml").write_text("[small]\ninput = 1\noutput = 2.5\ncached = 0.1\nwritten = 1.25\n")
    options = parse(
        base_url="http://127.0.0.1:8000/v1/",
        key_file=str(tmp_path / "key"),
        concurrency="4",
        retries="0",
        timeout="2.5",
        max_cost="10",
        prices=str(tmp_path / "prices.toml"),
        batch="true",
    )
    assert options.base_url == options.address == "http://127.0.0.1:8000/v1"
    assert options.key == SECRET
    assert options.key_place == f"the file {tmp_path / 'key'}"
    assert options.traffic == Traffic(concurrency=4, retries=0, timeout=2.5, max_cost=10.0)
    assert options.prices == {"small": Price(input=1, output=2.5, cached=0.1, written=1.25)}
    assert options.batch


def test_key_and_address_come_from_the_environment_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", f"{SECRET}\n")
    monkeypatch.setenv("ANOTHER_KEY", "another")
    monkeypatch.setenv("THE_URL", "http://here:1")
    assert (parse().key, parse().base_url) == (SECRET, "http://here:1")
    assert parse(key_env="ANOTHER_KEY", base_url="http://there:2").key == "another"
    assert parse(base_url="http://there:2").base_url == "http://there:2"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"concurrency": "0"}, "--model-arg concurrency=0 is no whole number from 1 on"),
        ({"concurrency": "many"}, "--model-arg concurrency=many is no whole number from 1 on"),
        ({"retries": "-1"}, "--model-arg retries=-1 is no whole number from 0 on"),
        ({"timeout": "0"}, "--model-arg timeout=0 is no number above 0"),
        ({"timeout": "nan"}, "--model-arg timeout=nan is no number above 0"),
        ({"max_cost": "inf"}, "--model-arg max_cost=inf is no number above 0"),
        ({"batch": "yes"}, "--model-arg batch=yes is neither true nor false"),
        ({"base_url": "localhost:8000"}, "--model-arg base_url 'localhost:8000' is no address"),
        ({"base_url": "ftp://host/v1"}, "--model-arg base_url 'ftp://host/v1' is no address"),
        ({"base_url": "http://host:99999"}, "--model-arg base_url is no address"),
        ({"key_file": "a", "key_env": "B"}, "--model-arg key_file and key_env name two places for the key"),
        ({"key_file": "/nowhere/key"}, "--model-arg key_file=/nowhere/key cannot be read"),
        ({"prices": "/nowhere/prices"}, "--model-arg prices=/nowhere/prices cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(arguments: Mapping[str, str], words: str) -> None:
    assert words in refusal(**arguments)


@pytest.mark.parametrize(
    "url", [f"http://user:{SECRET}@host/v1", f"http://host/v1?key={SECRET}", f"http://host/v1#{SECRET}", f"http://{SECRET}:x@["]
)
def test_an_address_with_a_secret_in_it_is_refused_without_repeating_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SECRET not in refusal(base_url=url)
    monkeypatch.setenv("THE_URL", url)
    assert refusal().startswith("the environment variable THE_URL")
    assert SECRET not in refusal()


@pytest.mark.parametrize(
    "content", ["", "\n", f"{SECRET}\n{SECRET}", f"key = {SECRET}", f"{SECRET}’", f"{SECRET}\x00", f"Bearer {SECRET}"]
)
def test_a_key_that_is_none_is_refused_without_repeating_it(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(content, encoding="utf-8")
    words = refusal(key_file=str(file))
    assert SECRET not in words
    assert str(file) in words
    if content.strip() and "\x00" not in content:
        monkeypatch.setenv("THE_KEY", content)
        assert "the environment variable THE_KEY holds a key with a space or" in refusal()
        assert SECRET not in refusal()


def test_the_key_is_in_no_text_that_the_options_give_of_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", SECRET)
    options = parse()
    assert SECRET not in f"{options} {options!r}"
    assert options.redact(f"bad key {SECRET}, {SECRET}") == "bad key [key], [key]"
    monkeypatch.delenv("THE_KEY")
    assert parse().redact("no key") == "no key"


def test_a_key_is_required_of_the_provider_but_not_of_a_server_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"^x:y needs a key and the environment variable THE_KEY holds none; set it, or use"):
        parse().required_key("x:y")
    assert parse(base_url="http://host").required_key("x:y") == "none"
    monkeypatch.setenv("THE_KEY", SECRET)
    assert parse().required_key("x:y") == SECRET


@pytest.mark.parametrize(
    "url", [OWN, f"{OWN}/", "https://api.provider.com", "HTTPS://API.Provider.com:443/v1", "https://api.provider.com/"]
)
def test_the_providers_own_address_written_out_is_the_provider(url: str) -> None:
    options = parse(base_url=url)
    assert (options.base_url, options.address) == (None, OWN)
    assert options.price("big", KNOWN) == KNOWN["big"]
    with pytest.raises(ModelError, match="needs a key"):
        options.required_key("x:y")


@pytest.mark.parametrize(
    "url",
    [
        "http://api.provider.com/v1",
        "https://eu.api.provider.com/v1",
        "https://api.provider.com:8443/v1",
        "https://api.provider.com/v2",
        "https://api.provider.com.example.org/v1",
    ],
)
def test_an_address_that_only_resembles_the_providers_is_another(url: str) -> None:
    assert parse(base_url=url).base_url == parse(base_url=url).address == url
    assert parse(base_url=url).price("big", KNOWN) is None


def test_a_prompt_has_fewer_tokens_than_it_is_reckoned_with() -> None:
    prompt = Prompt(opening="Kurz.", shots=(Shot(asked="鉄は金属ですか。", answered="はい"),), question="\ud83d?", chat=True)
    request = GenerateRequest(id="x", prompt=prompt, sampling=Sampling(), options={})
    tokens = most_tokens(request)
    assert tokens >= len(prompt.text.encode("utf-8", "surrogatepass")) + 4 * FRAME
    schema = {"type": "object", "properties": {"x" * 1000: {"type": "string"}}}
    assert most_tokens(replace(request, schema=schema)) >= tokens + 1000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[a", "is no TOML"),
        ("[a]\ninput = 1", "the table [a] must hold input and output"),
        ("[a]\ninput = 1\noutput = -2", "the table [a] must hold input and output"),
        ("[a]\ninput = 1\noutput = nan", "the table [a] must hold input and output"),
        ("[a]\ninput = 1\noutput = '2'", "the table [a] must hold input and output"),
        ("[a]\ninput = 1\noutput = 2\nimage = 3", "the table [a] must hold input and output"),
        ("a = 1", "the table [a] must hold input and output"),
    ],
)
def test_bad_prices_are_one_sentence_with_the_file(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(content)
    message = refusal(prices=str(tmp_path / "prices.toml"))
    assert str(tmp_path / "prices.toml") in message
    assert words in message


def test_what_tokens_cost() -> None:
    price = Price(input=10, output=50, cached=1, written=12.5)
    assert price.cost(tokens_in=1_000_000, tokens_out=0) == 10
    assert price.cost(tokens_in=0, tokens_out=100_000) == 5
    assert price.cost(tokens_in=1_000_000, tokens_out=0, cached=500_000, written=100_000) == pytest.approx(4 + 0.5 + 1.25)
    assert price.cost(tokens_in=1_000_000, tokens_out=100_000, batch=True) == 7.5
    # What has no price of its own costs what any input costs.
    assert Price(input=10, output=50).cost(tokens_in=1_000_000, tokens_out=0, cached=500_000, written=500_000) == 10


def test_a_model_has_the_price_of_its_own_name_with_or_without_a_date_and_of_no_other() -> None:
    for dated in ("big-5", "big-5-20260101", "big-5@20260101", "big-5-2026-01-01", "big-5-0613", "big-5-latest"):
        assert name_in(KNOWN, dated) == "big-5"
    for other in ("big-5-mini", "big-5-5", "big-6", "bigger", "the-big", "big-5-20260101-x"):
        assert name_in(KNOWN, other) is None


def test_the_users_prices_win_and_the_known_ones_hold_for_the_provider_alone(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text('["big-5"]\ninput = 1\noutput = 2\n')
    assert parse().price("big-5", KNOWN) == KNOWN["big-5"]
    assert parse(prices=str(tmp_path / "prices.toml")).price("big-5-20260101", KNOWN) == Price(input=1, output=2)
    assert parse(base_url="http://host").price("big-5", KNOWN) is None


def test_a_limit_of_costs_without_a_price_is_refused() -> None:
    assert parse(max_cost="1").price("big", KNOWN) == KNOWN["big"]
    with pytest.raises(
        UsageError, match=r"^--max-cost 1 needs the price of huge, which is not known; give it with --model-arg prices"
    ):
        parse(max_cost="1").price("huge", KNOWN)
