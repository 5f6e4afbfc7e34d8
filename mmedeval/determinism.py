"""Whether the company of other items changes an answer: a few items are asked again, each computed by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from mmedeval.types import SampleResult

# So many items are asked again; of texts, which take longer, one in a hundred and no more than that.
CHECKED_ITEMS = 20
TEXTS_PER_CHECK = 100

T = TypeVar("T")


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, or all where there are no more, evenly from the first on."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def checked(results: Sequence[SampleResult]) -> list[SampleResult]:
    """The results to ask for again."""
    answered = [result for result in results if result.logprobs is not None or result.output is not None]
    texts = any(result.output is not None for result in answered)
    return spread(answered, min(CHECKED_ITEMS, -(-len(answered) // TEXTS_PER_CHECK)) if texts else CHECKED_ITEMS)


def compare(stored: Sequence[SampleResult], alone: Mapping[tuple[str, str], SampleResult]) -> dict[str, Any]:
    """What changed: the largest difference of a loglikelihood, texts that differ, items whose verdict flipped.

    `alone` are the same items by their keys; one that failed there counts as failed and is not compared.
    """
    pairs = [(before, alone[before.key]) for before in stored]
    both = [(before, now) for before, now in pairs if now.status != "failed"]
    return {
        "items": len(both),
        "failed_alone": len(pairs) - len(both),
        "largest_loglikelihood_difference": max(_differences(both), default=None),
        "different_texts": sum(before.output != now.output for before, now in both),
        "flipped": ["/".join(before.key) for before, now in both if before.prediction != now.prediction],
    }


def _differences(pairs: Iterable[tuple[SampleResult, SampleResult]]) -> Iterable[float]:
    for before, now in pairs:
        if before.logprobs is not None and now.logprobs is not None:
            yield from (abs(value - now.logprobs[answer]) for answer, value in before.logprobs.items())


def sentence(found: Mapping[str, Any]) -> str:
    """What a reader of the table is told."""
    if "error" in found:
        return f"a few items were to be computed again alone, which failed: {found['error']}"
    difference = found["largest_loglikelihood_difference"]
    what = (
        f"{found['different_texts']} texts differ" if difference is None else f"loglikelihoods differ by at most {difference:.1g}"
    )
    flipped = len(found["flipped"])
    verdicts = f"{flipped} verdicts flipped" if flipped else "no verdict flipped"
    failed = f" ({found['failed_alone']} failed)" if found["failed_alone"] else ""
    return f"{found['items']} items computed again alone{failed}: {what}, {verdicts}"
