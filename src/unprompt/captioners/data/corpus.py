"""A split as the trainer reads it: token ids, cached features and neighbours, in batches of similar length."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from unprompt.captioners.interface import Memory
from unprompt.captioners.training.accumulate import Batch
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.captioners.features import FeatureCache

Rows = NDArray[np.int64]
WINDOW = 16
"""Batches that are sorted by length together: enough to save padding, few enough to keep an epoch mixed."""


@dataclass(frozen=True)
class Neighbours:
    """The prompts of the pictures nearest to each picture.

    Attributes:
        embeddings: (P, E) sentence embeddings of distinct prompts.
        nearest: (N, K) rows of `embeddings`, nearest first; -1 where there are fewer.
    """

    embeddings: Embeddings
    nearest: Rows

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over both arrays."""
        whole = hashlib.sha256(np.ascontiguousarray(self.nearest).tobytes())
        whole.update(np.ascontiguousarray(self.embeddings).tobytes())
        return whole.hexdigest()[:16]

    def of(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, K, E) float32 and a (B, K) mask that is True where there is a neighbour."""
        chosen = self.nearest[rows]
        mask = chosen >= 0
        return torch.from_numpy(self.embeddings[np.where(mask, chosen, 0)]), torch.from_numpy(mask)


@dataclass(frozen=True)
class Corpus:
    """The captions of one split.

    Attributes:
        tokens: N rows of token ids.
        pad: fills them up to the longest of a batch.
        seed: of the order.
        cache: the pictures' features; None for prompts alone.
        features: (N, 1 + views) rows of the cache.
        neighbours: N rows, or None.
        files: (N,) number of the file a picture is in; one random picture of each file makes an epoch. None takes all.
        shuffled: False gives the same order each epoch, and always the first view.
    """

    tokens: Sequence[Sequence[int]]
    pad: int
    seed: int = 0
    cache: FeatureCache | None = None
    features: Rows | None = None
    neighbours: Neighbours | None = None
    files: Rows | None = None
    shuffled: bool = True

    def __len__(self) -> int:
        return len(self.tokens)

    def count(self, size: int) -> int:
        """How many batches of at most ``size`` captions an epoch has."""
        items = len(self.tokens) if self.files is None else len(np.unique(self.files))
        return -(-items // size)

    def order(self, size: int, epoch: int) -> list[tuple[Rows, Rows]]:
        """The batches of an epoch: rows, and the view of each."""
        lengths = np.array([len(row) for row in self.tokens], dtype=np.int64)
        if not self.shuffled:
            ordered = np.argsort(lengths, kind="stable")
            return [(rows, np.zeros_like(rows)) for rows in _cut(ordered, size)]
        rng = np.random.default_rng([self.seed, epoch])
        rows = rng.permutation(len(self.tokens))
        if self.files is not None:
            rows = rng.permutation(rows[np.unique(self.files[rows], return_index=True)[1]])
        views = rng.integers(0, 1 if self.features is None else self.features.shape[1], len(rows))
        batches = []
        for window in _cut(np.arange(len(rows)), size * WINDOW):
            window = window[np.argsort(lengths[rows[window]], kind="stable")]
            batches += [(rows[part], views[part]) for part in _cut(window, size)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def load(self, batch: tuple[Rows, Rows]) -> Batch:
        """Reads the features and neighbours of one batch, as float32."""
        rows, views = batch
        captions = [self.tokens[row] for row in rows]
        tokens = torch.full((len(rows), max(map(len, captions))), self.pad)
        for i, caption in enumerate(captions):
            tokens[i, : len(caption)] = torch.tensor(caption)
        if self.cache is None or self.features is None:
            return Batch(None, tokens)
        grid = torch.from_numpy(self.cache.read(self.features[rows, views])).float()
        if self.neighbours is None:
            return Batch(Memory(grid), tokens)
        return Batch(Memory(grid, *self.neighbours.of(rows)), tokens)


def _cut(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
