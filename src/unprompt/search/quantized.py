"""A matrix in 8 bits a number, for products with a query at a time, whose time is that of reading the matrix."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.types import Embeddings

LEVELS = 127
"""The largest 8-bit number that is used, of either sign."""

_STEP = 512
"""Rows that are rounded at a time: they stay in the cache."""

_TINY = float(np.finfo(np.float32).tiny) * LEVELS
_EPS = float(np.finfo(np.float32).eps)


class Int8Copy:
    """A matrix (T, D) rounded to 8 bits with a scale for each row, and what the rounding did to it.

    A query is split into two 8-bit vectors, a coarse one and one of what that leaves, so that nearly all of a product's
    error is the matrix's. The products themselves are whole numbers and exact.
    """

    def __init__(self, matrix: Embeddings) -> None:
        import torch

        levels = np.empty(matrix.shape, dtype=np.int8)
        self._scales = np.empty(len(matrix), dtype=np.float32)
        self._residual = self._norm = 0.0
        for start in range(0, len(matrix), _STEP):
            exact = np.asarray(matrix[start : start + _STEP])
            scales = np.maximum(np.abs(exact).max(axis=1, keepdims=True), np.float32(_TINY)) / np.float32(LEVELS)
            rounded = np.rint(exact / scales)
            levels[start : start + _STEP] = rounded
            self._scales[start : start + _STEP] = scales[:, 0]
            stored = rounded * scales
            self._norm = max(self._norm, longest(stored))
            self._residual = max(self._residual, longest(exact - stored))
        # The stored rows were rounded to float32 here, and are not where they are multiplied.
        self._residual += _EPS * self._norm
        self._rows = torch.from_numpy(levels)

    def multiply(self, query: Embeddings, start: int, out: NDArray[np.float32]) -> None:
        """Writes the products of one query, (1, D), with n rows from `start` on to `out`, (1, n)."""
        import torch

        parts, steps = split_query(query[0])
        rows = self._rows[start : start + out.shape[1]]
        products = torch._int_mm(rows, torch.from_numpy(parts.T.copy())).to(torch.float32).numpy()  # (n, 2)
        np.multiply(products @ steps, self._scales[start : start + len(products)], out[0])

    def error(self, query: Embeddings) -> float:
        """How far a product may be from the exact one, at most.

        |qt - q't'| <= |q||t - t'| + |q - q'||t'| as in `unprompt.search.product`, with norms that were measured.
        Turning the whole numbers into float32, scaling and adding them rounds four times, each time by half an epsilon
        of at most the product of the lengths; twice that is allowed for.
        """
        parts, steps = split_query(query[0])
        coarse, fine = parts.astype(np.float64) * steps[:, None]
        lengths = (longest(coarse[None]) + longest(fine[None])) * self._norm
        operands = longest(query) * self._residual + longest((query[0] - coarse - fine)[None]) * self._norm
        return operands + 4 * _EPS * lengths


def split_query(query: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Splits a query (D,) into a coarse and a fine part.

    Returns:
        (2, D) int8, and (2,) what each part is to be multiplied with.
    """
    step = np.float32(max(float(np.abs(query).max()), _TINY) / LEVELS)
    steps = np.array([step, step / (2 * LEVELS)], dtype=np.float32)
    coarse = np.rint(query / steps[0])
    fine = np.rint((query - coarse * steps[0]) / steps[1]).clip(-LEVELS, LEVELS)
    return np.stack([coarse, fine]).astype(np.int8), steps


def longest(rows: NDArray[np.floating[Any]]) -> float:
    """The greatest norm of some rows (N, D), no less than it is."""
    squares = np.einsum("nd,nd->n", rows, rows)
    rounding = float(np.finfo(rows.dtype).eps) * rows.shape[1]
    return float(math.sqrt(squares.max(initial=0.0)) * (1.0 + rounding))


@cache
def multiplies_int8() -> bool:
    """Whether the processor has instructions for products of 8-bit numbers (VNNI), and PyTorch uses them.

    Without them such a product is slower than float32's, or may overflow 16 bits on its way.
    """
    import torch

    supported = getattr(torch.cpu, "_is_vnni_supported", None)  # there is no public name for it
    return bool(supported and supported() and hasattr(torch, "_int_mm") and torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
