"""What a picture shows, in words: where the first part of a composed prompt comes from."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from unprompt.pictures.split import subject_of
from unprompt.search.results import Neighbour, RankedPrompt
from unprompt.search.retrieve import nearest_by_prompt
from unprompt.search.words import plain_words
from unprompt.types import Hit, Part

VOTERS = 10
"""How many of the nearest distinct prompts have a say."""

SHARPNESS = 20.0
"""A neighbour whose cosine is 0.05 lower than the nearest one's has 1/e of its vote."""

NEAR = 2.0
"""The say of the prompts near the picture together, where that of the neighbours' prompts is 1."""

NEAR_RANK = 10
"""How little the first of the prompts near the picture stand out: their votes go as 1 / (`NEAR_RANK` + rank)."""

HEAD = 0.8
"""How much of its vote a prompt gives to what its subject begins with, up to the first comma."""

CONTAINED = 0.5
"""How much of its vote a prompt gives to a subject whose words its own subject holds."""


def prompt_part(ranked: Sequence[RankedPrompt]) -> Part | None:
    """The best prompt of the library, whole, as a part to start from; None when there is none."""
    return Part(ranked[0].prompt, ranked[0].source, "prompt", 0.0) if ranked else None


def subject_from_prompts(
    ranked: Sequence[RankedPrompt],
    neighbours: Sequence[Neighbour],
    artists: Collection[str] = (),
    near: Sequence[Hit] = (),
) -> Part | None:
    """The subject that the prompts near a picture share.

    The nearest pictures' prompts vote for their subjects, weighed by how near they are, and with a part of the vote for
    what these begin with ("a man in a room, blue coat" supports "a man in a room") and for other subjects whose words
    they hold ("woman with a hat" supports "woman"). So do the prompts whose text is near the picture: far from the
    library its neighbours are hubs, near to everything, and show nothing of it. Where no picture is near, the ranked
    prompts vote, weighed by rank.

    Args:
        ranked: the picture's prompts, best first.
        neighbours: its neighbours, nearest first.
        artists: keys of artists known by name, from `unprompt.pictures.names.name_keys`.
        near: prompts whose text is near the picture, nearest first; a hit's id is its prompt.

    Returns:
        A part of kind "subject", with the source of the nearest prompt that has it and its score not set; None when
        no prompt has one. Equal votes go to the subject that was found first.
    """
    voters = [
        (subject_of(prompt, artists), source, weight) for prompt, source, weight in _voters(ranked, neighbours, near)
    ]
    named: dict[str, tuple[str, str]] = {}  # words -> how they were first written, and by whom
    for text, source, _ in voters:
        for form in (text, _head(text)):
            if plain_words(form):
                named.setdefault(plain_words(form), (form, source))
    if not named:
        return None
    votes = {words: math.fsum(weight * _support(text, words) for text, _, weight in voters) for words in named}
    text, source = named[max(votes, key=votes.__getitem__)]
    return Part(text, source, "subject", 0.0)


def _support(subject: str, words: str) -> float:
    """Which share of its vote a prompt with this subject gives to the subject of these words."""
    own = plain_words(subject)
    if own == words:
        return 1.0
    return HEAD if plain_words(_head(subject)) == words else CONTAINED * (words in own)


def _head(subject: str) -> str:
    return subject.partition(",")[0].strip()


def _voters(
    ranked: Sequence[RankedPrompt], neighbours: Sequence[Neighbour], near: Sequence[Hit]
) -> list[tuple[str, str, float]]:
    """Prompts with their source and weight: the neighbours', the weightiest first, then those near the picture."""
    if not neighbours:
        return [(each.prompt, each.source, 1.0 / rank) for rank, each in enumerate(ranked[:VOTERS], start=1)]
    nearest = list(nearest_by_prompt(neighbours).items())[:VOTERS]
    best = nearest[0][1].hit.score
    weights = _shares([math.exp(SHARPNESS * (found.hit.score - best)) for _, found in nearest])
    voters = [
        (prompt, f"neighbour:{found.hit.id}", weight) for (prompt, found), weight in zip(nearest, weights, strict=True)
    ]
    hits = near[:VOTERS]
    weights = _shares([1.0 / (NEAR_RANK + rank) for rank in range(1, len(hits) + 1)])
    return voters + [(hit.id, "prompts", NEAR * weight) for hit, weight in zip(hits, weights, strict=True)]


def _shares(weights: Sequence[float]) -> list[float]:
    total = math.fsum(weights)
    return [weight / total for weight in weights]
