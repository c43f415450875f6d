from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import normalise
from unprompt.search import surrogate
from unprompt.search.surrogate import GainSurrogate, expected_scores


@pytest.mark.parametrize("dim", [8, 40])  # fewer dimensions than observations, and more
@given(st.integers(0, 1000))
def test_the_prediction_is_that_of_a_gaussian_process(dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = normalise(rng.standard_normal((30, dim)))
    columns, errors = rng.integers(0, 30, 20), rng.standard_normal(20)
    learner = GainSurrogate(rows, np.zeros(30, np.float32))
    learner.learn(columns, errors)

    def covariance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        linear = rows[first].astype(np.float64) @ rows[second].T
        return surrogate.SLOPE * linear + surrogate.SHIFT + surrogate.OWN * (first[:, None] == second)

    known = covariance(columns, columns) + surrogate.NOISE * np.eye(20)
    expected = covariance(np.arange(30), columns) @ np.linalg.solve(known, errors)
    unseen = ~np.isin(np.arange(30), columns)
    expected += surrogate.CURIOSITY * errors.std() * unseen
    np.testing.assert_allclose(learner.correct(np.zeros(30)), expected, atol=1e-5)


def test_before_it_has_learnt_it_takes_the_mean_of_prompt_and_fragment() -> None:
    prompt, fragment, query = normalise(np.random.default_rng(1).standard_normal((3, 16)))
    mixed = normalise((prompt + surrogate.WEIGHT * fragment)[None])[0]
    scores = np.array([fragment @ query], dtype=np.float32)
    expected = expected_scores(fragment[None], scores, prompt, float(prompt @ query))
    np.testing.assert_allclose(expected, [mixed @ query], atol=1e-6)


def test_later_observations_count_more() -> None:
    rows = normalise(np.random.default_rng(0).standard_normal((3, 8)))
    learner = GainSurrogate(rows, np.zeros(3, np.float32))
    learner.learn(np.array([0, 1]), np.array([1.0, 1.0]))
    learner.forget()
    learner.learn(np.array([0, 1]), np.array([-1.0, -1.0]))
    assert learner.correct(np.zeros(3))[0] < 0


def test_what_is_forgotten_is_as_if_it_had_never_been_seen() -> None:
    rows = normalise(np.random.default_rng(4).standard_normal((9, 5)))
    fresh, old = (GainSurrogate(rows, np.zeros(9, np.float32)) for _ in range(2))
    old.learn(np.array([1, 2]), np.array([9.0, 9.0]))
    for _ in range(9):
        old.forget()
    for learner in (fresh, old):
        learner.learn(np.array([5, 6]), np.array([0.3, 0.5]))
    difference = old.correct(np.zeros(9)) - fresh.correct(np.zeros(9))
    assert np.ptp(difference[[0, 3, 4, 7, 8]]) < 1e-9, "only the estimate of the deviation may remember"
    np.testing.assert_allclose(difference[[5, 6]], 0, atol=1e-9)


@pytest.mark.parametrize("dim", [8, 90])  # fewer dimensions than observations, and more
def test_what_is_learnt_bit_by_bit_is_as_if_it_was_learnt_at_once(dim: int) -> None:
    rng = np.random.default_rng(dim)
    rows = normalise(rng.standard_normal((60, dim)))
    slow = GainSurrogate(rows, np.zeros(60, np.float32))
    for _ in range(12):
        slow.forget(0.5)
        for _ in range(2):
            slow.learn(rng.integers(0, 60, 5), rng.standard_normal(5))
    seen = np.flatnonzero(slow._counts)
    assert 20 < len(seen) < 60, "some were forgotten"
    counts = slow._counts[seen]
    at_once = GainSurrogate(rows, np.zeros(60, np.float32))
    at_once._counts[seen], at_once._totals[seen] = counts, slow._totals[seen]
    at_once._see(seen)
    at_once._deviation = slow._deviation
    for learner in (slow, at_once):
        learner.learn(seen[:1], np.zeros(1))
    np.testing.assert_allclose(slow.correct(np.zeros(60)), at_once.correct(np.zeros(60)), atol=2e-6)
