"""Tables in memory that are read by rows.

After an encoder's pass nothing of a table is in a core's cache, and how long a reading takes is how much it touches: a
few cells are a fraction of slicing out or taking their rows, which touches every column.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unprompt.errors import LibraryError
from unprompt.index.manifest import ShardInfo
from unprompt.index.shards import PICTURES, RECORD_FIELDS, SHA256, metadata_of, table_records
from unprompt.types import Record

_FEW_CELLS = 256
"""Cells up to which reading one by one is faster than taking whole rows."""


class StoredTable:
    """The table of a shard, or of the distinct prompts.

    Args:
        batch: all of its rows.
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        self._fields = tuple(self._columns[name] for name in RECORD_FIELDS if name in self._columns)
        self._metadata = {
            name: column
            for name, column in self._columns.items()
            if name not in RECORD_FIELDS and column.null_count < len(column)
        }

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    @property
    def nbytes(self) -> int:
        return int(self._batch.nbytes)

    def column(self, name: str) -> list[Any]:
        """All cells of one column."""
        return self._columns[name].to_pylist()  # type: ignore[no-any-return]

    def cells(self, rows: Sequence[int], *names: str) -> list[tuple[Any, ...]]:
        """Some columns of some rows."""
        columns = [self._columns[name] for name in names]
        if len(rows) * len(columns) <= _FEW_CELLS:
            return [tuple([column[row].as_py() for column in columns]) for row in rows]
        at = pa.array(rows, type=pa.int64())
        return list(zip(*(column.take(at).to_pylist() for column in columns), strict=True))

    def records(self, rows: NDArray[np.int64]) -> list[Record]:
        """The pictures of some rows."""
        if len(rows) * len(self._columns) <= _FEW_CELLS:
            return [self.lazy_record(row).settled() for row in rows.tolist()]
        return table_records(pa.Table.from_batches([self._batch.take(pa.array(rows))]))

    def lazy_record(self, row: int) -> Record:
        """The picture of one row, with `LazyMetadata`."""
        identity, prompt, image = self._fields
        return Record(identity[row].as_py(), prompt[row].as_py(), image[row].as_py(), LazyMetadata(self._metadata, row))


class LazyMetadata(Mapping[str, Any]):
    """The metadata of one picture, read when more than the file's sha256 is first asked for.

    It keeps the whole table in memory; what outlives a query is `Record.settled`. Copied or pickled it is a dict.

    Args:
        columns: the table's, by name; those without any value may be left out.
        row: which row of it.
    """

    __slots__ = ("_columns", "_known", "_row")

    def __init__(self, columns: Mapping[str, pa.Array], row: int) -> None:
        self._columns = columns
        self._row = row
        self._known: dict[str, Any] | None = None

    def __getitem__(self, key: str) -> Any:
        if key != SHA256 or self._known is not None:
            return self._read()[key]
        value = self._columns[SHA256][self._row].as_py()
        if value is None:
            raise KeyError(SHA256)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (self._read(),)

    def _read(self) -> dict[str, Any]:
        if self._known is None:
            self._known = metadata_of({name: column[self._row].as_py() for name, column in self._columns.items()})
        return self._known


class PictureTables:
    """The tables of a library's pictures, read by rows of the image index.

    Args:
        root: the library's folder.
        shards: those of pictures, in order.
        table: reads, or has kept, the table of a file.
    """

    def __init__(self, root: Path, shards: Sequence[ShardInfo], table: Callable[[str], StoredTable]) -> None:
        self._root = root
        self._shards = shards
        self._read = table
        self._files = [PICTURES.table_file(shard.number) for shard in shards]
        self._edges = np.cumsum([0, *(shard.rows for shard in shards)]).tolist()

    def located(self, rows: NDArray[np.int64]) -> Iterator[tuple[ShardInfo, NDArray[np.int64]]]:
        """The shards of ascending rows, with the places of the rows in each."""
        holders = np.searchsorted(self._edges, rows, side="right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(holders)) + 1).tolist(), len(rows)]
        for start, stop in pairwise(cuts if len(rows) else ()):
            holder = int(holders[start])
            yield self._shards[holder], rows[start:stop] - self._edges[holder]

    def records(self, rows: Sequence[int]) -> list[Record]:
        """See `Library.records`."""
        distinct, places = np.unique(np.asarray(rows, dtype=np.int64), return_inverse=True)
        if len(distinct):
            self._holder(int(distinct[0]))
            self._holder(int(distinct[-1]))
        found: list[Record] = []
        for shard, inside in self.located(distinct):
            found += self._table(PICTURES.table_file(shard.number), int(inside[-1])).records(inside)
        return [found[place] for place in places.tolist()]

    def lazy_records(self, rows: Sequence[int]) -> list[Record]:
        """See `Library.lazy_records`."""
        found = []
        for row in rows:
            holder = self._holder(row)
            place = row - self._edges[holder]
            found.append(self._table(self._files[holder], place).lazy_record(place))
        return found

    def _holder(self, row: int) -> int:
        """Which shard has a row."""
        if not 0 <= row < self._edges[-1]:
            raise IndexError(f"row {row} is not in a library of {self._edges[-1]} pictures")
        return bisect_right(self._edges, row) - 1

    def _table(self, file: str, place: int) -> StoredTable:
        """A table that has this row."""
        table = self._read(file)
        if place >= len(table):
            raise LibraryError(
                f"a table of {self._root} has fewer rows than the manifest says; build the library again"
            )
        return table
