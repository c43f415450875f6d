"""Mean reciprocal rank: 1 / rank of the first relevant entry, 0 when there is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unprompt.evaluation.metrics.relevance import SAYS, judge, prefixed
from unprompt.evaluation.metrics.scores import Scores, mean_scores


def mrr(rankings: Sequence[Sequence[str]], references: Sequence[str], *, ranked: str = "prompts") -> Scores:
    """Reciprocal rank of the first relevant entry of each ranking, 0 to 1; NaN where nothing is relevant.

    What lies below the end of a ranking counts as not found, so compare rankings of one depth only; the note says it.

    Args:
        rankings: N lists of prompts or fragments, best first.
        references: N prompts.
        ranked: "prompts" or "fragments", which decides what is relevant.

    Raises:
        EvaluationError: the lengths differ, or `ranked` is not as described.
    """
    name = prefixed("mrr", ranked)
    judged = judge(name, rankings, references, ranked)
    depth = max(len(hits) for hits, _ in judged)
    values = [reciprocal_rank(hits) if total else float("nan") for hits, total in judged]
    return mean_scores(name, values, f"0 to 1, rankings of up to {depth}; {SAYS[ranked]}")


def reciprocal_rank(hits: NDArray[np.bool_]) -> float:
    """1 / rank of the first hit of one judged ranking, 0 without one."""
    return 1.0 / (int(hits.argmax()) + 1) if hits.any() else 0.0
