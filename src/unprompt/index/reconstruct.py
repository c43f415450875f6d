"""Reading single vectors back out of a FAISS index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.index.engine import load_faiss
from unprompt.types import Embeddings

_OFFSET_BITS = 32


class RowReader:
    """Reads vectors by row from an index that holds them in half precision or better.

    Args:
        index: a flat FAISS index, or one of inverted lists, for which the first reading makes a table of where each row
            lies: 8 bytes a row.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self._places: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, index: Any) -> RowReader | None:
        """The reader of any index of FAISS's, None where its codes are coarser or it is of another kind."""
        faiss = load_faiss()
        if isinstance(index, faiss.IndexRefine):
            return cls.of(faiss.downcast_index(index.refine_index))
        if isinstance(index, faiss.IndexHNSW):
            return cls.of(faiss.downcast_index(index.storage))
        if isinstance(index, (faiss.IndexScalarQuantizer, faiss.IndexIVFScalarQuantizer)):
            return cls(index) if index.sq.qtype == faiss.ScalarQuantizer.QT_fp16 else None
        return cls(index) if isinstance(index, (faiss.IndexFlat, faiss.IndexIVFFlat)) else None

    def read(self, rows: NDArray[np.int64]) -> Embeddings:
        """The vectors of N rows, (N, dim)."""
        vectors = np.empty((len(rows), self._index.d), dtype=np.float32)
        if not isinstance(self._index, load_faiss().IndexIVF):
            for vector, row in zip(vectors, rows.tolist(), strict=True):
                self._index.reconstruct(row, vector)
            return vectors
        if self._places is None:
            self._places = _places(self._index)
        for vector, place in zip(vectors, self._places[rows].tolist(), strict=True):
            offset = place & ((1 << _OFFSET_BITS) - 1)
            self._index.reconstruct_from_offset(place >> _OFFSET_BITS, offset, load_faiss().swig_ptr(vector))
        return vectors


def _places(index: Any) -> NDArray[np.int64]:
    """(rows,) the list and the offset in it of every row, in one number. FAISS's own such table changes the index."""
    faiss = load_faiss()
    lists = faiss.downcast_InvertedLists(index.invlists)
    places = np.zeros(index.ntotal, dtype=np.int64)
    for number in range(lists.nlist):
        if size := lists.list_size(number):
            ids = lists.get_ids(number)
            places[faiss.rev_swig_ptr(ids, size)] = (number << _OFFSET_BITS) + np.arange(size)
            lists.release_ids(number, ids)
    return places
