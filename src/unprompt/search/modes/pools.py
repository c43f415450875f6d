"""The fragments that a chain is searched in, and the chain as a candidate with its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unprompt.search.chain import Pool
from unprompt.search.chains import Chain
from unprompt.search.effects import effects_of
from unprompt.search.modes.common import ComposeInput, source_of
from unprompt.search.modes.wording import is_scrap, reads_on
from unprompt.search.terms import Terms
from unprompt.search.words import plain_words
from unprompt.types import Candidate, Part

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary


@dataclass(frozen=True)
class VocabularyPool:
    """A pool, and the vocabulary's rows (n,) that it was made of."""

    rows: NDArray[np.intp]
    pool: Pool


def open_terms(task: ComposeInput) -> list[Terms]:
    """For each picture all allowed terms of the vocabulary but repeated and blank ones and those of negative kinds.

    Where the ranker collapses near-duplicates, terms with the same words count as one, and scraps of prompts are left
    out as well.
    """
    from unprompt.search.extension_table import table_of
    from unprompt.search.ranker import is_negative

    vocabulary = task.ranker.vocabulary
    if not len(vocabulary.terms):
        return [Terms.of([], vocabulary.matrix, np.zeros(0, np.float32), np.zeros(0, bool)) for _ in task.queries]
    allowed = task.ranker.allowed.copy()
    for kind, (first, stop) in vocabulary.kind_ranges.items():
        if is_negative(kind):
            allowed[first:stop] = False
    allowed = _distinct(vocabulary.terms, allowed)
    key: Callable[[str], str] = str.strip
    if reads_on(task):
        key = plain_words
        allowed &= ~_scraps(vocabulary)
    contexts = cache(task.contexts)  # both want them the first time, and 112,000 are 86 MB
    effects = effects_of(vocabulary, contexts)
    table = table_of(vocabulary, contexts, task.encode_texts)
    return [
        Terms(vocabulary.terms, vocabulary.matrix, effects, vocabulary.lengths, row, allowed, key, table)
        for row in task.ranker.scores(task.queries)
    ]


def _scraps(vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """(T,) which terms are scraps; names of artists stand as they were listed."""
    scraps = np.array([is_scrap(text) for text in vocabulary.terms], dtype=bool)
    first, stop = vocabulary.kind_ranges.get("artist", (0, 0))
    scraps[first:stop] = False
    return scraps


def _distinct(terms: Sequence[str], allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those of the allowed terms that have a letter or digit, and only the first of equal ones."""
    first: dict[str, int] = {}
    for row in np.flatnonzero(allowed).tolist():
        first.setdefault(terms[row].strip(), row)
    kept = np.zeros(len(allowed), dtype=bool)
    kept[[row for text, row in first.items() if any(map(str.isalnum, text))]] = True
    return kept


def pool_of(vocabulary: Vocabulary, rows: Iterable[int], query: NDArray[np.float32]) -> VocabularyPool:
    """The pool of given rows, the first of those with the same words, in rising order."""
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(plain_words(vocabulary.terms[row]), row)
    return _pool(vocabulary, sorted(row for words, row in first.items() if words), query)


def chain_candidate(start: Part | None, chain: Chain, pool: VocabularyPool, vocabulary: Vocabulary) -> Candidate:
    """A chain of a pool's fragments with the evidence for each of its parts."""
    columns = list(chain.columns)
    return term_candidate(start, chain, pool.rows[columns].tolist(), pool.pool.scores[columns].tolist(), vocabulary)


def term_candidate(
    start: Part | None, chain: Chain, rows: Sequence[int], scores: Sequence[float], vocabulary: Vocabulary
) -> Candidate:
    """A chain with the evidence for each of its parts: the vocabulary's rows of its fragments, and their cosines."""
    parts = [Part(start.text, start.source, start.kind, chain.gains[0], chain.gains[0])] if start else []
    for row, score, gain in zip(rows, scores, chain.gains[1:], strict=True):
        fragment = vocabulary.fragment(row)
        parts.append(Part(vocabulary.terms[row], source_of(fragment), fragment.kind, score, gain))
    return Candidate(chain.text, chain.score, tuple(parts))


def _pool(vocabulary: Vocabulary, rows: Sequence[int], query: NDArray[np.float32]) -> VocabularyPool:
    kept = np.array(rows, dtype=np.intp)
    embeddings = vocabulary.matrix[kept]  # (n, D)
    texts = [vocabulary.terms[row] for row in rows]
    kinds = [vocabulary.fragment(row).kind for row in rows]
    return VocabularyPool(kept, Pool(texts, kinds, embeddings, embeddings @ query))
