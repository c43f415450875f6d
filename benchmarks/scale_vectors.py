"""Clustered vectors to measure indexes with; numpy alone, so that any environment can make them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating[Any]]

LATENT = 48
"""Embeddings of pictures vary in a few dozen directions, whatever their dimension."""
CLUSTER = 250
"""Rows a cluster on average; sizes follow a power law, as those of prompts do."""
SPREAD = 0.7
NOISE = 0.15
FILE_ROWS = 50_000
QUERIES = "queries.npy"


def mixture(rows: int, dim: int, corpus_rows: int, seed: int) -> NDArray[np.float32]:
    """Draws (rows, dim) unit vectors from the mixture of a corpus of `corpus_rows`; another seed draws other rows.

    A cluster's centre and its spread lie in `LATENT` dimensions, which a fixed random projection embeds in `dim`; on
    top comes a little noise in all of them.
    """
    shape = np.random.default_rng(7)
    clusters = max(1, corpus_rows // CLUSTER)
    centres = shape.standard_normal((clusters, LATENT)).astype(np.float32)
    projection = shape.standard_normal((LATENT, dim)).astype(np.float32) / np.sqrt(dim)
    weights = 1.0 / np.arange(1, clusters + 1) ** 0.6
    own = np.random.default_rng([seed, 11])
    chosen = own.choice(clusters, size=rows, p=weights / weights.sum())
    latent = centres[chosen] + SPREAD * own.standard_normal((rows, LATENT), dtype=np.float32)
    vectors = latent @ projection + NOISE * own.standard_normal((rows, dim), dtype=np.float32) * np.sqrt(LATENT / dim)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def write_corpus(folder: Path, rows: int, dim: int, queries: int) -> None:
    """Writes a corpus as clip-retrieval does, ``img_emb/img_emb_0000.npy`` ..., and queries that it does not hold."""
    (folder / "img_emb").mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, rows, FILE_ROWS)):
        part = mixture(min(FILE_ROWS, rows - start), dim, rows, seed=1000 + number)
        np.save(folder / "img_emb" / f"img_emb_{number:04d}.npy", part)
    np.save(folder / QUERIES, mixture(queries, dim, rows, seed=1))


def read_corpus(folder: Path, block: int = 4096) -> Iterator[NDArray[np.float32]]:
    """The corpus in blocks, in order."""
    for path in sorted((folder / "img_emb").glob("*.npy")):
        stored = np.load(path, mmap_mode="r")
        for start in range(0, len(stored), block):
            yield np.ascontiguousarray(stored[start : start + block], dtype=np.float32)
