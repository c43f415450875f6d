"""Searching an index on a device that is chosen when a library is opened."""

from __future__ import annotations

from unprompt.index.gpu.device import Device
from unprompt.index.training import Blocks
from unprompt.index.vector_index import VectorIndex


def on_device(index: VectorIndex, device: Device, blocks: Blocks, index_bytes: int) -> VectorIndex:
    """The same rows, searched on a device.

    Args:
        index: as it was read.
        device: where; with "torch", all vectors go there and the search is exact.
        blocks: the vectors in the index's order.
        index_bytes: of the index's file.

    Raises:
        LibraryError: the device cannot hold or search such an index.
    """
    if device.engine == "faiss":
        from unprompt.index.gpu.faiss_gpu import clone_to_gpus

        gpu = clone_to_gpus(index.faiss_index, index.factory, index.parameters, device.numbers, index_bytes)
        return VectorIndex(gpu, index.factory, mapped=True)
    if device.engine == "torch":
        return torch_exact(blocks, index.dim, f"cuda:{device.numbers[0]}")
    return index


def torch_exact(blocks: Blocks, dim: int, device: str) -> VectorIndex:
    """An exact index on any device of PyTorch's; it can be searched and nothing else."""
    from unprompt.index.gpu.exact import TorchFlat

    return VectorIndex(TorchFlat(blocks(), dim, device), "Flat", mapped=True)
