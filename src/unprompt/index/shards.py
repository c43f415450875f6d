"""Shards: aligned, numbered files in the layout of clip-retrieval, where row i of each file is the same row.

A picture shard is ``img_emb/img_emb_0000.npy``, ``text_emb/text_emb_0000.npy`` and ``metadata/metadata_0000.parquet``;
a shard of prompts that have no picture is ``prompt_emb/prompt_emb_0000.npy`` and ``prompts/prompts_0000.parquet``.
The table is written last: a shard exists once its table does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unprompt.errors import LibraryError
from unprompt.index.files import write_durably
from unprompt.types import METADATA_KEYS, Embeddings, Record

_ARROW = {str: pa.string(), int: pa.int32(), float: pa.float32()}

# `image_path` and `caption` are the names that clip-retrieval's tools read.
PICTURE_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "image_path", "caption", "sha256")]
    + [(key, _ARROW[kind]) for key, kind in METADATA_KEYS.items()]
    + [("extra", pa.string())]
)
RECORD_FIELDS = ("id", "caption", "image_path")
"""The columns of a record's id, prompt and image."""
SHA256 = "sha256"
_EXTRA = "extra"
_NOT_METADATA = frozenset((*RECORD_FIELDS, _EXTRA))

PROMPT_SCHEMA = pa.schema(
    [("id", pa.string()), ("caption", pa.string()), ("count", pa.int64()), ("source", pa.string())]
)


@dataclass(frozen=True)
class Series:
    """A run of shards of one shape: the folders of its arrays, in the order written, and of its table."""

    name: str
    arrays: tuple[str, ...]
    table: str
    schema: pa.Schema

    @property
    def text_array(self) -> str:
        """The array that holds the embeddings of the prompts."""
        return self.arrays[-1]

    def array_file(self, array: str, number: int) -> str:
        return f"{array}/{array}_{number:04d}.npy"

    def table_file(self, number: int) -> str:
        return f"{self.table}/{self.table}_{number:04d}.parquet"

    def files(self, number: int) -> list[str]:
        """All files of one shard, relative to the library."""
        return [self.array_file(array, number) for array in self.arrays] + [self.table_file(number)]

    def numbers(self, root: Path) -> list[int]:
        """The shards of this series that exist under `root`, ascending, committed by a manifest or not."""
        pattern = re.compile(rf"{self.table}_(\d{{4,}})\.parquet")
        folder = root / self.table
        names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
        return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))


PICTURES = Series("pictures", ("img_emb", "text_emb"), "metadata", PICTURE_SCHEMA)
PROMPTS = Series("prompts", ("prompt_emb",), "prompts", PROMPT_SCHEMA)
SERIES = {series.name: series for series in (PICTURES, PROMPTS)}

SHARD_SIZE = 4096
"""Rows of a full shard."""

_FINGERPRINT = b"unprompt.encoder.fingerprint"
_IMPORTED = b"unprompt.embeddings.imported"


def write_shard(
    root: Path,
    series: Series,
    number: int,
    arrays: Mapping[str, NDArray[np.floating[Any]]],
    table: pa.Table,
    fingerprint: str,
    suffix: str = "",
    imported: bool = False,
) -> None:
    """Writes one shard durably, its table last. `suffix` is appended to every name (see `commit`).

    Raises:
        OSError: the disk is full or not writable; nothing that the library uses was touched.
    """
    for name in series.arrays:
        array = np.ascontiguousarray(arrays[name])
        if array.shape[0] != table.num_rows:
            raise ValueError(f"{name} has {array.shape[0]} rows, its table has {table.num_rows}")
        path = root / (series.array_file(name, number) + suffix)
        write_durably(path, lambda file, array=array: np.save(file, array, allow_pickle=False))  # type: ignore[misc]
    facts = {_FINGERPRINT: fingerprint.encode(), **({_IMPORTED: b"true"} if imported else {})}
    table = table.cast(series.schema).replace_schema_metadata(facts)
    path = root / (series.table_file(number) + suffix)
    write_durably(path, lambda file: pq.write_table(table, file, compression="zstd"))


def shard_origin(path: Path) -> tuple[str, bool]:
    """Returns the fingerprint of the encoder of a shard's table, "" when it does not say, and whether it was imported.

    Raises:
        LibraryError: it is missing or not parquet.
    """
    metadata = read_table(path, columns=[]).schema.metadata or {}
    return str(metadata.get(_FINGERPRINT, b"").decode()), _IMPORTED in metadata


def read_array(path: Path, dim: int | None = None) -> NDArray[np.floating[Any]]:
    """Maps one array file into memory, (rows, dim) float16 or float32.

    Raises:
        LibraryError: it is missing, cut short, of another shape, or holds objects.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise LibraryError(f"{path} is missing; restore it or build the library again") from None
    except (ValueError, EOFError, OSError) as error:
        raise LibraryError(f"{path} is not a readable array ({error}); restore it or build the library again") from None
    if array.ndim != 2 or array.dtype not in (np.float16, np.float32) or (dim is not None and array.shape[1] != dim):
        raise LibraryError(f"{path} holds {array.dtype} {array.shape}, expected float16 or float32 (rows, {dim})")
    return array  # type: ignore[no-any-return]


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a parquet table, or some of its columns.

    Raises:
        LibraryError: it is missing or not parquet.
    """
    try:
        if columns is not None:
            return pq.read_table(path, columns=columns)
        with pq.ParquetFile(path) as file:  # without the machinery of data sets: half the time of a small file
            return file.read()
    except FileNotFoundError:
        raise LibraryError(f"{path} is missing; restore it or build the library again") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise LibraryError(f"{path} is not a readable table ({reason}); restore it or build again") from None


def read_batch(path: Path) -> pa.RecordBatch:
    """Reads a parquet table as one batch, whose rows are sliced and taken faster than those of a table.

    Raises:
        LibraryError: as `read_table`, or a column holds more than 2 GiB of text.
    """
    table = read_table(path)
    batches = table.combine_chunks().to_batches()
    if len(batches) > 1:
        raise LibraryError(f"{path} holds over 2 GiB in one column; build the library anew with a lower --shard-size")
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def as_embeddings(array: NDArray[np.floating[Any]]) -> Embeddings:
    """Copies stored rows to C-contiguous float32."""
    return np.ascontiguousarray(array, dtype=np.float32)


def records_table(records: Iterable[Record]) -> pa.Table:
    """Lays picture records out as a table of `PICTURE_SCHEMA`; what has no column goes to ``extra`` as JSON."""
    rows = []
    for record in records:
        row = {"id": record.id, "image_path": record.image, "caption": record.prompt}
        extra = {}
        for key, value in record.metadata.items():
            if key in METADATA_KEYS or key == "sha256":
                row[key] = value
            else:
                extra[key] = value
        row["extra"] = json.dumps(extra, sort_keys=True, ensure_ascii=False, default=str) if extra else None
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=PICTURE_SCHEMA)


def table_records(table: pa.Table) -> list[Record]:
    """The reverse of `records_table`; empty cells are left out of a record's metadata."""
    return [Record(row["id"], row["caption"], row["image_path"], metadata_of(row)) for row in table.to_pylist()]


def metadata_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata in a row of a picture table: its cells by column, without those that are empty."""
    metadata = {key: value for key, value in row.items() if value is not None and key not in _NOT_METADATA}
    extra = row.get(_EXTRA)
    if extra:
        metadata.update(json.loads(extra))
    return metadata
