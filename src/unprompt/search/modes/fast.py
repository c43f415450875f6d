"""Mode "fast": the subject and the terms nearest the picture, as many as the budget holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unprompt.search.modes.common import ComposeInput, Piece, cut_pieces, estimate, fragment_part
from unprompt.search.modes.wording import new_words, reads_on
from unprompt.types import Candidate, Part

if TYPE_CHECKING:
    from unprompt.search.ranker import FragmentRanker
    from unprompt.search.results import ScoredFragment

MAX_FRAGMENTS = 32

FRESH = 0.6
"""Where near-duplicates are collapsed, which share of a term's words must be new: "elegant woman, old woman" is not.

On 224 pictures of a development split, with `starter`, that took the mean sentence cosine from 0.618 to 0.631 and the
mean cosine with the picture from 0.482 to 0.507, with scraps of prompts passed over too.
"""

SPARE = 2
"""How many times as many terms are ranked as may be taken: those whose words stand there already are passed over."""

SPARE_FRESH = 4
"""The same where they must be new."""


def compose_fast(task: ComposeInput) -> list[Candidate]:
    """The subject and up to 32 of the best terms of all kinds together, cut to the budget; gains are estimated.

    Where the ranker collapses near-duplicates, terms that say little new and scraps of prompts are passed over.
    """
    ranked = _ranked(task)
    rows = {each.text: each.row for found in ranked for each in found}
    return estimate(task, _drafts(task, task.starts(), ranked), rows)


def draft_fast(task: ComposeInput, starts: Sequence[Part | None]) -> list[list[Piece]]:
    """The same as pieces, not scored; `starts` as `ComposeInput.starts` gives them."""
    return _drafts(task, starts, _ranked(task))


def _ranked(task: ComposeInput) -> list[list[ScoredFragment]]:
    return task.ranker.merged(task.queries, ranked_terms(task.ranker))


def ranked_terms(ranker: FragmentRanker) -> int:
    """How many terms of all kinds together the mode asks a ranker for."""
    return (SPARE_FRESH if ranker.options.collapse is not None else SPARE) * MAX_FRAGMENTS


def _drafts(
    task: ComposeInput, starts: Sequence[Part | None], ranked: Sequence[Sequence[ScoredFragment]]
) -> list[list[Piece]]:
    drafts = []
    fresh = FRESH if reads_on(task) else None
    for start, found in zip(starts, ranked, strict=True):
        pieces: list[Piece] = [(start,)] if start else []
        taken = new_words(start.text if start else "", found, MAX_FRAGMENTS, fresh)
        drafts.append(cut_pieces([*pieces, *((fragment_part(each),) for each in taken)], task.budget))
    return drafts
