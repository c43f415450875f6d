"""Ranking a vocabulary once for a search, though several steps of it ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unprompt.search.results import ScoredFragment
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.search.ranker import FragmentRanker


class RankedOnce:
    """A `FragmentRanker` for one search, which remembers what it has ranked by kind.

    The fragments that are shown are also what prompts are composed of, and the default answer composes from each
    picture twice. A query's ranking does not depend on those beside it, so the answers are the same.
    """

    def __init__(self, ranker: FragmentRanker) -> None:
        self._ranker = ranker
        self._known: dict[tuple[bytes, int], dict[str, list[ScoredFragment]]] = {}

    def __getattr__(self, name: str) -> Any:
        """All else is the ranker's own."""
        return getattr(self._ranker, name)

    def per_kind(self, queries: Embeddings, k: int) -> list[dict[str, list[ScoredFragment]]]:
        """See `FragmentRanker.per_kind`."""
        keys = [(query.tobytes(), k) for query in queries]
        new = {key: query for key, query in zip(keys, queries, strict=True) if key not in self._known}
        if new:
            self._known |= zip(new, self._ranker.per_kind(np.stack(list(new.values())), k), strict=True)
        return [dict(self._known[key]) for key in keys]
