"""Good documents break no rule, bad ones the rule that is made for them, in every language."""

from __future__ import annotations

import dataclasses
import random

import pytest

from mmed_train.corpus import quality
from mmed_train.corpus.quality import FUNCTION_WORDS, SPACED, THRESHOLDS, UNSPACED, Thresholds, reasons
from mmedeval import UnknownNameError

GOOD = {
    "en": "The patient, a farmer of 54, had felt tired since the spring. At first he blamed the long days in the field; "
    "then his wife saw that his eyes were yellow. The doctor found a large liver and asked for blood tests. Two weeks "
    "later a scan showed stones in the bile duct, which were removed the same day. He went home after three nights "
    "and has been well for a year.",
    "fr": "Une femme de 61 ans consulte pour une toux qui dure depuis deux mois. Elle ne fume pas et n'a pas voyagé. "
    "L'examen est normal, mais la radiographie montre une ombre au sommet du poumon droit. La biopsie confirme une "
    "tuberculose. Un traitement de six mois est commencé; la patiente reprend du poids dès la quatrième semaine et ne "
    "tousse plus à la fin de l'hiver.",
    "es": "Un niño de siete años llega a urgencias con dolor en la rodilla después de una caída. La madre cuenta que el "
    "dolor había empezado antes, por la noche. En la radiografía se ve una lesión en el fémur. El equipo decide hacer "
    "una biopsia al día siguiente. El resultado es benigno y la familia vuelve a casa con la recomendación de repetir "
    "la prueba en tres meses.",
    "ru": "Мужчина сорока лет обратился к врачу с жалобами на боль в спине, которая началась после работы в саду. При "
    "осмотре спина была напряжена, но сила в ногах не изменилась. Врач назначил покой и тепло, а через неделю "
    "упражнения. Боль прошла за месяц. Через год больной снова поднял тяжёлый мешок, и всё повторилось; на этот раз "
    "он лечился дома и сам.",
    "zh": "患者男性，五十四岁，农民，自春天起感到乏力。"
    "起初他以为是田里的活太多，后来妻子发现他的眼睛发黄。"
    "医生检查时发现肝脏增大，于是安排了血液化验。"
    "两周后的扫描显示胆管里有结石，当天就取了出来。"
    "住院三晚之后他回了家，一年来身体一直很好，也没有再出现黄疸。"
    "医生嘱咐他少吃油腻的食物，每半年复查一次肝功能；他都做到了，最近的检查结果也是正常的。",
    "ja": "患者は五十四歳の男性で、春ごろから疲れやすさを感じていた。"
    "初めは畑仕事のせいだと思っていたが、妻に目が黄色いと言われて受診した。"
    "診察で肝臓が大きいことがわかり、血液検査を行った。"
    "二週間後の画像で胆管に石が見つかり、その日のうちに取り除いた。"
    "三泊の入院の後に帰宅し、一年たった今も元気に過ごしている。"
    "医師は脂っこい食事を控え、半年に一度は検査に来るように伝えた。",
}
SPACE = {language: "" if language in ("zh", "ja") else " " for language in GOOD}
WORDS = {language: GOOD[language].split() if SPACE[language] else [*GOOD[language]] for language in GOOD}
MENUS = {
    "en": "Home\nAbout us\nOur doctors\nNews\nContact\nOpening hours\nDirections\nJobs\n",
    "fr": "Accueil\nNos médecins\nActualités\nContact\nHoraires\nPlan d'accès\nEmplois\nUrgences\n",
    "es": "Inicio\nNuestros médicos\nNoticias\nContacto\nHorario\nCómo llegar\nEmpleo\nUrgencias\n",
    "ru": "Главная\nНаши врачи\nНовости\nКонтакты\nЧасы приёма\nКак добраться\nВакансии\nОтзывы\n",
    "zh": "首页\n医院概况\n专家介绍\n新闻中心\n联系我们\n就诊指南\n交通路线\n招聘信息\n",
    "ja": "ホーム\n病院案内\n医師紹介\nお知らせ\nお問い合わせ\n診療時間\nアクセス\n採用情報\n",
}
COOKIES = {
    "en": "This site uses cookies.\nRead our privacy policy.\nAll rights reserved 2024.\nPlease enable JavaScript to go on.\n",
    "fr": "Ce site utilise des cookies.\nPolitique de confidentialité\nTous droits réservés\nMentions légales\n",
    "es": "Este sitio usa cookies.\nPolítica de privacidad\nTodos los derechos reservados\nAviso legal\n",
    "ru": "Сайт использует cookie.\nПолитика конфиденциальности\nВсе права защищены\nПодпишитесь на нас\n",
    "zh": "本站使用cookie\n隐私政策\n版权所有 2024\n点击这里查看更多内容\n",
    "ja": "クッキーを使用しています\nプライバシーポリシー\n利用規約\n無断転載を禁じます\n",
}


