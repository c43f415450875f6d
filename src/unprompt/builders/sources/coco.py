"""Format "coco": COCO's captions beside its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from unprompt.errors import SourceError
from unprompt.pictures.coco import CocoSource, holds_captions
from unprompt.types import Entry, Skipped


class CocoFolderSource:
    """A captions_*.json, or a folder that holds some, itself or in ``annotations``; captions of a picture together."""

    format = "coco"

    def __init__(self, path: str) -> None:
        files = find_captions(Path(path))
        if not files:
            raise SourceError(f"{path}: no COCO captions; --format coco takes captions_*.json or the folder above it")
        self._sources = [CocoSource(file) for file in files]

    def __len__(self) -> int:
        return sum(map(len, self._sources))

    def __iter__(self) -> Iterator[Entry | Skipped]:
        return chain.from_iterable(source.by_picture() for source in self._sources)


def find_captions(path: Path) -> list[Path]:
    """The captions files at or below a path, in name order."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" and holds_captions(path) else []
    for folder in (path, path / "annotations"):
        if found := sorted(folder.glob("captions_*.json")) if folder.is_dir() else []:
            return found
    return []
