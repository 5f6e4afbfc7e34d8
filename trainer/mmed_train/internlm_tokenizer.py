"""A sentencepiece model with InternLM's settings as a tokenizer.json of transformers, held against sentencepiece itself.

Format: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from mmed_train.checkpoint import Checkpoint
from mmedeval import ModelError
from mmedeval.text import first_line

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BPE = 2
ROLES: Mapping[str, str | None] = {
    "unk": "<unk>",
    "bos": "<s>",
    "eos": "</s>",
    "pad": "</s>",
    "sep": None,
    "cls": None,
    "mask": None,
}
# Texts that have to give the same tokens as sentencepiece: six languages, and what tokenizers like to disagree on.
PROBES = (
    "A 45-year-old woman has fever (39.5 °C), a stiff neck and 1,250 leukocytes/µL. What is the next step?\nA. CT  B. MRI",
    "患者，男，45岁，咳嗽、咳痰３天，体温３９．５℃。最可能的诊断是？\nＡ．肺炎　Ｂ．肺结核",
    "45歳の男性。３日前から発熱とせきがある。「ペニシリン」にアレルギーがある。最も適切なのはどれか。２つ選べ。",
    "L’œdème aigu du poumon : quelle(s) est (sont) la (les) proposition(s) exacte(s) ?",
    "У больного 45 лет — боль за грудиной, одышка; АД 90/60 мм рт. ст. Ваш диагноз?",
    "¿Cuál es el tratamiento de elección en la neumonía adquirida en la comunidad del niño de 3 años?",
    "", " ", "  two   blanks    and five     ", "\n", "\n\n\t x\r\n", "a\u00a0b\u3000c\u2028d",
    "0123456789 1 22 333 4444 3.14159", "x² ½ Ⅳ ①",
    "👩🏽‍⚕️🩺 🇫🇷 🐉", "𠮷野家 龘 𝔘𝔫𝔦 Ω≈ç√∫", "e\u0301 ñ n\u0303 ß İ ı", "حبوب منع الحمل कोशिका 한국어 ภาษาไทย",
    "def f(x):\n        return x  # …", "a▁b ▁ _",
    "....!!!!????----====", "aaaaaaaaaaaaa", "\u0000\u0001\u007f\ufeff\ufffd",
)  # fmt: skip
MIXED = 10_000  # Texts of two to six random tokens that are looked at beside each token on its own.


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A token of a sentencepiece model; a blank is written as ▁."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """What decides how a sentencepiece model splits text."""

    data: bytes
    pieces: Sequence[Piece]
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


@dataclass(frozen=True, kw_only=True)
class ConvertedTokenizer:
    """What goes into tokenizer.json and tokenizer_config.json. `checked` texts were held against sentencepiece."""

    tokenizer: Mapping[str, Any]
    config: Mapping[str, Any]
    checked: int
    notes: Sequence[str]


def convert_tokenizer(checkpoint: Checkpoint, rows: int) -> ConvertedTokenizer:
    """The tokenizer of a checkpoint with `rows` embeddings.

    Raises `ModelError` for a kind of tokenizer that InternLM's are not, and where a probe gets other tokens than from
    sentencepiece.
    """
    model = _read_model(checkpoint.path / "tokenizer.model")
    about = _optional(checkpoint, "tokenizer_config.json")
    special = _special_tokens(checkpoint, about, [piece.text for piece in model.pieces], rows)
    vocabulary = {piece.text: i for i, piece in enumerate(model.pieces) if i not in special}
    usable = {text for text, i in vocabulary.items() if model.pieces[i].kind in (NORMAL, USER_DEFINED)}
    added = {**special}
    for i, piece in enumerate(model.pieces):
        if piece.kind == USER_DEFINED and i not in special:
            # Normalised, it is looked for in the text as sentencepiece sees it, with ▁ for blanks.
            added[i] = _added_token(piece.text, special=False, normalized=True)
    vocabulary |= {token["content"]: i for i, token in special.items()}
    roles = {f"{role}_token": token for role in ROLES if (token := _role(checkpoint, about, role)) is not None}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **token} for i, token in sorted(added.items())],
        "normalizer": _normalizer(model),
        "pre_tokenizer": None,
        "post_processor": _post_processor(about, roles, vocabulary),
        "decoder": _decoder(model),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": roles["unk_token"],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": _merges(model, usable),
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **roles,
        "clean_up_tokenization_spaces": bool(about.get("clean_up_tokenization_spaces", False)),
        "model_max_length": about.get("model_max_length") or int(1e30),
        "padding_side": "left",
    }
    if further := _further(checkpoint, about):
        config["additional_special_tokens"] = further
    if about.get("chat_template"):
        config["chat_template"] = about["chat_template"]
    notes = []
    texts, differing = _compare(checkpoint.path, model, content, {special[i]["content"]: i for i in special}, sorted(usable))
    if differing:
        notes.append(
            f"{len(differing):,} of {texts:,} texts made of the tokenizer's own tokens get other tokens than from sentencepiece, "
            f"such as {differing[0]!r}"
        )
    return ConvertedTokenizer(tokenizer=content, config=config, checked=texts, notes=notes)


# --- sentencepiece's file ---


def _read_model(file: Path) -> SentencePieceModel:
    if not file.is_file():
        raise ModelError(f"{file} is not there; InternLM's tokenizer is in this file: copy the whole folder")
    data = file.read_bytes()
    pieces: list[Piece] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    denormalizer: dict[int, Any] = {}
    try:
        for number, value in _fields(data):
            if number == 1:
                fields = dict(_fields(value))
                score = struct.unpack("<f", fields.get(2, bytes(4)))[0]
                pieces.append(Piece(text=fields[1].decode(), score=score, kind=fields.get(3, NORMAL)))
            elif number in (2, 3, 5):
                {2: trainer, 3: normalizer, 5: denormalizer}[number].update(_fields(value))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(f"{file} is no whole sentencepiece model ({error or type(error).__name__}); copy it again") from error
    texts = {piece.text for piece in pieces}
    unknown = {
        "no tokens": not pieces,
        "tokens twice": len(texts) < len(pieces),
        "tokens that are of no use": any(piece.kind == UNUSED for piece in pieces),
        "another method than BPE": trainer.get(3, 1) != BPE,
        "no bytes for rare characters": not trainer.get(35, 0) or not {f"<0x{byte:02X}>" for byte in range(256)} <= texts,
        "blanks behind words": bool(trainer.get(24, 0)),
        "blanks that stay blanks": not normalizer.get(5, 1),
        "rules that change characters": bool(normalizer.get(2) or denormalizer.get(2)),
        "both user-defined tokens and a blank in front of texts": bool(normalizer.get(3, 1))
        and any(piece.kind == USER_DEFINED for piece in pieces),
    }
    if any(unknown.values()):
        what = " and ".join(name for name, found in unknown.items() if found)
        raise ModelError(f"{file} has {what}, which InternLM's tokenizers have not; is it the file that came with the model?")
    return SentencePieceModel(
        data=data,
        pieces=pieces,
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a message. Format: https://protobuf.dev/programming-guides/encoding"""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number without an end")

    while at < len(data):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        length = {1: 8, 5: 4}.get(kind) or (varint() if kind == 2 else len(data))
        at += length
        if at > len(data):
            raise ValueError("it ends too early")
        yield number, data[at - length : at]


