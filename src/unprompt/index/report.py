"""Measuring an index for its report."""

from __future__ import annotations

from unprompt.index.engine import load_faiss
from unprompt.index.figures import IndexReport
from unprompt.index.goal import IndexGoal
from unprompt.index.truth import GroundTruth
from unprompt.index.tune import measure
from unprompt.index.vector_index import VectorIndex


def report_on(
    index: VectorIndex, truth: GroundTruth, reason: str, goal: IndexGoal, seconds: float | None = None
) -> IndexReport:
    """Measures an index against the truth and against its goal; its file's facts are left for the caller."""
    figures = measure(index, truth)
    missed = []
    if figures.recall_10 < goal.recall:
        missed.append(f"recall@10 {figures.recall_10:.3f} misses {goal.recall:g}")
    if goal.max_latency is not None and figures.p50_ms > goal.max_latency * 1e3:
        missed.append(f"{figures.p50_ms:.2f} ms a query misses {goal.max_latency * 1e3:g} ms")
    return IndexReport(
        factory=index.factory,
        parameters=index.parameters,
        rows=len(index),
        bytes=0,
        bytes_per_vector=0.0,
        seconds=None if seconds is None else round(seconds, 3),
        reason="; ".join([reason, *missed]),
        figures=figures,
        threads=int(load_faiss().omp_get_max_threads()),
        goal=goal.to_dict(),
    )
