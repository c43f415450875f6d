"""The terms of a vocabulary as a search for a chain sees them, and the most promising ones of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unprompt.search.effects import term_effects
from unprompt.search.words import plain_words
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.search.extension_table import ExtensionTable


@dataclass(frozen=True)
class Terms:
    """All T terms of a vocabulary, and what a query makes of them.

    Attributes:
        texts: as they stand in a prompt.
        embeddings: (T, D), the vocabulary's own matrix.
        effects: (T, F) float32, see `unprompt.search.effects`.
        lengths: (T,) float32, the texts' in characters.
        scores: (T,) their cosines with the query.
        allowed: (T,) False for those that no chain may take.
        key: terms of one key are the same term to the search.
        extensions: predicts what appending them does; None where no network knows the encoder.
    """

    texts: Sequence[str]
    embeddings: Embeddings
    effects: Embeddings
    lengths: NDArray[np.float32]
    scores: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    key: Callable[[str], str] = plain_words
    extensions: ExtensionTable | None = None

    @classmethod
    def of(
        cls, texts: Sequence[str], embeddings: Embeddings, scores: NDArray[np.float32], allowed: NDArray[np.bool_]
    ) -> Terms:
        """Terms of which nothing is known but their embeddings: effects are made of these, lengths measured."""
        lengths = np.array([len(text) for text in texts], dtype=np.float32)
        return cls(texts, embeddings, term_effects(embeddings), lengths, scores, allowed)

    def best(self, values: NDArray[np.floating], size: int) -> list[int]:
        """Rows of the `size` greatest values of allowed terms with words and a key of their own, in rising order."""
        values = np.where(self.allowed, values, -np.inf)
        depth = size + size // 4  # few terms have the key of another
        while True:
            rows = self._distinct(largest(values, depth), size)
            if len(rows) == size or depth >= len(values):
                return sorted(rows)
            depth *= 2

    def _distinct(self, order: NDArray[np.intp], size: int) -> list[int]:
        """The first `size` of some rows that have a key, each one of its own."""
        first: dict[str, int] = {}
        for row in order.tolist():
            if len(first) == size:
                break
            if key := self.key(self.texts[row]):
                first.setdefault(key, row)
        return list(first.values())


def largest(values: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """Positions of the `count` greatest finite values (n,), greatest first, equal ones in rising order."""
    positions = np.arange(len(values))
    if count < len(values):
        least = np.partition(values, len(values) - count)[len(values) - count]
        positions = np.flatnonzero(values >= least)
    positions = positions[values[positions] > -np.inf]
    order: NDArray[np.intp] = positions[np.argsort(-values[positions], kind="stable")][:count]
    return order
