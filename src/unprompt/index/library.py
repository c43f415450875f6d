"""A library opened for reading."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import LibraryError
from unprompt.index.commit import current
from unprompt.index.files import sha256_file
from unprompt.index.kept import Kept
from unprompt.index.manifest import Manifest, ShardInfo
from unprompt.index.reconstruct import RowReader
from unprompt.index.shards import PICTURES, SERIES, Series, as_embeddings, read_array, read_batch
from unprompt.index.table import PictureTables, StoredTable
from unprompt.index.vector_index import VectorIndex
from unprompt.index.vocabulary import CALIBRATION_FILE, EMBEDDINGS_FILE, FRAGMENTS_FILE, Vocabulary
from unprompt.types import Embeddings, Record

PROMPTS_FILE = "prompts.parquet"
SKIPPED_FILE = "skipped.jsonl"

_HASH_AT_OPEN = 128 << 20
_KEPT_TABLES = 512 << 20
"""Bytes of shards' tables that are kept once read: those of a million pictures, which take 300 to 450 each."""
_KEPT_ARRAYS = 4 << 30
"""Bytes of shards' arrays that stay mapped; pages that are not read take no memory, and those that are can be taken
back by the operating system at any time."""
_MAPPED_ROWS = 20_000
"""Indexes of so many rows are mapped into memory: they open at once, and processes share them."""


