"""From what FAISS gives to rows with their cosines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.index.vector_index import VectorIndex

Hits = list[list[tuple[int, float]]]
"""For each query (row, cosine), best first, equal ones by row."""


def search_rows(index: VectorIndex | None, queries: Embeddings, k: int) -> Hits:
    """Searches one index with (Q, D) queries for up to k (row, cosine) each, best first, equal ones by row.

    A missing or empty index finds nothing.
    """
    if index is None or not len(index) or not len(queries):
        return [[] for _ in queries]
    return hits_of(*index.search(queries, min(k, len(index))))


def hits_of(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> Hits:
    """Hits from (Q, k) scores and rows."""
    found = []
    for query_scores, query_rows in zip(scores, rows, strict=True):
        order = np.lexsort((query_rows, -query_scores))
        # FAISS pads short results with row -1; half-precision rows have norms, and so cosines, a little above 1.
        order = order[query_rows[order] >= 0]
        cosines = query_scores[order].clip(-1.0, 1.0)
        found.append(list(zip(query_rows[order].tolist(), cosines.tolist(), strict=True)))
    return found
