"""Percentile bootstrap intervals (Efron, 1979) and paired tests between systems (Noreen, 1989; Koehn, 2004).

Items are resampled, not values: a corpus metric such as BLEU is computed anew from its items' summed statistics.
Pictures of one prompt are no independent draws; give them as one group and groups are resampled instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unprompt.evaluation.metrics.scores import Additive, EvaluationError, Scores

RESAMPLES = 1000
PERMUTATIONS = 10_000
_BLOCK = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A corpus value and its percentile interval, ``low <= high``; `level` is what it covers, such as 0.95."""

    value: float
    low: float
    high: float
    level: float
    resamples: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same items.

    Attributes:
        difference: the first system's corpus value minus the second's.
        interval: of the difference, from resampling the items of both at once.
        p: two-sided, from swapping the systems' answers item by item; in (0, 1], NaN when the difference is.
        permutations: how many swaps were drawn.
    """

    difference: float
    interval: Interval
    p: float
    permutations: int


def bootstrap(
    scores: Scores,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    groups: ArrayLike | None = None,
    rng: np.random.Generator | int = 0,
) -> Interval:
    """The percentile interval of a corpus value.

    Args:
        scores: of N items.
        resamples: how many corpora are drawn, 1 or more.
        level: in (0, 1).
        groups: (N,) labels of items that belong together; every item for itself by default.
        rng: a generator or its seed. One seed gives one result.

    Raises:
        EvaluationError: an argument is out of range or does not fit.
    """
    _check(resamples, level)
    whole = _grouped(scores, groups)
    drawn = np.concatenate([whole.combine(sums) for sums in _resampled(whole.rows, resamples, rng)])
    low, high = _percentiles(drawn, level)
    return Interval(scores.corpus, low, high, level, resamples)


def compare(
    first: Scores,
    second: Scores,
    *,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    level: float = 0.95,
    groups: ArrayLike | None = None,
    rng: np.random.Generator | int = 0,
) -> Comparison:
    """Compares two systems that answered the same N items in the same order.

    The p value is (1 + swaps at least as far apart) / (1 + permutations): the chance of such a difference if it did not
    matter which of the two systems gave which answer.

    Args:
        first: one metric's scores of one system.
        second: the same metric's scores of another.
        resamples: how many corpora are drawn for the interval, 1 or more.
        permutations: how many swaps are drawn for the p value, 1 or more.
        level: of the interval, in (0, 1).
        groups: (N,) labels of items that belong together, and are drawn and swapped together.
        rng: a generator or its seed. One seed gives one result.

    Raises:
        EvaluationError: the two are not of one metric and the same number of items, or an argument is out of range.
    """
    _check(resamples, level, permutations)
    if (first.name, len(first)) != (second.name, len(second)):
        raise EvaluationError(
            f"cannot compare {len(first)} of {first.name} with {len(second)} of {second.name}: score the same items"
        )
    a, b = _grouped(first, groups), _grouped(second, groups)
    generator = np.random.default_rng(rng)
    both, width = np.concatenate([a.rows, b.rows], axis=1), a.rows.shape[1]
    drawn = np.concatenate(
        [a.combine(sums[:, :width]) - b.combine(sums[:, width:]) for sums in _resampled(both, resamples, generator)]
    )
    difference = first.corpus - second.corpus
    low, high = _percentiles(drawn, level)
    interval = Interval(difference, low, high, level, resamples)
    return Comparison(difference, interval, _permuted_p(a, b, difference, permutations, generator), permutations)


def _permuted_p(a: Additive, b: Additive, difference: float, permutations: int, rng: np.random.Generator) -> float:
    if np.isnan(difference):
        return float("nan")
    gap = b.rows - a.rows  # (G, S)
    totals_a, totals_b = a.rows.sum(axis=0), b.rows.sum(axis=0)
    extreme, tolerance = 0, 1e-9 * max(1.0, abs(difference))
    for size in _sizes(permutations, gap.shape):
        # einsum without BLAS adds in one order, whatever the number of threads.
        moved = np.einsum("pg,gs->ps", rng.integers(0, 2, (size, len(gap))).astype(np.float64), gap)
        swapped = a.combine(totals_a + moved) - b.combine(totals_b - moved)
        extreme += int((np.abs(swapped) >= abs(difference) - tolerance).sum())
    return (1 + extreme) / (1 + permutations)


def _resampled(
    rows: NDArray[np.float64], resamples: int, rng: np.random.Generator | int
) -> Iterator[NDArray[np.float64]]:
    """Sums (b, S) of `resamples` draws of G rows out of G with replacement, a block at a time."""
    generator = np.random.default_rng(rng)
    for size in _sizes(resamples, rows.shape):
        yield rows[generator.integers(0, len(rows), (size, len(rows)))].sum(axis=1)


def _sizes(total: int, shape: tuple[int, ...]) -> Iterator[int]:
    step = max(1, _BLOCK // max(1, shape[0] * shape[1]))
    yield from (min(step, total - start) for start in range(0, total, step))


def _grouped(scores: Scores, groups: ArrayLike | None) -> Additive:
    """The statistics summed over each group."""
    whole = scores.additive
    if groups is None:
        return whole
    labels = np.asarray(groups)
    if labels.shape != (len(whole.rows),):
        raise EvaluationError(f"groups of shape {labels.shape} for {len(whole.rows)} items: give one label an item")
    place = np.unique(labels, return_inverse=True)[1]
    sums = np.zeros((int(place.max()) + 1, whole.rows.shape[1]))
    np.add.at(sums, place, whole.rows)
    return Additive(sums, whole.combine)


def _percentiles(drawn: NDArray[np.float64], level: float) -> tuple[float, float]:
    """The ends of the interval; corpora on which the metric says nothing are left out."""
    defined = drawn[~np.isnan(drawn)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check(resamples: int, level: float, permutations: int = 1) -> None:
    if resamples < 1 or permutations < 1:
        raise EvaluationError(f"{resamples} resamples and {permutations} permutations: use 1 or more of each")
    if not 0 < level < 1:
        raise EvaluationError(f"an interval of level {level}: use a share between 0 and 1, such as 0.95")
