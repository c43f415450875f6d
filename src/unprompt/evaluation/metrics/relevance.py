"""Which of a ranking's entries are relevant: the part that Recall@k, MRR and nDCG@k share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unprompt.evaluation.metrics.fragments import fragment_key, fragments_of
from unprompt.evaluation.metrics.scores import EvaluationError, check_pairs
from unprompt.evaluation.splits import group_key

Rule = tuple[Callable[[str], str], Callable[[str], Collection[str]]]

RULES: dict[str, Rule] = {
    "prompts": (group_key, lambda prompt: {group_key(prompt)}),
    "fragments": (fragment_key, fragments_of),
}
"""What is ranked -> the key of a ranking's entry, and the keys that are relevant to a reference prompt."""

SAYS = {
    "prompts": "a prompt is relevant when it has the reference's words, whatever their case and order",
    "fragments": "a fragment is relevant when it is one of the reference's",
}


class Judged(NamedTuple):
    """One ranking under a relevance rule.

    Attributes:
        hits: (R,) bool, best rank first; of several entries with one key only the first can be relevant.
        total: how many relevant keys there are, ranked or not.
    """

    hits: NDArray[np.bool_]
    total: int


def judge(name: str, rankings: Sequence[Sequence[str]], references: Sequence[str], ranked: str) -> list[Judged]:
    """Judges N rankings against their reference prompts, by the rule of what is `ranked`.

    Raises:
        EvaluationError: the lengths differ, a ranking is a string, or `ranked` is not a key of `RULES`.
    """
    check_pairs(name, rankings, references)
    if ranked not in RULES:
        raise EvaluationError(f"{name} ranks {ranked!r}: use one of {', '.join(RULES)}")
    key_of, relevant_to = RULES[ranked]
    judged = []
    for ranking, reference in zip(rankings, references, strict=True):
        if isinstance(ranking, str):
            raise EvaluationError(f"{name} got the text {ranking[:40]!r} instead of a ranking: give lists of texts")
        relevant, seen, hits = frozenset(relevant_to(reference)), set(), []
        for key in map(key_of, ranking):
            hits.append(key in relevant and key not in seen)
            seen.add(key)
        judged.append(Judged(np.array(hits, dtype=np.bool_), len(relevant)))
    return judged


def check_cutoff(name: str, k: int) -> None:
    """Raises EvaluationError when k is below 1."""
    if k < 1:
        raise EvaluationError(f"{name} at {k}: use a cutoff of 1 or more")


def prefixed(name: str, ranked: str) -> str:
    """The name of a metric over `ranked`: prompts need no saying."""
    return name if ranked == "prompts" else f"{ranked.removesuffix('s')}-{name}"
