"""Prompt layouts, few-shot selection, and the requests that put a sample to a model (pure)."""

from __future__ import annotations

import itertools
import random
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmedeval.specs import LANGUAGES, ProtocolName
from mmedeval.types import GenerateRequest, Letters, LoglikelihoodRequest, Prompt, Sample, Sampling, Shot, Task, join_letters

LOGLIKELIHOOD_PROTOCOLS: frozenset[ProtocolName] = frozenset({"letter", "cloze"})
PAPER_MAX_TOKENS = 1000
CHAT_MAX_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The fixed words of the prompts in one language. `gap` stands between `answer` and an option's text."""

    question: str
    answer: str
    gap: str
    several: str
    chat_one: str
    chat_several: str
    final: str


WORDS: Mapping[str, Words] = {
    "en": Words(
        question="Question: ",
        answer="Answer:",
        gap=" ",
        several="One or more options may be right. Give the letters of all right options, separated by commas.\n",
        chat_one="Answer the following multiple-choice question. Exactly one option is right. Think step by step, then give your "
        "final answer on the last line in the form “Answer: X”, where X is one of the letters {letters}.",
        chat_several="Answer the following multiple-choice question. One or more options may be right. Think step by step, then give "
        "your final answer on the last line in the form “Answer: X, Y”, with the letters of all right options out of {letters}.",
        final="Answer: ",
    ),
    "zh": Words(
        question="问题：",
        answer="答案：",
        gap="",
        several="正确选项可能有一个或多个。请给出所有正确选项的字母，用逗号分隔。\n",
        chat_one="请回答下面的选择题，只有一个选项正确。请逐步思考，然后在最后一行以“答案：X”的形式给出最终答案，X 为 {letters} 中的一个字母。",
        chat_several="请回答下面的选择题，正确选项可能有一个或多个。请逐步思考，然后在最后一行以“答案：X, Y”的形式给出最终答案，"
        "写出 {letters} 中所有正确选项的字母。",
        final="答案：",
    ),
    "ja": Words(
        question="問題：",
        answer="答え：",
        gap="",
        several="正しい選択肢は一つまたは複数あります。正しい選択肢の記号をすべて、カンマで区切って答えてください。\n",
        chat_one="次の選択問題に答えてください。正しい選択肢は一つだけです。順を追って考え、最後の行に「答え：X」の形で最終的な答えを"
        "書いてください。X は {letters} のいずれかの記号です。",
        chat_several="次の選択問題に答えてください。正しい選択肢は一つまたは複数あります。順を追って考え、最後の行に「答え：X, Y」の形で、"
        "{letters} のうち正しい選択肢の記号をすべて書いてください。",
        final="答え：",
    ),
    "fr": Words(
        question="Question : ",
        answer="Réponse :",
        gap=" ",
        several="Une ou plusieurs propositions peuvent être exactes. Donnez les lettres de toutes les propositions exactes, séparées "
        "par des virgules.\n",
        chat_one="Répondez à la question à choix multiple suivante. Une seule proposition est exacte. Raisonnez étape par étape, puis "
        "donnez votre réponse finale sur la dernière ligne sous la forme « Réponse : X », où X est l’une des lettres {letters}.",
        chat_several="Répondez à la question à choix multiple suivante. Une ou plusieurs propositions peuvent être exactes. Raisonnez "
        "étape par étape, puis donnez votre réponse finale sur la dernière ligne sous la forme « Réponse : X, Y », avec les lettres de "
        "toutes les propositions exactes parmi {letters}.",
        final="Réponse : ",
    ),
    "ru": Words(
        question="Вопрос: ",
        answer="Ответ:",
        gap=" ",
        several="Верными могут быть один или несколько вариантов. Укажите буквы всех верных вариантов через запятую.\n",
        chat_one="Ответьте на следующий вопрос с вариантами ответа. Верен только один вариант. Рассуждайте шаг за шагом, затем в последней "
        "строке дайте окончательный ответ в виде «Ответ: X», где X — одна из букв {letters}.",
        chat_several="Ответьте на следующий вопрос с вариантами ответа. Верными могут быть один или несколько вариантов. Рассуждайте шаг за "
        "шагом, затем в последней строке дайте окончательный ответ в виде «Ответ: X, Y», указав буквы всех верных вариантов из {letters}.",
        final="Ответ: ",
    ),
    "es": Words(
        question="Pregunta: ",
        answer="Respuesta:",
        gap=" ",
        several="Una o varias opciones pueden ser correctas. Indique las letras de todas las opciones correctas, separadas por comas.\n",
        chat_one="Responda a la siguiente pregunta de opción múltiple. Solo una opción es correcta. Razone paso a paso y dé su respuesta "
        "final en la última línea con la forma «Respuesta: X», donde X es una de las letras {letters}.",
        chat_several="Responda a la siguiente pregunta de opción múltiple. Una o varias opciones pueden ser correctas. Razone paso a paso y "
        "dé su respuesta final en la última línea con la forma «Respuesta: X, Y», con las letras de todas las opciones correctas entre "
        "{letters}.",
        final="Respuesta: ",
    ),
}

