"""Makes a small model with random weights, for trials and tests without a download: `python -m mmedeval_hf.tiny DIR`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmedeval.prompts import WORDS

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PUNCTUATION = "A. B. C. D. E. A,B A,C : ？ 。 、 « » ¿ 1234567890"


def make_tiny_model(
    path: Path,
    *,
    texts: Iterable[str] = (),
    model_type: str = "llama",
    vocabulary: int = 2000,
    seed: int = 0,
    bos: bool = True,
    chat_template: bool = True,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a causal model of an architecture of transformers (`llama`, `gpt2`, ...) and a byte-level BPE tokenizer to `path`.

    `texts` train the tokenizer (beside the prompts' own words); any text in any language can be encoded. `bos` makes it put
    a BOS in front. `config` overrides sizes. The same arguments write the same weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    path.mkdir(parents=True, exist_ok=True)
    size = write_tokenizer(path, [*_words(), *texts], vocabulary, bos=bos, chat_template=chat_template)
    settings: dict[str, Any] = {
        "vocab_size": size,
        "hidden_size": 64,
        "intermediate_size": 176,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 4096,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        # Far larger than for training, so that random weights give scores that differ.
        "initializer_range": 0.2,
        **(config or {}),
    }
    # Some architectures default to heads of their full size.
    settings.setdefault("num_key_value_heads", settings["num_attention_heads"])
    settings.setdefault("head_dim", settings["hidden_size"] // settings["num_attention_heads"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings), dtype=torch.float32)
    model.save_pretrained(path)
    return path


class TinyModels:
    """Tiny models in a folder, each made once: the same call as before gives the same model's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Path] = {}

    def __call__(self, model_type: str = "llama", **settings: Any) -> Path:
        """As `make_tiny_model`, without a path."""
        key = json.dumps([model_type, settings], sort_keys=True)
        if key not in self._made:
            path = self._folder / f"{model_type}-{len(self._made)}"
            self._made[key] = make_tiny_model(path, model_type=model_type, **settings)
        return self._made[key]


@contextmanager
def one_thread() -> Iterator[None]:
    """For torch: threads that share a tiny model wait for each other longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _words() -> list[str]:
    return [PUNCTUATION, *(getattr(words, name) for words in WORDS.values() for name in words.__dataclass_fields__)]


def write_tokenizer(path: Path, texts: Iterable[str], vocabulary: int, *, bos: bool, chat_template: bool) -> int:
    """Trains a byte-level BPE tokenizer on texts and writes it to a folder. Returns the number of its tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    tokenizer.save(str(path / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": 4096,
        **({"chat_template": CHAT_TEMPLATE} if chat_template else {}),
    }
    (path / "tokenizer_config.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    return int(tokenizer.get_vocab_size())


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: python -m mmedeval_hf.tiny DIR")
    print(make_tiny_model(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
