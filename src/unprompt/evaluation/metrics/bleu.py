"""BLEU as sacrebleu computes it (Papineni et al., 2002; Post, 2018).

BLEU-n = 100 * BP * exp(1/n * sum_{i<=n} log p_i),   BP = min(1, exp(1 - |references| / |candidates|))
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unprompt.evaluation.metrics.scores import EvaluationError, Scores, check_pairs, corpus_scores, require

MAX_ORDER = 4
LOG_OF_0 = -9999999999.0
"""What sacrebleu takes for it."""


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
        return from_counts(sums, order)

    note = f"0 to 100, mean of 1- to {order}-grams; sacrebleu {metric.get_signature()}"
    return corpus_scores(f"bleu-{order}", rows, combine, note)


def from_counts(sums: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """sacrebleu's ``compute_bleu`` with exponential smoothing, to its last digit, for many corpora at once.

    A test of two systems asks for twenty thousand; sacrebleu takes them one by one.

    Args:
        sums: (B, 2 * order + 2) of whole numbers: matches by n, n-grams by n, words of candidates and of references.
        order: the longest n-gram.

    Returns:
        (B,) values, 0 to 100.
    """
    found, total = sums[:, :order], sums[:, order : 2 * order]  # (B, order)
    said, meant = sums[:, -2], sums[:, -1]
    missed = (found == 0) & (total > 0)
    smoothed = np.where(missed, 2.0 ** np.cumsum(missed, axis=1) * total, total)
    precisions = np.where(missed, 100.0, 100.0 * found) / np.where(total > 0, smoothed, 1.0)
    precisions[np.cumsum(total == 0, axis=1) > 0] = 0.0
    # A logarithm of NumPy may differ in the last digit from one machine to the next.
    logs = [[math.log(p) if p else LOG_OF_0 for p in row] for row in precisions.tolist()]
    means = each_exp([sum(row) / order for row in logs])
    short = (said < meant) & (said > 0)
    penalty = np.where(said < meant, 0.0, 1.0)
    penalty[short] = each_exp(1 - meant[short] / said[short])
    return np.where(found.any(axis=1), penalty * means, 0.0)


def each_exp(values: ArrayLike) -> NDArray[np.float64]:
    """e to the power of each value, as Python's `math` has it."""
    return np.array([math.exp(value) for value in np.asarray(values).tolist()], dtype=np.float64)


def check_order(order: int) -> None:
    """Raises EvaluationError unless 1 <= order <= 4."""
    if not 1 <= order <= MAX_ORDER:
        raise EvaluationError(f"BLEU of order {order}: use 1 to {MAX_ORDER}")
