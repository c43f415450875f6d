"""Repetition within a text: seq-rep-n of Welleck et al., "Neural Text Generation with Unlikelihood Training" (2020).

seq-rep-n = 1 - |distinct n-grams| / |n-grams|
"""

from __future__ import annotations

from collections.abc import Sequence

from unprompt.evaluation.metrics.scores import EvaluationError, Scores, check_pairs, mean_scores
from unprompt.evaluation.metrics.texts import words


def repetition(candidates: Sequence[str], references: Sequence[str], *, n: int = 2) -> Scores:
    """The share of a candidate's n-grams of words that stood in it before: 0 for none, towards 1 for a loop.

    Lower is better. The note also counts distinct candidates: a captioner may say the same of every picture.

    Args:
        candidates: N texts.
        references: N texts; they are not read, all metrics take them.
        n: words an n-gram, 1 or more.

    Raises:
        EvaluationError: the lengths differ, or `n` is below 1.
    """
    name = f"repetition-{n}"
    check_pairs(name, candidates, references)
    if n < 1:
        raise EvaluationError(f"repetition of {n}-grams: use 1 or more")
    values = [repeated_share(words(candidate), n) for candidate in candidates]
    note = f"0 to 1, lower is better; {len(set(candidates))} of {len(candidates)} candidates are distinct"
    return mean_scores(name, values, note)


def repeated_share(tokens: Sequence[str], n: int) -> float:
    """seq-rep-n of one text; 0 where it has no n-gram."""
    ngrams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0
