"""Rows of .jsonl, .csv, .tsv and .parquet tables, one at a time."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unprompt.builders.sources.common import BAD_ROW, decode_text
from unprompt.errors import SourceError
from unprompt.types import Skipped

TABLE_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")

IMAGE_COLUMNS = (
    "image", "image_path", "file_name", "filename", "image_file", "image_name", "file", "path", "filepath", "file_path",
    "img", "img_path", "picture",
)  # fmt: skip
PROMPT_COLUMNS = ("prompt", "caption", "text", "positive_prompt", "description", "title", "label")

MAX_FIELD = 16 * 2**20
"""Longest csv field, in characters; Python's own limit of 131,072 is short of some workflows kept in tables."""

Row = tuple[int, dict[str, Any]]
"""A row's number in its file, from 1 (line number for text), and its values by column."""


def is_table(path: Path) -> bool:
    """Whether the file's name ends like a table's."""
    return path.suffix.lower() in TABLE_SUFFIXES


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row | Skipped]:
    """Reads a table row by row; a row that cannot be parsed comes as `Skipped`.

    Args:
        columns: read only these, where the format allows it (parquet).

    Raises:
        SourceError: the file cannot be opened or is no such table.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise SourceError(f"{path}: not a table; known are {', '.join(TABLE_SUFFIXES)}")
    try:
        if suffix == ".parquet":
            yield from _read_parquet(path, columns)
        elif suffix == ".jsonl":
            yield from _read_jsonl(path)
        else:
            yield from _read_csv(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error


def read_lines(path: Path) -> Iterator[str]:
    """Decodes a text file line by line (see `decode_text`), so that one odd byte costs one line at most."""
    with path.open("rb") as stream:
        start = stream.read(2)
        stream.seek(0)
        if start in (b"\xff\xfe", b"\xfe\xff"):
            yield from io.TextIOWrapper(stream, encoding="utf-16", errors="replace", newline="")
        else:
            yield from map(decode_text, stream)


def _read_jsonl(path: Path) -> Iterator[Row | Skipped]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Skipped(f"{path}:{number}", BAD_ROW, f"not JSON: {error}")
            continue
        if isinstance(values, dict):
            yield number, values
        else:
            yield Skipped(f"{path}:{number}", BAD_ROW, f"a JSON {type(values).__name__} where an object is due")


def _read_csv(path: Path) -> Iterator[Row | Skipped]:
    csv.field_size_limit(MAX_FIELD)
    lines = read_lines(path)
    names, delimiter = _split_header(path, next(lines, ""))
    rows = csv.reader(lines, delimiter=delimiter)
    while True:
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Skipped(f"{path}:{rows.line_num + 1}", BAD_ROW, str(error))
            continue
        if not fields:
            continue
        if len(fields) != len(names):
            yield Skipped(f"{path}:{rows.line_num + 1}", BAD_ROW, f"{len(fields)} fields where {len(names)} are due")
            continue
        yield rows.line_num + 1, dict(zip(names, fields, strict=True))


def _split_header(path: Path, header: str) -> tuple[list[str], str]:
    """The column names and the delimiter; spreadsheets of many countries write ";" into a .csv."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=header.count)
    return [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])], delimiter


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096, columns=list(columns) if columns is not None else None):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
    except pa.ArrowException as error:
        raise SourceError(f"{path}: not a readable parquet file ({error})") from error


def read_columns(path: Path) -> list[str]:
    """The table's column names, from its header, schema or first good row.

    Raises:
        SourceError: the file cannot be opened or is no such table.
    """
    if path.suffix.lower() == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return list(pq.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: not a readable parquet file ({error})") from error
    if path.suffix.lower() == ".jsonl":
        return next((list(row[1]) for row in read_rows(path) if not isinstance(row, Skipped)), [])
    try:
        header = next(read_lines(path), "")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    return _split_header(path, header)[0]


def find_column(columns: Sequence[str], wanted: str | None, usual: Sequence[str]) -> str | None:
    """The column asked for, or the first of the usual names that the table has, in any letter case."""
    if wanted is not None:
        return wanted if wanted in columns else None
    lowered = {name.lower(): name for name in reversed(columns)}
    return next((lowered[name] for name in usual if name in lowered), None)
