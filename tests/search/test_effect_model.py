from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import normalise
from unprompt.search import effect_model
from unprompt.search.chains import Chain
from unprompt.search.effect_model import EffectModel
from unprompt.search.effects import ROWS, WIDTH, term_effects
from unprompt.search.terms import Terms

COUNT = 60


def terms_of(seed: int, dim: int = 12, count: int = COUNT) -> tuple[Terms, Chain]:
    rng = np.random.default_rng(seed)
    rows = normalise(rng.standard_normal((count, dim)))
    query, prompt = normalise(rng.standard_normal((2, dim)))
    texts = ["x" * int(length) for length in rng.integers(1, 30, count)]
    terms = Terms.of(texts, rows, (rows @ query).astype(np.float32), np.ones(count, bool))
    return terms, Chain((), "a prompt of some length", float(prompt @ query), float(prompt @ query), prompt)


@given(st.integers(0, 1000), st.floats(0.3, 1.0))
def test_the_prediction_is_that_of_weighted_ridge_regression(seed: int, kept: float) -> None:
    terms, _ = terms_of(seed)
    rng = np.random.default_rng(seed)
    columns, errors = rng.permutation(COUNT)[:30], rng.standard_normal(30)
    model = EffectModel(terms)
    model.learn(columns[:20], errors[:20])
    model.forget(kept)
    model.learn(columns[20:], errors[20:])
    rows = np.hstack([terms.effects.astype(np.float64), np.ones((COUNT, 1))])
    weights = np.repeat([kept, 1.0], [20, 10])
    ridge = np.diag([effect_model.RIDGE] * terms.effects.shape[1] + [effect_model.SHIFT_RIDGE])
    seen = rows[columns]
    slopes = np.linalg.solve(seen.T @ (weights[:, None] * seen) + ridge, seen.T @ (weights * errors))
    expected = rows @ slopes
    expected[columns] += weights * (errors - seen @ slopes) / (weights + effect_model.OWN)
    np.testing.assert_allclose(model.correct(np.zeros(COUNT)), expected, atol=1e-4)


def test_longer_terms_count_more_beside_a_prompt_and_all_count_less_beside_a_longer_one() -> None:
    terms, chain = terms_of(1)
    prior = EffectModel(terms).priors([chain])[0]
    for row in (0, 7, 30):
        weight = 2.0 * (len(terms.texts[row]) + 4) / (len(chain.text) + 4)
        assert chain.embedding is not None
        mixed = chain.embedding + min(weight, 1.5) * terms.embeddings[row]
        cosine = (chain.score + min(weight, 1.5) * terms.scores[row]) / np.linalg.norm(mixed)
        assert prior[row] == pytest.approx(cosine, abs=1e-6)
    long = Chain((), 100 * chain.text, chain.score, chain.value, chain.embedding)
    assert np.abs(EffectModel(terms).priors([long])[0] - chain.score).max() < np.abs(prior - chain.score).max()


def test_predictions_for_some_terms_are_those_made_for_all() -> None:
    terms, chain = terms_of(2)
    model = EffectModel(terms)
    model.learn(np.array([3, 7, 20]), np.array([0.1, -0.2, 0.05]))
    every = model.correct(model.priors([chain])[0])
    ranked = model.everywhere(chain)
    assert np.isinf(ranked[[3, 7, 20]]).all()
    unseen = np.setdiff1d(np.arange(COUNT), [3, 7, 20])
    np.testing.assert_allclose(ranked[unseen], every[unseen], atol=2e-6)
    model.activate([1, 3, 30])
    np.testing.assert_allclose(model.correct(model.priors([chain])[0]), every[[1, 3, 30]], atol=1e-6)


def test_all_terms_are_not_copied() -> None:
    terms, _ = terms_of(6)
    model = EffectModel(terms)
    for rows, shared in ((range(COUNT), True), (range(COUNT - 1), False)):
        model.activate(list(rows))
        assert np.shares_memory(model._effects, terms.effects) is shared


