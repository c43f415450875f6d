"""What all modes share: their input, prompts as parts, and how these are cut to the budget and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from unprompt.search.rounds import EncodeTexts
from unprompt.search.words import append
from unprompt.types import Candidate, Embeddings, Fragment, Part

if TYPE_CHECKING:
    from unprompt.search.budget import TokenBudget
    from unprompt.search.ranker import FragmentRanker
    from unprompt.search.results import ScoredFragment

VOCABULARY = "vocabulary"

Piece = tuple[Part, ...]
"""Parts that stand between two commas of a prompt, joined by spaces: mostly one, sometimes a medium and its artist."""


@dataclass(frozen=True)
class ComposeInput:
    """What a mode composes from.

    Attributes:
        queries: (Q, D), the embedded pictures.
        subjects: what each prompt begins with, Q of them; None where nothing is known. Their scores are not read.
        ranker: the vocabulary, and which of its terms are allowed.
        encode_texts: embeds N texts as (N, D).
        budget: how long a prompt may be.
    """

    queries: Embeddings
    subjects: Sequence[Part | None]
    ranker: FragmentRanker
    encode_texts: EncodeTexts
    budget: TokenBudget

    def __post_init__(self) -> None:
        if len(self.subjects) != len(self.queries):
            raise ValueError(f"{len(self.queries)} queries came with {len(self.subjects)} subjects")

    def starts(self) -> list[Part | None]:
        """The subjects as the policy and the budget allow them; None where nothing is left."""
        return [None if subject is None else self._start(subject) for subject in self.subjects]

    def _start(self, subject: Part) -> Part | None:
        text = self.ranker.clean(subject.text)
        kept = text if not text.strip() or self.budget.fits([text])[0] else "".join(self.budget.cut([text]))
        return replace(subject, text=kept, score=0.0, gain=0.0) if kept.strip() else None


def fragment_part(found: ScoredFragment) -> Part:
    """A ranked fragment as a part of a prompt."""
    return Part(found.text, source_of(found.fragment), found.fragment.kind, found.score)


def source_of(fragment: Fragment) -> str:
    """How parts name the list that a fragment came from."""
    return f"{VOCABULARY}:{fragment.source}" if fragment.source else VOCABULARY


def piece_text(piece: Piece) -> str:
    """The piece as it stands in the prompt."""
    return " ".join(part.text for part in piece)


def cut_pieces(pieces: Sequence[Piece], budget: TokenBudget) -> list[Piece]:
    """The leading pieces that fit the budget together; what does not even fit alone at the start is left out."""
    pieces = list(pieces)
    while pieces and not budget.fits([piece_text(pieces[0])])[0]:
        pieces[:1] = [pieces[0][:-1]] if len(pieces[0]) > 1 else []
    low, high = min(1, len(pieces)), len(pieces)
    while low < high:
        middle = (low + high + 1) // 2
        if budget.fits([_joined(pieces[:middle])])[0]:
            low = middle
        else:
            high = middle - 1
    return pieces[:low]


def prompts_of(drafts: Sequence[Sequence[Piece]]) -> list[str]:
    """The prompts that drafts stand for; "" for an empty one."""
    return [_joined(pieces) for pieces in drafts]


def measure(task: ComposeInput, drafts: Sequence[Sequence[Piece]]) -> list[Candidate]:
    """Scores Q drafts, and in each what every part brought: all that leads up to a part is encoded, in one call."""
    steps = [_steps(pieces) for pieces in drafts]
    texts = list(dict.fromkeys(text for prompts in steps for text in prompts))
    if not texts:
        return [Candidate("", 0.0) for _ in drafts]
    position = {text: i for i, text in enumerate(texts)}
    embeddings = task.encode_texts(texts).astype(np.float64)
    candidates = []
    for query, pieces, prompts in zip(task.queries, drafts, steps, strict=True):
        rows = embeddings[[position[text] for text in prompts]]
        scores = [0.0, *(rows @ query.astype(np.float64)).round(6).tolist()]
        parts = [part for piece in pieces for part in piece]
        gains = [after - before for before, after in pairwise(scores)]
        parts = [replace(part, gain=gain) for part, gain in zip(parts, gains, strict=True)]
        if parts and not parts[0].source.startswith(VOCABULARY):  # the subject, whose own cosine was not known
            parts[0] = replace(parts[0], score=scores[1])
        candidates.append(Candidate(prompts[-1] if prompts else "", scores[-1], tuple(parts)))
    return candidates


def _joined(pieces: Sequence[Piece]) -> str:
    text = ""
    for piece in pieces:
        text = append(text, piece_text(piece))
    return text


def _steps(pieces: Sequence[Piece]) -> list[str]:
    """The prompt after each of its parts."""
    steps: list[str] = []
    before = ""
    for piece in pieces:
        steps += [append(before, piece_text(piece[: i + 1])) for i in range(len(piece))]
        before = steps[-1]
    return steps
