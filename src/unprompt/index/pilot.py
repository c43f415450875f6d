"""How long a query of each kind of index would take: each is built over a sample and timed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from unprompt.errors import LibraryError
from unprompt.index.choice import Candidate
from unprompt.index.goal import IndexGoal
from unprompt.index.training import Blocks, sample_rows
from unprompt.index.tune import K, truth_for, tune
from unprompt.index.vector_index import VectorIndex, list_count

SAMPLE = 20_000
_QUERIES = 100
_SEED = 99
_GRAPH_FACTOR = 2.0
"""A graph over far more rows than the caches hold is slower by about this than the same steps over a sample."""


def predict_latencies(blocks: Blocks, rows: int, candidates: Sequence[Candidate], goal: IndexGoal) -> dict[str, float]:
    """The expected median seconds of a query at `rows` rows, by factory string.

    Every candidate is built over up to `SAMPLE` rows, tuned to the goal's recall and timed; the time is then scaled by
    what grows: all rows for exact search, the square root of rows for inverted lists (as many lists, and as many rows
    in each), their logarithm for a graph. Candidates that cannot be built over the sample are left out.
    """
    chosen = np.sort(np.random.default_rng(_SEED).choice(rows, size=min(rows, SAMPLE), replace=False)).astype(np.int64)
    sample = sample_rows(blocks, chosen)
    truth = truth_for(lambda: iter([sample]), len(sample))
    found = {}
    for candidate in candidates:
        factory = _at(candidate.factory, rows, len(sample))
        try:
            index = VectorIndex.build(lambda: iter([sample]), len(sample), sample.shape[1], factory)
        except LibraryError:
            continue
        index = index.with_parameters(tune(index, truth, goal.recall))
        times = []
        for query in truth.queries[:_QUERIES]:
            started = time.perf_counter()
            index.search(query[None], K)
            times.append(time.perf_counter() - started)
        found[candidate.factory] = float(np.median(times)) * growth(candidate.factory, len(sample), rows)
    return found


def growth(factory: str, sample: int, rows: int) -> float:
    """By how much longer a query takes at `rows` rows than at `sample` rows."""
    if rows <= sample:
        return 1.0
    if factory.startswith("IVF"):
        return math.sqrt(rows / sample)
    if factory.startswith("HNSW"):
        return _GRAPH_FACTOR * math.log(rows) / math.log(sample)
    return rows / sample


def _at(factory: str, rows: int, sample: int) -> str:
    return factory.replace(f"IVF{list_count(max(rows, 64))},", f"IVF{list_count(max(sample, 64))},")
