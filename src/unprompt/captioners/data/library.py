"""A library's pictures as entries."""

from __future__ import annotations

import re
from collections.abc import Iterator

from unprompt.index.library import Library
from unprompt.types import Entry, Picture

_CELL = re.compile(r"(.*)#(tl|tr|bl|br)", re.DOTALL)
_MEMBER = re.compile(r"(.*\.(?:zip|tar))!(.*)", re.DOTALL | re.IGNORECASE)
CHUNK = 1024


def library_entries(library: Library) -> Iterator[Entry]:
    """The entries a library was built from, row by row; the pictures must still be where they were."""
    for start in range(0, len(library), CHUNK):
        for record in library.records(range(start, min(start + CHUNK, len(library)))):
            if record.image is not None:
                yield Entry(record.prompt, parse_uri(record.image), record.metadata)


def parse_uri(uri: str) -> Picture:
    """The inverse of `Picture.uri`: "path", "archive.zip!member", either followed by "#cell"."""
    cell = None
    if match := _CELL.fullmatch(uri):
        uri, cell = match[1], match[2]
    if match := _MEMBER.fullmatch(uri):
        return Picture(match[1], match[2], cell)
    return Picture(uri, None, cell)
