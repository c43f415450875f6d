"""What a GPU gains: one command for a machine that has one, each part runnable alone.

    python benchmarks/gpu.py --device cuda                         # all parts, at full size
    python benchmarks/gpu.py --device cuda --part exact
    python benchmarks/gpu.py --device cpu --rows 20000 --pictures 8 --model ViT-B-32    # a smoke test without a GPU

ivf: builds the same index of clustered vectors on the CPU and on the device, and compares time and recall@10.
exact: searches all vectors in large batches and one by one; one by one, every vector is read once a query, so the share
of the device's memory bandwidth that this is says how much is left to gain. The bandwidth is measured by copying.
encode: pictures through open_clip's ViT-L-14 with random weights, as `encode_images` does it from uint8 arrays on the
host, against the bare model on a batch that lies on the device already.

With ``--device cpu`` the PyTorch parts run on the CPU, through the same functions. No figure has been taken
on a GPU yet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from scale_vectors import mixture
from unprompt.errors import LibraryError
from unprompt.index.gpu.device import accelerator_for, faiss_gpu_count, resolve
from unprompt.index.gpu.exact import TorchFlat
from unprompt.index.gpu.kmeans import TorchAccelerator
from unprompt.index.training import Accelerator
from unprompt.index.tune import recalls, truth_for
from unprompt.index.vector_index import VectorIndex, list_count
from unprompt.types import Embeddings

BLOCK = 50_000
Figures = dict[str, Any]


def corpus(rows: int, dim: int) -> list[Embeddings]:
    """Clustered unit vectors in blocks; 2,000,000 x 768 take 6.1 GB."""
    starts = range(0, rows, BLOCK)
    return [mixture(min(BLOCK, rows - start), dim, rows, seed=number) for number, start in enumerate(starts)]


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def timed(device: str, action: Callable[[], Any], rounds: int = 3) -> float:
    """The least seconds of a few rounds, after one to warm up."""
    action()
    wait(device)
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        wait(device)
        best = min(best, time.perf_counter() - started)
    return best


def part_ivf(device: str, vectors: list[Embeddings], dim: int) -> Iterator[Figures]:
    rows = sum(len(block) for block in vectors)
    factory = f"IVF{list_count(rows)},SQfp16"
    truth = truth_for(lambda: iter(vectors), rows)
    cpu = device == "cpu"
    builders: list[tuple[str, Accelerator | None]] = [("faiss, cpu", None)]
    if not cpu and faiss_gpu_count():
        builders.append(("faiss, gpu", accelerator_for(device)))
    builders.append((f"torch, {device}", TorchAccelerator(device)))
    for name, accelerator in builders:
        started = time.perf_counter()
        index = VectorIndex.build(lambda: iter(vectors), rows, dim, factory, accelerator)
        seconds = time.perf_counter() - started
        recall = {f"recall@10, nprobe={n}": round(recalls(index, truth, f"nprobe={n}")[0], 4) for n in (8, 32)}
        yield {"part": "ivf", "builder": name, "factory": factory, "rows": rows, "seconds": round(seconds, 2), **recall}


def bandwidth(device: str) -> float:
    """Bytes a second that the device reads and writes when it copies memory."""
    size = 1 << (30 if device.startswith("cuda") else 28)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / timed(device, lambda: target.copy_(source), 10)


def part_exact(device: str, vectors: list[Embeddings], dim: int) -> Iterator[Figures]:
    flat = TorchFlat(vectors, dim, device)
    queries = mixture(1024, dim, flat.ntotal, seed=-1 % 2**32)
    limit = bandwidth(device)
    size = flat.ntotal * dim * torch.empty(0, dtype=flat.dtype).element_size()
    for count in (1, 32, 1024):
        seconds = timed(device, lambda count=count: flat.search(queries[:count], 10))  # type: ignore[misc]
        yield {
            "part": "exact",
            "rows": flat.ntotal,
            "batch": count,
            "ms": round(seconds * 1e3, 3),
            "queries_s": round(count / seconds, 1),
            "read_gb_s": round(size / seconds / 1e9, 1),
            "share_of_bandwidth": round(size / seconds / limit, 3),
            "bandwidth_gb_s": round(limit / 1e9, 1),
        }


def part_encode(device: str, model: str, pictures: int, folder: Path) -> Iterator[Figures]:
    from unprompt.encoders.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    import open_clip

    from unprompt.encoders.open_clip import load

    torch.manual_seed(0)
    checkpoint = folder / "random.pt"
    torch.save(open_clip.create_model(model).state_dict(), checkpoint)
    encoder = load(f"{model}/{checkpoint}", device)
    height, width = encoder.preprocess.size
    drawn = np.random.default_rng(0).integers(0, 256, (pictures, height, width, 3), dtype=np.uint8)
    arrays = list(drawn)
    whole = timed(device, lambda: encoder.encode_images(arrays))
    size = min(encoder.batch_size, pictures)
    batch = torch.randn((size, 3, height, width), dtype=encoder.dtype, device=encoder.device)
    with torch.inference_mode():
        bare = timed(device, lambda: encoder._towers.images(batch)) / size * pictures
    yield {
        "part": "encode",
        "model": model,
        "pictures": pictures,
        "pictures_s": round(pictures / whole, 1),
        "bare_s": round(pictures / bare, 1),
        "share_of_bare": round(bare / whole, 3),
    }


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--part", "parts", multiple=True, type=click.Choice(["ivf", "exact", "encode"]), help="May be repeated.")
@click.option("--rows", default=2_000_000, show_default=True)
@click.option("--dim", default=768, show_default=True)
@click.option("--model", default="ViT-L-14", show_default=True, help="Of open_clip's, with random weights.")
@click.option("--pictures", default=4096, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(device: str, parts: tuple[str, ...], rows: int, dim: int, model: str, pictures: int, out: Path | None) -> None:
    """Measure building, searching and encoding on a device."""
    import tempfile

    try:
        resolve(device)
    except LibraryError as error:
        raise click.ClickException(str(error)) from None
    parts = parts or ("ivf", "exact", "encode")
    vectors = corpus(rows, dim) if {"ivf", "exact"} & set(parts) else []
    found = []
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, Callable[[], Iterator[Figures]]] = {
            "ivf": lambda: part_ivf(device, vectors, dim),
            "exact": lambda: part_exact(device, vectors, dim),
            "encode": lambda: part_encode(device, model, pictures, Path(folder)),
        }
        for part in parts:
            for figures in runs[part]():
                found.append({"device": device, **figures})
                click.echo(json.dumps(found[-1]))
    if out:
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