@pytest.mark.parametrize("language", THRESHOLDS)
def test_a_good_text_breaks_no_rule_on_one_line_or_on_many_short_or_long(language: str) -> None:
    text, space = GOOD[language], SPACE[language]
    wrapped = "\n".join(space.join(WORDS[language][at : at + 12]) for at in range(0, len(WORDS[language]), 12))
    for each in (text, wrapped, f"# 1\n\n{text}\n\n12\n", text[: len(text) // 2], text.rstrip(".。")):
        assert reasons(each, language) == []


@pytest.mark.parametrize("language", THRESHOLDS)
def test_a_short_text_is_too_short_and_nothing_else_is_said_of_it(language: str) -> None:
    for text in ("", "\n \n", "###", "…", SPACE[language].join(WORDS[language][:10])):
        assert reasons(text, language) == ["too short"]


@pytest.mark.parametrize("language", THRESHOLDS)
def test_bad_texts_break_the_rule_that_is_made_for_them(language: str) -> None:
    good, space, words = GOOD[language], SPACE[language], WORDS[language]
    lines = [f"{mark}. {space.join(words[at : at + 8])}" for at, mark in enumerate("abcdefghijkl")]
    bad = {
        "few letters": " ".join(str(number) for number in range(1000, 1300)) + good[:50],
        "no sentences": "".join(MENUS[language].replace("\n", f"{number}\n") for number in range(12)),
        "symbols": space.join(f"{word}{' # # ' if at % 4 == 0 else ''}" for at, word in enumerate(words)),
        "bullets": "\n".join(f"• {line}" for line in lines),
        "cut lines": "\n".join(f"{line} ..." for line in lines),
        "repeated lines": "\n".join([*lines, *lines]),
        "repeated paragraphs": f"{good}\n\n{good}",
        "repeated phrases": good + space.join(words[:12] * 6),
        "boilerplate": COOKIES[language] * 4 + good,
        "garbled": good.replace("e", "\ufffd").replace("о", "\ue000").replace("了", "\ufffd").replace("の", "\x01"),
        "markup": f"<div class='text'><p>{good}</p></div><script>{{}}</script>&nbsp;&nbsp;",
    }
    for reason, text in bad.items():
        assert reason in reasons(text, language), reason


def test_words_of_an_odd_length_are_no_prose() -> None:
    assert "word length" in reasons(" ".join([*"abcdefghijklmnopqrstuv"] * 3), "en")
    assert "word length" in reasons(" ".join(["pneumonoultramicroscopic"] * 20), "en")
    # Words are longer in Russian.
    words = "Алкоголизм — хроническое заболевание, обусловленное систематическим злоупотреблением напитками и веществами. "
    assert "word length" not in reasons(words * 3, "ru")
    assert "word length" in reasons(words * 3, "ru", SPACED)


@pytest.mark.parametrize("language", THRESHOLDS)
def test_a_list_of_words_has_no_function_words(language: str) -> None:
    draw = random.Random(language)
    words = [
        word for word in WORDS[language] if word.lower().strip(".,;") not in FUNCTION_WORDS[language] and word not in "，。、；"
    ]
    words = [word for word in words if len(word) > 5] if SPACE[language] else words
    text = (SPACE[language] or "").join(draw.choice(words) + ("." if at % 9 == 0 else "") for at in range(150))
    assert "no function words" in reasons(text, language)


def test_a_long_line_about_cookies_is_no_boilerplate() -> None:
    text = GOOD["en"] + " Nurses asked whether cookies were allowed before the test, and " * 2
    assert "boilerplate" not in reasons(text, "en")
    assert "boilerplate" in reasons(GOOD["en"] + "\n" + "We use cookies. Click here to accept.\n" * 5, "en")


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("fr", GOOD["fr"].encode().decode("latin-1")),
        ("ru", GOOD["ru"].encode().decode("latin-1")),
        ("ja", "(cid:12)" + GOOD["ja"]),
    ],
)
def test_text_that_was_decoded_wrong_is_garbled(language: str, text: str) -> None:
    assert "garbled" in reasons(text, language)


def test_a_form_feed_and_other_white_space_do_no_harm() -> None:
    assert reasons(GOOD["en"].replace(". ", ".\x0c\r\n\t\u00a0"), "en") == []


def test_names_in_latin_letters_do_no_harm_in_chinese_and_japanese() -> None:
    for language in ("zh", "ja"):
        text = GOOD[language] + "（SARS-CoV-2, COVID-19, Severe Acute Respiratory Syndrome Coronavirus 2）" * 3
        assert "few letters" not in reasons(text, language)


def test_thresholds_can_be_others() -> None:
    strict = dataclasses.replace(SPACED, fewest_units=200)
    assert reasons(GOOD["en"], "en", strict) == ["too short"]
    assert reasons(GOOD["zh"], "zh", dataclasses.replace(UNSPACED, least_letters=0.99)) == ["few letters"]
    nothing = dataclasses.replace(SPACED, fewest_units=0, top_grams=(), repeated_grams=())
    assert reasons("", "en", nothing) == ["too short"]
    assert reasons("fever " * 60, "en", nothing) == ["no function words"]


