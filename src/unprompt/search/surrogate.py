"""Predicting in embedding space what a fragment would add to a prompt, so that few prompts need encoding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unprompt.types import Embeddings

WEIGHT = 0.6
"""How much a fragment counts beside the prompt that it is added to."""

SLOPE, SHIFT, OWN, NOISE = 2.0, 10.0, 1.0, 0.1
"""Variances of what the prior gets wrong: linear in the fragment's embedding, the same for all fragments, a fragment's
own, and different each time. Only their ratios matter."""

KEPT = 0.3
"""How much of its weight an observation keeps when the next ones come: they are of a more similar prompt."""

FORGOTTEN = 0.005
"""Observations of less weight are dropped, which keeps the equations few."""

CURIOSITY = 0.25
"""What is added for fragments not seen yet, in standard deviations of the errors: they may surprise, others did not."""


def expected_scores(
    embeddings: Embeddings, scores: NDArray[np.float32], prompt: NDArray[np.float32], score: float
) -> NDArray[np.float64]:
    """The cosine with a query that a prompt with each of n fragments appended should have.

    Args:
        embeddings: (n, D), the fragments'.
        scores: (n,) their cosines with the query.
        prompt: (D,) the prompt's embedding.
        score: its cosine with the query.
    """
    similarity = (embeddings @ prompt).astype(np.float64)
    norm = np.sqrt(np.maximum(1 + WEIGHT**2 + 2 * WEIGHT * similarity, 1e-6))
    expected: NDArray[np.float64] = (score + WEIGHT * scores) / norm
    return expected


class GainSurrogate:
    """Predicts the cosine with a query that a prompt has once a fragment is appended to it.

    The prior takes the longer prompt's embedding for a weighted mean of the prompt's and the fragment's. How far it is
    off depends on the fragment much more than on the prompt: the errors of one step of a search and of a step four
    fragments later correlated at 0.6 to 0.97. So they are learnt from whatever the search has encoded so far,
    by Gaussian process regression (Rasmussen and Williams, 2006, algorithm 2.1; what was seen of one fragment is one
    observation, their mean).

    Args:
        embeddings: (n, D), the fragments'.
        scores: (n,) their cosines with the query.
    """

    def __init__(self, embeddings: Embeddings, scores: NDArray[np.float32]) -> None:
        self._embeddings = embeddings
        self._scores = scores
        self._counts = np.zeros(len(scores))
        self._totals = np.zeros(len(scores))
        self._correction = np.zeros(len(scores))

    def prior(self, embedding: NDArray[np.float32], score: float) -> NDArray[np.float64]:
        """(n,) what is expected before anything is learnt, for a prompt with this (D,) embedding and cosine."""
        return expected_scores(self._embeddings, self._scores, embedding, score)

    def correct(self, prior: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) the prior and what was learnt, rounded so that the last bits of a product decide nothing."""
        return (prior + self._correction).round(6)

    def learn(self, columns: NDArray[np.intp], errors: NDArray[np.float64]) -> None:
        """Takes in m observations: the fragments' positions, and how far their true cosines were above the prior."""
        self._counts *= KEPT
        self._totals *= KEPT
        np.add.at(self._counts, columns, 1)
        np.add.at(self._totals, columns, errors)
        self._counts[self._counts < FORGOTTEN] = 0
        seen = np.flatnonzero(self._counts)
        means = self._totals[seen] / self._counts[seen]
        rows = self._embeddings[seen].astype(np.float64)  # (m, D)
        covariance = SLOPE * (rows @ rows.T) + SHIFT + np.diag(OWN + NOISE / self._counts[seen])
        weights = np.linalg.solve(covariance, means)  # (m,)
        slope = (SLOPE * (rows.T @ weights)).astype(np.float32)  # (D,)
        self._correction = (self._embeddings @ slope).astype(np.float64) + SHIFT * weights.sum()
        curiosity = CURIOSITY * errors.std()
        self._correction += curiosity
        self._correction[seen] += OWN * weights - curiosity
