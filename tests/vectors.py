"""Unit vectors to index."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unprompt.types import Embeddings


def unit(rows: int, dim: int = 16, seed: int = 0) -> Embeddings:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(rows: int, dim: int = 16) -> Embeddings:
    centres, noise = unit(rows // 50, dim, seed=1), unit(rows, dim, seed=2)
    vectors = centres[np.arange(rows) % len(centres)] + 0.3 * noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def blocks_of(vectors: Embeddings, size: int = 300) -> Iterator[Embeddings]:
    return (vectors[i : i + size] for i in range(0, len(vectors), size))
