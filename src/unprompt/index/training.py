"""Training and filling a FAISS index, with the centroids found by FAISS itself or by a `Clusterer`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unprompt.index.engine import load_faiss
from unprompt.types import Embeddings

log = logging.getLogger(__name__)

Blocks = Callable[[], Iterator[Embeddings]]
"""Gives the rows to index, in order, a block at a time; called twice for an index that is trained."""

POINTS_PER_CENTROID = 40
"""FAISS warns below 39. With 30, 50 and 97 recall was the same to 0.01, and k-means is most of a build."""
_OTHER_POINTS = 100_000
_SEED = 1234


class Clusterer(Protocol):
    """Spherical k-means somewhere other than in FAISS on this machine's cores."""

    def centroids(self, points: Embeddings, k: int) -> Embeddings:
        """(k, D) centroids of (N, D) points, of norm 1, the same every time."""
        ...

    def assign(self, vectors: Embeddings, centroids: Embeddings) -> NDArray[np.int64]:
        """(N,) the centroid with the largest inner product with each of (N, D) vectors."""
        ...


class Accelerator(Clusterer, Protocol):
    """A device that clusters, and may build whole indexes."""

    def build(self, index: Any, sample: Embeddings, blocks: Blocks) -> Any:
        """Trains and fills an empty index on the device and returns it on the CPU; None where it cannot."""
        ...


def sample_rows(blocks: Blocks, rows: NDArray[np.int64]) -> Embeddings:
    """The vectors of ascending rows, (len(rows), D) float32, in one pass over the blocks."""
    taken, start = [], 0
    for block in blocks():
        first, last = np.searchsorted(rows, [start, start + len(block)])
        taken.append(block[rows[first:last] - start])
        start += len(block)
    return np.ascontiguousarray(np.concatenate(taken), dtype=np.float32)


def training_sample(index: Any, blocks: Blocks, rows: int) -> Embeddings:
    """Draws what an index is trained on from all rows, the same ones every time."""
    lists = inverted_lists(index)
    wanted = min(rows, POINTS_PER_CENTROID * lists.nlist if lists is not None else _OTHER_POINTS)
    chosen = np.sort(np.random.default_rng(_SEED).choice(rows, size=wanted, replace=False))
    log.info("training the index on %d of %d vectors", wanted, rows)
    return sample_rows(blocks, chosen)


def train(index: Any, sample: Embeddings, clusterer: Clusterer | None = None) -> None:
    """Trains an index in place; with a `clusterer`, the centroids of its inverted lists are that one's."""
    lists = inverted_lists(index)
    if clusterer is not None and lists is not None and not _transformed(index):
        lists.quantizer.train(sample)
        lists.quantizer.add(clusterer.centroids(sample, lists.nlist))
    index.train(sample)


def add(index: Any, vectors: Embeddings, clusterer: Clusterer | None = None, first: int | None = None) -> None:
    """Appends vectors to a trained index.

    Args:
        index: of FAISS.
        vectors: (N, D) float32, C-contiguous.
        clusterer: finds the vectors' lists where FAISS accepts them; None for FAISS itself.
        first: the row number of the first vector, for inverted lists; None for the rows that there are.
    """
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    ids = np.arange(len(vectors), dtype=np.int64) + (index.ntotal if first is None else first)
    base = faiss.downcast_index(index.base_index) if isinstance(index, faiss.IndexRefine) else index
    if clusterer is None or not _takes_assignments(base):
        if first is None:
            index.add(vectors)
        else:
            index.add_with_ids(vectors, ids)
        return
    centroids = base.quantizer.reconstruct_n(0, base.nlist)
    chosen = np.ascontiguousarray(clusterer.assign(vectors, centroids), dtype=np.int64)
    base.add_core(len(vectors), faiss.swig_ptr(vectors), faiss.swig_ptr(ids), faiss.swig_ptr(chosen))
    if base is not index:
        index.refine_index.add(vectors)
        index.ntotal = base.ntotal


def inverted_lists(index: Any) -> Any:
    """The inverted-list index inside an index, None when there is none. It lives as long as `index` does."""
    return load_faiss().try_extract_index_ivf(index)


def _transformed(index: Any) -> bool:
    return isinstance(load_faiss().downcast_index(index), load_faiss().IndexPreTransform)


def _takes_assignments(index: Any) -> bool:
    """FastScan packs 32 codes together and assigns by itself."""
    faiss = load_faiss()
    return isinstance(index, faiss.IndexIVF) and not isinstance(index, faiss.IndexIVFFastScan)
