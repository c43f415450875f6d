"""The search for the chain of fragments that brings a prompt nearest to a picture under a token budget."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from unprompt.search.chain_options import ChainOptions
from unprompt.search.chains import LEAST_GAIN, Chain, ChainScores, Columns, Fits
from unprompt.search.rounds import Search
from unprompt.search.surrogate import GainSurrogate
from unprompt.search.words import append, plain_words
from unprompt.types import Embeddings

Item = TypeVar("Item")

TRIED = 8
"""How many times the wanted number of extensions is looked through for those that fit and repeat nothing."""


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

    Each round predicts for every chain of the beam what every fragment would bring (`GainSurrogate`), encodes only the
    most promising extensions, and keeps the best as the next beam. When no better chain was found for a while, the
    best one is refined: a fragment is dropped, replaced or added as long as that helps, and then it grows again. To
    minimise the cosine, search with the query negated.

    No fragment is taken twice, nor one whose words stand in the prompt already. Equal values
    are ordered by the chains found first, and extensions by the beam's order and the pool's, so results depend on
    nothing else.

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
    search = _ChainSearch(query, start, pool, fits, options or ChainOptions())
    beam = (yield from search.scores.encode([()])) if start else search.singles()
    best = beam[0] if beam else Chain((), "", 0.0, -np.inf, None)
    for _ in range(search.options.cycles if beam else 0):
        grown = yield from search.grow(best, beam)
        best = yield from search.refine(grown)
        if best is grown:
            break
        beam = [best]
    gains = yield from search.scores.gains(best)
    return replace(best, gains=gains)


class _ChainSearch:
    def __init__(self, query: NDArray[np.float32], start: str, pool: Pool, fits: Fits, options: ChainOptions) -> None:
        self.start = start
        self.pool = pool
        self.fits = fits
        self.options = options
        self.words = [plain_words(text) for text in pool.texts]
        self.kinds = np.array(pool.kinds, dtype=object)
        self.surrogate = GainSurrogate(pool.embeddings, pool.scores)
        self.scores = ChainScores(query, start, pool.texts, self.cost)
        self.rounds = 0

    def grow(self, best: Chain, beam: list[Chain]) -> Search[Chain]:
        """Extends a beam of chains until none has become better for `patience` rounds."""
        stale = 0
        while beam and stale < self.options.patience and self.may_grow(beam[0]):
            found = yield from self.extend(beam, self.options.extensions(self.rounds, stale > 0))
            self.rounds += 1
            beam = found[: self.options.beam]
            better = bool(beam) and beam[0].value > best.value + LEAST_GAIN
            best, stale = (beam[0], 0) if better else (best, stale + 1)
        return best

    def may_grow(self, chain: Chain) -> bool:
        spent = self.scores.encoded >= self.options.growing * self.options.max_encoded
        return not spent and len(chain.columns) < self.options.max_parts

    def refine(self, best: Chain) -> Search[Chain]:
        """Drops, replaces or adds one fragment at a time while that makes the chain better."""
        for _ in range(self.options.refinements):
            alone = len(best.columns) == 1 and not self.start
            if not best.columns or alone or self.scores.encoded >= self.options.max_encoded:
                break
            columns = best.columns
            shorter = yield from self.scores.encode([columns[:i] + columns[i + 1 :] for i in range(len(columns))])
            full = len(best.columns) >= self.options.max_parts
            found = yield from self.extend(shorter if full else [best, *shorter], self.options.refined, best.columns)
            better = min([*shorter, *found], key=lambda chain: -chain.value)
            if better.value <= best.value + LEAST_GAIN:
                break
            best = better
        return best

    def singles(self) -> list[Chain]:
        """The best fragments alone, which need no encoding."""
        order = [int(i) for i in np.lexsort((np.arange(len(self.words)), -self.pool.scores.round(6)))]
        usable = (i for i in order if self.words[i])
        beam = []
        for column in self.fitting(((column, self.pool.texts[column]) for column in usable), self.options.beam):
            text, score = self.pool.texts[column], round(float(self.pool.scores[column]), 6)
            self.scores.add(text, score, self.pool.embeddings[column])
            beam.append(Chain((column,), text, score, score - self.cost((column,)), self.pool.embeddings[column]))
        return beam

    def extend(self, chains: Sequence[Chain], limit: int, barred: Sequence[int] = ()) -> Search[list[Chain]]:
        """Encodes the most promising extensions of some chains by one fragment; returns them best first.

        Args:
            chains: with embeddings.
            limit: how many to encode.
            barred: fragments that are not to be taken.
        """
        priors = [self.surrogate.prior(chain.embedding, chain.score) for chain in chains if chain.embedding is not None]
        chosen = self.promising(chains, priors, limit, barred)
        found = yield from self.scores.encode([(*chains[i].columns, column) for i, column in chosen])
        if found:
            self.surrogate.forget()
            errors = [chain.score - priors[i][column] for chain, (i, column) in zip(found, chosen, strict=True)]
            self.surrogate.learn(np.array([column for _, column in chosen], dtype=np.intp), np.array(errors))
        return sorted(found, key=lambda chain: -chain.value)

    def promising(
        self, chains: Sequence[Chain], priors: Sequence[NDArray[np.float64]], limit: int, barred: Sequence[int]
    ) -> list[tuple[int, int]]:
        """The (chain, fragment) pairs with the greatest predicted values that fit and repeat nothing."""
        ranked: list[tuple[float, int, int]] = []
        for i, (chain, prior) in enumerate(zip(chains, priors, strict=True)):
            values = self.surrogate.correct(prior) - self.costs(chain)
            values[[*chain.columns, *barred]] = -np.inf
            ranked += [(-float(values[c]), i, int(c)) for c in _largest(values, TRIED * limit)]
        heapq.heapify(ranked)
        return list(self.fitting(self.new_pairs(ranked, chains), limit))

    def new_pairs(
        self, heap: list[tuple[float, int, int]], chains: Sequence[Chain]
    ) -> Iterator[tuple[tuple[int, int], str]]:
        """The heap's pairs in order with their prompts, less repeated words, and what was chosen or encoded before."""
        words = [plain_words(chain.text) for chain in chains]
        seen: set[frozenset[int]] = set()
        while heap:
            value, i, column = heapq.heappop(heap)
            fragments = frozenset((*chains[i].columns, column))
            repeats = self.words[column] in words[i]
            prompt = append(chains[i].text, self.pool.texts[column])
            if value < np.inf and not repeats and fragments not in seen and prompt not in self.scores:
                seen.add(fragments)
                yield (i, column), prompt

    def fitting(self, tried: Iterable[tuple[Item, str]], limit: int) -> Iterator[Item]:
        """The first `limit` of the items whose prompt is within the budget."""
        tried = iter(tried)
        while limit and (block := list(islice(tried, limit))):
            fit = self.fits([text for _, text in block])
            fitting = [item for (item, _), fits in zip(block, fit, strict=True) if fits]
            limit -= len(fitting)
            yield from fitting

    def cost(self, columns: Columns) -> float:
        """What the fragments of a chain must bring in cosine, see `ChainOptions`."""
        total = self.options.part_cost * len(columns)
        if self.options.redundancy_cost and len(columns) > 1:
            rows = self.pool.embeddings[list(columns)]
            alike = np.tril(rows @ rows.T, -1).max(axis=1)[1:].clip(0)
            total += self.options.redundancy_cost * float(alike.sum())
        return total

    def costs(self, chain: Chain) -> NDArray[np.float64]:
        """(n,) what the chain costs with each fragment appended; infinity for those that it may not take."""
        options, columns = self.options, list(chain.columns)
        costs = np.full(len(self.words), self.cost(chain.columns) + options.part_cost)
        if columns and (options.redundancy_cost or options.near_duplicate < 1):
            alike = (self.pool.embeddings @ self.pool.embeddings[columns].T).max(axis=1)
            costs += options.redundancy_cost * alike.clip(0)
            costs[alike >= options.near_duplicate] = np.inf
        for kind, limit in options.kind_limits.items():
            if sum(self.pool.kinds[column] == kind for column in columns) >= limit:
                costs[self.kinds == kind] = np.inf
        return costs


def _largest(values: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Positions of the `count` greatest values, and of all equal to the last of them, in rising order."""
    if count >= len(values):
        return np.arange(len(values))
    return np.flatnonzero(values >= np.partition(values, len(values) - count)[len(values) - count])
