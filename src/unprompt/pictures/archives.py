"""Members of zip and tar archives by name, without unpacking the archive; pictures in tables by their row."""

from __future__ import annotations

import functools
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from unprompt.pictures.rows import PREFIX, RowArchive, has_rows, split_of_saved

COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""Endings of archives in which no member can be reached without unpacking all those before it."""


class Archive(Protocol):
    """An opened archive."""

    def size(self, name: str) -> int:
        """The unpacked size of a member in bytes; `KeyError` when there is no such member."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """A member as a seekable stream; `KeyError` when there is no such member."""
        ...


def is_tar(path: str | Path) -> bool:
    """Whether a file name ends like that of a tar archive that is not compressed."""
    return str(path).lower().endswith(".tar")


def open_archive(path: str) -> Archive:
    """Opens a zip or tar archive, or a table of pictures; the last few stay open, each process its own.

    Raises:
        OSError: it cannot be read (a `tarfile.ReadError` is one).
        zipfile.BadZipFile: it is no archive.
    """
    if path.startswith(PREFIX) or split_of_saved(path) is not None:
        return _open_archive(path, 0, 0, os.getpid())
    status = Path(path).stat()
    # The process is part of the key: a handle inherited by fork shares its file position with the parent.
    return _open_archive(path, status.st_mtime_ns, status.st_size, os.getpid())


@functools.lru_cache(maxsize=4)
def _open_archive(path: str, mtime_ns: int, size: int, process: int) -> Archive:
    if has_rows(path):
        return RowArchive(path)
    return TarArchive(path) if is_tar(path) else ZipArchive(path)


class ZipArchive:
    """A zip archive."""

    def __init__(self, path: str) -> None:
        self._file = zipfile.ZipFile(path)

    def size(self, name: str) -> int:
        return self._file.getinfo(name).file_size

    def open(self, name: str) -> IO[bytes]:
        return self._file.open(name)


class TarArchive:
    """A tar archive: a table of where its members are, made in one pass over their headers.

    Of a damaged archive the members before the damage can be opened. Of members of one name the last counts, as when
    the archive is unpacked.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        try:
            for member in read_tar(path):
                self._places[member.name] = (member.offset_data, member.size)
        except tarfile.ReadError:
            if not self._places:
                raise OSError("not a tar archive, or damaged at its start") from None

    def size(self, name: str) -> int:
        return self._places[name][1]

    def open(self, name: str) -> IO[bytes]:
        start, size = self._places[name]
        with Path(self._path).open("rb") as file:
            file.seek(start)
            data = file.read(size)
        if len(data) < size:
            raise EOFError(f"the archive ends {size - len(data)} bytes before the member does")
        return io.BytesIO(data)


def read_tar(path: str | Path) -> Iterator[tarfile.TarInfo]:
    """Lists the plain files of a tar archive in its order, reading their headers alone.

    Raises:
        tarfile.ReadError: after the last good member, when the archive is damaged or cut short there.
        OSError: it cannot be opened.
    """
    with tarfile.open(path, "r:") as archive, Path(path).open("rb") as raw:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # else a shard of a million members is kept in memory
            if member.isreg():
                yield member
        # tarfile takes a damaged header for the end of the archive; the true end is a block of zeros, or of the file.
        raw.seek(archive.offset)
        if raw.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"damaged at byte {archive.offset}; what follows was not read")
