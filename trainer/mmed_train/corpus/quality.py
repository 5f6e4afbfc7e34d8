"""Why a document is no good text to train on: the rules of Gopher and C4, and what they mean in six languages.

Sources: Gopher (Rae et al. 2021, appendix A1.1 and table A1), C4 (Raffel et al. 2020, section 2.2, and its code). They were made
for English pages of the web. Other than there, documents may be short, as clinical notes are, and long, as textbooks are; in
Chinese and Japanese characters stand for words; and whole documents are judged, no lines are cut out of them.

| reason | what it says | source |
|---|---|---|
| too short | too few words to learn from; nothing else is asked then | Gopher, lower |
| word length | the mean word is shorter or longer than in prose | Gopher |
| few letters | too many words without a letter; in zh and ja, too little of what is seen is an ideograph or kana | Gopher |
| no sentences | words in a row without the end of a sentence, as in menus, lists and tables | after C4 |
| symbols | hashes and ellipses | Gopher |
| bullets | nearly all lines begin with one | Gopher |
| cut lines | many lines end with an ellipsis, as teasers do | Gopher |
| repeated lines, repeated paragraphs | too many of them stand there a second time | Gopher |
| no function words | none of the words that no sentence can do without | Gopher |
| repeated phrases | words in a row that stand there again and again | Gopher |
| boilerplate | lines on cookies, rights, subscriptions; "lorem ipsum" | C4 |
| garbled | characters that were decoded wrong, or belong to a font | |
| markup | tags, braces, entities | after C4 |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from types import MappingProxyType

from mmedeval import UnknownNameError

_UNSPACED = frozenset({"ja", "zh"})
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
_IDEOGRAPHS = f"{_KANA}\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_IDEOGRAPH = re.compile(f"[{_IDEOGRAPHS}]")
_WORD = re.compile(r"[^\W_]+(?:[.\-][^\W_]+)*")
_UNSPACED_UNIT = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+(?:[.\-][^\W_{_IDEOGRAPHS}]+)*")
_LETTER = re.compile(r"[^\W\d_]")
_VISIBLE = re.compile(r"\S")
_ELLIPSIS = re.compile(r"\.{3,}|…+")
_SENTENCE_END = re.compile(r"[.!?;…]+(?=[\s\"'”»)\]]|$)|[。．！？；]+")
_BULLET = re.compile("[•●○■□◦▪‣·・*–—-]")
# Not decoded, controls, or of a font of its own, as in the text layer of many PDF files; UTF-8 that was read as Latin-1.
_GARBLED = re.compile(
    "[\ufffd\ue000-\uf8ff\u0000-\u0008\u000e-\u001f\u007f-\u0084\u0086-\u009f]|[ÃÂÐÑ][\u0080-\u00bf]|â€.|\\(cid:\\d+\\)"
)
_MARKUP = re.compile(r"[{}]|</?[a-zA-Z][^<>]{0,80}>|&[a-z]{2,6};")
_BOILERPLATE = re.compile(
    r"lorem ipsum|javascript|\bcookies?\b|privacy policy|terms of (?:use|service)|all rights reserved|click here"
    r"|(?:subscribe to|sign up for) our|politique de confidentialité|mentions légales|tous droits réservés|cliquez ici"
    r"|abonnez-vous|política de privacidad|aviso legal|todos los derechos reservados|haga clic|suscr[ií]bete"
    r"|политик\w+ конфиденциальности|пользовательско\w+ соглашени\w+|все права защищены|подпи(?:шитесь|саться) на|нажмите здесь"
    r"|隐私政策|隱私(?:權)?政策|使用条款|使用條款|版权所有|版權所有|点击(?:这里|此处)|點擊(?:這裡|此處)|备案号|扫(?:一扫|码关注)"
    r"|プライバシーポリシー|利用規約|無断転載|こちらをクリック|クッキー",
    re.IGNORECASE,
)
# A longer line that names cookies may be about them.
_LONGEST_BOILERPLATE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From where on a text is no good. Units are words, or in Chinese and Japanese characters; shares are 0 to 1.

    `enough_units`: what shorter texts repeat, and which words they use, tells nothing. `mean_word` is asked of words only.
    `top_grams` and `repeated_grams` are pairs: so many units in a row, and how much of the text they may make up.
    """

    fewest_units: int
    enough_units: int
    least_letters: float
    longest_mean_sentence: float
    top_grams: tuple[tuple[int, float], ...]
    repeated_grams: tuple[tuple[int, float], ...]
    mean_word: tuple[float, float] = (3.0, 10.0)
    fewest_function_words: int = 2
    most_symbols: float = 0.1
    most_bullets: float = 0.9
    most_ellipses: float = 0.3
    most_repeated_lines: float = 0.3
    most_repeated_line_characters: float = 0.2
    most_repeated_paragraphs: float = 0.3
    most_repeated_paragraph_characters: float = 0.2
    most_boilerplate: float = 0.2
    most_garbled: float = 0.005
    most_markup: float = 0.02


