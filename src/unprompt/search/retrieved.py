"""Mode "retrieve": the library's best prompt as it stands. No text is encoded, and no captioner is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unprompt.search.candidates import Found
from unprompt.search.evidence import Evidence
from unprompt.search.modes import ComposeInput
from unprompt.search.policy import Policy
from unprompt.search.stored_texts import PushedTexts, StoredTexts, stored_texts
from unprompt.types import Candidate, Part


def retrieved_finals(
    task: ComposeInput, evidence: Sequence[Evidence], policy: Policy, library: StoredTexts | PushedTexts | None = None
) -> list[Candidate]:
    """The prompt that both rankings together prefer for each of Q pictures, within the policy and the budget.

    Args:
        task: its subjects are the library's best prompts, whole.
        evidence: for each picture.
        policy: what stands around a prompt.
        library: where embeddings of prompts are stored.

    Returns:
        Candidates of one part, or of none where the library has nothing. Scores are the cosines of the stored text with
        the picture; 0 where it was cut or nobody stores it, for measuring it would take an encoder.
    """
    starts = task.starts()
    scores = _cosines(starts, evidence, library)
    finals = []
    for start, score in zip(starts, scores, strict=True):
        if start is None:
            finals.append(Candidate("", 0.0))
            continue
        finals.append(Candidate(policy.finish(start.text), score, (replace(start, score=score, gain=score),)))
    return finals


def _cosines(
    starts: Sequence[Part | None], evidence: Sequence[Evidence], library: StoredTexts | PushedTexts | None
) -> list[float]:
    """The cosine of each picture's prompt with it: as the search told it, else of the stored text, else 0."""
    told = [{hit.id: hit.score for hit in each.near} for each in evidence]
    if library is not None:
        untold = [
            [Candidate(start.text, 0.0)] if start is not None and start.text not in scores else []
            for start, scores in zip(starts, told, strict=True)
        ]
        stored = stored_texts(library, [Found(each.neighbours) for each in evidence], untold)
        for scores, own, each in zip(told, stored, evidence, strict=True):
            scores |= {text: float(vector @ each.query.embedding) for text, vector in own.items()}
    return [
        0.0 if start is None else round(scores.get(start.text, 0.0), 6)
        for start, scores in zip(starts, told, strict=True)
    ]
