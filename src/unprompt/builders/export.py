"""Writing a library's embeddings and records out for other tools: as clip-retrieval's folders, arrays, or parquet."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unprompt.errors import LibraryError
from unprompt.index.commit import current
from unprompt.index.files import write_durably
from unprompt.index.library import Library
from unprompt.index.shards import PICTURES, PROMPTS, Series, as_embeddings, read_array, read_table

COLUMNS = {"img_emb": "image_embedding", "text_emb": "text_embedding", "prompt_emb": "text_embedding"}
"""The parquet column of each array."""

_INDEX = "image.index"


@dataclass(frozen=True)
class ExportReport:
    """What was written: the folder, rows of pictures, rows of prompts without pictures, files, and bytes."""

    folder: str
    pictures: int
    prompts: int
    files: int
    bytes: int


@dataclass(frozen=True)
class _Shard:
    """Where a shard's files are: its arrays by name, and its table."""

    series: Series
    rows: int
    arrays: Mapping[str, Path]
    table: Path


def export_library(library: Library, folder: Path | str, format: str) -> ExportReport:
    """Writes the rows of a library in their order into a new folder; `unprompt build` reads each format back.

    Args:
        library: what to write.
        folder: a folder that is empty or not there yet.
        format: a key of `EXPORTS`: "clip-retrieval" (numbered shards, and the index of pictures), "npy" (one array a
            kind, one table) or "parquet" (tables with float32 columns of embeddings).

    Raises:
        LibraryError: an unknown format, a folder that holds something, or a file of the library that is damaged.
        OSError: the disk is full or not writable.
    """
    if format not in EXPORTS:
        raise LibraryError(f"unknown format {format!r}; choose one of {', '.join(EXPORTS)}")
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise LibraryError(f"{root} is there already and not an empty folder; give a new one")
    root.mkdir(parents=True, exist_ok=True)
    for series in (PICTURES, PROMPTS):
        shards = list(_shards(library, series))
        if shards:
            EXPORTS[format](root, shards)
    if format == "clip-retrieval" and _INDEX in library.manifest.files:
        _copy(current(library.path, _INDEX, library.manifest), root / _INDEX)
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    rows = {series: sum(shard.rows for shard in _shards(library, series)) for series in (PICTURES, PROMPTS)}
    return ExportReport(
        str(root), rows[PICTURES], rows[PROMPTS], len(files), sum(path.stat().st_size for path in files)
    )


def _shards(library: Library, series: Series) -> Iterator[_Shard]:
    for shard in library.manifest.shards:
        if shard.series == series.name and shard.rows:
            arrays = {name: _file(library, series.array_file(name, shard.number)) for name in series.arrays}
            yield _Shard(series, shard.rows, arrays, _file(library, series.table_file(shard.number)))


def _file(library: Library, name: str) -> Path:
    return current(library.path, name, library.manifest)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as content:
        write_durably(target, lambda file: shutil.copyfileobj(content, file))


def _write_clip_retrieval(root: Path, shards: list[_Shard]) -> None:
    """The shards as they are, numbered without gaps, and with so many digits that names sort as numbers."""
    digits = max(4, len(str(len(shards) - 1)))
    for number, shard in enumerate(shards):
        for name, path in shard.arrays.items():
            _copy(path, root / name / f"{name}_{number:0{digits}d}.npy")
        table = shard.series.table
        _copy(shard.table, root / table / f"{table}_{number:0{digits}d}.parquet")


def _write_npy(root: Path, shards: list[_Shard]) -> None:
    """One array a kind, written through a map of the file, and one table whose row i says what row i is."""
    total = sum(shard.rows for shard in shards)
    for name in shards[0].arrays:
        first = read_array(shards[0].arrays[name])
        target = root / f"{name}.npy"
        whole = np.lib.format.open_memmap(target, mode="w+", dtype=first.dtype, shape=(total, first.shape[1]))
        start = 0
        for shard in shards:
            whole[start : start + shard.rows] = read_array(shard.arrays[name], first.shape[1])
            start += shard.rows
        whole.flush()
    tables = (read_table(shard.table) for shard in shards)
    with pq.ParquetWriter(root / f"{shards[0].series.table}.parquet", pq.read_schema(shards[0].table)) as writer:
        for table in tables:
            writer.write_table(table)


def _write_parquet(root: Path, shards: list[_Shard]) -> None:
    """A file a shard; embeddings are float32, which every reader of parquet knows and which holds float16 exactly."""
    digits = max(4, len(str(len(shards) - 1)))
    for number, shard in enumerate(shards):
        table = read_table(shard.table)
        for name, path in shard.arrays.items():
            rows = as_embeddings(read_array(path))
            lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
            table = table.append_column(COLUMNS[name], lists)
        path = root / f"{shard.series.name}_{number:0{digits}d}.parquet"
        write_durably(path, lambda file, table=table: pq.write_table(table, file, compression="zstd"))  # type: ignore[misc]


EXPORTS: dict[str, Callable[[Path, list[_Shard]], None]] = {
    "clip-retrieval": _write_clip_retrieval,
    "npy": _write_npy,
    "parquet": _write_parquet,
}
"""Every format by the name that ``--format`` takes."""
