"""Mode "classic": "subject, medium artist, trending, movement, flavor, flavor, flavor"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from unprompt.search.modes.common import ComposeInput, Piece, cut_pieces, estimate, fragment_part, piece_text
from unprompt.search.modes.fast import new_words
from unprompt.search.words import append
from unprompt.types import Candidate, Part

if TYPE_CHECKING:
    from unprompt.search.results import ScoredFragment

LAYOUT: Sequence[Mapping[str, int]] = ({"medium": 1, "artist": 1}, {"trending": 1}, {"movement": 1}, {"flavor": 3})
"""The pieces after the subject, and how many terms of which kinds each takes. The first is one piece: "a painting by
Claude Monet"."""

SPARE = 8
"""How many terms of a kind are looked through for one whose words the prompt does not hold yet."""


def compose_classic(task: ComposeInput) -> list[Candidate]:
    """The subject and the best terms of each kind in a fixed order, cut to the budget; gains are estimated."""
    ranked = task.ranker.per_kind(task.queries, SPARE)
    rows = {each.text: each.row for kinds in ranked for found in kinds.values() for each in found}
    return estimate(task, _drafts(task, task.starts(), ranked), rows)


def draft_classic(task: ComposeInput, starts: Sequence[Part | None]) -> list[list[Piece]]:
    """The same as pieces, not scored; `starts` as `ComposeInput.starts` gives them."""
    return _drafts(task, starts, task.ranker.per_kind(task.queries, SPARE))


def _drafts(
    task: ComposeInput, starts: Sequence[Part | None], ranked: Sequence[Mapping[str, Sequence[ScoredFragment]]]
) -> list[list[Piece]]:
    return [cut_pieces(_pieces(start, found), task.budget) for start, found in zip(starts, ranked, strict=True)]


def _pieces(start: Part | None, ranked: Mapping[str, Sequence[ScoredFragment]]) -> list[Piece]:
    pieces: list[Piece] = [(start,)] if start else []
    prompt = start.text if start else ""
    for kinds in LAYOUT:
        parts: list[Part] = []
        for kind, count in kinds.items():
            parts += [fragment_part(each) for each in new_words(prompt, ranked.get(kind, ()), count)]
            prompt = append(prompt, ", ".join(part.text for part in parts))
        together = len(kinds) > 1
        pieces += [tuple(parts)] if together and parts else [(part,) for part in parts]
    return [piece for piece in pieces if piece_text(piece)]
