from __future__ import annotations

import numpy as np
import pytest
import torch

from unprompt.search.scores import STEP, Bfloat16Scores, FloatScores, Scores, placed

TERMS, QUERIES = 2 * STEP + 77, 3


def rounded(seed: int) -> np.ndarray:
    """(n, Q) numbers that bfloat16 has."""
    values = np.random.default_rng(seed).standard_normal((TERMS, QUERIES))
    floats: np.ndarray = torch.from_numpy(values).bfloat16().float().numpy()
    return floats


@pytest.fixture(params=["float32", "bfloat16"])
def scores(request: pytest.FixtureRequest) -> Scores:
    if request.param == "float32":
        return FloatScores(rounded(0))
    return Bfloat16Scores(bits(rounded(0)))


def bits(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)


def test_both_hold_the_same_numbers(scores: Scores) -> None:
    values = rounded(0)
    assert scores.shape == (TERMS, QUERIES)
    by_query = scores.by_query()
    assert by_query.flags.c_contiguous
    np.testing.assert_array_equal(by_query, values.T)
    np.testing.assert_array_equal(scores.to_float32().values, values)
    np.testing.assert_array_equal(scores.of(1).values, values[:, 1:2])
    np.testing.assert_array_equal(scores.part(5, 900).to_float32().values, values[5:900])
    assert {each.dtype for each in (by_query, scores.to_float32().values, scores.of(0).values)} == {np.dtype("float32")}


def test_places_are_counted_through_the_rows(scores: Scores) -> None:
    terms, queries = np.array([[0, 7], [TERMS - 1, 7]]), np.array([[0, 2], [1, 2]])
    np.testing.assert_array_equal(scores.take(terms * QUERIES + queries), rounded(0)[terms, queries])
    part = scores.part(100, 300)
    np.testing.assert_array_equal(part.take(np.array([0, 599])), rounded(0)[[100, 299], [0, 2]])
    assert scores.take(np.zeros((0, 16), np.intp)).shape == (0, 16)


@pytest.mark.parametrize("groups", [1, 10, 300, TERMS])
def test_maxima_of_every_so_manieth_term(scores: Scores, groups: int) -> None:
    full = TERMS // groups * groups
    expected = [rounded(0)[group:full:groups].max(axis=0) for group in range(groups)]
    np.testing.assert_array_equal(scores.group_maxima(groups), expected)


def test_maxima_of_negative_numbers() -> None:
    values = np.array(
        [[-1.0, -0.0, -np.inf], [-0.5, -2.0, -3.0], [-0.25, 0.0, -np.inf], [-9.0, 1.0, -np.inf]], np.float32
    )
    expected = values.reshape(2, 2, 3).max(axis=0)
    for scores in (FloatScores(values), Bfloat16Scores(bits(values))):
        np.testing.assert_array_equal(scores.group_maxima(2), expected)
        np.testing.assert_array_equal(scores.group_maxima(1), values.max(axis=0)[None])


def test_hidden_terms_are_hidden_from_every_query(scores: Scores) -> None:
    scores.hide(np.array([2, 5]))
    scores.part(10, 20).hide(np.array([0]))
    scores.hide(np.zeros(0, np.intp))
    assert np.flatnonzero(np.isneginf(scores.by_query()).all(axis=0)).tolist() == [2, 5, 10]
    assert np.isfinite(scores.by_query()).sum() == (TERMS - 3) * QUERIES


def test_runs_stand_one_after_another() -> None:
    assert list(placed([(3, 5), (9, 10)])) == [(slice(3, 5), slice(0, 2)), (slice(9, 10), slice(2, 3))]
    assert list(placed([])) == []
