"""Finding the inverted lists nearest to a query without reading every centroid in full.

A query by itself is compared with all centroids, 8 MiB of 4096 in 512 dimensions, which takes longer than scanning the
few lists that it then visits. Here 4-bit codes, scanned in registers (FastScan; André, Kermarrec and Le Scouarnec,
VLDB 2015), say which centroids may be the nearest, and the best of these are scored as FAISS itself would. Many
queries at once share the reading of the centroids, so they are left to FAISS.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.index.engine import load_faiss
from unprompt.types import Embeddings

FEW = 20
"""From so many queries on, FAISS multiplies matrices (its `distance_compute_blas_threshold`)."""

WARM = 32
"""Searches before the codes are made, which takes as long as they save in some hundreds: 80 ms of 4096 centroids."""

LISTS = 1024
"""The centroids of fewer lists stay in a core's cache, and codes would save nothing."""

VISITED = 8
"""Where a query visits more lists, scanning them takes most of the time, and the codes would save little."""

RESCORED = 256
"""Centroids that are scored exactly, an eighth of all where these are fewer; the best of them are visited.

Of the 5 nearest lists of 7177 pictures among 1024 lists of prompts and 2048 of fragments (`starter`), 71,770 in all, it
missed none; of 25,000 of clustered vectors among 4096, none; of as many of vectors that lie elsewhere than the 2048
centroids, 4.
"""


class CoarseSearch:
    """Searches inverted lists as FAISS does, but for how the lists are found.

    Where none is missed, answers are equal to the last bit. It changes nothing in the index, and threads may share it.

    Args:
        index: FAISS's `IndexIVF`, trained, from `suits`.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self._asked = 0
        self._lock = threading.Lock()
        self._codes: Any = None
        self._rescored: dict[int, Any] = {}

    @staticmethod
    def suits(index: Any) -> bool:
        """Whether an index has many lists, of rows that FAISS scores one by one."""
        faiss = load_faiss()
        return (
            isinstance(index, faiss.IndexIVFFlat | faiss.IndexIVFScalarQuantizer)
            and index.metric_type == faiss.METRIC_INNER_PRODUCT
            and index.nlist >= LISTS
            and index.d % 2 == 0
            and isinstance(faiss.downcast_index(index.quantizer), faiss.IndexFlat)
            and index.quantizer.ntotal == index.nlist
        )

    def takes(self, queries: int, parameters: Any) -> bool:
        """Whether a search for so many queries is answered sooner here; counts those that would be."""
        if not 0 < queries < FEW or not hasattr(parameters, "nprobe") or parameters.nprobe > VISITED:
            return False
        self._asked += 1
        return self._asked > WARM

    def search(self, queries: Embeddings, k: int, parameters: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores (Q, k) and rows (Q, k) of (Q, D) contiguous queries, as `faiss.Index.search` gives them."""
        faiss = load_faiss()
        pointer, nprobe = faiss.swig_ptr, parameters.nprobe
        if nprobe not in self._rescored:
            rescored = min(RESCORED, self._index.nlist // 8)
            self._rescored[nprobe] = faiss.IndexRefineSearchParameters(k_factor=rescored / nprobe)
        near, lists = self._finder.search(queries, nprobe, params=self._rescored[nprobe])
        scores = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        self._index.search_preassigned_c(
            len(queries), pointer(queries), k, pointer(lists), pointer(near), pointer(scores), pointer(rows),
            False, parameters,
        )  # fmt: skip
        return scores, rows

    @property
    def _finder(self) -> Any:
        """The centroids' codes, refined by the centroids themselves."""
        with self._lock:
            if self._codes is None:
                faiss = load_faiss()
                centroids = self._index.quantizer.reconstruct_n(0, self._index.nlist)
                codes = faiss.IndexPQFastScan(self._index.d, self._index.d // 2, 4, faiss.METRIC_INNER_PRODUCT)
                # What is rescored forgives rough codebooks: the default training takes twenty times as long.
                codes.pq.cp.niter, codes.pq.cp.max_points_per_centroid = 2, 40
                codes.train(centroids)
                codes.add(centroids)
                self._codes = faiss.IndexRefine(codes, self._index.quantizer)
            return self._codes
