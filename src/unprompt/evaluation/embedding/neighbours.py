"""kNN regression: the mean of the sentence embeddings of the neighbours' prompts, weighted by similarity.

w_i = exp(cos_i / temperature) / sum_j exp(cos_j / temperature)     (Nadaraya, 1964; Watson, 1964)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import EvaluationError
from unprompt.evaluation.metrics.sentence_cosine import DIM, EncodeTexts, load_encode
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.index.library import Library

_REMEMBERED = 200_000
_SENTENCE_SPACES = ("starter",)
"""Encoders whose own text side is all-MiniLM-L6-v2, so that a library holds the sentence embeddings already."""


def weighted_mean(
    cosines: NDArray[np.floating[Any]], values: NDArray[np.floating[Any]], temperature: float
) -> Embeddings:
    """The weighted means of neighbours' values, at norm 1.

    Args:
        cosines: (Q, k), -inf for a neighbour that is not there.
        values: (Q, k, D).
        temperature: above 0; the smaller, the more the nearest ones count.

    Returns:
        (Q, D) float32.

    Raises:
        EvaluationError: a query has no neighbour.
    """
    if not np.isfinite(cosines).any(axis=1).all():
        raise EvaluationError("a picture has no neighbour: give a library that has pictures")
    gaps = (cosines - cosines.max(axis=1, keepdims=True)).astype(np.float64) / temperature
    # einsum without BLAS adds in one order, whatever the number of threads.
    means = np.einsum("qk,qkd->qd", np.exp(gaps), values.astype(np.float64))
    return unit(means)


def mix(head: Embeddings, neighbours: Embeddings, weight: float) -> Embeddings:
    """(1 - weight) times the head's prediction plus weight times the neighbours', at norm 1: (N, D)."""
    return unit((1 - weight) * head.astype(np.float64) + weight * neighbours.astype(np.float64))


def unit(rows: NDArray[np.float64]) -> Embeddings:
    """(N, D) rows at norm 1, as float32; rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(norms > 0, norms, 1.0), dtype=np.float32)


class LibraryNeighbours:
    """Predicts sentence embeddings from the prompts of a library's nearest pictures.

    Args:
        library: an open library with pictures.
        encode: embeds texts with all-MiniLM-L6-v2; needed only where the library's encoder has another text side.

    Raises:
        EvaluationError: the library has no pictures.
    """

    def __init__(self, library: Library, encode: EncodeTexts | None = None) -> None:
        if library.image_index is None or not len(library):
            raise EvaluationError(f"{library.path} has no pictures, so there are no neighbours: build it from pictures")
        self._library = library
        self._index = library.image_index
        self._encode = encode
        self._known: dict[str, Embeddings] = {}
        self._stored = library.manifest.encoder.name in _SENTENCE_SPACES

    def __call__(self, queries: Embeddings, k: int, temperature: float) -> Embeddings:
        """(Q, D) picture embeddings by the library's encoder -> (Q, 384)."""
        cosines, rows = self._index.search(queries, min(k, len(self._index)))  # both (Q, k)
        found = np.unique(rows[rows >= 0])
        values = self._stored_values(found) if self._stored else self._encoded_values(found)
        at = np.searchsorted(found, np.where(rows >= 0, rows, found[0] if found.size else 0))
        # FAISS fills up with row -1 where an approximate index finds fewer.
        return weighted_mean(np.where(rows >= 0, cosines, -np.inf), values[at], temperature)

    def _stored_values(self, rows: NDArray[np.int64]) -> Embeddings:
        """The stored embeddings of the prompts of some rows, in ascending order: (R, 384)."""
        from unprompt.index.commit import current
        from unprompt.index.shards import PICTURES, read_array

        parts, start = [], 0
        for shard in self._library.manifest.shards:
            if shard.series == PICTURES.name:
                name = PICTURES.array_file(PICTURES.text_array, shard.number)
                array = read_array(current(self._library.path, name, self._library.manifest), DIM)
                inside = rows[(rows >= start) & (rows < start + shard.rows)] - start
                parts.append(np.asarray(array[inside], dtype=np.float32))
                start += shard.rows
        return np.concatenate(parts)

    def _encoded_values(self, rows: NDArray[np.int64]) -> Embeddings:
        """The same, from the prompts' words; each distinct prompt is embedded once."""
        prompts = [record.prompt for record in self._library.records(rows.tolist())]
        new = sorted(set(prompts) - self._known.keys())
        if len(self._known) + len(new) > _REMEMBERED:
            self._known, new = {}, sorted(set(prompts))
        if new:
            self._known.update(zip(new, (self._encode or load_encode())(new), strict=True))
        return np.stack([self._known[prompt] for prompt in prompts])
