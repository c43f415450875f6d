"""The vocabulary: prompt fragments by kind, with their embeddings, ranked exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unprompt.errors import LibraryError, QueryError
from unprompt.index.files import write_durably
from unprompt.index.shards import read_array, read_table
from unprompt.types import Embeddings, Fragment

VOCABULARY = "vocabulary"
FRAGMENTS_FILE = f"{VOCABULARY}/fragments.parquet"
EMBEDDINGS_FILE = f"{VOCABULARY}/embeddings.npy"

SCHEMA = pa.schema([("text", pa.string()), ("kind", pa.string()), ("source", pa.string()), ("count", pa.int64())])


class Vocabulary:
    """All fragments, grouped by kind, and their embeddings, row for row.

    One product of the queries with the resident matrix ranks everything exactly; the rows of a kind lie together, so a
    kind's top k is a partition of one slice. That is as fast as FAISS's exact index and needs no second copy on disk.
    """

    def __init__(self, table: pa.Table, embeddings: NDArray[np.floating]) -> None:
        if len(embeddings) != table.num_rows:
            raise LibraryError(f"the vocabulary has {table.num_rows} fragments and {len(embeddings)} embeddings")
        self._table = table
        self._stored = embeddings
        self._matrix: Embeddings | None = None
        self._ranges = _kind_ranges(table.column("kind").to_pylist())

    @classmethod
    def empty(cls, dim: int) -> Vocabulary:
        return cls(SCHEMA.empty_table(), np.zeros((0, dim), dtype=np.float32))

    @classmethod
    def of(cls, fragments: Sequence[Fragment], embeddings: NDArray[np.floating]) -> Vocabulary:
        """Makes a vocabulary; kinds are brought together in the order in which they first appear."""
        first = {kind: i for i, kind in reversed(list(enumerate(fragment.kind for fragment in fragments)))}
        order = sorted(range(len(fragments)), key=lambda i: first[fragments[i].kind])
        rows = [fragments[i] for i in order]
        columns = [[getattr(row, name) for row in rows] for name in SCHEMA.names]
        return cls(pa.table(columns, schema=SCHEMA), embeddings[order])

    @classmethod
    def read(cls, fragments: Path, embeddings: Path, dim: int) -> Vocabulary:
        """Reads both files.

        Raises:
            LibraryError: one is missing, unreadable, or they disagree.
        """
        table = read_table(fragments)
        if table.schema.names != SCHEMA.names:
            raise LibraryError(f"{fragments} has columns {table.schema.names}, expected {SCHEMA.names}")
        return cls(table, read_array(embeddings, dim))

    def write(self, fragments: Path, embeddings: Path) -> None:
        """Writes both files durably."""
        write_durably(embeddings, lambda file: np.save(file, self._stored, allow_pickle=False))
        write_durably(fragments, lambda file: pq.write_table(self._table, file, compression="zstd"))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self._ranges)

    @property
    def embeddings(self) -> NDArray[np.floating]:
        """(N, D), in the order of `fragments`, as stored."""
        return self._stored

    def fragments(self, kind: str | None = None) -> list[Fragment]:
        """All fragments, or those of one kind, in stored order."""
        start, stop = self._ranges.get(kind, (0, 0)) if kind is not None else (0, len(self))
        return [Fragment(**row) for row in self._table.slice(start, stop - start).to_pylist()]

    def counts(self) -> dict[str, int]:
        """How many fragments each kind has."""
        return {kind: stop - start for kind, (start, stop) in self._ranges.items()}

    def check_kinds(self, kinds: Sequence[str]) -> None:
        """Raises QueryError when a kind is not in the vocabulary."""
        unknown = [kind for kind in kinds if kind not in self._ranges]
        if unknown:
            known = ", ".join(self.kinds) or "none: the vocabulary is empty"
            raise QueryError(f"no fragments of kind {unknown[0]!r} in this library; known kinds: {known}")

    def top(
        self, queries: Embeddings, k: int, kinds: Sequence[str] | None = None
    ) -> list[dict[str, list[tuple[Fragment, float]]]]:
        """Ranks fragments for each query, exactly.

        Args:
            queries: (Q, D) float32, L2-normalised.
            k: how many of each kind, at least 1.
            kinds: which kinds, in the order wanted; None for all.

        Returns:
            For each query, kind -> (fragment, cosine), best first; equal scores in stored order.

        Raises:
            QueryError: a kind is not in the vocabulary.
        """
        self.check_kinds(kinds or ())
        results: list[dict[str, list[tuple[Fragment, float]]]] = [{} for _ in queries]
        for kind in self.kinds if kinds is None else kinds:
            start, stop = self._ranges[kind]
            scores = queries @ self._rows()[start:stop].T  # (Q, n)
            for result, row in zip(results, scores, strict=True):
                best = _top_rows(row, k)
                result[kind] = [(self._fragment(start + int(i)), float(row[i])) for i in best]
        return results

    def _fragment(self, row: int) -> Fragment:
        return Fragment(**{name: self._table.column(name)[row].as_py() for name in SCHEMA.names})

    def _rows(self) -> Embeddings:
        if self._matrix is None:
            self._matrix = np.ascontiguousarray(self._stored, dtype=np.float32)
        return self._matrix


def _top_rows(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """The k best positions, best first, equal scores by position."""
    if k < len(scores):
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= threshold)
    else:
        candidates = np.arange(len(scores))
    return candidates[np.lexsort((candidates, -scores[candidates]))][:k]


def _kind_ranges(kinds: Sequence[str]) -> dict[str, tuple[int, int]]:
    ranges: dict[str, tuple[int, int]] = {}
    for row, kind in enumerate(kinds):
        start, stop = ranges.get(kind, (row, row))
        if stop != row:
            raise LibraryError(f"the vocabulary's {kind!r} fragments do not lie together; add them again")
        ranges[kind] = (start, row + 1)
    return ranges
