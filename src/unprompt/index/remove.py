"""Removing rows from a library: the shards that held them are rewritten, nothing is encoded again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unprompt.errors import LibraryError
from unprompt.index.files import sha256_file
from unprompt.index.refresh import refresh
from unprompt.index.shards import PICTURES, SERIES
from unprompt.index.writer import LibraryWriter

_ID = re.compile(r"[0-9a-f]{20}")


@dataclass(frozen=True)
class _Selector:
    """Which rows one argument of `remove_rows` means: those where `column` equals `value`, or matches it as a glob."""

    given: str
    column: str
    value: str
    glob: bool = False

    def select(self, table: pa.Table) -> NDArray[np.bool_]:
        if self.column not in table.schema.names:
            return np.zeros(table.num_rows, dtype=bool)
        cells = table.column(self.column).to_pylist()
        if self.glob:
            return np.array([cell is not None and fnmatchcase(cell, self.value) for cell in cells], dtype=bool)
        return np.array([cell == self.value for cell in cells], dtype=bool)


def remove_rows(path: Path | str, rows: Sequence[str] = (), prompts: Sequence[str] = ()) -> int:
    """Removes rows for good: their embeddings and metadata leave the folder.

    Args:
        path: the library's folder.
        rows: each an id, a picture file (its content is looked for, wherever it was built from), or a glob such as
            ``*/drafts/*`` over the places that pictures were built from.
        prompts: exact prompts, whose rows all go, with or without a picture.

    Returns:
        How many rows went.

    Raises:
        LibraryError: an argument matches no row (nothing is changed then), or every row would go.
    """
    selectors = [_selector(row) for row in rows] + [_Selector(prompt, "caption", prompt) for prompt in prompts]
    with LibraryWriter(path) as writer:
        hits = dict.fromkeys(selectors, 0)
        removed = 0
        for shard in [shard for shard in writer.shards if shard not in writer.new_shards]:
            series = SERIES[shard.series]
            table = writer.table(series, shard.number)
            gone = np.zeros(table.num_rows, dtype=bool)
            for selector in selectors:
                selected = selector.select(table)
                hits[selector] += int(selected.sum())
                gone |= selected
            if gone.any():
                arrays = {name: writer.array(series, name, shard.number)[~gone] for name in series.arrays}
                writer.replace_shard(series, shard.number, arrays, table.filter(pa.array(~gone)))
                removed += int(gone.sum())
        missed = [selector.given for selector, count in hits.items() if not count]
        if missed:
            raise LibraryError(f"nothing in {writer.root} matches {missed[0]!r}; give an id, a picture file or a glob")
        if not sum(shard.rows for shard in writer.shards):
            raise LibraryError(f"that would remove every row of {writer.root}; delete the folder instead")
        if removed:
            refresh(writer, rows_removed=True)
        return removed


def _selector(given: str) -> _Selector:
    if _ID.fullmatch(given):
        return _Selector(given, "id", given)
    if Path(given).is_file():
        return _Selector(given, "sha256", sha256_file(Path(given)))
    # `PICTURES` rows know the place they were built from; a name without wildcards must match it whole.
    return _Selector(given, PICTURES.schema.field("image_path").name, given, glob=True)