# Asks nothing of a text.
LOOSE = Thresholds(
    fewest_units=1,
    enough_units=1,
    least_letters=0.0,
    longest_mean_sentence=1e9,
    top_grams=(),
    repeated_grams=(),
    mean_word=(0.0, 1e9),
    fewest_function_words=0,
    most_symbols=1e9,
    most_bullets=1.0,
    most_ellipses=1.0,
    most_repeated_lines=1.0,
    most_repeated_line_characters=1.0,
    most_repeated_paragraphs=1.0,
    most_repeated_paragraph_characters=1.0,
    most_boilerplate=1.0,
    most_garbled=1.0,
    most_markup=1.0,
)


@pytest.mark.parametrize(
    ("reason", "text", "name", "good", "bad"),
    [
        ("too short", "one two three four", "fewest_units", 4, 5),
        ("word length", "aa bbbb", "mean_word", (3.0, 9.0), (3.1, 9.0)),
        ("word length", "aa bbbb", "mean_word", (1.0, 3.0), (1.0, 2.9)),
        ("few letters", "ab 12", "least_letters", 0.5, 0.51),
        ("no sentences", "a b c. d e f", "longest_mean_sentence", 3.0, 2.9),
        ("symbols", "# a b … c d", "most_symbols", 0.5, 0.49),
        ("bullets", "• a\nb", "most_bullets", 0.5, 0.49),
        ("cut lines", "a…\nb", "most_ellipses", 0.5, 0.49),
        ("repeated lines", "ab\nab\nc\nd", "most_repeated_lines", 0.25, 0.24),
        ("repeated lines", "ab\nab\ncd\nef", "most_repeated_line_characters", 0.25, 0.24),
        ("repeated paragraphs", "ab\n\nab\n\nc\n\nd", "most_repeated_paragraphs", 0.25, 0.24),
        ("repeated paragraphs", "ab\n\nab\n\ncd\n\nef", "most_repeated_paragraph_characters", 0.25, 0.24),
        ("no function words", "the x y z", "fewest_function_words", 1, 2),
        ("repeated phrases", "x y x z x w v u", "top_grams", ((1, 0.375),), ((1, 0.37),)),
        # All pairs are the same: three of the four letters were there before, the one that two pairs share once.
        ("repeated phrases", "x x x x", "repeated_grams", ((2, 0.75),), ((2, 0.74),)),
        ("repeated phrases", "x y z x y z", "repeated_grams", ((2, 0.5), (3, 0.5)), ((2, 0.5), (3, 0.4))),
        ("boilerplate", "cookies!\nabcdefgh", "most_boilerplate", 0.5, 0.49),
        ("garbled", "ab\ufffdc", "most_garbled", 0.25, 0.24),
        ("markup", "{abc", "most_markup", 0.25, 0.24),
    ],
)
def test_a_text_at_a_threshold_is_good_and_beyond_it_bad(reason: str, text: str, name: str, good: object, bad: object) -> None:
    assert reasons(text, "en", dataclasses.replace(LOOSE, **{name: good})) == []
    assert reasons(text, "en", dataclasses.replace(LOOSE, **{name: bad})) == [reason]


def test_what_texts_repeat_and_lack_is_asked_from_so_many_words_on() -> None:
    asked = dataclasses.replace(LOOSE, fewest_function_words=1, enough_units=4)
    assert reasons("x y z w", "en", asked) == ["no function words"]
    assert reasons("x y z", "en", asked) == []


def test_words_in_a_row_that_stand_there_twice_are_no_habit() -> None:
    assert reasons("x y x z", "en", dataclasses.replace(LOOSE, top_grams=((1, 0.1),))) == []
    assert reasons("x y x z x", "en", dataclasses.replace(LOOSE, top_grams=((1, 0.1),))) == ["repeated phrases"]


def test_a_line_about_cookies_is_boilerplate_up_to_a_length() -> None:
    strict = dataclasses.replace(LOOSE, most_boilerplate=0.5)
    assert reasons("cookies " + "a" * 192, "en", strict) == ["boilerplate"]
    assert reasons("cookies " + "a" * 193, "en", strict) == []


def test_reasons_come_in_the_order_of_the_table() -> None:
    found = reasons("# 12 34 {x} <b> … 99 # 7 8 # 1 2 3 # 4 5 6 7 # 8 9 { }\n" * 6, "en")
    table = [line for line in (quality.__doc__ or "").splitlines() if line.startswith("| ")]
    order = [line.split("|")[1].strip() for line in table]
    names = [name for cell in order[1:] for name in cell.split(", ")]
    assert len(found) > 4
    assert found == [name for name in names if name in found]


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown language 'de'"):
        reasons(GOOD["en"], "de")
