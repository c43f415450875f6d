from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fakes import normalise
from unprompt.search.topk import GROUP, cosines, product_error, rescore, survivors, top_rows


def brute_force(row: np.ndarray, k: int) -> list[int]:
    best = sorted(range(len(row)), key=lambda i: (-row[i], i))
    return [i for i in best if row[i] > -np.inf][:k]


@pytest.mark.parametrize("columns", [1, 7, 100, GROUP * 100 - 1, GROUP * 100, GROUP * 100 + 3, 9001])
@pytest.mark.parametrize("k", [1, 2, 9, 100])
def test_as_sorting_all_scores(columns: int, k: int) -> None:
    scores = np.random.default_rng([columns, k]).standard_normal((3, columns)).astype(np.float32)
    assert [found.tolist() for found in top_rows(scores, k)] == [brute_force(row, k) for row in scores]


@pytest.mark.parametrize("distinct", [1, 2, 40])
def test_equal_scores_go_by_column(distinct: int) -> None:
    scores = np.random.default_rng(distinct).integers(0, distinct, (4, 5000)).astype(np.float32)
    assert [found.tolist() for found in top_rows(scores, 50)] == [brute_force(row, 50) for row in scores]


@pytest.mark.parametrize("visible", [0, 1, 30, 49, 50, 51, 900])
def test_hidden_columns_are_never_selected(visible: int) -> None:
    rng = np.random.default_rng(visible)
    scores = np.full((2, 8000), -np.inf, dtype=np.float32)
    for row in scores:
        row[rng.permutation(8000)[:visible]] = rng.standard_normal(visible)
    assert [found.tolist() for found in top_rows(scores, 50)] == [brute_force(row, 50) for row in scores]


def test_the_best_may_all_lie_together() -> None:
    """clip-interrogator keeps a fixed share of each chunk of 2,048 and so loses most of these."""
    scores = np.random.default_rng(0).uniform(0, 0.5, (1, 20_000)).astype(np.float32)
    scores[0, 4000:4100] += 1
    assert sorted(top_rows(scores, 100)[0].tolist()) == list(range(4000, 4100))


def test_a_margin_keeps_what_may_be_as_good() -> None:
    scores = np.zeros((1, 4000), dtype=np.float32)
    scores[0, :3] = (1.0, 0.9, 0.895)
    assert survivors(scores, 2)[0].tolist() == [0, 1]
    assert survivors(scores, 2, margin=0.01)[0].tolist() == [0, 1, 2]


def test_few_survive() -> None:
    scores = np.random.default_rng(0).standard_normal((5, 100_000)).astype(np.float32)
    assert all(100 <= len(found) < 200 for found in survivors(scores, 100))


def test_reads_slices_of_a_larger_matrix() -> None:
    scores = np.random.default_rng(3).standard_normal((3, 9000)).astype(np.float32)
    part = scores[:, 1000:7000]
    assert [found.tolist() for found in top_rows(part, 20)] == [brute_force(row, 20) for row in part]


@given(
    arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 400)), elements=st.integers(-3, 3)),
    st.integers(1, 9),
)
def test_any_scores(scores: np.ndarray, k: int) -> None:
    assert [found.tolist() for found in top_rows(scores, k)] == [brute_force(row, k) for row in scores]


def test_rescored_cosines_do_not_depend_on_the_batch() -> None:
    rng = np.random.default_rng(1)
    matrix, query = normalise(rng.standard_normal((3000, 384))), normalise(rng.standard_normal((1, 384)))[0]
    whole = rescore(query, matrix, np.arange(3000))
    for start, stop in pairwise((0, 1, 8, 500, 3000)):
        np.testing.assert_array_equal(rescore(query, matrix, np.arange(start, stop)), whole[start:stop])
    np.testing.assert_array_equal(whole, (matrix.astype(np.float64) @ query.astype(np.float64)).astype(np.float32))
    error = np.abs(matrix @ query - matrix.astype(np.float64) @ query.astype(np.float64)).max()
    assert 0 < error < product_error(384) < 1e-4


def test_cosines_of_a_few_rows() -> None:
    np.testing.assert_allclose(cosines(np.eye(3, 2), np.array([0.6, 0.8])), [0.6, 0.8, 0.0])
