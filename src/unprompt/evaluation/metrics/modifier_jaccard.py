"""Jaccard similarity of the modifiers of two prompts (Shen et al., "Prompt Stealing Attacks", 2024).

J = |M(candidate) & M(reference)| / |M(candidate) | M(reference)|
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from unprompt.evaluation.metrics.fragments import modifiers_of
from unprompt.evaluation.metrics.scores import Scores, check_pairs, mean_scores

NOTE = "0 to 1; fragments but the subject's, artists among them; 1 where neither prompt has any"


def modifier_jaccard(candidates: Sequence[str], references: Sequence[str], *, artists: Collection[str] = ()) -> Scores:
    """Modifiers in common, of all that either prompt has, 0 to 1; 1 where neither has any.

    Args:
        candidates: N prompts.
        references: N prompts, one a candidate.
        artists: keys of known artists, as `unprompt.pictures.split.split_prompt` takes them.

    Raises:
        EvaluationError: the lengths differ.
    """
    check_pairs("modifier-jaccard", candidates, references)
    values = []
    for candidate, reference in zip(candidates, references, strict=True):
        said, meant = modifiers_of(candidate, artists), modifiers_of(reference, artists)
        values.append(len(said & meant) / len(said | meant) if said | meant else 1.0)
    return mean_scores("modifier-jaccard", values, NOTE)