# --- special tokens ---


def _optional(checkpoint: Checkpoint, name: str) -> Mapping[str, Any]:
    return checkpoint.json(name) if (checkpoint.path / name).is_file() else {}


def _content(token: Any) -> str | None:
    """The text of a token, which stands in the files as such or with its settings."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _role(checkpoint: Checkpoint, about: Mapping[str, Any], role: str) -> str | None:
    """The token for a role, by default the one that InternLM's own class takes."""
    for source in (about, _optional(checkpoint, "special_tokens_map.json")):
        if f"{role}_token" in source:
            return _content(source[f"{role}_token"]) or (ROLES[role] if role == "unk" else None)
    return ROLES[role]


def _further(checkpoint: Checkpoint, about: Mapping[str, Any]) -> list[str]:
    """Special tokens without a role."""
    for source in (about, _optional(checkpoint, "special_tokens_map.json")):
        found = source.get("additional_special_tokens")
        if isinstance(found, list):
            return [content for token in found if (content := _content(token))]
    return []


def _added_token(
    content: str, *, special: bool, normalized: bool = False, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    if not content.encode():
        raise ValueError("a token without text")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": normalized, "special": special}
    return {"content": content, **{name: bool((settings or {}).get(name, value)) for name, value in flags.items()}}


def _special_tokens(
    checkpoint: Checkpoint, about: Mapping[str, Any], pieces: Sequence[str], rows: int
) -> dict[int, dict[str, Any]]:
    """Tokens that are looked for in text before sentencepiece sees it, by id; some have another name there."""
    found: dict[int, dict[str, Any]] = {}
    named = [*filter(None, (_role(checkpoint, about, role) for role in ROLES)), *_further(checkpoint, about)]
    try:
        for i, token in (about.get("added_tokens_decoder") or {}).items():
            found[int(i)] = _added_token(token["content"], special=False, settings=token)
        for content, i in _optional(checkpoint, "added_tokens.json").items():
            found.setdefault(int(i), _added_token(content, special=content in named))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the added tokens in {checkpoint.path} cannot be read ({error!r}); copy the tokenizer's files again"
        ) from error
    known = {piece: i for i, piece in enumerate(pieces)}
    for name in named:
        if name in {token["content"] for token in found.values()}:
            continue
        if name not in known:
            raise ModelError(
                f"the tokenizer in {checkpoint.path} names {name!r} as a special token, which is no token; copy its files again"
            )
        found[known[name]] = _added_token(name, special=True)
    contents = [token["content"] for token in found.values()]
    twice = [name for name in contents if contents.count(name) > 1 or known.get(name, -1) not in (-1, *found)]
    if twice:
        raise ModelError(f"the tokenizer in {checkpoint.path} has the token {twice[0]!r} twice; copy its files again")
    last = max([*found, len(pieces) - 1])
    if last >= rows or min(found, default=0) < 0:
        raise ModelError(
            f"the tokenizer in {checkpoint.path} has the token {last}, but the model has {rows} embeddings; "
            "they do not belong together: copy the tokenizer that came with the model"
        )
    return found


