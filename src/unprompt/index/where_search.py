"""Searching among some rows of an index: exact where they are few, with FAISS's selectors where they are many."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from unprompt.index.commit import current
from unprompt.index.engine import load_faiss
from unprompt.index.hits import Hits, hits_of
from unprompt.index.library import PROMPTS_FILE
from unprompt.index.parameters import (
    EF_SEARCH,
    NPROBE,
    REFINE,
    format_parameters,
    knobs,
    parse_parameters,
    search_parameters,
)
from unprompt.index.shards import PICTURES, as_embeddings, read_table
from unprompt.index.vector_index import VectorIndex
from unprompt.index.where import Where
from unprompt.index.where_rows import Mask, matching_prompts, matching_rows
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.index.library import Library

EXACT_ROWS = 20_000
"""Among this many rows or fewer, exact search over the stored embeddings is faster than an index is accurate."""

_EXACT_BLOCK = 8192
_GRAPH_SHARE = 20


class Selection:
    """The rows of one index that may be found, and where the embeddings of each are stored.

    Args:
        library: whose index it is.
        index: the image index, or the prompt index.
        rows: (M,) ascending rows of the index.
        stored: (M,) the rows of the pictures whose embeddings theirs are.
        array: the array that holds them, "img_emb" or "text_emb".
    """

    def __init__(
        self, library: Library, index: VectorIndex, rows: NDArray[np.int64], stored: NDArray[np.int64], array: str
    ) -> None:
        self.rows = rows
        self._library, self._index, self._stored, self._array = library, index, stored, array

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def pictures(cls, library: Library, where: Where) -> Selection | None:
        """The pictures that match; None when the library has none at all."""
        if library.image_index is None:
            return None
        rows = np.flatnonzero(matching_rows(library, where))
        return cls(library, library.image_index, rows, rows, PICTURES.arrays[0])

    @classmethod
    def prompts(cls, library: Library, where: Where) -> Selection | None:
        """The prompts of the pictures that match: those that no such picture has are left out."""
        if library.prompt_index is None or library.image_index is None:
            return None
        mask = matching_rows(library, where)
        texts = matching_prompts(library, mask)
        known = read_table(_file(library, PROMPTS_FILE), ["prompt"]).column("prompt")
        at = pc.index_in(texts, value_set=known).to_numpy()
        rows, first = np.unique(at, return_index=True)
        return cls(library, library.prompt_index, rows, np.flatnonzero(mask)[first], PICTURES.text_array)

    def search(self, queries: Embeddings, k: int) -> Hits:
        """Finds for each of (Q, D) queries the up to k best of the selected rows."""
        if not len(self) or not len(queries):
            return [[] for _ in queries]
        k = min(k, len(self))
        flat = isinstance(self._index.faiss_index, load_faiss().IndexFlat)
        if len(self) <= EXACT_ROWS and not flat:
            return self.search_exact(queries, k)
        found = self._search_index(queries, k)
        # An approximate index may not see enough of the selected rows: those queries are answered exactly.
        short = [i for i, hits in enumerate(found) if len(hits) < k]
        for i, hits in zip(short, self.search_exact(queries[short], k) if short else [], strict=True):
            found[i] = hits
        return found

    def search_exact(self, queries: Embeddings, k: int) -> Hits:
        """As `search`, over the stored embeddings of all selected rows, block by block."""
        best = np.empty((len(queries), 0), dtype=np.float32)
        rows = np.empty((len(queries), 0), dtype=np.int64)
        order = np.argsort(self._stored)  # shards are read front to back
        for start in range(0, len(order), _EXACT_BLOCK):
            chosen = order[start : start + _EXACT_BLOCK]
            block = self._read(self._stored[chosen])  # (B, D)
            best = np.concatenate([best, queries @ block.T], axis=1)  # (Q, k + B)
            rows = np.concatenate([rows, np.broadcast_to(self.rows[chosen], (len(queries), len(chosen)))], axis=1)
            top = np.lexsort((rows, -best))[:, :k]
            best, rows = np.take_along_axis(best, top, 1), np.take_along_axis(rows, top, 1)
        return hits_of(best, rows)

    def _search_index(self, queries: Embeddings, k: int) -> Hits:
        faiss = load_faiss()
        mask, bits = self._mask
        index = self._index.faiss_index
        if not _has_selectors(faiss, index):
            return [[] for _ in queries]
        selector = faiss.IDSelectorBitmap(bits)
        parameters = _selecting(faiss, index, self._index.parameters, selector, len(self) / len(mask), k)
        if parameters is None:
            return [[] for _ in queries]
        try:
            scores, rows = index.search(np.ascontiguousarray(queries, dtype=np.float32), k, params=parameters)
        except RuntimeError:  # an index that has no selectors
            return [[] for _ in queries]
        return hits_of(scores, np.where((rows >= 0) & mask[rows], rows, -1))

    @cached_property
    def _mask(self) -> tuple[Mask, NDArray[np.uint8]]:
        """(N,) which rows are selected, and the same as bits for FAISS."""
        mask = np.zeros(len(self._index), dtype=bool)
        mask[self.rows] = True
        return mask, np.packbits(mask, bitorder="little")

    def _read(self, pictures: NDArray[np.int64]) -> Embeddings:
        """The stored embeddings of ascending picture rows."""
        blocks, start = [], 0
        for shard in self._library.manifest.shards:
            if shard.series != PICTURES.name:
                continue
            low, high = np.searchsorted(pictures, [start, start + shard.rows])
            if high > low:
                array = self._library.shard_array(PICTURES, self._array, shard)
                blocks.append(as_embeddings(array[pictures[low:high] - start]))
            start += shard.rows
        return np.concatenate(blocks)


def _has_selectors(faiss: Any, index: Any) -> bool:
    """Whether FAISS can search among some of an index's rows; on other devices than the processor it cannot."""
    if not isinstance(index, faiss.Index):
        return False
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        return _has_selectors(faiss, index.base_index)
    if isinstance(index, faiss.IndexPreTransform):
        return _has_selectors(faiss, index.index)
    return isinstance(index, faiss.IndexIVF | faiss.IndexHNSW | faiss.IndexFlatCodes)


