"""An index that a cluster fills is, byte for byte, the one that is filled here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fakes import normalise
from unprompt.builders.cluster import indexing
from unprompt.builders.cluster.indexing import ClusterAccelerator, find_lists
from unprompt.index.engine import load_faiss
from unprompt.index.vector_index import VectorIndex
from unprompt.types import Embeddings

ray = pytest.importorskip("ray")

DIM = 32
ROWS = 3000


@pytest.fixture(scope="module")
def vectors() -> Embeddings:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, DIM))
    return normalise(centres[rng.integers(0, 40, ROWS)] + 0.4 * rng.standard_normal((ROWS, DIM)))


def build(vectors: Embeddings, factory: str, accelerator: Any = None) -> VectorIndex:
    def blocks() -> Iterator[Embeddings]:
        for start in range(0, len(vectors), 256):
            yield vectors[start : start + 256]

    return VectorIndex.build(blocks, len(vectors), DIM, factory, accelerator)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("factory", ["IVF16,SQfp16", "IVF16,SQ8", "IVF16,Flat", "IVF16,PQ8x4", "IVF16,RaBitQ"])
def test_a_merged_index_is_the_same(vectors: Embeddings, factory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "ROWS", 600)
    here, there = build(vectors, factory), build(vectors, factory, ClusterAccelerator(ray))
    assert len(there) == ROWS
    faiss = load_faiss()
    assert np.array_equal(faiss.serialize_index(here.faiss_index), faiss.serialize_index(there.faiss_index))
    scores, rows = there.search(vectors[::100], 10)
    expected = here.search(vectors[::100], 10)
    assert np.array_equal(rows, expected[1])
    assert np.array_equal(scores, expected[0])
    assert rows[:, 0].tolist() == list(range(0, ROWS, 100)) or factory not in ("IVF16,SQfp16", "IVF16,Flat")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("factory", ["IVF16,PQ8x4fs,Refine(SQ8)", "IVF16,PQ16x4,Refine(SQ8)", "HNSW8,SQfp16", "Flat"])
def test_what_cannot_be_merged_is_filled_by_the_driver(vectors: Embeddings, factory: str) -> None:
    here, there = build(vectors, factory), build(vectors, factory, ClusterAccelerator(ray))
    assert len(there) == ROWS
    exact = np.argsort(-vectors[::50] @ vectors.T, axis=1)[:, :10]
    found = [index.search(vectors[::50], 10)[1] for index in (here, there)]
    recalls = [np.mean([np.isin(best, rows) for best, rows in zip(exact, each, strict=True)]) for each in found]
    assert recalls[1] > max(0.2, recalls[0] - 0.1)


@pytest.mark.usefixtures("cluster")
def test_lists_are_found_in_parts(vectors: Embeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "POINTS", 700)
    found = ClusterAccelerator(ray).assign(vectors, vectors[:20])
    assert np.array_equal(found, np.argmax(vectors @ vectors[:20].T, axis=1))
    assert np.array_equal(found, find_lists(vectors, vectors[:20]))