# --- the parts of tokenizer.json ---


def _merges(model: SentencePieceModel, usable: set[str]) -> list[tuple[str, str]]:
    """Every way to make a token out of two others, best first.

    sentencepiece joins the two neighbours that make the token with the best score, the leftmost first; so of a token's own
    ways that with the longest left part comes first, since the text to the left has been joined already.
    """
    ranked = sorted((piece for piece in model.pieces if piece.text in usable), key=lambda piece: -piece.score)
    return [
        (piece.text[:i], piece.text[i:])
        for piece in ranked
        for i in range(len(piece.text) - 1, 0, -1)
        if piece.text[:i] in usable and piece.text[i:] in usable
    ]


def _normalizer(model: SentencePieceModel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if model.remove_extra_whitespaces:
        steps.append({"type": "Replace", "pattern": {"Regex": r"\A +| +\z| +(?= )"}, "content": ""})
    if model.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": "▁"})
    return {"type": "Sequence", "normalizers": [*steps, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}


def _decoder(model: SentencePieceModel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if model.add_dummy_prefix or model.remove_extra_whitespaces:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _post_processor(about: Mapping[str, Any], roles: Mapping[str, str], vocabulary: Mapping[str, int]) -> dict[str, Any]:
    """A BOS in front and no EOS behind, unless the configuration says otherwise."""
    before = [roles["bos_token"]] if about.get("add_bos_token", True) and "bos_token" in roles else []
    after = [roles["eos_token"]] if about.get("add_eos_token", False) and "eos_token" in roles else []

    def tokens(names: Sequence[str]) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": name, "type_id": 0}} for name in names]

    text, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [*tokens(before), text, *tokens(after)],
        "pair": [*tokens(before), text, second, *tokens(after)],
        "special_tokens": {name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]} for name in {*before, *after}},
    }


