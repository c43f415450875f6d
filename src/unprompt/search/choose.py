"""From a block of scores to the terms that an answer holds: order, thresholds, near-duplicates, diversity."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unprompt.search.diversity import Collapse, mmr
from unprompt.search.rank_options import RankOptions
from unprompt.search.scores import Scores
from unprompt.search.topk import Error, best_first, rescore, survivors
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary

HEAD = 4
"""MMR chooses its k among this many times k best ..."""

MOST = 2048
"""... and among so many at most: it compares them with one another. What is ranked below them follows as it is."""

GROWTH = 4
"""How much longer the list gets that is looked through when thresholds and near-duplicates left fewer than k."""

Ranking = tuple[NDArray[np.intp], NDArray[np.float32]]
"""(n,) rows of the vocabulary, best first, and their cosines."""


class Chooser:
    """Chooses each query's k best terms from rough scores, as if it had sorted all exact ones.

    Args:
        vocabulary: whose terms the scores are of.
        options: order, thresholds, collapse and diversity; what they allow is for the caller to hide.
        lowest: the scores are negated, and the least similar are wanted: by cosine, and without thresholds.
    """

    def __init__(self, vocabulary: Vocabulary, options: RankOptions, lowest: bool = False) -> None:
        self._matrix = vocabulary.matrix
        self._vocabulary = vocabulary
        self._calibration = vocabulary.calibration
        self._options = options
        self._sign = -1 if lowest else 1
        self._by_percentile = options.order == "percentile" and not lowest
        self._min_score = None if lowest else options.min_score
        self._min_percentile = None if lowest else options.min_percentile

    def choose(
        self, queries: Embeddings, scores: Scores, rows: NDArray[np.intp], k: int, error: Error
    ) -> list[Ranking]:
        """Ranks the terms in `rows` for each query.

        Args:
            queries: (Q, D).
            scores: of the terms in `rows`, n of them, for Q queries; minus infinity where one is hidden; changed.
            rows: (n,) which terms these are, rising.
            k: at least 1.
            error: how far the scores may be from the exact cosines.
        """
        if not len(rows):
            return [(rows, np.zeros(0, np.float32)) for _ in queries]
        scores = self._hide_improbable(scores, rows, error)
        depth = k if self._options.diversity is None else max(k, min(HEAD * k, MOST))
        wanted = depth if self._options.collapse is None else 2 * depth
        columns = self._candidates(scores, rows, wanted, error)
        found = []
        for i, candidates in enumerate(columns):
            head = self._head(queries[i], partial(scores.of, i), rows, candidates, depth, wanted, error)
            found.append(self._spread(head, k))
        return found

    def _head(
        self,
        query: NDArray[np.float32],
        scores: Callable[[], Scores],
        rows: NDArray[np.intp],
        candidates: NDArray[np.intp],
        depth: int,
        wanted: int,
        error: Error,
    ) -> Ranking:
        """The `depth` best terms that pass thresholds and collapse; looks further down while they are too few."""
        while True:
            ranked, cosines, last = self._ordered(query, rows[candidates], wanted)
            if self._options.collapse is not None:
                kept = self._collapse.keep(ranked, depth)
                ranked, cosines = ranked[kept], cosines[kept]
            if len(ranked) >= depth or last or wanted >= len(rows):
                return ranked[:depth], cosines[:depth]
            wanted *= GROWTH
            candidates = self._candidates(scores(), rows, wanted, error)[0]

    def _ordered(
        self, query: NDArray[np.float32], rows: NDArray[np.intp], wanted: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float32], bool]:
        """The `wanted` best of `rows` with exact cosines, those below a threshold left out, and whether that is all.

        It is all when fewer were there, or when the least score cut some off: none further down can pass it.
        """
        cosines = rescore(query, self._matrix, rows)
        keys = self._percentiles(rows, cosines) if self._by_percentile else self._sign * cosines
        order = best_first(keys, rows)[:wanted]
        exhausted = len(rows) < wanted
        rows, cosines = rows[order], cosines[order]
        if self._min_score is None and self._min_percentile is None:
            return rows, cosines, exhausted
        passing = np.ones(len(rows), dtype=bool)
        if self._min_score is not None:
            passing &= cosines >= np.float32(self._min_score)
            exhausted |= not self._by_percentile and not passing.all()
        if self._min_percentile is not None:
            passing &= self._percentiles(rows, cosines) >= self._min_percentile
        return rows[passing], cosines[passing], exhausted

    def _spread(self, head: Ranking, k: int) -> Ranking:
        rows, cosines = head
        if self._options.diversity is None or len(rows) < 2:
            return rows[:k], cosines[:k]
        chosen = mmr(self._sign * cosines[:MOST], self._matrix[rows[:MOST]], k, self._options.diversity)
        order = np.concatenate([chosen, np.arange(MOST, len(rows))])[:k]
        return rows[order], cosines[order]

    def _candidates(self, scores: Scores, rows: NDArray[np.intp], k: int, error: Error) -> list[NDArray[np.intp]]:
        """For each query the places in `rows` of the terms that may be among its k best."""
        if not self._by_percentile or self._calibration is None:
            return survivors(scores, k, error)
        return [self._calibration.likeliest(own, rows, k, error.most) for own in scores.by_query()]

    def _hide_improbable(self, scores: Scores, rows: NDArray[np.intp], error: Error) -> Scores:
        """Hides what is below the thresholds beyond the product's error; `_ordered` decides about the rest."""
        if self._min_percentile is not None and self._calibration is not None:
            scores = scores.to_float32()
            least = self._calibration.thresholds(rows, self._min_percentile).astype(np.float32) - 2 * error.most
            np.putmask(scores.values, scores.values < least[:, None], -np.inf)
        if self._min_score is not None and self._by_percentile:
            scores = scores.to_float32()
            np.putmask(scores.values, scores.values < np.float32(self._min_score - 2 * error.most), -np.inf)
        return scores

    def _percentiles(self, rows: NDArray[np.intp], cosines: NDArray[np.float32]) -> NDArray[np.float64]:
        assert self._calibration is not None  # FragmentRanker has refused options that need one
        return self._calibration.percentiles(rows, cosines)

    @cached_property
    def _collapse(self) -> Collapse:
        return Collapse(self._vocabulary, self._options.collapse or 1.0)
