"""A tokenizer.json of transformers in the words of GGUF, or the reason why llama.cpp would split text otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmed_train.checkpoint import Checkpoint
from mmedeval import ModelError
from mmedeval.text import first_line

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# (how text is split, whether a whole piece that is a token is taken before any merge) -> llama.cpp's name for both.
PRE_TOKENIZERS: Mapping[tuple[str, bool], str] = {
    (_GPT2, False): "gpt-2",
    (_QWEN2, False): "qwen2",
    (_LLAMA3, True): "llama-bpe",
    (_LLAMA3, False): "smaug-bpe",
    (_TEKKEN, True): "tekken",
}


@dataclass(frozen=True, kw_only=True)
class GGUFTokenizer:
    """What stands under `tokenizer.ggml.` in a GGUF file. `types` are those of llama.cpp, one per token."""

    model: str
    pre: str
    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str] = ()
    scores: Sequence[float] = ()
    special_ids: Mapping[str, int]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    chat_template: str | None
    warnings: Sequence[str] = ()


def read_tokenizer(checkpoint: Checkpoint, rows: int) -> GGUFTokenizer:
    """The tokenizer of a checkpoint with `rows` embeddings. Raises `ModelError` where llama.cpp has none that does the same."""
    try:
        return _read(checkpoint, rows)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"the tokenizer of {checkpoint.path} cannot be read ({type(error).__name__}: {first_line(error)}); copy the files of "
            "the tokenizer that was saved with the model"
        ) from error


def _read(checkpoint: Checkpoint, rows: int) -> GGUFTokenizer:
    content = checkpoint.json("tokenizer.json")
    about = checkpoint.json("tokenizer_config.json")
    model = content.get("model") or {}
    if model.get("type") != "BPE" or any(
        model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    ):
        raise _unknown(checkpoint, f"a tokenizer of type {model.get('type')} with settings of its own")
    vocabulary: dict[str, int] = {
        **model["vocab"],
        **{token["content"]: token["id"] for token in content.get("added_tokens", [])},
    }
    beyond = next((i for i in vocabulary.values() if type(i) is not int or not 0 <= i < rows), None)
    if beyond is not None:
        raise ModelError(
            f"the tokenizer of {checkpoint.path} has the token {beyond!r}, but the model has {rows} embeddings; "
            "they do not belong together: copy the tokenizer that was saved with the model"
        )
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [UNUSED] * rows
    for token, i in vocabulary.items():
        tokens[i], types[i] = token, NORMAL
    for token in content.get("added_tokens", []):
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    special_ids, warnings = _special_ids(about, vocabulary, checkpoint)
    for role in ("bos", "eos", "padding"):
        if role in special_ids:
            types[special_ids[role]] = CONTROL
    add_bos, add_eos = _added(content.get("post_processor"), special_ids, checkpoint)
    warnings += _warnings(content)
    common: dict[str, Any] = {
        "tokens": tokens,
        "special_ids": special_ids,
        "add_bos": add_bos,
        "add_eos": add_eos,
        "chat_template": _chat_template(checkpoint, about),
    }
    if model.get("byte_fallback"):
        space, told = _space_prefix(content, checkpoint)
        for i, token in enumerate(tokens):
            if types[i] == NORMAL and re.fullmatch(r"<0x[0-9A-F]{2}>", token):
                types[i] = BYTE
        unknown = vocabulary.get(model.get("unk_token") or "")
        if unknown is not None:
            types[unknown] = UNKNOWN
            special_ids.setdefault("unknown", unknown)
        scores = _scores(tokens, pairs, checkpoint)
        return GGUFTokenizer(
            model="llama",
            pre="default",
            types=types,
            scores=scores,
            add_space_prefix=space,
            warnings=[*warnings, *told],
            **common,
        )
    pre = _pre_tokenizer(content, bool(model.get("ignore_merges")), checkpoint)
    if content.get("normalizer") is not None:
        if content["normalizer"].get("type") != "NFC":
            raise _unknown(checkpoint, f"a normalizer of type {content['normalizer'].get('type')}")
        warnings.append("the tokenizer brings text into Unicode's form NFC, llama.cpp does not: other text gets other tokens")
    merges = [" ".join(pair) for pair in pairs]
    return GGUFTokenizer(model="gpt2", pre=pre, types=types, merges=merges, add_space_prefix=False, warnings=warnings, **common)


def _unknown(checkpoint: Checkpoint, what: str) -> ModelError:
    return ModelError(
        f"{checkpoint.path}/tokenizer.json has {what}, which this export does not know; "
        f"use llama.cpp's own: python convert_hf_to_gguf.py {checkpoint.path}"
    )


def _pre_tokenizer(content: Mapping[str, Any], ignore_merges: bool, checkpoint: Checkpoint) -> str:
    """llama.cpp's name for how text is split before merging, known by what tokenizer.json does, not by what it is called."""
    steps = content.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    pattern: str | None = None
    match [step.get("type") for step in steps]:
        case ["ByteLevel"] if steps[0].get("use_regex", True):
            pattern = _GPT2
        case ["Split", "ByteLevel"] if not steps[1].get("use_regex", True):
            whole = (steps[0].get("behavior"), bool(steps[0].get("invert"))) == ("Isolated", False)
            pattern = steps[0].get("pattern", {}).get("Regex") if whole else None
    name = PRE_TOKENIZERS.get((pattern or "", ignore_merges))
    if name is None or steps[-1].get("add_prefix_space"):
        raise _unknown(checkpoint, "a way of splitting text")
    return name


