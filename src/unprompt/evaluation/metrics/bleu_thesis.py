"""BLEU with the thesis's own tokenisation, as NLTK computes it for a corpus: unsmoothed, with uniform weights."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unprompt.evaluation.metrics.bleu import check_order, each_exp
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
        return from_counts(sums, order)

    note = "0 to 100, NLTK corpus_bleu without smoothing; lower case, punctuation and numbers removed, split at spaces"
    return corpus_scores(name, rows, combine, note)


def from_counts(sums: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """``corpus_bleu`` times 100, of many corpora at once.

    Args:
        sums: (B, 2 * order + 2): matches by n, n-grams by n, words of candidates and of references.
        order: the longest n-gram.

    Returns:
        (B,) values, 0 to 100.
    """
    values = np.zeros(len(sums))
    rows = sums[sums[:, 0] > 0]
    found, total, said, meant = rows[:, :order], rows[:, order:-2], rows[:, -2], rows[:, -1]
    # Where an order has no match NLTK takes the smallest float instead of 0.
    precisions = np.where(found > 0, found / total, sys.float_info.min)
    logs = [math.fsum(math.log(p) / order for p in row) for row in precisions.tolist()]
    brevity = np.where(said > meant, 1.0, each_exp(1 - meant / said))
    values[sums[:, 0] > 0] = 100 * brevity * each_exp(logs)
    return values
