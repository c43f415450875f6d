"""A library opened for writing: one process at a time, every change all or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from unprompt.errors import LibraryError
from unprompt.index.commit import NEXT, commit, roll_forward, staged
from unprompt.index.manifest import LOCK, MANIFEST, EncoderInfo, FileInfo, IndexInfo, Manifest, ShardInfo
from unprompt.index.shards import SERIES, Series, read_array, read_table, shard_origin, write_shard


class LibraryWriter:
    """Holds a library's lock, its shards and what is staged for the next commit.

    Use as a context manager. Shards are written at once, under their own names, and are what a later run resumes from;
    all else is staged and takes effect with `commit`.

    Attributes:
        root: the library's folder.
        previous: the manifest as it was found, None for a new library.
        encoder: what makes the embeddings.
        shards: all shards, committed or not, pictures first, then by number.
    """

    def __init__(self, root: Path | str, encoder: EncoderInfo | None = None, dtype: str = "float16") -> None:
        """Names the library to write; `encoder` None takes that of the library, which must exist then."""
        self.root = Path(root)
        self.previous: Manifest | None = None
        self.shards: list[ShardInfo] = []
        self._wanted = encoder
        self._dtype = dtype
        self._staged: set[str] = set()
        self._lock = FileLock(self.root / LOCK, timeout=0)

    def __enter__(self) -> LibraryWriter:
        """Takes the lock and finishes or undoes what a crash left.

        Raises:
            LibraryError: another process is writing; the folder holds something else; the encoder is not the library's.
        """
        _refuse_foreign_folder(self.root)
        if self._wanted is None and not (self.root / MANIFEST).exists():
            Manifest.read(self.root)  # raises, and says what is missing
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise LibraryError(f"{self.root} is being written by another process; wait until it ends") from None
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name in self._staged:  # what a commit did not take
            staged(self.root, name).unlink(missing_ok=True)
        self._lock.release()

    @property
    def encoder(self) -> EncoderInfo:
        if self.previous is not None:
            return self.previous.encoder
        assert self._wanted is not None
        return self._wanted

    @property
    def dtype(self) -> str:
        return self.previous.dtype if self.previous else self._dtype

    @property
    def committed(self) -> list[ShardInfo]:
        """The shards of the previous manifest."""
        return list(self.previous.shards) if self.previous else []

    @property
    def new_shards(self) -> list[ShardInfo]:
        """The shards that no manifest names yet."""
        known = {(shard.series, shard.number) for shard in self.committed}
        return [shard for shard in self.shards if (shard.series, shard.number) not in known]

    def rows(self, series: Series) -> int:
        return sum(shard.rows for shard in self.shards if shard.series == series.name)

    def path(self, name: str) -> Path:
        """Where the content of file `name` is as of the next commit."""
        return staged(self.root, name) if name in self._staged else self.root / name

    def holds(self, name: str) -> bool:
        """Whether the library has file `name`, staged or from before."""
        return name in self._staged or (self.previous is not None and name in self.previous.files)

    def stage(self, name: str) -> Path:
        """Where to write the next content of file `name`."""
        self._staged.add(name)
        path = staged(self.root, name)
        path.parent.mkdir(exist_ok=True)
        return path

    def append_shard(
        self,
        series: Series,
        arrays: Mapping[str, NDArray[np.floating[Any]]],
        table: pa.Table,
        imported: bool = False,
    ) -> None:
        """Writes the next shard of a series. It survives a crash from the moment this returns.

        Args:
            series: which series.
            arrays: its embeddings by the name of the array, (rows, dim) each.
            table: its rows.
            imported: see `ShardInfo`.

        Raises:
            OSError: the disk is full or not writable.
        """
        numbers = [shard.number for shard in self.shards if shard.series == series.name]
        number = max(numbers, default=-1) + 1
        self._write(series, number, arrays, table, "", imported)
        self.shards.append(ShardInfo(series.name, number, table.num_rows, imported))
        self._sort()

    def replace_shard(
        self,
        series: Series,
        number: int,
        arrays: Mapping[str, NDArray[np.floating[Any]]],
        table: pa.Table,
        imported: bool | None = None,
    ) -> None:
        """Stages new content for a committed shard; it may have no rows, but keeps its number.

        `imported` None leaves that as it was.
        """
        at = self._position(series, number)
        imported = self.shards[at].imported if imported is None else imported
        self._write(series, number, arrays, table, NEXT, imported)
        self._staged.update(series.files(number))
        self.shards[at] = replace(self.shards[at], rows=table.num_rows, imported=imported)

    def drop_shard(self, series: Series, number: int) -> None:
        """Leaves a committed shard out of the next manifest; its files go after the commit.

        Not the last of its series: what comes behind the last one is taken for a build that did not finish.
        """
        if number == max(shard.number for shard in self.committed if shard.series == series.name):
            raise ValueError(f"{series.name} shard {number} is the last one")
        del self.shards[self._position(series, number)]

    def array(self, series: Series, array: str, number: int) -> NDArray[np.floating[Any]]:
        """One stored array, mapped into memory."""
        return read_array(self.path(series.array_file(array, number)), self.encoder.dim)

    def table(self, series: Series, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One stored table, or some of its columns."""
        return read_table(self.path(series.table_file(number)), columns)

    def commit(self, counts: Mapping[str, int], indexes: Mapping[str, IndexInfo], keep: Sequence[str]) -> Manifest:
        """Writes the manifest, and with it all shards and staged files take effect.

        Args:
            counts: see `Manifest`.
            indexes: see `Manifest`.
            keep: the library's files besides its shards, staged or as they were.
        """
        names = [name for shard in self.shards for name in SERIES[shard.series].files(shard.number)] + sorted(keep)
        known = self.previous.files if self.previous else {}
        files = {
            name: known[name] if name in known and name not in self._staged else FileInfo.of(self.path(name))
            for name in names
        }
        manifest = Manifest(self.encoder, self.dtype, dict(counts), tuple(self.shards), dict(indexes), files)
        commit(self.root, manifest)
        self._staged.clear()
        self.previous = manifest
        self._discard_dropped()
        return manifest

    def _write(
        self,
        series: Series,
        number: int,
        arrays: Mapping[str, NDArray[np.floating[Any]]],
        table: pa.Table,
        suffix: str,
        imported: bool,
    ) -> None:
        stored = {name: array.astype(self.dtype) for name, array in arrays.items()}
        write_shard(self.root, series, number, stored, table, self.encoder.fingerprint, suffix, imported)

    def _open(self) -> None:
        self.previous = Manifest.read(self.root) if (self.root / MANIFEST).exists() else None
        wanted, found = self._wanted, self.previous.encoder if self.previous else None
        if wanted and found and (wanted.fingerprint, wanted.dim) != (found.fingerprint, found.dim):
            raise LibraryError(
                f"{self.root} was built with encoder {found.name} ({found.fingerprint[:12]}), "
                f"not {wanted.name} ({wanted.fingerprint[:12]}); build a new library for another encoder"
            )
        roll_forward(self.root, self.previous)
        self.shards = self.committed
        self._discard_dropped()
        for series in SERIES.values():
            self._adopt(series)
        self._sort()

    def _discard_dropped(self) -> None:
        """Deletes the files of shards that were dropped: numbered below the last one, and not in the manifest."""
        kept = {(shard.series, shard.number) for shard in self.committed}
        for series in SERIES.values():
            last = max((number for name, number in kept if name == series.name), default=-1)
            for number in series.numbers(self.root):
                if number < last and (series.name, number) not in kept:
                    for name in series.files(number):  # the table last, so that a crash leaves what names the others
                        (self.root / name).unlink(missing_ok=True)

    def _position(self, series: Series, number: int) -> int:
        return next(i for i, s in enumerate(self.shards) if (s.series, s.number) == (series.name, number))

    def _adopt(self, series: Series) -> None:
        """Takes over the shards of a build that did not finish, and clears the arrays of the shard it died in."""
        last = max((shard.number for shard in self.committed if shard.series == series.name), default=-1)
        numbers = [number for number in series.numbers(self.root) if number > last]
        for array in series.arrays:
            for path in sorted((self.root / array).glob(f"{array}_*.npy")):
                digits = path.stem.removeprefix(f"{array}_")
                if digits.isdecimal() and int(digits) > last and int(digits) not in numbers:
                    path.unlink()
        for number in numbers:
            made_by, imported = shard_origin(self.root / series.table_file(number))
            if made_by != self.encoder.fingerprint:
                raise LibraryError(
                    f"{self.root / series.table_file(number)} was made by encoder {made_by[:12] or 'unknown'}, not by "
                    f"{self.encoder.name} ({self.encoder.fingerprint[:12]}); finish that build, or delete {self.root}"
                )
            rows = self.table(series, number, columns=["id"]).num_rows
            self.shards.append(ShardInfo(series.name, number, rows, imported))

    def _sort(self) -> None:
        order = list(SERIES)
        self.shards.sort(key=lambda shard: (order.index(shard.series), shard.number))


def _refuse_foreign_folder(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise LibraryError(f"{root} is a file; give a folder for the library")
    if not root.is_dir() or (root / MANIFEST).exists() or (root / LOCK).exists():
        return
    if any(root.iterdir()):
        raise LibraryError(f"{root} is not empty and not a library; give a new folder, or an existing library")