# Gopher refuses texts below 50 words; two sentences of a textbook have 15 to 30. It allows half as much
# repetition in rows of words: one in 60 series of cases would go, for nothing but formulas such as "was within normal limits".
SPACED = Thresholds(
    fewest_units=15,
    enough_units=50,
    least_letters=0.7,
    longest_mean_sentence=100.0,
    top_grams=((2, 0.20), (3, 0.18), (4, 0.16)),
    repeated_grams=((5, 0.30), (6, 0.28), (7, 0.26), (8, 0.24), (9, 0.22), (10, 0.20)),
)
# Two characters stand for a word. Beside ideographs there are numbers, marks, and names in Latin letters, which are longer.
# A fifth of a radiologist's report may be "はありません" ("there is no").
UNSPACED = Thresholds(
    fewest_units=30,
    enough_units=100,
    least_letters=0.3,
    longest_mean_sentence=250.0,
    top_grams=((4, 0.25), (6, 0.25), (8, 0.20)),
    repeated_grams=((10, 0.30), (12, 0.28), (14, 0.26), (16, 0.24), (18, 0.22), (20, 0.20)),
)
THRESHOLDS: Mapping[str, Thresholds] = MappingProxyType(
    {
        **dict.fromkeys(("en", "fr", "es"), SPACED),
        "ru": replace(SPACED, mean_word=(3.0, 12.0)),
        **dict.fromkeys(("zh", "ja"), UNSPACED),
    }
)
# Gopher's are English. In Chinese with those of classical texts.
FUNCTION_WORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "en": frozenset(
            {"the", "a", "be", "to", "of", "and", "that", "have", "has", "with", "in", "is", "was", "for", "on", "by"}
        ),
        "fr": frozenset({"le", "la", "les", "l", "un", "une", "de", "des", "du", "d", "et", "est", "à", "au", "dans", "par"}),
        "es": frozenset({"el", "la", "los", "las", "un", "una", "de", "del", "y", "en", "que", "con", "por", "se", "al", "es"}),
        "ru": frozenset({"и", "в", "во", "на", "с", "со", "по", "не", "что", "при", "для", "от", "к", "из", "или", "у", "за"}),
        "zh": frozenset("的了是在有和与與及为為不以之者也或等其而于於一"),
        "ja": frozenset("のにをはがとでたてもしなるか"),
    }
)


def reasons(text: str, language: str, thresholds: Thresholds | None = None) -> list[str]:
    """The names of all rules that a document breaks, in the order of the table above; none if it is good.

    Time is linear in the text. Raises `UnknownNameError` for a language that is none of the six.
    """
    if language not in THRESHOLDS:
        raise UnknownNameError("language", language, THRESHOLDS)
    return [*_broken(text, language, thresholds or THRESHOLDS[language])]


