"""Whether a text is written in a language: by py3langid, which carries its model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

# Fewer letters tell no language.
FEWEST_LETTERS = 12


def in_language(text: str, language: str) -> float | None:
    """1 if the text is in the language, 0 if it is in another one, nothing where it is too short to tell."""
    if sum(map(str.isalpha, text)) < FEWEST_LETTERS:
        return None
    return float(_identifier()(text) == language)


@cache
def _identifier() -> Callable[[str], str]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    return lambda text: str(identifier.classify(text)[0])
