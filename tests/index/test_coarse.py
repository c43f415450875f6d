from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from unprompt.index import coarse
from unprompt.index.coarse import FEW, LISTS, VISITED, WARM, CoarseSearch
from unprompt.index.vector_index import VectorIndex
from unprompt.types import Embeddings
from vectors import blocks_of, clustered, unit

KINDS = [f"IVF{LISTS},SQfp16", f"IVF{LISTS},SQ8", f"IVF{LISTS},Flat"]
OTHERS = ["Flat", "HNSW8", "IVF64,Flat", "IVF64,PQ8x4fs,Refine(Flat)", f"PCA12,IVF{LISTS},Flat", "IVF64,RaBitQ"]


@pytest.fixture(scope="module")
def corpus() -> Embeddings:
    return clustered(12_000, 32)


@pytest.fixture(scope="module")
def indexes(corpus: Embeddings) -> dict[str, VectorIndex]:
    return {kind: VectorIndex.build(lambda: blocks_of(corpus, 4000), len(corpus), 32, kind) for kind in KINDS}


def warm(index: VectorIndex, parameters: str = "nprobe=4") -> VectorIndex:
    """The index with so many searches behind it that the next one by itself uses the codes."""
    index = index.with_parameters(parameters)
    assert index._coarse is not None
    index._coarse._asked = WARM
    return index


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nprobe", [1, 3, VISITED])
def test_a_query_by_itself_finds_what_faiss_finds(
    kind: str, nprobe: int, corpus: Embeddings, indexes: dict[str, VectorIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, queries = warm(indexes[kind], f"nprobe={nprobe}"), unit(200, 32, seed=9)
    queries[::2] = corpus[:100]
    found = [index.search(queries[i : i + 1], 7) for i in range(200)]
    assert index._coarse is not None
    assert index._coarse._codes is not None
    monkeypatch.setattr(coarse, "FEW", 0)
    plain = [index.search(queries[i : i + 1], 7) for i in range(200)]
    for (scores, rows), (expected_scores, expected_rows) in zip(found, plain, strict=True):
        np.testing.assert_array_equal(rows, expected_rows)
        np.testing.assert_array_equal(scores, expected_scores)


def test_the_nearest_lists_are_not_merely_those_that_the_codes_prefer(
    indexes: dict[str, VectorIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without exact scoring this would fail: the test above tests something."""
    monkeypatch.setattr(coarse, "RESCORED", 4)
    index, queries = warm(indexes[KINDS[0]]), unit(200, 32, seed=9)
    found = np.concatenate([index.search(queries[i : i + 1], 7)[1] for i in range(200)])
    assert (found != index.search(queries, 7)[1]).any()


def test_missing_answers_are_minus_one(indexes: dict[str, VectorIndex]) -> None:
    index = warm(indexes[KINDS[0]], "nprobe=1")
    _, rows = index.search(unit(1, 32), 5000)
    _, expected = index.search(unit(FEW, 32), 5000)
    np.testing.assert_array_equal(rows[0], expected[0])
    assert rows[0, -1] == -1


def test_codes_are_made_when_they_will_save_time(indexes: dict[str, VectorIndex]) -> None:
    index, query = indexes[KINDS[0]].with_parameters("nprobe=2"), unit(1, 32)
    assert index._coarse is not None
    for _ in range(WARM):
        index.search(query, 3)
        index.search(unit(FEW, 32), 3)
        index.search(query, 3, f"nprobe={VISITED + 1}")
    assert index._coarse._codes is None
    index.search(query, 3)
    assert index._coarse._codes is not None


@pytest.mark.parametrize("kind", OTHERS)
def test_other_indexes_are_left_to_faiss(kind: str, corpus: Embeddings) -> None:
    index = VectorIndex.build(lambda: blocks_of(corpus, 4000), len(corpus), 32, kind)
    assert not CoarseSearch.suits(index.faiss_index)
    assert index.search(corpus[:1], 1)[0].shape == (1, 1)


def test_a_search_changes_nothing_and_threads_share_it(
    corpus: Embeddings, indexes: dict[str, VectorIndex], tmp_path: Path
) -> None:
    index = indexes[KINDS[0]]
    index.write(tmp_path / "before")
    mapped = warm(VectorIndex.read(tmp_path / "before", KINDS[0], mapped=True))
    expected = mapped.search(corpus[:100], 5)[1]
    wrong: list[int] = []

    def work() -> None:
        for row in range(100):
            if not np.array_equal(mapped.search(corpus[row : row + 1], 5)[1][0], expected[row]):
                wrong.append(row)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    used = warm(index)
    used.search(corpus[:1], 5)
    used.write(tmp_path / "after")
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()
