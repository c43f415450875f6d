"""Which prompts each picture's neighbours have, without the picture's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from unprompt.captioners.data.corpus import Neighbours
from unprompt.captioners.data.pairs import Pair
from unprompt.index.vector_index import VectorIndex
from unprompt.types import Embeddings

BLOCK = 1024
Rows = NDArray[np.int64]


def find_neighbours(
    pairs: Sequence[Pair],
    pictures: Embeddings,
    k: int,
    encode_texts: Callable[[Sequence[str]], Embeddings],
) -> Neighbours:
    """The k prompts, distinct by group, of the training pictures nearest to each picture.

    A picture's own group is left out, for training pictures would else be told what they are to write, and at query
    time nothing tells it.

    Args:
        pairs: N pairs of all splits; only those of the training split are neighbours.
        pictures: (N, D) of an image encoder.
        k: how many.
        encode_texts: embeds prompts.
    """
    groups = _numbers([pair.group for pair in pairs])
    train = np.array([i for i, pair in enumerate(pairs) if pair.split == "train"], dtype=np.int64)
    prompts: dict[str, int] = {}
    prompt_of = np.array([prompts.setdefault(pairs[i].prompt, len(prompts)) for i in train], dtype=np.int64)
    corpus = np.ascontiguousarray(pictures[train], dtype=np.float32)
    index = VectorIndex.build(lambda: iter([corpus]), len(corpus), corpus.shape[1])
    nearest = np.full((len(pairs), k), -1, dtype=np.int64)
    pending = np.arange(len(pairs), dtype=np.int64)
    fetch = min(len(train), 8 * (k + 1))
    while len(pending):
        left = []
        for start in range(0, len(pending), BLOCK):
            rows = pending[start : start + BLOCK]
            _, found = index.search(np.ascontiguousarray(pictures[rows], dtype=np.float32), fetch)
            for row, hits in zip(rows.tolist(), found, strict=True):
                chosen = _distinct(hits, train, groups, int(groups[row]), k)
                nearest[row, : len(chosen)] = prompt_of[chosen]
                if len(chosen) < k and fetch < len(train):
                    left.append(row)
        # Where one group fills the whole neighbourhood, look further.
        pending, fetch = np.array(left, dtype=np.int64), min(len(train), fetch * 4)
    return Neighbours(encode_texts(list(prompts)), nearest)


def _distinct(hits: Sequence[int], train: Rows, groups: Rows, own: int, k: int) -> list[int]:
    """The first k hits, as rows of the training pictures, one of each group but the picture's own."""
    seen = {own}
    chosen: list[int] = []
    for hit in hits:
        if hit < 0 or len(chosen) == k:
            break
        group = int(groups[train[hit]])
        if group not in seen:
            seen.add(group)
            chosen.append(int(hit))
    return chosen


def _numbers(names: Sequence[str]) -> Rows:
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)
