"""BLEU with the thesis's own tokenisation, as NLTK computes it for a corpus: unsmoothed, with uniform weights."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unprompt.evaluation.metrics.bleu import check_order
from unprompt.evaluation.metrics.scores import Scores, check_pairs, corpus_scores, require
from unprompt.pictures.thesis_words import thesis_words


def bleu_thesis(candidates: Sequence[str], references: Sequence[str], *, order: int = 4) -> Scores:
    """Corpus BLEU over words in lower case without punctuation and numbers; see `thesis_words`.

    Args:
        candidates: N texts.
        references: N texts, one a candidate.
        order: the longest n-gram, 1 to 4.

    Returns:
        A corpus value, 0 to 100: a hundred times ``nltk.translate.bleu_score.corpus_bleu``.

    Raises:
        EvaluationError: the lengths differ, the order is out of range, or nltk is missing.
    """
    name = f"bleu-thesis-{order}"
    check_pairs(name, candidates, references)
    check_order(order)
    nltk = require(name, "nltk.translate.bleu_score", "nltk")
    rows = []
    for candidate, reference in zip(candidates, references, strict=True):
        said, meant = thesis_words(candidate), thesis_words(reference)
        parts = [nltk.modified_precision([meant], said, n) for n in range(1, order + 1)]
        # The fractions are not reduced: their parts are the counts that NLTK sums over a corpus.
        rows.append([*(p.numerator for p in parts), *(p.denominator for p in parts), len(said), len(meant)])

    def combine(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([_from_counts(row, order) for row in sums], dtype=np.float64)

    note = "0 to 100, NLTK corpus_bleu without smoothing; lower case, punctuation and numbers removed, split at spaces"
    return corpus_scores(name, rows, combine, note)


def _from_counts(row: NDArray[np.float64], order: int) -> float:
    """``corpus_bleu`` from summed numerators, denominators and lengths, times 100."""
    found, total, (said, meant) = row[:order], row[order:-2], row[-2:]
    if found[0] == 0:
        return 0.0
    # Where an order has no match NLTK takes the smallest float instead of 0.
    logs = [math.log(f / t) if f else math.log(sys.float_info.min) for f, t in zip(found, total, strict=True)]
    brevity = 1.0 if said > meant else math.exp(1 - meant / said)
    return float(100 * brevity * math.exp(math.fsum(log / order for log in logs)))
