"""Searching a library that was pushed to Milvus; the same code serves a cluster and a file of Milvus Lite."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from unprompt.backends.addresses import Address
from unprompt.backends.database import one_line
from unprompt.backends.milvus_tables import METRIC
from unprompt.backends.milvus_where import check_lite, members, to_expression
from unprompt.backends.milvus_writing import MilvusWriter
from unprompt.backends.protocol import Row
from unprompt.backends.tables import ANSWER, PICTURES, PROMPTS, lists_of, probes_of
from unprompt.errors import QueryError
from unprompt.index.where import Where
from unprompt.types import Embeddings

Result = TypeVar("Result")
Hits = list[tuple[Row, float]]
Vector = NDArray[np.float32]

MAX_RESULTS = 16_384
"""Results that Milvus gives for a query."""

_LEAST_EF, _MOST_EF = 100, 32_768
_QUERIES_AT_ONCE = 64
_LISTED_IDS = 5000
_VECTORS_AT_ONCE = 500


class MilvusStore(MilvusWriter):
    """A `Store` in collections NAME_pictures, NAME_prompts and NAME_files, the first two with their generation."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._matching = functools.lru_cache(maxsize=32)(self._count)  # how hard to look; may be out of date

    @one_line
    def of_one_push(self, read: Callable[[], Result]) -> Result:
        """See `Store.of_one_push`. Should another push have taken the place of what was read, it is read again."""
        before = self._generations
        try:
            found = read()
        except self.driver.MilvusException:  # its collections are gone
            self._forget()
            if self._generations == before:
                raise
        else:
            if self._generations == before:
                return found
        return read()

    @one_line
    def search(self, table: str, queries: Embeddings, k: int, where: Where | None, index: str) -> list[Hits]:
        """See `Store.search`."""
        return self.of_one_push(lambda: self._search(table, queries, k, where, self._facts.get("index", index)))

    @one_line
    def vectors(self, table: str, ids: Collection[str]) -> dict[str, Vector]:
        """See `Store.vectors`."""
        return self.of_one_push(lambda: self._vectors(table, sorted(ids)))

    def _forget(self) -> None:
        super()._forget()
        self._matching.cache_clear()

    def _vectors(self, table: str, ids: list[str]) -> dict[str, Vector]:
        self._load(table)
        found: dict[str, Vector] = {}
        for part in _parts(ids, _VECTORS_AT_ONCE):
            rows = self._client.query(self._name(table), f"id in {members(part)}", output_fields=["id", "embedding"])
            found |= {row["id"]: np.asarray(row["embedding"], dtype=np.float32) for row in rows}
        return found

    def _search(self, table: str, queries: Embeddings, k: int, where: Where | None, index: str) -> list[Hits]:
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
                parts = _parts(ids, _LISTED_IDS)
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
        for part in _parts(sorted(self._prompt_ids(expression)), _LISTED_IDS):
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


def _parts(ids: list[str], size: int) -> list[list[str]]:
    """Lists short enough for an expression, or its answer."""
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _sorted_hits(hits: Hits) -> Hits:
    """Best first, equal ones by row; rounding may leave a cosine a little above 1."""
    return sorted(((row, min(1.0, max(-1.0, score))) for row, score in hits), key=lambda hit: (-hit[1], hit[0]["row"]))
