from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unprompt.errors import LibraryError
from unprompt.index.vector_index import VectorIndex, choose_factory, recall_against_exact
from unprompt.types import Embeddings
from vectors import blocks_of, clustered, unit


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 60), queries=st.integers(1, 5), k=st.integers(1, 70), seed=st.integers(0, 99))
def test_flat_search_equals_brute_force(rows: int, queries: int, k: int, seed: int) -> None:
    corpus, wanted = unit(rows, seed=seed), unit(queries, seed=seed + 1000)
    index = VectorIndex.build(lambda: blocks_of(corpus, 7), rows, 16)
    scores, found = index.search(wanted, k)
    exact = -np.sort(-(wanted @ corpus.T), axis=1)[:, :k]
    here = min(k, rows)
    np.testing.assert_allclose(scores[:, :here], exact, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(wanted @ corpus.T, found[:, :here], axis=1), exact, atol=1e-5)
    assert (found[:, here:] == -1).all()


@pytest.mark.parametrize(
    ("rows", "factory"),
    [
        (1, "Flat"),
        (49_999, "Flat"),
        (50_000, "IVF1024,SQfp16"),
        (1_000_000, "IVF4096,SQfp16"),
        (9_000_000, "IVF16384,SQ8"),
    ],
)
def test_the_index_is_chosen_by_size(rows: int, factory: str) -> None:
    assert choose_factory(rows) == factory


def test_an_inverted_index_reports_its_recall_and_keeps_its_parameters(tmp_path: Path) -> None:
    corpus = clustered(4000)
    index = VectorIndex.build(lambda: blocks_of(corpus), len(corpus), 16, "IVF32,SQfp16")
    assert index.parameters == "nprobe=16"
    assert recall_against_exact(index, lambda: blocks_of(corpus), corpus[:50]) >= 0.95
    index.write(tmp_path / "image.index")
    again = VectorIndex.read(tmp_path / "image.index", index.factory, index.parameters)
    np.testing.assert_array_equal(again.search(corpus[:9], 5)[1], index.search(corpus[:9], 5)[1])


def test_recall_is_one_for_exact_search_and_low_for_a_bad_index() -> None:
    corpus = unit(500)
    exact = VectorIndex.build(lambda: blocks_of(corpus), 500, 16, "Flat")
    coarse = VectorIndex.build(lambda: blocks_of(corpus), 500, 16, "PQ2x2")
    assert recall_against_exact(exact, lambda: blocks_of(corpus), corpus[:50]) == 1.0
    assert recall_against_exact(coarse, lambda: blocks_of(corpus), corpus[:50]) < 0.7


def test_training_is_the_same_every_time(tmp_path: Path) -> None:
    corpus = clustered(2000)
    for name in ("a", "b"):
        VectorIndex.build(lambda: blocks_of(corpus), 2000, 16, "IVF8,Flat").write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_refill_replaces_the_vectors() -> None:
    corpus = unit(50)
    index = VectorIndex.build(lambda: blocks_of(corpus), 50, 16)
    index.refill(lambda: blocks_of(corpus[10:20]))
    assert len(index) == 10
    assert index.search(corpus[13:14], 1)[1].item() == 3


@pytest.mark.parametrize("bad", [unit(3) * 2, np.zeros((3, 16), np.float32), np.full((3, 16), np.nan, np.float32)])
def test_vectors_that_no_encoder_made_are_refused(bad: Embeddings) -> None:
    index = VectorIndex.build(lambda: blocks_of(unit(5)), 5, 16)
    with pytest.raises(LibraryError, match="norm"):
        index.add(bad)
    assert len(index) == 5


def test_another_dimension_is_refused() -> None:
    index = VectorIndex.build(lambda: blocks_of(unit(5)), 5, 16)
    with pytest.raises(LibraryError, match="16 dimensions"):
        index.search(unit(2, 8), 1)
    with pytest.raises(LibraryError, match="16 dimensions"):
        index.add(unit(2, 8))


@pytest.mark.parametrize("factory", ["Nonsense", "IVF4096,Flat", ""])
def test_a_factory_string_that_cannot_work_is_one_line(factory: str) -> None:
    with pytest.raises(LibraryError, match="another FAISS factory string") as caught:
        VectorIndex.build(lambda: blocks_of(unit(20)), 20, 16, factory)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_index_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "image.index").write_bytes(b"not an index at all")
    with pytest.raises(LibraryError, match=r"image\.index is not a readable index"):
        VectorIndex.read(tmp_path / "image.index")


def test_an_index_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    index = VectorIndex.build(lambda: blocks_of(unit(5)), 5, 16)
    with pytest.raises(OSError, match="cannot write"):
        index.write(tmp_path / "no-such-folder" / "image.index")
