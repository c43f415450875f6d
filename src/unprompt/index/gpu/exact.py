"""Exact search in PyTorch: a product in chunks, the best of each, and their scores once more in float32."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unprompt.errors import LibraryError
from unprompt.types import Embeddings

_SCORES = 1 << 26
_QUERIES = 1024
_MARGIN = 32
"""In half precision this many rows more than k are scored again, for rounding may have reordered them."""


class TorchFlat:
    """All vectors on one device; searches as FAISS's indexes do, so that `VectorIndex` can hold it.

    Args:
        blocks: the vectors, (N, D) float32 each.
        dim: D.
        device: "cuda:0", "cpu" ...
        dtype: of the vectors; by default float16 on CUDA, float32 elsewhere.

    Raises:
        LibraryError: the device's memory does not hold them.
    """

    def __init__(self, blocks: Iterable[Embeddings], dim: int, device: str, dtype: torch.dtype | None = None) -> None:
        self.device = torch.device(device)
        self.dtype = dtype or (torch.float16 if self.device.type == "cuda" else torch.float32)
        self.d = dim
        try:
            parts = [torch.from_numpy(np.ascontiguousarray(b)).to(self.dtype).to(self.device) for b in blocks]
            self._vectors = torch.cat(parts) if parts else torch.empty((0, dim), dtype=self.dtype, device=self.device)
        except torch.OutOfMemoryError as error:
            raise LibraryError(f"{device} has too little memory for the vectors: search on the CPU") from error

    @property
    def ntotal(self) -> int:
        """N."""
        return len(self._vectors)

    @torch.inference_mode()
    def search(self, queries: Embeddings, k: int, params: Any = None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best rows of each query, (Q, k) scores and rows, equal ones by row; filled up with row -1."""
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        wanted = min(k, self.ntotal)
        for start in range(0, len(queries) if wanted else 0, _QUERIES):
            part = torch.from_numpy(queries[start : start + _QUERIES]).to(self.device, torch.float32)
            best, at = self._best(part, wanted)
            scores[start : start + len(part), :wanted] = best.cpu().numpy()
            rows[start : start + len(part), :wanted] = at.cpu().numpy()
        return scores, rows

    def _best(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        exact = self.dtype == torch.float32
        depth = min(self.ntotal, k if exact else k + _MARGIN)
        across = queries.to(self.dtype)
        step = max(depth, _SCORES // len(queries))
        found: list[tuple[Tensor, Tensor]] = []
        for start in range(0, self.ntotal, step):
            part = across @ self._vectors[start : start + step].T  # (Q, step)
            scores, rows = part.topk(min(depth, part.shape[1]), dim=1)
            found.append((scores, rows + start))
        scores, rows = (torch.cat(tensors, dim=1) for tensors in zip(*found, strict=True))
        at = scores.topk(depth, dim=1).indices
        rows = rows.gather(1, at).sort(dim=1).values  # ascending, so that a stable sort by score keeps equal ones so
        scores = torch.einsum("qd,qnd->qn", queries, self._vectors[rows].to(torch.float32))
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        return scores.gather(1, order), rows.gather(1, order)
