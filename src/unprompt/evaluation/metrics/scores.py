"""What every metric returns, and the checks that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unprompt.errors import EvaluationError as EvaluationError

Combine = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""(B, S) summed statistics of B corpora -> (B,) values."""


@dataclass(frozen=True, slots=True, eq=False)
class Additive:
    """What a corpus value is computed from: statistics that add up over items.

    Attributes:
        rows: (N, S) float64, one row an item.
        combine: turns their sums into the value, for many corpora at once.
    """

    rows: NDArray[np.float64]
    combine: Combine


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """A metric's verdict on N candidates; higher is better unless the metric says otherwise.

    Attributes:
        name: the metric, and the model or program where it has a choice of them.
        values: (N,) float64, NaN for an item on which the metric says nothing; None for a metric of whole corpora.
        corpus: the value of all items together: the mean of those that are no NaN, or the corpus metric.
        note: how it was computed, as printed below a table: tokenisation, model, range.
        sums: what a corpus metric is computed from; None where it is the mean.
    """

    name: str
    values: NDArray[np.float64] | None
    corpus: float
    note: str = ""
    sums: Additive | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.additive.rows)

    @property
    def additive(self) -> Additive:
        """Statistics an item whose sums give the corpus value: what a bootstrap resamples."""
        if self.sums is not None:
            return self.sums
        assert self.values is not None
        defined = ~np.isnan(self.values)
        return Additive(np.stack([np.where(defined, self.values, 0.0), defined], axis=1), _ratio)

    def take(self, rows: ArrayLike) -> Scores:
        """The scores of some items alone, for a breakdown. Takes positions or an (N,) mask."""
        chosen = np.asarray(rows)
        whole = self.additive
        part = Additive(whole.rows[chosen], whole.combine)
        values = None if self.values is None else self.values[chosen]
        corpus = float(part.combine(part.rows.sum(axis=0, keepdims=True))[0])
        return Scores(self.name, values, corpus, self.note, None if self.sums is None else part)


def mean_scores(name: str, values: ArrayLike, note: str = "") -> Scores:
    """Scores of a metric that is a mean over items, NaN left out."""
    array = np.array(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    return Scores(name, array, float(defined.mean()) if defined.size else float("nan"), note)


def corpus_scores(name: str, rows: ArrayLike, combine: Combine, note: str = "") -> Scores:
    """Scores of a metric of whole corpora, from (N, S) statistics that add up."""
    sums = Additive(np.array(rows, dtype=np.float64), combine)
    return Scores(name, None, float(combine(sums.rows.sum(axis=0, keepdims=True))[0]), note, sums)


def check_pairs(name: str, candidates: Sized, references: Sized) -> None:
    """Raises EvaluationError unless there is one reference a candidate, and one pair at least."""
    if len(candidates) != len(references):
        raise EvaluationError(
            f"{name}: {len(candidates)} candidates and {len(references)} references: give one reference a candidate"
        )
    if not len(candidates):
        raise EvaluationError(f"{name}: nothing to score: give one candidate and its reference at least")


def require(metric: str, module: str, package: str) -> Any:
    """Imports a library that comes with the ``evaluation`` extra.

    Raises:
        EvaluationError: it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise EvaluationError(f"{metric} needs {package}: pip install 'unprompt[evaluation]'") from None


def each_once(
    candidates: Sequence[str], references: Sequence[str], score: Callable[[list[tuple[str, str]]], Sequence[float]]
) -> NDArray[np.float64]:
    """Scores every distinct (candidate, reference) pair once, in sorted order: (N,) float64 in the order given.

    Pairs with an empty side are 0 and are not handed to `score`: programs made for sentences fail on them.
    """
    pairs = list(zip(candidates, references, strict=True))
    distinct = sorted({pair for pair in pairs if pair[0].strip() and pair[1].strip()})
    scored = dict(zip(distinct, score(distinct), strict=True)) if distinct else {}
    return np.array([scored.get(pair, 0.0) for pair in pairs], dtype=np.float64)


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    count = sums[:, 1]
    values = np.full(len(sums), np.nan)
    np.divide(sums[:, 0], count, out=values, where=count > 0)
    return values
