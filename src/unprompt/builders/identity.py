"""What makes a row itself: its id, and which ids a library already holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unprompt.builders.entries import EmbeddedEntry
from unprompt.types import Entry

if TYPE_CHECKING:
    import pyarrow as pa

ID_DIGITS = 20

Ids = NDArray[np.bytes_]
"""(N,) S20, ascending."""


def picture_id(sha256: str, entry: Entry) -> str:
    """The id of a picture's row: the file's content, the quarter of it, and the prompt."""
    cell = entry.picture.cell if entry.picture else None
    return _digits("picture", sha256, cell or "", entry.prompt)


def prompt_id(entry: Entry) -> str:
    """The id of a prompt without a picture: the prompt, and the source that had it."""
    return _digits("prompt", entry.prompt, str(entry.metadata.get("source", "")))


def embedded_id(entry: EmbeddedEntry) -> str:
    """The id of an imported row: its own, or a hash of the embedding, the place and the prompt.

    The picture's bytes are not at hand. The place is a part of it, so that rows of pictures that look the same to the
    encoder all stay.
    """
    if entry.id or entry.image is None:
        return entry.id or prompt_id(entry)
    place = entry.picture.uri if entry.picture else ""
    return _digits("embedded", hashlib.sha256(entry.image.tobytes()).hexdigest(), place, entry.prompt)


def digest(text: str) -> bytes:
    """16 bytes that stand for a text in maps over millions of them."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def contains(ids: Ids, identity: str) -> bool:
    """Whether sorted `ids` hold `identity`."""
    at = int(np.searchsorted(ids, identity.encode()))
    return at < len(ids) and ids[at] == identity.encode()


class KnownRows:
    """The rows a library holds and those seen in this run, by id, with where each was first seen."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        """Takes tables with "id", and "image_path" where the rows are pictures."""
        ids, places = [], []
        for table in tables:
            paths = table.column("image_path").to_pylist() if "image_path" in table.schema.names else [""] * len(table)
            ids.append(np.array(table.column("id").to_pylist(), dtype=f"S{ID_DIGITS}"))
            places.append(np.array([_place(path or "") for path in paths], dtype=np.uint64))
        joined = np.concatenate([*ids, np.zeros(0, f"S{ID_DIGITS}")])
        order = np.argsort(joined, kind="stable")
        self.ids: Ids = joined[order]
        self._places = np.concatenate([*places, np.zeros(0, np.uint64)])[order]
        self._seen: dict[str, int] = {}

    def claim(self, identity: str, uri: str) -> str | None:
        """Claims an id for `uri`.

        Returns:
            None when the row is new; "known" when the library has it from this very place; "duplicate" when
            the same picture and prompt came from another place.
        """
        place = _place(uri)
        at = int(np.searchsorted(self.ids, identity.encode()))
        if at < len(self.ids) and self.ids[at] == identity.encode():
            return "known" if int(self._places[at]) == place else "duplicate"
        if identity in self._seen:
            return "duplicate"
        self._seen[identity] = place
        return None


def _digits(*fields: str) -> str:
    text = "\0".join(fields).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:ID_DIGITS]


def _place(uri: str) -> int:
    return int.from_bytes(digest(uri)[:8], "little")
