"""The metrics by name: a score per pair of texts, and a value per item of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmedeval import LANGUAGES, PluginError, SampleResult, UnknownNameError, UsageError, rationale_of
from mmedeval_rationale import overlap, paper, words
from mmedeval_rationale.embedding import MULTILINGUAL, BertScore
from mmedeval_rationale.language import in_language

Scorer = Callable[[Sequence[str], Sequence[str], str], list[float]]
"""Scores, 0 to 100, of candidates and their references in a language."""

PAIRWISE: Mapping[str, Callable[[str, str, str], float]] = {
    "bleu1": partial(overlap.bleu, 1),
    "bleu2": partial(overlap.bleu, 2),
    "bleu3": partial(overlap.bleu, 3),
    "bleu4": partial(overlap.bleu, 4),
    "rouge1": partial(overlap.rouge, "rouge1"),
    "rouge2": partial(overlap.rouge, "rouge2"),
    "rougeL": partial(overlap.rouge, "rougeL"),
    "chrf": overlap.chrf,
    "paper_bleu1": paper.bleu1,
    "paper_rouge1": paper.rouge1,
    "paper_rougeL": paper.rouge_l,
}
EMBEDDED = ("bertscore", "paper_bertscore")

# In each language two texts of two words or more without a letter in common.
CHECKS: Mapping[str, tuple[str, str]] = {
    "en": ("Iron is low", "Make tea"),
    "zh": ("胰岛素能够降低血糖", "患者必须卧床休养"),
    "ja": ("インスリンで血糖が下がる", "安静のため病床へ"),
    "fr": ("L'été passé", "foin ou jonc"),
    "ru": ("Пить чай", "хлеб молод"),
    "es": ("Año malo", "tinte verde"),
}
TOLERANCE = 1e-3


def applies(result: SampleResult, items: str) -> bool:
    """Whether there is a text and a reference; of `items` "checked", only a reference that a person found good."""
    sample = result.sample
    checked = items == "all" or bool(sample.meta.get("human_check_passed"))
    return result.output is not None and checked and bool(sample.rationale.strip())


def sentence_scores(
    metric: str,
    candidates: Sequence[str],
    references: Sequence[str],
    language: str,
    *,
    arguments: Mapping[str, str] | None = None,
) -> list[float]:
    """A score per pair on a 0 to 100 scale; 0 where a text of the pair is empty.

    `language` is one of ISO 639-1; `arguments` are those of `--metric-arg`. Raises `UnknownNameError`, and `UsageError` for a bad
    argument or sequences of different lengths.
    """
    if len(candidates) != len(references):
        raise UsageError(f"{len(candidates)} candidates and {len(references)} references; each candidate needs its reference")
    if language not in LANGUAGES:
        raise UnknownNameError("language", language, LANGUAGES)
    return scorer(metric, arguments or {})[0](candidates, references, language)


def scorer(metric: str, arguments: Mapping[str, str]) -> tuple[Scorer, Callable[[], dict[str, Any]]]:
    """The scorer of a metric, and what tells what it is made of, once it has scored something."""
    if metric in EMBEDDED:
        embedding = _embedding(metric, arguments)
        return (lambda candidates, references, _: embedding(candidates, references)), embedding.describe
    if metric not in PAIRWISE:
        raise UnknownNameError("metric", metric, [*PAIRWISE, *EMBEDDED])

    def score(candidates: Sequence[str], references: Sequence[str], language: str) -> list[float]:
        pairs = zip(candidates, references, strict=True)
        return [PAIRWISE[metric](candidate, reference, language) for candidate, reference in pairs]

    return score, partial(_about, metric)


def _about(metric: str) -> dict[str, Any]:
    """The implementation and the cutters of words, with their versions."""
    if metric.startswith("paper_"):
        return {"words": {language: paper.describe(language) for language in LANGUAGES}}
    cutters = {} if metric == "chrf" else {"words": {language: words.describe(language) for language in LANGUAGES}}
    return {"signature": overlap.signature(metric), **cutters}


def _embedding(metric: str, arguments: Mapping[str, str]) -> BertScore:
    model, layers = arguments.get("bertscore_model", MULTILINGUAL), arguments.get("bertscore_layers")
    if layers is not None and not layers.isdecimal():
        raise UsageError(f"--metric-arg bertscore_layers={layers} is not a whole number")
    embedding = BertScore(model, None if layers is None else int(layers))
    if metric == "paper_bertscore" and not embedding.is_multilingual:
        raise UsageError(
            f"paper_bertscore is that of layer 9 of {MULTILINGUAL}; {model} with {embedding.layers} layers is not: use bertscore"
        )
    return embedding


def load(metric: str, arguments: Mapping[str, str]) -> RationaleMetric:
    """A metric that has passed its self-check. Raises `UsageError` for a bad argument, `PluginError` for a failed check."""
    items = items_of(arguments)
    score, describe = scorer(metric, arguments)
    check(metric, score)
    return RationaleMetric(score, {**describe(), "rationale_items": items})


def items_of(arguments: Mapping[str, str]) -> str:
    items = arguments.get("rationale_items", "checked")
    if items not in ("checked", "all"):
        raise UsageError(f"--rationale-items {items} is neither checked nor all")
    return items


def check(metric: str, score: Scorer) -> None:
    """In every language identical texts must score 100 and texts without anything in common 0 (an embedding: less than 100)."""
    for language, (one, other) in CHECKS.items():
        same, different = score([one, one], [one, other], language)
        lowest = 100 - TOLERANCE if metric in EMBEDDED else TOLERANCE
        if abs(same - 100) > TOLERANCE or different > lowest:
            raise PluginError(
                f"the metric {metric} gives {same:g} to identical texts in {LANGUAGES[language]} and {different:g} to texts that "
                "have nothing in common; its figures would mean nothing, so it does not run"
            )


@dataclass(frozen=True)
class RationaleMetric:
    """A metric over the items of a task that have a text and a reference, which by default a person must have found good."""

    score: Scorer
    about: Mapping[str, Any]

    def __call__(self, results: Sequence[SampleResult]) -> list[float | None]:
        wanted = [i for i, result in enumerate(results) if applies(result, self.about["rationale_items"])]
        candidates = [rationale_of(results[i].output or "") for i in wanted]
        references = [results[i].sample.rationale for i in wanted]
        values: list[float | None] = [None] * len(results)
        if wanted:
            for i, score in zip(wanted, self.score(candidates, references, results[0].sample.language), strict=True):
                values[i] = score
        return values

    def describe(self) -> Mapping[str, Any]:
        return self.about


def in_question_language(results: Sequence[SampleResult]) -> list[float | None]:
    """1 where what the model wrote is in the question's language, 0 where it is in another, nothing where that cannot be told."""
    return [
        None if result.output is None else in_language(rationale_of(result.output), result.sample.language) for result in results
    ]