# --- sentencepiece itself as the judge ---


def _compare(
    path: Path, model: SentencePieceModel, content: Mapping[str, Any], special: Mapping[str, int], usable: Sequence[str]
) -> tuple[int, list[str]]:
    """How many texts were looked at, and those that get other tokens. Raises `ModelError` where a probe is among them."""
    encode, decode = _judge(path, model, special)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    blanks = [piece.replace("▁", " ") for piece in usable]
    draw = random.Random(0)
    mixed = ["".join(draw.choices(blanks, k=draw.randint(2, 6))) for _ in range(MIXED)] if blanks else []
    differing = []
    for text in (*PROBES, *blanks, *mixed):
        theirs = encode(text)
        ours = tokenizer.encode(text, add_special_tokens=False).ids
        # sentencepiece has no text for special tokens.
        same = ours == theirs and (
            not {*ours}.isdisjoint(special.values()) or tokenizer.decode(ours, skip_special_tokens=False) == decode(theirs)
        )
        if not same and text in PROBES:
            raise ModelError(
                f"{path}/tokenizer.model makes the tokens {theirs} of {text!r}, tokenizer.json would make {ours}; "
                "so this tokenizer cannot be converted"
            )
        if not same:
            differing.append(text)
    return len(PROBES) + len(blanks) + len(mixed), differing


def _judge(
    path: Path, model: SentencePieceModel, special: Mapping[str, int]
) -> tuple[Callable[[str], list[int]], Callable[[list[int]], str]]:
    """Text to tokens and back as InternLM's own class does it: special tokens are cut out, the rest is sentencepiece's."""
    texts = "".join(piece.text for piece in model.pieces)
    # Newer versions of sentencepiece refuse a model with zero bytes in its tokens, as InternLM 2's has: another character,
    # that no token has, stands for them.
    zero = next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in texts) if "\0" in texts else "\0"
    try:
        processor: Any = SentencePieceProcessor(model_proto=_renamed(model.data, "\0", zero))
    except RuntimeError as error:
        raise ModelError(f"{path}/tokenizer.model cannot be loaded by sentencepiece: {first_line(error)}") from error
    cut = re.compile(f"({'|'.join(map(re.escape, sorted(special, key=len, reverse=True)))})")

    def encode(text: str) -> list[int]:
        parts = filter(None, cut.split(text.replace("\0", zero)))
        return [i for part in parts for i in ([special[part]] if part in special else processor.encode(part))]

    return encode, lambda ids: str(processor.decode(ids)).replace(zero, "\0")


def _renamed(data: bytes, old: str, new: str) -> bytes:
    """A sentencepiece model with a character of its tokens replaced: of a field that is there twice, the last one counts."""

    def field(number: int, value: bytes) -> bytes:
        length, size = len(value), b""
        while length > 127:
            length, size = length >> 7, size + bytes([length & 127 | 128])
        return bytes([number * 8 + 2]) + size + bytes([length]) + value

    parts = []
    for number, value in _fields(data):
        text = dict(_fields(value))[1].decode() if number == 1 else ""
        parts.append(field(number, value + field(1, text.replace(old, new).encode()) if old in text else value))
    return b"".join(parts)
