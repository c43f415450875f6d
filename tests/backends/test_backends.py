from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings

from metadata_library import named, unit_rows
from unprompt.backends.local import LocalLibrary
from unprompt.backends.opening import open_backend, open_store
from unprompt.backends.protocol import SearchBackend
from unprompt.backends.pushing import push
from unprompt.errors import QueryError
from unprompt.index.library import Library
from unprompt.index.where_parser import parse_where
from where_oracle import Node, conditions, render, truth

DIM = 16


@pytest.fixture(scope="session")
def flat(library: Library, base_url: str) -> Iterator[SearchBackend]:
    address = named(base_url, "flat")
    push(library, open_store(address), index="flat")
    backend = open_backend(address)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def queries() -> np.ndarray:
    return unit_rows(6, DIM, seed=5)


def test_a_flat_index_answers_as_the_library_does(library: Library, flat: SearchBackend, queries: np.ndarray) -> None:
    local = LocalLibrary(library)
    assert len(flat) == len(local) == 400
    assert flat.manifest.encoder == library.manifest.encoder
    assert_same(flat.pictures(queries, 20), local.pictures(queries, 20), key=lambda record: record.id)
    assert_same(flat.prompts(queries, 20), local.prompts(queries, 20))
    everything = flat.pictures(queries[:1], 1000)[0]
    assert len(everything) == 400
    by_id = {record.id: record for record in library.records(range(400))}
    for record, _ in everything:  # every field comes back as it was
        assert record == by_id[record.id]
    assert "a lone prompt" in {prompt for prompt, _ in flat.prompts(queries[:1], 1000)[0]}


@given(node=conditions)
@settings(max_examples=50)
def test_conditions_match_the_same_pictures_everywhere(library: Library, flat: SearchBackend, node: Node) -> None:
    where = parse_where(render(node))
    expected = {record.id for record in library.records(range(400)) if truth(node, record) is True}
    if str(flat.path).startswith("milvus") and escapes(node) and "extra." in render(node):
        with pytest.raises(QueryError, match="Milvus Lite cannot"):
            flat.pictures(unit_rows(1, DIM, seed=6), 400, where)
        return
    found = flat.pictures(unit_rows(1, DIM, seed=6), 400, where)[0]
    assert {record.id for record, _ in found} == expected


@pytest.mark.parametrize("text", ["steps >= 20", "steps = 33", "steps > 1000", "extra.likes > 3 and cfg is not null"])
def test_answers_under_a_condition_are_the_librarys(
    library: Library, flat: SearchBackend, queries: np.ndarray, text: str
) -> None:
    local, where = LocalLibrary(library), parse_where(text)
    assert_same(flat.pictures(queries, 15, where), local.pictures(queries, 15, where), key=lambda record: record.id)
    assert_same(flat.prompts(queries, 15, where), local.prompts(queries, 15, where))


def test_many_threads_may_search_at_once(flat: SearchBackend, queries: np.ndarray) -> None:
    where = parse_where("steps >= 20")
    alone = [flat.pictures(query[None], 8, where) for query in queries]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda query: flat.pictures(query[None], 8, where), np.tile(queries, (3, 1))))
    assert together == alone * 3


def escapes(node: Node) -> bool:
    """Whether a pattern of the condition has a backslash, a text to be contained a % or _."""
    if node[0] in ("and", "or"):
        return any(map(escapes, node[1]))
    if node[0] == "not":
        return escapes(node[1])
    return any(sign in node[3] for sign in {"like": "\\", "contains": "\\%_"}.get(node[0], ""))


def assert_same(found: list, expected: list, key=lambda thing: thing) -> None:  # type: ignore[no-untyped-def, type-arg]
    """The same things with the same scores in the same order, but where scores differ by rounding."""
    for hits, best in zip(found, expected, strict=True):
        assert len(hits) == len(best)
        np.testing.assert_allclose([score for _, score in hits], [score for _, score in best], atol=2e-6)
        edge = (best[-1][1] if best else 0) + 4e-6
        assert {key(thing) for thing, score in hits if score > edge} == {key(t) for t, s in best if s > edge}
