"""What a search backend is, and what a store of pushed libraries must do."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from unprompt.index.manifest import Manifest
from unprompt.index.vocabulary import Vocabulary
from unprompt.index.where import Where
from unprompt.types import Embeddings, Record

Row = dict[str, Any]
"""A row of a table of `unprompt.backends.tables`, by column."""


class SearchBackend(Protocol):
    """A library that can be searched, wherever it is. Scores are cosines; equal ones are ordered by row."""

    @property
    def path(self) -> Path | str:
        """What messages call it."""
        ...

    @property
    def manifest(self) -> Manifest:
        """Its encoder and counts; where nothing is on this machine it lists no shards and indexes."""
        ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    def __len__(self) -> int:
        """How many pictures it has."""
        ...

    def pictures(self, queries: Embeddings, k: int, where: Where | None = None) -> list[list[tuple[Record, float]]]:
        """Finds for each of (Q, D) queries the up to k nearest pictures, of those that match `where`, nearest first."""
        ...

    def prompts(self, queries: Embeddings, k: int, where: Where | None = None) -> list[list[tuple[str, float]]]:
        """Finds for each query the up to k nearest distinct prompts; with `where` those of pictures that match."""
        ...


class Store(Protocol):
    """A database that holds one pushed library in the tables of `unprompt.backends.tables`.

    Every method raises LibraryError, in one line, when the database cannot be reached or refuses.
    """

    shown: str

    def prepare(self, dim: int, index: str, rows: Mapping[str, int]) -> None:
        """Creates the tables that are missing, for embeddings of `dim` dimensions and about so many rows of each.

        Raises:
            LibraryError: they exist for another dimension.
        """
        ...

    def count(self, table: str, block: str | None = None) -> int:
        """How many rows a table, or one block of it, has now, what was just written included."""
        ...

    def upsert(self, table: str, rows: Sequence[Row]) -> None:
        """Writes rows, in place of those with the same keys."""
        ...

    def keep(self, table: str, blocks: Collection[str]) -> None:
        """Deletes all rows of other blocks."""
        ...

    def finish(self, table: str, index: str) -> None:
        """Makes what was written durable and its embeddings searchable by `index`: "flat", "hnsw" or "ivf"."""
        ...

    def read_file(self, block: str) -> list[str]:
        """The parts of a block of the table of files, in order; none when it, or all, is missing."""
        ...

    def search(
        self, table: str, queries: Embeddings, k: int, where: Where | None, index: str
    ) -> list[list[tuple[Row, float]]]:
        """The k best rows of "pictures" or "prompts" for each query, with their columns but the embedding."""
        ...

    def drop(self) -> None:
        """Deletes the pushed library."""
        ...

    def close(self) -> None: ...
