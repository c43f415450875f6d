"""Format "pairs": a table that names a picture and a prompt in each row, beside the pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unprompt.builders.sources.common import (
    BAD_ROW,
    NO_PROMPT,
    OUTSIDE,
    clean_metadata,
    clean_prompt,
    is_hidden,
)
from unprompt.builders.sources.options import SourceOptions
from unprompt.builders.sources.tables import (
    IMAGE_COLUMNS,
    PROMPT_COLUMNS,
    find_column,
    is_table,
    read_columns,
    read_rows,
)
from unprompt.errors import SourceError
from unprompt.pictures.opening import MISSING
from unprompt.types import Entry, Picture, Skipped

TABLE_STEMS = ("pairs", "metadata", "captions", "prompts", "labels")
"""Names of the table in a folder, tried in this order; "metadata" is that of Hugging Face's imagefolder."""

CELLS = ("tl", "tr", "bl", "br")
_GRID = re.compile(r"\b2\s*[x×]\s*2\b", re.IGNORECASE)


class PairsSource:
    """A table file, or a folder that holds one, in row order.

    Picture paths are relative to the table's folder. A row whose ``layout`` column says "2x2" gives four entries.
    """

    format = "pairs"

    def __init__(self, path: str, options: SourceOptions) -> None:
        self.table = find_table(Path(path), options)
        columns = read_columns(self.table)
        self._image = _column(self.table, columns, options.image_column, IMAGE_COLUMNS, "picture", "image")
        self._prompt = _column(self.table, columns, options.prompt_column, PROMPT_COLUMNS, "prompt", "prompt")
        self._root = os.path.normpath(self.table.parent)
        self._real_root = os.path.realpath(self._root)

    def __iter__(self) -> Iterator[Entry | Skipped]:
        for row in read_rows(self.table):
            if isinstance(row, Skipped):
                yield row
            else:
                yield from self._read(*row)

    def _read(self, number: int, values: Mapping[str, Any]) -> Iterator[Entry | Skipped]:
        uri = f"{self.table}:{number}"
        name, prompt = values.get(self._image), values.get(self._prompt)
        if not isinstance(name, str) or not name.strip():
            yield Skipped(uri, BAD_ROW, f"no picture in column {self._image!r}")
            return
        path = self._locate(name.strip())
        if path is None:
            yield Skipped(uri, OUTSIDE, f"{name.strip()} is not below {self._root}")
        elif not os.path.isfile(path):  # noqa: PTH113 (a Path for each of 2M rows is slow)
            yield Skipped(path, MISSING, f"named in {uri}")
        elif not isinstance(prompt, str) or not (prompt := clean_prompt(prompt)):
            yield Skipped(path, NO_PROMPT, f"column {self._prompt!r} of {uri}")
        else:
            rest = {key: value for key, value in values.items() if key not in (self._image, self._prompt)}
            yield from _entries(path, prompt, clean_metadata(rest))

    def _locate(self, name: str) -> str | None:
        """The absolute path of a picture, or None for one that lies outside the table's folder."""
        path = os.path.normpath(os.path.join(self._root, name))  # noqa: PTH118
        if "\\" in name and not os.path.exists(path):  # noqa: PTH110 (written on Windows)
            path = os.path.normpath(os.path.join(self._root, name.replace("\\", "/")))  # noqa: PTH118
        for root in (self._root, self._real_root):
            if path.startswith(root.rstrip(os.sep) + os.sep):
                return path
        return None


def _entries(path: str, prompt: str, metadata: dict[str, Any]) -> Iterator[Entry]:
    if not _GRID.search(str(metadata.get("layout", ""))):
        yield Entry(prompt, Picture(path), metadata)
        return
    # The size that a table gives is the grid's; the quarter's own is measured when it is decoded.
    metadata = {key: value for key, value in metadata.items() if key not in ("width", "height")}
    for cell in CELLS:
        yield Entry(prompt, Picture(path, cell=cell), metadata)


def find_table(path: Path, options: SourceOptions) -> Path:
    """The table itself, or the one that a folder holds.

    Raises:
        SourceError: no table there, or several and none of a usual name.
    """
    if path.is_file():
        if not is_table(path):
            raise SourceError(f"{path}: not a .jsonl, .csv, .tsv or .parquet table")
        return path
    tables = [table for table in sorted(path.iterdir()) if is_table(table) and not is_hidden(table.name)]
    for stem in TABLE_STEMS:
        for table in tables:
            if table.stem.lower() == stem and has_picture_column(table, options):
                return table
    if len(tables) == 1:
        return tables[0]
    if tables:
        names = ", ".join(table.name for table in tables[:5])
        raise SourceError(f"{path} holds {len(tables)} tables ({names}); name the one to read")
    raise SourceError(f"{path} holds no table; pairs come as pairs.jsonl, metadata.jsonl, metadata.csv or captions.csv")


def has_picture_column(table: Path, options: SourceOptions) -> bool:
    """Whether the table names pictures; a table that cannot be read does not."""
    try:
        return find_column(read_columns(table), options.image_column, IMAGE_COLUMNS) is not None
    except SourceError:
        return False


def _column(table: Path, columns: list[str], wanted: str | None, usual: tuple[str, ...], kind: str, option: str) -> str:
    column = find_column(columns, wanted, usual)
    if column is None:
        asked = f"no column {wanted!r}" if wanted is not None else f"no {kind} column such as {', '.join(usual[:4])}"
        have = ", ".join(columns[:12]) or "no columns"
        raise SourceError(f"{table}: {asked}; it has {have}; name one with --{option}-column")
    return column
