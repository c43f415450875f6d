"""Mode "retrieve": the library's best prompt as it stands. No text is encoded, and no captioner is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unprompt.search.evidence import Evidence
from unprompt.search.modes import ComposeInput
from unprompt.search.policy import Policy
from unprompt.search.stored_texts import StoredTexts
from unprompt.types import Candidate


def retrieved_finals(
    task: ComposeInput, evidence: Sequence[Evidence], policy: Policy, library: StoredTexts | None = None
) -> list[Candidate]:
    """The prompt that both rankings together prefer for each of Q pictures, within the policy and the budget.

    Args:
        task: its subjects are the library's best prompts, whole.
        evidence: for each picture.
        policy: what stands around a prompt.
        library: where embeddings of prompts are stored.

    Returns:
        Candidates of one part, or of none where the library has nothing. Scores are the cosines of the stored text with
        the picture; 0 where it was cut or is not stored on this machine, for measuring it would take an encoder.
    """
    finals = []
    for start, found in zip(task.starts(), evidence, strict=True):
        if start is None:
            finals.append(Candidate("", 0.0))
            continue
        score = round(_cosine(start.text, found, library), 6)
        finals.append(Candidate(policy.finish(start.text), score, (replace(start, score=score, gain=score),)))
    return finals


def _cosine(text: str, found: Evidence, library: StoredTexts | None) -> float:
    """The cosine of a stored prompt with the picture, 0 where it is not known."""
    near = next((hit.score for hit in found.near if hit.id == text), None)
    if near is not None:
        return near
    rows = [each.hit.row for each in found.neighbours if each.record.prompt == text and each.hit.row is not None]
    if library is None or not rows:
        return 0.0
    stored = library.picture_texts(rows[:1])[0].astype(np.float64)
    return float(stored @ found.query.embedding / max(float(np.linalg.norm(stored)), 1e-12))
