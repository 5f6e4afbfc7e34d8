"""Loglikelihoods from a completions endpoint that echoes the prompt with log-probabilities (pure).

A server tells its tokens as texts, and texts do not always tell where a token begins: a character may be spread over tokens that
show as nothing. So the border is found by counting, as `mmedeval.tokens.Encoder` does: the scored tokens are those of the joined
text behind as many as the prompt has alone, which is asked for that. Only where a token spans the border they follow other tokens
than there: the joined text's own, since a server is given texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmedeval import LoglikelihoodRequest, Loglikelihoods, Prompt, Usage
from mmedeval.remote import Trouble
from mmedeval.servers import Price
from mmedeval.tokens import common_prefix
from mmedeval_openai.wire import MALFORMED, MISSHAPEN, usage_if_told, usage_of

SLACK = 1e-3
NOT_ECHOED = (
    "the server does not echo the prompt with log-probabilities and token counts: it can only write; use --protocol chat, and "
    "leave out --model-arg endpoint=completions where there is a chat endpoint"
)
SHIFTED = (
    "the server's log-probabilities belong to other tokens than it says (llama_cpp.server does that for models without a BOS "
    "token); use gguf: for such a file, another server, or --protocol chat"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """The tokens of a text, as texts, with their log-probabilities; the first ones have none.

    `sure`: that they belong together was seen, not only hoped.
    """

    tokens: tuple[str, ...]
    logprobs: tuple[float | None, ...]
    usage: Usage
    sure: bool


def texts_of(prompt: Prompt, continuations: Sequence[str]) -> tuple[str, list[str]]:
    """The prompt alone, and joined with each continuation. Spaces at its end go to the continuations, as in `Encoder`.

    Raises `Trouble` for a prompt that is empty.
    """
    context = prompt.text.rstrip()
    if not context:
        raise Trouble("refused", "the prompt has no token to predict from", kind="refused")
    behind = prompt.text[len(context) :]
    return context, [context + behind + continuation for continuation in continuations]


def echo_of(text: str, answer: Mapping[str, Any], price: Price | None) -> Echo:
    """The echo of `text`. Raises `Trouble` for an answer that is none, or whose log-probabilities are of other tokens."""
    try:
        choice = answer["choices"][0]
        told, said = choice.get("logprobs"), choice["text"]
        usage = usage_of(answer, price)
        if not told or not str(said).startswith(text) or not usage.tokens_in:
            raise Trouble("hopeless", NOT_ECHOED, usage=usage)
        tokens = [str(token) for token in told["tokens"]]
        logprobs = [None if value is None else float(value) for value in told["token_logprobs"]]
        best = [float(value) for value in ((told.get("top_logprobs") or [None])[-1] or {}).values()]
        if len(tokens) != len(logprobs):
            raise ValueError("as many tokens as log-probabilities")
    except MISSHAPEN:
        raise Trouble("passing", MALFORMED, usage=usage_if_told(answer, price)) from None
    written = usage.tokens_out
    unlisted = usage.tokens_in + written - len(tokens)
    # llama_cpp.server does not list BOS tokens, neither the one in front nor one that the model writes. Without one in front it
    # shifts all log-probabilities by one, in silence.
    if unlisted in (0, 1) and written:
        shown = "".join(tokens[-written:]) == said[len(text) :]
        last = logprobs[-1]
        if not shown and not (best and last is not None and last >= max(best) - SLACK):
            raise Trouble("hopeless", SHIFTED, usage=usage)
        end = len(tokens) - written
    elif unlisted == (2 if written else 1):
        end = len(tokens) - max(0, written - 1)
    elif unlisted == 0:
        return Echo(tokens=tuple(tokens), logprobs=tuple(logprobs), usage=usage, sure=False)
    else:
        raise Trouble(
            "hopeless",
            f"the server lists {len(tokens)} tokens where it counts {usage.tokens_in} and {written} written ones",
            usage=usage,
        )
    return Echo(tokens=tuple(tokens[:end]), logprobs=tuple(logprobs[:end]), usage=usage, sure=True)


def loglikelihoods_of(request: LoglikelihoodRequest, context: Echo, joined: Sequence[Echo], dropped: int) -> Loglikelihoods:
    """Loglikelihoods from the echoes of the prompt alone and of the joined texts; `Trouble` where there is nothing to score."""
    usage = Usage(tokens_in=context.usage.tokens_in, shots_dropped=dropped, cost=_cost((context, *joined)))
    if not any(each.sure for each in (context, *joined)):
        raise Trouble(
            "refused",
            "the model ends behind each continuation, so that the server's order of tokens cannot be checked",
            usage=usage,
        )
    border = len(context.tokens)
    merged = any(each.tokens[:border] != context.tokens for each in joined)
    if merged and any(len(each.tokens) <= border for each in joined):
        border = min(common_prefix(context.tokens, each.tokens) for each in joined)
    values = []
    for each in joined:
        scored = each.logprobs[border:]
        known = [value for value in scored if value is not None]
        if not scored or len(known) < len(scored):
            message = "a continuation has no token of its own that the server scores"
            raise Trouble("refused", message, kind="refused", usage=usage)
        values.append(min(0.0, sum(known)))
    scored_tokens = sum(len(each.tokens) - border for each in joined)
    usage = replace(usage, tokens_out=scored_tokens, border_merged=merged)
    return Loglikelihoods(request_id=request.id, values=tuple(values), usage=usage)


def billed(echoes: MutableMapping[str, Echo]) -> float | None:
    """What these cost, in US dollars, and takes it off them: the tries that use them again must not tell it again."""
    cost = _cost(echoes.values())
    if cost is not None:
        echoes.update({text: replace(echo, usage=replace(echo.usage, cost=0.0)) for text, echo in echoes.items()})
    return cost


def _cost(echoes: Iterable[Echo]) -> float | None:
    costs = [each.usage.cost for each in echoes if each.usage.cost is not None]
    return sum(costs) if costs else None
