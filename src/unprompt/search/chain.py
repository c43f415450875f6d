"""The search for the chain of fragments that brings a prompt nearest to a picture under a token budget."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice, pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from unprompt.search.chain_options import ChainOptions
from unprompt.search.exchanges import ExchangeMemory
from unprompt.search.rounds import Search
from unprompt.search.surrogate import GainSurrogate
from unprompt.search.words import append, plain_words
from unprompt.types import Embeddings

Item = TypeVar("Item")

Fits = Callable[[Sequence[str]], list[bool]]
"""Whether each of N prompts is within the budget."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """A prompt: the start and some fragments.

    Attributes:
        columns: the fragments, by position in the pool, in the prompt's order.
        text: the whole prompt.
        score: its cosine with the query.
        value: what the search maximises: the score less what the fragments cost.
        embedding: (D,) of the prompt; None of the empty one.
        gains: of the start and each fragment, what it brought to the cosine; they sum to `score`. Set at the end.
    """

    columns: tuple[int, ...]
    text: str
    score: float
    value: float
    embedding: NDArray[np.float32] | None
    gains: tuple[float, ...] = ()


LEAST_GAIN = 1e-4
"""A chain is better only when it is by this much: less is float noise, and not worth a round."""


def search_chain(
    query: NDArray[np.float32], start: str, pool: Pool, fits: Fits, options: ChainOptions | None = None
) -> Search[Chain]:
    """Searches for the chain from `start` whose prompt has the greatest cosine with the query.

    Each round predicts for every chain of the beam what every fragment would bring (`GainSurrogate`), encodes only the
    most promising extensions, and keeps the best as the next beam. When no better chain was found for a while, the
    best one is refined: a fragment is dropped, replaced or added as long as that helps, and then it grows again. At
    last fragments may be exchanged whether that helps or not, which leads out of local optima. To minimise the cosine,
    search with the query negated.

    No fragment is taken twice, nor, unless `repeat_words`, one whose words stand in the prompt already. Equal values
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
    beam = (yield from search.encode([(start, ())])) if start else search.singles()
    best = beam[0] if beam else Chain((), "", 0.0, -np.inf, None)
    for _ in range(search.options.cycles if beam else 0):
        grown = yield from search.grow(best, beam)
        best = yield from search.refine(grown)
        if best is grown:
            break
        beam = [best]
    best = yield from search.exchange(best)
    gains = yield from search.gains(best)
    return replace(best, gains=gains)


