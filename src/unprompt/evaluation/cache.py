"""What an evaluation computed, kept on disk by content, so that nothing is computed twice and changes are noticed.

A store is a folder of segments, each a file of JSON lines that is written once, whole, and never changed. A run that is
killed has kept what it wrote, and deleting the folder loses time only.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import unprompt
from unprompt.index.files import write_durably

logger = logging.getLogger(__name__)

MAX_SEGMENTS = 16
_TEXTS = (".py", ".json", ".txt")


class RecordStore:
    """JSON values by key, on disk.

    Args:
        folder: of this store alone; made when something is put into it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        """How many values are kept."""
        return len(self._records)

    def get(self, key: str) -> Any:
        """The value of a key, None where there is none."""
        return self._records.get(key)

    def put(self, records: Mapping[str, Any]) -> None:
        """Keeps values, durably from the moment this returns.

        Raises:
            OSError: the disk is full or the folder cannot be written; what was kept before stays.
        """
        if records:
            self._write(records)
            self._records.update(records)

    def compact(self) -> None:
        """Joins the segments when they have become many; a crash in between loses nothing."""
        paths = self._segments()
        if len(paths) > MAX_SEGMENTS:
            joined = self._write(self._records)
            for path in paths:
                if path != joined:
                    path.unlink(missing_ok=True)

    def _write(self, records: Mapping[str, Any]) -> Path:
        data = "".join(json.dumps([key, value]) + "\n" for key, value in sorted(records.items())).encode()
        # Named by content: two processes that keep the same values write the same file.
        path = self.folder / f"{hashlib.sha256(data).hexdigest()[:32]}.jsonl"
        write_durably(path, lambda file: file.write(data))
        return path

    @cached_property
    def _records(self) -> dict[str, Any]:
        records: dict[str, Any] = {}
        for path in self._segments():
            try:
                records.update(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
            except FileNotFoundError:
                continue  # another process has just joined it with others: what it held is computed again
            except (ValueError, TypeError) as error:
                logger.warning("%s is left out, for it cannot be read (%s)", path, error)
        return records

    def _segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))


class Memo:
    """Results of functions by the content of what they were computed from.

    Args:
        store: where they are kept.
        version: of the code that computes them; see `code_version`.
    """

    def __init__(self, store: RecordStore, version: str) -> None:
        self.store = store
        self.version = version
        self._new: dict[str, Any] = {}

    def __call__(self, facts: Any, compute: Callable[[], Any]) -> Any:
        """The JSON value that `compute` gives; `facts`, JSON too, says all that it depends on."""
        key = content_key(self.version, facts)
        found = self.store.get(key)
        if found is None:
            found = self._new.get(key)
        if found is None:
            found = self._new[key] = compute()
        return found

    def flush(self) -> None:
        """Keeps what was computed since the last time."""
        self.store.put(self._new)
        self._new = {}


def content_key(*facts: Any) -> str:
    """32 hexadecimal digits that stand for JSON values."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def code_version(*places: str) -> str:
    """32 hexadecimal digits that stand for the source of packages or modules of unprompt, such as "search".

    Any change counts, also of a comment, and so do word lists and small weights in text files: an answer too many is
    computed again rather than one too few.
    """
    whole = hashlib.sha256()
    for path in sorted(_sources(places)):
        whole.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:32]


def _sources(places: Iterable[str]) -> set[Path]:
    root = Path(unprompt.__file__).parent
    found: set[Path] = set()
    for place in places:
        folder = root.joinpath(*place.split("."))
        inside = (path for path in folder.rglob("*") if path.suffix in _TEXTS) if folder.is_dir() else ()
        found |= set(inside) or {folder.with_suffix(".py")}
    return found


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """The installed versions of distributions; those that are not installed are left out."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
