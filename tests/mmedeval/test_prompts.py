"""What a model is shown, to the byte, and which solved examples stand in front."""

import itertools
import json
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmedeval import (
    GenerateRequest,
    Generation,
    LoglikelihoodRequest,
    Prompt,
    RunPlan,
    Sample,
    Sampling,
    Shot,
    TaskSpec,
    UsageError,
    hookimpl,
)
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.prompts import ShotPool, answer_sets, chance, make_request, plain_chat, render_prompt
from mmedeval.runner import Prepared, prepare
from mmedeval.specs import LANGUAGES, PROTOCOLS, ProtocolName
from mmedeval.testing import ScriptedBackend, StaticTask, make_sample, prefer

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "paper_prompts.json"
REFERENCE_PARTS = {"paper": "with_rationale", "paper-direct": "without_rationale"}

# Whatever a template engine could trip over, in the question and in an option.
HOSTILE = "A {question} of {options}, {lang} {0} {{x}} %s ${y} \\n \"quoted\" 'so' — “thus”\nnext line\r\n\ttab \u2028 end  "


def sample_in(language: str, answer: str = "A", rationale: str = "", question: str = "Fe?", third: str = "z") -> Sample:
    options = {"A": "x", "B": "y", "C": third}
    return Sample(id="q", language=language, question=question, options=options, answer=frozenset(answer), rationale=rationale)


def task_in(language: str, max_answers: int = 1) -> StaticTask:
    return StaticTask(test=[], language=language, max_answers=max_answers)


# The paper's prompts


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("protocol", ["paper", "paper-direct"])
def test_the_paper_prompts_are_the_bytes_of_the_public_scripts(protocol: ProtocolName, language: str) -> None:
    if not REFERENCE.exists():
        pytest.skip(f"no {REFERENCE.name} beside the repository")
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    parts = reference["inference"][REFERENCE_PARTS[protocol]]
    for question in ("Fe?", HOSTILE):
        sample = sample_in(language, question=question)
        options = "".join(f"{letter}. {text} " for letter, text in sample.options.items())
        expected = reference["wrapper"].format(
            instruction=parts["instruction"].format(lang=LANGUAGES[language]),
            input=parts["input"].format(question=question, options=options),
        )
        assert render_prompt(task_in(language), sample, [], protocol).text == expected


PAPER_GOLDEN = {
    "paper": (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a response "
        "that appropriately completes the request.\n\n### Instruction:\nYou're a LANG doctor, kindly address the medical "
        "queries according to the patient's account in LANG. Let\u2019s solve this step-by-step.  You should first give the "
        "reason in LANG for your choice. Then you should give the right answer index of the question.\n\n### Input:\n"
        "###Question: Fe? Which of the following is the best treatment for this patient? ###Options: A. x B. y C. z "
        "\n\n### Response:"
    ),
    "paper-direct": (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a response "
        "that appropriately completes the request.\n\n### Instruction:\nYou're a LANG doctor, kindly address the medical "
        "queries according to the patient's account. Answer with the best option directly.\n\n### Input:\n"
        "###Question: Fe? Which of the following is the best treatment for this patient? ###Options: A. x B. y C. z "
        "\n\n### Response:"
    ),
}


@pytest.mark.parametrize("max_answers", [1, 3])
@pytest.mark.parametrize(("language", "name"), LANGUAGES.items())
@pytest.mark.parametrize("protocol", ["paper", "paper-direct"])
def test_the_paper_prompts_stay_as_pinned(protocol: ProtocolName, language: str, name: str, max_answers: int) -> None:
    prompt = render_prompt(task_in(language, max_answers), sample_in(language), [], protocol)
    assert prompt == Prompt(question=PAPER_GOLDEN[protocol].replace("LANG", name))


# The prompts of our own


