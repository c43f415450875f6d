"""The embeddings of a vocabulary's terms at the end of a prompt, which mode `best` learns sooner from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unprompt.index.text_cache import TextCache
from unprompt.types import Encoder

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary

CONTEXT = (
    "a woman, by a famous artist, in the city at night, detailed, dark colors, smiling, in the style of a painting"
)
"""A prompt like many others. What a term does to it says much about what it does to others."""

DTYPE = "float16"
"""What they are kept in, whatever the library stores: they are only learnt from."""


def in_context(terms: Sequence[str]) -> list[str]:
    """Each term at the end of `CONTEXT`."""
    return [f"{CONTEXT}, {term}" for term in terms]


def kept_contexts(
    vocabulary: Vocabulary, encoder: Encoder, cache: TextCache | None = None
) -> NDArray[np.floating[Any]] | None:
    """The embeddings of all terms in context that `unprompt.builders.contexts.embed_contexts` has made.

    Args:
        vocabulary: whose T terms.
        encoder: must be the library's own.
        cache: of this encoder; by default this machine's.

    Returns:
        (T, D) in `DTYPE`; None when any is missing.
    """
    found, embeddings = (cache or TextCache(encoder, DTYPE)).take(in_context(vocabulary.terms))
    return embeddings if found.all() else None
