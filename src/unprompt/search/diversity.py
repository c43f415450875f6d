"""Lists that do not say the same thing twice: near-duplicates collapsed, and maximal marginal relevance."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unprompt.search.topk import cosines
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary

_WORD = re.compile(r"[^\W_]+")
_ARTICLES = frozenset({"a", "an", "the"})
_SINGULAR_S = ("ss", "us", "is", "os")


def same_words_key(text: str) -> str:
    """A key that texts share when they differ only in case, punctuation, accents, articles and plural s.

    Example:
        >>> same_words_key("The Oil-Paintings"), same_words_key("oil painting")
        ('oil painting', 'oil painting')
    """
    plain = text.casefold().replace("'", "").replace("’", "")
    if not plain.isascii():
        plain = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    words = [word for word in _WORD.findall(plain) if word not in _ARTICLES]
    # A text of articles or punctuation alone is only the same as itself.
    return " ".join(_singular(word) for word in words) or text.casefold()


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(_SINGULAR_S):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("shes", "ches", "xes", "sses")) else word[:-1]


class Collapse:
    """Leaves of near-duplicates the one that is ranked best.

    Two terms are near-duplicates when they have the same words (`same_words_key`), render the same fragment, or have
    embeddings of a cosine of at least `limit`. Each term is compared with those kept before it, not with those left
    out, so chains of likeness do not run away.

    Args:
        vocabulary: whose terms are ranked.
        limit: in (0, 1].
    """

    def __init__(self, vocabulary: Vocabulary, limit: float) -> None:
        self._vocabulary = vocabulary
        self._limit = limit
        self._keys: dict[int, str] = {}

    def keep(self, rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
        """Positions in `rows` (terms, best first) of those to keep, rising, `most` of them at most."""
        embeddings = self._vocabulary.matrix[rows]  # (n, D)
        fragments = self._vocabulary.fragment_rows[rows].tolist()
        near = np.zeros(len(rows), dtype=bool)
        seen: set[str | int] = set()
        kept: list[int] = []
        for position, (row, fragment) in enumerate(zip(rows.tolist(), fragments, strict=True)):
            marks = (fragment, self._key(row))
            if near[position] or not seen.isdisjoint(marks):
                continue
            seen.update(marks)
            kept.append(position)
            if len(kept) == most:
                break
            below = slice(position + 1, None)
            near[below] |= cosines(embeddings[below], embeddings[position]) >= self._limit
        return np.array(kept, dtype=np.intp)

    def _key(self, row: int) -> str:
        key = self._keys.get(row)
        if key is None:
            key = self._keys[row] = same_words_key(self._vocabulary.terms[row])
        return key


def mmr(relevance: NDArray[np.floating[Any]], embeddings: Embeddings, k: int, weight: float) -> NDArray[np.intp]:
    """Maximal marginal relevance: Carbonell & Goldstein, "The use of MMR, diversity-based reranking", SIGIR 1998.

    Chooses one after another the item with the largest ``weight * relevance - (1 - weight) * max cosine with the
    chosen``; the first is the most relevant one. Equals go by position.

    Args:
        relevance: (n,) cosines with the query.
        embeddings: (n, D), L2-normalised.
        k: how many, at least 1.
        weight: lambda in [0, 1]; 1 is relevance alone.

    Returns:
        Positions, min(k, n) of them, in the order in which they were chosen.
    """
    count = min(k, len(relevance))
    wanted = weight * relevance.astype(np.float64)
    redundancy = np.full(len(relevance), -np.inf)
    left = np.ones(len(relevance), dtype=bool)
    chosen: list[int] = []
    for _ in range(count):
        gain = relevance.astype(np.float64) if not chosen else wanted - (1 - weight) * redundancy
        best = int(np.where(left, gain, -np.inf).argmax())
        chosen.append(best)
        left[best] = False
        redundancy = np.maximum(redundancy, cosines(embeddings, embeddings[best]))
    return np.array(chosen, dtype=np.intp)
