"""Mode "default": the subject, or the best prompt of the library, with those few fragments that earn their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unprompt.search.chain import ChainOptions, search_chain
from unprompt.search.modes.common import ComposeInput
from unprompt.search.modes.pools import chain_candidate, pool_of
from unprompt.search.rounds import advance_together
from unprompt.search.words import holds_words
from unprompt.types import Candidate, Part

if TYPE_CHECKING:
    from unprompt.search.results import ScoredFragment

MIN_GAIN = 0.02
"""How much a fragment must add to the cosine with the picture; less is noise of the encoder rather than evidence.

With `starter`, 63,669 prompts and 111,892 fragments, a step of 0.01 brought 22 of 49 pictures of the open domain nearer
to their true prompt and took 20 away from it; one of 0.02 brought 16 nearer and took 10 away.
"""

MAX_FRAGMENTS = 6
FRAGMENTS_PER_KIND = 12
"""How many of each kind's best fragments are tried."""

MIN_PERCENTILE = 0.9
"""Where the vocabulary is calibrated, a fragment must fit the picture better than this share of reference pictures:
some fit whatever picture they are compared with."""

NEAR_DUPLICATE = 0.8
KIND_LIMITS = {"artist": 2, "medium": 1, "movement": 1, "trending": 1}

OPTIONS = ChainOptions(
    max_parts=MAX_FRAGMENTS, part_cost=MIN_GAIN, near_duplicate=NEAR_DUPLICATE, kind_limits=KIND_LIMITS
)


def compose_default(task: ComposeInput) -> list[Candidate]:
    """Extends each subject by the few fragments that earn their place; without a subject the best fragment starts."""
    starts = task.starts()
    vocabulary = task.ranker.vocabulary
    ranked = task.ranker.per_kind(task.queries, FRAGMENTS_PER_KIND)
    pools = [
        pool_of(vocabulary, [each.row for kind, found in kinds.items() for each in evident(kind, found, start)], query)
        for kinds, query, start in zip(ranked, task.queries, starts, strict=True)
    ]
    searches = [
        search_chain(query, start.text if start else "", pool.pool, task.budget.fits, OPTIONS)
        for query, start, pool in zip(task.queries, starts, pools, strict=True)
    ]
    chains = advance_together(searches, task.encode_texts)
    return [
        chain_candidate(start, chain, pool, vocabulary)
        for start, chain, pool in zip(starts, chains, pools, strict=True)
    ]


def evident(kind: str, found: Sequence[ScoredFragment], start: Part | None = None) -> list[ScoredFragment]:
    """Those that may say more of a picture than `start` does.

    None of a negative kind, none that fits most pictures as well, and none whose fragment stands there already: to
    "portrait by Claude Monet", "inspired by Claude Monet" adds nothing.
    """
    from unprompt.search.ranker import is_negative

    if is_negative(kind):
        return []
    evidence = [each for each in found if each.percentile is None or each.percentile >= MIN_PERCENTILE]
    return [each for each in evidence if start is None or not holds_words(start.text, each.fragment.text)]
