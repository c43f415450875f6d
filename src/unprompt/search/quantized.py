"""A matrix in 8 bits a number, for products with a query at a time, whose time is that of reading the matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.search.scores import STEP, FloatScores, placed
from unprompt.search.topk import Error
from unprompt.types import Embeddings

LEVELS = 127
"""The largest 8-bit number that is used, of either sign."""

FINER = 2 * LEVELS
"""Levels of a query's fine part in one of its coarse part."""

NARROW = (2**31 - 1) // (LEVELS * LEVELS * (FINER + 1))
"""The most numbers in a vector whose products, in units of the fine part, fit in 32 bits for certain: 522."""

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
        for start in range(0, len(matrix), STEP):
            exact = np.asarray(matrix[start : start + STEP])
            scales = np.maximum(np.abs(exact).max(axis=1, keepdims=True), np.float32(_TINY)) / np.float32(LEVELS)
            rounded = np.rint(exact / scales)
            levels[start : start + STEP] = rounded
            self._scales[start : start + STEP] = scales[:, 0]
            stored = rounded * scales
            self._norm = max(self._norm, longest(stored))
            self._residual = max(self._residual, longest(exact - stored))
        # The stored rows were rounded to float32 here, and are not where they are multiplied.
        self._residual += _EPS * self._norm
        self._rows = torch.from_numpy(levels)

    def multiply(self, query: Embeddings, runs: Sequence[tuple[int, int]]) -> FloatScores:
        """The products of the rows in some runs, one run after the other, with one query, (1, D)."""
        import torch

        parts, unit = split_query(query[0])
        columns = torch.from_numpy(parts.T.copy())  # (D, 2)
        values = np.empty((sum(stop - start for start, stop in runs), 1), dtype=np.float32)
        for rows, place in placed(runs):
            products = torch._int_mm(self._rows[rows], columns).numpy()  # (n, 2) int32
            # Neither by BLAS, whose threads and PyTorch's would wait for one another's cores, nor by PyTorch's.
            whole = np.multiply(products[:, 0], FINER, dtype=np.int32 if len(columns) <= NARROW else np.int64)
            whole += products[:, 1]
            np.multiply(whole, self._scales[rows], out=values[place, 0], dtype=np.float32, casting="same_kind")
        values *= np.float32(unit)
        return FloatScores(values)

    def error(self, query: Embeddings) -> Error:
        """How far a product may be from the exact one, at most.

        |qt - q't'| <= |q||t - t'| + |q - q'||t'| as in `unprompt.search.product`, with norms that were measured.
        The parts' products are added as whole numbers. Turning the sum into float32 and scaling it by the row's scale
        and by the query's unit, which is rounded too, rounds four times, each time by half an epsilon; twice that is
        allowed for.
        """
        parts, unit = split_query(query[0])
        coarse, fine = parts * np.array([[FINER * unit], [unit]])
        lengths = (longest(coarse[None]) + longest(fine[None])) * self._norm
        operands = longest(query) * self._residual + longest((query[0] - coarse - fine)[None]) * self._norm
        return Error.of(operands + 4 * _EPS * lengths)


def split_query(query: NDArray[np.float32]) -> tuple[NDArray[np.int8], float]:
    """Splits a query (D,) into a coarse and a fine part.

    Returns:
        (2, D) int8, and what the fine part is to be multiplied with; the coarse part `FINER` times that.
    """
    exact = query.astype(np.float64)
    unit = max(float(np.abs(exact).max()), _TINY * FINER) / (LEVELS * FINER)
    coarse = np.rint(exact / (FINER * unit))
    fine = np.rint(exact / unit - FINER * coarse).clip(-LEVELS, LEVELS)
    return np.stack([coarse, fine]).astype(np.int8), unit


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
