"""The tokenizer and the chat template inside a GGUF file, in the shape that `mmedeval.tokens.Encoder` takes."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from mmedeval_gguf.engine import Engine
from mmedeval_gguf.header import Header


class Vocabulary:
    """Tokens by llama.cpp. Special tokens are read where they stand in a text, as tokenizers of transformers do."""

    def __init__(self, engine: Engine, header: Header) -> None:
        self._lib, self._vocabulary, self._metadata = engine.lib, engine.vocabulary, header.metadata
        self._size = engine.size
        self.chat_template = header.chat_template

    # --- what Encoder asks for ---

    def __call__(self, texts: str | Sequence[str], *, add_special_tokens: bool = True, verbose: bool = True) -> dict[str, Any]:
        if isinstance(texts, str):
            return {"input_ids": self._encode(texts, special=add_special_tokens)}
        return {"input_ids": [self._encode(text, special=add_special_tokens) for text in texts]}

    @cached_property
    def bos_token_id(self) -> int | None:
        return self._special("bos", self._lib.llama_vocab_bos)

    @cached_property
    def bos_token(self) -> str | None:
        return None if self.bos_token_id is None else self._name(self.bos_token_id)

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]], *, tokenize: bool, add_generation_prompt: bool) -> str:
        """The conversation as text. What a template may use is what transformers offers it."""
        roles = {"bos_token": self.bos_token_id, "eos_token": self.eos_token_id}
        for role, name in (("unk_token", "unknown"), ("pad_token", "padding")):
            roles[role] = self._metadata.get(f"tokenizer.ggml.{name}_token_id")
        # Beyond the last token llama.cpp would end the process.
        names = {role: self._name(token) for role, token in roles.items() if token is not None and 0 <= token < self._size}
        text: str = self._template.render(
            messages=messages, tools=None, documents=None, add_generation_prompt=add_generation_prompt, **names
        )
        return text

    # --- what the backend asks for ---

    @cached_property
    def eos_token_id(self) -> int | None:
        return self._special("eos", self._lib.llama_vocab_eos)

    def ends(self, token: int) -> bool:
        """Whether a token ends a turn: the file's EOS and EOT, and those that llama.cpp knows by name."""
        invented = self.eos_token_id is None and token == self._lib.llama_vocab_eos(self._vocabulary)
        return bool(self._lib.llama_vocab_is_eog(self._vocabulary, token)) and not invented

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens. Bytes that are no character, as of one cut in two, become U+FFFD."""
        text = b"".join(self._piece(token) for token in ids).decode("utf-8", "replace")
        # The blank that such tokenizers put in front of every text is no part of it.
        written = self._metadata["tokenizer.ggml.model"] == "llama" and self._metadata.get(
            "tokenizer.ggml.add_space_prefix", True
        )
        return text.removeprefix(" ") if written else text

    # --- within ---

    def _special(self, role: str, ask: Any) -> int | None:
        """The token of a role; llama.cpp makes one up where a file names none, which is right for SentencePiece only."""
        if f"tokenizer.ggml.{role}_token_id" not in self._metadata and self._metadata["tokenizer.ggml.model"] != "llama":
            return None
        token = int(ask(self._vocabulary))
        return token if token >= 0 else None

    def _name(self, token: int) -> str:
        name: bytes = self._lib.llama_vocab_get_text(self._vocabulary, token)
        return name.decode("utf-8", "replace")

    def _encode(self, text: str, *, special: bool) -> list[int]:
        data = text.encode("utf-8")
        # No more tokens than bytes, but for a blank put in front.
        tokens = np.empty(len(data) + 2, dtype=np.int32)
        pointer = tokens.ctypes.data_as(self._lib.llama_token_p)
        count = self._lib.llama_tokenize(self._vocabulary, data, len(data), pointer, len(tokens), False, True)
        if count < 0:
            tokens = np.empty(-count, dtype=np.int32)
            pointer = tokens.ctypes.data_as(self._lib.llama_token_p)
            count = self._lib.llama_tokenize(self._vocabulary, data, len(data), pointer, len(tokens), False, True)
        ids: list[int] = tokens[:count].tolist()
        if special and self.bos_token_id is not None and self._lib.llama_vocab_get_add_bos(self._vocabulary):
            ids = [self.bos_token_id, *ids]
        return ids

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        count = self._lib.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, False)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = self._lib.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, False)
        return buffer.raw[:count]

    @cached_property
    def _template(self) -> Any:
        from jinja2 import TemplateError, nodes
        from jinja2.ext import Extension
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Generation(Extension):
            """`{% generation %}` marks what the model writes, for training; here it is but its contents."""

            tags = {"generation"}  # noqa: RUF012  # jinja's own way

            def parse(self, parser: Any) -> nodes.Node:
                line = next(parser.stream).lineno
                body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
                return nodes.Scope(body, lineno=line)

        def raise_exception(message: str) -> None:
            raise TemplateError(message)

        def tojson(value: Any, ensure_ascii: bool = False, **settings: Any) -> str:
            return json.dumps(value, ensure_ascii=ensure_ascii, **settings)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = tojson
        environment.globals["raise_exception"] = raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        return environment.from_string(self.chat_template or "")
