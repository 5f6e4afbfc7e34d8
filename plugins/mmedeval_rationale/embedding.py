"""BERTScore: how well the words of two texts find each other in a language model's space.

Source: Zhang et al., "BERTScore" (ICLR 2020); the package bert-score computes it, the model is loaded here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mmedeval import ModelError, UsageError

MULTILINGUAL = "bert-base-multilingual-cased"
# The layer that agreed best with people, of multilingual BERT's twelve (bert-score's own table).
MULTILINGUAL_LAYERS = 9
BATCH = 64


class BertScore:
    """F1 on a 0 to 100 scale, without rescaling and without weights by frequency. `layers`: the representation of that layer."""

    def __init__(self, model: str = MULTILINGUAL, layers: int | None = None) -> None:
        import torch
        from transformers import AutoConfig, AutoModel, AutoTokenizer
        from transformers.utils import logging

        try:
            config: Any = AutoConfig.from_pretrained(model)
            is_multilingual = (config.model_type, config.vocab_size, config.num_hidden_layers) == ("bert", 119547, 12)
            if layers is None and is_multilingual:
                layers = MULTILINGUAL_LAYERS
            if layers is None or not 0 < layers <= config.num_hidden_layers:
                raise UsageError(
                    f"BERTScore with {model} needs --metric-arg bertscore_layers=N, one of its {config.num_hidden_layers} layers"
                    + ("" if layers is None else f"; {layers} is none")
                )
            self.is_multilingual = is_multilingual and layers == MULTILINGUAL_LAYERS
            self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
            with _quiet(logging):
                # Layers above the one that is used are not even loaded.
                loaded: Any = AutoModel.from_pretrained(model, num_hidden_layers=layers, use_safetensors=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(
                f"BERTScore's model {model} cannot be loaded: {str(error).strip().splitlines()[0]}; name a folder with "
                "--metric-arg bertscore_model=FOLDER"
            ) from error
        self.name, self.layers = model, layers
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = loaded.eval().to(self.device)
        if self.tokenizer.model_max_length > 2**20:
            # It names no limit. RoBERTa's positions begin behind the padding's.
            offset = self.tokenizer.pad_token_id + 1 if "roberta" in config.model_type else 0
            self.tokenizer.model_max_length = config.max_position_embeddings - offset

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """A score per pair; 0 where one of the texts is empty. What is longer than the model reads is cut."""
        from bert_score.utils import bert_cos_score_idf

        full = [i for i, pair in enumerate(zip(candidates, references, strict=True)) if all(text.strip() for text in pair)]
        scores = [0.0] * len(candidates)
        if full:
            weights = defaultdict(lambda: 1.0, {self.tokenizer.sep_token_id: 0.0, self.tokenizer.cls_token_id: 0.0})
            found = bert_cos_score_idf(
                self.model,
                [references[i] for i in full],
                [candidates[i] for i in full],
                self.tokenizer,
                weights,
                batch_size=BATCH,
                device=self.device,
            )
            for i, score in zip(full, found[:, 2].tolist(), strict=True):
                scores[i] = 100 * score
        return scores

    def describe(self) -> dict[str, Any]:
        from importlib.metadata import version

        return {
            "model": self.name,
            "layers": self.layers,
            "longest": self.tokenizer.model_max_length,
            "bert-score": version("bert-score"),
        }


class _quiet:
    """Layers that are left out on purpose are nothing to warn of."""

    def __init__(self, logging: Any) -> None:
        self.logging = logging

    def __enter__(self) -> None:
        self.before = self.logging.get_verbosity()
        self.logging.set_verbosity_error()
        self.logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        self.logging.set_verbosity(self.before)
