"""Rough cosines of terms with queries, as the product left them: one row a term, in float32 or in bfloat16.

Rows are terms because that is how the product is made and how terms are hidden; nothing is turned over or converted
before it is known which few scores matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

STEP = 512
"""Rows that are turned over or converted at a time: they stay in the cache."""

MINUS_INFINITY = 0xFF80
"""In bfloat16."""


class FloatScores:
    """Scores of n terms for Q queries in float32.

    Args:
        values: (n, Q) float32, C-contiguous; minus infinity hides a term.
    """

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.values = values

    @property
    def shape(self) -> tuple[int, int]:
        """(n, Q)."""
        return self.values.shape[0], self.values.shape[1]

    def part(self, start: int, stop: int) -> FloatScores:
        """The scores of some terms; the same numbers, no copy."""
        return FloatScores(self.values[start:stop])

    def of(self, query: int) -> FloatScores:
        """(n, 1) the scores of one query, a copy."""
        return FloatScores(self.values[:, query : query + 1].copy())

    def hide(self, terms: NDArray[np.intp]) -> None:
        """Hides some terms from every query."""
        self.values[terms] = -np.inf

    def group_maxima(self, groups: int) -> NDArray[np.float32]:
        """(groups, Q) maxima of groups of every ``groups``-th term; what does not fill the groups is left out."""
        size = len(self.values) // groups
        return np.asarray(self.values[: groups * size].reshape(size, groups, -1).max(axis=0))

    def take(self, places: NDArray[np.intp]) -> NDArray[np.float32]:
        """The scores at places counted through all rows: term * Q + query."""
        return self.values.reshape(-1).take(places)

    def to_float32(self) -> FloatScores:
        """These scores themselves."""
        return self

    def by_query(self) -> NDArray[np.float32]:
        """(Q, n) float32, C-contiguous."""
        turned = np.empty(self.values.shape[::-1], dtype=np.float32)
        for first in range(0, len(self.values), STEP):
            turned[:, first : first + STEP] = self.values[first : first + STEP].T
        return turned


class Bfloat16Scores:
    """Scores of n terms for Q queries in bfloat16; as `FloatScores`, for their bits.

    NumPy has no bfloat16 and works on these: there is so little to do that on a busy machine PyTorch's threads would
    wait for one another far longer than they save.

    Args:
        bits: (n, Q) uint16, C-contiguous: the upper halves of float32 numbers.
    """

    def __init__(self, bits: NDArray[np.uint16]) -> None:
        self._bits = bits

    @property
    def shape(self) -> tuple[int, int]:
        """(n, Q)."""
        return self._bits.shape[0], self._bits.shape[1]

    def part(self, start: int, stop: int) -> Bfloat16Scores:
        """The scores of some terms; the same numbers, no copy."""
        return Bfloat16Scores(self._bits[start:stop])

    def of(self, query: int) -> FloatScores:
        """(n, 1) the scores of one query, a copy in float32."""
        return FloatScores(_floats(self._bits[:, query : query + 1]))

    def hide(self, terms: NDArray[np.intp]) -> None:
        """Hides some terms from every query."""
        self._bits[terms] = MINUS_INFINITY

    def group_maxima(self, groups: int) -> NDArray[np.float32]:
        """(groups, Q) maxima of groups of every ``groups``-th term; what does not fill the groups is left out."""
        size = len(self._bits) // groups
        whole = self._bits[: groups * size].view(np.int16).reshape(size, groups, -1)
        maxima = whole.max(axis=0)
        # Numbers compare as their bits do, but the other way round where all are negative.
        if (maxima < 0).any():
            maxima = np.where(maxima < 0, whole.min(axis=0), maxima)
        return _floats(maxima.view(np.uint16))

    def take(self, places: NDArray[np.intp]) -> NDArray[np.float32]:
        """The scores at places counted through all rows: term * Q + query."""
        return _floats(self._bits.reshape(-1).take(places))

    def to_float32(self) -> FloatScores:
        """A copy in float32."""
        return FloatScores(_floats(self._bits))

    def by_query(self) -> NDArray[np.float32]:
        """(Q, n) float32, C-contiguous."""
        turned = np.empty(self.shape[::-1], dtype=np.float32)
        for first in range(0, len(self._bits), STEP):
            turned[:, first : first + STEP] = _floats(self._bits[first : first + STEP]).T
        return turned


Scores = FloatScores | Bfloat16Scores


def placed(runs: Iterable[tuple[int, int]]) -> Iterator[tuple[slice, slice]]:
    """Where runs of rows lie in a matrix, and where they lie when one stands after the other."""
    end = 0
    for start, stop in runs:
        begin, end = end, end + stop - start
        yield slice(start, stop), slice(begin, end)


def _floats(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
