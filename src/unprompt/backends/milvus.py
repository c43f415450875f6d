"""Milvus: a pushed library is three collections. The same code serves a cluster and a file of Milvus Lite."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from unprompt.backends.addresses import Address
from unprompt.backends.milvus_tables import INDEXES, METRIC, check_sizes, collection_schema, index_parameters
from unprompt.backends.milvus_where import check_lite, members, to_expression
from unprompt.backends.protocol import Row
from unprompt.backends.tables import ANSWER, FILES, PICTURES, PROMPTS, TABLES, lists_of, probes_of
from unprompt.errors import LibraryError, QueryError
from unprompt.index.where import Where
from unprompt.types import Embeddings

Result = TypeVar("Result")
Hits = list[tuple[Row, float]]

MAX_RESULTS = 16_384
"""Results that Milvus gives for a query."""

_LEAST_EF, _MOST_EF = 100, 32_768
_QUERIES_AT_ONCE = 64
_PARTS_AT_ONCE = 128
_LISTED_IDS = 5000
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


def one_line(method: Callable[..., Result]) -> Callable[..., Result]:
    """Turns what the server or the client says into one line that names the address."""

    @functools.wraps(method)
    def call(self: MilvusStore, *arguments: Any, **options: Any) -> Result:
        try:
            return method(self, *arguments, **options)
        except self.driver.MilvusException as error:
            raise LibraryError(f"{self.shown}: {' '.join(str(error.message or error).split())[:300]}") from None

    return call


class MilvusStore:
    """A `Store` in collections NAME_pictures, NAME_prompts and NAME_files. It connects when first used."""

    def __init__(self, address: Address) -> None:
        self.shown = address.shown
        self.driver = load_pymilvus()
        self._address = address
        self._loaded: set[str] = set()
        self._matching = functools.lru_cache(maxsize=32)(self._count)  # how hard to look; may be out of date

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
        for table in TABLES:
            name = self._name(table)
            width = 2 if table == FILES else dim
            if not self._client.has_collection(name):
                schema = collection_schema(self.driver, table, width)
                parameters = index_parameters(self.driver, table, index, rows.get(table, 0))
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

    @one_line
    def finish(self, table: str, index: str) -> None:
        """See `Store.finish`. Without flushing and loading, every search would go through all that is new."""
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
    def search(self, table: str, queries: Embeddings, k: int, where: Where | None, index: str) -> list[Hits]:
        """See `Store.search`."""
        if k > MAX_RESULTS:
            raise QueryError(f"Milvus gives at most {MAX_RESULTS} results, {k} were asked for; use a smaller k")
        expression = ""
        if where is not None:
            if self._address.local:
                check_lite(where.condition)
            expression = to_expression(where.condition)
        self._load(table)
        found: list[Hits] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            part = queries[start : start + _QUERIES_AT_ONCE]
            if where is None:
                found += self._nearest(table, part, k, expression, index)
            elif table == PICTURES:
                found += self._matching_pictures(part, k, expression, index)
            else:
                found += [self._matching_prompts(query, k, expression, index) for query in part]
        return found

    @one_line
    def drop(self) -> None:
        """See `Store.drop`."""
        for table in TABLES:
            if self._client.has_collection(self._name(table)):
                self._client.drop_collection(self._name(table))

    def close(self) -> None:
        """Closes the connection."""
        if "_client" in vars(self):
            self._client.close()
            self._loaded.clear()
            del self._client

    def _nearest(
        self, table: str, queries: Embeddings, k: int, expression: str, index: str, matching: int | None = None
    ) -> list[Hits]:
        name = self._name(table)
        total = self._rows(name)
        # A walk or a list meets matching rows by their share of all, so more is looked at where they are few.
        scale = 1.0 if matching is None else max(1.0, total / max(1, matching))
        parameters = {
            "flat": {},
            "hnsw": {"ef": round(min(_MOST_EF, max(_LEAST_EF, 2 * k) * scale))},
            "ivf": {"nprobe": round(min(lists_of(total), probes_of(total) * scale))},
        }[index]
        results = self._client.search(
            name,
            data=list(np.ascontiguousarray(queries, dtype=np.float32)),
            anns_field="embedding",
            limit=k,
            filter=expression,
            output_fields=list(ANSWER[table]),
            search_params={"metric_type": METRIC, "params": parameters},
        )
        return [_sorted_hits([(dict(hit["entity"]), float(hit["distance"])) for hit in hits]) for hits in results]

    def _matching_pictures(self, queries: Embeddings, k: int, expression: str, index: str) -> list[Hits]:
        """Milvus looks only at rows that match; should a graph's walk meet too few of them, all are compared."""
        found = self._nearest(PICTURES, queries, k, expression, index, self._matching(PICTURES, expression))
        short = [i for i, hits in enumerate(found) if len(hits) < k]
        matching = self._count(PICTURES, expression) if short else 0
        for i in short:
            if len(found[i]) < min(k, matching):
                found[i] = self._exact(queries[i], k, expression)
        return found

    def _exact(self, query: Any, k: int, expression: str) -> Hits:
        best: Hits = []
        names = [*ANSWER[PICTURES], "embedding"]
        for batch in self._iterate(PICTURES, expression, names, 2000):
            scores = np.array([row.pop("embedding") for row in batch], dtype=np.float32) @ query
            best = _sorted_hits([*best, *zip(batch, scores.tolist(), strict=True)])[:k]
        return best

    def _matching_prompts(self, query: Any, k: int, expression: str, index: str) -> Hits:
        """Milvus joins no collections: the nearest prompts are held against the pictures, or the other way round."""
        total = self._count(PROMPTS, "")
        if self._matching(PICTURES, expression) > _LISTED_IDS:
            asked = 4 * k
            while asked < 4 * min(total, MAX_RESULTS):
                hits = self._nearest(PROMPTS, query[None], min(asked, MAX_RESULTS), "", index)[0]
                ids = [row["id"] for row, _ in hits]
                parts = [ids[start : start + _LISTED_IDS] for start in range(0, len(ids), _LISTED_IDS)]
                held = {
                    each
                    for ids in parts
                    for each in self._prompt_ids(f"prompt_id in {members(ids)} and ({expression})")
                }
                found = [hit for hit in hits if hit[0]["id"] in held]
                if len(found) >= k or len(hits) == total:
                    return found[:k]
                asked *= 4
        hits = []
        for part in _parts(sorted(self._prompt_ids(expression))):
            hits += self._nearest(PROMPTS, query[None], k, f"id in {members(part)}", index, len(part))[0]
        return _sorted_hits(hits)[:k]

    def _prompt_ids(self, expression: str) -> set[str]:
        return {row["prompt_id"] for batch in self._iterate(PICTURES, expression, ["prompt_id"]) for row in batch}

    def _iterate(self, table: str, expression: str, names: list[str], size: int = 10_000) -> Iterator[list[Row]]:
        """All matching rows, from windows of row numbers, of which a library has no gaps."""
        name, total = self._name(table), self._count(table, "")
        for start in range(0, total, size):
            window = f"row >= {start} and row < {start + size} and ({expression})"
            yield [dict(row) for row in self._client.query(name, window, output_fields=names)]

    def _load(self, table: str) -> None:
        """Makes Milvus hold the collections of a search in memory; Milvus Lite forgets it when its process ends."""
        for each in {table, PICTURES} - self._loaded:
            self._client.load_collection(self._name(each))
            self._loaded.add(each)

    def _count(self, table: str, expression: str) -> int:
        found = self._client.query(self._name(table), expression, output_fields=["count(*)"], consistency_level=_STRONG)
        return int(found[0]["count(*)"])

    def _rows(self, name: str) -> int:
        return int(self._client.get_collection_stats(name)["row_count"])

    def _name(self, table: str) -> str:
        return f"{self._address.name}_{table}"


def _parts(ids: list[str]) -> list[list[str]]:
    """Lists short enough for an expression."""
    return [ids[start : start + _LISTED_IDS] for start in range(0, len(ids), _LISTED_IDS)]


def _sorted_hits(hits: Hits) -> Hits:
    """Best first, equal ones by row; rounding may leave a cosine a little above 1."""
    return sorted(((row, min(1.0, max(-1.0, score))) for row, score in hits), key=lambda hit: (-hit[1], hit[0]["row"]))
