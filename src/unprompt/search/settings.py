"""How a query is to be answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unprompt.errors import QueryError
from unprompt.search.policy import Policy
from unprompt.search.rank_options import RankOptions
from unprompt.search.ranker import FragmentRanker

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary
    from unprompt.index.where import Where

NEAR_DUPLICATE = 0.95

DEFAULT = "default"
FAST = "fast"
NEGATIVE = "negative"
RETRIEVE = "retrieve"
"""The mode that composes nothing, see `unprompt.search.retrieved`."""
CAPTIONS = "captions"
INGREDIENTS = ("neighbours", "prompts", "composed", CAPTIONS)
"""Where the candidates for a default answer come from: the prompts of the nearest pictures, the prompts whose text is
near the picture, those that are composed of either and fragments, and what captioners write."""


@dataclass(frozen=True)
class Settings:
    """Everything about an answer but how many of each to return.

    Attributes:
        mode: how the final prompt is composed, one of `unprompt.search.modes.MODES`, or `RETRIEVE`, which answers with
            the library's best prompt and, unless `ranking` names kinds, looks for no fragments.
        target: what the prompt must fit into, as `unprompt.search.budget.load_budget` names it.
        subject: what the final prompt begins with; None takes it from the library.
        captioned: whether the engine's captioners say what it begins with, where they can; in the modes that begin with
            a subject: not `DEFAULT`, where captions are candidates, nor `RETRIEVE` and `NEGATIVE`.
        negative: also compose a negative prompt.
        ranking: which fragments may be found and how they are ordered; near-duplicates are left out by default.
        policy: what may not be said, and what stands before and after.
        rerank: whether the default mode orders candidates by the learnt ranker; if not, it answers with the library's
            best prompt and the fragments that earn their place beside it.
        ingredients: where those candidates come from, any of `INGREDIENTS`.
        where: which pictures may be found, from `unprompt.index.where_parser.parse_where`; None for all.
    """

    mode: str = DEFAULT
    target: str = "clip"
    subject: str | None = None
    captioned: bool = False
    negative: bool = False
    ranking: RankOptions = field(default_factory=lambda: RankOptions(collapse=NEAR_DUPLICATE))
    policy: Policy = field(default_factory=Policy)
    rerank: bool = True
    ingredients: tuple[str, ...] = INGREDIENTS
    where: Where | None = None

    def __post_init__(self) -> None:
        from unprompt.search.modes import MODES

        known = (*MODES, RETRIEVE)
        if self.mode not in known:
            raise QueryError(f"unknown mode {self.mode!r}: use one of {', '.join(known)}")
        if self.mode == RETRIEVE and self.subject is not None:
            raise QueryError(f"mode {RETRIEVE} answers with the library's prompts; leave the subject out")
        if self.subject is not None and not self.subject.strip():
            raise QueryError("the subject is blank; say what the picture shows, or leave it out")
        if self.captioned and (self.subject is not None or not self.begins_with_subject):
            raise QueryError(f"captioners write no subject in mode {self.mode} nor beside a given one; leave one out")
        for name in self.ingredients:
            if name not in INGREDIENTS:
                raise QueryError(f"unknown ingredient {name!r}: use any of {', '.join(INGREDIENTS)}")
        if self.rerank and not self.ingredients:
            raise QueryError(f"there is no ingredient to make an answer of: use any of {', '.join(INGREDIENTS)}")

    @property
    def begins_with_subject(self) -> bool:
        """Whether the mode begins its prompts with a subject that somebody has to name."""
        return self.mode not in (DEFAULT, RETRIEVE, NEGATIVE)

    @property
    def wants_captions(self) -> bool:
        """Whether captions are candidates or subjects, so that captioners are worth loading."""
        if self.captioned:
            return True
        return self.mode == DEFAULT and self.subject is None and self.rerank and CAPTIONS in self.ingredients


def check_settings(vocabulary: Vocabulary, settings: Settings) -> None:
    """Checks settings against a vocabulary, without an encoder.

    Raises:
        QueryError: a kind or namespace is not in the vocabulary, or percentiles are asked of one that has none.
    """
    FragmentRanker(vocabulary, settings.ranking)
