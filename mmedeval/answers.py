"""Reads the option letters that a model chose out of the text that it wrote."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby, pairwise
from types import MappingProxyType
from typing import Final

from mmedeval import answer_phrases as p

# Every mention of an option becomes one private-use character, so that the phrases never meet an article "A" or an
# option's own words: 0xE000 + i is the letter i, 0xE010 + i the text of option i alone; 0x40 more says "denied on the spot".
_LETTER: Final = 0xE000
_TEXT: Final = 0xE010
_DENIED: Final = 0x40
_UNKNOWN: Final = "\ue00a"
_EITHER: Final = "\ue00b"
# Character classes of such marks: letters, texts, all mentions, denied ones.
_L: Final = "[\ue000-\ue00f]"
_T: Final = "[\ue010-\ue01f]"
_M: Final = "[\ue000-\ue01f]"
_D: Final = "[\ue040-\ue05f]"

# An answer stands near one of the two ends and among few letters; these bounds keep hostile text cheap.
_HEAD: Final = 4_000
_TAIL: Final = 12_000
_MOST_LETTERS: Final = 1_500
_MOST_MENTIONS: Final = 300
_REACH: Final = 220
# A sentence that names one option's text so often has lost its way.
_STUCK: Final = 5
# Where another question is looked for.
_CONTINUED: Final = 100_000


def _re(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\n *", "", pattern), re.IGNORECASE)


# Words between a verb and its answer, as in "is, most likely, the".
_FILL: Final = (
    r"(?:, ?[^,.;:?!\ue000-\ue01f]{2,30}, ?)?(?:[ ,:、(\"'«「—\[]{0,3}(?:(?:the|most|likely|\w{2,12}ly|therefore|thus|hence|then"
    r"|indeed|still|\w{3,14}mente?|la|les?|el|l[ao]s|donc|bien|ainsi|sans doute|por (?:lo )?tanto|entonces|под|именно"
    rf"|вероятно|but|mais|sino|а|maybe|tant|в)\b|l'|ではなく|じゃなく|应该?选?|選|选|而是|{_D})){{0,4}}[ ,:、(\"'«「—\[]{{0,4}}$"
)
_ANSWER_OR_RIGHT: Final = rf"{p.ANSWER.any}|{p.RIGHT.any}|{p.CHOSEN.any}"
_STATES: Final = _re(rf"(?:{_ANSWER_OR_RIGHT})[^.;:?!。]{{0,60}}?{p.COPULA}{_FILL}")
_STATES_ODD: Final = _re(rf"(?:{p.WRONG.any})[^.;:?!。]{{0,60}}?{p.COPULA}{_FILL}")
_STATES_LEAST: Final = _re(rf"(?:{p.LEAST})[^.;:?!。,]{{0,40}}?{p.COPULA}{_FILL}")
_IS_LEAST: Final = _re(rf"[^.;:?!。,]{{0,25}}(?:{p.LEAST})")
_BARE_ANSWER: Final = _re(
    rf"(?:(?:{p.ANSWER.any})(?: под)?|{p.RIGHT.spaced}(?: l[ae]s?)?|正确的?有|(?:^|[.。] )(?:the |la |mi |my "
    rf"|ma )?(?:{p.ANSWER.any})[^.;!?。\ue000-\ue05f]{{0,24}}[,:—])[ \"(«]{{0,3}}$"
)
_CHOOSES: Final = _re(rf"(?:{p.CHOOSE.any})(?: (?:de |la |вариант\w? |ответ\w? ){{0,2}})?{_FILL}")
_SO_IT_IS: Final = _re(
    rf"(?:{p.SO.any})[ ,:]{{0,3}}(?:it(?:'s| is| must be)|c'est|es|this is|it has to be|это|の?答えは|就?是)?{_FILL}"
)
_BEST_IS: Final = _re(
    rf"(?:{p.BEST.any})[^\ue000-\ue01f]{{0,140}}?(?:{p.COPULA}|\b(?:by|for|show|with|par|por|à|para)\b"
    rf"|[をに])[^\ue000-\ue01f]{{0,80}}$"
    r"|(?:首选|首先考虑|最可能|(?<!不)支持)$"
)
_BACKS: Final = _re(rf"""
    \b(?:(?:justif|valid|confirm|подтвержд)\w{{1,7}}|supports?|leaves(?: us with)?|(?:points?|corresponds?) to(?:wards?)?|matches
    |favou?rs?|favorece|(?:makes?|hacen?|rend|rendent)(?: (?:más|plus|more|most) (?:probable|likely))?|correspond à|reste|queda
    |оста[её]тся|соответствует) (?:thus |ainsi |donc |así )?(?:the |l[ae]s? |l'|el )?(?:(?:{p.ANSWER.any}) )?$
""")
_LINK: Final = _re(rf"{p.COPULA}{_FILL}")
_CONCEDES: Final = _re(
    r"(?:\b(?:although|though|while|whereas|even if|despite|bien que|quoique|tandis que|alors que|même si|certes"
    r"|aunque|si bien|mientras que"
    r"|хотя|несмотря на|тогда как|в то время как)\b|虽然|尽管|虽|固然|にもかかわらず|à la différence d|contrairement"
    r"|\bunlike|as opposed to|a diferencia de|en contraste|в отличие от)[^;.!?。]{0,80}$"
)
_IS: Final = _re(
    rf"(?:(?:{p.COPULA})|\b(?:called|named|known as|termed|appelée?|dénommée?|nombre de|llama(?:da|do)?|denomina"
    rf"|называется|называют)\b|即|属于?|当属|首推"
    r"|のは|とは|称为|叫做?)(?: (?:a|an|the|of|de|d'|du|la|le|les|el|un|una|une|to|by|à|al|from|due to|precisely|namely"
    r"|именно)\b){0,3}[ :\"'«「(,]{0,3}$"
)
_IS_END: Final = re.compile(
    r"[\"'»」)]{0,2} ?(?:[.,;:!。(—]|$|です|である|だ|となる|による|が|と考え|and\b|y no|et non|а не|because|car|porque|ya que)"
)
_END_OF_ALL: Final = re.compile(r"\W{0,3}$|である|です|だ。| qu[e']| la que")
_ONLY_THERE: Final = _re(rf"(?:{p.ONLY})\W*(?:$| (?:in|if|for|when|en|si|dans|pour|при|у|если)\b)")
_ONLY: Final = _re(rf"(?:{p.ONLY}) ?(?:the |l[ae]s? |l'|el )?$")
_LEFT_WITH: Final = _re(rf"(?:{p.LEFT_WITH}) ?(?:the |l[ae]s? |l'|el )?$")
_HEADING: Final = _re(_ANSWER_OR_RIGHT)
_ANSWER_WORD: Final = _re(p.ANSWER.any)
_ODD_WORD: Final = _re(p.WRONG.any)
# "If one is to pick the false one" says what is asked for.
_ASKED_ODD: Final = re.compile(r"(?:誤って|間違って|適切で|正しく)\w{0,6}(?:もの|選択肢|記述)(?:を|は|として)")
_NEGATED: Final = _re(r"\b(?:not|non|no|не) $|[不非]$")
_SO_WORD: Final = _re(p.SO.any)
_CONCLUDES: Final = _re(rf"[^\w\ue000-\ue01f]{{0,4}}(?:c'est |\w{{2,9}},? )?(?:{p.SO.any})")
_SO_BEHIND: Final = _re(rf"^(?: (?!and|et|y|и)\w{{1,9}})?,? (?:{p.SO.spaced})\b")
_SO_BEFORE: Final = _re(rf"(?:{p.SO.any})[ ,:]{{0,3}}(?:the |la |le |el |l')?$")
_IS_ODD: Final = _re(
    rf"(?:\b{p.BE} (?:\w{{2,12}} ){{0,2}}?(?:the |la |le |el |l')|является )(?:\w{{3,10}} )?"
    rf"(?:(?:{p.OPTION.spaced}|{p.ANSWER.spaced}) )?(?:{p.WRONG.spaced}|one that (?:is|does) not)"
    r"|是(?:唯一)?(?:错误|不正确)的(?:选项|说法|叙述|描述|原因|理由|(?=[。,;]|$))|が(?:誤り|誤って|間違|不適切)"
)
_IS_ANSWER: Final = _re(rf"""
    (?:\b{p.BE}|correspond à|^) (?:\w{{1,12}} ){{0,2}}?(?:the|my|our|la|le|les|las|el|mi|ma|mon) (?!second|other|next|third|wrong
    |incorrect)(?:\w{{1,12}} ){{0,3}}?(?:{p.ANSWER.spaced}|{p.OPTION.spaced}|pick|selection|elección|bonne|correctas?|correcte
    |vraie)|(?:—|\b(?:это|является|являются)) (?:\w{{1,14}} )?(?:правильн|верн)\w{{1,3}} (?:ответ|вариант|выбор)
    |^ ?(?:(?:is|was|has been|est|был[аи]?) )?(?:chosen|selected|choisi|retenu|выбран)
    |[是为](?:本题|该题|此题|该?问题|最终|最佳|正确|的){{0,3}}(?:答案|选项(?=[。,;]|$))
    |符合题意|当选(?!率)|に(?:訂正|変更|修正)|が(?:最も)?(?:正しい|適切な|最適な|(?:正解|最適|適切)である)理由|を選|を正解
    |が(?:正解|正答|答え|解答|正しい(?:答え|選択肢|解答))
""")
_ENDS: Final = _re(
    rf"[ )\]\"'»」]{{0,3}}(?:[.,;!。]|$|—|-|\(|\b(?:{p.REASON}|rather|due|with|for)\b|です|である|だ|と考え|と判断|となり|が"
    r"|の[^、。]{1,60}(?:です|である|だ|と考え|。|$))"
)
_CLAUSE_END: Final = _re(
    r"[;,] (?=\w)|,(?=[^\x00-\u2fff])|\b(?:because|car|porque|ya que|puesto que|pues|dado que|parce qu|vu qu"
    r"|étant donné|ведь|потому|поскольку|так как|since|puisque|aunque|но|pero|mais|but|rather than"
    r"|instead of|plutôt que|au lieu de|en (?:lugar|vez) de)\b|因为"
)
_WHY: Final = _re(
    rf"\W{{0,4}}(?:why|pourquoi|por qué|почему(?: именно)?|为什么[选是]?|なぜ)(?: (?:choose|choisir|elegir|option"
    rf"|the answer is|the|is|la|le|el)){{0,2}} ?{_M}{{1,12}}"
    r"(?: (?:is|est|es))?(?: (?:the )?(?:right|correct\w?|answer|best|верно))?\W{0,3}(?:(?:なの)?か)?\W{0,2}"
)
_REPLIES: Final = re.compile(r"^[^\ue000-\ue05f]{4,400}\?$")
_TURN: Final = _re(r"[,;] (?:but|however|yet|mais|pero|no obstante|но|однако|а)\b|[,;](?:但|然而|不过)|が、|けれども?、")
_EXCEPT: Final = _re(rf"(?:{p.EXCEPT}) ?(?:the |la |el |l')?$")
_WHOLE: Final = re.compile(r"[.!。)\]\"'»」]$")
_TOPIC: Final = _re(rf"(?:(?:the |l[ae]s? |l'|el )?(?:(?:{p.ANSWER.any}) )?){_M}")


def _verdicts(marks: str, words: Iterable[str]) -> Mapping[str, re.Pattern[str]]:
    patterns = (_re(rf"^[はが]?\W{{0,4}}(?:{marks})|{one}") for one in words)
    return MappingProxyType(dict(zip(p.Words._fields, patterns, strict=True)))


_IS_RIGHT: Final = rf"(?:\b{p.BE} (?:\w{{1,12}} ){{0,4}}?|^\W{{0,4}})(?:l[aoe]s? |el )?(?:{p.RIGHT.spaced}|{p.BEST.spaced})"
_CALLS_RIGHT: Final = _verdicts(
    r"[✓✔✅☑√○〇◯]|V\b|T(?=\W{0,3}$)",
    (
        rf"{_IS_RIGHT}|{p.FITS.spaced}|^ ?(?:fits?|matches|qui (?:répond|correspond|explique))\b",
        *map("|".join, zip(p.RIGHT[1:], p.BEST[1:], p.FITS[1:], strict=True)),
    ),
)
_CALLS_WRONG: Final = _verdicts(r"[❌✗✘✖✕×]|F\b", map("|".join, zip(p.NOT, p.WRONG, strict=True)))

_WORD: Final = "A-Za-z0-9À-ÖØ-öø-ÿЀ-ӿ"
_LONE: Final = re.compile(
    rf"(?<![{_WORD}])(?<![{_WORD}]['’°])(?<![{_WORD}]-)([A-JАВСЕ]{{2,10}}|[a-j]{{2,10}}|[A-Za-zАВСЕΑΒΕасеБГДбгд])(?![{_WORD}])"
)
_JUDGED: Final = rf"\)?[ :.=(/—-]{{1,4}}(?:{p.TICK}|{p.CROSS})(?:\W|$)"
_IS_JUDGED: Final = _re(rf"(?! \w){_JUDGED}")
_LABEL_WITHIN: Final = _re(rf"(?:^|(?<=[\s.;,。]))\(?([A-JА-Е])(?:(?<!\(.)(?=[):.] ?\w)|(?={_JUDGED}))")
# In a Cyrillic list (А Б В Г) "В" is the third letter and no Latin B.
_LOOKALIKE: Final = MappingProxyType(dict(zip("АВСЕКΑΒΕасе", "ABCEKABEACE", strict=True)))
_CYRILLIC_LIST: Final = re.compile(r"(?:^|[ \n(\"«])[БГДбгд](?=[).:])|(?:вариант|ответ|пункт)\w{0,3}:? [\"«(]?[БГД]\b")
_OPENED: Final = r"[ 、]?[\"'«(\[「]{0,2}$"
_NOUN_BEFORE: Final = _re(rf"(?:{p.OPTION.any}|{p.ANSWER.any}|выбор\w{{0,2}}){_OPENED}")
_LINK_BEFORE: Final = _re(rf"(?:[:=→—是为為选選は]|\b(?:is|are|be|est|es|sont|son|это|является|choose)){_OPENED}")
_CHOSEN_BEFORE: Final = _re(rf"\b(?:{p.CHOOSE.spaced})(?: on| for| with)? $")
_CHOSEN_END: Final = _re(r" (?:here|as|for|on|in|over|from|again|then|overall|now|anyway|then|this time|myself)\b|[^\w ]|$")
_RUN_END: Final = re.compile(r"[\"')» ]{0,3}(?:[.,;!。\n]|$|です|である|だ)")
_LIST_BEFORE: Final = re.compile(r"\b[A-J][\"')]? ?(?:[,、/&和与及と]| (?:et|y|e|and|и)) ?$|[A-J](?:和|与|及|と)$")
_LISTED_BEFORE: Final = re.compile(r"(?:^|\W)[a-j] ?(?:[,、/・と和]| et| y| e| and| и) ?$")
_LOWER_END: Final = re.compile(
    rf" ?(?:[).,;:\]。、・\n/»」]|[\"'](?!\w|{_M})|$|(?:{p.REASON})\b|[はがをとのもで項选项肢]|(?:and|y|et|e|и|&) ?[a-jасе]\b)"
)
_CLOSERS: Final = MappingProxyType(dict(zip("([\"'「『«【<", ")]\"'」』»】>", strict=True)))
_THINK: Final = _re(
    r"[<\[◁][|｜]?(?P<close>/|end_of_)?(?:begin_of_)?(?:\w{1,8}:)?(?:think(?:ing)?|thoughts?)\b[^<>\[\]]{0,40}[>\]▷]"
)
_ASIDE: Final = _re(
    r"<(?P<close>/)?(?:reasoning|analysis|rationale|explanation|scratchpad|justification|reflection|reason|raisonnement|analyse"
    r"|réflexion|explication|razonamiento|análisis|explicación|рассуждени[ея]|анализ|объяснение|思考|推理|分析|解析"
    r"|推論|考察|解説|理由)>"
)
_OPENING: Final = _re(r"""
    ^(?:\s{1,9}|<s>|<bos>|<\|(?:begin_of_text|startoftext|im_start|assistant|start_header_id|end_header_id)\|>
    |assistant\n){0,9}
""")
_END: Final = _re(r"""
    </s>|<eos>|<end_of_turn>|<pad>|\[eos\]|<[|｜](?:end_of_text|eot_id|im_end|im_start|endoftext|end|return|eom_id|eos
    |start_header_id|end▁of▁sentence|user)[|｜]>
""")
_NEXT_TURN: Final = _re(r"""
    \n ?(?:### ?(?:question|instruction|input|human|user)|(?:question|human|user|问题|題目|题目|質問|問題|pregunta
    |вопрос) ?\d{0,3} ?[:：.]|[-*_#= ]{0,9}(?:question|问题|题目|問題|問|pregunta|вопрос) ?(?:№|n[º°.o]|no\.)? ?\d{1,3}\b)
""")
# A numbered line that asks, with options below it, begins another question.
_NEXT_QUESTION: Final = re.compile(
    r"\n[*#( ]{0,5}(?:第 ?)?\d{1,3}[题]?[.．、)） :：][^\n]{4,600}\n{1,2}(?:[^\n]{4,300}\n{1,2})?"
    r"[-*( ]{0,4}[AaАа][.．、)）:：*][^\n]{0,300}\n{1,2}"
    r"[-*( ]{0,4}[BbБбВ][.．、)）:：*]"
)
_ASKS: Final = re.compile(r"[?？]|_{2}|[(（][ 　]{0,9}[)）]|最|哪|何|どれ")
# Behind an answer these begin another question; before one they may be headings of the reasoning.
_NEXT_TASK: Final = _re(
    r"\n[-*_#\[ ]{0,6}(?:next |another |下一[道个]?|次の|siguiente |prochaine? |следующ\w\w )?(?:q|question|example"
    r"|exercise|problem|case|item|例题?|题目?|问题?"
    r"|問題?|質問|exercice|qcm|qcs|cas(?: clinique)?|ejercicio|pregunta|caso(?: clínico)?|problema|вопрос|задани[ея]"
    r"|задача|пример)[\] ]{0,2}"
    r"(?:(?:№|n[º°.]|no\.|#)? ?\d{1,3}\b|[:.：、\n]|(?<=\])|$)"
)
_ANSWERED: Final = _re(
    rf"^\W{{0,9}}[A-J]\b(?! [a-z])|(?:{p.ANSWER.any}|{p.RIGHT.any}|{p.CHOOSE.any})[^\n]{{0,30}}?(?<![{'A-Za-z'}])[A-J](?![a-z])"
)
# The prompt's own words, which some models repeat before they answer.
_EXAMPLE: Final = _re(
    r"(\b(?:format[eo]?|forme?|example|instance|e\.g\.|exemple|ejemplo|например|виде|формате?)|格式|形式|例如|例)\W{0,3}(?:(?:of|as|is|like|de|est|es"
    r"|是|为|は) ?)?[:：,，、]?\s?[“\"«「'‘]\s?(?:answer|答案|答え|réponse|ответ|respuesta)\s?[:：]\s?[A-J]\W{0,3}[”\"»」'’]"
)
_ECHO: Final = _re(
    r"^[^\n]{0,400}[“\"«「]\s?(?:answer|答案|答え|réponse|ответ|respuesta) ?[:：] ?X(?: ?[,、，] ?Y)?\s?[”\"»」]"
    r"(?:[^\n.。]{0,120}?(?:[A-J][,、， ]{1,3}){1,9}[A-J]\b)?[^\n.。]{0,60}(?:[.。]|$)"
)
_PAPER: Final = _re(
    r"###\s?Answer\s?:\s{0,4}OPTIONS?\s{1,4}([A-Z](?:\s{0,3},\s{0,3}[A-Z]){0,9})\s{1,4}(?:IS|ARE)\s{1,4}CORRECT\b"
)
_BOXED: Final = re.compile(r"\\boxed ?\{((?:[^{}\n]|\{[^{}\n]{0,80}\}){0,200})\}?")
_TAGGED: Final = _re(
    r"<((?:(?:final|最终|最終|окончательный)[_ -]?)?(?:answers?|choice|option|response|réponses?|respuestas?|ответы?"
    r"|答案|回答|解答"
    r"|正解|答え|选项|選択)(?:[_ -]?(?:finale?|correct[ae]?))?)>([^<>]{0,400})(?:</\1>|$)"
)
_FIELD: Final = _re(r"""
    (["'])(?:(?:final|correct|selected|chosen|best|right|predicted)[_ ]?)?(?:answers?|option|choice|letters?|response
    |selected|prediction|result|r[eé]ponses?|respuestas?|ответы?|答案|回答|正解|解答|答え|选择|选项|choix
    |opci[oó]n)(?:[_ ]?(?:idx|index|letters?|choice|key|option|id|correct[ae]?|finale?))?\1 ?: ?(\[[^\]\[]{0,200}\]?
    |"[^"\n]{0,300}"?|'[^'\n]{0,300}'?|[^\s,}"'\[]{1,40})
""")
# A field of nothing but letters needs no reading: "D,E" or "A", "C".
_ONLY_LETTERS: Final = _re(
    rf"\(?[A-J]\)?(?:[\"' ]{{0,3}}(?:[,;、/&+ ]|(?:{p.AND})|(?:{p.AND_UNSPACED}))[\"' ]{{0,3}}\(?[A-J]\)?){{0,9}}[.。]?"
)
# "A-B" at the end are two letters, "A-D" may be four.
_HYPHENED: Final = re.compile(r"\b(?:A-B|B-C|C-D|D-E|[A-J](?:-[A-J]){2,9})(?=[\s.*]{0,5}$)")
_BARE: Final = re.compile(r"[\s{\[(<\"'*_`]{0,9}([A-J])[\s}\])>\"'*_`.]{0,9}")
_LATEX: Final = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mathsf|mbox|textit|boxed) ?\{([^{}]{0,200})\}")
_MARKUP: Final = re.compile(
    r"~~[^~\n]{1,80}~~|</?(?:b|strong|i|em|p|u|li|ul|ol|div|span|h[1-6]|center|mark|code|table|tr|td)(?: [^<>]{0,80})?>"
    r"|\\[()\[\]]|[*`#$\u200b-\u200f\ufeff]|(?m:^ ?>)"
)
# A table's cells become the parts of a sentence.
_ROW_EDGE: Final = re.compile(r"^[ \t]{0,9}\|[ \t:|-]{0,99}|[ \t]{0,9}\|[ \t]{0,9}$", re.MULTILINE)
_CELL: Final = re.compile(r"[ \t]{0,9}\|[ \t]{0,9}")
_PUNCTUATION: Final = MappingProxyType(
    str.maketrans("“”„‟″‘’‚´–―─━‐‑‒､｡_|⇒➔➜", '"""""\'\'\'\'————---,。  →→→') | dict.fromkeys(range(0xE000, 0xE100), " ")
)
_SENTENCE_END: Final = re.compile(
    rf"(?<=[.!?])[\"')»]? (?![a-zà-ÿа-яё])|(?<=[.!?])(?={_M}|{_D})|(?<=[a-z]\.)(?=[A-Z][a-z])|"
    r"(?<=[。!?;])(?=[^\s\"')»」])|(?<=;)|(?<=\.{3})(?![\s.])|\n"
)

_ACRONYM: Final = re.compile(r"(?![A-J]{2,5}$|[IVX]{2,5}$)[A-Z][A-Z0-9]{1,4}")
# How mentions are found, merged and denied.
_CODED: Final = re.compile(r"(.{2,30}?)(?:[ -]|(?<=[\u3000-\u9fff]))([A-ZАВСЕ]\d{0,2})(?:[ 型群-]\D{0,25})?")
_CODE: Final = re.compile(rf"(?<![{_WORD}])[A-ZАВСЕК]\d{{0,2}}(?![{_WORD}])")
_CODE_ALONE: Final = re.compile(rf"(?<![{_WORD}-])[A-ZАВСЕК]\d{{1,2}}(?![{_WORD}])")
_NTH: Final = "|".join((*p.ORDINALS, p.LAST))
_ORDINAL: Final = _re(rf"""
    (?<!\w)(?:the |l[ae] |el |l')?({_NTH})(?: and last)? (?:one|option|alternative|item|statement|proposition|affirmation
    |assertion|opción|alternativa
    |afirmación|inciso|вариант\w{{0,2}}|пункт\w{{0,2}}|утверждени\w|опци\w)(?: (?:listed|above|on the list|de la liste?
    |de la lista|из списка))?(?=[ "»)]{{0,2}}(?:[.,;:!—(]|$|is\b|(?:is|est|es|son)\b(?: \w{{1,6}})? (?:{p.RIGHT.spaced}
    |{p.ANSWER.spaced}|{p.BEST.spaced})))
    |第({_NTH})(?:个|個)?(?:选项|選項|项|項|选择|個選項|选)(?=[,。;:、()是为對对正符]|$|の?(?:で|が|は|だ))
    |第({_NTH})个(?=[,。;]|$)|({p.LAST})个?(?:选项|項|项
    |选择)(?=[,。;:()是为对正符以]|$)
    |(?<!\d)({_NTH})(?:番目|つ目|番)(?:の(?:選択肢|もの|項目))?(?=[がをでだ。,、]|です|$)|({p.LAST})の(?:選択肢|もの
    |項目)(?=[がをでだ。,、]|です|$)
    |(?:option|choice|вариант|пункт|opción|proposition|选项|選択肢|alternativa|réponse) ?(?:number |n[°º] ?|№ ?|no\. ?
    |n[uú]m[eé]ro )?({_NTH})(?=[.,;:!。)]|$|です|が)
""")
_ORDINAL_ALONE: Final = _re(rf"""
    {_ORDINAL.pattern}|(?:{p.CHOOSE.spaced}(?! (?:one|uno?|1)\b)|\b(?:is|are|es|est|c'est|sino|donc|por tanto|queda|reste|solo
    |sólo|seule|только|это)|[—:]) (?:the|la|le|el)? ?({_NTH})(?: de (?:la lista|las opciones|la liste))?(?=[.!]?$)
""")
_COUNTS: Final = _re(
    r"\b(?:a|another|his|her|repeat|give|gives?|ask|after|before|than|every|each|une?|una|autre|otr[ao]|après|avant|tras|hasta|после"
    r"|до|ещё|еще) $"
)
# "Angina would cause pain" speaks of what is not the case.
_WOULD_DO: Final = _re(
    r" (?:would (?!(?:also |still |probably )?be\b)\w|(?!se?r)\w{2,12}(?:rait|raient|r[ií]an?)\b|\w{3,14} бы\b)"
)
_CODE_GAP: Final = rf"(?: ?[,、/] ?| ?(?:,? ?(?:{p.AND}|{p.OR}|ni|nor) | ?(?:{p.AND_UNSPACED}|{p.OR_UNSPACED}) ?))"
_LEADING_WORDS: Final = _re(
    r"^(?:(?:in|by|en|dans|par|por|con|de) )?(?:(?:the|an?|les?|la|une?|des|du|el|l[ao]s|un[ao]?) |l')?(?=\w{4})"
)
_LETTER_GAP: Final = re.compile(
    r"(?<=\b[A-J]) (?=[A-HJ]\b(?!-))|(?<=\b[A-J]) [-—] (?=[A-J] [-—] [A-J]\b)|(?<= [-—] [A-J]) [-—] (?=[A-J]\b)"
)
_CONTRASTS: Final = _re(
    r",? (?:and not|et (?:non|pas)|mais (?:non|pas)|y no|а не|и не|por lo (?:que|cual)|de (?:modo|sorte) que|так что)\b"
)
_PUT: Final = rf"(?:{p.COPULA}|{p.ANSWER.any}|{p.OPTION.spaced}|{p.CHOOSE.spaced}|{_M})[ .):,—\"'«「(]{{0,4}}"
_ABOUT: Final = (
    r"(?:\b(?:of|at|to|for|in|by|del?|al|dans|en|na|в|на|от|about|approximately|around|roughly|nearly|environ|soit|около"
    r"|примерно|то есть|т\. ?е\.|unos|cerca de|aproximadamente|es decir|i\.e\.|c'est-à-dire)|约|約|≈|~|即) ?"
)
# "A, B and C", whose "and" makes an end: in "A and B, C" the last begins something else.
_COMMA: Final = rf"(?: ?[,、/&+·・] ?(?:de |d'|du |des )?(?:the |l[ae]s? |el |l')?| ?;(?= ?{_M}{{1,3}} ?(?:[;.。\n]|$)) ?)"
_AND: Final = rf"(?:{_COMMA}(?:{p.AND}) | (?:{p.AND}) (?:de |d'|du |des )?(?:l[ae]s? |el |l')?| ?(?:{p.AND_UNSPACED}) ?)"
_TEXT_AND_LETTER: Final = _re(
    rf"({_T})([\"'」]? ?[(\[] ?)(?:{p.OPTION.any}|{p.ANSWER.any})? ?({_L})(?:{p.OPTION_BEHIND})? ?[)\]]"
)
_LETTER_AND_TEXT: Final = _re(rf"""
    ({_L})([ .):,、;=—"'(\[「『«-]{{0,5}}(?:の|という|的|(?:the|el|les?|l[ao]s?|l'|une?
    |an?) ?)?["'「『(«]?)({_T})["'」』)»]?
""")
_QUOTED: Final = re.compile(rf"[\"'(\[「『«【<] ?({_M}{{1,12}}) ?[\"')\]」』»】>]")
# "(D) This patient has ..." begins with its answer.
_OPENING_LABEL: Final = re.compile(rf"^[^\w{_M[1:-1]}]{{0,4}}\(({_L})\)(?= ?(?!(?:{p.AND}|{p.OR}) )[\w\ue010-\ue01f])")
_NOUN_OF: Final = _re(rf"(?:{p.OPTION.any})(?: (?:de )?(?:r[eé]ponse|respuesta|ответа|number))? ?[\"'(]?({_M})")
_OF_NOUN: Final = re.compile(rf"({_M})(?:{p.OPTION_BEHIND})")
_GLOSS: Final = _re(
    rf"({_L}) ?\((?!(?:{p.TICK}|{p.CROSS})\)|{p.YES}|{p.NO}|correct|incorrect|right|wrong"
    rf"|fals)[^()\n\ue000-\ue01f]{{1,60}}\)(?=(?:{_COMMA}|{_AND}){_M})"
)
_RUN: Final = _re(rf"{_M}{{1,9}}(?:\)?{_COMMA}{_M}{{1,9}}){{0,9}}(?:\)?{_AND}{_M}{{1,9}}){{0,9}}")
_ALTERNATIVE: Final = _re(rf"(?<={_M})(?:,? (?:{p.OR}) (?:l[ae] )?| ?(?:{p.OR_UNSPACED}|[-—~]) ?)({_M}{{1,9}})")
_DENIES: Final = _re(rf"""
    (?:{p.CONTRAST})(?: (?:[ld]'|un')?[\w%.]{{1,12}}){{0,4}}? ?(?:[ld]')?["'(«]?({_M}{{1,12}})(?={p.CONTRAST_END})|
    (?:{p.AGAINST})(?: thus| ainsi| donc| así)? ?(?:the |an? |la |el |l'|les |los |une? |una )?({_M}{{1,12}})
    |({_M}{{1,12}})(?={p.AGAINST_BEHIND})
""")
_LISTED: Final = re.compile(rf"(?:(?:^|\n)[-•\d.) ]{{0,6}}{_M}{{1,12}}[).,;!\"' -]{{0,4}}(?=\n|$)){{1,12}}")
_STARTS: Final = re.compile(rf"(?:^|[\n;。,]|[:.!?✓✔✅☑√○〇◯❌✗✘✖✕×] )[^\w\ue000-\ue05f]{{0,4}}({_M})")
_OPENS: Final = re.compile(
    rf"[^\w\ue000-\ue01f]{{0,3}}(?:(?:[^\W\d]{{1,14}},? ){{1,4}}(?={_M}{{1,12}}\W{{0,3}}$))?({_M}{{1,12}})"
    rf"(?= ?[.):,;?—\n-]| (?:only|{p.REASON})\b|のみ| ?$)"
)
_LABELS: Final = re.compile(rf"(?:[^\ue000-\ue05f]{{0,200}}{_M}\)){{3}}")
# A list that breaks off behind a label.
_CUT_OFF: Final = re.compile(
    rf"(?:^|\n)[-•(]{{0,2}} ?{_M}\)?[:.)][^\n]{{2,600}}\n(?:[^\n]{{0,600}}\n){{0,40}}[-•(]{{0,2}} ?{_M} ?\)?[:)] ?$"
)
_CLOSES: Final = re.compile(rf"(?:\n|[.!?。] ?)[-•.,(\"' ]{{0,6}}({_M}{{1,12}})[).,;!。\"' -]{{0,6}}$")
_LABEL: Final = re.compile(rf"^(\W{{0,4}}{_M}{{1,12}}) ?\. ?(?=[^\n\ue000-\ue05f])", re.MULTILINE)
_YES_OR_NO: Final = rf"(?P<yes>{p.YES})|(?P<no>{p.NO})|(?P<maybe>{p.MAYBE})"
_YES_NO: Final = _re(_YES_OR_NO)
_OPENS_YES_NO: Final = _re(rf"\W{{0,3}}(?:{_YES_OR_NO})(?=[,、.!;:。\n]| ?—| -|$)")
_ENDS_YES_NO: Final = _re(
    rf"(?:^(?:\w{{2,20}}, )?|{p.SO.any}|(?:{p.ANSWER.any})\W{{0,3}}(?:is|es|est|это|は|是|为)?)\W{{0,3}}"
    rf"(?:{_YES_OR_NO})\W{{0,3}}$"
)


# Verdicts in lists: an option at the start of a line or of a part of a sentence, and a clause that is nothing but a verdict.
_ITEM: Final = re.compile(
    rf"(?:^|\n"
    rf"|[.;,。!?)] ?|(?<=[✓✔✅☑√○〇◯❌✗✘✖✕×]) ?)[^\w\ue000-\ue05f\n✓✔✅☑√○〇◯❌✗✘✖✕×]{{0,5}}"
    rf"(?:\d{{1,2}}[.):]? ?)?(?:\w{{2,12}} )?({_M}{{1,12}})"
)
_CLAUSES: Final = re.compile(r"[.。;,、:()!?\n\"»«]|—|→|->|=>| - |=")
_BOTH: Final = rf"(?P<right>{p.TICK})|(?P<wrong>{p.CROSS})"
_VERDICT: Final = _re(rf"(?:(?:{p.BEFORE_VERDICT}|{_M}) ?){{0,5}}(?:{_BOTH})(?: ?(?:{p.BEHIND_VERDICT})){{0,3}}")
_VERDICT_FIRST: Final = _re(
    rf"[ :(,=>→[\"—-]{{0,5}}(?:(?:{p.BEFORE_VERDICT}) ?){{0,3}}(?:{_BOTH})(?: ?(?:{p.BEHIND_VERDICT}))?"
    rf"(?=[\"') \]]{{0,2}}(?:[.,;:!。—(\n-]|$| (?:{p.REASON})\b))"
)
_HEADED: Final = _re(
    rf"(?:^|[\n.;。,、( ])[^\w\ue000-\ue05f]{{0,3}}(?:{_BOTH})(?: (?:{p.OPTION.spaced}|{p.ANSWER.spaced})|もの|选项"
    rf"|の?選択肢)?\)?(?: (?:are|is|son|sont))?[ :—はが]{{1,3}}(?P<marks>{_M}{{1,12}})(?=[ .,、;。)\n]|$)"
)
_ALL_BUT: Final = _re(rf"""
    (?:{p.ALL})[^.;!?。\ue000-\ue05f]{{0,40}}?,? ?(?:{p.EXCEPT}|but) ?(?:for |de |d'|les? |las? |el |l'|the ){{0,2}}({_M}{{1,12}})
    |(?:{p.ALL}),? ({_M}{{1,12}}) (?:excepté|exclu|mise?s? à part|excluid|exceptuad|aparte|excepted|aside|excluded)
    |除[了去掉]?({_M}{{1,12}})(?:这?[两三]?[项个])?(?:之外|以外|外)?[,、]?(?:其[余他它]|都|均|全|皆)
    |({_M}{{1,12}}|{_D}{{1,12}})(?:以外|を除[くいき]|を除いた|除外)(?=は(?:誤|間違|不適|×))|({_M}{{1,12}}
    |{_D}{{1,12}})(?:以外|を除[くいき]|を除いた|除外)[^。;\ue000-\ue05f]{{0,12}}(?:すべて|全て|全部|みな
    |いずれも|残り|都|均|全|皆)
""")
_ALL_LESS: Final = _re(r"\b(?:tod[ao]s?)\b[^.;!?]{0,50}(?:\bmenos|excepción de) (?:las? |el )?[\ue000-\ue01f]")
_ALL_WRONG: Final = _re(rf"\b(?:{p.WRONG.spaced})[^.;]{{0,12}}$")


class _Force(IntEnum):
    """How a mention is put: as the answer, right, merely named, supposed or asked, wrong, as the false one."""

    ANSWER = 3
    RIGHT = 2
    NAMED = 1
    VOID = 0
    WRONG = -1
    ODD = -2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    at: int
    letters: frozenset[str]
    force: _Force
    hedged: bool = False
    concluding: bool = False
    text_only: bool = False
    # An option's text in the middle of a sentence, as in what the patient took before.
    aside: bool = False
    # In a clause that concedes something, as in "although B is common".
    conceded: bool = False
    # What a sentence says that something is.
    predicated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    marked: str
    sentences: tuple[str, ...]
    claims: tuple[_Claim, ...]
    options: Mapping[str, str]
    several: bool


_Reading = frozenset[str] | None
_UNCLEAR: Final = frozenset("?")


def read_paper_answer(text: str, options: Mapping[str, str], *, several: bool) -> frozenset[str] | None:
    """Read the finetuned models' format only: the last complete `###Answer: OPTION A,C IS CORRECT` of the text."""
    found = _PAPER.findall(text)
    return _settled(frozenset(found[-1].upper()) - set(", \n\t\r"), options, several=several) if found else None


def read_answer(text: str, options: Mapping[str, str], language: str, *, several: bool = False) -> frozenset[str] | None:
    """Read the letters that `text` states as its answer; None where it states none, an unclear or an impossible one.

    `options` maps the letters "A" to "J" to the options' texts; `several` says that more than one letter may be right.
    What is probable is an answer, what is merely possible ("it might be B") is none, and the worst option ("the least likely
    is B") is one only where the text concludes it, since the question is not seen here.
    """
    final = final_part(text)
    if final is None:
        return None
    final = _EXAMPLE.sub(r"\1", _ECHO.sub("", _bounded(final), count=1))
    if _PAPER.search(final):
        return read_paper_answer(final, options, several=several)
    field = next((values for pattern in (_BOXED, _TAGGED, _FIELD) if (values := pattern.findall(final))), [])
    if field:
        final = (field[-1] if isinstance(field[-1], str) else field[-1][-1]).strip("[] \n\"'")
        if _ONLY_LETTERS.fullmatch(final):
            named = re.findall(r"\b[A-J]\b", final) or re.findall(r"\b[A-J]\b", final.upper())
            return _settled(frozenset(named), options, several=several)
    if bare := _BARE.fullmatch(final):
        final = bare[1]
    if several:
        final = _HYPHENED.sub(lambda found: found.group().replace("-", ", "), final)
    view = _view(final, options, language, several=several)
    readings = (reader(view) for reader in (_READERS[:2] if field else _READERS))
    return _settled(next((one for one in readings if one is not None), _UNCLEAR), options, several=several)


def _settled(letters: frozenset[str], options: Mapping[str, str], *, several: bool) -> frozenset[str] | None:
    return letters if letters and letters <= options.keys() and (several or len(letters) == 1) else None


def final_part(text: str) -> str | None:
    """The part of a text that counts: from the end of the thinking to the end of the turn; None where thinking has no end."""
    if "<|channel|>" in text:
        _, found, text = text.rpartition("<|channel|>final<|message|>")
        if not found:
            return None
    thinking = list(_THINK.finditer(text)) if re.search("think|thought", text, re.IGNORECASE) else []
    if thinking and not thinking[-1]["close"]:
        return None
    text = text[thinking[-1].end() :] if thinking else text
    asides = list(_ASIDE.finditer(text))
    if asides:
        behind = [tag.end() for tag in asides if tag["close"]]
        text = text[: asides[0].start()] + "\n" + (text[behind[-1] :] if behind else "")
    text = _END.split(_OPENING.sub("", text, count=1), maxsplit=1)[0]
    for next_one in (_NEXT_TURN, _NEXT_QUESTION, _NEXT_TASK):
        begins = next_one.search(text, 0, _CONTINUED)
        before = text[: begins.start()] if begins else ""
        # A numbered step of the reasoning may stand before the options, too.
        asks = next_one is _NEXT_TURN or (next_one is _NEXT_QUESTION and begins is not None and _ASKS.search(begins.group()))
        answers = asks or _ANSWERED.search(f"{before[:_REACH]}\n{before[-_REACH:]}")
        text = before if before.strip() and answers else text
    return text


def _bounded(text: str) -> str:
    """The two ends of a long text, with full-width letters and the like made plain."""
    # "①A" numbers what is a letter of its own.
    plain = unicodedata.normalize("NFKC", re.sub(r"[①-⑩](?=[A-JＡ-Ｊ])", " ", _ends(text)))
    # One character may become eighteen.
    return _ends(plain)


def _ends(text: str) -> str:
    return text if len(text) <= _HEAD + _TAIL + 1 else text[:_HEAD] + "\n" + text[-_TAIL:]


def _plain(text: str) -> str:
    """Text without markup and typographic variety, one space between words and one line break between lines."""
    text = _LATEX.sub(r"\1", _LATEX.sub(r"\1", text))
    text = _CELL.sub(" — ", _ROW_EDGE.sub("", text)) if _ROW_EDGE.search(text) else text
    text = _MARKUP.sub("", re.sub(r"</?br ?/?>", "\n", text).translate(_PUNCTUATION))
    text = _in_lines(re.sub(r"【([^【】\n]{2,8})】", r"\n\1:", text))
    text = re.sub(r"(?<=\d)[^\S\n]%", "%", re.sub(r"[^\S\n]{1,20000}", " ", text)).replace(" \n", "\n").replace("\n ", "\n")
    return re.sub(r"\n{2,20000}", "\n", text).strip()


def _in_lines(text: str) -> str:
    """Text where labels that follow each other and have verdicts, as in "a) false b) true c) false", begin lines."""
    labels = list(_LABEL_WITHIN.finditer(text))
    ends = [label.start() for label in labels[1:]] + [len(text)]
    names = [_code(label[1]) for label in labels]
    alphabet = "AБBГДE" if "Б" in names else "ABCDEFGHIJ"
    cuts = [0]
    for _, run in groupby(enumerate(names), key=lambda one: alphabet.find(one[1]) - one[0]):
        items = [at for at, _ in run]
        judged = (_item_verdict(text[labels[at].end() : ends[at]]) is not None for at in items)
        # Two may say "right" and "wrong" of something else.
        cuts += [labels[at].start() for at in items] if len(items) > 2 and sum(judged) > 1 else []
    return re.sub(r"(\n\W*)\n", r"\1", "\n".join(text[start:end] for start, end in pairwise([*cuts, len(text)])))


def _view(text: str, options: Mapping[str, str], language: str, *, several: bool) -> _View:
    text = _plain(text)
    marked = _marked(text, options, language, several=several) if len(_LONE.findall(text)) <= _MOST_LETTERS else ""
    sentences = tuple(part for part in _SENTENCE_END.split(marked) if part and part.strip())
    if len(re.findall(f"{_M}{{1,16}}", marked)) > _MOST_MENTIONS:
        sentences = ()
    # Of "none of these" it is no denial that it does not fit.
    none = frozenset(letter for letter, option in options.items() if p.NONE.match(option))
    claims = tuple(claim for at in range(len(sentences)) for claim in _claims(at, sentences, none, several=several))
    if _CUT_OFF.search(marked):
        claims = tuple(claim for claim in claims if claim.force == _Force.ANSWER)
    return _View(marked=marked, sentences=sentences, claims=claims, options=options, several=several)


def _option_texts(options: Mapping[str, str]) -> dict[str, str]:
    """The texts by which an option can be named and its mark, the longest first; what fits two options names none."""
    names: dict[str, set[str]] = {}
    for letter, option in options.items():
        text = _plain(unicodedata.normalize("NFKC", option)).strip(" .。;,「」\"'")
        bare = _LEADING_WORDS.sub("", text)
        if liver := re.fullmatch("([甲乙丙丁戊])型(?:病毒性)?肝炎", text):
            names.setdefault(f"{liver[1]}肝", set()).add(chr(_TEXT + ord(letter) - ord("A")))
        for name in {text, bare, re.sub(r" ?[(\[][^()\[\]]{1,60}[)\]]$", "", bare)}:
            if name and not re.fullmatch("[A-Za-z]", name):
                names.setdefault(name.casefold(), set()).add(chr(_TEXT + ord(letter) - ord("A")))
    longest_first = sorted(names.items(), key=lambda item: -len(item[0]))
    return {name: min(marks) for name, marks in longest_first if len(marks) == 1}


def _coded(options: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
    """Per head, as in "vitamin", the marks of the options that differ in a short code alone, as in "B12"."""
    families: dict[str, dict[str, str]] = {}
    for letter, option in options.items():
        if found := _CODED.fullmatch(unicodedata.normalize("NFKC", option).strip(" .。")):
            codes = families.setdefault(_LEADING_WORDS.sub("", found[1]).casefold(), {})
            codes[_code(found[2])] = chr(_TEXT + ord(letter) - ord("A"))
    return {head: codes for head, codes in families.items() if len(codes) > 1}


def _code(text: str) -> str:
    return "".join(_LOOKALIKE.get(char, char) for char in text.upper())


def _with_codes(text: str, options: Mapping[str, str]) -> str:
    """Text where such codes are marked: in a row, as in "vitamins A, C and K", and alone where they are no letter, as "B12"."""
    for head, codes in _coded(options).items():
        text = _with_family(text, head, codes)
    return text


def _with_family(text: str, head: str, codes: Mapping[str, str]) -> str:
    def row(found: re.Match[str]) -> str:
        # A code that no option has is no letter either.
        marks = _CODE.sub(lambda code: codes.get(_code(code.group()), f"x{code.group()}"), found[2])
        return marks if re.match(_T, marks) else found[1] + marks

    stem = re.escape(head[:-2]) + "[а-яё]{0,4}" if re.search("[а-я]$", head) else re.escape(head) + "s?"
    text = re.sub(rf"((?i:\b{stem})[ -]?)({_CODE.pattern}(?:{_CODE_GAP}{_CODE.pattern}){{0,9}})", row, text)
    return _CODE_ALONE.sub(lambda found: codes.get(_code(found.group()), found.group()), text)


def _with_numbers(text: str, options: Mapping[str, str]) -> str:
    """Numbered lines that repeat the options in their order, even if shortened, begin with the option's letter."""

    def named(found: re.Match[str]) -> str:
        letter = chr(ord("A") + int(found[2]) - 1)
        start = options.get(letter, "").strip()[:6].casefold()
        return f"{found[1]}{_letter(letter)}: {found[3]}" if start and found[3].casefold().startswith(start) else found.group()

    return re.sub(r"(?m)^([-• ]{0,3}([1-9])[.)] ?)([^\n]{1,300})", named, text)


def _with_ordinals(text: str, options: Mapping[str, str]) -> str:
    """An ordinal that names an option in a short text or in the last sentence, marked; one that may count other things stays."""
    ends = (
        [found.end() for found in re.finditer(r"[.。!?](?=\s|[^\x00-\u2fff])|\n", text.rstrip(" .。!\n"))]
        if len(text) > 60
        else []
    )
    start = ends[-1] if ends else 0
    head, last = text[:start], text[start:]

    def marked(found: re.Match[str]) -> str:
        # "Repeat the second one" and "a third option" name none.
        if _COUNTS.search(last, max(0, found.start() - _REACH), found.start()):
            return found.group()
        word = next(group for group in found.groups() if group)
        index = next((i for i, one in enumerate(p.ORDINALS) if re.fullmatch(one, word, re.IGNORECASE)), len(options) - 1)
        before = found.group()[: found.group().index(word)].removesuffix("第")
        return (
            f"{before} {chr(_TEXT + index)}" if index < len(options) and f"{index + 1}" not in options.values() else found.group()
        )

    pattern = _ORDINAL if p.PAIR.search(text) else _ORDINAL_ALONE
    named = {found.group().casefold() for found in p.COUNTING.finditer(last)}
    return head + pattern.sub(marked, last) if len(named) < 2 else text


def _is_common(text: str) -> bool:
    """Whether an option's text is too short, or too common a word, to be looked for in running prose."""
    is_short = len(re.findall(r"[\u3040-\u9fff]", text)) < 2 and len(re.findall(r"[^\W\d_]", text)) < 4
    return is_short or _YES_NO.fullmatch(text) is not None


def _text_pattern(text: str) -> str:
    """A pattern for an option's text that forgives spacing, a plural and, in Russian, the ending of a long word."""
    words = [
        re.escape(word[: -2 if len(word) > 4 else -1]) + "[а-яё]{0,4}"
        if re.fullmatch("[А-Яа-яЁё]{4,40}", word)
        else re.sub("(?<=[一-鿿])[はが](?=[一-鿿])", "[はが]", re.escape(word))
        for word in re.split(r"[\s-]{1,9}", text)
    ]
    head = rf"(?<![{_WORD}])" if re.match(rf"[{_WORD}]", text) else ""
    tail = rf"(?:e?s)?(?![{_WORD}])" if re.search(rf"[{_WORD}]$", text) else ""
    # A short last word stands apart: "витамина" is not "витамин А".
    return head + re.sub(r"(?<=\})\[\\s-\]\{0,2\}(?=[^\\]$)", r"[\\s-]{1,2}", r"[\s-]{0,2}".join(words)) + tail


def _named_in(claims: Iterable[_Claim]) -> frozenset[str]:
    return frozenset(letter for claim in claims for letter in claim.letters)


def _letter(letter: str) -> str:
    return chr(_LETTER + ord(letter) - ord("A")) if letter <= "J" else _UNKNOWN


def _letters(group: str) -> frozenset[str]:
    """The letters of a run of marks; "?" stands for what names no single option."""
    return frozenset(chr(ord("A") + ord(mark) % 0x10) if ord(mark) % 0x10 < 10 else "?" for mark in group)


def _marked(text: str, options: Mapping[str, str], language: str, *, several: bool) -> str:
    """The text with every mention of an option replaced by its mark, and with what belongs together in one group."""
    names = _option_texts(options)
    rare = {name: re.compile(_text_pattern(name), re.IGNORECASE) for name in names if not _is_common(name)}
    for option in options.values():
        # "CT" and "PTC" are short, but no common words.
        if _ACRONYM.fullmatch(short := option.strip(" .。")) and short.casefold() in names:
            rare[short.casefold()] = re.compile(rf"(?<![{_WORD}-])(?-i:{short})(?![{_WORD}-])")
    common = [name for name in names if name not in rare]
    whole = text.strip(" .。!").casefold()
    if whole in common:
        return names[whole]
    text = _with_ordinals(_with_codes(_with_numbers(text, options), options), options)
    if rare:
        every = re.compile("|".join(one.pattern for one in rare.values()), re.IGNORECASE)
        text = every.sub(lambda found: next(names[name] for name, one in rare.items() if one.fullmatch(found.group())), text)
    text = _with_letters(_LETTER_GAP.sub(", ", text), options, language)
    if common:
        # A word like "no" counts only where it is put as the answer, or as the text of a letter.
        words = "|".join(map(re.escape, common))
        put = re.compile(
            rf"({_PUT}|{_ABOUT}(?=\d))({words})(?=[\"'»」]?(?:[).,;!。、\n ]|$|です|である|だ|とな))(?! ?/)", re.IGNORECASE
        )
        text = put.sub(lambda found: found[1] + names[found[2].casefold()], text)
    return _without_menus(_grouped(text), several and len(options))


def _with_letters(text: str, options: Mapping[str, str], language: str) -> str:
    has_cyrillic_list = _CYRILLIC_LIST.search(text) is not None

    def marked(found: re.Match[str]) -> str:
        word = found.group()
        before, behind = text[max(0, found.start() - 24) : found.start()], text[found.end() : found.end() + 24]
        whole = found.start() == 0 and not behind.strip(" .。)")
        noun = _NOUN_BEFORE.search(before) is not None
        is_named = whole or noun or _LINK_BEFORE.search(before) is not None
        if len(word) > 1:
            word = "".join(_LOOKALIKE.get(letter, letter) for letter in word)
            is_run = list(word) == sorted(set(word)) and set(word.upper()) <= options.keys()
            is_put = (whole if word.islower() else is_named) and _RUN_END.match(behind)
            is_put = is_put or re.match("[均都全]|正确|[がは](?:正し|正解|適切)|を選", behind)
            return "".join(map(_letter, word.upper())) if is_run and is_put else word
        opener = re.search(r"([A-Za-zÀ-ÿЀ-ӿ])?([(\[\"'「『«【<]) ?$", before)
        enclosed = opener is not None and behind.lstrip(" ").startswith(_CLOSERS[opener[2]])
        if enclosed and opener is not None and opener[1]:
            return word
        if enclosed and word in "VFT" and re.search(r"\b[A-J] ?\($", before):
            return word
        # "B リンパ腫" may label its own text.
        begins = options.get(word.upper(), "")[:3].casefold() == behind.strip()[:3].casefold()
        if not enclosed and (p.OTHER_NAME.search(before) or (p.OTHER_USE.match(behind) and not begins)):
            return word
        if word in "БГДбгд" or (has_cyrillic_list and word in "ВСЕсе"):
            heads = re.search(r"(?:^|\n)[-• ]{0,3}$", before) and re.match("[).:]", behind)
            return _UNKNOWN if is_named or enclosed or heads else word
        letter = _LOOKALIKE.get(word, word)
        own = re.match(f" ?({_T})", behind)
        labels_text = own is not None and _letters(own[1]) == {letter.upper()}
        if letter.islower() or word in "асе":
            label = found.start() == 0 or re.search(r"(?:[。;]|\n[-• ]{0,3})$", before)
            label = (
                label or (behind.startswith(")") and re.search(r"[.;,!?] $", before)) or re.search("[○〇◯×✕✗✘✓✔❌✅] ?$", before)
            )
            ends = labels_text or _LOWER_END.match(behind)
            article = behind.startswith(")") and re.search(r"\b[Ll]a $", before) is not None
            put = article or ((is_named or _LISTED_BEFORE.search(before)) and ends)
            follows = re.match(" ?(?:[はがをとのもやかで、。項选项肢]|また|およ|及び)", behind)
            cjk = follows and not re.search(rf"[{_WORD}]$", before)
            labels = label and (re.match(r"[).:]| ?[○〇◯×✕✗✘✓✔❌✅]| ?[,、・/] ?[a-j]\b", behind) or _IS_JUDGED.match(behind))
            return _letter(letter.upper()) if enclosed or whole or put or labels or cjk else word
        # "A and E." names E, also where there is no such option: the answer is outside of them then.
        ends_list = _LIST_BEFORE.search(before) and _RUN_END.match(behind)
        named = is_named or enclosed or ends_list
        if letter not in options and (not named or re.search(r"\b[A-Ja-j] ?[:.)=] ?$", before)):
            return word
        if word in "АВСI" or (letter == "A" and language not in ("zh", "ja")) or (letter == "E" and language == "es"):
            article = re.search(r"\b[Ll]a $", before) is not None
            article = article or (_CHOSEN_BEFORE.search(before) is not None and _CHOSEN_END.match(behind) is not None)
            if not (enclosed or noun or article or labels_text or ends_list or p.VERB.match(behind)):
                return word
        return _letter(letter)

    return _LONE.sub(marked, text)


def _grouped(text: str) -> str:
    def same(found: re.Match[str]) -> str:
        one, between, other = found.groups()
        if _letters(one) == _letters(other):
            return chr(_LETTER + ord(one) % 0x10)
        ends = re.match(r"[\"'»」)]? ?(?:[.。\n]|$)", text[found.end() : found.end() + 4])
        return _UNKNOWN if ends and not re.search("[,、]", between) else found.group()

    def denied(found: re.Match[str]) -> str:
        if _ALL_LESS.search(text, max(0, found.start() - 60), found.end()):
            return found.group()
        return " " + "".join(chr(ord(mark) + _DENIED) for mark in found[1] or found[2] or found[3])

    text = _OPENING_LABEL.sub(r"\1\n", _TEXT_AND_LETTER.sub(same, text))
    text = _OF_NOUN.sub(r"\1", _NOUN_OF.sub(r"\1", _QUOTED.sub(r"\1", text)))
    text = re.sub(rf"^({_T})( ?[—:-] ?)({_L})(?=[.。]?$)", same, _LETTER_AND_TEXT.sub(same, text))
    text = _RUN.sub(lambda found: "".join(re.findall(_M, found.group())), _GLOSS.sub(r"\1", text))
    # "This vein and B alike": what stands beside B is no option.
    text = re.sub(rf"(?<=[一-鿿ァ-ヿ])([和与及或とや])({_T})(?=[均都皆]|いずれも|とも|の両)", rf"\1{_UNKNOWN}\2", text)
    text = re.sub(rf"{_T}{{2,9}} ?\(?({_L}{{2,9}})\)?", r"\1", text)
    text = _OF_NOUN.sub(r"\1", _ALTERNATIVE.sub(rf"\1{_EITHER}", text))
    # A full stop behind a label ends no sentence.
    return _LABEL.sub(r"\1: ", _DENIES.sub(denied, text))


def _without_menus(text: str, most: int) -> str:
    """Join a list of mere mentions to the heading that calls them the answer; drop one that repeats the options."""

    def joined(found: re.Match[str]) -> str:
        marks, heading = re.findall(_M, found.group()), text[: found.start()].rpartition("\n")[2]
        is_heading = (heading.endswith(":") or len(heading) < 30) and not re.search("^[-•]|[.?!。]$", heading)
        if is_heading and _HEADING.search(heading) and not p.MENU.search(heading):
            return (" " if heading.endswith(":") else ": ") + "".join(marks)
        if 1 < len(marks) < most and (len(found.group()) == len(text) or (found.start() == 0 and "\n" not in found.group())):
            return "".join(marks)
        return found.group() if len(marks) == 1 or len(found.group()) == len(text) else ""

    return _LISTED.sub(joined, text).strip()


def _script(sentence: str) -> str:
    return "ja" if re.search("[ぁ-ヿ]", sentence) else "zh" if re.search("[一-鿿]", sentence) else "spaced"


def _claims(at: int, sentences: Sequence[str], none: frozenset[str], *, several: bool) -> Iterator[_Claim]:
    sentence, is_last = sentences[at], at == len(sentences) - 1
    for denied in re.finditer(f"{_D}{{1,16}}", sentence):
        yield _Claim(at=at, letters=_letters(denied.group()), force=_Force.WRONG)
    script, concluding = _script(sentence), _CONCLUDES.match(sentence) is not None
    # "Why B?" asks for the reasons of an answer.
    asked = re.search(r"\?[\"')]?$|吗。?$|か。$", sentence) is not None and (len(sentences) > 1 or len(sentence) > 3)
    is_why = _WHY.fullmatch(sentence.strip()) is not None
    alone = len(re.findall(f"{_M}{{1,16}}", sentence)) == 1
    last, previous = 0, _Force.NAMED
    marks = re.findall(_M, sentence)
    if len(marks) >= _STUCK and len({*marks}) == 1 and ord(marks[0]) >= _TEXT:
        return
    for group in re.finditer(f"{_M}{{1,16}}", sentence):
        before = sentence[max(0, group.start() - 2 * _REACH) : group.start()]
        pre = sentence[max(last, group.start() - _REACH) : group.start()]
        post = re.split(f"{_M}|{_D}", sentence[group.end() : group.end() + _REACH], maxsplit=1)[0]
        before = _TURN.split(before)[-1]
        condition = p.IF.search(before)
        clause = re.split("[,;:]", pre)[-1][-24:] + post
        supposed = (condition and p.WOULD.search(before, condition.end())) or p.WOULD_IF.match(clause)
        text_only = re.fullmatch(f"{_T}+", group.group()) is not None
        void = asked or supposed or p.REPORTED.search(_TURN.split(pre)[-1]) or p.TEMPTS.match(post)
        replies = (
            at > 0 and group.start() < 12 and alone and _REPLIES.search(sentences[at - 1]) and re.match(r" ?[,.;!。]|$", post)
        )
        force = _Force.ANSWER if is_why else _Force.VOID if void else _force(pre, post, script, text_only=text_only)
        if force == _Force.WRONG and text_only and _letters(group.group()) <= none:
            force = _Force.RIGHT
        if (
            force == _Force.NAMED
            and text_only
            and p.PAST.search(re.split("[,;]", pre)[-1] + "," + re.split("[,;]", sentence[group.end() : group.end() + _REACH])[0])
        ):
            force = _Force.VOID
        if force == _Force.NAMED and previous == _Force.WRONG and p.ELIDED.search(f"{pre[-20:]}\ue000{post[:20]}"):
            force = _Force.WRONG
        if not (concluding or void) and (_STATES_LEAST.search(pre) or _IS_LEAST.match(post)):
            force = _Force.WRONG
        if replies and force == _Force.NAMED:
            force = _Force.RIGHT
        if several and force == _Force.ANSWER and not (_STATES.search(pre) or _IS_ANSWER.search(post[:70])):
            # "I choose A" may be one choice of several; only "the answer is A" is known to be all of it.
            force = _Force.RIGHT
        hedged = p.HEDGE.search(_TURN.split(pre)[-1]) is not None
        ends = is_last and _LINK.search(pre) and _END_OF_ALL.match(post) and not (hedged or p.MENU.search(pre))
        sums_up = is_last and alone and text_only and _SO_WORD.search(pre)
        is_inside = text_only and len(pre) > 12 and len(post.partition(" rather than ")[0]) > 20
        yield _Claim(
            at=at,
            letters=_letters(group.group()),
            force=force,
            hedged=hedged,
            concluding=bool(concluding or ends or replies or sums_up or _SO_BEFORE.search(pre) or _SO_BEHIND.match(post)),
            text_only=text_only,
            aside=is_inside and p.HISTORY.search(pre) is not None,
            conceded=_CONCEDES.search(pre) is not None or (text_only and _WOULD_DO.match(post) is not None),
            predicated=_IS.search(pre) is not None and _IS_END.match(post) is not None,
        )
        last, previous = group.end(), force


def _verdict(post: str, script: str) -> _Force:
    """Whether what follows a mention calls it right or wrong."""
    if p.OTHERS.match(post.lstrip(" ,;")) or p.SURE.match(post) or _CONTRASTS.match(post):
        return _Force.NAMED
    calls_right, calls_wrong = _CALLS_RIGHT[script], _CALLS_WRONG[script]
    if script == "ja":
        # A Japanese clause ends on its verdict.
        post = p.OTHERS.split(post, maxsplit=1)[0]
        right_end = max((found.end() for found in calls_right.finditer(post)), default=-1)
        wrong_end = max((found.end() for found in calls_wrong.finditer(post)), default=-1)
        return _Force.NAMED if right_end == wrong_end else _Force.RIGHT if right_end > wrong_end else _Force.WRONG
    post = _CLAUSE_END.split(post.lstrip(" ,:—-"), maxsplit=1)[0][:90]
    right, wrong = calls_right.search(post), calls_wrong.search(post)
    # "Appropriate in mild disease only" is not said of this case.
    if right and (p.HEDGE.search(post, 0, right.start() + 1) or _ONLY_THERE.search(post, right.end())):
        return _Force.NAMED
    if wrong and (not right or wrong.start() < right.end()):
        return _Force.WRONG
    return _Force.RIGHT if right else _Force.NAMED


def _force(pre: str, post: str, script: str, *, text_only: bool) -> _Force:
    wrong = _CALLS_WRONG[script]
    if states := _STATES.search(pre):
        region = re.split("[,;、]", pre[max(0, states.start() - 14) : states.start()])[-1] + states.group()
        if _NEGATED.search(pre, 0, states.start()):
            return _Force.WRONG
        if p.MENU.search(region) or p.OTHERS.search(region):
            return _Force.NAMED
        if _ODD_WORD.search(region) and not _ASKED_ODD.search(region):
            return _Force.WRONG if _ANSWER_WORD.search(region) else _Force.ODD
        if not wrong.search(states.group()) and (_ENDS.match(post) or _ANSWER_WORD.search(region)):
            return _Force.ANSWER
    if (sign := re.search(r"(?:([✓✔✅☑])|[❌✗✘✖])\W{0,3}$", pre)) and not re.match(r" ?[✓✔✅☑❌✗✘✖]", post):
        return _Force.RIGHT if sign[1] else _Force.WRONG
    states_odd = _STATES_ODD.search(pre) and not re.search("[:=] ?$", pre)
    if _EXCEPT.search(pre) or states_odd or _IS_ODD.match(post.lstrip(" ,")):
        return _Force.WRONG if p.OTHERS.search(pre) and not _EXCEPT.search(pre) else _Force.ODD
    if _CHOOSES.search(pre):
        rejected = wrong.search(re.split("[,;]", pre)[-1]) or _verdict(post[:20], script) == _Force.WRONG
        return _Force.WRONG if rejected else _Force.ANSWER
    answer = _IS_ANSWER.search(post[:70])
    if answer and not wrong.search(post[: answer.end()].rpartition(",")[2]):
        return _Force.ANSWER
    verdict = _verdict(post, script)
    if verdict == _Force.WRONG:
        return verdict
    leads = any(phrase.search(pre) for phrase in (_SO_IT_IS, _BARE_ANSWER)) or p.RETRACTS.search(pre + chr(_LETTER))
    if leads and _ENDS.match(post):
        return _Force.ANSWER
    backed = _LEFT_WITH.search(pre) or (
        not wrong.search(pre) and (_BEST_IS.search(pre) or _ONLY.search(pre) or (not text_only and _BACKS.search(pre)))
    )
    return _Force.RIGHT if backed else verdict


def _stated(view: _View) -> _Reading:
    """The last statement of the answer wins, unless it is taken back or stands side by side with a rival."""
    taken_back = max((at for at, sentence in enumerate(view.sentences) if p.RETRACTS.search(sentence)), default=-1)

    def states(claim: _Claim) -> bool:
        concludes = (claim.concluding and not view.several) or 0 <= taken_back <= claim.at
        named = claim.concluding and 0 <= taken_back <= claim.at
        least = _Force.NAMED if named else _Force.RIGHT
        return not claim.hedged and (claim.force == _Force.ANSWER or (claim.force >= least and concludes))

    stated = [claim for claim in view.claims if states(claim)]
    starts = [start for start, _ in groupby(ord(mark) % 0x10 for mark in _STARTS.findall(view.marked))]
    follows = [later == start + 1 for start, later in pairwise(starts)]
    # Letters in order at the starts of sentences list the options, and the first or last of them is no answer.
    opening = _OPENS.match(view.marked)
    # "Perhaps A", "Many choose A" and "The worst choice is A" alone are no answers.
    opened = [claim for claim in view.claims if opening and claim.at == 0 and claim.letters == _letters(opening[1])]
    is_void = any(claim.hedged or claim.force <= _Force.VOID for claim in opened)
    # "B: false; C: true" begins with a verdict.
    is_void |= opening is not None and len(starts) > 1 and _VERDICT_FIRST.match(view.marked, opening.end()) is not None
    if (
        opening
        and not is_void
        and (view.several or len(opening[1]) == 1)
        and follows[:1] != [True]
        and not _LABELS.match(view.marked)
    ):
        stated.insert(0, _Claim(at=0, letters=_letters(opening[1]), force=_Force.ANSWER))
    if (ending := _CLOSES.search(view.marked)) and follows[-1:] != [True]:
        stated.append(_Claim(at=len(view.sentences) - 1, letters=_letters(ending[1]), force=_Force.ANSWER))
    if not stated:
        return None
    last = stated[-1]
    if taken_back < 0 and len({claim.letters for claim in stated if claim.force == _Force.ANSWER}) > 2:
        # A text that goes on and on with other answers settles on none.
        return _UNCLEAR
    rivals = [claim for claim in stated if claim.letters != last.letters]
    if last.at < taken_back:
        return _UNCLEAR
    if not rivals:
        # What is called right later on adds to the answer.
        later = (claim for claim in view.claims if claim.at > last.at and not claim.hedged)
        return last.letters | _named_in(claim for claim in later if claim.force == _Force.RIGHT and len(claim.letters) == 1)
    sentence = view.sentences[last.at]
    near = rivals[-1].at >= last.at - 1
    corrected = p.RETRACTS.search(sentence) or taken_back > rivals[-1].at or p.TURNS.search(sentence)
    return _UNCLEAR if near and not corrected and not _SO_WORD.search(sentence) else last.letters


def _yes_no(view: _View) -> _Reading:
    """The text opens or ends with yes or no, or ends on a verdict about the statement, where these are the options."""
    texts = {letter: _YES_NO.fullmatch(option.strip(" .。")) for letter, option in view.options.items()}
    letters = {found.lastgroup: frozenset(letter) for letter, found in texts.items() if found}
    if not letters:
        return None
    final = view.sentences[-1] if view.sentences else ""
    if found := _OPENS_YES_NO.match(view.marked) or _ENDS_YES_NO.search(final):
        return letters.get(found.lastgroup, _UNCLEAR)
    judged = p.STATEMENT.search(final)
    said = final[judged.end() :] if judged else ""
    verdicts = (_verdict(part, _script(final)) for part in (said, said.rpartition(",")[2]))
    verdict = next((one for one in verdicts if one != _Force.NAMED), _Force.NAMED)
    return None if verdict == _Force.NAMED else letters.get("yes" if verdict == _Force.RIGHT else "no", _UNCLEAR)


def _ticked(view: _View) -> _Reading:
    """Every option in turn is called right or wrong, in a list, a table or sentences."""
    if any(_YES_NO.fullmatch(text.strip(" .。")) for text in view.options.values()):
        return None
    headed = {
        letter: found["right"] is not None for found in _HEADED.finditer(view.marked) for letter in _letters(found["marks"])
    }
    verdicts = dict(headed)
    for letters, said in _items(view.marked):
        verdict = _item_verdict(said)
        # "right: A, wrong: B" says all, or it is the end of what is said of another one.
        if verdict is not None and not headed.keys() >= view.options.keys():
            verdicts |= dict.fromkeys(letters, verdict)
    good, options = frozenset(letter for letter, verdict in verdicts.items() if verdict), frozenset(view.options)
    bad = frozenset(verdicts) - good
    if len(good | bad) < 2 or not good | bad <= options:
        return None
    if good | bad != options:
        # Where all others are struck out, one is left.
        left, is_left = options - bad, p.LEFT.search(view.marked)
        return left if not good and len(left) == 1 and (is_left or left <= _named_in(view.claims)) else None
    if view.several or len(good) == 1:
        return good or None
    # Where all but one are right, the question asks for the exception.
    return bad if len(bad) == 1 and len(good) > 1 else _UNCLEAR


def _asserted(view: _View) -> _Reading:
    """The last sentence that says of something that it is one option, where no other one is spoken for behind it."""
    claims = [claim for claim in view.claims if claim.force > 0 and not claim.hedged and not claim.conceded]
    if not claims or view.several or not (_WHOLE.search(view.marked) and claims[-1].predicated):
        return None
    named = claims[-1].letters
    rivals = [claim for claim in claims if claim.letters != named and (claim.at == claims[-1].at or claim.force > _Force.NAMED)]
    return named if len(named) == 1 and not rivals else None


def _left_over(view: _View) -> _Reading:
    """The text ends on "the only one left", and all but one have been spoken of."""
    left = frozenset(view.options) - frozenset(letter for claim in view.claims for letter in claim.letters)
    ends = bool(view.sentences) and p.LEFT.search(view.sentences[-1]) and not re.search(_M, view.sentences[-1])
    return left if ends and len(left) == 1 and len(view.options) > 2 else None


def _items(marked: str) -> Iterator[tuple[frozenset[str], str]]:
    """The options that begin a line or a part of a sentence, each with all that is said up to the next one."""
    starts = list(_ITEM.finditer(marked))
    firsts = list({_letters(one[1]): one for one in reversed(starts)}.values())[::-1]
    ends = [following.start() for following in firsts[1:]] + [len(marked)]
    for one, end in zip(firsts, ends, strict=False):
        yield _letters(one[1]), marked[one.end() : end]


def _item_verdict(said: str) -> bool | None:
    if immediate := _VERDICT_FIRST.match(said):
        return immediate.lastgroup == "right"
    signs = {sign in "✓✔✅☑√○〇◯⭕" for sign in re.findall("[✓✔✅☑√○〇◯⭕❌✗✘✖✕×]", said)}
    if len(signs) == 1:
        return signs.pop()
    line = said.strip().partition("\n")[0]
    for part in (line, said):
        clauses = [clause.strip(" \n•-") for clause in _CLAUSES.split(part) if clause.strip(" .\"'»」")]
        judged = [found for clause in (clauses[-1:] if part is line else clauses) if (found := _VERDICT.fullmatch(clause))]
        if judged:
            return judged[-1].lastgroup == "right"
    return None


def _all_but(view: _View) -> _Reading:
    """All options but the named ones."""
    if view.several and not view.claims and len(view.sentences) == 1 and p.ALL_RIGHT.search(view.marked):
        return frozenset(view.options)
    for sentence in reversed(view.sentences):
        if found := _ALL_BUT.search(sentence):
            marks = next(group for group in found.groups() if group)
            named, rest = _letters(marks), re.split(f"{_M}|{_D}", sentence[found.end() :], maxsplit=1)[0]
            left = frozenset(view.options) - named
            is_wrong = _verdict(rest, _script(sentence)) == _Force.WRONG or _ALL_WRONG.search(sentence[: found.start()])
            if view.several or (is_wrong and len(named) == 1):
                return named if is_wrong else left or None
    return None


def _judged(view: _View) -> _Reading:
    """What is called right, or in answer to a negative question wrong, where the text is clear about the rest as well."""
    if p.REFUSES.search(view.marked):
        return _UNCLEAR
    verdicts: dict[str, _Force] = {}
    for claim in view.claims:
        if claim.force not in (_Force.VOID, _Force.NAMED) and not claim.hedged:
            verdicts |= dict.fromkeys(claim.letters, claim.force)
    good = frozenset(letter for letter, force in verdicts.items() if force > 0)
    bad, options = frozenset(verdicts) - good, frozenset(view.options)
    others = {
        at: _verdict(sentence[found.end() :], _script(sentence))
        for at, sentence in enumerate(view.sentences)
        if (found := p.OTHERS.search(sentence))
    }
    odd = _named_in(claim for claim in view.claims if claim.force == _Force.ODD) - good
    if len(odd) == 1:
        return odd
    ends_odd = not view.several and view.claims[-1:] and view.claims[-1].letters == bad and view.claims[-1].concluding
    if len(bad) == 1 and ends_odd and len(good) > 1 and good == options - bad:
        return bad
    if len(bad) == 1 and view.claims[0].letters == bad:
        # The only option that is called wrong is what the text is about, or the others are right.
        is_topic = len(view.sentences) > 2 and _TOPIC.match(view.sentences[0]) and _named_in(view.claims) == bad
        if is_topic or good == options - bad or _Force.RIGHT in others.values():
            return bad
    final = [claim.letters for claim in view.claims if claim.force >= _Force.RIGHT and claim.concluding]
    if view.several:
        if final and good <= final[-1]:
            return final[-1]
        are_wrong = [at for at, verdict in others.items() if verdict == _Force.WRONG]
        aside = min(are_wrong, default=len(view.sentences))
        named = _named_in(claim for claim in view.claims if claim.at < aside or claim.force != _Force.NAMED)
        is_covered = named == good | bad and (not bad or are_wrong or _WHOLE.search(view.marked))
        if good:
            return good if good | bad == options or is_covered else None
    if good:
        return good if len(good) == 1 else final[-1] if final else _UNCLEAR
    left = _named_in(view.claims) - bad
    return left if len(left) == 1 and left | bad == options else None


def _concluded(view: _View) -> _Reading:
    """One option alone is named where the text concludes, or in the whole of it but for the "other options"."""
    ends_on_mention = len(view.sentences) == 1 and re.search(rf"{_M}$", view.marked)
    if not (_WHOLE.search(view.marked) or ends_on_mention):
        return None
    claims = [claim for claim in view.claims if claim.force > 0]
    claims = [claim for claim in claims if not claim.conceded] or claims
    if all(claim.hedged for claim in claims):
        return None
    concluding = [claim for claim in view.claims if claim.concluding]
    last = len(view.sentences) - 1
    if not concluding and not view.several and _named_in(claim for claim in view.claims if claim.at < last) == set(view.options):
        # All options have been discussed, and one is taken up again.
        concluding = [claim for claim in claims if claim.at == last]
    final = [claim for claim in concluding if claim.at == concluding[-1].at]
    if final and all(claim.force > 0 and claim.letters == final[0].letters for claim in final):
        rivalled = final[0].text_only or any(not claim.letters <= final[0].letters for claim in claims)
        if not (view.several and rivalled):
            return final[0].letters
    rest = frozenset(view.options) - (claims[0].letters if claims else frozenset())
    spoken_of = [at for at, sentence in enumerate(view.sentences) if p.OTHERS.search(sentence)]
    spoken_of += [claim.at for claim in view.claims if claim.letters == rest and len(rest) > 1]
    others = min(spoken_of, default=len(view.sentences))
    if not view.several and len(rest) == 1 and len(view.options) > 2 and {claim.letters for claim in claims[1:]} == {rest}:
        # All others stand together, and one apart from them.
        return rest
    named = [claim for claim in claims if claim.at < others]
    if not named or any(claim.letters != named[0].letters for claim in named):
        return None
    first = view.sentences[named[0].at]
    is_partial = view.several and others == len(view.sentences) and _named_in(view.claims) != named[0].letters
    is_discussed = p.DISCUSSES.search(first) or p.MENU.search(first)
    is_aside = all(claim.aside and claim.force < _Force.RIGHT and not claim.concluding for claim in named)
    if is_partial or ((is_discussed or is_aside) and others == len(view.sentences)):
        return None
    return named[0].letters


# From the most explicit to the least.
_READERS: Final = (_all_but, _stated, _yes_no, _ticked, _judged, _concluded, _asserted, _left_over)
