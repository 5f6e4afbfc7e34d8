"""Loglikelihoods out of echoed tokens: where the border is, and which echoes are not believed."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmedeval import Failure, LoglikelihoodRequest, Prompt, Shot, Usage
from mmedeval.remote import Trouble
from mmedeval.servers import Price
from mmedeval_openai.echo import Echo, echo_of, loglikelihoods_of, texts_of

Make = Callable[..., Any]


def echoed(
    text: str, tokens: list[str], logprobs: list[float | None], *, written: str = "!", best: float | None = None, count: int = 1
) -> dict[str, Any]:
    """An answer to `text` as servers give it; the last token is the written one."""
    last = logprobs[-1] if logprobs else None
    top: list[dict[str, float] | None] = [None] * (len(tokens) - 1)
    return {
        "choices": [
            {
                "text": text + written,
                "logprobs": {
                    "tokens": tokens,
                    "token_logprobs": logprobs,
                    "top_logprobs": [*top, {"x": last if best is None else best}],
                },
            }
        ],
        "usage": {"prompt_tokens": len(tokens) - count, "completion_tokens": count},
    }


def echo(tokens: list[str], logprobs: list[float | None]) -> Echo:
    text = "".join(tokens)
    return echo_of(text, echoed(text, [*tokens, "!"], [*logprobs, -0.5]), Price(input=1.0, output=1.0))


def test_the_token_that_was_written_is_no_part_of_the_echo() -> None:
    got = echo(["Is", " it", "?"], [None, -1.0, -2.0])
    assert (got.tokens, got.logprobs) == (("Is", " it", "?"), (None, -1.0, -2.0))


@pytest.mark.parametrize(
    ("listed", "prompt_tokens", "written"),
    [
        (["Is", " it", "?", "!"], 3, 1),  # vLLM
        (["Is", " it", "?", "!"], 4, 1),  # llama_cpp.server: the BOS token in front is counted and not listed
        (["Is", " it", "?"], 4, 0),  # and where the model ends there
        (["Is", " it", "?"], 4, 1),  # and where it writes another BOS token
        (["Is", " it", "?", "", ""], 4, 2),  # and where a character takes more than one token
    ],
)
def test_the_prompts_tokens_are_found_whatever_the_server_lists(listed: list[str], prompt_tokens: int, written: int) -> None:
    given = echoed("Is it?", listed, [None, -1.0, -2.0, -0.5, -0.5][: len(listed)], written="!" if "!" in listed else "")
    given["usage"] = {"prompt_tokens": prompt_tokens, "completion_tokens": written}
    got = echo_of("Is it?", given, None)
    assert (got.tokens, got.logprobs, got.sure) == (("Is", " it", "?"), (None, -1.0, -2.0), True)


def test_where_the_model_always_ends_at_once_the_servers_order_cannot_be_checked(score: Make) -> None:
    given = echoed("Is it?", ["Is", " it", "?"], [None, -1.0, -2.0], written="", count=0)
    unsure = echo_of("Is it?", given, None)
    assert not unsure.sure
    with pytest.raises(Trouble, match="cannot be checked") as caught:
        loglikelihoods_of(score(), unsure, [unsure, unsure], 0)
    assert (caught.value.verdict, caught.value.usage.tokens_in) == ("refused", 3)
    surely = echo(["Is", " it", "?"], [None, -1.0, -2.0])
    longer = Echo(tokens=(*unsure.tokens, " A"), logprobs=(*unsure.logprobs, -3.0), usage=unsure.usage, sure=False)
    assert loglikelihoods_of(score(), surely, [longer], 0).values == (-3.0,)


def test_counts_that_fit_no_known_server_are_not_believed() -> None:
    given = echoed("Is", ["Is", "!"], [None, -1.0])
    given["usage"]["prompt_tokens"] = 9
    with pytest.raises(Trouble, match="lists 2 tokens where it counts 9 and 1 written ones") as caught:
        echo_of("Is", given, None)
    assert caught.value.verdict == "hopeless"


def test_spaces_at_the_end_of_a_prompt_go_to_the_continuation() -> None:
    assert texts_of(Prompt(question="Answer: "), ("A", "B")) == ("Answer:", ["Answer: A", "Answer: B"])


def test_the_continuations_tokens_are_summed_and_the_prompts_are_not(score: Make) -> None:
    context = echo(["Q", ":"], [None, -9.0])
    joined = [echo(["Q", ":", " A"], [None, -9.0, -1.5]), echo(["Q", ":", " B", ",", "C"], [None, -9.0, -1.0, -0.25, -0.5])]
    got = loglikelihoods_of(score("Q:"), context, joined, 2)
    assert got.values == (-1.5, -1.75)
    assert (got.usage.tokens_in, got.usage.tokens_out, got.usage.shots_dropped, got.usage.border_merged) == (2, 4, 2, False)
    assert got.usage.cost == pytest.approx((2 + 1 + 3 + 1 + 5 + 1) / 1e6)


def test_tokens_of_parts_of_a_character_are_counted_though_they_show_as_nothing(score: Make) -> None:
    context = echo(["答", "", "", "："], [None, -1.0, -1.0, -1.0])
    joined = [echo(["答", "", "", "：", "", "", "铁"], [None, -1.0, -1.0, -1.0, -2.0, -3.0, -4.0])]
    assert loglikelihoods_of(score("答案：", ("铁",)), context, joined, 0).values == (-9.0,)


def test_a_token_across_the_border_is_told_and_the_rest_behind_it_scored(score: Make) -> None:
    """As lm-evaluation-harness does, and `Encoder`: as many tokens as the prompt has alone are the prompt."""
    context = echo(["Q", ":"], [None, -9.0])
    joined = [echo(["Q", ":A", "B"], [None, -3.0, -4.0])]
    got = loglikelihoods_of(score("Q:", ("AB",)), context, joined, 0)
    assert (got.values, got.usage.border_merged) == ((-4.0,), True)


def test_where_nothing_stands_behind_it_the_tokens_are_scored_from_the_first_that_differs(score: Make) -> None:
    context = echo(["Q", "x", ":"], [None, -9.0, -9.0])
    joined = [echo(["Q", "x", ":A"], [None, -8.0, -3.0]), echo(["Q", "x", ":", "B"], [None, -8.0, -5.0, -2.0])]
    got = loglikelihoods_of(score("Qx:", ("A", "B")), context, joined, 0)
    assert (got.values, got.usage.border_merged) == ((-3.0, -7.0), True)


def test_a_continuation_without_tokens_of_its_own_is_a_failure(score: Make) -> None:
    with pytest.raises(Trouble, match="no token of its own") as caught:
        loglikelihoods_of(score(), echo(["Q", ":"], [None, -1.0]), [echo(["Q", ":"], [None, -1.0])], 0)
    assert (caught.value.verdict, caught.value.kind) == ("refused", "refused")
    assert caught.value.usage.cost == pytest.approx(6 / 1e6)


def test_a_prompt_without_tokens_is_a_failure() -> None:
    with pytest.raises(Trouble, match="no token to predict from") as caught:
        texts_of(Prompt(question="  "), ("A",))
    assert (caught.value.verdict, caught.value.kind) == ("refused", "refused")


def test_minus_infinity_of_a_server_ranks_below_all(score: Make) -> None:
    context = echo(["Q"], [None])
    joined = [echo(["Q", "A"], [None, -math.inf]), echo(["Q", "B"], [None, -5.0])]
    assert loglikelihoods_of(score(), context, joined, 0).values == (-math.inf, -5.0)


def test_log_probabilities_that_belong_to_other_tokens_are_not_believed() -> None:
    """llama_cpp.server without a BOS token: the last entry is a prompt's token with what the next one would have got."""
    shifted = echoed("Is it?", ["Is", " it", "?"], [None, -1.0, -7.5], written=" Yes", best=-0.25)
    shifted["usage"]["prompt_tokens"] = 3
    with pytest.raises(Trouble, match="belong to other tokens") as caught:
        echo_of("Is it?", shifted, None)
    assert caught.value.verdict == "hopeless"


