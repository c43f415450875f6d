"""Exact top-k selection from rough scores, many times faster than partitioning those of every query."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unprompt.search.scores import Scores
from unprompt.types import Embeddings

GROUP = 16
"""Terms that share a maximum: maxima are then few beside the scores, and groups with two of the best are rare."""

CROWD = 8
"""A query with more than 2k of the groups to look into, and more than one in so many, is looked through whole."""

FEW = 512
"""Rows that are scored again at a time: as float64 they stay in the cache."""

LOWEST = float(np.finfo(np.float32).min) / 2
"""Scores below it (minus infinity) are hidden and never selected."""


class Error(NamedTuple):
    """How far rough scores may be from the exact ones, at most: by `absolute` and a share of each score itself.

    `most` is that of any score there is.
    """

    absolute: float
    relative: float
    most: float

    @classmethod
    def of(cls, absolute: float) -> Error:
        """One that does not grow with the score."""
        return cls(absolute, 0.0, absolute)


EXACT = Error.of(0.0)


class Cosines(NamedTuple):
    """Rough cosines of the asked rows, one after another, and how far each may be from the exact one."""

    scores: Scores
    error: Error


def survivors(scores: Scores, k: int, error: Error = EXACT) -> list[NDArray[np.intp]]:
    """The terms that may be among the k best of each query, in rising order.

    The terms are dealt into groups. As k groups have a maximum of at least the k-th largest maximum, so have k
    scores, and nothing below it is among the k best. One pass for the maxima and a look into the few groups that reach
    the bound therefore replace a partition of all scores, and every tie with the k-th best survives.

    Args:
        scores: of n terms for Q queries; minus infinity hides a term.
        k: at least 1.
        error: how far the scores may be from the exact ones.

    Returns:
        For each query all terms whose exact score may be at least its k-th best exact one, and possibly some below;
        every term that is not hidden where k of them are not there.
    """
    terms = scores.shape[0]
    size = min(GROUP, terms // (4 * k))
    if size < 2:
        return [_reaching(row, _bound(_kth_best(row, k), error)) for row in scores.by_query()]
    # Groups take every m-th term: maxima are then taken of whole runs of scores at a time.
    m = terms // size
    maxima = scores.group_maxima(m)  # (m, Q)
    bounds = _bound(_kth_maxima(maxima, k), error)  # (Q,)
    groups, owners = np.divmod(np.flatnonzero(maxima >= bounds), len(bounds))  # (P,)
    # With so many ties, or so much hidden, that the groups sift nothing, a query is looked through term by term.
    flooded = np.bincount(owners, minlength=len(bounds)) > max(2 * k, m // CROWD)
    if flooded.any():
        groups, owners = groups[~flooded[owners]], owners[~flooded[owners]]
    found = _inside(scores, m, groups, owners, bounds)
    for query in np.flatnonzero(flooded).tolist():
        found[query] = _reaching(scores.of(query).values[:, 0], bounds[query])
    return found


def _kth_maxima(maxima: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """(Q,) the k-th largest of each column of (m, Q) maxima, or a little less where four groups can pass for one."""
    together = max(1, min(4, len(maxima) // (8 * k)))
    rows = len(maxima) // together
    maxima = maxima[: together * rows].reshape(together, rows, -1).max(axis=0)
    kth: NDArray[np.float32] = np.partition(maxima, rows - k, axis=0)[rows - k]
    return kth


def _inside(
    scores: Scores, m: int, groups: NDArray[np.intp], owners: NDArray[np.intp], bounds: NDArray[np.float32]
) -> list[NDArray[np.intp]]:
    """For each query the terms that reach its bound, in P of the m groups, each for its owner, and in no group."""
    terms, queries = scores.shape
    size = terms // m
    places = (groups * queries + owners)[:, None] + np.arange(size) * (m * queries)  # (P, size)
    pairs, members = np.divmod(np.flatnonzero(scores.take(places) >= bounds[owners, None]), size)
    rest = np.arange(m * size, terms)
    others, rest_owners = np.divmod(np.flatnonzero(scores.part(m * size, terms).to_float32().values >= bounds), queries)
    inside = owners[pairs] * terms + members * m + groups[pairs]  # which sort by query, then by term
    keys = np.sort(np.concatenate([inside, rest_owners * terms + rest[others]]))
    return np.split(keys % terms, np.searchsorted(keys, np.arange(1, queries) * terms))


def best_first(scores: NDArray[np.floating[Any]], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Positions of the scores, highest first, equal scores by row."""
    return np.lexsort((rows, -scores))


def rescore(query: NDArray[np.float32], matrix: Embeddings, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Cosines of one query with some rows of a matrix, rounded once.

    A float32 product's last bits depend on how many queries share it and on the threads, and would order near-equals
    differently from batch to batch. These are summed in float64.
    """
    exact, found = query.astype(np.float64), np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), FEW):
        part = slice(start, start + FEW)
        found[part] = cosines(matrix.take(rows[part], axis=0).astype(np.float64), exact)
    return found


def cosines(rows: NDArray[np.floating[Any]], vector: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """(n,) products of a few rows (n, D) with a vector (D,), both L2-normalised.

    Not by BLAS: its threads wait for one another longer than so small a product takes when others use the cores.
    """
    return np.asarray(np.einsum("nd,d->n", rows, vector))


def product_error(dim: int) -> float:
    """How far a float32 product of two unit vectors of ``dim`` numbers may be from the exact cosine, at most.

    The bound of Higham (Accuracy and Stability of Numerical Algorithms, 2002, section 3.1), n u / (1 - n u), with a
    tenth more for rows that were stored as float16.
    """
    return 1.1 * dim * float(np.finfo(np.float32).eps) / 2


def _bound(best: Any, error: Error) -> Any:
    """The least score that may be among the k best, of whose rough scores the least is `best`.

    Each of these is exactly as good as `best` less its error, or better; a score is so with its error added if it is no
    less than what is returned, a step of float32 further down as it is rounded itself.
    """
    best = np.maximum(np.asarray(best, dtype=np.float64), LOWEST / 2)
    exact = best - error.absolute - error.relative * np.abs(best)
    least = exact - error.absolute
    least = np.where(least < 0, least / (1 - error.relative), least / (1 + error.relative))
    return np.nextafter(least.astype(np.float32), np.float32(-np.inf))


def _kth_best(row: NDArray[np.float32], k: int) -> float:
    if k >= len(row):
        return LOWEST
    return float(np.partition(row, len(row) - k)[len(row) - k])


def _reaching(row: NDArray[np.float32], bound: np.float32) -> NDArray[np.intp]:
    return np.flatnonzero(row >= bound)
