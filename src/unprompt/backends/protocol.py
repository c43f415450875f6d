"""What a search backend is, and what a store of pushed libraries must do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from unprompt.index.manifest import Manifest
from unprompt.index.vocabulary import Vocabulary
from unprompt.index.where import Where
from unprompt.types import Embeddings, Record

Result = TypeVar("Result")
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
    stages_whole: ClassVar[bool]
    """Whether a table that changes is staged whole; where not, what it lacks is."""

    def prepare(self, dim: int, index: str, rows: Mapping[str, int]) -> None:
        """Creates those tables that are missing, for embeddings of `dim` dimensions and about so many rows of each.

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

    def staging(self) -> Store:
        """The place beside the library that is served: "pictures" and "prompts" written there are found by no search.

        What an interrupted push left there is still there. It shares this store's connection, and is not closed.
        """
        ...

    def publish(
        self, index: str, facts: Mapping[str, Any], blocks: Mapping[str, Collection[str]], staged: Collection[str]
    ) -> None:
        """Makes what was written what is served, at once: a search finds the library before or after, never between.

        Args:
            index: what embeddings are searched by: "flat", "hnsw" or "ivf".
            facts: as JSON what `FACTS` holds then; a store may add what it needs itself.
            blocks: of each table those that it has then; rows of others are deleted.
            staged: the tables of which something was staged.
        """
        ...

    def read_file(self, block: str) -> list[str]:
        """The parts of a block of the table of files, in order; none when it, or all, is missing."""
        ...

    def of_one_push(self, read: Callable[[], Result]) -> Result:
        """What `read` returns, whose searches all find the same push; it may be called twice."""
        ...

    def search(
        self, table: str, queries: Embeddings, k: int, where: Where | None, index: str
    ) -> list[list[tuple[Row, float]]]:
        """The k best rows of "pictures" or "prompts" for each query, with their columns but the embedding."""
        ...

    def vectors(self, table: str, ids: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """The embeddings, (D,), of those rows of "pictures" or "prompts" with these ids that there are, by id."""
        ...

    def drop(self) -> None:
        """Deletes the pushed library."""
        ...

    def close(self) -> None: ...
