"""PostgreSQL with pgvector: a pushed library is a schema with three tables."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from unprompt.backends.addresses import Address
from unprompt.backends.postgres_where import to_sql
from unprompt.backends.protocol import Row
from unprompt.backends.tables import (
    ANSWER,
    FILES,
    INTEGER,
    JSON,
    KEY,
    NUMBER,
    PICTURES,
    PROMPTS,
    TABLES,
    TEXT,
    VECTOR,
    lists_of,
    probes_of,
)
from unprompt.errors import LibraryError
from unprompt.index.where import Where
from unprompt.types import Embeddings

if TYPE_CHECKING:
    import psycopg

Result = TypeVar("Result")

EXACT_ROWS = 20_000
"""Among this many matching rows or fewer, all are compared: an approximate index would not meet enough of them."""

MAX_INDEXED_DIM = 2000
"""pgvector indexes no longer vectors."""

_TYPES = {
    KEY: 'text collate "C" primary key',
    INTEGER: "bigint not null",
    TEXT: 'text collate "C"',
    NUMBER: "double precision",
    JSON: "jsonb not null",
}
_BINARY = {KEY: "text", INTEGER: "int8", TEXT: "text", NUMBER: "float8", JSON: "jsonb", VECTOR: "vector"}
_INLINE_DIM = 1500  # a row must fit into a page of 8 KiB
_LEAST_EF, _MOST_EF = 100, 1000


def load_psycopg() -> Any:
    """Imports psycopg, and pgvector with it.

    Raises:
        LibraryError: one is not installed; the message names the extra.
    """
    try:
        import pgvector.psycopg
        import psycopg

        assert pgvector.psycopg
    except ImportError as error:
        raise LibraryError(f"{error}; install it with: pip install 'unprompt[pgvector]'") from None
    return psycopg


def one_line(method: Callable[..., Result]) -> Callable[..., Result]:
    """Turns what the server or the connection says into one line that names the database."""

    @functools.wraps(method)
    def call(self: PostgresStore, *arguments: Any, **options: Any) -> Result:
        try:
            return method(self, *arguments, **options)
        except self.driver.Error as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise LibraryError(f"{self.shown}: {first}") from None

    return call


class PostgresStore:
    """A `Store` in a schema of a database. It connects when first used, and again when the connection was lost."""

    def __init__(self, address: Address) -> None:
        self.shown = address.shown
        self.driver = load_psycopg()
        self._target, self._schema = address.target, address.name
        self._connected: psycopg.Connection[Any] | None = None
        self._turn = threading.RLock()  # transactions of several threads must not nest in one connection
        self._rows = functools.lru_cache(maxsize=32)(self._count_rows)  # how hard to look; may be out of date

    @one_line
    def prepare(self, dim: int, index: str, rows: Mapping[str, int]) -> None:
        """See `Store.prepare`."""
        if dim > MAX_INDEXED_DIM and index != "flat":
            raise LibraryError(f"pgvector has no index over {dim} dimensions; push with --index flat")
        with self._transaction() as execute:
            execute("select pg_advisory_xact_lock(hashtext('unprompt'))")
            execute("create extension if not exists vector")
            execute(f'create schema if not exists "{self._schema}"')
            types = {**_TYPES, VECTOR: f"vector({dim}) not null"}
            for table, columns in TABLES.items():
                listed = ", ".join(f'"{name}" {types[kind]}' for name, kind in columns.items())
                execute(f"create table if not exists {self._table(table)} ({listed})")
                execute(f"create index if not exists {table}_block on {self._table(table)} (block)")
            if dim <= _INLINE_DIM:  # beside the row, not in a table of large values that each comparison would look up
                for table in (PICTURES, PROMPTS):
                    execute(f"alter table {self._table(table)} alter column embedding set storage plain")
            execute(f"create index if not exists pictures_prompt_id on {self._table(PICTURES)} (prompt_id)")
        self._register_vector()
        found = self._all(
            "select atttypmod from pg_attribute where attrelid = to_regclass(%s) and attname = 'embedding'",
            [self._table(PICTURES)],
        )
        if found[0][0] != dim:
            raise LibraryError(f"{self.shown} has embeddings of {found[0][0]} dimensions, not {dim}; use --replace")

    @one_line
    def count(self, table: str, block: str | None = None) -> int:
        """See `Store.count`."""
        condition, values = ("true", []) if block is None else ("block = %s", [block])
        return int(self._all(f"select count(*) from {self._table(table)} where {condition}", values)[0][0])

    @one_line
    def upsert(self, table: str, rows: Sequence[Row]) -> None:
        """See `Store.upsert`."""
        columns = TABLES[table]
        names = ", ".join(f'"{name}"' for name in columns)
        changes = ", ".join(f'"{name}" = excluded."{name}"' for name in columns if name != "id")
        with self._transaction() as execute:
            execute(f"create temporary table pushed (like {self._table(table)}) on commit drop")
            binary = f"copy pushed ({names}) from stdin (format binary)"
            with self._connection().cursor().copy(binary.encode()) as copy:
                copy.set_types([_BINARY[kind] for kind in columns.values()])
                for row in rows:
                    copy.write_row([_cell(row[name], kind) for name, kind in columns.items()])
            execute(
                f"insert into {self._table(table)} ({names}) select {names} from pushed "
                f"on conflict (id) do update set {changes}"
            )

    @one_line
    def keep(self, table: str, blocks: Collection[str]) -> None:
        """See `Store.keep`."""
        with self._transaction() as execute:
            execute(f"delete from {self._table(table)} where block <> all(%s)", [sorted(blocks)])

    @one_line
    def finish(self, table: str, index: str) -> None:
        """See `Store.finish`. An index is built once all rows are there, which takes a fraction of the time."""
        with self._transaction() as execute:
            if table != FILES:
                for other in sorted({"hnsw", "ivf"} - {index}):
                    execute(f'drop index if exists "{self._schema}".{table}_embedding_{other}')
                if index != "flat":
                    method = self._method(table, index)
                    execute(
                        f"create index if not exists {table}_embedding_{index} on {self._table(table)} using {method}"
                    )
            execute(f"analyze {self._table(table)}")

    @one_line
    def read_file(self, block: str) -> list[str]:
        """See `Store.read_file`."""
        if self._all("select to_regclass(%s)", [self._table(FILES)])[0][0] is None:
            return []
        query = f'select data from {self._table(FILES)} where block = %s order by "row"'
        return [text for (text,) in self._all(query, [block])]

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
        with self._transaction() as execute:
            self._set_search(execute, index, candidates, total)
            for query in queries:
                rows = [] if exact else execute(nearest, [self._vector(query), *values]).fetchall()
                if len(rows) < min(k, matching) or exact:
                    rows = execute(every, [self._vector(query), *values]).fetchall()
                found.append(_hits(rows, ANSWER[table]))
        return found

    @one_line
    def drop(self) -> None:
        """See `Store.drop`."""
        with self._transaction() as execute:
            execute(f'drop schema if exists "{self._schema}" cascade')

    def close(self) -> None:
        """Closes the connection."""
        if self._connected is not None:
            self._connected.close()

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

    def _method(self, table: str, index: str) -> str:
        if index == "hnsw":
            return "hnsw (embedding vector_ip_ops) with (m = 16, ef_construction = 100)"
        return f"ivfflat (embedding vector_ip_ops) with (lists = {lists_of(self.count(table))})"

    def _set_search(self, execute: Callable[..., Any], index: str, candidates: int, total: int) -> None:
        if index == "hnsw":
            execute(f"set local hnsw.ef_search = {min(_MOST_EF, max(_LEAST_EF, 2 * candidates))}")
        elif index == "ivf":
            execute(f"set local ivfflat.probes = {probes_of(total)}")

    def _vector(self, query: Any) -> Any:
        from pgvector import Vector

        return Vector(query)

    def _table(self, table: str) -> str:
        return f'"{self._schema}".{table}'

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._turn:
            return self._connection().execute(query.encode(), values or None).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., Any]]:
        with self._turn, (connection := self._connection()).transaction():
            yield lambda query, values=None: connection.execute(query.encode(), values)

    def _connection(self) -> psycopg.Connection[Any]:
        if self._connected is None or self._connected.closed:
            # Prepared statements would be planned once for all values, and so without the index.
            self._connected = self.driver.connect(self._target, autocommit=True, prepare_threshold=None)
            self._register_vector()
        return self._connected

    def _register_vector(self) -> None:
        """Teaches the connection pgvector's type, once the database has it."""
        if self._all("select to_regtype('vector')")[0][0] is not None:
            from pgvector.psycopg import register_vector

            register_vector(self._connection())


def _cell(value: Any, kind: str) -> Any:
    if kind == VECTOR:
        from pgvector import Vector

        return Vector(value)
    if kind == JSON:
        from psycopg.types.json import Jsonb

        return Jsonb(value)
    return value


def _hits(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> list[tuple[Row, float]]:
    """Rows with their cosines, which rounding may leave a little above 1, best first, equal ones by row."""
    hits = [(dict(zip(names, row[:-1], strict=True)), min(1.0, max(-1.0, -float(row[-1])))) for row in rows]
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]["row"]))
