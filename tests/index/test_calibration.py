from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load, save

from fakes import normalise
from unprompt.errors import LibraryError
from unprompt.index.calibration import Calibration

TERMS, PICTURES, DIM = 300, 400, 16


def unit(rows: int, seed: int, dim: int = DIM) -> np.ndarray:
    return normalise(np.random.default_rng(seed).standard_normal((rows, dim)))


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration.fit(unit(TERMS, 0), unit(PICTURES, 1))


def test_a_percentile_is_the_share_of_pictures_below(calibration: Calibration) -> None:
    cosines = np.sort(unit(TERMS, 0) @ unit(PICTURES, 1).T, axis=1)
    rows = np.arange(TERMS)
    for position in (0, 3, 40, 200, 320, 390, 399):
        found = calibration.percentiles(rows, cosines[:, position])
        # Exact at the table's values, and between them straight lines through what the table left out.
        tolerance = 2e-3 if position >= 393 else 0.04
        np.testing.assert_allclose(found, (position + 1) / (PICTURES + 1), atol=tolerance)


def test_strictly_increasing_far_beyond_the_reference(calibration: Calibration) -> None:
    steps = np.linspace(-1, 1, 4001).astype(np.float32)
    for row in (0, 7, TERMS - 1):
        found = calibration.percentiles(np.full(len(steps), row), steps)
        assert found.dtype == np.float64
        assert (np.diff(found) > 0).all()
        assert 0 < found[0] < found[-1] < 1


def test_neighbouring_floats_at_the_end_differ(calibration: Calibration) -> None:
    top = np.array([np.nextafter(np.float32(1), np.float32(0)), 1.0], dtype=np.float32)
    for row in range(TERMS):
        low, high = calibration.percentiles(np.array([row, row]), top)
        assert low < high < 1


def test_equal_cosines_in_the_reference_make_a_step_not_a_fault() -> None:
    reference = np.repeat(unit(5, 3), 40, axis=0)
    made = Calibration.fit(unit(9, 4), reference)
    values = np.unique(np.linspace(-1, 1, 999).astype(np.float32))
    for row in range(9):
        assert (np.diff(made.percentiles(np.full(len(values), row), values)) > 0).all()


def test_terms_of_one_direction_get_one_percentile_whatever_their_level() -> None:
    # A term that is near every picture and one that is near none: the same rank among pictures is the same percentile.
    pictures = unit(500, 5)
    cosines = pictures @ np.stack([unit(1, 6)[0], unit(1, 7)[0]]).T  # (500, 2)
    made = Calibration.fit(np.stack([unit(1, 6)[0], unit(1, 7)[0]]), pictures)
    best = np.sort(cosines, axis=0)[-5]
    first, second = made.percentiles(np.array([0, 1]), best)
    assert first == pytest.approx(second, abs=1e-4)


def test_thresholds_invert_percentiles(calibration: Calibration) -> None:
    rows = np.arange(TERMS)
    for percentile in (1e-4, 0.01, 0.3, 0.5, 0.9, 0.99, 0.9975, 0.99999):
        at = calibration.thresholds(rows, percentile)
        np.testing.assert_allclose(calibration.percentiles(rows, at), percentile, atol=1e-9)
    assert (calibration.thresholds(rows, 0) == -np.inf).all()
    assert (calibration.thresholds(rows, 1) == np.inf).all()


@pytest.mark.parametrize("k", [1, 10, 299, 300, 500])
def test_the_likeliest_hold_the_highest_percentiles(calibration: Calibration, k: int) -> None:
    for query in (*unit(6, 8), unit(PICTURES, 1)[0], unit(TERMS, 0)[5]):
        scores = unit(TERMS, 0) @ query
        percentiles = calibration.percentiles(np.arange(TERMS), scores)
        best = np.lexsort((np.arange(TERMS), -percentiles))[:k]
        assert set(best) <= set(calibration.likeliest(scores, np.arange(TERMS), k, 1e-6).tolist())
        some = np.r_[5:50, 80:250]
        best = some[np.argsort(-percentiles[some], kind="stable")[:k]]
        assert set(best) <= set(some[calibration.likeliest(scores[some], some, k, 1e-6)].tolist())


def test_the_likeliest_leave_out_what_is_hidden(calibration: Calibration) -> None:
    scores = unit(TERMS, 0) @ unit(1, 9)[0]
    scores[10:] = -np.inf
    assert calibration.likeliest(scores, np.arange(TERMS), 50, 1e-6).tolist() == list(range(10))


def test_new_terms_are_measured_alone(calibration: Calibration) -> None:
    new = unit(50, 10)
    extended = calibration.extend(new)
    whole = Calibration.fit(np.concatenate([unit(TERMS, 0), new]), unit(PICTURES, 1))
    assert len(extended) == TERMS + 50
    np.testing.assert_array_equal(extended.quantiles[:, :TERMS], calibration.quantiles)
    np.testing.assert_allclose(extended.quantiles, whole.quantiles, atol=2e-6)
    np.testing.assert_allclose(extended.scales, whole.scales, atol=2e-6)
    taken = extended.take(np.array([300, 2]))
    np.testing.assert_array_equal(taken.quantiles, extended.quantiles[:, [300, 2]])


def test_what_is_written_is_read(calibration: Calibration) -> None:
    again = Calibration.from_arrays(load(save(calibration.to_arrays())))
    rows, scores = np.arange(TERMS), np.linspace(-0.9, 0.9, TERMS)
    np.testing.assert_array_equal(again.percentiles(rows, scores), calibration.percentiles(rows, scores))
    np.testing.assert_array_equal(again.reference, calibration.reference)


def test_damaged_arrays_are_refused(calibration: Calibration) -> None:
    whole = calibration.to_arrays()
    for name in whole:
        with pytest.raises(LibraryError, match=name):
            Calibration.from_arrays({key: value for key, value in whole.items() if key != name})
    for name, value in (
        ("quantiles", whole["quantiles"][::-1]),
        ("quantiles", whole["quantiles"][:-1]),
        ("quantiles", np.full_like(whole["quantiles"], np.nan)),
        ("levels", whole["levels"][::-1]),
        ("levels", whole["levels"] * 2),
        ("scales", whole["scales"] * 0),
    ):
        with pytest.raises(LibraryError, match="make it again"):
            Calibration.from_arrays({**whole, name: value})


def test_what_cannot_be_measured() -> None:
    with pytest.raises(LibraryError, match="on 1 pictures says nothing"):
        Calibration.fit(unit(3, 0), unit(1, 1))
    with pytest.raises(LibraryError, match="16 numbers each, the reference pictures 8"):
        Calibration.fit(unit(3, 0), unit(5, 1, dim=8))


@pytest.mark.parametrize("pictures", [2, 3, 10, 37])
def test_small_references(pictures: int) -> None:
    made = Calibration.fit(unit(20, 0), unit(pictures, 1))
    for low, high in itertools.pairwise(np.linspace(-1, 1, 9)):
        rows = np.arange(20)
        assert (made.percentiles(rows, np.full(20, low)) < made.percentiles(rows, np.full(20, high))).all()


def test_memory_stays_bounded() -> None:
    matrix, reference = unit(20_000, 0), unit(500, 1)
    tracemalloc.start()
    made = Calibration.fit(matrix, reference)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All cosines at once would be 40 MB.
    assert peak - made.quantiles.nbytes < 25e6
