"""The fragments that a chain is searched in, and the chain as a candidate with its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unprompt.search.chain import Chain, Pool
from unprompt.search.modes.common import ComposeInput, source_of
from unprompt.search.surrogate import expected_scores
from unprompt.search.words import plain_words
from unprompt.types import Candidate, Part

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary


@dataclass(frozen=True)
class VocabularyPool:
    """A pool, and the vocabulary's rows (n,) that it was made of."""

    rows: NDArray[np.intp]
    pool: Pool


def promising_pools(task: ComposeInput, starts: Sequence[Part | None], size: int) -> list[VocabularyPool]:
    """For each picture the `size` allowed terms that promise most beside its start, by the search's own prediction.

    Negative kinds, blank terms and repeated ones are left out; and, where the ranker collapses near-duplicates, all but
    one of those with the same words.
    """
    from unprompt.search.ranker import is_negative

    vocabulary = task.ranker.vocabulary
    if not len(vocabulary.terms):
        return [_pool(vocabulary, [], query) for query in task.queries]
    scores = task.ranker.scores(task.queries)  # (Q, T)
    allowed = task.ranker.allowed.copy()
    for kind, (first, stop) in vocabulary.kind_ranges.items():
        if is_negative(kind):
            allowed[first:stop] = False
    known = _embedded_starts(task, starts)
    pools = []
    for query, row, start in zip(task.queries, scores, known, strict=True):
        if start is not None:
            row = expected_scores(vocabulary.matrix, row, start, float(start @ query)).astype(np.float32)
        key = plain_words if task.ranker.options.collapse is not None else str.strip
        rows = distinct_rows(vocabulary.terms, row, allowed, size, key)
        pools.append(_pool(vocabulary, rows, query))
    return pools


def pool_of(vocabulary: Vocabulary, rows: Iterable[int], query: NDArray[np.float32]) -> VocabularyPool:
    """The pool of given rows, the first of those with the same words, in rising order."""
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(plain_words(vocabulary.terms[row]), row)
    return _pool(vocabulary, sorted(row for words, row in first.items() if words), query)


def distinct_rows(
    terms: Sequence[str],
    values: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    size: int,
    key: Callable[[str], str] = plain_words,
) -> list[int]:
    """Rows of the `size` greatest values that are allowed, have words, and a key of their own, in rising order."""
    values = np.where(allowed, values, -np.inf)
    first: dict[str, int] = {}
    depth = size
    while len(first) < size:
        depth = min(2 * depth, len(values))
        candidates = np.argpartition(-values, depth - 1)[:depth] if depth < len(values) else np.arange(len(values))
        candidates = candidates[np.lexsort((candidates, -values[candidates]))]
        first = {}
        for row in candidates.tolist():
            if len(first) < size and values[row] > -np.inf and plain_words(terms[row]):
                first.setdefault(key(terms[row]), row)
        if depth == len(values):
            break
    return sorted(first.values())


def chain_candidate(start: Part | None, chain: Chain, pool: VocabularyPool, vocabulary: Vocabulary) -> Candidate:
    """A chain with the evidence for each of its parts."""
    parts = [Part(start.text, start.source, start.kind, chain.gains[0], chain.gains[0])] if start else []
    for column, gain in zip(chain.columns, chain.gains[1:], strict=True):
        fragment = vocabulary.fragment(int(pool.rows[column]))
        score = float(pool.pool.scores[column])
        parts.append(Part(pool.pool.texts[column], source_of(fragment), fragment.kind, score, gain))
    return Candidate(chain.text, chain.score, tuple(parts))


def _pool(vocabulary: Vocabulary, rows: Sequence[int], query: NDArray[np.float32]) -> VocabularyPool:
    kept = np.array(rows, dtype=np.intp)
    embeddings = vocabulary.matrix[kept]  # (n, D)
    texts = [vocabulary.terms[row] for row in rows]
    kinds = [vocabulary.fragment(row).kind for row in rows]
    return VocabularyPool(kept, Pool(texts, kinds, embeddings, embeddings @ query))


def _embedded_starts(task: ComposeInput, starts: Sequence[Part | None]) -> list[NDArray[np.float32] | None]:
    texts = list(dict.fromkeys(start.text for start in starts if start))
    rows = dict(zip(texts, task.encode_texts(texts), strict=True)) if texts else {}
    return [rows[start.text] if start else None for start in starts]
