"""Mode "negative": what the picture is not, for the negative prompt beside the prompt proper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain as concatenated
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unprompt.search.chain import ChainOptions, search_chain
from unprompt.search.chains import Chain
from unprompt.search.modes.common import ComposeInput
from unprompt.search.modes.pools import VocabularyPool, chain_candidate, pool_of
from unprompt.search.modes.wording import is_scrap
from unprompt.search.rounds import advance_together
from unprompt.types import Candidate, Part

if TYPE_CHECKING:
    from unprompt.index.calibration import Calibration
    from unprompt.index.vocabulary import Vocabulary
    from unprompt.search.ranker import FragmentRanker

FLAVOR = "flavor"

FLAVORS = 2048
"""How many of the least similar flavors are searched where the vocabulary is not calibrated."""

OPTIONS = ChainOptions(passes=32, tried=96, part_cost=0.01, near_duplicate=0.8)
"""What is foreseen of unlikeness is not much, so many fragments are tried a pass."""

SHOWN = 0.99
"""A flavor's cosine with the reference picture of this percentile is what it has with pictures that do show it."""

CLEAR = 0.1
"""Which share of the flavors is looked at there, but `MISSING` at least: those with the greatest such cosine."""

MISSING = 64
"""How many flavors are searched where the vocabulary is calibrated: those whose cosine is furthest below that."""

LEADING = replace(OPTIONS, tried=32, max_parts=12)
FOLLOWING = replace(LEADING, max_parts=6)


def compose_negative(task: ComposeInput) -> list[Candidate]:
    """The chain with the least cosine, of all terms of negative kinds and the flavors that fit least.

    Where the vocabulary is not calibrated, the least similar flavors are searched together with the terms of negative
    kinds, as CLIP Interrogator does; they are mostly flavors that fit no picture at all ("essentially arbitrary").
    Where it is, terms of negative kinds lead, and flavors follow that do fit other pictures, far better than this one.

    The subjects are not used. The search maximises the cosine with the negated query from its first step to its last,
    so no sign can be forgotten on the way; what is returned has the true cosines, and gains below zero where a part
    took the prompt further from the picture.
    """
    ranker = task.ranker
    calibration = ranker.vocabulary.calibration
    always = _negative_rows(ranker)
    if calibration is None:
        found = _search(task, [None] * len(task.queries), [[*always, *rows] for rows in _lowest(task)], OPTIONS)
    else:
        leading = _search(task, [None] * len(task.queries), [always] * len(task.queries), LEADING)
        found = _search(task, leading, _missing(task, calibration), FOLLOWING)
    return [_as_seen(candidate) for candidate in found]


def _search(
    task: ComposeInput, leading: Sequence[Candidate | None], rows: Sequence[Sequence[int]], options: ChainOptions
) -> list[Candidate]:
    """What each candidate, whose cosines are with the negated query, becomes by the best of the terms in these rows."""
    vocabulary = task.ranker.vocabulary
    away = -task.queries
    pools = [pool_of(vocabulary, own, query) for own, query in zip(rows, away, strict=True)]
    searches = [
        search_chain(query, start.prompt if start else "", pool.pool, task.budget.fits, options)
        for query, start, pool in zip(away, leading, pools, strict=True)
    ]
    chains = advance_together(searches, task.encode_texts)
    return [_extended(*each, task.ranker) for each in zip(leading, chains, pools, strict=True)]


def _extended(start: Candidate | None, chain: Chain, pool: VocabularyPool, ranker: FragmentRanker) -> Candidate:
    if start is None or not start.parts:
        return chain_candidate(None, chain, pool, ranker.vocabulary)
    whole = Part(start.prompt, "", "", start.score)
    found = chain_candidate(whole, chain, pool, ranker.vocabulary)
    return replace(found, parts=(*start.parts, *found.parts[1:]))


def _negative_rows(ranker: FragmentRanker) -> list[int]:
    from unprompt.search.ranker import is_negative

    ranges = [range(*rows) for kind, rows in ranker.vocabulary.kind_ranges.items() if is_negative(kind)]
    return [row for row in concatenated.from_iterable(ranges) if ranker.allowed[row]]


def _lowest(task: ComposeInput) -> list[list[int]]:
    """For each picture the rows of the least similar flavors."""
    if FLAVOR not in task.ranker.kinds:
        return [[] for _ in task.queries]
    return [[each.row for each in found] for found in task.ranker.lowest(task.queries, FLAVORS, [FLAVOR])]


def _missing(task: ComposeInput, calibration: Calibration) -> list[list[int]]:
    """For each picture the rows of flavors that fit it worst beside the pictures that they fit best."""
    ranker = task.ranker
    if FLAVOR not in ranker.kinds:
        return [[] for _ in task.queries]
    first, stop = ranker.vocabulary.kind_ranges[FLAVOR]
    rows = np.flatnonzero(ranker.allowed[first:stop]) + first
    shown = calibration.thresholds(rows, SHOWN)
    clear = shown >= np.sort(shown)[-min(len(shown), max(MISSING, round(CLEAR * len(shown))))]
    return [_furthest_below(shown[clear], query, rows[clear], ranker.vocabulary) for query in task.queries]


def _furthest_below(
    shown: NDArray[np.float64], query: NDArray[np.float32], rows: NDArray[np.intp], vocabulary: Vocabulary
) -> list[int]:
    lacking = (shown - vocabulary.matrix[rows] @ query).round(6)  # rounded, as elsewhere: last bits depend on threads
    order = rows[np.lexsort((rows, -lacking))].tolist()
    return list(islice((row for row in order if not is_scrap(vocabulary.terms[row])), MISSING))


def _as_seen(candidate: Candidate) -> Candidate:
    """Cosines with the picture again, instead of with what is opposite to it."""
    parts = tuple(replace(part, score=0.0 - part.score, gain=0.0 - part.gain) for part in candidate.parts)
    return replace(candidate, score=0.0 - candidate.score, parts=parts)
