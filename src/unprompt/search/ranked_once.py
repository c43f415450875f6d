"""Ranking a vocabulary once for a search, though several steps of it ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unprompt.search.results import ScoredFragment
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.search.ranker import FragmentRanker


class RankedOnce:
    """A `FragmentRanker` for one search, which remembers what it has ranked by kind.

    The fragments that are shown are also what prompts are composed of, and the default answer composes from each
    picture three times. A query's ranking does not depend on those beside it, nor a term's place on how many are
    wanted, unless they are to differ (`RankOptions.diversity`). So the answers are the same.

    Args:
        ranker: what ranks.
        depth: how many terms of each kind will be asked for, where that is known: fewer come from the same ranking.
        merged: how many of the best terms of all kinds together will be asked for as well, 0 for none: they are found
            with the same product.
    """

    def __init__(self, ranker: FragmentRanker, depth: int = 1, merged: int = 0) -> None:
        self._ranker = ranker
        self._depth = depth if ranker.options.diversity is None else 1
        self._ahead = merged
        self._known: dict[tuple[bytes, int], dict[str, list[ScoredFragment]]] = {}
        self._merged: dict[bytes, list[ScoredFragment]] = {}

    def __getattr__(self, name: str) -> Any:
        """All else is the ranker's own."""
        return getattr(self._ranker, name)

    def per_kind(self, queries: Embeddings, k: int) -> list[dict[str, list[ScoredFragment]]]:
        """See `FragmentRanker.per_kind`."""
        depth = max(k, self._depth)
        keys = [(query.tobytes(), depth) for query in queries]
        new = {key: query for key, query in zip(keys, queries, strict=True) if key not in self._known}
        if new:
            self._known |= zip(new, self._rank(np.stack(list(new.values())), depth), strict=True)
        return [{kind: found[:k] for kind, found in self._known[key].items()} for key in keys]

    def merged(self, queries: Embeddings, k: int, kinds: Sequence[str] | None = None) -> list[list[ScoredFragment]]:
        """See `FragmentRanker.merged`."""
        keys = [query.tobytes() for query in queries]
        if kinds is None and k == self._ahead and all(key in self._merged for key in keys):
            return [list(self._merged[key]) for key in keys]
        return self._ranker.merged(queries, k, kinds)

    def _rank(self, queries: Embeddings, k: int) -> list[dict[str, list[ScoredFragment]]]:
        if not self._ahead:
            return self._ranker.per_kind(queries, k)
        found, merged = self._ranker.per_kind_and_merged(queries, k, self._ahead)
        self._merged |= zip((query.tobytes() for query in queries), merged, strict=True)
        return found