def _space_prefix(content: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[bool, list[str]]:
    """Whether a blank is put in front of text, for a tokenizer that writes blanks as ▁ and splits nothing."""
    normalizer, pre = content.get("normalizer"), content.get("pre_tokenizer")
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    kinds = [step.get("type") for step in steps]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    if pre is None and kinds in (["Prepend", "Replace"], ["Replace"]) and steps[-1] == replace:
        return kinds[0] == "Prepend", []
    if not steps and pre is not None and (pre.get("type"), pre.get("replacement"), pre.get("split")) == ("Metaspace", "▁", False):
        scheme = pre.get("prepend_scheme")
        told = "the tokenizer puts a blank in front of a text's beginning only, llama.cpp also behind special tokens in a text"
        return scheme != "never", [told] if scheme == "first" else []
    raise _unknown(checkpoint, "a way of writing blanks")


def _scores(tokens: Sequence[str], pairs: Sequence[tuple[str, ...]], checkpoint: Checkpoint) -> list[float]:
    """llama.cpp merges to the token with the best score, transformers by a list of pairs: scores per token, where both agree.

    They do where each token's pairs follow each other in the list, and are all the ways to make it out of two tokens.
    """
    rank: dict[str, int] = {}
    made: dict[str, set[tuple[str, ...]]] = {}
    last = ""
    for pair in pairs:
        token = "".join(pair)
        if token != last and token in rank:
            raise _unknown(checkpoint, "an order of merges")
        last = token
        rank.setdefault(token, len(rank))
        made.setdefault(token, set()).add(pair)
    known = {*tokens}
    for token, ways in made.items():
        if ways != {(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in known and token[i:] in known}:
            raise _unknown(checkpoint, "a list of merges")
    return [-float(rank.get(token, len(rank))) for token in tokens]


def _special_ids(
    about: Mapping[str, Any], vocabulary: Mapping[str, int], checkpoint: Checkpoint
) -> tuple[dict[str, int], list[str]]:
    """The tokens with a role, by GGUF's names for the roles; and those that found none."""
    found: dict[str, int] = {}
    for name, role in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        token = about.get(f"{name}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if token is not None and token not in vocabulary:
            raise ModelError(f"{checkpoint.path}/tokenizer_config.json names the {name}_token {token!r}, which is no token")
        if token is not None:
            found[role] = vocabulary[token]
    # A model may end its turn with more tokens than the tokenizer names.
    file = "generation_config.json" if (checkpoint.path / "generation_config.json").is_file() else "config.json"
    configured = checkpoint.json(file).get("eos_token_id")
    ends = configured if isinstance(configured, list) else [configured]
    further = [end for end in ends if isinstance(end, int) and end != found.get("eos")]
    roles = [role for role in ("eos", "eot", "eom") if role not in found]
    found.update(zip(roles, further, strict=False))
    left = further[len(roles) :]
    return found, [f"GGUF has no place for further tokens that end a text: {', '.join(map(str, left))}"] if left else []


def _added(post_processor: Mapping[str, Any] | None, special_ids: Mapping[str, int], checkpoint: Checkpoint) -> tuple[bool, bool]:
    """Whether the tokenizer puts a BOS in front of text, and an EOS behind it."""
    processors = [] if post_processor is None else post_processor.get("processors", [post_processor])
    add_bos = add_eos = False
    for processor in processors:
        if processor.get("type") == "ByteLevel":
            continue
        parts = processor.get("single") or [] if processor.get("type") == "TemplateProcessing" else [{}]
        special = processor.get("special_tokens") or {}
        ids = [special[part["SpecialToken"]["id"]]["ids"] if "SpecialToken" in part else None for part in parts]
        bos, eos = [special_ids.get("bos")], [special_ids.get("eos")]
        if not any("Sequence" in part for part in parts) or ids not in ([None], [bos, None], [None, eos], [bos, None, eos]):
            raise _unknown(checkpoint, "special tokens around a text")
        add_bos, add_eos = ids[0] is not None, ids[-1] is not None
    return add_bos, add_eos


def _warnings(content: Mapping[str, Any]) -> list[str]:
    stripping = [token["content"] for token in content.get("added_tokens", []) if token.get("lstrip") or token.get("rstrip")]
    if not stripping:
        return []
    return [f"blanks around {', '.join(stripping[:4])} belong to these tokens here, but not in llama.cpp"]


def _chat_template(checkpoint: Checkpoint, about: Mapping[str, Any]) -> str | None:
    file = checkpoint.path / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    if (checkpoint.path / "chat_template.json").is_file():
        about = checkpoint.json("chat_template.json")
    template = about.get("chat_template")
    if isinstance(template, list):
        template = next((each["template"] for each in template if each.get("name") == "default"), None)
    if template is not None and not isinstance(template, str):
        raise TypeError(f"a chat template is text, not {template!r}")
    return template
