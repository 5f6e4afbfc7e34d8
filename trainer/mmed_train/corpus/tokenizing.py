"""Texts to tokens with any tokenizer of transformers, and to shards of them.

One process with the tokenizer's own threads, which tokenise the next batch while this one is turned into arrays and written. More
cores than these keep busy are for the executor, which runs several tasks with a shard each; `TOKENIZERS_PARALLELISM=false` then
keeps their threads from fighting.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mmed_train.corpus.shards import Header, Kind, ShardWriter, Tokens, Vocabulary
from mmedeval import ModelError, UsageError, digest
from mmedeval.text import first_line

# Characters that are tokenised at a time: enough for many cores, and some 50 MB of a tokenizer's own objects.
BATCH = 1 << 19
# A text longer than two of these is cut into such pieces, so that it is not left to one core.
PIECE = 1 << 16
# A cut is tried out with so many characters on both sides, and another place is looked for so many times.
CONTEXT = 256
TRIES = 16
# Where a cut may do no harm: between words or sentences, never within a run of blanks.
_BORDER = re.compile(r"(?<=\w)[ \n。、，；：！？](?=\w)")

T = TypeVar("T")


class TextEncoder:
    """A tokenizer of transformers with a policy on what stands around a document: a BOS or none, an EOS or none.

    The tokenizer itself adds nothing, and truncates and pads nothing, whatever it is set to. A special token that is spelled out
    in a text is text: no document ends but at its end. Raises `UsageError` where the tokenizer lacks what the policy wants.
    """

    def __init__(self, tokenizer: Any, *, bos: bool, eos: bool) -> None:
        for wanted, role in ((bos, "bos"), (eos, "eos")):
            if wanted and getattr(tokenizer, f"{role}_token_id") is None:
                name = tokenizer.name_or_path or type(tokenizer).__name__
                raise UsageError(
                    f"the tokenizer {name} has no {role.upper()} token; set {role} = false, or name another tokenizer"
                )
        self._slow, self._fast = tokenizer, None
        if tokenizer.is_fast:
            self._fast = _plain_copy(tokenizer.backend_tokenizer)
        self.vocabulary = Vocabulary(
            tokenizer=_digest(self._fast) if self._fast else _digest_slow(tokenizer),
            size=max(tokenizer.get_vocab().values()) + 1,
            bos=tokenizer.bos_token_id if bos else None,
            eos=tokenizer.eos_token_id if eos else None,
        )
        around = ([] if token is None else [token] for token in (self.vocabulary.bos, self.vocabulary.eos))
        self._front, self._behind = (np.array(tokens, self.vocabulary.dtype) for tokens in around)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text as a document, with its BOS and EOS; none at all for a text that has none of its own."""
        return [tokens for _, tokens in self.stream((text, None) for text in texts)]

    def stream(self, documents: Iterable[tuple[str, T]]) -> Iterator[tuple[T, Tokens]]:
        """`encode` for any number of texts, each with what belongs to it, in their order and in bounded memory."""
        waiting: deque[tuple[T, int]] = deque()

        def pieces() -> Iterator[str]:
            for text, other in documents:
                parts = self.pieces(_sound(text))
                waiting.append((other, len(parts)))
                yield from parts

        encoded = self._encode(pieces())
        for first in encoded:
            other, count = waiting.popleft()
            yield other, self._document([first, *islice(encoded, count - 1)])

    def pieces(self, text: str) -> list[str]:
        """A very long text in pieces that have, one behind the other, its tokens; whole where it cannot be cut so.

        What stands between the words of a natural text keeps tokens apart, but not for every tokenizer, and some put a blank in
        front of every text. So each cut is tried out on its surroundings; a blank that the tokenizer puts back is left out.
        """
        pieces = []
        start = 0
        while self._fast and len(text) - start > 2 * PIECE:
            cut = self._cut(text, start + PIECE)
            if cut is None:
                break
            pieces.append(text[start : cut[0]])
            start = cut[1]
        return [*pieces, text[start:]]

    def _cut(self, text: str, place: int) -> tuple[int, int] | None:
        """The first end of a piece from `place` on, and the start of the next, that change no token."""
        for border in islice(_BORDER.finditer(text, place, len(text) - PIECE), TRIES):
            end = border.start()
            first, last = end - CONTEXT, end + CONTEXT
            for start in (border.start(), border.end()):
                whole, left, right = self._ids([text[first:last], text[first:end], text[start:last]])
                if left + right == whole:
                    return end, start
        return None

    def _encode(self, texts: Iterable[str]) -> Iterator[Tokens]:
        """Each text's own tokens. The next batch is being tokenised while this one is read."""
        with ThreadPoolExecutor(max_workers=1) as thread:
            running: deque[Future[Iterator[list[int]]]] = deque()
            for batch in _batches(texts):
                running.append(thread.submit(self._ids, batch))
                if len(running) > 1:
                    yield from self._arrays(running.popleft().result())
            for last in running:
                yield from self._arrays(last.result())

    def _ids(self, texts: list[str]) -> Iterator[list[int]]:
        if self._fast:
            # Numbers of Python's are made under the interpreter's lock: when they are read, not in the thread.
            return (encoding.ids for encoding in self._fast.encode_batch_fast(texts, add_special_tokens=False))
        return iter(self._slow(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"])

    def _arrays(self, rows: Iterable[list[int]]) -> Iterator[Tokens]:
        return (np.array(ids, self.vocabulary.dtype) for ids in rows)

    def _document(self, pieces: Sequence[Tokens]) -> Tokens:
        return np.concatenate((self._front, *pieces, self._behind)) if any(map(len, pieces)) else pieces[0]


def load_encoder(
    tokenizer: str | Path, *, bos: bool, eos: bool, revision: str | None = None, trust_remote_code: bool = False
) -> TextEncoder:
    """The encoder of a model's folder, or of a name on the Hugging Face hub. Raises `ModelError` and `UsageError`."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer, revision=revision or "main", trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"the tokenizer {tokenizer} cannot be loaded: {first_line(error)}") from error
    return TextEncoder(loaded, bos=bos, eos=eos)


def write_shard(
    documents: Iterable[tuple[str, Kind]], encoder: TextEncoder, path: Path, *, kinds: Iterable[Kind] = (), replace: bool = False
) -> tuple[Header, Counter[Kind]]:
    """Writes documents in their order to one shard. Returns its header, and how many were left out since they have no token.

    `kinds` and `replace` are those of `ShardWriter`.
    """
    empty: Counter[Kind] = Counter()
    with ShardWriter(path, encoder.vocabulary, kinds=kinds, replace=replace) as writer:
        for kind, tokens in encoder.stream(documents):
            if len(tokens):
                writer.add(tokens, kind)
            else:
                empty[kind] += 1
    return writer.close(), empty


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        # Texts without characters are no reason to go on for ever.
        characters += len(text) + 1
        if characters >= BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _plain_copy(backend: Any) -> Any:
    copy = type(backend).from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = True
    if getattr(copy.model, "dropout", None):
        # It would give the same text other tokens every time.
        copy.model.dropout = None
    return copy


def _digest(tokenizer: Any) -> str:
    """Of what decides on tokens: not of what is put around them, nor of the way back to text."""
    content = json.loads(tokenizer.to_str())
    return digest({name: content[name] for name in ("added_tokens", "normalizer", "pre_tokenizer", "model")})


def _digest_slow(tokenizer: Any) -> str:
    """Of the class, the tokens and the vocabulary's files, since what the class does with them is not written down anywhere."""
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(Path(file) for file in tokenizer.save_vocabulary(folder) or () if file)
        contents = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return digest({"class": type(tokenizer).__name__, "tokens": tokenizer.get_vocab(), "files": contents})


def _sound(text: str) -> str:
    """Text without halves of surrogate pairs, which JSON can hold and no tokenizer takes: U+FFFD is in their place."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
