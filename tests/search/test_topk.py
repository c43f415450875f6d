from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fakes import normalise
from unprompt.search.scores import Bfloat16Scores, FloatScores, Scores
from unprompt.search.topk import GROUP, Error, best_first, cosines, product_error, rescore, survivors


def bfloat16_scores(values: np.ndarray) -> Bfloat16Scores:
    return Bfloat16Scores(torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16))


SCORES = {"float32": FloatScores, "bfloat16": bfloat16_scores}

VALUES = [-np.inf, -1.0, -0.5, 0.0, 0.125, 0.25, 0.375, 0.5, 1.0]


def brute_force(row: np.ndarray, k: int) -> list[int]:
    best = sorted(range(len(row)), key=lambda i: (-row[i], i))
    return [i for i in best if row[i] > -np.inf][:k]


def scores_of(rows: np.ndarray, precision: str = "float32") -> Scores:
    """Scores by term, of (Q, n) by query."""
    return SCORES[precision](np.ascontiguousarray(rows.T))


def top_rows(rows: np.ndarray, k: int) -> list[list[int]]:
    """The k best of those that survive, for each row of (Q, n) scores; in bfloat16 the same, when it holds them."""
    found = survivors(scores_of(rows), k)
    if np.array_equal(torch.from_numpy(rows).bfloat16().float().numpy(), rows):
        for one, other in zip(found, survivors(scores_of(rows, "bfloat16"), k), strict=True):
            np.testing.assert_array_equal(one, other)
    assert all((np.diff(columns) > 0).all() for columns in found)
    return [columns[best_first(row[columns], columns)[:k]].tolist() for row, columns in zip(rows, found, strict=True)]


@pytest.mark.parametrize("columns", [1, 7, 100, GROUP * 100 - 1, GROUP * 100, GROUP * 100 + 3, 9001])
@pytest.mark.parametrize("k", [1, 2, 9, 100])
def test_as_sorting_all_scores(columns: int, k: int) -> None:
    scores = np.random.default_rng([columns, k]).standard_normal((3, columns)).astype(np.float32)
    assert top_rows(scores, k) == [brute_force(row, k) for row in scores]


@pytest.mark.parametrize("distinct", [1, 2, 40])
def test_equal_scores_go_by_column(distinct: int) -> None:
    scores = np.random.default_rng(distinct).integers(0, distinct, (4, 5000)).astype(np.float32)
    assert top_rows(scores, 50) == [brute_force(row, 50) for row in scores]


@pytest.mark.parametrize("visible", [0, 1, 30, 49, 50, 51, 900])
def test_hidden_columns_are_never_selected(visible: int) -> None:
    rng = np.random.default_rng(visible)
    scores = np.full((2, 8000), -np.inf, dtype=np.float32)
    for row in scores:
        row[rng.permutation(8000)[:visible]] = rng.standard_normal(visible)
    assert top_rows(scores, 50) == [brute_force(row, 50) for row in scores]


def test_the_best_may_all_lie_together() -> None:
    """clip-interrogator keeps a fixed share of each chunk of 2,048 and so loses most of these."""
    scores = np.random.default_rng(0).uniform(0, 0.5, (1, 20_000)).astype(np.float32)
    scores[0, 4000:4100] += 1
    assert sorted(top_rows(scores, 100)[0]) == list(range(4000, 4100))


def test_what_may_be_as_good_is_kept() -> None:
    scores = np.zeros((1, 4000), dtype=np.float32)
    scores[0, :3] = (1.0, 0.9, 0.895)
    scores[0, 3:] = -0.5
    assert survivors(scores_of(scores), 2)[0].tolist() == [0, 1]
    assert survivors(scores_of(scores), 2, Error.of(0.005))[0].tolist() == [0, 1, 2]
    assert survivors(scores_of(scores), 2, Error(0.0, 0.002, 0.002))[0].tolist() == [0, 1]
    assert survivors(scores_of(scores), 2, Error(0.0, 0.003, 0.003))[0].tolist() == [0, 1, 2]
    assert survivors(scores_of(-scores), 1, Error(0.0, 0.25, 0.25))[0].tolist() == list(range(3, 4000))


def test_few_survive() -> None:
    scores = np.random.default_rng(0).standard_normal((5, 100_000)).astype(np.float32)
    assert all(100 <= len(found) < 200 for found in survivors(scores_of(scores), 100))


@pytest.mark.parametrize("precision", SCORES)
def test_a_part_of_the_terms(precision: str) -> None:
    rows = torch.from_numpy(np.random.default_rng(3).standard_normal((3, 9000))).bfloat16().float().numpy()
    found = survivors(scores_of(rows, precision).part(1000, 7000), 20)
    part = rows[:, 1000:7000]
    assert [
        columns[best_first(row[columns], columns)[:20]].tolist() for row, columns in zip(part, found, strict=True)
    ] == [brute_force(row, 20) for row in part]


@pytest.mark.parametrize("precision", SCORES)
def test_queries_with_and_without_crowds_of_ties(precision: str) -> None:
    """A query that the groups cannot sift is looked through by itself, and changes nothing for its neighbours."""
    rng = np.random.default_rng(5)
    rows = torch.from_numpy(rng.standard_normal((6, 7003))).bfloat16().float().numpy()
    rows[1] = 0.25
    rows[3, rng.permutation(7003)[:4000]] = 9.0
    rows[4, 50:] = -np.inf
    found = survivors(scores_of(rows, precision), 60)
    for row, columns in zip(rows, found, strict=True):
        least = np.sort(row)[-60] if np.isfinite(row).sum() >= 60 else -9.0
        assert set(np.flatnonzero(row >= least)) <= set(columns.tolist())
        assert np.isfinite(row[columns]).all()
    assert [len(found[i]) for i in (1, 3, 4)] == [7003, 4000, 50]


@given(
    arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 900)), elements=st.sampled_from(VALUES)),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.0625, 0.25, 1.5]),
    st.sampled_from([0.0, 2.0**-8, 0.5]),
    st.sampled_from(sorted(SCORES)),
)
def test_what_may_be_among_the_best_survives(
    rows: np.ndarray, k: int, absolute: float, relative: float, precision: str
) -> None:
    """Scores of a few values, as they are in ties, some of them hidden; all are numbers that bfloat16 has."""
    error = Error(absolute, relative, absolute + relative)
    for row, columns in zip(rows, survivors(scores_of(rows, precision), k, error), strict=True):
        visible = np.flatnonzero(row > -np.inf)
        off = absolute + relative * np.abs(row[visible])
        least, most = row[visible] - off, row[visible] + off
        kept = visible if len(visible) < k else visible[most >= np.sort(least)[-k]]
        assert set(kept.tolist()) <= set(columns.tolist()) <= set(visible.tolist())
        assert (np.diff(columns) > 0).all()


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