def _broken(text: str, language: str, limits: Thresholds) -> Iterator[str]:
    unspaced = language in _UNSPACED
    units = tuple((_UNSPACED_UNIT if unspaced else _WORD).findall(text.lower()))
    if len(units) < max(1, limits.fewest_units):
        yield "too short"
        return
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    characters = sum(map(len, lines))
    if not unspaced and not limits.mean_word[0] <= sum(map(len, units)) / len(units) <= limits.mean_word[1]:
        yield "word length"
    if (_ideographs(text) if unspaced else _with_letters(units)) < limits.least_letters:
        yield "few letters"
    # The end of the text ends a sentence, whatever stands there.
    if len(units) > limits.longest_mean_sentence * (1 + len(_SENTENCE_END.findall(text.rstrip()[:-1]))):
        yield "no sentences"
    if text.count("#") + len(_ELLIPSIS.findall(text)) > limits.most_symbols * len(units):
        yield "symbols"
    if sum(_BULLET.match(line) is not None for line in lines) > limits.most_bullets * len(lines):
        yield "bullets"
    if sum(line.endswith(("...", "…")) for line in lines) > limits.most_ellipses * len(lines):
        yield "cut lines"
    if _repeats(lines, limits.most_repeated_lines, limits.most_repeated_line_characters):
        yield "repeated lines"
    if _repeats(paragraphs, limits.most_repeated_paragraphs, limits.most_repeated_paragraph_characters):
        yield "repeated paragraphs"
    if len(units) >= limits.enough_units:
        if len(FUNCTION_WORDS[language] & {*units}) < limits.fewest_function_words:
            yield "no function words"
        if _has_top_gram(units, limits.top_grams) or _has_repeated_grams(units, limits.repeated_grams):
            yield "repeated phrases"
    suspects = (line for line in lines if len(line) <= _LONGEST_BOILERPLATE)
    if sum(len(line) for line in suspects if _BOILERPLATE.search(line)) > limits.most_boilerplate * characters:
        yield "boilerplate"
    if sum(map(len, _GARBLED.findall(text))) > limits.most_garbled * characters:
        yield "garbled"
    if sum(map(len, _MARKUP.findall(text))) > limits.most_markup * characters:
        yield "markup"


def _with_letters(words: Sequence[str]) -> float:
    return sum(_LETTER.search(word) is not None for word in words) / len(words)


def _ideographs(text: str) -> float:
    """The share of visible characters that are ideographs or kana."""
    return len(_IDEOGRAPH.findall(text)) / len(_VISIBLE.findall(text))


def _repeats(parts: Sequence[str], most: float, most_characters: float) -> bool:
    """Whether too many of these, or too much of their text, stand there a second time."""
    again = Counter(parts)
    characters = sum(len(part) * (count - 1) for part, count in again.items())
    return len(parts) - len(again) > most * len(parts) or characters > most_characters * sum(map(len, parts))


def _has_top_gram(units: Sequence[str], limits: Sequence[tuple[int, float]]) -> bool:
    """Whether the units in a row that are the commonest make up too much of the text. Twice is no habit."""
    total = sum(map(len, units))
    for length, most in limits:
        rows = Counter(units[start : start + length] for start in range(len(units) - length + 1))
        if any(count > 2 and count * sum(map(len, row)) > most * total for row, count in rows.most_common(1)):
            return True
    return False


def _has_repeated_grams(units: Sequence[str], limits: Sequence[tuple[int, float]]) -> bool:
    """Whether rows of units that were there before make up too much of the text, no unit counted twice."""
    ends = [0, *accumulate(map(len, units))]
    least = min((most for _, most in limits), default=0.0)
    for length, most in limits:
        seen: set[Sequence[str]] = set()
        characters = covered = 0
        for start in range(len(units) - length + 1):
            row = units[start : start + length]
            if row in seen:
                characters += ends[start + length] - ends[max(start, covered)]
                covered = start + length
            seen.add(row)
        if characters > most * ends[-1]:
            return True
        if characters <= least * ends[-1]:
            return False  # longer rows repeat no more than shorter ones do
    return False
