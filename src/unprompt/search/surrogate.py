"""Predicting in embedding space what a fragment would add to a prompt, so that few prompts need encoding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unprompt.search.one_core import multiply, solve
from unprompt.types import Embeddings

WEIGHT = 0.6
"""How much a fragment counts beside the prompt that it is added to."""

SLOPE, SHIFT, OWN, NOISE = 2.0, 10.0, 1.0, 0.1
"""Variances of what the prior gets wrong: linear in the fragment's embedding, the same for all fragments, a fragment's
own, and different each time. Only their ratios matter."""

KEPT = 0.3
"""How much of its weight an observation keeps when the prompt changes: later ones are of a more similar prompt."""

FORGOTTEN = 0.005
"""Observations of less weight are dropped, which keeps the equations few."""

SMOOTHING = 0.7
"""How much of their estimated standard deviation the errors keep when the next ones come."""

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
    similarity = multiply(embeddings, prompt[:, None])[:, 0].astype(np.float64)
    norm = np.sqrt(np.maximum(1 + WEIGHT**2 + 2 * WEIGHT * similarity, 1e-6))
    expected: NDArray[np.float64] = (score + WEIGHT * scores) / norm
    return expected


class GainSurrogate:
    """Predicts the cosine with a query that a prompt has once a fragment is appended to it.

    The prior takes the longer prompt's embedding for a weighted mean of the prompt's and the fragment's. How far it is
    off depends on the fragment much more than on the prompt: the errors of one step of a search and of a step four
    fragments later correlated at 0.6 to 0.97. So they are learnt from whatever the search has encoded so far,
    by Gaussian process regression (Rasmussen and Williams, 2006, algorithm 2.1; what was seen of one fragment is one
    observation, their mean). Where observations outnumber dimensions, the same is solved as Bayesian linear regression
    (their section 2.1), which the kernel is but for each fragment's own part.

    Args:
        embeddings: (n, D), the fragments'.
        scores: (n,) their cosines with the query.
    """

    def __init__(self, embeddings: Embeddings, scores: NDArray[np.float32]) -> None:
        self._embeddings = embeddings
        self._scores = scores
        self._counts = np.zeros(len(scores))
        self._totals = np.zeros(len(scores))
        self._slope = np.zeros(embeddings.shape[1], dtype=np.float32)
        self._shift = self._deviation = 0.0
        self._seen = np.zeros(0, dtype=np.intp)  # (s,) in the order in which they were first seen
        self._rows = np.zeros((0, embeddings.shape[1] + 1))  # (s, D + 1), what the errors are linear in
        self._gram = np.zeros((0, 0))  # (s, s), the rows' products with each other
        self._own = np.zeros(0)
        self._correction = np.zeros(len(scores))

    def prior(self, embedding: NDArray[np.float32], score: float) -> NDArray[np.float64]:
        """(n,) what is expected before anything is learnt, for a prompt with this (D,) embedding and cosine."""
        return expected_scores(self._embeddings, self._scores, embedding, score)

    def correct(self, prior: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., n) priors and what was learnt, rounded so that the last bits of a product decide nothing."""
        return (prior + self._correction).round(6)

    def forget(self, kept: float = KEPT) -> None:
        """Gives what was observed less weight, as the prompt has changed."""
        self._counts[self._seen] *= kept
        self._totals[self._seen] *= kept
        gone = self._seen[self._counts[self._seen] < FORGOTTEN]
        self._counts[gone] = self._totals[gone] = 0

    def learn(self, columns: NDArray[np.intp], errors: NDArray[np.float64]) -> None:
        """Takes in m observations: the fragments' positions, and how far their true cosines were above the prior."""
        np.add.at(self._counts, columns, 1)
        np.add.at(self._totals, columns, errors)
        self._keep(self._counts[self._seen] > 0)
        self._see(np.setdiff1d(columns, self._seen))
        counts = self._counts[self._seen]
        means = self._totals[self._seen] / counts
        noise = OWN + NOISE / counts
        weights = _regress(self._rows, self._gram, means, noise)
        self._slope = (weights[:-1] * np.sqrt(SLOPE)).astype(np.float32)
        self._shift = float(weights[-1] * np.sqrt(SHIFT))
        self._own = OWN / noise * (means - multiply(self._rows, weights[:, None])[:, 0])
        deviation = float(errors.std())
        known = SMOOTHING if self._deviation else 0.0
        self._deviation = known * self._deviation + (1 - known) * deviation
        self._update()

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        """Drops what was forgotten."""
        if not kept.all():
            self._seen, self._rows = self._seen[kept], self._rows[kept]
            self._gram = self._gram[np.ix_(kept, kept)]

    def _see(self, new: NDArray[np.intp]) -> None:
        """Makes room for fragments that are observed for the first time."""
        rows = np.full((len(new), self._rows.shape[1]), np.sqrt(SHIFT))
        rows[:, :-1] = self._embeddings[new] * np.sqrt(SLOPE)
        self._seen = np.concatenate([self._seen, new])
        self._rows = np.concatenate([self._rows, rows])
        across = multiply(self._rows, rows.T)  # (s, new)
        self._gram = np.block([[self._gram, across[: -len(new)]], [across.T]]) if len(new) else self._gram

    def _update(self) -> None:
        correction = multiply(self._embeddings, self._slope[:, None])[:, 0].astype(np.float64) + self._shift
        curiosity = CURIOSITY * self._deviation
        correction += curiosity
        correction[self._seen] += self._own - curiosity
        self._correction = correction


def _regress(
    rows: NDArray[np.float64], gram: NDArray[np.float64], values: NDArray[np.float64], noise: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(D,) weights, of prior variance 1, that (s, D) rows have their values (s,) by, with noise of these variances.

    Args:
        rows: see above.
        gram: (s, s), the rows' products with each other.
        values: see above.
        noise: (s,).
    """
    if len(rows) < rows.shape[1]:
        dual = solve(gram + np.diag(noise), values[:, None])[:, 0]
        weights: NDArray[np.float64] = np.einsum("sd,s->d", rows, dual)
        return weights
    scaled = np.ascontiguousarray((rows / noise[:, None]).T)  # (D, s)
    precision = multiply(scaled, rows) + np.eye(len(scaled))
    return solve(precision, multiply(scaled, values[:, None]))[:, 0]
