"""Ground truth by exact search, and recall against it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unprompt.index.engine import load_faiss
from unprompt.index.training import Blocks
from unprompt.types import Embeddings

DEPTH = 100
_TIES = 28
"""How many rows beyond a query's k best are kept, for those that share the k-th score."""
_EQUAL = 1e-6
"""Two float32 cosines this near are equal."""
_NONE = -1


@dataclass(frozen=True)
class GroundTruth:
    """Queries and the rows that exact search finds for them.

    Attributes:
        queries: (Q, D).
        own: (Q,) the row that each query is a copy of, which is no answer to it; -1 where it is of no row.
        rows: (Q, n) by falling score, -1 where there are no more.
        scores: (Q, n) float32 cosines, minus infinity where there are no more.
    """

    queries: Embeddings
    own: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]

    def without_own(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Takes each query's own row out of the k+1 rows, (Q, k+1), that a search found; (Q, k)."""
        order = np.argsort(rows == self.own[:, None], axis=1, kind="stable")  # own rows last, all else as it was
        result: NDArray[np.int64] = np.take_along_axis(rows, order, axis=1)[:, :-1]
        return result

    def renumbered(self, numbers: NDArray[np.int64]) -> GroundTruth:
        """The same answers where row i is called `numbers[i]`."""
        own, rows = (np.where(old >= 0, numbers[old], _NONE) for old in (self.own, self.rows))
        return GroundTruth(self.queries, own, rows, self.scores)


def ground_truth(blocks: Blocks, queries: Embeddings, own: NDArray[np.int64] | None = None) -> GroundTruth:
    """Searches all rows for each of (Q, D) queries exactly, a block at a time; `own` is that of `GroundTruth`."""
    faiss = load_faiss()
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    own = np.full(len(queries), _NONE, dtype=np.int64) if own is None else own
    depth = DEPTH + _TIES
    rows = np.full((len(queries), depth), _NONE, dtype=np.int64)
    scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
    start = 0
    for block in blocks():
        found, at = faiss.knn(queries, block, min(depth + 1, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        at = np.where(at >= 0, at + start, _NONE)
        found = np.where((at == own[:, None]) | (at < 0), -np.inf, found)
        rows, scores = _best(np.concatenate([rows, at], axis=1), np.concatenate([scores, found], axis=1), depth)
        start += len(block)
    return GroundTruth(queries, own, np.where(np.isfinite(scores), rows, _NONE), scores)


def recall(found: NDArray[np.int64], truth: GroundTruth, k: int) -> float:
    """The share of the k best rows that a search found, in [0, 1]; it may find any of several that tie for the k-th.

    Args:
        found: (Q, k or more) rows by falling score, -1 where there are none, without the queries' own.
        truth: exact search for the same queries.
        k: at most `DEPTH`.
    """
    last = truth.scores[:, k - 1, None]
    good = (truth.rows >= 0) & (truth.scores >= np.where(np.isfinite(last), last - _EQUAL, -np.inf))
    hits = sum(
        int(np.isin(mine[:k], right[valid]).sum()) for mine, right, valid in zip(found, truth.rows, good, strict=True)
    )
    return hits / max(1, int(np.isfinite(truth.scores[:, :k]).sum()))


def _best(
    rows: NDArray[np.int64], scores: NDArray[np.float32], depth: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
