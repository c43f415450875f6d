"""Which extensions of some chains by one term are worth encoding next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unprompt.search.chains import Chain, ChainScores, Fits
from unprompt.search.effect_model import EffectModel
from unprompt.search.terms import largest
from unprompt.search.words import append, plain_words

DEPTH = 16
"""How many times the wanted number of extensions is looked through for those that fit and repeat nothing."""

BLOCK = 4
"""How many are looked at together, at least."""

TRIES = 8
"""How often the next so many are looked through: where the budget is nearly full, hardly any term may fit."""


class Extensions:
    """The extensions of b chains by each of the model's a active terms.

    Args:
        bases: the chains, with embeddings.
        model: predicts their values. Its active terms must stay the same.
        texts: of all terms.
        fits: the budget.
        repeat_words: whether a term may be taken whose words stand in the prompt already.
    """

    def __init__(
        self, bases: Sequence[Chain], model: EffectModel, texts: Sequence[str], fits: Fits, repeat_words: bool
    ) -> None:
        self._bases = bases
        self._model = model
        self._texts = texts
        self._fits = fits
        self._words = None if repeat_words else [plain_words(base.text) for base in bases]
        self._priors = model.priors(bases)  # (b, a)
        self._open = np.ones(self._priors.shape, dtype=bool)
        self._chosen: set[frozenset[int]] = set()
        for i, base in enumerate(bases):
            self._open[i, self._places(base.columns)] = False

    def bar(self, columns: Sequence[int]) -> None:
        """Leaves out these terms."""
        self._open[:, self._places(columns)] = False

    def values(self) -> NDArray[np.float64]:
        """(b, a) predictions; minus infinity where there is nothing to try."""
        return np.where(self._open, self._model.correct(self._priors), -np.inf)

    def choose(self, count: int, known: ChainScores) -> list[tuple[int, int]]:
        """The `count` most promising (base, term) pairs that fit and whose prompts are new; none is offered twice."""
        return self._best(self.values(), count, known)

    def draw(self, count: int, known: ChainScores, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Up to `count` pairs as `choose`, each the most promising by a draw of its own (`EffectModel.draw`)."""
        means = self._model.correct(self._priors)
        chosen: list[tuple[int, int]] = []
        for offsets in self._model.draw(count, rng):
            values = np.where(self._open, (means + offsets).round(6), -np.inf)
            chosen += self._best(values, 1, known)
        return chosen

    def learn(self, pairs: Sequence[tuple[int, int]], chains: Sequence[Chain]) -> None:
        """Tells the model how far the true cosines of the pairs' chains were above their priors."""
        columns = np.array([column for _, column in pairs], dtype=np.intp)
        priors = self._priors[[i for i, _ in pairs], self._places(columns)]
        self._model.learn(columns, np.array([chain.score for chain in chains]) - priors)

    def _best(self, table: NDArray[np.float64], count: int, known: ChainScores) -> list[tuple[int, int]]:
        """The `count` pairs with the greatest values in a table (b, a) that may be encoded."""
        values, chosen, block = table.ravel(), list[tuple[int, int]](), max(count, BLOCK)
        for _ in range(TRIES):
            order = largest(values, DEPTH * block)
            for start in range(0, len(order), block):
                chosen += self._usable(order[start : start + block], known)
                if len(chosen) >= count:
                    self._reopen(chosen[count:])
                    return chosen[:count]
            values[order] = -np.inf
            if not len(order):
                break
        return chosen

    def _usable(self, places: NDArray[np.intp], known: ChainScores) -> list[tuple[int, int]]:
        """Of some places in the table, which this closes, the pairs that may be encoded."""
        rows, active = np.divmod(places, len(self._model.active))
        self._open[rows, active] = False
        pairs: list[tuple[int, int]] = []
        prompts: list[str] = []
        for i, column in zip(rows.tolist(), self._model.active[active].tolist(), strict=True):
            prompt = append(self._bases[i].text, self._texts[column])
            repeats = self._words is not None and plain_words(self._texts[column]) in self._words[i]
            if prompt not in known and not repeats and self._new(i, column):
                pairs.append((i, column))
                prompts.append(prompt)
        fitting = [pair for pair, fits in zip(pairs, self._fits(prompts), strict=True) if fits]
        self._chosen |= {frozenset((*self._bases[i].columns, column)) for i, column in fitting}
        return fitting

    def _new(self, i: int, column: int) -> bool:
        return frozenset((*self._bases[i].columns, column)) not in self._chosen

    def _reopen(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Offers pairs again that were one too many."""
        for i, column in pairs:
            self._open[i, self._places([column])] = True
            self._chosen.discard(frozenset((*self._bases[i].columns, column)))

    def _places(self, columns: Sequence[int] | NDArray[np.intp]) -> NDArray[np.intp]:
        """Where those of some terms that are active stand among the active ones."""
        wanted = np.array(columns, dtype=np.intp)
        active = self._model.active
        places = np.minimum(np.searchsorted(active, wanted), len(active) - 1)
        return places[active[places] == wanted] if len(active) else places[:0]
