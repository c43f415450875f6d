"""Small linear algebra on one core.

BLAS shares whatever takes it more than some microseconds among threads, and these then wait for the next call for
milliseconds, each keeping a core busy. A search does such algebra between two calls of the encoder, which needs those
cores: one equation of 100 unknowns a call was enough to make a search with four threads slower than with one. Cut into
pieces that BLAS finds too small to share, the same takes no longer, and no result depends on the number of threads.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.floating[Any])

BLOCK, COLUMNS = 1 << 13, 16
"""Numbers of a matrix that are multiplied at a time, and columns by which. OpenBLAS shares vectors' products from 9,216
numbers on, and matrices' from 2^18 products."""

UNKNOWNS = 64
"""Unknowns that are solved for at a time: OpenBLAS shares equations of about 100."""


def multiply(matrix: NDArray[Number], columns: NDArray[Number]) -> NDArray[Number]:
    """The product of a matrix (n, D), which must be C-contiguous to be fast, with k columns (D, k); (n, k)."""
    n, width = matrix.shape
    if not matrix.size:
        return np.zeros((n, columns.shape[1]), dtype=matrix.dtype)
    block = max(1, BLOCK // max(1, width))
    whole = n - n % block
    product = np.empty((n, columns.shape[1]), dtype=matrix.dtype)
    blocks = matrix[:whole].reshape(-1, block, width)
    for first in range(0, columns.shape[1], COLUMNS):
        some, out = columns[:, first : first + COLUMNS], product[:, first : first + COLUMNS]
        out[:whole] = (blocks @ some).reshape(whole, some.shape[1])
        out[whole:] = matrix[whole:] @ some
    return product


def solve(matrix: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x (s, k) of ``matrix @ x = values`` with a symmetric positive definite (s, s) matrix, by block elimination.

    Golub and Van Loan, "Matrix Computations" (2013), section 3.2; such matrices need no pivoting.
    """
    if len(matrix) <= UNKNOWNS:
        return np.linalg.solve(matrix, values).astype(np.float64)
    first, later = slice(None, UNKNOWNS), slice(UNKNOWNS, None)
    solved = np.linalg.solve(matrix[first, first], np.hstack([matrix[first, later], values[first]]))
    rest = np.hstack([matrix[later, later], values[later]])
    rest -= multiply(np.ascontiguousarray(matrix[later, first]), solved)  # (s - 64, s - 64 + k)
    after = solve(rest[:, : len(rest)], rest[:, len(rest) :])
    before = solved[:, len(rest) :] - multiply(np.ascontiguousarray(solved[:, : len(rest)]), after)
    return np.vstack([before, after])


def cholesky(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lower triangular L (s, s) with ``L @ L.T = matrix``, symmetric positive definite, by blocks.

    Golub and Van Loan, "Matrix Computations" (2013), section 4.2.
    """
    if len(matrix) <= UNKNOWNS:
        return np.linalg.cholesky(matrix).astype(np.float64)
    first, later = slice(None, UNKNOWNS), slice(UNKNOWNS, None)
    factor = np.zeros_like(matrix)
    factor[first, first] = np.linalg.cholesky(matrix[first, first])
    below = np.ascontiguousarray(np.linalg.solve(factor[first, first], matrix[first, later]).T)  # (s - 64, 64)
    factor[later, first] = below
    factor[later, later] = cholesky(matrix[later, later] - multiply(below, below.T))
    return factor
