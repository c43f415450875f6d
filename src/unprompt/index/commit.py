"""Replacing several files of a library at once, so that a crash leaves either all old files or all new ones.

New content is written beside the old under the suffix ``.next``; the manifest, which names the sha256 of the new
content, is then renamed into place, and that is the moment of the change; the ``.next`` files are renamed last. A
crash before the manifest leaves ``.next`` files that it does not know, which are deleted; a crash after it leaves
``.next`` files that it does know, which are renamed (a redo log in the sense of write-ahead logging).
"""

from __future__ import annotations

from pathlib import Path

from unprompt.index.files import TEMPORARY, sha256_file, sync_folder
from unprompt.index.manifest import Manifest
from unprompt.index.shards import SERIES
from unprompt.index.vocabulary import VOCABULARY

NEXT = ".next"
FOLDERS = (*(folder for series in SERIES.values() for folder in (*series.arrays, series.table)), VOCABULARY)


def staged(root: Path, name: str) -> Path:
    """Where the new content of file `name` is written before the commit."""
    return root / (name + NEXT)


def commit(root: Path, manifest: Manifest) -> None:
    """Makes `manifest` and all staged files that it names the content of the library."""
    manifest.write(root)
    roll_forward(root, manifest)


def roll_forward(root: Path, manifest: Manifest | None) -> None:
    """Finishes or undoes what a crash left: renames staged files that `manifest` knows, deletes all others."""
    for path in _leftovers(root, NEXT):
        name = path.relative_to(root).as_posix().removesuffix(NEXT)
        info = manifest.files.get(name) if manifest else None
        if info and path.stat().st_size == info.bytes and sha256_file(path) == info.sha256:
            path.replace(root / name)
            sync_folder(path.parent)
        else:
            path.unlink()
    for path in _leftovers(root, TEMPORARY):
        path.unlink()


def current(root: Path, name: str, manifest: Manifest) -> Path:
    """Where file `name` is for a reader: its staged content when a crash came between the commit and the renames."""
    path, waiting = root / name, staged(root, name)
    if not waiting.exists():
        return path
    info = manifest.files.get(name)
    return waiting if info and sha256_file(waiting) == info.sha256 else path


def _leftovers(root: Path, suffix: str) -> list[Path]:
    """Files with `suffix` in the folders that a library has; a user's own folders are not searched."""
    folders = (root, *(root / name for name in FOLDERS))
    return sorted(path for folder in folders for path in folder.glob(f"*{suffix}") if path.is_file())
