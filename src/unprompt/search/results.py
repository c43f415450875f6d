"""What a query answers with, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unprompt.types import Candidate, Fragment, Hit, Record


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A picture of the library that is near the query, and the prompt that made it."""

    hit: Hit
    record: Record

    def to_dict(self) -> dict[str, Any]:
        """The keys id, prompt, score (cosine) and rank (1 is nearest)."""
        return {
            "id": self.hit.id,
            "prompt": self.record.prompt,
            "score": number(self.hit.score),
            "rank": self.hit.rank,
        }


@dataclass(frozen=True, slots=True)
class RankedPrompt:
    """A prompt of the library, ranked by all the evidence for it.

    Attributes:
        prompt: as it stands in the library.
        score: in (0, 1], what the list is ordered by: fused ranks, where 1 is first in every ranking; see `fuse`.
        source: who found it: "neighbour:ID" (the nearest picture that it made), "prompts" (its text is near the
            picture), or "neighbour:ID+prompts".
    """

    prompt: str
    score: float
    source: str

    def to_dict(self) -> dict[str, Any]:
        """The keys prompt, score and source."""
        return {"prompt": self.prompt, "score": number(self.score), "source": self.source}


ScoredFragments = Mapping[str, list[tuple[Fragment, float]]]
"""By kind, the fragments nearest a picture with their cosines, best first."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer for one picture.

    Attributes:
        image: the picture's path as it was given, or a name that says where it stood among the query's pictures.
        final: the one prompt to use, with the evidence for each of its parts.
        prompts: the top-k prompts of the library, best first.
        neighbours: the top-k pictures of the library, nearest first.
        fragments: for each kind asked for, its top-k fragments.
        recorded: the prompt in the picture's own metadata, None when it carries none.
    """

    image: str
    final: Candidate
    prompts: tuple[RankedPrompt, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    fragments: ScoredFragments = field(default_factory=dict)
    recorded: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON's types, with keys that stay as they are from release to release."""
        parts = [
            {"text": part.text, "source": part.source, "kind": part.kind, "score": number(part.score)}
            for part in self.final.parts
        ]
        return {
            "image": self.image,
            "final": {"prompt": self.final.prompt, "score": number(self.final.score), "parts": parts},
            "prompts": [prompt.to_dict() for prompt in self.prompts],
            "neighbours": [neighbour.to_dict() for neighbour in self.neighbours],
            "fragments": {
                kind: [{"text": fragment.text, "score": number(score)} for fragment, score in found]
                for kind, found in self.fragments.items()
            },
            "recorded": self.recorded,
        }


def number(score: float) -> float:
    """A score as JSON shows it: a plain float with six decimals, about what float32 holds."""
    return round(float(score), 6)
