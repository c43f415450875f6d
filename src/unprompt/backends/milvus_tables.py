"""The tables of a pushed library as Milvus collections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unprompt.backends.protocol import Row
from unprompt.backends.tables import FILES, INTEGER, JSON, KEY, NUMBER, TABLES, TEXT, VECTOR, lists_of
from unprompt.errors import LibraryError

MAX_TEXT = 65_535
"""Bytes that Milvus holds in a text, and in a JSON value."""

INDEXES = {"flat": "FLAT", "hnsw": "HNSW", "ivf": "IVF_FLAT"}
METRIC = "IP"


def collection_schema(driver: Any, table: str, dim: int) -> Any:
    """The columns of a table as Milvus has them, embeddings of `dim` dimensions."""
    types = driver.DataType
    made = {
        KEY: {"datatype": types.VARCHAR, "max_length": 64, "is_primary": True},
        INTEGER: {"datatype": types.INT64},
        TEXT: {"datatype": types.VARCHAR, "max_length": MAX_TEXT, "nullable": True},
        NUMBER: {"datatype": types.DOUBLE, "nullable": True},
        JSON: {"datatype": types.JSON},
        VECTOR: {"datatype": types.FLOAT_VECTOR, "dim": dim},
    }
    schema = driver.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for name, kind in {"embedding": VECTOR, **TABLES[table]}.items():  # every collection must have a vector
        schema.add_field(name, **made[kind])
    return schema


def index_parameters(driver: Any, table: str, index: str, rows: int) -> Any:
    """How Milvus indexes a table of about `rows` embeddings: by inner product, which of unit rows is the cosine."""
    parameters: dict[str, dict[str, int]] = {
        "flat": {},
        "hnsw": {"M": 16, "efConstruction": 200},
        "ivf": {"nlist": lists_of(rows)},
    }
    chosen = "flat" if table == FILES else index
    made = driver.MilvusClient.prepare_index_params()
    # A cluster takes the parameters in both spellings, Milvus Lite only as one value called "params".
    within = {"params": parameters[chosen]} if parameters[chosen] else {}
    made.add_index("embedding", index_type=INDEXES[chosen], metric_type=METRIC, params=within)
    return made


def check_sizes(row: Row, columns: Mapping[str, str]) -> None:
    """Refuses a row that Milvus would refuse with its whole batch.

    Raises:
        LibraryError: a text or JSON value is too long; the message names the row.
    """
    for name, kind in columns.items():
        value = json.dumps(row[name]) if kind == JSON else row[name] if kind == TEXT else None
        size = len(value.encode()) if value else 0
        if size > MAX_TEXT:
            raise LibraryError(
                f"{name} of {row['id']} has {size:,} bytes, Milvus holds {MAX_TEXT:,}; remove that row with "
                "`unprompt remove`, or push to PostgreSQL"
            )
