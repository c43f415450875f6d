"""Exact top-k selection from rows of scores, many times faster than partitioning every row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.types import Embeddings

GROUP = 32
"""Columns that share a maximum: maxima are then few beside the scores, and groups with two of the best are rare."""

LOWEST = float(np.finfo(np.float32).min)
"""Scores below it (minus infinity) are hidden and never selected."""


def survivors(scores: NDArray[np.float32], k: int, margin: float = 0.0) -> list[NDArray[np.intp]]:
    """The columns that may be among the k best of each row, in rising order.

    The columns are dealt into groups. As k groups have a maximum of at least the k-th largest maximum, so have k
    scores, and nothing below it is among the k best. One pass for the maxima and a look into the few groups that reach
    the bound therefore replace a partition of the row, and every tie with the k-th best survives.

    Args:
        scores: (Q, n); minus infinity hides a column.
        k: at least 1.
        margin: how far below the k-th best a score may lie and still be kept, 0 or more.

    Returns:
        For each row all columns whose score is at least its k-th best less the margin, and possibly some below;
        every column that is not hidden where k of them are not there.
    """
    queries, columns = scores.shape
    size = min(GROUP, columns // (4 * k))
    if size < 2:
        return [_reaching(row, _kth_best(row, k) - margin) for row in scores]
    # Groups take every m-th column: maxima are then taken of whole runs of columns at a time.
    m = columns // size
    grouped = scores[:, : m * size].reshape(queries, size, m)
    maxima = grouped.max(axis=1)  # (Q, m)
    bounds = np.partition(maxima, m - k, axis=1)[:, m - k] - margin  # (Q,)
    found = []
    for row, tops, bound in zip(scores, maxima, bounds.tolist(), strict=True):
        bound = max(bound, LOWEST)
        groups = np.flatnonzero(tops >= bound)
        if len(groups) * 4 > m:  # so many ties, or so much hidden, that the groups sift nothing
            found.append(_reaching(row, bound))
            continue
        inside = (groups[:, None] + m * np.arange(size)).ravel()
        rest = np.arange(m * size, columns)
        candidates = np.concatenate([inside, rest])
        found.append(np.sort(candidates[row[candidates] >= bound]))
    return found


def top_rows(scores: NDArray[np.float32], k: int) -> list[NDArray[np.intp]]:
    """The k best columns of each row of (Q, n) scores, best first, equal scores by column; hidden ones are left out."""
    found = survivors(scores, k)
    return [columns[best_first(row[columns], columns)[:k]] for row, columns in zip(scores, found, strict=True)]


def best_first(scores: NDArray[np.floating[Any]], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Positions of the scores, highest first, equal scores by row."""
    return np.lexsort((rows, -scores))


def rescore(query: NDArray[np.float32], matrix: Embeddings, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Cosines of one query with some rows of a matrix, rounded once.

    A float32 product's last bits depend on how many queries share it and on the threads, and would order near-equals
    differently from batch to batch. These are summed in float64.
    """
    return cosines(matrix[rows].astype(np.float64), query.astype(np.float64)).astype(np.float32)


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


def _kth_best(row: NDArray[np.float32], k: int) -> float:
    if k >= len(row):
        return LOWEST
    return float(np.partition(row, len(row) - k)[len(row) - k])


def _reaching(row: NDArray[np.float32], bound: float) -> NDArray[np.intp]:
    return np.flatnonzero(row >= np.float32(max(bound, LOWEST)))
