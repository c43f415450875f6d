"""ROUGE-L (Lin, 2004): F1 of the longest common subsequence, by rouge-score."""

from __future__ import annotations

from collections.abc import Sequence

from unprompt.evaluation.metrics.scores import Scores, check_pairs, mean_scores, require


def rouge_l(candidates: Sequence[str], references: Sequence[str]) -> Scores:
    """F1 of the longest common subsequence of words, 0 to 1.

    rouge-score's own tokeniser sees lower-case runs of a-z and 0-9 alone: texts in other scripts have no words.

    Args:
        candidates: N texts.
        references: N texts, one a candidate.

    Raises:
        EvaluationError: the lengths differ, or rouge-score is missing.
    """
    check_pairs("rouge-l", candidates, references)
    scorer = require("rouge-l", "rouge_score.rouge_scorer", "rouge-score").RougeScorer(["rougeL"], use_stemmer=False)
    values = [scorer.score(r, c)["rougeL"].fmeasure for c, r in zip(candidates, references, strict=True)]
    return mean_scores("rouge-l", values, "F1, 0 to 1; rouge-score, lower case a-z 0-9, no stemming")
