"""How long pushing takes, how long queries take, and what they find: a library's folder, Milvus, PostgreSQL.

    python benchmarks/backends.py --rows 10000 --dim 512

Milvus is Milvus Lite in a file, PostgreSQL a server from the package pgserver, unless --milvus and --postgresql name
others. Embeddings and metadata are random; queries are not in the library. Recall@10 is
against exact search over the stored embeddings. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unprompt.backends.local import LocalLibrary
from unprompt.backends.opening import open_backend, open_store
from unprompt.backends.protocol import SearchBackend
from unprompt.backends.pushing import INDEXES, push
from unprompt.index.library import Library
from unprompt.index.manifest import EncoderInfo
from unprompt.index.refresh import refresh
from unprompt.index.shards import PICTURES, records_table
from unprompt.index.where import Where
from unprompt.index.where_parser import parse_where
from unprompt.index.writer import LibraryWriter
from unprompt.types import Embeddings, Record

K = 10
SHARD = 4096
CONDITIONS = ("steps >= 30", "steps >= 30 and sampler = 'k_lms'", "steps = 33 and sampler = 'k_lms'")
"""Half of the rows match, a tenth, and a two-hundredth."""


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as folder, postgresql(options.postgresql) as address:
        library = make_library(Path(folder) / "library", options.rows, options.dim)
        exact = Library.open(library.path)
        queries = unit_rows(options.queries, options.dim, seed=1)
        wanted = {text: best(exact, queries, text) for text in ("", *CONDITIONS)}
        print(f"{options.rows:,} x {options.dim}, {options.queries} queries one at a time, k = {K}\n")
        names = " | ".join(f"`{text or 'all'}` p50 ms / recall" for text in wanted)
        print(f"| Backend | Index | Push s | Again s | {names} |")
        print("|---|---|---|---|" + "---|" * len(wanted))
        report("FAISS", library.manifest.indexes["image"].factory, "-", "-", LocalLibrary(library), queries, wanted)
        milvus = options.milvus or f"milvus:{folder}/benchmark.db"
        for name, base in (("Milvus" if options.milvus else "Milvus Lite", milvus), ("PostgreSQL", address)):
            for index in INDEXES:
                target = f"{base}{'&' if '?' in base else '?'}library=benchmark_{index}"
                store = open_store(target)
                times = [seconds(lambda store=store, index=index, i=i: push(library, store, index, replace=i == 0))
                         for i in range(2)]  # fmt: skip
                backend = open_backend(target)
                report(name, index, f"{times[0]:.1f}", f"{times[1]:.1f}", backend, queries, wanted)
                backend.close()
                store.drop()
                store.close()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--milvus", metavar="URL", help="a cluster; libraries named benchmark_* there are replaced")
    parser.add_argument("--postgresql", metavar="URL", help="a server; as above")
    return parser.parse_args()


def report(
    name: str,
    index: str,
    pushed: str,
    again: str,
    backend: SearchBackend,
    queries: Embeddings,
    wanted: dict[str, list[set[str]]],
) -> None:
    cells = []
    for text, expected in wanted.items():
        where = parse_where(text) if text else None
        median, found = measure(backend, queries, where)
        recall = statistics.mean(len(a & b) / max(1, len(b)) for a, b in zip(found, expected, strict=True))
        cells.append(f"{median * 1000:.1f} / {recall:.3f}")
    print(f"| {name} | {index} | {pushed} | {again} | " + " | ".join(cells) + " |", flush=True)


def measure(backend: SearchBackend, queries: Embeddings, where: Where | None) -> tuple[float, list[set[str]]]:
    """The median time of a query, in seconds, and the ids that each found."""
    backend.pictures(queries[:1], K, where)
    times, found = [], []
    for query in queries:
        started = time.perf_counter()
        hits = backend.pictures(query[None], K, where)[0]
        times.append(time.perf_counter() - started)
        found.append({record.id for record, _ in hits})
    return statistics.median(times), found


def best(library: Library, queries: Embeddings, text: str) -> list[set[str]]:
    """The ids of the K best rows by a product with all that match."""
    from unprompt.index.where_rows import matching_rows

    rows = np.arange(len(library)) if not text else np.flatnonzero(matching_rows(library, parse_where(text)))
    stored = np.concatenate(list(library.arrays(PICTURES, "img_emb")))[rows]
    top = np.argsort(-(queries @ stored.T), axis=1, kind="stable")[:, :K]
    return [{record.id for record in library.records(rows[line].tolist())} for line in top]


def make_library(root: Path, rows: int, dim: int) -> Library:
    rng = np.random.default_rng(0)
    pictures = unit_rows(rows, dim, seed=0).astype(np.float16)
    prompts = unit_rows(rows, dim, seed=2).astype(np.float16)
    steps = rng.integers(10, 50, rows)
    samplers = rng.integers(5, size=rows)
    names = ("k_lms", "ddim", "k_euler", "plms", "k_heun")
    encoder = EncoderInfo("random", "0" * 64, dim)
    with LibraryWriter(root, encoder) as writer:
        for start in range(0, rows, SHARD):
            stop = min(rows, start + SHARD)
            records = [
                Record(
                    f"{i:020x}",
                    f"a made-up prompt, number {i}, oil on canvas, trending on artstation",
                    f"/pictures/{i}.png",
                    {"steps": int(steps[i]), "sampler": names[samplers[i]], "cfg": 7.5, "width": 512, "height": 512},
                )
                for i in range(start, stop)
            ]
            arrays: dict[str, Any] = {"img_emb": pictures[start:stop], "text_emb": prompts[start:stop]}
            writer.append_shard(PICTURES, arrays, records_table(records))
        refresh(writer)
    return Library.open(root)


def unit_rows(total: int, dim: int, seed: int) -> Embeddings:
    """(total, dim) rows whose variance falls off over 64 directions, the same for every seed, as encoders' does."""
    directions = np.random.default_rng(7).standard_normal((64, dim))
    latent = np.random.default_rng([3, seed]).standard_normal((total, 64)) / np.sqrt(1 + np.arange(64) / 8)
    rows = latent @ directions
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@contextmanager
def postgresql(address: str | None) -> Iterator[str]:
    """The given server, or one that runs for as long as the block."""
    if address:
        yield address
        return
    from pgserver.postgres_server import get_server

    folder = tempfile.mkdtemp(prefix="unprompt-postgres-")
    server = get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def seconds(action: Any) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
