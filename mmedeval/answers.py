"""Reads the option letters that a model chose out of the text that it wrote."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final

# Every mention of an option becomes one private-use character, so that the phrases below never meet an article "A" or
# an option's own words: 0xE000 + i is a bare letter i, 0xE010 + i one that is surely an option's ("option B", "B. its
# text"), 0xE020 + i the text of option i alone; 0x40 more says "denied on the spot".
_BARE: Final = 0xE000
_SURE: Final = 0xE010
_TEXT: Final = 0xE020
_DENIED: Final = 0x40
_UNKNOWN: Final = "\ue00a"
_EITHER: Final = "\ue00b"
# Character classes of such marks: letters, texts, all mentions, denied ones.
_L: Final = "[\ue000-\ue019]"
_T: Final = "[\ue020-\ue029]"
_M: Final = "[\ue000-\ue02f]"
_D: Final = "[\ue040-\ue06f]"

# An answer stands near one of the two ends and among few letters; these bounds keep hostile text cheap.
_HEAD: Final = 4_000
_TAIL: Final = 12_000
_MOST_LETTERS: Final = 1_500
_MOST_MENTIONS: Final = 300
_REACH: Final = 220


def _table(lines: str) -> Mapping[str, str]:
    """Phrases by language, from lines of `language: pattern`; other lines continue the one above."""
    parts = re.split(r"\n *(en|fr|es|ru|zh|ja): ", lines)[1:]
    return MappingProxyType({language: _one_line(pattern) for language, pattern in zip(parts[::2], parts[1::2], strict=True)})


def _one_line(pattern: str) -> str:
    return re.sub(r"\n *", "", pattern)


def _any(*tables: Mapping[str, str]) -> str:
    return "|".join(phrase for table in tables for phrase in table.values())


def _re(pattern: str) -> re.Pattern[str]:
    return re.compile(_one_line(pattern), re.IGNORECASE)


_YES: Final = _table(
    r"""
    en: yes|true
    zh: 是的?|对|正确
    ja: はい
    fr: oui|vrai
    ru: да|верно
    es: sí|si|verdadero|cierto
    """
)
_NO: Final = _table(
    r"""
    en: no|false
    zh: 否|不是|不对|错误?|不正确
    ja: いいえ
    fr: non|faux
    ru: нет|неверно
    es: falso
    """
)
_MAYBE: Final = "maybe|возможно|peut-être|quizás?|可能|不确定"
_AND: Final = "and(?: also)?|as well as|plus|et|ainsi que|y|e|así como|como|и|а также|так и"
_AND_CJK: Final = "和|与|及|以及|跟|や|と|も|および|及び|ならびに|並びに"
_OR: Final = r"(?:and/)?or|vs\.?|versus|(?:et/)?ou|(?:y/)?[ou]|(?:и/)?или|либо"
_OR_CJK: Final = "或者?|还是|か|または|もしくは|あるいは"
_NOUN: Final = _table(
    r"""
    en: \b(?:options?|choices?|statements?|letters?|alternatives?|items?)\b
    fr: \b(?:options?|propositions?|affirmations?|items?|lettres?|assertions?|choix)\b
    es: \b(?:opci[oó]n(?:es)?|alternativas?|afirmaci[oó]n(?:es)?|letras?|incisos?|literal(?:es)?)\b
    ru: \b(?:вариант(?:а|ы|ом|ов|у|е)?|опци[яиюей]{1,2}|букв[аыуой]{1,2}|пункт(?:а|ы|ом)?|утверждени[еяй])\b
    zh: 选项|選項|项|項
    ja: 選択肢|オプション|肢
    """
)
_NOUN_BEHIND: Final = "选项|選項|项|項|の?選択肢|の?オプション|肢|の選択(?!肢)"
_ANSWER: Final = _table(
    r"""
    en: \b(?:answers?|ans\.)
    fr: \br[eé]ponses?\b
    es: \brespuestas?\b
    ru: \bответ(?:а|ы|ом|ами|ов)?\b
    zh: 答案|作答
    ja: 答え|正解|正答|解答|回答
    """
)
_RIGHT: Final = _table(
    r"""
    en: \b(?:correct|right|chosen|selected|final|solution|my (?:choice|pick|selection))\b
    fr: \b(?:bon(?:ne)?s?|correcte?s?|exacte?s?|vraie?s?|justes?|solution|mon choix)\b
    es: \b(?:correct[ao]s?|ciert[ao]s?|verdader[ao]s?|acertad[ao]s?|solución|mi selección|elección)\b
    ru: (?<!не)(?<!не )\b(?:правильн\w{1,3}|верн(?:ый|ая|ое|ые|ы|о|ым|ыми)|вер[её]н|выбор)\b
    zh: (?<!不)正[确確]|结论|最终选择
    ja: 正しい(?!とは)|結論|選んだ|選ぶ|選択した|当てはまる|該当する|実際|本当|(?<!不)適切な(?:の|もの|選択肢|対応|治療
        |検査|処置|診断|組合せ|説明|薬剤)
    """
)
_BEST: Final = _table(
    r"""
    en: \b(?:most (?!common|often|frequent|of |patients|cases|people|notabl)\w{1,20}|best|first-line|of choice
        |gold standard)\b
    fr: \b(?:plus (?:probable|approprié|adapté|plausible|vraisemblable|indiqué|compatible|pertinent)e?|meilleure?
        |de choix|première intention|classique)\b
    es: \b(?:más (?:probable|adecuad[ao]|apropiad[ao]|indicad[ao]|compatible|acertad[ao]|plausible)|mejor
        |de (?:primera )?elección)\b
    ru: \b(?:наиболее (?:вероят|подходящ|точн|правильн|соответств|обоснован|корректн)\w{1,6}|лучш\w{1,3}|первой линии
        |скорее всего|вероятнее всего)\b
    zh: 最(?:有?可能|佳|合适|适合|恰当|符合|好|适宜|应)|首选|首先考虑|可能性[最较更]?[大高]
    ja: 最も(?:可能性|考え|適|疑|一致|当て|妥当)|最適|第一選択|挙げられ
    """
)
_CHOOSE: Final = _table(
    r"""
    en: \b(?:choos\w{1,3}|chose|select(?:ing|ed)?|pick(?:ing|ed)?|go(?:ing)? with|opt(?:ing|ed)? for|settled? on
        |(?:would|'d) (?:say|answer|guess)|vote for|stick with|meant?|arrive at|go(?:ing)? for|(?:lean(?:ing)?
        |inclined) (?:towards?|to)|mark)
    fr: \b(?:choisi\w{0,4}|sélectionn\w{1,4}|reti(?:ens|endrais?)|retenons|retenir|coche\w{0,2}|opt\w{1,4} pour
        |répond(?:s|rais?)|je dirais(?: que)?(?: c'est)?|choix se porte sur|voulais dire|valide|vote pour
        |penche\w{0,4} pour)
    es: \b(?:elijo|eleg\w{2,5}|escojo|escog\w{2,5}|seleccion\w{1,5}|marc(?:o|aría|amos|ar)|opt\w{1,4} por|quedo con
        |inclin\w{1,3} por|señalo|señalaría|diría(?: que)?|contestaría|quise decir|apostaría por)
    ru: \b(?:выбира\w{1,4}|выбер\w{1,4}|выбра\w{1,4}|выбор\w?|склоня\w{2,4} к|остан\w{3,6} на|отмет\w{1,4}|получа\w{2,4}
        |ответить|имел\w? в виду)
    zh: 选择?|選擇?|倾向于|我是说
    ja: 選択した|選んだ
    """
)
_SO: Final = _table(
    r"""
    en: \b(?:so|thus|hence|therefore|in (?:conclusion|summary|short)|overall|consequently|accordingly|ultimately
        |to conclude|as a result|taken together)\b
    fr: \b(?:donc|ainsi|par conséquent|en (?:conclusion|résumé|somme)|c'est pourquoi|dès lors|au total)\b
    es: \b(?:por (?:lo )?tanto|por ende|así (?:que|pues)|en (?:conclusión|resumen)|por consiguiente|entonces|de modo que
        |por eso)\b
    ru: \b(?:таким образом|следовательно|поэтому|итак|значит|в итоге|вывод|исходя|в заключение)\b
    zh: 因此|所以|故|综上|总之|由此|可见|因而|最终
    ja: したがって|従って|よって|以上|ゆえに|結論|このため|そのため|つまり
    """
)
_RIGHT_BEHIND: Final = _table(
    r"""
    en: (?:\b(?:is|are|be|being|remains?|seems?|appears?|was|as|looks) (?:\w{1,12} ){0,4}?|^\W{0,4})(?:correct|true
        |right(?! \w)|accurate|best|appropriate|valid|preferred|ideal|optimal|first-line|supported|most (?:likely
        |appropriate|consistent|accurate|suitable|probable|fitting|plausible|logical|compatible|reasonable|effective))\b
        |\bbest (?:fits?|explains?|describes?|matches|answers)|\bfits? best|^\W{0,4}(?:fits?|matches)\b
    fr: (?:\b(?:est|sont|serait|semble|paraît|reste|étant|être) (?:\w{1,12} ){0,4}?|^\W{0,4})(?:l[ae]s? )?(?:bonn
        |correct|exact|vrai|juste|meilleur|adapté|approprié|valid|plus (?:probable|approprié|adapté|plausible
        |vraisemblable|indiqué|compatible|pertinent))\w{0,3}|\bconvien\w{1,3}|s'impose
        |^ ?qui (?:répond|correspond|explique)
    es: (?:\b(?:es|son|sería|ser|parece|resulta|está|están) (?:\w{1,12} ){0,4}?|^\W{0,4})(?:l[aoe]s? |el )?(?:correct
        |ciert|verdader|adecuad|acertad|válid|mejor|apropiad|exact|más (?:probable|adecuad|apropiad|indicad|compatible
        |acertad|plausible))\w{0,3}|\bencajan?\b|\bsí l[oa]
    ru: (?<!не)(?<!не )\b(?:верн(?:а|о|ы|ый|ая|ое|ым|ые|ой|ыми)|вер[её]н|правильн\w{1,3}|правил[ье]н|корректн\w{0,3}
        |корректен|подход\w{2,4}|соответств\w{2,4}|лучш\w{1,3}|обоснован\w{0,3}|обусловлен\w{0,2}|наиболее (?:вероят
        |подходящ|точн|правильн|соответств|обоснован|корректн)\w{1,6})\b
    zh: 正[确確]|准确|符合|最[佳好为优应合可有适恰]|可能性[最较更]?[大高]|首选|是对的|对(?=[。,;]|$)|更(?:符合|合适
        |可能)|合适|恰当|为宜
    ja: 正し(?:い(?!とは)|く、)|(?<!不)適切(?!では?な|では?あり|とは|性|な治療を|に)|正解(?!では?な)|正答|最適|妥当
        |該当(?!し(?:な|ませ))|最も(?:可能性|考え|適|疑|一致|当て)|^だ?と(?:考え(?:られ)?(?:る|ます)|思|判断|診断
        |な[るり]|す)
    """
)
_WRONG_BEHIND: Final = _table(
    r"""
    en: \bnot\b|n't\b|\b(?:never|incorrect|wrong|false|untrue|inaccurate|less|least|unlikely|inappropriate|excluded
        |eliminated|cannot|neither|irrelevant|unrelated|inconsistent|fails?|rather than|lacks|discarded|ruled out)\b
    fr: \bn(?:e |')|\b(?:pas|fau(?:x|sses?)|inexact\w{0,2}|incorrect\w{0,2}|erroné\w{0,2}|exclue?s?|écarté\w{0,2}|moins
        |éliminé\w{0,2}|peu probable|inadapté\w{0,2}|jamais)\b
    es: \b(?:no|incorrect\w{1,2}|fals[ao]s?|erróne[ao]s?|equivocad[ao]s?|descart\w{1,6}|inexact\w{1,2}|menos|tampoco
        |nunca|excluy\w{1,4}|inadecuad[ao]s?|improbables?)\b
    ru: \bне\b|\b(?:неверн\w{1,3}|неправильн\w{1,3}|неправил[ье]н|(?<!методом )исключ\w{2,6}|ошибочн\w{1,3}
        |некорректн\w{1,3}|менее|ложн\w{1,3}|маловероят\w{1,4}|неподход\w{1,5}|невер[её]н|отпада\w{1,2})\b
    zh: 不(?:[正符对是属适会能可宜应准恰合选太需具涉作包予存够足伴如佳]|考虑|支持|成立|参与|相符|完全|直接|一定|典型
        |明显)|错|误|无关|排除|没有|并非|非(?!常)|无法|未|缺乏|少见|除外
    ja: 誤|不適|間違|ない|なく|ません|(?<![必ま])ず(?=[、。ま]|$)|除外|否定|考えにく|低い|困難|とは言え|違い|違う
    """
)
# The answer to "which is not true?" is often stated as the false one.
_ODD: Final = _table(
    r"""
    en: \b(?:incorrect|false|wrong|untrue|inaccurate|exception|odd one|least \w{3,12}|not (?:true|correct|accurate
        |a \w{3,12}))\b
    fr: \b(?:fau(?:x|sses?)|inexactes?|incorrectes?|erronées?|exception|intrus)\b
    es: \b(?:fals[ao]s?|incorrect[ao]s?|erróne[ao]s?|excepción)\b
    ru: \b(?:неверн\w{1,3}|неправильн\w{1,3}|ложн\w{1,3}|ошибочн\w{1,3}|исключение\w?)\b
    zh: 错误|不正确|不属于|不包括|不符合|有误
    ja: 誤って|誤り|間違って|不適切|適切でない|正しくない|当てはまらない|該当しない|認められない
    """
)
_ODD_BEHIND: Final = _table(
    r"""
    en: is the (?:only )?(?:incorrect|false|wrong|untrue|inaccurate|odd|exception|one that (?:is|does) not)
    fr: est (?:donc )?la (?:seule )?(?:proposition |réponse |affirmation )?(?:fausse|inexacte|incorrecte|exception)
    es: es (?:por tanto )?(?:la|el) (?:única )?(?:afirmación |opción |respuesta )?(?:falsa|incorrecta|errónea|excepción)
    ru: является (?:единственным )?(?:неверным|ложным|исключением)
    zh: 是(?:唯一)?(?:错误|不正确)的(?:选项|说法|叙述|描述|原因|理由|(?=[。,;]|$))
    ja: が(?:誤り|誤って|間違|不適切)
    """
)
_ANSWER_BEHIND: Final = _table(
    r"""
    en: \b(?:is|are|be|as|remains?|was|represents?|being) (?:\w{1,12} ){0,2}?(?:the|my|our) (?!second|other|next|third
        |wrong|incorrect)(?:\w{1,12} ){0,3}?(?:answers?|choice|option|pick|selection)\b
        |^ ?the (?:\w{1,12} ){0,3}?(?:answers?|choice|option)\b|^ ?(?:is|was|has been) (?:chosen|selected)\b
    fr: \b(?:est|sont|serait|reste|correspond à) (?:\w{1,12} ){0,2}?(?:la|les|le|ma|mon) (?:\w{1,12} ){0,2}?(?:réponses?
        |choix|option|bonne|correcte|vraie)\b|^ ?est (?:choisi|retenu|à retenir)
    es: \b(?:es|son|sería) (?:\w{1,12} ){0,2}?(?:la|las|mi|el) (?:\w{1,12} ){0,2}?(?:respuestas?|elección|correctas?
        |opción)\b
    ru: (?:—|\b(?:это|является|являются)) (?:\w{1,14} )?(?:правильн|верн)\w{1,3} (?:ответ|вариант|выбор)
        |^ ?(?:был[аи]? )?выбран
    zh: [是为](?:本题|该题|此题|该?问题|最终|最佳|正确|的){0,3}(?:答案|选项(?=[。,;]|$))
    ja: が(?:最も)?(?:正しい|適切な|最適な|正解である|最適である|適切である)理由|を選|を正解|が正解|が正答|が答え|が解答
        |が正しい(?:答え|選択肢|解答)
    """
)
_AGAINST: Final = _table(
    r"""
    en: \b(?:not|rather than|instead of|excluding|eliminat(?:es?|ed|ing)|rul(?:es?|ed|ing) out|exclud(?:es?|ed)
        |discard(?:s|ed|ing)?|reject(?:s|ed|ing)?|neither|nor|(?:cannot|can't|isn't|aren't|wouldn't|couldn't)(?: be)?
        |not be)
    fr: \b(?:non(?: pas)?|pas(?: être)?|plutôt que|au lieu de|ni|élimin\w{1,5}|exclu\w{0,4}|écart\w{1,5})
    es: \b(?:no|en (?:lugar|vez) de|ni|descart\w{1,5}|excluy\w{1,4}|elimin\w{1,5}|no (?:es|son|puede ser|sería))
    ru: \b(?:не|а не|вместо|исключ\w{2,6}|ни|не (?:может быть|является|будет))
    zh: 不是|而不是|而非|并非|非|不选|不能选|不应选|不应为|不为|排除|不会是|误选|错选|不考虑
    """
)
_AGAINST_BEHIND: Final = "では(?:な|あり)|でな|じゃな|を除|は除外|以外"

_COPULA: Final = _one_line(
    r"""
    (?:\b(?:is|are|be|was|being|est|sont|serait|seraient|être|es|son|ser|ser[ií]an?|ser[aá]|является|являются|это|будет
    |быть|to|includes?|incluyen?|inclu(?:t|ent)|comprend|comprennent|включа\w{2})\b|'s\b|[:=→—]|[-=]>| - |[是为為はが有]
    |包括)
    """
)
_FILL: Final = _one_line(
    rf"""
    (?:, ?[^,.;:?!\ue000-\ue02f]{{2,30}}, ?)?(?:[ ,:、("'«「—\[]{{0,3}}(?:(?:the|most|likely|\w{{2,12}}ly|therefore|thus
    |hence|then|indeed|still|\w{{3,14}}mente?|la|les?|el|l[ao]s|donc|bien|ainsi|sans doute|por (?:lo )?tanto|entonces
    |под|именно|скорее всего|вероятно|but|mais|sino|а|maybe|tant|в)\b|l'|ではなく|じゃなく|应该?选?|選|选|而是
    |{_D})){{0,4}}[ ,:、("'«「—\[]{{0,4}}$
    """
)
_STATES: Final = _re(rf"(?:{_any(_ANSWER, _RIGHT)})[^.;:?!。]{{0,60}}?{_COPULA}{_FILL}")
_STATES_ODD: Final = _re(rf"(?:{_any(_ODD)})[^.;:?!。]{{0,60}}?{_COPULA}{_FILL}")
_BARE_ANSWER: Final = _re(
    rf"""
    (?:(?:{_any(_ANSWER)})(?: под)?|верн[ыао]|вер[её]н|правильны|正确的?有|(?:correct[ao]s?|ciertas?|verdaderas?
    |exactes?|correctes?|vraies?|justes?)(?: l[ae]s?)?)[ "(«]{{0,3}}$
    """
)
_CHOOSES: Final = _re(rf"(?:{_any(_CHOOSE)})(?: (?:de |la |вариант\w? |ответ\w? ){{0,2}})?{_FILL}")
_SO_IT_IS: Final = _re(
    rf"""
    (?:{_any(_SO)})[ ,:]{{0,3}}(?:it(?:'s| is| must be)|c'est|es|this is|it has to be|это|の?答えは|就?是)?{_FILL}
    """
)
_INSTEAD: Final = _re(
    rf"""
    {_D}\W{{0,3}}(?:but(?: rather)?|rather|mais(?: plutôt)?|sino|а|而是|ではなく、?)? ?(?:la |the |le )?$
    """
)
_BEST_IS: Final = _re(
    rf"""
    (?:{_any(_BEST)})[^\ue000-\ue02f]{{0,140}}?(?:{_COPULA}|\b(?:by|for|show|with|par|por|à|para)\b
    |[をに])[^\ue000-\ue02f]{{0,80}}$|(?:首选|首先考虑|最可能)$
    """
)
_LINK: Final = _re(rf"{_COPULA}{_FILL}")
_POINTS_TO: Final = _re(
    rf"""
    (?:{_COPULA}{_FILL}|(?:\b(?:is|est|es)|has|have|tiene|presenta|у (?:пациента|больного)|患有|souffre d[e']
    |suggest\w{{0,5}}|indicat\w{{1,4}}|suffer(?:s|ing) from|consistent with|diagnosis of
    |due to|caused by|se trata de|compatible con
    |corresponde a|apuntan? a|orientan? a|sugieren?|s'agit d(?:e|u|')|évoque\w{{0,2}}|compatible avec|речь ид[её]т об?
    |соответству\w{{2}}|характерн\w{{1,3}} для|указыва\w{{1,3}} на|考虑|诊断|提示|符合)(?: (?:the|an?|une?|una?|la|le
    |el))? ?$)
    """
)
_BACKS: Final = _re(
    rf"""
    \b(?:justif\w{{1,7}}|valid\w{{1,6}}|confirm\w{{1,6}}|supports?|(?:véracité|pertinence|exactitude|validité|choix
    |sélection|elección|choice|selection) (?:of|des?)|leaves(?: us with)?|(?:points?|corresponds?) to(?:wards?)?
    |aligns (?:\w{{1,12}} ){{0,2}}with|matches|favou?rs?|favorece|(?:makes?|hacen?|rend|rendent)(?: (?:más|plus|more
    |most) (?:probable|likely))?|correspond à|reste|queda|оста[её]тся|соответствует
    |подтвержда\w{{1,3}}) (?:thus |ainsi |donc |así )?(?:the |l[ae]s? |l'|el )?(?:(?:{_any(_ANSWER)}) )?$
    """
)
_ONLY: Final = _re(r"(?:\b(?:only|seule?s?|sol[oa]|sólo|únicamente|только)|只有|仅有?) ?(?:the |l[ae]s? |l'|el )?$")
_HEADING: Final = _re(_any(_ANSWER, _RIGHT))
_ANSWER_WORD: Final = _re(_any(_ANSWER))
_ODD_WORD: Final = _re(_any(_ODD))
_BEST_WORD: Final = _re(_any(_BEST))
_RIGHT_WORD: Final = _re(rf"{_any(_RIGHT)}|正确|正し|верн|верен")
_SO_WORD: Final = _re(_any(_SO))
_CONCLUDES: Final = _re(rf"[^\w\ue000-\ue02f]{{0,4}}(?:\w{{2,9}},? )?(?:{_any(_SO)})")
_SO_BEFORE: Final = _re(rf"(?:{_any(_SO)})[ ,:]{{0,3}}(?:the |la |le |el |l')?$")
_IS_ODD: Final = _re(_any(_ODD_BEHIND))
_IS_ANSWER: Final = _re(_any(_ANSWER_BEHIND))
# The clause ends behind the mention: strictly, and also where an apposition or a reason begins.
_REASON: Final = "because|since|as|given|car|parce|puisque|porque|ya|поскольку|так|потому"
_STOPS: Final = _re(
    rf"""
    [ )\]"'»」]{{0,3}}(?:[.!。]|,? {{0,2}}$|—|,? ?\b(?:{_REASON}|which|but|though|although|хотя|aunque|while|whereas
    |mais|tandis|pero|mientras|но
    |а)\b|です|である|だ|が)
    """
)
_ENDS: Final = _re(
    rf"""
    [ )\]"'»」]{{0,3}}(?:[.,;!。]|$|—|-|\(|\b(?:{_REASON}|rather|due|with|for)\b|です|である|だ|と考え|と判断|となり|が
    |の[^、。]{{1,60}}(?:です|である|だ|と考え|。|$))
    """
)
_CLAUSE_END: Final = _re(
    r"""
    [;,] (?=\w)|,(?=[^\x00-\u2fff])|\b(?:because|car|porque|поскольку|так как|since|puisque|aunque|но|pero|mais|but)\b
    |因为
    """
)
_APPOSITION: Final = _re(
    r"""
    ^ ?(?:,(?! ?(?:(?:is|are|was|es|son|no|est|sont|ne|явля\w{2,4}|не)\b|n'))[^,]{1,120},|\([^()]{1,120}\)
    |"[^"]{1,120}",?)
    """
)
_OTHERS: Final = _re(
    rf"""
    \b(?:(?:the|all) (?:other|remaining)s?(?! hand)|the rest|other (?:options|choices|answers?|statements)
    |other(?= \(?{_M})|les autres|d'autres options|autres (?:propositions|options|réponses)|l[ao]s (?:otr[ao]s|demás)
    |otras opciones|el resto|остальн\w{{1,3}}|други[емх]{{1,2}} (?:вариант|ответ|утвержд|опци)\w{{1,4}}|прочи\w{{1,2}}
    |all (?:the )?(?:options|statements|choices)|toutes les|todas las|все (?:варианты|утверждения))(?!\w)|其余
    |其[他它](?:{_M}|选项|选择|各项|[三四几][个项]|均|都)|残りの|(?:その)?他の(?:{_M}|選択肢|オプション|疾患|治療)
    """
)
_ALL: Final = _re(r"\b(?:all|every|toute?s|todas|todos|все)\b|都|均|すべて|全て")
_ALL_OPTIONS: Final = _re(
    r"""
    \ball (?:of )?(?:the )?(?:options|answers|statements|choices)|toutes les|todas las|все (?:варианты|ответы
    |утверждения)|(?:所有|全部)选项|以上[都均全]|すべての選択肢
    """
)
_EXCEPT: Final = _re(
    r"""
    (?:\b(?:except(?: for)?|salvo|excepto|menos|sauf|excepté|à l'exception de|hormis|кроме|за исключением)
    |除了?) ?(?:the |la |el |l')?$
    """
)
_IF: Final = _re(r"\b(?:if|unless|si|s'il|если)\b|如果|假如|若|もし|であれば|ならば")
_WOULD: Final = _re(r"\b(?:would|could|might|serait|aurait|pourrait|sería|podría|бы)\b|[则会就应ばら]")
_FORCED: Final = _re(
    r"""
    ha[dv]e? to|forced|must|devais|faut|tuviera que|tengo que|пришлось|必须|一定要|硬要|あえて|強いて
    """
)
_HEDGE: Final = _re(
    r"""
    \b(?:could|might|may|possibly|pourrai\w{1,4}|peu(?:t|vent) [eê]tre|podrían?|puede|может|могут|возможно)\b
    |(?<!最)可能(?!性[最较更]?[大高])|也许|或许|かもしれ|可能性[がも]あ
    """
)
_REPORTED: Final = _re(
    r"""
    \b(?:some|many|people|students|initially|at first|first thought|certains|au départ|au début|algunos|muchos
    |inicialmente|al principio|некоторые|многие|сначала|первоначально)\b|有人|起初|一开始|乍一看|最初は|当初
    """
)
_PAST_VIEW: Final = re.compile("^と(?:思|考え|見)(?:われ|られ)?た")
_RETRACTS: Final = _re(
    r"""
    \bwait\b ?(?:[,.!—:]|a|no)|\b(?:scratch that|on second thought|let me (?:reconsider|rethink|re-evaluate|correct)
    |i made a mistake|i was wrong|that(?:'s| is) (?:wrong|incorrect|not right)|attendez|me trompe|me corrige|je corrige
    |erratum|i meant?|voulais dire|quise decir|имел\w? в виду|me equivoqu[eé]|corrijo|rectifico|perdón|стоп|погодите
    |подождите|я ошиб\w{2,5}|нет, ошибка|исправл(?:яюсь|ю)|поправка)\b|\b(?:rectification|correction|corrección) ?:
    |\bespera[,.!:]|(?:^|[,。])等等[,。!]|不对,|重新考虑|更正|いや[、,]|待って|考え直|訂正|失礼
    """
)
_ALSO: Final = _re(r"\b(?:also|too|as well|likewise|aussi|également|también|также|тоже)\b|也|も[正同ま]")
_CONTRAST: Final = _one_line(
    rf"""
    \b(?:however|in contrast|conversely|on the other hand|whereas|cependant|toutefois|en revanche|par contre|tandis que
    |однако|напротив|sin embargo|en cambio|mientras que)\b|但|然而|不过|而(?={_M})|しかし|一方|対照的|ただし
    """
)
_CONTRASTS: Final = _re(_CONTRAST)
_TURNS: Final = _re(rf"\b(?:but|mais|pero|но)\b|が、|{_CONTRAST}")
_CORRECTS: Final = _re(
    rf"""
    {_RETRACTS.pattern}|\b(?:actually|in fact|en fait|en réalité|en realidad|на самом деле)\b|实际上|事实上
    """
)
_REFUSES: Final = _re(
    r"""
    \b(?:cannot|can't|can not|unable|not sure|insufficient|i'm sorry|as an ai|consult|désolé|ne peux pas|impossible de
    |consulte[zr]?|lo siento|no puedo|no se puede|не могу|к сожалению|обратитесь|недостаточно)\b|无法|不能确定|抱歉
    |咨询医生|お答えできません|申し訳|わかりません|判断できません
    """
)
_DISCUSSES: Final = _re(
    r"""
    \b(?:consider\w{0,3}|look(?:ing)? at|let's|start(?:ing)? with|first|considér\w{1,5}|commençons|examin\w{1,5}|veamos
    |analic\w{1,5}|empe\w{2,5}|рассмотрим|начн[её]м|во-первых)\b|首先|先看|来看|まず|について|検討
    """
)
_MENU: Final = _re(
    r"""
    answer (?:choices|options)|possible answers|explanation|analy[sz]|rationale|réponses possibles|opciones de
    |варианты ответ|解析|分析|explicaci|explication|объяснение|пояснение|解説
    """
)
_WHOLE: Final = re.compile(r"[.!。)\]\"'»」]$")
_TOPIC: Final = _re(rf"(?:(?:the |l[ae]s? |l'|el )?(?:(?:{_any(_ANSWER)}) )?){_M}")
_STATEMENT: Final = _re(
    r"""
    ^(?=no es |ce n'est pas |it is |this is |es (?:correct|ciert|verd)|это )
    |\b(?:statement|утверждение|affirmation|énoncé|afirmación|enunciado)\b|说法|记述|記述
    """
)


def _verdicts(table: Mapping[str, str], marks: str) -> Mapping[str, re.Pattern[str]]:
    latin = "|".join(table[language] for language in ("en", "fr", "es", "ru"))
    scripts = {"ja": table["ja"], "zh": table["zh"], "": latin}
    return MappingProxyType({script: _re(rf"^[はが]?\W{{0,4}}(?:{marks})|{phrases}") for script, phrases in scripts.items()})


_CALLS_RIGHT: Final = _verdicts(_RIGHT_BEHIND, r"[✓✔✅☑√○〇◯]|V\b")
_CALLS_WRONG: Final = _verdicts(_WRONG_BEHIND, r"[❌✗✘✖✕×]|F\b")

# Words behind which a lone letter names something else: hepatitis B, vitamin A, grade C, group A, Figure A, patient A.
_OTHER_NAME: Final = _re(
    r"""
    (?:\b(?:vitam|hepatit|hépatit|typ|tip|gr[ou]{1,2}p|grad|clas|stage|stade|estad[ií]|fa[ck]t|figur|tabl|pa[tc]ient
    |case|phas|fas|plan|prot[eé]|coenzym|influenz|gripp?e|ha?emophil|hémophil|hemofil|immunoglob|inmunoglob|lipop|strain
    |subtyp|subunit|chromos|zon|panel|append|drug|region|segment|antig|blood|sang|study|receptor|complex|interferon
    |c[iy]closporin|amphoter|anfoter|strep|pugh|hla|image|curve|popul|cohort|schedul|level|nivel|niveau|categor|catégor
    |стад|витам|гепатит|групп|тип|степен|класс|фактор|рис|табл|пациент|больн|фаз|белок|белк|штам|грипп|коэнзим|кофермент
    |гемофил|иммуноглоб|стрепток|категор)\w{0,12}\.?[ -]?|\b(?:typ|tip|gr[ou]{1,2}p|grad|clas|stage|stade|estad|стад
    |групп|степен|класс)\w{0,9}(?: \w{2,12})? (?:is|was|es|est|—) |\b(?:ig|apo|fig|lead|arm|line|site|tube|dr|mr|mrs|sr
    |sra|toxine?|toxina)\.?[ -]|维生素|维他命|肝炎|血型|因子|球蛋白|辅酶|图|表|患者|病人|流感|方案|ビタミン|図|グループ
    |タイプ|インフルエンザ|\b[A-Z]\.|[°\d] ?)$
    """
)
_OTHER_USE: Final = _re(
    r"""
    -(?![A-J]\b)\w|\.[A-Z](?![a-z])|['’](?!s\b)[^\W\d]| ?(?:cells?|lymph\w{0,9}|virus|antigens?|peptides?|waves?
    |cellules?|células?|клет\w{1,4})\b|\. ?(?:coli|difficile|perfringens|botulinum|tetani|cereus|anthracis|burgdorferi
    |pertussis|fragilis|diphtheriae|trachomatis|pneumoniae|psittaci|albicans|glabrata|neoformans|jejuni|faecalis|faecium
    |granulosus|histolytica|henselae|melitensis|cepacia|duodenale|vermicularis|cloacae|influenzae|pylori|ducreyi
    |capsulatum|lamblia|vaginalis|tularensis|hepatica|latum|fumigatus|baumannii|lumbricoides|israelii|immitis|parvum
    |sinensis|burnetii|freundii|krusei|auris|gondii)\b|[型群组組级級期类類系族株超波線线区班氏君肝肽]|さん|ちゃん|细胞
    |細胞|淋巴|リンパ|ペプチド|反应|反応|蛋白|抗原|抗体
    """
)
# What may follow a letter that is also a word: "A is correct", but never "A patient", "A noter", "А также".
_VERB: Final = re.compile(
    _one_line(
        r"""
        [ ](?:is|are|was|would|can|could|should|has|does|did|may|might|must|and|or|because|since|but|as|which|due|given
        |over|rather|not|seems|appears|remains|describes|represents|only|alone|instead|too|also|correct|true|false|wrong
        |incorrect|making|based|est|et|ou|car|parce|n'est|sont|correspond|serait|es|y|o|porque|ya|no|vraie?|faux|fausse|verdader[oa]|fals[oa]|son|sería|está
        |debido|como|que|en|plutôt|au|mais|sino|pero|а|но|явля\w{1,5}|вер[еноы]\w{0,3}|невер\w{1,4}|прав\w{2,8}
        |неправ\w{2,8}|и|или|так|потому|поскольку|обоснов\w{1,5}|обуслов\w{1,6}|корректн\w{0,3}|подходит
        |соответствует|выбран\w{0,2})\b| ?[^\s\w\ue000-\ue06f]| ?[\u2e80-\ud7ff]| ?$|\n
        """
    )
)
_WORD: Final = "A-Za-z0-9À-ÖØ-öø-ÿЀ-ӿ"
_LONE: Final = re.compile(
    rf"(?<![{_WORD}])(?<![{_WORD}]['’°])(?<![{_WORD}]-)([A-JАВСЕ]{{2,10}}|[a-j]{{2,10}}|[A-Za-zАВСЕΑΒΕасеБГДбгд])(?![{_WORD}])"
)
# In a Cyrillic list (А Б В Г) "В" is the third letter and no Latin B.
_LOOKALIKE: Final = MappingProxyType(dict(zip("АВСЕΑΒΕасе", "ABCEABEACE", strict=True)))
_CYRILLIC_LIST: Final = re.compile(
    r"(?:^|[ (\"«])[БГДбгд](?=[).:])|(?:вариант|ответ|пункт)\w{0,3}:? [\"«(]?[БГД]\b", re.MULTILINE
)
_OPENED: Final = r"[ 、]?[\"'«(\[「]{0,2}$"
_NOUN_BEFORE: Final = _re(rf"(?:{_any(_NOUN, _ANSWER)}|выбор\w{{0,2}}){_OPENED}")
_LINK_BEFORE: Final = _re(rf"(?:[:=→—是为為选選は]|\b(?:is|are|be|est|es|sont|son|это|является|choose)){_OPENED}")
_RUN_END: Final = re.compile(r"[\"')» ]{0,3}(?:[.,;!。\n]|$|です|である|だ)")
_LISTED_BEFORE: Final = re.compile(r"(?:^|\W)[a-j] ?(?:[,、/・と和]| et| y| e| and| и) ?$")
_LOWER_END: Final = re.compile(
    r" ?(?:[).,;:\]\"'。、\n/»」]|$|(?:because|since|car|porque)\b|[はがをとのもで項选项肢]|"
    r"(?:and|y|et|e|и|&|,) ?[a-jасе]\b)"
)
_LOWER_LIST: Final = re.compile(r"[a-j](?:(?: ?[,、/・;&+] ?| (?:and|et|y|e|и) |と|和)[a-j]){1,9}\W{0,2}")
_CLOSERS: Final = MappingProxyType(dict(zip("([\"'「『«【<", ")]\"'」』»】>", strict=True)))

_THINK: Final = _re(
    r"""
    [<\[◁][|｜]?(?P<close>/|end_of_)?(?:begin_of_)?(?:\w{1,8}:)?(?:think|thinking|thoughts?)\b[^<>\[\]]{0,40}[>\]▷]
    """
)
_ASIDE: Final = _re(
    r"""
    <(?P<close>/)?(?:reasoning|analysis|rationale|explanation|scratchpad|justification|reflection|reason)>
    """
)
_FINAL_CHANNEL: Final = "<|channel|>final<|message|>"
_OPENING: Final = _re(
    r"""
    ^(?:\s{1,9}|<s>|<bos>|<\|(?:begin_of_text|startoftext|im_start|assistant|start_header_id|end_header_id)\|>
    |assistant\n){0,9}
    """
)
_END: Final = _re(
    r"""
    </s>|<eos>|<end_of_turn>|<pad>|\[eos\]|<[|｜](?:end_of_text|eot_id|im_end|im_start|endoftext|end|return|eom_id|eos
    |start_header_id|end▁of▁sentence|user)[|｜]>
    """
)
_NEXT_TURN: Final = _re(
    r"""
    \n ?(?:### ?(?:question|instruction|input|human|user)|(?:question|human|user|问题|題目|题目|質問|問題|pregunta
    |вопрос) ?\d{0,3} ?[:：])
    """
)
_PAPER: Final = _re(
    r"""
    ###\s{0,4}Answer\s{0,4}:\s{0,4}OPTIONS?\s{1,4}([A-Z](?:\s{0,3},\s{0,3}[A-Z]){0,9})\s{1,4}(?:IS|ARE)\s{1,4}CORRECT\b
    """
)
_BOXED: Final = re.compile(r"\\boxed ?\{((?:[^{}\n]|\{[^{}\n]{0,80}\}){0,200})\}?")
_TAGGED: Final = _re(
    r"""
    <((?:final_?)?(?:answer|choice)|option|réponse|respuesta|ответ|答案|回答|正解)>([^<>]{0,400})(?:</\1>|$)
    """
)
_FIELD: Final = _re(
    r"""
    (["'])(?:(?:final|correct|selected|chosen|best|right|predicted)[_ ]?)?(?:answers?|option|choice|letters?|response
    |selected|prediction|result|r[eé]ponses?|respuestas?|ответы?|答案|回答|正解|解答|答え|选择|选项|choix
    |opci[oó]n)(?:[_ ]?(?:idx|index|letters?|choice|key|option|id|correct[ae]?|finale?))?\1 ?: ?(\[[^\]\[]{0,200}\]?
    |"[^"\n]{0,300}"?|'[^'\n]{0,300}'?|[^\s,}"'\[]{1,40})
    """
)
_TRUTH: Final = _re(r"[\"']([A-J])[\"'] ?: ?(true|false)\b")
_LATEX: Final = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mathsf|mbox|textit|boxed) ?\{([^{}]{0,200})\}")
_MARKUP: Final = re.compile(
    r"~~[^~\n]{1,80}~~|</?(?:b|strong|i|em|p|u|li|ul|ol|div|span|h[1-6]|center|mark|code|table|tr|td)(?: [^<>]{0,80})?>"
    r"|\\[()\[\]]|[*`#$\u200b-\u200f\ufeff]|(?m:^ ?>)"
)
_PUNCTUATION: Final = MappingProxyType(
    str.maketrans("“”„‟″‘’‚´–―─━‐‑‒､｡_|⇒➔➜", '"""""\'\'\'\'————---,。  →→→') | dict.fromkeys(range(0xE000, 0xE100), " ")
)
_SENTENCE_END: Final = re.compile(
    rf"(?<=[.!?])[\"')»]? (?![a-zà-ÿа-яё])|(?<=[.!?])(?={_M}|{_D})|(?<=[a-z]\.)(?=[A-Z][a-z])|"
    r"(?<=[。!?;])(?=[^\s\"')»」])|(?<=;)|\n"
)

# How mentions are found, merged and denied.
_LEADING_WORDS: Final = _re(
    r"^(?:(?:in|by|en|dans|par|por|con|de|mediante|chez) )?"
    r"(?:(?:the|an?|les?|la|une?|des|du|el|l[ao]s|un[ao]?) |l')?(?=\w{4})"
)
_DASHED: Final = re.compile(rf"(?<![{_WORD}-])[A-J](?: ?[-—] ?[A-J]){{2,9}}(?![{_WORD}-])")
_RANGE: Final = re.compile(rf"(?<![{_WORD}-])(?:[A-J] ?[-—~] ?[A-J]|[a-j]~[a-j])(?![{_WORD}-])")
_PUT: Final = (
    rf"(?:[:=—是为はが]|\b(?:is|are|est|es|son|sont|это|ответ\w{{0,4}}|вариант\w{{0,2}}|будет|answer|respuesta|réponse|"
    rf"répondrais|respondería)\b|{_M})[ .):,—\"'«「(]{{0,4}}"
)
_JOIN: Final = (
    rf"(?: ?;(?= ?{_M}{{1,3}} ?(?:[;.。\n]|$)) ?| ?[,、/&+·・] ?(?:(?:{_AND}) )?| (?:{_AND}) (?:l[ae]s? |el )?|"
    rf" ?(?:{_AND_CJK}) ?)(?={_M})"
)
_TEXT_AND_LETTER: Final = _re(rf"({_T})([\"'」]? ?[(\[] ?)(?:{_any(_NOUN)})? ?({_L})(?:{_NOUN_BEHIND})? ?[)\]]")
_LETTER_AND_TEXT: Final = _re(
    rf"""
    ({_L})([ .):,、;=—"'(\[「『«-]{{0,5}}(?:の|という|的|(?:the|el|les?|l[ao]s?|l'|une?
    |an?) ?)?["'「『(«]?)({_T})["'」』)»]?
    """
)
_QUOTED: Final = re.compile(rf"[\"'(\[「『«【<] ?({_M}{{1,12}}) ?[\"')\]」』»】>]")
_NOUN_OF: Final = _re(rf"(?:{_any(_NOUN)})(?: (?:de )?(?:r[eé]ponse|respuesta|ответа|number))? ?[\"'(]?({_M})")
_OF_NOUN: Final = re.compile(rf"({_M})(?:{_NOUN_BEHIND})")
_GLOSS: Final = _re(
    rf"""
    ({_L}) ?\((?!vrai|faux|true|false|correct|incorrect|right|wrong|верно|неверно|verdader
    |fals)[^()\n\ue000-\ue02f]{{1,60}}\)(?={_JOIN})
    """
)
_JOINED: Final = _re(rf"(?<={_M}){_JOIN}")
_SERIES: Final = _re(rf"{_M}(?: ?; ?{_M}){{2,9}}|(?m:^)(?:[^\W\d]{{2,4}} )? ?{_M}(?: ?; ?{_M}){{1,9}}")
_ALTERNATIVE: Final = _re(rf"(?<={_M})(?:,? (?:{_OR}) (?:l[ae] )?| ?(?:{_OR_CJK}) ?)({_M}{{1,9}})")
_DENIES: Final = _re(
    rf"""
    (?:{_any(_AGAINST)})(?: thus| ainsi| donc| así)? ?(?:the |an? |la |el |l'|les |los |une? |una )?({_M}{{1,12}})
    |({_M}{{1,12}})(?={_AGAINST_BEHIND})
    """
)
_ALONE: Final = re.compile(rf"[-•.,(\"' ]{{0,6}}({_M}{{1,12}})[).,;!。\"' -]{{0,6}}")
_LABEL: Final = re.compile(rf"^(\W{{0,4}}{_M}{{1,12}}) ?\. ?(?=[^\n\ue000-\ue06f])", re.MULTILINE)


class _Force(IntEnum):
    """How a mention is put: as the answer, as right, merely named, supposed or asked, as wrong, as the false one."""

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
    sure: bool = False
    text_only: bool = False
    linked: bool = False
    best: bool = False


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
    """
    final = final_part(text)
    if final is None:
        return None
    if _PAPER.search(final):
        return read_paper_answer(final, options, several=several)
    if truths := _TRUTH.findall(final):
        return _settled(frozenset(one for one, truth in truths if truth.lower() == "true"), options, several=several)
    field = next((values for pattern in (_BOXED, _TAGGED, _FIELD) if (values := pattern.findall(final))), [])
    if field:
        final = (field[-1] if isinstance(field[-1], str) else field[-1][-1]).strip("[] ")
        # One pair of quotes goes; those of a list stay, since they belong to its members.
        final = final.strip("\"'") if len(re.findall("[\"']", final)) <= 2 else final
    view = _view(final, options, language, several=several)
    readings = (reader(view) for reader in (_FIELD_READERS if field else _READERS))
    return _settled(next((one for one in readings if one is not None), _UNCLEAR), options, several=several)


def _settled(letters: frozenset[str], options: Mapping[str, str], *, several: bool) -> frozenset[str] | None:
    return letters if letters and letters <= options.keys() and (several or len(letters) == 1) else None


def final_part(text: str) -> str | None:
    """The part of a text that counts: from the end of the thinking to the end of the turn; None without such an end."""
    if "<|channel|>" in text:
        _, found, text = text.rpartition(_FINAL_CHANNEL)
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
    turn = _NEXT_TURN.split(text, maxsplit=1)[0]
    text = turn if turn.strip() else text
    text = text if len(text) <= _HEAD + _TAIL else text[:_HEAD] + "\n" + text[-_TAIL:]
    return unicodedata.normalize("NFKC", text)


def _plain(text: str) -> str:
    """Text without markup and typographic variety, one space between words and one line break between lines."""
    text = _LATEX.sub(r"\1", _LATEX.sub(r"\1", text))
    text = _MARKUP.sub("", re.sub(r"</?br ?/?>", "\n", text).translate(_PUNCTUATION))
    text = re.sub(r"【([^【】\n]{2,8})】", r"\n\1:", text)
    text = re.sub(r"[^\S\n]{1,20000}", " ", text).replace(" \n", "\n").replace("\n ", "\n")
    return re.sub(r"\n{2,20000}", "\n", text).strip()


def _view(text: str, options: Mapping[str, str], language: str, *, several: bool) -> _View:
    text = _plain(text)
    marked = _marked(text, options, language) if len(_LONE.findall(text)) <= _MOST_LETTERS else ""
    sentences = tuple(part for part in _SENTENCE_END.split(marked) if part and part.strip())
    if len(re.findall(f"{_M}{{1,16}}", marked)) > _MOST_MENTIONS:
        sentences = ()
    claims = tuple(claim for at, sentence in enumerate(sentences) for claim in _claims(at, sentence, several=several))
    return _View(marked=marked, sentences=sentences, claims=claims, options=options, several=several)


def _is_common(text: str) -> bool:
    """Whether an option's text is too short, or too common a word, to be looked for in running prose."""
    if re.fullmatch(rf"{_any(_YES, _NO)}|{_MAYBE}", text, re.IGNORECASE):
        return True
    return len(re.findall(r"[\u3040-\u9fff]", text)) < 2 and len(re.findall(r"[^\W\d_]", text)) < 4


def _text_pattern(text: str) -> str:
    """A pattern for an option's text that forgives spacing, a plural and, in Russian, the ending of a long word."""
    words = [
        re.escape(word[:-2]) + "[а-яё]{0,4}"
        if re.fullmatch("[А-Яа-яЁё]{5,40}", word)
        else re.sub("(?<=[一-鿿])[はが](?=[一-鿿])", "[はが]", re.escape(word))
        for word in re.split(r"[\s-]{1,9}", text)
    ]
    head = rf"(?<![{_WORD}])" if re.match(rf"[{_WORD}]", text) else ""
    tail = rf"(?:e?s)?(?![{_WORD}])" if re.search(rf"[{_WORD}]$", text) else ""
    return head + r"[\s-]{0,2}".join(words) + tail


def _option_texts(options: Mapping[str, str]) -> dict[str, str]:
    """The texts by which an option can be named and its mark, the longest first; what fits two options names none."""
    names: dict[str, set[str]] = {}
    for letter, option in options.items():
        text = _plain(unicodedata.normalize("NFKC", option)).strip(" .。;,「」\"'")
        bare = _LEADING_WORDS.sub("", text)
        for name in {text, bare, re.sub(r" ?[(\[][^()\[\]]{1,60}[)\]]$", "", bare)}:
            if name and not re.fullmatch("[A-Za-z]", name):
                names.setdefault(name.casefold(), set()).add(chr(_TEXT + ord(letter) - ord("A")))
    longest_first = sorted(names.items(), key=lambda item: -len(item[0]))
    return {name: min(marks) for name, marks in longest_first if len(marks) == 1}


def _named_in(claims: Iterable[_Claim]) -> frozenset[str]:
    return frozenset(letter for claim in claims for letter in claim.letters)


def _letter(letter: str) -> str:
    return chr(_BARE + ord(letter) - ord("A")) if letter <= "J" else _UNKNOWN


def _sure(found: re.Match[str]) -> str:
    index = ord(found[1]) % 0x10
    return chr(_SURE + index) if index < 10 else found[1]


def _enumerated(found: re.Match[str]) -> str:
    return ", ".join(re.findall("[A-J]", found.group()))


def _ranged(found: re.Match[str]) -> str:
    first, last = found.group()[0].upper(), found.group()[-1].upper()
    return "".join(_letter(chr(code)) for code in range(ord(first), ord(last) + 1)) + _EITHER


def _letters(group: str) -> frozenset[str]:
    """The letters of a run of marks; "?" stands for what names no single option."""
    return frozenset(chr(ord("A") + ord(mark) % 0x10) if ord(mark) % 0x10 < 10 else "?" for mark in group)


def _marked(text: str, options: Mapping[str, str], language: str) -> str:
    """The text with every mention of an option replaced by its mark, and with what belongs together in one group."""
    names = _option_texts(options)
    rare = [name for name in names if not _is_common(name)]
    common = [name for name in names if name not in rare]
    whole = text.strip(" .。!").casefold()
    if whole in common:
        return names[whole]
    if rare:
        patterns = [re.compile(_text_pattern(name), re.IGNORECASE) for name in rare]

        def named(found: re.Match[str]) -> str:
            return next(names[name] for name, one in zip(rare, patterns, strict=True) if one.fullmatch(found.group()))

        text = re.sub("|".join(one.pattern for one in patterns), named, text, flags=re.IGNORECASE)
    text = _RANGE.sub(_ranged, _DASHED.sub(_enumerated, text))
    text = _with_letters(text, options, language)
    if common:
        # A word like "no" counts only where it is put as the answer, or as the text of a letter.
        words = "|".join(map(re.escape, common))
        put = re.compile(rf"({_PUT})({words})(?=[\"'»」]?(?:[).,;!。、\n ]|$|です|である|だ|とな))(?! ?/)", re.IGNORECASE)
        text = put.sub(lambda found: found[1] + names[found[2].casefold()], text)
    return _without_menus(_grouped(text))


def _with_letters(text: str, options: Mapping[str, str], language: str) -> str:
    if _LOWER_LIST.fullmatch(text):
        text = text.upper()
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
        if not enclosed and (_OTHER_NAME.search(before) or _OTHER_USE.match(behind)):
            return word
        if word in "БГДбгд" or (has_cyrillic_list and word in "ВСЕсе"):
            return _UNKNOWN if is_named or enclosed else word
        letter = _LOOKALIKE.get(word, word)
        own = re.match(f" ?({_T})", behind)
        labels_text = own is not None and _letters(own[1]) == {letter.upper()}
        if letter.islower() or word in "асе":
            label = found.start() == 0 or re.search(r"(?:[。;]|\n[-• ]{0,3})$", before)
            ends = labels_text or _LOWER_END.match(behind)
            put = (is_named or _LISTED_BEFORE.search(before)) and ends
            follows = re.match(" ?(?:[はがをとのもやかで、。項选项肢]|また|およ|及び)", behind)
            cjk = follows and not re.search(rf"[{_WORD}]$", before)
            labels = label and re.match(r"[).:]| ?[○〇◯×✕✗✘✓✔❌✅]| ?[,、・/] ?[a-j]\b", behind)
            return _letter(letter.upper()) if enclosed or whole or put or labels or cjk else word
        if letter not in options and (not (is_named or enclosed) or re.search(r"\b[A-J][:.)=] ?$", before)):
            return word
        if word in "АВСI" or (letter == "A" and language not in ("zh", "ja")) or (letter == "E" and language == "es"):
            article = re.search(r"\b[Ll]a $", before) is not None
            if not (enclosed or noun or article or labels_text or _VERB.match(behind)):
                return word
        return _letter(letter)

    return _LONE.sub(marked, text)


def _grouped(text: str) -> str:
    def same(found: re.Match[str]) -> str:
        one, between, other = found.groups()
        if _letters(one) == _letters(other):
            return chr(_SURE + ord(one) % 0x10)
        ends = re.match(r"[\"'»」)]? ?(?:[.。\n]|$)", text[found.end() : found.end() + 4])
        return _UNKNOWN if ends and not set(between) <= set(", 、") else found.group()

    def denied(found: re.Match[str]) -> str:
        return " " + "".join(chr(ord(mark) + _DENIED) for mark in found[1] or found[2])

    text = _TEXT_AND_LETTER.sub(same, text)
    text = _OF_NOUN.sub(_sure, _NOUN_OF.sub(_sure, _QUOTED.sub(r"\1", text)))
    text = _LETTER_AND_TEXT.sub(same, text)
    text = _SERIES.sub(lambda found: re.sub(" ?; ?", "", found.group()), _GLOSS.sub(r"\1", text))
    text = _JOINED.sub("", text)
    text = _OF_NOUN.sub(_sure, _ALTERNATIVE.sub(rf"\1{_EITHER}", text))
    # A full stop behind a label ends no sentence.
    return _LABEL.sub(r"\1: ", _DENIES.sub(denied, text))


def _without_menus(text: str) -> str:
    """Join a list of mere mentions to the heading that calls them the answer; drop one that repeats the options."""
    lines: list[str] = []
    run: list[str] = []
    for line in [*text.split("\n"), ""]:
        alone = re.fullmatch(rf"[-•\d.) ]{{0,6}}({_M}{{1,12}})[).,;!\"' -]{{0,4}}", line)
        if alone:
            run.append(alone[1])
            continue
        if run and lines and lines[-1].endswith(":") and _HEADING.search(lines[-1]) and not _MENU.search(lines[-1]):
            lines[-1] += " " + "".join(run)
        elif len(run) == 1 or not (lines or line):
            lines += run
        run = []
        lines.append(line)
    return "\n".join(lines).strip()


def _script(sentence: str) -> str:
    return "ja" if re.search("[ぁ-ヿ]", sentence) else "zh" if re.search("[一-鿿]", sentence) else ""


def _claims(at: int, sentence: str, *, several: bool) -> Iterator[_Claim]:
    for denied in re.finditer(f"{_D}{{1,16}}", sentence):
        yield _Claim(at=at, letters=_letters(denied.group()), force=_Force.WRONG)
    script, concluding = _script(sentence), _CONCLUDES.match(sentence) is not None
    asked = re.search(r"\?[\"')]?$|吗。?$|か。$", sentence) is not None
    last, stated = 0, frozenset[str]()
    for group in re.finditer(f"{_M}{{1,16}}", sentence):
        before = sentence[max(0, group.start() - 2 * _REACH) : group.start()]
        pre = sentence[max(last, group.start() - _REACH) : group.start()]
        post = re.split(f"{_M}|{_D}", sentence[group.end() : group.end() + _REACH], maxsplit=1)[0]
        condition = _IF.search(before)
        supposed = condition and _WOULD.search(before, condition.end()) and not _FORCED.search(before)
        text_only = re.fullmatch(f"{_T}+", group.group()) is not None
        force = (
            _Force.VOID
            if asked or supposed or _REPORTED.search(pre) or _PAST_VIEW.match(post)
            else _force(pre, post, script, text_only=text_only)
        )
        letters = _letters(group.group())
        if several and force == _Force.NAMED and stated and re.search(r"(?:,| et| and| y| и) ?$", pre):
            force, letters = _Force.ANSWER, letters | stated
        elif several and force == _Force.ANSWER and not (_STATES.search(pre) or _IS_ANSWER.search(post[:70])):
            # "I choose A" may be one choice of several; only "the answer is A" is known to be all of it.
            force = _Force.RIGHT
        yield _Claim(
            at=at,
            letters=letters,
            force=force,
            hedged=_HEDGE.search(pre) is not None,
            concluding=concluding or _SO_BEFORE.search(pre) is not None,
            sure=re.search("[\ue010-\ue019]", group.group()) is not None,
            text_only=text_only,
            linked=bool(
                _BEST_WORD.search(pre + post) or (not _MENU.search(pre) and _POINTS_TO.search(pre) and _ENDS.match(post))
            ),
            best=bool(force == _Force.RIGHT and _BEST_IS.search(pre) and _LINK.search(pre)),
        )
        last, stated = group.end(), letters if force == _Force.ANSWER else frozenset()


def _verdict(post: str, script: str) -> _Force:
    """Whether what follows a mention calls it right or wrong."""
    if inner := re.match(r" ?\(([^()]{1,16})\)", post):
        post = inner[1] if _CALLS_RIGHT[script].match(inner[1]) or _CALLS_WRONG[script].match(inner[1]) else post
    post = _APPOSITION.sub("", post)
    if script == "ja":
        # A Japanese clause ends on its verdict; the subject of the next one is none.
        post = re.sub("(?:正解|正答|答え|解答)[はが]、?$", "", post)
        right_end = max((found.end() for found in _CALLS_RIGHT[script].finditer(post)), default=-1)
        wrong_end = max((found.end() for found in _CALLS_WRONG[script].finditer(post)), default=-1)
        return _Force.NAMED if right_end == wrong_end else _Force.RIGHT if right_end > wrong_end else _Force.WRONG
    post = _CLAUSE_END.split(post.lstrip(" ,:—-"), maxsplit=1)[0][:90]
    right, wrong = _CALLS_RIGHT[script].search(post), _CALLS_WRONG[script].search(post)
    if right and _HEDGE.search(post, 0, right.start() + 1):
        return _Force.NAMED
    if wrong and (not right or wrong.start() < right.end()):
        return _Force.WRONG
    return _Force.RIGHT if right else _Force.NAMED


def _force(pre: str, post: str, script: str, *, text_only: bool) -> _Force:
    wrong = _CALLS_WRONG[script]
    stops = _STOPS.match(post) is not None
    if states := _STATES.search(pre):
        region = re.split("[,;、]", pre[max(0, states.start() - 14) : states.start()])[-1] + states.group()
        if _MENU.search(region) or _OTHERS.search(region):
            return _Force.NAMED
        if _ODD_WORD.search(region):
            return _Force.WRONG if _ANSWER_WORD.search(region) else _Force.ODD
        if not wrong.search(states.group()) and (_ENDS.match(post) or _ANSWER_WORD.search(region)):
            return _Force.ANSWER
    if sign := re.search(r"(?:([✓✔✅☑])|[❌✗✘✖])\W{0,3}$", pre):
        return _Force.RIGHT if sign[1] else _Force.WRONG
    if _EXCEPT.search(pre):
        return _Force.ODD if _OTHERS.search(pre) or _ALL.search(pre) else _Force.WRONG
    if (_STATES_ODD.search(pre) and not re.search("[:=] ?$", pre)) or _IS_ODD.match(post.lstrip(" ,")):
        return _Force.WRONG if _OTHERS.search(pre) else _Force.ODD
    if _CHOOSES.search(pre):
        rejected = wrong.search(re.split("[,;]", pre)[-1]) or _verdict(post[:20], script) == _Force.WRONG
        return _Force.WRONG if rejected else _Force.ANSWER
    answer = _IS_ANSWER.search(post[:70])
    if answer and not wrong.search(post[: answer.end()].rpartition(",")[2]):
        return _Force.ANSWER
    verdict = _verdict(post, script)
    if verdict == _Force.WRONG:
        return verdict
    if stops and any(phrase.search(pre) for phrase in (_INSTEAD, _SO_IT_IS, _BARE_ANSWER, _RETRACTS)):
        return _Force.RIGHT if re.search(r"\([^()]{0,20}$", pre) else _Force.ANSWER
    if verdict == _Force.RIGHT and (not text_only or _BEST_WORD.search(post) or _RIGHT_WORD.search(post)):
        return _Force.NAMED if _OTHERS.search(re.split("[,;]", pre)[-1]) else verdict
    backed = not wrong.search(pre) and (_BEST_IS.search(pre) or _ONLY.search(pre) or (not text_only and _BACKS.search(pre)))
    return _Force.RIGHT if backed else _Force.NAMED


def _bare(view: _View) -> _Reading:
    """The whole text is nothing but mentions."""
    rest = _re(rf"^\W{{0,3}}(?:{_any(_ANSWER)}|选择?)|{_any(_NOUN)}|(?:{_AND})|[\s:.,;()\"'-]").sub("", view.marked)
    alone = re.fullmatch(f"({_M}{{1,12}})", rest) or _re(
        rf"(?:(?:[^\W\d]{{1,14}} ){{1,3}}[^\W\d]{{1,14}}, |[^\W\d]{{2,14}},? )?(?:l[ae]s? |el |the )?({_M}{{1,12}})"
        r"(?: only|のみ|です|である|だ)?[.!?。]?"
    ).fullmatch(view.marked)
    return _letters(alone[1]) if alone else None


def _stated(view: _View) -> _Reading:
    """The last statement of the answer wins, unless it is taken back or stands side by side with a rival."""
    taken_back = max((at for at, sentence in enumerate(view.sentences) if _RETRACTS.search(sentence)), default=-1)

    def states(claim: _Claim) -> bool:
        adds = _ALSO.search(view.sentences[claim.at]) is not None
        concludes = adds or (claim.concluding and not view.several) or 0 <= taken_back <= claim.at
        return not claim.hedged and (claim.force == _Force.ANSWER or (claim.force == _Force.RIGHT and concludes))

    stated = [claim for claim in view.claims if states(claim)]
    alone = _ALONE.fullmatch(view.sentences[-1]) if view.sentences else None
    starts = re.findall(rf"^[\W\d]{{0,4}}?({_L})", "\n".join(view.sentences), re.MULTILINE)
    if alone and not (len(starts) > 1 and ord(starts[-1]) == ord(starts[-2]) + 1):
        stated.append(_Claim(at=len(view.sentences) - 1, letters=_letters(alone[1]), force=_Force.ANSWER))
    if all(claim.force == _Force.RIGHT and not claim.concluding and claim.at > taken_back for claim in stated):
        # What is merely "also right" adds to an answer, but is none.
        return None
    last = stated[-1]
    rivals = [claim for claim in stated if claim.letters != last.letters]
    if last.at < taken_back:
        return _UNCLEAR
    if not rivals:
        return last.letters
    sentence = view.sentences[last.at]
    adds = _ALSO.search(sentence) is not None
    near = rivals[-1].at >= last.at - 1
    corrected = _CORRECTS.search(sentence) or taken_back > rivals[-1].at
    if view.several and not corrected:
        if any(claim.letters > last.letters for claim in rivals):
            return max((claim.letters for claim in rivals), key=len)
        return last.letters | rivals[-1].letters if adds or near else last.letters
    if not corrected and not _TURNS.search(sentence) and (adds or (near and not _SO_WORD.search(sentence))):
        return _UNCLEAR
    return last.letters


def _labels(view: _View) -> list[str]:
    """The letters that label what follows them, in order, which tell a list of the options from an answer."""
    labels = re.findall(rf"({_L}) ?[.):—]", view.sentences[0]) if view.sentences else []
    for sentence in view.sentences[1:]:
        labels += re.findall(rf"^[\W\d]{{0,4}}?({_L})(?= ?[.):,—-]|$)", sentence)
    return labels


def _led(view: _View) -> _Reading:
    """The text opens with a letter as with a label, and no list of all the options follows from it."""
    opening = re.match(rf"\W{{0,3}}({_M}{{1,12}})(?= ?[.):,;—\n-]| (?:{_REASON})\b| ?$)", view.marked)
    if not opening or not view.sentences:
        return None
    first = view.sentences[0]
    labels = _labels(view)
    is_list = len(labels) > 1 and ord(labels[1]) == ord(labels[0]) + 1
    is_wrong = _verdict(first.partition(opening[1])[2][:16], _script(first)) == _Force.WRONG
    return None if is_list or is_wrong else _letters(opening[1])


def _yes_no(view: _View) -> _Reading:
    """The text opens or ends with yes or no, or ends on a verdict about the statement, where these are the options."""
    word = rf"(?P<yes>{_any(_YES)})|(?P<no>{_any(_NO)}|no)|(?P<maybe>{_MAYBE})"
    texts = {letter: _re(word).fullmatch(option.strip(" .。")) for letter, option in view.options.items()}
    letters = {found.lastgroup: frozenset(letter) for letter, found in texts.items() if found}
    if not letters:
        return None
    final = view.sentences[-1] if view.sentences else ""
    before = rf"^(?:\w{{2,20}}, )?|{_any(_SO)}|(?:{_any(_ANSWER)})\W{{0,3}}(?:is|es|est|это|は|是|为)?"
    opens = _re(rf"\W{{0,3}}(?:{word})(?=[,、.!;:。\n]| ?—| -|$)").match(view.marked)
    ends = _re(rf"(?:{before})\W{{0,3}}(?:{word})\W{{0,3}}$").search(final)
    if found := opens or ends:
        return letters.get(found.lastgroup, _UNCLEAR)
    judged = _STATEMENT.search(final)
    said = final[judged.end() :] if judged else ""
    verdicts = (_verdict(part, _script(final)) for part in (said, said.rpartition(",")[2]))
    verdict = next((one for one in verdicts if one != _Force.NAMED), _Force.NAMED)
    return None if verdict == _Force.NAMED else letters.get("yes" if verdict == _Force.RIGHT else "no", _UNCLEAR)


def _leaning(view: _View) -> _Reading:
    """Only hedged statements of the answer, and all of the same one."""
    hedged = {claim.letters for claim in view.claims if claim.force == _Force.ANSWER}
    return None if not hedged else hedged.pop() if len(hedged) == 1 else _UNCLEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdicts:
    good: frozenset[str]
    bad: frozenset[str]
    is_complete: bool
    others: Mapping[int, _Force]


def _verdicts_of(view: _View) -> _Verdicts:
    """Which options are called right and wrong, and what the sentences about "the other options" say of those."""
    verdicts: dict[str, _Force] = {}
    for claim in sorted(view.claims, key=lambda claim: not claim.text_only):
        if claim.force not in (_Force.VOID, _Force.NAMED) and not claim.hedged:
            verdicts |= dict.fromkeys(claim.letters, claim.force)
    good = frozenset(letter for letter, force in verdicts.items() if force > 0)
    others = {
        at: _verdict(sentence[found.end() :], _script(sentence))
        for at, sentence in enumerate(view.sentences)
        if (found := _OTHERS.search(sentence))
    }
    is_complete = verdicts.keys() == set(view.options)
    return _Verdicts(good=good, bad=frozenset(verdicts) - good, is_complete=is_complete, others=others)


def _odd_one(view: _View) -> _Reading:
    """The answer to a negative question: the false one, or the one that is called wrong first and the others right."""
    verdicts = _verdicts_of(view)
    odd = _named_in(claim for claim in view.claims if claim.force == _Force.ODD) - verdicts.good
    if len(odd) == 1:
        return odd
    bad = verdicts.bad
    if len(bad) != 1 or view.claims[0].letters != bad:
        return None
    rest = frozenset(view.options) - bad
    in_order = [letter for claim in view.claims for letter in sorted(claim.letters)] == sorted(view.options)
    is_topic = len(view.sentences) > 2 and _TOPIC.match(view.sentences[0]) and _named_in(view.claims) == bad
    others_are_right = (
        _Force.RIGHT in verdicts.others.values()
        or any(claim.letters == rest and claim.force > 0 for claim in view.claims)
        or (verdicts.is_complete and not (view.several and in_order))
    )
    return bad if others_are_right or is_topic else None


def _judged(view: _View) -> _Reading:
    """What is called right, where the text is clear about the rest as well."""
    verdicts = _verdicts_of(view)
    good, bad = verdicts.good, verdicts.bad
    if view.several and not view.claims and _Force.RIGHT in verdicts.others.values():
        return frozenset(view.options) if _ALL_OPTIONS.search(view.marked) else None
    final = [claim.letters for claim in view.claims if claim.force == _Force.RIGHT and claim.concluding]
    if view.several:
        if final and good <= final[-1]:
            return final[-1]
        are_wrong = [at for at, verdict in verdicts.others.items() if verdict == _Force.WRONG]
        aside = min(are_wrong, default=len(view.sentences))
        named = _named_in(claim for claim in view.claims if claim.at < aside or claim.force != _Force.NAMED)
        is_covered = named == good | bad and (not bad or are_wrong or _WHOLE.search(view.marked))
        if good:
            return good if verdicts.is_complete or is_covered else None
    best = {claim.letters for claim in view.claims if claim.best and not claim.hedged}
    if len(good) == 1 or len(best) == 1:
        return good if len(good) == 1 else best.pop()
    if good:
        return bad if len(bad) == 1 and verdicts.is_complete else final[-1] if final else _UNCLEAR
    left = _named_in(view.claims) - bad
    return left if len(left) == 1 and len(bad) == len(view.options) - 1 else None


def _concluded(view: _View) -> _Reading:
    """One option alone is named where the text concludes, or in the whole of it but for the "other options"."""
    ends_on_mention = len(view.sentences) == 1 and re.search(rf"{_M}$", view.marked)
    if _REFUSES.search(view.marked) or not (_WHOLE.search(view.marked) or ends_on_mention):
        return None
    claims = [claim for claim in view.claims if claim.force > 0]
    concluding = [claim for claim in view.claims if claim.concluding]
    final = [claim for claim in concluding if claim.at == concluding[-1].at]
    if final and all(claim.force > 0 and claim.letters == final[0].letters for claim in final):
        rivalled = final[0].text_only or any(not claim.letters <= final[0].letters for claim in claims)
        if not (view.several and rivalled):
            return final[0].letters
    rest = frozenset(view.options) - (claims[0].letters if claims else frozenset())
    spoken_of = [at for at, sentence in enumerate(view.sentences) if _OTHERS.search(sentence)]
    spoken_of += [claim.at for claim in view.claims if claim.letters == rest and len(rest) > 1]
    others = min(spoken_of, default=len(view.sentences))
    named = [claim for claim in claims if claim.at < others]
    if not named or any(claim.letters != named[0].letters for claim in named):
        return None
    first = view.sentences[named[0].at]
    is_contrast = _CONTRASTS.match(first) and len(named[0].letters) > 1
    is_partial = view.several and others == len(view.sentences) and _named_in(view.claims) != named[0].letters
    if is_contrast or is_partial:
        return None
    is_discussed = len(view.sentences) < 2 or _DISCUSSES.search(first) or _MENU.search(first)
    is_labelled = any(claim.sure for claim in named) and not is_discussed
    is_evident = is_labelled or others < len(view.sentences) or any(claim.linked for claim in named)
    return named[0].letters if is_evident else None


def _contrasted(view: _View) -> _Reading:
    """All options are discussed, and the last one named is alone in being denied: the answer to a negative question."""
    denied = _named_in(claim for claim in view.claims if claim.force < 0)
    order = list(dict.fromkeys(letter for claim in view.claims for letter in sorted(claim.letters)))
    if view.several or len(denied) != 1 or set(order) != set(view.options) or {order[-1]} != denied:
        return None
    turns = (view.sentences[claim.at] for claim in view.claims if claim.letters == denied)
    return denied if any(_CONTRASTS.search(sentence) for sentence in turns) else None


def _pointed(view: _View) -> _Reading:
    """A sentence ends on one letter: "the cause is B"."""
    linked = {
        claim.letters
        for claim in view.claims
        if claim.linked and claim.force == _Force.NAMED and not claim.text_only and not claim.hedged
    }
    return linked.pop() if len(linked) == 1 and not view.several else None


# From the most explicit to the least.
_FIELD_READERS: Final = (_bare, _stated, _led)
_READERS: Final = (*_FIELD_READERS, _yes_no, _leaning, _odd_one, _judged, _concluded, _contrasted, _pointed)