LETTER_GOLDEN = {
    "en": "One or more options may be right. Give the letters of all right options, separated by commas.\n"
    "Question: Fe?\nA. x\nB. y\nC. z\nAnswer: A,C\nQuestion: Fe?\nA. x\nB. y\nC. z\nAnswer:",
    "zh": "正确选项可能有一个或多个。请给出所有正确选项的字母，用逗号分隔。\n"
    "问题：Fe?\nA. x\nB. y\nC. z\n答案： A,C\n问题：Fe?\nA. x\nB. y\nC. z\n答案：",
    "ja": "正しい選択肢は一つまたは複数あります。正しい選択肢の記号をすべて、カンマで区切って答えてください。\n"
    "問題：Fe?\nA. x\nB. y\nC. z\n答え： A,C\n問題：Fe?\nA. x\nB. y\nC. z\n答え：",
    "fr": "Une ou plusieurs propositions peuvent être exactes. Donnez les lettres de toutes les propositions exactes, "
    "séparées par des virgules.\n"
    "Question : Fe?\nA. x\nB. y\nC. z\nRéponse : A,C\nQuestion : Fe?\nA. x\nB. y\nC. z\nRéponse :",
    "ru": "Верными могут быть один или несколько вариантов. Укажите буквы всех верных вариантов через запятую.\n"
    "Вопрос: Fe?\nA. x\nB. y\nC. z\nОтвет: A,C\nВопрос: Fe?\nA. x\nB. y\nC. z\nОтвет:",
    "es": "Una o varias opciones pueden ser correctas. Indique las letras de todas las opciones correctas, separadas por "
    "comas.\nPregunta: Fe?\nA. x\nB. y\nC. z\nRespuesta: A,C\nPregunta: Fe?\nA. x\nB. y\nC. z\nRespuesta:",
}

CLOZE_GOLDEN = {
    "en": "Question: Fe?\nAnswer: y\nQuestion: Fe?\nAnswer:",
    "zh": "问题：Fe?\n答案：y\n问题：Fe?\n答案：",
    "ja": "問題：Fe?\n答え：y\n問題：Fe?\n答え：",
    "fr": "Question : Fe?\nRéponse : y\nQuestion : Fe?\nRéponse :",
    "ru": "Вопрос: Fe?\nОтвет: y\nВопрос: Fe?\nОтвет:",
    "es": "Pregunta: Fe?\nRespuesta: y\nPregunta: Fe?\nRespuesta:",
}

