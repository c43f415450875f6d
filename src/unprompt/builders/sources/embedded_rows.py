"""What the formats that bring embeddings share: rows of tables beside rows of arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from unprompt.builders.entries import EmbeddedEntry, normalise
from unprompt.builders.identity import digest
from unprompt.builders.sources.arrays import ArrayFiles
from unprompt.builders.sources.common import BAD_EMBEDDING, NO_PROMPT, clean_metadata, clean_prompt
from unprompt.builders.sources.options import SourceOptions
from unprompt.builders.sources.tables import (
    IMAGE_COLUMNS,
    PROMPT_COLUMNS,
    Row,
    find_column,
    read_columns,
    read_lines,
    read_rows,
)
from unprompt.errors import SourceError
from unprompt.types import Picture, Skipped

BLOCK = 4096
"""Rows read at a time."""

PLACE_COLUMNS = (*IMAGE_COLUMNS, "url")
"""Columns that say where a picture is: it is not opened, so an address will do."""

_OWN_ID = re.compile(r"[0-9a-f]{20}")


class RowFiles:
    """Tables, or .txt files of a prompt a line, taken for one table in the order given."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    @property
    def columns(self) -> list[str]:
        """The columns of the first; "prompt" alone of a text file."""
        return ["prompt"] if self.paths[0].suffix.lower() == ".txt" else read_columns(self.paths[0])

    def __iter__(self) -> Iterator[Row | Skipped]:
        return chain.from_iterable(map(_read, self.paths))

    def __len__(self) -> int:
        return sum(map(_count, self.paths))


def _read(path: Path) -> Iterator[Row | Skipped]:
    if path.suffix.lower() != ".txt":
        yield from read_rows(path)
        return
    for number, line in enumerate(read_lines(path), start=1):
        yield number, {"prompt": line}


def _count(path: Path) -> int:
    if path.suffix.lower() != ".parquet":
        return sum(1 for _ in _read(path))
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: not a readable parquet file ({error})") from error


class RowReader:
    """Turns a row's values and embeddings into an entry.

    A row that an exported library wrote keeps its id; its ``extra`` column is metadata again.

    Args:
        table: names the table in errors.
        columns: its columns.
        options: may name the columns of the prompt and the picture.

    Raises:
        SourceError: there is no column of prompts, or not the one that was named.
    """

    def __init__(self, table: Path, columns: Sequence[str], options: SourceOptions) -> None:
        prompt = find_column(columns, options.prompt_column, PROMPT_COLUMNS)
        self._image = find_column(columns, options.image_column, PLACE_COLUMNS)
        if prompt is None or (options.image_column and self._image is None):
            option, wanted = ("prompt", options.prompt_column) if prompt is None else ("image", options.image_column)
            asked = f"no column {wanted!r}" if wanted else "no prompt column such as prompt, caption, text"
            have = ", ".join(columns[:12]) or "no columns"
            raise SourceError(f"{table}: {asked}; it has {have}; name one with --{option}-column")
        self._prompt = prompt

    def read(
        self, values: Mapping[str, Any], uri: str, image: NDArray[np.float32] | None, text: NDArray[np.float32] | None
    ) -> EmbeddedEntry | Skipped:
        """Makes the entry of a row; `uri` names the row where its picture has no place."""
        rest = dict(values)
        prompt, place, identity = rest.pop(self._prompt), rest.pop(self._image or "", None), rest.get("id")
        if isinstance(place, dict):  # a picture as Hugging Face's tables hold it
            place = place.get("path")
        picture = Picture(place.strip()) if isinstance(place, str) and place.strip() else None
        prompt = clean_prompt(prompt) if isinstance(prompt, str) else ""
        if not prompt:
            return Skipped(picture.uri if picture else uri, NO_PROMPT, f"column {self._prompt!r} of {uri}")
        count = 1
        if isinstance(identity, str) and _OWN_ID.fullmatch(identity):
            rest.pop("id")
            rest |= _extra(rest.pop("extra", None))
            count = rest.pop("count", None) or 1
        else:
            identity = ""
        return EmbeddedEntry(prompt, picture, clean_metadata(rest), count, image, text, identity)


def _extra(text: Any) -> dict[str, Any]:
    try:
        values = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


