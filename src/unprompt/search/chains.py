"""Chains of fragments, and the scores of their prompts, each of which is encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from unprompt.search.one_core import multiply
from unprompt.search.rounds import Search
from unprompt.search.words import append

Fits = Callable[[Sequence[str]], list[bool]]
"""Whether each of N prompts is within the budget."""

Columns = tuple[int, ...]
"""Fragments by their positions, in the prompt's order."""

LEAST_GAIN = 1e-4
"""A chain is better only when it is by this much: less is float noise, and not worth a round."""


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

    columns: Columns
    text: str
    score: float
    value: float
    embedding: NDArray[np.float32] | None
    gains: tuple[float, ...] = ()


class ChainScores:
    """Scores chains by the cosines of their prompts with a query.

    Args:
        query: (D,).
        start: what every prompt begins with; may be empty.
        texts: of the fragments.
        cost: what a chain's fragments must bring in cosine.
    """

    def __init__(
        self, query: NDArray[np.float32], start: str, texts: Sequence[str], cost: Callable[[Columns], float] | None
    ) -> None:
        self._query = query.astype(np.float64)[:, None]
        self._start = start
        self._texts = texts
        self._cost = cost
        self._known: dict[str, tuple[float, NDArray[np.float32]]] = {}
        self._met: dict[str, Columns] = {}  # of each prompt, the first chain that makes it
        self.encoded = 0
        """Prompts that were encoded so far."""

    def __contains__(self, prompt: str) -> bool:
        return prompt in self._known

    def add(self, prompt: str, score: float, embedding: NDArray[np.float32]) -> None:
        """Takes a prompt's embedding and cosine from elsewhere, so that it is not encoded."""
        self._known[prompt] = score, embedding

    def prompt(self, columns: Sequence[int]) -> str:
        """The start and these fragments."""
        return reduce(append, (self._texts[column] for column in columns), self._start)

    def encode(self, chains: Sequence[Columns]) -> Search[list[Chain]]:
        """Scores chains; only prompts that are not known yet are encoded."""
        prompts = [self.prompt(columns) for columns in chains]
        new = list(dict.fromkeys(prompt for prompt in prompts if prompt not in self._known))
        if new:
            self.encoded += len(new)
            rows = yield new
            # Rounded, for the last bits depend on the batch, and should not choose between equals.
            scores = multiply(rows.astype(np.float64), self._query)[:, 0].round(6).tolist()
            self._known |= dict(zip(new, zip(scores, rows, strict=True), strict=True))
        for columns, prompt in zip(chains, prompts, strict=True):
            self._met.setdefault(prompt, columns)
        return [self._chain(columns, prompt) for columns, prompt in zip(chains, prompts, strict=True)]

    def nearly_best(self, best: Chain, limit: int, margin: float) -> list[Chain]:
        """`best`, and other chains met whose values are not below its by more than a margin, at most `limit` in all.

        They are ordered by their values, equals by when they were met.
        """
        others = (self._chain(columns, prompt) for prompt, columns in self._met.items() if prompt != best.text)
        near = sorted((each for each in others if each.value >= best.value - margin), key=lambda each: -each.value)
        return [best, *near[: limit - 1]]

    def gains(self, chain: Chain) -> Search[tuple[float, ...]]:
        """What the start and each fragment brought, in the prompt's order."""
        leading = [chain.columns[:length] for length in range(len(chain.columns) + 1)]
        scored = yield from self.encode([columns for columns in leading if columns or self._start])
        scores = [0.0] * (len(leading) - len(scored) + 1) + [each.score for each in scored]
        return tuple(after - before for before, after in pairwise(scores))

    def _chain(self, columns: Columns, prompt: str) -> Chain:
        score, embedding = self._known[prompt]
        return Chain(columns, prompt, score, score - (self._cost(columns) if self._cost else 0.0), embedding)


def choose_again(
    query: NDArray[np.float32], start: str, texts: Sequence[str], chains: Sequence[Chain]
) -> Search[Chain]:
    """The best of some chains, by the cosines of their prompts as they are encoded now.

    Args:
        query: (D,).
        start: what every prompt begins with; may be empty.
        texts: of the fragments.
        chains: at least one. The first of those with the same score is taken.

    Returns:
        The chain with its score, and with its gains.
    """
    scores = ChainScores(query, start, texts, None)
    encoded = yield from scores.encode([each.columns for each in chains if each.text])
    best = min(encoded, key=lambda each: -each.score, default=chains[0])
    gains = yield from scores.gains(best)
    return replace(best, gains=gains)
