"""How texts are divided into forward passes: by their numbers of tokens, for one core each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapreplace

import torch

TOKEN_BUDGET = 1024
"""Tokens of one forward pass on a CPU: enough to fill the matrix products, few enough to stay in the cache."""
LEAST_TOKENS = 32
"""Tokens for which a pass of their own is worth reading all weights once more: with fewer it takes most of the time."""
DEALT_WAVES = 4
"""Passes a core up to which texts are dealt out evenly. Where there are more, texts of a length had better stay
together, and it matters little that one core ends later."""
ASSUMED_CORES = 4
"""What texts are dealt to where the number of cores would show in the results, see `passes`."""


def passes(lengths: Sequence[int], stand_alone: bool, least: int = LEAST_TOKENS) -> list[list[int]]:
    """Positions of the texts in forward passes on a CPU: as many passes of the same size as keep all cores busy.

    Args:
        lengths: tokens of each text.
        stand_alone: whether embeddings are the same however texts are divided into passes.
        least: tokens that are worth a pass.

    """
    cores = torch.get_num_threads() if stand_alone else ASSUMED_CORES
    waves = -(-sum(lengths) // (cores * TOKEN_BUDGET))
    if waves > DEALT_WAVES:
        *full, last = batches(lengths, TOKEN_BUDGET)
        return [*full, last] if sum(lengths[i] for i in last) >= least else [*full[:-1], full[-1] + last]
    for count in range(min(cores * waves, len(lengths)), 1, -1):
        dealt = deal(lengths, count)
        if min(sum(lengths[i] for i in batch) for batch in dealt) >= least:
            return dealt
    return deal(lengths, 1)


def deal(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Positions of the texts by falling length in `count` batches, each text in the one with the fewest tokens so far.

    No batch exceeds the best possible size by a third (Graham, "Bounds on multiprocessing timing anomalies", 1969).
    """
    dealt: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, number) for number in range(count)]
    for position in _by_falling_length(lengths):
        load, number = loads[0]
        dealt[number].append(position)
        heapreplace(loads, (load + lengths[position], number))
    return [batch for batch in dealt if batch]


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions of the texts by falling length, in batches of at most ``budget`` tokens (one text at least)."""
    batch: list[int] = []
    total = 0
    for position in _by_falling_length(lengths):
        if batch and total + lengths[position] > budget:
            yield batch
            batch, total = [], 0
        batch.append(position)
        total += lengths[position]
    if batch:
        yield batch


def _by_falling_length(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
