"""Length in words, to be read beside the references' own: neither more nor less is better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unprompt.evaluation.metrics.scores import Scores, check_pairs, mean_scores


def length(candidates: Sequence[str], references: Sequence[str]) -> Scores:
    """Words of each candidate, split at blanks; the note gives the references' mean.

    Args:
        candidates: N texts.
        references: N texts.

    Raises:
        EvaluationError: the lengths differ.
    """
    check_pairs("length", candidates, references)
    meant = np.mean([len(reference.split()) for reference in references])
    values = [len(candidate.split()) for candidate in candidates]
    return mean_scores("length", values, f"words, split at blanks; the references have {meant:.2f}")
