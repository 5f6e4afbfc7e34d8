"""The words by which models call an option the answer, right, wrong or doubtful, in six languages, as regular expressions."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Words(NamedTuple):
    """Alternatives of one meaning: whole words of en, fr, es and ru, then those of the scripts without spaces."""

    spaced: str
    zh: str
    ja: str

    @property
    def any(self) -> str:
        return "|".join(self)


def _words(text: str) -> Words:
    r"""Lines of alternatives; behind "zh:" and "ja:" those without word borders, and `\w{0,9}` stands for an ending."""
    lines = [line.strip() for line in text.strip().splitlines()]
    zh, ja = ("|".join(line[4:] for line in lines if line.startswith(script)) or "(?!)" for script in ("zh: ", "ja: "))
    spaced = "|".join(line for line in lines if not line.startswith(("zh: ", "ja: ")))
    return Words(rf"\b(?:{spaced})\b", zh, ja)


def _phrases(text: str) -> re.Pattern[str]:
    return re.compile(_words(text).any, re.IGNORECASE)


YES: Final = r"yes|true|oui|vrai|sí|si|verdadero|cierto|да|верно|是的?|对|正确|はい"
NO: Final = r"no|false|non|faux|falso|нет|неверно|否|不是|不对|错误?|不正确|いいえ"
MAYBE: Final = r"maybe|возможно|peut-être|quizás?|可能|不确定"
AND: Final = r"and(?: also)?|as well as|plus|et|ainsi que|y|e|así como|como|и|а также|так и"
AND_UNSPACED: Final = "和|与|及|以及|跟|や|と|も|および|及び|ならびに|並びに"
OR: Final = r"(?:and/)?or|vs\.?|versus|(?:et/)?ou|(?:y/)?[ou]|(?:и/)?или|либо"
OR_UNSPACED: Final = "或者?|还是|か|または|もしくは|あるいは"
REASON: Final = r"because|since|as|given|car|parce|puisque|porque|ya|поскольку|так|потому"

OPTION: Final = _words("""
    options?|choices?|statements?|letters?|alternatives?|items?
    propositions?|affirmations?|lettres?|assertions?|choix|la case
    opci[oó]n(?:es)?|alternativas?|afirmaci[oó]n(?:es)?|letras?|incisos?|literal(?:es)?
    вариант(?:а|ы|ом|ов|у|е)?|опци[яиюей]{1,2}|букв[аыуой]{1,2}|пункт(?:а|ы|ом|е)?|утверждени[еяй]
    zh: 选项|選項|项|項
    ja: 選択肢|オプション|肢
""")
OPTION_BEHIND: Final = "[两二三四五]?个?(?:选项|選項|项|項)|の?選択肢|の?オプション|肢|の選択(?!肢)"
ANSWER: Final = _words("""
    answers?|ans|r[eé]ponses?|respuestas?|ответ(?:а|ы|ом|ами|ов)?
    zh: 答案|作答|答(?=:)
    ja: 答え|(?<!不)正解|(?<!不)正答|解答|回答
""")
RIGHT: Final = _words(r"""
    correct|right(?! (?!answers?|options?|choices?|one|is|are|statements?)\w)|true|accurate|appropriate|valid|ideal|preferred
    bon(?:ne)?s?|correcte?s?|exacte?s?|vraie?s?|justes?|adaptée?s?|appropriée?s?
    correct[ao]s?|ciert[ao]s?|verdader[ao]s?|acertad[ao]s?|válid[ao]s?|adecuad[ao]s?|apropiad[ao]s?
    (?<!не )(?:правильн\w{1,3}|правил[ье]н|верн(?:ый|ая|ое|ые|ы|о|а|ым|ыми|ой)|вер[её]н)
    zh: (?<!不)正[确確]|符合题意
    ja: 正しい(?!とは)|当てはまる|該当する|(?<!不)適切な(?:の|もの|選択肢|対応|治療|検査|処置|診断|組合せ|説明|薬剤)
""")
CHOSEN: Final = _words("""
    chosen|selected|final|solution|my (?:choice|pick|selection)|mon choix|solución|mi selección|elección|выбор
    zh: 结论|最终选择
    ja: 結論|選んだ|選ぶ|選択すべき|選択した|実際|本当
""")
BEST: Final = _words(r"""
    most (?!common|often|frequent|of|patients|cases|people|notabl)\w{1,20}|best|first-line|of choice|gold standard
    plus (?:probable|approprié|adapté|plausible|vraisemblable|indiqué|compatible|pertinent)e?|meilleure?|première intention
    plus (?:sensible|spécifique|efficace|utile)|de primera línea|de choix|classique|à retenir
    más (?:probable|adecuad[ao]|apropiad[ao]|indicad[ao]|compatible|acertad[ao]|plausible|sensible|específic[ao]|eficaz|útil)
    mejor|de (?:primera )?elección
    наиболее (?:вероят|подходящ|точн|правильн|соответств|обоснован|корректн|чувствительн|информативн|эффективн)\w{1,6}
    лучш\w{1,3}|перв\w{2} линии|вероятнее всего
    zh: 最(?:有?可能|佳|合适|适合|恰当|符合|好|适宜|宜|应|优|为)|首选|首先考虑|可能性[最较更]?[大高]
    ja: 最も(?:可能性|考え|適|疑|一致|当て|妥当|優先)|最適|第一選択|挙げられ
