"""PostgreSQL with pgvector: a pushed library is a schema with three tables, written and replaced here.

What changes is written into tables of a second schema first, and moved in one transaction.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from unprompt.backends.addresses import Address
from unprompt.backends.database import Database, one_line
from unprompt.backends.protocol import Row
from unprompt.backends.tables import (
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
    facts_row,
    lists_of,
)
from unprompt.errors import LibraryError

if TYPE_CHECKING:
    import psycopg

Writer = TypeVar("Writer", bound="PostgresWriter")

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
_STAGED = "+staged"  # no library can be called so


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


class PostgresWriter(Database):
    """What of a `Store` writes. It connects when first used, and again when the connection was lost.

    Args:
        address: of the database, and the library's name there.
    """

    stages_whole: ClassVar[bool] = False

    def __init__(self, address: Address) -> None:
        driver = load_psycopg()
        super().__init__(address, driver, driver.Error)
        self._target, self._schema = address.target, address.name
        self._connected: psycopg.Connection[Any] | None = None
        self._turn = threading.RLock()  # transactions of several threads must not nest in one connection

    @staticmethod
    def said(error: Exception) -> str:
        """See `Database.said`."""
        return (str(error).strip() or type(error).__name__).splitlines()[0]

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
            for table in rows:
                columns = TABLES[table]
                listed = ", ".join(f'"{name}" {types[kind]}' for name, kind in columns.items())
                execute(f"create table if not exists {self._table(table)} ({listed})")
                execute(f"create index if not exists {table}_block on {self._table(table)} (block)")
            if dim <= _INLINE_DIM:  # beside the row, not in a table of large values that each comparison would look up
                for table in {PICTURES, PROMPTS}.intersection(rows):
                    execute(f"alter table {self._table(table)} alter column embedding set storage plain")
            if PICTURES in rows:
                execute(f"create index if not exists pictures_prompt_id on {self._table(PICTURES)} (prompt_id)")
        self._register_vector()
        found = self._all(
            "select atttypmod from pg_attribute where attrelid = to_regclass(%s) and attname = 'embedding'",
            [self._table(PICTURES if PICTURES in rows else PROMPTS)],
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
        columns, (names, changes) = TABLES[table], _columns(table)
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

    def staging(self: Writer) -> Writer:
        """See `Store.staging`: a schema beside this one."""
        self._connection()  # which is shared
        staged = copy(self)
        staged._schema = self._schema + _STAGED
        return staged

    @one_line
    def publish(
        self, index: str, facts: Mapping[str, Any], blocks: Mapping[str, Collection[str]], staged: Collection[str]
    ) -> None:
        """See `Store.publish`. An index is built once all rows are there, which takes a fraction of the time."""
        staging = self.staging()
        with self._transaction() as execute:
            for table, kept in blocks.items():
                execute(f"delete from {self._table(table)} where block <> all(%s)", [sorted(kept)])
                if table in staged:
                    names, changes = _columns(table)
                    execute(
                        f"insert into {self._table(table)} ({names}) select {names} from {staging._table(table)} "
                        f"on conflict (id) do update set {changes}"
                    )
            self._write_facts(execute, facts)
            for table in (PICTURES, PROMPTS):
                self._exchange_index(execute, table, index)
            for table in blocks:
                execute(f"analyze {self._table(table)}")
            execute(f'drop schema if exists "{staging._schema}" cascade')

    def _write_facts(self, execute: Callable[..., Any], facts: Mapping[str, Any]) -> None:
        row, (names, changes) = facts_row(json.dumps(facts, sort_keys=True)), _columns(FILES)
        insert = f"insert into {self._table(FILES)} ({names}) values ({', '.join(['%s'] * len(row))})"
        execute(f"{insert} on conflict (id) do update set {changes}", [row[name] for name in TABLES[FILES]])

    def _exchange_index(self, execute: Callable[..., Any], table: str, index: str) -> None:
        if index != "flat":
            method = self._method(table, index)
            execute(f"create index if not exists {table}_embedding_{index} on {self._table(table)} using {method}")
        for other in sorted({"hnsw", "ivf"} - {index}):  # last, for searches wait for it
            execute(f'drop index if exists "{self._schema}".{table}_embedding_{other}')

    @one_line
    def read_file(self, block: str) -> list[str]:
        """See `Store.read_file`."""
        if self._all("select to_regclass(%s)", [self._table(FILES)])[0][0] is None:
            return []
        query = f'select data from {self._table(FILES)} where block = %s order by "row"'
        return [text for (text,) in self._all(query, [block])]

    @one_line
    def drop(self) -> None:
        """See `Store.drop`."""
        with self._transaction() as execute:
            for schema in (self._schema, self._schema + _STAGED):
                execute(f'drop schema if exists "{schema}" cascade')

    def close(self) -> None:
        """Closes the connection."""
        if self._connected is not None:
            self._connected.close()

    def _method(self, table: str, index: str) -> str:
        if index == "hnsw":
            return "hnsw (embedding vector_ip_ops) with (m = 16, ef_construction = 100)"
        return f"ivfflat (embedding vector_ip_ops) with (lists = {lists_of(self.count(table))})"

    def _table(self, table: str) -> str:
        return f'"{self._schema}".{table}'

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._turn:
            return self._connection().execute(query.encode(), values or None).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., Any]]:
        with self._turn, (connection := self._connection()).transaction():
            yield lambda query, values=None: connection.execute(query.encode(), values)

    @contextmanager
    def _snapshot(self) -> Iterator[Callable[..., Any]]:
        """A transaction that sees one push only; another inside it sees the same."""
        with self._turn:
            outermost = self._connection().info.transaction_status == self.driver.pq.TransactionStatus.IDLE
            with self._transaction() as execute:
                if outermost:
                    execute("set transaction isolation level repeatable read, read only")
                yield execute

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


def _columns(table: str) -> tuple[str, str]:
    """A table's columns, listed, and what replaces them where a row is there already."""
    columns = TABLES[table]
    changes = ", ".join(f'"{name}" = excluded."{name}"' for name in columns if name != "id")
    return ", ".join(f'"{name}"' for name in columns), changes


def _cell(value: Any, kind: str) -> Any:
    if kind == VECTOR:
        from pgvector import Vector

        return Vector(value)
    if kind == JSON:
        from psycopg.types.json import Jsonb

        return Jsonb(value)
    return value
