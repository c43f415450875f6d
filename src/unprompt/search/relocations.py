"""Moving the fragments of a chain about: the same words in another order are nearer a picture, or further from it."""

from __future__ import annotations

import numpy as np

from unprompt.search.chains import LEAST_GAIN, Chain, ChainScores, Columns, Fits
from unprompt.search.rounds import Search

DRAWS = 40
"""How often a move is drawn for a round before the round does with those that are new."""


NEW = 0.5
"""Of the moves that are drawn, the share that move the newest fragment: it stands at the end only because it is new."""


def relocate(
    chain: Chain,
    newest: int | None,
    scores: ChainScores,
    fits: Fits,
    rng: np.random.Generator,
    *,
    failures: int,
    together: int,
    limit: int,
) -> Search[Chain]:
    """Moves fragments to other places as long as that makes a chain better, the first improvement that is met.

    Of the moves of one fragment to another place, 6% to 28% made four chains of 9 to 21 fragments better, by up to
    0.014, and random orders of them were 0.03 worse.

    Args:
        chain: what to begin with.
        newest: the fragment, by its column, that was added last; None where none was.
        scores: encodes the prompts.
        fits: the budget.
        rng: draws the moves.
        failures: moves without an improvement after which none is tried any more.
        together: moves that are encoded at a time, of which the best is made.
        limit: prompts that `scores` may have encoded when a round begins.

    Returns:
        The chain with its fragments in the best order met.
    """
    failed = 0
    while failed < failures and scores.encoded < limit:
        moves = _draw(chain.columns, newest, scores, fits, rng, together)
        if not moves:
            break
        found = yield from scores.encode(moves)
        best = min(found, key=lambda each: -each.value)
        if best.value > chain.value + LEAST_GAIN:
            chain, failed = best, 0
        else:
            failed += len(moves)
    return chain


def _draw(
    columns: Columns, newest: int | None, scores: ChainScores, fits: Fits, rng: np.random.Generator, count: int
) -> list[Columns]:
    """A few orders that one move makes, of prompts that are new and fit."""
    drawn: dict[str, Columns] = {}
    for _ in range(DRAWS if len(columns) > 1 else 0):
        origin, place = rng.integers(len(columns), size=2).tolist()
        if rng.random() < NEW and newest in columns:
            origin = columns.index(newest)
        moved = moved_to(columns, origin, place)
        prompt = scores.prompt(moved)
        if origin != place and prompt not in scores and prompt not in drawn and fits([prompt])[0]:
            drawn[prompt] = moved
        if len(drawn) == count:
            break
    return list(drawn.values())


def moved_to(columns: Columns, origin: int, place: int) -> Columns:
    """The columns with the one at `origin` taken out, and put in again so that it stands at `place`."""
    rest = columns[:origin] + columns[origin + 1 :]
    return (*rest[:place], columns[origin], *rest[place:])
