from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from metadata_library import make_records, unit_rows, write_metadata_library
from unprompt.errors import QueryError
from unprompt.index import where_search
from unprompt.index.library import Library
from unprompt.index.where import Compare, Field, Known, OneOf, Some, microseconds, moments
from unprompt.index.where_parser import parse_where
from unprompt.index.where_rows import matching_rows
from unprompt.index.where_search import Selection
from where_oracle import Node, conditions, render, truth

DIM = 16


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return write_metadata_library(
        tmp_path_factory.mktemp("where") / "library", make_records(300), DIM, lone_prompts=("a lone prompt",)
    )


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return unit_rows(5, DIM, seed=99)


@given(node=conditions)
@settings(max_examples=150)
def test_rows_match_where_the_condition_is_true_in_three_values(library: Library, node: Node) -> None:
    records = library.records(range(len(library)))
    expected = [truth(node, record) is True for record in records]
    assert matching_rows(library, parse_where(render(node))).tolist() == expected, render(node)


def test_negation_keeps_the_unknown_unknown() -> None:
    assert parse_where("not (steps > 3 and not sampler is null)").condition == Some(
        (Compare(Field("steps"), "<=", 3.0), Known(Field("sampler"), negated=True))
    )
    assert parse_where("NOT cfg NOT IN (7)").condition == OneOf(Field("cfg"), (7.0,))


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("steps >>= 3", 8, "expected a value"),
        ("steps >", None, "expected a value"),
        ("", None, "expected"),
        ("steps = 1 sampler = 'x'", 11, "expected and or or"),
        ("(steps = 1", None, r"expected \)"),
        ("steps = null", 9, "expected a value"),
        ("steps = 1 and stepz > 3", 15, "did you mean steps"),
        ("user_name = 'x'", 1, "extra.user_name"),
        ("size = 512", 1, "use width and height"),
        ("model.name = 'x'", 1, "extra.NAME"),
        ("steps = '30'", 9, "without quotes"),
        ("steps = true", 9, "is a number"),
        ("sampler > 3", 11, "text in quotes"),
        ("date > 'soon'", 8, "is no date"),
        ("date > '2022-13'", 8, "is no date"),
        ("date contains '2'", 15, "is a date"),
        ("prompt contains ''", 17, "some text"),
        (r"prompt like 'a\b'", 13, "backslash"),
        ("prompt = 'open", 10, "quote"),
        ("steps = 1e999", 9, "too large"),
        ("steps\n  @ 3", 9, "expected"),
        ("not " * 4000 + "steps = 1", 1, "within each other"),
        ("steps = 1 or " * 2000 + "steps = 1", None, "characters"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_shows_the_place(text: str, column: int | None, says: str) -> None:
    with pytest.raises(QueryError, match=says) as error:
        parse_where(text)
    assert "\n" not in str(error.value)
    assert column is None or f"at column {column}" in str(error.value)


def test_quotes_are_data() -> None:
    text = "x'; drop table pictures; --"
    assert parse_where(f"prompt = '{text.replace(chr(39), chr(39) * 2)}'").condition == Compare(
        Field("prompt"), "=", text
    )
    assert parse_where('extra."a ""b""" = "it\'s"').condition == Compare(Field('a "b"', extra=True), "=", "it's")


def test_a_date_is_the_time_it_names() -> None:
    day = 86_400_000_000
    assert moments("1970-01-02") == (day, 2 * day)
    assert moments("1970-01") == (0, 31 * day)
    assert moments("1971") == (365 * day, 730 * day)
    assert moments("1970-01-01T00:00:01+00:00") == (1_000_000, 1_000_001)
    assert moments("1970-02-30") is None
    assert microseconds("1970-01-01T01:00:00+01:00") == 0
    assert microseconds("the other day") is None


@given(node=conditions)
@settings(max_examples=20)
@pytest.mark.parametrize("array", ["img_emb", "text_emb"])
def test_filtered_search_is_brute_force_over_the_matching_rows(
    library: Library, queries: np.ndarray, array: str, node: Node
) -> None:
    where = parse_where(render(node))
    found = (Selection.pictures if array == "img_emb" else Selection.prompts)(library, where)
    assert found is not None
    expected = brute_force(library, queries, array, [truth(node, r) is True for r in records_of(library)], 10)
    assert_same(found.search(queries, 10), expected)


@pytest.mark.parametrize(
    "factory",
    ["Flat", "IVF8,SQfp16", "HNSW16", "HNSW16,SQfp16", "PCA12,IVF8,Flat", "IVF8,PQ4x4fs,RFlat", "IVF8,RaBitQ"],
)
def test_every_kind_of_index_is_searched_among_the_matching_rows(
    tmp_path: Path, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    library = write_metadata_library(tmp_path / "library", make_records(300), DIM, factory, shard_size=300)
    monkeypatch.setattr(where_search, "EXACT_ROWS", 0)
    for text in ("steps >= 20", "steps >= 57", "steps > 1000", "steps is null or steps > 0"):
        mask = matching_rows(library, parse_where(text))
        expected = brute_force(library, queries, "img_emb", mask.tolist(), 10)
        selection = Selection.pictures(library, parse_where(text))
        assert selection is not None
        found = selection.search(queries, 10)
        assert {row for hits in found for row, _ in hits} <= set(np.flatnonzero(mask).tolist())
        assert [len(hits) for hits in found] == [len(hits) for hits in expected]
        if factory == "Flat":
            assert_same(found, expected)


def test_a_long_selection_is_searched_block_by_block(
    library: Library, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where_search, "_EXACT_BLOCK", 7)
    selection = Selection.pictures(library, parse_where("steps > 0"))
    assert selection is not None
    mask = matching_rows(library, parse_where("steps > 0")).tolist()
    assert_same(selection.search(queries, 9), brute_force(library, queries, "img_emb", mask, 9))


def records_of(library: Library) -> list:  # type: ignore[type-arg]
    return library.records(range(len(library)))


def brute_force(
    library: Library, queries: np.ndarray, array: str, mask: list[bool], k: int
) -> list[list[tuple[int, float]]]:
    """The k best of the rows in `mask`, or of the prompts of these pictures, by a product with everything."""
    from unprompt.index.shards import PICTURES

    stored = np.concatenate(list(library.arrays(PICTURES, array)))
    rows: dict[int, int] = {}
    prompts = [prompt for prompt, _ in library.prompts(range(library.manifest.counts["prompts"]))]
    for picture, record in enumerate(records_of(library)):
        if mask[picture]:
            rows.setdefault(picture if array == "img_emb" else prompts.index(record.prompt), picture)
    scores = queries @ stored[list(rows.values())].T if rows else np.zeros((len(queries), 0))
    return [
        sorted(((row, float(score)) for row, score in zip(rows, line, strict=True)), key=lambda h: (-h[1], h[0]))[:k]
        for line in scores
    ]


def assert_same(found: list[list[tuple[int, float]]], expected: list[list[tuple[int, float]]]) -> None:
    """The same rows and scores; rows whose scores are equal but for rounding may change places."""
    for hits, best in zip(found, expected, strict=True):
        assert len(hits) == len(best)
        np.testing.assert_allclose([score for _, score in hits], [score for _, score in best], atol=2e-6)
        worst = best[-1][1] if best else 0.0
        assert {row for row, score in hits if score > worst + 4e-6} == {r for r, s in best if s > worst + 4e-6}
