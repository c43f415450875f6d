"""Mode "negative": what the picture is not, for the negative prompt beside the prompt proper."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain as concatenated

from unprompt.search.chain import search_chain
from unprompt.search.chain_options import ChainOptions
from unprompt.search.modes.common import ComposeInput
from unprompt.search.modes.pools import chain_candidate, pool_of
from unprompt.search.rounds import advance_together
from unprompt.types import Candidate

FLAVORS = 2048
"""How many of the least similar flavors are searched."""

OPTIONS = ChainOptions(explored=64, survivors=24, patience=2, part_cost=0.01, near_duplicate=0.8)


def compose_negative(task: ComposeInput) -> list[Candidate]:
    """The chain with the least cosine, of the least similar flavors and all terms of negative kinds.

    The subjects are not used. The search maximises the cosine with the negated query from its first step to its last,
    so no sign can be forgotten on the way; what is returned has the true cosines, and gains below zero where a part
    took the prompt further from the picture.
    """
    from unprompt.search.ranker import is_negative

    ranker = task.ranker
    negative = [
        range(first, stop) for kind, (first, stop) in ranker.vocabulary.kind_ranges.items() if is_negative(kind)
    ]
    always = [row for row in concatenated.from_iterable(negative) if ranker.allowed[row]]
    flavors = [kind for kind in ("flavor",) if kind in ranker.kinds]
    lowest = ranker.lowest(task.queries, FLAVORS, flavors) if flavors else [[] for _ in task.queries]
    away = -task.queries
    pools = [
        pool_of(ranker.vocabulary, [*always, *(each.row for each in found)], query)
        for found, query in zip(lowest, away, strict=True)
    ]
    searches = [
        search_chain(query, "", pool.pool, task.budget.fits, OPTIONS) for query, pool in zip(away, pools, strict=True)
    ]
    chains = advance_together(searches, task.encode_texts)
    found = [chain_candidate(None, each, pool, ranker.vocabulary) for each, pool in zip(chains, pools, strict=True)]
    return [_as_seen(candidate) for candidate in found]


def _as_seen(candidate: Candidate) -> Candidate:
    """Cosines with the picture again, instead of with what is opposite to it."""
    parts = tuple(replace(part, score=0.0 - part.score, gain=0.0 - part.gain) for part in candidate.parts)
    return replace(candidate, score=0.0 - candidate.score, parts=parts)