@pytest.mark.parametrize(
    ("tokens", "written", "best"),
    [
        (["Is", "�"], "", None),  # part of a character: shown otherwise, but the likeliest
        (["Is", " Yes"], " Yes", -0.1),  # not the likeliest, since the server punishes repetition
        (["Is", "</s>"], "", None),  # an end that is not shown
    ],
)
def test_a_written_token_that_is_only_shown_otherwise_is_believed(tokens: list[str], written: str, best: float | None) -> None:
    assert echo_of("Is", echoed("Is", tokens, [None, -1.0], written=written, best=best), None).tokens == ("Is",)


@pytest.mark.parametrize(
    "change",
    [
        {"text": "!"},  # no echo
        {"logprobs": None},
    ],
)
def test_a_server_that_does_not_echo_ends_the_run(change: dict[str, Any]) -> None:
    given = echoed("Is", ["Is", "!"], [None, -1.0])
    given["choices"][0].update(change)
    with pytest.raises(Trouble, match="does not echo the prompt") as caught:
        echo_of("Is", given, None)
    assert caught.value.verdict == "hopeless"


@pytest.mark.parametrize(
    "change", [{"logprobs": {"tokens": ["Is", "!"]}}, {"logprobs": {"tokens": ["Is"], "token_logprobs": [1, 2]}}]
)
def test_an_echo_in_no_known_format_is_asked_for_again(change: dict[str, Any]) -> None:
    given = echoed("Is", ["Is", "!"], [None, -1.0])
    given["choices"][0].update(change)
    with pytest.raises(Trouble) as caught:
        echo_of("Is", given, Price(input=1.0, output=10.0))
    assert caught.value.verdict == "passing"
    assert caught.value.usage.cost == pytest.approx(11 / 1e6)


