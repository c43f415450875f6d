"""Mode "retrieve": the library's best prompt as it stands. No text is encoded, and no captioner is asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unprompt.search.candidates import Found
from unprompt.search.consensus import Guesses
from unprompt.search.evidence import Evidence
from unprompt.search.fusion import DEPTH, copied
from unprompt.search.modes import ComposeInput
from unprompt.search.policy import Policy
from unprompt.search.results import RankedPrompt
from unprompt.search.stored_texts import Known, PushedTexts, StoredTexts, stored_texts
from unprompt.types import Candidate, Part


def retrieved_finals(
    task: ComposeInput, evidence: Sequence[Evidence], policy: Policy, library: StoredTexts | PushedTexts | None = None
) -> list[Candidate]:
    """The library's prompt that agrees best with all that was found for each of Q pictures.

    It stands within the policy and the budget; where these leave nothing of it, the next best one is the answer. The
    prompt of a picture that the library holds, or that `copied` knows again, comes before all others.

    Args:
        task: its queries, and what prompts may say; its subjects are not read.
        evidence: for each picture.
        policy: what stands around a prompt.
        library: where embeddings of prompts are stored. Where they are not, the best by rank fusion is the answer.

    Returns:
        Candidates of one part, or of none where the library has nothing. Scores are the cosines of the stored text with
        the picture; 0 where it was cut or nobody stores it, for measuring it would take an encoder.
    """
    evidence = [each.within(DEPTH) for each in evidence]
    guesses = [Guesses.of(each.neighbours, each.near) for each in evidence]
    known = _embeddings(library, evidence, guesses)
    ranked = [_ordered(*each) for each in zip(evidence, guesses, known, strict=True)]
    return [_first_allowed(task, policy, *each) for each in zip(evidence, ranked, known, strict=True)]


def _embeddings(
    library: StoredTexts | PushedTexts | None, evidence: Sequence[Evidence], guesses: Sequence[Guesses]
) -> list[Known]:
    if library is None:
        return [{} for _ in evidence]
    found = [Found(each.neighbours, each.near) for each in evidence]
    return stored_texts(library, found, [[Candidate(text, 0.0) for text in each.texts] for each in guesses])


def _ordered(found: Evidence, guesses: Guesses, known: Known) -> list[RankedPrompt]:
    """One picture's prompts, best first; those that are no guesses, and equal ones, as they were fused."""
    if found.held or any(text not in known for text in guesses.texts):
        return list(found.prompts)
    scores = guesses.agreement(found.query.embedding.astype(np.float64), known)
    if copied(found.neighbours) is not None:
        scores[found.neighbours[0].record.prompt] = np.inf
    return sorted(found.prompts, key=lambda each: -scores.get(each.prompt, -np.inf))


def _first_allowed(
    task: ComposeInput, policy: Policy, found: Evidence, ranked: Sequence[RankedPrompt], known: Known
) -> Candidate:
    """The first of the prompts of which the policy and the budget leave something."""
    for each in ranked:
        text = task.allowed(each.prompt)
        if text.strip():
            score = _cosine(text, found, known)
            return Candidate(policy.finish(text), score, (Part(text, each.source, "prompt", score, score),))
    return Candidate("", 0.0)


def _cosine(text: str, found: Evidence, known: Known) -> float:
    """The cosine of a prompt with the picture: as the search told it, else of the stored text, else 0."""
    told = next((hit.score for hit in found.near if hit.id == text), None)
    if told is None:
        told = float(known[text] @ found.query.embedding) if text in known else 0.0
    return round(told, 6)
