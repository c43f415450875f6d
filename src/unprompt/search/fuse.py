"""Merging ranked lists of prompts into one."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)

RRF_K = 60
"""The constant of Cormack et al.: how little the first ranks of a list stand out from the next."""


def reciprocal_rank_fusion(rankings: Sequence[Sequence[Item]], k: int = RRF_K) -> list[tuple[Item, float]]:
    """Merges rankings by reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009).

    An item's score is the sum of 1 / (k + rank) over the rankings that hold it, divided by what the first place in all
    of them would give: 1.0 is the best there can be, and what only one of n rankings holds has at most 1 / n. Items of
    equal score are ordered by their best rank, then by which ranking gave it.

    Args:
        rankings: each best first. An item that stands twice in a ranking counts at its first place; empty rankings are
            evidence for nothing and do not count.
        k: at least 0.

    Returns:
        Every distinct item with its score in (0, 1], best first.

    Raises:
        ValueError: `k` is negative.

    Example:
        >>> reciprocal_rank_fusion([["a", "b"], ["b"]], k=0)
        [('b', 0.75), ('a', 0.5)]
    """
    if k < 0:
        raise ValueError(f"k of reciprocal rank fusion is {k}, expected 0 or more")
    filled = [ranking for ranking in rankings if ranking]
    places: dict[Item, list[tuple[int, int]]] = {}  # item -> (rank, which ranking)
    for number, ranking in enumerate(filled):
        for rank, item in enumerate(ranking, start=1):
            found = places.setdefault(item, [])
            if not any(other == number for _, other in found):
                found.append((rank, number))
    # fsum rounds once, so that the order of the rankings cannot break a tie by a last bit.
    scores = {item: math.fsum((k + 1) / (k + rank) for rank, _ in found) for item, found in places.items()}
    order = sorted(places, key=lambda item: (-scores[item], min(places[item])))
    return [(item, scores[item] / len(filled)) for item in order]
