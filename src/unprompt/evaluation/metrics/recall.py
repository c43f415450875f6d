"""Recall@k = |relevant among the first k| / |relevant|."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unprompt.evaluation.metrics.relevance import SAYS, check_cutoff, judge, prefixed
from unprompt.evaluation.metrics.scores import Scores, mean_scores


def recall(
    rankings: Sequence[Sequence[str]], references: Sequence[str], *, k: int = 10, ranked: str = "prompts"
) -> Scores:
    """How much of what is relevant stands among the first k of each ranking, 0 to 1; NaN where nothing is relevant.

    Args:
        rankings: N lists of prompts or fragments, best first; k of them suffice.
        references: N prompts.
        k: the cutoff, 1 or more.
        ranked: "prompts" or "fragments", which decides what is relevant.

    Raises:
        EvaluationError: the lengths differ, or `k` or `ranked` is not as described.
    """
    name = prefixed(f"recall@{k}", ranked)
    check_cutoff(name, k)
    judged = judge(name, rankings, references, ranked)
    return mean_scores(name, [recall_at(hits, total, k) for hits, total in judged], f"0 to 1; {SAYS[ranked]}")


def recall_at(hits: NDArray[np.bool_], total: int, k: int) -> float:
    """Recall@k of one judged ranking."""
    return float(hits[:k].sum()) / total if total else float("nan")
