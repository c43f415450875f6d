"""Choosing an index by rows, dimension, memory and latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unprompt.index.goal import IndexGoal
from unprompt.index.vector_index import FLAT_LIMIT, choose_factory, list_count

_ID = 8
"""Bytes of a row number in an inverted list."""
_FASTSCAN_ROWS = 10_000
"""Below, product quantisers have too few rows to train on, and nothing to gain."""

Measure = Callable[["Sequence[Candidate]"], dict[str, float]]
"""Gives the seconds that a query of each candidate, by its factory string, is expected to take at full size."""


@dataclass(frozen=True)
class Candidate:
    """An index that could be built.

    Attributes:
        factory: its FAISS factory string.
        bytes: of main memory that searching it needs.
    """

    factory: str
    bytes: int


@dataclass(frozen=True)
class Choice:
    """An index that is to be built.

    Attributes:
        factory: its FAISS factory string.
        on_disk: its lists are built in parts and stay in the file, since no index fits the memory that is allowed.
        reason: why, one line.
    """

    factory: str
    on_disk: bool
    reason: str


def candidates(rows: int, dim: int) -> list[Candidate]:
    """What may be built of `rows` vectors of `dim` dimensions, the most faithful and quickest to build first.

    A candidate needs codes, row numbers and centroids. Graphs come last: they answer fastest and take longest to build.
    """
    lists = list_count(max(rows, 64))
    coarse = lists * dim * 4

    def inverted(codes: str, per_row: float) -> Candidate:
        return Candidate(f"IVF{lists},{codes}", round(rows * (per_row + _ID) + coarse))

    found = [Candidate("Flat", rows * dim * 4), inverted("SQfp16", dim * 2), inverted("SQ8", dim)]
    if rows >= _FASTSCAN_ROWS and dim % 2 == 0:
        found.append(inverted(f"PQ{dim // 2}x4fsr,Refine(SQ8)", dim / 4 + dim))
        found.append(inverted("RaBitQfs,Refine(SQ8)", dim / 8 + 12 + dim))
    found.append(Candidate("HNSW32,SQfp16", round(rows * (dim * 2 + 32 * 2 * 4 * 1.06))))
    return found


def choose(rows: int, dim: int, goal: IndexGoal, measure: Measure | None = None) -> Choice:
    """Chooses the first candidate that keeps to the goal.

    Args:
        rows: how many vectors there will be.
        dim: their dimension.
        goal: without limits, the rows alone decide (`choose_factory`).
        measure: predicts latencies; needed, and called once, when the goal has one.
    """
    preferred = choose_factory(rows)
    listed = candidates(rows, dim)
    fits = [c for c in listed if goal.max_memory is None or c.bytes <= goal.max_memory]
    if not fits:
        smallest = min(candidate.bytes for candidate in listed)
        reason = f"no index of {rows:,} rows fits {goal.max_memory:,} bytes (the smallest needs {smallest:,})"
        if rows < 64:
            return Choice("Flat", False, f"{reason}; so few rows are searched exactly all the same")
        return Choice(f"IVF{list_count(rows)},SQ8", True, f"{reason}, so its lists stay on disk")
    if goal.max_latency is None or measure is None:
        start = next((i for i, c in enumerate(fits) if c.factory == preferred), None)
        chosen = fits[start] if start is not None else _without_latency(fits, rows)
        return Choice(chosen.factory, False, _by_size(chosen, rows, goal))
    latencies = measure(fits)
    quick = [c for c in fits if latencies.get(c.factory, math.inf) <= goal.max_latency]
    chosen = quick[0] if quick else min(fits, key=lambda c: (latencies.get(c.factory, math.inf), c.bytes))
    expected = f"a query is expected to take {latencies.get(chosen.factory, math.nan) * 1e3:.2f} ms"
    limit = f"of {goal.max_latency * 1e3:g} ms allowed"
    if not quick:
        return Choice(chosen.factory, False, f"nothing is fast enough; this is the fastest: {expected} {limit}")
    return Choice(chosen.factory, False, f"the most faithful of those within the limits: {expected} {limit}")


def _without_latency(fits: Sequence[Candidate], rows: int) -> Candidate:
    """The most faithful that fits, but no exact search of many rows."""
    wanted = [c for c in fits if rows < FLAT_LIMIT or c.factory != "Flat"]
    return (wanted or list(fits))[0]


def _by_size(chosen: Candidate, rows: int, goal: IndexGoal) -> str:
    size = f"{rows:,} rows, about {chosen.bytes / 1e6:,.1f} MB"
    return f"the usual for {size}" if goal.max_memory is None else f"{size} of {goal.max_memory / 1e6:,.1f} MB allowed"
