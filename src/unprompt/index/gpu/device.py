"""Which device an index is built or searched on, decided once, at the edge."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from unprompt.errors import LibraryError
from unprompt.index.engine import load_faiss
from unprompt.index.training import Accelerator

Engine = Literal["cpu", "faiss", "torch"]


@dataclass(frozen=True)
class Device:
    """Where, and by what.

    Attributes:
        engine: FAISS on this machine's cores, FAISS on GPUs, or PyTorch on one GPU.
        numbers: of the GPUs; none for "cpu".
    """

    engine: Engine
    numbers: tuple[int, ...] = ()


def decide(name: str, faiss_gpus: int, torch_gpus: int, option: str = "--device") -> Device:
    """Chooses the engine for a device by what there is.

    Args:
        name: "cpu", "cuda" (every GPU), "cuda:1" or "cuda:0,2"; other devices of PyTorch's, which only an encoder
            knows, mean "cpu".
        faiss_gpus: GPUs that FAISS can use; 0 for a build without GPUs.
        torch_gpus: GPUs that PyTorch can use.
        option: what the user said `name` with, for the message.

    Raises:
        LibraryError: there is no such GPU; the message names what to do.
    """
    match = re.fullmatch(r"cuda(?::(\d+(?:,\d+)*))?", name)
    if match is None:
        return Device("cpu")
    engine: Engine = "faiss" if faiss_gpus else "torch"
    count = faiss_gpus or torch_gpus
    if not count:
        raise LibraryError(
            f"device {name!r} is not available (FAISS sees 0 GPUs, PyTorch sees 0): use {option} cpu, or install "
            "'unprompt[gpu]' or a CUDA build of PyTorch on a machine with an NVIDIA GPU"
        )
    wanted = tuple(int(number) for number in match[1].split(",")) if match[1] else tuple(range(count))
    missing = [number for number in wanted if number >= count]
    if missing:
        raise LibraryError(f"device {name!r}: there is no GPU {missing[0]} ({count} found, counted from 0)")
    return Device(engine, wanted if engine == "faiss" else wanted[:1])


def resolve(name: str, option: str = "--device") -> Device:
    """`decide` by what this machine has; looks for GPUs only when one is asked for."""
    gpus = (faiss_gpu_count(), _torch_gpu_count()) if name.startswith("cuda") else (0, 0)
    return decide(name, *gpus, option)


def check_search_device(name: str) -> None:
    """Raises LibraryError where no index can be searched: neither "cpu" nor a GPU, or a GPU that is not there."""
    if name != "cpu" and resolve(name, "--search-device").engine == "cpu":
        raise LibraryError(f"search device {name!r} is unknown: use --search-device cpu, cuda or cuda:1")


def device_kind(name: str) -> str:
    """A device without its number, "cuda" for "cuda:1": what computes may round otherwise on another kind."""
    return name.partition(":")[0]


def faiss_gpu_count() -> int:
    """GPUs that the installed FAISS can use."""
    faiss = load_faiss()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def accelerator_for(name: str) -> Accelerator | None:
    """What builds indexes on a device; None for "cpu", where FAISS itself does.

    Raises:
        LibraryError: see `decide`.
    """
    device = resolve(name)
    if device.engine == "faiss":
        from unprompt.index.gpu.faiss_gpu import FaissAccelerator

        return FaissAccelerator(device.numbers)
    if device.engine == "torch":
        from unprompt.index.gpu.kmeans import TorchAccelerator

        return TorchAccelerator(f"cuda:{device.numbers[0]}")
    return None


def _torch_gpu_count() -> int:
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
