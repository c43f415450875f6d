"""FAISS's GPU indexes: built there and brought back, or cloned there to be searched."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import LibraryError
from unprompt.index.engine import load_faiss, reason_of
from unprompt.index.parameters import NPROBE, parse_parameters
from unprompt.index.training import Blocks, train
from unprompt.types import Embeddings

MOST = 2048
"""FAISS's GPU indexes find at most so many rows, and visit at most so many lists."""

ITERATIONS = 10
_SEED = 1234
_ADDED = 1 << 18
_OVERHEAD = 1.25


class FaissAccelerator:
    """Builds on GPUs through FAISS; implements `unprompt.index.training.Accelerator`.

    Centroids are found there. An index of a kind that FAISS has for GPUs is then filled there, and comes back to be
    written; of any other inverted index, the vectors are assigned there.

    Args:
        numbers: the GPUs, at least one.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = tuple(numbers)
        self._resources = [load_faiss().StandardGpuResources() for _ in self.numbers]

    def build(self, index: Any, sample: Embeddings, blocks: Blocks) -> Any:
        """Trains and fills an empty index on the GPUs; None for a kind that they do not have."""
        faiss = load_faiss()
        if not runs_on_gpu(index):
            return None
        # Shards must have the same centroids, so training comes first, and only then the index is dealt out.
        train(index, sample, self)
        gpu = self._spread(index, shards=True)
        for block in blocks():
            gpu.add(block)
        return faiss.index_gpu_to_cpu(gpu)

    def centroids(self, points: Embeddings, k: int) -> Embeddings:
        """(k, D) centroids of (N, D) points, by FAISS's spherical k-means."""
        faiss = load_faiss()
        clustering = faiss.Clustering(points.shape[1], k)
        clustering.spherical, clustering.niter, clustering.seed = True, ITERATIONS, _SEED
        flat = self._spread(faiss.IndexFlatIP(points.shape[1]), shards=False)
        clustering.train(points, flat)
        found: Embeddings = faiss.vector_to_array(clustering.centroids).reshape(k, -1)
        return found

    def assign(self, vectors: Embeddings, centroids: Embeddings) -> NDArray[np.int64]:
        """(N,) the centroid nearest to each of (N, D) vectors."""
        flat = load_faiss().IndexFlatIP(centroids.shape[1])
        flat.add(centroids)
        gpu = self._spread(flat, shards=False)
        parts = [gpu.search(vectors[i : i + _ADDED], 1)[1][:, 0] for i in range(0, len(vectors), _ADDED)]
        return np.concatenate([np.empty(0, dtype=np.int64), *parts])

    def clone(self, index: Any, parameters: str, shards: bool) -> GpuIndex:
        """An index on the GPUs to search, each with all of it, or each with a part."""
        return GpuIndex(self._spread(index, shards), index, parameters)

    def _spread(self, index: Any, shards: bool) -> Any:
        faiss = load_faiss()
        if len(self.numbers) == 1:
            return faiss.index_cpu_to_gpu(self._resources[0], self.numbers[0], index, _options(faiss))
        options = faiss.GpuMultipleClonerOptions()
        options.useFloat16, options.shard = True, shards
        return faiss.index_cpu_to_gpu_multiple_py(self._resources, index, options, list(self.numbers))


class GpuIndex:
    """A FAISS index on GPUs beside the one on the CPU; searches as FAISS's indexes do, so `VectorIndex` can hold it.

    FAISS's GPU resources serve one thread at a time, so searches wait for each other. A search for more rows than the
    GPUs can find is done on the CPU.
    """

    def __init__(self, gpu: Any, cpu: Any, parameters: str) -> None:
        self._gpu, self._cpu = gpu, cpu
        self._lock = threading.Lock()
        self.d, self.ntotal = int(cpu.d), int(cpu.ntotal)
        nprobe = gpu_nprobe(parameters)
        if nprobe is not None:
            load_faiss().GpuParameterSpace().set_index_parameter(gpu, NPROBE, nprobe)

    def search(self, queries: Embeddings, k: int, params: Any = None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best rows of each query, (Q, k) scores and rows."""
        with self._lock:
            scores, rows = (self._gpu if fits_gpu(k) else self._cpu).search(queries, k)
        return scores, rows


def gpu_nprobe(parameters: str) -> int | None:
    """The `nprobe` of a parameter string as far as GPUs go; None when it has none."""
    value = parse_parameters(parameters).get(NPROBE)
    return None if value is None else min(MOST, int(value))


def fits_gpu(k: int) -> bool:
    """Whether GPUs can find so many rows."""
    return k <= MOST


def needs_shards(index_bytes: int, free_bytes: Sequence[int]) -> bool:
    """Whether GPUs with so much free memory must share an index, since not each of them holds all of it."""
    return len(free_bytes) > 1 and index_bytes * _OVERHEAD > min(free_bytes)


def runs_on_gpu(index: Any) -> bool:
    """Whether FAISS has this kind of index for GPUs."""
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    kinds = (faiss.IndexFlat, faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFPQ)
    return type(index) in kinds or type(index) in (faiss.IndexFlatIP, faiss.IndexFlatL2)


def clone_to_gpus(index: Any, factory: str, parameters: str, numbers: Sequence[int], index_bytes: int) -> GpuIndex:
    """Puts an index on GPUs to be searched there.

    Raises:
        LibraryError: FAISS has no such index for GPUs, or their memory does not hold it.
    """
    if not runs_on_gpu(index):
        raise LibraryError(
            f"index {factory!r} cannot be searched on a GPU: search on the CPU, or rebuild it with --index IVFn,SQfp16"
        )
    try:
        shards = needs_shards(index_bytes, _free_memory(numbers))
        return FaissAccelerator(numbers).clone(index, parameters, shards)
    except RuntimeError as error:
        raise LibraryError(f"the index does not go onto the GPU ({reason_of(error)}): search on the CPU") from None


def _free_memory(numbers: Sequence[int]) -> list[int]:
    """Free bytes of each GPU; without a CUDA build of PyTorch to ask, as good as endless."""
    import torch

    known = torch.cuda.is_available()
    return [int(torch.cuda.mem_get_info(number)[0]) if known else 1 << 62 for number in numbers]


def _options(faiss: Any) -> Any:
    options = faiss.GpuClonerOptions()
    options.useFloat16 = True
    return options
