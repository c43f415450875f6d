from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEncoder
from unprompt.errors import QueryError
from unprompt.search.queries import Query, combine, embedding_queries, read_embeddings, text_queries


def query(name: str, *numbers: float) -> Query:
    row = np.array(numbers, dtype=np.float32)
    return Query(name, row / np.linalg.norm(row), recorded="told", sha256="0" * 64)


def test_words_are_queries() -> None:
    encoder = FakeEncoder()
    [red, blue] = text_queries(["red", "blue"], encoder)
    assert red.name == "red"
    np.testing.assert_array_equal(blue.embedding, encoder.encode_texts(["blue"])[0])
    with pytest.raises(QueryError, match=r"text '  ' is blank"):
        text_queries(["red", "  "], encoder)


def test_embeddings_are_normalised_and_named(tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", np.array([[3.0, 4.0], [0.0, -2.0]], dtype=np.float16))
    first, second = read_embeddings(tmp_path / "two.npy", 2)
    assert (first.name, second.name) == (f"{tmp_path / 'two.npy'}[0]", f"{tmp_path / 'two.npy'}[1]")
    np.testing.assert_allclose(first.embedding, [0.6, 0.8], atol=1e-3)
    np.testing.assert_array_equal(second.embedding, np.array([0, -1], np.float32))
    [alone] = embedding_queries(np.array([0.0, 5.0]), 2)
    assert (alone.name, alone.embedding.dtype) == ("embedding", np.float32)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones(3), r"shape \(3,\).*takes \(2,\)"),
        (np.ones((1, 1, 2)), "shape"),
        (np.ones(2, dtype=np.int64), "int64, pass floating"),
        (np.array([[1.0, 0.0], [0.0, 0.0]]), r"row 1 .* norm 0.0"),
        (np.array([np.nan, 1.0]), "norm nan"),
    ],
)
def test_what_is_no_embedding_is_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        embedding_queries(array, 2)


def test_a_file_that_is_no_array_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(b"no array")
    for name in ("x.npy", "gone.npy"):
        with pytest.raises(QueryError, match=r"cannot be read as \.npy (?!.*allow_pickle)"):
            read_embeddings(tmp_path / name, 2)


def test_several_become_their_mean_direction() -> None:
    mixed = combine([query("a", 1, 0), query("b", 0, 1)])
    np.testing.assert_allclose(mixed.embedding, [2**-0.5, 2**-0.5], rtol=1e-6)
    assert (mixed.name, mixed.recorded, mixed.sha256) == ("a + b", None, None)


def test_more_of_one_and_less_of_another() -> None:
    mixed = combine([query("a", 1, 1)], [query("b", 0, 1)], less_weight=0.5)
    expected = np.array([2**-0.5, 2**-0.5 - 0.5])
    np.testing.assert_allclose(mixed.embedding, expected / np.linalg.norm(expected), rtol=1e-6)
    assert mixed.name == "a - b"


def test_one_alone_stays_what_it_is() -> None:
    one = query("a", 1, 0)
    assert combine([one]) is one


def test_what_cannot_be_combined_says_why() -> None:
    with pytest.raises(QueryError, match="at least one"):
        combine([], [query("b", 0, 1)])
    with pytest.raises(QueryError, match=r"is -1, use 0 or more"):
        combine([query("a", 1, 0)], [query("b", 0, 1)], less_weight=-1)
    with pytest.raises(QueryError, match="weight of what to avoid is nan"):
        combine([query("a", 1, 0)], [query("b", 0, 1)], less_weight=float("nan"))
    with pytest.raises(QueryError, match="a - b cancel out"):
        combine([query("a", 1, 0)], [query("b", 1, 0)], less_weight=1)
