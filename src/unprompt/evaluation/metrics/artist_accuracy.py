"""Whether a candidate names the artists that the picture was made after."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from unprompt.evaluation.metrics.fragments import artists_of
from unprompt.evaluation.metrics.scores import Scores, check_pairs, mean_scores


def artist_accuracy(candidates: Sequence[str], references: Sequence[str], *, artists: Collection[str] = ()) -> Scores:
    """The share of the reference's artists that the candidate credits, 0 to 1; NaN where the reference has none.

    Naming more artists is not punished here; `modifier_jaccard` and `repetition` see it.

    Args:
        candidates: N prompts.
        references: N prompts, one a candidate.
        artists: keys of known artists, as `unprompt.pictures.split.split_prompt` takes them.

    Raises:
        EvaluationError: the lengths differ.
    """
    check_pairs("artist-accuracy", candidates, references)
    values = []
    for candidate, reference in zip(candidates, references, strict=True):
        meant = artists_of(reference, artists)
        values.append(len(meant & artists_of(candidate, artists)) / len(meant) if meant else float("nan"))
    named = sum(value == value for value in values)
    return mean_scores("artist-accuracy", values, f"0 to 1; over the {named} references that credit an artist")
