"""Where this machine keeps what can be made again, and durable writing: a reader sees a whole file or none."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"
"""The suffix of a file that is being written; what ends so may be deleted by the next writer."""

CACHE_VARIABLE = "UNPROMPT_CACHE"
"""Environment variable that names the cache folder."""


def cache_folder() -> Path:
    """What `CACHE_VARIABLE` names, else unprompt's folder in the user's cache. Deleting it loses time only."""
    import platformdirs  # here, so that indexes can be measured where it is not installed

    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_path("unprompt"))


def sha256_file(path: Path) -> str:
    """Returns the sha256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` durable. A no-op where folders cannot be opened (Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file under a temporary name, flushes it to disk, then renames it to `path`.

    Raises:
        OSError: the disk is full or the folder cannot be written; `path` is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)
    sync_folder(path.parent)
