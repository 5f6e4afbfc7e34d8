import pytest

from mmedeval import rationale_of


@pytest.mark.parametrize(
    ("output", "rationale"),
    [
        ("###Rationale: Because of iron.\n###Answer: OPTION A IS CORRECT.</s>", "Because of iron."),
        ("###Answer: OPTION A,C IS CORRECT.", ""),
        ("<think>Perhaps B?</think>Iron is low.\n\nAnswer: A", "Iron is low."),
        ("Iron is low.\nSo A.\n**Answer: A**", "Iron is low.\nSo A."),
        ("因为缺铁。\n答案：A、C", "因为缺铁。"),
        ("鉄が足りない。\n答え：A", "鉄が足りない。"),
        ("Le fer manque.\nRéponse : A, C", "Le fer manque."),
        ("Железа мало.\nОтвет: A", "Железа мало."),
        ("Falta hierro.\nRespuesta: A", "Falta hierro."),
        ("The answer: A is right because iron is low.", "The answer: A is right because iron is low."),
        ("血糖が、ＨｂＡ１ｃとともに高い。\n答え：Ａ", "血糖が、ＨｂＡ１ｃとともに高い。"),
        ("铁，很低。" * 5000 + "\n答案：B", "铁，很低。" * 5000),
        ("<think>never ends", ""),
        ("", ""),
    ],
)
def test_the_rationale_is_what_was_written_apart_from_thinking_and_answer(output: str, rationale: str) -> None:
    assert rationale_of(output) == rationale