""")
# These say "right" by themselves behind a mention, without a verb before them.
FITS: Final = _words(r"""
    (?:is|est|es|fits?|fit) (?:better|meilleure?|mejor)|лучше|stands|prevails
    until proven otherwise|jusqu'à preuve du contraire|hasta que se demuestre lo contrario
    best (?:fits?|explains?|describes?|matches|answers)|fits? best|convien\w{1,3}|s'impose|encajan?|sí l[oa]
    (?<!не )(?:корректн\w{0,3}|корректен|подход\w{2,4}|соответств\w{2,4}|обоснован\w{0,3}|обусловлен\w{0,2}|наиболее \w{5,16})
    (?<!не )(?:правильн\w{1,3}|правил[ье]н|верн(?:ый|ая|ое|ые|ы|о|а|ым|ыми|ой)|вер[её]н)
    zh: 没错|准确|符合|是对的|对(?=[。,;]|$)|更(?:符合|合适|可能)|合适|恰当|为宜
    ja: 正し(?:い(?!とは)|く、)|(?<!不)適切(?!では?な|では?あり|とは|性|な治療を|に)|(?<!不)正解(?!では?な)|(?<!不)正答|妥当
    ja: 間違いな[いく]|しか(?:ない|ありえ|ありませ|考えられ)
    ja: 該当(?!し(?:な|ませ))|^だ?と(?:考え(?:られ)?(?:る|ます)|思|判断|診断|な[るり]|す)
