"""The tables of a pushed library, the same in every database, and how a library's rows are laid out in them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unprompt.backends.protocol import Row
from unprompt.index.vector_index import list_count
from unprompt.index.where import DATE, DATE_COLUMN, Field, microseconds, typed
from unprompt.types import METADATA_KEYS, Record

if TYPE_CHECKING:
    from unprompt.index.library import Library

PICTURES, PROMPTS, FILES = "pictures", "prompts", "files"

KEY, INTEGER, TEXT, NUMBER, JSON, VECTOR = "key", "integer", "text", "number", "json", "vector"

_SHARED = {"id": KEY, "row": INTEGER, "block": TEXT}
TABLES: Mapping[str, Mapping[str, str]] = {
    PICTURES: {
        **_SHARED,
        "embedding": VECTOR,
        "prompt": TEXT,
        "prompt_id": TEXT,
        "image": TEXT,
        "metadata": TEXT,
        "sha256": TEXT,
        **{name: TEXT if kind is str else NUMBER for name, kind in METADATA_KEYS.items()},
        DATE_COLUMN: NUMBER,
        "extra": JSON,
    },
    PROMPTS: {**_SHARED, "embedding": VECTOR, "prompt": TEXT, "count": INTEGER},
    FILES: {**_SHARED, "data": TEXT},
}
"""Table -> column -> type. Every column but the shared ones, the embedding and `extra` may be null.

`row` is the row in the library, or the part of a file. `block` names what was pushed together: a hash of its content.
`metadata` is all of a picture's metadata as JSON, as it is given back; the columns are there to be compared with, and
`extra` is what else can be compared, see `comparable_extra`.
"""

ANSWER: Mapping[str, tuple[str, ...]] = {
    PICTURES: ("id", "row", "prompt", "image", "metadata"),
    PROMPTS: ("id", "row", "prompt"),
}
"""The columns that a search gives back."""

FACTS = "facts"
"""The block of the one row of `FILES` that says what was pushed, as JSON."""

PART_BYTES = 45_000
"""Of a file in one row: as base64 less than the 65,535 bytes that a text may have in Milvus."""

_PLAIN = re.compile(r"[A-Za-z0-9_]+")


def comparable_extra(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata without a column, flat, each key with its value's type before it, so that types never mix.

    ``n_KEY`` is a number, ``t_KEY`` a text, ``b_KEY`` a bool, and ``k_KEY`` says that the picture has a value at all.
    """
    extra: dict[str, Any] = {}
    for key, value in metadata.items():
        if key in METADATA_KEYS or key == "sha256" or value is None:
            continue
        extra[extra_key("k", key)] = True
        compared = typed(value)
        if compared is not None:
            extra[extra_key(_tag(compared), key)] = compared
    return extra


def extra_key(tag: str, name: str) -> str:
    """The key of a value in `comparable_extra`; names that are not plain are spelled in hexadecimal."""
    return f"{tag}_{name}" if _PLAIN.fullmatch(name) else f"{tag}h_{name.encode().hex()}"


def compared_key(field: Field, value: Any) -> str:
    """The key under which `comparable_extra` has values of a field that can be compared with `value`."""
    return extra_key(_tag(value), field.name)


def column_of(field: Field) -> str:
    """The column that a test of a field compares."""
    return DATE_COLUMN if field.name == DATE else field.name


def prompt_id(prompt: str) -> str:
    """The key of a prompt."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:32]


def picture_row(record: Record, row: int, block: str, embedding: NDArray[np.float32]) -> Row:
    """A row of `PICTURES`. Databases hold no NUL, which is replaced by U+FFFD."""
    metadata = _without_nul(record.metadata)
    date = metadata.get(DATE)
    columns = {name: metadata.get(name) for name in ("sha256", *METADATA_KEYS)}
    prompt = record.prompt.replace("\0", "\ufffd")
    return {
        "id": record.id,
        "row": row,
        "block": block,
        "embedding": embedding,
        "prompt": prompt,
        "prompt_id": prompt_id(prompt),
        "image": record.image,
        "metadata": json.dumps(metadata, ensure_ascii=False),
        **{name: float(value) if isinstance(value, int | float) else value for name, value in columns.items()},
        DATE_COLUMN: None if date is None or (moment := microseconds(date)) is None else float(moment),
        "extra": comparable_extra(metadata),
    }


def row_record(row: Row) -> Record:
    """The reverse of `picture_row`."""
    return Record(row["id"], row["prompt"], row["image"], json.loads(row["metadata"]))


def lists_of(rows: int) -> int:
    """How many inverted lists an "ivf" index over `rows` rows has: about their root; k-means needs 39 rows for each."""
    return max(1, min(list_count(max(1, rows)) // 4, rows // 39))


def probes_of(rows: int) -> int:
    """How many of them a search visits."""
    return max(1, min(lists_of(rows), max(32, lists_of(rows) // 16)))


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, Mapping):
        return {_without_nul(str(key)): _without_nul(inner) for key, inner in value.items()}
    return [_without_nul(inner) for inner in value] if isinstance(value, list | tuple) else value


def _tag(value: Any) -> str:
    return "b" if isinstance(value, bool) else "t" if isinstance(value, str) else "n"


@dataclass(frozen=True)
class Block:
    """Rows that are pushed together, and known again by a hash of their content.

    Attributes:
        key: that hash.
        rows: how many.
        read: iterates them from the given one on.
    """

    key: str
    rows: int
    read: Callable[[int], Iterator[Row]]


def file_blocks(library: Library, names: list[str]) -> list[Block]:
    """The library's files of these names, each a block of parts."""
    from unprompt.index.commit import current

    blocks = []
    for name in names:
        info = library.manifest.files[name]
        path = current(library.path, name, library.manifest)

        def read(start: int, path: Any = path, key: str = info.sha256) -> Iterator[Row]:
            with path.open("rb") as file:
                file.seek(start * PART_BYTES)
                part = start
                while data := file.read(PART_BYTES):
                    text = base64.b64encode(data).decode()
                    yield {"id": f"{key[:48]}-{part}", "row": part, "block": key, "data": text}
                    part += 1

        blocks.append(Block(info.sha256, -(-info.bytes // PART_BYTES), read))
    return blocks


def facts_row(text: str) -> Row:
    """The row that says what was pushed."""
    return {"id": FACTS, "row": 0, "block": FACTS, "data": text}
