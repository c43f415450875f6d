"""Searching a library that was pushed to PostgreSQL with pgvector."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from unprompt.backends.addresses import Address
from unprompt.backends.database import one_line
from unprompt.backends.postgres_where import to_sql
from unprompt.backends.postgres_writing import PostgresWriter
from unprompt.backends.protocol import Row
from unprompt.backends.tables import ANSWER, PICTURES, probes_of
from unprompt.index.where import Where
from unprompt.types import Embeddings

Result = TypeVar("Result")

EXACT_ROWS = 20_000
"""Among this many matching rows or fewer, all are compared: an approximate index would not meet enough of them."""

_LEAST_EF, _MOST_EF = 100, 1000


class PostgresStore(PostgresWriter):
    """A `Store` in a schema of a database."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._rows = functools.lru_cache(maxsize=32)(self._count_rows)  # how hard to look; may be out of date

    @one_line
    def of_one_push(self, read: Callable[[], Result]) -> Result:
        """See `Store.of_one_push`."""
        with self._snapshot():
            return read()

    @one_line
    def search(
        self, table: str, queries: Embeddings, k: int, where: Where | None, index: str
    ) -> list[list[tuple[Row, float]]]:
        """See `Store.search`."""
        condition, values = self._condition(table, where)
        total, matching = self._rows(table, None), self._rows(table, where)
        # An index gives its candidates first and the condition is then applied to them: enough must be asked for.
        candidates = k if where is None else math.ceil(2 * k * total / max(1, matching))
        exact = index == "flat" or candidates > _MOST_EF or (where is not None and matching <= EXACT_ROWS)
        names = ", ".join(f'"{name}"' for name in ANSWER[table])
        # Adding 0 to a distance keeps the planner from an index over it.
        every = f"select {names}, (embedding <#> %s) + 0 as d from {self._table(table)} where {condition} "
        every += f'order by d, "row" limit {k}'
        first = f"select *, embedding <#> %s as d from {self._table(table)} order by d limit {candidates}"
        nearest = f"select {names}, d from ({first}) as first where {condition} order by d limit {k}"
        found = []
        with self._snapshot() as execute:
            if not exact:
                self._set_search(execute, candidates, total)
            for query in queries:
                rows = [] if exact else execute(nearest, [self._vector(query), *values]).fetchall()
                if len(rows) < min(k, matching) or exact:
                    rows = execute(every, [self._vector(query), *values]).fetchall()
                found.append(_hits(rows, ANSWER[table]))
        return found

    @one_line
    def vectors(self, table: str, ids: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """See `Store.vectors`."""
        query = f"select id, embedding::real[] from {self._table(table)} where id = any(%s)"
        return {key: np.asarray(vector, dtype=np.float32) for key, vector in self._all(query, [sorted(ids)])}

    def _count_rows(self, table: str, where: Where | None) -> int:
        condition, values = self._condition(table, where)
        return int(self._all(f"select count(*) from {self._table(table)} where {condition}", values)[0][0])

    def _condition(self, table: str, where: Where | None) -> tuple[str, list[Any]]:
        if where is None:
            return "true", []
        condition, values = to_sql(where.condition)
        if table == PICTURES:
            return condition, values
        return f"id in (select prompt_id from {self._table(PICTURES)} where {condition})", values

    def _set_search(self, execute: Callable[..., Any], candidates: int, total: int) -> None:
        """How much of an index this transaction looks through, of either kind: a push may have changed it since."""
        options = {
            "hnsw.ef_search": min(_MOST_EF, max(_LEAST_EF, 2 * candidates)),
            "ivfflat.probes": probes_of(total),
        }
        execute("select " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in options.items()))

    def _vector(self, query: Any) -> Any:
        from pgvector import Vector

        return Vector(query)


def _hits(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> list[tuple[Row, float]]:
    """Rows with their cosines, which rounding may leave a little above 1, best first, equal ones by row."""
    hits = [(dict(zip(names, row[:-1], strict=True)), min(1.0, max(-1.0, -float(row[-1])))) for row in rows]
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]["row"]))
