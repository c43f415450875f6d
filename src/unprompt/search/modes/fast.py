"""Mode "fast": the subject and the terms nearest the picture, as many as the budget holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from unprompt.search.modes.common import ComposeInput, Piece, cut_pieces, estimate, fragment_part
from unprompt.search.words import append, plain_words
from unprompt.types import Candidate, Part

if TYPE_CHECKING:
    from unprompt.search.results import ScoredFragment

MAX_FRAGMENTS = 32
SPARE = 2
"""How many times as many terms are ranked as may be taken: those whose words stand there already are passed over."""


def compose_fast(task: ComposeInput) -> list[Candidate]:
    """The subject and up to 32 of the best terms of all kinds together, cut to the budget; gains are estimated."""
    ranked = _ranked(task)
    rows = {each.text: each.row for found in ranked for each in found}
    return estimate(task, _drafts(task, task.starts(), ranked), rows)


def draft_fast(task: ComposeInput, starts: Sequence[Part | None]) -> list[list[Piece]]:
    """The same as pieces, not scored; `starts` as `ComposeInput.starts` gives them."""
    return _drafts(task, starts, _ranked(task))


def _ranked(task: ComposeInput) -> list[list[ScoredFragment]]:
    return task.ranker.merged(task.queries, SPARE * MAX_FRAGMENTS)


def _drafts(
    task: ComposeInput, starts: Sequence[Part | None], ranked: Sequence[Sequence[ScoredFragment]]
) -> list[list[Piece]]:
    drafts = []
    for start, found in zip(starts, ranked, strict=True):
        pieces: list[Piece] = [(start,)] if start else []
        taken = [(fragment_part(each),) for each in new_words(start.text if start else "", found, MAX_FRAGMENTS)]
        drafts.append(cut_pieces([*pieces, *taken], task.budget))
    return drafts


def new_words(prompt: str, ranked: Iterable[ScoredFragment], count: int) -> Iterator[ScoredFragment]:
    """The first `count` terms whose words stand neither in the prompt nor in those taken before."""
    for each in ranked:
        if count and plain_words(each.text) not in plain_words(prompt):
            prompt = append(prompt, each.text)
            count -= 1
            yield each
