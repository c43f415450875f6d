"""The embedding of a prompt with a term appended, taken for the mean of both, weighted by their lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from unprompt.search.chains import Chain
from unprompt.search.one_core import multiply

if TYPE_CHECKING:
    from torch import Tensor

    from unprompt.search.terms import Terms

Predict = Callable[[Sequence[Chain], NDArray[np.intp]], NDArray[np.float64]]
"""(b, a) the cosines with a query that b chains (with embeddings) have once each of some terms (a,) is appended."""

RELATIVE, LEAST, MOST = 2.0, 0.05, 1.5
"""A term's weight beside the prompt that it is appended to: so many times their lengths' ratio, within these bounds."""

SEPARATOR = 4
"""Characters that a comma counts as, about a token."""

Lengths = TypeVar("Lengths", NDArray[np.float32], "Tensor")


def relative_lengths(lengths: Lengths, prompt_lengths: Lengths | float) -> Lengths:
    """(N,) terms' weights beside their prompts', by their lengths (N,) in characters."""
    return (RELATIVE * (lengths + SEPARATOR) / (prompt_lengths + SEPARATOR)).clip(LEAST, MOST)


def norms_of_means(weights: NDArray[np.floating], similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) the norms of prompts plus terms of these weights, all of norm 1, by their cosines with each other."""
    norms: NDArray[np.float64] = np.sqrt(np.maximum(1 + weights**2 + 2 * weights * similarity, 1e-6))
    return norms


class WeightedMean:
    """A `Predict` for any encoder. Where there is a network for it, `unprompt.search.extension_net` corrects this.

    Args:
        terms: with embeddings, and cosines with the query.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms

    def __call__(self, chains: Sequence[Chain], rows: NDArray[np.intp]) -> NDArray[np.float64]:
        terms, every = self._terms, len(rows) == len(self._terms.scores)
        embeddings = terms.embeddings if every else terms.embeddings.take(rows, axis=0)
        cosines = np.empty((len(chains), len(rows)))
        for row, chain in zip(cosines, chains, strict=True):
            assert chain.embedding is not None
            similarity = multiply(embeddings, chain.embedding[:, None])[:, 0].astype(np.float64)
            weights = relative_lengths(terms.lengths[rows], float(len(chain.text)))
            row[:] = (chain.score + weights * terms.scores[rows]) / norms_of_means(weights, similarity)
        return cosines