""")
CHOOSE: Final = _words(r"""
    choos\w{1,3}|chose|select(?:ing|ed)?|pick(?:ing|ed)?|(?:go(?:ing)?|stick) with|opt(?:ing|ed)? for|settled? on|meant?
    (?:would|'d) (?:say|answer|guess)|(?:vote|go(?:ing)?) for|lock(?:ing)? in|arrive at
    (?:lean(?:ing)?|inclined) (?:towards?|to)|mark
    choisi\w{0,4}|sélectionn\w{1,4}|reti(?:ens|endrais?)|retenons|retenir|coch\w{1,3}|opt\w{1,4} pour|répond(?:s|rais?)
    je dirais(?: que)?(?: c'est)?|choix se porte sur|voulais dire|valide|vote pour|penche\w{0,4} pour
    elijo|eleg\w{2,5}|escojo|escog\w{2,5}|seleccion\w{1,5}|marc(?:o|aría|amos|ar)|opt\w{1,4} por|qued(?:o|amos) con
    inclin\w{1,3} por|señal(?:o|aría|ar)|diría(?: que)?|contestaría|quise decir|apostaría por
    выб(?:ира|ер|ра|ор)\w{0,4}|склоня\w{2,4} к|остан\w{3,6} на|отмет\w{1,4}|получа\w{2,4}|ответить|имел\w? в виду
    zh: [应宜需][予行]|应(?:采用|给予|首先)|选择?|選擇?|改用|选用|倾向于|我是说
""")
SO: Final = _words("""
    so|thus|hence|therefore|in (?:conclusion|summary|short)|overall|consequently|accordingly|ultimately|to conclude|conclusion
    as a result|taken together|to sum up|in the end|all in all|by (?:exclusion|elimination)
    en définitive|au final|en fin de compte|par (?:exclusion|élimination)|somme toute|il s'ensuit
    en definitiva|a fin de cuentas|al final|por (?:eliminación|descarte|exclusión)|luego|de ahí que|total
    в конечном (?:счёте|счете|итоге)|методом исключения|получается|стало быть|выходит
    donc|ainsi|par conséquent|en (?:conclusion|résumé|somme)|c'est pourquoi|dès lors|au total
    por (?:todo )?(?:lo )?tanto|por ende|así (?:que|pues)|por eso|en (?:conclusión|resumen)|entonces|de modo que
    таким образом|следовательно|поэтому|итак|значит|в итоге|итог|вывод|исходя|в заключение
    zh: 因此|所以|故|归根结底|总的来说|总之|排除法|综上|总之|由此|可见|因而|最终
    ja: 結局|消去法|すなわち|したがって|従って|よって|以上|ゆえに|結論|このため|そのため|つまり
""")
WRONG: Final = _words(r"""
    incorrect|wrong|false|untrue|inaccurate|(?:is|are|was) not (?:true|correct|accurate)|exception|odd one
    fau(?:x|sses?)|inexacte?s?|incorrecte?s?|erronée?s?|intrus|fals[ao]s?|incorrect[ao]s?|erróne[ao]s?|equivocad[ao]s?
    inexact[ao]s?|excepción|неверн\w{1,3}|неправильн\w{1,3}|ложн\w{1,3}|ошибочн\w{1,3}|(?<!методом )исключени[ея]м?
    zh: 错误|不正确|不属于|不包括|不符合|有误|次之|次于|对不上|不沾边|关系不大|关联不大|意义不大
    ja: 誤って|誤り|間違って|不適切|適切でない|正しくない|当てはまらない|該当しない|認められない
""")
NOT: Final = _words(r"""
    not(?: be)?|never|cannot(?: be)?|(?:ca|is|are|would|could|does|do|did|was)n't(?: be)?|neither|nor|rather than|instead of
    less|least|unlikely|inappropriate|irrelevant|unrelated|inconsistent|fails?|(?<!to )(?:eliminat|exclud)(?:e|es|ed|ing)
    rul(?:es?|ed|ing) out|(?:discard|reject)(?:s|ed|ing)?|n'|ne|non(?: pas)?|pas(?: être)?|jamais|plutôt que|au lieu de|ni
    moins|peu probable|(?<!to )(?<!by )(?<!par )(?<!por )exclu\w{0,4}|écart\w{1,5}|(?<!par )élimin\w{1,5}|menos
    no(?: es| son| puede ser| sería)?|inadapté\w{0,2}|en (?:lugar|vez) de|tampoco|nunca
    (?<!por )descart\w{1,6}|excluy\w{1,4}|(?<!by )(?<!por )elimin\w{1,5}
    improbables?
    (?:а )?не(?: может быть| является| будет)?|вместо|ни|(?<!методом )(?<!за )исключ\w{2,6}|менее|маловероят\w{1,4}
    неподход\w{1,5}|некорректн\w{1,3}|неправил[ье]н|невер[её]н|отпада\w{1,2}
    zh: 不(?:[正符对是属适会能可宜应准恰合选太需具涉作包予存够足伴如佳全妥]|考虑|支持|成立|参与|相符|完全|直接|一定|典型|明显)
    zh: (?<!没)错|误|无关|排除|没有|并非|非(?!常)|无法|未|缺乏(?=[特依证诊足支])|少见|除外
    ja: 誤|不要|不正解|不適|間違(?!いな)|(?<!しか)(?<!違い)ない(?!でしょうか)|なく|(?<!しかあり)ません
    ja: (?<![必ま])ず(?=[、。ま]|$)|除外|否定
    ja: 考えにく|低い|困難|とは言え|違い|違う
""")
AGAINST: Final = (
    rf"{NOT.spaced}|unlike|contrairement à|a diferencia de|в отличие от|avoid(?:ing)?|without|不是|不像|不似|不支持"
    rf"|不宜|无需|无须"
    rf"|不需要?|不必|不应该?|不能|不可|避免|不建议|禁用|不用|而非|并非|非|不[能应]?选|不应?为|不考虑|排除"
)
# What these call by its degree is the answer only where the text concludes it: the question may ask for the best.
LEAST: Final = (
    r"\b(?:least \w{3,15}|worst|poorest|moins (?:probable|appropriée?|adaptée?|vraisemblable|plausible|indiquée?)|pires?"
    r"|menos (?:probable|adecuad[ao]|apropiad[ao]|indicad[ao]|plausible)|peor|наименее \w{3,20}|(?:наи)?худш\w{1,3})\b"
    r"|最不[一-鿿]{1,3}|最差|最も[^、。,]{1,8}(?:低い|ない|にくい)"
)
# "..., and not of A", "y no a un déficit de A": what is denied is what follows.
CONTRAST: Final = (
    r"(?:[,;:(—] ?|\b(?:and|but|or|et|mais|ou|y|pero|o|и|а|но) )(?:not|non(?: pas)?|pas|no|не|ni|nor|rather than"
    r"|as (?:opposed to|against)|unlike"
    r"|contrairement (?:à|au|aux)|à la différence d[eu]|par opposition à|a diferencia del?|al contrario que"
    r"|en contraste con|в отличие от"
    r"|в противоположность|plutôt que|au lieu de|en (?:lugar|vez) de|вместо|frente al?)\b"
)
CONTRAST_END: Final = (
    r"[\s)\]\"'»]*(?:[.,;:!?)—(]|$|\b(?:and|n?or|et|ou|y|o|ni|и|или|because|since|car|porque|ya|так|поскольку|which|que"
    r"|qui|that|cuy\w)\b)"
)
# "A is excluded by the ECG, B by the CT": the second clause goes without the verb of the first.
ELIDED: Final = re.compile(
    r"[,;]? ?(?:(?:and|et|y|e|и|а) )?(?:the |l[ae]s? |l'|el |los )?"
    r"\ue000(?: —)? (?:(?:by|par|por|due to|because|given|vu|du fait|devant|en raison|por|debido|из-за|по|ввиду) "
    r"(?!(?:exclu|[ée]limi|descarte))\w"
    r"|(?:too|also|as well|likewise|aussi|également|de même|non plus|también|igualmente|tampoco|тоже|также)\b)",
    re.IGNORECASE,
)
AGAINST_BEHIND: Final = "[.]{0,6}では(?:もちろん|決して|到底)?(?:な|あり)|でな|じゃな|を除|は除外|以外"
# Numbers that may name an option by its place.
ORDINALS: Final = (
    r"first|1st|1re|1ère|premi[eè]re?|primer[ao]?|1\.?[ªº]|перв(?:ый|ая|ое|ого|ой|ому)|[1一]|one|uno|un|один",
    r"second|2nd|2e|deuxième|seconde?|segund[ao]|2\.?[ªº]|втор(?:ой|ая|ое|ого|ому)|[2二]|two|dos|deux|два",
    r"third|3rd|3e|troisième|tercer[ao]?|3\.?[ªº]|трет(?:ий|ья|ье|ьего|ьей|ьему)|[3三]|three|tres|trois|три",
    r"fourth|4th|4e|quatrième|cuart[ao]|4\.?[ªº]|четв[её]рт(?:ый|ая|ое|ого|ой|ому)|[4四]|four|cuatro|quatre|четыре",
    r"fifth|5th|5e|cinquième|quint[ao]|5\.?[ªº]|пят(?:ый|ая|ое|ого|ой|ому)|[5五]|five|cinco|cinq|пять",
    r"sixth|6th|6e|sixième|sext[ao]|6\.?[ªº]|шест(?:ой|ая|ое|ого|ому)|[6六]|six|seis|шесть",
)
LAST: Final = r"last|derni[eè]re?|últim[ao]|последн(?:ий|яя|ее|его|ей|ему)|最后一?|最後"
PAIR: Final = _phrases("""
    between|former|latter|both|entre|deux|ambas|ambos|dos|оба|обе|между|двух
    zh: 前者|后者|後者|两者|二者|両者|どちら
""")
COUNTING: Final = re.compile(
    r"第[一二三四五六]|[1-6一二三四五六](?:番目|つ目)|\b(?:first(?!-)|second|third|fourth|fifth|premi[eè]re?|deuxième"
    r"|seconde?|troisième|quatrième"
    r"|cinquième|primer[ao]?|segund[ao]|tercer[ao]?|cuart[ao]|quint[ao]|перв\w{2,3}|втор\w{2,3}|трет\w{2,3}|четв[её]рт\w{2,3})\b",
    re.IGNORECASE,
)
NONE: Final = re.compile(
    r"\W*(?:none|neither|aucun|ningun|ni un|ни один|нет верн|нет прав|以上[都均皆]不|都不|均不|以上[都均皆]非"
    r"|いずれも.*ない|該当なし|なし$)",
    re.IGNORECASE,
)
ALL_RIGHT: Final = _phrases(r"""
    all (?:(?:of )?(?:them|these|the above|the options|options|statements|answers|five|four) )?(?:are|were) (?:correct|right|true)
    tod[ao]s (?:(?:las (?:opciones|respuestas|anteriores|afirmaciones) )?son (?:correct|ciert|verdader|válid)[ao]s)
    toutes (?:(?:les \w{4,14} )?sont (?:exactes|vraies|correctes|justes|bonnes))|tout est (?:vrai|exact|juste|correct)
    вс[её] (?:(?:варианты|ответы|утверждения|перечисленн\w{2,3}|пункты) )?(?:верн[ыо]|правильн[ыо])|верн[ыо] вс[её]
    zh: ^(?:本题)?(?:应该?)?全[选對对]。?$|^(?:以上)?(?:选项)?[全都均皆](?:部)?(?:正确|对|选)。?$
    zh: (?:すべて|全て|全部)(?:の選択肢)?[がは]?(?:正しい|正解|当てはまる|該当する)
""")
TEMPTS: Final = re.compile(
    r"(?:を|と|だと)(?:選び|答え|考え|思い)(?:がち|やすい|たくな|そうに)|が(?:紛らわ|まぎらわ)|を選ぶ(?:人|者|学生|受験)"
    r"|が?[^、。,]{0,12}と(?:思わ|考え|思っ|見え|みえ)(?:られ|れ)?(?:た|ました|る|ます)が|的(?:人|同学|考生|学生|医生|网友)"
)
# In front of the only option that is left.
LEFT_WITH: Final = (
    r"\bleft with|\bwhich leaves(?: us with)?|\bne reste(?: donc| plus)? qu(?:e|')|(?:^|[.;,] ?)reste(?: donc)?|残るのは|残るは"
    r"|剩下的?(?:只有|是|就是)?|\b(?:остаётся|остается)(?: только| лишь)?"
    r"|\b(?:solo |sólo )?(?:nos |me )?queda(?: solo| sólo| únicamente)?"
)
LEFT: Final = _phrases(r"""
    by (?:exclusion|elimination)|only one (?:left|that remains|remaining)|remaining (?:one|option|choice|answer)
    (?:one|option|answer) (?:left|that remains)|leaves (?:only )?one
    par (?:exclusion|élimination)|(?:il )?ne reste (?:plus )?qu\w{0,3}|reste (?:celle|celui|une seule)
    la seule (?:restante|qui reste)
    por (?:eliminación|descarte|exclusión)|(?:la única|lo único|la|el único) que (?:me |nos )?queda|la restante
    solo (?:me |nos )?queda|queda (?:solo |sólo )?una
    методом исключения|остал[ао]сь (?:только )?(?:одно|один|одна)|оставш\w{1,4}|остаётся (?:только )?(?:одно|один|одна)
    zh: 排除法|只剩|剩下|唯一剩|消去法|残る|残り|残った|ひとつしか|一つしか
""")
# A verdict that stands alone, as in a list or a table, and what may stand around it.
TICK: Final = (
    rf"{YES}|true|correct\w{{0,2}}|right|vraie?s?|justes?|exacte?s?|bon(?:ne)?|верн[оаы]|верный|верная|правильно"
    rf"|правильный|подходит"
    r"|соответствует|оставляем|verdader[ao]s?|ciert[ao]s?|fits?|matches|applies|keep|(?:à )?reten(?:ue?|ir)|convient"
    r"|correspond[e]?|encaja"
    r"|acertad[ao]|V|T|正确|对的?|符合(?:题意)?|应?选|当选|入选|可选|正しい|正|適切|該当(?:する|します)?|当てはまる"
    r"|正解|works?|[✓✔✅☑√○〇◯⭕]"
)
CROSS: Final = (
    rf"{NO}|false|incorrect\w{{0,2}}|wrong|fau(?:x|sses?)|inexacte?s?|erron\w{{2,4}}|неверн\w{{1,3}}"
    rf"|неправильн\w{{1,3}}|ошибочн\w{{1,3}}"
    r"|fals[ao]s?|excluded|eliminated|ruled out|rejected|discarded|out|not (?:this|it|correct|true|right|the answer"
    r"|applicable|indicated)"
    r"|(?:does not|doesn't) (?:fit|apply|match|work)|(?:à )?(?:exclu\w{0,2}|exclure|élimin\w{1,3}|écart\w{1,3}|rejet\w{1,3})"
    r"|ne (?:convient|correspond) pas|non retenue?|excluid[ao]|descart\w{2,5}|eliminad[ao]|excluy\w{1,4}"
    r"|no (?:corresponde|procede|encaja|aplica|es correct[ao])|отпада\w{2,3}|исключ\w{2,6}|вычёркива\w{2,3}"
    r"|вычеркива\w{2,3}|отбрасыва\w{2,3}"
    r"|не (?:подходит|соответствует|то|годится|верно)|отсеива\w{2,4}|мимо|F|错误?的?|不正确|不对|不符合?(?:题意)?"
    r"|不选|不当选|排除|划掉|划去|剔除|淘汰|不考虑"
    r"|不正解|誤り?|誤っている|間違い|正しくない|不適切?|適切でない|適切ではない|該当し(?:ない|ません)|当てはまらない"
    r"|除外|違う|否定的?|否|[❌✗✘✖✕×]"
)
BEFORE_VERDICT: Final = (
    r"(?:so|thus|hence|therefore|it|this|that|is|was|are|as|be|also|too|can|verdict|option|statement|answer|donc"
    r"|ainsi|on|l'|la|le|est|c'est"
    r"|aussi|à|proposition|cette|réponse|por|lo|tanto|es|se|queda|también|opción|esta|así|que|значит|поэтому"
    r"|следовательно|тоже|также"
    r"|вариант|ответ|это|его|её|ее|и)\b|因此|所以|故|也|可以|可|应|予以?|该项?|本项|此项|说法|说法是|判断|よって"
    r"|ゆえに|これは|これも|は|も|で"
)
BEHIND_VERDICT: Final = (
    r"(?:option|answer|statement|choice|as well|too|aussi|également|proposition|réponse|también|opción|тоже|также"
    r"|вариант)\b|だ|です|である"
    r"|する|した|できる|とする|なし|たい|选项|项|说法|了|的|掉"
)
ALL: Final = (
    r"全选|全对|[都均皆](?:对|选|正确|是)|\b(?:all|every\w{0,5}|any|tou(?:te?s?|s)|todas?|todos?|вс[её]|cualquiera)\b"
    r"|所有|全部|すべて|全て"
)
ONLY: Final = r"\b(?:only|seule?s?|sol[oa]|sólo|únicamente|только)|只有|仅有?"
EXCEPT: Final = (
    r"\b(?:except(?:ing)?(?: for)?|apart from|other than|with the exception of|excluding|barring|salvo|excepto|menos"
    r"|(?:a|con) (?:la )?excepción de|quitando|exceptuando|fuera de|aparte de|sauf|excepté|à l'exception d[eu']"
    r"|hormis|à part|hors"
    r"|кроме|помимо|не считая|за исключением)|除了?"
)
BE: Final = (
    r"(?:is|are|be|being|remains?|seems?|appears?|was|(?<!such )as|looks|est|sont|serait|semble|paraît|reste|étant|être|es|son"
    r"|sería|ser|parece"
    r"|resulta|está|están)"
)
COPULA: Final = (
    rf"(?:\b(?:{BE}|(?:seraient|ser[ií]an?|ser[aá]|является|являются|это|будет|быть|to|includes?|incluyen?|inclu(?:t"
    rf"|ent)|comprend"
    r"|comprennent|включа\w{2}))\b|'s\b|[:=→—]|[-=]>| - |[是为為はが有]|包括)"
)

OTHERS: Final = _phrases(r"""
    (?:the|all) (?:other|remaining)s?(?! hand)|the rest|(?:other|all|all the) (?:options|choices|answers?|statements)
    les autres|d'autres options|autres (?:propositions|options|réponses)|toutes les|l[ao]s (?:otr[ao]s|demás)|otras opciones
    el resto|todas las|остальн\w{1,3}|други[емх]{1,2} (?:вариант|ответ|утвержд|опци)\w{1,4}|прочи\w{1,2}
    все (?:варианты|утверждения)
    zh: 其[他它余][一-鿿]{0,4}(?:[均都皆]|不)|\bother(?= \(?[\ue000-\ue01f])|其余
    zh: 其[他它](?:[\ue000-\ue01f]|选项|选择|各项|[三四几][个项]|均|都)|残り[のはが]
    zh: (?:その)?他の(?:[\ue000-\ue01f]|選択肢|オプション|疾患|治療)
""")
# "If I had to choose" is no condition.
_IF: Final = r"(?:if|si|если)(?! (?:i|we|one|je|on|l'on|forced|tuviera que|tengo que|мне|бы мне)\b)"
IF: Final = _phrases(rf"""
    {_IF}|unless|s'il
    zh: 如果(?!必须|一定)|假如|若|もし|であれば|ならば
""")
# "A would be right if the patient were younger".
WOULD_IF: Final = re.compile(
    rf"(?:(?!\b(?:{REASON})\b)[^;.!?。\ue000-\ue05f]){{0,50}}?"
    r"\b(?:would|could|might|(?:ser|aur|pourr)ai(?:en)?t|(?:ser|habr|podr)[ií]an?|pudiera|бы)\b"
    rf"(?:(?!\b(?:{REASON})\b)[^;.!?。\ue000-\ue05f]){{0,70}}?\b(?:{_IF}|unless|when|were the|had the|in case of|only in|s'il"
    r"|en cas (?:de|d(?='))|de haber|en caso de|при)\b",
    re.IGNORECASE,
)
WOULD: Final = _phrases(r"would|could|might|\w{2,12}(?:rai[st]|ría)|бы\nzh: [则会就应ばら]")
HEDGE: Final = _phrases(r"""
    could(?! only)|might|may|possibly|pourrai\w{1,4}|(?<!ne )peu(?:t|vent) [eê]tre|podrían?|(?<!no )puede|(?<!не )может|могут
    возможно
    perhaps|maybe|peut-être|quizás?|tal vez|a lo mejor|может быть
    zh: (?<!最)(?<!最有)(?<!最不)可能(?!性)|也许|或许|かもしれ|可能性[がも]あ
""")
# What others think, what was thought first, and what was done to the patient before.
REPORTED: Final = _phrases(r"""
    some|many|most (?:people|students|candidates)|people|students|tempted|commonly chosen|previously|was treated|initially
    at first|first thought|received|was given|history of|(?:he|she|patient) (?:takes|took|(?:was|is|has been) (?:taking|on))
    certains|beaucoup|la plupart|on pourrait (?:croire|penser)|d'aucuns|tenté\w?|au départ|au début|a reçu|antécédents?
    algunos|much[oa]s|la mayoría|inicialmente|al principio|recibi\w{1,4}|antecedentes?
    сперва|(?<!мне )кажется|казалось(?: бы)?|некоторые|многие|большинство|часто выбирают|сначала|первоначально
    получ(?:ил|ал)\w{0,2}
    в анамнезе
    zh: 有人|很多|不少|大多|多数|同学|考生|误[选以认]|容易|易[误选]|曾|既往|以前|起初|一开始|乍一看|最初は|当初
""")
# What a patient had or took before, and what a text is about rather than what it answers.
HISTORY: Final = _phrases(r"""
    patient\w?|(?:s?he|they) (?:was|were|had|has|took|takes|is|are)|mechanism\w?|prior|before|unlike|pris|prenait|malade
    il (?:a|avait)|elle (?:a|avait)
    mécanisme\w?|paciente\w?|tomaba|recibía|mecanismo\w?|больн\w{1,3}|пациент\w{0,3}|принимал\w{0,2}|получал\w{0,2}
    механизм\w{0,2}|ранее
    zh: 患者|病人|作用机制|患児|作用機序|内服|服用
""")
SURE: Final = re.compile(
    r",? ?(?:no (?:question|doubt)|without (?:a )?doubt|nothing else|ni más ni menos|sin (?:ninguna )?duda"
    r"|sans (?:aucun )?doute|rien d'autre|без сомнени"
    r"|и ничто иное|毋庸置疑|毫无疑问|没有疑问|無疑|間違いな)",
    re.IGNORECASE,
)
PAST: Final = _phrases(r"""
    (?:years?|months?) ago|last year|previously|in the past|il y a \w+ (?:ans|mois)|auparavant|hace \w+ (?:años|meses)
    anteriormente
    (?:лет|год|года|месяц\w{0,3}) назад|ранее|раньше
    zh: [年月]前|以前|既往
""")
RETRACTS: Final = _phrases(r"""
    wait(?= ?[,.!—:]| a\b| no\b)|scratch that|on second thought|let me (?:reconsider|rethink|correct)|i made a mistake
    i was wrong|that(?:'s| is) (?:wrong|incorrect|not right)|i meant?|attendez|me trompe|(?:me|je) corrige|erratum|voulais dire
    me (?:he )?equivo(?:qu[eé]|cado)|corrijo|rectifico|perdón|quise decir|espera(?=[,.!:])
    (?:rectification|correc(?:tion|ción))(?= ?:)
    стоп|погодите|подождите|я ошиб\w{2,5}|(?:это |моя )ошибка|erreur de ma part|исправл(?:яюсь|ю)|поправка|имел\w? в виду
    (?:no|non|mais non),? (?:pardon|sorry|wait|espera|perdón|attends)|hold on|strike that|my mistake|i take (?:that|it) back|oops
    on reflection|thinking (?:about it )?again|(?:changing|change|revise|revising) my (?:answer|mind)|i misread|misspoke
    (?:à la|après) réflexion|en y réfléchissant|je rectifie|oups|a?u temps pour moi|autant pour moi|je me corrige|je reviens sur
    pensándolo (?:bien|mejor)|mejor dicho|me retracto|un momento(?= ?[,.:!])|rectifico|fe de erratas|cambio mi respuesta|no, no
    постойте|хотя нет|нет, не|поправляюсь|исправляю|беру свои слова назад|передумал\w?|вс[её][- ]таки|пересмотр\w{1,4}
    перепутал\w?
    edit(?= ?:)|update(?= ?:)
    (?:actually|rather|in fact),?(?: (?:it's|it is|the))?(?= ?[\ue000-\ue01f])
    (?:en fait|plutôt|en realidad|más bien),?(?: (?:c'est|es|la|el))?(?= ?[\ue000-\ue01f])
    (?:на деле|вернее|точнее),?(?: это)?(?= ?[\ue000-\ue01f])
    zh: (?:实际上|其实)(?:是|应该?是|应选|选)?(?=[\ue000-\ue01f])|(?:実際は|実は|むしろ)(?=[\ue000-\ue01f])|等一下|等下[,。]
    zh: 我错了|错了[,。!]
    zh: (?:^|[,。;])(?:更正|纠正|修正)|我改|答案[应该]{0,2}改为|改选|收回|说错|看错|记错|弄错|仔细一想|再一想|转念一想|撤回
    zh: よく考える|間違えました|いやいや
    zh: ^(?:no|non|нет|不|いや), |^(?:不|いや|いえ)[,、]|(?:^|[,。])等等[,。!]|不对,|重新考虑|更正|いや[、,]|いえ、|待って
    zh: 考え直|訂正|失礼
""")
TURNS: Final = _phrases("""
    actually|in fact|but|however|en fait|en réalité|mais|cependant|toutefois|en realidad|pero|sin embargo
    на самом деле|но|однако
    zh: 其实|正しくは|实际上|事实上|が、|但|然而|不过|しかし|ただし
""")
REFUSES: Final = _phrases("""
    (?:i|we|you|one) (?:cannot|can't|can not|am not|are not)|cannot be|unable to|not (?:sure|certain)|insufficient|not enough
    i'm sorry|as an ai|consult|désolé|ne peux pas|impossible de|consulte[zr]?|lo siento|no puedo|no se puede|не могу|к сожалению
    обратитесь|недостаточно
    zh: 无法|不能确定|抱歉|咨询医生|お答えできません|申し訳|わかりません|判断できません
""")
DISCUSSES: Final = _phrases(r"""
    consider\w{0,3}|look(?:ing)? at|let's|start(?:ing)? with|first|considér\w{1,5}|commençons|examin\w{1,5}
    veamos|analic\w{1,5}|empe\w{2,5}|рассмотрим|начн[её]м|во-первых
    zh: 首先(?!考虑)|先看|来看|まず(?!行う)|について|検討
""")
MENU: Final = _phrases("""
    answer (?:choices|options)|possible answers
    zh: explanation|analy[sz]|rationale|réponses possibles|opciones de|варианты ответ|解析|分析|explica[ct]i
    zh: объяснение|пояснение|解説
""")
STATEMENT: Final = _phrases("""
    statement|утверждение|affirmation|énoncé|afirmación|enunciado
    zh: ^(?=no es |ce n'est pas |it is |this is |es (?:correct|ciert|verd)|это )|说法|记述|記述
""")


def _spread(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.VERBOSE)


# Behind these a lone letter names something else: hepatitis B, vitamin A, grade C, group A, Figure A, patient A.
OTHER_NAME: Final = _spread(r"""
    (?:\b(?:vitam|hepatit|hépatit|typ|tip|gr[ou]{1,2}p|grad|clas|sta[gd]e|estad[ií]|fa[ck]t|figur|tabl|pa[tc]ient|(?<!la[ ])case
    |phas|fas|plan|prot[eé]|coenzym|influenz|gripp?e|ha?emophil|hémophil|hemofil|i[mn]munoglob|(?:apo)?lipop|sub(?:typ|unit)|chromos
    |zon|section|panel|append|drug|region|segment|antig|antíg|blood|sang|study|receptor|complex|interferon|c[iy]closporin
    |a[mn](?:ph|f)oter|strep|pugh|child|hla|image|curve|popul|cohort|schedul|level|nivel|niveau|cat[eé]gor|d[ií]m[eèé]r|p[eé]pt[ií]d
    |lign|l[ií]ne|ond|wave|fib[er]|l[iy][mn](?:f|ph)o[cs][iy]t|c[eéè]l+ul|vac+[iu]n|al+el|стад|витам|гепатит|групп|тип|степен|класс
    |фактор|рис|табл|пациент|больн|фаз|белок|белк|штам|грипп|коэнзим|кофермент|гемофил|иммуноглоб|стрепток|категор|кров|тяжест
    |доказательн|протеин|пептид|димер|лини|волн|волок|лимфоцит|клет|антиген|токсин|вакцин|интерферон|рецептор|вирус)\w{0,12}[ -]?
    |\b(?:vit|fig|gr|tab|inf|рис|табл|гр)\.[ ]?
    |\b(?:typ|tip|gr[ou]{1,2}p|grad|clas|sta[gd]e|estad|стад|групп|степен|класс)\w{0,9}(?:[ ]\w{2,12})?[ ](?:is|was|es|est|—)[ ]
    |\b(?:ig|apo|fig|lead|arm|site|tube|dr|mr|mrs|sr|sra|toxine?|toxina)\.?[ -]
    |维生素|维他命|抗体|抗原|毒素|蛋白|肝炎|血型|因子|辅酶|图|表|患者|病人|流感|方案|ビタミン|図|グループ|グレード|分類|タイプ
    |インフルエンザ|\b[A-Z]\.|[°\d][ ]?)(?:[A-J](?:,|[ ](?:and|or|et|ou|y|o|и|или))[ ]|[A-J][、和与とや])?\Z
""")
OTHER_USE: Final = _spread(r"""
    -(?![A-J]\b)\w|(?-i:-a)\b|(?!オプション)[ァ-ヺ]|\.[A-Z](?![a-z])|['’](?!s\b)[^\W\d]
    |[型群组組级級期類类系族株超波線线区班氏君肝肽臂]|二[聚联]体|病毒|医院|病院|さん|ちゃん|细胞|細胞|淋巴|リンパ|反应|反応|蛋白|抗原|抗体
    |(?-i:\.[ ]?(?!vrai)[a-z]{3,14}(?:i|us|um|is|ns|ae|ile|ale|ica|ata))\b
    |\.?[ ]?(?:coli|diff(?:icile)?|jejuni|perfringens|tetani|botulinum|trachomatis|albicans|histolytica|pertussis|cereus|anthracis
    |burgdorferi|fragilis|fumigatus|baumannii|f(?:ae|e)cal[ei]s|f(?:ae|e)cium|neoformans|diphtheriae)\b
    |[ ]?(?-i:lines?(?![ ]up)|symptoms?|section|fib(?:s|ers?|res?|rillation)?|arm|spine|delta|vitamins|reactive[ ]protein)\b
    |[ ]?(?:cells?|lymph\w{0,9}|virus|antigens?|peptides?|waves?|d[ií]m[eèé]r\w{0,2}|cellules?|células?|клет\w{1,4}|димер\w{0,3}
    |лимфоцит\w{0,3}|пептид\w{0,3}|протеин\w{0,3})\b
""")
# What may follow a letter that is also a word: "A is correct", but never "A patient", "A noter", "А также".
VERB: Final = re.compile(
    rf" (?:{BE}|{REASON}|{AND}|{OR}|{WRONG.spaced}|{NOT.spaced}|would|can|could|should|has|does|did|may|might|must|but|which|due"
    r"|given|over|describes|represents|only|alone|instead|too|also|correct|true|making|based|n'est|correspond|vraie?"
    r"|verdader[oa]|debido|qu'"
    r"|que|en|plutôt|au|mais|sino|pero|а|но|явля\w{1,5}|вер[еноы]\w{0,3}|прав\w{2,8}|обоснов\w{1,5}|обуслов\w{1,6}"
    r"|подходит|соответствует"
    r"|выбран\w{0,2})\b| ?[^\s\w\ue000-\ue05f]| ?[\u2e80-\ud7ff]| ?$|\n"
)
