from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unprompt.search import one_core
from unprompt.search.one_core import cholesky, multiply, solve


@given(st.integers(0, 70), st.integers(1, 9), st.integers(1, 40), st.sampled_from([np.float32, np.float64]))
def test_a_product_is_that_of_numpy(n: int, width: int, columns: int, dtype: type) -> None:
    rng = np.random.default_rng(n)
    matrix = rng.standard_normal((n, width)).astype(dtype)
    others = rng.standard_normal((columns, width)).astype(dtype).T
    product = multiply(matrix, others)
    assert product.dtype == dtype
    np.testing.assert_allclose(product, matrix @ others, atol=1e-5)


def test_a_product_in_blocks_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    matrix, columns = rng.standard_normal((1001, 50)), rng.standard_normal((50, 2 * one_core.COLUMNS + 1))
    np.testing.assert_allclose(multiply(matrix, columns), matrix @ columns, atol=1e-12)
    assert np.array_equal(multiply(matrix[:, :0], columns[:0]), np.zeros((1001, columns.shape[1])))
    turned = np.asfortranarray(matrix)
    np.testing.assert_allclose(multiply(turned, columns), matrix @ columns, atol=1e-12)


@pytest.mark.parametrize("unknowns", [1, 63, 64, 65, 200])
def test_equations_are_solved_as_by_numpy(unknowns: int) -> None:
    rng = np.random.default_rng(unknowns)
    rows, values = rng.standard_normal((unknowns, 20)), rng.standard_normal((unknowns, 2))
    matrix = rows @ rows.T + np.diag(rng.uniform(1, 2, unknowns))
    before = matrix.copy(), values.copy()
    np.testing.assert_allclose(solve(matrix, values), np.linalg.solve(matrix, values), atol=1e-10)
    assert np.array_equal(matrix, before[0])
    assert np.array_equal(values, before[1])


@pytest.mark.parametrize("size", [1, 63, 64, 65, 200])
def test_a_factor_is_that_of_numpy(size: int) -> None:
    rng = np.random.default_rng(size)
    rows = rng.standard_normal((size, 20))
    matrix = rows @ rows.T + np.diag(rng.uniform(1, 2, size))
    np.testing.assert_allclose(cholesky(matrix), np.linalg.cholesky(matrix), atol=1e-10)


SCRIPT = """
import numpy as np
from unprompt.search.one_core import multiply, solve
rng = np.random.default_rng(0)
rows = rng.standard_normal((300, 384))
matrix, values = multiply(rows, rows.T) + np.eye(300), rng.standard_normal((300, 1))
table, columns = rng.standard_normal((5000, 384), dtype=np.float32), rng.standard_normal((384, 3), dtype=np.float32)
print(multiply(table, columns).tobytes().hex()[::99], solve(matrix, values).tobytes().hex())
"""


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    found = []
    for threads in ("1", "3"):
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        environment = os.environ | variables
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, check=True)
        found.append(done.stdout)
    assert found[0]
    assert found[0] == found[1]
