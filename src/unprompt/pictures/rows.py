"""Pictures that stand in a column of a data set of Hugging Face, opened again by where they are.

Their place is ``Picture(TABLE, ROW)``. TABLE is a parquet file, a folder that ``save_to_disk`` wrote, or ``datasets:``
with a name; the last two may be followed by ``:SPLIT``. ROW counts from 0; where the table has several columns of
pictures it is ``COLUMN/ROW``.
"""

from __future__ import annotations

import io
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Protocol

from unprompt.types import Picture

PREFIX = "datasets:"

_BATCH = 64
"""Rows read at a time: they hold whole pictures."""

_SAVED = ("dataset_dict.json", "state.json")
"""What ``save_to_disk`` writes, of several splits or of one."""


def has_rows(path: str) -> bool:
    """Whether a picture's path is that of a table."""
    return path.startswith(PREFIX) or path.lower().endswith(".parquet") or split_of_saved(path) is not None


def member_of(column: str, columns: Sequence[str], row: int) -> str:
    """How the picture of a row is named, in a table whose `columns` are those that hold pictures."""
    return str(row) if len(columns) == 1 else f"{column}/{row}"


def is_saved(path: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder."""
    return any((path / name).is_file() for name in _SAVED)


def split_of_saved(path: str) -> tuple[Path, str] | None:
    """The folder that ``save_to_disk`` wrote and the split, "" where it names none; None for anything else."""
    if is_saved(Path(path)):
        return Path(path), ""
    folder, colon, split = path.rpartition(":")
    return (Path(folder), split) if colon and folder and is_saved(Path(folder)) else None


def picture_columns(path: Path) -> list[str]:
    """The columns of a parquet file that may hold pictures.

    Raises:
        OSError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def holds_pictures(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    try:
        schema = pq.read_schema(path)
    except pa.ArrowException as error:
        raise OSError(" ".join(str(error).split())) from error
    return [name for name in schema.names if holds_pictures(schema.field(name).type)]


def feature_columns(features: Any) -> list[str]:
    """The columns of an opened data set that may hold pictures."""
    image = import_module("datasets").Image
    return [
        name
        for name, kind in features.items()
        if isinstance(kind, image) or getattr(kind, "dtype", "") in ("binary", "large_binary")
    ]


def undecoded(split: Any) -> Any:
    """An opened data set whose pictures stay the bytes that they are."""
    datasets = import_module("datasets")
    for column, kind in split.features.items():
        if isinstance(kind, datasets.Image):
            split = split.cast_column(column, datasets.Image(decode=False))
    return split.with_format(None)


def row_picture(picture: Picture) -> Picture | None:
    """The place of a picture whose path is ``TABLE!ROW``, as records hold it; None for any other."""
    table, mark, member = picture.path.rpartition("!")
    return Picture(table, member, picture.cell) if mark and has_rows(table) else None


class RowArchive:
    """The pictures of a table, by the names of `member_of`; an `unprompt.pictures.archives.Archive`.

    Args:
        path: the table, see the module's docstring.

    Raises:
        OSError: it is not on this machine, or cannot be read; nothing is downloaded.
    """

    def __init__(self, path: str) -> None:
        parquet = path.lower().endswith(".parquet") and not path.startswith(PREFIX)
        self._table: _Table = _ParquetTable(path) if parquet else _DataSet(path)
        self._turn = threading.Lock()
        self._last: tuple[str, bytes] = ("", b"")

    def size(self, name: str) -> int:
        """See `Archive.size`."""
        return len(self._read(name))

    def open(self, name: str) -> IO[bytes]:
        """See `Archive.open`."""
        return io.BytesIO(self._read(name))

    def _read(self, name: str) -> bytes:
        with self._turn:
            if self._last[0] != name:
                cell = self._table.cell(*self._located(name))
                data = cell.get("bytes") if isinstance(cell, dict) else cell
                if not isinstance(data, bytes):
                    raise KeyError(name)
                self._last = name, data
            return self._last[1]

    def _located(self, name: str) -> tuple[str, int]:
        column, named, row = name.rpartition("/")
        columns = self._table.columns
        if not named:
            if len(columns) != 1:
                held = " and ".join(columns) or "none"
                raise OSError(f"the table's columns of pictures are {held}, and {name} does not say which: build again")
            column = columns[0]
        if column not in columns or not row.isdecimal():
            raise KeyError(name)
        return column, int(row)


class _Table(Protocol):
    columns: list[str]

    def cell(self, column: str, row: int) -> Any:
        """A picture's bytes, or a dict of them; `KeyError` where there is no such row."""
        ...


class _ParquetTable:
    """A parquet file; rows that follow each other are read in one pass."""

    def __init__(self, path: str) -> None:
        import pyarrow.parquet as pq

        self.columns = picture_columns(Path(path))
        self._file = pq.ParquetFile(path, pre_buffer=False)
        groups = (self._file.metadata.row_group(at).num_rows for at in range(self._file.metadata.num_row_groups))
        self._starts = [0, *accumulate(groups)]
        self._column = ""
        self._batches: Iterator[Any] = iter(())
        self._first = 0
        self._cells: list[Any] = []

    def cell(self, column: str, row: int) -> Any:
        """See `_Table.cell`."""
        if row >= self._starts[-1]:
            raise KeyError(row)
        group = bisect_right(self._starts, row) - 1
        if column != self._column or not max(self._first, self._starts[group]) <= row:
            later = range(group, len(self._starts) - 1)
            self._column, self._first, self._cells = column, self._starts[group], []
            self._batches = self._file.iter_batches(_BATCH, row_groups=list(later), columns=[column])
        while row >= self._first + len(self._cells):
            self._first += len(self._cells)
            self._cells = next(self._batches).column(0).to_pylist()
        return self._cells[row - self._first]


class _DataSet:
    """One split of a data set that the ``datasets`` library opens."""

    def __init__(self, path: str) -> None:
        self._split = undecoded(_opened(path))
        self.columns = feature_columns(self._split.features)

    def cell(self, column: str, row: int) -> Any:
        """See `_Table.cell`."""
        if row >= len(self._split):
            raise KeyError(row)
        return self._split.select_columns([column])[row][column]


def _opened(path: str) -> Any:
    """The split at a path.

    Raises:
        FileNotFoundError: it is not on this machine.
    """
    try:
        datasets = import_module("datasets")
    except ImportError:
        raise FileNotFoundError("data sets need the datasets extra: pip install 'unprompt[datasets]'") from None
    saved = split_of_saved(path)
    try:
        if saved is not None:
            found, split = datasets.load_from_disk(str(saved[0])), saved[1]
            return found[split] if split else _only(found, datasets)
        name, _, split = path.removeprefix(PREFIX).partition(":")
        # Preparing it would download it.
        return _only(datasets.load_dataset_builder(name).as_dataset(split=split or None), datasets)
    except Exception as error:  # of a missing or damaged data set the library raises nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        advice = "restore the folder" if saved else "load it with the datasets library where there is a network"
        raise FileNotFoundError(f"the data set cannot be opened ({reason}); {advice}") from error


def _only(found: Any, datasets: Any) -> Any:
    """The split of those that were opened, of which there must be one."""
    if not isinstance(found, datasets.DatasetDict):
        return found
    (split,) = found.values()
    return split
