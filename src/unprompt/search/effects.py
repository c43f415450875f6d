"""What appending each term of a vocabulary does to prompts, as features that a gain is nearly linear in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary

WIDTH = 256
"""The most features: of 768, those in which terms differ most. All 768 predicted no better (correlation 0.90, 0.89)."""

SAMPLE = 8192
"""Terms from which those are found."""

_effects: WeakKeyDictionary[Vocabulary, Embeddings] = WeakKeyDictionary()


def effects_of(vocabulary: Vocabulary, contexts: Callable[[], Embeddings | None]) -> Embeddings:
    """`term_effects` of a vocabulary's terms, made once, when they are first asked for."""
    if vocabulary not in _effects:
        _effects[vocabulary] = term_effects(vocabulary.matrix, contexts())
    return _effects[vocabulary]


def term_effects(embeddings: Embeddings, contexts: Embeddings | None = None) -> Embeddings:
    """Features of T terms.

    How much a term adds to a long prompt's cosine with a query depends on the term in a way that hardly any other
    prompt shares with it by the term's own embedding: short words of little meaning ("this is it", "him") often add
    more than what is near the query. On two prompts of six and nine parts, what each of 111,867 terms adds was
    predicted from 1,000 of them, by ridge regression, with a correlation of 0.81 from the terms' embeddings, and of
    0.90 from these features with `contexts`.

    Args:
        embeddings: (T, D), the terms'.
        contexts: (T, D), those of the terms at the end of a prompt (`unprompt.index.contexts`); None where they are not
            known.

    Returns:
        (T, F) float32, with F <= `WIDTH`: the principal components of both, each first centred and scaled to a mean
        square length of 1.
    """
    blocks = [_scaled(block) for block in (embeddings, contexts) if block is not None]
    features = np.hstack(blocks)
    if not len(features):
        return features[:, :WIDTH]
    sample = features[:: max(1, len(features) // SAMPLE)].astype(np.float64)
    _, axes = np.linalg.eigh(sample.T @ sample)
    return features @ axes[:, -WIDTH:].astype(np.float32)


def _scaled(block: Embeddings) -> NDArray[np.float32]:
    centred = np.asarray(block, dtype=np.float32)
    centred = centred - centred.mean(axis=0) if len(centred) else centred
    length = np.sqrt(np.square(centred).sum(axis=1).mean()) if len(centred) else 1.0
    return (centred / np.float32(max(length, 1e-6))).astype(np.float32)
