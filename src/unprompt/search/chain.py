"""The search for the chain of fragments that brings a prompt nearest to a picture under a token budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from unprompt.search.chains import LEAST_GAIN, Chain, ChainScores, Columns, Fits
from unprompt.search.one_core import multiply
from unprompt.search.rounds import Search
from unprompt.search.weighted_mean import norms_of_means, relative_lengths
from unprompt.search.words import append, plain_words
from unprompt.types import Embeddings


@dataclass(frozen=True)
class ChainOptions:
    """How hard a chain is searched for, and what it pays for.

    Attributes:
        passes: how often the rest of the chain is foreseen, each time from the best prompt that was encoded. One that
            finds nothing better is the last.
        least: fragments that a pass lines up even where they are not foreseen to pay for themselves.
        tried: in each pass, the single extensions of that prompt which are encoded besides, those foreseen best.
        max_parts: the most fragments.
        part_cost: what each fragment must bring, in cosine.
        near_duplicate: fragments with at least this cosine to one that is there are not taken; above 1 for none.
        kind_limits: kind -> the most fragments of it; kinds that are not named have no limit.
    """

    passes: int = 2
    least: int = 2
    tried: int = 0
    max_parts: int = 32
    part_cost: float = 0.0
    near_duplicate: float = 2.0
    kind_limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Pool:
    """The n fragments that a chain may be made of.

    Attributes:
        texts: as they stand in a prompt.
        kinds: of the fragments.
        embeddings: (n, D).
        scores: (n,) their cosines with the query.
    """

    texts: Sequence[str]
    kinds: Sequence[str]
    embeddings: Embeddings
    scores: NDArray[np.float32]


def search_chain(
    query: NDArray[np.float32], start: str, pool: Pool, fits: Fits, options: ChainOptions | None = None
) -> Search[Chain]:
    """Searches for the chain from `start` whose prompt has the greatest cosine with the query.

    Each pass foresees a chain without encoding anything: the embedding of a prompt with a fragment appended is taken
    for the weighted mean of both (`unprompt.search.weighted_mean`), and the fragment that is best by that is appended
    as long as it should pay for itself, and twice at least (`ChainOptions.least`). Then all prompts on the way are
    encoded in one call, and the next pass begins at the best of them, without the fragment that followed it there. To
    minimise the cosine, search with the query negated.

    No fragment is taken twice, nor one whose words stand in the prompt already. Of equal fragments the pool's first
    is taken, so results depend on nothing else.

    Args:
        query: (D,).
        start: what the prompt begins with; may be empty. It is kept even when it does not fit the budget.
        pool: what to choose from.
        fits: the budget.
        options: see `ChainOptions`.

    Returns:
        The best chain; the start alone when nothing improves it; the best fragment at least when the start is empty
        and one fits.
    """
    options = options or ChainOptions()
    scores = ChainScores(query, start, pool.texts, lambda columns: options.part_cost * len(columns))
    foresight = _Foresight(pool, fits, options)
    best = Chain((), "", 0.0, -np.inf, None)
    if start:
        [best] = yield from scores.encode([()])
    else:
        for text, score, embedding in zip(pool.texts, pool.scores.round(6).tolist(), pool.embeddings, strict=True):
            scores.add(text, score, embedding)
    for _ in range(options.passes):
        whole = best.columns + foresight.rest(best)
        leading = [whole[:length] for length in range(len(best.columns) + 1, len(whole) + 1)]
        singly = [(*best.columns, column) for column in foresight.extensions(best)]
        found = yield from scores.encode(list(dict.fromkeys([*leading, *singly])))
        better = _best([best, *found])
        if better is best:
            break
        if better.columns in leading:
            foresight.bar(whole[len(better.columns) :][:1])
        best = better
    gains = yield from scores.gains(best)
    return replace(best, gains=gains)


def _best(chains: Sequence[Chain]) -> Chain:
    """The chain of the greatest value; a later one only when it is clearly better."""
    best = chains[0]
    for chain in chains[1:]:
        best = chain if chain.value > best.value + LEAST_GAIN else best
    return best


_Appended = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""(n,) each: fragments' weights beside a prompt (1), and norms and cosines of the two together."""


class _Foresight:
    """Which fragments of a pool should bring a prompt nearer, by the embeddings that are known."""

    def __init__(self, pool: Pool, fits: Fits, options: ChainOptions) -> None:
        self._pool = pool
        self._fits = fits
        self._options = options
        self._words = [plain_words(text) for text in pool.texts]
        self._lengths = np.array([len(text) for text in pool.texts], dtype=np.float32)
        self._scores = pool.scores.astype(np.float64)
        self._open = np.array([bool(words) for words in self._words], dtype=bool)

    def bar(self, columns: Columns) -> None:
        """Leaves out these fragments from now on."""
        self._open[list(columns)] = False

    def extensions(self, chain: Chain) -> list[int]:
        """The fragments that are to be tried after a chain, each alone."""
        if not self._options.tried or len(chain.columns) == self._options.max_parts:
            return []
        _, _, cosines = self._appended(chain.embedding, chain.score, len(chain.text))
        return list(islice(self._usable(cosines, chain.columns, chain.text), self._options.tried))

    def rest(self, chain: Chain) -> Columns:
        """The fragments that should be appended to a chain, which has an embedding but where it is empty."""
        columns, text, embedding, score, best = chain.columns, chain.text, chain.embedding, chain.score, chain.value
        while len(columns) < self._options.max_parts:
            weights, norms, cosines = self._appended(embedding, score, len(text))
            column = next(self._usable(cosines, columns, text), None)
            if column is None:
                break
            score = float(cosines[column])
            value = score - self._options.part_cost * (len(columns) + 1)
            if value < best and len(columns) >= len(chain.columns) + self._options.least:
                break
            columns, text, best = (*columns, column), append(text, self._pool.texts[column]), max(best, value)
            own = weights[column] * self._pool.embeddings[column]
            embedding = (own if embedding is None else embedding + own) / norms[column]
        return columns[len(chain.columns) :]

    def _appended(self, embedding: NDArray[np.floating] | None, score: float, length: int) -> _Appended:
        if embedding is None:
            alone = np.ones(len(self._lengths))
            return alone, alone, self._scores.round(6)
        similarity = multiply(self._pool.embeddings, embedding.astype(np.float32)[:, None])[:, 0].astype(np.float64)
        weights = relative_lengths(self._lengths, float(length)).astype(np.float64)
        norms = norms_of_means(weights, similarity)
        return weights, norms, ((score + weights * self._scores) / norms).round(6)

    def _usable(self, values: NDArray[np.float64], columns: Columns, text: str) -> Iterator[int]:
        """The fragments that a prompt may take, those of the greatest values first."""
        taken, options, words = list(columns), self._options, plain_words(text)
        is_open = self._open.copy()
        is_open[taken] = False
        if taken and options.near_duplicate <= 1:
            rows = self._pool.embeddings
            is_open &= multiply(rows, rows[taken].T).max(axis=1) < options.near_duplicate
        counts = Counter(self._pool.kinds[column] for column in taken)
        full = {kind for kind, limit in options.kind_limits.items() if counts[kind] >= limit}
        for column in np.argsort(-values, kind="stable").tolist():
            repeats = self._words[column] in words or self._pool.kinds[column] in full
            if is_open[column] and not repeats and self._fits([append(text, self._pool.texts[column])])[0]:
                yield column
