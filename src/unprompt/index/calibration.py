"""Calibration: what a cosine of a term means, told by the cosines that reference pictures have with the same term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import LibraryError
from unprompt.types import Embeddings

_BLOCK = 4096
_DENSE = 8
"""The largest values of the reference that the table keeps one by one."""
_RATIO = 1.3
"""From there down to the median each step is this much longer."""
_LOWER = (0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)
_TAIL = 0.05
"""The share of the reference from which the tails are estimated."""
_SHAPE = 0.5
"""Of the tails. An exponential one (0) soon comes so near to 1 that float64 holds no difference any more."""
_LEAST_SCALE = 1e-3
_DECIMALS = 6


class Calibration:
    """For each of T terms the distribution of its cosines with R reference pictures.

    Some terms are near every picture and others near none, so equal cosines mean little: a percentile says what share
    of the reference pictures a term fits less well, the same for terms of all kinds. A term's distribution is a table
    of order statistics at i / (R + 1) (Weibull's plotting positions), the largest kept one by one and the rest in
    growing steps, with straight lines between. Beyond the table both tails are generalised Pareto, as the excesses of
    nearly every distribution become (Pickands 1975), with scales from the mean excesses of the outer values.

    Args:
        levels: (L,) float64 in (0, 1), rising.
        quantiles: (L, T) float32, column by column not falling: the cosine at each level.
        scales: (2, T) float32, positive: of the lower tail and the upper one.
        reference: (R, D) float32, the reference pictures' embeddings, for terms to come.

    Raises:
        LibraryError: the shapes do not agree, or the values are not as described.
    """

    def __init__(
        self,
        levels: NDArray[np.float64],
        quantiles: NDArray[np.float32],
        scales: NDArray[np.float32],
        reference: Embeddings,
    ) -> None:
        self.levels = levels
        self.quantiles = quantiles
        self.scales = scales
        self.reference = reference
        self._check()

    @classmethod
    def fit(cls, matrix: Embeddings, reference: Embeddings) -> Calibration:
        """Measures T terms, (T, D), on R >= 2 reference pictures, (R, D), in blocks of terms.

        Raises:
            LibraryError: there are fewer than two reference pictures, or they are of another dimension.
        """
        if len(reference) < 2:
            raise LibraryError(f"a calibration on {len(reference)} pictures says nothing: use 2 or more, better 1,000")
        if matrix.shape[1] != reference.shape[1]:
            raise LibraryError(
                f"the terms have {matrix.shape[1]} numbers each, the reference pictures {reference.shape[1]}: "
                "encode both with the same encoder"
            )
        reference = np.ascontiguousarray(reference, dtype=np.float32)
        ranks = _table_ranks(len(reference))
        quantiles = np.empty((len(ranks), len(matrix)), dtype=np.float32)
        scales = np.empty((2, len(matrix)), dtype=np.float32)
        for start in range(0, len(matrix), _BLOCK):
            part = slice(start, start + _BLOCK)
            cosines = np.sort(np.asarray(matrix[part], dtype=np.float32) @ reference.T, axis=1)  # (B, R)
            # Rounded, for the products' last bits depend on the threads, and a library's bytes should not.
            quantiles[:, part] = cosines[:, ranks - 1].T.round(_DECIMALS)
            scales[:, part] = _tail_scales(cosines).round(_DECIMALS)
        return cls(ranks / (len(reference) + 1), quantiles, scales, reference)

    def extend(self, matrix: Embeddings) -> Calibration:
        """This calibration with that of new terms, (N, D), behind it; only they are measured."""
        new = Calibration.fit(matrix, self.reference)
        quantiles = np.concatenate([self.quantiles, new.quantiles], axis=1)
        return Calibration(self.levels, quantiles, np.concatenate([self.scales, new.scales], axis=1), self.reference)

    def take(self, rows: NDArray[np.intp]) -> Calibration:
        """The calibration of some terms, in the order of `rows`."""
        return Calibration(self.levels, self.quantiles[:, rows], self.scales[:, rows], self.reference)

    def __len__(self) -> int:
        """T, the number of terms."""
        return int(self.quantiles.shape[1])

    def percentiles(self, rows: NDArray[np.intp], scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Which share of the reference pictures each term fits less well.

        Args:
            rows: (n,) terms.
            scores: (n,) one cosine for each of them.

        Returns:
            (n,) float64 in (0, 1), strictly increasing in the score of a term.
        """
        values = np.asarray(scores, dtype=np.float64)
        table = self.quantiles[:, rows].astype(np.float64)  # (L, n)
        above = (table <= values).sum(axis=0)  # (n,) how many of the table's values each score reaches
        last = len(self.levels) - 1
        low, high = np.clip(above - 1, 0, last), np.clip(above, 0, last)
        at = np.arange(len(rows))
        floor, ceiling = table[low, at], table[high, at]
        width = np.where(ceiling > floor, ceiling - floor, 1.0)
        inside = self.levels[low] + (values - floor) / width * (self.levels[high] - self.levels[low])
        lower = self.levels[0] * _survival((table[0] - values) / self.scales[0, rows])
        upper = 1 - (1 - self.levels[-1]) * _survival((values - table[-1]) / self.scales[1, rows])
        result: NDArray[np.float64] = np.where(above == 0, lower, np.where(above > last, upper, inside))
        return result

    def thresholds(self, rows: NDArray[np.intp], percentile: float) -> NDArray[np.float64]:
        """(n,) the cosine at which each term reaches a percentile in [0, 1]: the inverse of `percentiles`."""
        if not 0 < percentile < 1:
            return np.full(len(rows), -np.inf if percentile <= 0 else np.inf)
        above = int(np.searchsorted(self.levels, percentile, side="right"))
        if above == 0:
            excess = _excess(percentile / self.levels[0])
            return np.asarray(self.quantiles[0, rows] - excess * self.scales[0, rows].astype(np.float64))
        floor = self.quantiles[above - 1, rows].astype(np.float64)
        if above == len(self.levels):
            return np.asarray(floor + _excess((1 - percentile) / (1 - self.levels[-1])) * self.scales[1, rows])
        low, high = self.levels[above - 1], self.levels[above]
        return np.asarray(floor + (percentile - low) / (high - low) * (self.quantiles[above, rows] - floor))

    def likeliest(self, scores: NDArray[np.float32], rows: NDArray[np.intp], k: int, error: float) -> NDArray[np.intp]:
        """The columns that may have the k highest percentiles, rising, without computing all of them.

        A score that reaches a term's value at some level has at least that percentile, so from the top level down the
        first level that k terms reach bounds the k-th best.

        Args:
            scores: (n,) cosines; minus infinity hides a column.
            rows: (n,) the terms that they are of, rising.
            k: at least 1.
            error: how far the scores may be from the exact cosines.
        """
        tables = self.quantiles[:, rows[0] : rows[-1] + 1] if _run(rows) else self.quantiles[:, rows]
        if k < len(rows):
            for values in tables[::-1]:
                if np.count_nonzero(scores >= values + error) >= k:
                    return np.flatnonzero(scores >= values - error)
        return np.flatnonzero(scores > -np.inf)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of a file, by name."""
        names = ("levels", "quantiles", "scales", "reference")
        return {name: np.ascontiguousarray(getattr(self, name)) for name in names}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Calibration:
        """The calibration that `to_arrays` gave.

        Raises:
            LibraryError: an array is missing, or they do not agree.
        """
        missing = [name for name in ("levels", "quantiles", "scales", "reference") if name not in arrays]
        if missing:
            raise LibraryError(f"the calibration has no {missing[0]!r}: make it again")
        levels = np.asarray(arrays["levels"], dtype=np.float64)
        tables = (np.asarray(arrays[name], dtype=np.float32) for name in ("quantiles", "scales", "reference"))
        return cls(levels, *tables)

    def _check(self) -> None:
        levels, terms = len(self.levels), self.quantiles.shape[-1]
        shapes = (self.levels.ndim, self.quantiles.shape, self.scales.shape, self.reference.ndim)
        if shapes != (1, (levels, terms), (2, terms), 2):
            raise LibraryError(f"the calibration's arrays do not agree (shapes {shapes}): make it again")
        rising = bool((np.diff(self.levels) > 0).all()) and self.levels.min(initial=1.0) > 0
        sound = rising and self.levels.max(initial=0.0) < 1 and bool((self.scales > 0).all())
        if not levels or not sound or not bool((np.diff(self.quantiles, axis=0) >= 0).all()):
            raise LibraryError("the calibration's values are not in order: make it again")


def _table_ranks(size: int) -> NDArray[np.intp]:
    """Which order statistics of `size` values the table keeps: rising ranks from 1 to `size`."""
    steps = [float(step) for step in range(_DENSE)]
    while steps[-1] * _RATIO < size / 2:
        steps.append(steps[-1] * _RATIO)
    ranks = [size - round(step) for step in steps] + [round(size * share) for share in _LOWER] + [1]
    return np.array(sorted({min(max(rank, 1), size) for rank in ranks}), dtype=np.intp)


def _tail_scales(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2, B) scales of the lower and the upper tail of (B, R) sorted cosines; a mean excess is scale / (1 - shape)."""
    size = cosines.shape[1]
    outer = min(max(1, round(size * _TAIL)), size - 1)
    lower = (cosines[:, outer, None] - cosines[:, :outer]).mean(axis=1)
    upper = (cosines[:, -outer:] - cosines[:, -outer - 1, None]).mean(axis=1)
    scales: NDArray[np.float32] = np.maximum(np.stack([lower, upper]) * (1 - _SHAPE), np.float32(_LEAST_SCALE))
    return scales


def _survival(excess: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of a generalised Pareto tail of scale 1 beyond an excess; 1 where that is negative."""
    share: NDArray[np.float64] = (1 + _SHAPE * np.maximum(excess, 0)) ** (-1 / _SHAPE)
    return share


def _excess(share: float) -> float:
    """The excess beyond which a share of a tail lies: the inverse of `_survival`."""
    return float((share**-_SHAPE - 1) / _SHAPE)


def _run(rows: NDArray[np.intp]) -> bool:
    return int(rows[-1] - rows[0]) + 1 == len(rows)