@dataclass(frozen=True)
class Part:
    """Arrays and the table whose row i says what their row i is.

    Attributes:
        images: embeddings of pictures; None for prompts alone.
        texts: embeddings of prompts; None leaves them to the encoder.
        table: the rows.
    """

    images: ArrayFiles | None
    texts: ArrayFiles | None
    table: RowFiles

    def check(self) -> int:
        """Returns the number of rows.

        Raises:
            SourceError: the arrays and the table differ in theirs.
        """
        rows, first = len(self.table), self.table.paths[0]
        for arrays in filter(None, (self.images, self.texts)):
            if arrays.rows != rows:
                names = arrays.paths[0] if len(arrays.paths) == 1 else f"{arrays.paths[0]} and those after it"
                raise SourceError(
                    f"{names}: {arrays.rows:,} rows, {first.name}: {rows:,}; row i of each must be one row"
                )
        return rows


class AlignedSource:
    """Embeddings in arrays beside tables, in order; nothing is opened but these.

    A row whose picture embedding is not finite, or all zeros, is skipped; of such a text embedding only the embedding
    is dropped, and the prompt encoded.

    Attributes:
        name: where it is.
        dim: of the embeddings.
        fingerprint: of the encoder that made them, where a table says so.
    """

    format = "embeddings"

    def __init__(self, name: str, parts: Sequence[Part], options: SourceOptions, fingerprint: str = "") -> None:
        self.name = name
        arrays = [array for part in parts for array in (part.images, part.texts) if array is not None]
        self.dim = arrays[0].dim
        self.fingerprint = fingerprint
        for array in arrays:
            if array.dim != self.dim:
                other = arrays[0].paths[0].name
                raise SourceError(f"{array.paths[0]} has {array.dim} columns, {other} has {self.dim}; give them apart")
        self._rows = sum(part.check() for part in parts)
        self._parts = [(part, RowReader(part.table.paths[0], part.table.columns, options)) for part in parts]

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[EmbeddedEntry | Skipped]:
        return self._read() if all(part.images for part, _ in self._parts) else distinct_prompts(self._read)

    def _read(self) -> Iterator[EmbeddedEntry | Skipped]:
        for part, reader in self._parts:
            rows, start = iter(part.table), 0
            while block := list(islice(rows, BLOCK)):
                yield from _entries(part, reader, block, start)
                start += len(block)


def distinct_prompts(read: Callable[[], Iterator[EmbeddedEntry | Skipped]]) -> Iterator[EmbeddedEntry | Skipped]:
    """Gives prompts without pictures once each, with how often they come; all else as it is.

    Rows of an exported library have been counted, and keep their ids and counts.

    Args:
        read: gives the entries anew; they are read twice, so that none has to be kept.
    """
    counts: dict[bytes, int] = {}
    for item in read():
        if _is_counted(item):
            key = digest(item.prompt)
            counts[key] = counts.get(key, 0) + 1
    for item in read():
        if not _is_counted(item):
            yield item
        elif count := counts.pop(digest(item.prompt), 0):
            yield replace(item, count=count)


def _is_counted(item: EmbeddedEntry | Skipped) -> TypeGuard[EmbeddedEntry]:
    return isinstance(item, EmbeddedEntry) and item.image is None and not item.id


def _entries(
    part: Part, reader: RowReader, block: list[Row | Skipped], start: int
) -> Iterator[EmbeddedEntry | Skipped]:
    stop = start + len(block)
    images, good = normalise(part.images.read(start, stop)) if part.images else (None, np.ones(len(block), bool))
    texts, known = normalise(part.texts.read(start, stop)) if part.texts else (None, np.zeros(len(block), bool))
    for at, row in enumerate(block):
        if isinstance(row, Skipped):
            yield row
            continue
        uri = f"{part.table.paths[0]}:{start + at + 1}"
        image = images[at] if images is not None else None
        entry = reader.read(row[1], uri, image, texts[at] if texts is not None and known[at] else None)
        if isinstance(entry, EmbeddedEntry) and part.images and not good[at]:
            yield bad_embedding(entry, uri, part.images.place(start + at))
        else:
            yield entry


def bad_embedding(entry: EmbeddedEntry, uri: str, place: str) -> Skipped:
    """Why an entry is left out whose embedding cannot be used."""
    detail = f"{place} is missing, not finite, or all zeros"
    return Skipped(entry.picture.uri if entry.picture else uri, BAD_EMBEDDING, detail)
