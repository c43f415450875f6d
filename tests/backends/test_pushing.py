from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeEncoder
from metadata_library import FINGERPRINT, make_records, named, unit_rows, write_metadata_library
from unprompt.backends import milvus as milvus_backend
from unprompt.backends import postgres as postgres_backend
from unprompt.backends.local import LocalLibrary
from unprompt.backends.opening import open_backend, open_store
from unprompt.backends.protocol import Row, Store
from unprompt.backends.pushing import push, read_facts, rows_to_push
from unprompt.backends.remote import PUSHED
from unprompt.errors import LibraryError, QueryError
from unprompt.index.files import cache_folder
from unprompt.index.library import Library
from unprompt.index.remove import remove_rows
from unprompt.index.where_parser import parse_where
from unprompt.types import Record

DIM = 16


class Counting:
    """A store that counts the rows written through it, and dies in the middle of the batch that passes a limit.

    Before every batch it calls `look`.
    """

    def __init__(self, store: Store, limit: int = 10**9, look: Callable[[], None] = lambda: None) -> None:
        self._store, self._limit, self._look = store, limit, look
        self._counts = [0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @property
    def written(self) -> int:
        return self._counts[0]

    def staging(self) -> Counting:
        staged = Counting(self._store.staging(), self._limit, self._look)
        staged._counts = self._counts
        return staged

    def upsert(self, table: str, rows: Sequence[Row]) -> None:
        self._look()
        if self.written + len(rows) > self._limit:
            raise KeyboardInterrupt
        self._store.upsert(table, rows)
        self._counts[0] += len(rows)


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """A library of 300 pictures in shards of 128; more can be added."""
    root = tmp_path / "library"
    write_metadata_library(root, make_records(300, seed=3), DIM, lone_prompts=("alone",))
    return root


def test_a_push_is_resumed_repeated_and_brought_up_to_date(
    grown: Path, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unprompt.backends.pushing.BATCH_ROWS", 50)
    library, address = Library.open(grown), named(base_url, "grown")
    rows = rows_to_push(library)
    assert rows == 300 + library.manifest.counts["prompts"]
    dying = Counting(open_store(address), limit=180)
    with pytest.raises(KeyboardInterrupt):
        push(library, dying)
    dying.close()
    with pytest.raises(LibraryError, match="no library at"):
        open_backend(address)

    resumed = Counting(open_store(address))
    done: list[int] = []
    pushed = push(library, resumed, progress=done.append)
    assert dying.written + resumed.written == rows
    assert pushed.kept == {"pictures": dying.written, "prompts": 0, "files": 0}
    assert sum(done) == rows
    assert push(library, resumed).written == {"pictures": 0, "prompts": 0, "files": 0}
    assert_holds(address, library)

    write_metadata_library(grown, make_records(40, seed=3, first=300), DIM)
    remove_rows(grown, rows=[record.id for record in library.records([3, 4, 250])])
    changed = Library.open(grown)
    push(changed, resumed)
    assert_holds(address, changed)
    resumed.close()


def assert_holds(address: str, library: Library) -> None:
    backend = open_backend(address)
    queries = unit_rows(3, DIM, seed=8)
    found = backend.pictures(queries, 400)
    assert [{record.id for record, _ in hits} for hits in found] == [
        {record.id for record in library.records(range(len(library)))}
    ] * 3
    prompts = {prompt for prompt, _ in backend.prompts(queries[:1], 1000)[0]}
    assert prompts == {prompt for prompt, _ in library.prompts(range(library.manifest.counts["prompts"]))}
    backend.close()


def test_rows_that_somebody_deleted_are_written_again(grown: Path, base_url: str) -> None:
    library, store = Library.open(grown), open_store(named(base_url, "mended"))
    push(library, store)
    keys = [block_key for block_key in block_keys(library) if store.count("pictures", block_key) == 128]
    store.keep("pictures", keys[:1])
    assert store.count("pictures") == 128
    push(library, store)
    assert store.count("pictures") == 300
    store.close()


def block_keys(library: Library) -> list[str]:
    from unprompt.backends.blocks import picture_blocks

    return [block.key for block in picture_blocks(library)]


def test_another_encoders_library_is_refused_unless_it_replaces(grown: Path, tmp_path: Path, base_url: str) -> None:
    address = named(base_url, "encoders")
    store = open_store(address)
    push(Library.open(grown), store)
    other = write_metadata_library(tmp_path / "other", make_records(20, seed=4), DIM + 8)
    with pytest.raises(LibraryError, match="holds a library of encoder fake") as error:
        push(other, store)
    assert "\n" not in str(error.value)
    push(other, store, replace=True)
    facts = read_facts(store)
    assert facts is not None
    assert (facts.manifest.encoder.fingerprint, facts.manifest.encoder.dim) == (FINGERPRINT, DIM + 8)
    assert_total(store, 20)
    with pytest.raises(LibraryError, match="has 24 dimensions"):
        open_backend(address).pictures(unit_rows(1, DIM, 0), 5)
    store.close()


def assert_total(store: Store, pictures: int) -> None:
    assert store.count("pictures") == pictures


def test_indexes_are_exchanged_and_find_what_exact_search_finds(
    library: Library, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_backend, "EXACT_ROWS", 0)
    address, local, queries = named(base_url, "indexes"), LocalLibrary(library), unit_rows(20, DIM, seed=21)
    conditions = [None, parse_where("steps >= 20"), parse_where("width = 512 and source = 'mine'")]
    best = [(local.pictures(queries, 10, where), local.prompts(queries, 10, where)) for where in conditions]
    for index in ("hnsw", "ivf", "flat"):
        store = open_store(address)
        push(library, store, index=index)
        facts = read_facts(store)
        assert facts is not None
        assert facts.index == index
        store.close()
        backend = open_backend(address)
        for where, (pictures, prompts) in zip(conditions, best, strict=True):
            found = backend.pictures(queries, 10, where)
            least = 1.0 if index == "flat" else 0.95
            assert (
                recall([[r.id for r, _ in hits] for hits in found], [[r.id for r, _ in h] for h in pictures]) >= least
            )
            texts = backend.prompts(queries, 10, where)
            assert recall([[t for t, _ in hits] for hits in texts], [[t for t, _ in hits] for hits in prompts]) >= least
        backend.close()


def recall(found: list[list[str]], expected: list[list[str]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, expected, strict=True)]))


