"""A matrix in 8 bits a number, for products with a query at a time, whose time is that of reading the matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.search.scores import STEP, FloatScores, placed
from unprompt.search.topk import Cosines, Error
from unprompt.types import Embeddings

LEVELS = 127
"""The largest 8-bit number that is used, of either sign."""

FINER = 2 * LEVELS
"""Levels of a query's fine part in one of its coarse part."""

ZERO = 128
"""What is added to a query's numbers, and taken off their products again: the processor's own instructions multiply
numbers without a sign with numbers that have one."""

_TINY = float(np.finfo(np.float32).tiny) * LEVELS
_EPS = float(np.finfo(np.float32).eps)


class Int8Copy:
    """A matrix (T, D) rounded to 8 bits with a scale for each row, and what the rounding did to it.

    A query is split into two 8-bit vectors, a coarse one and one of what that leaves, so that nearly all of a product's
    error is the matrix's. The products themselves are whole numbers and exact.

    The rows lie as oneDNN multiplies them, in blocks of some rows and a few numbers each, so that a product reads them
    as they come; as they were, it takes about twice as long. Some rows alone cannot be multiplied then.
    """

    def __init__(self, matrix: Embeddings) -> None:
        import torch

        levels = np.empty(matrix.shape, dtype=np.int8)
        scales = np.empty(len(matrix), dtype=np.float32)
        self._residual = self._norm = 0.0
        for start in range(0, len(matrix), STEP):
            exact = np.asarray(matrix[start : start + STEP])
            own = np.maximum(np.abs(exact).max(axis=1, keepdims=True), np.float32(_TINY)) / np.float32(LEVELS)
            rounded = np.rint(exact / own)
            levels[start : start + STEP] = rounded
            scales[start : start + STEP] = own[:, 0]
            stored = rounded * own
            self._norm = max(self._norm, longest(stored))
            self._residual = max(self._residual, longest(exact - stored))
        # The stored rows were rounded to float32 here, and are not where they are multiplied.
        self._residual += _EPS * self._norm
        self._scales = torch.from_numpy(scales)
        self._offsets = torch.zeros(len(matrix), dtype=torch.int64)
        self._rows = torch.ops.onednn.qlinear_prepack(torch.from_numpy(levels), None)

    def cosines(self, query: Embeddings, runs: Sequence[tuple[int, int]]) -> Cosines:
        """The products of the rows in some runs, one run after the other, with one query, (1, D).

        How far one may be from the exact product: |qt - q't'| <= |q||t - t'| + |q - q'||t'| as in
        `unprompt.search.product`, with norms that were measured. Both parts' products are turned into float32, scaled
        by the row, added with the coarse one enlarged, and scaled by the query's unit, which is rounded too. That
        rounds six times, each time by half an epsilon; eight times are allowed for.
        """
        parts, unit = split_query(query[0])
        coarse, fine = parts * np.array([[FINER * unit], [unit]])
        lengths = (longest(coarse[None]) + longest(fine[None])) * self._norm
        operands = longest(query) * self._residual + longest((query[0] - coarse - fine)[None]) * self._norm
        products = self._multiply(parts)
        values = np.empty((sum(stop - start for start, stop in runs), 1), dtype=np.float32)
        for rows, place in placed(runs):
            np.multiply(products[0, rows], np.float32(FINER), out=values[place, 0])
            values[place, 0] += products[1, rows]
        values *= np.float32(unit)
        return Cosines(FloatScores(values), Error.of(operands + 4 * _EPS * lengths))

    def _multiply(self, parts: NDArray[np.int8]) -> NDArray[np.float32]:
        """(2, T) the products of all rows with a query's parts, (2, D), scaled by the row."""
        import torch

        unsigned = torch.from_numpy((parts.astype(np.int16) + ZERO).astype(np.uint8))
        rows = (self._rows, self._scales, self._offsets)
        # No bias, and of the result neither another scale nor a function.
        result = torch.ops.onednn.qlinear_pointwise(
            unsigned, 1.0, ZERO, *rows, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return np.asarray(result.numpy())


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
    available = torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")  # type: ignore[no-untyped-call]
    return bool(supported and supported() and available)
