"""Search parameters found by searching for them, and what an index then reaches."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unprompt.index.coarse import WARM
from unprompt.index.engine import load_faiss
from unprompt.index.figures import Figures
from unprompt.index.parameters import EF_SEARCH, NPROBE, REFINE, format_parameters, knobs
from unprompt.index.training import Blocks, inverted_lists, sample_rows
from unprompt.index.truth import DEPTH, GroundTruth, ground_truth, recall
from unprompt.index.vector_index import VectorIndex
from unprompt.types import Embeddings

QUERIES = 400
K = 10
DEEP_SLACK = 0.05
_SEED = 4321
_REFINE_FACTORS = (1, 2, 4, 8, 16, 32)
_PLATEAU = 0.001
_RANDOM_READ = 8
"""Scoring a row again reads it from anywhere in memory, which costs this many times the bytes of reading in order."""
_SINGLE = 200


def held_out(blocks: Blocks, rows: int, count: int = QUERIES) -> tuple[Embeddings, NDArray[np.int64]]:
    """Draws rows to query with, (Q, D), and their row numbers, (Q,), which are no answers to them.

    Every row is in the index, so a query that were its own answer would flatter it; with its own row left out, each
    asks for its nearest neighbours among all others.
    """
    chosen = np.sort(np.random.default_rng(_SEED).choice(rows, size=min(rows, count), replace=False)).astype(np.int64)
    return sample_rows(blocks, chosen), chosen


def truth_for(blocks: Blocks, rows: int, queries: Embeddings | None = None) -> GroundTruth:
    """Exact answers for given queries, or for rows of the index that are held out of their own answers."""
    if queries is not None and len(queries):
        return ground_truth(blocks, queries)
    return ground_truth(blocks, *held_out(blocks, rows))


def find_rows(index: VectorIndex, truth: GroundTruth, k: int, parameters: str | None = None) -> NDArray[np.int64]:
    """The k best rows for each query by the index, (Q, k), the queries' own rows left out."""
    return truth.without_own(index.search(truth.queries, k + 1, parameters)[1])


def recalls(index: VectorIndex, truth: GroundTruth, parameters: str | None = None) -> tuple[float, float]:
    """Recall@10 and Recall@100, each of a search for so many rows: some indexes look further for more."""
    depths = (min(K, len(index)), min(DEPTH, len(index)))
    near, deep = (recall(find_rows(index, truth, k, parameters), truth, k) for k in depths)
    return near, deep


def tune(index: VectorIndex, truth: GroundTruth, goal: float) -> str:
    """Finds the least search parameters that reach a recall@10, and nearly that at 100, by doubling and then halving.

    Fusion looks 50 and more rows deep, so recall@100 may be no more than `DEEP_SLACK` below the goal.

    Where an index also scores rows again (`k_factor_rf`), each factor gets its own least `nprobe`, and the pair that
    reads the fewest bytes wins; no clock decides, so the same index always gets the same parameters.

    Returns:
        A parameter string; the best that was seen when the goal is out of reach, "" when there is nothing to set.
    """
    limits = knobs(index.faiss_index)
    name = next((knob for knob in (NPROBE, EF_SEARCH) if knob in limits), None)

    def reached(values: dict[str, float]) -> float:
        near, deep = recalls(index, truth, format_parameters(values))
        return min(near, deep + DEEP_SLACK)

    if name is None:
        if REFINE not in limits:
            return ""
        return format_parameters({REFINE: _least(lambda v: reached({REFINE: v}), limits[REFINE], goal)[0]})
    if REFINE not in limits:
        floor = K if name == EF_SEARCH else 1
        return format_parameters({name: _least(lambda v: reached({name: v}), limits[name], goal, floor)[0]})
    found = []
    for factor in _REFINE_FACTORS:
        value, best = _least(lambda v, f=factor: reached({name: v, REFINE: f}), limits[name], goal)  # type: ignore[misc]
        cost = _bytes_read(index, value, factor)
        found.append((best < goal, -best if best < goal else cost, value, factor))
        if best >= goal and cost > min(entry[1] for entry in found if not entry[0]):
            break
    _, _, value, factor = min(found)
    return format_parameters({name: value, REFINE: factor})


def measure(index: VectorIndex, truth: GroundTruth) -> Figures:
    """Measures an index with its own parameters: recall, and the speed of single and of batched queries."""
    near, deep = recalls(index, truth)
    queries = truth.queries
    for _ in range(WARM + 1):  # what answers a query by itself sooner is there by then
        index.search(queries[:1], K)
    singles = []
    for at in range(min(_SINGLE, len(queries))):
        started = time.perf_counter()
        index.search(queries[at : at + 1], K)
        singles.append(time.perf_counter() - started)
    started = time.perf_counter()
    index.search(queries, K)
    batched = time.perf_counter() - started
    return Figures(
        recall_10=round(near, 4),
        recall_100=round(deep, 4),
        p50_ms=round(float(np.median(singles)) * 1e3, 4),
        qps_single=round(len(singles) / sum(singles), 1),
        qps_batched=round(len(queries) / batched, 1),
        queries=len(queries),
    )


def _least(reached: Callable[[float], float], most: int, goal: float, start: int = 1) -> tuple[int, float]:
    """The least of 1..most, to within an eighth, whose recall reaches the goal, with it; else the best, with it."""
    value, seen = min(start, most), reached(min(start, most))
    below, flat = 0, 0
    while seen < goal and value < most and flat < 3:
        below, value = value, min(most, value * 2)
        before, seen = seen, reached(value)
        flat = flat + 1 if seen - before < _PLATEAU else 0
    if seen < goal:
        return value, seen
    while value - below > max(1, below // 8):
        middle = (value + below) // 2
        here = reached(middle)
        if here >= goal:
            value, seen = middle, here
        else:
            below = middle
    return value, seen


def _bytes_read(index: VectorIndex, nprobe: int, factor: int) -> float:
    faiss = load_faiss()
    outer = faiss.downcast_index(index.faiss_index)
    lists = inverted_lists(outer)
    if lists is None:
        return float(factor)
    scanned = nprobe / lists.nlist * len(index) * lists.code_size
    return float(scanned + factor * K * faiss.downcast_index(outer.refine_index).sa_code_size() * _RANDOM_READ)