def test_draws_are_from_the_posterior() -> None:
    terms, _ = terms_of(5)
    rng = np.random.default_rng(5)
    columns, errors = rng.permutation(COUNT)[:30], rng.standard_normal(30)
    model = EffectModel(terms)
    assert np.array_equal(model.draw(2, rng), np.zeros((2, COUNT)))
    model.learn(columns, errors)
    rows = np.hstack([terms.effects.astype(np.float64), np.ones((COUNT, 1))])
    ridge = np.diag([effect_model.RIDGE] * terms.effects.shape[1] + [effect_model.SHIFT_RIDGE])
    posterior = rows[columns].T @ rows[columns] + ridge
    rest = errors - rows[columns] @ np.linalg.solve(posterior, rows[columns].T @ errors)
    expected = np.square(rest).mean() * rows @ np.linalg.solve(posterior, rows.T)
    draws = model.draw(20_000, rng)
    deviations = np.sqrt(np.diag(expected))
    assert np.abs(draws.mean(axis=0) / deviations).max() < 5 / np.sqrt(20_000)
    correlations = np.cov(draws.T) / np.outer(deviations, deviations)
    np.testing.assert_allclose(correlations, expected / np.outer(deviations, deviations), atol=0.06)


def test_what_is_forgotten_is_as_if_it_had_never_been_seen() -> None:
    terms, _ = terms_of(4)
    fresh, old = EffectModel(terms), EffectModel(terms)
    old.learn(np.array([1, 2]), np.array([9.0, 9.0]))
    for _ in range(40):
        old.forget(0.3)
    for model in (fresh, old):
        model.learn(np.array([5, 6]), np.array([0.3, 0.5]))
    np.testing.assert_allclose(old.correct(np.zeros(COUNT)), fresh.correct(np.zeros(COUNT)), atol=1e-6)


def test_contexts_tell_what_embeddings_do_not() -> None:
    rng = np.random.default_rng(7)
    rows, contexts = normalise(rng.standard_normal((2, 400, 16)).reshape(800, 16)).reshape(2, 400, 16)
    gains = contexts @ rng.standard_normal(16)  # depends on the contexts alone
    errors = []
    for effects in (term_effects(rows), term_effects(rows, contexts)):
        terms = replace(Terms.of(["x"] * 400, rows, np.zeros(400, np.float32), np.ones(400, bool)), effects=effects)
        model = EffectModel(terms)
        model.learn(np.arange(200), gains[:200])
        errors.append(np.abs(model.correct(np.zeros(400))[200:] - gains[200:]).mean())
    assert errors[1] < errors[0] / 5


def test_effects_are_the_leading_components_and_no_more_than_so_many() -> None:
    rng = np.random.default_rng(8)
    rows, contexts = (normalise(rng.standard_normal((700, 200)) @ rng.standard_normal((200, 200))) for _ in range(2))
    effects = term_effects(rows, contexts)
    assert effects.shape == (700, WIDTH)
    assert effects.dtype == np.float32
    both = [each - each.mean(axis=0) for each in (rows, contexts)]
    both = np.hstack([each / np.sqrt(np.square(each).sum(axis=1).mean()) for each in both])
    strengths = np.linalg.svd(both, compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(effects, compute_uv=False), strengths[:WIDTH], rtol=1e-3)
    assert term_effects(rows[:0]).shape == (0, 200)
    assert np.isfinite(term_effects(rows[:1])).all()


def test_the_number_of_cores_does_not_show_in_effects() -> None:
    program = """
import hashlib, numpy as np
from unprompt.search.effects import term_effects
rows, contexts = np.random.default_rng(3).standard_normal((2, 600, 384)).astype(np.float32)
print(hashlib.sha256(term_effects(rows, contexts).tobytes()).hexdigest())
"""
    found = set()
    for cores in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": cores, "MKL_NUM_THREADS": cores, "OPENBLAS_NUM_THREADS": cores}
        found.add(subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True).stdout)
    assert len(found) == 1
    assert len(found.pop()) == 65


@pytest.mark.parametrize("terms", [ROWS - 1, ROWS, 2 * ROWS + 3])
def test_effects_are_the_same_in_pieces_and_in_whatever_contexts_are_kept(
    terms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, contexts = normalise(np.random.default_rng(9).standard_normal((2 * terms, 8))).reshape(2, terms, 8)
    kept = contexts.astype(np.float16)
    found = term_effects(rows, kept)
    np.testing.assert_array_equal(found, term_effects(rows, kept.astype(np.float32)))
    monkeypatch.setattr("unprompt.search.effects.ROWS", terms)
    np.testing.assert_allclose(found, term_effects(rows, kept), atol=1e-6)
