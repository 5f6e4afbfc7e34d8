"""Requests to tokens: what is cut, what is refused, where a text ends; with a tokenizer of one token per character."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mmedeval import Failure, GenerateRequest, LoglikelihoodRequest, ModelError, Prompt, Sampling, Shot
from mmedeval.tokens import Encoder, Scoring, Writing, check_chat_template

BOS = 0
QUESTION = "12345678"
SHOTS = (Shot(asked="aaaa", answered="bb"), Shot(asked="cc", answered="d"))


class Characters:
    """A tokenizer whose tokens are code points, with a BOS if asked for."""

    bos_token, eos_token_id = "\0", 1

    def __init__(self, *, bos: bool = True, template: Callable[[Any], str] | None = None) -> None:
        self.bos_token_id = BOS if bos else None
        self.template = template

    def __call__(self, texts: Any, *, add_special_tokens: bool = True, verbose: bool = True) -> dict[str, Any]:
        front = [BOS] if add_special_tokens and self.bos_token_id is not None else []
        if isinstance(texts, str):
            return {"input_ids": [*front, *map(ord, texts)]}
        return {"input_ids": [[*front, *map(ord, text)] for text in texts]}

    def apply_chat_template(self, messages: Any, **_: Any) -> str:
        assert self.template is not None
        return self.template(messages)


def encoder(**settings: Any) -> Encoder:
    return Encoder(Characters(**settings), name="characters", add_bos=None, embeddings=0x110000)


def ask(
    question: str = QUESTION, continuations: Sequence[str] = ("xyz", "x"), shots: tuple[Shot, ...] = ()
) -> LoglikelihoodRequest:
    answers = tuple(frozenset({str(i)}) for i in range(len(continuations)))
    prompt = Prompt(question=question, shots=shots)
    return LoglikelihoodRequest(id="a", prompt=prompt, continuations=tuple(continuations), answers=answers, options={})


def write(question: str = QUESTION, *, shots: tuple[Shot, ...] = (), chat: bool = False, **sampling: Any) -> GenerateRequest:
    prompt = Prompt(question=question, shots=shots, chat=chat)
    return GenerateRequest(id="a", prompt=prompt, sampling=Sampling(**{"max_tokens": 4, **sampling}), options={})


def scoring(request: LoglikelihoodRequest, limit: int, **settings: Any) -> Scoring:
    fitted = encoder().fit_scoring(request, limit, **settings)
    assert isinstance(fitted, Scoring), fitted
    return fitted


def writing(request: GenerateRequest, limit: int = 1000) -> Writing:
    fitted = encoder().fit_writing(request, limit)
    assert isinstance(fitted, Writing), fitted
    return fitted


def failure(fitted: Scoring | Writing | Failure, kind: str) -> Failure:
    assert isinstance(fitted, Failure), fitted
    assert (fitted.request_id, fitted.kind) == ("a", kind)
    return fitted


# --- what fits ---


def test_a_request_becomes_the_tokens_of_its_prompt_and_of_each_continuation() -> None:
    fitted = scoring(ask(), 1000)
    assert fitted.context == [BOS, *map(ord, QUESTION)]
    assert fitted.continuations == [[*map(ord, "xyz")], [ord("x")]]
    usage = fitted.usage
    assert (usage.tokens_in, usage.tokens_out, usage.bos, usage.shots_dropped, usage.border_merged) == (9, 4, 1, 0, False)


# BOS, question, and the first two tokens of the longest continuation: the last one is only predicted.
@pytest.mark.parametrize(("limit", "dropped"), [(20, 0), (19, 1), (14, 1), (13, 2), (11, 2)])
def test_shots_are_dropped_from_the_front_until_all_but_the_last_token_fits(limit: int, dropped: int) -> None:
    fitted = scoring(ask(shots=SHOTS), limit)
    assert fitted.usage.shots_dropped == dropped
    kept = "".join(shot.asked + shot.answered for shot in SHOTS[dropped:])
    assert fitted.context == [BOS, *map(ord, kept + QUESTION)]
    # An engine that reads the last token, too, takes one more.
    assert scoring(ask(shots=SHOTS), limit + 1, reads_last=True) == fitted


def test_what_is_too_long_without_its_shots_says_by_how_much() -> None:
    too_long = failure(encoder().fit_scoring(ask(shots=SHOTS), 10), "too_long")
    assert too_long.message == "11 tokens without its 2 solved examples, the model reads 10"
    assert (too_long.usage.tokens_in, too_long.usage.shots_dropped) == (11, 2)
    assert failure(encoder().fit_scoring(ask(), 11, reads_last=True), "too_long").message == "12 tokens, the model reads 11"


@pytest.mark.parametrize(
    ("limit", "dropped", "room"), [(22, 0, 4), (21, 1, 4), (16, 1, 4), (15, 2, 4), (13, 2, 4), (12, 2, 3), (10, 2, 1)]
)
def test_shots_give_way_to_the_answer_and_then_the_answer_to_the_question(limit: int, dropped: int, room: int) -> None:
    fitted = writing(write(shots=SHOTS), limit)
    assert (fitted.usage.shots_dropped, fitted.max_tokens) == (dropped, room)
    assert fitted.ids[-8:] == [*map(ord, QUESTION)]
    assert fitted.usage.tokens_in == len(fitted.ids)


def test_a_prompt_that_leaves_no_room_for_an_answer_is_too_long() -> None:
    too_long = failure(encoder().fit_writing(write(shots=SHOTS), 9), "too_long")
    assert too_long.message == "9 tokens without its 2 solved examples, the model reads 9"


# --- what is refused, alone and without ending a run ---


def test_a_prompt_without_a_token_is_refused() -> None:
    bare = encoder(bos=False)
    assert "no token to predict from; use add_bos=true" in failure(bare.fit_scoring(ask(""), 99), "refused").message
    assert "no token to write from; use add_bos=true" in failure(bare.fit_writing(write(""), 99), "refused").message


@pytest.mark.parametrize("continuations", [("a", ""), ("",), ()])
def test_a_continuation_without_a_token_is_refused(continuations: tuple[str, ...]) -> None:
    assert "no token of its own" in failure(encoder().fit_scoring(ask(continuations=continuations), 99), "refused").message


@pytest.mark.parametrize("half", ["\ud800", "x\udfffy"])
def test_half_of_a_surrogate_pair_is_refused_wherever_it_stands(half: str) -> None:
    requests = [ask(half), ask(continuations=("a", half)), ask(shots=(Shot(asked=half, answered="a"),))]
    for request in requests:
        assert "no character" in failure(encoder().fit_scoring(request, 999), "refused").message
    chatty = encoder(template=lambda messages: "".join(each["content"] for each in messages) + half)
    for fitted in (encoder().fit_writing(write(half), 999), chatty.fit_writing(write(chat=True), 999)):
        assert "no character" in failure(fitted, "refused").message


# --- chat templates are programs ---


def broken(error: Exception) -> Callable[[Any], str]:
    def fill(_: Any) -> str:
        raise error

    return fill


@pytest.mark.parametrize(
    "error",
    [
        TypeError("can only concatenate str"),
        ZeroDivisionError("by zero"),
        OverflowError("Range too big"),
        MemoryError(),
        RecursionError("deep"),
    ],
)
def test_whatever_a_chat_template_raises_is_one_sentence(error: Exception) -> None:
    with pytest.raises(ModelError, match="the chat template of characters cannot be filled in: ") as caught:
        encoder(template=broken(error)).fit_writing(write(chat=True), 99)
    assert (str(error) or "MemoryError") in str(caught.value)


def test_a_missing_chat_template_is_told_with_the_ways_out() -> None:
    check_chat_template("{{ messages }}", "model")
    for template in (None, ""):
        with pytest.raises(
            ModelError, match="model has no chat template; run with --no-chat-template, or with --protocol letter"
        ):
            check_chat_template(template, "model")


# --- where a text ends ---


def decode(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


def ends_at(text: str, stop: tuple[str, ...], end: str = "$") -> int | None:
    """After how many tokens a text ends, if it does."""
    fitted = writing(write(stop=stop))
    ids = [*map(ord, text)]
    return next((n for n in range(1, len(ids) + 1) if fitted.ended(ids[:n], {ord(end)}.__contains__, decode)), None)


def test_a_text_ends_at_an_end_token_or_at_the_last_token_of_a_stop_string() -> None:
    assert ends_at("abc$d", ()) == 4
    assert ends_at("abcd", ()) is None
    assert ends_at("ab##c", ("##",)) == 4
    assert ends_at("ab#c##", ("##", "never")) == 6
    assert ends_at("long stop", ("never", "stop")) == 9
    assert ends_at("a$##", ("##",)) == 2


def test_only_the_last_tokens_are_decoded_to_find_a_stop_string() -> None:
    widths = []

    def noted(ids: Sequence[int]) -> str:
        widths.append(len(ids))
        return decode(ids)

    fitted = writing(write(stop=("##", "é")))
    fitted.ended([*map(ord, "x" * 500 + "##")], lambda _: False, noted)
    assert widths == [3]
    # Each of a character's bytes may be a token.
    writing(write(stop=("鉄鉄",))).ended([ord("x")] * 500, lambda _: False, noted)
    assert widths == [3, 7]


def test_a_text_is_cut_at_the_first_of_its_stop_strings() -> None:
    fitted = writing(write(stop=("ghi", "de")))
    assert fitted.until_stop("abcdefghi") == ("abc", True)
    assert fitted.until_stop("abc") == ("abc", False)
    assert writing(write()).until_stop("abc") == ("abc", False)


def test_each_request_draws_from_a_stream_of_its_own() -> None:
    one = writing(write(seed=3)).seed
    assert one == int(hashlib.sha256(b"3/a").hexdigest()[:16], 16) // 2
    assert 0 <= one < 2**63
    assert writing(write(seed=4)).seed != one
