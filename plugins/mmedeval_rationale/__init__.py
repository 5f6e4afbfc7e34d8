"""How good a model's rationale is: BLEU, ROUGE, chrF, BERTScore, the paper's own recipes, its language, and a judge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from mmedeval import MetricFunction, MetricSpec, hookimpl

ITEMS = {"rationale_items": "checked: items whose reference a person found good (default); all: every item that has a reference"}
MODEL = {
    "bertscore_model": "a folder or hub name (default bert-base-multilingual-cased)",
    "bertscore_layers": "the layer whose representation is compared (default 9 for the default model)",
}
JUDGE = {
    "judge": "the model that judges, as in openai:MODEL or hf:PATH (short: --judge)",
    "judge_args": "its settings, as in dtype=bfloat16,device=cuda",
    "judge_language": "the language of the rubric: en (default), zh, ja, fr, ru, es, or item for that of each item",
    "judge_reference": "shown (default) or hidden: whether the judge sees the reference",
    "judge_seed": "for judges that draw (default 0)",
    "judge_max_cost": "US dollars after which the judge is asked no more, for judges that cost money",
    "judge_max_requests": "refuses to start when the judge would be asked more often",
}
JUDGES: Mapping[str, str | None] = {"judge": None, **{f"judge_{name}": name for name in ("accuracy", "reasoning", "knowledge")}}
WORDS = ("jieba", "fugashi", "unidic_lite")
SUMMARIES: Mapping[str, str] = {
    "bleu1": "BLEU of single words (sacrebleu, words as the language cuts them)",
    "bleu2": "BLEU of one and two words",
    "bleu3": "BLEU of one to three words",
    "bleu4": "BLEU of one to four words",
    "rouge1": "F1 of single words (rouge-score, words as the language cuts them)",
    "rouge2": "F1 of pairs of words",
    "rougeL": "F1 of the longest common subsequence of words",
    "chrf": "F2 of character sequences up to six (sacrebleu's chrF2)",
    "bertscore": "F1 of words that match in the space of multilingual BERT, or of another model",
    "paper_bleu1": "BLEU-1 as in the paper: nltk, smoothing method 1",
    "paper_rouge1": "ROUGE-1 as in the paper: sets of words",
    "paper_rougeL": "ROUGE-L as in the paper's script",
    "paper_bertscore": "BERTScore as in the paper: layer 9 of bert-base-multilingual-cased",
}


def sentence_scores(
    metric: str,
    candidates: Sequence[str],
    references: Sequence[str],
    language: str,
    *,
    arguments: Mapping[str, str] | None = None,
) -> list[float]:
    """A score per pair on a 0 to 100 scale; 0 where a text of the pair is empty.

    `metric` is a name of `SUMMARIES`, `language` one of en, zh, ja, fr, ru, es; `arguments` are those of `--metric-arg`. Raises
    `UnknownNameError`, and `UsageError` for a bad argument or sequences of different lengths.
    """
    from mmedeval_rationale.scores import sentence_scores as scores

    return scores(metric, candidates, references, language, arguments=arguments)


def _load(name: str, arguments: Mapping[str, str]) -> MetricFunction:
    from mmedeval_rationale.scores import load

    return load(name, arguments)


def _load_language() -> MetricFunction:
    from mmedeval_rationale.scores import in_question_language

    return in_question_language


def _load_judge(criterion: str | None, arguments: Mapping[str, str]) -> MetricFunction:
    from mmedeval_rationale.judge import Judge

    return Judge(criterion, arguments)


def _requires(name: str) -> tuple[str, ...]:
    if "bertscore" in name:
        return ("bert_score", "torch", "transformers")
    if name == "chrf":
        return ("sacrebleu",)
    return (*WORDS, "sacrebleu" if name.startswith("bleu") else "rouge_score")


@hookimpl
def mmedeval_metrics() -> Iterable[MetricSpec]:
    specs = [
        MetricSpec(
            name=name,
            summary=summary,
            load=partial(_load, name),
            protocols=("chat", "paper"),
            scale=100.0,
            requires=("jieba", "janome", "nltk") if name.startswith("paper_") and name != "paper_bertscore" else _requires(name),
            extra="rationale",
            arguments={**ITEMS, **(MODEL if "bertscore" in name else {})},
        )
        for name, summary in SUMMARIES.items()
    ]
    language = MetricSpec(
        name="in_language",
        summary="share of texts that are written in the question's language",
        load=_load_language,
        protocols=("chat", "paper"),
        requires=("py3langid",),
        extra="rationale",
    )
    judges = [
        MetricSpec(
            name=name,
            summary=f"a language model's points from 1 to 5, {criterion or 'the mean of accuracy, reasoning and knowledge'}",
            load=partial(_load_judge, criterion),
            protocols=("chat", "paper"),
            scale=5.0,
            arguments={**ITEMS, **JUDGE},
        )
        for name, criterion in JUDGES.items()
    ]
    return [*specs, language, *judges]
