"""Fragments from csv, tsv and json files, whatever their columns are called."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unprompt.errors import SourceError
from unprompt.types import Fragment

TABLE_SUFFIXES = (".csv", ".tsv", ".json")

_TEXT = ("text", "keyword", "phrase", "term", "tag", "modifier", "fragment", "name", "artist")
_ARTIST_COLUMNS = ("artist",)
_DIED = ("died", "death")
_MAX_FIELD = 1 << 20


def read_table_fragments(path: Path, kind: str | None) -> Iterator[Fragment]:
    """Reads the fragments of a table in its order, blank and repeated ones included.

    Raises:
        SourceError: the file is not UTF-8, not the table that its name says, has no column of terms, or a row has no
            kind, or a count or year that is no whole number.
    """
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    try:
        yield from (_fragment(path, where, row, kind) for where, row in rows)
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not utf-8 text ({error.reason} at byte {error.start}); convert it") from None
    except csv.Error as error:
        raise SourceError(f"{path} is not utf-8 csv ({error})") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from None


Row = tuple[str, Mapping[str, Any]]
"""Where a row is, as "line 3", and its values by column."""


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(_MAX_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = (line.replace("\0", " ") for line in file)
        reader = csv.reader(lines, dialect="excel-tab" if path.suffix.lower() == ".tsv" else "excel")
        first = next(reader, [])
        names = [name.strip().lower() for name in first]
        if not any(name in _TEXT for name in names):
            if not _is_term_and_count(first):
                raise SourceError(f"{path} has no column 'text' among {first}; name one so")
            names = ["text", "count"]
            yield "line 1", dict(zip(names, first, strict=True))
        for fields in reader:
            yield f"line {reader.line_num}", dict(zip(names, fields, strict=False))


def _is_term_and_count(fields: Sequence[str]) -> bool:
    return len(fields) == 2 and fields[1].strip().isdecimal() and not fields[0].strip().isdecimal()


def _json_rows(path: Path) -> Iterator[Row]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON ({error})") from None
    if not isinstance(values, list):
        raise SourceError(f"{path} holds a JSON {type(values).__name__} where a list of terms or objects is due")
    for number, value in enumerate(values, start=1):
        if isinstance(value, str):
            yield f"item {number}", {"text": value}
        elif isinstance(value, dict):
            yield f"item {number}", {str(key).lower(): item for key, item in value.items()}
        else:
            raise SourceError(f"{path} item {number} is a JSON {type(value).__name__}, not a term or an object")


def _fragment(path: Path, where: str, row: Mapping[str, Any], kind: str | None) -> Fragment:
    column = next((name for name in _TEXT if name in row), None)
    if column is None:
        raise SourceError(f"{path} {where} has none of the columns {', '.join(_TEXT)}; add 'text'")
    text = str(row[column] or "")
    own = _text(row, "kind") or kind or _implied_kind(row, column)
    if own is None:
        raise SourceError(f"{path} {where} has no kind; add a column 'kind' or give --kind")
    if own == "artist" and column == "name":
        text = first_name_first(text)
    return Fragment(
        text,
        own,
        _text(row, "source") or path.name,
        _whole(path, where, row, "count"),
        _text(row, "namespace") or "stock",
        _whole(path, where, row, "born"),
        next((year for name in _DIED if (year := _whole(path, where, row, name))), 0),
    )


def _implied_kind(row: Mapping[str, Any], column: str) -> str | None:
    dated = column == "name" and any(name in row for name in ("born", *_DIED))
    return "artist" if dated or column in _ARTIST_COLUMNS else None


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value).strip()


def _whole(path: Path, where: str, row: Mapping[str, Any], column: str) -> int:
    """A count or year; 0 where it is blank."""
    text = _text(row, column) or "0"
    if not text.isdecimal():
        raise SourceError(f"{path} {where} has {column} {text!r}, expected a whole number")
    return int(text)


def first_name_first(name: str) -> str:
    """Turns "Last, First" round and leaves out what stands in brackets, a real or second name, but "the Elder".

    Example:
        >>> first_name_first("Bosschaert, Ambrosius (the Elder)"), first_name_first("Rhads (Artem Chebokha)")
        ('Ambrosius Bosschaert the Elder', 'Rhads')
    """
    epithet = re.search(r"\((the [^()]*)\)", name)
    last, comma, first = re.sub(r"\([^()]*\)", " ", name).partition(",")
    first, _, suffix = first.partition(",")
    words = [first, last, suffix if comma else "", epithet[1] if epithet else ""]
    return " ".join(" ".join(words).split())