# What is asked where one option is right, what is asked where several may be, and how a shot is answered.
CHAT_GOLDEN = {
    "en": (
        "Answer the following multiple-choice question. Exactly one option is right. Think step by step, then give your final "
        "answer on the last line in the form “Answer: X”, where X is one of the letters A, B, C.\n\n"
        "Question: Fe?\nA. x\nB. y\nC. z",
        "Answer the following multiple-choice question. One or more options may be right. Think step by step, then give your "
        "final answer on the last line in the form “Answer: X, Y”, with the letters of all right options out of A, B, C.\n\n"
        "Question: Fe?\nA. x\nB. y\nC. z",
        "why\n\nAnswer: A, C",
    ),
    "zh": (
        "请回答下面的选择题，只有一个选项正确。请逐步思考，"
        "然后在最后一行以“答案：X”的形式给出最终答案，X 为 A, B, C 中的一个字母。\n\n"
        "问题：Fe?\nA. x\nB. y\nC. z",
        "请回答下面的选择题，正确选项可能有一个或多个。请逐步思考，然后在最后一行以“答案：X, Y”的形式给出最终答案，"
        "写出 A, B, C 中所有正确选项的字母。\n\n问题：Fe?\nA. x\nB. y\nC. z",
        "why\n\n答案：A, C",
    ),
    "ja": (
        "次の選択問題に答えてください。正しい選択肢は一つだけです。順を追って考え、最後の行に「答え：X」の形で最終的な答えを書いてください。"
        "X は A, B, C のいずれかの記号です。\n\n問題：Fe?\nA. x\nB. y\nC. z",
        "次の選択問題に答えてください。正しい選択肢は一つまたは複数あります。順を追って考え、最後の行に「答え：X, Y」の形で、"
        "A, B, C のうち正しい選択肢の記号をすべて書いてください。\n\n問題：Fe?\nA. x\nB. y\nC. z",
        "why\n\n答え：A, C",
    ),
    "fr": (
        "Répondez à la question à choix multiple suivante. Une seule proposition est exacte. Raisonnez étape par étape, puis "
        "donnez votre réponse finale sur la dernière ligne sous la forme « Réponse : X », où X est l’une des lettres A, B, C.\n\n"
        "Question : Fe?\nA. x\nB. y\nC. z",
        "Répondez à la question à choix multiple suivante. Une ou plusieurs propositions peuvent être exactes. Raisonnez étape "
        "par étape, puis donnez votre réponse finale sur la dernière ligne sous la forme « Réponse : X, Y », avec les lettres de "
        "toutes les propositions exactes parmi A, B, C.\n\nQuestion : Fe?\nA. x\nB. y\nC. z",
        "why\n\nRéponse : A, C",
    ),
    "ru": (
        "Ответьте на следующий вопрос с вариантами ответа. Верен только один вариант. Рассуждайте шаг за шагом, затем в "
        "последней строке дайте окончательный ответ в виде «Ответ: X», где X — одна из букв A, B, C.\n\n"
        "Вопрос: Fe?\nA. x\nB. y\nC. z",
        "Ответьте на следующий вопрос с вариантами ответа. Верными могут быть один или несколько вариантов. Рассуждайте шаг за "
        "шагом, затем в последней строке дайте окончательный ответ в виде «Ответ: X, Y», указав буквы всех верных вариантов из "
        "A, B, C.\n\nВопрос: Fe?\nA. x\nB. y\nC. z",
        "why\n\nОтвет: A, C",
    ),
    "es": (
        "Responda a la siguiente pregunta de opción múltiple. Solo una opción es correcta. Razone paso a paso y dé su respuesta "
        "final en la última línea con la forma «Respuesta: X», donde X es una de las letras A, B, C.\n\n"
        "Pregunta: Fe?\nA. x\nB. y\nC. z",
        "Responda a la siguiente pregunta de opción múltiple. Una o varias opciones pueden ser correctas. Razone paso a paso y "
        "dé su respuesta final en la última línea con la forma «Respuesta: X, Y», con las letras de todas las opciones correctas "
        "entre A, B, C.\n\nPregunta: Fe?\nA. x\nB. y\nC. z",
        "why\n\nRespuesta: A, C",
    ),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_letter_prompt_stays_as_pinned_and_says_when_several_may_be_right(language: str) -> None:
    shot, sample = sample_in(language, "AC"), sample_in(language)
    several = render_prompt(task_in(language, 2), sample, [shot], "letter").text
    single = render_prompt(task_in(language), sample, [shot], "letter").text
    assert several == LETTER_GOLDEN[language]
    assert single == LETTER_GOLDEN[language].split("\n", 1)[1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_cloze_prompt_stays_as_pinned(language: str) -> None:
    prompt = render_prompt(task_in(language), sample_in(language), [sample_in(language, "B")], "cloze")
    assert prompt.text == CLOZE_GOLDEN[language]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_chat_prompt_stays_as_pinned(language: str) -> None:
    one, several, answered = CHAT_GOLDEN[language]
    sample, shot = sample_in(language), sample_in(language, "AC", rationale="why")
    assert render_prompt(task_in(language), sample, [], "chat") == Prompt(question=one, chat=True)
    prompt = render_prompt(task_in(language, 2), sample, [shot], "chat")
    assert prompt == Prompt(question=several, shots=(Shot(asked=several, answered=answered),), chat=True)


def test_a_chat_shot_without_a_rationale_is_its_final_answer_alone() -> None:
    prompt = render_prompt(task_in("en"), sample_in("en"), [sample_in("en", "B")], "chat")
    assert prompt.shots[0].answered == "Answer: B"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("part", ["question", "third"])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_braces_quotes_and_line_breaks_survive_byte_for_byte(language: str, part: str, protocol: ProtocolName) -> None:
    """And take nothing else of the prompt with them: two prompts differ only where their samples do."""
    shots = [] if protocol.startswith("paper") else [sample_in(language)]

    def shown(text: str) -> str:
        return render_prompt(task_in(language), sample_in(language, **{part: text}), shots, protocol).text

    hostile = HOSTILE.rstrip() if part == "third" else HOSTILE
    assert shown(hostile) == shown("<here>").replace("<here>", hostile)


def test_a_language_without_words_of_its_own_is_asked_in_english() -> None:
    for protocol in ("letter", "cloze", "chat"):
        own = render_prompt(task_in("de", 2), sample_in("de"), [sample_in("de")], protocol)
        assert own == render_prompt(task_in("en", 2), sample_in("en"), [sample_in("en")], protocol)


def test_a_conversation_without_a_template_is_the_same_turns_apart_by_blank_lines() -> None:
    chat = Prompt(opening="be brief", shots=(Shot(asked="a", answered="b"),), question="c", chat=True)
    plain = plain_chat(chat)
    assert not plain.chat
    assert plain.text == "be brief\n\na\n\nb\n\nc\n\n"
    assert plain_chat(Prompt(question="c", chat=True)).text == "c\n\n"


# Candidate answers


@pytest.mark.parametrize(("options", "max_answers"), [("AB", 1), ("ABCD", 1), ("ABCDE", 3), ("ABCDE", 5), ("ABC", 9), ("BAC", 2)])
def test_the_candidates_are_all_sets_up_to_the_most_letters_singles_first(options: str, max_answers: int) -> None:
    by_bits = {
        frozenset(itertools.compress(options, bits))
        for bits in itertools.product([0, 1], repeat=len(options))
        if 1 <= sum(bits) <= max_answers
    }
    sets = answer_sets(options, max_answers)
    assert len(sets) == len(set(sets))
    assert set(sets) == by_bits
    assert sets[: len(options)] == tuple(frozenset(letter) for letter in options)
    sizes = [len(letters) for letters in sets]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("protocol", "max_answers", "answer", "expected"),
    [
        ("letter", 1, "A", 1 / 5),
        ("letter", 3, "A", 1 / 25),
        ("letter", 5, "ACE", 1 / 31),
        ("cloze", 1, "A", 1 / 5),
        ("cloze", 3, "A", 1 / 5),
        ("cloze", 3, "AB", None),
        ("chat", 1, "A", 1 / 5),
        ("chat", 3, "AB", 1 / 25),
        ("paper", 5, "AB", 1 / 31),
        ("paper-direct", 1, "A", 1 / 5),
    ],
)
def test_chance_is_one_out_of_the_answers_that_can_be_given(
    protocol: ProtocolName, max_answers: int, answer: str, expected: float | None
) -> None:
    sample = make_sample(answer=answer, options=("a", "b", "c", "d", "e"))
    assert chance(sample, protocol, max_answers) == expected


def scored_request(
    sample: Sample, max_answers: int, protocol: ProtocolName, shots: Sequence[Sample] = ()
) -> LoglikelihoodRequest:
    task = task_in(sample.language, max_answers)
    prompt = render_prompt(task, sample, shots, protocol)
    request = make_request(task, sample, prompt, protocol, Sampling(), request_id="static/q")
    assert isinstance(request, LoglikelihoodRequest)
    return request


@pytest.mark.parametrize("max_answers", [2, 3])
def test_where_sets_compete_no_continuation_is_the_beginning_of_another(max_answers: int) -> None:
    """Else a set could never be likelier than its first letter: P(" A") >= P(" A,C") always."""
    request = scored_request(sample_in("en"), max_answers, "letter")
    assert all(text.endswith("\n") for text in request.continuations)
    pairs = itertools.permutations(request.continuations, 2)
    assert not any(longer.startswith(shorter) for shorter, longer in pairs)
    assert request.answers == answer_sets("ABC", max_answers)
    assert [text.strip().split(",") for text in request.continuations] == [sorted(answer) for answer in request.answers]


def test_single_letters_are_scored_without_an_end() -> None:
    request = scored_request(sample_in("en"), 1, "letter")
    assert request.continuations == (" A", " B", " C")
    assert request.answers == (frozenset("A"), frozenset("B"), frozenset("C"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("protocol", "max_answers"), [("letter", 1), ("letter", 2), ("cloze", 1)])
def test_a_shot_is_answered_in_the_bytes_that_are_scored(language: str, protocol: ProtocolName, max_answers: int) -> None:
    """The question with its scored answer is what the prompt shows of a solved example, up to the line's end."""
    for answer in ["B", "AC"][:max_answers]:
        solved = sample_in(language, answer)
        request = scored_request(solved, max_answers, protocol, shots=[solved])
        (shot,) = request.prompt.shots
        scored = request.continuations[request.answers.index(solved.answer)]
        assert shot.asked == request.prompt.question
        assert shot.answered == scored.removesuffix("\n") + "\n"


def test_cloze_scores_the_texts_of_the_options_untouched() -> None:
    request = scored_request(sample_in("en", third=HOSTILE), 1, "cloze")
    assert request.continuations == (" x", " y", f" {HOSTILE}")
    assert scored_request(sample_in("ja", third=HOSTILE), 1, "cloze").continuations == ("x", "y", HOSTILE)


@pytest.mark.parametrize("protocol", ["chat", "paper", "paper-direct"])
def test_protocols_in_free_text_ask_for_text_and_name_the_options(protocol: ProtocolName) -> None:
    sample, sampling = sample_in("en"), Sampling(max_tokens=7)
    prompt = render_prompt(task_in("en"), sample, [], protocol)
    request = make_request(task_in("en"), sample, prompt, protocol, sampling, request_id="static/q")
    assert request == GenerateRequest(id="static/q", prompt=prompt, sampling=sampling, options=sample.options)


# Solved examples


def train_of(count: int) -> list[Sample]:
    return [make_sample(number, question=f"Solved number {number}?") for number in range(count)]


def test_the_shots_are_the_same_for_all_questions_of_a_task() -> None:
    pool = ShotPool(train_of(30), seed=0, task="t")
    shots = pool.for_sample(make_sample(), 5)
    assert len({shot.id for shot in shots}) == 5
    assert all(pool.for_sample(make_sample(number), 5) == shots for number in range(20))
    assert pool.for_sample(make_sample(), 3) == shots[:3]
    assert pool.for_sample(make_sample(), 0) == ()


def test_the_shots_follow_from_the_seed_and_the_task_and_from_nothing_else() -> None:
    train, sample = train_of(30), make_sample()

    def drawn(seed: int, task: str) -> tuple[str, ...]:
        return tuple(shot.id for shot in ShotPool(train, seed, task).for_sample(sample, 5))

    assert drawn(0, "t") == drawn(0, "t")
    assert len({drawn(seed, "t") for seed in range(10)}) == 10
    assert len({drawn(0, task) for task in ("t", "u", "v")}) == 3
    # Pinned: another draw would change every stored few-shot result.
    assert drawn(0, "t") == ("test-5", "test-8", "test-10", "test-14", "test-27")


@pytest.mark.parametrize(
    "repeated",
    [
        "Ｗｈｉｃｈ drug, 5 mg, treats ﬁbrosis?",
        "WHICH DRUG, 5 MG, TREATS FIBROSIS?",
        "  which\u3000drug,\n5 mg,  treats fibrosis ?",
        "Which drug – ５ｍｇ – treats fibrosis",
    ],
    ids=["width", "case", "spacing", "punctuation"],
)
def test_a_question_is_never_its_own_example_however_it_is_written(repeated: str) -> None:
    asked = make_sample(1, question="Which drug, 5 mg, treats fibrosis?")
    double = make_sample(1, question=repeated, answer="B", options=("other", "options", "here"))
    train = [*train_of(5), double]
    other = make_sample(2, question="Another question?")
    pool = ShotPool(train, seed=0, task="t")
    assert double in pool.for_sample(other, 6)
    assert pool.for_sample(asked, 6) == tuple(shot for shot in pool.for_sample(other, 6) if shot != double)


@pytest.mark.parametrize(
    ("question", "train_question"),
    [("Is 5 mg enough?", "Is 50 mg enough?"), ("貧血の原因はどれか。", "貧血の原因でないのはどれか。"), ("Ça va?", "Ca va?")],
)
def test_a_question_that_differs_in_letters_or_digits_is_another_question(question: str, train_question: str) -> None:
    shot = make_sample(1, question=train_question)
    assert ShotPool([shot], 0, "t").for_sample(make_sample(1, question=question), 1) == (shot,)


def plugin_with(*tasks: TaskSpec) -> types.ModuleType:
    plugin = types.ModuleType("tasks_of_a_test")

    def mmedeval_tasks() -> Sequence[TaskSpec]:
        return tasks

    plugin.mmedeval_tasks = hookimpl(mmedeval_tasks)
    return plugin


def prepared(task: StaticTask, **choices: Any) -> Prepared:
    """The run's requests, before any is asked."""
    catalog = Catalog(make_host(extra=[plugin_with(task.spec())]))
    backend = ScriptedBackend(write=lambda request: Generation(request_id=request.id, text=""), score=prefer(lambda _: "A"))
    return prepare(RunPlan(model="scripted:it", tasks=("static",), **choices), catalog, backend)


def test_in_a_run_all_prompts_share_their_examples_but_for_a_question_that_is_one() -> None:
    train = train_of(8)
    test = [make_sample(100), make_sample(101), train[2], make_sample(102)]
    prompts = [request.prompt for request in prepared(StaticTask(test=test, train=train), shots=7).tasks[0].requests]
    assert len({prompts[i].shots for i in (0, 1, 3)}) == 1
    assert all(len(prompt.shots) == 7 for prompt in prompts)
    assert not any(train[2].question in shot.asked for shot in prompts[2].shots)


@pytest.mark.parametrize("order", [1, -1])
def test_too_few_examples_are_refused_with_a_number_that_works_for_every_question(order: int) -> None:
    train = train_of(4)
    task = StaticTask(test=[make_sample(100), train[0]][::order], train=train)
    with pytest.raises(UsageError, match=r"--shots 5 .*'static'.*4 examples.*at most 3"):
        prepared(task, shots=5)
    assert len(prepared(task, shots=3).tasks[0].requests) == 2


def test_no_examples_are_needed_where_none_are_asked_for() -> None:
    assert prepared(StaticTask(test=[make_sample()])).tasks[0].requests
    with pytest.raises(UsageError, match="0 examples"):
        prepared(StaticTask(test=[make_sample()]), shots=1)


@pytest.mark.parametrize("protocol", ["paper", "paper-direct"])
def test_the_paper_prompts_take_no_examples(protocol: ProtocolName) -> None:
    with pytest.raises(UsageError, match=f"{protocol}.*--shots 2"):
        prepared(StaticTask(test=[make_sample()], train=train_of(4)), shots=2, protocol=protocol)
