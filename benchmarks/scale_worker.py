"""One side of ``scale.py`` in its own process and environment: builds an index, or measures one.

    python scale_worker.py build-unprompt FOLDER INDEX '{"index": "auto", ...}'
    python scale_worker.py build-autofaiss FOLDER INDEX '{"memory": "4GB", ...}'
    python scale_worker.py write-library FOLDER LIBRARY '{"rows": 100000, "dim": 512}'
    python scale_worker.py rebuild FOLDER LIBRARY '{"index": "HNSW32,SQfp16", "recall": 0.95}'
    python scale_worker.py measure FOLDER INDEX '{"recall": 0.95, ...}'

Each prints one JSON object. Measuring is the same code for both sides: `unprompt.index.tune` needs only numpy and
FAISS, and reads any index file.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from scale_vectors import FILE_ROWS, QUERIES, read_corpus

TRUTH = "truth.npz"
ROUNDS = 5


def build_unprompt(folder: Path, index_file: Path, options: dict[str, Any]) -> dict[str, Any]:
    from functools import partial

    from unprompt.index.choice import choose
    from unprompt.index.goal import IndexGoal, parse_bytes, parse_seconds
    from unprompt.index.pilot import predict_latencies
    from unprompt.index.tune import measure, truth_for, tune
    from unprompt.index.vector_index import VectorIndex

    goal = IndexGoal(
        options["recall"],
        parse_bytes(options["memory"]) if options.get("memory") else None,
        parse_seconds(options["latency"]) if options.get("latency") else None,
    )
    rows, dim = options["rows"], options["dim"]
    started = time.perf_counter()
    factory, reason = options["index"], "as asked for"
    if factory == "auto":
        choice = choose(rows, dim, goal, partial(predict_latencies, lambda: read_corpus(folder), rows, goal=goal))
        factory, reason = choice.factory, choice.reason
    index = VectorIndex.build(lambda: read_corpus(folder), rows, dim, factory)
    made = time.perf_counter() - started
    if factory != "Flat":  # as a build does, and as autofaiss does in the time that is taken of it
        truth = truth_for(lambda: read_corpus(folder), rows)
        measure(index.with_parameters(tune(index, truth, goal.recall)), truth)
    index.write(index_file)
    return {"factory": factory, "reason": reason, "seconds": time.perf_counter() - started, "made_s": made}


def build_autofaiss(folder: Path, index_file: Path, options: dict[str, Any]) -> dict[str, Any]:
    from autofaiss import build_index  # type: ignore[import-not-found,unused-ignore]

    started = time.perf_counter()
    _, infos = build_index(
        embeddings=str(folder / "img_emb"),
        index_path=str(index_file),
        index_infos_path=str(index_file) + ".json",
        metric_type="ip",
        max_index_memory_usage=options.get("memory") or "16GB",
        current_memory_available="16GB",
        max_index_query_time_ms=10.0,
        nb_cores=options["threads"],
        save_on_disk=True,
    )
    seconds = time.perf_counter() - started
    return {"factory": infos["index_key"], "reason": f"its own choice: {infos['index_param']}", "seconds": seconds}


def write_library(folder: Path, root: Path, options: dict[str, Any]) -> dict[str, Any]:
    """A library of the corpus, whose pictures all have one prompt, searched exactly until it is rebuilt."""
    import pyarrow as pa

    from unprompt.index.manifest import EncoderInfo
    from unprompt.index.refresh import refresh
    from unprompt.index.shards import PICTURE_SCHEMA, PICTURES
    from unprompt.index.writer import LibraryWriter

    dim = options["dim"]
    text = np.eye(1, dim, dtype=np.float32)
    with LibraryWriter(root, EncoderInfo("clustered vectors", f"scale_vectors-{dim}", dim)) as writer:
        start = 0
        for block in read_corpus(folder, FILE_ROWS):
            cells: dict[str, list[Any]] = {name: [None] * len(block) for name in PICTURE_SCHEMA.names}
            cells["id"] = [f"{row:020x}" for row in range(start, start + len(block))]
            cells["caption"] = ["a picture"] * len(block)
            arrays = {"img_emb": block, "text_emb": np.repeat(text, len(block), axis=0)}
            writer.append_shard(PICTURES, arrays, pa.table(cells, schema=PICTURE_SCHEMA))
            start += len(block)
        refresh(writer, index="Flat")
    return {"rows": start}


def rebuild(folder: Path, root: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What ``unprompt index rebuild LIBRARY --which image --index FACTORY --recall X`` does."""
    from unprompt.index.goal import IndexGoal
    from unprompt.index.rebuild import rebuild_library

    started = time.perf_counter()
    made = rebuild_library(root, options["index"], IndexGoal(options["recall"]), ("image",))["image"]
    seconds = time.perf_counter() - started
    return {
        "factory": made.factory,
        "parameters": made.parameters,
        "reason": made.reason,
        "seconds": seconds,
        "made_s": made.seconds,
        "tuned_recall_10": made.figures.recall_10,
    }


def measure(folder: Path, index_file: Path, options: dict[str, Any]) -> dict[str, Any]:
    from unprompt.index.truth import GroundTruth
    from unprompt.index.tune import measure, tune
    from unprompt.index.vector_index import VectorIndex

    VectorIndex.build(lambda: iter([np.eye(8, dtype=np.float32)]), 8, 8).search(np.eye(8, dtype=np.float32), 1)
    empty = resident()
    started = time.perf_counter()
    index = VectorIndex.read(index_file, mapped=options["mapped"])
    opened = time.perf_counter() - started
    queries, known = np.load(folder / QUERIES), np.load(folder / TRUTH)
    own = np.full(len(queries), -1, dtype=np.int64)
    half = len(queries) // 2  # one half to find parameters with, the other to measure
    parts = [
        GroundTruth(queries[part], own[part], known["rows"][part], known["scores"][part])
        for part in (slice(half), slice(half, None))
    ]
    parameters = options.get("parameters") or tune(index, parts[0], options["recall"])
    index = index.with_parameters(parameters)
    rounds = [measure(index, parts[1]) for _ in range(ROUNDS)]
    best = {name: max(getattr(r, name) for r in rounds) for name in ("qps_single", "qps_batched")}
    return {
        **vars(rounds[0]),
        **best,
        "p50_ms": min(r.p50_ms for r in rounds),
        "parameters": parameters,
        "open_ms": opened * 1e3,
        "file_mb": index_file.stat().st_size / 1e6,
        "resident_mb": (resident() - empty) / 1e6,
    }


def resident() -> int:
    """Bytes of this process in main memory, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    """The most bytes that this process had in main memory; `ru_maxrss` would count the one that started it, too."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def main() -> None:
    command, folder, index_file, options = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
    import faiss

    faiss.omp_set_num_threads(options["threads"])
    commands = {
        "build-unprompt": build_unprompt,
        "build-autofaiss": build_autofaiss,
        "write-library": write_library,
        "rebuild": rebuild,
        "measure": measure,
    }
    found = commands[command](folder, index_file, options)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**found, "peak_mb": peak() / 1e6, "cpu_s": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    main()
