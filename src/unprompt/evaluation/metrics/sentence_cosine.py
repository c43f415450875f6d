"""Mean cosine of sentence embeddings: the score of Kaggle's "Stable Diffusion - Image to Prompts" (2023).

score = 1/N * sum_i  <e(c_i), e(r_i)> / (|e(c_i)| |e(r_i)|),   e = all-MiniLM-L6-v2
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.evaluation.metrics.scores import EvaluationError, Scores, check_pairs, mean_scores
from unprompt.types import Embeddings

EncodeTexts = Callable[[Sequence[str]], Embeddings]
"""N texts -> (N, D); `unprompt.encoders.minilm.TextTower.encode`, or a cache around it."""

NAME = "sentence-cosine"
DIM = 384
NOTE = "all-MiniLM-L6-v2, as Kaggle's Stable Diffusion - Image to Prompts; -1 to 1"


def sentence_cosine(
    candidates: Sequence[str], references: Sequence[str], *, encode: EncodeTexts | None = None
) -> Scores:
    """Cosine of each candidate's sentence embedding with its reference's, and the mean. Texts are taken as they are.

    Args:
        candidates: N texts.
        references: N texts.
        encode: embeds texts with all-MiniLM-L6-v2; the project's own port of it by default.

    Raises:
        EvaluationError: the lengths differ, or there is nothing to score.
        EncoderError: the model's package is missing.
    """
    check_pairs(NAME, candidates, references)
    rows = embed_distinct([*candidates, *references], encode)
    return mean_scores(NAME, cosines(rows[: len(candidates)], rows[len(candidates) :]), NOTE)


def sentence_cosine_of_embeddings(
    predicted: NDArray[np.floating[Any]], references: Sequence[str], *, encode: EncodeTexts | None = None
) -> Scores:
    """The same score for (N, 384) embeddings that were predicted without a text; their norms do not matter.

    Raises:
        EvaluationError: the shape is not (N, 384), a row is zero or not finite, or the lengths differ.
    """
    check_pairs(NAME, predicted, references)
    if predicted.ndim != 2 or predicted.shape[1] != DIM:
        raise EvaluationError(f"predicted embeddings have shape {predicted.shape}: give ({len(references)}, {DIM})")
    bad = np.flatnonzero(~(np.isfinite(predicted).all(axis=1) & predicted.any(axis=1)))
    if bad.size:
        raise EvaluationError(f"predicted embedding {bad[0]} is zero or not finite: it has no cosine, predict it again")
    return mean_scores(NAME, cosines(predicted, embed_distinct(references, encode)), NOTE)


def cosines(left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Row by row cosines of two (N, D) arrays, in float64: (N,)."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    norms = np.sqrt(np.einsum("nd,nd->n", a, a) * np.einsum("nd,nd->n", b, b))
    return np.asarray(np.einsum("nd,nd->n", a, b) / norms, dtype=np.float64)


def embed_distinct(texts: Sequence[str], encode: EncodeTexts | None = None) -> Embeddings:
    """Embeds N texts, each distinct one once: (N, D)."""
    distinct = sorted(set(texts))
    at = {text: row for row, text in enumerate(distinct)}
    return (encode or load_encode())(distinct)[[at[text] for text in texts]]


@lru_cache(maxsize=1)
def load_encode() -> EncodeTexts:
    """The project's port of all-MiniLM-L6-v2, loaded once a process."""
    from unprompt.encoders.minilm import TextTower

    return TextTower.load().encode
