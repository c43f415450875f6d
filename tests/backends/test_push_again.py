"""Pushing where a library is served: it is served as it was until the new one takes its place at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeEncoder
from metadata_library import make_records, named, unit_rows, write_metadata_library
from tiny_library import write_library
from unprompt.backends.blocks import picture_blocks, prompt_blocks
from unprompt.backends.milvus import MilvusStore
from unprompt.backends.opening import open_backend, open_store
from unprompt.backends.postgres import PostgresStore
from unprompt.backends.protocol import Row, Store
from unprompt.backends.pushing import push
from unprompt.backends.remote import PUSHED, PushedLibrary
from unprompt.backends.tables import PROMPTS, Block, probes_of
from unprompt.builders.vocabulary import add_fragments
from unprompt.errors import LibraryError
from unprompt.index.files import cache_folder
from unprompt.index.library import Library
from unprompt.index.remove import remove_rows
from unprompt.search.evidence import find_evidence
from unprompt.search.queries import Query
from unprompt.types import Fragment

DIM = 16
Served = tuple[dict[str, Any], dict[str, float]]


class Watched:
    """A store that calls `look` before each batch that is written through it, and before publishing.

    `batches` has the rows of each.
    """

    def __init__(self, store: Store, look: Callable[[], None]) -> None:
        self._store, self._look = store, look
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def staging(self) -> Watched:
        staged = Watched(self._store.staging(), self._look)
        staged.batches = self.batches
        return staged

    def upsert(self, table: str, rows: Sequence[Row]) -> None:
        self._look()
        self._store.upsert(table, rows)
        self.batches.append(len(rows))

    def publish(self, *arguments: Any) -> None:
        self._look()
        self._store.publish(*arguments)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("unprompt.backends.pushing.BATCH_ROWS", 50)
    write_metadata_library(tmp_path / "library", make_records(200, seed=3), DIM, lone_prompts=("alone",))
    return tmp_path / "library"


def change(root: Path) -> Library:
    """Rows are removed, so that others get new numbers in new blocks, and rows are added."""
    remove_rows(root, rows=[record.id for record in Library.open(root).records([3, 4, 150])])
    write_metadata_library(root, make_records(40, seed=9, first=300), DIM)
    return Library.open(root)


def served(backend: PushedLibrary) -> Served:
    """Every row with its score for a query."""
    query = unit_rows(1, DIM, seed=8)
    pictures = {record.id: (record, round(score, 5)) for record, score in backend.pictures(query, 1000)[0]}
    return pictures, {prompt: round(score, 5) for prompt, score in backend.prompts(query, 1000)[0]}


def expect(library: Library) -> tuple[set[str], set[str]]:
    pictures = {record.id for record in library.records(range(len(library)))}
    return pictures, {prompt for prompt, _ in library.prompts(range(library.manifest.counts["prompts"]))}


def test_the_old_library_is_served_until_the_new_one_is(root: Path, base_url: str) -> None:
    address, old = named(base_url, "again"), Library.open(root)
    store = open_store(address)
    push(old, store, index="flat")
    reader = open_backend(address)
    before, looks = served(reader), []
    assert tuple(map(set, before)) == expect(old)

    def look() -> None:
        looks.append(1)
        assert served(reader) == before
        fresh = open_backend(address)
        assert served(fresh) == before
        assert len(fresh) == 200
        fresh.close()

    new = change(root)
    push(new, Watched(store, look), index="hnsw")  # type: ignore[arg-type]
    assert len(looks) > 2
    after = served(reader)  # it was open all the while
    assert tuple(map(set, after)) == expect(new)
    fresh = open_backend(address)
    assert served(fresh) == after
    assert len(fresh) == 237
    assert push(new, store, index="hnsw").written == {"pictures": 0, "prompts": 0, "files": 0}
    for each in (reader, fresh, store):
        each.close()
    assert places(address) == 3


def places(address: str) -> int:
    """How many tables or collections there are of a library."""
    store = open_store(address)
    if isinstance(store, MilvusStore):
        name = store._address.name
        found = len([each for each in store._client.list_collections() if each.startswith(f"{name}_")])
    else:
        assert isinstance(store, PostgresStore)
        query = "select count(*) from pg_tables where schemaname like %s"
        found = int(store._all(query, [f"{store._schema}%"])[0][0])
    store.close()
    return found


def blocks(library: Library) -> list[Block]:
    return [*picture_blocks(library), *prompt_blocks(library)]


def found_while(change: Callable[[], object], backend: PushedLibrary, monkeypatch: pytest.MonkeyPatch) -> Served:
    """What a query finds where all changes between its searches for pictures and for prompts."""
    prompts, changes = backend.prompts, [change]

    def changed(*arguments: Any) -> Any:
        while changes:
            changes.pop()()
        return prompts(*arguments)

    monkeypatch.setattr(backend, "prompts", changed)
    [found] = find_evidence(backend, [Query("asked", unit_rows(1, DIM, seed=8)[0])], 1000)
    pictures = {each.record.id: (each.record, round(each.hit.score, 5)) for each in found.neighbours}
    return pictures, {hit.id: round(hit.score, 5) for hit in found.near}


def test_a_query_finds_pictures_and_prompts_of_one_push(
    root: Path, milvus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = named(f"milvus:{milvus_file}", "straddled")
    store = open_store(address)
    push(Library.open(root), store, index="flat")
    backend, new = open_backend(address), change(root)
    found = found_while(lambda: push(new, store, index="flat"), backend, monkeypatch)
    assert tuple(map(set, found)) == expect(new)
    backend.close()
    store.close()


def test_a_query_sees_no_change_that_is_made_while_it_searches(
    root: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = named(postgres_url, "snapshot")
    store, old = open_store(address), Library.open(root)
    push(old, store, index="flat")
    backend = open_backend(address)
    found = found_while(lambda: store.keep(PROMPTS, []), backend, monkeypatch)
    assert tuple(map(set, found)) == expect(old)
    assert not served(backend)[1]
    backend.close()
    store.close()


@pytest.mark.parametrize(("first", "second"), [("ivf", "hnsw"), ("hnsw", "ivf")])
def test_a_reader_that_stays_open_looks_through_enough_of_another_kind_of_index(
    root: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    address, library, seen = named(postgres_url, f"from_{first}"), Library.open(root), []
    store = open_store(address)
    push(library, store, index=first)
    reader = open_backend(address)
    push(library, store, index=second)
    set_search = PostgresStore._set_search

    def watched(self: PostgresStore, execute: Callable[..., Any], *arguments: Any) -> None:
        set_search(self, execute, *arguments)
        seen.append(execute("select current_setting('hnsw.ef_search'), current_setting('ivfflat.probes')").fetchone())

    monkeypatch.setattr(PostgresStore, "_set_search", watched)
    assert len(reader.pictures(unit_rows(1, DIM, seed=8), 150)[0]) == 150
    assert seen == [("300", str(probes_of(200)))]
    reader.close()
    store.close()


def test_a_push_that_is_killed_leaves_the_old_library_and_is_resumed(root: Path, base_url: str) -> None:
    address, old, batches = named(base_url, "killed"), Library.open(root), 3
    store = open_store(address)
    push(old, store, index="flat")
    reader = open_backend(address)
    before, left = served(reader), batches

    def die() -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1

    there = set() if store.stages_whole else {block.key for block in blocks(old)}
    new, killed = change(root), Watched(store, die)
    with pytest.raises(KeyboardInterrupt):
        push(new, killed, index="flat")  # type: ignore[arg-type]
    fresh = open_backend(address)
    assert served(reader) == served(fresh) == before
    written: list[int] = []
    store.close()
    resumed = open_store(address)
    pushed = push(new, resumed, index="flat", progress=written.append)
    assert tuple(map(set, served(reader))) == expect(new)
    assert len(killed.batches) == batches
    assert sum(written) == 237 + new.manifest.counts["prompts"]
    lacking = sum(block.rows for block in blocks(new) if block.key not in there)
    assert sum(killed.batches) + sum(pushed.written.values()) == lacking  # nothing is written twice
    for each in (reader, fresh, resumed):
        each.close()


def test_a_push_that_is_killed_while_it_publishes(root: Path, base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address, old = named(base_url, "publishing"), Library.open(root)
    store = open_store(address)
    push(old, store, index="flat")
    reader = open_backend(address)
    before, new = served(reader), change(root)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PostgresStore, "_exchange_index", die)  # in the middle of the transaction
        patch.setattr(MilvusStore, "_make_searchable", die)  # before the facts
        with pytest.raises(KeyboardInterrupt):
            push(new, store, index="flat")
    assert served(reader) == before
    push(new, store, index="flat")
    assert tuple(map(set, served(reader))) == expect(new)
    reader.close()
    store.close()
    assert places(address) == 3


def test_what_milvus_had_not_dropped_yet_is_dropped_by_the_next_push(
    root: Path, milvus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = named(f"milvus:{milvus_file}", "undropped")
    store = open_store(address)
    push(Library.open(root), store, index="flat")
    new = change(root)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MilvusStore, "_drop_all", die)
        with pytest.raises(KeyboardInterrupt):
            push(new, store, index="flat")
    backend = open_backend(address)
    assert tuple(map(set, served(backend))) == expect(new)
    assert places(address) == 5
    push(new, store, index="flat")
    assert places(address) == 3
    assert tuple(map(set, served(backend))) == expect(new)
    backend.close()
    store.close()


def test_an_abandoned_push_leaves_nothing_in_the_next_one(root: Path, base_url: str, tmp_path: Path) -> None:
    address, old = named(base_url, "abandoned"), Library.open(root)
    store = open_store(address)
    push(old, store, index="flat")
    other = write_metadata_library(tmp_path / "other", make_records(120, seed=77, first=1000), DIM)
    batches = iter(range(2))

    def die() -> None:
        if next(batches, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(other, Watched(store, die), index="flat")  # type: ignore[arg-type]
    new = change(root)
    push(new, store, index="flat")
    backend = open_backend(address)
    assert tuple(map(set, served(backend))) == expect(new)
    backend.close()
    store.drop()
    store.close()
    assert places(address) == 0


def test_a_vocabulary_that_was_replaced_since_is_one_line(tmp_path: Path, base_url: str) -> None:
    root, encoder, address = tmp_path / "words", FakeEncoder(), named(base_url, "replaced")
    library = write_library(root, encoder, prompts={"a red thing": 2}, fragments=[Fragment("oil", "medium")])
    store = open_store(address)
    push(library, store, index="flat")
    late, early = open_backend(address), open_backend(address)
    assert early.vocabulary.counts() == {"medium": 1}
    add_fragments(root, [Fragment("ink", "medium")], encoder)
    for path in (cache_folder() / PUSHED).iterdir():
        path.unlink()
    pushed = push(Library.open(root), store, index="flat")
    assert pushed.written["pictures"] == pushed.written["prompts"] == 0
    assert pushed.written["files"] > 0
    assert early.vocabulary.counts() == {"medium": 1}
    with pytest.raises(LibraryError, match="was pushed again since it was opened; open it again"):
        _ = late.vocabulary
    assert open_backend(address).vocabulary.counts() == {"medium": 2}
    store.close()


def test_stored_embeddings_of_prompts_are_given_by_prompt(library: Library, base_url: str) -> None:
    address = named(base_url, "vectors")
    store = open_store(address)
    push(library, store, index="flat")
    store.close()
    backend = open_backend(address)
    prompts = [prompt for prompt, _ in library.prompts(range(library.manifest.counts["prompts"]))]
    found = backend.prompt_vectors([*prompts, "not a prompt of it"])
    assert set(found) == set(prompts)
    stored = library.prompt_texts(range(len(prompts)))
    assert stored is not None
    np.testing.assert_allclose(np.stack([found[prompt] for prompt in prompts]), stored, atol=1e-3)
    assert {vector.dtype for vector in found.values()} == {np.dtype(np.float32)}
    assert backend.prompt_vectors([]) == {}
    backend.close()