def served(backend: Any, faults: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts a server behind a backend that echoes a word as a token; `faults` are what a text meets first. Gives what is asked."""
    asked: list[str] = []

    async def sent(self: Any, client: Any, body: Any) -> tuple[Any, float]:
        text = body["prompt"]
        asked.append(text)
        for fault in faults.get(text, [])[:1]:
            faults[text].pop(0)
            if isinstance(fault, Trouble):
                raise fault
            await asyncio.sleep(fault)
        tokens = re.findall(r"\S+|\s+", text)
        return echoed(text, [*tokens, "!"], [None, *[-1.0] * len(tokens)]), 0.0

    monkeypatch.setattr(type(backend), "_sent", sent)
    return asked


@pytest.fixture
def priced(open_backend: Make, tmp_path: Path) -> Make:
    (tmp_path / "prices.toml").write_text("[some-model]\ninput = 1000000\noutput = 0\n")
    return lambda **more: open_backend(endpoint="completions", prices=str(tmp_path / "prices.toml"), **more)


def test_an_echo_that_was_paid_is_billed_once_whatever_becomes_of_the_next_one(
    priced: Make, score: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dollar a token: one for the prompt, three for it with each continuation."""
    passing = [Trouble("passing", "HTTP 500"), Trouble("passing", "half", usage=Usage(cost=7.0))]
    backend = priced()
    asked = served(backend, {"Q B": passing}, monkeypatch)
    (got,) = backend.loglikelihood([score("Q")])
    assert got.values == (-2.0, -2.0)
    assert asked == ["Q", "Q A", "Q B", "Q B", "Q B"]
    assert backend.talk.cost == 1 + 3 + 7 + 3


def test_echoes_before_a_refusal_are_part_of_its_bill(priced: Make, score: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = priced()
    served(backend, {"Q B": [Trouble("refused", "no", kind="refused")]}, monkeypatch)
    (got,) = backend.loglikelihood([score("Q")])
    assert isinstance(got, Failure)
    assert got.usage.cost == backend.talk.cost == 1 + 3


def test_echoes_of_a_try_that_took_too_long_are_paid_too(priced: Make, score: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = priced(timeout="0.2", retries="1")
    asked = served(backend, {"Q B": [60.0, 60.0]}, monkeypatch)
    (got,) = backend.loglikelihood([score("Q")])
    assert isinstance(got, Failure)
    assert asked == ["Q", "Q A", "Q B", "Q B"]
    assert backend.talk.cost == 1 + 3


def test_echoes_of_a_prompt_that_was_too_long_are_paid_too(priced: Make, score: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = priced()
    served(backend, {"S Q B": [Trouble("refused", "prompt is too long", kind="too_long")]}, monkeypatch)
    (got,) = backend.loglikelihood([score("Q", shots=(Shot(asked="S", answered=" "),))])
    assert (got.usage.shots_dropped, got.usage.cost) == (1, 1 + 3 + 3)
    assert backend.talk.cost == (3 + 5) + (1 + 3 + 3)


def test_the_requests_answers_keep_their_order(score: Make) -> None:
    request: LoglikelihoodRequest = score("Q:", (" B", " A"))
    context = echo(["Q", ":"], [None, -1.0])
    joined = [echo(["Q", ":", letter], [None, -1.0, value]) for letter, value in ((" B", -2.0), (" A", -3.0))]
    assert loglikelihoods_of(request, context, joined, 0).values == (-2.0, -3.0)