class Library:
    """A library opened for reading; nothing that it does changes the folder.

    Opening checks the manifest and that every file is there and has its size. An index, table or vocabulary is also
    checked against its sha256 when it is first loaded, up to 128 MiB; `verify` checks all of them whatever their size.

    Attributes:
        path: its folder.
        manifest: what it is.
        search_device: where its indexes are searched, see `open`.
    """

    def __init__(self, path: Path, manifest: Manifest, search_device: str = "cpu") -> None:
        self.path = path
        self.search_device = search_device
        self.manifest = manifest
        self._table = Kept(self._read_table, _bytes_of, _KEPT_TABLES)
        keeps = os.name == "posix"  # elsewhere a mapped file could not be replaced
        self._array = Kept(self._map_array, _bytes_of, _KEPT_ARRAYS) if keeps else self._map_array

    @classmethod
    def open(cls, path: Path | str, search_device: str = "cpu") -> Library:
        """Opens the library in folder `path`.

        Args:
            path: the folder.
            search_device: where its indexes are searched: "cpu", or "cuda", "cuda:1" ..., where they are put when they
                are first asked for; a LibraryError says then when there is no such GPU.

        Raises:
            LibraryError: there is none, its build has not finished, or a file is missing or has another size than
                the manifest says; the message names the file.
        """
        root = Path(path)
        library = cls(root, Manifest.read(root), search_device)
        for name, info in library.manifest.files.items():
            file = current(root, name, library.manifest)
            size = file.stat().st_size if file.is_file() else -1
            if size != info.bytes:
                found = f"has {size} bytes, the manifest says {info.bytes}" if size >= 0 else "is missing"
                raise LibraryError(f"{file} {found}; restore it or build the library again")
        rows = sum(shard.rows for shard in library.manifest.shards if shard.series == PICTURES.name)
        indexed = library.manifest.indexes.get("image")
        if indexed is not None and indexed.rows != rows:
            raise LibraryError(f"{root / indexed.file} has {indexed.rows} rows, the shards {rows}; build again")
        return library

    def __len__(self) -> int:
        """Rows of the image index: pictures."""
        return self.manifest.counts.get("pictures", 0)

    @property
    def dim(self) -> int:
        return self.manifest.encoder.dim

    @cached_property
    def image_index(self) -> VectorIndex | None:
        """The index over pictures, None when the library has none."""
        return self._searched("image")

    @cached_property
    def prompt_index(self) -> VectorIndex | None:
        """The index over distinct prompts, None when the library has none."""
        return self._searched("text")

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The fragments; empty when none were added."""
        if FRAGMENTS_FILE not in self.manifest.files:
            return Vocabulary.empty(self.dim)
        calibrated = CALIBRATION_FILE in self.manifest.files
        calibration = self._checked(CALIBRATION_FILE) if calibrated else None
        return Vocabulary.read(self._checked(FRAGMENTS_FILE), self._checked(EMBEDDINGS_FILE), self.dim, calibration)

    def records(self, rows: Sequence[int]) -> list[Record]:
        """Returns the records of rows of the image index.

        Raises:
            IndexError: a row is not in the library.
            LibraryError: a table is missing or damaged.
        """
        return self._pictures.records(rows)

    def lazy_records(self, rows: Sequence[int]) -> list[Record]:
        """As `records`, for use within a query: metadata is read when asked for, and keeps whole tables until then."""
        return self._pictures.lazy_records(rows)

    def prompts(self, rows: Sequence[int]) -> list[tuple[str, int]]:
        """Returns (prompt, count) of rows of the prompt index."""
        return self._prompts.cells(rows, "prompt", "count")

    def picture_texts(self, rows: Sequence[int]) -> Embeddings:
        """Returns the stored embeddings of the prompts of rows of the image index, (N, dim)."""
        found = np.empty((len(rows), self.dim), dtype=np.float32)
        wanted = np.asarray(rows, dtype=np.int64)
        order = np.argsort(wanted, kind="stable")
        start = 0
        for shard, inside in self._pictures.located(wanted[order]):
            places = order[start : start + len(inside)]
            found[places] = self.shard_array(PICTURES, PICTURES.text_array, shard)[inside]
            start += len(inside)
        return found

    def prompt_texts(self, rows: Sequence[int]) -> Embeddings | None:
        """Returns the embeddings of rows of the prompt index, (N, dim); None where its codes are coarser than float16.

        They come from the index, for the shards do not say where a distinct prompt stands.
        """
        return self._prompt_reader.read(np.asarray(rows, dtype=np.int64)) if self._prompt_reader else None

    def arrays(self, series: Series, array: str) -> Iterator[Embeddings]:
        """Iterates the stored embeddings of one series, a shard at a time, as (N, dim) float32."""
        for shard in self.manifest.shards:
            if shard.series == series.name:
                yield as_embeddings(self.shard_array(series, array, shard))

    def shard_array(self, series: Series, array: str, shard: ShardInfo) -> NDArray[np.floating[Any]]:
        """One stored array of a shard, (rows, dim), mapped into memory.

        Raises:
            LibraryError: it is missing or damaged, or has been replaced since the library was opened.
        """
        name = series.array_file(array, shard.number)
        stored = self._array(name)
        if len(stored) != shard.rows:
            raise LibraryError(
                f"{self.path / name} has {len(stored)} rows, the manifest said {shard.rows}; open the library again"
            )
        return stored

    def verify(self) -> list[str]:
        """Checks every checksum, row count and index against the manifest. Returns one line a fault; none is sound."""
        faults = []
        for name, info in self.manifest.files.items():
            path = self._file(name)
            if not path.is_file():
                faults.append(f"{name}: missing")
            elif sha256_file(path) != info.sha256:
                faults.append(f"{name}: its sha256 is not the manifest's")
        return faults or self._verify_rows()

    def _verify_rows(self) -> list[str]:
        faults = []
        for shard in self.manifest.shards:
            series = SERIES[shard.series]
            found = {name: len(read_array(self._file(series.array_file(name, shard.number)), self.dim))
                     for name in series.arrays}  # fmt: skip
            found[series.table] = len(self._table(series.table_file(shard.number)))
            faults += [
                f"{name} {shard.number:04d}: {rows} rows, the manifest says {shard.rows}"
                for name, rows in found.items()
                if rows != shard.rows
            ]
        for name, info in self.manifest.indexes.items():
            index = self._index(name)
            if index is not None and (len(index), index.dim) != (info.rows, self.dim):
                faults.append(f"{info.file}: {len(index)} rows of {index.dim}, expected {info.rows} of {self.dim}")
        if len(self.vocabulary) != self.manifest.counts.get("fragments", 0):
            faults.append(f"{FRAGMENTS_FILE}: {len(self.vocabulary)} fragments, the manifest says otherwise")
        return faults

    @cached_property
    def _prompt_reader(self) -> RowReader | None:
        index = self._index("text") if self._on_gpu else self.prompt_index  # rows are read from this machine's memory
        return RowReader.of(index.faiss_index) if index is not None else None

    @cached_property
    def _prompts(self) -> StoredTable:
        return self._read_table(PROMPTS_FILE)

    @property
    def _on_gpu(self) -> bool:
        return self.search_device.startswith("cuda")

    def _index(self, name: str, mapped: bool = True) -> VectorIndex | None:
        info = self.manifest.indexes.get(name)
        if info is None:
            return None
        mapped = mapped and info.rows >= _MAPPED_ROWS
        index = VectorIndex.read(self._checked(info.file), info.factory, info.parameters, mapped)
        if (len(index), index.dim) != (info.rows, self.dim):
            raise LibraryError(
                f"{self.path / info.file} has {len(index)} rows of {index.dim} dimensions, the manifest says "
                f"{info.rows} of {self.dim}; build the library again"
            )
        return index

    def _searched(self, name: str) -> VectorIndex | None:
        index = self._index(name, mapped=not self._on_gpu)
        if index is None or not self._on_gpu:
            return index
        from unprompt.index.gpu.device import resolve
        from unprompt.index.gpu.search import on_device

        size = self.manifest.files[self.manifest.indexes[name].file].bytes
        return on_device(index, resolve(self.search_device), lambda: self.vectors(name), size)

    def vectors(self, name: str) -> Iterator[Embeddings]:
        """The stored embeddings in the order of the "image" or the "text" index, as (N, dim) float32 blocks."""
        if name == "image":
            yield from self.arrays(PICTURES, PICTURES.arrays[0])
            return
        rows = {prompt: row for row, prompt in enumerate(self._prompts.column("prompt"))}
        vectors = np.empty((len(rows), self.dim), dtype=np.float32)
        for shard in self.manifest.shards:
            series = SERIES[shard.series]
            captions = self._table(series.table_file(shard.number)).column("caption")
            stored = as_embeddings(self.shard_array(series, series.text_array, shard))
            vectors[[rows[caption] for caption in captions]] = stored
        yield vectors

    @cached_property
    def _pictures(self) -> PictureTables:
        shards = [shard for shard in self.manifest.shards if shard.series == PICTURES.name]
        return PictureTables(self.path, shards, self._table)

    def _map_array(self, name: str) -> NDArray[np.floating[Any]]:
        return read_array(self._file(name), self.dim)

    def _read_table(self, name: str) -> StoredTable:
        return StoredTable(read_batch(self._checked(name)))

    def _file(self, name: str) -> Path:
        return current(self.path, name, self.manifest)

    def _checked(self, name: str) -> Path:
        path, info = self._file(name), self.manifest.files.get(name)
        if info is None:
            raise LibraryError(f"the manifest of {self.path} does not list {name}; build the library again")
        if info.bytes <= _HASH_AT_OPEN and sha256_file(path) != info.sha256:
            raise LibraryError(f"{path} was changed: its sha256 is not the manifest's; restore it or build again")
        return path


def _bytes_of(stored: StoredTable | NDArray[np.floating[Any]]) -> int:
    return int(stored.nbytes)
