"""The pictures of a library that match a condition, from the columns of its metadata that the condition names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unprompt.errors import LibraryError
from unprompt.index.commit import current
from unprompt.index.shards import PICTURES
from unprompt.index.where import (
    COLUMNS,
    All,
    Compare,
    Condition,
    Field,
    Known,
    Like,
    Some,
    Test,
    Where,
    microseconds,
    typed,
)

if TYPE_CHECKING:
    from unprompt.index.library import Library

Mask = NDArray[np.bool_]

_EXTRA = "extra"
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def matching_rows(library: Library, where: Where) -> Mask:
    """Which rows of a library's image index match: (N,) bool.

    Reads the columns that are tested, mapped into memory, a row group at a time.

    Raises:
        LibraryError: a metadata file cannot be read.
    """
    columns = sorted({_EXTRA if field.extra else COLUMNS[field.name] for field in where.fields()})
    masks = [mask for batch in _batches(library, columns) for mask in [_Batch(batch).mask(where.condition)]]
    return np.concatenate(masks) if masks else np.zeros(0, dtype=bool)


def matching_prompts(library: Library, rows: Mask) -> pa.ChunkedArray:
    """The prompts of the pictures in `rows`, in their order."""
    found, start = [], 0
    for batch in _batches(library, ["caption"]):
        inside = rows[start : start + len(batch)]
        found.append(batch.column(0).filter(pa.array(inside)))
        start += len(batch)
    return pa.chunked_array(found, type=pa.string())


def _batches(library: Library, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for shard in library.manifest.shards:
        if shard.series != PICTURES.name:
            continue
        path = current(library.path, PICTURES.table_file(shard.number), library.manifest)
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                yield from file.iter_batches(columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise LibraryError(f"{path} cannot be read ({error}); restore it or build the library again") from None


class _Batch:
    """Tests on one batch of metadata; what is missing, or of another type, matches no test."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._extras: dict[str, list[Any]] = {}

    def mask(self, condition: Condition) -> Mask:
        if isinstance(condition, All | Some):
            join, empty = (np.logical_and, True) if isinstance(condition, All) else (np.logical_or, False)
            found = np.full(len(self._batch), empty)
            for part in condition.parts:
                join(found, self.mask(part), out=found)
            return found
        result = self._test(condition)
        known: Mask = pc.fill_null(result, False).to_numpy(zero_copy_only=False)
        return known

    def _test(self, test: Test) -> Any:
        if isinstance(test, Known):
            known = pc.is_valid(self._any(test.field))
            return pc.invert(known) if test.negated else known
        if isinstance(test, Compare):
            return _OPERATIONS[test.op](self._values(test.field, type(test.value)), test.value)
        if isinstance(test, Like):
            result = pc.match_like(self._values(test.field, str), test.pattern)
            return pc.invert(result) if test.negated else result
        kind = type(test.values[0])
        values = self._values(test.field, kind)
        members = pc.is_in(values, value_set=pa.array(test.values, type=_ARROW[kind]))
        wanted = pc.invert(members) if test.negated else members
        return pc.and_(wanted, pc.is_valid(values))

    def _any(self, field: Field) -> pa.Array:
        if field.extra:
            return pa.array([None if value is None else True for value in self._extra(field.name)], type=pa.bool_())
        if field.kind == "date":
            return self._values(field, float)
        return self._batch.column(COLUMNS[field.name])

    def _values(self, field: Field, kind: type) -> pa.Array:
        """The field's values of one type; null where a picture has none of it."""
        if field.extra:
            found = [typed(value) for value in self._extra(field.name)]
            return pa.array([value if type(value) is kind else None for value in found], type=_ARROW[kind])
        column = self._batch.column(COLUMNS[field.name])
        if field.kind != "date":
            return column.cast(_ARROW[kind])
        dictionary = column.dictionary_encode()  # many pictures share a moment
        moments = [microseconds(text) for text in dictionary.dictionary.to_pylist()]
        return pa.array(moments, type=pa.float64()).take(dictionary.indices)

    def _extra(self, key: str) -> list[Any]:
        if key not in self._extras:
            column = self._batch.column(_EXTRA)
            # Parsing is slow; most pictures do not hold the key, whose JSON is then nowhere in theirs.
            holds = pc.fill_null(pc.match_substring(column, json.dumps(key, ensure_ascii=False)), False).to_pylist()
            texts = column.to_pylist()
            self._extras[key] = [json.loads(texts[i]).get(key) if held else None for i, held in enumerate(holds)]
        return self._extras[key]


_ARROW = {float: pa.float64(), str: pa.string(), bool: pa.bool_()}
