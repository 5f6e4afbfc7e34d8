"""What looks like an answer and is none is not read as one, and what stands beside it still is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mmedeval.answers import read_answer

OPTIONS: Mapping[str, Mapping[str, str]] = {
    "en": {"A": "Metformin", "B": "Insulin glargine", "C": "Glipizide", "D": "Pioglitazone", "E": "Acarbose"},
    "zh": {"A": "肺炎", "B": "肺结核", "C": "支气管哮喘", "D": "肺癌", "E": "胸膜炎"},
    "ja": {"A": "心筋梗塞", "B": "狭心症", "C": "肺塞栓症", "D": "大動脈解離", "E": "カルシウム拮抗薬の静注"},
    "fr": {
        "A": "Infarctus du myocarde",
        "B": "Angor stable",
        "C": "Embolie pulmonaire",
        "D": "Dissection aortique",
        "E": "Pneumothorax",
    },
    "ru": {"A": "Инфаркт миокарда", "B": "Стенокардия", "C": "ТЭЛА", "D": "Расслоение аорты", "E": "Пневмоторакс"},
    "es": {
        "A": "Infarto de miocardio",
        "B": "Angina estable",
        "C": "Embolia pulmonar",
        "D": "Disección aórtica",
        "E": "Neumotórax",
    },
}
STATEMENTS = {
    "en": "The answer is {}.",
    "zh": "正确答案是{}。",
    "ja": "正解は{}です。",
    "fr": "La bonne réponse est {}.",
    "ru": "Правильный ответ — {}.",
    "es": "La respuesta correcta es {}.",
}
# Wrong and right, in words and in signs.
VERDICTS = {
    "en": [("False", "True"), ("false", "true"), ("wrong", "right"), ("F", "T"), ("incorrect", "correct")],
    "zh": [("错误", "正确"), ("错", "对"), ("×", "√")],
    "ja": [("誤り", "正しい"), ("×", "○")],
    "fr": [("Faux", "Vrai"), ("faux", "vrai"), ("F", "V")],
    "ru": [("неверно", "верно"), ("Неверно", "Верно")],
    "es": [("Falso", "Verdadero"), ("falso", "verdadero"), ("F", "V")],
}
LABELS = ("{}) {}", "{}: {}", "{}. {}", "({}) {}", "{} - {}", "{}：{}")
# A letter is a part of each of these names, and none of them names an option.
NAMES = {
    "en": (
        "D dimer",
        "the D-dimer",
        "C peptide",
        "E coli",
        "C diff",
        "C. diff",
        "B lines",
        "C section",
        "the A-a gradient",
        "protein C",
        "apolipoprotein E",
        "vitamin D",
        "vitamin B complex",
        "B symptoms",
        "C perfringens",
        "group B streptococcus",
        "A delta fibers",
        "C fibers",
        "hepatitis C",
    ),
    "zh": ("D二聚体", "D-二聚体", "C臂", "B超", "C肽", "C反应蛋白", "维生素D", "蛋白C", "A-a梯度", "B细胞", "A医院"),
    "ja": (
        "Dダイマー",
        "Bライン",
        "Cアーム",
        "Bモード",
        "Cペプチド",
        "Eセレクチン",
        "Aバンド",
        "A-aDO2",
        "ビタミンD",
        "C線維",
        "A病院",
    ),
    "fr": (
        "le D dimère",
        "les D-dimères",
        "le peptide C",
        "les lignes B",
        "les fibres C",
        "la protéine C",
        "le gradient A-a",
        "l'onde A",
    ),
    "ru": ("D-димер", "D димер", "протеин C", "линии B", "волокна C", "лимфоциты B", "волна A", "витамин D", "C-пептид"),
    "es": (
        "el dímero D",
        "el péptido C",
        "las líneas B",
        "las fibras C",
        "los linfocitos B",
        "la onda A",
        "el gradiente A-a",
        "proteína C",
    ),
}
REPORTS = {
    "en": ("{} is high.", "We find {} here.", "First look at {}."),
    "zh": ("{}升高。", "应查{}。"),
    "ja": ("{}が高値である。", "{}を認める。", "{}で確認する。"),
    "fr": ("On note ici {}.", "Ici, {} : c'est élevé."),
    "ru": ("Повышен показатель: {}.", "Определите {} у больного."),
    "es": ("Se observa {} en la muestra.", "Aquí, {} está alto."),
}


def read(language: str, text: str, *, several: bool = False) -> str:
    return "".join(sorted(read_answer(text, OPTIONS[language], language, several=several) or ""))


@pytest.mark.parametrize("language", OPTIONS)
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("lower", [False, True])
def test_verdicts_on_one_line_are_read_as_the_same_verdicts_on_lines(language: str, label: str, lower: bool) -> None:
    for wrong, right in VERDICTS[language]:
        for true in "ACE":
            items = [label.format(letter.lower() if lower else letter, right if letter == true else wrong) for letter in "ABCDE"]
            for gap in (" ", "\u3000", "; ", "\n"):
                assert read(language, gap.join(items)) == true, gap.join(items)


@pytest.mark.parametrize("language", OPTIONS)
def test_several_right_ones_on_one_line_are_all_read(language: str) -> None:
    for wrong, right in VERDICTS[language]:
        verdicts = {letter: right if letter in "BD" else wrong for letter in "ABCDE"}
        text = " ".join(f"{letter}) {verdict}" for letter, verdict in verdicts.items())
        assert read(language, text, several=True) == "BD", text
        assert read(language, text) == "", text


def test_options_repeated_on_one_line_are_no_answer_and_one_behind_them_is() -> None:
    options = " ".join(f"{letter}) {text}" for letter, text in OPTIONS["en"].items())
    assert read("en", options) == ""
    assert read("en", f"{options} Answer: D") == "D"
    assert read("en", f"The options are: {options}. I would need more of the history.") == ""


@pytest.mark.parametrize(
    "text",
    [
        "а) неверно б) неверно в) верно г) неверно",
        "А) Неверно. Б) Неверно. В) Верно. Г) Неверно.",
        "а) неверно\nб) неверно\nв) верно\nг) неверно",
    ],
)
def test_a_cyrillic_list_leaves_open_which_option_a_letter_is(text: str) -> None:
    assert read("ru", text) == ""


@pytest.mark.parametrize("language", OPTIONS)
def test_a_name_with_a_letter_in_it_names_no_option(language: str) -> None:
    for name in NAMES[language]:
        for report in REPORTS[language]:
            text = report.format(name)
            assert read(language, text) == "", text
            for answer in "AE":
                stated = f"{text} {STATEMENTS[language].format(answer)}"
                assert read(language, stated) == answer, stated


def test_a_letter_before_its_own_options_text_is_an_option_however_the_text_begins() -> None:
    assert read("ja", "答え：Eカルシウム拮抗薬") == "E"
    assert read("ja", "答え：Bカルシウム拮抗薬") == ""
    lymphocytes = {"A": "T lymphoblasts", "B": "Lymphocytes of the spleen", "C": "Monocytes"}
    assert read_answer("Answer: B Lymphocytes", lymphocytes, "en") == {"B"}
    assert read_answer("B lymphocytes are small.", lymphocytes | {"B": "Plasma cells"}, "en") is None


@pytest.mark.parametrize(
    ("language", "text", "answer"),
    [
        ("en", "A would be correct if the patient were younger, but it is not.", ""),
        ("en", "Option A would be the best choice if renal function were normal.", ""),
        ("en", "Metformin would be first-line, if the eGFR were above 30.", ""),
        ("en", "C would be right only if he fasted; D is right.", "D"),
        ("en", "Metformin would have been right had the eGFR been normal. It is 18, so insulin glargine.", "B"),
        ("en", "B would be the most appropriate choice.", "B"),
        ("en", "B would be correct, since the patient fails if treated otherwise.", "B"),
        ("en", "I would choose B if I had to pick one.", "B"),
        ("en", "I would choose A only if the kidneys were sound.", ""),
        ("en", "B, because metformin would accumulate if given.", "B"),
        ("fr", "La réponse A serait juste en cas de sus-décalage, mais ce n'est pas le cas.", ""),
        ("fr", "La réponse A serait correcte si la troponine était élevée, mais elle est normale.", ""),
        ("fr", "La B serait juste si la douleur cédait au repos. La bonne réponse est donc la C.", "C"),
        ("fr", "La réponse D serait la plus adaptée.", "D"),
        ("es", "La A sería correcta si hubiera elevación del ST, pero no la hay.", ""),
        ("es", "La B sería la respuesta si el dolor fuera de esfuerzo, pero no lo es.", ""),
        ("es", "La opción A habría sido correcta de haber elevación del ST.", ""),
        ("es", "Si tuviera fiebre, elegiría A; como no la tiene, elijo E.", "E"),
        ("es", "Si tuviera que elegir, elegiría E.", "E"),
        ("ru", "Вариант A был бы правильным, если бы тропонин был повышен, но он в норме.", ""),
        ("ru", "Вариант C был бы наиболее правильным.", "C"),
        ("zh", "如果患者年轻则选A，但患者70岁有吸烟史，应选D。", "D"),
        ("ja", "もしDダイマーが正常ならAを選ぶが、高値であるためCを選ぶ。", "C"),
    ],
)
def test_what_would_be_right_under_a_condition_is_no_answer_and_what_is_right_without_it_is(
    language: str, text: str, answer: str
) -> None:
    assert read(language, text) == answer


@pytest.mark.parametrize(
    ("language", "text", "answer"),
    [
        ("en", "Many people choose A.", ""),
        ("en", "Most people would pick A, but the answer is B.", "B"),
        ("zh", "选A的同学较多，但正确答案是B。", "B"),
        ("zh", "选A的人多，选B。", "B"),
        ("zh", "选B的理由是盗汗和低热。", "B"),
        ("ja", "Aを選ぶ受験生が多いが、正解はCである。", "C"),
        ("ja", "Dが正解と思われたが、造影CTで否定されたため、Eが最も適切である。", "E"),
        ("ja", "Aが正解だと考えたが、よく見るとBが正解である。", "B"),
        ("ja", "Dが最も適切と考える。", "D"),
        ("fr", "Beaucoup d'étudiants choisissent A.", ""),
        ("ru", "Многие ошибочно выбирают A.", ""),
        ("ru", "Многие ошибочно выбирают A, но правильный ответ — D.", "D"),
        ("ru", "Мне кажется, верно D.", "D"),
        ("es", "Muchos eligen A.", ""),
        ("es", "La mayoría marca A, pero la correcta es la D.", "D"),
        ("en", "She takes metformin and was seen for hypoglycemia.", ""),
    ],
)
def test_what_others_choose_or_what_was_thought_first_is_no_answer(language: str, text: str, answer: str) -> None:
    assert read(language, text) == answer


@pytest.mark.parametrize(
    ("language", "text", "answer"),
    [
        ("en", "The least appropriate choice is A", ""),
        ("en", "The worst choice is A", ""),
        ("en", "The worst choice would be A.", ""),
        ("en", "A is the least appropriate choice.", ""),
        ("en", "A is the worst choice.", ""),
        ("en", "The wrong answer is A.", ""),
        ("en", "C is the incorrect statement.", "C"),
        ("en", "The worst choice is A; the best is B.", "B"),
        ("en", "The least likely cause is C. The most likely cause is D.", "D"),
        ("en", "Therefore, the least likely is C.", "C"),
        ("en", "The incorrect statement is C.", "C"),
        ("zh", "最差的选择是A。", ""),
        ("zh", "因此，最不可能的是C。", "C"),
        ("ja", "最も可能性が低いのはAである。", ""),
        ("fr", "La réponse la moins probable est A.", ""),
        ("fr", "Le pire choix est A.", ""),
        ("ru", "Наименее вероятный вариант — A.", ""),
        ("es", "La peor opción es la A.", ""),
        ("es", "Por tanto, la menos probable es la C.", "C"),
    ],
)
def test_the_worst_is_the_answer_only_where_the_text_concludes_it(language: str, text: str, answer: str) -> None:
    assert read(language, text) == answer


@pytest.mark.parametrize(
    ("language", "text", "answer"),
    [
        ("en", "Metformin is excluded by the renal failure, and glipizide by the hypoglycemia.", ""),
        ("en", "Metformin is ruled out by the eGFR, glipizide too.", ""),
        ("en", "A is excluded by the renal failure, B by the weight and C by the edema.", ""),
        ("en", "A is excluded by the renal failure, B by the weight and C by the edema. So D.", "D"),
        ("en", "Metformin is wrong because of the kidneys, so by exclusion glipizide.", "C"),
        ("fr", "Le pneumothorax est éliminé par la radio, l'angor stable par l'ECG.", ""),
        ("fr", "L'embolie pulmonaire est peu probable vu les D-dimères, le pneumothorax aussi.", ""),
        ("es", "El infarto de miocardio se descarta por el ECG y la angina estable por la duración.", ""),
        (
            "es",
            "El neumotórax queda excluido por la radiografía, la embolia pulmonar por la angio-TC. Queda la disección aórtica.",
            "D",
        ),
        ("ru", "Инфаркт миокарда исключён по ЭКГ, стенокардия — по длительности.", ""),
    ],
)
def test_a_clause_without_a_verb_takes_over_the_denial_of_the_one_before(language: str, text: str, answer: str) -> None:
    assert read(language, text) == answer


@pytest.mark.parametrize(
    ("language", "text", "answer"),
    [
        ("en", 'Example: "Answer: A". My answer follows.', ""),
        ("en", "Format: 'Answer: A'", ""),
        ("en", 'You want the form "Answer: A". Answer: C', "C"),
        ("zh", "最终答案格式为“答案：A”。答案：C", "C"),
        ("ja", "形式「答え：A」。答え：C", "C"),
        ("fr", "Format : « Réponse : A »", ""),
        ("es", "Formato: «Respuesta: A». Respuesta: D", "D"),
        ("ru", "В формате «Ответ: A». Ответ: D", "D"),
        ("en", 'The textbook says "Answer: A".', "A"),
    ],
)
def test_a_quoted_example_of_the_format_is_no_answer(language: str, text: str, answer: str) -> None:
    assert read(language, text) == answer


@pytest.mark.parametrize(
    ("language", "text", "answer"),
    [
        ("en", "Ask a third one.", ""),
        ("en", "Repeat the second one.", ""),
        ("en", "There is a third option.", ""),
        ("es", "Hay una tercera opción.", ""),
        ("fr", "Il existe une troisième option.", ""),
        ("en", "The second one is correct.", "B"),
        ("en", "I pick the second option.", "B"),
        ("fr", "La deuxième proposition est la bonne.", "B"),
    ],
)
def test_an_ordinal_that_counts_something_else_names_no_option(language: str, text: str, answer: str) -> None:
    assert read(language, text) == answer


@pytest.mark.parametrize(
    ("language", "hedged", "sure"),
    [
        ("en", "It might be B.", "It is probably B."),
        ("en", "The answer might be B.", "The answer is probably B."),
        ("zh", "可能是B。", "最可能是B。"),
        ("ja", "Bかもしれません。", "おそらくB。"),
        ("fr", "C'est peut-être la B.", "C'est sans doute la B."),
        ("ru", "Возможно, B.", "Вероятнее всего, B."),
        ("es", "Podría ser B.", "Probablemente B."),
    ],
)
def test_what_is_merely_possible_is_no_answer_and_what_is_probable_is_one(language: str, hedged: str, sure: str) -> None:
    assert read(language, hedged) == ""
    assert read(language, sure) == "B"


@pytest.mark.parametrize(
    ("language", "text", "answer"),
    [
        ("en", "The drug is glipizide. Metformin would cause lactic acidosis.", "C"),
        ("fr", "Il s'agit d'une embolie pulmonaire. Le pneumothorax donnerait une asymétrie auscultatoire.", "C"),
        ("ru", "Это ТЭЛА. Пневмоторакс вызвал бы коробочный звук.", "C"),
        ("es", "Se trata de una disección aórtica. La angina estable daría dolor de esfuerzo.", "D"),
    ],
)
def test_what_another_option_would_bring_about_does_not_speak_for_it(language: str, text: str, answer: str) -> None:
    assert read(language, text) == answer


@pytest.mark.parametrize(
    ("language", "text", "answer"),
    [
        ("en", "Answer: D\n\nWhy not the others?\n- A: too weak\n- C: appropriate in mild disease only", "D"),
        ("en", "**Answer: B**\n\n- A: contraindicated\n- C: not used\n- D: right only if the heart is sound", "B"),
        ("es", "Tuvo dolor con angina estable, por lo que conviene otra prueba. El cuadro es una disección aórtica.", "D"),
        (
            "fr",
            "Toute douleur brutale est une dissection aortique jusqu'à preuve du contraire. L'angor stable est rare ici.",
            "D",
        ),
    ],
)
def test_what_is_right_elsewhere_only_is_no_rival_of_the_answer(language: str, text: str, answer: str) -> None:
    assert read(language, text) == answer


def test_a_code_is_read_in_either_script() -> None:
    vitamins = {"A": "Витамин A", "B": "Витамин B1", "C": "Витамин C", "D": "Витамин K"}
    for text, answer in (
        ("Ответ: В1.", "B"),
        ("Ответ: B1.", "B"),
        ("Недостаёт витамина К.", "D"),
        ("Недостаёт витамина K.", "D"),
    ):
        assert read_answer(text, vitamins, "ru") == {answer}, text


def test_of_a_text_that_its_normal_form_makes_long_the_middle_is_not_read_and_its_ends_are() -> None:
    # Eighteen characters in the normal form.
    filler = "\ufdfa" * 7_000
    assert read("en", f"{filler}\nThe answer is B.\n{filler}") == ""
    assert read("en", f"{filler}{filler}\nThe answer is B.") == "B"
    assert read("en", f"The answer is B.\n{filler}{filler}") == "B"
