"""The terms of a vocabulary as a search for a chain sees them, and the most promising ones of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unprompt.search.words import plain_words
from unprompt.types import Embeddings


@dataclass(frozen=True)
class Terms:
    """All T terms of a vocabulary, and what a query makes of them.

    Attributes:
        texts: as they stand in a prompt.
        embeddings: (T, D), the vocabulary's own matrix.
        scores: (T,) their cosines with the query.
        allowed: (T,) False for those that no chain may take.
        key: terms of one key are the same term to the search.
    """

    texts: Sequence[str]
    embeddings: Embeddings
    scores: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    key: Callable[[str], str] = plain_words

    def best(self, values: NDArray[np.floating], size: int) -> list[int]:
        """Rows of the `size` greatest values of allowed terms with words and a key of their own, in rising order."""
        values = np.where(self.allowed, values, -np.inf)
        first: dict[str, int] = {}
        depth = size
        while len(first) < size:
            depth = min(2 * depth, len(values))
            candidates = np.argpartition(-values, depth - 1)[:depth] if depth < len(values) else np.arange(len(values))
            candidates = candidates[np.lexsort((candidates, -values[candidates]))]
            first = {}
            for row in candidates.tolist():
                if len(first) == size or values[row] == -np.inf:
                    break
                if key := self.key(self.texts[row]):
                    first.setdefault(key, row)
            if depth == len(values):
                break
        return sorted(first.values())
