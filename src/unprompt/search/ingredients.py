"""What each ingredient of a default answer would answer by itself: for comparing them with the answer."""

from __future__ import annotations

from collections.abc import Sequence

from unprompt.search.candidates import CAPTION, Found
from unprompt.search.retrieve import rank_prompts
from unprompt.types import Candidate

ANSWERS = ("neighbours", "prompts", "rrf", "composed", "subject", "engine")
"""The nearest picture's prompt, the nearest prompt, the first of both fused, that one with fragments, the shared
subject with fragments, and the learnt ranker's choice. Each captioner's best caption stands beside them, by source."""


def first_answers(found: Found, ranked: Sequence[Candidate]) -> dict[str, str]:
    """The first answer of every ingredient of one picture, "" where it has none.

    Args:
        found: by `unprompt.search.fusion.Fusion.find`, with all ingredients.
        ranked: its candidates, best first.

    Returns:
        The prompts by the names in `ANSWERS`, and those of captioners by their sources: "captioner:NAME". Prompts of
        the library and captions are as they stand there, whatever the policy and the budget.
    """
    fused = rank_prompts(found.neighbours, found.near)
    composed = [each.prompt for each in found.composed] or ["", ""]
    answers = {
        "neighbours": found.neighbours[0].record.prompt if found.neighbours else "",
        "prompts": found.near[0].id if found.near else "",
        "rrf": fused[0].prompt if fused else "",
        "composed": composed[0],
        "subject": composed[1],
        "engine": ranked[0].prompt if ranked else "",
    }
    for caption in found.captions:
        for part in caption.parts:
            if part.kind == CAPTION:
                answers.setdefault(part.source, caption.prompt)
    return answers
