"""Filling an index with a Ray cluster at several sizes: what each worker's memory comes to, and the same index alone.

    python benchmarks/cluster.py --rows 100000 400000 1600000

Vectors are clustered at random and made a block at a time, so that only the index and what is under way is held.
Workers' memory is the most that /proc said of any process that filled a part (private memory: what Ray shares with all
processes of a machine is counted apart).
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unprompt.builders.cluster.indexing import ClusterAccelerator
from unprompt.builders.cluster.session import ray_cluster
from unprompt.index.vector_index import VectorIndex, list_count
from unprompt.types import Embeddings

BLOCK = 4096
CENTRES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 400_000, 1_600_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--address", help="of a running cluster; by default one is started here")
    parser.add_argument("--alone", action="store_true", help="also build each without the cluster, and compare")
    options = parser.parse_args()
    with ray_cluster(options.address) as ray:
        for rows in options.rows:
            figures = measure(ray, rows, options.dim, options.alone)
            print(json.dumps(figures), flush=True)


def measure(ray: Any, rows: int, dim: int, alone: bool) -> dict[str, Any]:
    factory = f"IVF{min(4096, list_count(rows))},SQfp16"
    watch = Watch()
    with watch:
        started = time.perf_counter()
        index = VectorIndex.build(lambda: blocks(rows, dim), rows, dim, factory, ClusterAccelerator(ray))
        seconds = time.perf_counter() - started
    figures = {
        "rows": len(index),
        "factory": factory,
        "seconds": round(seconds, 1),
        "index MB": round(rows * (2 * dim + 8) / 1e6),
        "most of a training worker, MB": round(watch.most.get("train_index", 0) / 1e3),
        "most of a filling worker, MB": round(watch.most.get("fill_part", 0) / 1e3),
    }
    if alone:
        queries = next(blocks(BLOCK, dim))[:200]
        started = time.perf_counter()
        here = VectorIndex.build(lambda: blocks(rows, dim), rows, dim, factory)
        figures["alone, seconds"] = round(time.perf_counter() - started, 1)
        found, expected = index.search(queries, 100), here.search(queries, 100)
        figures["same ids"] = bool(np.array_equal(found[1], expected[1]))
        figures["same scores"] = bool(np.array_equal(found[0], expected[0]))
    return figures


def blocks(rows: int, dim: int) -> Iterator[Embeddings]:
    """Rows of norm 1 around random centres, the same every time."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, dim), dtype=np.float32)
    for start in range(0, rows, BLOCK):
        rng = np.random.default_rng([1, start])
        count = min(BLOCK, rows - start)
        block = centres[rng.integers(0, CENTRES, count)] + 0.7 * rng.standard_normal((count, dim), dtype=np.float32)
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


class Watch:
    """Reads the private memory of Ray's workers while it is entered: by task, the most of any, in kB."""

    def __init__(self) -> None:
        self.most: dict[str, int] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.05):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    title = (folder / "cmdline").read_bytes()
                    if title.startswith(b"ray::"):
                        task = title[5:].partition(b"(")[0].partition(b"\0")[0].decode("utf-8", "replace")
                        self.most[task] = max(self.most.get(task, 0), _private(folder))
                except (OSError, ValueError):
                    continue  # the process has ended


def _private(folder: Path) -> int:
    lines = (folder / "status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon:")))


if __name__ == "__main__":
    main()
