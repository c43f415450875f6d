from __future__ import annotations

import copy
import gc
import json
import pickle
import weakref
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from unprompt.errors import LibraryError
from unprompt.index import table as module
from unprompt.index.library import Library
from unprompt.index.manifest import ShardInfo
from unprompt.index.shards import PICTURE_SCHEMA, records_table, table_records
from unprompt.index.table import LazyMetadata, PictureTables, StoredTable
from unprompt.search.results import Neighbour, QueryResult
from unprompt.types import Candidate, Hit, Record

RECORDS = [
    Record("a", "a cat", "a.png", {"sha256": "1" * 64, "cfg": 7.3, "steps": 20, "width": 512, "tags": ["x", 1]}),
    Record("b", "a dog", None, {}),
    Record("c", "ein Bär", "c.png", {"sha256": "2" * 64, "sampler": "ddim", "seed": str(2**63), "cfg": 0.0}),
    Record("d", "", "d.png", {"note": None, "deep": {"é": 1}}),
]


def stored(records: list[Record]) -> StoredTable:
    (batch,) = records_table(records).combine_chunks().to_batches()
    return StoredTable(batch)


@pytest.fixture(params=[0, 10**6], ids=["taken", "cell by cell"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FEW_CELLS", request.param)


@pytest.mark.usefixtures("few")
def test_both_ways_of_reading_give_what_was_written() -> None:
    table, expected = stored(RECORDS), table_records(records_table(RECORDS))
    assert [each.id for each in expected] == ["a", "b", "c", "d"]
    assert table.records(np.array([0, 2, 3])) == [expected[0], expected[2], expected[3]]
    assert [type(each.metadata) for each in table.records(np.arange(4))] == [dict] * 4
    assert table.cells([3, 0, 3], "caption", "cfg") == [("", None), ("a cat", pytest.approx(7.3)), ("", None)]
    assert [list(each.metadata) for each in table.records(np.arange(4))] == [list(each.metadata) for each in expected]


def test_lazy_metadata_is_the_metadata() -> None:
    table = stored(RECORDS)
    for row, expected in enumerate(table_records(records_table(RECORDS))):
        record = table.lazy_record(row)
        assert isinstance(record.metadata, LazyMetadata)
        assert record == expected
        assert expected == record
        assert record == table.lazy_record(row)
        assert record.settled() == expected
        assert (len(record.metadata), list(record.metadata)) == (len(expected.metadata), list(expected.metadata))
        assert dict(record.metadata) == expected.metadata
        assert repr(record) == repr(expected)
        assert "nothing" not in record.metadata
        assert record.metadata.get("cfg") == expected.metadata.get("cfg")


def test_lazy_metadata_that_is_copied_or_serialised_is_a_dict() -> None:
    for copied in (copy.deepcopy, copy.copy, lambda each: pickle.loads(pickle.dumps(each))):
        metadata = copied(stored(RECORDS).lazy_record(0).metadata)
        assert type(metadata) is dict
        assert metadata == table_records(records_table(RECORDS))[0].metadata
    record = stored(RECORDS).lazy_record(0)
    assert json.loads(json.dumps(asdict(record)))["metadata"]["tags"] == ["x", 1]


class Counted(dict[str, Any]):
    """Columns that count how often they are looked at."""

    looked: list[str]

    def __getitem__(self, key: str) -> Any:
        self.looked.append(key)
        return super().__getitem__(key)

    def items(self) -> Any:
        self.looked += list(self)
        return super().items()


def test_the_files_hash_is_read_alone() -> None:
    table = records_table(RECORDS).combine_chunks()
    columns = Counted({name: table.column(name).chunk(0) for name in ("sha256", "cfg", "extra")})
    columns.looked = []
    metadata: Mapping[str, Any] = LazyMetadata(columns, 0)
    assert metadata.get("sha256") == "1" * 64
    assert LazyMetadata(columns, 1).get("sha256") is None
    assert columns.looked == ["sha256"] * 2
    assert metadata["tags"] == ["x", 1]
    assert len(columns.looked) == 5
    assert (metadata["sha256"], metadata["cfg"]) == ("1" * 64, pytest.approx(7.3))
    assert len(columns.looked) == 5, "what was read is kept"


def test_a_table_without_any_hash_says_so() -> None:
    record = stored([RECORDS[1], RECORDS[3]]).lazy_record(1)
    assert record.metadata.get("sha256") is None
    assert record.metadata["deep"] == {"é": 1}


def test_results_keep_no_table() -> None:
    table = stored(RECORDS)
    record = table.lazy_record(0)
    kept = weakref.ref(table._metadata["cfg"])
    result = QueryResult("x.png", Candidate("a cat", 1.0), neighbours=(Neighbour(Hit("a", 1.0, 1), record),))
    del table, record
    gc.collect()
    assert kept() is None
    assert type(result.neighbours[0].record.metadata) is dict
    assert result.neighbours[0].record == table_records(records_table(RECORDS))[0]


def shard(number: int, rows: int) -> ShardInfo:
    return ShardInfo("pictures", number, rows, False)


def tables(sizes: list[int]) -> PictureTables:
    """Shards of these sizes; the picture of row i is called i."""
    start, made = 0, {}
    for number, size in enumerate(sizes):
        rows = [Record(str(row), f"prompt {row}", None, {"steps": row}) for row in range(start, start + size)]
        made[f"metadata/metadata_{number:04d}.parquet"] = (
            stored(rows) if rows else StoredTable(pa.RecordBatch.from_pylist([], schema=PICTURE_SCHEMA))
        )
        start += size
    return PictureTables(Path("library"), [shard(*each) for each in enumerate(sizes)], made.__getitem__)


@pytest.mark.parametrize("sizes", [[10], [3, 4, 3], [0, 5, 0, 0, 4, 1, 0], [1] * 10])
def test_rows_are_found_in_whichever_shard_holds_them(sizes: list[int]) -> None:
    found = tables(sizes)
    rows = [9, 0, 5, 5, 3, 4]
    assert [each.id for each in found.lazy_records(rows)] == [str(row) for row in rows]
    assert found.records(rows) == found.lazy_records(rows)
    assert [each.metadata["steps"] for each in found.records(range(10))] == list(range(10))
    located = [(each.number, inside.tolist()) for each, inside in found.located(np.arange(10))]
    assert located == [(number, list(range(size))) for number, size in enumerate(sizes) if size]
    assert found.records([]) == found.lazy_records([]) == []
    for outside in (10, -1):
        for read in (found.records, found.lazy_records):
            with pytest.raises(IndexError, match=f"row {outside} is not in a library of 10 pictures"):
                read([0, outside])


def test_a_table_of_too_few_rows_is_one_line() -> None:
    short = PictureTables(Path("library"), [shard(0, 5)], lambda _: stored(RECORDS))
    for read in (short.records, short.lazy_records):
        assert read([3])[0].id == "d"
        with pytest.raises(LibraryError, match="a table of library has fewer rows than the manifest says"):
            read([0, 4])


def test_a_library_gives_the_same_records_both_ways(library_path: Path) -> None:
    library = Library.open(library_path)
    rows = [39, 0, 17, 16, 15, 17, 3]
    lazy = library.lazy_records(rows)
    assert lazy == library.records(rows)
    assert all(isinstance(each.metadata, LazyMetadata) for each in lazy)
    assert {len(each.metadata["sha256"]) for each in lazy} == {64}
