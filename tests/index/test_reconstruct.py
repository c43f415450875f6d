"""Vectors read back from indexes, by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unprompt.index.reconstruct import RowReader
from unprompt.index.vector_index import VectorIndex
from vectors import blocks_of, clustered

ROWS = np.array([5, 0, 1999, 5, 730, 731], dtype=np.int64)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("factory", ["Flat", "SQfp16", "IVF16,Flat", "IVF16,SQfp16", "HNSW8,SQfp16", "SQ4,RFlat"])
def test_rows_come_back_in_half_precision_or_better(factory: str, mapped: bool, tmp_path: Path) -> None:
    vectors = clustered(2000)
    index = VectorIndex.build(lambda: blocks_of(vectors), 2000, 16, factory)
    index.write(tmp_path / "x.index")
    index = VectorIndex.read(tmp_path / "x.index", factory, index.parameters, mapped)
    before = index.search(vectors[:9], 5)
    reader = RowReader.of(index.faiss_index)
    assert reader is not None
    for _ in range(2):
        found = reader.read(ROWS)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, vectors[ROWS], atol=0 if factory == "Flat" else 1e-3)
    assert reader.read(ROWS[:0]).shape == (0, 16)
    for one, other in zip(before, index.search(vectors[:9], 5), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("factory", ["SQ8", "IVF16,SQ8", "IVF16,PQ8x4", "PQ8x4"])
def test_coarser_codes_are_not_read(factory: str) -> None:
    vectors = clustered(2000)
    index = VectorIndex.build(lambda: blocks_of(vectors), 2000, 16, factory)
    assert RowReader.of(index.faiss_index) is None
    assert RowReader.of(object()) is None
