"""Milvus: a pushed library is three collections, written and replaced here. One code for a cluster and Milvus Lite.

Milvus has no transactions. Pictures and prompts that change are therefore written whole into collections of the next
generation, and take effect with the one row that says what is served: it names the generations.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from unprompt.backends.addresses import Address
from unprompt.backends.database import Database, one_line
from unprompt.backends.milvus_tables import INDEXES, check_sizes, collection_schema, index_parameters
from unprompt.backends.milvus_where import members
from unprompt.backends.protocol import Row
from unprompt.backends.tables import FACTS, FILES, PICTURES, PROMPTS, TABLES, facts_row
from unprompt.errors import LibraryError

Writer = TypeVar("Writer", bound="MilvusWriter")
Generations = Mapping[str, int]
"""Of each table of embeddings, how often it was replaced."""

_GENERATIONS = "generations"
_PARTS_AT_ONCE = 128
_STRONG = "Strong"


def load_pymilvus() -> Any:
    """Imports pymilvus.

    Raises:
        LibraryError: it is not installed; the message names the extra.
    """
    try:
        import pymilvus  # type: ignore[import-untyped]
    except ImportError as error:
        raise LibraryError(f"{error}; install it with: pip install 'unprompt[milvus]'") from None
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs each error that it raises, with its traceback
    return pymilvus


class MilvusWriter(Database):
    """What of a `Store` writes. It connects when first used.

    Args:
        address: of the database, and the library's name there.
    """

    stages_whole: ClassVar[bool] = True

    def __init__(self, address: Address) -> None:
        driver = load_pymilvus()
        super().__init__(address, driver, driver.MilvusException)
        self._address = address
        self._loaded: set[str] = set()
        self._known: Mapping[str, Any] | None = None

    @staticmethod
    def said(error: Exception) -> str:
        """See `Database.said`."""
        return " ".join(str(getattr(error, "message", "") or error).split())[:300]

    @cached_property
    def _client(self) -> Any:
        address = self._address
        if not address.local:
            return self.driver.MilvusClient(address.target, token=address.token, timeout=30)
        folder = Path(address.target).absolute().parent
        if not folder.is_dir():
            raise LibraryError(f"{self.shown}: there is no folder {folder}; make it first")
        if find_spec("milvus_lite") is None:
            raise LibraryError(f"{self.shown} needs Milvus Lite; install it with: pip install 'unprompt[milvus-lite]'")
        logging.getLogger("grpc._server").setLevel(logging.CRITICAL)  # it lacks calls that clients can do without
        return self.driver.MilvusClient(str(Path(address.target).absolute()))

    @one_line
    def prepare(self, dim: int, index: str, rows: Mapping[str, int]) -> None:
        """See `Store.prepare`."""
        for table, expected in rows.items():
            name = self._name(table)
            width = 2 if table == FILES else dim
            if not self._client.has_collection(name):
                schema = collection_schema(self.driver, table, width)
                parameters = index_parameters(self.driver, table, index, expected)
                self._client.create_collection(
                    name, schema=schema, index_params=parameters, consistency_level="Bounded"
                )
            fields = self._client.describe_collection(name)["fields"]
            found = next(int(field["params"]["dim"]) for field in fields if field["name"] == "embedding")
            if found != width:
                raise LibraryError(f"{self.shown} has embeddings of {found} dimensions, not {dim}; use --replace")
            self._client.load_collection(name)

    @one_line
    def count(self, table: str, block: str | None = None) -> int:
        """See `Store.count`."""
        return self._count(table, "" if block is None else f"block == {members([block])[1:-1]}")

    @one_line
    def upsert(self, table: str, rows: Sequence[Row]) -> None:
        """See `Store.upsert`."""
        columns = TABLES[table]
        data = []
        for row in rows:
            check_sizes(row, columns)
            vector = np.zeros(2, dtype=np.float32) if table == FILES else row["embedding"]
            data.append({**row, "embedding": vector})
        self._client.upsert(self._name(table), data)

    @one_line
    def keep(self, table: str, blocks: Collection[str]) -> None:
        """See `Store.keep`."""
        name, listed = self._name(table), members(sorted(blocks))
        if self._count(table, f"block not in {listed}"):
            self._client.delete(name, filter=f"block not in {listed}")

    def staging(self: Writer) -> Writer:
        """See `Store.staging`: the collections of the next generation."""
        served, _ = self._generations, self._client  # which is shared
        staged = copy(self)
        staged._known = {_GENERATIONS: {table: served.get(table, 0) + 1 for table in (PICTURES, PROMPTS)}}
        staged._loaded = set()
        return staged

    @one_line
    def publish(
        self, index: str, facts: Mapping[str, Any], blocks: Mapping[str, Collection[str]], staged: Collection[str]
    ) -> None:
        """See `Store.publish`. Everything else is ready when the facts are written, which is what takes effect."""
        staging = self.staging()
        for table in (PICTURES, PROMPTS):
            if table not in staged:
                self.keep(table, blocks[table])
            (staging if table in staged else self)._make_searchable(table, index)
        generations = {**self._generations, **{table: staging._generations[table] for table in staged}}
        self.upsert(FILES, [facts_row(json.dumps({**facts, _GENERATIONS: generations}, sort_keys=True))])
        self._forget()
        self._make_searchable(FILES, index)
        self.keep(FILES, blocks[FILES])
        self._drop_all(but={self._name(table) for table in TABLES})

    def _make_searchable(self, table: str, index: str) -> None:
        """Without flushing and loading, every search would go through all that is new."""
        name = self._name(table)
        self._client.flush(name)
        wanted = "FLAT" if table == FILES else INDEXES[index]
        if self._client.describe_index(name, "embedding")["index_type"] != wanted:
            self._client.release_collection(name)
            self._client.drop_index(name, "embedding")
            self._client.create_index(name, index_parameters(self.driver, table, index, self._rows(name)))
        self._client.load_collection(name)

    @one_line
    def read_file(self, block: str) -> list[str]:
        """See `Store.read_file`."""
        name = self._name(FILES)
        if not self._client.has_collection(name):
            return []
        self._client.load_collection(name)
        parts: list[str] = []
        while True:  # a message has a limit
            span = f"row >= {len(parts)} and row < {len(parts) + _PARTS_AT_ONCE}"
            expression = f"block == {members([block])[1:-1]} and {span}"
            found = self._client.query(name, expression, output_fields=["row", "data"], consistency_level=_STRONG)
            parts += [row["data"] for row in sorted(found, key=lambda row: row["row"])]
            if len(found) < _PARTS_AT_ONCE:
                return parts

    @one_line
    def drop(self) -> None:
        """See `Store.drop`."""
        self._drop_all(but=set())
        self._forget()

    def close(self) -> None:
        """Closes the connection."""
        if "_client" in vars(self):
            self._client.close()
            self._forget()
            del self._client

    def _drop_all(self, but: Collection[str]) -> None:
        """Drops the collections of this library, of whatever generation."""
        own = re.compile(rf"{self._address.name}_({'|'.join(TABLES)})(_g[0-9]+)?")
        for name in sorted(self._client.list_collections()):
            if own.fullmatch(name) and name not in but:
                self._client.drop_collection(name)

    def _count(self, table: str, expression: str) -> int:
        found = self._client.query(self._name(table), expression, output_fields=["count(*)"], consistency_level=_STRONG)
        return int(found[0]["count(*)"])

    def _rows(self, name: str) -> int:
        return int(self._client.get_collection_stats(name)["row_count"])

    def _name(self, table: str) -> str:
        generation = 0 if table == FILES else self._generations.get(table, 0)
        return f"{self._address.name}_{table}" + (f"_g{generation}" if generation else "")

    @property
    def _generations(self) -> Generations:
        """Those that are served."""
        found = self._facts.get(_GENERATIONS)
        return {str(table): int(number) for table, number in found.items()} if isinstance(found, dict) else {}

    @property
    def _facts(self) -> Mapping[str, Any]:
        """What is served, read when first needed; nothing where it is damaged, as its reader then tells."""
        known = self._known  # another thread may forget it
        if known is None:
            parts = self.read_file(FACTS)
            try:
                known = dict(json.loads(parts[0])) if parts else {}
            except (TypeError, ValueError):
                known = {}
            self._known = known
        return known

    def _forget(self) -> None:
        """Lets everything be looked up again."""
        self._known = None
        self._loaded.clear()
