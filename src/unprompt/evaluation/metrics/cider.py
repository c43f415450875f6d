"""CIDEr (Vedantam et al., 2015), the variant with clipping and a length penalty (CIDEr-D), by pycocoevalcap."""

from __future__ import annotations

from collections.abc import Sequence

from unprompt.evaluation.metrics.scores import Scores, check_pairs, mean_scores, require
from unprompt.evaluation.metrics.texts import words

NOTE = "0 to 10, CIDEr-D; lower-case words, not the Penn Treebank's; document frequencies of these references"


def cider(candidates: Sequence[str], references: Sequence[str]) -> Scores:
    """TF-IDF-weighted agreement of 1- to 4-grams, 0 to 10.

    Document frequencies come from the references themselves, so values of different splits do not compare, and an
    n-gram that is in all references weighs nothing: with one reference every value is 0.

    Args:
        candidates: N texts.
        references: N texts, one a candidate.

    Raises:
        EvaluationError: the lengths differ, or pycocoevalcap is missing.
    """
    check_pairs("cider", candidates, references)
    scorer = require("cider", "pycocoevalcap.cider.cider", "pycocoevalcap").Cider()
    if not any(words(reference) for reference in references):
        return mean_scores("cider", [0.0] * len(candidates), NOTE)  # it fails without a single n-gram
    said = {i: [" ".join(words(text))] for i, text in enumerate(candidates)}
    meant = {i: [" ".join(words(text))] for i, text in enumerate(references)}
    _, values = scorer.compute_score(meant, said)
    return mean_scores("cider", values, NOTE)
