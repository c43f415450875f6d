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

NEAR_DUPLICATE = 0.95


@dataclass(frozen=True)
class Settings:
    """Everything about an answer but how many of each to return.

    Attributes:
        mode: how the final prompt is composed, one of `unprompt.search.modes.MODES`.
        target: what the prompt must fit into, as `unprompt.search.budget.load_budget` names it.
        subject: what the final prompt begins with; None takes it from the library.
        negative: also compose a negative prompt.
        ranking: which fragments may be found and how they are ordered; near-duplicates are left out by default.
        policy: what may not be said, and what stands before and after.
    """

    mode: str = "default"
    target: str = "clip"
    subject: str | None = None
    negative: bool = False
    ranking: RankOptions = field(default_factory=lambda: RankOptions(collapse=NEAR_DUPLICATE))
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        from unprompt.search.modes import MODES

        if self.mode not in MODES:
            raise QueryError(f"unknown mode {self.mode!r}: use one of {', '.join(MODES)}")
        if self.subject is not None and not self.subject.strip():
            raise QueryError("the subject is blank; say what the picture shows, or leave it out")


def check_settings(vocabulary: Vocabulary, settings: Settings) -> None:
    """Checks settings against a vocabulary, without an encoder.

    Raises:
        QueryError: a kind or namespace is not in the vocabulary, or percentiles are asked of one that has none.
    """
    FragmentRanker(vocabulary, settings.ranking)
