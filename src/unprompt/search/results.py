"""What a query answers with, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from unprompt.types import Candidate, Fragment, Hit, Record


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A picture of the library that is near the query, and the prompt that made it.

    Within a search the record may still have to read its metadata from the library; that of a `QueryResult` has it.
    """

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


class ScoredFragment(NamedTuple):
    """A fragment as one of its terms fits a picture; a tuple, for thousands are made for a batch.

    Attributes:
        text: the term, as it stands in a prompt: "by X" for an artist.
        fragment: what the term renders.
        row: the term's row in the vocabulary.
        score: the cosine of the term with the picture, rounded once from float64.
        percentile: in (0, 1), which share of reference pictures the term fits less well; None without a calibration.
    """

    text: str
    fragment: Fragment
    row: int
    score: float
    percentile: float | None = None


ScoredFragments = Mapping[str, Sequence[ScoredFragment]]
"""By kind, the terms that fit a picture, best first."""


def fragments_to_dict(fragments: ScoredFragments) -> dict[str, Any]:
    """Kind -> its terms with the keys text and score, and percentile where the vocabulary is calibrated."""
    return {kind: [_term(each) for each in found] for kind, found in fragments.items()}


def _term(each: ScoredFragment) -> dict[str, Any]:
    term: dict[str, Any] = {"text": each.text, "score": number(each.score)}
    if each.percentile is not None:
        term["percentile"] = number(each.percentile)
    return term


@dataclass(frozen=True, slots=True)
class Analysis:
    """The terms that fit one picture, by kind."""

    image: str
    fragments: ScoredFragments

    def to_dict(self) -> dict[str, Any]:
        """The keys image and fragments."""
        return {"image": self.image, "fragments": fragments_to_dict(self.fragments)}


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer for one picture.

    Attributes:
        image: the picture's path as it was given, or a name that says where it stood among the query's pictures.
        final: the one prompt to use, with the evidence for each of its parts.
        prompts: the top-k prompts of the library, best first.
        neighbours: the top-k pictures of the library, nearest first.
        fragments: for each kind asked for, its top-k terms.
        recorded: the prompt in the picture's own metadata, None when it carries none.
        negative: a negative prompt, None when none was asked for.
    """

    image: str
    final: Candidate
    prompts: tuple[RankedPrompt, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    fragments: ScoredFragments = field(default_factory=dict)
    recorded: str | None = None
    negative: Candidate | None = None

    def __post_init__(self) -> None:
        """Completes the records: answers may outlive the library, and should not keep its tables in memory."""
        complete = tuple(Neighbour(each.hit, each.record.settled()) for each in self.neighbours)
        object.__setattr__(self, "neighbours", complete)

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON's types, with keys that stay as they are from release to release."""
        return {
            "image": self.image,
            "final": _candidate(self.final),
            "negative": _candidate(self.negative) if self.negative is not None else None,
            "prompts": [prompt.to_dict() for prompt in self.prompts],
            "neighbours": [neighbour.to_dict() for neighbour in self.neighbours],
            "fragments": fragments_to_dict(self.fragments),
            "recorded": self.recorded,
        }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    parts = [
        {
            "text": part.text,
            "source": part.source,
            "kind": part.kind,
            "score": number(part.score),
            "gain": number(part.gain),
        }
        for part in candidate.parts
    ]
    return {"prompt": candidate.prompt, "score": number(candidate.score), "parts": parts}


def number(score: float) -> float:
    """A score as JSON shows it: a plain float with six decimals, about what float32 holds."""
    return round(float(score), 6)
