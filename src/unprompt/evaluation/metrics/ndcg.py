"""nDCG@k with binary gains (Järvelin and Kekäläinen, 2002).

DCG@k = sum_{rank <= k, relevant} 1 / log2(rank + 1),   nDCG@k = DCG@k / DCG@k of a perfect ranking
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unprompt.evaluation.metrics.relevance import SAYS, check_cutoff, judge, prefixed
from unprompt.evaluation.metrics.scores import Scores, mean_scores


def ndcg(
    rankings: Sequence[Sequence[str]], references: Sequence[str], *, k: int = 10, ranked: str = "prompts"
) -> Scores:
    """How high the relevant entries stand among the first k of each ranking, 0 to 1; NaN where nothing is relevant.

    Args:
        rankings: N lists of prompts or fragments, best first; k of them suffice.
        references: N prompts.
        k: the cutoff, 1 or more.
        ranked: "prompts" or "fragments", which decides what is relevant.

    Raises:
        EvaluationError: the lengths differ, or `k` or `ranked` is not as described.
    """
    name = prefixed(f"ndcg@{k}", ranked)
    check_cutoff(name, k)
    judged = judge(name, rankings, references, ranked)
    return mean_scores(name, [ndcg_at(hits, total, k) for hits, total in judged], f"0 to 1; {SAYS[ranked]}")


def ndcg_at(hits: NDArray[np.bool_], total: int, k: int) -> float:
    """nDCG@k of one judged ranking."""
    if not total:
        return float("nan")
    discounts = 1.0 / np.log2(np.arange(2, k + 2))  # (k,)
    found = discounts[: len(hits)][hits[:k]].sum()
    return float(found / discounts[:total].sum())
