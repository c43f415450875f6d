"""The cosines of queries with all terms: in float32, or sooner in fewer bits with a known error.

None of them decides about a ranking: what may be among the best by such cosines is scored again exactly. So a product
may be as coarse as it likes while it says how far it is from the truth.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from unprompt.encoders.bfloat16 import multiplies_bfloat16
from unprompt.search.quantized import Int8Copy, longest, multiplies_int8
from unprompt.search.scores import STEP, Bfloat16Scores, FloatScores, placed
from unprompt.search.topk import Cosines, Error, product_error
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary

BATCH = 16
"""Queries in a batch from which a bfloat16 copy of the terms is worth making. Once it is there, two are enough."""

ALONE = 32
"""Queries one at a time after which an 8-bit copy is: making it takes as long as it saves in about as many."""

LARGE = 1 << 22
"""Numbers in a matrix below which neither is: float32 takes a few milliseconds."""

UNIT_ROUNDOFF = 2.0**-8
"""Of bfloat16, which keeps 8 bits: half the distance from 1 to the next number."""


class TermProduct:
    """Multiplies queries with the rows of a matrix, (T, D) float32, L2-normalised.

    Where the processor has instructions for it, a batch is multiplied in bfloat16, which takes about a quarter of
    float32's time, and a query alone in 8 bits, which takes about a fifth. Their copies of the matrix, a half and a
    quarter as large, are made when they are worth it. PyTorch is used when it is loaded already, as it is wherever
    pictures are encoded: importing it takes longer than it saves.
    """

    def __init__(self, matrix: Embeddings) -> None:
        self._matrix = matrix
        self._for_batches: Bfloat16Copy | None = None
        self._for_one: Int8Copy | None = None
        self._asked_alone = 0

    def cosines(self, queries: Embeddings, ranges: Sequence[tuple[int, int]]) -> Cosines:
        """The cosines of the rows in some ranges, one range after the other, with (Q, D) queries."""
        runs = list(joined(ranges))
        asked = sum(stop - start for start, stop in runs)
        copy = self._copy_for_one(asked) if len(queries) == 1 else self._copy_for(len(queries))
        if copy is None:
            return Cosines(self._multiply(queries, runs), Error.of(product_error(self._matrix.shape[1])))
        return copy.cosines(queries, runs)

    def _multiply(self, queries: Embeddings, runs: Sequence[tuple[int, int]]) -> FloatScores:
        # Rows times queries, in one go: queries times rows takes longer, and the threads that share a product wait for
        # one another after each.
        values = np.empty((sum(stop - start for start, stop in runs), len(queries)), dtype=np.float32)
        for rows, place in placed(runs):
            np.matmul(self._matrix[rows], queries.T, out=values[place])
        return FloatScores(values)

    def _copy_for(self, queries: int) -> Bfloat16Copy | None:
        worth = queries >= BATCH and self._matrix.size >= LARGE and "torch" in sys.modules
        if self._for_batches is None and worth and multiplies_bfloat16():
            self._for_batches = Bfloat16Copy(self._matrix)
        return self._for_batches

    def _copy_for_one(self, rows: int) -> Int8Copy | None:
        if 4 * rows <= len(self._matrix):  # which are no more bytes than the whole copy, and it is read whole
            return None
        self._asked_alone += 1
        worth = self._asked_alone > ALONE and self._matrix.size >= LARGE and "torch" in sys.modules
        if self._for_one is None and worth and multiplies_int8():
            self._for_one = Int8Copy(self._matrix)
        return self._for_one


class Bfloat16Copy:
    """A matrix (T, D) rounded to bfloat16, and what the rounding did to it."""

    def __init__(self, matrix: Embeddings) -> None:
        import torch

        self._rows = torch.empty(matrix.shape, dtype=torch.bfloat16)
        self._residual = self._norm = 0.0
        for start in range(0, len(matrix), STEP):
            exact = matrix[start : start + STEP]
            rounded = self._rows[start : start + STEP]
            rounded.copy_(torch.from_numpy(np.array(exact)))
            self._norm = max(self._norm, longest(rounded.float().numpy()))
            self._residual = max(self._residual, longest(exact - rounded.float().numpy()))

    def cosines(self, queries: Embeddings, runs: Sequence[tuple[int, int]]) -> Cosines:
        """The products of the rows in some runs, one run after the other, with (Q, D) queries."""
        return Cosines(self.multiply(queries, runs), self.error(queries))

    def multiply(self, queries: Embeddings, runs: Sequence[tuple[int, int]]) -> Bfloat16Scores:
        """The products of the rows in some runs, one run after the other, with (Q, D) queries."""
        import torch

        columns = torch.from_numpy(queries.copy()).to(torch.bfloat16).T  # (D, Q)
        bits = np.empty((sum(stop - start for start, stop in runs), len(queries)), dtype=np.uint16)
        products = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
        for rows, place in placed(runs):
            torch.mm(self._rows[rows], columns, out=products[place])
        return Bfloat16Scores(bits)

    def error(self, queries: Embeddings) -> Error:
        """How far a product may be from the exact one, at most.

        With q' and t' for the rounded vectors, |qt - q't'| <= |q||t - t'| + |q - q'||t'| by Cauchy and Schwarz. These
        norms are measured: each residual is at most 2^-8 of its vector, and mostly less than half of that. Products of
        two bfloat16 numbers are exact in float32, and so is their sum but for `product_error`, taken twice as large for
        processors that do not round to nearest. The result is rounded to bfloat16 once more, by 2^-8 of itself.
        """
        import torch

        rounded = torch.from_numpy(queries.copy()).to(torch.bfloat16).float().numpy()
        length = longest(rounded) * self._norm
        operands = longest(queries) * self._residual + longest(queries - rounded) * self._norm
        summed = 2 * product_error(queries.shape[1]) * length
        most = operands + summed + UNIT_ROUNDOFF * (length + summed)
        return Error(operands + summed, UNIT_ROUNDOFF, most)


_products: WeakKeyDictionary[Vocabulary, TermProduct] = WeakKeyDictionary()


def product_of(vocabulary: Vocabulary) -> TermProduct:
    """The product of a vocabulary's terms, the same for all that rank them, so that one copy is enough."""
    return _products.setdefault(vocabulary, TermProduct(vocabulary.matrix))


def joined(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges of rows, neighbours in one, so that their product is one."""
    pending: tuple[int, int] | None = None
    for start, stop in ranges:
        if pending and pending[1] == start:
            pending = pending[0], stop
            continue
        if pending:
            yield pending
        pending = start, stop
    if pending:
        yield pending