def _file(library: Library, name: str) -> Path:
    return current(library.path, name, library.manifest)


def _selecting(faiss: Any, index: Any, text: str, selector: Any, share: float, k: int) -> Any:
    """The parameters of an index's searches with a selector added.

    None where exact search is better: a graph's walk meets selected rows by their share of all, so it is made longer,
    until it would be too long.
    """
    given = {**_defaults(faiss, index), **parse_parameters(text)}
    if EF_SEARCH in given:
        if share * _GRAPH_SHARE < 1:
            return None
        given[EF_SEARCH] = round(max(given[EF_SEARCH], 2 * k) / share)
    return _add_selector(faiss, index, search_parameters(index, format_parameters(given)), selector)


def _defaults(faiss: Any, index: Any) -> dict[str, float]:
    lists = faiss.try_extract_index_ivf(index)
    usual = {NPROBE: lists.nprobe if lists is not None else 1, EF_SEARCH: 16, REFINE: 1}
    return {name: usual[name] for name in knobs(index)}


def _add_selector(faiss: Any, index: Any, parameters: Any, selector: Any) -> Any:
    index = faiss.downcast_index(index)
    wrappers = (
        (faiss.IndexRefine, "base_index", "base_index_params", faiss.IndexRefineSearchParameters),
        (faiss.IndexPreTransform, "index", "index_params", faiss.SearchParametersPreTransform),
    )
    for kind, below, attribute, maker in wrappers:
        if isinstance(index, kind):
            outer = parameters if parameters is not None else maker()
            inner = getattr(outer, attribute)
            selecting = _add_selector(faiss, getattr(index, below), inner, selector)
            if inner is None:  # setting one again would free the first, which is this one
                setattr(outer, attribute, selecting)
            return outer
    parameters = parameters if parameters is not None else faiss.SearchParameters()
    parameters.sel = selector
    return parameters