# The paper's own bytes (Qiu et al. 2024, public scripts: inference). Checkpoints were trained on them: constants, oddities included.
_PAPER_WRAPPER = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
_PAPER_WITH_RATIONALE = (
    "You're a {lang} doctor, kindly address the medical queries according to the patient's account in {lang}. "
    "Let’s solve this step-by-step.  You should first give the reason in {lang} for your choice. "
    "Then you should give the right answer index of the question."
)
_PAPER_DIRECT = (
    "You're a {lang} doctor, kindly address the medical queries according to the patient's account. "
    "Answer with the best option directly."
)
_PAPER_INPUT = "###Question: {question} Which of the following is the best treatment for this patient? ###Options: {options}"


def words_for(language: str) -> Words:
    """The words of a language; English ones where there are none."""
    return WORDS.get(language, WORDS["en"])


def render_prompt(task: Task, sample: Sample, shots: Sequence[Sample], protocol: ProtocolName) -> Prompt:
    """The core's own prompt of a protocol. Its text ends where the answer, or the scored continuation, begins."""
    several = task.max_answers > 1
    words = words_for(sample.language)
    if protocol == "letter":
        # One newline ends an answer, in a shot as in a scored set of letters: a second one would be a different token for many
        # tokenizers ("\n\n"), and the end of a set would then be scored on a token that no shot shows.
        return Prompt(
            opening=words.several if several else "",
            shots=tuple(Shot(asked=_listed(shot) + words.answer, answered=f" {join_letters(shot.answer)}\n") for shot in shots),
            question=_listed(sample) + words.answer,
        )
    if protocol == "cloze":
        return Prompt(
            shots=tuple(
                Shot(
                    asked=f"{words.question}{shot.question}\n{words.answer}",
                    answered=words.gap + ", ".join(shot.options[letter] for letter in sorted(shot.answer)) + "\n",
                )
                for shot in shots
            ),
            question=f"{words.question}{sample.question}\n{words.answer}",
        )
    if protocol == "chat":
        return Prompt(
            chat=True,
            shots=tuple(
                Shot(
                    asked=_chat_question(shot, several),
                    answered=f"{shot.rationale}\n\n" * bool(shot.rationale) + words.final + ", ".join(sorted(shot.answer)),
                )
                for shot in shots
            ),
            question=_chat_question(sample, several),
        )
    instruction = _PAPER_WITH_RATIONALE if protocol == "paper" else _PAPER_DIRECT
    options = "".join(f"{key}. {text} " for key, text in sample.options.items())
    filled = {
        "instruction": instruction.format(lang=LANGUAGES.get(sample.language, sample.language)),
        "input": _PAPER_INPUT.format(question=sample.question, options=options),
    }
    # `format` reads the template alone: braces in a question stay as they are.
    return Prompt(question=_PAPER_WRAPPER.format(**filled))


