"""Predicting what a term adds to a prompt, from what the search has encoded so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unprompt.search.chains import Chain
from unprompt.search.one_core import cholesky, multiply, solve
from unprompt.search.terms import Terms
from unprompt.search.weighted_mean import Predict, WeightedMean

RIDGE = 0.5
"""The variance of what is not linear in the features, beside that of a coefficient."""

SHIFT_RIDGE = 0.005
"""The same beside that of what all terms share."""

OWN = 1.0
"""The variance of noise beside that of what is a term's own."""

FORGOTTEN = 0.01
"""Observations of less weight no longer count as such."""


class EffectModel:
    """Predicts the cosine with a query that a prompt has once a term is appended to it.

    The prior is a network's prediction where there is one for the encoder (`unprompt.search.extension_net`), elsewhere
    that of `WeightedMean`. What it gets wrong is linear in the terms' features (`unprompt.search.effects`), with
    coefficients that change slowly as the prompt does: they are found by Bayesian linear regression whose older
    observations count less and less (recursive least squares with exponential forgetting). What remains of a term's own
    errors is added where it was seen.

    Predictions are made for the active terms, at first all.

    Args:
        terms: with embeddings, cosines with the query, and features.
        predict: the prior, if it is not that mean.
    """

    def __init__(self, terms: Terms, predict: Predict | None = None) -> None:
        self._terms = terms
        self._predict = predict or WeightedMean(terms)
        self._all = np.arange(len(terms.scores))
        width = terms.effects.shape[1] + 1
        self._precision, self._moments = np.zeros((width, width)), np.zeros(width)
        self._ridge = np.full(width, RIDGE)
        self._ridge[-1] = SHIFT_RIDGE
        self._slopes = np.zeros(width)
        self._seen = np.zeros(0, dtype=np.intp)  # (m,) the observations' terms, one of several observations repeatedly
        self._errors = np.zeros(0)
        self._weights = np.zeros(0)
        self.activate(self._all)

    def activate(self, rows: Sequence[int] | NDArray[np.intp]) -> None:
        """Predictions are made for these terms from now on; positions in rising order."""
        self.active: NDArray[np.intp] = np.array(rows, dtype=np.intp)
        """(a,) positions of the terms that predictions are made for, rising."""
        effects = self._terms.effects
        self._effects = effects if len(self.active) == len(effects) else effects.take(self.active, axis=0)
        self._update()

    def priors(self, chains: Sequence[Chain]) -> NDArray[np.float64]:
        """(b, a) the cosines expected of b chains (with embeddings) and each active term, before anything is learnt."""
        return self._predict(chains, self.active)

    def correct(self, prior: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., a) priors and what was learnt, rounded so that the last bits of a product decide nothing."""
        return (prior + self._correction).round(6)

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """(count, a) by how much predictions differ from their means where the coefficients are drawn from what is
        believed of them, to be added to `correct`; zeros before anything is learnt.

        With the best by such a draw what is uncertain is tried as often as it may be best (Thompson, 1933). What is
        best by the mean teaches little: a search by that alone soon predicted gains among its active terms with a
        correlation of 0.1 to 0.3, where 100 of them taken at random were enough for 0.35 to 0.7.
        """
        if not len(self._seen):
            return np.zeros((count, len(self.active)))
        posterior = self._precision + np.diag(self._ridge)
        noise = multiply(cholesky(posterior), rng.standard_normal((len(posterior), count)))
        offsets = self._deviation() * solve(posterior, noise)  # (F + 1, count)
        products = multiply(self._effects, offsets[:-1].astype(np.float32)).astype(np.float64)
        return np.asarray((products + offsets[-1]).T, dtype=np.float64)

    def _deviation(self) -> float:
        """The standard deviation of what is not linear in the features."""
        return math.sqrt(float(self._weights @ np.square(self._rest())) / float(self._weights.sum()))

    def _rest(self) -> NDArray[np.float64]:
        """(m,) what the linear part leaves of the observations."""
        explained = multiply(self._rows(self._seen), self._slopes[:, None])[:, 0]
        return np.asarray(self._errors - explained, dtype=np.float64)

    def everywhere(self, chain: Chain, rows: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
        """(T,) the prediction for all terms, less what is their own; infinity for those lately seen.

        Where `rows` are given, only these are predicted, and the others' is minus infinity.
        """
        terms = self._terms
        values = np.full(len(terms.scores), -np.inf)
        some, effects = (self._all, terms.effects) if rows is None else (rows, terms.effects[rows])
        values[some] = self._predict([chain], some)[0] + self._linear(effects)
        values[self._seen] = np.inf
        return values.round(6)

    def forget(self, kept: float) -> None:
        """Gives what was observed less weight, as the prompt has changed."""
        self._precision *= kept
        self._moments *= kept
        self._weights = self._weights * kept
        known = self._weights >= FORGOTTEN
        self._seen, self._errors, self._weights = self._seen[known], self._errors[known], self._weights[known]

    def learn(self, columns: NDArray[np.intp], errors: NDArray[np.float64]) -> None:
        """Takes in m observations: the terms' positions, and how far their true cosines were above the prior."""
        rows = self._rows(columns)
        self._precision += multiply(np.ascontiguousarray(rows.T), rows)
        self._moments += np.einsum("md,m->d", rows, errors)
        self._slopes = solve(self._precision + np.diag(self._ridge), self._moments[:, None])[:, 0]
        self._seen = np.concatenate([self._seen, columns])
        self._errors = np.concatenate([self._errors, errors])
        self._weights = np.concatenate([self._weights, np.ones(len(columns))])
        self._update()

    def _rows(self, columns: NDArray[np.intp]) -> NDArray[np.float64]:
        """(m, F + 1) what the errors are linear in: the features, and 1."""
        return np.hstack([self._terms.effects[columns].astype(np.float64), np.ones((len(columns), 1))])

    def _linear(self, effects: NDArray[np.float32]) -> NDArray[np.float64]:
        products = multiply(effects, self._slopes[:-1, None].astype(np.float32))[:, 0]
        return np.asarray(products.astype(np.float64) + self._slopes[-1], dtype=np.float64)

    def _update(self) -> None:
        self._correction = self._linear(self._effects)
        if not len(self._seen) or not len(self.active):
            return
        rest = self._rest()
        places = np.minimum(np.searchsorted(self.active, self._seen), len(self.active) - 1)
        there = self.active[places] == self._seen
        totals, weights = np.zeros(len(self.active)), np.zeros(len(self.active))
        np.add.at(totals, places[there], (self._weights * rest)[there])
        np.add.at(weights, places[there], self._weights[there])
        self._correction += totals / (weights + OWN)
