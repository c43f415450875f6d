"""The search for the chain with the greatest cosine among all terms of a vocabulary: growth, and then exchanges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from unprompt.search.chains import LEAST_GAIN, Chain, ChainScores, Columns, Fits
from unprompt.search.effect_model import EffectModel
from unprompt.search.exchanges import ExchangeMemory
from unprompt.search.extensions import Extensions
from unprompt.search.relocations import moved_to, relocate
from unprompt.search.rounds import Search
from unprompt.search.terms import Terms, largest


@dataclass(frozen=True)
class LocalOptions:
    """How hard a chain is searched for.

    Attributes:
        near: terms that are encoded after the start in the first round, those nearest the query.
        random: terms that are encoded then besides: what is nearest teaches little about all others.
        explored: extensions of the start encoded in each of the `explorations` rounds after it.
        explorations: see `explored`.
        survivors: the most extensions encoded in each later round of growth.
        together: extensions that are encoded at a time; the prediction learns from them before the next are chosen.
        valley: fragments that a growing chain takes at first whether they help or not, as CLIP Interrogator does.
        patience: rounds of growth without a better chain, beyond the valley, before it ends.
        growing: the share of `max_encoded` after which growth ends.
        max_parts: the most fragments.
        max_encoded: prompts after which no new round begins.
        dropped: fragments that each exchange tries to do without, those worth least.
        exchanged: the most extensions encoded in each exchange.
        in_place: of these, how many are tried also with the new fragment where the old one stood.
        settling: moves without an improvement after which a grown chain's fragments are moved about no more.
        relocated: the same after each exchange.
        moved: moves that are encoded at a time.
        growing_kept: how much of its weight an observation keeps from one round of growth to the next.
        exchanging_kept: the same for exchanges.
        active: terms that are looked at in a round; see `search_locally`.
        renewed: prompts between two choices of the active terms.
        settled: prompts before which the active terms are chosen anew every `unsettled` prompts instead.
        unsettled: see `settled`.
        surveyed: prompts between two choices among all terms; others are among those that promised most then.
        promising: how many these are.
        finalists: the most chains that are returned.
        margin: how much worse than the best they may be: twice what a cosine with a draft embedding was seen to miss.
        repeat_words: whether a term may be taken whose words stand in the prompt already.
        seed: of the random terms and of what is drawn.
    """

    near: int = 16
    random: int = 48
    explored: int = 24
    explorations: int = 2
    survivors: int = 16
    together: int = 12
    valley: int = 24
    patience: int = 4
    growing: float = 0.4
    max_parts: int = 32
    max_encoded: int = 1350
    dropped: int = 5
    exchanged: int = 24
    in_place: int = 2
    settling: int = 24
    relocated: int = 8
    moved: int = 8
    growing_kept: float = 0.6
    exchanging_kept: float = 0.9
    active: int = 4096
    renewed: int = 120
    settled: int = 250
    unsettled: int = 0
    surveyed: int = 0
    promising: int = 16384
    finalists: int = 8
    margin: float = 0.004
    repeat_words: bool = False
    seed: int = 0


def search_locally(
    query: NDArray[np.float32], start: str, terms: Terms, fits: Fits, options: LocalOptions | None = None
) -> Search[list[Chain]]:
    """Searches for the chain from `start` whose prompt has the greatest cosine with the query.

    Growth appends the best of the extensions that `EffectModel` predicts most of, round by round, even if each makes
    the chain worse at first. Exchanges then go to the best chain met with one fragment added, replaced or dropped, be
    it worse, and never back at once (tabu search, Glover, 1989); a round ends as soon as it has found a better chain
    than any that is predicted. What is tried in an exchange is drawn from what the model believes (`EffectModel.draw`).
    After each exchange the fragments are moved about as long as that helps. The cosine of a term says little about what
    it adds to a longer prompt, so of all terms those are looked at whose gain is predicted greatest by what was learnt
    so far.

    No term is taken twice, nor, unless `repeat_words`, one whose words stand in the prompt already. Equal values are
    ordered by the chains found first, and extensions by the order of their bases and the terms.

    Args:
        query: (D,).
        start: what the prompt begins with; may be empty. It is kept even when it does not fit the budget.
        terms: what to choose from.
        fits: the budget.
        options: see `LocalOptions`.

    Returns:
        The best chain met; the start alone when nothing improves it; the best term at least when the start is empty
        and one fits. After it the others that are nearly as good, for the embeddings may have been drafts: see
        `choose_again`, which also finds the gains.
    """
    options = options or LocalOptions()
    search = _LocalSearch(query, start, terms, fits, options)
    first = (yield from search.scores.encode([()])) if start else search.singles()
    best = first[0] if first else Chain((), "", 0.0, -np.inf, None)
    if first and terms.allowed.any():
        grown = yield from search.grow(best)
        best = yield from search.exchange(grown)
    return search.scores.nearly_best(best, options.finalists, options.margin)


class _LocalSearch:
    def __init__(self, query: NDArray[np.float32], start: str, terms: Terms, fits: Fits, options: LocalOptions) -> None:
        self.start = start
        self.terms = terms
        self.fits = fits
        self.options = options
        self.model = EffectModel(terms, terms.extensions.of_query(query) if terms.extensions else None)
        self.scores = ChainScores(query, start, terms.texts, None)
        self.rng = np.random.default_rng(options.seed)
        self.renewed: int | None = None  # how many prompts were encoded when the active terms were chosen
        self.surveyed: int | None = None  # and when they were chosen among all
        self.promising: NDArray[np.intp] = np.zeros(0, dtype=np.intp)  # what promised most then

    def grow(self, best: Chain) -> Search[Chain]:
        """Appends one term after the other, and returns the best chain met."""
        options, chain, stale = self.options, best, 0
        found = yield from self.begin(best)
        while found:
            rises, chain = found[0].value > chain.value + LEAST_GAIN, found[0]
            better = chain.value > best.value + LEAST_GAIN
            best, stale = (chain, 0) if better else (best, 0 if rises else stale + 1)
            if (stale >= options.patience and len(chain.columns) >= options.valley) or not self.may_grow(chain):
                break
            found = yield from self.extend([chain], options.survivors, options.growing_kept)
        return best

    def begin(self, start: Chain) -> Search[list[Chain]]:
        """The first extensions, best first: those by the nearest terms, by random ones, and by what these promise."""
        options, terms = self.options, self.terms
        allowed = np.flatnonzero(terms.allowed)
        drawn = self.rng.choice(allowed, min(options.random, len(allowed)), replace=False).tolist()
        rows = {*terms.best(terms.scores, options.near), *(row for row in drawn if terms.key(terms.texts[row]))}
        self.model.activate(sorted(rows))
        found = yield from self.extend_active([start], len(rows), together=len(rows))
        for _ in range(options.explorations):
            found += yield from self.extend([start], options.explored, kept=1.0)
        return sorted(found, key=lambda each: -each.value)

    def may_grow(self, chain: Chain) -> bool:
        spent = self.scores.encoded >= self.options.growing * self.options.max_encoded
        return not spent and len(chain.columns) < self.options.max_parts

    def exchange(self, best: Chain) -> Search[Chain]:
        """Moves to the best chain met with one fragment added, replaced or dropped, and keeps the best of all."""
        options, memory, limit = self.options, ExchangeMemory(), len(best.columns)  # at first all are tried
        chain = best = yield from self.relocate(best, None, options.settling)
        while chain.columns and self.scores.encoded < options.max_encoded:
            columns = chain.columns
            positions = memory.weakest(columns, limit) if self.start or len(columns) > 1 else []
            shorter = yield from self.scores.encode([columns[:i] + columns[i + 1 :] for i in positions])
            memory.learn([columns[i] for i in positions], [chain.value - each.value for each in shorter])
            bases = sorted(shorter, key=lambda each: -each.value)[: options.dropped + 2]
            bases += [chain] if len(columns) < options.max_parts else []
            barred, kept = (*columns, *memory.barred()), options.exchanging_kept
            found = yield from self.extend(bases, options.exchanged, kept, barred, chain.value, drawn=True)
            found += yield from self.in_place(columns, found)
            moves = [*(each for each in shorter if each.value > chain.value), *found]
            if not moves:
                break
            moved = min(moves, key=lambda each: -each.value)
            memory.move(columns, moved.columns)
            newest = next((column for column in moved.columns if column not in columns), None)
            chain, limit = (yield from self.relocate(moved, newest, options.relocated)), options.dropped
            best = chain if chain.value > best.value + LEAST_GAIN else best
        return best

    def in_place(self, columns: Columns, found: Sequence[Chain]) -> Search[list[Chain]]:
        """The best chains found with one fragment replaced, their new one where the old one stood."""
        replaced = [each.columns for each in found if len(each.columns) == len(columns)][: self.options.in_place]
        moved = [moved_to(each, len(each) - 1, _first_missing(columns, each)) for each in replaced]
        prompts = [self.scores.prompt(each) for each in moved]
        fitting = zip(moved, prompts, self.fits(prompts), strict=True)
        return (
            yield from self.scores.encode([each for each, text, fits in fitting if fits and text not in self.scores])
        )

    def relocate(self, chain: Chain, newest: int | None, failures: int) -> Search[Chain]:
        together, limit = self.options.moved, self.options.max_encoded
        moves = relocate(
            chain, newest, self.scores, self.fits, self.rng, failures=failures, together=together, limit=limit
        )
        return (yield from moves)

    def singles(self) -> list[Chain]:
        """The best term alone, which needs no encoding."""
        terms = self.terms
        scores = terms.scores.astype(np.float64).round(6)
        order = iter(sorted(terms.best(terms.scores, self.options.active), key=lambda row: (-scores[row], row)))
        while block := list(islice(order, self.options.together)):
            fit = self.fits([terms.texts[row] for row in block])
            for row in [row for row, fits in zip(block, fit, strict=True) if fits][:1]:
                text, score, embedding = terms.texts[row], float(scores[row]), terms.embeddings[row]
                self.scores.add(text, score, embedding)
                return [Chain((row,), text, score, score, embedding)]
        return []

    def extend(
        self,
        bases: Sequence[Chain],
        limit: int,
        kept: float,
        barred: Sequence[int] = (),
        enough: float = -np.inf,
        drawn: bool = False,
    ) -> Search[list[Chain]]:
        """Encodes the most promising extensions of some chains by one term, a few at a time; returns them best first.

        Args:
            bases: with embeddings.
            limit: the most to encode.
            kept: how much of its weight an earlier observation keeps.
            barred: terms that are not to be taken.
            enough: no more are encoded once one is better than this and than all predictions.
            drawn: whether each is the most promising by a draw of its own, or all are by the mean.
        """
        self.model.forget(kept)
        self.renew(min(bases, key=lambda each: -each.value))
        return (yield from self.extend_active(bases, limit, barred, enough, self.options.together, drawn))

    def extend_active(
        self,
        bases: Sequence[Chain],
        limit: int,
        barred: Sequence[int] = (),
        enough: float = np.inf,
        together: int = 1,
        drawn: bool = False,
    ) -> Search[list[Chain]]:
        """`extend` by the terms that are active."""
        tried = Extensions(bases, self.model, self.terms.texts, self.fits, self.options.repeat_words)
        tried.bar(barred)
        found: list[Chain] = []
        best = -np.inf
        while len(found) < limit:
            if found and best > enough and best > tried.values().max():
                break
            count = min(together, limit - len(found))
            pairs = tried.draw(count, self.scores, self.rng) if drawn else tried.choose(count, self.scores)
            chains = yield from self.scores.encode([(*bases[i].columns, column) for i, column in pairs])
            if not chains:
                break
            tried.learn(pairs, chains)
            found += chains
            best = max(best, *(each.value for each in chains))
        return sorted(found, key=lambda each: -each.value)

    def renew(self, base: Chain) -> None:
        """Chooses the active terms: those that should bring most to a chain, and all that were seen lately."""
        options, encoded = self.options, self.scores.encoded
        apart = options.renewed if encoded >= options.settled else options.unsettled
        if self.renewed is not None and encoded - self.renewed < apart:
            return
        if self.surveyed is None or encoded - self.surveyed >= options.surveyed:
            values = self.model.everywhere(base)
            self.promising = np.sort(largest(values, options.promising))
            self.surveyed = encoded
        else:
            values = self.model.everywhere(base, self.promising)
        self.model.activate(self.terms.best(values, options.active))
        self.renewed = encoded


def _first_missing(columns: Columns, others: Columns) -> int:
    """The first position of `columns` whose fragment is not among `others`."""
    return next(i for i, column in enumerate(columns) if column not in others)
