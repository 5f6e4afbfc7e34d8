"""What of a model's output is its rationale."""

from __future__ import annotations

import re
import unicodedata

from mmedeval.answers import final_part

_ANSWER_WORD = (
    "final answer|answer|最终答案|答案|最終的な答え|答え|réponse finale|réponse|окончательный ответ|ответ|"
    "respuesta final|respuesta"
)
_ANSWER_LINE = re.compile(
    rf"[\W_]{{0,9}}(?:{_ANSWER_WORD})[\W_]{{0,9}}[A-J](?:[\s,、&]{{1,3}}[A-J]){{0,9}}[\W_]{{0,9}}", re.IGNORECASE
)


def rationale_of(output: str) -> str:
    """What a model wrote apart from its thinking and its answer, as it wrote it.

    In the finetuned format that is what stands between its two marks; otherwise all but a last line that only names the answer.
    """
    text = final_part(output) or ""
    head, mark, _ = text.partition("###Answer: OPTION ")
    if mark:
        return head.replace("###Rationale: ", "").strip()
    lines = text.replace("###Rationale: ", "").strip().splitlines()
    if lines and _ANSWER_LINE.fullmatch(unicodedata.normalize("NFKC", lines[-1]).strip()):
        lines.pop()
    return "\n".join(lines).strip()
