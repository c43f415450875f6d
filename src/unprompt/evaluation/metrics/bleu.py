"""BLEU as sacrebleu computes it (Papineni et al., 2002; Post, 2018).

BLEU-n = 100 * BP * exp(1/n * sum_{i<=n} log p_i),   BP = min(1, exp(1 - |references| / |candidates|))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.evaluation.metrics.scores import EvaluationError, Scores, check_pairs, corpus_scores, require

MAX_ORDER = 4


def bleu(candidates: Sequence[str], references: Sequence[str], *, order: int = 4) -> Scores:
    """Corpus BLEU with sacrebleu's defaults: its tokeniser 13a, mixed case, exponential smoothing.

    Args:
        candidates: N texts.
        references: N texts, one a candidate.
        order: the longest n-gram, 1 to 4.

    Returns:
        A corpus value, 0 to 100; the note is sacrebleu's signature.

    Raises:
        EvaluationError: the lengths differ, the order is out of range, or sacrebleu is missing.
    """
    check_pairs(f"bleu-{order}", candidates, references)
    check_order(order)
    metric = require("bleu", "sacrebleu.metrics", "sacrebleu").BLEU(max_ngram_order=order)
    rows = []
    for candidate, reference in zip(candidates, references, strict=True):
        part = metric.corpus_score([candidate], [[reference]])
        rows.append([*part.counts, *part.totals, part.sys_len, part.ref_len])

    def combine(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([_from_counts(metric, row, order) for row in sums.astype(np.int64)], dtype=np.float64)

    note = f"0 to 100, mean of 1- to {order}-grams; sacrebleu {metric.get_signature()}"
    return corpus_scores(f"bleu-{order}", rows, combine, note)


def _from_counts(metric: Any, row: NDArray[np.int64], order: int) -> float:
    """BLEU from summed counts, totals and lengths."""
    numbers = [int(number) for number in row]
    found = type(metric).compute_bleu(
        numbers[:order], numbers[order:-2], numbers[-2], numbers[-1], smooth_method="exp", max_ngram_order=order
    )
    return float(found.score)


def check_order(order: int) -> None:
    """Raises EvaluationError unless 1 <= order <= 4."""
    if not 1 <= order <= MAX_ORDER:
        raise EvaluationError(f"BLEU of order {order}: use 1 to {MAX_ORDER}")
