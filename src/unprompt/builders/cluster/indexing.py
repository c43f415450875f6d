"""Building an index with a cluster: trained once, filled in tasks that know their rows' numbers, merged in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.builders.cluster.session import RETRIES, result_of
from unprompt.index.engine import load_faiss
from unprompt.index.training import Blocks, add, train
from unprompt.types import Embeddings

ROWS = 1 << 16
"""Rows that a task adds, about."""

POINTS = 1 << 18
"""Rows whose lists a task finds."""

Bytes = NDArray[np.uint8]
"""A serialised index."""

Settings = dict[str, bool | int | float]


class ClusterAccelerator:
    """Trains an index in one task and fills it in many; an `unprompt.index.training.Accelerator`.

    No worker holds more than the trained index and `ROWS` vectors, however many there are; the driver holds the index
    that grows, and as many parts as are under way.

    Args:
        ray: the connected module.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._ahead = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def centroids(self, points: Embeddings, k: int) -> Embeddings:
        """(k, D) centroids of (N, D) points, found by FAISS in one task."""
        found: Embeddings = result_of(self._ray, self._remote(find_centroids).remote(points, k))
        return found

    def assign(self, vectors: Embeddings, centroids: Embeddings) -> NDArray[np.int64]:
        """(N,) the centroid with the largest inner product with each of (N, D) vectors, a task for each `POINTS`."""
        held, task = self._ray.put(centroids), self._remote(find_lists)
        parts = [task.remote(vectors[start : start + POINTS], held) for start in range(0, len(vectors), POINTS)]
        return np.concatenate([result_of(self._ray, part) for part in parts])

    def build(self, index: Any, sample: Embeddings, blocks: Blocks) -> Any:
        """Trains and fills an empty index; None where its parts cannot be merged."""
        faiss = load_faiss()
        if not _mergeable(faiss, index):
            return None
        empty = faiss.serialize_index(index)
        trained = self._remote(train_index).remote(empty, _not_serialised(index, empty), sample)
        whole = faiss.deserialize_index(result_of(self._ray, trained).copy())
        task = self._remote(fill_part)
        pending: deque[Any] = deque()
        for first, block in _gathered(blocks()):
            pending.append(task.remote(trained, self._ray.put(block), first))
            if len(pending) > self._ahead:
                self._merge(whole, pending.popleft())
        while pending:
            self._merge(whole, pending.popleft())
        return whole

    def _merge(self, whole: Any, part: Any) -> None:
        found = load_faiss().deserialize_index(result_of(self._ray, part).copy())
        whole.merge_from(found, 0)  # 0: the ids are row numbers already

    def _remote(self, function: Any) -> Any:
        return self._ray.remote(num_cpus=1, max_retries=RETRIES)(function)


def train_index(empty: Bytes, settings: Sequence[Settings], sample: Embeddings) -> Bytes:
    """Trains a serialised index; `settings` are from `_not_serialised`."""
    faiss = load_faiss()
    index = faiss.deserialize_index(empty.copy())  # what Ray hands over cannot be written to, which FAISS would do
    for part, values in zip(_settable(index), settings, strict=True):
        for name, value in values.items():
            setattr(part, name, value)
    train(index, sample)
    trained: Bytes = faiss.serialize_index(index)
    return trained


def fill_part(trained: Bytes, vectors: Embeddings, first: int) -> Bytes:
    """A copy of a trained index that holds (N, D) vectors as the rows from `first` on."""
    faiss = load_faiss()
    index = faiss.deserialize_index(trained.copy())
    add(index, vectors, first=first)
    filled: Bytes = faiss.serialize_index(index)
    return filled


def find_centroids(points: Embeddings, k: int) -> Embeddings:
    """(k, D) centroids of norm 1, by FAISS's spherical k-means."""
    kmeans = load_faiss().Kmeans(points.shape[1], k, spherical=True, max_points_per_centroid=len(points))
    kmeans.train(np.ascontiguousarray(points))
    centroids: Embeddings = kmeans.centroids
    return centroids


def find_lists(vectors: Embeddings, centroids: Embeddings) -> NDArray[np.int64]:
    """(N,) the centroid with the largest inner product with each vector."""
    _, lists = load_faiss().knn(np.ascontiguousarray(vectors), centroids, 1, metric=load_faiss().METRIC_INNER_PRODUCT)
    return np.ascontiguousarray(lists[:, 0])


def _not_serialised(index: Any, empty: Bytes) -> list[Settings]:
    """What an index's bytes leave out, such as how to train it: of the index itself, and of its clustering."""
    bare = _settable(load_faiss().deserialize_index(empty))
    return [
        {name: value for name, value in _scalars(own).items() if _scalars(other)[name] != value}
        for own, other in zip(_settable(index), bare, strict=True)
    ]


def _settable(index: Any) -> tuple[Any, Any]:
    index = load_faiss().downcast_index(index)
    return index, index.cp


def _scalars(part: Any) -> Settings:
    values = {name: getattr(part, name) for name in dir(part) if not name.startswith("_")}
    return {name: value for name, value in values.items() if isinstance(value, bool | int | float)}


def _gathered(blocks: Iterable[Embeddings]) -> Iterator[tuple[int, Embeddings]]:
    """Blocks joined to at least `ROWS` rows, each with the number of its first row."""
    held: list[Embeddings] = []
    first = count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count >= ROWS:
            yield first, np.concatenate(held)
            first, held, count = first + count, [], 0
    if held:
        yield first, np.concatenate(held)


def _mergeable(faiss: Any, index: Any) -> bool:
    """Whether parts of it can be filled apart: FastScan packs its codes across rows, and refined ones keep no ids."""
    index = faiss.downcast_index(index)
    return isinstance(index, faiss.IndexIVF) and not isinstance(index, faiss.IndexIVFFastScan)
