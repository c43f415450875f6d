"""Format "folder": pictures with their prompt in a text file of the same stem (``a.png``, ``a.txt``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unprompt.builders.sources.common import NO_PROMPT, clean_prompt, decode_text, walk_pictures
from unprompt.builders.sources.metadata import recorded_entry
from unprompt.errors import SourceError
from unprompt.pictures.opening import UNREADABLE
from unprompt.types import Entry, Picture, Skipped

MAX_SIDECAR = 2**20
"""Bytes; a longer text file is not a prompt."""


class FolderSource:
    """A folder of pictures, searched with all its subfolders, in name order.

    A picture without a sidecar, or with an empty one, falls back to the prompt in its own metadata.
    """

    format = "folder"

    def __init__(self, folder: str) -> None:
        self.root = Path(folder)
        if not self.root.is_dir():
            raise SourceError(f"{folder}: not a folder; --format folder takes a folder of pictures with .txt sidecars")

    def __iter__(self) -> Iterator[Entry | Skipped]:
        for path in walk_pictures(self.root):
            yield path if isinstance(path, Skipped) else _read(path)


def _read(path: Path) -> Entry | Skipped:
    picture = Picture(str(path))
    sidecar = find_sidecar(path)
    if sidecar is None:
        return recorded_entry(picture)
    try:
        with sidecar.open("rb") as stream:
            data = stream.read(MAX_SIDECAR + 1)
    except OSError as error:
        return Skipped(picture.uri, UNREADABLE, f"{sidecar.name}: {(error.strerror or str(error)).lower()}")
    text = decode_text(data)
    if len(data) > MAX_SIDECAR or "\x00" in text:
        return Skipped(picture.uri, NO_PROMPT, f"{sidecar.name} is not a prompt: binary, or over {MAX_SIDECAR} bytes")
    prompt = clean_prompt(text)
    return Entry(prompt, picture) if prompt else recorded_entry(picture)


def find_sidecar(path: Path) -> Path | None:
    """The picture's text file, if it has one."""
    for suffix in (".txt", ".TXT"):
        sidecar = path.with_suffix(suffix)
        if sidecar.is_file():
            return sidecar
    return None
