"""Joining many small shards into few full ones. Nothing is encoded, and no row changes its place.

Every run of `add` leaves a shard, however small. Rows keep their order, so the indexes and the prompt table hold what
they held and are not touched. The joined shards take the last numbers of those that they replace: a series' last number
stays its last, and a crash cannot leave files that look like a build which did not finish (see `LibraryWriter`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unprompt.errors import LibraryError
from unprompt.index.manifest import Manifest, ShardInfo
from unprompt.index.shards import SERIES, SHARD_SIZE, Series, read_array, read_table
from unprompt.index.writer import LibraryWriter

_Part = tuple[dict[str, NDArray[np.floating[Any]]], pa.Table]
"""The arrays of some rows by name, (rows, dim) each, and their table."""


@dataclass(frozen=True)
class Compaction:
    """What `compact_library` did.

    Attributes:
        shards_before: how many there were.
        shards_after: how many there are.
        bytes_before: of the shards' files.
        bytes_after: likewise.
        rows_moved: rows of the shards that were written anew.
    """

    shards_before: int
    shards_after: int
    bytes_before: int
    bytes_after: int
    rows_moved: int


def compact_library(path: Path | str, shard_size: int = SHARD_SIZE) -> Compaction:
    """Joins neighbouring shards of fewer than `shard_size` rows into shards of so many rows, all or nothing.

    Shards that were imported and shards that were encoded are not mixed, since a manifest says of a shard which it is.
    A library that is open meanwhile must be opened again, for files that it reads are replaced.

    Args:
        path: the library's folder.
        shard_size: rows of a full shard, at least 1.

    Raises:
        LibraryError: there is no such library, a build of it did not finish, or the size is none.
        OSError: the disk is full; the library is as it was.
    """
    if shard_size < 1:
        raise LibraryError(f"shard size {shard_size} must be at least 1")
    with LibraryWriter(path) as writer:
        before = writer.previous
        if before is None or writer.new_shards:
            raise LibraryError(f"{writer.root} has shards of an unfinished build; run that build again first")
        moved = 0
        for run in joinable(before.shards, shard_size):
            _join(writer, run, shard_size)
            moved += sum(shard.rows for shard in run)
        after = before
        if moved or len(writer.shards) != len(before.shards):
            of_shards = _shard_files(before)
            after = writer.commit(before.counts, before.indexes, sorted(set(before.files) - of_shards))
        return Compaction(len(before.shards), len(after.shards), _bytes(before), _bytes(after), moved)


def joinable(shards: Iterable[ShardInfo], shard_size: int) -> list[list[ShardInfo]]:
    """Runs of neighbouring small shards of one series and origin that fill fewer shards than they are.

    A shard without rows, of which others were removed, has no origin and joins either.
    """
    runs: list[list[ShardInfo]] = [[]]
    for shard in shards:
        origins = {each.imported for each in (*runs[-1], shard) if each.rows}
        neighbours = all(each.series == shard.series for each in runs[-1][-1:])
        if shard.rows >= shard_size or len(origins) > 1 or not neighbours:
            runs.append([])
        if shard.rows < shard_size:
            runs[-1].append(shard)
    return [run for run in runs if _filled(run, shard_size) < len(run)]


def _filled(run: list[ShardInfo], shard_size: int) -> int:
    """How many shards the rows of a run fill; one at least, for the last number is kept."""
    return max(1, -(-sum(shard.rows for shard in run) // shard_size))


def _join(writer: LibraryWriter, run: list[ShardInfo], shard_size: int) -> None:
    series = SERIES[run[0].series]
    count = _filled(run, shard_size)
    imported = any(shard.imported for shard in run if shard.rows)
    dropped, kept = run[:-count], run[-count:]
    for shard, (arrays, table) in zip(kept, _parts(writer, series, run, shard_size), strict=True):
        writer.replace_shard(series, shard.number, arrays, table, imported)
    for shard in dropped:
        writer.drop_shard(series, shard.number)


def _parts(writer: LibraryWriter, series: Series, run: list[ShardInfo], shard_size: int) -> Iterator[_Part]:
    """The rows of a run in their order, `shard_size` at a time; a single empty part when it has none."""
    held: list[_Part] = []
    rows = 0
    for shard in run:
        held.append(_read(writer, series, shard.number))
        rows += shard.rows
        if rows >= shard_size:  # by less than a shard, for each of them is smaller
            full, rest = _cut(_joined(held), shard_size)
            yield full
            held, rows = [rest], rows - shard_size
    if rows or sum(shard.rows for shard in run) == 0:
        yield _joined(held)


def _read(writer: LibraryWriter, series: Series, number: int) -> _Part:
    """A shard as it is committed, also when its number already has staged content."""
    root, dim = writer.root, writer.encoder.dim
    arrays = {name: read_array(root / series.array_file(name, number), dim) for name in series.arrays}
    return arrays, read_table(root / series.table_file(number))


def _joined(parts: list[_Part]) -> _Part:
    arrays = {name: np.concatenate([arrays[name] for arrays, _ in parts]) for name in parts[0][0]}
    return arrays, pa.concat_tables([table for _, table in parts])


def _cut(part: _Part, at: int) -> tuple[_Part, _Part]:
    arrays, table = part
    first = {name: array[:at] for name, array in arrays.items()}
    rest = {name: array[at:] for name, array in arrays.items()}
    return (first, table.slice(0, at)), (rest, table.slice(at))


def _shard_files(manifest: Manifest) -> set[str]:
    return {file for shard in manifest.shards for file in SERIES[shard.series].files(shard.number)}


def _bytes(manifest: Manifest) -> int:
    return sum(manifest.files[name].bytes for name in _shard_files(manifest))
