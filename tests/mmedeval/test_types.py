"""The values of a run: what they hold, how they are written, that nothing changes them."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from mmedeval import Message, Prompt, RunPlan, Sample, SampleResult, Shot, digest, types
from mmedeval.testing import make_sample
from mmedeval.types import join_letters

PROMPT = Prompt(opening="O\n", shots=(Shot(asked="a1", answered="r1\n"), Shot(asked="a2", answered="r2\n")), question="Q")


def test_every_value_is_frozen() -> None:
    values = [thing for thing in vars(types).values() if isinstance(thing, type) and dataclasses.is_dataclass(thing)]
    assert len(values) > 15
    for value in values:
        assert value.__dataclass_params__.frozen, value
        assert "__slots__" in vars(value), value
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROMPT.question = "other"


def test_a_prompt_reads_as_one_text_or_as_a_conversation() -> None:
    assert PROMPT.text == "O\na1r1\na2r2\nQ"
    assert PROMPT.messages == (
        Message(role="system", content="O\n"),
        Message(role="user", content="a1"),
        Message(role="assistant", content="r1\n"),
        Message(role="user", content="a2"),
        Message(role="assistant", content="r2\n"),
        Message(role="user", content="Q"),
    )
    assert "".join(message.content for message in PROMPT.messages) == PROMPT.text
    assert Prompt(question="Q").messages == (Message(role="user", content="Q"),)


def test_a_prompt_that_is_too_long_loses_examples_from_the_front_and_nothing_else() -> None:
    chat = dataclasses.replace(PROMPT, chat=True)
    assert chat.without_shots(0) == chat
    assert chat.without_shots(1) == dataclasses.replace(chat, shots=chat.shots[1:])
    assert chat.without_shots(2).text == "O\nQ"


def test_a_digest_tells_contents_apart_and_not_the_order_of_keys() -> None:
    value = {"b": [1, 2.5, None], "a": "鉄"}
    assert digest(value) == digest({"a": "鉄", "b": [1, 2.5, None]})
    assert digest(value) == hashlib.sha256('{"a":"鉄","b":[1,2.5,null]}'.encode()).hexdigest()
    different = [value, {"b": [2.5, 1, None], "a": "鉄"}, {"a": "鉄"}, [], {}, "", "a", ["a"], None, 0, False]
    assert len({digest(item) for item in different}) == len(different)
    assert digest("\ud800") != digest("\ud801")


def test_an_answer_is_written_in_one_way() -> None:
    assert join_letters({"C", "A", "B"}) == "A,B,C"
    assert join_letters("A") == "A"


def test_a_plan_and_a_sample_tell_all_that_they_hold_as_json() -> None:
    plan = RunPlan(model="m:n", tasks=("t",), model_args={"a": "b"}, languages=("ja",), metrics=("x",), data_dir=Path("d"))
    told = json.loads(json.dumps(plan.as_json()))
    assert set(told) == {field.name for field in dataclasses.fields(RunPlan)}
    sequences = {name: tuple(told[name]) for name in ("tasks", "languages", "metrics")}
    assert RunPlan(**{**told, **sequences, "data_dir": Path(told["data_dir"])}) == plan
    sample = make_sample(answer="CA", rationale="r", meta={"parallel": "p"})
    contents = json.loads(json.dumps(sample.contents()))
    assert Sample(**{**contents, "answer": frozenset(contents["answer"])}) == sample
    assert list(contents["options"]) == ["A", "B", "C", "D"]


def test_a_result_is_right_only_where_the_whole_set_is_and_undecided_where_nothing_was_read() -> None:
    sample = make_sample(answer="AC")
    for letters, right in (("AC", True), ("CA", True), ("A", False), ("ABC", False), ("", False)):
        result = SampleResult(task="t", sample=sample, status="ok", prediction=frozenset(letters))
        assert result.right is right
    assert SampleResult(task="t", sample=sample, status="unread").right is None
    assert SampleResult(task="t", sample=sample, status="unscored", prediction=frozenset("AC")).right is None
    assert SampleResult(task="t", sample=sample, status="failed", failure="backend: x").key == ("t", sample.id)