class _ChainSearch:
    def __init__(self, query: NDArray[np.float32], start: str, pool: Pool, fits: Fits, options: ChainOptions) -> None:
        self.query = query.astype(np.float64)
        self.start = start
        self.pool = pool
        self.fits = fits
        self.options = options
        self.words = [plain_words(text) for text in pool.texts]
        self.kinds = np.array(pool.kinds, dtype=object)
        self.surrogate = GainSurrogate(pool.embeddings, pool.scores)
        self.rounds = self.encoded = 0
        self.known: dict[str, float] = {}  # prompt -> score, of all that was encoded

    def grow(self, best: Chain, beam: list[Chain]) -> Search[Chain]:
        """Extends a beam of chains, through `valley` if need be, until none has become better for `patience` rounds."""
        stale, valley = 0, self.options.valley
        while beam and (stale < self.options.patience or len(beam[0].columns) < valley) and self.may_grow(beam[0]):
            last = beam[0].value
            found = yield from self.extend(beam, self.options.extensions(self.rounds, stale > 0))
            self.rounds += 1
            beam = found[: self.options.beam]
            rises = bool(valley and beam) and beam[0].value > last + LEAST_GAIN
            better = bool(beam) and beam[0].value > best.value + LEAST_GAIN
            best, stale = (beam[0], 0) if better else (best, 0 if rises else stale + 1)
        return best

    def may_grow(self, chain: Chain) -> bool:
        spent = self.encoded >= self.options.growing * self.options.max_encoded
        return not spent and len(chain.columns) < self.options.max_parts

    def refine(self, best: Chain) -> Search[Chain]:
        """Drops, replaces or adds one fragment at a time while that makes the chain better."""
        for _ in range(self.options.refinements):
            alone = len(best.columns) == 1 and not self.start
            if not best.columns or alone or self.encoded >= self.options.max_encoded:
                break
            shorter = yield from self.encode(self.without_one(best, range(len(best.columns))))
            full = len(best.columns) >= self.options.max_parts
            found = yield from self.extend(shorter if full else [best, *shorter], self.options.refined, best.columns)
            better = min([*shorter, *found], key=lambda chain: -chain.value)
            if better.value <= best.value + LEAST_GAIN:
                break
            best = better
        return best

    def exchange(self, best: Chain) -> Search[Chain]:
        """Moves to the best chain with one fragment added, replaced or dropped, be it worse, and keeps the best met."""
        memory, chain, limit = ExchangeMemory(), best, len(best.columns)  # at first all are tried
        while self.options.dropped and best.columns and self.encoded < self.options.max_encoded:
            positions = memory.weakest(chain.columns, limit) if self.start or len(chain.columns) > 1 else []
            shorter = yield from self.encode(self.without_one(chain, positions))
            memory.learn([chain.columns[i] for i in positions], [chain.value - each.value for each in shorter])
            extended = shorter if len(chain.columns) >= self.options.max_parts else [*shorter, chain]
            barred = (*chain.columns, *memory.barred())
            found = yield from self.extend(extended, self.options.exchanged, barred)
            moves = [*(each for each in shorter if each.value > chain.value), *found]
            if not moves:
                break
            moved = min(moves, key=lambda each: -each.value)
            memory.move(chain.columns, moved.columns)
            best = moved if moved.value > best.value + LEAST_GAIN else best
            chain, limit = moved, self.options.dropped
        return best

    def gains(self, chain: Chain) -> Search[tuple[float, ...]]:
        """What the start and each fragment brought, in the prompt's order."""
        columns = chain.columns
        prompts = [self.prompt(columns[:length]) for length in range(len(columns) + 1)]
        yield from self.encode([(p, columns[:i]) for i, p in enumerate(prompts) if p and p not in self.known])
        scores = [0.0, *(self.known[prompt] if prompt else 0.0 for prompt in prompts)]
        return tuple(after - before for before, after in pairwise(scores))

    def singles(self) -> list[Chain]:
        """The best fragments alone, which need no encoding."""
        order = [int(i) for i in np.lexsort((np.arange(len(self.words)), -self.pool.scores.round(6)))]
        usable = (i for i in order if self.words[i])
        beam = []
        for column in self.fitting(((column, self.pool.texts[column]) for column in usable), self.options.beam):
            text, score = self.pool.texts[column], round(float(self.pool.scores[column]), 6)
            self.known[text] = score
            value = score - self.cost((column,))
            beam.append(Chain((column,), text, score, value, self.pool.embeddings[column]))
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
        found = yield from self.encode(
            [(append(chains[i].text, self.pool.texts[c]), (*chains[i].columns, c)) for i, c in chosen]
        )
        if found:
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
            repeats = self.words[column] in words[i] and not self.options.repeat_words
            prompt = append(chains[i].text, self.pool.texts[column])
            if value < np.inf and not repeats and fragments not in seen and prompt not in self.known:
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

    def encode(self, prompts: Sequence[tuple[str, tuple[int, ...]]]) -> Search[list[Chain]]:
        """Scores prompts that are made of these fragments."""
        if not prompts:
            return []
        self.encoded += len(prompts)
        rows = yield [text for text, _ in prompts]
        # Rounded, for the last bits depend on the batch, and should not choose between equals.
        scores = (rows.astype(np.float64) @ self.query).round(6).tolist()
        self.known |= {text: score for (text, _), score in zip(prompts, scores, strict=True)}
        return [
            Chain(columns, text, score, score - self.cost(columns), row)
            for (text, columns), score, row in zip(prompts, scores, rows, strict=True)
        ]

    def without_one(self, chain: Chain, positions: Iterable[int]) -> list[tuple[str, tuple[int, ...]]]:
        columns = chain.columns
        shorter = [columns[:i] + columns[i + 1 :] for i in positions]
        return [(self.prompt(rest), rest) for rest in shorter]

    def prompt(self, columns: Sequence[int]) -> str:
        return reduce(append, (self.pool.texts[column] for column in columns), self.start)

    def cost(self, columns: Sequence[int]) -> float:
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
        costs = np.full(len(self.words), self.cost(columns) + options.part_cost)
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
