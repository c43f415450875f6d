"""The vector index: FAISS behind a small interface with an explicit build and one return type."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import LibraryError
from unprompt.index import training
from unprompt.index.coarse import CoarseSearch
from unprompt.index.engine import load_faiss, reason_of
from unprompt.index.parameters import search_parameters
from unprompt.index.training import Accelerator, Blocks, Clusterer, inverted_lists
from unprompt.index.truth import ground_truth, recall
from unprompt.types import Embeddings

FLAT_LIMIT = 50_000


def list_count(rows: int) -> int:
    """How many inverted lists `rows` rows get: a power of two near 4 * sqrt(rows), the usual FAISS advice."""
    return int(2 ** round(math.log2(4 * math.sqrt(rows))))


def choose_factory(rows: int) -> str:
    """Returns the factory string for an index of `rows` rows: exact search while it is affordable.

    Below 50,000 rows exact search answers in about 7 ms on two cores. Above, inverted lists over half-precision vectors
    keep recall and halve the memory; above four million rows the codes are 8 bits. `unprompt.index.choice` chooses
    under limits of memory and latency.
    """
    if rows < FLAT_LIMIT:
        return "Flat"
    return f"IVF{list_count(rows)},{'SQfp16' if rows <= 4_000_000 else 'SQ8'}"


class VectorIndex:
    """A FAISS inner-product index whose ids are row numbers. Vectors must be L2-normalised; scores are cosines.

    Searching changes nothing in the index, and FAISS releases the GIL meanwhile: any number of threads may search at
    once. Adding is for one thread, and not while others search.

    Attributes:
        factory: its FAISS factory string.
        parameters: what searches use when they name none, such as "nprobe=64".
    """

    def __init__(self, index: Any, factory: str = "", parameters: str = "", mapped: bool = False) -> None:
        self._index = index
        self._mapped = mapped
        self.factory = factory
        self.parameters = parameters
        self._defaults = search_parameters(index, parameters)
        self._coarse = CoarseSearch(index) if CoarseSearch.suits(index) else None

    @property
    def dim(self) -> int:
        return int(self._index.d)

    @property
    def faiss_index(self) -> Any:
        """The FAISS index itself; to be read only."""
        return self._index

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @classmethod
    def build(
        cls, blocks: Blocks, rows: int, dim: int, factory: str = "auto", accelerator: Accelerator | None = None
    ) -> VectorIndex:
        """Builds an index of `rows` vectors of `dim` dimensions.

        Args:
            blocks: called to iterate the vectors as (N, dim) float32 blocks.
            rows: how many there are in all.
            dim: their dimension.
            factory: a FAISS factory string, or "auto" for `choose_factory`.
            accelerator: trains, and fills where it can; None for FAISS on this machine's cores.

        Raises:
            LibraryError: FAISS does not know the factory string, or cannot train it on so few rows.
        """
        factory = choose_factory(rows) if factory == "auto" else factory
        index, sample = new_index(blocks, rows, dim, factory)
        filled = None
        if accelerator is not None and sample is not None:
            filled = accelerator.build(index, sample, lambda: map(checked(dim), blocks()))
        if filled is not None:
            return cls(filled, factory, default_parameters(filled))
        train_index(index, sample, factory, accelerator)
        built = cls(index, factory, default_parameters(index))
        for block in blocks():
            built.add(block, accelerator)
        return built

    def with_parameters(self, parameters: str) -> VectorIndex:
        """The same index, not copied, with other search parameters.

        Raises:
            LibraryError: it has no such parameters.
        """
        return VectorIndex(self._index, self.factory, parameters, self._mapped)

    def add(self, embeddings: Embeddings, clusterer: Clusterer | None = None) -> None:
        """Appends (N, dim) vectors; their rows follow the ones there are.

        Raises:
            LibraryError: they are of another dimension or not L2-normalised, or the index is mapped from its file.
        """
        if self._mapped:  # FAISS would end the process
            raise LibraryError("an index that is mapped into memory cannot be added to: read it without mapping")
        training.add(self._index, checked(self.dim)(embeddings), clusterer)

    def refill(self, blocks: Blocks) -> None:
        """Replaces all vectors and keeps the training."""
        self._index.reset()
        for block in blocks():
            self.add(block)

    def search(
        self, queries: Embeddings, k: int, parameters: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Finds the k best rows of each query, best first.

        Args:
            queries: (Q, dim) float32, L2-normalised.
            k: at least 1; an index of fewer rows fills up with row -1.
            parameters: for this search only, such as "nprobe=64"; None for the index's own.

        Returns:
            scores (Q, k) float32, cosines; rows (Q, k) int64, -1 where there is none.

        Raises:
            LibraryError: the queries are of another dimension, or the index has no such parameters.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise LibraryError(f"queries are {queries.shape}, the index has {self.dim} dimensions")
        chosen = self._defaults if parameters is None else search_parameters(self._index, parameters)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if self._coarse is not None and self._coarse.takes(len(queries), chosen):
            return self._coarse.search(queries, k, chosen)
        scores, rows = self._index.search(queries, k, params=chosen)
        return scores, rows

    def write(self, path: Path) -> None:
        """Writes the index to `path` and flushes it to disk.

        Raises:
            OSError: the disk is full or not writable; `path` is then removed.
        """
        try:
            load_faiss().write_index(self._index, str(path))
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        except RuntimeError as error:
            path.unlink(missing_ok=True)
            raise OSError(f"cannot write {path}: {reason_of(error)}; is the disk full?") from None

    @classmethod
    def read(cls, path: Path, factory: str = "", parameters: str = "", mapped: bool = False) -> VectorIndex:
        """Reads an index.

        Args:
            path: its file.
            factory: see `VectorIndex`.
            parameters: see `VectorIndex`.
            mapped: opens it at once and leaves the vectors in the file, in memory that all processes share. The file
                may be replaced by renaming meanwhile, never written to. FastScan codes are read nevertheless.

        Raises:
            LibraryError: it is missing or not an index.
        """
        try:
            mapped = mapped and os.name == "posix"
            index = _read_mapped(path) if mapped else load_faiss().read_index(str(path))
            return cls(index, factory, parameters, mapped)
        except RuntimeError as error:
            raise LibraryError(
                f"{path} is not a readable index ({reason_of(error)}); restore it or build the library again"
            ) from None


def new_index(blocks: Blocks, rows: int, dim: int, factory: str) -> tuple[Any, Embeddings | None]:
    """An empty FAISS index, and the sample to train it on, None when it needs no training.

    Raises:
        LibraryError: FAISS does not know the factory string.
    """
    faiss = load_faiss()
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, AssertionError) as error:
        raise _unmakable(factory, rows, dim, error) from None
    return index, None if index.is_trained else training.training_sample(index, blocks, rows)


def train_index(index: Any, sample: Embeddings | None, factory: str, clusterer: Clusterer | None = None) -> None:
    """Trains an index on the sample that `new_index` gave, if it needs training.

    Raises:
        LibraryError: the sample is too small for it.
    """
    if sample is None:
        return
    try:
        training.train(index, sample, clusterer)
    except (RuntimeError, AssertionError) as error:
        raise _unmakable(factory, len(sample), sample.shape[1], error) from None


def default_parameters(index: Any) -> str:
    """A first guess; `unprompt.index.tune` searches for better ones."""
    lists = inverted_lists(index)
    # A sixteenth of the lists reached recall@10 of 0.95 and more on clustered vectors; never fewer than 16 lists.
    return f"nprobe={min(lists.nlist, max(16, lists.nlist // 16))}" if lists is not None else ""


def recall_against_exact(index: VectorIndex, blocks: Blocks, queries: Embeddings, k: int = 10) -> float:
    """Returns the share of the k best rows by exact search that `index` finds too, ties allowed, from 0 to 1."""
    return recall(index.search(queries, k)[1], ground_truth(blocks, queries), k)


def checked(dim: int) -> Callable[[Embeddings], Embeddings]:
    """Gives a function that returns vectors as FAISS takes them, and raises LibraryError for what no encoder made."""

    def check(embeddings: Embeddings) -> Embeddings:
        if embeddings.ndim != 2 or embeddings.shape[1] != dim:
            raise LibraryError(f"embeddings are {embeddings.shape}, the index has {dim} dimensions")
        norms = np.linalg.norm(embeddings, axis=1)
        # Half precision rounds a norm by up to 1e-3; anything further off was never normalised. NaN fails too.
        if not bool(np.all(np.abs(norms - 1) < 1e-2)):
            row = int(np.argmin(np.abs(norms - 1) < 1e-2))
            raise LibraryError(f"embedding {row} has norm {norms[row]:.4g}, expected 1; only an encoder's output fits")
        return np.ascontiguousarray(embeddings, dtype=np.float32)

    return check


def _read_mapped(path: Path) -> Any:
    faiss = load_faiss()
    try:  # flat codes and graphs are mapped by another way than inverted lists, which older releases lack
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | getattr(faiss, "IO_FLAG_MMAP_IFC", 0))
    except RuntimeError:  # the two ways exclude each other for inverted lists
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    lists = inverted_lists(index)
    stored: Any = faiss.downcast_InvertedLists(lists.invlists) if lists is not None else None
    if hasattr(stored, "prefetch_nthread"):
        stored.prefetch_nthread = 0  # its 32 threads a search cost more than they save: 4.0 ms against 1.5 ms
    return index


def _unmakable(factory: str, rows: int, dim: int, error: Exception) -> LibraryError:
    return LibraryError(
        f"index {factory!r} cannot be made of {rows} vectors of {dim} dimensions ({reason_of(error)}); "
        "use 'auto', 'Flat' or another FAISS factory string"
    )
