"""Spherical k-means and assignment in PyTorch, on any device that it has.

Source: Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", 2001.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unprompt.index.training import Blocks
from unprompt.types import Embeddings

ITERATIONS = 10
_SEED = 1234
_SCORES = 1 << 27
"""Inner products that are held at once: 512 MiB of float32."""
_SPLIT = 1e-3
"""How far the two halves of a cluster that is split for an empty one start apart."""


class TorchAccelerator:
    """Clusters on one device and leaves filling the index to FAISS; implements `unprompt.index.training.Accelerator`.

    Args:
        device: "cuda:0", "cpu" ...
        dtype: of the inner products; by default float16 on CUDA, float32 elsewhere.
    """

    def __init__(self, device: str, dtype: torch.dtype | None = None) -> None:
        self.device = torch.device(device)
        self.dtype = dtype or (torch.float16 if self.device.type == "cuda" else torch.float32)

    @torch.inference_mode()
    def centroids(self, points: Embeddings, k: int) -> Embeddings:
        """(k, D) centroids of (N, D) points, N at least k."""
        if len(points) < k:
            raise RuntimeError(f"Error: failed: {len(points)} training points for {k} centroids")
        data = self._load(points)  # (N, D)
        first = np.sort(np.random.default_rng(_SEED).choice(len(points), size=k, replace=False))
        found = data[torch.from_numpy(first).to(self.device)].to(torch.float32)  # (k, D)
        for _ in range(ITERATIONS):
            found = _mean(data, self._nearest(data, found), k)
        result: Embeddings = found.cpu().numpy()
        return result

    @torch.inference_mode()
    def assign(self, vectors: Embeddings, centroids: Embeddings) -> NDArray[np.int64]:
        """(N,) the centroid nearest to each of (N, D) vectors."""
        nearest = self._nearest(self._load(vectors), torch.from_numpy(centroids).to(self.device))
        result: NDArray[np.int64] = nearest.cpu().numpy()
        return result

    def build(self, index: Any, sample: Embeddings, blocks: Blocks) -> Any:
        """None: FAISS fills the index, with the lists that `assign` finds."""
        return None

    def _load(self, vectors: Embeddings) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(vectors))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True).to(self.dtype)

    def _nearest(self, data: Tensor, centroids: Tensor) -> Tensor:
        across = centroids.to(self.dtype).T  # (D, k)
        step = max(1, _SCORES // across.shape[1])
        return torch.cat([(part @ across).argmax(dim=1) for part in torch.split(data, step)])  # (N,)


def _mean(data: Tensor, nearest: Tensor, k: int) -> Tensor:
    """(k, D) float32, the normalised mean of each cluster; an empty one takes half of one of the largest."""
    counts = torch.bincount(nearest, minlength=k)  # (k,)
    # Sums over sorted runs are the same every time; adding in place on a GPU is not.
    ordered = data[nearest.argsort(stable=True)].to(torch.float32)  # (N, D)
    means = torch.nn.functional.normalize(torch.segment_reduce(ordered, "sum", lengths=counts, axis=0), dim=-1)
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        largest = counts.argsort(descending=True, stable=True)[: len(empty)]
        shift = torch.where(torch.arange(means.shape[1], device=means.device) % 2 == 0, 1 + _SPLIT, 1 - _SPLIT)
        means[empty[: len(largest)]] = means[largest] * shift
        means[largest] = means[largest] * (2 - shift)
        means = torch.nn.functional.normalize(means, dim=-1)
    return means