def test_milvus_compares_all_that_match_where_its_index_finds_too_few(
    library: Library, milvus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = named(f"milvus:{milvus_file}", "short")
    store = open_store(address)
    push(library, store, index="hnsw")
    for table in ("pictures", "prompts", "files"):  # as Milvus Lite does when its process ends
        store._client.release_collection(f"short_{table}")  # type: ignore[attr-defined]
    store.close()
    monkeypatch.setattr(milvus_backend.MilvusStore, "_nearest", lambda self, table, queries, *_: [[] for _ in queries])
    backend, where, queries = open_backend(address), parse_where("steps >= 40"), unit_rows(3, DIM, seed=12)
    best = LocalLibrary(library).pictures(queries, 12, where)
    assert [[r.id for r, _ in hits] for hits in backend.pictures(queries, 12, where)] == [
        [r.id for r, _ in hits] for hits in best
    ]
    backend.close()


def test_a_lost_connection_is_one_line_and_then_made_again(library: Library, postgres_url: str) -> None:
    import psycopg

    store = open_store(named(postgres_url, "lost"))
    push(library, store, index="flat")
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
    with pytest.raises(LibraryError, match="library=lost: terminating connection") as error:
        store.count("pictures")
    assert "\n" not in str(error.value)
    assert store.count("pictures") == 400
    store.close()


def test_prompts_of_very_many_and_of_few_matching_pictures(
    library: Library, milvus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_backend, "_LISTED_IDS", 10)
    address = named(f"milvus:{milvus_file}", "listed")
    store = open_store(address)
    push(library, store, index="flat")
    store.close()
    backend, local, queries = open_backend(address), LocalLibrary(library), unit_rows(3, DIM, seed=12)
    for text in ("steps >= 20", "steps = 33", "steps = 33 or steps = 34"):
        where = parse_where(text)
        found, best = backend.prompts(queries, 12, where), local.prompts(queries, 12, where)
        assert [[prompt for prompt, _ in hits] for hits in found] == [[prompt for prompt, _ in hits] for hits in best]
    backend.close()


def test_the_vocabulary_goes_along_and_is_kept_in_the_cache(tmp_path: Path, base_url: str) -> None:
    from tiny_library import write_library
    from unprompt.types import Fragment

    encoder = FakeEncoder()
    fragments = [Fragment(f"flavor number {i}", "flavor") for i in range(900)] + [Fragment("Hilma af Klint", "artist")]
    library = write_library(tmp_path / "words", encoder, prompts={"a red thing": 2}, fragments=fragments)
    address = named(base_url, "words")
    store = open_store(address)
    assert push(library, store).total["files"] > 2
    backend = open_backend(address)
    assert backend.vocabulary.terms == library.vocabulary.terms
    np.testing.assert_array_equal(backend.vocabulary.matrix, library.vocabulary.matrix)
    cached = sorted((cache_folder() / PUSHED).iterdir())
    assert len(cached) == 2
    for path in cached:
        path.write_bytes(b"damaged")
    assert open_backend(address).vocabulary.counts() == {"flavor": 900, "artist": 1}
    store.keep("files", ["facts"])
    for path in cached:
        path.unlink()
    with pytest.raises(LibraryError, match=r"does not hold vocabulary/fragments\.parquet as it was pushed"):
        _ = open_backend(address).vocabulary
    store.close()


def test_odd_texts_arrive(tmp_path: Path, base_url: str) -> None:
    metadata = {"negative_prompt": "a\0b", "note": ["x\0", {"y": "\\u0000 \t\n"}], "sampler": "tab\there \\N"}
    odd = [Record("1" * 20, 'it\'s "quoted" 水 \\', "/a b/%.png", metadata), Record("2" * 20, "plain", None, {})]
    library = write_metadata_library(tmp_path / "odd", odd, DIM)
    address = named(base_url, "odd")
    store = open_store(address)
    push(library, store, index="flat")
    store.close()
    backend = open_backend(address)
    found = {record.id: record for record, _ in backend.pictures(unit_rows(1, DIM, 1), 5)[0]}
    assert found["1" * 20].prompt == odd[0].prompt
    assert found["1" * 20].metadata == {
        "negative_prompt": "a\ufffdb",
        "note": ["x\ufffd", {"y": "\\u0000 \t\n"}],
        "sampler": "tab\there \\N",
    }
    assert found["2" * 20] == odd[1]
    backend.close()


def test_milvus_says_which_row_is_too_long(tmp_path: Path, milvus_file: Path) -> None:
    long = [Record("3" * 20, "short", "/x.png", {"workflow": "水" * 30_000})]
    library = write_metadata_library(tmp_path / "long", long, DIM)
    with pytest.raises(LibraryError, match=f"metadata of {'3' * 20} has 90,[0-9]+ bytes, Milvus holds 65,535"):
        push(library, open_store(named(f"milvus:{milvus_file}", "long")))
    backend_error = open_store(named(f"milvus:{milvus_file}", "long"))
    with pytest.raises(QueryError, match="at most 16384"):
        backend_error.search("pictures", unit_rows(1, DIM, 0), 20_000, None, "flat")


def test_unknown_indexes_are_refused(library: Library, base_url: str) -> None:
    with pytest.raises(LibraryError, match="unknown index 'annoy': use flat, hnsw, ivf"):
        push(library, open_store(named(base_url, "flat")), index="annoy")