def _listed(sample: Sample) -> str:
    """The question and its options, a line each."""
    options = "".join(f"{letter}. {text}\n" for letter, text in sample.options.items())
    return f"{words_for(sample.language).question}{sample.question}\n{options}"


def _chat_question(sample: Sample, several: bool) -> str:
    words = words_for(sample.language)
    ask = (words.chat_several if several else words.chat_one).replace("{letters}", ", ".join(sample.options))
    return f"{ask}\n\n{_listed(sample).rstrip()}"


def plain_chat(prompt: Prompt) -> Prompt:
    """A conversation as plain text, for models without a chat template: turns apart by blank lines."""
    return Prompt(
        opening=f"{prompt.opening}\n\n" * bool(prompt.opening),
        shots=tuple(Shot(asked=f"{shot.asked}\n\n", answered=f"{shot.answered}\n\n") for shot in prompt.shots),
        question=f"{prompt.question}\n\n",
    )


def answer_sets(options: Sequence[str], max_answers: int) -> tuple[Letters, ...]:
    """All non-empty sets of up to `max_answers` letters: the answers that `letter` compares. Singles come first."""
    sizes = range(1, min(max_answers, len(options)) + 1)
    return tuple(frozenset(letters) for size in sizes for letters in itertools.combinations(options, size))


def chance(sample: Sample, protocol: ProtocolName, max_answers: int) -> float | None:
    """The probability that a guess is right: uniform over the answers that the protocol lets a model give.

    In `letter` these are the candidate sets. In the others it is one option, or any set where several may be right.
    """
    if protocol == "cloze":
        return 1 / len(sample.options) if len(sample.answer) == 1 else None
    return 1 / len(answer_sets(tuple(sample.options), max_answers))


def make_request(
    task: Task, sample: Sample, prompt: Prompt, protocol: ProtocolName, sampling: Sampling, *, request_id: str
) -> GenerateRequest | LoglikelihoodRequest:
    """The request that puts a rendered prompt to a backend."""
    if protocol not in LOGLIKELIHOOD_PROTOCOLS:
        return GenerateRequest(id=request_id, prompt=prompt, sampling=sampling, options=sample.options)
    if protocol == "cloze":
        answers = tuple(frozenset({letter}) for letter in sample.options)
        gap = words_for(sample.language).gap
        continuations = tuple(gap + text for text in sample.options.values())
    else:
        answers = answer_sets(tuple(sample.options), task.max_answers)
        # Where sets compete the end is part of the continuation; without it P(" A") >= P(" A,C") always.
        end = "\n" if task.max_answers > 1 else ""
        continuations = tuple(f" {join_letters(answer)}{end}" for answer in answers)
    return LoglikelihoodRequest(
        id=request_id, prompt=prompt, continuations=continuations, answers=answers, options=sample.options
    )


def same_question(text: str) -> str:
    """What two questions share when one repeats the other: letters and digits, whatever their width, case or spacing."""
    return "".join(char for char in unicodedata.normalize("NFKC", text).casefold() if char.isalnum())


class ShotPool:
    """The solved examples of a task: the same for all its questions, so that their prefix is shared.

    The order is drawn once from the seed and the task's name. An example whose question repeats the sample's is passed over,
    whatever its options, and so is one with two options that read the same; fewer than asked come back where the split is too small.
    """

    def __init__(self, train: Sequence[Sample], seed: int, task: str) -> None:
        order = list(range(len(train)))
        random.Random(f"{seed}/{task}").shuffle(order)
        self._ordered = [(same_question(train[i].question), train[i]) for i in order]

    def for_sample(self, sample: Sample, count: int) -> tuple[Sample, ...]:
        if count == 0:
            return ()
        asked = same_question(sample.question)
        allowed = (shot for question, shot in self._ordered if question != asked and not shot.meta.get("duplicate_options"))
        return tuple(itertools.islice(allowed, count))
